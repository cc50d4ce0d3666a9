"""The square root: every digit of every root."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, Value

from mutants import Mutant

from .harness import Harness, Identity, Proof, component


def square_root(package: str, width: int, bits: int) -> Harness:
    """``(the radicand so far) == square + remainder, remainder <= 2 * root``, digit by digit.

    The square of the root is a ghost that grows by sums, as the root does; see :func:`square_grows`.
    """
    dut = component(package, "sqrt").SquareRoot(width, bits)
    h = Harness(dut)
    m, inside = h.m, h.internal
    root, remainder, busy, digit = (inside[name] for name in ("root", "remainder", "busy", "digit"))
    accepted = dut.i.valid & dut.i.ready

    pending = h.ghost(1, "pending")
    radicand = h.ghost(width, "radicand")
    digits = h.ghost(range(bits + 3), "digits")
    square = h.ghost(2 * bits + 2, "square")
    grown = h.ghost(bits + 1, "root")  # of which square is the square
    waited = h.ghost(range(bits + 8), "waited")
    with m.If(accepted):
        m.d.sync += [pending.eq(1), radicand.eq(dut.i.payload), digits.eq(0), square.eq(0), grown.eq(0), waited.eq(0)]
    with m.If(pending):
        m.d.sync += waited.eq(waited + ~dut.o.valid)
    with m.If(dut.o.valid & dut.o.ready):
        m.d.sync += pending.eq(0)
    with m.If(busy & ~dut.o.valid):
        m.d.sync += [
            digits.eq(digits + 1),
            grown.eq((grown << 1) + digit),
            square.eq((square << 2) + Mux(digit, (grown << 2) + 1, 0)),
        ]

    normal = radicand[-2:].any()
    active = pending & normal
    # The radicand with its binary point at the top, zeros below it; and how much of it has entered.
    places = max(width, 2 * bits)
    whole = Cat(Value.cast(0).replicate(places - width), radicand) if places > width else radicand
    entered = Value.cast(whole >> (places - (digits << 1))[: places.bit_length()])[: 2 * bits]
    h.lemma("one root at a time", (busy == pending) & (dut.i.ready == ~pending))
    h.lemma("a zero is known", inside["zero"] == ~normal, when=pending)
    h.lemma("digits are counted", digits <= bits, when=active)
    h.lemma("what is left of the radicand", inside["radicand"] == (radicand << (digits << 1))[:width], when=active)
    h.lemma("radicand so far == square + remainder", entered == square + remainder, when=active)
    h.lemma("remainder <= 2 * root", remainder <= (root << 1), when=active)
    h.lemma("the root is its digits", root == grown, when=active)
    h.lemma("the first digit is one", (root >> (digits - 1)[: len(digits)]) == 1, when=active & (digits != 0))
    h.lemma("nothing before the first digit", ~(root.any() | square.any()), when=active & (digits == 0))
    h.lemma("cycles are counted", waited == digits, when=active)

    offered, out = dut.o.valid, dut.o.payload
    last = active & offered
    exact = square if bits > 8 else out.root * out.root
    target = whole[places - 2 * bits :]  # floor(radicand * 2**(2K - W))
    dropped = whole[: places - 2 * bits]
    h.claim("nothing is offered that was not asked for", pending, when=offered)
    h.claim("root**2 <= radicand", exact <= target, when=last)
    h.claim("radicand < (root + 1)**2", target < exact + (out.root << 1) + 1, when=last)
    h.claim("sticky: the root is not exact", out.sticky == ((target != exact) | dropped.any()), when=last)
    h.claim("the root fills its word", out.root[-1], when=last)
    h.claim("a radicand that is not normalised is zero", (out.root == 0) & ~out.sticky, when=pending & offered & ~normal)
    h.lemma("latency", waited <= bits, when=pending)
    h.claim("answered in time", offered, when=pending & (waited == Mux(normal, bits, 0)))
    h.keeps(dut.o, "root")
    return h


def square_grows(bits: int) -> Any:
    """What the ghost `square` rests on."""
    import z3

    q, d = (z3.BitVec(name, 2 * bits + 3) for name in "qd")
    fits = z3.And(z3.ULT(q, 1 << bits), z3.ULE(d, 1))
    return z3.Implies(fits, (2 * q + d) * (2 * q + d) == 4 * (q * q) + z3.If(d == 1, 4 * q + 1, 0))


MUTANTS = (
    Mutant("sqrt.py", "Cat(1, 0, root)", "Cat(0, 0, root)", "the root's trial subtracts one too little"),
    Mutant("sqrt.py", "rest.any() & ~zero", "0", "a root is exact too often"),
    Mutant("sqrt.py", "self.width <= 2 * self.bits", "True", "the rest of a wide radicand is forgotten"),
    Mutant(
        "sqrt.py",
        "trial = Signal(self.bits + 4)",
        "trial = Signal(self.bits + 1)",
        "the borrow is looked for three places too low",
    ),
)
SIZES = [(48, 24), (42, 25), (64, 32), (64, 24)]


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
            "root == floor(sqrt(radicand * 2**(2K - W))), sticky; stream; K + 1 cycles",
            lambda package, width=width, bits=bits: square_root(package, width, bits),
            mutants=MUTANTS if width == 42 else (),
            small=lambda package: square_root(package, 10, 4),
            depth_mutants=10,
        )
        for width, bits in SIZES
    ),
    Proof(
        what(48, 24),
        "after a reset from any state as after power-up",
        lambda package: square_root(package, 48, 24),
        "reset",
        mutants=(Mutant("sqrt.py", "busy = Signal()", "busy = Signal(reset_less=True)", "a root goes on through a reset"),),
    ),
]
