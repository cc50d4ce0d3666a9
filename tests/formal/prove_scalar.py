# ruff: noqa: E501  a fault a row reads best
"""The scalar unit's operations, each from any state in which it may be asked for to its result, correctly rounded.

At the widths in use the divider and the root are what their own proofs say of them, and products are those of any function that
multiplies: no solver decides a product of 24 bits. At small ones everything is there, and nothing is left out.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Value, ValueLike

from kappa_rtl.golden.formats import ScalarFormat
from support.mutants import Mutant

from .harness import Harness, Identity, Proof, component
from .operations import Program, Result, depth, idle

SMALL = {"fmt": ScalarFormat(5, 4), "step_bits": 4, "step_fraction": 5, "radicand_bits": 10, "chunk": 3}
PADDED = SMALL | {"fmt": ScalarFormat(4, 4), "step_bits": 5, "radicand_bits": 6}
REAL = {"fmt": ScalarFormat(24, 10), "step_bits": 17, "step_fraction": 20, "radicand_bits": 48}
"""M = 24, E = 10; M = 5, E = 4 in parts of three bits; M = 4 in factors of six bits, as steps are longer than mantissas."""


def operation(package: str, name: str, sizes: dict[str, Any]) -> Harness:
    p = Program(package, PROGRAMS.get(name, (name,)), free=sizes is REAL, **sizes)
    fmt, a, b, out = p.fmt, p.a, p.b, p.out
    claims: dict[str, Any] = {
        "ADD": lambda: _add(fmt, a, b, out),
        "MUL": lambda: _mul(fmt, a, b, p.exact if p.free else a.m * b.m, out),
        "STEP": lambda: _step(p, a, b, p.exact if p.free else a.m * b.m, out),
        "DIVIDE": lambda: _divide(p, a, b, out),
        "DIVIDE, MUL": lambda: _divide(p, a, b, out),
        "UNDER": lambda: _divide(p, b, a, out, under=True),
        "ROOT": lambda: _root(p, out),
        "MAX": lambda: _is(out, Mux(_less(a, b), _scalar(b), _scalar(a))),
        "MIN": lambda: _is(out, Mux(_less(a, b), _scalar(a), _scalar(b))),
        "LOAD": lambda: _is(out, _scalar(b)),
        "HOLD": lambda: _is(out, _scalar(a)),
    }
    p.claim(claims[name]())
    return p.h


PROGRAMS = {
    "DIVIDE": ("DIVIDE", "QUOTIENT"),
    "DIVIDE, MUL": ("DIVIDE", "MUL", "QUOTIENT"),
    "UNDER": ("UNDER", "QUOTIENT"),
    "STEP": ("PRODUCT", "STEP"),
}
"""What takes more than the operation of that name."""


def _scalar(x: Any) -> Value:
    return Cat(x.m, x.e)


def _is(out: Result, value: Value) -> dict[str, Value]:
    y = out.value
    return {
        "the value": Cat(y.m, y.e, Const(0, 99)) == Cat(value[: len(y.m) + len(y.e)], Const(0, 99)),
        "no flag": ~(out.overflow | out.underflow),
    }


def _less(a: Any, b: Any) -> Value:
    both = a.m[-1] & b.m[-1]
    return Mux(both, (a.e < b.e) | ((a.e == b.e) & (a.m < b.m)), a.m < b.m)


def _rounded(
    fmt: ScalarFormat, number: Value, places: int, exponent: Value, out: Result, *, endless: ValueLike = 0, silent: ValueLike = 0
) -> dict[str, Value]:
    """``number * 2**(exponent - places)``, of M + places bits, its top bit set or zero, against y: nearest, ties to even, and the range.

    Less than a quarter of an ulp decides nothing but that it is there, so with two places the lowest bit may stand for anything below it.
    """
    bits, (low, high), y = fmt.mantissa_bits, fmt.exponents, out.value
    endless, silent = (Const(0, 1) | Value.cast(bit) for bit in (endless, silent))
    some = number[bits + places - 1]
    carry = number >= ((2 << bits) - 1) << places - 1  # half an ulp below the next binade, and on
    e = exponent + carry
    error = (Mux(carry, y.m << 1, y.m) << places) - number
    ulp = Mux(carry, 2 << places, 1 << places)
    tie = (error * 2 == ulp) | (error * 2 == -ulp)
    nearest = (error * 2 <= ulp) & (error * 2 >= -ulp) & (~tie | ~y.m[0])
    over, under = (some & (e > high)) | endless, some & (e < low) & ~endless
    largest = (y.m == (1 << bits) - 1) & (y.e == high)
    usual = some & ~over & ~under
    return {
        "overflow, and then the largest": (out.overflow == (over & ~silent)) & (~over | largest),
        "underflow, and then zero": (out.underflow == under) & (~under | (Value.cast(y) == 0)),
        "zero": some | endless | (Value.cast(y) == 0),
        "the nearest, ties to even": ~usual | (y.m[-1] & (y.e == e) & nearest),
    }


def _mul(fmt: ScalarFormat, a: Any, b: Any, exact: Value, out: Result) -> dict[str, Value]:
    bits = fmt.mantissa_bits
    top = exact[2 * bits - 1]
    return _rounded(fmt, Mux(top, exact, exact << 1)[: 2 * bits], bits, a.e + b.e + (bits - 1) + top, out)


def _add(fmt: ScalarFormat, a: Any, b: Any, out: Result) -> dict[str, Value]:
    """One more than M + 3 places below the larger operand counts as 1 there: less than a quarter of an ulp, and not zero, as it is."""
    bits = fmt.mantissa_bits
    below = bits + 3
    swap = _less(a, b)
    big_m, small_m = Mux(swap, b.m, a.m), Mux(swap, a.m, b.m)
    big_e, small_e = Mux(swap, b.e, a.e), Mux(swap, a.e, b.e)
    distance = (big_e - small_e).as_unsigned()
    moved = Mux(distance > below, 1, (small_m << below) >> distance[: below.bit_length()])
    total = ((big_m << below) + Mux(small_m[-1], moved, 0))[: bits + below + 1]
    top = total[-1]
    return _rounded(fmt, Mux(top, total, total << 1)[: bits + below + 1], below + 1, big_e + top, out)


def _step(p: Program, a: Any, b: Any, exact: Value, out: Result) -> dict[str, Value]:
    bits, most = p.fmt.mantissa_bits, (1 << p.unit.step_bits) - 1
    assert 2 * bits - 2 >= p.unit.step_bits, "a product of ulps or more is beyond"
    down = -(a.e + b.e + p.unit.step_fraction)
    large, tiny = down <= 0, down > 2 * bits + 1
    places = down.as_unsigned()[: (2 * bits + 1).bit_length()]
    some = exact.any()
    error = ((out.step << places) - exact).as_signed()
    ulp = Const(1) << places
    tie = (error * 2 == ulp) | (error * 2 == -ulp)
    nearest = (error * 2 <= ulp) & (error * 2 >= -ulp) & (~tie | ~out.step[0])
    beyond = some & (large | (~tiny & ((exact << 1) > (2 * most - 1) << places)))
    zero = ~some | tiny
    return {
        "saturated": (out.step == most) == beyond,
        "zero": ~zero | (out.step == 0),
        "the nearest, ties to even": beyond | zero | nearest,
        "no flag": ~(out.overflow | out.underflow),
    }


def _divide(p: Program, a: Any, b: Any, out: Result, *, under: bool = False) -> dict[str, Value]:
    """a / b, cut by the divider; or the result times the divisor against the dividend."""
    bits, (low, high) = p.fmt.mantissa_bits, p.fmt.exponents
    endless = ~b.m[-1] if under else a.m[-1] & ~b.m[-1]
    if p.free:
        number = Mux(b.m[-1], Cat(p.inexact & p.digits[-1], p.digits), 0)[: bits + 2]
        return _rounded(
            p.fmt, number, 2, a.e - b.e - (bits - 1) - p.below, out, endless=endless, silent=endless if under else Const(0, 1)
        )
    below = a.m < b.m
    exact = Mux(below, a.m << bits, a.m << bits - 1)
    carry = (exact << 1) >= b.m * ((2 << bits) - 1)
    e = a.e - b.e - (bits - 1) - below + carry
    some = a.m[-1] & b.m[-1]
    largest = (out.value.m == (1 << bits) - 1) & (out.value.e == high)
    over, too_small = (some & (e > high)) | endless, some & (e < low)
    ulp = Mux(carry, b.m << 1, b.m)
    error = (out.value.m * ulp - exact) << 1
    tie = (error == ulp) | (error == -ulp)
    nearest = (error <= ulp) & (error >= -ulp) & (~tie | ~out.value.m[0])
    usual = some & ~over & ~too_small
    return {
        "overflow, and then the largest": (out.overflow == (over & (some | (not under)))) & (~over | largest),
        "underflow, and then zero": (out.underflow == too_small) & (~too_small | (Value.cast(out.value) == 0)),
        "zero": some | endless | (Value.cast(out.value) == 0),
        "the nearest, ties to even": ~usual | (out.value.m[-1] & (out.value.e == e) & nearest),
    }


def _root(p: Program, out: Result) -> dict[str, Value]:
    """The root of the radicand, cut by the root's component; or ``(2r - 1)**2 <= 4 * radicand <= (2r + 1)**2``, on the edges only for an even r."""
    bits, (low, high), radicand = p.fmt.mantissa_bits, p.fmt.exponents, p.radicand
    if p.free:
        number = Cat(p.inexact & p.digits[-1], p.digits)
        return _rounded(p.fmt, number, 2, p.b.e - p.shift, out)
    pairs = len(radicand) // 2
    shift: Value = Const(pairs)
    for i in range(pairs):
        shift = Mux(radicand[2 * i : 2 * i + 2].any(), pairs - 1 - i, shift)
    places = 2 * bits - len(radicand)
    normalised = (radicand << (shift << 1))[: len(radicand)]
    target = normalised << 2 + places if places >= 0 else normalised << 2
    scale = max(0, -places) // 2  # of the root, to whole numbers
    carry = target >= ((2 << bits) - 1) ** 2 << 2 * scale
    e = p.b.e - shift + carry
    some = radicand != 0
    over, under = some & (e > high), some & (e < low)
    double = Mux(carry, out.value.m << 1, out.value.m) << 1
    least, greatest = (((double + by) * (double + by)) << 2 * scale for by in (-1, 1))
    even = ~Mux(carry, 0, out.value.m[0])
    nearest = ((target > least) | ((target == least) & even)) & ((target < greatest) | ((target == greatest) & even))
    largest = (out.value.m == (1 << bits) - 1) & (out.value.e == high)
    usual = some & ~over & ~under
    return {
        "overflow, and then the largest": (out.overflow == over) & (~over | largest),
        "underflow, and then zero": (out.underflow == under) & (~under | (Value.cast(out.value) == 0)),
        "zero": some | (Value.cast(out.value) == 0),
        "the nearest, ties to even": ~usual | (nearest & out.value.m[-1] & (out.value.e == e)),
    }


