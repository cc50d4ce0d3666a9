"""Tests of the table of segments on AXI: other networks between steps, and what is no table."""

from __future__ import annotations

import itertools
from typing import Any

import cocotb

from ...golden.segments import Segment
from ..testbench.bank import paces
from ..testbench.host import Host, hosts


def some_layout(host: Host) -> list[Segment]:
    """Segments that fit the unit: often as many as it holds, of a beat, of whole beats or of any size."""
    config, rng = host.unit.config, host.rng
    count = min(rng.choice([1, config.entries, rng.randint(1, config.entries)]), config.room)
    cuts = sorted(rng.sample(range(1, config.room), count - 1)) if count > 1 else []
    end = rng.choice([config.room, rng.randint(cuts[-1] + 1 if cuts else 1, config.room)])
    return [
        Segment(stop - start, rng.randint(0, config.scale_max), f"{start}") for start, stop in itertools.pairwise([0, *cuts, end])
    ]


@cocotb.test
async def another_layout(dut: Any) -> None:
    """Other networks on the same unit, after a reset by command or by the wire, steps before and none; a reset brings the first back."""
    for host in hosts(dut):
        if not host.config.segments:
            continue
        await host.reset()
        for number in range(5 + 6 * host.bench.effort):
            host.pace(*host.rng.choice(list(paces())))
            segments = some_layout(host)
            if number % 3 == 2:
                await host.reset()
            await host.layout(segments, restart=number % 3 < 2)
            await host.set("control", run=1)
            for _ in range(host.rng.randint(1, 3)):
                await host.step()
            if number % 4 == 1:
                await host.set("command", reset=1)
                host.config = host.unit.config
                assert await host.get("beats") == host.config.beats
                host.begin(host.config)
                await host.set("control", run=1)
                await host.step()
