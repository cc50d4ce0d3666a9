"""The divider, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.hw.scalar.divider import Divider
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import VERILATOR_FIRST, refuses

UNITS = {f"m{bits}": {"bits": bits} for bits in (2, 4, 5, 6, 24)}


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_divider(simulator: str) -> None:
    simulate("divider", UNITS, simulator=simulator)


@pytest.mark.slow
def test_divider_long() -> None:
    simulate("divider", UNITS | {"m53": {"bits": 53}}, simulator="verilator", seed=2, effort=10)


def test_errors() -> None:
    refuses(lambda: Divider(1), "bits must be at least 2, not 1")
