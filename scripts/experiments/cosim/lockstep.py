"""Golden and RTL as one unit: what is handed to both, and where they stop to agree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ....golden.checkpoint import State, Stateful, agree
from ....golden.config import ThrottleConfig
from ....golden.numbers import Real
from ....golden.rounding import storage_dtype
from ....golden.throttle import StepRecord, Throttle, real_of
from ....sim.cosim import RtlThrottle
from ....sim.difference import Difference, compare
from ....sim.runner import SimulationError

Codes = NDArray[Any]


class Handed(NamedTuple):
    """What a unit is given in one step, in codes, (N,)."""

    gradient: Codes
    direction: Codes | None  #: of the streaming unit, where it is another vector than the gradient
    rate: float | None  #: the learning rate; None for that of the configuration


class Made(NamedTuple):
    """One step of both units."""

    handed: Handed
    golden: StepRecord
    rtl: StepRecord
    cycles: int


class DifferenceError(Exception):
    """Golden and RTL disagree: where, and the lockstep and the step of both in which they do."""

    def __init__(self, difference: Difference, lockstep: Lockstep, made: Made) -> None:
        super().__init__(str(difference))
        self.difference, self.lockstep, self.made = difference, lockstep, made


class Log:
    """What was handed over in every step, in memory and, with a path, in a file that grows by a step at a time.

    From it a unit whose state cannot be loaded is brought where it was. A step that was only half written does not count.

    Args:
        streaming: whether a direction comes with every gradient.
        path: what is there already is read.
    """

    def __init__(self, config: ThrottleConfig, *, streaming: bool = False, path: Path | None = None) -> None:
        grids, size = config.grids, config.elements
        fields: list[Any] = [("rate", "<f8"), ("gradient", storage_dtype(grids.gradient), (size,))]
        if streaming:
            fields += [("direction", storage_dtype(grids.direction), (size,)), ("own", "?")]
        self.path, self._streaming, self._row = path, streaming, np.dtype(fields)
        self.steps: list[Handed] = []
        self._file = None
        if path is not None:
            whole = path.stat().st_size // self._row.itemsize if path.exists() else 0
            if whole:
                self.steps = [self._handed(row) for row in np.fromfile(path, self._row, whole)]
            self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
            self.cut(whole)

    def cut(self, steps: int) -> None:
        """Forget what comes after so many steps."""
        del self.steps[steps:]
        if self._file is not None:
            self._file.truncate(steps * self._row.itemsize)
            self._file.seek(0, 2)

    def append(self, handed: Handed) -> None:
        """Keep a further step."""
        if self._file is not None:
            row = np.zeros((), self._row)
            row["rate"], row["gradient"] = np.nan if handed.rate is None else handed.rate, handed.gradient
            if handed.direction is not None:
                row["direction"], row["own"] = handed.direction, True
            self._file.write(row.tobytes())
        self.steps.append(handed)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _handed(self, row: Any) -> Handed:
        own = self._streaming and bool(row["own"])
        rate = None if np.isnan(row["rate"]) else float(row["rate"])
        return Handed(row["gradient"].astype(np.int64), row["direction"].astype(np.int64) if own else None, rate)


class Lockstep(Stateful):
    """Two units as one: the RTL's weights are trained, golden follows on the same gradients, and they must agree to the bit.

    No port shows the RTL's state, so that a state says how many steps of the log lead there; they are made again, without
    training, when the next one is asked for.

    Args:
        start: the first weights, (N,).
        rtl: the unit, which has made no step yet.
        log: of what is handed over; it may hold the steps that a state was saved after.
        made: called with every step on which both agree, those that are made again too.
        quiet: no progress.

    Raises (from :meth:`step`):
        DifferenceError: at the first register, counter, update or weight that differs.
    """

    def __init__(
        self,
        config: ThrottleConfig,
        start: ArrayLike,
        rtl: RtlThrottle,
        log: Log | None = None,
        *,
        made: Callable[[Made], None] | None = None,
        quiet: bool = True,
    ) -> None:
        self.config, self.golden, self.rtl = config, Throttle(config, start), rtl
        self.first = self.before = self.golden.theta  #: codes, (N,): the first weights, and those before the last step
        self.log = log or Log(config)
        self.compared = 0
        self._behind: State | None = None
        self._rate: float | None = None
        self._made, self._quiet = made, quiet
        self.on_difference: Callable[[Difference, Made], None] | None = None  #: told of it before it is raised

    @property
    def steps(self) -> int:
        """How many were made, and agreed."""
        return len(self.log.steps)

    @property
    def weights(self) -> NDArray[np.float64]:
        """The RTL's weights, (N,)."""
        if self._behind is not None:
            return real_of(self._behind["theta"], self.config, "weight")
        return self.rtl.weights

    @property
    def rate(self) -> Fraction:
        """The learning rate of both."""
        return self.golden.rate

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate of both, between two steps."""
        self.catch_up()
        self.golden.set_rate(eta)
        self.rtl.set_rate(eta)
        self._rate = None if eta == self.config.eta else float(eta)

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None, *, codes: bool | None = None) -> StepRecord:
        """One step of both."""
        self.catch_up()
        assert codes, "a loop hands codes over"
        handed = Handed(np.array(gradient), None if direction is None else np.array(direction), self._rate)
        record = self._step(handed)
        self.log.append(handed)
        return record

    def _step(self, handed: Handed) -> StepRecord:
        self.before = self.golden.theta
        followed = self.golden.step(handed.gradient, handed.direction, codes=True)
        try:
            record = self.rtl.step(handed.gradient, handed.direction, codes=True)
        except SimulationError as error:  # it hangs, or breaks a rule: there is nothing to compare
            raise SimulationError(f"{error}; with --wave {followed.step} its waveform is kept") from error
        made = Made(handed, followed, record, self.rtl.cycles[-1])
        count, difference = compare(followed, record)
        self.compared += count
        if difference:
            if self.on_difference:
                self.on_difference(difference, made)
            raise DifferenceError(difference, self, made)
        if self._made:
            self._made(made)
        return record

    def state_dict(self) -> State:
        """How many steps of the log were made, and what shows that they are those."""
        if self._behind is not None:
            return dict(self._behind)
        return {"steps": self.steps, "compared": self.compared, "theta": np.array(self.golden.theta)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be where a state was saved, as soon as it matters.

        Raises:
            ValueError: the log has fewer steps.
        """
        own = {"steps": 0, "compared": 0, "theta": self.golden.theta}
        agree(state, own)
        if len(self.log.steps) < state["steps"]:
            raise ValueError(f"{self.log.path} must hold the {state['steps']} steps of the checkpoint, not {self.steps}")
        self.log.cut(state["steps"])
        self._behind, self.compared = dict(state), state["compared"]

    def catch_up(self) -> None:
        """Make the steps of the log that a loaded state stands for.

        Raises:
            ValueError: they do not lead to its weights.
        """
        if self._behind is None:
            return
        state, self._behind, self.compared = self._behind, None, 0
        for handed in tqdm(self.log.steps, "replaying the RTL", leave=False, disable=self._quiet, unit="step", mininterval=0.5):
            rate = self.config.eta if handed.rate is None else handed.rate
            for unit in (self.golden, self.rtl):
                unit.set_rate(rate)
            self._step(handed)
        if not np.array_equal(self.golden.theta, state["theta"]):
            raise ValueError(f"{self.log.path} must lead to the weights of its checkpoint: the file was changed")
