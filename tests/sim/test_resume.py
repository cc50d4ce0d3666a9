"""A run that is broken off, at any moment and in any way, goes on from what it has saved: bit for bit the run that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.training.loop import Loop
from kappa_rtl.scripts.experiments.cosim import run, unfinished
from kappa_rtl.scripts.experiments.cosim.arms import Progress
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.experiments.cosim.run import cosimulate
from kappa_rtl.scripts.main import main
from support.jobs import job

STEPS = 8
HEAD = f"[run]\nexperiment = 'synthetic'\n[data]\nheld_out = 3\n[training]\nsteps = {STEPS}\n"
JOBS = {
    "layer": f"{HEAD}batch = 5\n[narrow]\n[throttle]\nlanes = 3\n",
    "narrow": f"{HEAD}batch = 5\n[throttle]\nlanes = 3\nresidual_bits = 3\nupdate = 'SQ1.9,stochastic'\n",
    "network": HEAD.replace("[data]", "sim = 'icarus'\n[data]")
    + "batch = 7\noptimiser = 'adam'\nestimator = 'half_batch'\nschedule = 'cosine'\n"
    "[model]\nhidden = [3]\nbatch_norm = true\n[throttle]\nlanes = 2\n",
}
ARMS = {"layer": 4, "narrow": 4 + 4, "network": 4}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step is saved, and no picture drawn."""
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    monkeypatch.setattr(run, "write_report", lambda *_: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Job, Path]]:
    """A job and the folder of its run that nothing has interrupted."""
    made: dict[str, tuple[Job, Path]] = {}

    def of(name: str) -> tuple[Job, Path]:
        if name not in made:
            room = tmp_path_factory.mktemp(name)
            (room / "job.toml").write_text(JOBS[name])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(run, "write_report", lambda *_: None)
                made[name] = Job.read(room / "job.toml"), room / "whole"
                cosimulate(*made[name], quiet=True)
        return made[name]

    return of


def killed(job: Job, out: Path, after: int, monkeypatch: pytest.MonkeyPatch, *, resume: bool = False) -> None:
    """Run a job until all its runs have made so many steps together, and no further."""

    def count(progress: Progress) -> None:
        if sum(history.steps for history in progress.runs.values()) >= after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "count", count)
        with pytest.raises(KeyboardInterrupt):
            cosimulate(job, out, quiet=True, resume=resume)
    assert (out / "unfinished").is_dir()


