"""The law that turns a curvature into alpha, its clamp, and the step size that the lanes multiply by."""

from __future__ import annotations

from collections.abc import Mapping

from .divider import divide
from .formats import Fixed, Scalar
from .scalar import ScalarUnit
from .sqrt import root


def alpha_law(unit: ScalarUnit, constants: Mapping[str, Scalar], x: Scalar, cap: Scalar | None = None) -> Scalar:
    """``alpha = min(1, max(alpha_min, num / (bias + gain * x)))``, with 1 for the quotient where the denominator is zero.

    A ``cap`` bounds the quotient. 0 <= alpha <= 1.
    """
    q = unit.add(constants["bias"], unit.mul(constants["gain"], x))
    alpha = divide(unit, constants["num"], q) if q.m else unit.format.one
    if cap is not None:
        alpha = unit.minimum(alpha, cap)
    return unit.minimum(unit.format.one, unit.maximum(constants["alpha_min"], alpha))


def growth_cap(unit: ScalarUnit, last: Scalar, before: Scalar) -> Scalar:
    """``sqrt(1 + last / before) * last``: what alpha may become at most after these two."""
    return unit.mul(root(unit, unit.add(unit.format.one, divide(unit, last, before))), last)


def step_size(fmt: Fixed, alpha: Scalar, eta: Scalar) -> tuple[int, bool]:
    """``alpha * eta`` on the step grid: the exact product, rounded once to nearest even, at most the upper rail.

    Returns:
        The size, and whether it lay beyond the rail.
    """
    product, exponent = alpha.m * eta.m, alpha.e + eta.e + fmt.fraction_bits
    if exponent >= 0:
        size = product << exponent
    else:
        whole, rest = divmod(product, 1 << -exponent)
        half = 1 << (-exponent - 1)
        size = whole + (rest > half or (rest == half and whole & 1 == 1))
    rail = fmt.rails[1]
    return min(size, rail), size > rail
