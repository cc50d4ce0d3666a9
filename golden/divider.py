"""The quotient of two scalars."""

from __future__ import annotations

from .formats import ZERO, Scalar
from .scalar import ScalarUnit


def divide(unit: ScalarUnit, a: Scalar, b: Scalar) -> Scalar:
    """``rnd(a / b)``; by zero it is the largest finite scalar, with the overflow flag, or zero for 0/0."""
    if a.m == 0:
        return ZERO
    if b.m == 0:
        return unit.too_large()
    lift = unit.format.mantissa_bits + 2
    quotient, rest = divmod(a.m << lift, b.m)
    return unit.round(quotient, a.e - b.e - lift, sticky=rest != 0)
