"""Vectors of floats onto a grid and off it in compiled loops, for a front end whose weights and gradients are floats.

Each loop does in one pass what takes numpy or torch several, with the same roundings on the way: products and differences are in
the vector's own dtype (of 32-bit codes and float32 numba would make float64), a value is scaled and rounded to nearest, ties to
even, and what lies beyond the rails is clipped. Plain Python without numba; :func:`loops` compiles them.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from .compiled import compiled
from .formats import Fixed, Overflow, Rounding
from .kernels import Kernel


class Grid(NamedTuple):
    """A format as the loops take it, in the dtype that they compute in: what a value is multiplied by, and the rails."""

    scale: Any
    low: Any
    high: Any


class Loops(NamedTuple):
    """The loops for vectors of one dtype."""

    enter: Kernel  #: (values, grid, codes): fills codes; how many values lay beyond the rails, which what is not finite does
    propose: (
        Kernel  #: (theta, ulp, offset, values, factor, grid, codes): as enter, of ``(theta * ulp + offset - values) * factor``
    )
    leave: Kernel  #: (codes, ulp, offset, values): fills values with ``codes * ulp + offset``
    same: Kernel  #: (codes, ulp, offset, values): whether that is what values are
    moments: (
        Kernel  #: (old, new, ulp, offset, values, factor): sums of squares of ``new - old`` and of the proposal, and of products
    )


def takes(fmt: Fixed) -> bool:
    """Whether the loops have the modes of a format."""
    return fmt.rounding is Rounding.NEAREST_EVEN and fmt.overflow in (Overflow.SATURATE, Overflow.SATURATE_SYMMETRIC)


def grid(fmt: Fixed, dtype: Any) -> Grid:
    """A format for vectors of a dtype: computed in float32 where that is exact, as scaling up is, and the rails are float32s."""
    low, high = fmt.rails
    word = np.float32 if dtype == np.float32 and 0 <= fmt.fraction_bits <= 60 and fmt.width <= 24 else np.float64
    return Grid(word(2.0**fmt.fraction_bits), word(low), word(high))


@functools.cache
def loops() -> Loops:
    """Compiled when they are first called with a dtype, and kept on disk."""
    return Loops(*(compiled(factory) for factory in (enter, propose, leave, same, moments)))


def enter() -> Kernel:
    def enter_grid(values: Any, grid: Grid, codes: Any) -> Any:
        beyond = np.int32(0)
        for i in range(values.size):
            scaled = np.rint(values[i] * grid.scale)
            fitted = min(max(scaled, grid.low), grid.high)
            beyond = np.int32(beyond + np.int32(scaled != fitted))
            codes[i] = np.int32(fitted)
        return beyond

    return enter_grid


def propose() -> Kernel:
    def propose_codes(theta: Any, ulp: Any, offset: Any, values: Any, factor: Any, grid: Grid, codes: Any) -> Any:
        beyond = np.int32(0)
        for i in range(values.size):
            stored = values.dtype.type(theta[i] * ulp) + offset
            scaled = np.rint((stored - values[i]) * factor * grid.scale)
            fitted = min(max(scaled, grid.low), grid.high)
            beyond = np.int32(beyond + np.int32(scaled != fitted))
            codes[i] = np.int32(fitted)
        return beyond

    return propose_codes


def leave() -> Kernel:
    def leave_grid(codes: Any, ulp: Any, offset: Any, values: Any) -> None:
        for i in range(values.size):
            values[i] = codes[i] * ulp + offset

    return leave_grid


def same() -> Kernel:
    def same_values(codes: Any, ulp: Any, offset: Any, values: Any) -> bool:
        differ = np.int32(0)
        for i in range(values.size):
            differ = np.int32(differ + np.int32(values[i] != codes[i] * ulp + offset))
        return bool(differ == 0)

    return same_values


def moments() -> Kernel:
    def moments_of(old: Any, new: Any, ulp: Any, offset: Any, values: Any, factor: Any) -> tuple[float, float, float]:
        applied = meant = product = 0.0
        for i in range(values.size):
            change = np.float64(new[i] - old[i]) * ulp
            stored = values.dtype.type(old[i] * ulp) + offset
            proposal = np.float64((stored - values[i]) * factor)
            applied += change * change
            meant += proposal * proposal
            product += change * proposal
        return applied, meant, product

    return moments_of
