# ruff: noqa: E501  a fault a row reads best
"""The watchdog: its exact comparison, and what it notes when."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Mux, ResetSignal, Signal

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.registers import BLOCK_BITS, COUNTER_BITS, GROWTH_FRACTION, WATCHES
from kappa_rtl.hw.units.watchdog import FACTOR_BITS
from support.mutants import Mutant

from .harness import Harness, Identity, Proof, component


def growth(
    package: str, factor: int, *, block: int = BLOCK_BITS, bits: int = FACTOR_BITS, fraction: int = GROWTH_FRACTION
) -> Harness:
    """``latest * 2**8 > factor * before`` for whichever pair of integers comes one after the other.

    In the n-th cycle of a multiplication the product's lowest n bits are compared, and the register holds the others: of the
    factor's lowest n bits, as many as have been looked at.
    """
    module = component(package, "units.watchdog")
    sizes = {"BLOCK_BITS": block, "FACTOR_BITS": bits, "GROWTH_FRACTION": fraction}
    whole = {name: getattr(module, name) for name in sizes}
    try:
        for name, size in sizes.items():
            setattr(module, name, size)
        dut = module.Growth(factor)
        h = Harness(dut)
    finally:
        for name, size in whole.items():
            setattr(module, name, size)
    latency = dut.latency + bits - FACTOR_BITS
    m, inside = h.m, h.internal
    before, latest = (h.whichever(block, name) for name in ("before", "latest"))
    accepted, payload = dut.i.valid & dut.i.ready, dut.i.payload
    some = h.ghost(1, "some")  # the list is not empty
    is_before = h.ghost(1, "is_before")  # the one taken last
    mine = h.ghost(1, "mine")  # the two taken last
    follows, seen, time = h.ghost(1, "follows"), h.ghost(1, "seen"), h.ghost(range(latency + 4), "time")
    idle = h.state("IDLE")
    with m.If(dut.i.ready & dut.restart):
        m.d.sync += [some.eq(0), mine.eq(0), seen.eq(0)]
    with m.If(accepted):
        m.d.sync += [some.eq(1), is_before.eq(payload == before), follows.eq(some & ~dut.restart), time.eq(1)]
        m.d.sync += [mine.eq(some & ~dut.restart & is_before & (payload == latest)), seen.eq(dut.o & ~dut.restart)]
    with m.Elif(~idle):
        m.d.sync += time.eq(time + 1)

    # The product by long multiplication: its digits so far and the rest of the sum; see `product_grows`. Each comes in at the top.
    place, turned, low = inside["place"], inside["factor"], bits - fraction
    high, digits, others = h.ghost(block, "high"), h.ghost(bits, "digits"), h.ghost(bits, "others")
    total, running = Signal(block + 1), h.state("MULTIPLY")
    m.d.comb += total.eq(high + Mux(turned[0], before, 0))
    with m.If(accepted):
        m.d.sync += [high.eq(0), digits.eq(0), others.eq(0)]
    scaled = Cat(Const(0, fraction), latest)
    with m.If(running):
        m.d.sync += [
            high.eq(total[1:]),
            digits.eq(Cat(digits[1:], total[0])),
            others.eq(Cat(others[1:], scaled.bit_select(place, 1))),
        ]
    product = Cat(digits, high)
    grown = (latest << fraction) > product
    h.lemma("states there are", reduce(or_, map(h.state, ("IDLE", "FIRST", "MULTIPLY", "COMPARE", "NOTE"))))
    h.lemma("a list that is not empty", inside["follows"] == some)
    h.lemma("something was taken", some, when=~idle)
    h.lemma("the first of a list", ~follows & ~dut.o, when=h.state("FIRST"))
    h.lemma("not the first", follows, when=h.state("MULTIPLY") | h.state("COMPARE") | h.state("NOTE"))
    h.lemma("the one before", inside["before"] == before, when=idle & some & is_before)
    h.lemma("none while it is the first", ~mine, when=~follows)
    h.lemma("one before it", some, when=mine)
    h.lemma("the factor is whole", (place == 0) & (turned == factor), when=~running)
    h.lemma("the first one", inside["latest"] == before, when=h.state("FIRST") & is_before)
    h.lemma("FIRST: time", time == 1, when=h.state("FIRST"))
    h.lemma("places there are", place < bits)
    whole = Const(factor, bits)
    h.lemma("the factor turns", turned == (Cat(whole, whole) >> place)[:bits])
    done = Mux(place > fraction, place - fraction, 0)[: len(place)]
    for word, flag, name in ((before, is_before, "before"), (latest, mine, "latest")):
        h.lemma(f"{name} turns", inside["latest"] == (Cat(word, word) >> done)[:block], when=running & flag)
    left = (bits - place)[: len(place)]
    empty = ((1 << left) - 1)[:bits]
    h.lemma("digits so far", ((digits | others) & empty) == 0, when=running)
    h.lemma("the others so far", others == (scaled[:bits] << left)[:bits], when=running & mine)
    h.lemma("operand", inside["before"] == before, when=running & mine)
    h.lemma("product", inside["product"] == high, when=running & mine)
    h.lemma("comparison", inside["above"] == (others > digits), when=running & mine)
    h.lemma("nothing yet", ~inside["above"] & ~(digits | others | high).any(), when=running & (place == 0))
    h.lemma("MULTIPLY: time and what was seen", (time == 1 + place) & (dut.o == seen), when=running)
    here = h.state("COMPARE")
    for word, flag, name in ((before, is_before, "before"), (latest, mine, "latest")):
        h.lemma(f"{name} in the end", inside["latest"] == word.rotate_right(low), when=here & flag)
    h.lemma("product in the end", inside["product"] == high, when=here & mine)
    h.lemma("comparison in the end", (others == scaled[:bits]) & (inside["above"] == (others > digits)), when=here & mine)
    h.lemma("what was seen in the end", (dut.o == seen) & (time == bits + 1), when=here)
    for word, flag, name in ((before, is_before, "before"), (latest, mine, "latest")):
        h.lemma(f"{name} for the next one", inside["before"] == word, when=h.state("NOTE") & flag)
    h.lemma("what was seen before it is noted", (dut.o == seen) & (time == bits + 2), when=h.state("NOTE"))
    noted = inside["high_above"] | (inside["same"] & inside["low_above"])
    h.lemma("what is noted", noted == grown, when=h.state("NOTE") & mine)
    h.claim("in time", time <= latency - ~idle)
    h.claim("whether it has grown, or one before it had", dut.o == (seen | grown), when=idle & mine)
    h.claim("a new list has not grown", ~dut.o, when=idle & ~some)
    h.claim("nor has its first one", ~dut.o, when=idle & some & ~follows)
    return h


def product_grows() -> Any:
    """What the product of `growth` rests on: before n are the digits low < 2**n and the sum h, of n bits of the factor f."""
    import z3

    scale, h, low, f, b, r, t = z3.Ints("scale h low f b r t")
    digit, so_far = t % 2, scale * h + low == f * b
    grows = scale * 2 * ((t - digit) / 2) + (low + scale * digit) == (f + scale * r) * b
    return z3.Implies(z3.And(so_far, t == h + r * b), grows)


def watchdog(package: str, config: ThrottleConfig) -> Harness:
    """Bits and steps against a list of what was found, condition by condition; `growth` says what that one finds."""
    module = component(package, "units.watchdog")
    dut = module.Watchdog(config)
    h = Harness(dut)
    m, inside = h.m, h.internal
    step = h.ghost(COUNTER_BITS, "step")
    found = {name: getattr(dut, name) for name in ("learning_dead", "scalar_overflow") if name in config.watchdog}
    if "gradient_floor" in config.watchdog:
        found["gradient_floor"] = dut.energy < config.floor_energy
        before, began = h.past(dut.energy, "energy", reset_less=True), h.past(Const(1), "began", reset_less=True)
        h.assume(~dut.look | (began & (dut.energy == before)))  # steady from the cycle before on
        h.lemma("compared a cycle ago", inside["below"] == (before < config.floor_energy), when=began)
    waited = h.ghost(range(dut.latency + 8), "waited")
    asked = h.past(dut.look & ~dut.looked, "asked")
    h.assume(dut.look | ~asked | ResetSignal())
    with m.If(dut.look & ~dut.looked):
        m.d.sync += waited.eq(waited + 1)
    with m.Else():
        m.d.sync += waited.eq(0)
    if dut.growth is not None:
        found["norm_growth"] = inside["growth.o"]
        state, place = inside["growth.fsm_state"], inside["growth.place"]
        names = {state.decoder(code).partition("/")[0]: code for code in range(5)}
        h.lemma("waiting for a product", waited <= place, when=state == names["MULTIPLY"])
        h.lemma("waiting for its comparison", waited <= module.FACTOR_BITS, when=state == names["COMPARE"])
        h.lemma("waiting for a note", waited <= module.FACTOR_BITS + 1, when=state == names["NOTE"])
        h.lemma("states there are", state < 5)
        h.lemma("waiting for a first", waited == 0, when=state == names["FIRST"])
        h.lemma("places there are", place < module.FACTOR_BITS)
        h.lemma("place", place == 0, when=state != names["MULTIPLY"])
        h.lemma("waiting no longer", waited <= module.FACTOR_BITS + 2)
        h.claim("no block while the step ends", ~dut.blocks.ready, when=dut.look)
        h.claim("asked and heard", inside["restart"] == dut.looked)
    h.claim("looked when asked", dut.look, when=dut.looked)
    h.claim("in time", dut.looked, when=dut.look & (waited >= dut.latency))
    with m.If(dut.looked):
        m.d.sync += step.eq(step + 1)
    for name in config.watchdog:
        bit = WATCHES.index(name)
        fired, noted = h.ghost(1, f"fired_{name}"), h.ghost(COUNTER_BITS, f"noted_{name}")
        first = Signal(name=f"first_{name}")
        m.d.comb += first.eq(dut.looked & found[name] & dut.mask[bit] & ~fired)
        m.d.sync += [
            fired.eq((fired | first) & ~dut.clear),
            noted.eq(Mux(dut.clear, 0, Mux(first, step, noted))),
        ]
        h.claim(f"{name}: its bit", dut.status.watchdog[bit] == fired)
        h.claim(f"{name}: its step", dut.status[f"watchdog_step_{name}"] == noted)
    h.lemma("steps are counted", inside["step"] == step)
    others = sum(1 << bit for bit, name in enumerate(WATCHES) if name not in config.watchdog)
    h.claim("no bit of what is not built", ~(dut.status.watchdog & others).any())
    return h


CONFIG = ThrottleConfig.stability_margin(elements=640, eta=0.1, watchdog=WATCHES, gradient_floor=0.1)
GROWTH_MUTANTS = (
    Mutant("units/watchdog.py", "bit = latest[0] & whole", "bit = latest[0]", "the latest is compared eight bits too low"),
    Mutant("units/watchdog.py", "latest.rotate_left(low)", "latest", "what was compared comes back turned"),
    Mutant(
        "units/watchdog.py",
        "Cat(above, rest[:half]) > Cat(Const(0, 1), product[:half])",
        "rest[:half] > product[:half]",
        "the low bits are left out",
    ),
    Mutant(
        "units/watchdog.py",
        "high_above | (same & low_above)",
        "high_above | low_above",
        "the low half decides although the high one is less",
    ),
)
WATCHDOG_MUTANTS = (
    Mutant("units/watchdog.py", "self.mask[bit] & ~fired", "self.mask[bit]", "a later step overwrites the first one"),
    Mutant(
        "units/watchdog.py", "self.looked & found[name]", "self.look & found[name]", "it looks at a list that is still compared"
    ),
    Mutant(
        "units/watchdog.py", "self.energy < config.floor_energy", "self.energy <= config.floor_energy", "the floor itself fires"
    ),
)
PROOFS: list[Proof | Identity] = [
    Identity("growth of norms", "the long multiplication grows by the factor's digits", product_grows),
    Proof(
        "growth of norms, 48 bits",
        "latest * 2**8 > factor * before, exact, for whichever two; since the list began; in 27 cycles",
        lambda package: growth(package, CONFIG.growth_squared),
        depth=1,
        solver="bitwuzla",
        mutants=GROWTH_MUTANTS,
        small=lambda package: growth(package, 11, block=10, bits=5, fraction=2),
        depth_mutants=24,
    ),
    Proof(
        "watchdog, all conditions",
        "a bit and a step number for the first time that a condition is found; looked in time",
        lambda package: watchdog(package, CONFIG),
        mutants=WATCHDOG_MUTANTS,
        depth_mutants=6,
    ),
    Proof(
        "growth of norms",
        "after a reset from any state as after power-up",
        lambda package: growth(package, CONFIG.growth_squared),
        "reset",
    ),
    Proof("watchdog", "after a reset from any state as after power-up", lambda package: watchdog(package, CONFIG), "reset"),
]
