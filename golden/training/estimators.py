"""Estimators: what a unit is shown as gradient, so that the curvature it measures is the problem's and not the noise's.

A unit measures ``C = ||u_t - u_{t-1}|| / (||theta_t - theta_{t-1}|| + eps)`` on whatever sequence u it absorbs; the direction
it steps along is handed over apart. An estimator makes u, and so serves the float, the golden and the RTL unit alike.

With minibatches the plain sequence, the gradients, measures their noise: between two batches of gradient noise s the gradient
moves by ``sqrt(2) s`` and the weights by ``alpha eta s``, whence ``C = sqrt(2) / (alpha eta)`` whatever the curvature.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, agree
from ..network.optimisers import settings_of, vectors
from ..numbers import number

Vector = NDArray[np.floating[Any]]


class GradientAt(Protocol):
    """The full quantised gradient (P,) at weights (P,) on rows of the present batch (indices from 0; None: all of them)."""

    def __call__(self, theta: Vector, rows: NDArray[np.intp] | None) -> Vector: ...


class Estimator(Stateful):
    """Makes the sequence u from the gradients.

    Attributes:
        passes: how many gradients of a whole batch it computes a step, beside the one it is given.
        fields: the vectors of its state, which is empty before the first step.
    """

    passes: float = 0
    fields: tuple[str, ...] = ("u",)

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

    def state_dict(self) -> State:
        """The vectors of the step before, as copies, with the estimator's own settings."""
        return {"settings": settings_of(self), "state": {name: vector.copy() for name, vector in self.state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an estimator with the same settings, bit for bit.

        Raises:
            ValueError: other settings, or no such state; names the field. Nothing has changed then.
        """
        agree(state, self.state_dict(), "settings", free=["state"])
        self.state = vectors("state", state["state"], self.fields)

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
    fields = ("u", "g", "a", "b")

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
        self.mu = number("mu", mu)
        if not 0 <= self.mu < 1:
            raise ValueError(f"mu must be at least 0 and less than 1, not {mu!r}")

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


class NoiseWatch:
    """Tells, once, when minibatch noise has taken over C and is bringing the run to a standstill.

    The noise index is ``C * alpha * eta / sqrt(2)`` with the alpha of the step that made the motion, the one before: 1 where
    independent noises are all that the gradient's change consists of. That alone is no fault: most runs on minibatches have it
    and train well, with a chi that lets alpha recover. It is one where alpha follows the noise down. The rule, over the last
    ``window`` steps: the median index lies within ``band``, the median norms of the gradient in the two halves differ by a factor
    of less than ``drift`` (the gradient of a clean mode shrinks), and the median alpha of the later half is either the law's
    least, or below ``low`` and less than half of that of the earlier one. Meant for plain SGD on minibatches: an optimiser's
    motion is not ``alpha eta g``.

    Args:
        least: the law's least alpha.
    """

    window = 24
    band = (0.75, 1.35)
    drift = 2.0
    low = 1e-3

    def __init__(self, least: float = 0.0) -> None:
        self._steps: deque[tuple[float, float, float]] = deque(maxlen=self.window)
        self.least = least
        self.told = False

    def state_dict(self) -> State:
        """The window, and whether it has told."""
        return {"steps": [list(step) for step in self._steps], "told": self.told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._steps.clear()
        self._steps.extend((index, norm, alpha) for index, norm, alpha in state["steps"])
        self.told = state["told"]

    def feed(self, noise_index: float, gradient_norm: float, alpha: float) -> str | None:
        """Take one step that measured a C; the message at the step at which the rule is first met, else None."""
        self._steps.append((noise_index, gradient_norm, alpha))
        if self.told or len(self._steps) < self.window:
            return None
        indices, norms, alphas = np.array(self._steps).T
        if not (np.isfinite(indices).all() and np.isfinite(norms).all()):
            return None
        median = float(np.median(indices))
        early, late = (float(np.median(half)) for half in np.split(norms, 2))
        before, now = (float(np.median(half)) for half in np.split(alphas, 2))
        noisy = self.band[0] <= median <= self.band[1] and max(early, late) < self.drift * min(early, late)
        if not (noisy and (now <= self.least or now < min(self.low, before / 2))):
            return None
        self.told = True
        return (
            f"minibatch noise has taken over the curvature and alpha has fallen to {now:.2g}: over the last {self.window} steps "
            f"the median of C * alpha * eta / sqrt(2) is {median:.2f}, so C measures sqrt(2) / (alpha * eta), not the problem; "
            "take the estimator same_batch, or larger batches"
        )
