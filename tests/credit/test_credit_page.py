"""The tables of docs/credit.md: what the files of docs/credit/ say, at the published sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kappa_rtl.hw.synth.costs import renewed
from kappa_rtl.scripts.experiments.credit.page import LAYOUTS, PARTED, read, tables
from kappa_rtl.scripts.experiments.credit.plan import plan_of, used
from support import ROOT

DOCS = ROOT / "docs"
FILES = sorted((DOCS / "credit").glob("*.json"))


def test_the_page_shows_the_files() -> None:
    page = (DOCS / "credit.md").read_text()
    made = tables(DOCS / "credit")
    assert made and renewed(page, made) == page, "make pages"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_is_of_the_published_size(path: Path) -> None:
    """Or a part of it: some of the activations or depths."""
    content: dict[str, Any] = json.loads(path.read_text())
    name = path.stem.partition("-")[0]
    assert content["experiment"] == name and name in LAYOUTS
    whole = json.loads(json.dumps(used(name, plan_of(name, full=True))))
    own = content["configuration"]
    for key, value in whole.items():
        if key in PARTED:
            assert set(own[key]) <= set(value)
        else:
            assert own[key] == value, key
    assert all(len(arm["columns"]["gamma"]["seeds"]) == len(own["seeds"]) for arm in content["arms"].values())


def test_parts_make_one_table(tmp_path: Path) -> None:
    """Groups are named alike, however the experiment was cut."""

    def part(name: str, activations: list[str], depths: list[int], groups: list[str]) -> None:
        columns = {column: {"seeds": [0.25, 0.75]} for column in ("gamma", "rho", "accuracy")}
        arms = {group: {"group": group, "label": "dfa", "columns": columns} for group in groups}
        configuration = {"activations": activations, "depths": depths}
        (tmp_path / name).write_text(json.dumps({"experiment": "ladder", "configuration": configuration, "arms": arms}))

    part("ladder-a.json", ["phi:1"], [2, 4], ["L 2", "L 4"])
    part("ladder-b.json", ["phi:0"], [2], [""])
    part("ladder-c.json", ["phi:0"], [4], [""])
    found = read(tmp_path, "ladder")
    assert sorted(arm["group"] for arm in found["arms"].values()) == ["alpha 0 L 2", "alpha 0 L 4", "alpha 1 L 2", "alpha 1 L 4"]
    head, *rows = tables(tmp_path)["ladder"]
    assert head[3:] == ("L = 2", "L = 4")
    named = [("alpha 1", column, "`dfa`") for column in ("gamma", "rho", "accuracy")]
    assert [row[:3] for row in rows] == [*named, ("alpha 0", "gamma", "`dfa`")]
    assert all(row[3:] == (".500±.250", ".500±.250") for row in rows)
