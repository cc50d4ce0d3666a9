"""The square root: every digit of every root."""

from __future__ import annotations

import functools
import operator
from typing import Any

from amaranth.hdl import Cat, Const, Mux, Value

from support.mutants import Mutant

from .harness import Harness, Identity, Proof, component


def square_root(package: str, width: int, bits: int, *, multiplied: bool = False) -> Harness:
    """``(the radicand so far) == square + remainder, remainder <= 2 * root``, digit by digit.

    The radicand is the integer without its leading pairs of zeros. The square of the root is a ghost that grows by sums, as the
    root does; see :func:`square_grows`. Where the root is short it can be ``multiplied`` instead.
    """
    dut = component(package, "scalar.sqrt").SquareRoot(width, bits)
    h = Harness(dut)
    m, inside = h.m, h.internal
    names = ("digits", "trial", "busy", "looks", "running", "done", "fresh", "place", "passed", "feeds", "spent", "pair", "shift")
    root, trial, busy, looks, running, done, fresh, place, passed, feeds, spent, pair, shift = (inside[name] for name in names)
    begun = ~fresh
    pairs = width // 2
    groups = (pairs + 7) // 8

    # What is asked: an integer, and how many of its pairs are zero before its leading one.
    pending = h.ghost(1, "pending")
    integer = h.ghost(width, "integer")
    radicand = h.ghost(width, "radicand")
    leading = h.ghost(range(pairs + 1), "leading")
    asked = dut.i.payload
    found: Value = Const(pairs)
    for number in reversed(range(pairs)):
        found = Mux(asked[width - 2 * number - 2 : width - 2 * number].any(), number, found)
    zeros = h.ghost(range(pairs + 1), "zeros")
    m.d.comb += zeros.eq(found)
    with m.If(dut.i.valid & dut.i.ready):
        m.d.sync += [pending.eq(1), integer.eq(asked), leading.eq(zeros), radicand.eq(asked << (zeros << 1))]
    with m.If(dut.o.valid & dut.o.ready):
        m.d.sync += pending.eq(0)
    normal = leading != pairs
    start = Mux(leading >> 3 < groups - 1, leading >> 3, groups - 1) << 3  # the first pair that is looked at

    # How far it is.
    waited = h.ghost(range(dut.longest + 8), "waited")
    fed = h.ghost(range(2 * pairs + bits + 16), "fed")  # the next pair
    digits = h.ghost(range(bits + 3), "digits")
    square = h.ghost(2 * bits + 2, "square")
    grown = h.ghost(bits + 1, "root")  # of which square is the square
    digit = ~trial[-1]
    full = root[-1]
    with m.If(~pending):
        m.d.sync += [waited.eq(1), digits.eq(0), square.eq(0), grown.eq(0)]
    with m.Elif(~dut.o.valid):
        m.d.sync += waited.eq(waited + 1)
    with m.If(looks):
        m.d.sync += fed.eq(start)
    with m.Elif(running):
        m.d.sync += fed.eq(fed + 1)
    with m.If(running & begun & ~full):
        m.d.sync += [
            digits.eq(digits + 1),
            grown.eq((grown << 1) + digit),
            square.eq((square << 2) + Mux(digit, (grown << 2) + 1, 0)),
        ]

    # A long word through which the integer goes: above its width are a group's pair, the pair, and what the trial has.
    size = 2 * bits + 2
    word = h.ghost(width + 4 + size, "word")
    with m.If(looks):
        m.d.sync += word.eq(_shifted(integer, start, pairs)[: len(word)])
    with m.Elif(running):
        m.d.sync += word.eq(word << 2)
    came = word[width + 4 :]
    togo = h.ghost(range(pairs + 8), "togo")  # until the trial has the leading one
    with m.If(looks):
        m.d.sync += togo.eq(leading + 3 - start)
    with m.Elif(running & (togo != 0)):
        m.d.sync += togo.eq(togo - 1)

    # The radicand with its binary point at the top, zeros below it.
    places = max(width, 2 * bits)
    whole = Cat(Const(0, places - width), radicand) if places > width else radicand
    target = whole[places - 2 * bits :]  # floor(radicand * 2**(2K - W))
    below = whole[: places - 2 * bits]
    some = functools.reduce(operator.or_, (inside[f"pair_of_{group}"] for group in range(groups)))
    moved = fed - start  # cycles it runs
    rest = Mux(full, target, came >> 2) - square
    active = pending & normal & ~looks
    trying = active & running & begun & ~full
    waits, decides = pairs > bits, width >= 2 * bits - 1

    h.lemma("one root at a time", (busy == pending) & (dut.i.ready == ~pending))
    h.lemma("the integer is kept", inside["integer"] == integer[::-1], when=pending)
    h.lemma("the radicand is the integer", radicand == (integer << (leading << 1))[:width], when=pending)
    h.lemma("nothing is shifted out", radicand >> (leading << 1) == integer, when=pending)
    h.lemma("the leading pair", radicand[-2:].any() == normal, when=pending)
    h.lemma("there is such a number of pairs", leading <= pairs, when=pending)
    if groups > 1:
        empty = [~integer[width - 16 * group - 16 : width - 16 * group].any() for group in range(groups - 1)]
        h.lemma("groups without a one", inside["empty"] == Cat(*empty), when=pending & looks)
    h.lemma("idle", ~(looks | running | done | feeds), when=~pending)
    settling = inside.get("settling", Const(0)) if decides else Const(0)
    if decides:
        h.lemma("idle is settled", ~settling, when=~pending)
        h.lemma("settling is a cycle late", settling == (moved > 0), when=pending & running)
        h.lemma("looking is settled", ~settling, when=pending & (looks | done))
    h.lemma("one at a time", looks + running + done + (settling & ~running) == 1, when=pending)
    h.lemma("nothing yet", ~(root.any() | begun | spent | feeds | some.any()) & (waited == 1), when=pending & looks)
    h.lemma("no digits yet", ~(digits.any() | square.any() | grown.any()), when=pending & (looks | ~normal))
    h.lemma("cycles are counted", (moved + 2 == waited) & (fed >= start), when=pending & running)
    h.lemma("cycles are counted", waited == moved + 2 + (done & decides), when=pending & ~looks & ~running)

    # The way of a pair: a group's, the pair, the trial.
    h.lemma("fed to the last", feeds == (fed < pairs), when=pending & running)
    h.lemma("nothing is fed behind", ~feeds & (fed >= pairs), when=active & ~running)
    h.lemma("nothing is fed for a zero", ~feeds, when=pending & ~normal & ~running)
    h.lemma("nothing comes of a zero", ~word.any(), when=pending & ~normal & ~looks)
    h.lemma("the next pair", place == fed[: len(place)], when=pending & running)
    end = width + 6
    h.lemma("what is to come", word[:end] == _shifted(integer, fed, 2 * pairs + bits)[:end], when=pending & ~looks)
    h.lemma("a pair of a group", some == word[width : width + 2], when=pending & running)
    h.lemma("a pair", pair == word[width + 2 : width + 4], when=pending & running)
    h.lemma("the pair's number", passed == (fed - 1)[: len(passed)], when=active & running & (moved > 0))
    h.lemma("so long until the leading one", togo == Mux(fed < leading + 3, leading + 3 - fed, 0), when=active & running)
    h.lemma("not much longer", togo < 12, when=active & running)
    h.lemma(
        "the radicand is to come",
        (word << (togo[:4] << 1)) == (radicand << 6),
        when=active & running & ~begun,
    )
    h.lemma(
        "the radicand comes",
        word == _shifted(radicand, digits + 3, bits + 3)[: len(word)],
        when=trying,
    )
    h.lemma("the last one is in", spent == (fed > pairs), when=pending & running)
    if waits:
        h.lemma("so it was", inside["ended"] == (fed > pairs + 1), when=pending & running)
        h.lemma("not yet", ~inside["ended"], when=pending & running & (moved == 0))
    h.lemma("begun with the leading one", begun == (normal & (fed > leading + 2)), when=pending & running)
    h.lemma("pairs of zeros so far", shift + 2 == fed, when=active & running & ~begun & (moved > 1))
    h.lemma("pairs of zeros", shift == leading, when=active & begun)
    h.lemma("begun", begun, when=active & ~running)
    h.lemma("no trial before it", ~trial.any() & ~root.any() & (digits == 0), when=pending & running & ~begun)
    h.lemma("a digit for each pair", fed == leading + 3 + digits, when=trying)
    h.lemma("at least", fed >= leading + 3 + digits, when=active & running & begun)

    h.lemma("digits are counted", digits <= bits, when=active)
    h.lemma("all digits", digits == bits, when=active & ~running)
    h.lemma("all digits", full == (digits == bits), when=active)
    h.lemma("no digits of a zero", (digits == 0) & ~root.any(), when=pending & ~normal)
    h.lemma("trial == what came - (4 * root + 1)", came - (square << 2) == trial.as_signed() + (root << 2) + 1, when=trying)
    h.lemma("what is left", (rest >= 0) & (rest <= (root << 1)), when=active)
    h.lemma("the root is its digits", root == grown, when=active)
    h.lemma("the first digit is one", (root >> (digits - 1)[: len(digits)]) == 1, when=active & (digits != 0))
    h.lemma("nothing before the first digit", ~(root.any() | square.any()), when=active & (digits == 0))
    if not waits:
        h.lemma("it ends with the last digit", digits != bits, when=active & running)

    if decides:
        # Bits that came in behind the last digit, up to those of the trial.
        dropped = below[: max(0, width - 2 * bits)]
        far = Mux(fed - 3 - leading < pairs, fed - 3 - leading, pairs)
        behind = (dropped >> ((pairs - far).as_unsigned()[: len(leading)] << 1)).any() if waits else Const(0)
        clean = (rest == 0) & ~behind
        was_clean = h.past(clean, "clean")
        counted = active & (digits != 0)
        counts = inside["counts"] if waits else settling
        none_yet = (counts & ~inside["nibbles"].any()) | (inside["exact"] & ~inside["before"].any())  # exact in the next cycle
        silent = pending & ~normal & ~looks & ~running
        still = ~(some.any() | pair.any() | inside["entered"].any())
        h.lemma("a trial of zero", inside["nibbles"].any() == h.past(trial, "trial", reset_less=True).any())
        h.lemma("nothing is left", inside["exact"] == was_clean, when=counted)
        h.lemma("nothing will be left", clean == none_yet, when=active & begun & (running | settling))
        h.lemma("the trial's pair", inside["entered"] == came[:2], when=active & begun & (running | settling))
        h.lemma("nothing behind the last", still & ~inside["before"].any() & (clean == was_clean), when=active & done)
        h.lemma("nothing comes of a zero", still, when=silent)
        h.lemma("nothing came of a zero", none_yet, when=silent)
        h.lemma("a zero is exact", inside["exact"] & ~inside["before"].any(), when=silent & done)
        h.lemma("no trial counts behind the last", ~counts, when=pending & done)
        h.lemma("all came", fed >= pairs + 3, when=active & ~running)
        h.lemma("nothing on its way", ~(some.any() | pair.any()), when=active & ~running)

    cycles: Value = Const(dut.cycles(0))
    for number in range(pairs):
        cycles = Mux(leading == number, dut.cycles(1 << 2 * (pairs - number) - 2), cycles)
    offered, out = dut.o.valid, dut.o.payload
    last = active & offered
    exact = out.root * out.root if multiplied else square
    inexact = (target != exact) | below.any()
    h.claim("nothing is offered that was not asked for", pending, when=offered)
    h.claim("root**2 <= radicand", exact <= target, when=last)
    h.claim("radicand < (root + 1)**2", target < exact + (out.root << 1) + 1, when=last)
    if decides:
        h.claim("sticky: the root is not exact", out.sticky == inexact, when=last)
    else:
        h.claim("a root whose lowest bit is one is not exact", inexact, when=last & out.root[0])
        h.claim("sticky is one", out.sticky, when=offered)
    h.claim("the root fills its word", out.root[-1], when=last)
    h.claim("the shift is the pairs of zeros", out.shift == leading, when=last)
    h.claim("the root of zero is zero", (out.root == 0) & ~(out.sticky & decides), when=pending & offered & ~normal)
    h.lemma("not too long", waited + decides < cycles, when=pending & running)
    h.lemma("settled in time", waited + 1 == cycles, when=pending & settling & ~running)
    h.claim("answered in time", waited == cycles, when=pending & offered)
    h.claim("answered at all", waited < cycles, when=pending & ~offered)
    h.keeps(dut.o, "root")
    return h


