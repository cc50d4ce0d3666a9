"""The curvature along the step before, found in three ways beside each other, whatever the law goes by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State

Array = NDArray[Any]

NAMES = ("curvature_applied", "curvature_intended", "curvature_projection")


class Curvatures:
    """What the change of the gradient says of the step before it; in float64, without eps and without a grid of its own.

    ``||dg|| / ||change of theta||``, ``||dg|| / ||rate * D||`` and ``-<dg, D> / (rate * <D, D>)``, no less than 0; NaN where
    there is nothing to divide by, and in the first step.
    """

    def __init__(self) -> None:
        self.gradient: Array | None = None
        self.direction: Array | None = None
        self.change = math.nan
        self.rate = math.nan
        self.decided = math.nan  #: with ``delay`` the step size that the next step is made with

    def state_dict(self) -> State:
        """The gradient and the step of last time, as copies."""
        return {
            "gradient": [] if self.gradient is None else [self.gradient.copy()],
            "direction": [] if self.direction is None else [self.direction.copy()],
            "change": self.change,
            "rate": self.rate,
            "decided": self.decided,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.gradient = next((np.array(one) for one in state["gradient"]), None)
        self.direction = next((np.array(one) for one in state["direction"]), None)
        self.change, self.rate, self.decided = state["change"], state["rate"], state["decided"]

    def look(self, gradient: Array) -> dict[str, float]:
        """By name, at a gradient (P,) as the unit sees it; before :meth:`note`."""
        if self.gradient is None or self.direction is None:
            return dict.fromkeys(NAMES, math.nan)
        change = np.subtract(gradient, self.gradient, dtype=np.float64)
        length, along = norm(change), norm(self.direction)
        projected = max(0.0, -float(np.vdot(change, self.direction))) if math.isfinite(length) else math.nan
        found = (
            (length, self.change),
            (length, self.rate * along),
            (projected, self.rate * along * along),
        )
        return {name: part / whole if whole else math.nan for name, (part, whole) in zip(NAMES, found, strict=True)}

    def note(self, gradient: Array, direction: Array, change: float, rate: float) -> None:
        """Keep the step that was made: gradient and direction (P,), the length of what was applied, and the step size."""
        self.gradient, self.direction = np.array(gradient, np.float64), np.array(direction, np.float64)
        self.change, self.rate = change, rate


def norm(vector: Array) -> float:
    """The Euclidean length, in float64."""
    return math.sqrt(float(np.vdot(vector, vector)))
