"""The scalar unit, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import VERILATOR_FIRST

UNITS = {
    "m4": {"mantissa_bits": 4, "exponent_bits": 6, "step_bits": 5, "step_fraction": 3, "radicand_bits": 8},
    "m9": {"mantissa_bits": 9, "exponent_bits": 7, "step_bits": 17, "step_fraction": 14, "radicand_bits": 14},
    "m24": {"mantissa_bits": 24, "exponent_bits": 10, "step_bits": 17, "step_fraction": 20, "radicand_bits": 42},
}


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_scalar(simulator: str) -> None:
    simulate("scalar", UNITS, simulator=simulator)


@pytest.mark.slow
def test_scalar_long() -> None:
    wide = {"mantissa_bits": 53, "exponent_bits": 12, "step_bits": 24, "step_fraction": 30, "radicand_bits": 98}
    simulate("scalar", UNITS | {"m53": wide}, simulator="verilator", seed=2, effort=12)
