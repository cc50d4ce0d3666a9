"""The random numbers of stochastic rounding: a lane's generator."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

DEGREE = 63
DRAW_BITS = 16


class LaneGenerator(wiring.Component):
    """The bits ``b[n] = b[n-63] ^ b[n-62]``, 16 a cycle in which ``enable`` is high.

    Args:
        seed: b[0] to b[62], the first of them lowest; not zero.

    Ports: ``enable``; ``o``, the last draw, its first bit the most significant: the registers' own, so that no logic lies before
    the adder that takes it. Before the first ``enable`` it holds bits of the seed, which are nobody's draw.

    Latency: 1 cycle. Reset: the seed.
    """

    latency = 1

    def __init__(self, seed: int) -> None:
        if not 0 < seed < 1 << DEGREE:
            raise ValueError(f"seed must be an integer from 1 to 2**{DEGREE} - 1, not {seed!r}")
        self.seed = seed
        super().__init__({"enable": In(1), "o": Out(DRAW_BITS)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits = Signal(DEGREE, init=self.seed)
        drawn = bits[:DRAW_BITS] ^ bits[1 : DRAW_BITS + 1]
        with m.If(self.enable):
            m.d.sync += bits.eq(Cat(bits[DRAW_BITS:], drawn))
        m.d.comb += self.o.eq(Cat(reversed(bits[-DRAW_BITS:])))
        return m
