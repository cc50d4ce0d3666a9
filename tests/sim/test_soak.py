"""A short soak, faults that it finds, and how it is shared out."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.formats import ZERO
from kappa_rtl.hw import export
from kappa_rtl.scripts.soak import command
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.stress.layouts import SEGMENTED, Layouts, some_trial
from kappa_rtl.sim.stress.parts import SHARE, parts, work
from kappa_rtl.sim.stress.soak import SCALARS, UPDATES, Elements, Scalars, modes, scalar_steps
from support.mutants import Mutant, generator

FAULTS = [
    Mutant("scalar/decide.py", "m.d.sync += seen.eq(1)", "m.d.sync += seen.eq(0)", "every C starts the average anew"),
    Mutant("lanes/update.py", "raised[0] & ~(guard & ~sticky.any())", "raised[0]", "a tie of the product rounds up"),
]


def test_parts_add_up_and_do_not_depend_on_each_other() -> None:
    todo = parts(2_000_001, 50_003, seed=5, layouts=1001)
    done: Counter[str] = Counter()
    for part in todo:
        done[part.kind] += part.size
        assert 0 < part.size <= SHARE[part.kind]
    assert done == {"elements": 2_000_001, "scalars": 50_003, "layouts": 1001}
    assert len({(part.kind, part.name, part.number) for part in todo}) == len(todo)
    assert {part.name for part in todo} == {*SCALARS, *UPDATES, *SEGMENTED}
    assert parts(0, 0, seed=0) == []


def test_nothing_to_soak_is_refused() -> None:
    refused = CliRunner().invoke(command, ["--elements", "0", "--steps", "0", "--layouts", "0"])
    assert refused.exit_code == 2 and "elements, steps and layouts must not all be 0" in refused.output


def test_every_mode_is_soaked() -> None:
    for config in UPDATES.values():
        every = list(modes(config))
        for grid in ("update", "weight"):
            assert len({(getattr(one, grid).rounding, getattr(one, grid).overflow) for one in every}) == len(every) == 28


@pytest.mark.parametrize("name", SCALARS)
def test_scalar_stimuli_reach_the_corners(name: str) -> None:
    config = SCALARS[name]
    steps = scalar_steps(config, Random(1), 4000)
    widths = config.widths
    for energies, bits in (
        ([s.gradient for s in steps], widths.gradient_energy),
        ([s.motion for s in steps], widths.motion_energy),
    ):
        assert 0 in energies and {energy.bit_length() for energy in energies} == set(range(bits + 1))
    laws = [step.law for step in steps if step.law is not None]
    constants = [scalar for law in laws for scalar in law.constants.values()]
    low, high = config.scalar.exponents
    exponents = [x.e for x in constants]
    assert ZERO in constants and min(exponents) < low + 10 and max(exponents) > high - 10
    for law in laws:
        assert all(law.constants[name] == ZERO or float(law.constants[name]) < 1 for name in ("rho", "keep", "alpha_min"))
        assert float(law.constants["eta"]) < 2.0**config.step.integer_bits
    assert len({(law.source, law.on_still, law.ema_start, law.enabled) for law in laws}) > 20


@pytest.mark.slow
def test_a_short_soak() -> None:
    """The command, as `make soak` calls it; and that it is the same on one process."""
    result = CliRunner().invoke(
        command, ["--elements", "100000", "--steps", "2000", "--layouts", "60", "--seed", "3", "--jobs", "2"]
    )
    assert result.exit_code == 0, result.output
    assert "element updates, no difference" in result.output and "2000 scalar steps, no difference" in result.output
    assert "60 layouts of segments, no difference" in result.output
    for part in parts(0, 40, seed=3):
        first, again = work(part), work(part)
        assert first.failure is None and first.cycles == again.cycles and first.done == part.size


@pytest.mark.slow
def test_a_fault_of_the_scalar_part_is_shown_in_few_steps(tmp_path: Path) -> None:
    name = "soak_mutant_scalars"
    generator(FAULTS[0], tmp_path / name)
    config = SCALARS["M = 9"]
    faulty = importlib.import_module(f"{name}.hw.scalar.decide").Decide(config)
    result = Scalars(config, export.to_verilog(faulty, "decide")).soak(Random(1), 2000)
    assert result.failure is not None
    text = str(result.failure)
    assert "ema_start" in text and "golden" in text
    steps = result.failure.given["steps (clear, A, B)"]
    assert 2 <= len(steps) <= 5, f"the average differs from the second C on: {steps}"
    differing = {field for field in result.failure.golden if result.failure.golden[field] != result.failure.rtl[field]}
    assert "ema" in differing


@pytest.mark.slow
def test_a_fault_of_the_lanes_is_shown_by_its_element(tmp_path: Path) -> None:
    config = UPDATES["8-bit weights"]
    name = "soak_mutant_lanes"
    generator(FAULTS[1], tmp_path / name)
    result = Elements(config, update=importlib.import_module(f"{name}.hw.lanes.update").Update).soak(
        np.random.default_rng(1), 100_000
    )
    assert result.failure is not None
    assert result.failure.golden["update"] + 1 == result.failure.rtl["update"]
    given = result.failure.given
    product = -given["direction"] * given["step"]
    shift = config.widths.update_shift
    assert product % (1 << shift) == 1 << shift - 1, "it is a tie"


@pytest.mark.parametrize("name", SEGMENTED)
def test_layouts_reach_the_corners(name: str) -> None:
    """The whole table and a single segment, all of the room and less, segments shorter than a beat, every scale."""
    config, _ = SEGMENTED[name]
    layouts = [some_trial(Random(seed), config).segments for seed in range(60)]
    assert {1, config.entries} <= {len(layout) for layout in layouts}
    sizes = [sum(segment.elements for segment in layout) for layout in layouts]
    assert config.room in sizes and min(sizes) < config.room
    assert {segment.scale for layout in layouts for segment in layout} == set(range(config.scale_max + 1))
    assert any(segment.elements % config.lanes for layout in layouts for segment in layout) == (config.lanes > 1)


@pytest.mark.slow
def test_a_fault_of_the_table_is_found(tmp_path: Path) -> None:
    generator(
        Mutant("units/segments.py", "left <= lanes", "left < lanes", "a full last beat is not the last"),
        tmp_path / "soak_mutant_table",
    )
    config, streaming = SEGMENTED["3 lanes, applied, streaming"]
    faulty = importlib.import_module("soak_mutant_table.hw.export").export(config, streaming=streaming)[0]
    with Layouts("3 lanes, applied, streaming", faulty) as unit:
        try:
            difference = unit.soak(Random(1), 30)[2]
        except SimulationError as error:
            difference = str(error)
    assert difference is not None
