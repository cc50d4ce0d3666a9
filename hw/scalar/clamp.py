"""The law that turns a curvature into alpha, its clamp, and the step size that the lanes multiply by."""

from __future__ import annotations

import enum

from ...golden import config as golden_config
from .operations import Operation
from .sequencer import Do


class Source(enum.Enum):
    """Which curvature the law sees, as the host writes it."""

    INSTANT = 0
    EMA = 1
    MAX = 2

    @classmethod
    def of(cls, source: golden_config.Source) -> Source:
        """What it sees of C and S; the sources of which a unit has but one are x = C."""
        return cls[source.x.name]


LAW = (
    Do("see", Operation.MAX, "curvature", store="ema", instead={"instant": Operation.LOAD, "average": Operation.HOLD}),
    Do("scale", Operation.MUL, "gain"),
    Do("offset", Operation.ADD, "bias"),
    Do("divide", Operation.UNDER, "num"),  # by zero it is the largest scalar, which the clamp makes 1
    Do("ratio", Operation.QUOTIENT),
    Do("limit", Operation.HOLD, "cap", instead={"grows": Operation.MIN}),
    Do("floor", Operation.MAX, "alpha_min"),
    Do("ceiling", Operation.MIN, "one", then={"off": "unthrottled"}),
    Do("product", Operation.PRODUCT, "eta", store="alpha"),
    Do("step", Operation.STEP, "step_grid"),
)
UNTHROTTLED = (Do("unthrottled", Operation.LOAD, "eta", store="alpha", then={"": "step"}),)
"""``alpha = min(1, max(alpha_min, num / (bias + gain * x)))``, 1 where the denominator is zero; and the step size. A cap
on the quotient, while it ``grows``.

From S in y; x is C, S or the larger of the two. The step is ``(alpha if enabled else 1) * eta`` on the step grid: the
exact product, rounded once, at most the upper rail. Every other operation is rounded once. ``alpha_min`` is at most 1.
"""
