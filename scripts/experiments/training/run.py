"""An experiment of the training harness from end to end: every arm and seed on one datapath, a table, a plot, files.

Each run is written when it is done and found again, and saved while it is under way, so that an interrupted experiment goes on
where it was, inside a run too.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from ....golden.config import ThrottleConfig
from ....golden.files import write_atomically
from ....golden.reference import FloatThrottle
from ....golden.throttle import Datapath, Throttle
from ....golden.training.history import FitHistory
from ....golden.training.instrumented import TrainingWarning
from ....sim.cosim import RtlThrottle
from ...settings import LOOP, Settings, read
from ..pool import Task, compute
from ..results import Results, key
from ..subject import DataSpec, ModelSpec
from .catalogue import EXPERIMENTS
from .figures import plot
from .first import first_look
from .overrides import FORMATS, Overrides
from .published import COLUMNS, Arm, Experiment, run_arm, summary
from .sweep import job_of, sweep

DATAPATHS = ("float", "golden", "rtl")
SECONDS = 10.0
"""Between two savings of a run that is under way."""

UNITS: dict[str, Callable[[ThrottleConfig, Any], Datapath]] = {"golden": Throttle, "unit": FloatThrottle}
"""Datapaths without a simulator that take a unit's configuration."""


@dataclass(frozen=True)
class Outcome:
    """What :func:`train` leaves: the histories by arm, one for each seed (none of a sweep), and the files."""

    experiment: Experiment
    runs: Mapping[str, list[FitHistory]]
    table: str
    folder: Path


def train(
    name: str,
    out: Path | None = None,
    *,
    datapath: str | None = None,
    seeds: int | None = None,
    config: Path | None = None,
    simulator: str = "verilator",
    figures: bool = False,
    jobs: int = 1,
    **made: Any,
) -> Outcome:
    """Run an experiment and write ``table.csv``, ``table.txt``, ``plot.png`` and a history for each run into ``out``
    (``train/NAME-DATAPATH`` if not given).

    Args:
        name: one of :data:`~kappa_rtl.scripts.experiments.training.catalogue.EXPERIMENTS`.
        datapath: what makes the updates: ``float`` is the published unit, fake-quantised where the arm has formats, or the
            float unit in the experiments on a unit's own options; None is what the experiment is for.
        seeds: how many, from ``[training] seed`` or 0; None is the experiment's own number.
        config: a configuration file; see :mod:`~kappa_rtl.scripts.settings` and
            :class:`~kappa_rtl.scripts.experiments.training.overrides.Overrides`.
        figures: also draw each run's own history, ``runs/ARM-SEED.png``.
        jobs: how many processes.
        made: arguments of the experiment, such as ``steps``; of ``data`` also ``file`` and ``outputs``, above ``[data]``.

    Raises:
        ValueError: a bad setting, before anything runs.
        SimulationError: the simulator fails.
    """
    if datapath is not None and datapath not in DATAPATHS:
        raise ValueError(f"datapath must be one of {', '.join(DATAPATHS)}, not {datapath!r}")
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {name!r}")
    for label, value in (("seeds", seeds), ("jobs", jobs)):
        if value is not None and value < 1:
            raise ValueError(f"{label} must be at least 1, not {value!r}")
    settings = read(config)
    overrides = Overrides.of(settings)
    made = _arguments(name, made, settings)
    if overrides.formats and "precision" in inspect.signature(EXPERIMENTS[name]).parameters:
        made["precision"] = overrides.formats
        overrides = overrides.without_formats()
    base = EXPERIMENTS[name](**made)
    datapath = datapath or base.datapath
    experiment = overrides.put_into(base, "unit" if base.datapath == "golden" else datapath)
    if base.datapath != "golden" and datapath == "float" and overrides.unit:
        unused = ", ".join(overrides.keys[name] for name in overrides.unit)
        print(f"{config}: {unused}: not used on the datapath float, which has no such unit", file=sys.stderr)
    for note in experiment.notes:
        print(note)
    seen = ""
    if name == "data":
        seen = first_look(experiment, settings["training"].get("seed", 0))
        print(seen)
    out = out or Path("train") / f"{name}-{datapath}"
    count = experiment.seeds if seeds is None else seeds
    out.mkdir(parents=True, exist_ok=True)
    if experiment.sweep:
        if datapath != "golden":
            raise ValueError(f"datapath must be golden for the whole of {name}, not {datapath!r}")
        return _swept(experiment, out, [settings["training"].get("seed", 0) + k for k in range(count)], jobs, simulator)
    for arm in experiment.arms:
        if arm.variant is not None and datapath != "golden":
            raise ValueError(f"datapath must be golden for {name}, whose arm {arm.name} has no other, not {datapath!r}")
    kind = "unit" if (datapath, experiment.datapath) == ("float", "golden") else datapath
    first = settings["training"].get("seed", 0)
    numbers = range(first, first + count)
    files = {(arm.name, seed): out / "runs" / f"{arm.name}-{seed}.npz" for arm in experiment.arms for seed in numbers}
    (out / "runs").mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, int], FitHistory] = {}
    results, keys, todo = Results(_read), {}, []
    for arm in experiment.arms:
        for seed in numbers:
            one = (arm.name, seed)
            keys[one] = key(_job(arm, seed, kind, simulator))
            if (before := results.find(files[one], keys[one])) is not None:
                found[one] = before
            else:
                unfinished = out / "unfinished" / f"{arm.name}-{seed}-{_short(keys[one])}"
                task = (name, made, overrides, arm.name, seed, kind, simulator, unfinished)
                todo.append(Task(one, f"{arm.name}, seed {seed}", run_one, task))
    for one, history in compute(todo, jobs, name):
        history.meta["key"] = keys[one]
        history.save(files[one])
        found[one] = history
    shutil.rmtree(out / "unfinished", ignore_errors=True)  # of other code or settings, as all of these are done
    runs = {arm.name: [found[arm.name, seed] for seed in numbers] for arm in experiment.arms}
    if figures:
        for (arm_name, seed), history in found.items():
            picture = files[arm_name, seed].with_suffix(".png")
            history.plot_results(picture, title=f"{experiment.title}: {arm_name}, seed {seed}")
    table = _table(experiment, runs)
    said = "".join(f"{note}\n" for note in experiment.notes)
    write_atomically(out / "table.txt", f"{experiment.title}; datapath {datapath}\n{said}{seen}\n\n{table}\n".encode())
    write_atomically(out / "table.csv", _csv(runs))
    write_atomically(out / "plot.png", experiment.draw(runs) if experiment.draw else plot(experiment, runs, datapath))
    return Outcome(experiment, runs, table, out)


