"""What is measured at each training step.

:data:`METRICS` is the list; each metric is one float a step. "Before" means at the weights that the step starts from.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.config import COUNTER_BITS
from kappa_rtl.golden.throttle import Registers

Floats = NDArray[np.float64]

FRACTIONS = (
    "gradient_saturated",
    "gradient_near_rail",
    "update_saturated",
    "update_underflow",
    "weight_saturated",
    "weight_near_rail",
)
"""The unit's per-element counters, as fractions of the elements of one step."""

METRICS: dict[str, str] = {
    "loss": "half mean squared error of the batch before the step: sum((yhat - y)**2) / (2 * rows)",
    "accuracy": "share of the batch's rows whose largest output is their label, before the step; only with labels",
    "gain": "factor on the inputs (the exposure)",
    "eta_lambda_max": "eta times the largest eigenvalue of X^T X / rows, X the float batch after the gain; unstable above 2",
    "alpha_eta_lambda_max": "alpha_applied times eta_lambda_max",
    "alpha": "what the law gives, applied or not",
    "alpha_applied": "alpha, or 1 where the throttle is not enabled",
    "curvature": "C = ||G - previous G|| / ||previous applied change||, as the unit has it",
    "ema": "S, the moving average of C, as the unit has it",
    "norm_gradient": "||G - previous G||, as the unit has it",
    "norm_motion": "||previous applied change||, as the unit has it",
    "step_size": "alpha * eta as the lanes multiply by it",
    "still": "1 if the step before moved no weight, else 0",
    "angle": "radians between the applied change and -alpha_applied * eta * g, g the float gradient; pi/2 if either is zero",
    "cosine": "cosine of that angle; 0 if either is zero",
    "radius_ratio": "||applied change|| / ||alpha_applied * eta * g||; 1 if both are zero",
    "gradient_saturated": "fraction of G on a rail",
    "gradient_near_rail": "fraction of G with at least 0.95 of the larger rail's magnitude",
    "update_saturated": "fraction of the updates clipped on the update grid",
    "update_underflow": "fraction of the updates that are zero though their exact product is not",
    "weight_saturated": "fraction of the new weights on a rail",
    "weight_near_rail": "fraction of the new weights with at least 0.95 of the larger rail's magnitude",
}
"""Name of each metric of a step -> its definition."""


def lambda_max(inputs: Floats) -> float:
    """The largest eigenvalue of ``X^T X / rows`` for X of (rows, d): the sharpness of the linear layer's half-MSE."""
    return float(np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1])


class Distortion(NamedTuple):
    """How an applied change differs from the intended one."""

    angle: float  #: radians, 0..pi
    cosine: float
    radius_ratio: float


def distortion(applied: Floats, intended: Floats) -> Distortion:
    """Angle, cosine and ratio of the norms of two vectors of equal length."""
    a, b = float(np.linalg.norm(applied)), float(np.linalg.norm(intended))
    if a == 0 or b == 0:
        return Distortion(math.pi / 2, 0.0, 1.0 if a == b else a / b if b else math.inf)
    u, v = applied / a, intended / b
    # Half the angle as an arctangent: the arccosine of a rounded cosine sees no angle below 1e-8.
    angle = 2 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))
    return Distortion(angle, math.cos(angle), a / b)


def fractions(now: Registers, before: Registers | None, elements: int) -> dict[str, float]:
    """The per-element counters of one step as fractions of its elements.

    Args:
        now, before: the cumulative registers after this step and after the one before; None if they were clear.
    """
    return {name: _difference(now, before, name) / elements for name in FRACTIONS}


def _difference(now: Any, before: Any, name: str) -> int:
    return int((getattr(now, name) - (getattr(before, name) if before is not None else 0)) % (1 << COUNTER_BITS))
