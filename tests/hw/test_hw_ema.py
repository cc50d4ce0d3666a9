"""The moving average, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import VERILATOR_FIRST

UNITS = {
    "m4": {"mantissa_bits": 4, "exponent_bits": 6},
    "m24": {"mantissa_bits": 24, "exponent_bits": 10},
}


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_ema(simulator: str) -> None:
    simulate("ema", UNITS, simulator=simulator)


@pytest.mark.slow
def test_ema_long() -> None:
    simulate("ema", UNITS, simulator="verilator", seed=2, effort=20)