def _swept(experiment: Experiment, out: Path, seeds: Sequence[int], jobs: int, simulator: str) -> Outcome:
    """The outcome of a sweep, which keeps no histories; its picture and its table are made from the spreads."""
    assert experiment.sweep is not None
    spreads = sweep(experiment, out, seeds, jobs)
    table = experiment.sweep.table(spreads)
    write_atomically(out / "plot.png", experiment.sweep.draw(spreads))
    write_atomically(out / "table.txt", f"{experiment.title}, {len(seeds)} seeds\n\n{table}\n".encode())
    if experiment.sweep.checks is not None:
        table += f"\n\n{experiment.sweep.checks(experiment, simulator)}"
        write_atomically(out / "table.txt", f"{experiment.title}, {len(seeds)} seeds\n\n{table}\n".encode())
    return Outcome(experiment, {}, table, out)


def _arguments(name: str, made: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """What the experiment is made from: the file's tables, and over them what the caller says."""
    training = settings["training"]
    for key_, low in (("steps", 1), ("seed", 0)):
        value = training.get(key_)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
            raise ValueError(f"training.{key_} must be an integer of at least {low}, not {value!r}")
    made = ({"steps": training["steps"]} if "steps" in training else {}) | made
    if name != "data":
        return made
    table = settings["data"]
    if (file := made.pop("file", None)) is not None:
        table["file"] = str(Path(file).absolute())
    if (outputs := made.pop("outputs", None)) is not None:
        table["outputs"] = outputs
    data = DataSpec.of_table(table, settings.folder)
    if not data.file:
        raise ValueError("data.file must be given, in the table [data] or by --data")
    return made | {"data": data, "model": ModelSpec(**settings["model"])}


def _job(arm: Arm, seed: int, datapath: str, simulator: str) -> str:
    """A digest of all that a run is given."""
    settings = (job_of(arm, seed), datapath, simulator if datapath == "rtl" else "")
    return hashlib.sha256(repr(settings).encode()).hexdigest()


def _short(key: Mapping[str, str]) -> str:
    """A key as a part of a name: what was saved by other code, or for other settings, is never found."""
    return hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:16]


def _read(path: Path) -> tuple[Any, FitHistory]:
    history = FitHistory.load(path)
    return history.meta.get("key"), history


