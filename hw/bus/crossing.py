"""The registers' bus on a clock of its own: transactions cross to the unit's clock and their answers back."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, ResetSignal, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .file import Response, axi_lite
from .registers import ADDRESS_BITS, WORD

__all__ = ["BUS", "Crossing", "Link"]

BUS, UNIT = "bus", "sync"
"""The two clock domains: that of the bus, and that of everything else."""


def synchronised(m: Module, level: Value, name: str, domain: str) -> Value:
    """A level of another domain, two registers later."""
    stages = Signal(2, name=f"{name}_in_{domain}", attrs={"ASYNC_REG": "TRUE"}, reset_less=True)
    m.d[domain] += stages.eq(Cat(level, stages))
    return stages[-1]


class Link(wiring.Component):
    """One transaction at a time from the domain ``bus`` to the unit's and its answer back, whatever the two clocks are.

    A request stands still while its level ``asks`` is up; the unit's side carries it out and raises ``answered`` beside an
    answer that stands still; the bus takes that and lowers its level, and then the unit's side its own. All that crosses is such
    a level, through two registers, or stands still while it is looked at.

    Either side may be reset alone, for one edge of its clock. So no reset touches the two levels: they always go through
    their four phases. A request that meets a reset of the unit is answered with ``refusal``. A reset of the bus forgets a
    request: it may still be carried out, and its answer goes nowhere.

    Ports: ``ask``, requests, and ``answer`` in the domain ``bus``; ``asked`` and ``answers`` in the unit's. The unit has to
    answer every request once, but for those that it was asked before a reset. No ready depends on a valid within a cycle, and no
    valid on a ready.

    Latency: three cycles of the unit's clock from the request to ``asked``, and three of the bus's clock from taking the answer
    to ``answer``; each of them a cycle less or more, as the edges of the clocks lie.
    """

    def __init__(self, request: Any, answer: Any, refusal: int) -> None:
        self.refusal = refusal
        super().__init__(
            {
                "ask": In(stream.Signature(request)),
                "answer": Out(stream.Signature(answer)),
                "asked": Out(stream.Signature(request)),
                "answers": In(stream.Signature(answer)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        asks, answered = Signal(reset_less=True), Signal(reset_less=True)
        request = Signal.like(self.ask.payload, name="request", reset_less=True)
        found = Signal.like(self.answers.payload, name="found", reset_less=True)

        # In the domain of the bus.
        ends = synchronised(m, answered, "answered", BUS)
        forgets = Signal(init=1)
        m.d.comb += self.ask.ready.eq(~asks & ~ends & ~self.answer.valid)
        with m.If(self.ask.valid & self.ask.ready & ~ResetSignal(BUS)):
            m.d[BUS] += [asks.eq(1), forgets.eq(0), request.eq(self.ask.payload)]
        with m.If(asks & ends):
            m.d[BUS] += [asks.eq(0), self.answer.valid.eq(~forgets), self.answer.payload.eq(found)]
        with m.If(self.answer.valid & self.answer.ready):
            m.d[BUS] += self.answer.valid.eq(0)

        # In that of the unit.
        wanted = synchronised(m, asks, "asks", UNIT)
        works = Signal()
        m.d.comb += [self.asked.payload.eq(request), self.answers.ready.eq(works)]
        with m.If(~self.asked.valid & ~works & ~answered):
            m.d[UNIT] += self.asked.valid.eq(wanted)
        with m.If(self.asked.valid & self.asked.ready):
            m.d[UNIT] += [self.asked.valid.eq(0), works.eq(1)]
        with m.If(works & self.answers.valid):
            m.d[UNIT] += [works.eq(0), answered.eq(1), found.eq(self.answers.payload)]
        with m.If(~wanted):
            m.d[UNIT] += answered.eq(0)
        with m.If(ResetSignal(UNIT) & wanted & ~answered):
            m.d[UNIT] += [answered.eq(1), Value.cast(found).eq(self.refusal)]
        return m


class Crossing(wiring.Component):
    """An AXI4-Lite slave in the domain ``bus`` before one in the unit's: a :class:`Link` each for writes and for reads.

    Ports: the slave's, and those of the one behind it with ``unit`` before their names. One write and one read are under way at a
    time; address and data of a write come in any order. No output depends on an input within a cycle.
    """

    def __init__(self) -> None:
        members = axi_lite()
        super().__init__(members | {f"unit_{name}": port.flip() for name, port in members.items()})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        refusal = Response.SLVERR.value
        write = data.StructLayout({"address": ADDRESS_BITS, "data": WORD, "strobes": WORD // 8})
        m.submodules.writes = writes = Link(write, data.StructLayout({"resp": 2}), refusal)
        read = data.StructLayout({"address": ADDRESS_BITS})
        m.submodules.reads = reads = Link(read, data.StructLayout({"resp": 2, "data": WORD}), refusal)

        # Address and data of a write wait for each other.
        has = {}
        for name, parts in (("aw", {"address": "addr"}), ("w", {"data": "data", "strobes": "strb"})):
            has[name] = there = Signal(name=f"has_{name}")
            m.d.comb += getattr(self, f"s_axi_{name}ready").eq(~there)
            with m.If(writes.ask.valid & writes.ask.ready):
                m.d[BUS] += there.eq(0)
            comes = getattr(self, f"s_axi_{name}valid") & ~there
            with m.If(comes):
                m.d[BUS] += there.eq(1)
            for field, port in parts.items():
                wire = getattr(self, f"s_axi_{name}{port}")
                held = Signal.like(wire, name=f"held_{field}", reset_less=True)
                m.d.comb += writes.ask.payload[field].eq(held)
                with m.If(comes):
                    m.d[BUS] += held.eq(wire)
        m.d.comb += [
            writes.ask.valid.eq(has["aw"] & has["w"]),
            reads.ask.valid.eq(self.s_axi_arvalid),
            self.s_axi_arready.eq(reads.ask.ready),
            reads.ask.payload.address.eq(self.s_axi_araddr),
        ]
        for name, link in (("b", writes), ("r", reads)):
            for part in link.answer.payload.shape().members:
                m.d.comb += getattr(self, f"s_axi_{name}{part}").eq(link.answer.payload[part])
            m.d.comb += [
                getattr(self, f"s_axi_{name}valid").eq(link.answer.valid),
                link.answer.ready.eq(getattr(self, f"s_axi_{name}ready")),
                link.answers.valid.eq(getattr(self, f"unit_s_axi_{name}valid")),
                getattr(self, f"unit_s_axi_{name}ready").eq(link.answers.ready),
            ]
            for part in link.answers.payload.shape().members:
                m.d.comb += link.answers.payload[part].eq(getattr(self, f"unit_s_axi_{name}{part}"))
        m.d.comb += [
            self.unit_s_axi_awaddr.eq(writes.asked.payload.address),
            self.unit_s_axi_wdata.eq(writes.asked.payload.data),
            self.unit_s_axi_wstrb.eq(writes.asked.payload.strobes),
            self.unit_s_axi_awvalid.eq(writes.asked.valid & self.unit_s_axi_wready),
            self.unit_s_axi_wvalid.eq(writes.asked.valid & self.unit_s_axi_awready),
            writes.asked.ready.eq(self.unit_s_axi_awready & self.unit_s_axi_wready),
            self.unit_s_axi_araddr.eq(reads.asked.payload.address),
            self.unit_s_axi_arvalid.eq(reads.asked.valid),
            reads.asked.ready.eq(self.unit_s_axi_arready),
        ]
        return m
