# ruff: noqa: E501  a fault a row reads best
"""The moving average and the law as they run, on a unit of their own: from a reset to the answer, against the sum and the quotient themselves."""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Cat, Const, Module, Mux, ResetSignal, Signal, Value, signed

from kappa_rtl.golden.formats import ScalarFormat
from support.mutants import Mutant

from .harness import Harness, Proof, component

FORMAT = ScalarFormat(4, 4)
STEP = {"step_bits": 4, "step_fraction": 4, "radicand_bits": 2}


class Number(NamedTuple):
    """A scalar, of integers wide enough for everything."""

    m: Value
    e: Value


class Exact:
    """What the operations mean, on wires beside the component."""

    def __init__(self, m: Module, fmt: ScalarFormat) -> None:
        self.m, self.fmt = m, fmt

    def wire(self, value: Value) -> Signal:
        """A name for it, so that it is built once."""
        wire = Signal(Value.cast(value).shape(), name="ghost_exact")
        self.m.d.comb += wire.eq(value)
        return wire

    def number(self, m: Value, e: Value) -> Number:
        return Number(self.wire(m[: self.fmt.mantissa_bits]), self.wire(e[: self.fmt.exponent_bits].as_signed()))

    def rounded(self, integer: Value, exponent: Value) -> Number:
        """``integer * 2**exponent`` to the nearest scalar, ties to even: the largest one above the range, zero below."""
        bits, (low, high) = self.fmt.mantissa_bits, self.fmt.exponents
        wide, exponent = self.wire(Cat(Const(0, bits + 1), integer)), self.wire(exponent)
        m, e = Const(0, bits + 1), Const(0, len(exponent))
        for top in range(bits + 1, len(wide)):  # the place of the leading one: the last one that there is
            kept, guard, rest = wide[top - bits + 1 : top + 1], wide[top - bits], wide[: top - bits].any()
            m = self.wire(Mux(wide[top], (kept + (guard & (rest | kept[0])))[: bits + 1], m))
            e = self.wire(Mux(wide[top], exponent + (top - 2 * bits), e))
        m, e = self.wire(Mux(m[bits], 1 << bits - 1, m)), self.wire(e + m[bits])
        over, zero = e > high, ~m.any() | (e < low)
        return self.number(
            Mux(zero, 0, Mux(over, Const((1 << bits) - 1, bits), m)),
            Mux(zero, Const(0, len(e)), Mux(over, Const(high, len(e)), e)),
        )

    def product(self, a: Any, b: Any) -> Number:
        return self.rounded(a.m * b.m, a.e + b.e)

    def total(self, a: Any, b: Any) -> Number:
        low, _ = self.fmt.exponents
        x, y = (value.m << (value.e - low)[: self.fmt.exponent_bits].as_unsigned() for value in (a, b))
        return self.rounded(x + y, Const(low, signed(len(a.e) + 2)))

    def ratio(self, a: Any, b: Any) -> Number:
        """a / b; the largest one for b = 0."""
        bits, (_, high) = self.fmt.mantissa_bits, self.fmt.exponents
        dividend = self.wire(a.m << bits + 2)
        whole, rest = self.wire(dividend // b.m), self.wire(dividend % b.m)
        exact = self.rounded(Cat(rest.any(), whole), a.e - b.e - (bits + 3))
        return self.number(Mux(b.m.any(), exact.m, (1 << bits) - 1), Mux(b.m.any(), exact.e, Const(high, self.fmt.exponent_bits)))

    def chosen(self, condition: Value, a: Any, b: Any) -> Number:
        return self.number(Mux(condition, a.m, b.m), Mux(condition, a.e, b.e))

    @staticmethod
    def less(a: Any, b: Any) -> Value:
        return Mux(a.m.any() & b.m.any(), (a.e < b.e) | ((a.e == b.e) & (a.m < b.m)), ~a.m.any() & b.m.any())

    def larger(self, a: Any, b: Any) -> Number:
        return self.chosen(self.less(a, b), b, a)

    def smaller(self, a: Any, b: Any) -> Number:
        return self.chosen(self.less(a, b), a, b)

    def on_grid(self, integer: Value, exponent: Value) -> Value:
        """``integer * 2**exponent`` in ulps of the step grid, ties to even, at most all ones."""
        low, _ = self.fmt.exponents
        bits, fraction = STEP["step_bits"], -STEP["step_fraction"] - 2 * low  # bits below an ulp
        ulps = self.wire(integer << self.wire(exponent - 2 * low)[: self.fmt.exponent_bits + 1].as_unsigned())
        whole, rest, half = ulps[fraction:], ulps[:fraction], 1 << fraction - 1
        result = self.wire(whole + ((rest > half) | ((rest == half) & whole[0])))
        return self.wire(Mux(result >= 1 << bits, (1 << bits) - 1, result[:bits]))


class Run:
    """A run of a program, after a reset from any state; the host's operands hold steady."""

    def __init__(self, package: str, program: Any, **options: Any) -> None:
        scalar, sequencer = component(package, "scalar.operations"), component(package, "scalar.sequencer")
        unit = component(package, "scalar.unit").ScalarUnit(fmt=FORMAT, **STEP)
        literals = {"one": scalar.constant(FORMAT.one, FORMAT), "step_grid": unit.literal(unit.step_exponent)}
        operands = dict.fromkeys(options.pop("host")) | (literals if "eta" in options.pop("with_literals", ()) else {})
        self.dut = dut = sequencer.Alone(unit, program, operands=operands, **options)
        self.h = h = Harness(dut)
        layout = scalar.scalar_layout(FORMAT)
        self.inputs = {
            name: h.whichever(layout, name)
            for name in (*options["taken"], *(name for name, value in operands.items() if value is None))
        }
        low, high = FORMAT.exponents
        for name, value in self.inputs.items():
            h.assume((value.m[-1] & (value.e >= low) & (value.e <= high)) | (Value.cast(value) == 0))
            port = dut.i.payload[name] if name in options["taken"] else getattr(dut, name)
            h.assume(Value.cast(port) == Value.cast(value))
        self.conditions = {name: h.whichever(1, name) for name in options.get("conditions", ())}
        for name, value in self.conditions.items():
            h.assume(getattr(dut, name) == value)
        started, self.time = h.ghost(1, "started", reset_less=True), h.ghost(range(dut.latency + 4), "time")
        self.number = h.ghost(range(64), "number")  # of the operation under way
        h.assume(started == ~ResetSignal())
        h.assume(dut.i.valid & ~dut.o.ready)
        counting = h.ghost(1, "counting")
        h.m.d.sync += [
            counting.eq(counting | (dut.i.valid & dut.i.ready & started)),
            self.time.eq(self.time + (counting & ~dut.o.valid)),
        ]
        h.m.d.sync += started.eq(1)
        with h.m.If(started & unit.go):
            h.m.d.sync += self.number.eq(self.number + 1)
        h.claim("answered in time", dut.o.valid, when=counting & (self.time + 1 >= dut.latency))
        self.answered = started & dut.o.valid

    def makes(self, operation: int, value: Any, when: Any = 1) -> None:
        """What an operation, by its place in the run, leaves in y."""
        y = self.dut.unit.y
        self.h.claim(
            f"operation {operation}",
            Cat(y.m, y.e) == Cat(value.m, value.e),
            when=self.dut.unit.began & (self.number == operation + 1) & when,
        )


def average(package: str) -> Harness:
    ema, sequencer, op = (
        component(package, "scalar.ema"),
        component(package, "scalar.sequencer"),
        component(package, "scalar.operations").Operation,
    )
    between = sequencer.Do("value", op.LOAD, "value", store="kept")  # C in its place, and the rest: as in a step
    run = Run(package, (*ema.KEEP, between, *ema.EMA), taken=("ema", "value"), host=("keep", "rho"))
    x, exact = run.inputs, Exact(run.h.m, FORMAT)
    kept, weighed = exact.product(x["keep"], x["ema"]), exact.product(x["rho"], x["value"])
    y = exact.total(kept, weighed)
    run.makes(5, kept)
    run.makes(7, weighed)
    out = run.dut.o.payload.y
    run.h.claim("keep * S + rho * C, each rounded once", Cat(out.m, out.e) == Cat(y.m, y.e), when=run.answered)
    return run.h


def law(package: str) -> Harness:
    clamp = component(package, "scalar.clamp")
    host, conditions = ("gain", "bias", "num", "alpha_min", "eta", "cap"), ("instant", "average", "off", "grows")
    run = Run(
        package,
        clamp.LAW,
        taken=("ema", "curvature"),
        host=host,
        conditions=conditions,
        aside=clamp.UNTHROTTLED,
        with_literals=host,
    )
    x, c, fmt, exact = run.inputs, run.conditions, FORMAT, Exact(run.h.m, FORMAT)
    one = Number(Const(fmt.one.m, fmt.mantissa_bits), Const(fmt.one.e, x["eta"].e.shape()))
    run.h.assume(~(c["instant"] & c["average"]))
    run.h.assume(~exact.less(one, x["alpha_min"]))
    seen = exact.chosen(
        c["instant"], x["curvature"], exact.chosen(c["average"], x["ema"], exact.larger(x["ema"], x["curvature"]))
    )
    scaled = exact.product(x["gain"], seen)
    offset = exact.total(x["bias"], scaled)
    quotient = exact.ratio(x["num"], offset)
    capped = exact.chosen(c["grows"], exact.smaller(quotient, x["cap"]), quotient)
    alpha = exact.smaller(one, exact.larger(x["alpha_min"], capped))
    for operation, value in ((4, seen), (5, scaled), (6, offset), (8, quotient), (9, capped), (11, alpha)):
        run.makes(operation, value)
    eta = x["eta"]
    by_alpha = exact.on_grid(alpha.m * eta.m, alpha.e + eta.e)
    alone = exact.on_grid(eta.m, eta.e)
    out = run.dut.o.payload
    run.h.claim("alpha, clamped and capped", Cat(out.alpha.m, out.alpha.e) == Cat(alpha.m, alpha.e), when=run.answered)
    run.h.claim("the step", out.step == Mux(c["off"], alone, by_alpha), when=run.answered)
    return run.h


PROOFS = [
    Proof(
        "average, M = 4, E = 4",
        "the whole program: keep * S + rho * C, two products and their sum, each rounded once; cycles",
        average,
        "any state",
        40,
        (
            Mutant("scalar/ema.py", 'Operation.MUL, "keep"', 'Operation.MUL, "rho"', "the average keeps rho of itself"),
            Mutant("scalar/ema.py", 'Do("join", Operation.ADD', 'Do("join", Operation.MAX', "the larger part instead of the sum"),
            Mutant("scalar/ema.py", 'store="curvature"', 'store="kept"', "rho's product takes the place of what was kept"),
            Mutant("scalar/unit.py", "raised[0] & (sticky | ~up)", "raised[0]", "ties round up"),
        ),
        solver="bitwuzla",
    ),
    Proof(
        "law, M = 4, E = 4",
        "the whole program: alpha = min(1, max(alpha_min, min(cap, num / (bias + gain * x)))), 1 for a zero denominator, each operation rounded once; alpha * eta or eta on the step grid, saturated; cycles",
        law,
        "any state",
        64,
        (
            Mutant("scalar/clamp.py", 'Operation.MAX, "alpha_min"', 'Operation.MIN, "alpha_min"', "alpha_min is an upper bound"),
            Mutant("scalar/clamp.py", 'Operation.MIN, "one"', 'Operation.MAX, "one"', "1 is a lower bound"),
            Mutant("scalar/clamp.py", 'Operation.MAX, "curvature"', 'Operation.LOAD, "curvature"', "source max sees C alone"),
            Mutant("scalar/clamp.py", 'instead={"grows": Operation.MIN}', "instead={}", "the cap is not applied"),
            Mutant("scalar/clamp.py", 'then={"off": "unthrottled"}', "then={}", "alpha is applied although not enabled"),
        ),
        solver="bitwuzla",
    ),
]
