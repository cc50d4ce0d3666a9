"""The watchdog, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.golden.registers import WATCHES
from kappa_rtl.hw.units.watchdog import FACTOR_BITS, Growth
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, SIMULATORS, refuses

WATCHED = {"eta": 0.1, "elements": 12, "gradient_floor": "0.01"}
UNITS = {
    "all": WATCHED | {"watchdog": list(WATCHES)},
    "growth": WATCHED | {"watchdog": ["norm_growth"], "norm_growth": "0.0625"},
    "steep": WATCHED | {"watchdog": ["norm_growth", "scalar_overflow"], "norm_growth": "255.99"},
    "floor": WATCHED | {"watchdog": ["gradient_floor"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_watchdog(simulator: str) -> None:
    simulate("watchdog", UNITS, simulator=simulator, effort=EFFORT[simulator])


def test_refuses_a_factor_that_is_none() -> None:
    for factor in (0, 1 << FACTOR_BITS):
        refuses(lambda factor=factor: Growth(factor), rf"factor must be from 1 to {(1 << FACTOR_BITS) - 1}, not {factor}")  # type: ignore[misc]
