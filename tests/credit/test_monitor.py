"""``kappa-rtl monitor``: text, totals, plot, errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kappa_rtl.scripts.main import main
from support import ROOT


def row(epoch: int, growth: float = 2.0, last: float = 0.1, accuracy: float | str = 0.5) -> dict[str, Any]:
    return {"epoch": epoch, "hidden_norms": [1.0, growth], "bp_grad_norms_per_sample_med": [0.2, last], "acc_eval": accuracy}


TRACE = {
    "title": "4 blocks, seed 0",
    "bp_log": [row(epoch, accuracy=0.1 * epoch) for epoch in range(11)],
    "dfa_log": [row(0), row(3, 63.0, 4e-9, 0.28), row(10, 99.0, 1e-9, 0.25)],
}


def monitor(path: Path, *options: str, trace: Any = TRACE) -> Result:
    (path / "trace.json").write_text(json.dumps(trace))
    return CliRunner().invoke(main, ["monitor", str(path / "trace.json"), *options])


def test_text(tmp_path: Path) -> None:
    done = monitor(tmp_path)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "=" * 72,
        "EARLY-STOP SIMULATION: 4 blocks, seed 0",
        "Using the diagnostic protocol as an in-training abort condition.",
        "=" * 72,
        "",
        "=== BP (simulating early-stop with the protocol) ===",
        "  No flag fired in 10 epochs. Final acc: 1.0000",
        "  Verdict: trustworthy. Run to completion.",
        "",
        "=== DFA (simulating early-stop with the protocol) ===",
        "  Protocol fires at epoch 3: (a) per-block growth 63× > 50× AND (b) ‖g_L‖ 4.0e-09 < 1e-7",
        "  Acc at fire epoch: 0.2800",
        "  Acc at final epoch (would have been): 0.2500",
        "  Diff (final - fire-time): -3.0 pp",
        "  -> Stopping at epoch 3 would save 7 epochs (70% compute), with no headline acc loss.",
        "  Verdict: walked back via (a)+(b).",
        "",
        "Compute saved by using the protocol as an early-stop criterion:",
        "  BP: 0% (protocol never fires, BP runs to completion)",
        "  DFA: 70% (protocol fires at epoch 3 of a 10-epoch run)",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["trace.json"], "nothing is written unasked"


def test_the_page_shows_what_it_prints() -> None:
    docs = ROOT / "docs"
    done = CliRunner().invoke(main, ["monitor", str(docs / "traces" / "norm-0.json")])
    assert f"```\n{done.output}```\n" in (docs / "protocol.md").read_text(encoding="utf-8")


def test_the_demonstration_needs_no_checkout(tmp_path: Path) -> None:
    """From a folder of one's own, as a command and as a module; the trace is that of the page."""
    own = CliRunner().invoke(main, ["monitor", "--demo"])
    assert own.exit_code == 0 and "DFA: " in own.output
    command = [sys.executable, "-m", "kappa_rtl.scripts.monitor", "--demo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == own.output
    assert (ROOT / "scripts" / "monitor_demo.json").read_bytes() == (ROOT / "docs" / "traces" / "norm-0.json").read_bytes()
    for given, rule in (
        ([], "Missing argument 'TRACE', or --demo"),
        (["--demo", str(ROOT / "README.md")], "must not both be given"),
    ):
        refused = CliRunner().invoke(main, ["monitor", *given])
        assert refused.exit_code == 2 and rule in refused.output


def test_options(tmp_path: Path) -> None:
    assert "DFA: 0% (protocol fires at epoch 10" in monitor(tmp_path, "--every", "5").output
    assert "fires at epoch 0: (a) per-block growth 2× > 1.5×" in monitor(tmp_path, "--ratio", "1.5").output
    assert "(b) ‖g_L‖ 1.0e-01 < 0.2" in monitor(tmp_path, "--floor", "0.2").output


AWKWARD = [
    {"x_log": [row(0)]},
    {"x_log": [row(0, 0.0, 0.0)]},
    {"x_log": [row(0, 1e308, 5e-324), row(1, 1e-300, 1e300, "NaN")]},
    {"x_log": [row(2) | {"hidden_norms": [1.0, "Infinity", "NaN"]}, row(5) | {"hidden_norms": []}]},
    {f"{i}_log": [row(0), row(1)] for i in range(8)},
]


@pytest.mark.parametrize("trace", [TRACE, *(pytest.param(trace, marks=pytest.mark.slow) for trace in AWKWARD)])
def test_plot(trace: Any, tmp_path: Path) -> None:
    done = monitor(tmp_path, "--plot", str(tmp_path / "norms.png"), trace=trace)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "norms.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("trace", "options", "rule"),
    [
        (TRACE, ("--ratio", "0"), "--ratio must be a finite number greater than 0, not 0.0"),
        (TRACE, ("--floor", "nan"), "--floor must be a finite number greater than 0, not nan"),
        (TRACE, ("--every", "0"), "0 is not in the range"),
        ({"bp_log": [row(1)]}, ("--every", "7"), "trace.json: bp_log: the log of BP must have an epoch that --every 7 divides"),
        ({"bp_log": [row(0), row(1)]}, ("--every", "50"), "must have an epoch that --every 50 divides: nothing is checked"),
        ({"bp_log": [row(5), row(1)]}, (), "trace.json: bp_log: epoch must be greater than the last, 5, not 1"),
        ({"bp_log": []}, (), "the log of BP must have at least one row, not none"),
        ({"bp_log": [row(0), {}]}, (), "bp_log[1] must be an object with epoch"),
        ([], (), "the log of TRACE must have at least one row"),
        (TRACE, ("--plot", "nowhere/norms.png"), "'nowhere/norms.png' must be in a folder that can be written"),
        (TRACE, ("--plot", "norms.jpg"), "'norms.jpg' must end in .png"),
        (TRACE, ("--plot", os.devnull), "must be a file, or nothing yet"),
    ],
)
def test_errors(trace: Any, options: tuple[str, ...], rule: str, tmp_path: Path) -> None:
    done = monitor(tmp_path, *options, trace=trace)
    assert done.exit_code != 0 and rule in done.output and "Traceback" not in done.output