def product_of_parts(bits: int, chunk: int) -> Any:
    """What the free multipliers rest on: the parts' products add up to twice the product, and that is in its range."""
    import z3

    parts = {
        name: [(z3.Int(f"{name}{i}"), i, min(chunk, width - i)) for i in range(0, width, chunk)]
        for name, width in (("x", bits), ("y", bits + 1))
    }
    words = [z3.And(part >= 0, part < 1 << width) for some in parts.values() for part, _, width in some]
    x, y = (sum(part * (1 << i) for part, i, _ in some) for some in parts.values())
    m = z3.Int("m")
    normalised = [y == 2 * m, m >= 1 << bits - 1, x >= 1 << bits - 1]
    total = sum(one * other * (1 << i + j) for one, i, _ in parts["x"] for other, j, _ in parts["y"])
    return z3.Implies(
        z3.And(*words, *normalised), z3.And(total == 2 * x * m, x * m >= 1 << 2 * bits - 2, x * m <= ((1 << bits) - 1) ** 2)
    )


def odd_is_inexact(bits: int) -> Any:
    """No odd quotient of M + 1 bits is exact: then ``quotient * divisor == dividend << M`` or more, and the divisor would have M zeros."""
    import z3

    quotient, divisor = z3.BitVecs("quotient divisor", bits)  # their low bits
    return z3.Implies(z3.And(z3.Extract(0, 0, quotient) == 1, quotient * divisor == 0), divisor == 0)


