"""What rounding and overflow mean, written again on integers wide enough for everything: the other side of the proofs."""

from __future__ import annotations

from amaranth.hdl import Const, Mux, Value

from kappa_rtl.golden.formats import Fixed, Overflow, Rounding


def is_rounded(value: Value, places: int, found: Value, rounding: Rounding) -> Value:
    """Whether ``value`` rounds to ``found * 2**places``, by the definition of the mode: how far it may lie, and on which side."""
    error = (found << places) - value
    ulp, half = Const(1 << places), Const(1 << places - 1)
    nearest = (error <= half) & (error >= -half)
    tie = (error == half) | (error == -half)
    down, inwards = error < 0, Mux(value < 0, error > 0, error < 0)
    match rounding:
        case Rounding.FLOOR:
            return (error <= 0) & (error > -ulp)
        case Rounding.TOWARD_ZERO:
            return (error < ulp) & (error > -ulp) & ((error == 0) | inwards)
        case Rounding.NEAREST_EVEN:
            return nearest & (~tie | ~found[0])
        case Rounding.NEAREST_UP:
            return nearest & (~tie | ~down)
        case Rounding.NEAREST_DOWN:
            return nearest & (~tie | down)
        case Rounding.NEAREST_ZERO:
            return nearest & (~tie | inwards)
        case Rounding.NEAREST_AWAY:
            return nearest & (~tie | ~inwards)
    raise ValueError(rounding)


def rounded(value: Value, places: int, rounding: Rounding) -> Value:
    """``value / 2**places`` on the integers: a bias, then cut off. Proved to be what `is_rounded` defines."""
    if places <= 0:
        return value << -places
    half = 1 << places - 1
    match rounding:
        case Rounding.FLOOR:
            bias: Value = Const(0)
        case Rounding.TOWARD_ZERO:
            bias = Mux(value < 0, (1 << places) - 1, 0)
        case Rounding.NEAREST_EVEN:
            bias = value[places] + Const(half - 1)
        case Rounding.NEAREST_UP:
            bias = Const(half)
        case Rounding.NEAREST_DOWN:
            bias = Const(half - 1)
        case Rounding.NEAREST_ZERO:
            bias = Mux(value < 0, half, half - 1)
        case Rounding.NEAREST_AWAY:
            bias = Mux(value < 0, half - 1, half)
        case _:
            raise ValueError(rounding)
    return (value + bias) >> places


def is_beyond(value: Value, fmt: Fixed) -> Value:
    low, high = fmt.rails
    return (value < low) | (value > high)


def fitted(value: Value, fmt: Fixed) -> Value:
    """A value brought into a format by its overflow mode."""
    low, high = fmt.rails
    match fmt.overflow:
        case Overflow.WRAP:
            return value[: fmt.width].as_signed()
        case Overflow.ZERO:
            return Mux(is_beyond(value, fmt), 0, value)
        case _:
            return Mux(value < low, low, Mux(value > high, high, value))
