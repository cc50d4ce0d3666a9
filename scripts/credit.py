"""``kappa-rtl credit``: the experiments on credit methods."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..golden.credit.methods import METHODS
from ..sim.runner import SIMULATORS, SimulationError
from .experiments.credit.experiments import EXPERIMENTS
from .experiments.credit.run import DATAPATHS, credit
from .interrupts import interruptible
from .outputs import Folder


@click.command("credit")
@click.argument("experiment", type=click.Choice(list(EXPERIMENTS)))
@click.option("--full", is_flag=True, help="The published sizes: hours, where the default takes minutes.")
@click.option("--seeds", type=click.IntRange(1, 10_000), help="How many seeds (default 3; boundary and throttle: 1).")
@click.option(
    "--jobs", type=click.IntRange(1, 1024), default=os.cpu_count() or 1, show_default="one a processor", help="Runs at a time."
)
@click.option("--steps", type=click.IntRange(1, 10**7), help="Training steps of every task, in place of its own number.")
@click.option(
    "--cifar",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="frozen, online: a folder with CIFAR-10's data_batch_1.bin .. 5 and test_batch.bin, in place of digits.",
)
@click.option(
    "--method", "methods", multiple=True, type=click.Choice(list(METHODS)), help="throttle: this method; may be repeated."
)
@click.option("--bits", multiple=True, type=click.IntRange(0, 24), help="throttle: this many bits, 0 for float; may be repeated.")
@click.option(
    "--datapath",
    type=click.Choice(DATAPATHS),
    default="golden",
    show_default=True,
    help="throttle: what makes fixed-point updates: float scalars on rounded tensors, the golden model, or the simulated RTL.",
)
@click.option(
    "--sim", type=click.Choice(SIMULATORS), default="verilator", show_default=True, help="The simulator of --datapath rtl."
)
@click.option("--out", type=Folder(), help="The folder to write (default credit/EXPERIMENT).")
def command(
    experiment: str,
    full: bool,
    seeds: int | None,
    jobs: int,
    steps: int | None,
    cifar: Path | None,
    methods: tuple[str, ...],
    bits: tuple[int, ...],
    datapath: str,
    sim: str,
    out: Path | None,
) -> None:
    """Run an EXPERIMENT on credit methods: a table with the published figures beside ours, a plot, every run's numbers.

    \b
    lq        every method on the linear-quadratic system
    ladder    students from linear to tanh, trained by each method
    audit     the vector field with shuffled targets, no terminal term, one-sided differences
    boundary  the credit bridge's code, terminal weight and warm-up
    frozen    methods fitted to a frozen network, on digits or CIFAR-10
    online    students trained by each method, on digits or CIFAR-10
    throttle  update fields through the throttle, by method, precision and law

    An interrupted experiment goes on where it was when it is called again.

    \b
    Example:
      kappa-rtl credit lq
      kappa-rtl credit online --cifar cifar-10-batches-bin --full --seeds 1
      kappa-rtl credit throttle --datapath rtl --method state_bridge --bits 10 --out build/throttle
    """
    out = out or Path("credit") / (f"{experiment}-full" if full else experiment)
    try:
        with interruptible():
            outcome = credit(
                experiment,
                out,
                full=full,
                seeds=seeds,
                jobs=jobs,
                steps=steps,
                cifar=str(cifar) if cifar else "",
                methods=methods,
                bits=bits,
                datapath=datapath,
                simulator=sim,
            )
    except OSError as error:
        raise click.ClickException(f"out = {str(out)!r} must be a folder that can be written: {error}") from None
    except (ValueError, SimulationError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(outcome.table)
    click.echo(f"\nplot: {outcome.folder / 'plot.png'}")
