"""Training through a throttle unit: one loop (``loop``), measured in two ways.

``instrumented`` measures every step of any model; ``linear`` has the run of one bias-free layer, a step for each ``next()``, for
runs on several units side by side, as the co-simulation makes them.
"""

from ..network.data import Problem, digits, synthetic
from .linear import DIVERGENCE_LOSS, GainRamp, Run, StepRow
from .metrics import METRICS

__all__ = ["DIVERGENCE_LOSS", "METRICS", "GainRamp", "Problem", "Run", "StepRow", "digits", "synthetic"]
