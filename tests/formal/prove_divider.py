"""The divider: every digit of every quotient."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Mux

from support.mutants import Mutant

from .harness import Harness, Identity, Proof, component


def divider(package: str, bits: int) -> Harness:
    """``dividend * 2**digits == 2 * quotient * divisor + remainder``, digit by digit, and what follows of it.

    The product of quotient and divisor is a ghost of its own that grows by sums, as the quotient does: that it is their
    product is the identity ``(2 * q + d) * b == 2 * (q * b) + d * b``, and no multiplication has to be solved.
    """
    dut = component(package, "scalar.divider").Divider(bits)
    h = Harness(dut)
    m, inside = h.m, h.internal
    quotient, trial, busy, running, count = (inside[name] for name in ("quotient", "trial", "busy", "running", "count"))
    taken = dut.o.valid & dut.o.ready
    h.assume(~dut.i.valid | dut.i.payload.divisor[-1])

    pending = h.ghost(1, "pending")  # offered and not yet answered
    dividend = h.ghost(bits, "dividend")
    divisor = h.ghost(bits, "divisor")
    digits = h.ghost(range(bits + 4), "digits")
    product = h.ghost(2 * bits + 2, "product")  # quotient * divisor
    grown = h.ghost(bits + 2, "quotient")  # of which product is a multiple
    waited = h.ghost(range(bits + 8), "waited")
    with m.If(dut.i.valid & ~pending):
        m.d.sync += [pending.eq(1), dividend.eq(dut.i.payload.dividend), divisor.eq(dut.i.payload.divisor)]
        m.d.sync += [digits.eq(0), product.eq(0), grown.eq(0), waited.eq(1)]
    with m.If(pending & ~dut.o.valid):
        m.d.sync += waited.eq(waited + 1)
    with m.If(taken):
        m.d.sync += pending.eq(0)
    # The divisor stays; whether the others do is all the same.
    h.assume(~pending | (dut.i.payload.divisor == divisor))
    digit = trial[-1]
    trying = running & ~count[:2].any()
    with m.If(trying):
        m.d.sync += [
            digits.eq(digits + 1),
            grown.eq((grown << 1) + digit),
            product.eq((product << 1) + Mux(digit, divisor, 0)),
        ]

    normal = dividend[-1]
    below = dividend < divisor
    first = below + 1  # digits up to the first one, the leading one
    active = pending & normal
    tried = active & trying
    twice = divisor << 1
    left = (trial ^ (1 << bits + 1)).as_signed()  # the trial as it is meant
    begun = active & ~(running & count[:2].any())
    h.lemma("one division at a time", busy == pending)
    h.lemma("it runs while busy", busy, when=running)
    h.lemma("it runs or is done", running ^ inside["done"], when=pending)
    h.lemma("idle is not done", ~inside["done"], when=~pending)
    h.lemma("a zero does not run", ~running & ~quotient.any() & ~inside["below"] & (waited == 1), when=pending & ~normal)
    h.lemma("normalised", divisor[-1], when=pending)
    h.lemma("one count or none", (count == 1) | (count == 2) | (count == 4) | (count == 0), when=active)
    h.lemma("no digits yet", (digits == 0) & ~(grown.any() | quotient.any() | product.any()), when=active & ~begun)
    h.lemma("nothing but the dividend", ~trial.any() & (inside["operand"] == Cat(dividend, Const(2, 2))), when=active & count[0])
    h.lemma("the dividend comes first", left == dividend, when=active & count[1])
    h.lemma("then the divisor", inside["operand"] == Cat(0, divisor, 1), when=active & running & ~count[0])
    h.lemma("the first trial is the first", count[2] == (digits == 0), when=tried)
    h.lemma("count is over", count == 0, when=active & ~running)
    rest = (dividend << digits) - (product << 1)  # twice what is left, before the trial
    h.lemma("trial == what is left - divisor, twice", (left + twice) == rest << 1, when=tried)
    h.lemma("trial < 2 * divisor", (left < twice) & (left >= -twice), when=tried)
    h.lemma("what is left", (rest >= 0) & (rest < twice), when=begun)
    # What is left is a multiple of 2**digits, up to twice the divisor's lowest one: so it is the divisor only in the last digits.
    h.lemma("what is left is even", ~(rest & (divisor ^ (divisor - 1))[:bits] & ((Const(1) << digits) - 1)).any(), when=begun)
    h.lemma("digits are counted", digits <= bits + first, when=active)
    h.lemma("all digits", digits == bits + first, when=active & ~running)
    h.lemma("not all digits", digits < bits + first, when=active & running)
    h.lemma("nothing is left below the first digit", ~(product.any() | quotient.any()), when=active & (digits < first))
    h.lemma("the leading digit is one", (quotient >> (digits - first)[: len(digits)]) == 1, when=active & (digits >= first))
    h.lemma("below is known", inside["below"] == (below & (digits != 0)), when=active)
    h.lemma("the quotient is its digits", quotient == grown, when=active)
    h.lemma("cycles are counted", waited == digits + 1 + ~count[0] + ~count[:2].any(), when=active)

    # What is promised.
    offered = dut.o.valid
    out = dut.o.payload
    last = active & offered
    scale = bits + below
    whole = product if bits > 8 else out.quotient * divisor
    rest = (dividend << scale) - whole
    h.claim("nothing is offered that was not asked for", pending, when=offered)
    h.claim("the operands are taken as the quotient is", dut.i.ready == taken)
    h.claim("quotient * divisor <= dividend << scale", (dividend << scale) >= whole, when=last)
    h.claim("dividend << scale < (quotient + 1) * divisor", rest.as_unsigned()[: 2 * bits + 2] < divisor, when=last)
    h.claim("a lowest bit of one is not exact", rest != 0, when=last & out.quotient[0])
    h.claim("below is dividend < divisor", out.below == below, when=last)
    h.claim("the quotient fills its word", out.quotient[-1], when=last)
    h.claim("a dividend that is not normalised is zero", (out.quotient == 0) & ~out.below, when=pending & offered & ~normal)
    cycles = Mux(normal, dut.latency + below, 1)
    h.claim("answered in time", waited == cycles, when=pending & offered)
    h.claim("answered at all", waited < cycles, when=pending & ~offered)
    h.keeps(dut.o, "quotient")
    return h


MUTANTS = (
    Mutant(
        "scalar/divider.py", "below.eq(below | (count[2] & ~positive))", "below.eq(0)", "a quotient below one keeps its exponent"
    ),
    Mutant(
        "scalar/divider.py", "Cat(positive & ~count[1], quotient)", "Cat(positive, quotient)", "the dividend's sign is a digit"
    ),
    Mutant("scalar/divider.py", "with m.If(~busy | done):", "with m.If(done):", "the trial is not empty when a dividend comes"),
    Mutant("scalar/divider.py", "1 - operand if positive else operand", "1 - operand", "what a zero took off stays off"),
    Mutant("scalar/divider.py", "Cat(positive, trial[:-1])", "Cat(0, trial[:-1])", "a subtraction lacks its carry"),
    Mutant("scalar/divider.py", "done & self.o.ready", "done", "the operands are let go before the quotient is taken"),
    Mutant("scalar/divider.py", "Cat(0, divisor, 1)", "Cat(0, divisor[1:], 0, 1)", "the divisor is halved"),
)


def product_grows(bits: int) -> Any:
    """What the ghost `product` rests on."""
    import z3

    q, b, d = (z3.BitVec(name, 2 * bits + 3) for name in "qbd")
    fits = z3.And(z3.ULT(q, 1 << bits + 1), z3.ULT(b, 1 << bits), z3.ULE(d, 1))
    return z3.Implies(fits, (2 * q + d) * b == 2 * (q * b) + z3.If(d == 1, b, 0))


PROOFS = [
    *(
        Identity(f"divider, {bits} bits", "(2q + d) * b == 2(q * b) + d * b", lambda bits=bits: product_grows(bits))
        for bits in (24, 32)
    ),
    *(
        Proof(
            f"divider, {bits} bits",
            "quotient == floor(dividend * 2**(M + below) / divisor), never exact if odd, below; streams; M + 4 + below cycles",
            lambda package, bits=bits: divider(package, bits),
            depth=1,
            solver="bitwuzla",
            mutants=MUTANTS if bits == 24 else (),
            small=lambda package: divider(package, 4),
            depth_mutants=22,
        )
        for bits in (24, 32)
    ),
    Proof(
        "divider, 24 bits",
        "after a reset from any state as after power-up",
        lambda package: divider(package, 24),
        "reset",
        mutants=(
            Mutant(
                "scalar/divider.py", "busy = Signal()", "busy = Signal(reset_less=True)", "a division goes on through a reset"
            ),
        ),
    ),
]
