"""Tests of a lane's generator against the golden model's, draw by draw."""

from __future__ import annotations

from typing import Any

import cocotb

from ...golden.random import LaneGenerators
from ...hw.lanes.random import LaneGenerator
from ..testbench.bank import Bench, benches


def component(seed: int) -> LaneGenerator:
    return LaneGenerator(seed)


async def draws(bench: Bench, count: int, idle: float) -> None:
    """See that many draws come, one for each enabled cycle, and that the last one stays until the next."""
    expected = LaneGenerators((bench.component.seed,)).draw(count)[:, 0].tolist()
    enable, drawn = bench.wire("enable"), bench.wire("o")
    made = 0
    while made < count:
        enabled = bench.rng.random() >= idle
        enable.value = int(enabled)
        await bench.tick(bench.component.latency)
        made += enabled
        if made:
            assert int(drawn.value) == expected[made - 1], f"{bench.where}draw {made - 1} is {int(drawn.value)}"
    enable.value = 0


@cocotb.test
async def every_draw(dut: Any) -> None:
    """More than the recurrence reaches back, without pause and with; after a reset the first one again."""
    for bench in benches(dut, component):
        bench.probing = 0
        for count, idle in ((3, 0.0), (150 * (1 + bench.effort), 0.0), (150, 0.5), (5, 0.9)):
            await bench.reset()
            await draws(bench, count, idle)
