# ruff: noqa: E501  a fault a row reads best
"""What the scalar part counts and tells: still steps, learning dead, overflow and underflow; its unit makes anything, in any time."""

from __future__ import annotations

from typing import Any

from amaranth.asserts import AnySeq
from amaranth.hdl import Cat, Const, Module, Mux, ResetSignal, Value
from amaranth.lib import wiring

from kappa_rtl.golden.config import ThrottleConfig
from support.mutants import Mutant

from .contract import at
from .harness import Harness, Proof, component

BITS = 32
"""Of a counter."""


class AnyUnit(wiring.Component):
    """In the place of the scalar unit: is done whenever it likes, with any result."""

    def __init__(self, unit: Any) -> None:
        super().__init__(dict(unit.signature.members))
        # What the unit says of itself.
        self.literal, self.operand, self.step_exponent = unit.literal, unit.operand, unit.step_exponent
        self.radicand_bits, self.root = unit.radicand_bits, unit.root

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for output in (self.done, self.radicand.ready, self.y, self.step, self.overflow, self.underflow, self.step_overflow):
            value = Value.cast(output)
            m.d.comb += value.eq(AnySeq(value.shape()))
        m.d.sync += self.began.eq(self.go)
        return m


def decide(package: str, config: ThrottleConfig, brisk: bool = False) -> Harness:
    """The registers beside what they should hold. Still steps are counted bit by bit, so the lemmas say how much of a count is new."""
    dut = component(package, "scalar.decide").Decide(config)
    dut.unit = unit = AnyUnit(dut.unit)
    h = Harness(dut)
    m, inside, status = h.m, h.internal, dut.status
    taken = dut.i.valid & dut.i.ready
    takes_a = taken & inside["does_gradient"]
    turned, cleared = inside["turned"], inside["cleared"]
    counting = turned.any() | inside["turns"] | inside["ended"]
    h.assume(~(takes_a & counting))  # a step takes longer than its count
    h.assume(~(dut.clear & (counting | takes_a)))  # a clear comes between two steps

    if brisk:  # for traces of faults: nothing waits but for the count
        h.assume(unit.done & dut.o.ready & (dut.i.valid == ~counting) & ~ResetSignal())

    steps, run = h.ghost(BITS, "steps"), h.ghost(BITS, "run")
    was_steps, was_run, was_still = (
        h.ghost(bits, name) for bits, name in ((BITS, "was_steps"), (BITS, "was_run"), (1, "was_still"))
    )
    dead = h.ghost(1, "dead")
    with m.If(takes_a):
        m.d.sync += [steps.eq(steps + status.still), run.eq(Mux(status.still, run + 1, 0))]
        m.d.sync += [was_steps.eq(steps), was_run.eq(Mux(status.still, run, 0)), was_still.eq(status.still)]
    with m.If(inside["ended"] & (run == config.dead_after)):
        m.d.sync += dead.eq(1)
    with m.If(dut.clear):
        m.d.sync += [steps.eq(0), run.eq(0), dead.eq(0)]

    h.assume(~turned[0] | (status.still == was_still))  # it changes when B comes

    settled = ~counting & ~cleared
    h.claim("still steps are counted", status.still_steps == steps, when=settled)
    h.claim("learning is dead after so many still steps in a row", status.learning_dead == dead, when=settled)
    h.claim("a count takes a cycle for each bit, and two", ~turned.any(), when=h.past(turned[-1], "counted"))

    # A count on its way: so many bits are new, at the top; the others are old, at the bottom.
    def partly(old: Value, new: Value) -> list[Value]:
        return [Cat(old[n:], new[:n]) for n in range(BITS + 1)]

    place = h.ghost(range(BITS + 1), "place")  # bits that are counted
    with m.If(takes_a):
        m.d.sync += place.eq(0)
    with m.Elif(inside["turns"]):
        m.d.sync += place.eq(place + 1)
    waits, turns, ended = turned[0], inside["turns"], inside["ended"]
    left, was_left, now_left = inside["left"], (config.dead_after - was_run)[:BITS], (config.dead_after - run)[:BITS]
    before = (
        [Const(1, 1), *(was_steps[:n].all() for n in range(1, BITS + 1))],
        [Const(0, 1), *(was_left[:n].any() for n in range(1, BITS + 1))],
    )
    none = [Const(1, 1), *(~now_left[:n].any() for n in range(1, BITS + 1))]
    one = [Const(2 << n, BITS + 1) for n in range(BITS)]
    h.lemma("one bit at a time", turned == Mux(waits, 1, Mux(turns, at(one, place), 0)))
    h.lemma("in turn", ~(waits & turns) & ~(ended & (waits | turns)) & ~(counting & cleared))
    h.lemma("the first bit", place == 0, when=waits)
    h.lemma("to the last bit", place < BITS, when=turns)
    h.lemma("at the end", place == BITS, when=ended)
    of_one_step = (steps == (was_steps + was_still)[:BITS]) & (run == Mux(was_still, was_run + 1, 0)[:BITS])
    h.lemma("of one step", of_one_step & (was_still | (was_run == 0)), when=counting)
    h.lemma("still steps, partly", status.still_steps == at(partly(was_steps, steps), place), when=counting)
    h.lemma("left, partly", left == at(partly(was_left, now_left), place), when=(turns | ended))
    h.lemma("left, before", left == Mux(waits, was_left, now_left), when=~turns & ~inside["reload"])
    h.lemma("reloaded", run == 0, when=inside["reload"])
    h.lemma("carry", inside["carry"] == (was_still & at(before[0], place)), when=turns)
    h.lemma("borrow", inside["borrow"] == (was_still & ~at(before[1], place)), when=turns)
    h.lemma("none left", inside["none"] == at(none, place), when=turns | ended)
    h.lemma("dead so far", status.learning_dead == dead, when=counting)
    return h


CONFIG = ThrottleConfig(elements=2, lanes=1, eta=0.5, eps="1/64", mantissa_bits=5, exponent_bits=6, dead_after=1)
PROOFS = [
    Proof(
        "still steps",
        "their number, counted bit by bit, and learning_dead after so many in a row; in 34 cycles; clear; whatever the scalar unit makes",
        lambda package: decide(package, CONFIG),
        mutants=(
            Mutant("scalar/decide.py", "carry.eq(carry & status.still_steps[0])", "carry.eq(carry)", "a still step inverts the bits of its counter"),
            Mutant("scalar/decide.py", "init=config.dead_after,", "init=config.dead_after + 1,", "learning_dead rises a step late"),
            Mutant("scalar/decide.py", "none.eq(none & ~next_left)", "none.eq(~next_left)", "learning is dead by the highest bit alone"),
        ),
        small=lambda package: decide(package, CONFIG, brisk=True),
        depth_mutants=110,
        solver="bitwuzla",
    ),
]  # fmt: skip
