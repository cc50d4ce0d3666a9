"""A credit experiment from end to end: every arm and seed, in parallel, a table, a plot, files.

Each run is written when it is done and found again, so that an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from ....golden.credit.cifar import files
from ....golden.files import write_atomically
from ....golden.throttle import Datapath, Throttle
from ....sim.cosim import RtlThrottle
from ..pool import Task, compute
from ..results import Key, Results, key
from .experiments import COLUMNS, EXPERIMENTS, Arm, Experiment
from .figures import draw
from .throttling import Throttled

DATAPATHS = ("float", "golden", "rtl")
NEAR = 0.05
"""A mean within this, or within both spreads, of the published one counts as the same."""

Floats = NDArray[np.float64]
Runs = Mapping[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Outcome:
    """What :func:`credit` leaves: by arm what each seed gave, the table and the folder."""

    experiment: Experiment
    runs: Runs
    table: str
    folder: Path


def credit(
    name: str,
    out: Path,
    *,
    full: bool = False,
    seeds: int | None = None,
    jobs: int = 1,
    steps: int | None = None,
    cifar: str = "",
    methods: Sequence[str] = (),
    bits: Sequence[int] = (),
    datapath: str = "golden",
    simulator: str = "verilator",
) -> Outcome:
    """Run an experiment and write ``results.json``, ``table.txt``, ``plot.png`` and ``runs/ARM-SEED.json`` into ``out``.

    Args:
        name: one of :data:`~kappa_rtl.scripts.experiments.credit.experiments.EXPERIMENTS`.
        full: the published sizes.
        seeds: how many, from 0; None is the experiment's own number.
        jobs: how many processes.
        steps: in place of each task's own number.
        cifar: a folder with CIFAR-10, for frozen and online.
        methods, bits: of throttle, in place of its own; 0 bits are float64.
        datapath, simulator: what makes the fixed-point updates of throttle; ``float`` rounds the tensors, not the law.

    Raises:
        ValueError: a bad setting, before anything runs.
        SimulationError: the simulator fails.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {name!r}")
    if datapath not in DATAPATHS:
        raise ValueError(f"datapath must be one of {', '.join(DATAPATHS)}, not {datapath!r}")
    for label, value in (("seeds", seeds), ("jobs", jobs), ("steps", steps)):
        if value is not None and value < 1:
            raise ValueError(f"{label} must be at least 1, not {value!r}")
    if cifar and name not in ("frozen", "online"):
        raise ValueError(f"cifar must not be given for {name}: it is for frozen and online")
    given = {"methods": tuple(methods), "bits": tuple(bits)}
    for label, chosen_ones in given.items():
        if chosen_ones and name != "throttle":
            raise ValueError(f"{label} must not be given for {name}: it is for throttle")
    chosen: dict[str, Any] = {label: value for label, value in (given | {"cifar": cifar}).items() if value}
    experiment = EXPERIMENTS[name](full=full, **chosen)
    if cifar:
        files(cifar)  # fail now, not in every process
    if steps is not None:
        experiment = experiment.shortened(steps)
    for arm in experiment.arms:
        if isinstance(arm.task, Throttled):
            arm.task.config(1)
    count = experiment.seeds if seeds is None else seeds
    (out / "runs").mkdir(parents=True, exist_ok=True)
    found = dict(_run_all(experiment, out, count, jobs, datapath, simulator))
    runs = {arm.name: [found[arm.name, seed] for seed in range(count)] for arm in experiment.arms}
    _add_leads(experiment, runs)
    table = table_of(experiment, runs)
    text = f"{experiment.title}; {experiment.size}{_path(name, datapath)}\n\n{table}\n"
    write_atomically(out / "table.txt", text.encode())
    write_atomically(out / "results.json", _json(_results(experiment, runs, datapath)))
    write_atomically(out / "plot.png", draw(experiment, runs))
    return Outcome(experiment, runs, table, out)


def _path(name: str, datapath: str) -> str:
    return f"; fixed point by the {datapath} unit" if name == "throttle" else ""


# -------------------------------------------------------------------------------------------------- runs


def _run_all(
    experiment: Experiment, out: Path, count: int, jobs: int, datapath: str, simulator: str
) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """What every arm and seed gave: found, or run and written."""
    results, todo = Results(_read), []
    keys: dict[tuple[str, int], Key] = {}
    for seed in range(count):  # seeds outside: an interrupted run has whole tables
        for arm in experiment.arms:
            one = (arm.name, seed)
            keys[one] = key(_job(arm, seed, datapath, simulator))
            before = results.find(_file(out, *one), keys[one])
            if before is not None:
                yield one, before
            else:
                todo.append(Task(one, f"{arm.name}, seed {seed}", run_arm, (arm, seed, datapath, simulator)))
    for one, result in compute(todo, jobs, experiment.name):
        name, seed = one
        write_atomically(_file(out, name, seed), _json({"key": keys[one], "arm": name, "seed": seed, "result": result}))
        yield one, _plain(result)


