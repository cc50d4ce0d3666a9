# ruff: noqa: E501  a fault a row reads best
"""Single-point faults of what only units with segments have: the table, its tags, the masks, the shift behind the adder tree."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import test_hw_throttle
from test_mutants import SIMULATOR

from kappa_rtl.hw.export import to_verilog
from kappa_rtl.sim.benches import throttle as bench
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.testbench.bank import Bank, simulate
from support.mutants import Mutant, generator

pytestmark = pytest.mark.slow

TABLE, STREAMING, RANDOM = "table", "streaming", "random"

FAULTS = [
    (TABLE, Mutant("units/segments.py", "ends = left <= lanes", "ends = left < lanes", "a full last beat is followed by an empty one")),
    (TABLE, Mutant("units/segments.py", "left[:bits] <= lane", "left[:bits] < lane", "the first lane beyond a segment is inside")),
    (TABLE, Mutant("units/segments.py", "few & (left[:bits]", "(left[:bits]", "full beats have lanes beyond them")),
    (TABLE, Mutant("units/segments.py", "few = ~left[bits:].any()", "few = ~left[bits + 1 :].any()", "a beat of more elements than lanes is not full")),
    (TABLE, Mutant("units/segments.py", "left.eq(left - lanes)", "left.eq(left - 1)", "a beat is one element")),
    (TABLE, Mutant("units/segments.py", "made.shift.eq(config.scale_max - front.scale)", "made.shift.eq(front.scale)", "fine segments count for more, not for less")),
    (TABLE, Mutant("units/segments.py", "made.shift.eq(config.scale_max - front.scale)", "made.shift.eq(config.scale_max - following.scale)", "a segment has the scale of the next one")),
    (TABLE, Mutant("units/segments.py", "((following.elements == 0) | home[1 % count])", "(following.elements == 0)", "a full table never ends")),
    (TABLE, Mutant("units/segments.py", "((following.elements == 0) | home[1 % count])", "home[1 % count]", "entries that are not in use have beats")),
    (TABLE, Mutant("units/segments.py", "with m.If(home[0]):", "with m.If(1):", "the next pass begins where this one ended")),
    (TABLE, Mutant("units/segments.py", "m.d.sync += left.eq(following.elements)", "m.d.sync += left.eq(front.elements)", "every segment has the size of the one before it")),
    (TABLE, Mutant("units/segments.py", "m.d.sync += left.eq(front.elements)", "m.d.sync += left.eq(left)", "a new table is seen in the second pass only")),
    (TABLE, Mutant("units/segments.py", "with m.If(~held | self.tags.ready):", "with m.If(1):", "a tag that waits is lost")),
    (TABLE, Mutant("units/core.py", "self._mask(m, lane, minuends[0])", "pass", "the direction beyond a segment is in B")),
    (TABLE, Mutant("units/core.py", "self._mask(m, lane, joined)", "pass", "the gradient beyond a segment is in A, and counted")),
    (TABLE, Mutant("units/core.py", '"entered_shift", self._tag.shift, JOINING)', '"entered_shift", self._tag.shift, JOINING - 1)', "the shift comes a beat early")),
    (STREAMING, Mutant("units/core.py", "self._mask(m, lane, before[0])", "None", "the gradient before, beyond a segment, is in A")),
    (STREAMING, Mutant("units/core.py", "late if config.intended else Mux(applying, update.o.payload.shift, late)", "late", "an applied change has the shift of what enters")),
    (STREAMING, Mutant("lanes/update.py", "& outside[-1][lane]):", "& outside[-2][lane]):", "the mask comes a stage early")),
    (
        STREAMING,
        Mutant("lanes/update.py", "with m.If((empty | self.o.ready) & outside[-1]", "with m.If(outside[-1]", "it masks a beat that waits"),
    ),
    (STREAMING, Mutant("lanes/update.py", "m.d.sync += Cat(outside).eq(0)", "pass", "gradients are masked as the last weights were")),
    (STREAMING, Mutant("lanes/norm.py", "terms[0] << (2 << bit)", "terms[0] << (1 << bit)", "a square is shifted by half")),
    (STREAMING, Mutant("lanes/norm.py", "range(self.latency - 1 - self.shift_bits)", "range(self.latency - 2 - self.shift_bits)", "a shift is a beat early at the tree")),
    (RANDOM, Mutant("units/throttle.py", "core.update.o.payload.last if config.segments else written == feed.last", "written == feed.last", "residuals are stored where another layout ends")),
    (RANDOM, Mutant("units/feed.py", "core.absorb.payload.tag.eq(self.tags[-1])", "core.absorb.payload.tag.eq(self.tags[0])", "a gradient has the tag of one that follows")),
    (RANDOM, Mutant("units/core.py", "*([floor.i.payload.shift.eq(self.sum.i.payload.shift)] if floor.shift_bits else [])", "*[]", "the watched norm is of unaligned squares")),
]  # fmt: skip


@pytest.mark.parametrize("case", FAULTS, ids=lambda case: f"{case[0]}: {case[1].what}")
def test_killed(case: tuple[str, Mutant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a run of several layouts, or by the watchdog's."""
    unit, mutant = case
    monkeypatch.setattr(bench, "unit", generator(mutant, tmp_path / f"segments_{FAULTS.index(case)}").unit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = to_verilog(Bank({unit: bench.component(**test_hw_throttle.SEGMENTED[unit])}), "throttle")
    only = "watchdog" if "watchdog" in str(mutant.what) or "watched" in str(mutant.what) else "another_layout"
    with pytest.raises(SimulationError) as fault:
        simulate("throttle", {unit: test_hw_throttle.SEGMENTED[unit]}, simulator=SIMULATOR, effort=1, only=only, verilog=text)
    assert any(sign in str(fault.value) for sign in ("Mismatch", "AssertionError", "RuleViolation")), str(fault.value)
