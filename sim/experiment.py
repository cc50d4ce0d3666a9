"""The main job: real data trained with the RTL as the throttle, golden in lockstep, float beside them."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from kappa_rtl.golden.config import OnStill, ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import StepRecord, Throttle
from kappa_rtl.golden.training.loop import StepRow, train
from kappa_rtl.hw import export
from kappa_rtl.hw.export import replace as write_atomically

from .cosim import Difference, RtlThrottle, Stalls, compare, prepare
from .figures import PLOTS
from .history import RunHistory, observations, summary_table
from .job import Job
from .report import write_report
from .runner import SimulationError, check, version

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
DIFFERENCE_OUTPUTS = ("difference.json", "wave.vcd")


class Mismatch(Exception):
    """Golden and RTL disagree; holds where, and the step's gradient."""

    def __init__(self, difference: Difference) -> None:
        super().__init__(str(difference))
        self.difference = difference


class Lockstep:
    """Two units as one: the RTL's weights are trained, golden follows on the same gradients, and they must agree to the bit.

    Raises (from :meth:`step`):
        Mismatch: at the first register, counter, update or weight that differs.
    """

    def __init__(self, golden: Throttle, rtl: RtlThrottle) -> None:
        self.golden, self.rtl = golden, rtl
        self.compared = 0
        self.steps = 0
        self.followed: StepRecord | None = None
        self.gradient: ArrayLike = ()  #: of the last step, also of one that failed

    @property
    def config(self) -> ThrottleConfig:
        return self.golden.config

    @property
    def weights(self) -> NDArray[np.float64]:
        """The RTL's weights, (N,)."""
        return self.rtl.weights

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None) -> StepRecord:
        """One step of both."""
        self.gradient = gradient
        self.followed = self.golden.step(gradient, direction)
        record = self.rtl.step(gradient, direction)
        count, difference = compare(self.followed, record)
        self.compared += count
        if difference:
            raise Mismatch(difference)
        self.steps += 1
        return record


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


