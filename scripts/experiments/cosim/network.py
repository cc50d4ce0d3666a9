"""A network in the co-simulation: the training harness on one unit, a row a step, as the report reads it."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....golden.checkpoint import State, Stateful
from ....golden.network.data import Problem, batches
from ....golden.network.layers import Dense
from ....golden.network.losses import loss_of
from ....golden.reference import FloatThrottle
from ....golden.training import hessian, schedules
from ....golden.training.curvatures import NAMES as CURVATURES
from ....golden.training.instrumented import Step, TrainingWarning
from ....golden.training.linear import DIVERGENCE_LOSS, StepRow, counts, fractions
from ....golden.training.metrics import LOST
from ....golden.training.model import LinearBlockModel
from ....golden.training.resume import Checkpoint
from .job import Job

ESTIMATES = 30
"""Of the sharpness, over a run; in between the last one is shown."""

ROWS = 256
"""Of a batch, at most, on which the sharpness is estimated."""

TOLERANCE, ITERATIONS = 0.01, 40
"""Of an estimate of the sharpness: a curve needs no more."""

LOSS = loss_of("half_mse")


def train_network(
    job: Job, unit: Any, take: Callable[[StepRow], None], *, checkpoint: Checkpoint | None = None, history: Stateful | None = None
) -> None:
    """Train the job's network, from the unit's weights, and hand every step over.

    The runs on hardware see the formats of ``[precision]``; float ones see none. Equal units get equal gradients, bit for bit.

    Args:
        unit: float, golden, RTL, or two of them in lockstep.
        take: called with the row of each step; after one with ``diverged`` there is no other.
        checkpoint: where the run is saved, and from where it goes on.
        history: what ``take`` fills, which is saved and loaded with the run.

    Raises:
        ValueError: an argument of the training loop that it refuses, before the first step; a checkpoint of another run.
    """
    assert job.network is not None
    model = job.model_anew()
    batch = Batches(job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # said once, by the check before the runs
        _loop(job, model, unit, iter(batch), _Observer(job, model, unit, batch, take, history), checkpoint)


class _Observer(Stateful):
    """Makes the row of each step, and keeps what the next one needs."""

    def __init__(
        self,
        job: Job,
        model: LinearBlockModel,
        unit: Any,
        batch: Batches,
        take: Callable[[StepRow], None],
        history: Stateful | None,
    ) -> None:
        self._job, self._model, self._unit, self._batch, self._take, self._history = job, model, unit, batch, take, history
        self._counts = counts(None)
        self._sharpness = _Sharpness(model, job)
        self._ulp = 1.0 if isinstance(unit, FloatThrottle) else float(unit.config.step.ulp)

    def __call__(self, step: Step) -> None:
        if step.record is None:
            raise FloatingPointError(f"step {step.step}: the gradient is not finite (loss {step.row['loss']:g})")
        job, batch, row, now = self._job, self._batch, step.row, step.record.registers
        metrics = {"loss": row["loss"]}
        if batch.labels is not None:
            metrics["accuracy"] = float(np.mean(np.argmax(step.outputs, axis=1) == batch.labels))
        if job.held is not None:
            metrics |= _held_out(self._model, job, job.held, self._unit)
        full = row["learning_rate"] * self._sharpness(step, batch)
        before, self._counts = self._counts, counts(now)
        metrics |= {
            "gain": batch.gain,
            "eta_lambda_max": full,
            "alpha_eta_lambda_max": row["alpha_applied"] * full,
            **{name: row[name] for name in ("alpha", "alpha_applied", "curvature", "ema")},
            "norm_gradient": float(now.norm_gradient),
            "norm_motion": float(now.norm_motion),
            "step_size": float(now.step_size) * self._ulp,
            "still": float(now.still),
            "angle": row["update_angle_rad"],
            "cosine": row["update_cosine"],
            "radius_ratio": row["update_radius_ratio"],
            **fractions(self._counts, before, len(step.theta)),
            **{name: row[name] for name in (*CURVATURES, "curvature_true")},
            **{name: row[name] for name in LOST},
        }
        self._take(StepRow(step.step, step.record, step.handed, metrics, bool(row["diverged"]), step.tensors))

    def state_dict(self) -> State:
        """What the next row depends on, and the history."""
        return {
            "counts": dict(self._counts),
            "sharpness": self._sharpness.last,
            "history": {} if self._history is None else self._history.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._counts, self._sharpness.last = dict(state["counts"]), state["sharpness"]
        if self._history is not None:
            self._history.load_state_dict(state["history"])


def check(job: Job, unit: Any) -> list[str]:
    """What the training loop says of a job: one step of the given unit, on the smallest batch that there will be.

    Raises:
        ValueError: an argument, or a batch, that it refuses.
    """
    if job.loop.get("on_bad_gradient") == "skip":
        raise ValueError("on_bad_gradient must be 'raise' in a co-simulation, whose record has a row for each step, not 'skip'")
    rows = len(job.problem.X)
    size = job.batch or rows
    least = size if job.loop.get("drop_last") else rows % size or size
    batch = (job.problem.X[:least], job.problem.Y[:least])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", TrainingWarning)
        _loop(job, job.model_anew(), unit, iter([batch]))
    return [str(warning.message) for warning in said if issubclass(warning.category, TrainingWarning)]


def _loop(
    job: Job,
    model: LinearBlockModel,
    unit: Any,
    stream: Iterator[Any],
    observe: Callable[[Step], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> None:
    size = job.batch or len(job.problem.X)
    given = {name: value for name, value in job.loop.items() if name != "drop_last"}
    if "schedule" in given:
        given["schedule"] = schedules.make(given["schedule"], job.steps)
    model.train_instrumented(
        job.problem.X,
        job.problem.Y,
        batch_size=size,
        stream=stream,
        throttle=unit,
        precision_dict=None if isinstance(unit, FloatThrottle) else job.formats,
        hessian="none",
        divergence_loss=DIVERGENCE_LOSS,
        observe=observe,
        checkpoint=checkpoint,
        **given,
    )


def _held_out(model: LinearBlockModel, job: Job, held: Problem, unit: Any) -> dict[str, float]:
    """Loss and accuracy on the rows that no step trains on, after the step."""
    with np.errstate(all="ignore"):
        return held_out(held, model.predict(held.X, None if isinstance(unit, FloatThrottle) else job.formats))


def held_out(held: Problem, outputs: NDArray[Any]) -> dict[str, float]:
    """What a model's outputs on the rows that no step trains on are worth."""
    found = {"loss_held_out": float(LOSS.value(outputs, held.Y))}
    if held.labels is not None:
        found["accuracy_held_out"] = float(np.mean(np.argmax(outputs, axis=1) == held.labels))
    return found


