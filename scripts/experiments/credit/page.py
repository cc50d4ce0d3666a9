"""The tables of docs/credit.md, from the files of docs/credit/: each the results.json of an experiment at its published size.

A long experiment may be run in parts, by activation, depth or method; ``NAME-PART.json`` are then the parts of one table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ....golden.credit.methods import METHODS
from ....hw.synth.costs import Rows
from .table import number
from .through import FORMS

Content = Mapping[str, Any]


def tables(folder: Path) -> dict[str, Rows]:
    """Experiment -> its table, of those that the folder has."""
    made = {}
    for name, layout in LAYOUTS.items():
        if found := read(folder, name):
            made[name] = layout(found)
    return made


def read(folder: Path, name: str) -> Content:
    """An experiment's results, its parts as one, whose groups are named as if it had been run whole. Empty if there are none."""
    paths = sorted([*folder.glob(f"{name}.json"), *folder.glob(f"{name}-*.json")])
    parts = [json.loads(path.read_text()) for path in paths]
    if len(parts) < 2 and name != "ladder":
        return parts[0] if parts else {}
    if not parts:
        return {}
    first = parts[0]["configuration"]
    lists = {key: _union([part["configuration"][key] for part in parts]) for key in first if key in PARTED}
    arms: dict[str, Content] = {}
    for part in parts:
        own = part["configuration"]
        for arm in part["arms"].values():
            group = arm["group"]
            if "methods" not in own:
                kind = [] if len(own["activations"]) > 1 else [own["activations"][0].replace("phi:", "alpha ")]
                depth = [] if len(own["depths"]) > 1 else [f"L {own['depths'][0]}"]
                group = " ".join([*kind, *([group] if group else []), *depth])
            arms[f"{group}-{arm['label']}"] = {**arm, "group": group}
    return {**parts[0], "arms": arms, "configuration": {**first, **lists}}


PARTED = ("activations", "depths", "methods")
"""What a long experiment may be cut by."""


def _union(lists: list[list[Any]]) -> list[Any]:
    known = list(METHODS)
    whole = list(dict.fromkeys(value for one in lists for value in one))
    return sorted(whole, key=lambda value: (known.index(value) if value in known else 0, value))


def _mean(arm: Content, column: str) -> str:
    """``.45±.04 [.5]``: mean, spread, what was published."""
    found = arm["columns"][column]
    values = np.array([math.nan if one is None else one for one in found["seeds"]], float)
    values = values[np.isfinite(values)]
    if not values.size:
        return "–"
    text = _short(float(values.mean()))
    if len(found["seeds"]) > 1:
        text += f"±{_short(float(values.std()))}"
    if "published" in found:
        mean, spread = found["published"]
        text += f" [{_short(mean)}±{_short(spread)}]" if spread else f" [{_short(mean)}]"
    return text


def _short(value: float) -> str:
    return number(value).replace("0.", ".", 1) if abs(value) < 1 else number(value)


def _rows(head: list[str], rows: list[list[str]]) -> Rows:
    return [tuple(row) for row in (head, *rows)]


def plain(*columns: str) -> Callable[[Content], Rows]:
    """A row an arm, with these columns; grouped arms with their group before them."""

    def layout(content: Content) -> Rows:
        arms = list(content["arms"].values())
        grouped = len({arm["group"] for arm in arms}) > 1
        rows = [
            [*([arm["group"]] if grouped else []), f"`{arm['label']}`", *(_mean(arm, column) for column in columns)]
            for arm in arms
        ]
        return _rows([*(["group"] if grouped else []), "", *columns], rows)

    return layout


def across(*columns: str) -> Callable[[Content], Rows]:
    """A row a label and column, a column a group."""

    def layout(content: Content) -> Rows:
        arms = list(content["arms"].values())
        groups = list(dict.fromkeys(arm["group"] for arm in arms))
        labels = list(dict.fromkeys(arm["label"] for arm in arms))
        by = {(arm["group"], arm["label"]): arm for arm in arms}
        rows = [
            [f"`{label}`", column, *(_mean(by[group, label], column) for group in groups)]
            for label in labels
            for column in columns
        ]
        return _rows(["", "", *groups], rows)

    return layout


def ladder(content: Content) -> Rows:
    """The nonlinear end of the ladder over the depth, and below it the others' gamma alone."""
    arms = list(content["arms"].values())
    kinds, depths = content["configuration"]["activations"], content["configuration"]["depths"]
    labels = list(dict.fromkeys(arm["label"] for arm in arms))
    by = {(arm["group"], arm["label"]): arm for arm in arms}
    rows = []
    for kind in reversed(kinds):
        shown = kind.replace("phi:", "alpha ")
        for column in ("gamma", "rho", "accuracy") if kind == "phi:1" else ("gamma",):
            rows += [
                [shown, column, f"`{label}`", *(_mean(by[f"{shown} L {depth}", label], column) for depth in depths)]
                for label in labels
            ]
    return _rows(["", "", "", *(f"L = {depth}" for depth in depths)], rows)


def throttle(content: Content) -> Rows:
    """A row a form, method and width: the accuracy by law, and of the stability margin alpha and margin."""
    arms = list(content["arms"].values())
    laws = content["configuration"]["laws"]
    by = {(arm["group"], arm["label"]): arm for arm in arms}
    rows = []
    groups = [f"{form} {m} {bits or 'float'}" for form in FORMS for m in content["configuration"]["methods"]
              for bits in content["configuration"]["bits"]]  # fmt: skip
    for group in groups:
        form, method, bits = group.split()
        off, margin = by[group, "off"], by[group, "stability_margin"]
        rows.append(
            [
                form,
                f"`{method}`",
                bits,
                *(_mean(by[group, law], "accuracy") for law in laws),
                _mean(off, "margin"),
                _mean(margin, "alpha"),
                _mean(margin, "angle"),
            ]
        )
    head = ["matrices", "", "bits", *(f"`{law}`" for law in laws), "eta C, off", "alpha, margin", "angle, margin"]
    return _rows(head, rows)


LAYOUTS: dict[str, Callable[[Content], Rows]] = {
    "lq": plain("gamma", "rho", "nudge"),
    "ladder": ladder,
    "audit": across("gamma", "rho", "accuracy"),
    "boundary": plain("gamma", "rho", "accuracy"),
    "forms": across("gamma", "rho", "accuracy"),
    "frozen": plain("gamma", "rho", "nudge"),
    "online": plain("accuracy", "gamma", "rho"),
    "depth": across("accuracy", "gamma", "rho"),
    "scan": plain("accuracy", "gamma", "rho"),
    "throttle": throttle,
}
"""Experiment -> what its table looks like."""
