"""The generator for FuseSoC, in designs that lie outside the checkout, run by FuseSoC as it is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.bus.axi import AxiThrottle
from kappa_rtl.hw.bus.map import throttle_map
from kappa_rtl.hw.manifest import ports
from kappa_rtl.sim.verilate import verilator_root
from support import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ci,
    pytest.mark.skipif(
        importlib.util.find_spec("fusesoc") is None, reason="fusesoc is not installed: pip install '.[test]' in a checkout"
    ),
]

LAW = {"law": "stability_margin", "exponent_bits": 7, "step_bits": 9}
UNITS: dict[str, dict[str, Any]] = {
    "first_layer": LAW | {"elements": 5, "eta": 0.125, "lanes": 2, "gradient": "SQ3.5", "mantissa_bits": 8},
    "second_layer": LAW | {"elements": 6, "eta": 0.25, "lanes": 3, "mantissa_bits": 9},
}
"""By the module's name the configuration."""

CORE = """\
CAPI=2:
name: ours:design:two:1.0
generate:
  first: {generator: kappa_rtl_export, parameters: {config: first_layer.toml, bus: axi, name: first_layer}}
  second: {generator: kappa_rtl_export, parameters: {config: second_layer.toml, bus: axi, name: second_layer}}
filesets:
  rtl: {depend: ["kappa-rtl:throttle:export"], files: [top.v], file_type: verilogSource}
  bench: {files: [bench.v], file_type: verilogSource}
targets:
  default: &default {filesets: [rtl], generate: [first, second], toplevel: top}
  lint: {<<: *default, flow: lint, flow_options: {tool: verilator, verilator_options: [-Wall]}}
  sim: {<<: *default, filesets: [rtl, bench], toplevel: bench, flow: sim, flow_options: {tool: icarus}}
"""

Ports = list[tuple[str, str, str]]


def config_of(name: str) -> ThrottleConfig:
    return ThrottleConfig.from_table(UNITS[name])


def ports_of(name: str) -> Ports:
    unit = AxiThrottle(config_of(name))
    unit._MustUse__used = True  # only its ports are looked at
    return [(p["direction"], f"[{p['width'] - 1}:0] " if p["width"] > 1 else "", p["name"]) for p in ports(unit)]


def top() -> str:
    """Both units, every port of them led out."""
    listed = {name: ports_of(name) for name in UNITS}
    declared = ",\n".join(f"  {way} {width}{name}_{port}" for name, found in listed.items() for way, width, port in found)
    made = "".join(
        f"  {name} u_{name} ({', '.join(f'.{port}({name}_{port})' for _, _, port in found)});\n" for name, found in listed.items()
    )
    return f"module top (\n{declared}\n);\n{made}endmodule\n"


def bench() -> str:
    """Reads the digest of both units over their buses, all else at rest."""
    wires, pins, reads = "", [], ""
    for name in UNITS:
        for way, width, port in ports_of(name):
            rest = " = 1" if port in ("s_axi_rready", "s_axi_bready", "rst") else " = 0"
            wires += f"  {'reg' if way == 'input' else 'wire'} {width}{name}_{port}{rest if way == 'input' else ''};\n"
            pins.append(f".{name}_{port}({name}_{port})")
        offset = throttle_map(config_of(name))["digest"].offset
        reads += (
            f"    {name}_s_axi_araddr = 12'd{offset}; {name}_s_axi_arvalid = 1;\n"
            f"    @(posedge {name}_clk); @(negedge {name}_clk); {name}_s_axi_arvalid = 0;\n"
            f"    while (!{name}_s_axi_rvalid) @(negedge {name}_clk);\n"
            f'    $display("{name} %h", {name}_s_axi_rdata);\n'
        )
    clocks = "".join(f"  always #5 {name}_clk = !{name}_clk;\n" for name in UNITS)
    resets = "".join(f"    {name}_rst = 0;\n" for name in UNITS)
    return (
        f"`timescale 1ns / 1ns\nmodule bench;\n{wires}{clocks}  top dut ({', '.join(pins)});\n"
        f"  initial begin\n    #52;\n{resets}    #20;\n{reads}    $finish;\n  end\n"
        '  initial begin\n    #5000 $display("late");\n    $finish;\n  end\nendmodule\n'
    )


@pytest.fixture
def design(tmp_path: Path) -> Path:
    """A design in a folder of its own."""
    made = tmp_path / "design"
    made.mkdir()
    for name, table in UNITS.items():
        (made / f"{name}.toml").write_text(tomli_w.dumps({"throttle": table}))
    (made / "two.core").write_text(CORE)
    (made / "top.v").write_text(top())
    (made / "bench.v").write_text(bench())
    return made


def fusesoc(design: Path, target: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), str(verilator_root() / "bin"), os.environ["PATH"]])
    env = os.environ | {"PATH": path} | {f"XDG_{kind}_HOME": str(design / ".." / kind) for kind in ("CONFIG", "CACHE", "DATA")}
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(ROOT), "--cores-root", str(design)]
    command += ["run", "--target", target, "ours:design:two"]
    return subprocess.run(command, cwd=design.parent, env=env, capture_output=True, text=True)


@pytest.mark.skipif(" " in sys.prefix, reason="Verilator's own script cannot start from a path with a space")
def test_two_units_in_one_design_pass_lint(design: Path) -> None:
    done = fusesoc(design, "lint")
    assert done.returncode == 0 and "%Warning" not in done.stdout + done.stderr, done.stdout + done.stderr
    exported = sorted(path.name for path in design.parent.rglob("*_layer.*") if "src" in path.parts)
    assert exported == ["first_layer.v", "second_layer.v"]


@pytest.mark.icarus
def test_two_units_in_one_design_run(design: Path) -> None:
    """Each answers with its own digest."""
    done = fusesoc(design, "sim")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in UNITS:
        assert f"{name} {throttle_map(config_of(name))['digest'].reset:08x}\n" in done.stdout
    assert "late" not in done.stdout


@pytest.mark.parametrize(
    ("right", "wrong", "rule"),
    [
        ("bus: axi, name: first_layer", "buss: axi", r"parameter must be one of config, .*name.*, not 'buss'"),
        ("bus: axi, name: first_layer", "bus: true", "parameter bus must be text, not True"),
        ("bus: axi, name: first_layer", 'streaming: "yes"', "parameter streaming must be true or false, not 'yes'"),
        ("bus: axi, name: first_layer", "bus: apb", "bus must be one of axi, not 'apb'"),
        ("config: first_layer.toml, bus", "bus", "parameter config must be given"),
        ("config: first_layer.toml", "config: third_layer.toml", "third_layer.toml"),
    ],
)
def test_a_wrong_parameter_is_told(right: str, wrong: str, rule: str, design: Path) -> None:
    core = (design / "two.core").read_text()
    assert right in core
    (design / "two.core").write_text(core.replace(right, wrong))
    done = fusesoc(design, "lint")
    assert done.returncode != 0
    assert re.search(rf"error: .*{rule}", done.stdout + done.stderr), done.stdout + done.stderr
