"""The sum of squares, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import VERILATOR_FIRST

SUMS = {
    "l1": {"lanes": 1, "width": 3, "energy_bits": 13},
    "l2": {"lanes": 2, "width": 4, "energy_bits": 15},
    "l3_tail2": {"lanes": 3, "width": 4, "energy_bits": 15, "tail": 2},
    "l5_tail1": {"lanes": 5, "width": 8, "energy_bits": 24, "tail": 1},
    "l8": {"lanes": 8, "width": 16, "energy_bits": 42},
    "l32_tail31": {"lanes": 32, "width": 8, "energy_bits": 26, "tail": 31},
}


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_norm(simulator: str) -> None:
    simulate("norm", SUMS, simulator=simulator)


@pytest.mark.slow
def test_norm_long() -> None:
    wide = {"lanes": 4, "width": 32, "energy_bits": 72, "tail": 3}
    simulate("norm", {"wide": wide}, simulator="verilator", seed=2, effort=50)
