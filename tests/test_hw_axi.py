"""The unit on AXI, on its exported Verilog, with the masters of cocotbext-axi."""

from __future__ import annotations

from kappa_rtl.sim.bench import simulate

SMALL = {
    **{"law": "stability_margin", "eta": 0.5, "eps": "1/1048576", "dead_after": 3},
    **{"mantissa_bits": 8, "exponent_bits": 6, "step_bits": 9, "gradient": "SQ2.6", "weight": "SQ1.5", "update": "SQ1.7"},
}
UNITS = {"l3": SMALL | {"elements": 11, "lanes": 3}}


def test_axi() -> None:
    simulate("axi", UNITS, simulator="verilator")
