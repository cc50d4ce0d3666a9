"""The loop of the co-simulation: one bias-free linear layer under half-MSE, its update done by a throttle unit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.rounding import quantise, values
from kappa_rtl.golden.throttle import Datapath, Registers, StepRecord
from kappa_rtl.golden.training.data import Problem
from kappa_rtl.golden.training.metrics import distortion, fractions, lambda_max

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
    """

    step: int
    record: StepRecord
    gradient: NDArray[Any]
    metrics: dict[str, float]
    diverged: bool


def gradient(inputs: Floats, targets: Floats, kernel: Floats) -> tuple[Floats, Floats]:
    """``(outputs, gradient)`` of the half-MSE at ``kernel``: x W and x^T (x W - y) / rows, (rows, c) and (d, c)."""
    outputs = inputs @ kernel
    return outputs, inputs.T @ (outputs - targets) / len(inputs)


def train(
    problem: Problem,
    throttle: Datapath,
    *,
    steps: int,
    gain: GainRamp | None = None,
    input_format: Fixed | None = None,
    batch: int | None = None,
    seed: int = 0,
) -> Iterator[StepRow]:
    """Train from the unit's weights, one step for each ``next()``, so that several runs can advance side by side.

    Each step scales the inputs by the gain, computes loss and gradient in float64 at the unit's (quantised) weights,
    rounds the gradient onto the unit's gradient grid (not for the float unit) and hands it over. Equal units with equal
    arguments get equal gradients, bit for bit.

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
        FloatingPointError: the gradient for a fixed-point unit is not finite.
    """
    if throttle.config.elements != problem.elements:
        raise ValueError(f"elements must be {problem.elements} for the problem {problem.name}, not {throttle.config.elements}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, not {batch}")
    return _train(problem, throttle, steps, gain, input_format, batch, seed)


def _train(
    problem: Problem,
    throttle: Datapath,
    steps: int,
    gain: GainRamp | None,
    input_format: Fixed | None,
    batch: int | None,
    seed: int,
) -> Iterator[StepRow]:
    config = throttle.config
    floating = isinstance(throttle, FloatThrottle)
    eta = float(config.eta)
    batches = _batches(problem, batch, seed)
    before: Registers | None = None
    for step in range(steps):
        rows, sharpness = next(batches)
        factor = 1.0 if gain is None else gain(step)
        with np.errstate(over="ignore", invalid="ignore"):
            inputs, targets = problem.inputs[rows] * factor, problem.targets[rows]
            seen = inputs if input_format is None else values(quantise(inputs, input_format, "inputs"), input_format)
            theta = throttle.weights
            kernel = theta.reshape(problem.shape)
            outputs, slope = gradient(seen, targets, kernel)
            ideal = slope if input_format is None else gradient(inputs, targets, kernel)[1]
            loss = float(np.sum((outputs - targets) ** 2)) / (2 * len(inputs))

            handed: NDArray[Any] = slope.ravel()
            if not floating:
                if not np.isfinite(handed).all():
                    raise FloatingPointError(f"step {step}: the gradient is not finite (loss {loss:g})")
                handed = quantise(handed, config.grids.gradient, "gradient")
            record = throttle.step(handed)
            registers = record.registers

            alpha = float(registers.alpha)
            applied_alpha = alpha if config.enabled else 1.0
            full_step = eta * sharpness * factor * factor
            after = record.weights
            bent = distortion(after - theta, -applied_alpha * eta * ideal.ravel())
        metrics = {"loss": loss}
        if problem.labels is not None:
            metrics["accuracy"] = float(np.mean(np.argmax(outputs, axis=1) == problem.labels[rows]))
        metrics |= {
            "gain": factor,
            "eta_lambda_max": full_step,
            "alpha_eta_lambda_max": applied_alpha * full_step,
            "alpha": alpha,
            "alpha_applied": applied_alpha,
            "curvature": float(registers.curvature),
            "ema": float(registers.ema),
            "norm_gradient": float(registers.norm_gradient),
            "norm_motion": float(registers.norm_motion),
            "step_size": float(registers.step_size) * (1.0 if floating else float(config.step.ulp)),
            "still": float(registers.still),
            **bent._asdict(),
            **fractions(registers, before, config.elements),
        }
        finite = bool(np.isfinite(handed).all() and np.isfinite(after).all())
        diverged = not (finite and loss <= DIVERGENCE_LOSS)
        yield StepRow(step, record, handed, metrics, diverged)
        if diverged:
            return
        before = registers


def _batches(problem: Problem, batch: int | None, seed: int) -> Iterator[tuple[Any, float]]:
    """Row selections without end, each with the largest eigenvalue of its inputs at gain 1."""
    if batch is None:
        sharpness = lambda_max(problem.inputs)
        while True:
            yield slice(None), sharpness
    generator = np.random.default_rng(seed)
    while True:
        rows = generator.integers(len(problem.inputs), size=batch)
        yield rows, lambda_max(problem.inputs[rows])
