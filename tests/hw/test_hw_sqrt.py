"""The square root, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.hw.scalar.sqrt import SquareRoot
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import VERILATOR_FIRST, refuses

SIZES = ((2, 3), (8, 3), (8, 5), (8, 9), (10, 4), (10, 6), (42, 25), (54, 25))
UNITS = {f"w{width}_k{bits}": {"width": width, "bits": bits} for width, bits in SIZES}


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_sqrt(simulator: str) -> None:
    simulate("sqrt", UNITS, simulator=simulator)


@pytest.mark.slow
def test_sqrt_long() -> None:
    wide = {"width": 98, "bits": 54}
    simulate("sqrt", UNITS | {"w98_k54": wide}, simulator="verilator", seed=2, effort=10)


def test_errors() -> None:
    refuses(lambda: SquareRoot(7, 4), "width must be even and at least 2, not 7")
    refuses(lambda: SquareRoot(8, 1), "bits must be at least 2, not 1")
