"""``kappa-rtl energy``: what a step of a real training run costs in switching, in the cells of a library."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import click
import numpy as np

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..golden.throttle import Throttle
from ..hw.energy.figures import Figures, figures, parts_table, runs_table
from ..hw.energy.fit import fitted
from ..hw.energy.library import Library
from ..hw.synth.costs import renewed, text
from ..hw.synth.energy import EnergyFit, energy_fit, kind_of
from ..hw.synth.estimate import estimate
from ..hw.synth.synthesis import SynthesisError, version
from ..hw.synth.targets import liberty
from ..sim import runner
from ..sim.gates import Recorded, cells_of, netlist_of, step_activity
from ..sim.runner import SimulationError
from .experiments.cosim.arms import LayerRun
from .experiments.cosim.job import EXPERIMENTS, NARROW, Job
from .outputs import Output
from .progress import stage
from .settings import HELP, USED, read

FORMATS = {
    8: NARROW,
    12: {"gradient": "SQ2.12", "weight": "SQ2.10", "update": "SQ1.12"},
    16: {"gradient": "SQ4.12", "weight": "SQ2.14", "update": "SQ1.15"},
}
"""The vectors that go with weights of so many bits."""

ROUNDINGS = {"nearest": ("release", "nearest"), "stochastic": ("stochastic",), "residual": ("residual",)}
"""What becomes of an update that rounding would swallow, and what a job calls that run."""

STEP = 100
"""In the midst of the digits' 300 steps, while the exposure drifts."""

SHOWN = (16, "nearest")
"""The run whose parts are shown, if it is among those that were made."""


def recorded(job: Job, config: ThrottleConfig, step: int) -> Recorded:
    """A step of a job's training on the golden unit, with the one before.

    Raises:
        ValueError: the run has diverged by then.
    """
    unit = Throttle(config, job.start(config))
    run = LayerRun(job, unit)
    weights, gradients, alphas = [], [], []
    residual: Any = None
    for number in range(step + 1):
        if number == step:
            residual = unit.state_dict()["shards"]["0"]["residual"]
        weights.append(np.asarray(unit.theta).copy())
        row = next(run, None)
        if row is None or row.diverged:
            raise ValueError(f"step must be one of the run, which ends at step {number}, not {step}")
        gradients.append(row.gradient)
        alphas.append(Fraction(float(row.record.registers.alpha)))
    return Recorded(step, (weights[-2], weights[-1]), (gradients[-2], gradients[-1]), residual, alphas[-2])


def unit(job: Job, rounding: str) -> ThrottleConfig:
    """The unit of a job's run of that rounding."""
    configs = job.narrow_runs
    return next(configs[name] for name in ROUNDINGS[rounding] if name in configs)


def measured(job: Job, rounding: str, step: int, path: Path, library: Library) -> Figures:
    """The figures of a step of a job's run of that rounding, on the netlist in the library of a liberty file.

    Raises:
        SimulationError: see :func:`~kappa_rtl.sim.gates.step_activity`.
        SynthesisError: Yosys is missing or fails.
    """
    config = unit(job, rounding)
    weight = f"{config.grids.weight.width} bits"
    with stage(f"{weight}, {rounding}: training"):
        vectors = recorded(job, config, step)
    with stage(f"{weight}, {rounding}: mapping onto {library.name}"):
        netlist = netlist_of(config, path)
    with stage(f"{weight}, {rounding}: simulating the gates"), tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        activity, moved = step_activity(config, vectors, netlist, library, cells_of(path), Path(folder))
    about = {"weight": weight, "rounding": rounding, "elements": config.elements, "lanes": config.lanes}
    return figures(netlist, library, activity, **about, step=step, moved=moved)


def document(job: Job, library: Library, found: Sequence[Figures]) -> str:
    """What ``--out`` writes; energies in pJ."""
    about = {
        "tools": {"yosys": version("yosys"), "icarus": runner.version("icarus")},
        "library": {"name": library.name, "voltage": library.voltage},
        "experiment": job.name,
        "mantissa_bits": job.throttle.mantissa_bits,
    }
    return json.dumps(about | {"runs": [f.to_json() for f in found]}, indent=1) + "\n"


