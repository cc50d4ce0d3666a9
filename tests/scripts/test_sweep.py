"""A sweep: rows that are found again, spreads that are read back, the table and the picture made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.scripts.experiments.training import sweep as sweeping
from kappa_rtl.scripts.experiments.training.advice import advice, details, rows
from kappa_rtl.scripts.experiments.training.cell import Cell
from kappa_rtl.scripts.experiments.training.corrections import MixedThrottle, QuietThrottle
from kappa_rtl.scripts.experiments.training.curvature import Outliers, experiment_curvature
from kappa_rtl.scripts.experiments.training.curvature_figures import overview
from kappa_rtl.scripts.experiments.training.published import Arm, Experiment
from kappa_rtl.scripts.experiments.training.sweep import read_spreads, sweep, written
from kappa_rtl.scripts.main import main
from support import ROOT

KINDS = {"widths": (8,), "roundings": ("nearest", "residual_4"), "chis": (1.5,)}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return experiment_curvature(full=True, steps=4, seeds=1, **KINDS)


@pytest.fixture(scope="module")
def swept(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sweep")
    sweep(experiment, out, range(1), jobs=1)
    return out


def test_names_say_what_an_arm_is(experiment: Experiment) -> None:
    names = [arm.name for arm in experiment.arms]
    assert len(set(names)) == len(names) and all(Cell.of(name).name == name for name in names)
    cells = [Cell.of(name) for name in names]
    assert {cell.task for cell in cells} == {"digits", "batches", "network", "netbatches", "noise", "outliers"}
    assert {cell.estimator for cell in cells if cell.rounding == "nearest"} == {
        "off",
        "divide",
        "applied",
        "intended",
        "projection",
    }
    for arm, cell in zip(experiment.arms, cells, strict=True):
        assert arm.phases[0].settings["use_controller"] == (cell.estimator != "off")
        if cell.estimator == "applied" and cell.bits:
            assert arm.unit["motion"] == "applied", "the default is another one where a residual is kept"


def test_an_interrupted_sweep_goes_on(
    experiment: Experiment, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there is not made again; a line that was cut off is; the outcome is the same to the byte."""
    lines = (swept / "rows.jsonl").read_text().splitlines()
    assert len(lines) == len(experiment.arms)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines[:-5]) + "\n" + lines[-5][:100])
    made = []
    run = sweeping._run
    monkeypatch.setattr(sweeping, "_run", lambda arm, seed: made.append(arm.name) or run(arm, seed))
    sweep(experiment, tmp_path, range(1), jobs=1)
    assert len(made) == 5
    for name in ("table.csv", "spread.csv"):
        assert (tmp_path / name).read_bytes() == (swept / name).read_bytes()


def test_other_code_makes_all_anew(
    experiment: Experiment, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(arm: Arm, seed: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "rows.jsonl").write_bytes((swept / "rows.jsonl").read_bytes())
    monkeypatch.setattr(sweeping, "_run", stopped)
    sweep(experiment, tmp_path, range(1), jobs=1)
    monkeypatch.setattr(sweeping, "key", lambda job: {"job": job, "code": "other"})
    with pytest.raises(KeyboardInterrupt):
        sweep(experiment, tmp_path, range(1), jobs=1)
    assert capsys.readouterr().err.count("code changed since: computing again") == 1


@pytest.mark.parametrize("line", [b"", b"{}", b"\xff", b"[1]", b'{"key": 1, "job": 2, "row": 3}'])
def test_a_line_that_is_no_row(experiment: Experiment, tmp_path: Path, line: bytes) -> None:
    (tmp_path / "rows.jsonl").write_bytes(line + b"\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl: line 1 must be a row of this command; take it out, or another --out$"):
        sweep(experiment, tmp_path, range(1), jobs=1)


def test_spreads_are_read_back(swept: Path) -> None:
    spreads = read_spreads(swept / "spread.csv")
    assert written(spreads) == (swept / "spread.csv").read_bytes()
    row = spreads["digits_8_residual-4_intended_chi1.5"]
    assert row["tail_accuracy"][1] <= row["tail_accuracy"][0] <= row["tail_accuracy"][2]
    assert math.isnan(row["tail_loss_held_out"][0]) and spreads["noise_8_nearest_off"]["tail_loss_held_out"][0] > 0
    assert row["steps_to_goal"][0] == math.inf, "four steps are too few for any goal"


def test_table_and_picture(swept: Path) -> None:
    spreads = read_spreads(swept / "spread.csv")
    found = rows(spreads)
    assert [line[:2] for line in found] == [
        *(["8 bits", "nearest"], ["8 bits", "residual of 4"]),
        ["float", "–"],
    ]
    assert found[-1][4] == "–", "in float both motions are one"
    assert advice(spreads).count("\n") == len(found) + 1
    assert overview(spreads).startswith(b"\x89PNG")


def test_the_page_has_the_tables_of_its_file() -> None:
    spreads, page = read_spreads(ROOT / "docs" / "curvature.csv"), (ROOT / "docs" / "rules.md").read_text()
    for name, made in (("curvature", advice), ("details", details)):
        assert page.partition(f"<!-- {name} -->\n")[2].partition("\n<!-- end -->")[0] == made(spreads)


def test_the_best_chi_and_its_neighbours() -> None:
    """The range is of neighbours that are as good, and does not step over one that is not."""
    scores = {0.3: 0.9, 0.6: 0.5, 1.0: 0.895, 1.5: 0.91, 1.9: 0.3}
    spreads = {
        Cell("digits", 8, "stochastic", estimator, chi).name: {"tail_accuracy": (value, value - 0.01, value + 0.01)}
        for estimator in ("divide", "applied", "intended", "projection")
        for chi, value in scores.items()
    }
    ((_, _, published, applied, *_),) = rows(spreads)
    assert (published, applied) == (".91 (.90-.92)", ".91 (.90-.92), chi 1..1.5")


def test_corrections_are_between() -> None:
    """``quiet`` takes N / 6 from A; ``mixed`` divides by three parts of the intended energy and one of the applied."""
    config = ThrottleConfig.stability_margin(elements=60, eta=0.1, weight="SQ2.6", update="SQ1.6", residual_bits=4, enabled=False)
    rng = np.random.default_rng(5)
    gradients = [rng.integers(-900, 900, 60) for _ in range(4)]
    applied = Throttle(config.replace(motion="applied"), np.zeros(60))
    units = [QuietThrottle(config, np.zeros(60)), Throttle(config, np.zeros(60)), applied]
    mixed = MixedThrottle(config.replace(motion="applied"), np.zeros(60))
    for gradient in gradients:
        quiet, intended, moved = (unit.step(gradient, codes=True).registers for unit in units)
        between = mixed.step(gradient, codes=True).registers
    assert quiet.A == intended.A and float(quiet.curvature) < float(intended.curvature)
    motions = [float(one.norm_motion) ** 2 for one in (intended, between, moved)]
    assert min(motions[0], motions[2]) < motions[1] < max(motions[0], motions[2])


def test_outliers() -> None:
    drift = Outliers(shape="ramp", factor=4.0, begin=33, length=100)
    assert [step for step in range(120) if drift(step) / drift(step + 1) > 4] == [10, 50, 90]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "still", "--full"], "--full is for curvature, not still"),
        (["train", "curvature", "--full", "--datapath", "rtl"], "datapath must be golden for the whole of curvature, not 'rtl'"),
    ],
)
def test_refused(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code and message in result.output
