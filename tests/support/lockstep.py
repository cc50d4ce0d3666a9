"""Golden and RTL side by side on random gradients."""

from __future__ import annotations

from typing import Any

import numpy as np

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.units.segments import START
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.difference import compare


def lockstep(
    config: ThrottleConfig,
    steps: int,
    *,
    simulator: str = "verilator",
    seed: int = 0,
    stalls: Stalls | None = None,
    **options: Any,
) -> None:
    """Golden and RTL on the same random gradients of all magnitudes, with rails and still stretches."""
    random = np.random.default_rng(seed)
    g, w = config.grids.gradient, config.grids.weight
    weights = random.integers(*w.rails, config.elements, endpoint=True)
    golden = Throttle(config, weights, codes=True)
    streaming = options.get("streaming", False)
    with RtlThrottle(config, weights, codes=True, simulator=simulator, stalls=stalls, **options) as rtl:
        for step in range(steps):
            limit = int(random.choice([1, 3, max(1, g.rails[1] // 50), g.rails[1]]))
            gradient = random.integers(-limit, limit, config.elements, endpoint=True) * (step % 7 != 3)
            direction = random.integers(*g.rails, config.elements, endpoint=True) if streaming else None
            _, difference = compare(golden.step(gradient, direction, codes=True), rtl.step(gradient, direction, codes=True))
            assert difference is None, f"seed {seed}: {difference}"
        if stalls is None:
            turning = 2 * (START + config.entries) if config.segments else 0
            assert max(rtl.cycles) <= 2 * config.beats + 300 + turning or config.mantissa_bits > 24
