"""The root of a normalised integer."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


class SquareRoot(wiring.Component):
    """Radix-2 restoring square root of a W-bit integer whose top two bits are not both zero, to K significant bits.

    The radicand is a fraction with its binary point at the top; it enters two bits a cycle, zeros after its last::

        root   = floor(sqrt(radicand * 2**(2*K - W)))
        sticky = that root is not exact

    Beside the root Q stands the remainder ``R = (radicand so far) - Q**2 <= 2*Q``: the next digit is one if
    ``4*R + next two bits - (4*Q + 1)`` does not borrow. The first digit is always one, so the root is whole when a one
    has reached its top, and there is no counter.

    A radicand whose top two bits are zero counts as zero: root 0 at once.

    Latency: K + 1 cycles from accepting the radicand to offering the root, 1 for a zero. Throughput: one root at a
    time. Reset: idle.
    """

    def __init__(self, width: int, bits: int) -> None:
        if width < 2 or width % 2:
            raise ValueError(f"width must be even and at least 2, not {width!r}")
        if bits < 2:
            raise ValueError(f"bits must be at least 2, not {bits!r}")
        self.width, self.bits = width, bits
        super().__init__(
            {
                "i": In(stream.Signature(unsigned(width))),
                "o": Out(stream.Signature(data.StructLayout({"root": unsigned(bits), "sticky": 1}))),
            }
        )

    @property
    def latency(self) -> int:
        """Cycles from accepting a non-zero radicand to offering its root."""
        return self.bits + 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        busy = Signal()
        zero = Signal(reset_less=True)
        radicand = Signal(self.width, reset_less=True)
        remainder = Signal(self.bits + 1, reset_less=True)
        root = Signal(self.bits, reset_less=True)

        extended = Cat(radicand[-2:], remainder)
        trial = Signal(self.bits + 4)
        digit = Signal()
        m.d.comb += [trial.eq(extended - Cat(1, 0, root)), digit.eq(~trial[-1])]

        done = root[-1] | zero
        rest = remainder if self.width <= 2 * self.bits else Cat(remainder, radicand)  # or the radicand is used up
        m.d.comb += [
            self.i.ready.eq(~busy),
            self.o.valid.eq(busy & done),
            self.o.payload.root.eq(root),
            self.o.payload.sticky.eq(rest.any() & ~zero),
        ]
        with m.If(~busy):
            m.d.sync += [
                radicand.eq(self.i.payload),
                remainder.eq(0),
                root.eq(0),
                zero.eq(~self.i.payload[-2:].any()),
                busy.eq(self.i.valid),
            ]
        with m.Elif(~done):
            m.d.sync += [
                radicand.eq(radicand << 2),
                remainder.eq(Mux(digit, trial, extended)),
                root.eq(Cat(digit, root)),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += busy.eq(0)
        return m
