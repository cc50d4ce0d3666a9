"""The unit on AXI, on its exported Verilog, with the masters of cocotbext-axi."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.bench import simulate
from simulators import EFFORT

SMALL = {
    **{"law": "stability_margin", "eta": 0.5, "eps": "1/1048576", "dead_after": 3},
    **{"mantissa_bits": 8, "exponent_bits": 6, "step_bits": 9, "gradient": "SQ2.6", "weight": "SQ1.5", "update": "SQ1.7"},
}
UNITS = {
    "l3": SMALL | {"elements": 11, "lanes": 3},
    "l1": SMALL | {"elements": 4, "lanes": 1, "gradient": "SQ3.7"},
    # One beat, and that not full; fields of 32 bits, and a mantissa of two words.
    "l4": SMALL | {"elements": 3, "lanes": 4, "gradient": "SQ4.14", "weight": "SQ2.20", "mantissa_bits": 37, "exponent_bits": 9},
}
REAL = {"l8": {"law": "stability_margin", "eta": 0.1, "elements": 100, "lanes": 8, "dead_after": 3}}


@pytest.mark.parametrize("unit", UNITS)
def test_axi(unit: str) -> None:
    simulate("axi", {unit: UNITS[unit]}, simulator="verilator")


@pytest.mark.icarus
def test_axi_icarus() -> None:
    """With fewer units, laws and steps."""
    simulate("axi", {"l3": UNITS["l3"]}, simulator="icarus", effort=EFFORT["icarus"])


@pytest.mark.slow
def test_axi_long() -> None:
    simulate("axi", UNITS | REAL, simulator="verilator", seed=2, effort=2)
