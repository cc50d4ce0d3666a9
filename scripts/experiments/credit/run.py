"""A credit experiment from end to end: every arm and seed, in parallel, a table, pictures, files.

Each run is written when it is done and found again, so that an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ....golden.compiled import compiler
from ....golden.credit.cifar import files
from ....golden.credit.loop import Run
from ....golden.files import write_atomically
from ....golden.throttle import Datapath, Throttle
from ....golden.training.resume import Checkpoint
from ....sim.cache import code_digest
from ....sim.cosim import RtlThrottle
from ..pool import Task, compute
from ..results import PACKAGE, Key, Results, key
from .arms import Arm, Experiment
from .estimate import duration, estimate
from .experiments import MAKERS
from .figures import draw, draw_curves
from .plan import plan_of
from .table import Runs, add_leads, results, table_of
from .throttling import Throttled

DATAPATHS = ("golden", "rtl")

CODE = code_digest(PACKAGE / "golden" / "credit", PACKAGE / "golden" / "network")
"""Of all that a run without a unit is made by."""


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
    jobs: int = 1,
    datapath: str = "golden",
    simulator: str = "verilator",
    **changes: Any,
) -> Outcome:
    """Run an experiment; write ``results.json``, ``table.txt``, ``plot.png``, ``curves.png`` and ``runs/ARM-SEED.json``.

    Args:
        name: see :data:`~kappa_rtl.scripts.experiments.credit.experiments.MAKERS`.
        out: the folder.
        full: the published sizes.
        jobs: how many processes.
        datapath, simulator: what makes the fixed-point updates of throttle, ``golden`` or ``rtl``.
        changes: sizes, see :class:`~kappa_rtl.scripts.experiments.credit.plan.Plan`.

    Raises:
        ValueError: a bad setting, before anything runs.
        SimulationError: the simulator fails.
    """
    experiment = prepared(name, full=full, jobs=jobs, datapath=datapath, **changes)
    fixed = name == "throttle"
    (out / "runs").mkdir(parents=True, exist_ok=True)
    found = dict(_run_all(experiment, out, jobs, datapath, simulator, tell=full or bool(experiment.plan.cifar)))
    runs = {arm.name: [found[arm.name, seed] for seed in experiment.plan.seeds] for arm in experiment.arms}
    add_leads(experiment, runs)
    table = table_of(experiment, runs)
    text = f"{experiment.title}; {experiment.size}{f'; fixed point by the {datapath} unit' if fixed else ''}\n\n{table}\n"
    content = results(experiment, runs, datapath if fixed else None)
    write_atomically(out / "table.txt", text.encode())
    write_atomically(out / "results.json", _json(content))
    write_atomically(out / "plot.png", draw(content, experiment))
    write_atomically(out / "curves.png", draw_curves(content, experiment))
    return Outcome(experiment, runs, table, out)


def prepared(name: str, *, full: bool, jobs: int, datapath: str, **changes: Any) -> Experiment:
    """The experiment, with everything about it checked that can be before it runs."""
    if datapath not in DATAPATHS:
        raise ValueError(f"datapath must be one of {', '.join(DATAPATHS)}, not {datapath!r}")
    if name not in MAKERS:
        raise ValueError(f"experiment must be one of {', '.join(MAKERS)}, not {name!r}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, not {jobs!r}")
    plan = plan_of(name, full=full, **changes)
    if plan.cifar:
        try:
            files(plan.cifar)  # fail now, not in every process
        except ValueError as error:
            raise ValueError(f"cifar: {error}") from None
    experiment = MAKERS[name](plan)
    for arm in experiment.arms:
        if isinstance(arm.task, Throttled):
            try:
                arm.task.config(1)
            except ValueError as error:
                raise ValueError(f"rate, bits and laws: {error}") from None
    return experiment


# -------------------------------------------------------------------------------------------------- runs


def _run_all(
    experiment: Experiment, out: Path, jobs: int, datapath: str, simulator: str, *, tell: bool
) -> Iterator[tuple[tuple[str, int], Run]]:
    """What every arm and seed gave: found, or run and written; how long it will take is told before it begins."""
    kept, todo, arms = Results(_read), [], []
    keys: dict[tuple[str, int], Key] = {}
    for seed in experiment.plan.seeds:  # seeds outside: an interrupted run has whole tables
        for arm in experiment.arms:
            one = (arm.name, seed)
            keys[one] = _key(arm, seed, datapath, simulator)
            before = kept.find(_file(out, *one), keys[one])
            if before is not None:
                yield one, before
            else:
                arms.append((arm, seed))
                kept_at = str(_checkpoint(out, one, keys[one]))
                todo.append(Task(one, f"{arm.name}, seed {seed}", run_arm, (arm, seed, datapath, simulator, kept_at)))
    if tell and todo:
        at_a_time = f", {jobs} at a time" if jobs > 1 else ""
        golden = "" if datapath == "golden" or experiment.name != "throttle" else "; with the golden unit in place of the RTL"
        how_long = duration(estimate(arms, jobs))
        tqdm.write(f"{len(todo)} runs{at_a_time}: about {how_long} on this machine{golden}", file=sys.stderr)
    for one, run in compute(todo, jobs, experiment.name):
        name, seed = one
        content = {"key": keys[one], "arm": name, "seed": seed, "end": run.end, "curve": run.curve}
        write_atomically(_file(out, name, seed), _json(content))
        for former in (out / "runs").glob(f"{name}-{seed}.*.npz"):  # of other code, which nothing will go on from
            former.unlink()
        yield one, run


def _file(out: Path, name: str, seed: int) -> Path:
    return out / "runs" / f"{name}-{seed}.json"


def _checkpoint(out: Path, one: tuple[str, int], kept_under: Key) -> Path:
    """Where a run is saved while it is under way: a name of its own for whatever would make another run of it."""
    digest = hashlib.sha256(json.dumps(kept_under, sort_keys=True).encode()).hexdigest()[:16]
    return out / "runs" / f"{one[0]}-{one[1]}.{digest}.npz"


def run_arm(arm: Arm, seed: int, datapath: str = "golden", simulator: str = "verilator", kept_at: str = "") -> Run:
    """One run; float is float in every datapath, so that a unit of golden or RTL is made for fixed point only.

    Args:
        kept_at: an .npz where a run of minutes is saved while it is under way, and found again.
    """
    if not isinstance(arm.task, Throttled):
        try:
            return arm.task.run(arm.method, arm.options, seed, Checkpoint(kept_at, seconds=60) if kept_at else None)
        except ValueError as error:
            if not Path(kept_at).is_file():
                raise
            tqdm.write(f"{error}: computing from the start", file=sys.stderr)
            Path(kept_at).unlink()
            return arm.task.run(arm.method, arm.options, seed, Checkpoint(kept_at, seconds=60))
    if not arm.task.bits:
        return arm.task.run(arm.method, arm.options, seed)
    if datapath == "golden":
        return arm.task.run(arm.method, arm.options, seed, Throttle)
    with ExitStack() as stack:

        def make(config: Any, weights: Any) -> Datapath:
            return stack.enter_context(RtlThrottle(config, weights, simulator=simulator))

        return arm.task.run(arm.method, arm.options, seed, make)


def _key(arm: Arm, seed: int, datapath: str, simulator: str) -> Key:
    """What a run is kept under: a digest of all that it is given, and of the code that makes it."""
    throttled = isinstance(arm.task, Throttled)
    fixed = isinstance(arm.task, Throttled) and arm.task.bits
    text = repr((arm.method, sorted(arm.options.items()), arm.task, seed, (datapath, simulator) if fixed else ""))
    made = key(hashlib.sha256(text.encode()).hexdigest())
    return made if throttled else made | {"code": CODE, "gelu": "numba" if compiler() else "numpy"}


def _read(path: Path) -> tuple[Any, Run]:
    """The key and the result of a former run.

    Raises:
        ValueError: what is there was cut off or is not ours.
        OSError: there is none.
    """
    found = json.loads(path.read_text())
    if not isinstance(found, dict) or not isinstance(found.get("end"), dict) or not isinstance(found.get("curve"), list):
        raise ValueError(f"{path} must be a run of this command")
    return found.get("key"), Run(_numbers(found["end"]), [_numbers(row) for row in found["curve"]])


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in row.items()}


def _json(content: Any) -> bytes:
    """JSON without NaN, which it does not know: null. Lists of numbers, and rows of curves, stand on one line."""

    def clean(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: clean(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [clean(item) for item in value]
        if isinstance(value, (float, np.floating)):
            return float(value) if math.isfinite(value) else None
        return value

    def written(value: Any, indent: str) -> str:
        nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if not any(isinstance(item, (dict, list)) for item in nested):
            return json.dumps(value, ensure_ascii=False)
        inner = indent + " "
        if isinstance(value, dict):
            items = [f"{inner}{json.dumps(key, ensure_ascii=False)}: {written(item, inner)}" for key, item in value.items()]
            return "{\n" + ",\n".join(items) + f"\n{indent}}}"
        return "[\n" + ",\n".join(inner + written(item, inner) for item in value) + f"\n{indent}]"

    return (written(clean(content), "") + "\n").encode()
