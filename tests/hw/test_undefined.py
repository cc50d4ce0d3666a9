# ruff: noqa: E501  a fault a row reads best
"""Nothing undefined leaves the unit after a reset, whatever was in its registers and its memory before."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw import export
from kappa_rtl.sim.benches.undefined import unknown
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.testbench.bank import Bank, simulate
from support.mutants import Mutant, generator

SMALL = {
    **{"law": "stability_margin", "elements": 11, "lanes": 3, "eta": 0.5, "eps": "1/1048576", "dead_after": 3},
    **{"mantissa_bits": 8, "exponent_bits": 6, "step_bits": 9, "gradient": "SQ2.6", "weight": "SQ1.5", "update": "SQ1.7"},
}
UNITS = {kind: SMALL | {"kind": kind} for kind in ("core", "streaming", "axi")}


def test_no_register_keeps_a_value() -> None:
    text = "  reg [3:0] a;\n  initial begin\n    a = 4'h0;\n  end\n  reg signed [A-1:0] x = 0;\n  reg [7:0] m [0:3];\n  assign c = a;\n"
    assert unknown(text) == "  reg [3:0] a;\n  reg signed [A-1:0] x;\n  reg [7:0] m [0:3];\n  assign c = a;\n"


def bank(hardware: ModuleType, kinds: list[str]) -> str:
    config = ThrottleConfig.from_table(SMALL)
    made = {"core": hardware.Throttle, "streaming": hardware.StreamingThrottle, "axi": hardware.AxiThrottle}
    return unknown(hardware.to_verilog(Bank({kind: made[kind](config) for kind in kinds}), "undefined"))


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("kind", UNITS)
def test_every_output_is_defined_after_reset(kind: str) -> None:
    verilog = bank(export, [kind])
    assert not [line for line in verilog.splitlines() if "initial" in line or (line.lstrip().startswith("reg ") and "=" in line)]
    simulate("undefined", {kind: UNITS[kind]}, simulator="icarus", verilog=verilog)


FAULTS = [
    Mutant("units/core.py", "        first = Signal(init=1)\n", "        first = Signal(init=1, reset_less=True)\n", "the first step is not known"),
    Mutant("units/feed.py", "valid = Signal(STAGES)", "valid = Signal(STAGES, reset_less=True)", "the stages' valid bits keep what they were"),
    Mutant("units/core.py", "hushes.eq(applying | first)", "hushes.eq(applying)", "the memory's words count in the first step"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("mutant", FAULTS, ids=lambda mutant: mutant.what.replace(" ", "_"))
def test_every_fault_is_found(mutant: Mutant, tmp_path: Path) -> None:
    name = f"undefined_mutant_{FAULTS.index(mutant)}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verilog = bank(generator(mutant, tmp_path / name), ["core"])
    with pytest.raises(SimulationError, match=r"[1-9]\d* of \d+ tests failed"):
        simulate("undefined", {"core": UNITS["core"]}, simulator="icarus", verilog=verilog)
