"""Runs that are found again, and those that go on in other processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kappa_rtl.scripts.experiments import results
from kappa_rtl.scripts.experiments.credit import run
from kappa_rtl.scripts.experiments.pool import Task, compute
from kappa_rtl.scripts.experiments.results import Results, key
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cache import code_digest

TOLD = "code changed since: computing again"


def test_a_key_has_job_version_and_code() -> None:
    found = key("this job")
    assert found["job"] == "this job" and len(found["code"]) == 64 and found["version"][0].isdigit()
    assert key("this job") == found != key("that job")


def test_the_code_is_that_of_the_package_as_it_was_loaded() -> None:
    rooms = [results.PACKAGE / room for room in ("golden", "hw", "sim", "scripts")]
    assert all((room / "__init__.py").exists() for room in rooms)
    assert key("a")["code"] == code_digest(*rooms)


def test_what_other_code_made_is_told_of_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept: dict[Path, Any] = {tmp_path: (key("a"), 1), tmp_path / "old": (key("a") | {"code": "other"}, 2)}

    def read(path: Path) -> Any:
        if path not in kept:
            raise ValueError("not ours")
        return kept[path]

    looked = Results(read)
    assert looked.find(tmp_path, key("a")) == 1
    assert looked.find(tmp_path, key("b")) is None and looked.find(tmp_path / "none", key("a")) is None
    assert capsys.readouterr().err == ""
    assert looked.find(tmp_path / "old", key("a")) is None and looked.find(tmp_path / "old", key("a")) is None
    assert capsys.readouterr().err.count(TOLD) == 1


@pytest.mark.parametrize(
    "command", [["train", "1A", "--steps", "3"], ["credit", "lq", "--steps", "1", "--seeds", "1", "--jobs", "1"]]
)
def test_changed_code_never_shows_old_results(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*command, "--out", str(tmp_path / "out")]
    assert CliRunner().invoke(main, command).exit_code == 0
    files = sorted((tmp_path / "out" / "runs").iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    monkeypatch.setattr(results, "CODE", "changed")
    monkeypatch.setattr(run, "CODE", "changed")  # of a credit run without a unit, which is made by less
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0 and again.stderr.count(TOLD) == 1
    assert all(file.stat().st_mtime_ns != stamp for file, stamp in zip(files, before, strict=True))


def test_two_processes_give_what_one_gives() -> None:
    tasks = [Task(i, str(i), divmod, (i, 3)) for i in range(5)]
    assert dict(compute(tasks, 1, "one")) == dict(compute(tasks, 2, "two")) == {i: divmod(i, 3) for i in range(5)}
    assert list(compute([], 2, "none")) == []


def test_an_error_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        list(compute([Task(i, str(i), divmod, (1, 0)) for i in range(2)], 2, "bad"))


SLEEPERS = """
import json, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
from kappa_rtl.scripts.experiments.pool import Task, compute
from kappa_rtl.scripts.interrupts import ending_at_once, interruptible
with ending_at_once(), interruptible():
    for key, _ in compute([Task(s, str(s), time.sleep, (s,)) for s in (0, 0.01, 600, 601)], {jobs}, "sleep"):
        print(json.dumps(key), flush=True)
"""


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interruption_ends_at_once_and_keeps_what_is_done(jobs: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS.format(jobs=jobs)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    done = {json.loads(process.stdout.readline()) for _ in range(2)}
    begun = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < 20
    assert done == {0, 0.01} and process.returncode == 130
    assert "interrupted; what is done stays" in said and "Traceback" not in said


def test_a_process_that_is_killed_leaves_none_behind() -> None:
    """Whoever waits for work from it ends too, which closes the pipe that they share."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPERS.format(jobs=2)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    process.kill()
    process.communicate(timeout=60)
    left, end = True, time.monotonic() + 20
    while left and time.monotonic() < end:
        time.sleep(0.1)
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            left = False
    assert not left


def test_ctrl_c_has_one_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes, also in a command that keeps nothing, and while its module is loaded."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kappa_rtl.scripts.main._Lazy.get_command", interrupted)
    done = CliRunner().invoke(main, ["doctor"])
    assert done.exit_code == 130 and "interrupted" in done.output
