"""Commands at their edges: outputs that cannot be written, files that are none, and interruptions that Python swallows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from kappa_rtl.scripts.main import main

TRACE = json.dumps({"bp_log": [{"epoch": 1, "hidden_norms": [1, 2], "bp_grad_norms_per_sample_med": [0.1], "acc_eval": 0.5}]})
PROC = Path("/proc")
"""A folder in which nobody can make a file, not even root, and of which permissions say that anybody may."""

OUTPUTS = [
    (["monitor", "trace.json", "--plot"], "x.png"),
    (["bench", "--json"], "x.json"),
    (["faults", "--out"], "x"),
    (["train", "000", "--out"], "x"),
    (["credit", "lq", "--out"], "x"),
    (["calibrate", "norm", "--out"], "x"),
    (["cosim", "--out"], "x"),
    (["export", "--config", "unit.toml", "-o"], "x.v"),
    (["synth", "--json"], "x.json"),
    (["synth", "--plot"], "x.png"),
]


@pytest.mark.parametrize("folder", ["file", "/proc"])
@pytest.mark.parametrize(("command", "name"), OUTPUTS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_an_output_is_tried_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], name: str, folder: str
) -> None:
    """Below a file, and on what is no disk: refused at once, by the option and what was typed, and nothing is left."""
    if folder == "/proc" and not PROC.is_dir():
        pytest.skip("no /proc")
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("trace.json").write_text(TRACE)
    Path("unit.toml").write_text("[throttle]\nlaw = 'stability_margin'\nelements = 8\neta = 0.1\n")
    before = sorted(tmp_path.rglob("*"))
    begun = time.monotonic()
    done = CliRunner().invoke(main, [*command, f"{folder}/{name}"])
    assert time.monotonic() - begun < 20
    said = " ".join(done.output.split())
    assert done.exit_code == 2 and f"'{folder}/{name}' must be" in said and command[-1] in said, done.output
    assert sorted(tmp_path.rglob("*")) == before


def test_the_program_names_its_commands() -> None:
    listed, none = CliRunner().invoke(main, ["-h"]), CliRunner().invoke(main, ["trian"])
    assert listed.exit_code == 0 and {"cosim", "export", "train", "doctor"} <= set(listed.output.split())
    assert none.exit_code == 2 and "No such command 'trian'" in none.output


@pytest.mark.parametrize(
    "content",
    [TRACE.encode("utf-16")[:-1], b"\xff\xfe\x00", b"", b"null", b"{", TRACE.encode("utf-32")[:-3], b"\x80abc", b"[1]", b"[[]]"],
    ids=lambda content: repr(content[:6]),
)
def test_a_trace_that_is_none_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    done = CliRunner().invoke(main, ["monitor", str(path)])
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    assert str(path) in done.output and "must be" in done.output


def test_a_trace_in_utf_16_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(TRACE.encode("utf-16"))
    assert CliRunner().invoke(main, ["monitor", str(tmp_path / "mine.json")]).exit_code == 0


# ---------------------------------------------------------------- interruptions

SWALLOWS = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from kappa_rtl.scripts.interrupts import ending_at_once, interruptible
with ending_at_once(), interruptible("--resume goes on"):
    if {waits}:
        other = threading.Thread(target=time.sleep, args=(600,))
        other.start()
    print("begun", flush=True)
    for _ in range(600):
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            if {waits}:
                raise
"""


@pytest.mark.parametrize("waits", [False, True], ids=["swallowed", "a thread that is waited for"])
def test_an_interruption_that_is_lost_ends_the_command_all_the_same(waits: bool) -> None:
    """As where it comes in a destructor; and what was begun in a thread is not waited for."""
    process = subprocess.Popen(
        [sys.executable, "-c", SWALLOWS.format(waits=waits)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - begun < 20
    assert said.strip() == "interrupted; what is done stays, and --resume goes on"


@pytest.mark.parametrize("delay", [0, 0.6])
def test_ctrl_c_while_verilog_is_made(tmp_path: Path, delay: float) -> None:
    """With nothing kept: the command ends at once, with its status, and leaves no process behind that goes on building."""
    command = [sys.executable, "-m", "kappa_rtl.scripts.main", "cosim", "--steps", "3", "--out", str(tmp_path / "run")]
    environment = os.environ | {"KAPPA_RTL_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "cache").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and time.monotonic() - begun < 20
    assert "interrupted; " in said and "Traceback" not in said