def _shifted(value: Value, places: Value, most: int) -> Value:
    """The value moved up by so many pairs, most at most."""
    return value << (Value.cast(places).as_unsigned()[: most.bit_length()] << 1)


def square_grows(bits: int) -> Any:
    """What the ghost `square` rests on."""
    import z3

    q, d = (z3.BitVec(name, 2 * bits + 3) for name in "qd")
    fits = z3.And(z3.ULT(q, 1 << bits), z3.ULE(d, 1))
    return z3.Implies(fits, (2 * q + d) * (2 * q + d) == 4 * (q * q) + z3.If(d == 1, 4 * q + 1, 0))


# By the size on which they are tried, each with another way to end: at the last digit, the sticky bit found out; without one; and
# with pairs behind the last digit, in two groups.
MUTANTS = {
    (48, 24): (
        Mutant("scalar/sqrt.py", "operand if negative else 1 - operand", "1 - operand", "what a zero took off stays off"),
        Mutant("scalar/sqrt.py", "Cat(Const(0b11, 2), fresh,", "Cat(Const(0b11, 2), 1,", "every trial is like the first one"),
        Mutant("scalar/sqrt.py", "sticky = ~exact", "sticky = Const(0)", "a root is exact too often"),
        Mutant("scalar/sqrt.py", "(exact & ~before.any())", "exact", "what comes after an exact root is forgotten"),
    ),
    (42, 25): (
        Mutant("scalar/sqrt.py", "sticky: Any = Const(1, 1)", "sticky: Any = Const(0, 1)", "a root is exact"),
        Mutant("scalar/sqrt.py", "shift.eq(passed)", "shift.eq(place)", "a pair of zeros too many"),
        Mutant("scalar/sqrt.py", "ends: Value = root[-2]", "ends: Value = root[-1]", "a cycle too late"),
        Mutant("scalar/sqrt.py", "                fresh.eq(1),\n", "", "the leading one is that of the root before"),
    ),
    (64, 24): (
        Mutant("scalar/sqrt.py", "place.eq(first << BITS)", "place.eq(0)", "groups without a one are looked through"),
        Mutant("scalar/sqrt.py", "ended.eq(spent)", "ended.eq(1)", "the rest of a wide integer is forgotten"),
        Mutant("scalar/sqrt.py", "counts.eq(running & ~root[-1])", "counts.eq(running)", "a trial behind the last digit counts"),
        Mutant("scalar/sqrt.py", "place[BITS:] != group", "place[BITS:] == group", "the pair is another group's"),
    ),
}
SIZES = [(48, 24), (42, 25), (64, 32), (64, 24)]
SMALL = [(10, 5), (10, 6), (10, 5), (18, 4)]
DEPTHS = [18, 24, 18, 18]


def what(width: int, bits: int) -> str:
    return f"square root, {width} -> {bits} bits"


PROOFS = [
    *(
        Identity(what(width, bits), "(2q + d)**2 == 4q**2 + d(4q + 1)", lambda bits=bits: square_grows(bits))
        for width, bits in SIZES[:3]
    ),
    *(
        Proof(
            what(width, bits),
            "root == floor(sqrt(integer * 4**shift * 2**(2K - W))), shift, sticky if it decides; stream; cycles of each integer",
            lambda package, size=(width, bits): square_root(package, *size),
            depth=1,
            solver="bitwuzla",
            mutants=MUTANTS.get((width, bits), ()),
            small=lambda package, small=small: square_root(package, *small, multiplied=True),
            depth_mutants=cycles,
        )
        for (width, bits), small, cycles in zip(SIZES, SMALL, DEPTHS, strict=True)
    ),
    Proof(
        what(48, 24),
        "after a reset from any state as after power-up",
        lambda package: square_root(package, 48, 24),
        "reset",
        mutants=(
            Mutant("scalar/sqrt.py", "busy = Signal()", "busy = Signal(reset_less=True)", "a root goes on through a reset"),
        ),
    ),
]
