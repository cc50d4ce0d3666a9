"""The account of energies, counted by hand: a small library with round numbers, and changes that are given."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kappa_rtl.hw.energy.account import PORTS, Energy, account, transitions
from kappa_rtl.hw.energy.activity import Activity
from kappa_rtl.hw.energy.figures import Figures, figures, group_of, parts_table, runs_table
from kappa_rtl.hw.energy.gating import Gating, gating
from kappa_rtl.hw.energy.library import Library, Table
from kappa_rtl.hw.energy.netlist import TOP, Gate, Netlist, Port, part_of

pytest.importorskip("liberty", reason="liberty-parser is not installed: pip install '.[synth]' in a checkout")

LIBERTY = """
library(small) {
  time_unit : "1ns"; voltage_unit : "1V"; capacitive_load_unit (1,pf); nom_voltage : 2;
  lu_table_template(delay) { variable_1 : total_output_net_capacitance; variable_2 : input_net_transition; }
  power_lut_template(energy) { variable_1 : total_output_net_capacitance; variable_2 : input_transition_time; }
  power_lut_template(passive) { variable_1 : input_transition_time; }
  cell (INV) {
    pin(A) { direction : input; capacitance : 0.02; }
    pin(Y) { direction : output;
      timing() { related_pin : "A";
        rise_transition(delay) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("0.1, 0.1", "1.1, 1.1"); }
        fall_transition(delay) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("0.3, 0.3", "1.3, 1.3"); } }
      internal_power() { related_pin : "A";
        rise_power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("1, 2", "3, 4"); }
        fall_power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("0, 0", "0, 0"); } } } }
  cell (AND) {
    pin(A) { direction : input; capacitance : 0.04; }
    pin(B) { direction : input; capacitance : 0.06; }
    pin(Y) { direction : output;
      internal_power() { related_pin : "A";
        rise_power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("1, 1", "1, 1"); }
        fall_power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("1, 1", "1, 1"); } }
      internal_power() { related_pin : "B";
        rise_power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("5, 5", "5, 5"); }
        fall_power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("5, 5", "5, 5"); } } } }
  cell (DFF) { ff (IQ,IQN) { next_state : "D"; clocked_on : "CLK"; }
    pin(CLK) { direction : input; clock : true; capacitance : 0.1; rise_capacitance : 0.2; fall_capacitance : 0.1;
      internal_power() { rise_power(passive) { index_1 ("0.1, 1"); values ("0.5, 1"); }
                         fall_power(passive) { index_1 ("0.1, 1"); values ("0.25, 1"); } } }
    pin(D) { direction : input; capacitance : 0.01; }
    pin(Q) { direction : output;
      internal_power() { related_pin : "CLK";
        power(energy) { index_1 ("0, 1"); index_2 ("0.1, 1.1"); values ("2, 2", "2, 2"); } } } }
}
"""


@pytest.fixture
def library(tmp_path: Path) -> Library:
    path = tmp_path / "small.lib"
    path.write_text(LIBERTY)
    return Library.read(path)


# The clock is net 2, an input 3; a register 4 of part `a`, whose output an inverter of part `b` turns into 5; 6 is 3 & 5.
NETLIST = Netlist(
    "small",
    (Port("clk", False, (2,)), Port("d", False, (3,)), Port("q", True, (6,))),
    (
        Gate("DFF", "a", {"CLK": 2, "D": 3, "Q": 4}),
        Gate("INV", "b.inner", {"A": 4, "Y": 5}),
        Gate("AND", "b", {"A": 3, "B": 5, "Y": 6}),
        Gate("DFF", "a", {"CLK": 2, "D": "1", "Q": 7}),
    ),
    {"fsm_state": (4,)},
)


def activity(rises: list[int], falls: list[int], changes: list[list[int]]) -> Activity:
    up, down = np.array(rises), np.array(falls)
    nets, registers = np.array(NETLIST.nets), np.array([4, 7])
    return Activity(nets, up, down, up // 2, down // 2, registers, np.zeros(2, bool), np.array(changes, bool))


CHANGES = [[1, 0], [0, 0], [1, 0], [0, 0]]
COUNTED = activity([4, 3, 2, 1, 2, 0], [4, 1, 1, 2, 3, 0], CHANGES)


def test_a_library_is_read(library: Library) -> None:
    assert (library.name, library.voltage) == ("small", 2)
    assert [cell.name for cell in library.cells.values() if cell.is_register] == ["DFF"]
    clock, output = library["DFF"].pins["CLK"], library["INV"].pins["Y"]
    assert clock.is_clock and (clock.rise_capacitance, clock.fall_capacitance) == (0.2, 0.1)
    assert output.is_output and output.energies[0].related == "A"
    both = library["DFF"].pins["Q"].energies[0]  # of one table for either edge
    assert both.rise.values.tolist() == both.fall.values.tolist() == [[2, 2], [2, 2]]
    with pytest.raises(ValueError, match=r"^cells must be those of small, not 'NOR'"):
        library["NOR"]


@pytest.mark.parametrize(
    ("load", "time", "value"),
    [(0, 0.1, 1), (1, 0.1, 3), (0.5, 0.6, 2.5), (0, 1.1, 2), (-1, 0, 1), (9, 9, 4), (0.25, 9, 2.5)],
)
def test_tables_are_linear_and_end_at_their_edges(library: Library, load: float, time: float, value: float) -> None:
    table = library["INV"].pins["Y"].energies[0].rise
    assert table.at(np.array([load]), np.array([time])).tolist() == pytest.approx([value])


def test_a_table_of_time_alone() -> None:
    table = Table(np.zeros(1), np.array([1.0, 3.0]), np.array([[10.0, 30.0]]))
    assert table.at(np.array([5.0, 0.0]), np.array([2.0, 0.0])).tolist() == [20, 10]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"1ns"', '"1ps"', r"^time_unit of .* must be 1ns, not 1ps"),
        ("(1,pf)", "(1,ff)", r"^capacitive_load_unit of .* must be \('1', 'pf'\), not"),
        (
            "variable_2 : input_transition_time",
            "variable_2 : equal_or_opposite_output_net_capacitance",
            r"^tables of power and tr",
        ),
        ("library(small) {", "library(", r"^liberty must be a cell library, not"),
    ],
)
def test_other_libraries_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "other.lib"
    path.write_text(LIBERTY.replace(old, new))
    with pytest.raises(ValueError, match=message):
        Library.read(path)


def test_transitions_are_handed_on(library: Library) -> None:
    """The inverter drives .06 pF: .16 ns as it rises, .36 as it falls. All else has the library's shortest time, .1."""
    found = transitions(NETLIST, library)
    assert found == pytest.approx({2: 0.1, 3: 0.1, 4: 0.1, 5: 0.26, 6: 0.1, 7: 0.1})


