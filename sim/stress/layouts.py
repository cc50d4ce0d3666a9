"""The soak of segments: layout after layout on one exported unit, a few steps of each, against the golden model."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np

from ...golden.config import ThrottleConfig
from ...golden.segments import Segment
from ...golden.throttle import Throttle
from ..cosim import RtlThrottle, Stalls
from ..difference import compare
from ..testbench.layouts import some_layout

SEGMENTED: dict[str, tuple[ThrottleConfig, bool]] = {
    "8 lanes, residuals at random": (
        ThrottleConfig.stability_margin(
            elements=300, eta=0.25, lanes=8, segments=16, capacity=300, update="SQ1.15,stochastic", residual_bits=4
        ),
        False,
    ),
    "3 lanes, applied, streaming": (
        ThrottleConfig.stability_margin(
            elements=70, eta=0.5, lanes=3, segments=5, scale_max=4, weight="SQ2.6", update="SQ1.9", motion="applied"
        ),
        True,
    ),
    "a lane, projection": (
        ThrottleConfig.stability_margin(elements=40, eta=0.25, lanes=1, segments=3, scale_max=1, source="projection"),
        False,
    ),
}
"""The units that are soaked, each with whether it streams."""

STEPS = 3
"""Of each layout."""


@dataclass(frozen=True)
class Trial:
    """A layout with the first weights, and the gradients of its steps, all as codes."""

    segments: tuple[Segment, ...]
    weights: np.ndarray[Any, Any]
    gradients: tuple[np.ndarray[Any, Any], ...]


def some_trial(random: Random, config: ThrottleConfig) -> Trial:
    """Gradients of every size: none, small ones that move few weights, and beyond what the weights can follow."""
    segments = some_layout(random, config)
    numbers = np.random.default_rng(random.getrandbits(64))
    elements = sum(segment.elements for segment in segments)
    low, high = config.grids.weight.rails
    weights = numbers.integers(low, high + 1, elements)
    gradients = []
    for _ in range(STEPS):
        low, high = config.grids.gradient.rails
        reach = high >> random.choice([0, 0, 3, 6, 9])
        gradients.append(numbers.integers(-reach, reach + 1, elements) * random.choice([0, 1, 1, 1, 1, 1, 1]))
    return Trial(segments, weights, tuple(gradients))


class Layouts:
    """A unit with segments in the simulator, with the golden model beside it; a context manager.

    Args:
        verilog: the text to simulate instead of the export.
    """

    def __init__(self, name: str, verilog: str | None = None) -> None:
        self.config, streaming = SEGMENTED[name]
        self._golden = Throttle(self.config, np.zeros(self.config.elements))
        self.rtl = RtlThrottle(
            self.config,
            np.zeros(self.config.elements),
            streaming=streaming,
            stalls=Stalls(40, 40),
            verilog=verilog,
        )

    def __enter__(self) -> Layouts:
        return self

    def __exit__(self, *_: object) -> None:
        self.rtl.close()

    def play(self, trial: Trial) -> tuple[int, str | None]:
        """Train a layout on both: the values that were compared, and the first difference."""
        compared = 0
        for unit in (self._golden, self.rtl):
            unit.layout(trial.segments, trial.weights, codes=True)
        for gradient in trial.gradients:
            count, difference = compare(self._golden.step(gradient, codes=True), self.rtl.step(gradient, codes=True))
            compared += count
            if difference is not None:
                return compared, f"{difference}; segments {[(one.elements, one.scale) for one in trial.segments]}"
        return compared, None

    def soak(self, random: Random, count: int) -> tuple[int, int, str | None]:
        """So many layouts: how many were trained, their clock cycles, and the first difference."""
        before = len(self.rtl.cycles)
        for done in range(count):
            _, difference = self.play(some_trial(random, self.config))
            if difference is not None:
                return done, sum(self.rtl.cycles[before:]), difference
        return count, sum(self.rtl.cycles[before:]), None
