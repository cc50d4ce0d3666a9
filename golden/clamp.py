"""The law that turns a curvature into alpha, its clamp, and the step size that the lanes multiply by."""

from __future__ import annotations

from collections.abc import Mapping

from .divider import divide
from .formats import Fixed, Scalar
from .scalar import ScalarUnit


def alpha_law(unit: ScalarUnit, constants: Mapping[str, Scalar], x: Scalar) -> Scalar:
    """``alpha = min(1, max(alpha_min, num / (bias + gain * x)))``, 1 where the denominator is zero; 0 <= alpha <= 1."""
    q = unit.add(constants["bias"], unit.mul(constants["gain"], x))
    if q.m == 0:
        return unit.format.one
    alpha = divide(unit, constants["num"], q)
    return unit.minimum(unit.format.one, unit.maximum(constants["alpha_min"], alpha))


def step_size(fmt: Fixed, alpha: Scalar, eta: Scalar) -> int:
    """``alpha * eta`` on the step grid: the exact product, rounded once to nearest even, at most the upper rail."""
    product, exponent = alpha.m * eta.m, alpha.e + eta.e + fmt.fraction_bits
    if exponent >= 0:
        return min(product << exponent, fmt.rails[1])
    whole, rest = divmod(product, 1 << -exponent)
    half = 1 << (-exponent - 1)
    return min(whole + (rest > half or (rest == half and whole & 1 == 1)), fmt.rails[1])
