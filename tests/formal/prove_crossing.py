# ruff: noqa: E501  a fault a row reads best
"""The bus's crossing from clock to clock: an answer a request, its own, under every interleaving of the two clocks and their resets."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import ClockDomain, ClockSignal, DomainRenamer, EnableInserter, Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from support.mutants import Mutant

from .harness import Harness, Proof, component

WIDTH = 2


class Interleaved(wiring.Component):
    """A link whose two clocks are one: each side has an edge in the cycles in which its ``tick`` is high, and a reset then."""

    def __init__(self, link: Any) -> None:
        self.link = link
        payload = stream.Signature(WIDTH)
        ticks = {f"{kind}_{side}": In(1) for kind in ("tick", "clear") for side in ("bus", "unit")}
        super().__init__({"ask": In(payload), "answer": Out(payload), "asked": Out(payload), "answers": In(payload)} | ticks)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for side in ("bus", "unit"):
            m.domains += (domain := ClockDomain(side, local=True))
            m.d.comb += [domain.clk.eq(ClockSignal()), domain.rst.eq(getattr(self, f"clear_{side}"))]
        m.submodules.link = DomainRenamer({"sync": "unit"})(
            EnableInserter({"bus": self.tick_bus, "sync": self.tick_unit})(self.link)
        )
        for name in ("ask", "answers"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(self.link, name))
        for name in ("asked", "answer"):
            wiring.connect(m, getattr(self.link, name), wiring.flipped(getattr(self, name)))
        return m


REFUSAL = 3
"""What a request is answered with that meets a reset of the unit. No request asks for it."""


def link(package: str, *, bus_resets: bool = True, unit_resets: bool = True) -> Harness:
    """The unit answers with what it was asked; so an answer that is not the last request is another one's."""
    dut = Interleaved(component(package, "bus.crossing").Link(WIDTH, WIDTH, REFUSAL))
    h = Harness(dut)
    m = h.m
    h.assume(~dut.clear_bus | (dut.tick_bus if bus_resets else 0))
    h.assume(~dut.clear_unit | (dut.tick_unit if unit_resets else 0))
    h.assume(dut.ask.payload != REFUSAL)
    bus, unit = dut.tick_bus, dut.tick_unit

    # The side of the bus: a request, and then its answer.
    asks, answered = bus & dut.ask.valid & dut.ask.ready & ~dut.clear_bus, bus & dut.answer.valid & dut.answer.ready
    waits, last = h.ghost(1, "waits", reset_less=True), h.ghost(WIDTH, "last", reset_less=True)
    met = h.ghost(1, "met", reset_less=True)  # the unit was reset since
    with m.If(dut.clear_unit):
        m.d.sync += met.eq(1)
    with m.If(answered | dut.clear_bus):
        m.d.sync += waits.eq(0)
    with m.If(asks):
        m.d.sync += [waits.eq(1), last.eq(dut.ask.payload), met.eq(dut.clear_unit)]
    h.claim("an answer is of a request", waits, when=dut.answer.valid)
    h.claim("a request waits for the answer before it", ~waits, when=dut.ask.ready)
    own = (dut.answer.payload == last) | (met & (dut.answer.payload == REFUSAL))
    h.claim("the answer is that of the last request, or refuses it", own, when=dut.answer.valid)

    # That of the unit: it answers whenever it likes, with what it was asked.
    asked = unit & dut.asked.valid & dut.asked.ready & ~dut.clear_unit
    works, what = h.ghost(1, "works", reset_less=True), h.ghost(WIDTH, "what", reset_less=True)
    with m.If((unit & dut.answers.valid & dut.answers.ready) | dut.clear_unit):
        m.d.sync += works.eq(0)
    with m.If(asked):
        m.d.sync += [works.eq(1), what.eq(dut.asked.payload)]
    h.assume(~dut.answers.valid | (works & (dut.answers.payload == what)))
    h.claim("the unit is asked for one thing at a time", ~works, when=dut.asked.valid)
    h.claim("the answer is awaited", dut.answers.ready, when=works)
    done = h.ghost(1, "done", reset_less=True)  # the last request was put to the unit
    with m.If(asked):
        m.d.sync += done.eq(1)
    with m.If(asks):
        m.d.sync += done.eq(0)
    h.claim("the unit is asked once", ~done, when=dut.asked.valid)
    h.claim("the unit is asked what was asked", dut.asked.payload == last, when=dut.asked.valid)
    # In time: where each side has an edge in every cycle and the unit answers at once.
    late = h.ghost(5, "late", reset_less=True)
    eager = bus & unit & dut.asked.ready & (dut.answers.valid | ~works) & ~dut.clear_bus & ~dut.clear_unit
    m.d.sync += late.eq(Mux(eager & (waits | ~dut.ask.ready) & ~dut.answer.valid, late + 1, 0))
    h.claim("an answer comes, and room for a request", late < LATEST)
    return h


LATEST = 14
"""Cycles, of two clocks that are one, in which a request is answered and the next one may come."""


MUTANTS = (
    Mutant("bus/crossing.py", "~asks & ~ends & ~self.answer.valid", "~asks & ~self.answer.valid", "the next request does not wait for the level to fall"),
    Mutant("bus/crossing.py", "self.answer.valid.eq(~forgets)", "self.answer.valid.eq(1)", "an answer outlasts a reset of the bus"),
    Mutant("bus/crossing.py", "asks, answered = Signal(reset_less=True)", "asks, answered = Signal()", "a reset of the bus cuts a request short"),
    Mutant("bus/crossing.py", "with m.If(ResetSignal(UNIT) & wanted & ~answered):", "with m.If(0):", "a request that met a reset is carried out again"),
    Mutant("bus/crossing.py", "~self.asked.valid & ~works & ~answered", "~self.asked.valid & ~works", "a request is carried out twice"),
    Mutant("bus/crossing.py", "with m.If(~wanted):\n            m.d[UNIT] += answered.eq(0)", "m.d[UNIT] += answered.eq(0)", "the answer does not stand"),
)  # fmt: skip
PROOFS = [
    Proof(
        "crossing of two clocks",
        "a request is put to the unit once and has its own answer, in time, under every interleaving of the clocks and resets of either",
        link,
        "bound",
        40,
        mutants=MUTANTS,
        solver="bitwuzla",
    ),
]
