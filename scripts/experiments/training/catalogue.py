"""Every experiment by its name on the command line."""

from __future__ import annotations

from collections.abc import Callable

from . import published as experiments
from . import rules, widths
from .curvature import experiment_curvature
from .published import Experiment
from .segments import experiment_segments
from .still import experiment_still

EXPERIMENTS: dict[str, Callable[..., Experiment]] = {
    "000": experiments.experiment_000,
    "000C": experiments.experiment_000c,
    "1A": experiments.experiment_1a,
    "digits": widths.experiment_digits,
    "diabetes": widths.experiment_diabetes,
    "data": widths.experiment_data,
    "noise": experiments.experiment_noise,
    "rounding": rules.experiment_rounding,
    "laws": rules.experiment_laws,
    "delay": rules.experiment_delay,
    "still": experiment_still,
    "curvature": experiment_curvature,
    "segments": experiment_segments,
}
"""What makes it."""
