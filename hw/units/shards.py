"""What stands between shards: the sum of one energy of each, given back to all of them."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Signal, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Exchange"]


class Exchange(wiring.Component):
    """Takes one integer from each of several streams, one after the other, and offers their sum on as many.

    Args:
        shards: how many, 1 or more.
        bits: of an integer, and of the sum; the caller proves that it fits.

    Ports: ``partial0``, ``partial1``, ... in, ``total0``, ``total1``, ... out, by shard.

    Latency: an integer a cycle is taken, in the order of the shards; the sum is offered in the cycle after the last. Throughput:
    the next ones are taken once every shard has taken the sum. Reset: nothing taken, sum 0.
    """

    def __init__(self, shards: int, bits: int) -> None:
        if shards < 1:
            raise ValueError(f"shards must be at least 1, not {shards!r}")
        self.shards = shards
        number = stream.Signature(unsigned(bits))
        super().__init__({f"partial{k}": In(number) for k in range(shards)} | {f"total{k}": Out(number) for k in range(shards)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        partials = [getattr(self, f"partial{k}") for k in range(self.shards)]
        totals = [getattr(self, f"total{k}") for k in range(self.shards)]
        turn = Signal(self.shards, init=1)  # one-hot: the shard whose integer is awaited; zero while the sum is offered
        owes = Signal(self.shards)  # the shards that have not yet taken the sum
        whole = Signal.like(partials[0].payload)
        word = Signal.like(whole)
        taken = (turn & Cat(partial.valid for partial in partials)).any()
        left = owes & ~Cat(total.ready for total in totals)
        for k, (partial, total) in enumerate(zip(partials, totals, strict=True)):
            m.d.comb += [partial.ready.eq(turn[k]), total.valid.eq(owes[k]), total.payload.eq(whole)]
            with m.If(turn[k]):
                m.d.comb += word.eq(partial.payload)
        with m.If(taken):
            m.d.sync += [whole.eq(whole + word), turn.eq(turn << 1), owes.eq(turn[-1].replicate(self.shards))]
        with m.Elif(owes.any()):
            m.d.sync += owes.eq(left)
            with m.If(~left.any()):
                m.d.sync += [whole.eq(0), turn.eq(1)]
        return m
