"""``kappa-rtl cosim``: the main job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..sim.runner import SIMULATORS, SimulationError
from .experiments.cosim.job import EXPERIMENTS, Job
from .experiments.cosim.run import DIFFERENCE_OUTPUTS, cosimulate
from .interrupts import interruptible
from .outputs import Folder
from .settings import HELP, USED, read

SHOWN = (("accuracy", "accuracy", ".3f"), ("accuracy_held_out", "held out", ".3f"), ("loss_held_out", "held-out loss", ".4g"))
"""What is told of a run beside its loss, where it has it."""


class HeldOut(click.ParamType[int | float]):
    """A number of rows, or a share with a decimal point."""

    name = "rows"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | float:
        try:
            return float(value) if "." in str(value) else int(value)
        except ValueError:
            self.fail(f"{value!r} must be a number of rows, or a share such as 0.2", param, ctx)


@click.command("cosim")
@click.option("--experiment", type=click.Choice(EXPERIMENTS), help="The data: handwritten digits (default), or a small teacher.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=HELP)
@click.option("--steps", type=int, help="Training steps (default 300).")
@click.option("--lanes", type=int, help="Elements a clock cycle, 1..32 (default 8).")
@click.option("--seed", type=int, help="Seed of data, minibatches and stalls (default 0).")
@click.option("--batch", type=int, help="Rows a step, drawn with replacement; 0, the default, is the full batch.")
@click.option("--held-out", type=HeldOut(), help="Rows, or the share of them, that no step trains on; told too (default 0).")
@click.option("--sim", type=click.Choice(SIMULATORS), help="The simulator (default verilator).")
@click.option("--idle", type=int, help="Chance of 256, a cycle, that a producer idles (default 0).")
@click.option("--stall", type=int, help="Chance of 256, a cycle, that ready is withheld (default 0).")
@click.option("--out", type=Folder(), default=Path("run"), show_default=True, help="The folder to write.")
@click.option(
    "--wave", type=int, is_flag=False, flag_value=0, help="Keep the RTL's waveform, from this step on (default: from 0)."
)
@click.option(
    "--verilog", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Simulate this file, not a fresh export."
)
@click.option(
    "--resume", is_flag=True, help="Go on with an interrupted run in --out, from what it has saved; only steps may differ."
)
def command(out: Path, wave: int | None, verilog: Path | None, resume: bool, config: Path | None, **changes: Any) -> None:
    """Train real data with the RTL as the throttle, the golden model in lockstep, float beside them.

    Every register, counter, update and weight is compared at every step. At the first difference the run stops with a
    report, a waveform of that step, and exit status 1.

    \b
    Example:
      kappa-rtl cosim --out run
      kappa-rtl cosim --experiment synthetic --steps 200 --lanes 4 --sim icarus --out run
    """
    try:
        if resume and config is None and (out / "config.toml").exists():
            config = out / "config.toml"
        with interruptible("--resume goes on from there", (out / "trace.jsonl").exists):
            settings = read(config)
            settings.tell_unused("cosim", USED["cosim"])
            job = Job.of(settings, **changes)
            for note in job.notes:
                click.echo(note)
            outcome = cosimulate(job, out, wave_from=wave, verilog=verilog, resume=resume)
    except OSError as error:
        raise click.ClickException(f"out = {str(out)!r} must be a folder that can be written: {error}") from None
    except (ValueError, SimulationError, FloatingPointError) as error:
        raise click.ClickException(str(error)) from None
    if outcome.difference:
        click.echo(f"DIFFERENCE: {outcome.difference}", err=True)
        click.echo(f"  see {', '.join(str(out / name) for name in DIFFERENCE_OUTPUTS if (out / name).exists())}", err=True)
        sys.exit(1)
    for run in outcome.runs.values():
        fate = f"diverges at step {run.diverged_at}" if run.diverged_at is not None else f"loss {run['loss'][-1]:.4g}"
        for metric, said, form in SHOWN:
            value = run.tail(metric) if run.diverged_at is None else None
            fate += f", {said} {value:{form}}" if value is not None else ""
        click.echo(f"{run.title:22s} {fate}")
    click.echo(f"golden = RTL: 0 differences in {outcome.compared:,} values over {outcome.compared_steps:,} steps")
    click.echo(f"report: {outcome.report}")
