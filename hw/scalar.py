"""Scalars on wires, and the one arithmetic unit that all scalar work shares."""

from __future__ import annotations

import enum
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Scalar, ScalarFormat

from .divider import Divider
from .sqrt import SquareRoot

__all__ = ["Operation", "ScalarUnit", "Shared", "constant", "issue", "scalar_layout", "unit_signature"]


LEAP = 8
"""Places that a shift takes in one cycle while it can; the rest one by one."""


class Operation(enum.Enum):
    """What the unit does with its operands a and b."""

    ADD = 0  #: rnd(a + b)
    MUL = 1  #: rnd(a * b)
    DIV = 2  #: rnd(a / b)
    MAX = 3  #: the larger one
    MIN = 4  #: the smaller one
    STEP = 5  #: a * b on the step grid, an integer
    ROOT = 6  #: rnd of the root of the next radicand; a.e is the exponent it has when nothing was shifted


def scalar_layout(fmt: ScalarFormat) -> data.StructLayout:
    """``{m, e}``, the mantissa in the low bits; zero is all zeros."""
    return data.StructLayout({"m": unsigned(fmt.mantissa_bits), "e": signed(fmt.exponent_bits)})


def constant(value: Scalar, fmt: ScalarFormat) -> data.Const:
    """A scalar as a constant."""
    return scalar_layout(fmt).const({"m": value.m, "e": value.e})


def request_layout(fmt: ScalarFormat) -> data.StructLayout:
    return data.StructLayout({"op": Operation, "a": scalar_layout(fmt), "b": scalar_layout(fmt)})


def response_layout(fmt: ScalarFormat, step_bits: int) -> data.StructLayout:
    return data.StructLayout({"value": scalar_layout(fmt), "step": unsigned(step_bits), "overflow": 1, "underflow": 1})


