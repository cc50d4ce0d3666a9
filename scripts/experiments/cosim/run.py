"""The main job: real data trained with the RTL as the throttle, golden in lockstep, float beside them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from ....golden.config import ThrottleConfig
from ....golden.files import write_atomically
from ....golden.tables import html
from ....golden.throttle import Throttle
from ....golden.training.lint import lints
from ....golden.training.resume import digest
from ....sim import cache
from ....sim.cosim import RtlThrottle, prepare
from ....sim.difference import Difference
from ....sim.exports import exported
from ....sim.runner import check, version
from ....sim.verilate import prepare_library
from ....sim.wave import save_file
from ...progress import stage
from ..results import key
from ..stands import HEAD
from .arms import Progress, hardware, on_narrow_weights, side_by_side, stalls_of, starting
from .difference import FILES, show
from .figures import PLOTS
from .history import RunHistory, observations, summary_table
from .job import Job, measure
from .lockstep import DifferenceError
from .look import Look, look
from .network import check as check_loop
from .network import describe
from .page import write_report
from .record import TOLERANCE, lines_of
from .unfinished import Unfinished

OUTPUTS = (
    "config.toml",
    "index.html",
    "report.json",
    "registers.json",
    "vectors.npz",
    "trace.jsonl",
    "throttle.v",
    "throttle.json",
)
DIFFERENCE_OUTPUTS = tuple(FILES)


@dataclass
class Outcome:
    """How a job ended."""

    runs: dict[str, RunHistory] = field(default_factory=dict)
    compared: int = 0
    compared_steps: int = 0
    difference: Difference | None = None
    cycles: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    report: Path | None = None
    look: Look | None = None
    strayed: int = 0  #: steps of a resumed run whose loss is not the logged one to the last digit

    def _repr_html_(self) -> str:
        """For a notebook: a line a run, under the verdict on golden and RTL."""
        runs = summary_table({name: run for name, run in self.runs.items() if run.steps})
        head = ("title", "steps", "final_loss", "accuracy", "diverged_at", "min_alpha", "still_steps")
        shown = [["–" if run[name] is None else run[name] for name in head] for run in runs]
        rows = [[f"{cell:.4g}" if isinstance(cell, float) else cell for cell in row] for row in shown]
        return html(_equality(self), head, rows)


def cosimulate(
    job: Job, out: Path, *, wave_from: int | None = None, verilog: Path | None = None, resume: bool = False, quiet: bool = False
) -> Outcome:
    """Run a job and write its folder.

    Args:
        job: what to run.
        out: where everything is written; see ``OUTPUTS``. What an earlier run left there is replaced.
        wave_from: the step from which the RTL's waveform is kept as ``wave.vcd``.
        verilog: a Verilog file to simulate in place of the export of this configuration.
        resume: go on with an interrupted run from what it has saved. The RTL's steps until then are replayed, those after it
            are made again, and all of them must come out as logged.
        quiet: no progress.

    Returns:
        The outcome; with a ``difference`` if golden and RTL disagreed, which ends the run.

    Raises:
        ValueError, SimulationError: before anything is overwritten, if the job cannot be started.
        OSError: ``out`` cannot be written; told before anything is built.
    """
    check(job.sim)
    if wave_from is not None and not 0 <= wave_from < job.steps:
        raise ValueError(f"wave must be a step from 0 to {job.steps - 1}, not {wave_from}")
    out = out.resolve()
    logged = _logged(out, job) if resume else []
    given = None if verilog is None else _text(verilog)
    before = out / "throttle.v"
    if resume and given is not None and (not before.is_file() or given != _text(before)):
        raise ValueError(f"verilog must be what {str(before)!r} holds, whose run is resumed, not {str(verilog)!r}")
    # The loop of a network says more than the configuration alone shows: it knows the batches.
    told = check_loop(job, Throttle(job.throttle, job.start(job.throttle))) if job.is_network else lints(job.throttle)
    for message in told:
        click.echo(f"warning: {message}", err=True)
    seen = look(job)
    if not quiet:
        click.echo(seen.text)
    cache.prepare()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass  # a folder that cannot be written is told before the build, which takes long
    begun = time.perf_counter()
    narrow = job.narrow_runs if verilog is None else {}
    with stage(f"building for {job.sim}", quiet), ThreadPoolExecutor(2) as threads:
        # Side by side: compilers are processes of their own, and one can work while the Verilog is generated.
        library = threads.submit(prepare_library) if job.sim == "verilator" else None
        others = [threads.submit(_prepared, config, job) for config in dict.fromkeys(map(hardware, narrow.values()))]
        manifest, under_test = _prepared(job.throttle, job, given, waves=wave_from is not None)
        for other in others:
            other.result()
        if library:
            library.exception()  # whoever builds with it says what is wrong
    if resume and before.is_file() and under_test != _text(before):
        raise ValueError(
            f"verilog must be given as {str(before)!r}, the unit of the run that is resumed: this version exports another one"
        )
    outcome = Outcome(seconds={"build": time.perf_counter() - begun}, look=seen)
    stale = () if resume else (*OUTPUTS, *(f"{plot.name}.png" for plot in PLOTS))
    for name in (*stale, *DIFFERENCE_OUTPUTS):
        (out / name).unlink(missing_ok=True)
    write_atomically(out / "config.toml", job.to_toml().encode())
    write_atomically(out / "throttle.v", under_test.encode())
    write_atomically(out / "throttle.json", (json.dumps(manifest, indent=1) + "\n").encode())
    write_atomically(out / "registers.json", (json.dumps(job.throttle.registers(), indent=1) + "\n").encode())
    unfinished = Unfinished(out, _about(job, under_test), resume=resume, say=partial(click.echo, err=True))
    bar = tqdm(
        total=job.steps * (4 + len(narrow)),
        unit="step",
        desc="starting the simulator",
        disable=quiet,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 2,  # a log wants few lines
    )
    differs: DifferenceError | None = None
    with bar, contextlib.closing(unfinished):
        progress = Progress(job, bar, unfinished, quiet, outcome.runs)
        try:
            # The other simulators start while the first one works.
            with starting(job) if narrow else contextlib.nullcontext() as unit_of:
                outcome.strayed = _main_runs(progress, out, outcome, under_test, wave_from, logged)
                if unit_of:
                    on_narrow_weights(progress, unit_of)
        except DifferenceError as error:
            differs = error
        finally:
            outcome.compared = sum(one.compared for one in progress.locksteps)
            outcome.compared_steps = sum(one.steps for one in progress.locksteps)
    if differs is not None:
        outcome.difference = differs.difference
        _show(differs, job, out, under_test, wave_from, quiet)
    with stage("drawing the report", quiet):
        _conclude(job, out, outcome, verilog)
    unfinished.remove()
    return outcome


def _main_runs(progress: Progress, out: Path, outcome: Outcome, verilog: str, wave_from: int | None, logged: list[str]) -> int:
    """The runs on the job's own unit; how many of their steps have another loss than the log, within the tolerance."""
    job, folder = progress.job, out / "simulation"
    shutil.rmtree(folder, ignore_errors=True)
    begun = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if wave_from is not None:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        rtl = RtlThrottle(
            job.throttle,
            job.start(job.throttle),
            simulator=job.sim,
            streaming=job.streaming,
            stalls=stalls_of(job),
            wave_from=wave_from,
            folder=folder if wave_from is not None else None,
            verilog=verilog,
        )
        if wave_from is not None:
            stack.callback(_keep_wave, job, out, folder, rtl)  # however the run ends; whole once the unit is closed
        stack.enter_context(rtl)
        _, record = side_by_side(progress, out, rtl, logged, on_close=stack)
        outcome.cycles = list(rtl.cycles)
    outcome.seconds["training"] = time.perf_counter() - begun
    return record.strayed


