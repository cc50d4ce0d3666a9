"""``kappa-rtl explore``: which widths a training survives, and what they cost."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import click

from ..golden.files import write_atomically
from ..hw.synth.synthesis import SynthesisError
from .experiments.explore import SYNTH
from .interrupts import interruptible
from .outputs import Folder
from .settings import USED, read

DEFAULT = Path("explore")

PAGE = "index.html"
FILES = (PAGE, "points.csv", "points.parquet", "unit.toml")


@click.command("explore")
@click.argument("space", required=False, metavar="[SPACE.toml]", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--out", type=Folder(), default=DEFAULT, show_default=True, help="The folder to write.")
@click.option(
    "--executor",
    default="local",
    show_default=True,
    metavar="local|dask|tcp://HOST:PORT",
    help="Where runs are computed: processes here, a Dask cluster here, or that of a scheduler.",
)
@click.option("--jobs", type=click.IntRange(1, 1024), help="Processes here (default: as many as there are processors).")
@click.option(
    "--search", type=click.IntRange(0, 100_000), default=0, metavar="N", help="Let Optuna choose N points of the space."
)
@click.option("--seeds", type=click.IntRange(1, 10_000), default=3, show_default=True, help="Runs of each point.")
@click.option("--within", type=click.FloatRange(0), default=0.01, show_default=True, help="Of float, to be good enough.")
@click.option(
    "--probability",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.75,
    show_default=True,
    help="That another seed is, too.",
)
@click.option(
    "--synth",
    type=click.Choice(SYNTH),
    default="none",
    show_default=True,
    help="Synthesise and place the units on the fronts, or all, in the place of estimates.",
)
def command(
    space: Path | None,
    out: Path,
    executor: str,
    jobs: int | None,
    search: int,
    seeds: int,
    within: float,
    probability: float,
    synth: str,
) -> None:
    """Train a network on many formats, and say which widths are enough and what they cost.

    Without a file: the digits of `make run`, weights of 4 to 16 bits, rounded to nearest, at random or with a residual, with a
    throttle and without; two minutes on two cores. A file has the table [explore], in which every key is a value or a list of
    them, beside [data], [model], [training] and [throttle]; docs/explore.md.

    Leaves index.html, an interactive page; points.csv and points.parquet, a row a point and unit; unit.toml, the least widths
    that are good enough. A search that was interrupted, however it was, goes on where it was.

    \b
    Example:
      kappa-rtl explore
      kappa-rtl explore space.toml --out build/widths --seeds 8 --probability .9
      kappa-rtl explore space.toml --search 60 --executor tcp://10.0.0.7:8786
    """
    from .experiments.explore.measure import measured
    from .experiments.explore.measure import ready as can_measure
    from .experiments.explore.recommend import check as enough
    from .experiments.explore.run import explore
    from .experiments.explore.space import Axes
    from .experiments.explore.store import LOCK
    from .experiments.vega import ready

    try:
        ready()
        enough(within, probability, seeds)
        for name in FILES:
            if (out / name).is_dir():
                raise ValueError(f"out = {str(out)!r} must have no folder {name}, which is a file of this command")
        foreign = [name for name in FILES if (out / name).exists()]
        if foreign and not (out / LOCK).exists():
            raise ValueError(
                f"out = {str(out)!r} must have no {foreign[0]} of somebody else, and there is one where no search was"
            )
        settings = read(space)
        can_measure(synth, Axes(target=settings["explore"].get("target", "ecp5")).target)
        settings.tell_unused("explore", USED["explore"])
        with interruptible():
            outcome = explore(settings, out, executor=executor, jobs=jobs or processors(), search=search, seeds=seeds)
            if synth != "none":
                outcome = replace(outcome, measured=measured(outcome, synth, out))
            best = outcome.recommend(within=within, probability=probability)
            outcome.to_csv(out / "points.csv")
            outcome.to_parquet(out / "points.parquet")
            if best is not None:
                write_atomically(out / "unit.toml", best.toml)
            else:
                (out / "unit.toml").unlink(missing_ok=True)  # of an answer that holds no longer
            write_atomically(out / PAGE, outcome.page(within=within, probability=probability))
    except OSError as error:
        raise click.ClickException(f"out = {str(out)!r} must be a folder that can be written: {error}") from None
    except (ValueError, SynthesisError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(outcome.text())
    if best is None:
        several = "" if seeds == 1 else "s"
        click.echo(f"\nno point is within {within:g} of float with a probability of {probability:g} over {seeds} seed{several}")
    else:
        click.echo(f"\nthe least: {best}\n\n  kappa-rtl export --config {out / 'unit.toml'} -o {out / 'throttle.v'}")
    if outcome.calibration.rule is not None:
        click.echo(f"\nfor comparison, {outcome.calibration.rule}")
    click.echo(f"\npage: {out / PAGE}")


def processors() -> int:
    """How many runs this machine computes at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
