"""Bytes an element: computed from the ports, and counted where the exported unit takes and gives beats."""

from __future__ import annotations

import gc
import re
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import UnusedElaboratable
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import export
from kappa_rtl.hw.synth.bandwidth import designs, traffic, units
from kappa_rtl.hw.units.core import StreamingThrottle
from kappa_rtl.hw.units.engine import ThrottleEngine
from kappa_rtl.hw.units.throttle import Throttle
from kappa_rtl.scripts.main import main

DEFAULT = ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8)
ODD = DEFAULT.replace(elements=11, lanes=3, gradient="SQ4.8", weight="SQ2.14", update="SQ1.9")
VARIANTS = {"streaming": StreamingThrottle, "memory": Throttle, "engine": ThrottleEngine}


@pytest.fixture(autouse=True)
def made_for_their_ports_alone() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        yield
        gc.collect()


def test_bytes_at_16_bits() -> None:
    assert list(designs(DEFAULT).values()) == [18, 10, 8, 8, 6]
    assert [unit.bytes for unit in units(DEFAULT)] == [10, 8, 6, 4, 2]


def test_rate() -> None:
    """A beat a cycle in each of two passes, and what the scalar part takes."""
    unit = traffic(Throttle(DEFAULT), "core")
    assert unit.rate(200.0) == 640 / unit.step_cycles * 200
    with pytest.raises(ValueError, match=r"^fields must be among gradient, weights, updated.weight, not theta$"):
        unit.without("no such unit", "theta")


def counted(variant: str, config: ThrottleConfig, folder: Path) -> dict[str, int]:
    """Bits that pass each field of each vector stream of the exported unit until its registers come, in the first step."""
    text, manifest = export(config, variant=variant)
    ports = {port["name"]: port for port in manifest["ports"]}
    found = {name.removesuffix("_tvalid"): name for name in ports if name.endswith("_tvalid")}
    streams = {name.split("_axis_")[1]: name for name in sorted(found) if name != "m_axis_registers"}
    words = manifest["host"]["words"]
    lines, wires = [], []
    for name, port in ports.items():
        prefix, _, kind = name.rpartition("_")
        stream = prefix.partition("_axis_")[2]
        lines.append(f".{name}({name})")
        if name in ("clk", "rst"):
            continue
        value = "1'b0" if name == "m_axis_registers_tready" else None
        if port["direction"] == "input" and value is None:
            if kind == "tready":
                value = "1'b1"
            elif stream in streams and kind == "tvalid":  # beats of one step: with fewer it hangs
                value = "1'b0" if stream == "read" else f"beats_{stream} < {config.beats}"
            else:
                value = f"{port['width']}'d{words.get(name, 0)}"
        wires.append(f"  wire [{port['width'] - 1}:0] {name}" + (f" = {value};" if value else ";"))
    count = "".join(f"    if (!rst && {p}_tvalid && {p}_tready) beats_{s} = beats_{s} + 1;\n" for s, p in streams.items())
    show = "".join(f'      $display("{s} %0d", beats_{s});\n' for s in streams)
    (folder / "bench.v").write_text(f"""
module bench;
  reg clk = 0, rst = 1;
  always #1 clk = !clk;
  initial begin #8 rst = 0; #20000 $display("hung"); $finish; end
  integer {", ".join(f"beats_{s} = 0" for s in streams)};
{chr(10).join(wires)}
  throttle dut ({", ".join(lines)});
  always @(posedge clk) begin
{count}    if (!rst && m_axis_registers_tvalid) begin
{show}      $finish;
    end
  end
endmodule
""")
    (folder / "throttle.v").write_text(text)
    command = ["iverilog", "-g2005", "-o", "bench.vvp", "-s", "bench", "bench.v", "throttle.v"]
    subprocess.run(command, cwd=folder, check=True)
    done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True, check=True)
    beats = {name: int(number) for name, number in re.findall(r"^(\w+) (\d+)$", done.stdout, re.MULTILINE)}
    assert set(beats) == set(streams), done.stdout
    bits: dict[str, int] = {}
    for name, prefix in streams.items():
        for leaf in ports.get(f"{prefix}_tdata", {}).get("bits", []):
            field = f"{name}.{leaf['name'].split('[')[0]}".removesuffix(".")
            bits[field] = bits.get(field, 0) + leaf["width"] * beats[name]
    return bits


@pytest.mark.slow
@pytest.mark.icarus
@pytest.mark.parametrize("variant", VARIANTS)
def test_beats_are_counted(variant: str, tmp_path: Path) -> None:
    found = counted(variant, ODD, tmp_path)
    kind: Any = VARIANTS[variant]
    unit = traffic(kind(ODD), variant)
    words = 4 * 3  # beats of three lanes, eleven elements
    aside = {"updated.update": words * 10, "load": words * 16, "stored": 0}
    assert found == dict(unit.bits) | {name: bits for name, bits in aside.items() if name in found}
    assert set(unit.bits) <= set(found)


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    """A table without a clock where nothing was placed."""
    path = tmp_path / "12.toml"
    path.write_text('[throttle]\nlaw = "stability_margin"\nelements = 12\neta = 0.1\ngradient = "SQ4.8"\nweight = "SQ2.10"\n')
    arguments = [
        "synth",
        "--config",
        str(path),
        "--only",
        "^divider",
        "--seeds",
        "0",
        "--lanes",
        "4",
        "--bandwidth",
        "12",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert re.search(r"^two passes with copies +13.5 +889 +– +–$", done.output, re.MULTILINE)
    assert re.search(r"^core with gradient memory +4.5 +2667 +– +–$", done.output, re.MULTILINE)