def _keep_wave(job: Job, out: Path, folder: Path, rtl: RtlThrottle) -> None:
    """The waveform of a run and what GTKWave shows of it, with markers at the last step."""
    if not (folder / "wave.vcd").exists():
        click.echo("there is no waveform: the run ended before the step from which it is kept", err=True)
        return
    (folder / "wave.vcd").replace(out / "wave.vcd")
    write_atomically(out / "wave.gtkw", save_file(out / "wave.vcd", job.throttle, rtl.span))


def _about(job: Job, verilog: str) -> dict[str, str | int]:
    """What decides a run beside its config.toml, which has been compared: what another one has saved is not gone on from."""
    held = (None, None) if job.held is None else (job.held.inputs, job.held.targets)
    found = key(digest(job.problem.inputs, job.problem.targets, job.problem.labels, *held))
    about: dict[str, str | int] = {"data": found.pop("job"), **found}
    about |= {"numpy": metadata.version("numpy"), "verilog": hashlib.sha256(verilog.encode()).hexdigest()}
    return about | ({"steps": job.steps} if job.is_network else {})  # how often a network's sharpness is estimated


def _show(error: DifferenceError, job: Job, out: Path, verilog: str, wave_from: int | None, quiet: bool) -> None:
    """The page of a difference, in the main run or in one on narrow weights."""
    main = error.lockstep.config == job.throttle
    names = [job.narrow_title(name) for name, config in job.narrow_runs.items() if config == error.lockstep.config]
    run = "the main run" if main else names[0]
    text = verilog if main else exported(error.lockstep.config, streaming=job.streaming)[0]
    with stage(f"replaying {error.difference.step + 1} steps for the waveform", quiet):
        show(
            error,
            job,
            out,
            run=run,
            verilog=text,
            main=main,
            stalls=stalls_of(job),
            wave_from=error.difference.step if wave_from is None else wave_from,
        )


