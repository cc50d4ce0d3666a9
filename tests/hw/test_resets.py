"""A reset of another kind or polarity: the same unit otherwise, and what a reset is for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from test_export import OPTIONS, SMALL, needs_yosys

import kappa_rtl.hw.synth.synthesis as synthesis
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import export
from kappa_rtl.sim.cosim import Stalls
from support.lockstep import lockstep


def wrapped(config: ThrottleConfig, reset: str, polarity: str) -> str:
    """The unit behind the ports of the usual one."""
    text, manifest = export(config, name="inner", reset=reset, reset_polarity=polarity)
    names = [port["name"] for port in manifest["ports"]]
    head = re.search(r"^module inner \((.*?)\);", text, re.DOTALL | re.MULTILINE)
    assert head and ("rst_n" in names) is (polarity == "low")
    ports = re.sub(r"\brst_n\b", "rst", head[1]).replace("output reg", "output wire")
    pins = ", ".join(f".{name}({'!rst' if name == 'rst_n' else name})" for name in names)
    return f"{text}\nmodule throttle ({ports});\n  inner unit ({pins});\nendmodule\n"


@pytest.mark.parametrize("polarity", ["high", "low"])
@pytest.mark.parametrize("reset", ["sync", "async"])
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.icarus
def test_a_unit_with_another_reset_is_golden(reset: str, polarity: str) -> None:
    """Every step and register, with stalls."""
    config = OPTIONS["one_pass"]
    lockstep(config, 12, simulator="icarus", stalls=Stalls(60, 60, 3), verilog=wrapped(config, reset, polarity))


MAP = r"""
(* techmap_celltype = "$adff" *)
module to_sync (CLK, ARST, D, Q);
  parameter WIDTH = 1;
  parameter CLK_POLARITY = 1;
  parameter ARST_POLARITY = 1;
  parameter ARST_VALUE = 0;
  input CLK, ARST;
  input [WIDTH-1:0] D;
  output [WIDTH-1:0] Q;
  \$sdff #(.WIDTH(WIDTH), .CLK_POLARITY(CLK_POLARITY), .SRST_POLARITY(ARST_POLARITY), .SRST_VALUE(ARST_VALUE))
    _TECHMAP_REPLACE_ (.CLK(CLK), .SRST(ARST), .D(D), .Q(Q));
endmodule
"""
"""Takes a register with an asynchronous reset for one with the same reset at the clock."""


def proved(usual: str, other: str, folder: Path) -> str:
    """What Yosys says of two units whose registers have the same names: each next state and each output is the same function."""
    (folder / "gold.v").write_text(usual)
    (folder / "gate.v").write_text(other)
    (folder / "map.v").write_text(MAP)
    script = []
    for side in ("gold", "gate"):
        script += [f"read_verilog {side}.v", "hierarchy -top throttle", "proc", "flatten", "memory_map"]
        script += ["techmap -map map.v", "opt_clean", f"rename throttle {side}", f"design -stash {side}"]
    script += [f"design -copy-from {side} -as {side} {side}" for side in ("gold", "gate")]
    # What has no name in the source is numbered, and not the same in both.
    script += [
        "rename -hide " + " ".join(f"{side}/w:{name}" for side in ("gold", "gate") for name in ("n", "n_*", "*.n", "*.n_*"))
    ]
    script += ["equiv_make gold gate equiv", "cd equiv", "opt_clean", "equiv_struct", "equiv_simple", "equiv_status"]
    (folder / "equiv.ys").write_text("\n".join(script) + "\n")
    return synthesis.run("yosys", "equiv.ys", cwd=folder)


@needs_yosys
@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("variant", ["memory", "engine", "axi"])
def test_the_reset_is_all_that_differs(variant: str, tmp_path: Path) -> None:
    """For every state and input; and one register that begins with another value is found."""
    given: dict[str, Any] = {"bus": "axi", "name": "throttle"} if variant == "axi" else {"variant": variant}
    usual = export(SMALL, **given)[0]
    other = export(SMALL, reset="async", reset_polarity="low", **given)[0]
    assert other.count("  wire rst = ~rst_n;\n") == 1 and other.count("rst_n") == 4  # the header has it twice, and the port
    other = other.replace("  wire rst = ~rst_n;\n", "").replace("input wire rst_n", "input wire rst")
    said = proved(usual, other, tmp_path)
    found = re.search(r"Of those cells (\d+) are proven and 0 are unproven", said)
    assert found and int(found[1]) > 2000, said[-2000:]
    begins = re.search(r"(?<=      )hushes <= 1'h1;", other)
    assert begins
    faulty = other[: begins.start()] + "hushes <= 1'h0;" + other[begins.end() :]
    assert re.search(r"and 1 are unproven", proved(usual, faulty, tmp_path))
