"""The gelu of float32 compiled, value and slope in one pass: numpy's tanh alone takes two thirds of an estimator's time.

The tanh is Lambert's continued fraction ``x / (1 + x^2 / (3 + x^2 / (5 + ...)))``, cut where it is exact to half a last bit of 1
within ``|x| <= 9``, and held there beyond, where tanh is 1 in float32. Without numba there is none of this.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..compiled import compiler

Array = NDArray[Any]

TERMS = 13
RAIL = 9.0


def lambert(terms: int) -> tuple[list[Fraction], list[Fraction]]:
    """``tanh x = x P(x^2) / Q(x^2)``: the coefficients of P and Q from the constant up, Q's constant 1."""
    over, under = [Fraction(2 * terms - 1)], [Fraction(1)]
    for odd in range(2 * terms - 3, 0, -2):  # odd + x^2 / (over / under)
        longer = max(len(over), len(under) + 1)
        lifted = [Fraction(0), *under, *[Fraction(0)] * (longer - len(under) - 1)]
        raised = [odd * c for c in over] + [Fraction(0)] * (longer - len(over))
        over, under = [a + b for a, b in zip(raised, lifted, strict=True)], over
    return [c / over[0] for c in under], [c / over[0] for c in over]


def gelu_pass(root: Any, cube: Any) -> Callable[[Array, Array, Array], None]:
    """The loop, plain Python without numba, for the gelu ``x/2 (1 + tanh(x (root + cube x^2)))``."""
    above, below = lambert(TERMS)
    p0, p1, p2, p3, p4, p5, p6 = (np.float32(c) for c in above)
    q0, q1, q2, q3, q4, q5, q6 = (np.float32(c) for c in below)
    low, high, half, one, thrice = np.float32(-RAIL), np.float32(RAIL), np.float32(0.5), np.float32(1), np.float32(3)

    def gelu(x: Array, value: Array, slope: Array) -> None:
        for i in range(x.size):
            z = x[i]
            bent = cube * z * z
            u = z * (root + bent)
            u = high if u > high else u  # comparisons, since min and max would keep this from becoming a vector loop
            u = low if u < low else u
            y = u * u
            over = p0 + y * (p1 + y * (p2 + y * (p3 + y * (p4 + y * (p5 + y * p6)))))
            under = q0 + y * (q1 + y * (q2 + y * (q3 + y * (q4 + y * (q5 + y * q6)))))
            t = u * over / under  # at the rails exactly 1: the slope has 1 - t^2 times what grows with x
            value[i] = half * z * (one + t)
            slope[i] = half * (one + t + z * (one - t * t) * (root + thrice * bent))

    return gelu


@functools.cache
def gelu_loop(root: float, cube: float) -> Callable[[Array, Array, Array], None] | None:
    """The compiled loop over flat float32 arrays x, value and slope; None without numba."""
    numba = compiler()
    if numba is None:
        return None
    # numpy's division, which does not raise: a branch would keep this from becoming a vector loop.
    loop = numba.njit(nogil=True, error_model="numpy")(gelu_pass(np.float32(root), np.float32(cube)))
    return loop  # type: ignore[no-any-return]