def _prepared(config: ThrottleConfig, job: Job, verilog: str | None = None, *, waves: bool = False) -> tuple[dict[str, Any], str]:
    """The manifest of a configuration and the Verilog to simulate, which has been built."""
    text, manifest = exported(config, streaming=job.streaming)
    prepare(config, text if verilog is None else verilog, job.sim, streaming=job.streaming, waves=waves)
    return manifest, text if verilog is None else verilog


# ------------------------------------------------------------------------------------------------ what an earlier run left


def _text(verilog: Path) -> str:
    try:
        return verilog.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"verilog must be a text in UTF-8, and {str(verilog)!r} is none: {error}") from None


def _whole(job: Job) -> Job:
    """The job with the whole path of its data, as it is written down."""
    return replace(job, data=replace(job.data, file=str(Path(job.data.file).resolve()))) if job.data.file else job


def _logged(out: Path, job: Job) -> list[str]:
    """The whole lines that an interrupted run of the same job left."""
    config, trace = out / "config.toml", out / "trace.jsonl"
    if not config.exists() or not trace.exists():
        raise ValueError(f"resume needs the config.toml and trace.jsonl of an earlier run in {str(out)!r}")
    before = Job.read(config)
    wanted, found = (_whole(one) for one in (job, replace(before, steps=job.steps)))
    different = [one.name for one in fields(Job) if getattr(wanted, one.name) != getattr(found, one.name)]
    if different:
        raise ValueError(f"resume needs the job of {str(config)!r}; only steps may differ, not {', '.join(different)}")
    logged = lines_of(trace)
    if len(logged) > job.steps:
        raise ValueError(f"steps must be at least the {len(logged)} that {str(trace)!r} has logged, not {job.steps}")
    return logged


# ------------------------------------------------------------------------------------------------ the end


