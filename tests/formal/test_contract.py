"""The contract as the proofs of a step have it, against the golden model: that what is proved is what the other three say too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.sim import Simulator

from formal.contract import Contract
from formal.prove_step import ONE_LANE, TWO_LANES, small
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle

CONFIGS = {
    "one lane": ONE_LANE,
    "two lanes": TWO_LANES,
    "other modes": small(elements=3, gradient="SQ3.4", weight="SQ1.5,floor,wrap", update="SQ1.2,nearest_away,saturate_symmetric"),
    "finer weights": small(elements=2, weight="SQ1.6,toward_zero,zero", update="SQ1.3,floor,wrap"),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_contract_is_golden(config: ThrottleConfig) -> None:
    """Steps from random weights: both energies, every element, and how many count."""
    grids, n = config.grids, config.elements
    m = Module()
    shapes = {"gradient": grids.gradient, "previous": grids.gradient, "weight": grids.weight, "direction": grids.direction}
    wires = {name: [Signal(signed(fmt.width), name=f"{name}{i}") for i in range(n)] for name, fmt in shapes.items()}
    step = Signal(config.step.width)
    owed = Contract(m, config, step=step, **wires)
    results = {"a": owed.a, "b": owed.b} | {name: owed.wire(owed.count(name)) for name in owed.counts}
    rng = np.random.default_rng(7)
    compared = 0

    async def bench(ctx: Any) -> None:
        nonlocal compared
        for _ in range(30):
            unit = Throttle(config, draw(rng, grids.weight.rails, n), codes=True)
            before = np.zeros(n, np.int64)
            for _ in range(3):
                gradient, weights = draw(rng, grids.gradient.rails, n), unit.theta
                unit.clear()
                record = unit.step(gradient, codes=True)
                given = {"gradient": gradient, "previous": before, "weight": weights, "direction": gradient}
                for name, values in given.items():
                    for wire, value in zip(wires[name], values, strict=True):
                        ctx.set(wire, int(value))
                ctx.set(step, record.registers.step_size)
                await ctx.delay(1e-9)
                found = {name: ctx.get(value) for name, value in results.items()}
                right = {"a": record.registers.A, "b": record.registers.B}
                right |= {name: getattr(record.registers, name) for name in owed.counts}
                assert found == right
                assert [ctx.get(value) for value in owed.weight] == record.theta.tolist()
                assert [ctx.get(value) for value in owed.update] == record.update.tolist()
                before, compared = gradient, compared + 1

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    assert compared == 90


def draw(rng: np.random.Generator, rails: tuple[int, int], count: int) -> np.ndarray:
    low, high = rails
    return rng.integers(low, high + 1, count)
