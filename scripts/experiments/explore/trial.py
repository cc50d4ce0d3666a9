"""One run of a point: trained until it is done or hopeless, and what it says of the point."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ....golden.training.instrumented import Step, TrainingWarning
from ..training.published import Arm, MakeUnit, run_arm
from .subject import Result
from .watch import Watch, curve_of

Observe = Callable[[Step], Any]


def run(arm: Arm, seed: int, unit: MakeUnit, watch: Watch, *, labelled: bool, observe: Observe | None = None) -> Result:
    """Train an arm once.

    Args:
        unit: makes the unit.
        watch: gives the run up where it is hopeless.
        labelled: whether the score is an accuracy.
        observe: is called with every step.

    Returns:
        see :data:`~kappa_rtl.scripts.experiments.explore.subject.Result`; the score is held-out accuracy, or loss where there are
        no labels, a mean over the weights of the last 20 steps (of the rows trained on, where none is held out).
    """
    began = time.perf_counter()

    def look(step: Step) -> bool:
        if observe is not None:
            observe(step)
        row = step.row
        return watch.ends(step.step, row["loss"], still=bool(row["dtheta_zero"]), alpha=row["alpha_applied"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # lints of single settings, where all are tried
        with np.errstate(all="ignore"):
            history = run_arm(arm, seed, make_unit=unit, observe=look)
    ending = "diverged" if history.diverged_at is not None else watch.ending
    known = history.meta
    names = ("tail_accuracy_held_out", "tail_accuracy") if labelled else ("tail_loss_held_out", "loss")
    score = next((known[name] for name in names if name in known), float(history["loss"][-1]))
    if ending == "diverged":
        score = 0.0 if labelled else math.inf
    return {
        "ending": ending,
        "steps": history.steps,
        "score": float(score),
        "loss": float(history["loss"][-1]),
        "min_alpha": float(np.min(history["alpha"])),
        "median_alpha": float(np.median(history["alpha"])),
        "still": float(np.mean(history["dtheta_zero"])),
        "radius": float(np.nanmedian(history["update_radius_ratio"])),
        "angle": float(np.nanmedian(history["update_angle_rad"])),
        "saturated": float(np.nan_to_num(history["weight_saturation_fraction_max"][-1])),
        "curve": curve_of(loss=history["loss"], alpha=history["alpha"], curvature=history["curvature_proxy"]),
        "seconds": time.perf_counter() - began,
    }
