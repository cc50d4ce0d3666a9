"""Runs made here and watched: feedback alignment is stopped, backpropagation is let finish; the table and its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.protocol.rules import replay
from kappa_rtl.golden.protocol.trace import load_traces, save_traces
from kappa_rtl.scripts.experiments.credit.calibration import SETTINGS, Setting, calibrate, judge, split, train_watched
from kappa_rtl.scripts.main import main
from support import ROOT

TRACES = ROOT / "docs" / "traces"
SMALL = Setting(optimiser="sgd", rate=0.01, epochs=5)


def test_online() -> None:
    """The monitor in the loop: the run that it stops ends there, the other one is the run without a monitor's word."""
    stopped, _ = train_watched(SMALL, "dfa", stop=True)
    assert stopped.flags and stopped.stopped is stopped.trace[-1]
    outcome = stopped.outcome()
    assert outcome.epochs_saved == 5 - stopped.trace[-1]["epoch"] >= 1 and outcome.final_accuracy is None
    finished, model = train_watched(SMALL, "bp", stop=True)
    assert finished.verdict == "trustworthy" and finished.trace[-1]["epoch"] == 5
    assert finished.trace[-1]["acc_eval"] > 0.9
    report = judge(model, finished.trace[-1]["acc_eval"], 0.8, "bp")
    assert report.verdict == "trustworthy"
    assert report.hidden_norms == pytest.approx(finished.trace[-1]["hidden_norms"])
    assert judge(model, 0.8, 0.8, "bp").verdict == "walked back via (d)"


def test_frozen_blocks_stay() -> None:
    _, before = train_watched(Setting(width=32, depth=2, epochs=1, rate=1e-30), "frozen")
    monitor, after = train_watched(Setting(width=32, depth=2, epochs=1), "frozen")
    for name in ("embedding", "kernel", "bias"):
        assert np.array_equal(before.parts[name], after.parts[name])
    assert not np.array_equal(before.parts["head"], after.parts["head"])
    assert monitor.trace[0]["hidden_norms"] == monitor.trace[1]["hidden_norms"]


def test_the_same_seed_gives_the_same_run() -> None:
    setting = Setting(width=16, depth=1, epochs=1)
    assert calibrate(setting, 3) == calibrate(setting, 3) != calibrate(setting, 4)


def test_a_run_that_overflows_is_a_result(tmp_path: Path) -> None:
    """Its row that is not finite fires, and the whole can be written and read."""
    made = calibrate(Setting(rate=1e300, width=16, depth=2, epochs=2, batch=350), 0)
    assert {report["verdict"] for report in made["reports"].values()} == {"walked back via (a)+(b)+(c)+(d)"}
    path = save_traces(tmp_path / "trace.json", made["logs"], reports=made["reports"])
    assert repr(load_traces(path)[1]) == repr(made["logs"])
    assert json.loads(path.read_text())["reports"]["bp"]["direction"] == "NaN"


def test_samples_are_held_out() -> None:
    (train, _), (held, labels) = split()
    assert (len(train), len(held), len(labels)) == (1400, 397, 397)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="arm must be one of bp, dfa, frozen, not 'bpp'"):
        train_watched(SMALL, "bpp")
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1, not 0"):
        train_watched(Setting(epochs=0), "bp")
    with pytest.raises(ValueError, match="seed must be an integer of at least 0, not -1"):
        train_watched(SMALL, "bp", -1)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, a trace for each seed; what is there already is not made again, unless it is of another setting."""
    monkeypatch.setitem(SETTINGS, "norm", Setting(width=16, depth=1, rate=1.0, batch=350))
    command = ["calibrate", "norm", "--seeds", "2", "--out", str(tmp_path / "a folder"), "--epochs"]
    done = CliRunner().invoke(main, [*command, "2"])
    assert done.exit_code == 0, done.output
    head, bp, dfa = done.stdout.splitlines()
    assert head.startswith("setting  arm") and bp.startswith("norm     bp") and dfa.startswith("norm     dfa")
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "a folder").iterdir()}
    assert sorted(path.name for path in files) == ["norm-0.json", "norm-1.json"]
    assert "digits, 1 blocks of 16" in CliRunner().invoke(main, ["monitor", str(next(iter(files)))]).output
    again = CliRunner().invoke(main, [*command, "2"])
    assert again.stdout == done.stdout and {path: path.stat().st_mtime_ns for path in files} == files
    assert CliRunner().invoke(main, [*command, "1"]).exit_code == 0
    assert all(path.stat().st_mtime_ns > before for path, before in files.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["norm", "bare"])
def test_the_committed_traces_are_made_by_the_command(name: str) -> None:
    """The same flags; a run that falls apart does so within an epoch of the other, whatever the machine's last bits."""
    document: dict[str, Any] = json.loads((TRACES / f"{name}-0.json").read_bytes())
    setting = SETTINGS[name]
    assert Setting(**document["setting"]) == setting
    made = calibrate(setting, 0)
    assert made["frozen_acc"] == pytest.approx(document["frozen_acc"], abs=0.01)
    for arm, log in load_traces(TRACES / f"{name}-0.json")[1].items():
        ours, theirs = replay(made["logs"][arm]), replay(log)
        assert ours.verdict == theirs.verdict
        assert (ours.fired_epoch is None) == (theirs.fired_epoch is None)
        assert abs((ours.fired_epoch or 0) - (theirs.fired_epoch or 0)) <= 1
