"""The blocks of docs/keras.md run, and the example ends as the page says: with the harness's weights, and a picture."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import ROOT
from support.pages import run_blocks

pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")
os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("keras", reason="needs Keras: make torch-test has an environment with it", exc_type=ImportError)


def test_scale_drift(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "keras" / "scale_drift.py"), str(tmp_path / "drift.png")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"KERAS_BACKEND": "torch"})
    assert done.returncode == 0, done.stderr
    lines = re.findall(
        r"^(\w+): equal to the bit: (.*) of 100 steps; losses within (\S+); last loss (\S+)$", done.stdout, re.MULTILINE
    )
    every = "weights in 100, alpha in 100, C in 100"
    assert [(name, same) for name, same, _, _ in lines] == [("off", every), ("stability_margin", every)]
    assert all(float(off) < 1e-12 for _, _, off, _ in lines)
    assert float(lines[0][3]) > 1e4 and float(lines[1][3]) < 1e-8
    assert (tmp_path / "drift.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_blocks("docs/keras.md") == 2
