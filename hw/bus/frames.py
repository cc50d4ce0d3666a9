"""Frames on an AXI4-Stream: counted and checked, or kept until they are whole so that a bad one is dropped."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..cells.memory import BlockMemory

__all__ = ["FrameBuffer", "FrameCheck", "beats_of"]


def beats_of(shape: Any) -> stream.Signature:
    """A stream of beats in frames: ``data``, and ``last`` on the last beat of a frame."""
    return stream.Signature(data.StructLayout({"data": shape, "last": 1}))


class FrameCheck(wiring.Component):
    """Counts the beats of a stream; where ``last`` is not on the last of ``beats`` beats, and only there, says so.

    Ports: ``i``; ``o``, the same beats at the same time, with ``last`` as it is counted; ``broken``, a cycle later high for each
    beat whose ``last`` is not as it is counted. With ``variable`` also ``length``, the beats of a frame, 1 to ``beats``, which
    changes between two frames alone. Reset: the next beat is the first one of a frame.
    """

    latency = 0

    def __init__(self, shape: Any, beats: int, *, variable: bool = False) -> None:
        self.beats, self.variable = beats, variable
        super().__init__(
            {"i": In(beats_of(shape)), "o": Out(beats_of(shape)), "broken": Out(1)}
            | ({"length": In(range(beats + 1))} if variable else {})
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        taken = self.i.valid & self.i.ready
        last: Value = Const(1)
        if self.beats > 1:
            beat, last = Signal(range(self.beats)), Signal(name="last")
            m.d.comb += last.eq(beat + 1 == self.length if self.variable else beat == self.beats - 1)
            with m.If(taken):
                m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        m.d.comb += [
            self.o.valid.eq(self.i.valid),
            self.o.payload.data.eq(self.i.payload.data),
            self.o.payload.last.eq(last),
            self.i.ready.eq(self.o.ready),
        ]
        m.d.sync += self.broken.eq(taken & (self.i.payload.last ^ last))
        return m


QUEUE = 8
"""Beats in the queue behind a buffer: no less than the cycles, five, from reading one until it is known that it has left."""


class FrameBuffer(wiring.Component):
    """A memory of a frame and more, out of which only whole frames come: one that ends early or late is dropped.

    A frame is written behind those that are whole. As its last beat comes it is whole too; but if that comes early, or is not
    the last, the place to write is taken back to where the frame began, and what follows up to the next ``last`` is dropped as
    well. What comes out is what would have come out if the bad frame had never been sent.

    Ports: ``i``; ``o``, with ``last`` as it came in; ``broken``, high for a cycle after a frame turned out bad, once for each;
    ``waits``, beats of whole frames are here. With ``variable`` also ``length``, the beats of a frame, which acts from the next
    frame on; at 0 every beat is a frame, whatever ``last`` says.

    A bad frame makes way for the next one without the help of ``o``: the memory holds at least two beats more than a frame, and
    so takes all of one behind frames that have left. It takes the next frame while a whole one leaves.

    Latency: the first beat of a frame is offered :attr:`latency` cycles after its last one was taken. Throughput: a beat a cycle
    each way. No ready depends on an input within a cycle, nor does a valid. Reset: empty.

    Args:
        shape: of the data of a beat.
        beats: of a frame; with ``variable`` the most.
    """

    latency = 3 + BlockMemory.latency
    """The frame is whole; it is known that beats are here; one is read, and passes the queue."""

    def __init__(self, shape: Any, beats: int, *, variable: bool = False) -> None:
        self.beats, self.variable = beats, variable
        self.depth = 1 << (beats + 1).bit_length()
        super().__init__(
            {"i": In(beats_of(shape)), "o": Out(beats_of(shape)), "broken": Out(1), "waits": Out(1)}
            | ({"length": In(range(beats + 1))} if variable else {})
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        taken, last = self.i.valid & self.i.ready, self.i.payload.last
        m.submodules.memory = memory = BlockMemory(len(self.i.payload.as_value()), self.depth)

        # Places have a bit more than an address has, so that full and empty differ.
        place = range(2 * self.depth)
        written = Signal(place)  # where the next beat goes
        whole = Signal(place)  # up to here frames are whole
        read, after = Signal(place), Signal(place, init=1)  # the next beat to be read, and the one behind it
        beat = Signal(range(self.beats + 1))
        drops = Signal()  # the rest of a frame that was too long
        # The next beat ends a frame; it is one: in registers, as what follows from them in a cycle is long.
        ends: Value = Signal(init=self.beats == 1, name="ends")
        length: Value = Const(self.beats)
        each: Value = Const(0)
        if self.variable:
            length, ends, each = Signal(range(self.beats + 1)), Signal(), Signal(init=1)
            with m.If((beat == 0) & ~drops & ~taken):
                m.d.sync += [length.eq(self.length), ends.eq(self.length == 1), each.eq(self.length == 0)]
        with m.If(taken):
            m.d.sync += ends.eq(Mux(last | each, length == 1, beat + 2 == length))
        bad = Signal()
        m.d.comb += bad.eq(taken & ~drops & ~each & (last ^ ends))
        m.d.sync += self.broken.eq(bad)
        with m.If(taken):
            m.d.sync += [
                beat.eq(Mux(last | each, 0, beat + 1)),
                drops.eq((drops | (ends & ~each)) & ~last),
            ]
            with m.If(bad):
                m.d.sync += written.eq(whole)
            with m.Elif(~drops):
                m.d.sync += written.eq(written + 1)
            with m.If(~drops & (each | (last & ends))):
                m.d.sync += whole.eq(written + 1)
        used = Signal(place)  # as it was a cycle before
        # Room for the beats of the cycle before, of this one, and of one more.
        m.d.sync += [used.eq(written - read), self.i.ready.eq(used < self.depth - 2)]
        m.d.comb += [
            memory.write.eq(taken),
            memory.write_address.eq(written),
            memory.write_data.eq(self.i.payload),
        ]

        # What is read goes into a short queue, for which there is room: so no enable of the memory follows ready.
        m.submodules.queue = queue = Memory(shape=self.o.payload.shape(), depth=QUEUE, init=[])
        enters, leaves = queue.write_port(), queue.read_port(domain="comb")
        reads, valid = Signal(), Signal(BlockMemory.latency)
        # Of the cycle before: nothing was here; a single beat was, which may have been read since.
        none, one = Signal(init=1), Signal()
        m.d.sync += [none.eq(read == whole), one.eq(after == whole)]
        out = Signal(range(QUEUE + 1))  # beats that are read and had not left a cycle before
        queued = Signal(range(QUEUE + 1))  # those of them that have come
        gone, left = self.o.valid & self.o.ready, Signal()  # as ready comes late in its cycle, the counts take it from a register
        m.d.comb += [
            reads.eq(~Mux(valid[0], one, none) & ~out[-1]),
            memory.read.eq(reads),
            memory.read_address.eq(read),
            memory.read_output.eq(valid[0]),
            enters.en.eq(valid[-1]),
            enters.data.eq(memory.read_data),
            self.o.payload.eq(leaves.data),
            self.waits.eq((read != whole) | (out != left)),
        ]
        m.d.sync += [
            valid.eq(Cat(reads, valid)),
            left.eq(gone),
            out.eq(out + reads - left),
            queued.eq(queued + valid[-1] - left),
            self.o.valid.eq(valid[-1] | (queued > left + 1) | (self.o.valid & ~self.o.ready)),
            enters.addr.eq(enters.addr + valid[-1]),
        ]
        with m.If(reads):
            m.d.sync += [read.eq(after), after.eq(after + 1)]
        with m.If(gone):
            m.d.sync += leaves.addr.eq(leaves.addr + 1)
        return m