def reset(package: str) -> Harness:
    """What every operation starts from."""
    unit = component(package, "scalar.unit").ScalarUnit(**REAL)
    h = Harness(unit)
    h.claim("it may be asked", idle(unit, h.internal, digits=True))
    return h


RESET = Mutant(
    "scalar/unit.py", "lost = Signal()", "lost = Signal(reset_less=True)", "a reset does not forget what a product lost"
)
MUTANTS = {
    "ADD": (
        Mutant("scalar/unit.py", "raised[0] & (sticky | ~up)", "raised[0]", "scalar ties round up"),
        Mutant("scalar/unit.py", "up.eq(first_below & ~cuts)", "up.eq(0)", "scalars are cut off"),
        Mutant(
            "scalar/unit.py", "4 * four + one == width - i", "4 * four + one == width - i + 1", "an addend is shifted one too far"
        ),
        Mutant(
            "scalar/unit.py", "work[half : width - 1].any()", "work[half + 1 : width - 1].any()", "the sticky bit misses a bit"
        ),
        Mutant(
            "scalar/unit.py",
            "second_is_y.eq(steps | ~y_m[-1] | (x.m[-1] & ~gap[-1]))",
            "second_is_y.eq(steps | (x.m[-1] & ~gap[-1]))",
            "zero counts as the larger one",
        ),
        Mutant("scalar/unit.py", "carried.eq(carries)", "carried.eq(0)", "a sum's carry does not raise its exponent"),
    ),
    "MUL": (
        Mutant(
            "scalar/unit.py",
            "row = Cat(padded(row, place - start), value)",
            "row = Cat(padded(row, place - start))",
            "the upper chunks are left out",
        ),
        Mutant("scalar/unit.py", "Mux(multiplies, bits - 1,", "Mux(multiplies, bits,", "a product's exponent is one too high"),
        Mutant(
            "scalar/unit.py", "(last_e & higher)", "(last_e & carried)", "a carry of the rounder out of the range is not seen"
        ),
        Mutant("scalar/unit.py", "(before and not (a or b))", "before", "a carry back into the range is not seen"),
        Mutant(
            "scalar/unit.py",
            "some & ((~e[-1] & over_e.any() & bounded) | endless)",
            "some & endless",
            "the overflow is not seen",
        ),
    ),
    "STEP": (
        Mutant("scalar/unit.py", "lost.eq(cuts & (guard | sticky))", "lost.eq(0)", "what the product cut off is forgotten"),
        Mutant(
            "scalar/unit.py", "lost.eq(cuts & (guard | sticky))", "lost.eq(cuts & sticky)", "the product's guard bit is forgotten"
        ),
        Mutant("scalar/unit.py", "(saturates | highest | value[self.step_bits :].any())", "saturates", "a step wraps"),
        Mutant(
            "scalar/unit.py",
            "grid = self.width - fmt.mantissa_bits - step_fraction",
            "grid = self.width - fmt.mantissa_bits - step_fraction + 1",
            "the grid is one exponent off",
        ),
    ),
    "DIVIDE": (
        Mutant(
            "scalar/unit.py",
            "Mux(divider.o.payload.below, -bits, 1 - bits)",
            "1 - bits",
            "a quotient below one keeps its exponent",
        ),
        Mutant(
            "scalar/unit.py",
            "Mux(digits, quotes | root.o.payload.sticky,",
            "Mux(digits, ~quotes & root.o.payload.sticky,",
            "a quotient passes for exact",
        ),
        Mutant(
            "scalar/unit.py",
            "over_e.eq(Mux(under, 0, ~gap))",
            "over_e.eq(Mux(under, 0, gap))",
            "a quotient's exponent is turned around",
        ),
    ),
    "UNDER": (
        Mutant("scalar/unit.py", "too_large & ~(quotes & silent)", "too_large", "x / 0 is an overflow"),
        Mutant("scalar/unit.py", "small[-1] | (under & ~y_m[-1])", "small[-1]", "0 / 0 is zero"),
    ),
    "ROOT": (
        Mutant(
            "scalar/unit.py",
            "~padded(root.o.payload.shift, self.exponent_bits)",
            "~Const(0, self.exponent_bits)",
            "a root keeps its exponent where its radicand was shifted",
        ),
        Mutant(
            "scalar/unit.py", "Mux(digits, quotes | root.o.payload.sticky,", "Mux(digits, quotes,", "a root is exact too often"
        ),
    ),
    "DIVIDE, MUL": (
        Mutant("scalar/unit.py", "with m.If(has_gap):", "with m.If(1):", "what comes in between changes the quotient's exponent"),
    ),
    "MAX": (
        Mutant(
            "scalar/unit.py",
            "Mux(less, smallest_of, largest_of)",
            "Mux(less, smallest_of | largest_of, 0)",
            "the larger is the smaller",
        ),
    ),
    "MIN": (
        Mutant(
            "scalar/unit.py",
            "e[: exponent_bits - 1], sign_of[exponent_bits - 1]",
            "e[: exponent_bits - 1], e[exponent_bits - 1]",
            "exponents are compared without their sign",
        ),
    ),
    "LOAD": (Mutant("scalar/unit.py", "takes_x = second & (loads |", "takes_x = second & (", "nothing is loaded"),),
    "HOLD": (Mutant("scalar/unit.py", "takes_x = second & (loads |", "takes_x = second & (1 |", "everything is loaded"),),
}

