"""A program of the scalar unit, from any state in which it may be asked for one: what `prove_scalar` is made of."""

from __future__ import annotations

import sys
from functools import reduce
from operator import and_, or_
from typing import Any, NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, ResetSignal, Signal, Value, signed
from amaranth.lib import wiring

from kappa_rtl.golden.formats import ScalarFormat

from .harness import Harness, component

PAUSES = 1
"""Cycles in which the unit is done and not asked yet, in all of a program."""


class Result(NamedTuple):
    """Where the harness finds what came out."""

    value: Any
    step: Value
    overflow: Value
    underflow: Value


class Free(wiring.Component):
    """In the place of the divider or the root: whatever their ports do is an input of the proof."""

    def __init__(self, part: Any) -> None:
        for name in ("bits", "latency", "longest", "pairs"):
            setattr(self, name, getattr(part, name, None))
        super().__init__(part.signature)

    def elaborate(self, platform: Any) -> Module:
        return Module()


class Program:
    """Some operations, one after the other; y as the first one begins is ``a``, its operand ``b``.

    The state before them is any in which the unit is done: the last operation may still be on its way into y, and digits may be
    under way if the program takes none.

    Args:
        free: the divider and the root are left out, and the multipliers give any products that `_multiplies` allows.
    """

    def __init__(
        self, package: str, ops: tuple[str, ...], fmt: ScalarFormat, *, free: bool, chunk: int | None = None, **sizes: Any
    ) -> None:
        module, made = component(package, "scalar.unit"), component(package, "scalar.operations")
        whole = module.CHUNK
        module.CHUNK = self.chunk = chunk or whole
        try:
            self.unit = unit = module.ScalarUnit(fmt=fmt, **sizes)
            if free:
                unit.divider, unit.root = Free(unit.divider), Free(unit.root)
            self.h = h = Harness(unit)
            cycles = [unit.cycles(made.Operation[op]) for op in ops]
            limit = max(unit.division if "QUOTIENT" in ops else unit.latency[made.Operation[ops[-1]]], sum(cycles))
        finally:
            module.CHUNK = whole
        m, self.inside = h.m, h.internal
        self.fmt, self.ops, self.free = fmt, ops, free
        program = [made.Operation[op] for op in ops]
        layout, x = made.scalar_layout(fmt), unit.x
        takes_y, digits = ops[0] not in ("LOAD", "ROOT"), {"QUOTIENT", "ROOT"} & set(ops)
        self.divides, self.roots = "QUOTIENT" in ops, "ROOT" in ops

        if free:
            for part in (unit.divider, unit.root):
                h.inputs += [part.o.valid, Value.cast(part.o.payload), part.i.ready]
        self.a, self.b, self.radicand = (
            h.ghost(layout, "a"),
            h.ghost(unit.operand, "b"),
            h.ghost(len(unit.radicand.payload), "radicand"),
        )
        self.begun, self.taken = h.ghost(1, "begun"), h.ghost(range(len(program) + 1), "taken")
        self.since, pauses = (
            h.ghost(range(2 * unit.division + 2 * unit.root.longest), "since"),
            h.ghost(range(PAUSES + 2), "pauses"),
        )

        # What is asked.
        h.assume(~ResetSignal())
        h.assume(self.begun | (unit.go & self.idle(bool(digits))))
        h.assume(~unit.go | (unit.done & (self.taken < len(program))))
        pausing = self.begun & unit.done & ~unit.go & (self.taken < len(program))
        h.assume(~pausing | (pauses < PAUSES))
        low, high = fmt.exponents
        scalar = ((x.e >= low) & (x.e <= high) & x.m[-1]) | (Value.cast(x) == 0)
        for number, op in enumerate(program):
            now = self.taken == number
            h.assume(~now | (unit.op == op))
            match op.name:
                case "STEP":
                    h.assume(~now | (x.e == unit.step_exponent))
                case "ROOT":
                    h.assume(~now | ((x.e >= 2 * low) & (x.e <= 2 * high)))
                case _:
                    h.assume(~now | scalar)
        if takes_y:
            y_m, pad = self.inside["y_m"], unit.width - fmt.mantissa_bits
            normal = unit.y.m[-1] | (Value.cast(unit.y) == 0)
            h.assume(~self.first | (normal & (self.inside["y_e"] == unit.y.e) & ~y_m[:pad].any()))
            h.assume(~self.first | ((unit.y.e >= low) & (unit.y.e <= high)))
        h.assume(unit.radicand.valid == (self.roots & ~self.begun))
        m.d.sync += [self.begun.eq(1), pauses.eq(pauses + pausing)]
        with m.If(~self.begun):
            m.d.sync += [self.b.eq(x), self.radicand.eq(unit.radicand.payload)]
        with m.If(self.first):
            m.d.sync += self.a.eq(unit.y)
        with m.If(unit.go):
            m.d.sync += [self.taken.eq(self.taken + 1), self.since.eq(1)]
        with m.Elif(~unit.done):
            m.d.sync += self.since.eq(self.since + 1)

        # The cycles of each of them.
        under_way = self.begun & (self.since != 0)
        waited = self._digits() if free else None
        for number, op in enumerate(program, 1):
            on = under_way & (self.taken == number)
            fixed = cycles[number - 1]
            h.claim(f"{op.name} is not done before its cycles", ~unit.done, when=on & (self.since < fixed))
            if op.name not in ("QUOTIENT", "ROOT"):
                h.claim(f"{op.name} is done after its cycles", unit.done, when=on & (self.since == fixed))
            elif waited is not None:
                h.claim(
                    f"{op.name} is done after its cycles, or two after the digits",
                    unit.done == ((self.since >= fixed) & waited),
                    when=on,
                )
        if digits and not free:
            total = h.ghost(range(2 * limit + 4), "total")
            h.m.d.sync += total.eq(total + ~(total == 2 * limit + 3))
            h.claim("the digits in time", finished_before(self, len(program)), when=total - pauses >= limit)
        if free:
            self._multiplies()

        # The result stands in the cycle after `done`, its flags and a step that saturates in the one after that.
        finished = self.begun & (self.taken == len(program)) & unit.done
        stood, flagged = h.ghost(1, "stood"), h.ghost(1, "flagged")
        overflow, underflow = h.ghost(1, "overflow"), h.ghost(1, "underflow")
        m.d.sync += [stood.eq(finished), flagged.eq(stood)]
        # Before are those of the operation before; and nobody asked for the ones of a product in between.
        counts = self.begun & ~self.first & ((self.taken == len(program)) & (self.since > 1) if "MUL" in ops[:-1] else 1)
        m.d.sync += [overflow.eq(overflow | (counts & unit.overflow)), underflow.eq(underflow | (counts & unit.underflow))]
        h.claim("it may be asked again", self.idle(bool(digits)), when=finished)
        self.answered = stood & flagged
        self.out = Result(unit.y, unit.step, overflow | unit.overflow, underflow | unit.underflow)

    @property
    def first(self) -> Value:
        """The cycle after the first operation was taken: y is its operand."""
        return self.begun & (self.taken == 1) & (self.since == 1)

    def claim(self, claims: dict[str, Any]) -> None:
        for what, condition in claims.items():
            self.h.claim(what, condition, when=self.answered)

    def idle(self, digits: bool) -> Value:
        """Whether the unit may be asked: what holds after a reset, and whenever an operation is done."""
        return idle(self.unit, self.inside, digits=digits and not self.free)

    def _digits(self) -> Value:
        """Divider and root as they are proved, ``below`` and ``shift`` a cycle before the digits.

        Returns:
            Whether the digits have been there for two cycles.
        """
        h, unit, bits = self.h, self.unit, self.fmt.mantissa_bits
        m, divider, root = h.m, unit.divider, unit.root
        part = divider if self.divides else root
        if not (self.divides or self.roots):
            return Const(0, 1)
        there, waited = h.ghost(1, "there"), h.ghost(1, "waited")  # the digits are, or were; and so two cycles ago
        m.d.sync += [there.eq(there | part.o.valid), waited.eq(there)]
        h.assume(~h.past(part.o.valid & ~part.o.ready, "offered") | part.o.valid)
        time = h.ghost(range(part.latency + part.bits + 99), "time")
        inexact = h.whichever(1, "inexact")
        if self.divides:
            busy = h.ghost(1, "divides")
            q, below = h.whichever(bits + 1, "q"), h.whichever(1, "below")
            under = Const(self.ops[0] == "UNDER", 1)
            dividend, divisor = (Mux(under, x, y) for x, y in ((self.b.m, self.a.m), (self.a.m, self.b.m)))
            with m.If(part.i.valid & ~busy):
                m.d.sync += busy.eq(1)
            with m.Elif(part.i.ready):
                m.d.sync += busy.eq(0)
            h.assume(part.i.ready == (part.o.valid & part.o.ready))
            h.assume((~part.o.valid | busy) & (~self.first | ~busy))
            h.assume(~part.o.valid | (Value.cast(part.o.payload) == Value.cast(Cat(q, below))))
            h.assume(~part.o.valid | (h.past(part.o.payload.below, "below", reset_less=True) == below))
            # Zero; or its top bit, and whether it was below one; by zero anything that is not zero.
            # An odd one is never exact: `odd_is_inexact`.
            good = Mux(divisor[-1], (below == (dividend < divisor)) & (inexact | ~q[0]), 1)
            some = dividend[-1] | (under & ~divisor[-1])
            h.assume(Mux(some, q[-1] & good, (q == 0) & ~below) | ~self.begun | self.first)
            m.d.sync += time.eq(Mux(busy, time + 1, 0))
            h.assume(part.o.valid | ~busy | (time < part.latency))
            one = unit.y.m if self.ops[0] == "DIVIDE" else self.b.m
            zeros = under & ~unit.y.m[-1]
            asks = part.i.payload
            h.claim("the dividend", part.i.valid & ((asks.dividend == one) | (zeros & asks.dividend[-1])), when=self.first)
            h.claim("the divisor, until the quotient is taken", asks.divisor == divisor, when=busy)
            self.digits, self.below = q, below
        else:
            self.digits, self.shift = h.whichever(bits + 1, "root"), h.whichever(len(part.o.payload.shift), "shift")
            sticky = h.whichever(1, "sticky")
            # Where the sticky bit is not found out, a lowest bit of one is never exact.
            h.assume(
                (self.digits[-1] | (self.digits == 0)) & (~self.digits[0] | (sticky == inexact)) & (self.shift <= part.pairs)
            )
            h.assume(~part.o.valid | (Value.cast(part.o.payload) == Value.cast(Cat(self.digits, sticky, self.shift))))
            h.assume(~part.o.valid | (h.past(part.o.payload.shift, "shift", reset_less=True) == self.shift))
            gone = h.ghost(1, "gone")
            m.d.sync += [gone.eq(gone | (part.o.valid & part.o.ready)), time.eq(time + 1)]
            h.assume(~part.o.valid | (self.begun & ~gone))
            h.assume(part.o.valid | gone | (time < part.longest))
            radicand = unit.radicand
            h.claim(
                "the radicand",
                (part.i.payload == radicand.payload) & (part.i.valid == radicand.valid) & (radicand.ready == part.i.ready),
            )
        self.inexact = inexact
        return waited

    def _multiplies(self) -> None:
        """Products by any function that multiplies: by a power of two it shifts, and that of the operands is one in its range.

        What a multiplier gives for two parts of the operands is a constant, whichever. That the sum of all of them is the product
        is the identity `product_of_parts`.
        """
        h, width = self.h, self.unit.width
        h.abstract_products = True
        pad = width - self.fmt.mantissa_bits
        a, b = Cat(Const(0, pad), self.a.m), Cat(Const(0, pad), self.b.m)
        factor = Cat(0, a)
        total: Value = Const(0)
        for i in range(0, width, self.chunk):
            for j in range(0, width + 1, self.chunk):
                one, other = b[i : i + self.chunk], factor[j : j + self.chunk]
                x, y, product = (
                    h.peek(f"multiplier{i // self.chunk}_{j // self.chunk}.cell.g_plain.{name}", signed(bits))
                    for name, bits in (("x", len(one) + 1), ("y", len(other) + 1), ("product", len(one) + len(other) + 2))
                )
                bits = len(one) + len(other)
                shifted = reduce(or_, (Mux(y[k], (x[: len(one)] << k)[:bits], 0) for k in range(len(other))))
                single = ~(y[: len(other)] & (y[: len(other)] - 1)[: len(other)]).any()
                h.assume(~single | (product == shifted))
                h.assume(x[: len(one)].any() | (product == 0))
                if {"MUL", "PRODUCT"} & set(self.ops[:1]):
                    part = h.whichever(bits, f"part{i}_{j}")
                    known = ~self.first & self.begun & (self.taken == 1)
                    h.assume((product == part) | (x != one) | (y != other) | ~known)
                    total = total + (part << i + j)
        # Of two mantissas, which stand at the top.
        self.exact = Signal(2 * self.fmt.mantissa_bits, name="ghost_product")
        h.m.d.comb += self.exact.eq(total >> 2 * pad + 1)
        if {"MUL", "PRODUCT"} & set(self.ops[:1]):
            most, both = (1 << self.fmt.mantissa_bits) - 1, a[-1] & b[-1]
            known = self.begun & ~self.first
            fits = ((total >> 2 * pad + 1) >= 1 << 2 * self.fmt.mantissa_bits - 2) & ((total >> 2 * pad + 1) <= most * most)
            h.assume(~known | (Mux(both, fits, total == 0) & ~total[: 2 * pad + 1].any()))