def radicand_layout(width: int) -> data.StructLayout:
    return data.StructLayout({"value": unsigned(width), "shift": range(width // 2 + 1)})


def unit_signature(fmt: ScalarFormat, step_bits: int) -> wiring.Signature:
    """How a client sees the unit: it sends a request, then takes the response."""
    return wiring.Signature(
        {
            "request": Out(stream.Signature(request_layout(fmt))),
            "response": In(stream.Signature(response_layout(fmt, step_bits))),
        }
    )


class ScalarUnit(wiring.Component):
    """Add, multiply, divide, compare and root of scalars, each correctly rounded; one operation at a time.

    ``R`` is the working register: a carry bit, M bits of result, and K fraction bits, K = max(M, step_bits + 1). Every
    operation brings its exact result there, with what fell off below in a sticky bit, and one rounder (nearest, ties to
    even) serves them all::

        ADD     SORT -> SHIFT the smaller operand right, a bit or eight a cycle -> SUM -> CARRY -> ROUND -> RANGE
        MUL     SORT -> MULTIPLY, `digit` bits a cycle                        -> CARRY -> ROUND -> RANGE
        STEP    SORT -> MULTIPLY -> SHIFT to the step grid                             -> ROUND
        DIV     SORT -> DIVIDE                                                         -> ROUND -> RANGE
        ROOT    SORT -> EXTRACT                                                        -> ROUND -> RANGE
        MAX/MIN SORT

    Overflow gives the largest finite scalar and ``overflow``; underflow gives zero and ``underflow``; x/0 is an overflow
    for x > 0 and zero for x = 0. STEP rounds the exact product once and saturates.

    Args:
        fmt: the scalar format.
        step_bits, step_fraction: width and fraction bits of the step grid.
        radicand_bits: width of the normalised radicand, even.
        digit: multiplier bits consumed per cycle.

    Ports: ``i`` requests, ``radicand`` normalised integers for ROOT, ``o`` responses. An operation starts when the
    previous response was taken. :attr:`latency` bounds the cycles from request to response.
    """

    def __init__(self, *, fmt: ScalarFormat, step_bits: int, step_fraction: int, radicand_bits: int, digit: int = 8) -> None:
        self.fmt, self.step_bits, self.step_fraction = fmt, step_bits, step_fraction
        self.radicand_bits, self.digit = radicand_bits, min(digit, fmt.mantissa_bits)
        self.fraction = max(fmt.mantissa_bits, step_bits + 1)
        super().__init__(
            {
                "i": In(stream.Signature(request_layout(fmt))),
                "radicand": In(stream.Signature(radicand_layout(radicand_bits))),
                "o": Out(stream.Signature(response_layout(fmt, step_bits))),
            }
        )

    @classmethod
    def for_config(cls, config: ThrottleConfig) -> ScalarUnit:
        return cls(
            fmt=config.scalar,
            step_bits=config.step.width,
            step_fraction=config.step.fraction_bits,
            radicand_bits=config.widths.energy + config.widths.energy % 2,
        )

    @property
    def latency(self) -> dict[Operation, int]:
        """The most cycles from accepting a request (with its radicand) to offering the response, by operation."""
        bits = self.fmt.mantissa_bits
        digits = -(-bits // self.digit)

        def shift(places: int) -> int:
            return max(n // LEAP + n % LEAP for n in range(places + 1))

        return {
            Operation.ADD: shift(bits + 1) + 8,
            Operation.MUL: digits + 6,
            Operation.DIV: bits + 7,
            Operation.MAX: 2,
            Operation.MIN: 2,
            Operation.STEP: digits + shift(self.fraction + 2) + 6,
            Operation.ROOT: bits + 5,
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits, exponent_bits, digit = self.fmt.mantissa_bits, self.fmt.exponent_bits, self.digit
        low, high = self.fmt.exponents
        fraction = self.fraction
        layout = scalar_layout(self.fmt)

        op = Signal(Operation, reset_less=True)
        a = Signal(layout, reset_less=True)
        b = Signal(layout, reset_less=True)
        work = Signal(fraction + bits + 1, reset_less=True)
        sticky = Signal(reset_less=True)
        e = Signal(signed(exponent_bits + 3), reset_less=True)
        count = Signal(range(max(fraction + 4, bits + 3)), reset_less=True)
        value = Signal(layout, reset_less=True)
        step = Signal(self.step_bits, reset_less=True)
        overflow = Signal(reset_less=True)
        underflow = Signal(reset_less=True)

        m.submodules.divider = divider = Divider(bits)
        m.submodules.root = root = SquareRoot(self.radicand_bits, bits + 1)
        m.d.comb += [
            divider.i.payload.dividend.eq(a.m),
            divider.i.payload.divisor.eq(b.m),
            root.i.payload.eq(self.radicand.payload.value),
            self.o.payload.value.eq(value),
            self.o.payload.step.eq(step),
            self.o.payload.overflow.eq(overflow),
            self.o.payload.underflow.eq(underflow),
        ]

        # Mantissas are normalised, so (non-zero, exponent, mantissa) orders scalars; flipping the exponent's sign bit
        # makes it compare as unsigned.
        def key(x: Any) -> Value:
            return Cat(x.m, x.e.as_unsigned() ^ (1 << exponent_bits - 1), x.m[-1])

        smaller = key(a) < key(b)
        larger_e = Signal(signed(exponent_bits + 3))
        smaller_e = Signal(signed(exponent_bits + 3))
        m.d.comb += [larger_e.eq(Mux(smaller, b.e, a.e)), smaller_e.eq(Mux(smaller, a.e, b.e))]
        apart = Signal(exponent_bits + 1)
        m.d.comb += apart.eq(larger_e - smaller_e)
        product_e = Signal(signed(exponent_bits + 3))
        m.d.comb += product_e.eq(a.e + b.e)
        # The step's integer part sits above `bits` fraction bits of `work`; this many places down from the product.
        to_step = Signal(signed(exponent_bits + 10))
        m.d.comb += to_step.eq(fraction + 1 - 2 * bits - self.step_fraction - product_e)

        digits = -(-bits // digit)
        partial = Signal(bits + digit, reset_less=True)
        padding = digit * digits - bits  # below the multiplier, so that its top digit is a full one
        multiplier = Signal(digit * digits, reset_less=True)
        place = fraction - bits + 1 - padding + digit * (digits - 1)
        is_step = op == Operation.STEP

        def at(position: int) -> Value:
            """The bits of the result above a binary point, with the guard bit as the lowest."""
            return work[position - 1 :]

        kept = at(fraction) if fraction == bits else Mux(is_step, at(bits), at(fraction))
        below = work[: fraction - 1].any() if fraction == bits else Mux(is_step, work[: bits - 1].any(), work[: fraction - 1].any())
        rounded = Signal(fraction + 2)
        m.d.comb += rounded.eq((kept >> 1) + (kept[0] & (kept[1] | sticky | below)))

        def finish(m: Module, result: Any) -> None:
            m.d.sync += value.eq(result)
            m.next = "RESPOND"

        with m.FSM():
            with m.State("IDLE"):
                needs_radicand = self.i.payload.op == Operation.ROOT
                m.d.comb += self.i.ready.eq(~needs_radicand | (self.radicand.valid & root.i.ready))
                m.d.sync += [
                    op.eq(self.i.payload.op),
                    a.eq(self.i.payload.a),
                    b.eq(self.i.payload.b),
                    sticky.eq(0),
                    overflow.eq(0),
                    underflow.eq(0),
                    step.eq(0),
                    work.eq(0),
                ]
                with m.If(self.i.valid & self.i.ready):
                    m.next = "SORT"
                with m.If(self.i.valid & needs_radicand & self.radicand.valid):
                    m.d.comb += [root.i.valid.eq(1), self.radicand.ready.eq(root.i.ready)]
                    m.d.sync += e.eq(self.i.payload.a.e - self.radicand.payload.shift)

            with m.State("SORT"):
                with m.If(smaller & (op == Operation.ADD)):
                    m.d.sync += [a.eq(b), b.eq(a)]
                with m.Switch(op):
                    with m.Case(Operation.MAX):
                        finish(m, Mux(smaller, b, a))
                    with m.Case(Operation.MIN):
                        finish(m, Mux(smaller, a, b))
                    with m.Case(Operation.ADD):
                        m.d.sync += e.eq(larger_e)
                        m.next = "ALIGN"
                        with m.If(~Mux(smaller, a.m[-1], b.m[-1])):
                            finish(m, Mux(smaller, b, a))
                    with m.Case(Operation.MUL, Operation.STEP):
                        m.d.sync += [e.eq(product_e + (bits - 1)), count.eq(digits), multiplier.eq(b.m << padding)]
                        m.next = "MULTIPLY"
                        with m.If(~(a.m[-1] & b.m[-1])):
                            finish(m, Const(0, layout.size))
                    with m.Case(Operation.DIV):
                        m.d.sync += e.eq(a.e - b.e - (bits - 1))
                        with m.If(~a.m[-1]):
                            finish(m, Const(0, layout.size))
                        with m.Elif(~b.m[-1]):
                            m.d.sync += overflow.eq(1)
                            finish(m, constant(self.fmt.largest, self.fmt))
                        with m.Else():
                            m.d.comb += divider.i.valid.eq(1)
                            m.next = "DIVIDE"
                    with m.Default():
                        m.next = "EXTRACT"

            with m.State("ALIGN"):
                # Beyond bits + 1 places the smaller operand is below the guard bit: all of it is sticky.
                m.d.sync += count.eq(apart)
                with m.If(apart > bits + 1):
                    m.d.sync += sticky.eq(1)
                    m.d.sync += count.eq(0)
                with m.Else():
                    m.d.sync += work[fraction : fraction + bits].eq(b.m)
                m.next = "SHIFT"

            with m.State("MULTIPLY"):
                shifted = work >> digit
                m.d.sync += [
                    partial.eq(a.m * multiplier[:digit]),
                    multiplier.eq(multiplier >> digit),
                    work.eq(Cat(shifted[:place], shifted[place:] + partial)),
                    count.eq(count - 1),
                ]
                with m.If(count == digits):  # the first partial product is only now on its way
                    m.d.sync += work.eq(0)
                with m.If(count == 0):
                    m.next = "CARRY"
                    with m.If(is_step):
                        m.next = "PLACE"

            with m.State("PLACE"):
                m.next = "SHIFT"
                m.d.sync += count.eq(to_step)
                with m.If(to_step < 0):  # at least 2**step_bits
                    m.d.sync += step.eq(~Const(0, self.step_bits))
                    finish(m, Const(0, layout.size))
                with m.Elif(to_step > fraction + 2):  # below half a step ulp
                    finish(m, Const(0, layout.size))

            with m.State("SHIFT"):
                with m.If(count == 0):
                    m.next = "SUM"
                    with m.If(is_step):
                        m.next = "ROUND"
                with m.Elif(count >= LEAP):
                    m.d.sync += [work.eq(work >> LEAP), sticky.eq(sticky | work[:LEAP].any()), count.eq(count - LEAP)]
                with m.Else():
                    m.d.sync += [work.eq(work >> 1), sticky.eq(sticky | work[0]), count.eq(count - 1)]

            with m.State("SUM"):
                m.d.sync += work[fraction:].eq(work[fraction : fraction + bits] + a.m)
                m.next = "CARRY"

            with m.State("CARRY"):
                with m.If(work[-1]):
                    m.d.sync += [work.eq(work >> 1), sticky.eq(sticky | work[0]), e.eq(e + 1)]
                m.next = "ROUND"

            with m.State("DIVIDE"):
                m.d.comb += divider.o.ready.eq(1)
                with m.If(divider.o.valid):
                    m.d.sync += [
                        work[fraction - 1 :].eq(divider.o.payload.quotient),
                        sticky.eq(divider.o.payload.sticky),
                        e.eq(e - divider.o.payload.below),
                    ]
                    m.next = "ROUND"

            with m.State("EXTRACT"):
                m.d.comb += root.o.ready.eq(1)
                with m.If(root.o.valid):
                    m.d.sync += [work[fraction - 1 :].eq(root.o.payload.root), sticky.eq(root.o.payload.sticky)]
                    m.next = "ROUND"

            with m.State("ROUND"):
                m.d.sync += value.m.eq(rounded)
                with m.If(rounded[bits]):  # all ones rounded up
                    m.d.sync += [value.m.eq(1 << bits - 1), e.eq(e + 1)]
                m.next = "RANGE"
                with m.If(is_step):
                    m.d.sync += step.eq(Mux(rounded[self.step_bits :].any(), ~Const(0, self.step_bits), rounded))
                    finish(m, Const(0, layout.size))

            with m.State("RANGE"):
                finish(m, Cat(value.m, e[:exponent_bits]))
                with m.If(~value.m[-1]):  # the root of zero
                    finish(m, Const(0, layout.size))
                with m.Elif(e > high):
                    m.d.sync += overflow.eq(1)
                    finish(m, constant(self.fmt.largest, self.fmt))
                with m.Elif(e < low):
                    m.d.sync += underflow.eq(1)
                    finish(m, Const(0, layout.size))

            with m.State("RESPOND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"

        return m


def issue(m: Module, unit: Any, state: str, op: Operation, a: Any, b: Any, target: Any, then: str, *, field: str = "value") -> None:
    """Two FSM states that have the unit do one operation: ``target = op(a, b)``, then on to state ``then``."""
    with m.State(state):
        m.d.comb += [unit.request.valid.eq(1), unit.request.payload.op.eq(op), unit.request.payload.a.eq(a), unit.request.payload.b.eq(b)]
        with m.If(unit.request.ready):
            m.next = f"{state} WAIT"
    with m.State(f"{state} WAIT"):
        m.d.comb += unit.response.ready.eq(1)
        with m.If(unit.response.valid):
            m.d.sync += target.eq(unit.response.payload[field])
            m.next = then


def share(m: Module, unit: ScalarUnit, clients: list[Any]) -> None:
    """Let several clients use one unit; at most one of them may have an operation under way at a time."""
    for client in clients:
        with m.If(client.request.valid):
            m.d.comb += unit.i.payload.eq(client.request.payload)
        m.d.comb += [client.request.ready.eq(unit.i.ready), client.response.valid.eq(unit.o.valid), client.response.payload.eq(unit.o.payload)]
    m.d.comb += [
        unit.i.valid.eq(Cat(*(client.request.valid for client in clients)).any()),
        unit.o.ready.eq(Cat(*(client.response.ready for client in clients)).any()),
    ]


class Shared(wiring.Component):
    """A client with a unit of its own: what one instantiates to use or to test a client alone.

    Ports are those of the client, without ``unit``.
    """

    def __init__(self, client: wiring.Component, unit: ScalarUnit) -> None:
        self.client, self.unit = client, unit
        super().__init__({name: member for name, member in client.signature.members.items() if name != "unit"})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.client = self.client
        m.submodules.unit = self.unit
        wiring.connect(m, wiring.flipped(self), _without_unit(self.client))
        share(m, self.unit, [self.client.unit])
        return m


def _without_unit(client: wiring.Component) -> Any:
    members = {name: member for name, member in client.signature.members.items() if name != "unit"}
    face = wiring.Signature(members)

    class Face:
        signature = face

    view = Face()
    for name in members:
        setattr(view, name, getattr(client, name))
    return view