def test_energies_counted_by_hand(library: Library) -> None:
    """With 2 V a pF costs 2 pJ a change.

    Clock, 4 rises and 4 falls: of each register 4 * (.5 + .2 * 2) + 4 * (.25 + .1 * 2) = 5.4. Net 3 from outside, 4 changes:
    pins of .01 and .04 pF. Net 4, 2 rises and 1 fall of a register at 2 pJ each, into .02 pF. Net 5, one rise and two falls: a
    rise takes 1 + 2 * .06 inside at .1 ns; it drives .06 pF. Net 6, 5 changes: 4 and 3 of its inputs, at 1 and 5 pJ.
    """
    found = account(NETLIST, library, COUNTED)
    assert found.keys() == {"a", "b", "b.inner", PORTS}
    assert found["a"] == pytest.approx(Energy(10.8, 6, 3 * 0.02 * 2))
    assert found["b.inner"] == pytest.approx(Energy(0, 1.12, 3 * 0.06 * 2))
    assert found["b"] == pytest.approx(Energy(0, 5 * (4 / 7 * 1 + 3 / 7 * 5), 0))
    assert found[PORTS] == pytest.approx(Energy(0, 0, 4 * 0.05 * 2))
    assert found["a"].data == pytest.approx(6.12)


def test_activity_must_be_of_the_netlist(library: Library) -> None:
    with pytest.raises(ValueError, match=r"^activity must be that of all nets"):
        account(replace(NETLIST, gates=NETLIST.gates[:1]), library, COUNTED)


