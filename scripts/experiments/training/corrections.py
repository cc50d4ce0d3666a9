"""Two corrections of an estimated curvature, tried on the golden model; no unit has them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import ArrayLike

from ....golden.config import ThrottleConfig
from ....golden.decide import Decide, Decision
from ....golden.norm import sum_of_squares
from ....golden.throttle import StepRecord, Throttle

BETWEEN = 4
"""Of the energy that a ``mixed`` unit divides by, one part in so many is that of the applied motion."""


class _Quiet(Decide):
    def decide(self, gradient_energy: int, motion_energy: int, moved: bool | None = None, size: int = 0) -> Decision:
        noise = self.config.elements // 6
        return super().decide(max(0, gradient_energy - noise), motion_energy, moved, size)


class QuietThrottle(Throttle):
    """From A it takes what the rounding of two gradients is expected to add: q**2 / 12 an element each, N / 6 as codes."""

    Decide = _Quiet


class MixedThrottle(Throttle):
    """Of ``motion = applied``: it divides by a mixture of the energies of the intended motion and of the applied one.

    It is right where the mean square of all curvatures is a :data:`BETWEEN`-th of the square of that along the step.
    """

    def __init__(self, config: ThrottleConfig, weights: ArrayLike, **options: Any) -> None:
        super().__init__(config, weights, **options)
        grids = config.grids
        self._raise = 2 * (config.step.fraction_bits + grids.gradient.fraction_bits - grids.weight.fraction_bits)

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None, *, codes: bool | None = None) -> StepRecord:
        record = super().step(gradient, direction, codes=codes)
        meant = self._applied**2 * sum_of_squares(self._shards[0]._previous)  # the gradient is the direction
        meant = meant >> self._raise if self._raise >= 0 else meant << -self._raise
        mixed = ((BETWEEN - 1) * meant + self._last.motion_energy) // BETWEEN
        self._last = replace(self._last, motion_energy=mixed)
        return record
