"""Every single-point fault of the generator is noticed by the programme of hard cases."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from kappa_rtl.hw import export
from kappa_rtl.sim.cosim import RtlThrottle
from kappa_rtl.sim.runner import available
from kappa_rtl.sim.torture import hardware, torture
from mutants import MUTANTS, Mutant, generator

SIMULATOR = "icarus" if available("icarus") else "verilator"  # Icarus builds faster than this short programme runs


def test_there_are_enough_and_each_is_one() -> None:
    assert len(MUTANTS) >= 20
    assert len({(m.file, m.old, m.new) for m in MUTANTS}) == len({m.what for m in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.what.replace(" ", "_"))
def test_killed(mutant: Mutant, tmp_path: Path) -> None:
    config = hardware()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fault may leave a signal unused
        text, _ = generator(mutant, tmp_path / f"mutant_{MUTANTS.index(mutant)}").export(config)
    assert text != export.export(config)[0], "the fault leaves the Verilog as it was"
    with RtlThrottle(config, np.zeros(config.elements), simulator=SIMULATOR, verilog=text) as rtl:
        fault = torture(rtl)
    assert fault is not None, f"{mutant.what}: survives"
    print(f"{mutant.what}: {fault}")
