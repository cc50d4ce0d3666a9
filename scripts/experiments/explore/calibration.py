"""Where the binary points of widths belong: what a run in float needs, and the reference that points are held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....golden.training.instrumented import Step
from ....golden.training.rule import Rule, rule
from ....golden.training.scales import TensorScale, scale
from .point import Point
from .space import Integers
from .subject import Result
from .trial import Observe

QUANTILE = 0.999
"""Of a step's gradients: the few beyond it may stand at the rail."""


class Tensor(NamedTuple):
    """What a run in float was like for one tensor: the largest magnitudes as in :class:`Calibration`."""

    name: str
    elements: int
    weight: float
    gradient: float
    update: float


class Calibration(NamedTuple):
    """What a run in float was like.

    Attributes:
        point: of the run.
        weight, update: the largest magnitudes of the run.
        gradient: the largest quantile of a step.
        rule: what an analytic rule asks for, where it says something.
        tensors: the same of each tensor, in the order of the weights.
    """

    point: Point
    weight: float
    gradient: float
    update: float
    rule: Rule | None = None
    tensors: tuple[Tensor, ...] = ()

    @property
    def apart(self) -> Integers:
        """The same where every tensor has a binary point of its own, by the rule of ``golden.training.scales``."""
        _, scaled = scale([TensorScale(one.name, one.elements, one.weight, one.gradient) for one in self.tensors])
        scales = tuple(one.scale for one in scaled)

        def reach(largest: Sequence[float]) -> int:
            """Of a tensor that nothing came for there is nothing to reach."""
            return max((bits(one) + finer for one, finer in zip(largest, scales, strict=True) if one > 0), default=1)

        gradient, update = reach([one.gradient for one in self.tensors]), reach([one.update for one in self.tensors])
        return Integers(bits(self.weight), gradient, update, scales=scales)

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
    """What a run reaches, of all weights and of each tensor.

    Args:
        sizes: elements of each, in the order of the weights.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
        self.weights, self.gradients, self.updates = (np.zeros(len(sizes)) for _ in range(3))
        self.weight = self.gradient = self.update = 0.0
        self.deviations: list[float] = []
        self.least_rate = math.inf

    def __call__(self, step: Step) -> None:
        self.weight = max(self.weight, float(np.max(np.abs(step.theta_after))))
        self.update = max(self.update, float(np.max(np.abs(step.theta_after - step.theta))))
        self.gradient = max(self.gradient, float(np.quantile(np.abs(step.gradient), QUANTILE)))
        self.weights = np.maximum(self.weights, self._most(step.theta_after))
        self.updates = np.maximum(self.updates, self._most(step.theta_after - step.theta))
        parts = np.split(np.abs(step.gradient), self._starts[1:])
        self.gradients = np.maximum(self.gradients, [np.quantile(part, QUANTILE) for part in parts])
        self.deviations.append(float(np.std(step.gradient)))
        self.least_rate = min(self.least_rate, step.row["alpha_applied"] * step.row["learning_rate"])

    def _most(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.maximum.reduceat(np.abs(values), self._starts)

    @property
    def rule(self) -> Rule | None:
        return rule(
            largest_weight=self.weight,
            least_deviation=min(self.deviations),
            largest_deviation=max(self.deviations),
            least_rate=self.least_rate,
        )


def calibrate(
    train: Callable[[Point, Observe], Result],
    references: Sequence[Point],
    *,
    labelled: bool,
    tensors: Sequence[tuple[str, int]],
) -> Calibration | None:
    """Train the references in float, and measure the best of them; None if all diverge.

    Args:
        train: trains a point once, and shows every step.
        labelled: whether the score is an accuracy.
        tensors: name and elements of each, in the order of the weights.
    """
    best: tuple[float, Calibration] | None = None
    for point in references:
        seen = _Largest([elements for _, elements in tensors])
        result = train(point, seen)
        if result["ending"] == "diverged":
            continue
        merit = result["score"] if labelled else -result["score"]
        if best is None or merit > best[0]:
            largest = zip(seen.weights, seen.gradients, seen.updates, strict=True)
            own = tuple(Tensor(*one, *map(float, most)) for one, most in zip(tensors, largest, strict=True))
            best = merit, Calibration(point, seen.weight, seen.gradient, seen.update, seen.rule, own)
    return None if best is None else best[1]
