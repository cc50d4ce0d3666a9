# ruff: noqa: E501  a fault a row reads best
"""Single-point faults of what only some units have, and of clears: the watchdog, the exchange between shards, the core of one pass."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_hw_shards
import test_hw_throttle
import test_hw_watchdog
from test_mutants import SIMULATOR

from kappa_rtl.hw.export import export, to_verilog
from kappa_rtl.sim.benches import shards as bench_shards
from kappa_rtl.sim.benches import throttle as bench_throttle
from kappa_rtl.sim.benches import watchdog as bench_watchdog
from kappa_rtl.sim.cosim import RtlThrottle
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.testbench.bank import Bank, simulate
from support.mutants import WRAPS, Mutant, generator
from support.torture import hardware, torture

pytestmark = pytest.mark.slow

ONE_PASS = {"delay": 1, "eta": "0.7"}
NORM, RATIO = {"source": "norm"}, {"source": "ratio"}
GROWTH = {"source": "instant", "growth": True}
LONG = {"elements": 99}
"""So many that the weights of a pass can be held up until the step is decided."""
INTENDED, PROJECTION = {"motion": "intended"}, {"source": "projection"}
WATCHED = {"watchdog": ["gradient_floor", "learning_dead"], "gradient_floor": "0.1"}

IN_THE_LOOP = [
    (ONE_PASS, Mutant("units/onepass.py", "init=config.initial_step", "init=0", "the first step applies nothing")),
    (ONE_PASS, Mutant("units/onepass.py", "Mux(moving, energy_b, energy_a)", "Mux(moving, energy_a, energy_a)", "the next step is prepared from A")),
    (ONE_PASS, Mutant("units/onepass.py", "enters if config.intended else leaves", "enters if config.intended else update.o.valid", "a weight that waits moves in every cycle")),
    (ONE_PASS, Mutant("units/onepass.py", "m.d.sync += first.eq(0)", "m.d.sync += first.eq(first)", "every previous gradient is zero")),
    (ONE_PASS, Mutant("units/feed.py", "memory.write_address.eq(self.places[-1])", "memory.write_address.eq(self.places[0])", "a gradient is stored a word too far in one pass")),
    (ONE_PASS, Mutant("units/onepass.py", "(~last if lane >= self.config.tail", "(~last if lane > self.config.tail", "lanes beyond N are counted")),
    (ONE_PASS, Mutant("units/onepass.py", "later(leaves, f", "later(enters, f", "updates are counted as gradients come in")),
    (ONE_PASS, Mutant("units/onepass.py", "m.d.sync += step.eq(decide.status.step_size)", "m.d.sync += step.eq(step)", "the first step size stays")),
    (ONE_PASS | WRAPS, Mutant("units/onepass.py", "(on | also[lane], near)", "(on, near)", "a weight that wraps is not counted in one pass")),
    (WATCHED, Mutant("units/core.py", "watchdog.energy.eq(floor.o.payload)", "watchdog.energy.eq(energy)", "the floor is looked for in A")),
    (WATCHED, Mutant("units/core.py", "floor.o.ready.eq(watchdog.looked)", "floor.o.ready.eq(1)", "the gradient's sum is gone before the look")),
    (NORM, Mutant("units/core.py", "            if self.changes:\n                m.d.sync += Cat(before)", "            if True:\n                m.d.sync += Cat(before)", "the norm is that of the gradient's change")),
    (RATIO, Mutant("units/core.py", "0 if config.source is Source.RATIO else update.o", "update.o", "the ratio's weights are their change")),
    (RATIO, Mutant("units/core.py", "out.weight[lane] != out.previous[lane] for", "out.weight[lane].any() for", "weights that stay are said to move")),
    (RATIO, Mutant("units/core.py", "out.weight[lane] != out.previous[lane] for", "(lane == 0) & (out.weight[lane] != out.previous[lane]) for", "only lane 0 can move")),
    (RATIO, Mutant("units/core.py", "with m.If(taken):", "with m.If(0):", "what moved once moves for ever")),
    (GROWTH, Mutant("scalar/decide.py", "grows.eq(decided)", "grows.eq(0)", "alpha grows without a cap")),
    (GROWTH, Mutant("scalar/decide.py", "before.eq(status.alpha)", "before.eq(unit.y)", "alpha is compared with itself")),
    (GROWTH, Mutant("scalar/decide.py", "Mux(unit.y.e[0], unit.y.m << 1, unit.y.m)", "unit.y.m", "the root of an odd power is that of the even one below")),
    (GROWTH, Mutant("scalar/clamp.py", 'instead={"grows": Operation.MIN}', 'instead={"grows": Operation.MAX}', "the cap is a floor")),
    (WATCHED, Mutant("units/core.py", "watchdog.clear.eq(self.decide.clear)", "watchdog.clear.eq(0)", "a clear leaves the watchdog alone")),
    (INTENDED, Mutant("units/core.py", "hushes.eq(first & ~applying)", "hushes.eq(0)", "the memory's words count in the first step of an intended motion")),
    (INTENDED, Mutant("units/core.py", "hushes.eq(first & ~applying)", "hushes.eq(applying | first)", "an intended motion is zero")),
    (INTENDED, Mutant("units/core.py", "Cat(self.apply.valid & self.apply.ready, enters)", "Cat(self.apply.valid, enters)", "a direction that waits is summed in every cycle")),
    (INTENDED, Mutant("units/core.py", "subtrahend.eq(joined)", "subtrahend.eq(self.absorb.payload.gradient[lane])", "the gradient is subtracted a beat early")),
    (INTENDED, Mutant("units/core.py", "total.o.valid & counted_all & ~applies", "total.o.valid & ~applies", "the registers come before the new weights are counted")),
    (INTENDED, Mutant("units/core.py", "(counted_all | ended) & ~applies", "counted_all | ended", "the new weights of every step but the first are counted")),
    (INTENDED, Mutant("scalar/decide.py", "scale.e.eq(scale.e - 1)", "scale.e.eq(scale.e)", "small step sizes are taken for large ones")),
    (INTENDED, Mutant("scalar/decide.py", "does[\"alpha\"] if config.delay else takes_b", "does[\"alpha\"]", "the motion is that of the step size before")),
    (INTENDED, Mutant("scalar/decide.py", "stands = ~status.norm_motion.m[-1] if config.intended else status.still", "stands = status.still", "weights that stay are taken for a step of 0")),
    (INTENDED, Mutant("scalar/decide.py", 'else "root_weight": unit.literal(base - fractions["B"])', 'else "root_weight": unit.literal(base - config.grids.weight.fraction_bits)', "the direction is on the weights' grid")),
    (INTENDED | ONE_PASS, Mutant("scalar/decide.py", "Mux(first, config.initial_step, step)", "step", "the first intended motion in one pass is that of the largest step")),
    (INTENDED | ONE_PASS | LONG, Mutant("units/onepass.py", "motion.i.valid.eq(enters if config.intended else leaves)", "motion.i.valid.eq(both)", "a direction that waits is summed in every cycle in one pass")),
    (PROJECTION, Mutant("lanes/norm.py", "m.d.sync += factor.eq(minuend)", "m.d.comb += factor.eq(minuend)", "a change is projected onto the next beat")),
    (PROJECTION, Mutant("units/core.py", "Mux(found[-1], 0, found[:-1])", "found[:-1]", "a curvature below zero is a large one")),
    (PROJECTION, Mutant("scalar/decide.py", 'Do("project", Operation.MUL, "scale"', 'Do("project", Operation.HOLD, "scale"', "a projection is not scaled by the step size")),
    (PROJECTION, Mutant("scalar/ema.py", 'KEEP[0]._replace(store="kept")', 'KEEP[0]._replace(store="kept", x="curvature")', "the average of a projection forgets all")),
    (PROJECTION | ONE_PASS, Mutant("units/onepass.py", "previous if self.projects else gradient", "gradient", "the gradient is projected onto itself")),
]  # fmt: skip

WATCHDOG = [
    Mutant("units/watchdog.py", "self.energy < config.floor_energy", "self.energy <= config.floor_energy", "the floor itself fires"),
    Mutant("units/watchdog.py", "whole = place >= GROWTH_FRACTION", "whole = place >= GROWTH_FRACTION - 1", "a block is half of itself"),
    Mutant("units/watchdog.py", "Cat(above, rest[:half]) > Cat(Const(0, 1), product[:half])", "rest[:half] > product[:half]", "low bits of growth do not matter"),
    Mutant("units/watchdog.py", "high_above | (same & low_above)", "high_above | low_above", "a low half that has grown is enough"),
    Mutant("units/watchdog.py", "with m.If(bit != total[0]):", "with m.If(bit & ~total[0]):", "a low bit once above stays so"),
    Mutant("units/watchdog.py", "Mux(factor[0], before, 0)", "Mux(factor[1], before, 0)", "the factor is half of itself"),
    Mutant("units/watchdog.py", "noted.eq(step)]", "noted.eq(step + 1)]", "the step's number is off by one"),
    Mutant("units/watchdog.py", " & self.mask[bit]", "", "the mask does nothing"),
    Mutant("units/watchdog.py", " & ~fired):", "):", "the last step is noted, not the first"),
    Mutant("units/watchdog.py", "growth.restart.eq(self.looked)", "growth.restart.eq(0)", "a list of blocks goes on in the next step"),
    Mutant("units/watchdog.py", "growth.restart.eq(self.looked)", "growth.restart.eq(self.looked | self.clear)", "a clear ends a list of blocks"),
    Mutant("units/watchdog.py", "self.looked.eq(self.look & growth.i.ready)", "self.looked.eq(self.look)", "the look does not wait for the block under way"),
    Mutant("units/watchdog.py", "[fired.eq(0), noted.eq(0)]", "fired.eq(0)", "a clear leaves the step's number"),
]  # fmt: skip

SHARDS = [
    Mutant("units/shards.py", "whole.eq(whole + word)", "whole.eq(word)", "a partial sum is forgotten"),
    Mutant("units/shards.py", "m.d.sync += [whole.eq(0), turn.eq(1)]", "m.d.sync += turn.eq(1)", "sums add up from step to step"),
    Mutant("units/core.py", "m.d.sync += target.eq(self.total.payload)", "m.d.sync += target.eq(energy)", "a shard keeps its own energy"),
    Mutant("units/core.py", "Mux(applying, energy_b, energy_a) if shares", "total.o.payload if shares", "a shard decides from its own energy"),
]  # fmt: skip

CLEARED = [
    ({}, Mutant("units/core.py", "clears.eq(self.clear & ~publishes)", "clears.eq(self.clear)", "a clear changes registers that are held")),
    ({}, Mutant("units/core.py", "clears.eq(self.clear & ~publishes)", "clears.eq(self.clear & ~offers)", "a clear just before the registers come changes them")),
    ({"delay": 1}, Mutant("units/onepass.py", "~(either(closing) | held)", "~held", "a clear just before the registers come changes them in one pass")),
    ({"delay": 1}, Mutant("units/onepass.py", "~(either(closing) | held)", "~either(closing)", "a clear changes registers that are held in one pass")),
]  # fmt: skip

ALONG = [
    ("intended", Mutant("units/core.py", "Cat(offered[:bits], above, moved)", "offered[:bits]", "a shard does not tell that its weights moved")),
    ("intended", Mutant("units/core.py", "self.moved_anywhere.eq(total[bits:].any())", "self.moved_anywhere.eq(moved)", "a shard looks at its own weights alone")),
    ("projection", Mutant("units/core.py", "self._energy(total.as_signed()) if self.sum.projects else total", "total", "a sum below zero is a large one between shards")),
    ("intended_one_pass", Mutant("units/core.py", "Cat(offered[:bits], above, moved)", "Cat(offered[:bits], moved)", "that a weight moved is said in a bit of B")),
    ("mixed", Mutant("units/core.py", "energy << shift if shift", "energy if shift", "shards of several formats add up integers of several grids")),
    ("mixed_applied", Mutant("units/core.py", 'if state == "SHARE A" else self.config.motion_shift', 'if state == "SHARE A" else self.config.gradient_shift', "B is brought onto A's grid")),
    ("mixed_applied", Mutant("units/core.py", 'self.config.gradient_shift if state == "SHARE A"', 'self.config.motion_shift if state == "SHARE A"', "A is brought onto B's grid")),
    ("projection_one_pass", Mutant("units/onepass.py", "part_a if self.projects else energy_a, energy_a", "energy_a, energy_a", "a shard's part below zero does not count in one pass")),
]  # fmt: skip
"""Of shards with an intended motion, by unit."""

HELD = (
    {"delay": 1, "motion": "intended", "step_bits": 8},
    Mutant("units/onepass.py", "motion.o.valid & gone if", "motion.o.valid if", "a pass ends before its weights are counted"),
)
"""What only weights show that are held up for longer than a step is decided."""

FAULTS = [mutant for _, mutant in [*IN_THE_LOOP, *CLEARED, *ALONG, HELD]] + WATCHDOG + SHARDS


def name(case: Any) -> str:
    return (case if isinstance(case, Mutant) else case[1]).what.replace(" ", "_")


def test_each_is_one() -> None:
    assert len({(m.file, m.old, m.new) for m in FAULTS}) == len({m.what for m in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize("case", IN_THE_LOOP, ids=name)
def test_killed_in_the_loop(case: tuple[dict[str, Any], Mutant], tmp_path: Path) -> None:
    options, mutant = case
    config = hardware(**options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fault may leave a signal unused
        text, _ = generator(mutant, tmp_path / f"loop_{IN_THE_LOOP.index(case)}").export(config)
    assert text != export(config)[0], "the fault leaves the Verilog as it was"
    with RtlThrottle(config, np.zeros(config.elements), simulator=SIMULATOR, verilog=text) as rtl:
        assert torture(rtl, **options) is not None, f"{mutant.what}: survives"


@pytest.mark.parametrize("mutant", WATCHDOG, ids=name)
def test_killed_in_the_watchdog(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"watchdog_{WATCHDOG.index(mutant)}"
    generator(mutant, tmp_path / package)
    monkeypatch.setattr(bench_watchdog, "Watchdog", sys.modules[f"{package}.hw.units.watchdog"].Watchdog)
    killed("watchdog", {"all": bench_watchdog.component(**test_hw_watchdog.UNITS["all"])}, test_hw_watchdog.UNITS)


@pytest.mark.parametrize("mutant", SHARDS, ids=name)
def test_killed_between_shards(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"shards_{SHARDS.index(mutant)}"
    faulty = generator(mutant, tmp_path / package)
    monkeypatch.setattr(bench_shards, "unit", faulty.unit)
    if mutant.file == "units/shards.py":
        sys.path.insert(0, str(tmp_path))
        try:
            monkeypatch.setattr(bench_shards, "Exchange", importlib.import_module(f"{package}.hw.units.shards").Exchange)
        finally:
            sys.path.remove(str(tmp_path))
    killed("shards", {"two": bench_shards.component(**test_hw_shards.UNITS["two"])}, test_hw_shards.UNITS)


@pytest.mark.parametrize("case", ALONG, ids=name)
def test_killed_between_shards_of_an_intended_motion(
    case: tuple[str, Mutant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, mutant = case
    monkeypatch.setattr(bench_shards, "unit", generator(mutant, tmp_path / f"along_{ALONG.index(case)}").unit)
    killed("shards", {unit: bench_shards.component(**test_hw_shards.UNITS[unit])}, test_hw_shards.UNITS)


@pytest.mark.parametrize("case", CLEARED, ids=name)
def test_killed_by_a_clear(case: tuple[dict[str, Any], Mutant], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, mutant = case
    unit = {"l3": test_hw_throttle.UNITS["l3"] | options}
    monkeypatch.setattr(bench_throttle, "unit", generator(mutant, tmp_path / f"cleared_{CLEARED.index(case)}").unit)
    killed("throttle", {"l3": bench_throttle.component(**unit["l3"])}, unit, only="clear_as_the_registers_come", effort=1)


def test_killed_by_weights_that_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, mutant = HELD
    unit = {"l3": test_hw_throttle.UNITS["l3"] | options}
    monkeypatch.setattr(bench_throttle, "unit", generator(mutant, tmp_path / "held").unit)
    killed("throttle", {"l3": bench_throttle.component(**unit["l3"])}, unit, only="weights_held_up")


def killed(stem: str, faulty: dict[str, Any], units: dict[str, Any], only: str = "", effort: int = 0) -> None:
    """See that the bench fails on a bank of faulty components."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = to_verilog(Bank(faulty), stem)
    with pytest.raises(SimulationError) as fault:
        simulate(stem, {one: units[one] for one in faulty}, simulator=SIMULATOR, effort=effort, only=only, verilog=text)
    assert any(sign in str(fault.value) for sign in ("Mismatch", "AssertionError", "RuleViolation")), str(fault.value)
