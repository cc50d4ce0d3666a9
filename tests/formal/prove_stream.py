"""The stream contract of what the other files prove only the arithmetic of, and resets from any state."""

from __future__ import annotations

from functools import reduce
from operator import or_

from kappa_rtl.golden.formats import ScalarFormat
from mutants import Mutant

from .harness import Harness, Proof, component
from .prove_clamp import law
from .prove_ema import ema

STATES = ["IDLE", "START", "INFINITE", "SORT", "MULTIPLY", "SHIFT", "TRIM", "SUM", "CARRY", "DIVIDE", "EXTRACT", "ROUND", "RANGE"]


def scalar_stream(package: str, fmt: ScalarFormat) -> Harness:
    """A response for a request, one at a time, held until it is taken; at any width, for any operation."""
    unit = component(package, "scalar").ScalarUnit(fmt=fmt, step_bits=17, step_fraction=20, radicand_bits=42)
    h = Harness(unit)
    pending = h.ghost(2, "pending")
    h.m.d.sync += pending.eq(pending + (unit.i.valid & unit.i.ready) - (unit.o.valid & unit.o.ready))
    h.lemma("states there are", reduce(or_, map(h.state, [*STATES, "RESPOND"])))
    h.lemma("idle", h.state("IDLE") == (pending == 0))
    h.claim("one request at a time, none lost, none answered twice", pending <= 1)
    h.claim("nothing is offered that was not asked for", pending == 1, when=unit.o.valid)
    h.claim("requests are taken while there is none", unit.i.ready == (pending == 0))
    h.keeps(unit.o, "response")
    return h


RESET = "after a reset from any state as after power-up"
PROOFS = [
    Proof(
        "scalar, M = 24, E = 10",
        "a response for each request, one at a time, held until it is taken",
        lambda package: scalar_stream(package, ScalarFormat()),
        mutants=(
            Mutant(
                "scalar.py",
                "m.d.comb += self.o.valid.eq(1)\n                with m.If(self.o.ready):",
                "m.d.comb += self.o.valid.eq(1)\n                with m.If(1):",
                "a response does not wait to be taken",
            ),
        ),
        small=lambda package: scalar_stream(package, ScalarFormat(6, 6)),
        depth_mutants=6,
    ),
    Proof("scalar, M = 24, E = 10", RESET, lambda package: scalar_stream(package, ScalarFormat()), "reset"),
    Proof("average, M = 24, E = 10", RESET, lambda package: ema(package, ScalarFormat()), "reset"),
    Proof("law, M = 24, E = 10", RESET, lambda package: law(package, ScalarFormat()), "reset"),
]