def describe(job: Job) -> list[str]:
    """What was decided about the data and the model, in sentences."""
    notes = list(job.notes)
    if job.network is not None:
        exact = is_exact(job.network)
        every = max(1, job.steps // ESTIMATES)
        notes.append(f"Trained is {job.subject}: {job.throttle.elements} weights, drawn by the seed {job.seed}.")
        notes.append(
            "The sharpness lambda_max is exact, of the float batch."
            if exact
            else f"The sharpness lambda_max is an estimate (Lanczos, {TOLERANCE:.0%}, on at most {ROWS} rows of the batch), made "
            f"{'at every step' if every == 1 else f'every {every} steps and held in between'}."
        )
        notes.append("The angle is that between the applied change and the update that the optimiser proposed.")
        if job.formats is not None:
            notes.append("The formats of [precision] and run.input hold for the runs on hardware; float runs are float.")
        if job.streaming:
            notes.append("The unit is the streaming variant: it steps along what the optimiser proposes.")
    return notes


class Batches:
    """The batches of a run: each row once an epoch, in an order of the job's seed, scaled by the gain of the step.

    Attributes:
        inputs, targets, labels, gain: of the batch that was drawn last.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.inputs: NDArray[np.float64] = job.problem.X
        self.targets: NDArray[np.float64] = job.problem.Y
        self.labels: NDArray[np.int64] | None = None
        self.gain = 1.0

    def __iter__(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        job, problem = self.job, self.job.problem
        rows = len(problem.X)
        size = min(job.batch or rows, rows)
        drawn = batches(rows, -(-job.steps // (rows // size)), size, shuffle=size < rows, seed=job.seed)
        whole = (chosen for chosen in drawn if len(chosen) == size or not job.loop.get("drop_last"))
        for step, chosen in enumerate(itertools.islice(whole, job.steps)):
            self.gain = 1.0 if job.gain is None else job.gain(step)
            self.inputs, self.targets = problem.X[chosen] * self.gain, problem.Y[chosen]
            self.labels = None if problem.labels is None else problem.labels[chosen]
            yield self.inputs, self.targets


class _Sharpness:
    """The largest eigenvalue of the batch's loss, in float, at the weights before the step.

    Of one layer without bias it is exact at every step. Of any other model it is an estimate by Lanczos iteration on some rows
    of the batch, every few steps; in between the last one holds.
    """

    def __init__(self, model: LinearBlockModel, job: Job) -> None:
        self.model = model
        self.exact = is_exact(model)
        self.every = 1 if self.exact else max(1, job.steps // ESTIMATES)
        self.last = 0.0

    def __call__(self, step: Step, batch: Batches) -> float:
        if step.step % self.every == 0 and np.isfinite(step.theta).all():
            after, self.model.theta = self.model.theta, step.theta
            self.last = lambda_max(self.model, batch.inputs, batch.targets)
            self.model.theta = after
        return self.last


def is_exact(model: LinearBlockModel) -> bool:
    """Whether the model is one layer without bias, whose sharpness the inputs alone decide."""
    return len(model.layers) == 1 and isinstance(model.layers[0], Dense) and not model.layers[0].use_bias


def lambda_max(model: LinearBlockModel, x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The largest eigenvalue of the loss at the model's weights, exact or estimated; NaN where it is not finite."""
    with np.errstate(all="ignore"):
        if is_exact(model):
            return float(hessian.analytic(x, 1, LOSS.name)[-1])
        found = hessian.lanczos(model.layers, x[:ROWS], y[:ROWS], LOSS, ends="max", iterations=ITERATIONS, tolerance=TOLERANCE)
    return float(found.extremes.lambda_max)
