"""A finding's search, run, and what it says as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tomli_w

from ....golden.files import write_atomically
from ..explore.found import Trained
from ..explore.outcome import Outcome
from ..explore.run import explore
from . import ramp
from .finding import TASKS, Finding

Content = Mapping[str, Any]
"""Of a results.json: ``name``, ``version``, ``seeds``, and of every task its ``title``, ``float`` (where there is such a run) and
``dots``."""

COSTS = ("memory_bits", "lut", "energy")


def run(finding: Finding, out: Path, *, seeds: int, jobs: int) -> Content:
    """Train a finding's points, or find them again, and gather what its table and picture show.

    Raises:
        ValueError: a bad argument; somebody else works in the folder.
    """
    tasks = [] if finding.space else ramp.tasks(seeds)
    for name in finding.tasks:
        settings = finding.settings(name)
        folder = out / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "space.toml", tomli_w.dumps({key: dict(table) for key, table in settings.tables.items()}))
        outcome = explore(settings, folder, seeds=seeds, jobs=jobs)
        tasks.append(_gathered(finding, name, outcome))
    return {"name": finding.name, "version": version("kappa-rtl"), "seeds": seeds, "tasks": tasks}


def _gathered(finding: Finding, task: str, outcome: Outcome) -> dict[str, Any]:
    best = outcome.reference
    trained = {one.point.id: one for one in outcome.trained}
    return {
        "task": task,
        "title": TASKS[task].title,
        "float": {"point": str(best.point), "score": best.scores},
        "dots": [_dot(finding, row, trained[row["point"]]) for row in outcome.rows if finding.only(row)],
    }


def _dot(finding: Finding, row: Mapping[str, Any], one: Trained) -> dict[str, Any]:
    """A point: where it is drawn, on which line, and each seed's figures."""
    known = dict(row) | _more(one)
    by = [f"{known[name]} bits" if name == "weight_bits" else f"{known[name]}" for name in finding.by]
    made: dict[str, Any] = {"x": known[finding.x], "line": ", ".join(by)}
    made |= {name: [round(result[name], 6) for result in one.results] for name in ("score", "min_alpha", "still")}
    made["ending"] = [result["ending"] for result in one.results]
    return made | {name: row[name] for name in COSTS}


def _more(one: Trained) -> dict[str, Any]:
    """Columns that rows have only within a text."""
    point = one.point
    kind, _, bits = point.rounding.partition(":")
    passes = "one pass" if point.delay else "two passes"
    return {
        "random_bits": int(bits) if kind == "stochastic" else 0,
        "law_name": point.law,
        "delay": passes,
        **dict(point.parameters),
    }
