# ruff: noqa: E501  a fault a row reads best
"""The moving average: which operations it asks the scalar unit for."""

from __future__ import annotations

from amaranth.hdl import Signal, Value

from kappa_rtl.golden.formats import ScalarFormat
from mutants import Mutant

from .clients import Asked, follows
from .harness import Harness, Proof, component


def ema(package: str, fmt: ScalarFormat) -> Harness:
    """``add(mul(keep, average), mul(rho, value))``."""
    scalar = component(package, "scalar")
    unit = scalar.ScalarUnit(fmt=fmt, step_bits=17, step_fraction=20, radicand_bits=42)
    dut = component(package, "ema").Ema(unit)
    h = Harness(dut)
    m, op = h.m, scalar.Operation
    layout = scalar.scalar_layout(fmt)
    average, value, kept, added, joined = (
        Signal(layout, name=f"ghost_{name}") for name in ("average", "value", "kept", "added", "joined")
    )
    accepted = dut.i.valid & dut.i.ready
    for port, name in ((dut.keep, "keep"), (dut.rho, "rho")):
        h.steady(port, name)
    with m.If(accepted):
        m.d.sync += [average.eq(dut.i.payload.average), value.eq(dut.i.payload.value)]
    # The first operation is asked for in the cycle that takes the input, so it goes first with its operands.
    steps = [
        Asked("KEEP", op.MUL, dut.keep, average, kept, 1),
        Asked("WEIGH", op.MUL, dut.rho, value, added, 2),
        Asked("JOIN", op.ADD, kept, added, joined, 3),
    ]
    done = follows(h, dut, steps, start=0, idle="KEEP")
    h.lemma("average", Value.cast(h.internal["kept"]) == Value.cast(average), when=h.state("KEEP WAIT"))
    h.lemma(
        "value",
        Value.cast(h.internal["added"]) == Value.cast(value),
        when=h.state("KEEP WAIT") | h.state("WEIGH") | h.state("WEIGH WAIT"),
    )
    later = h.state("WEIGH") | h.state("WEIGH WAIT") | h.state("JOIN") | h.state("JOIN WAIT")
    h.lemma("kept", Value.cast(h.internal["kept"]) == Value.cast(kept), when=later)
    h.lemma("added", Value.cast(h.internal["added"]) == Value.cast(added), when=h.state("JOIN") | h.state("JOIN WAIT"))
    h.claim("the average is the sum", Value.cast(dut.o.payload) == Value.cast(joined), when=done)
    return h


PROOFS = [
    Proof(
        "average, M = 24, E = 10",
        "asks for mul(keep, S), mul(rho, C) and their sum, gives that; stream; for any unit",
        lambda package: ema(package, ScalarFormat()),
        mutants=(
            Mutant("ema.py", '"KEEP", Operation.MUL, self.keep, kept', '"KEEP", Operation.MUL, self.rho, kept', "the average keeps rho of itself"),
            Mutant("ema.py", '"JOIN", Operation.ADD', '"JOIN", Operation.MAX', "the larger part instead of the sum"),
            Mutant("ema.py", "self.rho, added, added", "self.rho, kept, added", "rho weighs what was kept"),
        ),
        depth_mutants=12,
    ),
]  # fmt: skip
