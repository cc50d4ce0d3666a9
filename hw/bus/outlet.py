"""The last register of an output stream: what it offers stays until it is taken, though the unit behind it is reset."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..cells.gate import gates

__all__ = ["Outlet"]


BITS = 36
"""Of a payload that one gate moves."""


class Outlet(wiring.Component):
    """Two registers between the unit and a port, which hold a beat each. They are not reset with the unit.

    Ports: ``i``, ``o``, streams of one shape; ``cut``, the unit behind is reset in this cycle, and so is what it offers on ``i``:
    it is not taken; ``empty``; ``leaving``, something from before a cut has not left, or left a cycle ago.

    What was taken on ``i`` leaves, whatever is reset. If the payload has a field ``last``, and a frame has begun and not ended as
    the unit is reset, a beat of zeros but for ``last`` follows, so that whoever takes the stream sees its end. Only when all that
    has left new beats are taken, a cycle after ``leaving`` has fallen.

    Latency: a cycle. Throughput: a beat a cycle. No ready depends on an input within a cycle, nor does a valid.
    Reset: empty, and what was offered is gone.
    """

    def __init__(self, shape: Any) -> None:
        self.shape = shape
        beats = stream.Signature(shape)
        super().__init__({"i": In(beats), "o": Out(beats), "cut": In(1), "empty": Out(1), "leaving": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        framed = "last" in getattr(self.shape, "members", {})
        owes = Signal()  # the end of a frame that was cut
        begun = Signal()  # a frame has begun and not ended
        spares = Signal()  # the second register holds a beat
        ready = Signal(init=1)
        payload, spare = Signal(self.shape, reset_less=True), Signal(self.shape, reset_less=True)
        m.d.comb += [
            self.i.ready.eq(ready),
            self.o.payload.eq(payload),
            self.empty.eq(~self.o.valid & ~spares),
        ]
        # A gate for as many bits each, and one for all else: a single one would be far from most of them.
        stored = Value.cast(payload)
        bits = range(0, len(stored), BITS)
        move = gates(m, "moves", len(bits) + 1, lambda offered, ready: ready or not offered, self.o.valid, self.o.ready)
        moves = move[-1]
        taken = self.i.valid & ready & ~self.cut
        owing = (owes & ~(moves & ~spares)) | (self.cut & begun)
        sparing = ~moves & (spares | taken)
        # What comes out of the port's ready has few gates before a register: so the last beat has left a cycle before it is told.
        leaves = (self.cut & (~self.empty | begun)) | (self.leaving & (~self.empty | owes))
        m.d.sync += [self.leaving.eq(leaves), spares.eq(sparing), owes.eq(owing), ready.eq(~sparing & ~self.cut & ~self.leaving)]
        with m.If(~spares):  # and not `ready`, which has a long way into the unit
            m.d.sync += spare.eq(self.i.payload)
        fresh: Any = Signal(self.shape)
        m.d.comb += fresh.eq(self.i.payload)
        if framed:
            with m.If(taken):
                m.d.sync += begun.eq(~self.i.payload.last)
            with m.If(self.cut):
                m.d.sync += begun.eq(0)
            # As gates before the registers: their reset inputs are far from each other.
            beat = self.i.payload
            ends = [
                beat[part] | owes if part == "last" else beat[part] & ~owes.replicate(len(beat[part]))
                for part in self.shape.members
            ]
            m.d.comb += fresh.as_value().eq(Cat(ends))
        with m.If(moves):
            m.d.sync += self.o.valid.eq(taken | spares | owes)
        follows = Value.cast(Mux(spares, spare, fresh))
        for i, low in enumerate(bits):
            with m.If(move[i]):
                m.d.sync += stored[low : low + BITS].eq(follows[low : low + BITS])
        return m
