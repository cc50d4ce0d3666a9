"""Where the binary points of widths belong: what a run in float needs, and the reference that points are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ....golden.training.instrumented import Step
from ....golden.training.rule import Rule, rule
from .point import Point
from .space import Integers
from .subject import Result
from .trial import Observe

QUANTILE = 0.999
"""Of a step's gradients: the few beyond it may stand at the rail."""


class Calibration(NamedTuple):
    """What a run in float was like.

    Attributes:
        point: of the run.
        weight, update: the largest magnitudes of the run.
        gradient: the largest quantile of a step.
        rule: what an analytic rule asks for, where it says something.
    """

    point: Point
    weight: float
    gradient: float
    update: float
    rule: Rule | None = None

    @property
    def integers(self) -> Integers:
        """The fewest bits before the binary point, with which none of them is beyond the rails."""
        return Integers(bits(self.weight), bits(self.gradient), bits(self.update))

    def __str__(self) -> str:
        i = self.integers
        return (
            f"binary points from a run in {self.point}: weights up to {self.weight:.3g} (SQ{i.weight}), {QUANTILE:.1%} of each "
            f"step's gradients up to {self.gradient:.3g} (SQ{i.gradient}), updates up to {self.update:.3g} (SQ{i.update})"
        )


def bits(largest: float) -> int:
    """The integer bits, the sign among them, of the smallest signed format that reaches a magnitude."""
    return math.ceil(math.log2(largest)) + 1 if largest > 0 else 1


class _Largest:
    """What a run reaches."""

    def __init__(self) -> None:
        self.weight = self.gradient = self.update = 0.0
        self.deviations: list[float] = []
        self.least_rate = math.inf

    def __call__(self, step: Step) -> None:
        self.weight = max(self.weight, float(np.max(np.abs(step.theta_after))))
        self.update = max(self.update, float(np.max(np.abs(step.theta_after - step.theta))))
        self.gradient = max(self.gradient, float(np.quantile(np.abs(step.gradient), QUANTILE)))
        self.deviations.append(float(np.std(step.gradient)))
        self.least_rate = min(self.least_rate, step.row["alpha_applied"] * step.row["learning_rate"])

    @property
    def rule(self) -> Rule | None:
        return rule(
            largest_weight=self.weight,
            least_deviation=min(self.deviations),
            largest_deviation=max(self.deviations),
            least_rate=self.least_rate,
        )


def calibrate(train: Callable[[Point, Observe], Result], references: Sequence[Point], *, labelled: bool) -> Calibration | None:
    """Train the references in float, and measure the best of them; None if all diverge.

    Args:
        train: trains a point once, and shows every step.
        labelled: whether the score is an accuracy.
    """
    best: tuple[float, Calibration] | None = None
    for point in references:
        seen = _Largest()
        result = train(point, seen)
        if result["ending"] == "diverged":
            continue
        merit = result["score"] if labelled else -result["score"]
        if best is None or merit > best[0]:
            best = merit, Calibration(point, seen.weight, seen.gradient, seen.update, seen.rule)
    return None if best is None else best[1]
