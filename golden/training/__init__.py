"""A minimal quantised training loop: real data in, one throttle unit behind one interface, a row of metrics a step."""

from kappa_rtl.golden.training.data import Problem, digits, synthetic
from kappa_rtl.golden.training.loop import DIVERGENCE_LOSS, GainRamp, StepRow, train
from kappa_rtl.golden.training.metrics import METRICS

__all__ = ["DIVERGENCE_LOSS", "METRICS", "GainRamp", "Problem", "StepRow", "digits", "synthetic", "train"]
