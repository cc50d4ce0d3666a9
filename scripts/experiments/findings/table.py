"""A finding as a table: a row for each place on its axis, a column a line, of each the median and the range of the seeds."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from ....hw.synth.costs import Rows
from ..explore.recommend import WITHIN
from .finding import FINDINGS, Finding
from .run import Content

MOST = 0.8
"""The share of the seeds that have to be within the distance of float for a width to be enough."""

TITLES = {
    "score": "accuracy",
    "min_alpha": "least alpha",
    "still": "share of steps that moved nothing",
    "margin": "alpha eta lambda_max, the largest",
    "growing": "the same while the inputs grow",
    "seen": "C / lambda_max in the step of the largest",
}
COSTS = {"memory_bits": "memory, bits", "lut": "LUT", "energy": "energy, nJ"}


def rows(finding: Finding, content: Content) -> Rows:
    """The table of a finding, its tasks one below the other; of a finding with one line they stand side by side."""
    several = len(content["tasks"]) > 1
    made: list[tuple[str, ...]] = []
    lines = list(dict.fromkeys(dot["line"] for task in content["tasks"] for dot in task["dots"]))
    if several and len(lines) == 1:
        return _beside(finding, content)
    head = [*(["task"] if several else []), finding.label, *([""] if len(finding.measures) > 1 else []), *lines]
    made.append((*head, *(COSTS[name] for name in finding.costs)))
    for task in content["tasks"]:
        by = {(dot["x"], dot["line"]): dot for dot in task["dots"]}
        places = sorted({dot["x"] for dot in task["dots"]})
        first = [task["task"]] if several else []
        blank = [""] if len(finding.measures) > 1 else []
        if "float" in task:
            made.append((*first, "float", *blank, spread(task["float"]["score"]), *[""] * (len(lines) - 1 + len(finding.costs))))
        for x in places:
            for measure in finding.measures:
                cells = [spread(by[x, line][measure]) if (x, line) in by else "" for line in lines]
                named = [TITLES[measure]] if blank else []
                made.append((*first, f"{x:g}", *named, *cells, *_costs(by, x, lines, finding.costs)))
        if finding.widths:
            made.append((*first, "least width", *blank, *(least(task, line) for line in lines), *[""] * len(finding.costs)))
    return made


def _beside(finding: Finding, content: Content) -> Rows:
    """A column a task."""
    tasks = content["tasks"]
    made: list[tuple[str, ...]] = [(finding.label, "", *(task["task"] for task in tasks))]
    made.append(("float", TITLES["score"], *(spread(task["float"]["score"]) for task in tasks)))
    by = [{dot["x"]: dot for dot in task["dots"]} for task in tasks]
    for x in sorted({x for dots in by for x in dots}):
        for measure in finding.measures:
            made.append((f"{x:g}", TITLES[measure], *(spread(dots[x][measure]) if x in dots else "" for dots in by)))
    return made


def spread(values: Sequence[float]) -> str:
    """``.964 (.958 to .970)``: median, least and most."""
    shown = [brief(median(values)), brief(min(values)), brief(max(values))]
    return shown[0] if len(set(shown)) == 1 else f"{shown[0]} ({shown[1]} to {shown[2]})"


def brief(value: float) -> str:
    """Three digits behind the point, or in powers of ten where those say nothing."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) < 0.0005:
        return f"{value:.0e}"
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def least(task: Mapping[str, Any], line: str) -> str:
    """The least width from which on every width is within a distance of float, seed by seed, in most of the seeds."""
    best = task["float"]["score"]
    found = ""
    for dot in sorted((dot for dot in task["dots"] if dot["line"] == line), key=lambda dot: -dot["x"]):
        near = sum(round(whole - score, 9) <= WITHIN for whole, score in zip(best, dot["score"], strict=True))
        if near < MOST * len(best):
            break
        found = f"{dot['x']:g}"
    return found or "none"


def _costs(by: Mapping[Any, Mapping[str, Any]], x: Any, lines: Sequence[str], names: Sequence[str]) -> list[str]:
    """What a unit costs, from the least to the most over the lines."""
    made = []
    for name in names:
        values = sorted({by[x, line][name] for line in lines if (x, line) in by})
        shown = list(dict.fromkeys(f"{value:,.0f}" for value in (values[0], values[-1])))
        made.append(" to ".join(shown))
    return made


def read(folder: Path) -> dict[str, Content]:
    """The findings that a folder has, ``NAME.json``."""
    return {name: json.loads(path.read_text()) for name in FINDINGS if (path := folder / f"{name}.json").exists()}


def tables(folder: Path) -> dict[str, Rows]:
    """Finding -> its table, of those that the folder has."""
    return {name: rows(FINDINGS[name], content) for name, content in read(folder).items()}
