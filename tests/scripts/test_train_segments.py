"""``train segments``: its arms, its tables from the spreads that are kept, what a loss is worth, two networks on one unit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.segments import Segment
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.scripts.experiments.training import segments
from kappa_rtl.scripts.experiments.training.published import run_arm, summary
from kappa_rtl.scripts.experiments.training.segments import FlooringThrottle, experiment_segments, worth
from kappa_rtl.scripts.experiments.training.sweep import job_of, read_spreads
from kappa_rtl.scripts.main import main

pytestmark = pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.lint.TrainingWarning")

FOLDER = Path(__file__).parents[2] / "docs" / "segments"
CURVE = [(0.8, 0.7, 0.9), (0.4, 0.3, 0.5), (0.2, 0.1, 0.3), (0.1, 0.1, 0.1), (0.1, 0.1, 0.1)]
FLOAT = (0.05, 0.04, 0.06)


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        *[(0.8, "<=6"), (1.0, "<=6"), (0.4, "8.0"), (0.4 * 2**-0.5, "9.0"), (0.15, "10.8"), (0.07, ">16")],
        *[(0.06, "float"), (float("nan"), "-")],
    ],
)
def test_worth(loss: float, said: str) -> None:
    """By lines in log loss: half a bit of loss between 8 and 10 bits is one bit of width."""
    assert worth(CURVE, loss, FLOAT) == said


def test_the_kept_spreads_are_of_its_arms() -> None:
    spreads = read_spreads(FOLDER / "spread.csv")
    arms = [arm.name for arm in experiment_segments().arms]
    assert len(set(arms)) == len(arms) and set(spreads) == set(arms)
    text = segments.table(spreads)
    assert text.count("one grid") >= 30 and "the intended motion" in text
    assert segments.draw(spreads).startswith(b"\x89PNG")


def test_the_best_of_a_sweep() -> None:
    spreads = read_spreads(FOLDER / "spread.csv")
    finer, found = segments.best(spreads, "dense", "nearest", 8, "one")
    others = [spreads[f"dense_nearest_8_one+{k}"]["tail_loss"][0] for k in segments.FINER]
    assert found[0] == min(others) == others[finer]


def test_arms_that_differ_are_other_jobs() -> None:
    arms = [arm for arm in experiment_segments(steps=1).arms if arm.name.startswith("dense_nearest_8")]
    assert len({job_of(arm, 0) for arm in arms}) == len(arms)


def test_half_an_ulp_for_what_stood_still() -> None:
    """B' by hand: one segment moves, the other one of four elements and scale 1 does not; with all still nothing is added."""
    arm = next(arm for arm in experiment_segments(steps=2).arms if arm.variant is not None)
    assert arm.variant is FlooringThrottle and arm.unit == {"motion": "applied"}
    config = ThrottleConfig(
        elements=6, eta=0.5, segments=[Segment(2, 0, "a"), Segment(4, 1, "b")], scale_max=2, motion="applied", update="SQ2.14"
    )
    one, other = Throttle(config, np.zeros(6)), FlooringThrottle(config, np.zeros(6))
    gradient = np.array([400, 800, 0, 0, 0, 0])
    a, b = (unit.step(gradient, codes=True).registers.B for unit in (one, other))
    assert a > 0 and b == a + 4 * 4 ** (2 - 1) // 4
    still = np.zeros(6, int)
    assert one.step(still, codes=True).registers.B == other.step(still, codes=True).registers.B == 0


def test_a_run_of_each_kind() -> None:
    arms = {arm.name: arm for arm in experiment_segments(steps=3).arms}
    for name in ("dense_float", "dense_residual_8_tensor+1", "conv_gain_stochastic_6_one+0", "conv_floored_6_tensor+1"):
        arm = arms[name]
        assert np.isfinite(summary(run_arm(arm, 0, make_unit=arm.variant or Throttle))["loss"]), name


def test_two_networks_on_one_simulated_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "LOCKSTEP", 3)
    said = segments.lockstep(experiment_segments(steps=3), "verilator")
    assert said.count("0 differences") == 2 and "room for 2410 elements in 8 segments" in said


@pytest.mark.slow
@pytest.mark.ci
def test_the_command_takes_up_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, a picture, a row for every run, lockstep; a second call makes no run, and its table is the same."""
    monkeypatch.setattr(segments, "LOCKSTEP", 2)
    command = ["train", "segments", "--steps", "2", "--seeds", "1", "--out", str(tmp_path)]
    first = CliRunner().invoke(main, command)
    assert first.exit_code == 0, first.output
    assert first.output.count("0 differences") == 2 and "loss at its best" in first.output
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert set(read_spreads(tmp_path / "spread.csv")) == {arm.name for arm in experiment_segments(steps=2).arms}
    monkeypatch.setattr("kappa_rtl.scripts.experiments.training.sweep.run_arm", None)
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0, again.output
    assert again.output == first.output
