"""The loop of the co-simulation: one bias-free linear layer under half-MSE, its update done by a throttle unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, agree
from ..formats import Fixed
from ..network.data import Problem
from ..network.precision import PrecisionDict
from ..registers import COUNTER_BITS, Registers
from ..throttle import Datapath, StepRecord
from .distortion import distortion
from .loop import Array, Loop, Moved, Row
from .metrics import FRACTIONS, METRICS
from .model import LinearBlockModel
from .published import Law

Floats = NDArray[np.float64]

DIVERGENCE_LOSS = 1e8
"""A run has diverged once its loss passes this bound, or anything in it is not finite."""


@dataclass(frozen=True)
class GainRamp:
    """The input gain by step: ``start`` up to step ``first``, linear between, ``end`` from step ``last`` on."""

    start: float = 1.0
    end: float = 4.0
    first: int = 50
    last: int = 200

    def __post_init__(self) -> None:
        if not self.first < self.last:
            raise ValueError(f"last must be greater than first = {self.first}, not {self.last}")
        for name in ("start", "end"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} must be finite, not {getattr(self, name)}")

    def __call__(self, step: int) -> float:
        """The gain at a step counted from 0."""
        progress = min(max((step - self.first) / (self.last - self.first), 0.0), 1.0)
        return self.start + (self.end - self.start) * progress


@dataclass(frozen=True, eq=False)
class StepRow:
    """One step of training.

    Attributes:
        step: its number, from 0.
        record: what the throttle unit answered.
        gradient: (N,) what the unit was given: codes on its gradient grid, or floats for the float unit.
        metrics: see :data:`~kappa_rtl.golden.training.metrics.METRICS`.
        diverged: nothing follows this row.
        tensors: a row a tensor of a network, where they have grids of their own.
    """

    step: int
    record: StepRecord
    gradient: NDArray[Any]
    metrics: dict[str, float]
    diverged: bool
    tensors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


class Run(Iterator[StepRow], Stateful):
    """Train from the unit's weights, one step for each ``next()``, so that several runs can advance side by side.

    Each step scales the inputs by the gain, computes loss and gradient in float64 at the unit's (quantised) weights,
    rounds the gradient onto the unit's gradient grid (not for the float unit) and hands it over. Equal units with equal
    arguments get equal gradients, bit for bit. What is saved between two steps goes on in a run of the same arguments.

    Args:
        problem: the data; ``throttle.config.elements`` must be its ``elements``.
        throttle: the float, golden or RTL unit, its counters clear.
        steps: how many steps to make.
        gain: the drift of the exposure; none means a gain of 1.
        input_format: grid onto which the scaled inputs are rounded; the reference that angle and radius ratio are
            measured against sees them unrounded.
        batch: rows a step, drawn anew each time, uniformly and with replacement; none means each row once.
        seed: of the draws.

    Yields:
        The rows. After a row with ``diverged`` there is no other.

    Raises:
        ValueError: the arguments do not fit together.
        FloatingPointError: from ``next()``, the gradient for a fixed-point unit is not finite.
    """

    def __init__(
        self,
        problem: Problem,
        throttle: Datapath,
        *,
        steps: int,
        gain: GainRamp | None = None,
        input_format: Fixed | None = None,
        batch: int | None = None,
        seed: int = 0,
    ) -> None:
        if throttle.config.elements != problem.elements:
            raise ValueError(
                f"elements must be {problem.elements} for the problem {problem.name}, not {throttle.config.elements}"
            )
        if batch is not None and batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self._problem, self._steps, self._gain = problem, steps, gain
        self._loop = _Linear(problem, throttle, input_format)
        self._batches = _Batches(problem, batch, seed)
        self._diverged = False

    def __next__(self) -> StepRow:
        loop, problem, step = self._loop, self._problem, self._loop.steps
        if step >= self._steps or self._diverged:
            raise StopIteration
        rows, sharpness = self._batches.draw()
        factor = 1.0 if self._gain is None else self._gain(step)
        with np.errstate(over="ignore", invalid="ignore"):
            inputs = problem.inputs[rows] * factor
            loop.gain, loop.full_step = factor, loop.eta * sharpness * factor * factor
        loop.labels = None if problem.labels is None else problem.labels[rows]
        made = loop.step(inputs, problem.targets[rows], DIVERGENCE_LOSS)
        assert made.record is not None  # a gradient that the unit could not take has been refused
        self._diverged = bool(made.row["diverged"])
        metrics = {name: made.row[name] for name in METRICS if name in made.row}
        return StepRow(step, made.record, made.handed, metrics, self._diverged)

    def state_dict(self) -> State:
        """The run between two steps, as copies."""
        return {
            "train": self._loop.state.state_dict(),
            "steps": self._loop.steps,
            "counts": dict(self._loop.counts),
            "diverged": self._diverged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a run of the same arguments that has made no fewer steps; its batches are drawn and let go."""
        agree(state, self.state_dict(), free=("train",))
        self._loop.state.load_state_dict(state["train"])
        for _ in range(self._loop.steps, state["steps"]):
            self._batches.skip()
        self._loop.steps, self._loop.counts, self._diverged = state["steps"], dict(state["counts"]), state["diverged"]


