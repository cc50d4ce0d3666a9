"""``kappa-rtl energy``: what it refuses, one small run from end to end, and the page's tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.energy.figures import Figures
from kappa_rtl.hw.synth import synthesis
from kappa_rtl.hw.synth.costs import renewed
from kappa_rtl.hw.synth.targets import LIBERTY_PACKAGE
from kappa_rtl.scripts.energy import FORMATS, ROUNDINGS, recorded, tables
from kappa_rtl.scripts.experiments.cosim.arms import LayerRun
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.main import main
from support import ROOT

LIBERTY = Path(LIBERTY_PACKAGE[1])
needs_cells = pytest.mark.skipif(not LIBERTY.is_file(), reason=f"{LIBERTY_PACKAGE[2]} is not installed")
needs_yosys = pytest.mark.skipif(
    synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install '.[synth]' in a checkout"
)

SMALL = """
[throttle]
law = "stability_margin"
eta = 0.5
mantissa_bits = 8
exponent_bits = 6
step_bits = 8
eps = "1/1048576"
"""


def invoke(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["energy", *args])
    return result.exit_code, result.output


@pytest.mark.icarus
def test_a_library_that_is_not_there() -> None:
    code, output = invoke("--liberty", "none.lib")
    assert code == 1 and "liberty must be the osu018 cell library, not 'none.lib'" in output


@pytest.mark.icarus
def test_a_library_without_its_cells(tmp_path: Path) -> None:
    (tmp_path / "alone.lib").write_text("")
    code, output = invoke("--liberty", str(tmp_path / "alone.lib"))
    assert code == 1 and "liberty must have the Verilog of its cells beside it" in output


@needs_cells
@pytest.mark.icarus
@pytest.mark.parametrize("table", ["[model]\nhidden = [4]\n", "[training]\noptimiser = 'momentum'\n"])
def test_a_network_is_refused(tmp_path: Path, table: str) -> None:
    (tmp_path / "job.toml").write_text(table)
    code, output = invoke("--config", str(tmp_path / "job.toml"))
    assert code == 1 and "energy must have the one layer to train, without a table [model]" in output


def test_what_is_recorded_of_a_run() -> None:
    """A step made again with what was recorded is the run's own."""
    job = Job.read(None, experiment="synthetic", steps=6, narrow=FORMATS[8])
    config = job.narrow_runs["residual"]
    found = recorded(job, config, 5)
    unit = Throttle(config, job.start(config))
    rows = list(LayerRun(job, unit))
    assert (
        found.weights[1].tolist() == rows[4].record.theta.tolist() and found.weights[0].tolist() == rows[3].record.theta.tolist()
    )
    assert [gradient.tolist() for gradient in found.gradients] == [rows[4].gradient.tolist(), rows[5].gradient.tolist()]
    assert found.residual is not None and found.residual.any() and float(found.alpha) == float(rows[4].record.registers.alpha)
    with pytest.raises(ValueError, match=r"^step must be one of the run, which ends at step 6, not 9$"):
        recorded(job, config, 9)


@needs_cells
@needs_yosys
@pytest.mark.slow
@pytest.mark.icarus
def test_a_small_run_from_end_to_end(tmp_path: Path) -> None:
    """Eight weights with their residuals: every figure is there, and they are of the size that they must be."""
    (tmp_path / "job.toml").write_text(SMALL)
    (tmp_path / "page.md").write_text("<!-- energy -->\n<!-- end -->\n<!-- energy parts -->\n<!-- end -->\n")
    args = ["--config", str(tmp_path / "job.toml"), "--experiment", "synthetic", "--lanes", "1", "--step", "5"]
    args += ["--bits", "8", "--rounding", "residual", "--out", str(tmp_path / "energy.json"), "--page", str(tmp_path / "page.md")]
    code, output = invoke(*args)
    assert code == 0, output
    (run,) = (Figures.from_json(run) for run in json.loads((tmp_path / "energy.json").read_text())["runs"])
    assert (run.weight, run.rounding, run.elements, run.lanes, run.step) == ("8 bits", "residual", 8, 1, 5)
    assert 0 < run.moved <= 8
    assert run.clock / run.registers / run.cycles == pytest.approx(0.207, abs=0.001)
    assert 0 < run.single < run.ideal <= run.busy < run.clock
    assert 0.1 * run.data < run.settled < run.data
    assert {"update", "sum of squares", "sequencer", "divider", "square root", "control"} <= set(run.parts)
    assert all(part.ideal <= part.busy <= run.cycles for part in run.parts.values())
    assert "| 8 bits | residual |" in (tmp_path / "page.md").read_text()
    assert "8 bits" in output


def test_the_page_says_what_was_measured() -> None:
    """Its tables are those of the committed figures, of every width and rounding."""
    found = [Figures.from_json(run) for run in json.loads((ROOT / "docs" / "energy.json").read_text())["runs"]]
    assert [(run.weight, run.rounding) for run in found] == [(f"{bits} bits", kind) for bits in FORMATS for kind in ROUNDINGS]
    assert all(run.moved > 0 for run in found)
    page = (ROOT / "docs" / "energy.md").read_text()
    assert renewed(page, tables(found)) == page
