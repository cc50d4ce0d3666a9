"""Sizes fitted to syntheses: how much each feature takes, and how far that is off where nothing was fitted."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...golden.config import ThrottleConfig
from .costs import Rows
from .design import Sample
from .estimate import Fit
from .features import Counts, expected, features
from .synthesis import Figures, measure
from .targets import TARGETS, Cells, Target

__all__ = ["Measured", "Off", "errors", "fitted", "read", "synthesised", "table", "written"]

PRECISION = {"lut": 0.02, "ff": 0.003}
"""How far a size may be off of a model that has all features, as a fraction of it: syntheses weigh by that."""

FAR, ROUNDS = 1.5, 5
"""From how many times that on a synthesis counts for less, and how often that is found anew: some are made for speed."""

SMALL = 400
"""Of a part that is smaller the size is taken for this: it is some of a unit that is larger."""

ALONE = 0.05
"""The same of a lane of the update: by itself, without the longer paths of a unit, synthesis makes it for speed and larger."""


EXACT = ("dsp", "block", "distributed")
"""What is counted and not fitted: multiplier blocks, block memories and those in the place of look-up tables."""


@dataclass(frozen=True)
class Measured:
    """A sample, what was synthesised of it, and what was counted."""

    sample: Sample
    figures: Figures
    counts: Counts

    @classmethod
    def of(cls, sample: Sample, figures: Figures) -> Measured:
        return cls(sample, figures, features(sample.component(), figures.cells.target.name))

    @property
    def cells(self) -> Cells:
        return self.figures.cells


@dataclass(frozen=True)
class Off:
    """How far an estimate is off: of what was synthesised, look-up tables and registers as a fraction, blocks as a number."""

    name: str
    lut: float
    ff: float
    dsp: int
    block: int
    distributed: int


def synthesised(
    samples: Sequence[Sample],
    target: str,
    known: dict[str, Figures],
    keep: Callable[[dict[str, Figures]], None] = lambda found: None,
) -> dict[str, Figures]:
    """The size of each sample, by name; ``known`` figures of the same Verilog are taken as they are.

    Args:
        keep: called with all that is known, after each sample.

    Raises:
        ValueError: no such target.
        SynthesisError: Yosys is missing or fails.
    """
    found = dict(known)
    for sample in samples:
        found[sample.name] = measure(sample.component(), sample.name, target=target, seeds=(), known=known.get(sample.name))
        keep(found)
    return found


def fitted(rows: Iterable[Measured], target: str, mhz: Mapping[str, Mapping[int, float]]) -> Fit:
    """The coefficients that are least off in those rows that are there to be fitted.

    Raises:
        ValueError: there are none.
    """
    used = [row for row in rows if row.sample.purpose == "fit"]
    if not used:
        raise ValueError("json must have samples that are there to be fitted, and has none")
    return Fit(target, _solved(used, "lut", target), _solved(used, "ff", target), mhz)


def _noise(row: Measured, kind: str, size: int) -> float:
    if kind == "lut" and row.sample.part == "update":
        return max(5, ALONE * size)
    return PRECISION[kind] * max(size, SMALL)


def _solved(rows: Sequence[Measured], kind: str, target: str) -> dict[str, float]:
    """Least squares of the relative errors, drawn to what is expected of each feature; rounded to what can be told.

    A synthesis that lies far off counts for less (Huber's weights, found in a few rounds), so one that was made for speed does
    not bend what gates take in all others.
    """
    counts: list[Any] = [getattr(row.counts, kind) for row in rows]
    names = sorted({name for count in counts for name in count})
    matrix = np.array([[count[name] for name in names] for count in counts], dtype=float)
    size = np.array([row.cells.size if kind == "lut" else row.cells.ff for row in rows], dtype=float)
    noise = np.array([_noise(row, kind, int(of)) for row, of in zip(rows, size, strict=True)])
    before, spread = np.array([expected(name, kind, target) for name in names]).T
    weight = np.ones_like(noise)
    for _ in range(ROUNDS):
        trust = weight / noise
        left = np.vstack([matrix * trust[:, None], np.diag(1 / spread)])
        right = np.concatenate([size * trust, before / spread])
        found = _positive(left, right) if kind == "lut" else np.linalg.lstsq(left, right, rcond=None)[0]
        weight = np.sqrt(np.minimum(1, FAR * noise / np.maximum(np.abs(matrix @ found - size), 1e-9)))
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def _positive(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least squares without what would take less than nothing: gates do not make others vanish."""
    found = np.zeros(left.shape[1])
    used = np.ones(left.shape[1], dtype=bool)
    while True:
        found[used] = np.linalg.lstsq(left[:, used], right, rcond=None)[0]
        if (found >= 0).all():
            return found
        used &= found > 0
        found[~used] = 0


def errors(rows: Iterable[Measured], fit: Fit) -> list[Off]:
    """How far each estimate is off."""
    found = []
    for row in rows:
        lut, ff = fit.size(row.counts)
        cells, counts = row.cells, row.counts
        name = row.sample.name
        exact = (getattr(counts, of) - getattr(cells, of) for of in EXACT)
        found.append(Off(name, lut / cells.size - 1, ff / cells.ff - 1, *exact))
    return found


def table(rows: Sequence[Measured], fit: Fit) -> Rows:
    """The errors of whole units: those that were fitted, and those that were not."""
    made: list[tuple[str, ...]] = [("units", "number", "LUT, median", "most", "FF, median", "most", "DSP", "memories")]
    for purpose, name in (("fit", "fitted"), ("unseen", "not seen")):
        found = errors([row for row in rows if row.sample.purpose == purpose and row.sample.part == "unit"], fit)
        if not found:
            continue
        shown = [name, str(len(found))]
        for of in ("lut", "ff"):
            off = [abs(getattr(one, of)) for one in found]
            shown += [f"{statistics.median(off):.1%}", f"{max(off):.1%}"]
        for exact in (EXACT[:1], EXACT[1:]):
            wrong = sum(any(getattr(one, of) for of in exact) for one in found)
            shown.append("exact" if not wrong else f"{wrong} wrong")
        made.append(tuple(shown))
    return made


# ---------------------------------------------------------------- the files


def written(samples: Iterable[Sample], found: dict[str, Figures], about: dict[str, Any]) -> str:
    """The syntheses as JSON, a line each, in the order of the samples; of configurations what differs from the defaults."""
    defaults = ThrottleConfig(elements=1, eta=1).to_table()
    lines = []
    for sample in samples:
        if sample.name not in found:
            continue
        figures = found[sample.name]
        table = {key: value for key, value in sample.config.to_table().items() if key in KEPT or value != defaults.get(key)}
        one = {"name": sample.name, "purpose": sample.purpose, "part": sample.part, "configuration": table}
        lines.append(json.dumps(one | {"digest": figures.digest, "cells": dict(figures.cells.by_type)}))
    head = json.dumps(about, indent=1).removesuffix("\n}")
    return head + ',\n "samples": [\n  ' + ",\n  ".join(lines) + "\n ]\n}\n"


KEPT = ("elements", "eta", "motion")
"""Fields that have no default, or one that hangs on others."""


def read(path: Path, target: Target = TARGETS["ecp5"]) -> list[tuple[Sample, Figures]]:
    """The syntheses in a file that :func:`written` wrote.

    Raises:
        ValueError: it is of another target, or no such file.
    """
    try:
        document = json.loads(path.read_text())
        if document["target"] != target.name:
            raise ValueError(f"it is of the target {document['target']}, not {target.name}")
        found = []
        for one in document["samples"]:
            cells = one["cells"]
            if not isinstance(cells, dict) or not cells or not all(type(count) is int for count in cells.values()):
                raise ValueError(f"cells of {one['name']!r} must be counts by name, not {cells!r}")
            config = ThrottleConfig.from_table(one["configuration"])
            figures = Figures(one["name"], Cells(cells, target), "", digest=one["digest"])
            found.append((Sample(one["name"], one["purpose"], one["part"], config), figures))
        return found
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"json must name a file of syntheses, or none yet, not {str(path)!r}: {error}") from None
