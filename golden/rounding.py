"""Rounding and overflow on arrays: how a value enters a fixed-point grid.

Codes are multiples of an ulp. Every function is exact on codes whose word has two bits to spare; the
configuration proves that for the datapath's.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .formats import Fixed, Overflow, Rounding
from .numbers import array as plain
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
    """What stochastic rounding adds before the floor: the top ``random_bits`` of each draw and a half, below one ulp.

    The half centres it: without it what is less than a last random bit above a code would never be drawn, and what is less than
    that below one always. Bits below the codes' own grid cannot matter and are left out.
    """
    lift = (draws >> DRAW_BITS - random_bits).astype(np.int64)
    lift = 2 * lift + 1
    places = shift - random_bits - 1
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
    real = plain(name, tensor).astype(np.float64)
    _finite(real, name)
    if fmt.overflow is Overflow.WRAP:  # exact, and keeps the scaled value within int64
        real = np.fmod(real, np.ldexp(1.0, fmt.integer_bits))
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(real, fmt.fraction_bits)
    # Too large to scale is beyond any rail; too small is still not zero, and a floor must see its sign.
    scaled = np.where((scaled == 0) & (real != 0), np.copysign(0.25, real), np.clip(scaled, -BEYOND, BEYOND))
    try:
        rounded = round_whole(scaled, fmt.rounding)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return fit(rounded.astype(np.int64), fmt)


def round_whole(scaled: NDArray[Any], rounding: Rounding) -> NDArray[Any]:
    """Numbers rounded to integers, as floats."""
    made: NDArray[Any]
    match rounding:
        case Rounding.NEAREST_EVEN:
            made = np.rint(scaled)
        case Rounding.FLOOR:
            made = np.floor(scaled)
        case Rounding.TOWARD_ZERO:
            made = np.trunc(scaled)
        case Rounding.NEAREST_UP | Rounding.NEAREST_DOWN | Rounding.NEAREST_ZERO | Rounding.NEAREST_AWAY:
            # Only ties depend on the mode, and the fraction of a float is exact.
            tie = np.abs(scaled - np.trunc(scaled)) == 0.5
            on_tie: Any = {
                Rounding.NEAREST_UP: np.ceil,
                Rounding.NEAREST_DOWN: np.floor,
                Rounding.NEAREST_ZERO: np.trunc,
                Rounding.NEAREST_AWAY: lambda x: np.copysign(np.ceil(np.abs(x)), x),
            }[rounding]
            made = np.where(tie, on_tie(scaled), np.rint(scaled))
        case _:
            raise ValueError(f"rounding must be deterministic, not {rounding.value!r}")
    return made


def fit_whole(whole: NDArray[Any], fmt: Fixed) -> NDArray[Any]:
    """Integers, as floats, brought within the rails of a format by its overflow mode."""
    low, high = fmt.rails
    made: NDArray[Any]
    match fmt.overflow:
        case Overflow.WRAP:
            span = 2.0**fmt.width
            rest = np.fmod(whole, span)
            made = np.where(rest > high, rest - span, np.where(rest < low, rest + span, rest))
        case Overflow.ZERO:
            made = np.where((whole >= low) & (whole <= high), whole, 0.0 * whole)
        case _:
            made = np.clip(whole, low, high)
    return made


def taken(tensor: ArrayLike, fmt: Fixed, name: str, codes: bool | None) -> tuple[NDArray[Any], bool]:
    """A tensor that a unit is given, and whether it holds codes of ``fmt``: the one rule of all units.

    An array of the very integer dtype that the grid's codes are stored in (:func:`storage_dtype`) holds codes. Anything else
    holds values: floats, integers of another dtype, lists.

    Args:
        codes: True where the integers are codes whatever their dtype, False where nothing is; None leaves it to the rule.

    Raises:
        ValueError: not of real numbers, or floats where codes are said to be.
    """
    array = plain(name, tensor)
    if codes is not None and not isinstance(codes, (bool, np.bool_)):
        raise ValueError(f"codes must be True, False or None, not {codes!r}")
    if codes is None:
        # In whatever order its bytes stand, as files bring them.
        codes = array.dtype.newbyteorder("=") == storage_dtype(fmt) and not isinstance(tensor, (list, tuple))
    elif codes and array.dtype.kind == "f" and array.size:
        raise ValueError(f"{name} must hold integers where codes = True, not {array.dtype}")
    return array, codes


def on_grid(tensor: ArrayLike, fmt: Fixed, name: str = "tensor", *, codes: bool | None = None) -> NDArray[np.signedinteger[Any]]:
    """Codes of values that must lie on the grid already, or the codes that were given; see :func:`taken`.

    Raises:
        ValueError: a value is NaN, infinite, off the grid or beyond its word; names the tensor, the index and the value.
    """
    array, coded = taken(tensor, fmt, name, codes)
    bits = fmt.width - fmt.signed
    low, high = (-(1 << bits) if fmt.signed else 0), (1 << bits) - 1
    if coded:
        # A grid as wide as its storage has no code beyond it to look for.
        if not fmt.signed or array.dtype.newbyteorder("=") != storage_dtype(fmt) or fmt.width < 8 * array.itemsize:
            beyond = (array < low) | (array > high)
            if beyond.any():
                raise ValueError(
                    f"{name}{_first(beyond)} must be a code of {fmt.name}, {low}..{high}, not {int(array[beyond][0])}"
                )
        return array.astype(storage_dtype(fmt))
    off, whole = _whole(array, fmt.fraction_bits, name)
    if off.any():
        raise ValueError(f"{name}{_first(off)} must lie on the grid of {fmt.name}, not {array[off][0].item()!r}")
    beyond = np.asarray((whole < low) | (whole > high), bool)
    if beyond.any():
        least, most = math.ldexp(low, -fmt.fraction_bits), math.ldexp(high, -fmt.fraction_bits)
        raise ValueError(
            f"{name}{_first(beyond)} must be from {least!r} to {most!r} for {fmt.name}, not {array[beyond][0].item()!r}"
        )
    return whole.astype(storage_dtype(fmt))


def _whole(array: NDArray[Any], fraction_bits: int, name: str) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Where values are no multiples of ``2**-fraction_bits``, and which multiples the others are, or ones beyond any rail."""
    if array.dtype.kind == "f":
        _finite(array, name)
        wide = array.astype(np.result_type(array, np.float64))
        with np.errstate(over="ignore", under="ignore"):
            scaled = np.ldexp(wide, fraction_bits)
        scaled = np.where((scaled == 0) & (wide != 0), 0.25, scaled)
        return scaled != np.rint(scaled), np.clip(scaled, -BEYOND, BEYOND)
    exact = array.astype(object)  # Python's integers: no shift is too far for them
    if fraction_bits >= 0:
        return np.zeros(array.shape, bool), np.asarray(exact << fraction_bits)
    return np.asarray(exact & (1 << -fraction_bits) - 1, bool), np.asarray(exact >> -fraction_bits)


def real_values(tensor: ArrayLike, fmt: Fixed, name: str, *, codes: bool | None = None) -> NDArray[np.float64]:
    """A tensor as float64 values for a unit without grids, which need not lie on one nor be finite; codes are those of ``fmt``.

    Raises:
        ValueError: not of real numbers; see :func:`taken`.
    """
    array, coded = taken(tensor, fmt, name, codes)
    return values(array, fmt) if coded else array.astype(np.float64)


def _finite(array: NDArray[Any], name: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        raise ValueError(f"{name}{_first(bad)} must be finite, not {float(array[bad][0])!r}")


def _first(mask: NDArray[np.bool_]) -> str:
    index = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return f"[{', '.join(str(int(i)) for i in index)}]"
