"""The agents of the benches: what they send, what they find, and that nothing escapes them."""

from __future__ import annotations

import re

import pytest
from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from kappa_rtl.golden.formats import Scalar, ScalarFormat
from kappa_rtl.hw.scalar.operations import scalar_layout
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.testbench.bank import simulate
from kappa_rtl.sim.testbench.scoreboard import Mismatch, Scoreboard
from kappa_rtl.sim.testbench.stream import pack, unpack
from support.simulators import SIMULATORS

# A register between two streams. Each offender is this text with some of it replaced.
HONEST = """
module {name} (
  input clk, input rst, input [3:0] s_axis_i_tdata, input s_axis_i_tvalid, output s_axis_i_tready,
  output [3:0] m_axis_o_tdata, output m_axis_o_tvalid, input m_axis_o_tready
);
  reg full = 0;
  reg seen = 0;
  reg again = 0;
  reg [2:0] beat = 0;
  reg [3:0] never;
  reg [3:0] word = 0;
  assign s_axis_i_tready = !full;
  assign m_axis_o_tdata = word;
  assign m_axis_o_tvalid = full;
  always @(posedge clk) begin
    beat <= beat + 1;
    seen <= m_axis_o_tready;
    if (rst) full <= 0;
    else if (!full) begin
      full <= s_axis_i_tvalid;
      word <= s_axis_i_tdata;
      again <= 1;
    end else if (m_axis_o_tvalid && m_axis_o_tready) begin
      full <= 0;
    end
  end
endmodule
"""
OFFENDERS = {
    "honest": ("", "", ""),
    "restless": ("= word;", "= word ^ {3'b0, beat[2]};", "the payload must stay until it is taken"),
    "fickle": ("valid = full;", "valid = full && beat != 3;", "valid must stay until the payload is taken"),
    "waiting": ("valid = full;", "valid = full && seen;", "valid must not wait for ready"),
    "coupled": ("valid = full;", "valid = full && m_axis_o_tready;", "valid must not depend on ready"),
    "coy": ("= word;", "= m_axis_o_tready ? word : 4'b1;", "the payload must not depend on ready"),
    "stuttering": ("full <= 0;\n    end\n  end", "full <= again; again <= 0;\n    end\n  end", "must be"),
    "forgetful": ("full <= s_axis_i_tvalid;", "full <= s_axis_i_tvalid && s_axis_i_tdata != 14;", "must be"),
    "mistaken": ("word <= s_axis_i_tdata;", "word <= s_axis_i_tdata | 1;", "must be"),
}
UNDEFINED = {"undefined": ("= word;", "= word ^ never;", "every bit of a valid payload must be defined")}


def verilog(offenders: dict[str, tuple[str, str, str]]) -> str:
    """All of them in one module, as a bank of components has it."""
    inputs, outputs = (
        ("s_axis_i_tdata", "s_axis_i_tvalid", "m_axis_o_tready"),
        ("m_axis_o_tdata", "m_axis_o_tvalid", "s_axis_i_tready"),
    )
    wires = [
        (name, port, "[3:0] " if "tdata" in port else "", "input" if port in inputs else "output")
        for name in offenders
        for port in inputs + outputs
    ]
    ports = ", ".join(f"{direction} {width}{name}_{port}" for name, port, width, direction in wires)
    modules, instances = [], []
    for name, (old, new, _) in offenders.items():
        text = HONEST.replace("{name}", name)
        assert text.count(old) == 1 or not old, name
        modules.append(text.replace(old, new) if old else text)
        pins = ", ".join(f".{port}({name}_{port})" for port in inputs + outputs)
        instances.append(f"  {name} {name}_ (.clk(clk), .rst(rst), {pins});")
    return (
        "/* verilator lint_off UNUSEDSIGNAL */\n/* verilator lint_off UNDRIVEN */\n/* verilator lint_off DECLFILENAME */\n"
        + "\n".join([*modules, f"module stream (input clk, input rst, {ports});", *instances, "endmodule", ""])
    )


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_the_checker_finds_offenders(simulator: str) -> None:
    offenders = OFFENDERS | (UNDEFINED if simulator != "verilator" else {})  # Verilator knows no undefined bits
    simulate(
        "stream",
        {name: {"offence": rule} for name, (_, _, rule) in offenders.items()},
        simulator=simulator,
        verilog=verilog(offenders),
    )


def test_a_failure_in_the_simulator_is_a_failure_here() -> None:
    """And tells the component, the seed and the rule."""
    offender = {"fickle": OFFENDERS["fickle"]}
    with pytest.raises(
        SimulationError,
        match=r"1 of 1 tests failed(.|\n)*fickle must be accused that 'nothing'.*fickle, seed 7: fickle_m_axis_o, cycle",
    ):
        simulate(
            "stream",
            {"fickle": {"offence": "nothing"}},
            simulator="verilator",
            seed=7,
            only="offenders",
            verilog=verilog(offender),
        )


def test_payloads_pack_and_unpack() -> None:
    layout = data.StructLayout({"a": data.ArrayLayout(signed(3), 2), "last": 1, "x": scalar_layout(ScalarFormat(4, 6))})
    value = {"a": [-4, 3], "last": 1, "x": Scalar(9, -2)}
    word = pack(layout, value)
    assert word == layout.const({"a": [-4, 3], "last": 1, "x": {"m": 9, "e": -2}}).as_bits()
    assert unpack(layout, word) == {"a": [-4, 3], "last": 1, "x": {"m": 9, "e": -2}}
    assert unpack(unsigned(4), pack(unsigned(4), -1)) == 15


def test_scoreboard() -> None:
    board = Scoreboard("o", "m4, seed 1: ")
    board.expect({"x": Scalar(8, -2)}, "1 + 1")
    board.expect([1, 2])
    board.observe({"x": {"m": 8, "e": -2}, "left": 5})
    with pytest.raises(Mismatch, match=re.escape("m4, seed 1: o[1] of value 1 must be 2 (0x2), not 3 (0x3)")):
        board.observe([1, 3])
    board.drained()
    with pytest.raises(Mismatch, match=r"nothing was expected after 1 values, but 7 \(0x7\) came"):
        board.observe(7)
    board.expect(1)
    with pytest.raises(Mismatch, match="1 of 2 values never came"):
        board.drained()
