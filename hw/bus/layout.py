"""The table of segments as the host writes it on a bus: entry by entry, each looked at before it is taken."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ..units.segments import entry_layout

__all__ = ["SCALE_BITS", "Layout", "elements_bits"]

SCALE_BITS = 8
"""Of the field of a scale on the bus: with that of the elements it fills the word, so that nothing that is written is cut off."""


def elements_bits(config: ThrottleConfig) -> int:
    """Of the field of an entry's elements on the bus, up to the end of a word."""
    return 24 if config.room < 1 << 24 else 56


class Layout(wiring.Component):
    """Takes a new table entry by entry, right after a reset, and counts the beats of a vector.

    An entry is taken if no beat of a vector has come since the reset; if the table is not whole already, after as many entries
    as it has; if its scale is at most ``scale_max``; if all elements so far are at most ``capacity``; and if it has elements as
    the first one, and none behind one without. Otherwise it is refused, and nothing has changed.

    Ports: ``entry`` {scale, elements}, and ``asked``, which is high until ``done``: it was taken, or ``refused`` as well;
    ``entries``, to the unit's table; ``comes``, a beat of a vector is taken; ``shut``, none may be; ``partial``, the table is
    written in part; ``beats`` of a vector.

    Latency: ``done`` comes :attr:`latency` cycles after ``asked``. It is ``shut`` from a cycle after the first entry was asked
    for until two after the last one was done, and only then the beats change. Reset: the configuration's table and its beats,
    and nothing has come.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        super().__init__(
            {
                "entry": In(data.StructLayout({"scale": SCALE_BITS, "elements": elements_bits(config)})),
                "asked": In(1),
                "done": Out(1),
                "refused": Out(1),
                "entries": Out(stream.Signature(entry_layout(config))),
                "comes": In(1),
                "shut": Out(1),
                "partial": Out(1),
                "beats": Out(range(config.words + 1)),
            }
        )

    @property
    def latency(self) -> int:
        """The entry is taken over, divided by the lanes a bit a cycle, looked at, and told of."""
        return self.config.room.bit_length() + 2

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, lanes = self.config, self.config.lanes
        bits = config.room.bit_length()
        count = Signal(range(config.entries + 1))  # entries that were taken
        elements = Signal(bits)  # of those
        ended = Signal()  # one of them had none
        begun = Signal()  # a beat has come
        beats = Signal(self.beats.shape(), init=config.beats)
        m.d.comb += [self.beats.eq(beats), self.partial.eq((count != 0) & (count != config.entries))]
        m.d.sync += [begun.eq(begun | self.comes), self.shut.eq(self.asked | self.partial)]

        # The beats of a segment, ceil(elements / lanes): one bit of the quotient a cycle, the highest first.
        quotient = Signal(bits, reset_less=True)
        rest = Signal(range(max(2, lanes)), reset_less=True)
        part = Cat(quotient[-1], rest)
        fits = part >= lanes
        left = Signal(range(bits))
        total = Signal(bits + 1, reset_less=True)
        sound = Signal(reset_less=True)
        entry: Any = Signal(
            self.entry.shape(), name="taken_over", reset_less=True
        )  # what the host writes meanwhile is another one
        used = entry.elements.any()
        with m.FSM():
            with m.State("WAIT"):
                m.d.sync += [entry.eq(self.entry), quotient.eq(self.entry.elements), rest.eq(0), left.eq(bits - 1)]
                with m.If(self.asked):
                    m.next = "DIVIDE"
            with m.State("DIVIDE"):
                m.d.sync += [quotient.eq(Cat(fits, quotient)), rest.eq(Mux(fits, part - lanes, part)), left.eq(left - 1)]
                m.d.sync += total.eq(elements + entry.elements[:bits])
                with m.If(left == 0):
                    m.next = "LOOK"
            with m.State("LOOK"):
                m.d.sync += sound.eq(
                    ~begun
                    & (count != config.entries)
                    & (entry.scale <= config.scale_max)
                    & ~entry.elements[bits:].any()
                    & (total <= config.room)
                    & Mux(used, ~ended, count != 0)
                )
                m.next = "TAKE"
            with m.State("TAKE"):
                m.d.comb += [
                    self.done.eq(1),
                    self.refused.eq(~sound),
                    self.entries.valid.eq(sound),
                    self.entries.payload.elements.eq(entry.elements),
                    self.entries.payload.scale.eq(entry.scale),
                ]
                with m.If(sound):
                    m.d.sync += [
                        count.eq(count + 1),
                        elements.eq(total),
                        ended.eq(~used),
                        beats.eq(Mux(count == 0, 0, beats) + quotient + rest.any()),
                    ]
                m.next = "WAIT"
        return m
