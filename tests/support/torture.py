"""A short programme of hard cases that any fault of the datapath should not survive; for mutants and for a first look.

The hardware is small and narrow on purpose: ties, rails and scalar overflows are then frequent instead of rare.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.difference import Difference, compare
from kappa_rtl.sim.runner import SimulationError

HARDWARE: dict[str, Any] = {
    "elements": 7,
    "lanes": 2,
    "gradient": "SQ2.6",
    "weight": "SQ2.4",
    "update": "SQ1.6",
    "mantissa_bits": 9,
    "exponent_bits": 7,
    "step_bits": 6,
    "dead_after": 3,
    "eta_max": "0.999",
}


class Act(NamedTuple):
    """One run of the programme: what the host writes, how the streams stall, how many steps."""

    law: dict[str, Any]
    stalls: Stalls
    steps: int = 64


ACTS = (
    Act(
        {"eta": "0.968", "num": "0.73", "bias": "0.006", "gain": "0.214", "source": "max", "rho": "0.04", "eps": "1.2e-6"},
        Stalls(),
    ),
    Act(
        {"eta": "0.9", "source": "ema", "gain": "0.3", "alpha_min": "0.05", "eps": "2e-4", "on_still": "hold"}, Stalls(60, 90, 2)
    ),
    Act(
        {"eta": "0.55", "num": "0.6", "bias": 0, "source": "instant", "on_still": "divide", "ema_start": "first"},
        Stalls(0, 200, 3),
    ),
    # Denominators and quotients on both sides of the largest and of the smallest exponent.
    Act({"eta": "0.999", "num": "1e9", "gain": "3e20", "bias": "1e-9", "source": "max", "rho": "0.3"}, Stalls(200, 0, 4)),
    Act(
        {"eta": "0.8", "num": "3e-16", "gain": 30, "bias": 0, "source": "instant", "eps": "1e-6", "on_still": "floor"},
        Stalls(30, 30, 5),
    ),
    # The denominator starts at the largest scalar: with half an ulp or more it rounds up, out of the range.
    Act({"eta": "0.9", "bias": (2**9 - 1) << 63, "gain": 3 << 58, "alpha_min": 0.4, "source": "instant", "eps": 1e-3}, Stalls()),
    Act({"eta": "0.999", "enabled": False, "source": "ema", "ema_start": "first", "rho": "0.5"}, Stalls(90, 60, 6)),
)


def hardware(**changes: Any) -> ThrottleConfig:
    """The configuration of the programme's unit."""
    return ThrottleConfig(**HARDWARE | {"eta": "0.7"} | changes)


def gradients(config: ThrottleConfig, act: int, steps: int) -> Iterator[NDArray[np.int64]]:
    """Random codes of every magnitude, with rails, single ulps, repeats and zeros in between; a stretch of zeros near the end."""
    random = np.random.default_rng(1000 + act)
    low, high = config.grids.gradient.rails
    before = np.zeros(config.elements, np.int64)
    for step in range(steps):
        amplitude = int(random.choice([1, 2, 5, 20, high]))
        kind = random.integers(8)
        if steps - 8 <= step < steps - 2:
            gradient = np.zeros(config.elements, np.int64)
        elif kind == 0:
            gradient = random.choice([low, high, high - 1, low + 1, 0], config.elements)
        elif kind == 1:
            gradient = before
        elif kind == 2:
            gradient = np.eye(1, config.elements, int(random.integers(config.elements)), dtype=np.int64)[0] * int(
                random.choice([-1, 1])
            )
        else:
            gradient = random.integers(max(-amplitude, low), amplitude + 1, config.elements)
        before = gradient
        yield gradient


def torture(rtl: RtlThrottle, golden: type[Throttle] = Throttle, **options: Any) -> Difference | SimulationError | None:
    """Run the whole programme on a unit of :func:`hardware` with these options; the first fault, or None."""
    for number, act in enumerate(ACTS):
        config = hardware(**act.law | options)
        weights = np.random.default_rng(number).integers(*config.grids.weight.rails, config.elements, endpoint=True)
        model = golden(config, weights, codes=True)
        try:
            rtl.restart(config, weights, codes=True, stalls=act.stalls)
            for step, gradient in enumerate(gradients(config, number, act.steps)):
                if step in (rates := {act.steps // 4: "0.43", act.steps * 5 // 8: 0, act.steps * 6 // 8: "0.7"}):
                    for one in (model, rtl):
                        one.set_rate(rates[step])
                if step == act.steps // 2:
                    model.clear()
                    rtl.clear()
                _, difference = compare(model.step(gradient, codes=True), rtl.step(gradient, codes=True))
                if difference:
                    return difference
        except SimulationError as error:
            return error
    return None