def cosimulate(
    job: Job, out: Path, *, wave_from: int | None = None, verilog: Path | None = None, resume: bool = False, quiet: bool = False
) -> Outcome:
    """Run a job and write its folder.

    Args:
        job: what to run.
        out: where everything is written; see ``OUTPUTS``. What an earlier run left there is replaced.
        wave_from: the step from which the RTL's waveform is kept as ``wave.vcd``.
        verilog: a Verilog file to simulate in place of the export of this configuration.
        resume: continue an interrupted run: its logged steps are made again and must come out as logged.
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
    text, manifest = export.export(job.throttle)
    under_test = text if verilog is None else verilog.read_text()
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        pass  # a folder that cannot be written is told before the build, which takes long
    begun = time.perf_counter()
    with tqdm(total=1, desc=f"building for {job.sim}", bar_format="{desc} {elapsed}", disable=quiet):
        prepare(job.throttle, under_test, job.sim, waves=wave_from is not None)
    outcome = Outcome(seconds={"build": time.perf_counter() - begun})
    stale = () if resume else (*OUTPUTS, *DIFFERENCE_OUTPUTS, *(f"{plot.name}.png" for plot in PLOTS))
    for name in stale:
        (out / name).unlink(missing_ok=True)
    write_atomically(out / "config.toml", job.to_toml().encode())
    write_atomically(out / "throttle.v", under_test.encode())
    write_atomically(out / "throttle.json", (json.dumps(manifest, indent=1) + "\n").encode())
    write_atomically(out / "registers.json", (json.dumps(job.throttle.registers(), indent=1) + "\n").encode())
    bar = tqdm(
        total=job.steps * (1 + (len(OnStill) if job.narrow and verilog is None else 0)),
        unit="step",
        desc="starting the simulator",
        disable=quiet,
        dynamic_ncols=True,
        mininterval=0.1 if sys.stderr.isatty() else 10,  # a log wants few lines
    )
    with bar:
        try:
            _side_by_side(job, out, outcome, bar, under_test, wave_from, logged)
            if job.narrow and verilog is None:
                _on_narrow_weights(job, outcome, bar)
        except Mismatch as mismatch:
            outcome.difference = mismatch.difference
    _conclude(job, out, outcome, verilog)
    return outcome


def _side_by_side(
    job: Job, out: Path, outcome: Outcome, bar: tqdm[Any], verilog: str, wave_from: int | None, logged: list[str]
) -> None:
    """Float without and with the throttle, golden and RTL, a step of each at a time."""
    config, start = job.throttle, np.zeros(job.throttle.elements)
    with contextlib.ExitStack() as stack:
        stalls = Stalls(job.idle, job.stall, job.seed + 1)
        folder = out / "simulation" if wave_from is not None else None
        rtl = stack.enter_context(
            RtlThrottle(config, start, simulator=job.sim, stalls=stalls, wave_from=wave_from, folder=folder, verilog=verilog)
        )
        lockstep = Lockstep(Throttle(config, start), rtl)
        units: dict[str, tuple[str, Any, Any]] = {
            "float_unthrottled": ("float, no throttle", "unthrottled", FloatThrottle(config.replace(enabled=False), start)),
            "float_throttled": ("float, throttled", "throttled", FloatThrottle(config, start)),
            "golden": ("golden model", "golden", Throttle(config, start)),
            "rtl": ("RTL", "rtl", lockstep),
        }
        outcome.runs = {name: RunHistory(title, kind) for name, (title, kind, _) in units.items()}
        rows = {name: _train(job, unit) for name, (_, _, unit) in units.items()}
        record = stack.enter_context(_Record(out, config, np.asarray(Throttle(config, start).theta), logged))
        bar.set_description(f"training, RTL on {job.sim}")
        begun = time.perf_counter()
        for _ in range(job.steps):
            try:
                for name, row in [(name, next(run, None)) for name, run in rows.items()]:
                    if row is not None:
                        outcome.runs[name].append(row)
                        if name == "rtl":
                            assert lockstep.followed is not None
                            record.add(row, lockstep.followed, rtl.cycles[-1])
            except Mismatch as mismatch:
                outcome.compared += lockstep.compared
                outcome.compared_steps += lockstep.steps
                record.close()
                _show_difference(job, out, mismatch.difference, verilog, record, lockstep)
                raise
            bar.update()
        outcome.cycles = list(rtl.cycles)
        outcome.seconds["training"] = time.perf_counter() - begun
        outcome.compared += lockstep.compared
        outcome.compared_steps += lockstep.steps
    if folder is not None and (folder / "wave.vcd").exists():
        (folder / "wave.vcd").replace(out / "wave.vcd")


def _on_narrow_weights(job: Job, outcome: Outcome, bar: tqdm[Any]) -> None:
    """The same training on narrow weights, with each answer to a still step; the RTL in the loop, golden in lockstep."""
    for on_still in (OnStill.DIVIDE, OnStill.HOLD, OnStill.FLOOR):
        config = job.narrow_config(on_still)
        bits = config.grids.weight.width
        bar.set_description(f"{bits}-bit weights, {on_still.value}")
        start = np.zeros(config.elements)
        with RtlThrottle(config, start, simulator=job.sim, stalls=Stalls(job.idle, job.stall, job.seed + 1)) as rtl:
            lockstep = Lockstep(Throttle(config, start), rtl)
            history = RunHistory(f"{bits} bits, {on_still.value}", "narrow")
            outcome.runs[f"narrow_{on_still.value}"] = history
            try:
                for row in _train(job, lockstep):
                    history.append(row)
                    bar.update()
            finally:
                outcome.compared += lockstep.compared
                outcome.compared_steps += lockstep.steps


def _train(job: Job, unit: Any) -> Iterator[StepRow]:
    return train(
        job.problem,
        unit,
        steps=job.steps,
        gain=job.gain,
        input_format=Fixed.parse(job.input) if job.input else None,
        batch=job.batch or None,
        seed=job.seed,
    )


# ------------------------------------------------------------------------------------------------ the raw record


class _Record(contextlib.AbstractContextManager["_Record"]):
    """``trace.jsonl``, a whole line a step as it is made, and ``vectors.npz`` when the run ends, however it does."""

    def __init__(self, out: Path, config: ThrottleConfig, theta: NDArray[Any], logged: list[str]) -> None:
        self._out, self._logged = out, logged
        self.gradient: list[NDArray[Any]] = []
        self.update: list[NDArray[Any]] = []
        self.theta: list[NDArray[Any]] = [theta]
        self._elements = config.elements
        self._file: io.TextIOWrapper | None = None
        write_atomically(out / "trace.jsonl", "".join(logged).encode())
        self._file = open(out / "trace.jsonl", "a", buffering=1)  # noqa: SIM115  closed by close()

    def add(self, row: StepRow, golden: StepRecord, cycles: int) -> None:
        """One step of the RTL and of golden beside it."""
        line = {
            "step": row.step,
            "loss": row.metrics["loss"],
            "golden": golden.registers.to_json(),
            "rtl": row.record.registers.to_json(),
            "cycles": cycles,
        }
        text = json.dumps(line) + "\n"
        if row.step < len(self._logged) and text != self._logged[row.step]:
            raise ValueError(f"step {row.step} does not come out as trace.jsonl has it: resume needs the same job and versions")
        # The line last: an interrupt may come in between, and close() leaves out vectors without one.
        self.gradient.append(row.gradient)
        self.update.append(row.record.update)
        self.theta.append(row.record.theta)
        if self._file and row.step >= len(self._logged):
            self._file.write(text)

    def close(self) -> None:
        """Write the vectors."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        steps = (self._out / "trace.jsonl").read_bytes().count(b"\n")
        shape = (-1, self._elements)
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            gradient=np.array(self.gradient[:steps], np.int64).reshape(shape),
            theta=np.array(self.theta[: steps + 1], np.int64).reshape(shape),
            update=np.array(self.update[:steps], np.int64).reshape(shape),
        )
        write_atomically(self._out / "vectors.npz", buffer.getvalue())

    def __exit__(self, *_: object) -> None:
        self.close()


