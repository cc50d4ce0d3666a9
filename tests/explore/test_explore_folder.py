"""The folder of a search: what is found again after it has moved, and what is not ours."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.scripts.main import main


def test_a_folder_that_moves_with_its_data_is_found_again(tmp_path: Path) -> None:
    """And data that are other data are not."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    rows = np.random.default_rng(0).uniform(1, 9, (60, 2))
    (here / "table.csv").write_text("a,b,y\n" + "\n".join(f"{a},{b},{a + b}" for a, b in rows))
    (here / "space.toml").write_text(
        '[explore]\nweight = 8\nrounding = "nearest"\nlaw = "off"\n[data]\nfile = "table.csv"\n[training]\nsteps = 5\n'
    )
    arguments = ["--seeds", "1", "--jobs", "1", "--probability", ".5"]
    first = CliRunner().invoke(main, ["explore", str(here / "space.toml"), "--out", str(here / "out"), *arguments])
    assert first.exit_code == 0, first.output
    shutil.rmtree(here / "out" / "runs")  # what is left is still ours
    second = CliRunner().invoke(main, ["explore", str(here / "space.toml"), "--out", str(here / "out"), *arguments])
    assert second.exit_code == 0, second.output
    here.rename(there)
    again = CliRunner().invoke(main, ["explore", str(there / "space.toml"), "--out", str(there / "out"), *arguments])
    assert again.exit_code == 0 and "2 of 2 runs were done before" in again.output
    with (there / "table.csv").open("a") as file:
        file.write("\n1,2,7")
    other = CliRunner().invoke(main, ["explore", str(there / "space.toml"), "--out", str(there / "out"), *arguments])
    assert other.exit_code == 0 and "done before" not in other.output


@pytest.mark.parametrize("name", ["index.html", "points.csv", "points.parquet", "unit.toml"])
def test_a_file_of_somebody_else_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("mine")
    (tmp_path / "runs").mkdir()
    made = CliRunner().invoke(main, ["explore", "--out", str(tmp_path)])
    assert made.exit_code == 1 and f"must have no {name} of somebody else" in made.output
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 2
