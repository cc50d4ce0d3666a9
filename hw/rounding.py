"""Rounding and overflow on wires: how a value enters a fixed-point grid."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from kappa_rtl.golden.formats import Fixed, Overflow, Rounding


def round_up(rounding: Rounding, *, lsb: Value, guard: Value, sticky: Value, negative: Value) -> Value:
    """Whether a floor must be raised by one: the bits are the floor's lowest, the first dropped, and any below it."""
    match rounding:
        case Rounding.NEAREST_EVEN:
            return guard & (sticky | lsb)
        case Rounding.NEAREST_UP:
            return guard
        case Rounding.NEAREST_DOWN:
            return guard & sticky
        case Rounding.NEAREST_ZERO:
            return guard & (sticky | negative)
        case Rounding.NEAREST_AWAY:
            return guard & (sticky | ~negative)
        case Rounding.FLOOR:
            return Const(0, 1)
        case Rounding.TOWARD_ZERO:
            return negative & (guard | sticky)
        case _:
            raise ValueError(f"rounding must be deterministic, not {rounding.value!r}")


def extended(value: Value, bits: int) -> Value:
    """A signed value as at least ``bits`` bits."""
    return value if len(value) >= bits else Cat(value, value[-1].replicate(bits - len(value))).as_signed()


def fit(value: Value, fmt: Fixed) -> tuple[Value, Value]:
    """A signed value brought within the rails of ``fmt`` by its overflow mode; and whether it lay beyond them."""
    width = fmt.width
    value = extended(value, width + 1)
    negative = value[-1]
    top = value[width - 1 :]
    beyond = top.any() & ~top.all()
    low, high = fmt.rails
    if fmt.overflow is Overflow.SATURATE_SYMMETRIC:
        beyond = beyond | (negative & ~value[: width - 1].any())
    kept = value[:width].as_signed()
    match fmt.overflow:
        case Overflow.WRAP:
            fitted: Value = kept
        case Overflow.ZERO:
            fitted = Mux(beyond, Const(0, kept.shape()), kept)
        case _:
            fitted = Mux(beyond, Mux(negative, Const(low, kept.shape()), Const(high, kept.shape())), kept)
    return fitted, beyond


def rails(m: Module, value: Value, fmt: Fixed) -> tuple[Value, Value]:
    """Whether a word of ``fmt`` lies on a rail, and whether near one."""
    low, high = fmt.rails
    magnitude = Signal(
        len(value) - 1
    )  # |value|, less one if negative; a signal, or each of its bits would repeat all of it in the Verilog
    m.d.comb += magnitude.eq(value[:-1] ^ value[-1].replicate(len(value) - 1))
    near = fmt.near_rail
    above = _at_least(magnitude, near)
    below = _at_least(magnitude, near - 1)
    on_low = Cat(value[-1], _at_least(magnitude, -low - 1)).all()
    on_high = ~value[-1] & _at_least(magnitude, high)
    return on_low | on_high, Mux(value[-1], below, above)


def _at_least(value: Value, bound: int) -> Value:
    """``value >= bound`` for an unsigned value, as gates: shallower than a carry chain for a constant."""
    if bound <= 0:
        return Const(1, 1)
    if bound >> len(value):
        return Const(0, 1)
    result: Value = Const(1, 1)
    for i in range(len(value)):
        result = value[i] & result if bound >> i & 1 else value[i] | result
    return result
