"""A lane's generator, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.golden.random import lane_seeds
from kappa_rtl.hw.lanes.random import LaneGenerator
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import both_languages, refuses

SEEDS = [1, 1 << 62, (1 << 63) - 1, *lane_seeds(1, 3)]


UNITS = {f"seed{i}": {"seed": seed} for i, seed in enumerate(SEEDS)}


@pytest.mark.icarus
@both_languages
def test_random(icarus: str) -> None:
    simulate("random", {name: UNITS[name] for name in ("seed0", "seed3")}, simulator=icarus, effort=0)


@pytest.mark.slow
def test_random_long() -> None:
    simulate("random", UNITS, simulator="verilator", effort=20)


@pytest.mark.parametrize("seed", [0, -1, 1 << 63])
def test_a_generator_that_stands_still_is_refused(seed: int) -> None:
    refuses(lambda: LaneGenerator(seed), f"seed must be an integer from 1 to 2\\*\\*63 - 1, not {seed}")
