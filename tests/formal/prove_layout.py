# ruff: noqa: E501  a fault a row reads best
"""The table of segments on a bus: which entries are taken, when they are told of, and how many beats they are."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Mux

from kappa_rtl.golden.config import ThrottleConfig
from support.mutants import Mutant

from .harness import Harness, Proof, component


def layout(package: str, lanes: int, entries: int, capacity: int, scale_max: int) -> Harness:
    """Ghosts hold what the host asked for last and what was taken, and know the rules; the division goes along with its bits.

    The host asks until it is told. What it writes meanwhile is free, and so are the beats that come while they may.
    """
    config = ThrottleConfig(elements=capacity, eta=0.5, lanes=lanes, segments=entries, scale_max=scale_max, capacity=capacity)
    dut = component(package, "bus.layout").Layout(config)
    h = Harness(dut)
    m, inside = h.m, h.internal
    bits = config.room.bit_length()
    age = h.ghost(range(dut.latency + 1), "age")  # cycles since the host asked
    elements, scale = h.ghost(len(dut.entry.elements), "elements"), h.ghost(len(dut.entry.scale), "scale")
    h.assume(dut.asked | (age == 0))
    h.assume(~dut.comes | ~dut.shut)
    told = dut.asked & (age == dut.latency)
    m.d.sync += age.eq(Mux(dut.asked & ~told, age + 1, 0))
    with m.If(dut.asked & (age == 0)):
        m.d.sync += [elements.eq(dut.entry.elements), scale.eq(dut.entry.scale)]

    count, sum_ = h.ghost(range(entries + 1), "count"), h.ghost(range(capacity + 1), "sum")
    beats, ended, begun = h.ghost(range(config.words + 1), "beats", init=config.beats), h.ghost(1, "ended"), h.ghost(1, "begun")
    few = elements <= capacity
    fits = few & (sum_ + elements <= capacity) & (scale <= scale_max) & (count < entries) & ~begun
    fits &= Mux(elements == 0, count != 0, ~ended)
    of_entry = (elements[:bits] + (lanes - 1)) // lanes
    m.d.sync += begun.eq(begun | dut.comes)
    with m.If(told & fits):
        m.d.sync += [
            count.eq(count + 1),
            sum_.eq(sum_ + elements),
            ended.eq(elements == 0),
            beats.eq(Mux(count == 0, 0, beats) + of_entry),
        ]
    partial = (count != 0) & (count != entries)

    h.claim("the host is told in time, and only then", dut.done == told)
    h.claim("an entry that breaks a rule is refused, and no other one", dut.refused == (told & ~fits))
    h.claim("the table gets what is taken, and nothing else", dut.entries.valid == (told & fits))
    h.claim(
        "an entry is what the host had written as it asked",
        (dut.entries.payload.elements == elements) & (dut.entries.payload.scale == scale),
        when=dut.entries.valid,
    )
    h.claim("the beats of the table", dut.beats == beats)
    h.claim("that the table is written in part", dut.partial == partial)
    h.claim("no beat of a vector while the table changes", dut.shut, when=(age > 0) | (h.past(partial, "partial")))
    h.claim("nor in the cycle after that", dut.shut, when=h.past(told, "told"))
    h.claim(
        "beats as soon as there is a table",
        ~dut.shut,
        when=~partial & (age == 0) & ~h.past(told | partial | (age != 0) | dut.asked, "works"),
    )

    # Inside: the division, bit by bit.
    divides = h.state("DIVIDE")
    h.lemma("waits", h.state("WAIT") == (age == 0))
    h.lemma("divides", divides == ((age > 0) & (age <= bits)))
    h.lemma("looks", h.state("LOOK") == (age == bits + 1))
    h.lemma("age", age <= dut.latency)
    done_bits = Array([0, *range(bits), bits, bits])[age]
    high = elements[:bits] >> (bits - done_bits)[: bits.bit_length()]
    h.lemma("bits to come", inside["left"] == (bits - age)[: len(inside["left"])], when=divides)
    h.lemma("the quotient", inside["quotient"] == ((elements[:bits] << done_bits) | (high // lanes))[:bits], when=age != 0)
    h.lemma("the rest", inside["rest"] == high % lanes, when=age != 0)
    h.lemma("taken over", inside["taken_over"] == Cat(scale, elements), when=age != 0)
    h.lemma("the sum", inside["total"] == sum_ + elements[:bits], when=(age > 1))
    h.lemma("soundness", inside["sound"] == fits, when=age == dut.latency)
    h.lemma("counts", (inside["count"] == count) & (inside["elements"] == sum_) & (inside["ended"] == ended))
    h.lemma("begun", inside["begun"] == begun)
    h.lemma("sum", (sum_ <= capacity) & (count <= entries))
    h.lemma("the beats that fit", (count == 0) | (beats * lanes <= sum_ + count * (lanes - 1)))
    return h


MUTANTS = (
    Mutant("bus/layout.py", "m.d.sync += [entry.eq(self.entry), quotient", "m.d.comb += entry.eq(self.entry)\n                m.d.sync += [quotient", "what the host writes meanwhile is the entry"),
    Mutant("bus/layout.py", "Mux(fits, part - lanes, part)", "part", "nothing is taken off what is divided"),
    Mutant("bus/layout.py", "+ quotient + rest.any())", "+ quotient)", "a beat that is not full does not count"),
    Mutant("bus/layout.py", "Mux(count == 0, 0, beats)", "beats", "the beats of the table before are counted too"),
    Mutant("bus/layout.py", "self.shut.eq(self.asked | self.partial)", "self.shut.eq(self.partial)", "beats come while an entry is looked at"),
    Mutant("bus/layout.py", "& (entry.scale <= config.scale_max)", "& 1", "a scale is too fine"),
    Mutant("bus/layout.py", "& ~entry.elements[bits:].any()", "& 1", "high bits of the elements are cut off"),
    Mutant("bus/layout.py", "& (total <= config.room)", "& (total <= config.room + 1)", "an element more than there is room for"),
    Mutant("bus/layout.py", "& Mux(used, ~ended, count != 0)", "& (~used | ~ended)", "a table begins with an entry that is not in use"),
    Mutant("bus/layout.py", "left.eq(bits - 1)", "left.eq(bits)", "an entry takes a cycle more"),
)  # fmt: skip

PROOFS = [
    Proof(
        f"layout on a bus, {entries} entries, {lanes} lane{'s' if lanes > 1 else ''}",
        "an entry is taken if it keeps every rule, and told of in time; the beats of the table; no beat of a vector meanwhile",
        lambda package, args=(lanes, entries, capacity, scale_max): layout(package, *args),
        depth=2,
        mutants=MUTANTS if lanes == 3 else (),
        small=lambda package: layout(package, 3, 2, 5, 2),
        depth_mutants=18,
    )
    for entries, lanes, capacity, scale_max in ((2, 3, 5, 2), (3, 8, 50, 7), (2, 1, 4, 1))
]
