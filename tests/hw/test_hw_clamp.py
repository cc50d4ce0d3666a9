"""The alpha law, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import VERILATOR_FIRST

UNITS = {
    "m4": {"mantissa_bits": 4, "exponent_bits": 6, "step_bits": 6, "step_fraction": 8},
    "m24": {"mantissa_bits": 24, "exponent_bits": 10, "step_bits": 17, "step_fraction": 20},
}


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_clamp(simulator: str) -> None:
    simulate("clamp", UNITS, simulator=simulator)


@pytest.mark.slow
def test_clamp_long() -> None:
    simulate("clamp", UNITS, simulator="verilator", seed=2, effort=12)