def resumed(job: Job, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Go on to the end; how many steps were trained for that."""
    made = 0
    step = Loop.step

    def counted(*arguments: Any) -> Any:
        nonlocal made
        made += 1
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "step", counted)
        cosimulate(job, out, quiet=True, resume=True)
    return made


def vectors(out: Path) -> dict[str, Any]:
    with np.load(out / "vectors.npz") as kept:
        return dict(kept)


def assert_same(out: Path, whole: Path) -> None:
    """Everything but times and paths, to the bit."""
    assert (out / "trace.jsonl").read_bytes() == (whole / "trace.jsonl").read_bytes()
    ours, theirs = vectors(out), vectors(whole)
    assert set(ours) == set(theirs) and all(np.array_equal(ours[name], theirs[name]) for name in ours)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (out, whole)]
    for report in reports:
        for name in ("seconds", "cycles_per_second", "command"):
            del report[name]
    assert reports[0] == reports[1]
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        pytest.param("layer", [4 * 3, 4 * 5], id="layer"),
        pytest.param("narrow", [4 * STEPS + STEPS + 2] * 2, id="narrow weights", marks=[pytest.mark.slow, pytest.mark.ci]),
        pytest.param("network", [2 * STEPS + 2, 3 * STEPS + 3], id="network: golden, RTL", marks=pytest.mark.icarus),
    ],
)
def test_it_goes_on_where_it_was_killed(
    name: str, kills: list[int], whole: Callable[[str], tuple[Job, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, reference = whole(name)
    out = tmp_path / "out"
    for again, after in enumerate(kills):
        killed(job, out, after, monkeypatch, resume=again > 0)
    made = resumed(job, out, monkeypatch)
    assert_same(out, reference)
    total = ARMS[name] * STEPS
    assert 0 < made < total - kills[-1] + 5, "what was saved is not computed again"


KILLED = """
import os, signal, sys
from kappa_rtl.scripts.experiments.cosim import unfinished
from kappa_rtl.scripts.experiments.cosim.record import Record
from kappa_rtl.scripts.main import main
unfinished.SECONDS = 0
add = Record.add
def kill(record, row):
    add(record, row)
    if row.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Record.add = kill
main(sys.argv[1:])
"""


def test_killed_in_the_midst_of_a_step(
    whole: Callable[[str], tuple[Job, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL, after the line of a step and before its checkpoint; half a line and half a step of the log besides."""
    job, reference = whole("layer")
    out = tmp_path / "out"
    command = [sys.executable, "-c", KILLED, "cosim", "--config", str(reference / "config.toml"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    for name in ("trace.jsonl", "unfinished/side_by_side.log"):
        with (out / name).open("ab") as file:
            file.write(b'{"step": 6, "lo')
    assert not (out / "vectors.npz").exists()
    made = resumed(job, out, monkeypatch)
    assert made == 4 * (STEPS - 5)
    assert_same(out, reference)


@pytest.mark.parametrize("kind", ["cut off", "other version", "gone", "no log"])
def test_a_checkpoint_that_is_not_this_runs_is_told_and_not_used(
    kind: str,
    whole: Callable[[str], tuple[Job, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    job, reference = whole("layer")
    out = tmp_path / "out"
    killed(job, out, 4 * 5, monkeypatch)
    folder = out / "unfinished"
    kept, about = folder / "side_by_side.npz", json.loads((folder / "about.json").read_text())
    match kind:
        case "cut off":
            kept.write_bytes(kept.read_bytes()[:-200])
        case "other version":
            (folder / "about.json").write_text(json.dumps(about | {"version": "0.0.1", "data": "other"}))
        case "gone":
            for path in folder.iterdir():
                path.unlink()
        case "no log":
            (folder / "side_by_side.log").unlink()
    message = {
        "cut off": "side_by_side.npz must be a whole checkpoint, not one that is cut off or something else",
        "other version": "unfinished: what is saved there is of another data, version; the steps that were logged are computed",
        "gone": "unfinished: nothing is saved there; the steps that were logged are computed again",
        "no log": "side_by_side.log must hold the 4 steps of the checkpoint, not 0",
    }[kind]
    if kind == "no log":
        with pytest.raises(ValueError, match=message):
            cosimulate(job, out, quiet=True, resume=True)
        return
    assert resumed(job, out, monkeypatch) == 4 * STEPS
    assert message in capsys.readouterr().err
    assert_same(out, reference)


def test_registers_decide_and_a_loss_may_stray(
    whole: Callable[[str], tuple[Job, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another BLAS changes the last digit of a loss; another job changes the registers."""
    job, _ = whole("layer")
    out = tmp_path / "out"
    killed(job, out, 4 * 5, monkeypatch)
    trace = out / "trace.jsonl"
    kept = trace.read_text().splitlines(keepends=True)
    for step in (1, 4):  # before the checkpoint, so that it is replayed, and after it
        line = json.loads(kept[step])
        for changed, message in (
            ({"loss": line["loss"] * 1.01}, f"step {step} does not come out as trace.jsonl has it, .*: loss comes out as"),
            ({"rtl": line["rtl"] | {"A": 1}}, f"step {step} .*: rtl A comes out as {line['rtl']['A']}, not 1"),
            ({"cycles": 3}, f"step {step} .*: cycles comes out as {line['cycles']}, not 3"),
        ):
            if step == 1 and "loss" in changed:
                continue  # no loss is computed for a step that is replayed
            trace.write_text("".join([*kept[:step], json.dumps(line | changed) + "\n", *kept[step + 1 :]]))
            with pytest.raises(ValueError, match=message):
                cosimulate(job, out, quiet=True, resume=True)
    line = json.loads(kept[4])
    stray = json.dumps(line | {"loss": line["loss"] * (1 + 1e-12)}) + "\n"
    trace.write_text("".join([*kept[:4], stray]))
    outcome = cosimulate(job, out, quiet=True, resume=True)
    assert outcome.strayed == 1 and trace.read_text().splitlines(keepends=True)[4] == stray
    assert "The loss of 1 resumed steps is not the logged one to the last digit" in (out / "report.json").read_text()


def test_an_interrupted_command_says_how_to_go_on(tmp_path: Path) -> None:
    """Ctrl-C: the log is whole lines, the vectors are theirs, and --resume reads the job from the folder."""
    small = tmp_path / "job.toml"
    small.write_text(JOBS["layer"].replace(f"steps = {STEPS}", "steps = 400"))
    out = tmp_path / "out"
    script = KILLED.replace("row.step == 5", "row.step == 20").replace("signal.SIGKILL", "signal.SIGINT")
    command = [sys.executable, "-c", "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + script]
    done = subprocess.run([*command, "cosim", "--config", str(small), "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 130 and "--resume goes on from there" in done.stderr, done.stderr
    kept = (out / "trace.jsonl").read_text().splitlines(keepends=True)
    assert 20 < len(kept) < 400 and len(vectors(out)["update"]) == len(kept)
    assert not (out / "index.html").exists()
    result = CliRunner().invoke(main, ["cosim", "--resume", "--steps", str(len(kept) + 3), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (out / "trace.jsonl").read_text().splitlines(keepends=True)[: len(kept)] == kept


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", "trace.jsonl, line 1: must be the record of step 0 with loss, golden, rtl and cycles, not '{}'"),
        ("nonsense", "trace.jsonl, line 1: must be the record of step 0"),
        ('{"step": 1, "loss": 0, "golden": {}, "rtl": {}, "cycles": 1}', "line 1: must be the record of step 0"),
        ("\udcff", "trace.jsonl' is no text"),
        ("7 lines", "steps must be at least the 7 that"),
    ],
)
def test_a_log_of_something_else_is_refused(tmp_path: Path, line: str, message: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.toml").write_text(job(tmp_path).to_toml())
    seven = [{"step": step, "loss": 0.0, "golden": {}, "rtl": {}, "cycles": 1} for step in range(7)]
    text = "".join(json.dumps(one) + "\n" for one in seven) if line == "7 lines" else f"{line}\n"
    (out / "trace.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    before = (out / "trace.jsonl").read_bytes()
    result = CliRunner().invoke(main, ["cosim", "--resume", "--steps", "5", "--out", str(out)])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in result.output
    assert (out / "trace.jsonl").read_bytes() == before and not (out / "throttle.v").exists()