def run_one(
    name: str,
    made: Mapping[str, Any],
    overrides: Overrides,
    arm_name: str,
    seed: int,
    datapath: str,
    simulator: str,
    unfinished: Path | None = None,
) -> FitHistory:
    """One run of an experiment; the arm by its name, as another process can be told of it.

    ``unfinished`` is a folder where it is saved while under way; not a run in the simulator, whose state cannot be read.
    """
    base = EXPERIMENTS[name](**made)
    arm = next(arm for arm in overrides.put_into(base, datapath).arms if arm.name == arm_name)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # they stand in the history
        make: Callable[[ThrottleConfig, Any], Datapath] | None = None
        if datapath in UNITS:
            make = arm.variant or UNITS[datapath]
        elif datapath == "rtl":
            own = any((set(LOOP) - {"drop_last"}) & set(phase.settings) for phase in arm.phases)

            def make(config: ThrottleConfig, weights: Any) -> Datapath:
                return stack.enter_context(
                    RtlThrottle(config, weights, simulator=simulator, streaming=own or config.direction is not None)
                )

        return run_arm(arm, seed, make_unit=make, unfinished=None if datapath == "rtl" else unfinished, seconds=SECONDS)


# -------------------------------------------------------------------------------------------------- table and plot


def _values(histories: list[FitHistory]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Every column, a value for each seed."""
    rows = [summary(history) for history in histories]
    return {name: np.array([row[name] for row in rows]) for name in COLUMNS}


def _table(experiment: Experiment, runs: Mapping[str, list[FitHistory]]) -> str:
    """A row an arm: the median over the seeds, and the range where there are several."""
    lines = [["arm", *experiment.columns]]
    for name, histories in runs.items():
        values = _values(histories)
        lines.append([name, *(_cell(values[column], column) for column in experiment.columns)])
    text = tabulate(lines, tablefmt="plain", disable_numparse=True)
    notes = [f"{column}: {COLUMNS[column]}" for column in experiment.columns]
    if any(arm.name.startswith("given_") for arm in experiment.arms):
        formats = next(arm.precision for arm in experiment.arms if arm.name.startswith("given_")) or {}
        shown = (f"{layer}.{name} {text}" for layer, fields in formats.items() for name, text in fields.items())
        notes.append(f"given: {', '.join(shown)}")
    notes += _units(runs)
    notes += _warned(runs)
    seeds = len(next(iter(runs.values())))
    return "\n".join([text, "", *([f"median (least..most) of {seeds} seeds"] if seeds > 1 else []), *notes])


def _warned(runs: Mapping[str, list[FitHistory]]) -> list[str]:
    """What the loop has said of the settings and of the runs: each kind of message once, with the runs that it was said in."""
    found: dict[str, tuple[str, dict[str, int]]] = {}
    for name, histories in runs.items():
        for message in (message for history in histories for message in history.meta["warnings"]):
            _, arms = found.setdefault(re.sub(r"[\d.e-]+", "", message), (message, {}))
            arms[name] = arms.get(name, 0) + 1
    seeds = len(next(iter(runs.values())))
    return [
        f"warning, {', '.join(f'{name} ({count} of {seeds})' for name, count in arms.items())}: {message}"
        for message, arms in found.values()
    ]


def _units(runs: Mapping[str, list[FitHistory]]) -> list[str]:
    """Which formats the arms had that ran on a unit of hardware's: one called float has the unit's widest there."""
    together: dict[str, list[str]] = {}
    for name, histories in runs.items():
        law = histories[0].meta["law"]
        if histories[0].meta["unit"] not in ("FloatThrottle", "PublishedThrottle"):
            together.setdefault(", ".join(f"{one} {law[one]}" for one in FORMATS), []).append(name)
    return [f"{', '.join(names)}: {formats}" for formats, names in together.items()]


def _cell(values: np.ndarray[Any, np.dtype[np.float64]], column: str) -> str:
    known = values[~np.isnan(values)]
    if not known.size:
        return "-"
    if column == "diverged_at" and len(values) > 1:
        return f"{known.size} of {len(values)}"
    if column == "frozen":
        return f"{int(known.sum())} of {len(values)}"
    middle = f"{float(np.median(known)):.4g}"
    return middle if len(values) == 1 else f"{middle} ({known.min():.3g}..{known.max():.3g})"


def _csv(runs: Mapping[str, list[FitHistory]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", *COLUMNS])
    for name, histories in runs.items():
        for history in histories:
            row = summary(history)
            writer.writerow([name, history.meta["seed"], *(row[column] for column in COLUMNS)])
    return text.getvalue().encode()
