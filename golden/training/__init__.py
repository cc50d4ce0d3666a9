"""Training through a throttle unit.

``model``, ``instrumented`` and what they import are the harness: small networks, every tensor on a format of its own, every step
measured. ``loop`` is the generator that the co-simulation drives: one bias-free layer, its runs on several units side by side.
"""

from kappa_rtl.golden.training.data import Problem, digits, synthetic
from kappa_rtl.golden.training.loop import DIVERGENCE_LOSS, GainRamp, StepRow, train
from kappa_rtl.golden.training.metrics import METRICS

__all__ = ["DIVERGENCE_LOSS", "METRICS", "GainRamp", "Problem", "StepRow", "digits", "synthetic", "train"]
