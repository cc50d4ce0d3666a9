"""The divider: every digit of every quotient."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Mux

from mutants import Mutant

from .harness import Harness, Identity, Proof, component


def divider(package: str, bits: int) -> Harness:
    """``dividend * 2**digits == 2 * quotient * divisor + remainder``, digit by digit, and what follows of it.

    The product of quotient and divisor is a ghost of its own that grows by sums, as the quotient does: that it is their
    product is the identity ``(2 * q + d) * b == 2 * (q * b) + d * b``, and no multiplication has to be solved.
    """
    dut = component(package, "divider").Divider(bits)
    h = Harness(dut)
    m, inside = h.m, h.internal
    quotient, remainder, busy = (inside[name] for name in ("quotient", "remainder", "busy"))
    accepted = dut.i.valid & dut.i.ready
    taken = dut.o.valid & dut.o.ready
    h.assume(~dut.i.valid | dut.i.payload.divisor[-1])

    pending = h.ghost(1, "pending")  # accepted and not yet taken
    dividend = h.ghost(bits, "dividend")
    divisor = h.ghost(bits, "divisor")
    digits = h.ghost(range(bits + 4), "digits")
    product = h.ghost(2 * bits + 2, "product")  # quotient * divisor
    grown = h.ghost(bits + 2, "quotient")  # of which product is a multiple
    waited = h.ghost(range(bits + 8), "waited")
    with m.If(accepted):
        m.d.sync += [pending.eq(1), dividend.eq(dut.i.payload.dividend), divisor.eq(dut.i.payload.divisor)]
        m.d.sync += [digits.eq(0), product.eq(0), grown.eq(0), waited.eq(0)]
    with m.If(pending):
        m.d.sync += waited.eq(waited + ~dut.o.valid)
    with m.If(taken):
        m.d.sync += pending.eq(0)
    with m.If(busy & ~dut.o.valid):
        m.d.sync += [
            digits.eq(digits + 1),
            grown.eq((grown << 1) + inside["digit"]),
            product.eq((product << 1) + Mux(inside["digit"], divisor, 0)),
        ]

    normal = dividend[-1]
    below = dividend < divisor
    first = below + 1  # digits up to the first one, the leading one
    active = pending & normal
    h.lemma("one division at a time", (busy == pending) & (dut.i.ready == ~pending))
    h.lemma("no remainder while idle", ~remainder.any(), when=~pending)
    h.lemma("the divisor is kept and normalised", (inside["divisor"] == divisor) & divisor[-1], when=pending)
    h.lemma("a zero is known", inside["zero"] == ~normal, when=pending)
    h.lemma("the first digit is the first", inside["first"] == (digits == 0), when=active)
    h.lemma("dividend << digits == 2 * product + remainder", (dividend << digits) == (product << 1) + remainder, when=active)
    h.lemma("remainder < 2 * divisor", remainder < (divisor << 1), when=active)
    h.lemma("digits are counted", digits <= bits + first, when=active)
    h.lemma("nothing is left below the first digit", ~(product.any() | quotient.any()), when=active & (digits < first))
    h.lemma("the leading digit is one", (quotient >> (digits - first)[: len(digits)]) == 1, when=active & (digits >= first))
    h.lemma("below is known", inside["below"] == (below & (digits != 0)), when=active)
    h.lemma("the quotient is its digits", quotient == grown, when=active)
    h.lemma("cycles are counted", waited == digits, when=active)

    # What is promised.
    offered = dut.o.valid
    out = dut.o.payload
    last = active & offered
    scale = bits + below
    whole = product if bits > 8 else out.quotient * divisor
    rest = (dividend << scale) - whole
    h.claim("nothing is offered that was not asked for", pending, when=offered)
    h.claim("quotient * divisor <= dividend << scale", (dividend << scale) >= whole, when=last)
    h.claim("dividend << scale < (quotient + 1) * divisor", rest.as_unsigned()[: 2 * bits + 2] < divisor, when=last)
    h.claim("sticky is a remainder", out.sticky == (rest != 0), when=last)
    h.claim("below is dividend < divisor", out.below == below, when=last)
    h.claim("the quotient fills its word", out.quotient[-1], when=last)
    h.claim(
        "a dividend that is not normalised is zero",
        (out.quotient == 0) & ~out.sticky & ~out.below,
        when=pending & offered & ~normal,
    )
    h.lemma("latency", waited <= bits + first, when=pending)
    h.claim("answered in time", offered, when=pending & (waited == Mux(normal, bits + first, 0)))
    h.keeps(dut.o, "quotient")
    return h


MUTANTS = (
    Mutant(
        "divider.py", "digit.eq(~trial[-1])", "digit.eq(~trial[-1] & trial.any())", "a remainder of one divisor gives no digit"
    ),
    Mutant("divider.py", "below.eq(below | (first & ~digit))", "below.eq(0)", "a quotient below one keeps its exponent"),
    Mutant(
        "divider.py", "sticky.eq(remainder.any() & ~zero)", "sticky.eq(remainder[2:].any() & ~zero)", "small remainders are lost"
    ),
    Mutant(
        "divider.py",
        "ResetSignal() | (busy & done & self.o.ready)",
        "ResetSignal()",
        "the remainder is still there in the next division",
    ),
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
            "quotient == floor(dividend * 2**(M + below) / divisor), sticky, below; stream; M + 2 + below cycles",
            lambda package, bits=bits: divider(package, bits),
            mutants=MUTANTS if bits == 24 else (),
            small=lambda package: divider(package, 4),
            depth_mutants=15,
        )
        for bits in (24, 32)
    ),
    Proof(
        "divider, 24 bits",
        "after a reset from any state as after power-up",
        lambda package: divider(package, 24),
        "reset",
        mutants=(Mutant("divider.py", "ResetSignal() | (busy", "(busy", "the remainder survives a reset"),),
    ),
]
