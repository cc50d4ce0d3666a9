# ruff: noqa: E501  a fault a row reads best
"""Frames on AXI4-Streams: what comes out of the buffer are the good frames, and what stands on an output stays through a reset."""

from __future__ import annotations

from amaranth.hdl import Cat, Mux, Signal, Value, unsigned
from amaranth.lib import data

from support.mutants import Mutant

from .harness import Harness, Proof, component

COUNT = 8
"""Bits of the numbers of beats: more than pass in any proof."""


def buffer(package: str, beats: int, *, variable: bool = False) -> Harness:
    """Ghosts say which frames are good, and keep one beat of these, whichever: it comes out at its turn, and nothing else does."""
    module = component(package, "bus.frames")
    module.QUEUE = 4  # so that it is full, and the memory behind it, in the cycles of the proof
    dut = module.FrameBuffer(unsigned(2), beats, variable=variable)
    h = Harness(dut)
    m = h.m
    taken, last = dut.i.valid & dut.i.ready, dut.i.payload.last
    gone = dut.o.valid & dut.o.ready
    beat, drops = h.ghost(COUNT, "beat"), h.ghost(1, "drops")
    length: Value = h.ghost(range(beats + 1), "length") if variable else Signal(2, init=beats)
    if variable:
        with m.If((beat == 0) & ~drops & ~taken):
            m.d.sync += length.eq(dut.length)
    alone = length == 0
    full = beat + 1 == length
    good = taken & ~drops & (alone | (last & full))
    bad = taken & ~drops & ~alone & (last ^ full)
    with m.If(taken):
        m.d.sync += [beat.eq(Mux(last | alone, 0, beat + 1)), drops.eq((drops | (full & ~alone)) & ~last)]
    whole, sent = h.ghost(COUNT, "whole"), h.ghost(COUNT, "sent")
    with m.If(good):
        m.d.sync += whole.eq(whole + Mux(alone, 1, beat + 1))
    with m.If(gone):
        m.d.sync += sent.eq(sent + 1)
    number = h.whichever(COUNT, "number")
    kept = h.ghost(3, "kept")
    with m.If(taken & ~drops & (whole + Mux(alone, 0, beat) == number)):
        m.d.sync += kept.eq(Cat(dut.i.payload.data, last))
    h.claim("a bad frame is told once, as it turns out bad", dut.broken == h.past(bad, "bad"))
    h.claim("nothing comes out that is not of a whole frame", sent < whole, when=dut.o.valid)
    h.claim("a beat comes out at its turn", dut.o.payload.as_value() == kept, when=dut.o.valid & (sent == number))
    h.keeps(dut.o, "o")
    waits, stands = h.ghost(3, "waits"), h.ghost(3, "stands")
    m.d.sync += waits.eq(Mux((sent != whole) & ~dut.o.valid, waits + 1, 0))
    m.d.sync += stands.eq(Mux((sent == whole) & ~dut.i.ready, stands + 1, 0))
    h.claim("a whole frame is offered in time", waits < module.FrameBuffer.latency)
    h.claim("what has left makes room in time", stands < 3)
    h.claim("it tells while beats wait", dut.waits == (sent != whole))
    return h


def outlet(package: str) -> Harness:
    """What was taken comes out, in order; a cut keeps that and ends the frame; nothing of two frames is ever mixed."""
    module = component(package, "bus.outlet")
    dut = module.Outlet(data.StructLayout({"data": 2, "last": 1}))
    h = Harness(dut)
    m = h.m
    taken = dut.i.valid & dut.i.ready & ~dut.cut
    gone, last_in = dut.o.valid & dut.o.ready, dut.i.payload.last
    enters, opened = h.ghost(1, "enters"), h.ghost(1, "opened")  # a frame has begun; what entered last was not an end
    owed = h.ghost(1, "owed")  # the end of a frame that was cut
    held = [h.ghost(3, f"held{i}") for i in range(2)]  # what is inside, the first to leave first
    inside = h.ghost(2, "inside")
    ends = owed & ((inside == 0) | ((inside == 1) & gone))
    adds = taken | ends
    m.d.sync += inside.eq(inside + adds - gone)
    with m.If(gone):
        m.d.sync += held[0].eq(held[1])
    with m.If(adds):
        m.d.sync += opened.eq(~(ends | last_in))
        with m.If(inside - gone == 0):
            m.d.sync += held[0].eq(Mux(ends, 0b100, dut.i.payload))
        with m.Else():
            m.d.sync += held[1].eq(dut.i.payload)
    with m.If(taken):
        m.d.sync += enters.eq(~last_in)
    with m.If(ends):
        m.d.sync += owed.eq(0)
    with m.If(dut.cut):
        m.d.sync += enters.eq(0)
        with m.If(enters):
            m.d.sync += owed.eq(1)
    # From before the last cut: so many beats inside, and the end that is owed.
    old = h.ghost(2, "old")
    m.d.sync += old.eq(Mux(dut.cut, inside - gone, Mux(old == 0, 0, old - gone)) + ends)
    h.claim(
        "what was taken is offered in order, a cycle later at the earliest, and the end of a frame that was cut",
        dut.o.valid == (inside != 0),
    )
    h.claim("the beat is the one that was taken, or empty but for its end", dut.o.payload.as_value() == held[0], when=inside != 0)
    h.keeps(dut.o, "o")
    stays = (old != 0) | owed
    h.claim("what is left from before a cut is told until it was taken", dut.leaving, when=stays)
    h.claim("and no longer than a cycle", stays | h.past(stays | dut.cut, "stays"), when=dut.leaving)
    room = ~dut.leaving & (inside < 2)
    h.claim("a beat a cycle", dut.i.ready, when=room & h.past(~dut.leaving & ~dut.cut, "open"))
    h.claim("it tells when it is empty", dut.empty == (inside == 0))
    h.claim("a frame begins behind the end of the one before it", ~opened, when=taken & ~enters)
    h.lemma("opened", opened == (enters | owed))
    h.lemma("inside", (inside < 3) & (old <= inside))
    h.lemma("spare", (h.internal["spares"] == (inside == 2)) & ((inside < 2) | (h.internal["spare"] == held[1])))
    h.lemma("owed", (h.internal["owes"] == owed) & (~h.internal["ready"] | (~dut.leaving & (inside < 2))))
    h.lemma("begun", h.internal["begun"] == enters)
    h.lemma("one or the other", ~(owed & enters) & ((~owed & (old == 0)) | (old == inside)))
    return h


