"""``kappa-rtl credit``: the experiments on credit methods."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ..golden.credit.methods import METHODS
from ..sim.runner import SIMULATORS, SimulationError
from . import settings
from .experiments.credit.experiments import MAKERS
from .experiments.credit.plan import PUBLISHED_SEEDS, USES
from .experiments.credit.run import DATAPATHS, credit
from .experiments.credit.throttling import LAWS
from .interrupts import interruptible
from .outputs import Folder


@click.command("credit")
@click.argument("experiment", type=click.Choice(list(MAKERS)))
@click.option(
    "--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=f"The table [credit]. {settings.HELP}"
)
@click.option("--full", is_flag=True, help="The published sizes: hours, where the default takes minutes.")
@click.option("--seeds", type=click.IntRange(1, 10_000), help="How many seeds: 42, 123, 456, then 0, 1, ...")
@click.option("--seed", "seed", multiple=True, type=click.IntRange(0), help="This seed, in place of those; may be repeated.")
@click.option("--width", type=click.IntRange(1), help="Of the states.")
@click.option("--depth", "depths", multiple=True, type=click.IntRange(1), help="So many blocks; may be repeated.")
@click.option("--activation", "activations", multiple=True, help="gelu, tanh, relu or phi:ALPHA; may be repeated.")
@click.option("--matrices", type=click.IntRange(1, 2), help="Of a block: two, or one as in our former runs.")
@click.option("--steps", type=click.IntRange(1, 10**7), help="Training steps of every task.")
@click.option("--epochs", type=click.IntRange(1, 10**6), help="Epochs, in place of steps.")
@click.option("--batch", type=click.IntRange(1), help="Samples of a step.")
@click.option("--samples", type=click.IntRange(1), help="Of the made data to train on.")
@click.option("--sigma", type=float, help="lq: the noise.")
@click.option("--warm-up", "warmups", multiple=True, type=float, help="The share of the steps that dfa begins; scan: repeat it.")
@click.option("--terminal", "terminals", multiple=True, type=float, help="Weight of the gradient at L; scan: repeat it.")
@click.option("--rows", type=click.IntRange(1), help="Pairs of sample and layer that an estimator learns from in a step.")
@click.option("--rate", type=float, help="Adam's, of the students; throttle: eta.")
@click.option(
    "--cifar",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with CIFAR-10's data_batch_1.bin .. 5 and test_batch.bin, in place of digits.",
)
@click.option(
    "--method", "methods", multiple=True, type=click.Choice(list(METHODS)), help="throttle: this method; may be repeated."
)
@click.option("--bits", multiple=True, type=click.IntRange(0, 24), help="throttle: this many bits, 0 for float; may be repeated.")
@click.option("--law", "laws", multiple=True, type=click.Choice(LAWS), help="throttle: this law; may be repeated.")
@click.option(
    "--jobs", type=click.IntRange(1, 1024), default=os.cpu_count() or 1, show_default="one a processor", help="Runs at a time."
)
@click.option(
    "--datapath",
    type=click.Choice(DATAPATHS),
    default="golden",
    show_default=True,
    help="throttle: what makes fixed-point updates: the golden model, or the simulated RTL.",
)
@click.option(
    "--sim", type=click.Choice(SIMULATORS), default="verilator", show_default=True, help="The simulator of --datapath rtl."
)
@click.option("--out", type=Folder(), help="The folder to write (default credit/EXPERIMENT).")
def command(
    experiment: str,
    config: Path | None,
    full: bool,
    seeds: int | None,
    seed: tuple[int, ...],
    jobs: int,
    datapath: str,
    sim: str,
    out: Path | None,
    cifar: Path | None,
    **sizes: Any,
) -> None:
    """Run an EXPERIMENT on credit methods: a table with the published figures beside ours, pictures, every run's numbers.

    \b
    lq        every method on the linear-quadratic system
    ladder    students from linear to tanh, trained by each method
    audit     the vector field with shuffled targets, no terminal term, one-sided differences
    boundary  the credit bridge's code, terminal weight and warm-up
    forms     the same in blocks of one matrix and of two: what hangs on the network
    frozen    methods fitted to a frozen network, on digits or CIFAR-10
    online    students trained by each method, on digits or CIFAR-10
    depth     the same with 2 to 12 blocks
    scan      the credit bridge online, by warm-up and terminal weight
    main      the published main run: 12 blocks of 512
    throttle  update fields through the throttle, by method, precision and law

    An interrupted experiment goes on where it was when it is called again.

    \b
    Example:
      kappa-rtl credit lq
      kappa-rtl credit ladder --activation phi:1 --depth 2 --depth 8 --seeds 1
      kappa-rtl credit main --cifar cifar-10-batches-bin --full --seed 42
      kappa-rtl credit throttle --datapath rtl --method state_bridge --bits 10 --out build/throttle
    """
    out = out or Path("credit") / (f"{experiment}-full" if full else experiment)
    try:
        file = settings.read(config)
        file.tell_unused("credit", settings.USED["credit"])
        given = {name: value for name, value in sizes.items() if value not in (None, ())}
        if cifar:
            given["cifar"] = str(cifar)
        if seeds and seed:
            raise ValueError("seeds and seed must not both be given")
        if seeds:
            given["seeds"] = tuple(dict.fromkeys((*PUBLISHED_SEEDS, *range(seeds))))[:seeds]
        if seed:
            given["seeds"] = seed
        kept = {name: value for name, value in file["credit"].items() if name in USES[experiment]}
        for one, other in (("steps", "epochs"), ("epochs", "steps")):  # either is given in the place of both
            if one in given:
                kept.pop(other, None)
        changes = kept | given
        with interruptible():
            outcome = credit(experiment, out, full=full, jobs=jobs, datapath=datapath, simulator=sim, **changes)
    except OSError as error:
        raise click.ClickException(f"out = {str(out)!r} must be a folder that can be written: {error}") from None
    except (ValueError, SimulationError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(outcome.table)
    click.echo(f"\npictures: {outcome.folder / 'plot.png'}, {outcome.folder / 'curves.png'}")
