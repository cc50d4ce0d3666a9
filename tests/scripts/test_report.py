"""The report: complete, self-contained, true to the runs, whatever their length and whether or not they have labels."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.files import write_atomically
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training import METRICS, GainRamp, Problem, Run, digits, synthetic
from kappa_rtl.scripts.experiments.cosim.figures import PLOTS, Plot, draw
from kappa_rtl.scripts.experiments.cosim.history import RunHistory, observations, summary_table
from kappa_rtl.scripts.experiments.cosim.page import write_report
from kappa_rtl.scripts.experiments.tensors import PANELS

PNG = b"\x89PNG\r\n\x1a\n"


def simulate(problem: Problem, eta: float, steps: int, ramp: GainRamp) -> dict[str, RunHistory]:
    """The runs of the main job; a second golden unit stands in for the RTL."""
    config = ThrottleConfig.stability_margin(elements=problem.elements, eta=eta)
    narrow = config.replace(weight="SQ2.6", gradient="SQ2.10", update="SQ1.9")
    zeros = np.zeros(problem.elements)
    units: dict[str, tuple[str, Any, Any]] = {
        "float": ("float, no throttle", "unthrottled", FloatThrottle(config.replace(enabled=False), zeros)),
        "float_throttled": ("float, throttled", "throttled", FloatThrottle(config, zeros)),
        "golden": ("golden model", "golden", Throttle(config, zeros)),
        "rtl": ("RTL", "rtl", Throttle(config, zeros)),
        "narrow_divide": ("8 bits, divide", "narrow", Throttle(narrow.replace(on_still="divide"), zeros)),
        "narrow_floor": ("8 bits, floor", "narrow", Throttle(narrow.replace(on_still="floor"), zeros)),
    }
    found = {
        name: RunHistory.collect(title, kind, Run(problem, unit, steps=steps, gain=ramp))
        for name, (title, kind, unit) in units.items()
    }
    made = found["rtl"].steps
    for tensor, ratio in (("dense0/kernel", 0.5), ("dense0/bias", math.nan)):  # as of a unit with segments
        found["rtl"].tensors[tensor] = {metric: [ratio] * made for metric, *_ in PANELS}
    return found


SUMMARY: dict[str, Any] = {
    "title": "A run",
    "experiment": "digits",
    "steps": 60,
    "differences": 0,
    "compared": 1234567,
    "simulator": "Verilator",
    "verdict": ["First sentence.", "Second sentence."],
    "command": "kappa-rtl cosim --steps 60",
    "config_toml": "[throttle]\neta = 0.1\n",
    "files": [["trace.jsonl", "a line a step"], ["throttle.v", "the unit in Verilog"]],
}


@pytest.fixture(scope="module")
def runs() -> dict[str, RunHistory]:
    """Digits with so quick a drift that the unthrottled float run diverges early."""
    return simulate(digits(), 0.1, 60, GainRamp(first=5, last=30))


@pytest.fixture(scope="module")
def report(runs: dict[str, RunHistory], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "made" / "by it"
    write_report(out, SUMMARY, runs)
    return out


class Links(HTMLParser):
    """Collects tags, text and every attribute that can point outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: list[tuple[str, str]] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [(name, value or "") for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_but_itself(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    page = Links(text)
    sources = [value for name, value in page.targets if name == "src"]
    assert len(sources) == len(PLOTS)
    assert all(value.startswith("data:image/png;base64,") for value in sources)
    for name, value in page.targets:
        if name != "src":
            assert name == "href"
            assert "/" not in value
            assert ":" not in value
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "://" not in text
    assert "url(" not in text
    assert "@import" not in text


def test_plots_are_there_as_files_and_linked(report: Path) -> None:
    page = Links((report / "index.html").read_text(encoding="utf-8"))
    hrefs = {value for name, value in page.targets if name == "href"}
    names = {f"{plot.name}.png" for plot in PLOTS}
    assert {path.name for path in report.iterdir()} == names | {"index.html", "steps.html"}
    assert names | {"trace.jsonl", "throttle.v"} <= hrefs
    for name in names:
        assert (report / name).read_bytes().startswith(PNG)


def test_the_page_says_what_it_was_told(report: Path, runs: dict[str, RunHistory]) -> None:
    words = " ".join(" ".join(Links((report / "index.html").read_text(encoding="utf-8")).words).split())
    assert "0 differences between RTL and golden model (1,234,567 values compared)" in words
    for phrase in ("First sentence.", "Second sentence.", "kappa-rtl cosim --steps 60", "eta = 0.1", "the unit in Verilog"):
        assert phrase in words
    for run in runs.values():
        assert run.title in words
    for name, definition in METRICS.items():
        assert definition in words, name


def test_text_is_escaped(runs: dict[str, RunHistory], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kappa_rtl.scripts.experiments.cosim.page.PLOTS", ())
    evil = "<script>alert('x')</script>"
    told = SUMMARY | {"title": evil, "config_toml": evil, "verdict": [evil], "differences": 3, "files": [[f'"{evil}', evil]]}
    write_report(tmp_path, told, runs)
    page = Links((tmp_path / "index.html").read_text(encoding="utf-8"))
    assert "script" not in page.tags
    assert (tmp_path / "steps.html").read_text().count("<script>") == 2
    assert "3 differences" in " ".join(page.words)


def test_summary_table(runs: dict[str, RunHistory]) -> None:
    rows = {row["run"]: row for row in summary_table(runs)}
    assert list(rows) == list(runs)
    json.dumps(list(rows.values()), allow_nan=False)
    lost, kept = rows["float"], rows["golden"]
    assert lost["diverged_at"] == lost["steps"] - 1 < 59
    assert kept["diverged_at"] is None
    assert kept["steps"] == 60
    assert kept["final_loss"] == runs["golden"]["loss"][-1]
    assert kept["accuracy"] == np.mean(runs["golden"]["accuracy"][-20:])
    assert kept["min_alpha"] == runs["golden"]["alpha"].min() < 1
    assert lost["min_alpha"] == 1
    assert rows["narrow_divide"]["still_steps"] == runs["narrow_divide"]["still"].sum() > 0
    assert rows["narrow_divide"]["max_angle_degrees"] == pytest.approx(90)
    assert kept["flags"] == []


def test_observations_follow_the_runs(runs: dict[str, RunHistory]) -> None:
    said = observations(runs)
    assert said[0] == f"float, no throttle: diverges at step {runs['float'].diverged_at}."
    assert said[1].startswith("float, throttled: does not diverge in 60 steps and ends at accuracy ")
    assert "“8 bits, divide” ends at accuracy " in said[-1]
    assert observations({"golden": runs["golden"]}) == [said[2]]
    dead = RunHistory("golden model", "golden", columns=dict(runs["narrow_divide"].columns), still_steps=12)
    (said,) = [one for one in observations({"golden": dead}) if "stands still in 12 of 60 steps, " in one]
    assert "under a smaller alpha, by which the throttle holds it" in said
    dead.columns |= {"alpha_applied": [1.0] * 60, "update_saturated": [0.25] * 60}
    said = observations({"golden": dead})
    assert any("times at alpha = 1, where the whole step is below the grids." in sentence for sentence in said)
    assert any(
        sentence.startswith("golden model: the throttle never acts: alpha is 1 at every step, and eta * C") for sentence in said
    )
    assert any("in the mean over the steps, 25% of its update is clipped" in sentence for sentence in said)


def test_flags_are_collected() -> None:
    problem = synthetic()
    config = ThrottleConfig.stability_margin(
        elements=8, eta=0.001, weight="SQ2.6", gradient="SQ2.10", update="SQ1.9", on_still="divide", dead_after=2
    )
    run = RunHistory.collect("dead", "narrow", Run(problem, Throttle(config, np.zeros(8)), steps=6))
    assert run.flags == ("learning_dead",)
    assert run.still_steps == 5


def test_without_labels(tmp_path: Path) -> None:
    runs = simulate(synthetic(), 0.5, 50, GainRamp(first=5, last=20))
    assert runs["float"].diverged_at is not None
    write_report(tmp_path, SUMMARY, runs)
    assert {f"{plot.name}.png" for plot in PLOTS} <= {path.name for path in tmp_path.iterdir()}
    assert summary_table(runs)[1]["accuracy"] is None
    assert "ends at loss" in observations(runs)[1]


def test_one_grid_has_no_picture_of_tensors(runs: dict[str, RunHistory], tmp_path: Path) -> None:
    write_report(tmp_path, SUMMARY, {"rtl": replace(runs["rtl"], tensors={})})
    assert "tensors.png" not in {path.name for path in tmp_path.iterdir()}


def test_missing_runs_leave_their_plots_out(runs: dict[str, RunHistory], tmp_path: Path) -> None:
    write_report(tmp_path, SUMMARY, {"float": runs["float"]})
    assert {path.name for path in tmp_path.glob("*.png")} == {"overview.png", "loss.png", "margin.png", "throttle.png"}
    with pytest.raises(ValueError, match="runs must hold at least one run with a step"):
        write_report(tmp_path, SUMMARY, {"empty": RunHistory("empty", "golden")})


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.name)
def test_one_step_is_enough(plot: Plot) -> None:
    runs = simulate(synthetic(), 0.5, 1, GainRamp())
    assert draw(plot, runs).startswith(PNG)


def test_values_that_are_not_finite_are_drawn_as_gaps(runs: dict[str, RunHistory]) -> None:
    broken = RunHistory("broken", "throttled", columns={name: list(values) for name, values in runs["golden"].columns.items()})
    for name in ("loss", "curvature", "alpha", "radius_ratio"):
        broken.columns[name][-1] = float("inf")
        broken.columns[name][-2] = float("nan")
    for plot in PLOTS[:4]:
        assert draw(plot, {"broken": broken}).startswith(PNG)
    json.dumps(summary_table({"broken": broken}), allow_nan=False)


def test_drawing_is_reproducible_and_leaves_no_trace(runs: dict[str, RunHistory]) -> None:
    before = dict(mpl.rcParams)
    assert draw(PLOTS[1], runs) == draw(PLOTS[1], runs)
    assert dict(mpl.rcParams) == before


def test_pyplot_is_not_imported() -> None:
    code = "import sys, kappa_rtl.scripts.experiments.cosim.page; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "page"
    write_atomically(target, b"old")

    def broken(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
