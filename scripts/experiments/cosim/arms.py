"""The runs of a job: float without and with the throttle, golden, the RTL in lockstep with it, and those on narrow weights."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ....golden.checkpoint import State, Stateful
from ....golden.config import OnStill, ThrottleConfig
from ....golden.formats import Fixed
from ....golden.reference import FloatThrottle
from ....golden.throttle import Throttle
from ....golden.training.linear import Run, StepRow
from ....golden.training.resume import Keeper
from ....sim.cosim import RtlThrottle, Stalls
from ....sim.runner import SimulationError
from .history import RunHistory
from .job import Job
from .lockstep import Lockstep
from .network import held_out, train_network
from .record import Record
from .unfinished import Unfinished

MAIN = "rtl"
"""The run that is the job's own unit in the simulator."""


@dataclass
class Arm:
    """A run: the unit that it trains, and its history so far."""

    name: str
    history: RunHistory
    unit: Any
    take: Callable[[StepRow], None] | None = None  #: beside the history

    def add(self, row: StepRow) -> None:
        """Take in a step."""
        self.history.append(row)
        if self.take:
            self.take(row)


@dataclass
class Progress:
    """What the runs have come to, and where they are kept."""

    job: Job
    bar: tqdm[Any]
    unfinished: Unfinished
    quiet: bool
    runs: dict[str, RunHistory] = field(default_factory=dict)
    locksteps: list[Lockstep] = field(default_factory=list)

    def count(self) -> None:
        """Show how many steps there are, of this process and of the one that went before."""
        done = sum(run.steps for run in self.runs.values())
        self.bar.update(done - self.bar.n)


def stalls_of(job: Job) -> Stalls:
    return Stalls(job.idle, job.stall, job.seed + 1)


def side_by_side(
    progress: Progress, out: Path, rtl: RtlThrottle, logged: list[str], *, on_close: contextlib.ExitStack
) -> tuple[Lockstep, Record]:
    """Float without and with the throttle, golden and RTL: of one layer a step of each at a time, of a network each run whole.

    Args:
        rtl: the unit, which has made no step yet.
        logged: the lines of an earlier run.
        on_close: closes the record, which has what was made by then.
    """
    job = progress.job
    config, start = job.throttle, job.start(job.throttle)
    record = on_close.enter_context(Record(out, config, np.asarray(Throttle(config, start).theta), logged))
    lockstep = _lockstep(progress, MAIN, config, rtl, made=record.made)
    lockstep.on_difference = record.fail
    arms = [
        Arm(
            "float_unthrottled",
            RunHistory("float, no throttle", "unthrottled"),
            FloatThrottle(config.replace(enabled=False), start),
        ),
        Arm("float_throttled", RunHistory("float, throttled", "throttled"), FloatThrottle(config, start)),
        Arm("golden", RunHistory("golden model", "golden"), Throttle(config, start)),
        Arm(MAIN, RunHistory("RTL", "rtl"), lockstep, record.add),
    ]
    progress.bar.set_description(f"training, RTL on {job.sim}")
    if job.is_network:
        for arm in arms:
            progress.bar.set_description(f"training, {arm.history.title}")
            _train(progress, arm.name, [arm])
    else:
        _train(progress, "side_by_side", arms)
    lockstep.catch_up()  # of a run that was done already: its vectors are the record's
    return lockstep, record


def on_narrow_weights(progress: Progress, unit_of: Callable[[ThrottleConfig], RtlThrottle]) -> None:
    """The same training on narrow weights, with each way to treat a small update; the RTL in the loop, golden in lockstep.

    What follows a still step is a word of the host's: two of the runs are on one hardware, begun anew from reset.
    """
    job = progress.job
    for name, config in job.narrow_runs.items():
        name, title = f"narrow_{name}", job.narrow_title(name)
        progress.bar.set_description(title)
        rtl = unit_of(config)
        rtl.restart(config, job.start(config), stalls=stalls_of(job))
        _train(progress, name, [Arm(name, RunHistory(title, "narrow"), _lockstep(progress, name, config, rtl))])


