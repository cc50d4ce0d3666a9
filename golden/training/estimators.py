"""Estimators: what a unit is shown as gradient, so that the curvature it measures is the problem's and not the noise's.

A unit measures ``C = ||u_t - u_{t-1}|| / (||theta_t - theta_{t-1}|| + eps)`` on whatever sequence u it absorbs; the direction
it steps along is handed over apart. An estimator makes u, and so serves the float, the golden and the RTL unit alike.

With minibatches the plain sequence, the gradients, measures their noise: between two batches of gradient noise s the gradient
moves by ``sqrt(2) s`` and the weights by ``alpha eta s``, whence ``C = sqrt(2) / (alpha eta)`` whatever the curvature.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


class GradientAt(Protocol):
    """The full quantised gradient (P,) at weights (P,) on rows of the present batch (indices from 0; None: all of them)."""

    def __call__(self, theta: Vector, rows: NDArray[np.intp] | None) -> Vector: ...


class Estimator(ABC):
    """Makes the sequence u from the gradients.

    Attributes:
        passes: how many gradients of a whole batch it computes a step, beside the one it is given.
    """

    passes: float = 0

    def __init__(self) -> None:
        self.state: dict[str, Vector] = {}

    def sense(self, g: Vector, *, gradient_at: GradientAt, theta: Vector, previous_theta: Vector | None, rows: int) -> Vector:
        """The next u (P,), of the gradient's dtype and on no grid: the caller rounds it onto the unit's.

        Args:
            g: (P,) the gradient at ``theta`` on the present batch.
            gradient_at: other gradients on this batch.
            theta, previous_theta: (P,) the weights now and at the step before; None starts anew, with ``u = g``.
            rows: how many rows the present batch has.
        """
        if previous_theta is None:
            self.state = {}
        u = self._next(g, gradient_at, theta, previous_theta if self.state else None, rows)
        self.state["u"] = u
        return u

    @abstractmethod
    def _next(self, g: Vector, gradient_at: GradientAt, theta: Vector, previous: Vector | None, rows: int) -> Vector:
        """u; ``previous`` is None at the start, else the state is that of the step before."""


class Naive(Estimator):
    """``u = g``: as published."""

    def _next(self, g: Vector, gradient_at: GradientAt, theta: Vector, previous: Vector | None, rows: int) -> Vector:
        return g


class SameBatch(Estimator):
    """``u_t = u_{t-1} + g(theta_t; b_t) - g(theta_{t-1}; b_t)``: both gradients on the present batch.

    Noise that does not depend on the weights drops out, and so does a drift of the data. The sum wanders away from the gradient
    by what the batches' curvatures differ, so give u a format with a bit or two to spare.
    """

    passes = 1

    def _next(self, g: Vector, gradient_at: GradientAt, theta: Vector, previous: Vector | None, rows: int) -> Vector:
        if previous is None:
            return g
        moved: Vector = self.state["u"] + (g - gradient_at(previous, None))
        return moved


class HalfBatch(Estimator):
    """The change of the gradient, shortened to what two halves of the batch agree on.

    With ``d_a`` and ``d_b`` the changes of the gradient on the even and on the odd rows, of one batch and the next,
    ``u_t = u_{t-1} + (g_t - g_{t-1}) * sqrt(max(0, <d_a, d_b>)) / ||g_t - g_{t-1}||``. The halves' noises are independent, so the
    noise's own energy drops out of ``<d_a, d_b>``: for a motion that they had no part in, its mean is the square of the
    gradient's true change. Where the noise itself has made the motion, as in plain SGD far below the noise floor, that motion
    correlates with both halves, and for the curvature c there remains ``C^2 = c^2 + 2 c / (alpha eta)``: too large, but in
    proportion to the curvature, so that it does not freeze a run.
    """

    passes = 1

    def _next(self, g: Vector, gradient_at: GradientAt, theta: Vector, previous: Vector | None, rows: int) -> Vector:
        if rows < 2:
            raise ValueError(f"rows must be at least 2 for half_batch, not {rows}")
        now = {"g": g, "a": gradient_at(theta, np.arange(0, rows, 2)), "b": gradient_at(theta, np.arange(1, rows, 2))}
        change = {name: now[name].astype(np.float64) - self.state[name] for name in now} if previous is not None else {}
        u = g
        if change:
            agreed = math.sqrt(max(0.0, float(change["a"] @ change["b"])))
            whole = float(np.linalg.norm(change["g"]))
            u = (self.state["u"] + change["g"] * (agreed / whole if whole else 0.0)).astype(g.dtype)
        self.state |= now
        return u


class Averaged(Estimator):
    """``u = mu u + (1 - mu) g``, from ``u = g``: the noise shrinks, and quick changes of the gradient with it."""

    def __init__(self, mu: float = 0.9) -> None:
        super().__init__()
        if not 0 <= mu < 1:
            raise ValueError(f"mu must be at least 0 and less than 1, not {mu!r}")
        self.mu = float(mu)

    def _next(self, g: Vector, gradient_at: GradientAt, theta: Vector, previous: Vector | None, rows: int) -> Vector:
        if previous is None:
            return g
        mean: Vector = self.mu * self.state["u"] + (1 - self.mu) * g
        return mean


ESTIMATORS: dict[str, type[Estimator]] = {
    "naive": Naive,
    "same_batch": SameBatch,
    "half_batch": HalfBatch,
    "momentum": Averaged,
}
"""Name -> class; each makes a usable estimator without arguments."""


def make(estimator: str | Estimator) -> Estimator:
    """A fresh estimator by its name, or the given one itself, state and all."""
    if isinstance(estimator, Estimator):
        return estimator
    if not isinstance(estimator, str) or estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, or an Estimator, not {estimator!r}")
    return ESTIMATORS[estimator]()


# ---------------------------------------------------------------- warnings


def lint(*, controller: str, chi: float, beta: float, learning_rate: float, minibatch: bool) -> list[str]:
    """Warnings on settings that minibatch noise turns into a standstill under the naive estimator, before a run.

    Put ``C = sqrt(2) / (alpha eta)`` into the laws: the stability margin (``chi``) then multiplies alpha by ``chi / sqrt(2)`` a
    step, and inverse curvature (``beta``) has no alpha above 0 unless ``beta < eta / sqrt(2)``.
    """
    if controller not in ("chi", "beta"):
        raise ValueError(f"controller must be one of chi, beta, not {controller!r}")
    if not minibatch:
        return []
    if controller == "chi" and chi < math.sqrt(2):
        return [
            f"chi = {chi:g} is less than sqrt(2): where minibatch noise dominates, each step multiplies alpha by "
            f"{chi / math.sqrt(2):.3g} and the run freezes; take chi of at least 1.5 or the estimator same_batch"
        ]
    bound = learning_rate / math.sqrt(2)
    if controller == "beta" and beta >= bound:
        return [
            f"beta = {beta:g} is not less than learning_rate / sqrt(2) = {bound:.3g}: where minibatch noise dominates, "
            "alpha falls to alpha_min; take a smaller beta or the estimator same_batch"
        ]
    return []


class NoiseWatch:
    """Tells, once, when minibatch noise has taken over C.

    The noise index is ``C * alpha * eta / sqrt(2)`` with the alpha of the step that made the motion, the one before: 1 where
    independent noises are all that the gradient's change consists of. It alone does not tell: a throttled run without any noise
    has ``C * alpha * eta = chi``. But there the gradient shrinks quickly, and noise does not. The rule, over the last ``window``
    steps: the median index lies within ``band``, and the median norms of the gradient in the two halves of the window differ by
    a factor of less than ``drift``. A clean mode of curvature c has an index of ``alpha eta c / sqrt(2)`` and a gradient that
    shrinks by ``|1 - alpha eta c|`` a step, so no single one meets both. Many modes may, where the throttle holds a run at the
    edge of stability (``alpha eta c`` near 2 for the steepest), and so does the roundoff of one that has converged: feed it runs
    with minibatches only. Meant for plain SGD: an optimiser's motion is not ``alpha eta g``.
    """

    window = 24
    band = (0.75, 1.35)
    drift = 2.0

    def __init__(self) -> None:
        self._steps: deque[tuple[float, float]] = deque(maxlen=self.window)
        self.told = False

    def feed(self, noise_index: float, gradient_norm: float) -> str | None:
        """Take one step that measured a C; the message at the step at which the rule is first met, else None."""
        self._steps.append((noise_index, gradient_norm))
        if self.told or len(self._steps) < self.window:
            return None
        indices, norms = np.array(self._steps).T
        if not np.isfinite(indices).all() or not np.isfinite(norms).all():
            return None
        median = float(np.median(indices))
        early, late = (float(np.median(half)) for half in np.split(norms, 2))
        if not (self.band[0] <= median <= self.band[1] and max(early, late) < self.drift * min(early, late)):
            return None
        self.told = True
        return (
            f"minibatch noise has taken over the curvature: over the last {self.window} steps the median of "
            f"C * alpha * eta / sqrt(2) is {median:.2f}, so C measures sqrt(2) / (alpha * eta); "
            "the estimator same_batch measures curvature"
        )