def finished_before(p: Program, operations: int) -> Value:
    """Whether the last operation is done."""
    return (p.taken == operations) & p.unit.done


def idle(unit: Any, inside: dict[str, Signal], *, digits: bool) -> Value:
    """Whether a unit may be asked; with ``digits``, the divider and the root too."""
    phase = inside["phase"]
    asked = {name: inside["asked"][bit] for name, bit in (("multiplies", 3), ("adds", 4), ("quotes", 9), ("roots", 10))}
    pending = ["at_sum", "listens_quotient", "listens_root", "rounds", "lost"]
    if digits:
        pending += ["begins", "divides_on", *(f"divider.{name}" for name in ("busy", "running", "done"))]
        pending += [f"root.{name}" for name in ("busy", "looks", "running", "feeds", "settling", "done")]
    one = reduce(or_, (phase == 1 << i for i in range(1, len(phase))))
    rests = phase[-1] | ~(asked["multiplies"] | asked["adds"])
    waits = inside["waiting"] & (asked["quotes"] | asked["roots"])
    return reduce(and_, (unit.done, one, rests, ~waits, ~Cat(inside[name] for name in pending if name in inside).any()))


def depth(unit: Any, ops: tuple[str, ...]) -> int:
    """Cycles of a whole program and its claims."""
    operation = sys.modules[type(unit).__module__].Operation
    cycles = sum(unit.cycles(operation[op]) for op in ops)
    most = max(unit.latency[operation[op]] for op in ops)
    return int(max(cycles, most)) + PAUSES + 5