def _lockstep(progress: Progress, name: str, config: ThrottleConfig, rtl: RtlThrottle, **options: Any) -> Lockstep:
    job = progress.job
    log = progress.unfinished.log(name if job.is_network or name != MAIN else "side_by_side", config, streaming=job.streaming)
    lockstep = Lockstep(config, job.start(config), rtl, log, quiet=progress.quiet, **options)
    progress.locksteps.append(lockstep)
    return lockstep


def _train(progress: Progress, part: str, arms: list[Arm]) -> None:
    """Train runs, a step of each at a time, from where they are kept."""
    job = progress.job
    progress.runs.update({arm.name: arm.history for arm in arms})
    checkpoint = progress.unfinished.checkpoint(part)
    if job.is_network:
        (arm,) = arms
        train_network(job, arm.unit, partial(_counted, progress, arm), checkpoint=checkpoint, history=arm.history)
        progress.count()
        return
    together = _Together(job, arms)
    keeper = Keeper(checkpoint, together, {})
    if not keeper.resume():
        progress.count()
        for _ in range(together.steps, job.steps):
            for arm, row in [(arm, next(run, None)) for arm, run in zip(arms, together.runs, strict=True)]:
                if row is not None:
                    arm.add(row)
            progress.count()
            keeper.step()
        keeper.end()
    progress.count()


def _counted(progress: Progress, arm: Arm, row: StepRow) -> None:
    arm.add(row)
    progress.count()


class _Together(Stateful):
    """Runs of one layer side by side, and their histories."""

    def __init__(self, job: Job, arms: list[Arm]) -> None:
        self._job, self._arms = job, arms
        self.runs = [LayerRun(job, arm.unit) for arm in arms]

    @property
    def steps(self) -> int:
        """Of the run that has made most: another one may have diverged."""
        return max(arm.history.steps for arm in self._arms)

    def state_dict(self) -> State:
        """Every run and its history between two steps."""
        return {"steps": self.steps} | {
            arm.name: {"run": run.state_dict(), "history": arm.history.state_dict()}
            for arm, run in zip(self._arms, self.runs, strict=True)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the same runs."""
        for arm, run in zip(self._arms, self.runs, strict=True):
            run.load_state_dict(state[arm.name]["run"])
            arm.history.load_state_dict(state[arm.name]["history"])


class LayerRun(Run):
    """The run of one layer, with what it is worth on the rows that are held out, if any are."""

    def __init__(self, job: Job, unit: Any) -> None:
        super().__init__(
            job.problem,
            unit,
            steps=job.steps,
            gain=job.gain,
            input_format=Fixed.parse(job.input) if job.input else None,
            batch=job.batch or None,
            seed=job.seed,
        )
        self._held = job.held

    def __next__(self) -> StepRow:
        row = super().__next__()
        if self._held is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                row.metrics.update(held_out(self._held, self._held.inputs @ row.record.weights.reshape(self._held.shape)))
        return row


def hardware(config: ThrottleConfig) -> ThrottleConfig:
    """The same for all configurations that are one hardware, in which what follows a still step is a word of the host's."""
    return config.replace(on_still=OnStill.RELEASE)


@contextlib.contextmanager
def starting(job: Job) -> Iterator[Callable[[ThrottleConfig], RtlThrottle]]:
    """The RTL units of the narrow runs, started in the background; what is yielded waits for that of a configuration."""
    with ThreadPoolExecutor(1) as thread:
        units = {
            config: thread.submit(RtlThrottle, config, job.start(config), simulator=job.sim, streaming=job.streaming)
            for config in dict.fromkeys(map(hardware, job.narrow_runs.values()))
        }
        try:
            yield lambda config: units[hardware(config)].result()
        finally:
            for unit in units.values():
                with contextlib.suppress(SimulationError):
                    unit.result().close()