class _Linear(Loop):
    """The loop of one bias-free layer in float64, with what the report of a co-simulation needs.

    Attributes:
        gain, full_step, labels: of the batch that the next step is made on; ``full_step`` is eta times its sharpness.
    """

    def __init__(self, problem: Problem, throttle: Datapath, input_format: Fixed | None) -> None:
        model = LinearBlockModel(problem, num_hidden=[], use_bias=False, seed=0, dtype=np.float64)
        precision = None if input_format is None else PrecisionDict({"input": {"value": input_format}})
        super().__init__(model, throttle, law=Law(eta=float(throttle.config.eta)), precision=precision)
        self.begin()
        self.step_ulp = float(throttle.config.step.ulp) if self.codes else 1.0
        self.gain = self.full_step = 1.0
        self.labels: NDArray[np.int64] | None = None
        self.counts = counts(None)

    def _gradient(self, x: Array, y: Array, *, update_state: bool) -> tuple[Array, Array]:
        outputs, gradient = super()._gradient(x, y, update_state=update_state)
        if self.codes and not np.isfinite(gradient).all():
            raise FloatingPointError(f"step {self.steps}: the gradient is not finite (loss {self.loss.value(outputs, y):g})")
        return outputs, gradient

    def _after(self, row: Row, moved: Moved) -> Row:
        assert moved.record is not None
        ideal = moved.raw_gradient
        if self.precision is not None:  # the yardstick sees the inputs as they are
            kernel = moved.theta.reshape(moved.x.shape[1], -1)
            ideal = (moved.x.T @ self.loss.gradient(moved.x @ kernel, moved.y)).ravel()
        registers, before = moved.record.registers, self.counts
        self.counts = counts(registers)
        made: Row = {}
        along = self.state.curvatures.direction
        made["curvature_true"] = math.nan
        if along is not None and along.any():
            through = moved.x @ along.reshape(moved.x.shape[1], -1)
            made["curvature_true"] = float(np.vdot(through, through) / (len(moved.x) * np.vdot(along, along)))
        if self.labels is not None:
            made["accuracy"] = float(np.mean(np.argmax(moved.outputs, axis=1) == self.labels))
        return made | {
            "gain": self.gain,
            "eta_lambda_max": self.full_step,
            "alpha_eta_lambda_max": row["alpha_applied"] * self.full_step,
            "norm_gradient": float(registers.norm_gradient),
            "norm_motion": float(registers.norm_motion),
            "step_size": float(registers.step_size) * self.step_ulp,
            "still": float(registers.still),
            **distortion(moved.theta_after - moved.theta, -row["alpha_applied"] * self.eta * ideal)._asdict(),
            **fractions(self.counts, before, len(moved.theta)),
        }


class _Batches:
    """Row selections without end, each with the largest eigenvalue of its inputs at gain 1."""

    def __init__(self, problem: Problem, batch: int | None, seed: int) -> None:
        self._inputs, self._batch = problem.inputs, batch
        self._generator = np.random.default_rng(seed)
        self._whole = lambda_max(problem.inputs) if batch is None else 0.0

    def draw(self) -> tuple[Any, float]:
        if self._batch is None:
            return slice(None), self._whole
        rows = self.skip()
        return rows, lambda_max(self._inputs[rows])

    def skip(self) -> Any:
        """Draw, and let it go."""
        return None if self._batch is None else self._generator.integers(len(self._inputs), size=self._batch)


def lambda_max(inputs: Floats) -> float:
    """The largest eigenvalue of ``X^T X / rows`` for X of (rows, d): the sharpness of the linear layer's half-MSE."""
    return float(np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1])


def counts(registers: Registers | None) -> dict[str, int]:
    """The per-element counters; zeros before the first step."""
    return {name: 0 if registers is None else int(getattr(registers, name)) for name in FRACTIONS}


def fractions(now: Mapping[str, int], before: Mapping[str, int], elements: int) -> dict[str, float]:
    """What the counters have counted in one step as fractions of its elements.

    Args:
        now, before: the :func:`counts` after this step and after the one before.
    """
    return {name: (now[name] - before[name]) % (1 << COUNTER_BITS) / elements for name in FRACTIONS}