def _conclude(job: Job, out: Path, outcome: Outcome, verilog: Path | None) -> None:
    """``report.json`` and the page."""
    runs = {name: run for name, run in outcome.runs.items() if run.steps}
    said = [_equality(outcome), *observations(runs), *_measures(job, runs)]
    if outcome.strayed:
        said.append(
            f"The loss of {outcome.strayed} resumed steps is not the logged one to the last digit, but within {TOLERANCE:g} "
            "of it: another processor or library sums in another order. Their registers are the logged ones."
        )
    if outcome.look:
        said += [f"Before the run: {sentence}" for sentence in outcome.look.sentences]
    if any(run.kind == "narrow" for run in runs.values()):
        said.append(_last_moves(runs))
    command = f"kappa-rtl cosim --config {shlex.quote(str(out / 'config.toml'))} --out {shlex.quote(str(out))}"
    if verilog is not None:
        command += f" --verilog {shlex.quote(str(verilog))}"
    rate = sum(outcome.cycles) / outcome.seconds["training"] if outcome.cycles and outcome.seconds.get("training") else None
    report = {
        "differences": int(outcome.difference is not None),
        "difference": outcome.difference.to_json() if outcome.difference else None,
        "compared_values": outcome.compared,
        "compared_steps": outcome.compared_steps,
        "verdict": said,
        "notes": describe(job),
        "look": [asdict(stand) | {"grid": str(stand.grid)} for stand in outcome.look.stands] if outcome.look else [],
        "runs": summary_table(runs),
        "simulator": version(job.sim),
        "verilog": "fresh export" if verilog is None else str(verilog),
        "cycles_per_step": {"least": min(outcome.cycles), "most": max(outcome.cycles)} if outcome.cycles else None,
        "cycles_per_second": rate,
        "seconds": outcome.seconds,
        "command": command,
        "versions": {name: metadata.version(name) for name in ("kappa-rtl", "amaranth", "cocotb", "numpy")},
    }
    write_atomically(out / "report.json", (json.dumps(report, indent=1) + "\n").encode())
    files = [
        ["config.toml", "the job as resolved; --config reads it back"],
        ["throttle.v", "the Verilog that was simulated"],
        ["throttle.json", "its manifest: ports, bit maps, formats, widths, latencies, host words"],
        ["registers.json", "the configuration as integers"],
        ["vectors.npz", "gradient, theta, update (and direction) of every step as the RTL saw and made them, int64"],
        ["trace.jsonl", "a line a step: every register and counter of golden and of the RTL"],
        ["report.json", "the figures of this page"],
    ]
    files += [[name, what] for name, what in FILES.items() if (out / name).exists()]
    summary = {
        "title": f"{job.name}: the throttle as hardware, in the training loop",
        "experiment": job.subject,
        "notes": describe(job),
        "look": {"head": HEAD, "rows": [stand.cells for stand in outcome.look.stands]} if outcome.look else None,
        "steps": job.steps,
        "differences": report["differences"],
        "compared": outcome.compared,
        "simulator": report["simulator"],
        "verdict": said,
        "command": command,
        "config_toml": job.to_toml(),
        "files": files,
    }
    if runs:
        write_report(out, summary, runs)
        outcome.report = out / "index.html"


def _equality(outcome: Outcome) -> str:
    if outcome.difference:
        return f"Golden and RTL differ: {outcome.difference}."
    return f"Golden and RTL agree: 0 differences in {outcome.compared:,} values over {outcome.compared_steps:,} steps."


def _measures(job: Job, runs: Mapping[str, RunHistory]) -> list[str]:
    """What C is in the runs of full width, and in the narrow ones where it is not the same in all."""
    said = [f"In the main runs C is {measure(job.throttle)}."]
    by: dict[str, list[str]] = {}
    for name, config in job.narrow_runs.items():
        if f"narrow_{name}" in runs:
            by.setdefault(measure(config), []).append(f"“{job.narrow_title(name)}”")
    if set(by) - {measure(job.throttle)}:
        said += [f"In {', '.join(names)} C is {what}." for what, names in by.items()]
    return said


def _last_moves(runs: Mapping[str, RunHistory]) -> str:
    """When each narrow run last moved a weight: after that it is dead, whatever its numbers say."""
    parts = []
    for run in (run for run in runs.values() if run.kind == "narrow"):
        # `still` at a step speaks of the update before it.
        moved = np.flatnonzero(run["still"][1:] == 0)
        last = "never moved" if not moved.size else f"last moved at step {moved[-1]}"
        parts.append(f"“{run.title}” {'moved to the end' if moved.size and moved[-1] == run.steps - 2 else last}")
    return f"On narrow weights, of {max(run.steps for run in runs.values())} steps: {'; '.join(parts)}."
