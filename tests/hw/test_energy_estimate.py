"""The energy of a step without a simulation: fitted to the runs of the page, and counted by hand."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw import estimate
from kappa_rtl.hw.energy.fit import fitted
from kappa_rtl.hw.synth.costs import renewed
from kappa_rtl.hw.synth.energy import KINDS, PATH, EnergyFit, energy_fit
from kappa_rtl.scripts import energy
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.settings import Settings

DOCS = Path(__file__).parents[2] / "docs"


def test_the_estimates_of_the_page() -> None:
    """The fit is that of the runs of the page, and so is the page; none is more than a twentieth off."""
    found = energy.read_figures(DOCS / "energy.json")
    configs = energy.units(Job.of(Settings(), experiment="digits"), found)
    fit = fitted(found, configs, [estimate(config).ff for config in configs])
    assert fit.to_json() == PATH.read_text()
    rows = energy.estimates(found, configs, energy_fit())
    assert all(abs(float(row[-1].rstrip("%"))) <= 5 for row in rows[1:]) and len(rows) == 10
    page = (DOCS / "energy.md").read_text()
    assert renewed(page, energy.tables(found) | {"energy estimate": rows}) == page


def test_an_estimate_counted_by_hand() -> None:
    """Three elements of 8 bits, 100 flip-flops of an ECP5 in 10 cycles: 2 of the cells for each."""
    fit = EnergyFit(clock=0.5, flip_flops=2, data={"nearest": (-10, 5), "kept": (50, 1)})
    plain = ThrottleConfig(elements=3, eta=1, weight="SQ2.6", gradient="SQ2.8", update="SQ1.9")
    assert fit.energy(plain, 100, 10) == pytest.approx(1e-3 * (0.5 * 200 * 10 + 3 * (-10 + 40)))
    assert fit.energy(plain.replace(residual_bits=4), 100, 10) == pytest.approx(1e-3 * (1000 + 3 * 58))
    assert fit.energy(plain.replace(update="SQ1.9,stochastic"), 100, 10) == pytest.approx(1e-3 * (1000 + 3 * 58))
    assert fit.energy(plain.replace(weight="SQ1.1"), 100, 10) == pytest.approx(1e-3 * (1000 + 3 * 30 * 2 / 8))  # not the line
    assert fit.energy(plain.replace(weight="SQ2.18"), 100, 10) == pytest.approx(1e-3 * (1000 + 3 * 70))  # as what moves


def test_the_cost_of_a_unit_has_it() -> None:
    config = ThrottleConfig.stability_margin(elements=100, eta=0.1, lanes=4)
    cost = estimate(config)
    assert cost.energy == energy_fit().energy(config, cost.ff, cost.cycles) > 0


@pytest.mark.parametrize("kind", KINDS)
def test_more_bits_take_more(kind: str) -> None:
    found = [energy_fit().of_weight(kind, bits) for bits in range(1, 33)]
    assert all(0 < one < other for one, other in itertools.pairwise(found))
    assert all(energy_fit().of_weight("nearest", bits) <= energy_fit().of_weight("kept", bits) for bits in range(1, 33))


def test_a_line_needs_two_widths() -> None:
    found = energy.read_figures(DOCS / "energy.json")
    configs = energy.units(Job.of(Settings(), experiment="digits"), found)
    wide = [number for number, f in enumerate(found) if f.weight == "16 bits"]
    with pytest.raises(ValueError, match="runs must have at least two widths of the kind 'nearest'"):
        fitted([found[number] for number in wide], [configs[number] for number in wide], [3000] * len(wide))


def test_measured_reads_what_was_written(tmp_path: Path) -> None:
    kept, made = tmp_path / "energy.json", tmp_path / "fit.json"
    kept.write_text((DOCS / "energy.json").read_text())
    found = CliRunner().invoke(energy.command, ["--out", str(kept), "--measured", "--fit", str(made)])
    assert found.exit_code == 0 and "estimated, nJ" in found.output and made.read_text() == PATH.read_text()
    assert kept.read_text() == (DOCS / "energy.json").read_text()
    kept.write_text("{}")
    found = CliRunner().invoke(energy.command, ["--out", str(kept), "--measured"])
    assert found.exit_code == 1 and "out must name a file of kappa-rtl energy with --measured" in found.output
    found = CliRunner().invoke(energy.command, ["--measured"])
    assert found.exit_code == 1 and "out must name the file to read with --measured" in found.output
