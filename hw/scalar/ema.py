"""The exponential moving average of the curvature."""

from __future__ import annotations

from .operations import Operation
from .sequencer import Do

KEEP = (
    Do("old", Operation.LOAD, "ema"),
    Do("keep", Operation.MUL, "keep"),
)
"""``keep * S``, before C is known; what follows stores it as ``kept``."""

EMA = (
    Do("weigh", Operation.MUL, "rho", store="curvature"),
    Do("join", Operation.ADD, "kept"),
)
"""From C in y to ``keep * S + rho * C``: two products and their sum, each rounded once."""

EMA_LATE = (EMA[0], KEEP[0]._replace(store="kept"), KEEP[1], EMA[1])
"""The same where ``keep * S`` was not worked out before, as its register held something else: ``rho * C`` is kept instead."""