def _logged(out: Path, job: Job) -> list[str]:
    """The whole lines that an interrupted run of the same job left."""
    config, trace = out / "config.toml", out / "trace.jsonl"
    if not config.exists() or not trace.exists():
        raise ValueError(f"resume needs the config.toml and trace.jsonl of an earlier run in {str(out)!r}")
    before = Job.read(config)
    if replace(before, steps=job.steps) != job:
        raise ValueError(f"resume needs the job of {str(config)!r}; only steps may differ")
    try:
        logged = [line for line in trace.read_text().splitlines(keepends=True) if line.endswith("\n")]
    except UnicodeDecodeError as error:
        raise ValueError(f"resume needs the trace.jsonl of an earlier run; {str(trace)!r} is no text: {error}") from None
    if len(logged) > job.steps:
        raise ValueError(f"steps must be at least the {len(logged)} that {str(trace)!r} has logged, not {job.steps}")
    return logged


def _show_difference(job: Job, out: Path, difference: Difference, verilog: str, record: _Record, lockstep: Lockstep) -> None:
    """``difference.json``, and the waveform of that step from a replay of the recorded gradients."""
    command = f"kappa-rtl cosim --config {shlex.quote(str(out / 'config.toml'))} --verilog {shlex.quote(str(out / 'throttle.v'))}"
    command += f" --steps {difference.step + 1} --wave {difference.step} --out {shlex.quote(str(out) + '-replay')}"
    both = difference.to_json()
    report = both | {
        "command": command,
        "waveform": "wave.vcd",
        "configuration": job.throttle.to_table(),
        "registers": job.throttle.registers(),
    }
    folder = out / "simulation"
    try:
        gradients = [*record.gradient, lockstep.gradient]
        with RtlThrottle(
            job.throttle, record.theta[0], simulator=job.sim, stalls=Stalls(job.idle, job.stall, job.seed + 1),
            wave_from=difference.step, folder=folder, verilog=verilog,
        ) as rtl:  # fmt: skip
            for gradient in gradients:
                rtl.step(gradient)
    except SimulationError as error:
        report["waveform"] = f"the replay failed: {error}"
    if (folder / "wave.vcd").exists():
        (folder / "wave.vcd").replace(out / "wave.vcd")
    write_atomically(out / "difference.json", (json.dumps(report, indent=1) + "\n").encode())


# ------------------------------------------------------------------------------------------------ the end


def _conclude(job: Job, out: Path, outcome: Outcome, verilog: Path | None) -> None:
    """``report.json`` and the page."""
    runs = {name: run for name, run in outcome.runs.items() if run.steps}
    said = [_equality(outcome), *observations(runs)]
    if any(run.kind == "narrow" for run in runs.values()):
        said.append(_last_moves(runs))
    command = f"kappa-rtl cosim --config {shlex.quote(str(out / 'config.toml'))} --out {shlex.quote(str(out))}"
    rate = sum(outcome.cycles) / outcome.seconds["training"] if outcome.cycles and outcome.seconds.get("training") else None
    report = {
        "differences": int(outcome.difference is not None),
        "difference": outcome.difference.to_json() if outcome.difference else None,
        "compared_values": outcome.compared,
        "compared_steps": outcome.compared_steps,
        "verdict": said,
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
        ["vectors.npz", "gradient, theta and update of every step as the RTL saw and made them, int64"],
        ["trace.jsonl", "a line a step: every register and counter of golden and of the RTL"],
        ["report.json", "the figures of this page"],
    ]
    files += [
        [name, what]
        for name, what in (("difference.json", "where golden and RTL differ"), ("wave.vcd", "the waveform"))
        if (out / name).exists()
    ]
    summary = {
        "title": f"{job.experiment}: the throttle as hardware, in the training loop",
        "experiment": job.experiment,
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


def _last_moves(runs: Mapping[str, RunHistory]) -> str:
    """When each narrow run last moved a weight: after that it is dead, whatever its numbers say."""
    parts = []
    for run in (run for run in runs.values() if run.kind == "narrow"):
        # `still` at a step speaks of the update before it.
        moved = np.flatnonzero(run["still"][1:] == 0)
        parts.append(f"“{run.title}” {f'last moved at step {moved[-1]}' if moved.size else 'never moved'}")
    return f"On narrow weights, of {max(run.steps for run in runs.values())} steps: {'; '.join(parts)}."
