"""Rounding and overflow on wires: how a value enters a fixed-point grid."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from ...golden.formats import Fixed, Overflow, Rounding


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


def dither(value: Value, shift: int, random: Value) -> Value:
    """The floor, ``shift`` bits up, of a signed value plus a number below one ulp, whose bits below the value's are left out.

    Behind the random bits stands a one, the half of the last of them, which centres the number.
    """
    random = Cat(Const(1, 1), random)
    bits = min(shift, len(random))
    return (value[shift - bits :].as_signed() + random[-bits:])[bits:].as_signed()


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


def only_rail(fmt: Fixed, least: int, most: int) -> int | None:
    """The rail to which values of a range are clipped, where there is but one: a register can be set to it."""
    low, high = fmt.rails
    if fmt.overflow in (Overflow.WRAP, Overflow.ZERO):
        return None
    return high if least >= low else low if most <= high else None


LOWEST = 6
"""Bits of the lowest digit in which a word is compared with its rails."""


def rails(m: Module, value: Value, fmt: Fixed) -> tuple[Value, Value]:
    """Whether a word of ``fmt`` lay on a rail, and whether near one: of the word a cycle before. Registers without reset."""
    low, high = fmt.rails
    near = fmt.near_rail
    ranks: dict[tuple[int, ...], Value] = {}
    return _beyond(m, value, high, -low - 1, ranks), _beyond(m, value, near, near - 1, ranks)


def _beyond(m: Module, value: Value, positive: int, negative: int, ranks: dict[tuple[int, ...], Value]) -> Value:
    """Whether a signed value's magnitude, less one if it is negative, was at least the bound of its sign a cycle before.

    Digit by digit: but for the lowest, with which nothing is carried on, one has as many bits as a look-up table takes beside the
    sign. ``ranks`` holds the registers of the digits, by their places and bounds.
    """
    positive, negative = max(0, positive), max(0, negative)
    bits = max(len(value) - 1, positive.bit_length(), negative.bit_length())
    value = extended(value, bits + 1)

    def rank(place: int, end: int, *at_least: int) -> Value:
        if (place, *at_least) not in ranks:
            digit = value[place:end] ^ value[-1].replicate(end - place)
            above, below = (_at_least(digit, bound) for bound in at_least)
            if at_least == (0, 0) or not any(bound < 1 << end - place for bound in at_least):
                ranks[place, *at_least] = above
            else:
                ranks[place, *at_least] = found = Signal(name="rank" + "_".join(map(str, (place, *at_least))), reset_less=True)
                m.d.sync += found.eq(Mux(value[-1], below, above))
        return ranks[place, *at_least]

    result: Value = Const(1, 1)
    for place in (0, *range(LOWEST, bits, 3)):
        end = min(place + 3 if place else LOWEST, bits)
        up, down = ((bound >> place) % (1 << end - place) for bound in (positive, negative))
        result = rank(place, end, up, down) & result
        if place:
            result = rank(place, end, up + 1, down + 1) | result
    return result


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
