# ruff: noqa: E501  a fault a row reads best
"""The law and its clamp: which operations it asks the scalar unit for."""

from __future__ import annotations

from amaranth.hdl import Mux, Signal, Value, unsigned

from kappa_rtl.golden.formats import ScalarFormat
from mutants import Mutant

from .clients import Asked, follows
from .harness import Harness, Proof, component

LARGER, SCALE, OFFSET, DIVIDE, FLOOR, CEILING, STEP, DONE = range(8)


def law(package: str, fmt: ScalarFormat) -> Harness:
    """``min(1, max(alpha_min, num / (bias + gain * x)))``, 1 where the denominator is zero; then the step."""
    scalar = component(package, "scalar")
    unit = scalar.ScalarUnit(fmt=fmt, step_bits=17, step_fraction=20, radicand_bits=42)
    clamp = component(package, "clamp")
    dut = clamp.AlphaLaw(unit)
    h = Harness(dut)
    m, op, layout = h.m, scalar.Operation, scalar.scalar_layout(fmt)
    names = ("curvature", "average", "larger", "scaled", "offset", "ratio", "floored", "alpha", "x")
    curvature, average, larger, scaled, offset, ratio, floored, alpha, x = (
        Signal(layout, name=f"ghost_{name}") for name in names
    )
    step = h.ghost(unsigned(unit.step_bits), "step")
    for name in ("num", "bias", "gain", "alpha_min", "eta", "source", "enabled"):
        h.steady(getattr(dut, name), name)
    source = Value.cast(dut.source)
    h.assume(source <= 2)
    with m.If(dut.i.valid & dut.i.ready):
        m.d.sync += [curvature.eq(dut.i.payload.curvature), average.eq(dut.i.payload.average)]
    one = scalar.constant(fmt.one, fmt)
    divides = offset.m[-1]
    m.d.comb += x.eq(Mux(source == 0, Value.cast(curvature), Mux(source == 1, Value.cast(average), Value.cast(larger))))
    # alpha of the ghost: 1 if nothing is divided, else what the last of the three gave.
    final = Mux(divides, Value.cast(alpha), Value.cast(one))
    applied = Mux(dut.enabled, final, Value.cast(one))
    steps = [
        Asked("LARGER", op.MAX, curvature, average, larger, SCALE),
        Asked("SCALE", op.MUL, dut.gain, x, scaled, OFFSET),
        Asked("OFFSET", op.ADD, dut.bias, scaled, offset, DIVIDE),
        Asked("DIVIDE", op.DIV, dut.num, offset, ratio, FLOOR, when=divides, otherwise=STEP),
        Asked("FLOOR", op.MAX, dut.alpha_min, ratio, floored, CEILING),
        Asked("CEILING", op.MIN, one, floored, alpha, STEP),
        Asked("STEP", op.STEP, applied, dut.eta, step, DONE, field="step"),
    ]
    done = follows(h, dut, steps, start=Mux(source == 2, LARGER, SCALE), idle="IDLE")

    def at(*states: str) -> Value:
        found = h.state(states[0]) | h.state(f"{states[0]} WAIT")
        for state in states[1:]:
            found = found | h.state(state) | h.state(f"{state} WAIT")
        return found

    inside = {name: Value.cast(h.internal[name]) for name in ("x", "other", "alpha", "step")}
    h.lemma("C", inside["x"] == Value.cast(curvature), when=at("LARGER"))
    h.lemma("S", inside["other"] == Value.cast(average), when=at("LARGER"))
    h.lemma("MAX only by source", source == 2, when=at("LARGER"))
    h.lemma("x", inside["x"] == Value.cast(x), when=at("SCALE"))
    h.lemma("gain * x", inside["x"] == Value.cast(scaled), when=at("OFFSET"))
    h.lemma("denominator", inside["x"] == Value.cast(offset), when=at("DIVIDE"))
    h.lemma("not zero", divides, when=at("FLOOR", "CEILING") | h.state("DIVIDE WAIT"))
    h.lemma("ratio", inside["alpha"] == Value.cast(ratio), when=at("FLOOR"))
    h.lemma("ratio, not too small", inside["alpha"] == Value.cast(floored), when=at("CEILING"))
    h.lemma("alpha", inside["alpha"] == final, when=at("STEP") | h.state("RESPOND"))
    h.lemma("step", inside["step"] == step, when=h.state("RESPOND"))
    h.claim("alpha is the clamped ratio, 1 where the denominator is zero", Value.cast(dut.o.payload.alpha) == final, when=done)
    h.claim("the step is what was asked for last", dut.o.payload.step == step, when=done)
    return h


PROOFS = [
    Proof(
        "law, M = 24, E = 10",
        "asks for what alpha = min(1, max(alpha_min, num / (bias + gain * x))) and alpha * eta take, gives that; stream; for any unit",
        lambda package: law(package, ScalarFormat()),
        mutants=(
            Mutant("clamp.py", '"FLOOR", Operation.MAX', '"FLOOR", Operation.MIN', "alpha_min is an upper bound"),
            Mutant("clamp.py", '"CEILING", Operation.MIN', '"CEILING", Operation.MAX', "1 is a lower bound"),
            Mutant("clamp.py", "with m.If(self.source == Source.MAX):", "with m.If(0):", "source max sees C alone"),
            Mutant(
                "clamp.py", "applied = Mux(self.enabled, alpha, one)", "applied = alpha", "alpha is applied although not enabled"
            ),
            Mutant("clamp.py", "when=x.m[-1], otherwise", "when=1, otherwise", "it divides by zero"),
        ),
        depth_mutants=20,
    ),
]
