"""The quotient of two normalised mantissas."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..cells.chain import chained

FILL = 3
"""Cycles before the first digit: the dividend passes into the operand, then into the trial, and the divisor is taken off."""


class Divider(wiring.Component):
    """Radix-2 non-restoring division of M-bit mantissas, to M + 1 significant bits.

    With ``2**(M-1) <= dividend, divisor < 2**M`` the quotient lies in (1/2, 2). Digits are made from the units place down
    until the leading one has reached the top of ``quotient``, so there is no counter::

        quotient = floor(dividend / divisor * 2**(M + below)),    below = (dividend < divisor)

    No sticky bit: a quotient whose lowest bit here is one is never exact, as ``divisor * quotient`` would have more significant
    bits than the dividend; so rounding to M bits has no ties.

    ``trial`` is twice what is left after the divisor was taken off, and may be negative: then the digit is zero, and the next
    trial adds the divisor where it would have subtracted it, ``2*T + 2*divisor == 2*(T + 2*divisor) - 2*divisor``. So a digit is
    a sign, and nothing has to be chosen behind the adder.

    A dividend without its top bit counts as zero: quotient 0 at once. The divisor must be normalised.

    The divisor is not copied: operands are taken as the quotient is. The dividend may change once it was offered, and need not be
    offered any longer.

    Latency: M + 4 cycles from being offered the operands to offering the quotient, one more if ``below``; 1 for a zero.
    Throughput: one division at a time. Reset: idle.
    """

    def __init__(self, bits: int) -> None:
        if bits < 2:
            raise ValueError(f"bits must be at least 2, not {bits!r}")
        self.bits = bits
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"dividend": unsigned(bits), "divisor": unsigned(bits)}))),
                "o": Out(stream.Signature(data.StructLayout({"quotient": unsigned(bits + 1), "below": 1}))),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from operands with dividend >= divisor to offering the quotient; one more otherwise."""
        return FILL + self.bits + 1  # a cycle for each digit

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        busy = Signal()
        running = Signal()
        done = Signal()
        count = Signal(FILL, reset_less=True)  # one-hot: the dividend is the operand, it is the trial, the trial is a remainder
        below = Signal(reset_less=True)
        operand = Signal(self.bits + 2, reset_less=True)
        trial = Signal(self.bits + 2, reset_less=True)
        quotient = Signal(self.bits + 1, reset_less=True)

        # Its sign is stored inverted: a trial of all zeros, as it is while no division is under way, passes for a negative one,
        # to which the dividend is added as the divisor is later.
        positive = trial[-1]
        sums = chained(
            m,
            "adder",
            lambda trial, operand, positive: trial,
            lambda trial, operand, positive: 1 - operand if positive else operand,
            Cat(positive, trial[:-1]),  # twice the trial; its lowest bit is the carry that a subtraction needs
            operand,
            positive,
        )
        dividend, divisor = self.i.payload.dividend, self.i.payload.divisor
        m.d.sync += operand.eq(Mux(busy, Cat(0, divisor, 1), Cat(dividend, 0, 1)))
        m.d.comb += [
            self.i.ready.eq(done & self.o.ready),
            self.o.valid.eq(done),
            self.o.payload.quotient.eq(quotient),
            self.o.payload.below.eq(below),
        ]
        with m.If(~busy | done):
            m.d.sync += trial.eq(0)
        with m.Else():
            m.d.sync += trial.eq(sums)
        with m.If(running):
            m.d.sync += [
                count.eq(count << 1),
                below.eq(below | (count[2] & ~positive)),
                quotient.eq(Cat(positive & ~count[1], quotient)),
                running.eq(~quotient[-2]),
                done.eq(quotient[-2]),
            ]
        with m.Elif(~busy):
            m.d.sync += [
                quotient.eq(0),
                count.eq(1),
                below.eq(0),
                running.eq(self.i.valid & self.i.payload.dividend[-1]),
                done.eq(self.i.valid & ~self.i.payload.dividend[-1]),
                busy.eq(self.i.valid),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += [busy.eq(0), done.eq(0)]
        return m
