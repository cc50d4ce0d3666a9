"""The Python blocks of docs/torch.md run, and so do the examples, with a few steps; where there is no torch they are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.pages import run_blocks

torch = pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")


@pytest.mark.filterwarnings("ignore:.*weights lie beyond the rails")
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """All in order, in one namespace and a folder of their own."""
    monkeypatch.chdir(tmp_path)
    assert run_blocks("docs/torch.md") > 8
    assert "1 unit(s)" in capsys.readouterr().out
    assert (tmp_path / "throttle.png").exists() and (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "build").exists(), "golden and RTL differ"


@pytest.mark.parametrize("options", [[], ["--presets"]])
@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "examples" / "torch").glob("*.py")))
def test_an_example(name: str, options: list[str], tmp_path: Path) -> None:
    """Two steps of every run: a table of 19 rows, and a picture."""
    if name == "signals":
        pytest.importorskip("mnist1d", reason="needs mnist1d, which makes its data: pip install mnist1d")
    command = [sys.executable, str(ROOT / "examples" / "torch" / f"{name}.py"), "--steps", "2", "--out", "made.png", *options]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 20 and all(len(row) == len(rows[0]) for row in rows[2:])
    assert (tmp_path / "made.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("options", [["digits.py"], ["characters.py", "--moves", "16"]])
def test_the_grids_of_an_example(options: list[str], tmp_path: Path) -> None:
    """Two steps of every run: a row for float, and one for one grid and for a grid a tensor of each width and rounding."""
    command = [sys.executable, str(ROOT / "examples" / "torch" / options[0]), "--steps", "2", "--grids", *options[1:]]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == 1 + 1 + 12 and all(len(row) == 6 for row in rows)
