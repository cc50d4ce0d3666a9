"""Findings: the searches they are, their tables by hand, the page, and the margin of a ramp by other means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.hw.synth.costs import renewed
from kappa_rtl.scripts.experiments.explore.network import Network
from kappa_rtl.scripts.experiments.explore.space import Axes, Integers, point_of
from kappa_rtl.scripts.experiments.findings import finding as asked
from kappa_rtl.scripts.experiments.findings import ramp
from kappa_rtl.scripts.experiments.findings.figure import draw
from kappa_rtl.scripts.experiments.findings.finding import FINDINGS, TASKS, Task
from kappa_rtl.scripts.experiments.findings.table import brief, least, read, rows, spread, tables
from kappa_rtl.scripts.main import main
from support import ROOT

DOCS = ROOT / "docs"


def dot(x: float, line: str, *scores: float, **more: Any) -> dict[str, Any]:
    costs = {"memory_bits": 1000 * x, "lut": 900, "energy": 2.4}
    return {"x": x, "line": line, "score": list(scores), "ending": ["done"] * len(scores)} | costs | more


def content(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": "weight", "version": "0", "seeds": 5, "tasks": list(tasks)}


# ---------------------------------------------------------------- the searches


@pytest.mark.parametrize("name", [name for name, one in FINDINGS.items() if one.space])
@pytest.mark.parametrize("task", TASKS)
def test_every_finding_is_a_search_that_can_be(name: str, task: str) -> None:
    """Of few enough points; those that no unit can be are few."""
    finding = FINDINGS[name]
    if task not in finding.tasks:
        return
    settings = finding.settings(task)
    axes, network = Axes(**settings["explore"]), Network.of(settings)
    assert 1 < axes.size <= 60 and axes.lanes == (1,)
    points = {point_of(choice, Integers(1, 0, -2)) for choice in axes.choices()}
    assert len(points) == axes.size, "no two say the same"
    for point in points:
        network.config(point)


def test_the_intended_motion_is_one_answer_of_five() -> None:
    rows_of = [
        {"motion": motion, "on_still": still} for motion in ("applied", "intended") for still in ("divide", "hold", "release")
    ]
    assert [FINDINGS["still"].only(row) for row in rows_of] == [True, True, True, False, False, True]
    for task in read(DOCS / "findings")["still"]["tasks"]:
        lines = {one["line"] for one in task["dots"]}
        assert lines == {"intended, release", *(f"applied, {still}" for still in ("divide", "hold", "floor", "release"))}


def test_a_finding_is_known_by_its_name() -> None:
    assert all(one.name == name for name, one in FINDINGS.items())
    assert {task for one in FINDINGS.values() for task in one.tasks} == set(TASKS)


# ---------------------------------------------------------------- tables


def test_a_table_by_hand() -> None:
    finding = replace(FINDINGS["weight"], by=("rounding",))
    task = {
        "title": "some task",
        "float": {"point": "float, off", "score": [0.9, 0.91, 0.92, 0.93, 0.94]},
        "dots": [
            dot(8, "nearest", 0.9, 0.91, 0.92, 0.93, 0.1),
            dot(8, "kept", 0.9, 0.91, 0.92, 0.93, 0.94),
            dot(6, "nearest", 0.5, 0.6, 0.1, 0.2, 0.3),
            dot(6, "kept", 0.9, 0.9, 0.91, 0.92, 0.93, lut=1234.4),
        ],
    }
    assert rows(finding, content(task)) == [
        ("bits of a weight", "nearest", "kept", "memory, bits", "LUT", "energy, nJ"),
        ("float", ".920 (.900 to .940)", "", "", "", ""),
        ("6", ".300 (.100 to .600)", ".910 (.900 to .930)", "6,000", "900 to 1,234", "2"),
        ("8", ".910 (.100 to .930)", ".920 (.900 to .940)", "8,000", "900", "2"),
        ("least width", "8", "6", "", "", ""),
    ]
    assert draw(finding, content(task)).startswith(b"\x89PNG")


def test_several_tasks_and_measures_have_columns_of_their_own() -> None:
    finding = FINDINGS["still"]
    one = {
        "task": "one",
        "title": "a task",
        "float": {"point": "float", "score": [0.5]},
        "dots": [dot(8, "a", 0.25, still=[1.0])],
    }
    other = {
        "task": "other",
        "title": "another",
        "float": {"point": "float", "score": [0.5]},
        "dots": [dot(8, "b", 0.125, still=[0.0])],
    }
    assert rows(finding, content(one, other)) == [
        ("task", "bits of a weight", "", "a", "b"),
        ("one", "float", "", ".500", ""),
        ("one", "8", "accuracy", ".250", ""),
        ("one", "8", "share of steps that moved nothing", "1.000", ""),
        ("other", "float", "", ".500", ""),
        ("other", "8", "accuracy", "", ".125"),
        ("other", "8", "share of steps that moved nothing", "", "0"),
    ]


def test_tasks_of_one_line_stand_side_by_side() -> None:
    finding = FINDINGS["noise"]
    one = {
        "task": "one",
        "float": {"score": [0.5]},
        "dots": [dot(1.5, "a", 0.25, min_alpha=[1e-5]), dot(2, "a", 0.5, min_alpha=[1.0])],
    }
    other = {"task": "other", "float": {"score": [0.75]}, "dots": [dot(2, "a", 0.125, min_alpha=[0.5])]}
    assert rows(finding, content(one, other)) == [
        ("chi", "", "one", "other"),
        ("float", "accuracy", ".500", ".750"),
        ("1.5", "accuracy", ".250", ""),
        ("1.5", "least alpha", "1e-05", ""),
        ("2", "accuracy", ".500", ".125"),
        ("2", "least alpha", "1.000", ".500"),
    ]


def test_the_least_width_is_that_from_which_on_all_are_near() -> None:
    """Within .01 of the same seed in float, in four of five; a width that happens to be near below one that is not is none."""
    best = {"float": {"score": [0.9] * 5}}
    near, far, four = [0.89] * 5, [0.89, 0.89, 0.89, 0.5, 0.5], [0.89, 0.89, 0.89, 0.89, 0.5]

    def of(*scores: list[float]) -> str:
        return least(best | {"dots": [dot(x, "line", *one) for x, one in zip((4, 6, 8), scores, strict=True)]}, "line")

    assert [of(far, near, near), of(near, far, four), of(near, near, near), of(near, near, far)] == ["6", "8", "4", "none"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.5, ".500"),
        (1, "1.000"),
        (12.3456, "12.346"),
        (10.718, "10.718"),
        (0.9996, "1.000"),
        (-20.5, "-20.500"),
        (0.0004, "4e-04"),
        (-0.25, "-.250"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_are_brief(value: float, text: str) -> None:
    assert brief(value) == text


def test_a_spread_that_says_nothing_is_left_out() -> None:
    assert spread([0.5001, 0.5, 0.4999]) == ".500"
    assert spread([0.25, 0.5, 1.0]) == ".500 (.250 to 1.000)"


# ---------------------------------------------------------------- the page


def test_the_page_shows_the_files() -> None:
    page = (DOCS / "findings.md").read_text()
    assert renewed(page, tables(DOCS / "findings")) == page, "make pages"


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding_has_a_command_a_figure_and_five_seeds(name: str) -> None:
    page = (DOCS / "findings.md").read_text()
    assert f"\n    kappa-rtl findings {name}\n" in page
    assert f"](findings/{name}.png)" in page and (DOCS / "findings" / f"{name}.png").stat().st_size > 10_000
    found = read(DOCS / "findings")[name]
    assert found["seeds"] >= 5
    measures = FINDINGS[name].measures
    assert all(len(one[measure]) == found["seeds"] for task in found["tasks"] for one in task["dots"] for measure in measures)
    assert [task["task"] for task in found["tasks"]] == list(FINDINGS[name].tasks) or not FINDINGS[name].space


# ---------------------------------------------------------------- runs


def test_the_command_answers_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it wrote is a search that explore takes."""
    few = replace(
        FINDINGS["random"],
        space={"weight": 8, "rounding": ["nearest", "stochastic:2"], "law": "adgd"},
        tasks=("batches", "drift"),
    )
    short = {name: Task(one.title, dict(one.tables) | {"training": {"steps": 6}}) for name, one in TASKS.items()}
    monkeypatch.setitem(asked.FINDINGS, "random", few)
    for name, task in short.items():
        monkeypatch.setitem(asked.TASKS, name, task)
    arguments = ["findings", "random", "--seeds", "2", "--jobs", "1", "--out", str(tmp_path)]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    folder = tmp_path / "random"
    assert {path.name for path in folder.iterdir()} == {"batches", "drift", "results.json", "table.txt", "plot.png"}
    made = json.loads((folder / "results.json").read_text())
    assert [(one["x"], one["line"]) for one in made["tasks"][0]["dots"]] == [(0, "8 bits"), (2, "8 bits")]
    assert all(len(one["score"]) == 2 for task in made["tasks"] for one in task["dots"])
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0 and "6 of 6 runs were done before" in again.output
    assert json.loads((folder / "results.json").read_text()) == made
    monkeypatch.setitem(asked.FINDINGS, "random", replace(few, only=lambda row: row["rounding"] != "nearest"))
    assert CliRunner().invoke(main, arguments).exit_code == 0
    left = json.loads((folder / "results.json").read_text())
    assert all([one["x"] for one in task["dots"]] == [2] for task in left["tasks"])
    space = folder / "batches" / "space.toml"
    found = CliRunner().invoke(
        main, ["explore", str(space), "--seeds", "2", "--probability", ".6", "--jobs", "1", "--out", str(folder / "batches")]
    )
    assert found.exit_code == 0 and "6 of 6 runs were done before" in found.output


def test_the_margin_of_a_ramp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a throttle it is the rate times the largest eigenvalue of the inputs' covariance, sixteen times at the end."""
    monkeypatch.setattr(ramp, "LENGTHS", (5,))
    monkeypatch.setattr(ramp, "LAWS", ("off", "stability_margin"))
    (task,) = ramp.tasks(2)
    off, on = task["dots"]
    network = Network.of(FINDINGS["throttle"].settings("drift"))
    for seed in range(2):
        inputs = network.split(seed).train.X
        largest = np.linalg.norm(inputs, 2) ** 2 / len(inputs)
        assert off["margin"][seed] == pytest.approx(0.1 * 16 * largest, rel=1e-4)
    assert off["ending"] == ["diverged"] * 2 and on["ending"] == ["done"] * 2
    assert all(seen < 0.99 for seen in off["seen"])  # in the first of the steps that are alike
    assert on["growing"] == on["margin"] and all(
        margin <= most for margin, most in zip(off["growing"], off["margin"], strict=True)
    )
    assert all(2 < margin < 5 for margin in on["margin"]) and all(0.3 < seen < 0.5 for seen in on["seen"])
