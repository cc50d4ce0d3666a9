"""Every single-point fault of the generator is noticed by the programme of hard cases."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_hw_engine

from kappa_rtl.hw import export
from kappa_rtl.sim.benches import engine as bench_engine
from kappa_rtl.sim.cosim import RtlThrottle
from kappa_rtl.sim.runner import SimulationError, available
from kappa_rtl.sim.testbench.bank import Bank, simulate
from support import ROOT
from support.mutants import ENGINE, MUTANTS, Mutant, generator, stands
from support.torture import hardware, torture

SIMULATOR = "icarus" if available("icarus") else "verilator"  # Icarus builds faster than this short programme runs


def test_there_are_enough_and_each_is_one() -> None:
    every = MUTANTS + ENGINE
    assert len(MUTANTS) >= 20
    assert len({(m.file, m.old, m.new) for m in every}) == len({m.what for m in every}) == len(every)
    assert all(stands(mutant) for mutant in every)


@pytest.mark.parametrize(
    "path", ["mutants/test_mutants_options", "hw/test_hw_axi", "formal/test_prove", "sim/test_soak", "hw/test_undefined"]
)
def test_the_slow_ones_stand_in_their_files(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are built only by slow tests, too."""
    folder, _, module = path.rpartition("/")
    monkeypatch.syspath_prepend(ROOT / "tests" / folder)
    assert [stands(mutant) for mutant in importlib.import_module(module).FAULTS]


LATE = ("the sticky bit misses the lowest bit",)
"""Faults that are noticed only after many steps."""


QUICK = ("lanes/update.py", "lanes/norm.py", "scalar/unit.py", "units/core.py")
"""Files of which one fault is tried by default; CI tries all of this module."""


def case(mutant: Mutant) -> Any:
    """By default one of a few files that is soon noticed; the others are slow, and so is each of a unit with options."""
    place = MUTANTS.index(mutant) if mutant in MUTANTS else 0
    first = not any(other.file == mutant.file and not other.options and other.what not in LATE for other in MUTANTS[:place])
    slow = bool(mutant.options) or not first or mutant.what in LATE or mutant.file not in QUICK
    return pytest.param(mutant, id=mutant.what.replace(" ", "_"), marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize("mutant", [case(mutant) for mutant in MUTANTS])
def test_killed(mutant: Mutant, tmp_path: Path) -> None:
    config = hardware(**mutant.options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fault may leave a signal unused
        text, _ = generator(mutant, tmp_path / f"mutant_{MUTANTS.index(mutant)}").export(config)
    assert text != export.export(config)[0], "the fault leaves the Verilog as it was"
    with RtlThrottle(config, np.zeros(config.elements), simulator=SIMULATOR, verilog=text) as rtl:
        fault = torture(rtl, **mutant.options)
    assert fault is not None, f"{mutant.what}: survives"
    print(f"{mutant.what}: {fault}")


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [case(mutant) for mutant in ENGINE])
def test_killed_in_the_engine(mutant: Mutant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench of the engine on a unit of the faulty generator."""
    name = f"engine_{ENGINE.index(mutant)}"
    generator(mutant, tmp_path / name)
    monkeypatch.setattr(bench_engine, "ThrottleEngine", sys.modules[f"{name}.hw.units.engine"].ThrottleEngine)
    units = {"all": test_hw_engine.UNITS["all"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = export.to_verilog(Bank({"all": bench_engine.component(**units["all"])}), "engine")
    only = "loads_and_reads|a_word_is_read|a_load_goes_first"
    with pytest.raises(SimulationError) as fault:
        simulate("engine", units, simulator=SIMULATOR, effort=0, only=only, verilog=text)
    assert any(sign in str(fault.value) for sign in ("Mismatch", "AssertionError", "RuleViolation")), str(fault.value)
