"""The random numbers: sixteen steps of the recurrence at once, against one step sixteen times."""

from __future__ import annotations

from amaranth.hdl import Cat

from support.mutants import Mutant

from .harness import Harness, Proof, component


def generator(package: str, seed: int) -> Harness:
    """``b[n] = b[n-63] ^ b[n-62]``: a ghost holds the last 63 bits, and goes a bit at a time."""
    module = component(package, "lanes.random")
    dut = module.LaneGenerator(seed)
    h = Harness(dut)
    m, degree, draw = h.m, module.DEGREE, module.DRAW_BITS
    latest = h.ghost(degree, "latest", init=seed)  # the oldest of them lowest
    bits = [latest[i] for i in range(degree)]
    for _ in range(draw):
        bits = [*bits[1:], bits[0] ^ bits[1]]
    with m.If(dut.enable):
        m.d.sync += latest.eq(Cat(*bits))
    h.lemma("state", h.internal["bits"] == latest)
    h.lemma("never all zeros", latest.any())
    h.claim("the draw is the latest bits, the first of them highest", dut.o == Cat(*(latest[-1 - i] for i in range(draw))))
    return h


SEED = 0x123456789ABCDEF
PROOFS = [
    Proof(
        "random numbers of a lane",
        "16 bits of the recurrence b[n] = b[n-63] ^ b[n-62] a cycle, the first highest; never all zeros",
        lambda package: generator(package, SEED),
        mutants=(
            Mutant("lanes/random.py", "bits[1 : DRAW_BITS + 1]", "bits[2 : DRAW_BITS + 2]", "another recurrence"),
            Mutant("lanes/random.py", "with m.If(self.enable):", "with m.If(1):", "it draws although nobody asks"),
        ),
        depth_mutants=5,
    ),
    Proof("random numbers of a lane", "after a reset from any state as after power-up", lambda p: generator(p, SEED), "reset"),
]