def read_figures(path: Path) -> list[Figures]:
    """The figures in a file that ``--out`` wrote.

    Raises:
        ValueError: it is no such file.
    """
    try:
        return [Figures.from_json(run) for run in json.loads(path.read_text())["runs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"out must name a file of kappa-rtl energy with --measured, not {str(path)!r}: {error}") from None


def tables(found: Sequence[Figures]) -> dict[str, Sequence[tuple[str, ...]]]:
    """The tables of a page, by their marks."""
    parts = next((f for f in found if f.name == f"{SHOWN[0]} bits, {SHOWN[1]}"), found[0])
    return {"energy": runs_table(found), "energy parts": parts_table(parts)}


def units(job: Job, found: Sequence[Figures]) -> list[ThrottleConfig]:
    """The unit of each run."""
    made = []
    for f in found:
        one = replace(job, narrow=FORMATS[int(f.weight.split()[0])], throttle=replace(job.throttle, lanes=f.lanes))
        made.append(unit(one, f.rounding))
    return made


def estimates(found: Sequence[Figures], configs: Sequence[ThrottleConfig], fit: EnergyFit) -> list[tuple[str, ...]]:
    """How far the estimate of each run is off, as rows of a table."""
    rows: list[tuple[str, ...]] = [
        ("weights", "rounding", "lanes", "simulated, nJ", "estimated, nJ", "clock off", "data off", "off")
    ]
    for f, config in zip(found, configs, strict=True):
        cost = estimate(config)
        kind, bits = kind_of(config), config.grids.weight.width
        clock, data = fit.parts(kind, weight_bits=bits, elements=f.elements, registers=cost.ff, cycles=cost.cycles)
        off = (1e3 * clock / f.clock - 1, 1e3 * data / f.data - 1, 1e3 * (clock + data) / (f.clock + f.data) - 1)
        whole = (f"{1e-3 * (f.clock + f.data):.0f}", f"{clock + data:.0f}")
        rows.append((f.weight, f.rounding, str(f.lanes), *whole, *(f"{one:+.0%}" for one in off)))
    return rows


@click.command("energy")
@click.option("--config", type=click.Path(exists=True, dir_okay=False, path_type=Path), help=HELP)
@click.option("--experiment", type=click.Choice(EXPERIMENTS), help="What is trained (default digits).")
@click.option(
    "--bits", type=click.Choice([str(bits) for bits in FORMATS]), multiple=True, default=("8", "12", "16"), show_default=True,
    help="Of a weight; may be given again.",
)  # fmt: skip
@click.option(
    "--rounding", type=click.Choice(list(ROUNDINGS)), multiple=True, default=tuple(ROUNDINGS), show_default=True,
    help="What becomes of an update that rounding would swallow: lost, rounded at random, kept in part.",
)  # fmt: skip
@click.option("--lanes", type=click.IntRange(1, 32), default=2, show_default=True, help="Elements a clock cycle.")
@click.option("--step", type=click.IntRange(1), default=STEP, show_default=True, help="The step of the run that is counted.")
@click.option("--seed", type=int, help="Seed of data and minibatches (default 0).")
@click.option(
    "--liberty", "path", type=click.Path(path_type=Path), help="The cell library of osu018, its cells' Verilog beside it."
)
@click.option(
    "--page",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Renew the tables of this Markdown page, between <!-- energy --> and <!-- end -->.",
)
@click.option("--out", type=Output(".json"), help="Write the figures here too, after each run; energies in pJ.")
@click.option("--measured", "known", is_flag=True, help="Take the figures that --out has, and simulate nothing.")
@click.option("--fit", type=Output(".json"), help="Fit what estimates are made with, and write it here.")
def command(
    config: Path | None,
    experiment: str | None,
    bits: tuple[str, ...],
    rounding: tuple[str, ...],
    lanes: int,
    step: int,
    seed: int | None,
    path: Path | None,
    page: Path | None,
    out: Path | None,
    known: bool,
    fit: Path | None,
) -> None:
    """Count what a step costs in switching: osu018 gates with their delays, on the vectors of a real training run.

    The streaming unit, which holds no vector, is mapped part by part by Yosys and simulated by Icarus. The golden model trains;
    its step and the one before are made on the netlist, and every register and weight compared. Toggles times the library's
    internal power and pin loads are tabled by part, clock pins and data apart, and so is what gating the clock would leave. Of
    180 nm and gates alone: ratios, not picojoules, are the result. Needs the extra `synth` and qflow-tech-osu018.

    \b
    Example:
      kappa-rtl energy --bits 16 --rounding nearest
      kappa-rtl energy --bits 8 --bits 16 --step 150 --out build/energy.json
      kappa-rtl energy --out docs/energy.json --measured
    """
    try:
        if known and out is None:
            raise ValueError("out must name the file to read with --measured, and is not given")
        if not known:
            runner.check("icarus")
            place = liberty(path)
            cells_of(place)
        settings = read(config)
        settings.tell_unused("energy", USED["energy"])
        job = Job.of(settings, experiment=experiment, lanes=lanes, seed=seed)
        if job.is_network:
            raise ValueError("energy must have the one layer to train, without a table [model]")
        job = replace(job, steps=max(job.steps, step + 1))
        found: list[Figures] = []
        if known and out:
            found = read_figures(out)
        else:
            with stage(f"reading {place.name}"):
                library = Library.read(place)
            for width in sorted({int(one) for one in bits}):
                for kind in dict.fromkeys(rounding):
                    found.append(measured(replace(job, narrow=FORMATS[width]), kind, step, place, library))
                    if out:
                        write_atomically(out, document(job, library, found))
        configs = units(job, found)
        used = fitted(found, configs, [estimate(config).ff for config in configs]) if fit else energy_fit()
        if fit:
            write_atomically(fit, used.to_json())
        made = tables(found) | {"energy estimate": estimates(found, configs, used)}
        if page:
            write_atomically(page, renewed(page.read_text(), made))
    except (ValueError, SimulationError, SynthesisError, OSError, ImportError) as error:
        raise click.ClickException(str(error)) from None
    for table in made.values():
        click.echo(text(table) + "\n")