def test_gating_counts_the_cycles_that_are_needed(library: Library) -> None:
    """The state is 0 as the first edge comes, 1 at the next two, and 0 at the last: three visits, of which two have a change."""
    assert COUNTED.values((4,)).ravel().tolist() == [False, True, True, False]
    assert gating(NETLIST, library, COUNTED, str) == {"a": Gating(registers=2, changes=2, ideal=2, busy=2)}
    both = activity([0] * 6, [0] * 6, [[0, 1], [0, 0], [0, 1], [0, 0]])
    assert gating(NETLIST, library, both, str)["a"] == Gating(2, 2, 2, 3)  # one visit, with a pause in it
    with pytest.raises(ValueError, match=r"^netlist must have kept the register fsm_state"):
        gating(replace(NETLIST, words={}), library, COUNTED, str)
    with pytest.raises(ValueError, match=r"^activity must keep the changes of all registers"):
        gating(replace(NETLIST, gates=NETLIST.gates[:3]), library, COUNTED, str)


def test_figures_and_tables(library: Library) -> None:
    about = {"weight": "8 bits", "rounding": "nearest", "elements": 2, "lanes": 1, "step": 3, "moved": 1}
    found = figures(NETLIST, library, COUNTED, **about)
    assert list(found.parts) == ["a", "b", "inputs"]
    assert (found.cycles, found.cells, found.registers, found.toggles) == (4, 4, 2, 23)
    assert found.clock == pytest.approx(10.8) and found.ideal == pytest.approx(5.4) and found.busy == pytest.approx(5.4)
    assert found.single == pytest.approx(10.8 * 2 / 8)
    assert Figures.from_json(json.loads(json.dumps(found.to_json()))) == found
    head, row = runs_table([found])
    assert len(head) == len(row) and row[:6] == ("8 bits", "nearest", "4", "2", "4", "1 of 2")
    assert {len(row) for row in parts_table(found)} == {7}


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        (r"$flatten\decide.\unit.\divider.$abc$1$2", "decide.unit.divider"),
        (r"$flatten\sum.$auto$ff.cc:337:slice$4404", "sum"),
        ("$abc$53140$blif$53140$160", TOP),
        ("$auto$ff.cc:337:slice$1", TOP),
    ],
)
def test_a_cell_knows_its_part(cell: str, part: str) -> None:
    assert part_of(cell) == part


def test_parts_have_names() -> None:
    assert group_of("decide.unit.divider.adder") == "divider"
    assert (group_of("update.generator0"), group_of("update"), group_of("watchdog.x")) == ("random numbers", "update", "watchdog")


def test_undefined_bits_are_refused() -> None:
    module = {"ports": {}, "netnames": {}, "cells": {"g": {"type": "INV", "connections": {"A": ["x"], "Y": [2]}}}}
    with pytest.raises(ValueError, match=r"^the netlist must have no undefined bits, not 'x' at pin A of g"):
        Netlist.of_json(json.dumps({"modules": {"small": module}}), "small")


def test_the_verilog_of_a_netlist() -> None:
    text = NETLIST.to_verilog("  // more")
    assert "DFF g0 (.CLK(n2), .D(n3), .Q(n4));" in text and "DFF g3 (.CLK(n2), .D(1'b1), .Q(n7));" in text
    assert "assign n2 = clk[0];" in text and "assign q[0] = n6;" in text and text.endswith("  // more\nendmodule\n")
