"""The golden unit and the oracle side by side, and the small configuration that most runs of the two use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from support import spec


class Pair:
    """The golden unit and the oracle side by side; ``step`` asserts that they agree to the bit."""

    def __init__(self, config: ThrottleConfig, theta: Sequence[int]) -> None:
        self.golden = Throttle(config, np.array(theta, np.int64), codes=True)
        self.oracle = spec.SpecThrottle(config, theta)
        self.steps = 0

    def step(self, gradient: Sequence[int], direction: Sequence[int] | None = None, blocks: Sequence[int] = ()) -> dict[str, Any]:
        """One step of both; the registers, theta and update that both found."""
        if blocks:
            self.golden.watchdog.blocks(blocks)
            self.oracle.blocks += blocks
        d = None if direction is None else np.array(direction, np.int64)
        record = self.golden.step(np.array(gradient, np.int64), d, codes=True)
        got = record.registers.to_json() | {"theta": record.theta.tolist(), "update": record.update.tolist()}
        want = self.oracle.step(gradient, direction)
        assert json.loads(json.dumps(got)) == want, f"step {self.steps}"
        assert record.step == self.steps
        assert self.golden.theta.tolist() == want["theta"]
        self.steps += 1
        return want

    def set_rate(self, eta: Fraction) -> None:
        self.golden.set_rate(eta)
        self.oracle.set_rate(eta)

    def clear(self) -> None:
        self.golden.clear()
        self.oracle.clear()


def small(**changes: Any) -> ThrottleConfig:
    """Two elements, eta 1/2 (exact in every grid), C itself as the curvature: alpha = min(1, 1 / (1 + C))."""
    values: dict[str, Any] = {"elements": 2, "eta": 0.5, "source": "instant", "eps": 0}
    return ThrottleConfig(**(values | changes))


def value(pair: list[int]) -> Fraction:
    return pair[0] * spec.power_of_two(pair[1])
