"""Rounding and overflow on arrays: how a value enters a fixed-point grid.

Integer arrays are codes (multiples of an ulp). Every function is exact on codes whose word has two bits to spare; the
configuration proves that for the datapath's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .formats import Fixed, Overflow, Rounding
from .random import DRAW_BITS

BEYOND = 2.0**62
"""Larger than any rail, and still an int64."""

Codes = NDArray[np.signedinteger[Any]]


def storage_dtype(fmt: Fixed) -> np.dtype[Any]:
    """The smallest signed numpy integer that holds a signed format's codes."""
    return np.dtype(next(f"int{bits}" for bits in (8, 16, 32, 64) if fmt.width <= bits))


def shift_round(codes: Codes, shift: int, rounding: Rounding, out: Codes | None = None) -> Codes:
    """``codes * 2**-shift`` rounded to integers; exact for ``shift <= 0``. ``out`` may be ``codes`` itself."""
    out = np.empty_like(codes) if out is None else out
    if shift <= 0:
        return np.left_shift(codes, -shift, out=out)
    half = 1 << (shift - 1)
    # Each mode is a floor after adding what lifts exactly the right values over the next integer.
    match rounding:
        case Rounding.NEAREST_EVEN:
            lift: Any = ((codes >> shift) & 1) + (half - 1)
        case Rounding.NEAREST_UP:
            lift = half
        case Rounding.NEAREST_DOWN:
            lift = half - 1
        case Rounding.NEAREST_ZERO:
            lift = codes.dtype.type(half) - (codes >= 0)
        case Rounding.NEAREST_AWAY:
            lift = codes.dtype.type(half) - (codes < 0)
        case Rounding.FLOOR:
            lift = 0
        case Rounding.TOWARD_ZERO:
            lift = (codes < 0) * codes.dtype.type(2 * half - 1)
        case _:
            raise ValueError(f"rounding must be deterministic, not {rounding.value!r}")
    np.add(codes, lift, out=out)
    return np.right_shift(out, shift, out=out)


def random_lift(draws: NDArray[np.uint16], random_bits: int, shift: int) -> Codes:
    """What stochastic rounding adds before the floor: the top ``random_bits`` of each draw, below one ulp of the coarser grid.

    Bits of the draw below the codes' own grid cannot matter and are left out.
    """
    spare = DRAW_BITS - random_bits
    places = shift - DRAW_BITS
    lift = (draws >> spare << spare).astype(np.int64)
    return np.left_shift(lift, places, out=lift) if places >= 0 else np.right_shift(lift, -places, out=lift)


def fit(codes: Codes, fmt: Fixed, out: Codes | None = None) -> Codes:
    """Codes brought within the rails of ``fmt`` by its overflow mode. ``out`` may be ``codes`` itself."""
    low, high = fmt.rails
    out = np.empty_like(codes) if out is None else out
    match fmt.overflow:
        case Overflow.WRAP:
            np.subtract(codes, low, out=out)
            np.bitwise_and(out, (1 << fmt.width) - 1, out=out)
            return np.add(out, low, out=out)
        case Overflow.ZERO:
            return np.multiply(codes, (codes >= low) & (codes <= high), out=out)
        case _:
            return np.clip(codes, low, high, out=out)


def values(codes: ArrayLike, fmt: Fixed) -> NDArray[np.float64]:
    """The real values of codes, exact."""
    return np.ldexp(np.asarray(codes, np.float64), -fmt.fraction_bits)


def quantise(tensor: ArrayLike, fmt: Fixed, name: str = "tensor") -> Codes:
    """Real values rounded once onto the grid of ``fmt`` and brought within its rails; int64 codes of the same shape.

    Raises:
        ValueError: a value is NaN or infinite; names the tensor, the index and the value.
    """
    real = np.asarray(tensor, np.float64)
    _finite(real, name)
    if fmt.overflow is Overflow.WRAP:  # exact, and keeps the scaled value within int64
        real = np.fmod(real, np.ldexp(1.0, fmt.integer_bits))
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(real, fmt.fraction_bits)
    # Too large to scale is beyond any rail; too small is still not zero, and a floor must see its sign.
    scaled = np.where((scaled == 0) & (real != 0), np.copysign(0.25, real), np.clip(scaled, -BEYOND, BEYOND))
    whole = np.trunc(scaled)
    match fmt.rounding:
        case Rounding.NEAREST_EVEN:
            rounded = np.rint(scaled)
        case Rounding.FLOOR:
            rounded = np.floor(scaled)
        case Rounding.TOWARD_ZERO:
            rounded = whole
        case Rounding.NEAREST_UP | Rounding.NEAREST_DOWN | Rounding.NEAREST_ZERO | Rounding.NEAREST_AWAY:
            # scaled - whole is exact, so ties are recognised exactly; only they depend on the mode.
            tie = np.abs(scaled - whole) == 0.5
            on_tie: Any = {
                Rounding.NEAREST_UP: np.ceil,
                Rounding.NEAREST_DOWN: np.floor,
                Rounding.NEAREST_ZERO: np.trunc,
                Rounding.NEAREST_AWAY: lambda x: np.copysign(np.ceil(np.abs(x)), x),
            }[fmt.rounding]
            rounded = np.where(tie, on_tie(scaled), np.rint(scaled))
        case _:
            raise ValueError(f"{name}: rounding must be deterministic, not {fmt.rounding.value!r}")
    return fit(rounded.astype(np.int64), fmt)


def on_grid(tensor: ArrayLike, fmt: Fixed, name: str = "tensor") -> NDArray[np.signedinteger[Any]]:
    """Codes of values that must lie on the grid already: integer arrays are codes, float arrays are real values.

    Raises:
        ValueError: a value is NaN, infinite, off the grid or beyond its word; names the tensor, the index and the value.
    """
    array = np.asarray(tensor)
    bits = fmt.width - fmt.signed
    low, high = (-(1 << bits) if fmt.signed else 0), (1 << bits) - 1
    if array.dtype.kind == "f":
        _finite(array, name)
        with np.errstate(over="ignore", under="ignore"):
            scaled = np.ldexp(array.astype(np.float64), fmt.fraction_bits)
        scaled = np.where((scaled == 0) & (array != 0), 0.25, scaled)
        off = scaled != np.rint(scaled)
        if off.any():
            raise ValueError(f"{name}{_first(off)} must lie on the grid of {fmt.name}, not {float(array[off][0])!r}")
        beyond = (scaled < low) | (scaled > high)
        if beyond.any():
            least, most = math.ldexp(low, -fmt.fraction_bits), math.ldexp(high, -fmt.fraction_bits)
            raise ValueError(
                f"{name}{_first(beyond)} must be from {least!r} to {most!r} for {fmt.name}, not {float(array[beyond][0])!r}"
            )
        array = scaled.astype(np.int64)
    elif array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold integers or floats, not {array.dtype}")
    if array.size and (int(array.min()) < low or int(array.max()) > high):
        beyond = (array < low) | (array > high)
        raise ValueError(f"{name}{_first(beyond)} must be a code of {fmt.name}, {low}..{high}, not {int(array[beyond][0])}")
    return array.astype(storage_dtype(fmt))


def _finite(array: NDArray[Any], name: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"{name}{_first(bad)} must be finite, not {float(array[bad][0])!r}")


def _first(mask: NDArray[np.bool_]) -> str:
    index = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return f"[{', '.join(str(int(i)) for i in index)}]"
