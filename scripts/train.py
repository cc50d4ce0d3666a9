"""``kappa-rtl train``: the experiments of the training harness."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import click

from ..sim.runner import SIMULATORS, SimulationError
from .experiments.training.catalogue import EXPERIMENTS
from .experiments.training.run import DATAPATHS, train
from .interrupts import interruptible
from .outputs import Folder
from .settings import HELP, USED, read


def _help() -> str:
    """What the command says of itself, with the first sentence of each experiment."""
    width = max(map(len, EXPERIMENTS)) + 2
    lines = []
    for name, make in EXPERIMENTS.items():
        first = (inspect.getdoc(make) or "").split("\n\n")[0].replace("\n", " ").split("; see :")[0]
        lines += textwrap.wrap(f"{name:{width}}{first}", 100, subsequent_indent=" " * width)
    return "\n".join(
        [
            "Run an experiment: a table, a plot, and the history of every run.",
            "\n\b",
            *lines,
            "\nAn interrupted experiment goes on where it was when it is called again.",
            "\n\b",
            "Example:",
            "  kappa-rtl train 000",
            "  kappa-rtl train 000C --datapath rtl --out build/000C",
            "  kappa-rtl train curvature --full --jobs 2",
            "  kappa-rtl train data --data houses.csv",
            "  kappa-rtl train data --config my.toml",
        ]
    )


@click.command("train", help=_help())
@click.argument("experiment", type=click.Choice(list(EXPERIMENTS)))
@click.option(
    "--datapath",
    type=click.Choice(DATAPATHS),
    help="What makes the updates: float scalars on rounded tensors, the golden model, or the simulated RTL (default: what the "
    "experiment is for).",
)
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=HELP)
@click.option("--seeds", type=click.IntRange(1, 10_000), help="How many seeds (default: the experiment's own).")
@click.option("--steps", type=click.IntRange(1, 10**6), help="Training steps after any warm-up.")
@click.option(
    "--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="data: the file, .csv or .npz; docs/data.md."
)
@click.option("--outputs", type=click.IntRange(1), help="data: how many columns at the end of a .csv are targets (default 1).")
@click.option("--full", is_flag=True, help="curvature: every task, width, rounding and chi; more than an hour on two cores.")
@click.option("--targets", is_flag=True, help="000 and 000C: scale the targets as the inputs drift (default: keep them).")
@click.option(
    "--sim", type=click.Choice(SIMULATORS), default="verilator", show_default=True, help="The simulator of --datapath rtl."
)
@click.option("--jobs", type=click.IntRange(1, 1024), default=1, show_default=True, help="Runs at a time.")
@click.option("--figures", is_flag=True, help="Also draw every run's own history, beside it.")
@click.option("--out", type=Folder(), help="The folder to write (default train/EXPERIMENT-DATAPATH).")
def command(
    experiment: str,
    datapath: str | None,
    config: Path | None,
    seeds: int | None,
    steps: int | None,
    data: Path | None,
    outputs: int | None,
    full: bool,
    targets: bool,
    sim: str,
    figures: bool,
    jobs: int,
    out: Path | None,
) -> None:
    made: dict[str, Any] = {} if steps is None else {"steps": steps}
    if full:
        if experiment != "curvature":
            raise click.UsageError(f"--full is for curvature, not {experiment}")
        made["full"] = True
    if targets:
        if experiment not in ("000", "000C"):
            raise click.UsageError(f"--targets is for 000 and 000C, not {experiment}")
        made["targets"] = True
    if experiment != "data" and (data is not None or outputs is not None):
        raise click.UsageError("--data and --outputs are for the experiment data alone")
    if experiment == "data" and data is None and config is None:
        raise click.UsageError("the experiment data needs --data FILE, or --config with a table [data]")
    made |= {} if data is None else {"file": str(data)}
    made |= {} if outputs is None else {"outputs": outputs}
    try:
        used = [name for name in USED["train"] if experiment == "data" or name not in ("data", "model")]
        read(config).tell_unused(f"train {experiment}", used)
        with interruptible():
            outcome = train(
                experiment, out, datapath=datapath, seeds=seeds, config=config, simulator=sim, figures=figures, jobs=jobs, **made
            )
    except OSError as error:
        raise click.ClickException(f"out = {str(out or 'train')!r} must be a folder that can be written: {error}") from None
    except (ValueError, SimulationError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(outcome.table)
    click.echo(f"\nplot: {outcome.folder / 'plot.png'}")
