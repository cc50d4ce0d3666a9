"""A run as the report tells it: the metrics of its steps, how it ended, and what that says in numbers and sentences.

Every sentence about a run is derived from its numbers; nothing is said that they do not show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.config import FLAGS
from kappa_rtl.golden.training.loop import StepRow

Floats = NDArray[np.float64]
Kind = Literal["unthrottled", "throttled", "golden", "rtl", "narrow"]

TAIL = 20
"""Accuracies are means of this many last steps."""


@dataclass
class RunHistory:
    """One run as the report needs it: arrays by metric name, and how it ended.

    Args:
        title: what the legend calls it.
        kind: its part in the story: float without and with the throttle, the golden model, the RTL, or a run on narrow
            weights (drawn by itself, one colour after another).
        colour: of its lines; by kind if not given.
    """

    title: str
    kind: Kind
    colour: str | None = None
    columns: dict[str, list[float]] = field(default_factory=dict)
    diverged_at: int | None = None
    flags: tuple[str, ...] = ()
    still_steps: int = 0

    def append(self, row: StepRow) -> None:
        """Take in one step."""
        for name, value in row.metrics.items():
            self.columns.setdefault(name, []).append(float(value))
        registers = row.record.registers
        self.flags = tuple(name for name in FLAGS if getattr(registers, name))
        self.still_steps = registers.still_steps
        if row.diverged:
            self.diverged_at = row.step

    @classmethod
    def collect(cls, title: str, kind: Kind, rows: Iterable[StepRow], colour: str | None = None) -> RunHistory:
        """The history of all ``rows``."""
        history = cls(title, kind, colour)
        for row in rows:
            history.append(row)
        return history

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Floats:
        """A metric over the steps of the run, (steps,)."""
        return np.array(self.columns[name], np.float64)

    @property
    def steps(self) -> int:
        """How many steps were recorded."""
        return len(self.columns.get("loss", ()))

    def tail(self, name: str) -> float | None:
        """The mean of a metric over the last steps; None where the run has none of it."""
        return float(np.mean(self[name][-TAIL:])) if self.steps and name in self else None


Runs = Mapping[str, RunHistory]


def of_kind(runs: Runs, *kinds: str) -> list[RunHistory]:
    """The runs of these kinds, in the order of the kinds."""
    return [run for kind in kinds for run in runs.values() if run.kind == kind and run.steps]


def summary_table(runs: Runs) -> list[dict[str, Any]]:
    """A row a run, ready for JSON: what is not a number, or not known, is None."""
    return [
        {
            "run": name,
            "title": run.title,
            "steps": run.steps,
            "final_loss": _finite(run["loss"][-1]) if run.steps else None,
            "accuracy": _finite(run.tail("accuracy")) if run.diverged_at is None else None,
            "diverged_at": run.diverged_at,
            "min_alpha": _finite(np.min(run["alpha_applied"])) if run.steps else None,
            "max_margin": _finite(np.max(run["alpha_eta_lambda_max"])) if run.steps else None,
            "max_angle_degrees": _finite(np.degrees(np.max(run["angle"]))) if run.steps else None,
            "still_steps": run.still_steps,
            "flags": list(run.flags),
        }
        for name, run in runs.items()
    ]


def observations(runs: Runs) -> list[str]:
    """What the runs show, in sentences; nothing that they do not show."""
    main = [run for run in runs.values() if run.kind != "narrow" and run.steps]
    said = [_fate(run) for run in main]
    narrow = of_kind(runs, "narrow")
    if narrow:
        ends = "; ".join(f"“{run.title}” ends at {ending(run)} ({run.still_steps} still steps)" for run in narrow)
        said.append(f"On narrow weights, {ends}.")
    return said


def _fate(run: RunHistory) -> str:
    if run.diverged_at is not None:
        return f"{run.title}: diverges at step {run.diverged_at}."
    return f"{run.title}: does not diverge in {run.steps} steps and ends at {ending(run)}."


def ending(run: RunHistory) -> str:
    """What a run ends at: its accuracy, or its loss where there are no labels."""
    accuracy = run.tail("accuracy")
    if accuracy is not None:
        return f"accuracy {accuracy:.3f}"
    return f"loss {run['loss'][-1]:.3g}"


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
