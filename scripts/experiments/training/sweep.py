"""A sweep: so many runs that of each one its row of the table is kept, and no history.

A row is written when its run is done, and found again: an interrupted sweep goes on where it was.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ....golden.files import write_atomically
from ....golden.network.data import Problem
from ....golden.throttle import Throttle
from ....golden.training.instrumented import TrainingWarning
from ..pool import Task, compute
from ..results import key
from .published import COLUMNS, Arm, Experiment, run_arm, summary

Row = dict[str, float]
Spread = tuple[float, float, float]
"""Median, least and most over the seeds."""


def sweep(experiment: Experiment, out: Path, seeds: Sequence[int], jobs: int) -> dict[str, dict[str, Spread]]:
    """Run every arm and seed on the golden model, as far as ``rows.jsonl`` in ``out`` does not have them.

    Writes ``table.csv``, a row a run, and ``spread.csv``, a row an arm: the median, the least and the most of each column.

    Returns:
        The spreads by arm and column.
    """
    kept = _Rows(out / "rows.jsonl")
    found: dict[tuple[str, int], Row] = {}
    keys, todo = {}, []
    for arm in experiment.arms:
        for seed in seeds:
            one, job = (arm.name, seed), job_of(arm, seed)
            keys[one] = (job, hashlib.sha256(repr(sorted(key(job).items())).encode()).hexdigest())
            if (before := kept.find(*keys[one])) is not None:
                found[one] = before
            else:
                todo.append(Task(one, f"{arm.name}, seed {seed}", _run, (arm, seed)))
    for one, row in compute(todo, jobs, experiment.name):
        kept.add(*keys[one], one, row)
        found[one] = row
    rows = {arm.name: [found[arm.name, seed] for seed in seeds] for arm in experiment.arms}
    write_atomically(out / "table.csv", _table(rows, seeds))
    spreads = {name: {column: _spread([row[column] for row in some]) for column in COLUMNS} for name, some in rows.items()}
    write_atomically(out / "spread.csv", written(spreads))
    return spreads


class _Rows:
    """Rows by their keys, a line each; one that was cut off, as its process ended, is passed over and made again.

    Raises:
        ValueError: a line that is none of these, by its number.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._told = path, False
        self._rows: dict[str, Row] = {}
        self._jobs: set[str] = set()
        lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
        for number, line in enumerate(lines[:-1], 1):
            try:
                made = json.loads(line)
                self._rows[made["key"]] = {name: float(value) for name, value in made["row"].items()}
                self._jobs.add(made["job"])
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ValueError(f"{path}: line {number} must be a row of this command; take it out, or another --out") from None
        if lines[-1]:
            write_atomically(path, b"".join(line + b"\n" for line in lines[:-1]))

    def find(self, job: str, kept: str) -> Row | None:
        """The row of a job; None where there is none that this code has made."""
        row = self._rows.get(kept)
        if row is None and job in self._jobs and not self._told:
            self._told = True
            tqdm.write("code changed since: computing again", file=sys.stderr)
        return row

    def add(self, job: str, kept: str, one: tuple[str, int], row: Row) -> None:
        line = {"job": job, "key": kept, "arm": one[0], "seed": one[1]}
        line["row"] = {name: repr(float(value)) for name, value in row.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _run(arm: Arm, seed: int) -> Row:
    """One run on the golden model, or on the arm's own unit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # lints of single settings, where all are tried
        made = summary(run_arm(arm, seed, make_unit=arm.variant or Throttle))
    return {name: made[name] for name in COLUMNS}


def job_of(arm: Arm, seed: int) -> str:
    """A digest of all that a run is given but its datapath."""
    variant = arm.variant and arm.variant.__qualname__
    made: tuple[Any, ...] = (
        arm.phases,
        arm.model,
        arm.precision,
        arm.unit,
        variant,
        arm.batch,
        arm.noise,
        arm.start,
        arm.goal,
        seed,
    )
    if arm.network or arm.calibrated:
        made = (*made, arm.network, sorted(arm.calibrated.items()))
    reference = None if arm.reference is None else (arm.reference.shape, arm.reference.tobytes())
    data = (_digest(arm.problem, seed), None if arm.held is None else _of(arm.held), reference)
    return hashlib.sha256(repr((made, data)).encode()).hexdigest()


@functools.cache
def _digest(problem: Callable[[int], Problem], seed: int) -> str:
    """Of a problem's data."""
    return _of(problem(seed))


def _of(problem: Problem) -> str:
    digest = hashlib.sha256()
    for array in (problem.inputs, problem.targets, problem.labels):
        digest.update(b"" if array is None else repr(array.shape).encode() + array.tobytes())
    return digest.hexdigest()


def _spread(values: Sequence[float]) -> Spread:
    """Over the seeds that have a number; NaN where none has."""
    known = [value for value in values if not math.isnan(value)]
    return (float(np.median(known)), min(known), max(known)) if known else (math.nan,) * 3


def _table(rows: Mapping[str, Sequence[Row]], seeds: Sequence[int]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", *COLUMNS])
    for name, some in rows.items():
        writer.writerows([name, seed, *row.values()] for seed, row in zip(seeds, some, strict=True))
    return text.getvalue().encode()


def written(spreads: Mapping[str, Mapping[str, Spread]], columns: Sequence[str] = tuple(COLUMNS)) -> bytes:
    """As CSV, four digits a number: ``median least..most`` in a cell, and nothing where no seed has a number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", *columns])
    for name, row in spreads.items():
        writer.writerow([name, *(_cell(row[column]) for column in columns)])
    return text.getvalue().encode()


def _cell(spread: Spread) -> str:
    median, least, most = spread
    return "" if math.isnan(median) else f"{median:.4g} {least:.4g}..{most:.4g}"


def read_spreads(path: Path) -> dict[str, dict[str, Spread]]:
    """The inverse of :func:`written`."""
    with path.open(newline="") as file:
        return {row.pop("arm"): {column: _read(cell) for column, cell in row.items()} for row in csv.DictReader(file)}


def _read(cell: str) -> Spread:
    if not cell:
        return (math.nan,) * 3
    median, ends = cell.split(" ")
    least, most = ends.split("..")
    return float(median), float(least), float(most)