BUFFER_MUTANTS = (
    Mutant("bus/frames.py", "m.d.sync += written.eq(whole)", "m.d.sync += written.eq(written + 1)", "a bad frame is not taken back"),
    Mutant("bus/frames.py", "drops.eq((drops | (ends & ~each)) & ~last)", "drops.eq(0)", "the rest of a long frame is a frame"),
    Mutant("bus/frames.py", "used < self.depth - 2", "used < self.depth - 1", "a beat is taken for which there is no room"),
    Mutant("bus/frames.py", "reads.eq(~Mux(valid[0], one, none) & ~out[-1])", "reads.eq(~Mux(valid[0], one, none))", "more is read than the queue has room for"),
    Mutant("bus/frames.py", "reads.eq(~Mux(valid[0], one, none) & ~out[-1])", "reads.eq(~out[-1])", "an empty buffer is read"),
    Mutant("bus/frames.py", "(read != whole) | (out != left)", "read != whole", "beats on their way are not told"),
    Mutant("bus/frames.py", "Mux(valid[0], one, none)", "none", "a beat behind the whole ones is read"),
    Mutant("bus/frames.py", "Mux(last | each, length == 1, beat + 2 == length)", "beat + 2 == length", "a frame that ends early shifts the end of the next one"),
    Mutant("bus/frames.py", "(self.o.valid & ~self.o.ready)", "self.o.valid", "a beat that has left is offered again"),
)  # fmt: skip
OUTLET_MUTANTS = (
    Mutant("bus/outlet.py", "taken | spares | owes)", "taken | spares | (owes & ~self.cut))", "an end is lost if it is cut"),
    Mutant("bus/outlet.py", "(self.cut & (~self.empty | begun))", "(self.cut & begun)", "nobody is told of a last beat that is left"),
    Mutant("bus/outlet.py", "(self.cut & (~self.empty | begun))", "(self.cut & ~self.empty)", "nobody is told of an end that is owed"),
    Mutant("bus/outlet.py", "ready.eq(~sparing & ~self.cut & ~self.leaving)", "ready.eq(~sparing)", "a beat is taken in the place of an end"),
    Mutant("bus/outlet.py", "ready.eq(~sparing & ~self.cut & ~self.leaving)", "ready.eq(~self.cut & ~self.leaving)", "a third beat is taken"),
    Mutant("bus/outlet.py", "begun.eq(~self.i.payload.last)", "begun.eq(1)", "a frame that has ended is ended again"),
)  # fmt: skip
TOLD = "only whole frames come out, in order, in time, held; a bad one is told once; room for a frame and more"
PROOFS = [
    Proof("frames, 2 beats", TOLD, lambda package: buffer(package, 2), "bound", 20, mutants=BUFFER_MUTANTS, solver="bitwuzla"),
    Proof(
        "lists, up to 3 beats",
        "the same with a length that changes between frames, or none",
        lambda package: buffer(package, 3, variable=True),
        "bound",
        16,
        mutants=(Mutant("bus/frames.py", "with m.If((beat == 0) & ~drops & ~taken):", "with m.If(1):", "the length changes within a frame"),),
        solver="bitwuzla",
    ),
    Proof(
        "outlet",
        "beats leave in order and stay until they are taken, through a cut, which ends their frame; what is left is told",
        outlet,
        mutants=OUTLET_MUTANTS,
        depth_mutants=8,
    ),
    Proof("outlet", "after a reset from any state as after power-up", outlet, "reset"),
]  # fmt: skip