def _file(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{name}-{seed}.json"


def run_arm(arm: Arm, seed: int, datapath: str = "golden", simulator: str = "verilator") -> dict[str, Any]:
    """One run; float is float in every datapath, so that a unit of golden or RTL is made for fixed point only."""
    if not isinstance(arm.task, Throttled):
        return dict(arm.task.run(arm.method, arm.options, seed))
    if not arm.task.bits or datapath == "float":
        return arm.task.run(arm.method, arm.options, seed)
    if datapath == "golden":
        return arm.task.run(arm.method, arm.options, seed, Throttle)
    with ExitStack() as stack:

        def make(config: Any, weights: Any) -> Datapath:
            return stack.enter_context(RtlThrottle(config, weights, simulator=simulator))

        return arm.task.run(arm.method, arm.options, seed, make)


def _job(arm: Arm, seed: int, datapath: str, simulator: str) -> str:
    """A digest of all that a run is given."""
    fixed = isinstance(arm.task, Throttled) and arm.task.bits
    text = repr((arm.method, sorted(arm.options.items()), arm.task, seed, (datapath, simulator) if fixed else ""))
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    """The key and the result of a former run.

    Raises:
        ValueError: what is there was cut off or is not ours.
        OSError: there is none.
    """
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not isinstance(found.get("result"), dict):
        raise ValueError(f"{path} must be a run of this command")
    return found.get("key"), {name: math.nan if value is None else value for name, value in found["result"].items()}


def _plain(result: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, str) else float(value) for name, value in result.items()}


def _json(content: Any) -> bytes:
    """JSON without NaN, which it does not know: null."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(item) for item in value]
        if isinstance(value, (float, np.floating)):
            return float(value) if math.isfinite(value) else None
        return value

    return (json.dumps(clean(content), indent=1) + "\n").encode()


# -------------------------------------------------------------------------------------------------- table


def _add_leads(experiment: Experiment, runs: Runs) -> None:
    """S1 and S2 of every run: against dfa of its group and seed."""
    for arm in experiment.arms:
        base = next((other for other in experiment.arms if other.group == arm.group and other.method == "dfa"), None)
        for seed, run in enumerate(runs[arm.name]):
            for lead, column in (("S1", "gamma"), ("S2", "rho")):
                if column in run and base is not None:
                    run[lead] = run[column] - runs[base.name][seed][column]


def _numbers(runs: list[dict[str, Any]], column: str) -> Floats:
    values: Floats = np.array([run.get(column, math.nan) for run in runs], float)
    finite: Floats = values[np.isfinite(values)]
    return finite


def means(experiment: Experiment, runs: Runs) -> dict[str, dict[str, float]]:
    """Arm -> column -> mean over the seeds, NaN where there is none."""
    made: dict[str, dict[str, float]] = {}
    for arm in experiment.arms:
        made[arm.name] = {}
        for column in experiment.columns:
            if column != "verdict":
                values = _numbers(runs[arm.name], column)
                made[arm.name][column] = float(values.mean()) if values.size else math.nan
    return made


def table_of(experiment: Experiment, runs: Runs) -> str:
    """A row an arm, mean and spread of the seeds, in brackets what was published; then what did and what did not reproduce."""
    lines = [["arm", *experiment.columns]]
    for arm in experiment.arms:
        lines.append([arm.name, *(_cell(arm, runs[arm.name], column) for column in experiment.columns)])
    count = len(next(iter(runs.values())))
    spread = f"mean±standard deviation of {count} seeds" if count > 1 else "one seed"
    known = any(arm.published for arm in experiment.arms)
    return "\n".join(
        [
            tabulate(lines, tablefmt="plain", disable_numparse=True),
            "",
            f"{spread}; [published]" if known else spread,
            *(f"{column}: {COLUMNS[column]}" for column in experiment.columns),
            "",
            *verdicts(experiment, runs),
        ]
    )


def _cell(arm: Arm, runs: list[dict[str, Any]], column: str) -> str:
    if column == "verdict":
        found = list(dict.fromkeys(run["verdict"] for run in runs))
        return " / ".join(found)
    values = _numbers(runs, column)
    if not values.size:
        return "-"
    if column == "diverged":
        return f"{values.size} of {len(runs)}" if len(runs) > 1 else f"{values[0]:g}"
    text = f"{values.mean():.3f}" if abs(values.mean()) >= 5e-3 or not values.mean() else f"{values.mean():.2g}"
    text += f"±{values.std():.3f}" if len(runs) > 1 else ""
    if column in arm.published:
        mean, spread = arm.published[column]
        text += f" [{mean:g}±{spread:g}]" if spread else f" [{mean:g}]"
    return text


def verdicts(experiment: Experiment, runs: Runs) -> list[str]:
    """A line for each claim, and one for each published figure that the means are away from."""
    found = means(experiment, runs)
    lines = [f"{'holds' if claim.holds(found) else 'DOES NOT HOLD'}: {claim.text}" for claim in experiment.claims]
    for arm in experiment.arms:
        away = []
        for column, (mean, spread) in arm.published.items():
            values = _numbers(runs[arm.name], column)
            room = max(NEAR if column != "nudge" else 0.25 * abs(mean), spread + (values.std() if values.size else 0))
            if not values.size or abs(values.mean() - mean) > room:
                away.append(f"{column} {values.mean() if values.size else math.nan:.3f} against {mean:g}")
        if away:
            lines.append(f"did not reproduce: {arm.name}: {', '.join(away)}")
    return lines


def _results(experiment: Experiment, runs: Runs, datapath: str) -> dict[str, Any]:
    """The content of results.json."""
    arms = {}
    for arm in experiment.arms:
        columns: dict[str, dict[str, Any]] = {}
        for column in experiment.columns:
            if column == "verdict":
                columns[column] = {"seeds": [run["verdict"] for run in runs[arm.name]]}
                continue
            values = _numbers(runs[arm.name], column)
            columns[column] = {
                "mean": float(values.mean()) if values.size else None,
                "spread": float(values.std()) if values.size else None,
                "seeds": [run.get(column) for run in runs[arm.name]],
                **({"published": list(arm.published[column])} if column in arm.published else {}),
            }
        arms[arm.name] = {"method": arm.method, "options": dict(arm.options), "task": repr(arm.task), "columns": columns}
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "size": experiment.size,
        "datapath": datapath if experiment.name == "throttle" else None,
        "arms": arms,
        "findings": verdicts(experiment, runs),
    }
