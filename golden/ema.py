"""The exponential moving average of the curvature."""

from __future__ import annotations

from .formats import Scalar
from .scalar import ScalarUnit


def ema(unit: ScalarUnit, keep: Scalar, rho: Scalar, average: Scalar, value: Scalar) -> Scalar:
    """``keep * average + rho * value``, in that order: two products and their sum, each rounded once."""
    return unit.add(unit.mul(keep, average), unit.mul(rho, value))
