"""Which runs are given up: those that diverge, and those that stand still for good."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

DIVERGED = 1e3
"""Times the first loss: beyond it a run is given up."""

DOTS = 100
"""Of a curve, at most."""


class Watch:
    """Ends a run that is hopeless, and knows how it ended.

    A run that stands still is given up only where nothing can change: every step sees the same data, at the same rate, nothing is
    drawn or kept of what rounding drops, and alpha is 1, so that the throttle holds nothing back.

    Args:
        settled: the step from which on every step is like the one before, but for the weights; None if none is.
        dead_after: still steps in a row that are called dead.

    Attributes:
        ending: ``done``; ``diverged``; ``dead``, where the last so many steps moved no weight.
    """

    def __init__(self, settled: int | None = None, dead_after: int = 100) -> None:
        self.ending = "done"
        self._settled, self._dead_after = settled, dead_after
        self._limit, self._still = math.inf, 0

    def ends(self, step: int, loss: float, *, still: bool, alpha: float) -> bool:
        """Whether the run is hopeless after a step, counted from 0, that had this loss before it."""
        if step == 0:
            self._limit = DIVERGED * max(loss, 1e-12)
        self._still = self._still + 1 if still else 0
        dead = self._still >= self._dead_after
        self.ending = "dead" if dead else "done"
        if not loss <= self._limit:
            self.ending = "diverged"
            return True
        return dead and alpha == 1 and self._settled is not None and step >= self._settled


def curve_of(**columns: ArrayLike) -> dict[str, list[Any]]:
    """A few dots of each column, the first and the last among them, with the steps that they are of."""
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    steps = len(next(iter(arrays.values())))
    at = np.unique(np.linspace(0, steps - 1, min(DOTS, steps)).astype(int))
    return {"step": at.tolist()} | {name: array[at].tolist() for name, array in arrays.items()}
