"""What a search found: a row a point and unit, its score over the seeds beside what it costs; the front; the least widths."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

from tabulate import tabulate

from ....golden.config import ThrottleConfig
from ....hw.synth.estimate import Cost, aimed, estimate
from ....hw.synth.synthesis import Figures
from .point import Point
from .space import ONE, TENSOR, Axes
from .subject import Seen, Subject

COSTS = {
    "memory_bits": "memory, bits",
    "bytes_a_step": "bytes a step",
    "lut": "look-up tables",
    "step_seconds": "step, s",
    "energy": "energy a step, nJ",
}
"""What there is a front of, in words."""


Key = tuple[str, int, str]
"""A unit: point, lanes and target."""


@dataclass(frozen=True)
class Trained:
    """A point and what each seed gave."""

    point: Point
    results: tuple[dict[str, Any], ...]

    def median(self, name: str) -> float:
        """Over the seeds."""
        return float(median(result[name] for result in self.results))

    @property
    def scores(self) -> list[float]:
        return [result["score"] for result in self.results]

    @property
    def ending(self) -> str:
        """The worst of the seeds': ``diverged``, ``dead`` or ``done``."""
        endings = {result["ending"] for result in self.results}
        return next(name for name in ("diverged", "dead", "done") if name in endings)


@dataclass(frozen=True)
class Found:
    """A search that is done.

    Attributes:
        subject, axes, calibration: what was searched.
        references: the runs in float.
        trained: the points.
        measured: what was synthesised, by point, lanes and target.
    """

    subject: Subject
    axes: Axes
    calibration: Seen
    references: tuple[Trained, ...]
    trained: tuple[Trained, ...]
    measured: Mapping[Key, Figures] = field(default_factory=dict)

    @classmethod
    def of(cls, subject: Subject, axes: Axes, calibration: Seen, trained: Sequence[Trained]) -> Self:
        floats = tuple(one for one in trained if one.point.is_float)
        return cls(subject, axes, calibration, floats, tuple(one for one in trained if not one.point.is_float))

    @property
    def larger_is_better(self) -> bool:
        return self.subject.labelled

    @property
    def reference(self) -> Trained:
        """The float runs that points are held against: those of the law that they went best with."""
        return (max if self.larger_is_better else min)(self.references, key=lambda one: one.median("score"))

    def distances(self, one: Trained) -> list[float]:
        """By how much each seed is worse than float on the same seed, to nine places; less than 0 where it is better."""
        sign = 1 if self.larger_is_better else -1
        return [round(sign * (best - score), 9) for best, score in zip(self.reference.scores, one.scores, strict=True)]

    def config(self, point: Point, lanes: int = 1) -> ThrottleConfig:
        """The unit of a point."""
        return self.subject.config(point, lanes=lanes)

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row a point and unit: the point's fields, its score and endings over the seeds, and what the unit costs."""
        made = []
        for one in self.trained:
            scores = one.scores
            about: dict[str, Any] = {"point": one.point.id, **_flat(one.point)}
            about |= {"score": median(scores), "least": min(scores), "most": max(scores), "ending": one.ending}
            about["distance"] = median(self.distances(one))
            about |= {name: one.median(name) for name in ("loss", "min_alpha", "still", "radius", "angle", "saturated")}
            about |= {"steps": one.median("steps"), "seconds": sum(result["seconds"] for result in one.results)}
            for lanes in self.axes.lanes:
                for target in self.axes.target:
                    cost = estimate(self.config(one.point, lanes), *aimed(target))
                    row = about | {"lanes": lanes, "target": target, "measured": False} | asdict(cost)
                    figures = self.measured.get(key_of(row))
                    made.append(row if figures is None else row | _of(figures, cost))
        return made

    def to_frame(self) -> Any:
        """The rows as a pandas ``DataFrame``."""
        import pandas as pd  # here: it takes a second

        return pd.DataFrame(self.rows)

    def front(self, cost: str = "memory_bits", *, lanes: int | None = None, target: str | None = None) -> list[dict[str, Any]]:
        """The rows that no other beats in score at the same cost or less, from the cheapest on.

        Args:
            cost: one of :data:`COSTS`.
            lanes, target: of the units among which it is; None for any.

        Raises:
            ValueError: no such cost.
        """
        if cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, not {cost!r}")
        among = [row for row in self.rows if lanes in (None, row["lanes"]) and target in (None, row["target"])]
        sign = 1 if self.larger_is_better else -1
        best, kept = -math.inf, []
        for row in sorted(among, key=lambda row: (row[cost], -sign * row["score"])):
            if sign * row["score"] > best and row["ending"] != "diverged":
                best = sign * row["score"]
                kept.append(row)
        return kept

    def text(self) -> str:
        """The front over memory as a table, with float above it."""
        best = self.reference
        rows: list[tuple[str, ...]] = [(str(best.point), *_shown(best.scores), *[""] * len(COSTS))]
        rows += [
            (
                f"{row['weight']}, {row['rounding']}, {row['law']}{', a grid a tensor' if row['scales'] else ''}"
                + (f", {row['target']}" if len(self.axes.target) > 1 else ""),
                *(f"{row[name]:.3f}" for name in ("score", "least", "most")),
                *(shown(row[name]) for name in COSTS),
            )
            for row in self.front()
        ]
        return tabulate(rows, headers=["on the front", "score", "least", "most", *COSTS.values()], disable_numparse=True)

    def to_csv(self, path: Path) -> Path:
        """Write the rows as text."""
        self.to_frame().to_csv(path, index=False)
        return path

    def to_parquet(self, path: Path) -> Path:
        """Write the rows as Parquet, which needs pyarrow.

        Raises:
            ImportError: there is none.
        """
        self.to_frame().to_parquet(path, index=False)
        return path


def key_of(row: Mapping[str, Any]) -> Key:
    """Of the unit of a row."""
    return row["point"], row["lanes"], row["target"]


def _of(figures: Figures, cost: Cost) -> dict[str, Any]:
    """What was measured, and what was estimated beside it; of a unit that could not be placed the clock is still estimated."""
    mhz = figures.mhz or cost.mhz
    cells = figures.cells
    return {
        "measured": True,
        "lut_estimated": cost.lut,
        "lut": cells.size,
        "ff": cells.ff,
        "dsp": cells.dsp,
        "block": cells.block,
        "distributed": cells.distributed,
        "mhz": mhz,
        "step_seconds": cost.cycles / (1e6 * mhz),
    }


def shown(value: float) -> str:
    """A cost: a whole number with commas, or a time."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _shown(scores: Sequence[float]) -> tuple[str, str, str]:
    """Median, least and most."""
    return f"{median(scores):.3f}", f"{min(scores):.3f}", f"{max(scores):.3f}"


def _flat(point: Point) -> dict[str, Any]:
    """A point's fields as columns: formats, their widths, and the law with its parameters as text."""
    if point.is_float:
        return {"weight": point.weight, "law": point.law}
    config = point.config(elements=1, eta=1)
    widths = {f"{name}_bits": getattr(config.grids, name).width for name in ("weight", "gradient", "update")}
    table = point.to_table()
    law = " ".join([point.law, *(f"{name}={value:g}" for name, value in point.parameters)])
    return (
        {name: table[name] for name in ("weight", "gradient", "update", "rounding", "motion")}
        | widths
        | {
            "residual_bits": config.residual_bits,
            "law": law,
            "on_still": point.on_still,
            "delay": point.delay,
            "mantissa_bits": point.mantissa_bits,
            "grids": TENSOR if point.scales else ONE,
            "scales": " ".join(map(str, point.scales)),
        }
    )
