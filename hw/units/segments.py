"""The table of segments, and what it says of each beat of a pass: the last one, which lanes lie beyond a tail, the shift."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig

START = 2
"""Cycles from the first beat offered in a pass to that beat taken."""


def entry_layout(config: ThrottleConfig) -> data.StructLayout:
    """An entry of the table, as the host writes it; one without elements is not in use."""
    return data.StructLayout({"elements": unsigned(config.room.bit_length()), "scale": unsigned(config.scale_max.bit_length())})


def layout_words(config: ThrottleConfig) -> list[int]:
    """The whole table of a configuration as the host writes it to ``layout``, a word an entry, in order."""
    rows = [{"elements": one.elements, "scale": one.scale} for one in config.segments]
    rows += [{"elements": 0, "scale": 0}] * (config.entries - len(rows))
    return [sum(row[name] << field.offset for name, field in entry_layout(config)) for row in rows]


def tag_layout(config: ThrottleConfig) -> data.StructLayout:
    """What is said of a beat: whether it is the pass's last, the lanes beyond its segment, and half the shift of its sum."""
    return data.StructLayout(
        {"last": unsigned(1), "outside": unsigned(config.lanes), "shift": unsigned(config.scale_max.bit_length())}
    )


class Table(wiring.Component):
    """A ring of entries {elements, scale}, and a tag for every beat of the segments in it, pass after pass.

    The entry in use stands at the front. With the last beat of its segment the ring turns by one, and when the pass is over it
    turns on to where it began: so no entry is ever chosen among many. That takes as many cycles as the table has entries, at
    most, and none of them is seen where the pass that follows begins later than that.

    Ports: ``entries``, from the host, each pushed behind the others and the front one out, so that as many as the table holds
    are a new one; to be written whole after a reset, before a beat is offered. ``wanted``: a beat of a pass is offered.
    ``tags``: of the beats in order, taken as the beats are.

    Throughput: a tag a cycle; the first of a pass comes :data:`START` cycles after it was wanted. Reset: the configuration's
    segments.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        super().__init__(
            {
                "entries": In(stream.Signature(entry_layout(config))),
                "wanted": In(1),
                "tags": Out(stream.Signature(tag_layout(config))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config, lanes, count = self.config, self.config.lanes, self.config.entries
        shape = entry_layout(config)
        given = [{"elements": one.elements, "scale": one.scale} for one in config.segments]
        given += [{"elements": 0, "scale": 0}] * (count - len(given))
        ring = [Signal(shape, name=f"entry{k}", init=init) for k, init in enumerate(given)]
        home = Signal(count, init=1)  # one-hot: where the entry stands that is at the front between two passes
        turns, pushed = Signal(), Signal()
        incoming = self.entries.payload
        with m.If(turns | pushed):
            for k, entry in enumerate(ring[:-1]):
                m.d.sync += entry.eq(ring[k + 1])
            with m.If(pushed):
                m.d.sync += ring[-1].eq(incoming)
            with m.Else():
                m.d.sync += [ring[-1].eq(ring[0]), home.eq(Cat(home[1:], home[0]))]

        # Elements of the segment at the front whose tags are still to be made.
        front, following = ring[0], ring[1 % count]
        left = Signal(shape.members["elements"], reset_less=True)
        ends = left <= lanes
        # A beat that is not full has fewer elements left than lanes: one look-up table a lane compares so small a number.
        bits = (lanes - 1).bit_length()
        few = ~left[bits:].any()
        beyond = [few & (left[:bits] <= lane) if lane + 1 < 1 << bits else few for lane in range(lanes)]
        over = ends & ((following.elements == 0) | home[1 % count])
        tag = self.tags.payload
        made = Signal(tag_layout(config), reset_less=True)
        held = Signal()
        m.d.comb += [tag.eq(made), self.tags.valid.eq(held)]
        with m.If(self.tags.ready):
            m.d.sync += held.eq(0)
        with m.FSM():
            with m.State("HOME"):
                m.d.comb += [self.entries.ready.eq(1), pushed.eq(self.entries.valid)]
                m.d.sync += left.eq(front.elements)
                with m.If(self.wanted):
                    m.next = "PASS"
            with m.State("PASS"):
                with m.If(~held | self.tags.ready):
                    m.d.sync += [
                        held.eq(1),
                        made.last.eq(over),
                        made.outside.eq(Cat(beyond)),
                        made.shift.eq(config.scale_max - front.scale),
                        left.eq(left - lanes),
                    ]
                    with m.If(ends):
                        m.d.comb += turns.eq(1)
                        m.d.sync += left.eq(following.elements)
                    with m.If(over):
                        m.next = "BACK"
            with m.State("BACK"):
                with m.If(home[0]):
                    m.next = "HOME"
                with m.Else():
                    m.d.comb += turns.eq(1)
        return m


def delayed(m: Module, name: str, value: Value, cycles: int) -> list[Signal]:
    """A value after each of so many cycles."""
    stages = [Signal(value.shape(), name=f"{name}{k}", reset_less=True) for k in range(cycles)]
    m.d.sync += [stage.eq(before) for stage, before in zip(stages, [value, *stages], strict=False)]
    return stages


def both(value: Value, known: Value | None) -> Value:
    """A value where it is known that it may be so; where there is nothing to know, itself."""
    return value if known is None else value & known