WORDS = {
    "ADD": "a + b", "MUL": "a * b", "STEP": "a * b on the step grid, saturated", "DIVIDE": "a / b", "DIVIDE, MUL": "a / b, a product in between",
    "UNDER": "b / a, the largest for a = 0", "ROOT": "the root", "MAX": "max", "MIN": "min", "LOAD": "b", "HOLD": "a",
}  # fmt: skip


def proof(name: str, sizes: dict[str, Any]) -> Proof:
    sized = {what: size for what, size in sizes.items() if what != "chunk"}
    unit = component("kappa_rtl.hw", "scalar.unit").ScalarUnit(**sized)
    fmt, short = unit.fmt, name in ("MAX", "MIN", "LOAD", "HOLD")
    how = (
        "exact"
        if short
        else "rounded once to nearest even"
        if name == "STEP"
        else "rounded once to nearest even, overflow, underflow"
    )
    what = (
        {
            "DIVIDE": ", the divider as it is proved",
            "DIVIDE, MUL": ", the divider as it is proved",
            "UNDER": ", the divider as it is proved",
            "ROOT": ", the square root as it is proved",
            "MUL": ", the multipliers any function that multiplies",
            "STEP": ", the multipliers any function that multiplies",
        }.get(name, "")
        if sizes is REAL
        else ""
    )
    return Proof(
        f"scalar {name}, M = {fmt.mantissa_bits}, E = {fmt.exponent_bits}",
        f"{WORDS[name]}{what}, {how}; cycles",
        lambda package: operation(package, name, sizes),
        "any state",
        depth(unit, PROGRAMS.get(name, (name,))),
        MUTANTS[name][: {id(REAL): 1, id(SMALL): 0 if short or name == "DIVIDE, MUL" else None, id(PADDED): 0}[id(sizes)]],
        solver="bitwuzla" if sizes is REAL else "z3",
    )


PROOFS: list[Proof | Identity] = [
    Identity(
        "scalar MUL, 24 bits", "the sum of 2 by 2 partial products is the product, in range", lambda: product_of_parts(24, 17)
    ),
    Identity("scalar QUOTIENT, 24 bits", "a quotient of 25 bits that is odd is not exact", lambda: odd_is_inexact(24)),
    Proof(
        "scalar, M = 24, E = 10", "after a reset from any state as after an operation", reset, "reset", depth=1, mutants=(RESET,)
    ),
    *(proof(name, REAL) for name in WORDS),
    *(proof(name, SMALL) for name in WORDS),
    *(proof(name, PADDED) for name in ("ADD", "MUL", "STEP", "DIVIDE", "ROOT")),
]
