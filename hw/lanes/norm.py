"""The exact sum of squares of a difference, or of products with it."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..cells.carry import subtract_either
from ..cells.multiplier import Multiplier


class SumOfSquares(wiring.Component):
    """``sum((minuend - subtrahend)**2)`` over all lanes and beats up to the one marked ``last``; an exact integer.

    ``soon`` says that the sum is offered from the next cycle on. With ``either`` the subtrahend comes in two fields, of which
    one is zero: ``subtrahend`` or ``other``. With ``projects`` it is ``sum(minuend * (minuend - subtrahend))``, a signed number:
    the sum of squares where nothing is subtracted.

    Pipeline: difference, operand, square, the square away from the multiplier's block, a level of the adder tree a stage,
    accumulator. Lanes from ``tail`` on count as zero in the last beat. With ``shift_bits`` a beat brings ``shift``, and its sum
    is shifted up by twice as many bits before it is accumulated: a stage for each bit, behind the adder tree.

    Args:
        lanes: L, elements a beat, 1..32.
        width: bits of the signed operands.
        energy_bits: bits of the sum, without the sign that it has with ``projects``; the caller proves that it fits.
        tail: elements in the last beat, 1..L.
        either: the subtrahend is ``subtrahend | other``.
        projects: products of the difference with the minuend are summed, not squares.
        shift_bits: bits of a beat's ``shift``; 0 for no such field.

    Latency: :attr:`latency` cycles from the last beat to the sum. Throughput: a beat a cycle; after the last beat none
    is accepted until the sum was taken. Reset: idle, sum 0.
    """

    def __init__(
        self,
        *,
        lanes: int,
        width: int,
        energy_bits: int,
        tail: int | None = None,
        either: bool = False,
        projects: bool = False,
        shift_bits: int = 0,
    ) -> None:
        self.lanes, self.width, self.energy_bits = lanes, width, energy_bits
        self.either, self.projects, self.shift_bits = either, projects, shift_bits
        self.tail = lanes if tail is None else tail
        operand = data.ArrayLayout(signed(width), lanes)
        operands = dict.fromkeys(("minuend", "subtrahend", "other") if either else ("minuend", "subtrahend"), operand)
        super().__init__(
            {
                "i": In(
                    stream.Signature(data.StructLayout({**operands, "last": 1} | ({"shift": shift_bits} if shift_bits else {})))
                ),
                "o": Out(stream.Signature(signed(energy_bits + 1) if projects else unsigned(energy_bits))),
                "soon": Out(1),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from accepting the last beat to offering the sum."""
        difference, behind_the_block, accumulator = 1, 1, 1
        tree = (self.lanes - 1).bit_length()
        return difference + Multiplier.latency + behind_the_block + tree + self.shift_bits + accumulator

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        taken = Signal()
        closed = Signal()  # the last beat was accepted: none is until the sum was taken
        m.d.comb += [self.i.ready.eq(~closed), taken.eq(self.i.valid & self.i.ready)]

        number = signed if self.projects else unsigned  # the shape of a sum
        terms = []
        for lane in range(self.lanes):
            squarer = Multiplier(self.width + 1, self.width + 1)
            m.submodules[f"squarer{lane}"] = squarer
            difference = Signal(signed(self.width + 1), name=f"difference{lane}", reset_less=True)
            minuend, subtrahend = self.i.payload.minuend[lane], self.i.payload.subtrahend[lane]
            factor = difference
            if self.projects:
                factor = Signal(signed(self.width), name=f"factor{lane}", reset_less=True)
                m.d.sync += factor.eq(minuend)
            m.d.comb += [squarer.a.eq(factor), squarer.b.eq(difference), squarer.enable.eq(1)]
            if self.either:
                other = self.i.payload.other[lane]
                m.d.sync += difference.eq(subtract_either(m, f"change{lane}", minuend, subtrahend, other, self.width + 1))
            else:
                m.d.sync += difference.eq(minuend - subtrahend)
            if lane >= self.tail:
                with m.If(self.i.payload.last):
                    m.d.sync += difference.eq(0)
            square = Signal(number(2 * self.width + 1), name=f"square{lane}", reset_less=True)
            m.d.sync += square.eq(squarer.o)
            terms.append(square)

        valid, last = taken, taken & self.i.payload.last
        for stage in range(self.latency - 1):  # down the pipeline beside the data
            valid_next = Signal(name=f"valid{stage}")
            last_next = Signal(name=f"last{stage}")
            m.d.sync += [valid_next.eq(valid), last_next.eq(last)]
            valid, last = valid_next, last_next

        level = 0
        while len(terms) > 1:
            sums = []
            for i in range(0, len(terms) - 1, 2):
                total = Signal(number(len(terms[i]) + 1), name=f"tree{level}_{i // 2}", reset_less=True)
                m.d.sync += total.eq(terms[i] + terms[i + 1])
                sums.append(total)
            if len(terms) % 2:
                odd = Signal(number(len(terms[-1])), name=f"tree{level}_odd", reset_less=True)
                m.d.sync += odd.eq(terms[-1])
                sums.append(odd)
            terms, level = sums, level + 1

        if self.shift_bits:
            shift: Value = self.i.payload.shift
            for stage in range(self.latency - 1 - self.shift_bits):  # beside the data, to where the tree ends
                later = Signal(self.shift_bits, name=f"shift{stage}", reset_less=True)
                m.d.sync += later.eq(shift)
                shift = later
            for bit in range(self.shift_bits):
                moved = Signal(number(len(terms[0]) + (2 << bit)), name=f"aligned{bit}", reset_less=True)
                m.d.sync += moved.eq(Mux(shift[0], terms[0] << (2 << bit), terms[0]))
                terms = [moved]
                rest = Signal(max(1, self.shift_bits - 1 - bit), name=f"shift_rest{bit}", reset_less=True)
                m.d.sync += rest.eq(shift[1:])
                shift = rest

        total = Signal(self.o.payload.shape(), reset_less=True)
        whole = Signal()
        taking = self.o.valid & self.o.ready
        clears = Signal(init=1)  # a cycle after the sum was taken, from a register: the next square comes later than that
        m.d.sync += clears.eq(taking)
        with m.If(clears):
            m.d.sync += total.eq(0)
        with m.Elif(valid):
            m.d.sync += total.eq(total + terms[0])
        with m.If(last):
            m.d.sync += whole.eq(1)
        with m.If(taken & self.i.payload.last):
            m.d.sync += closed.eq(1)
        m.d.comb += [self.o.valid.eq(whole), self.o.payload.eq(total), self.soon.eq(last)]
        with m.If(taking):
            m.d.sync += [whole.eq(0), closed.eq(0)]
        return m
