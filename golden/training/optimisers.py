"""Optimisers: what a gradient becomes before the throttle scales it.

An optimiser proposes a direction D and the unit steps along ``-alpha * eta * D``, so none of them knows a learning rate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]


class Optimiser(ABC):
    """A rule from gradients to directions, with its state.

    Attributes:
        fields: the precision fields of its state.
        state: field -> vector (P,) of the gradient's dtype; empty before the first step.
        steps: how many directions have been proposed since the start.
        quantise: ``(field, vector)`` -> the vector on that field's grid; None leaves the state as computed. The state is
            rounded each time it has advanced, and D is computed from the rounded state.
    """

    fields: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.quantise: Callable[[str, Vector], Vector] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the state; ``quantise`` stays."""
        self.state: dict[str, Vector] = {}
        self.steps = 0

    def propose(self, g: Vector) -> Vector:
        """Advance the state by the gradient ``g`` (P,) and return the direction (P,), to be descended along ``-D``.

        Raises:
            ValueError: ``g`` is not a vector of floats, or not of the length and dtype of the one before.
        """
        if not isinstance(g, np.ndarray) or g.ndim != 1 or g.dtype.kind != "f":
            raise ValueError(f"g must be a flat vector of floats, not {np.shape(g)} of {np.asarray(g).dtype}")
        for field in self.fields:
            before = self.state.setdefault(field, np.zeros_like(g))
            if before.shape != g.shape or before.dtype != g.dtype:
                raise ValueError(f"g must be {before.shape} of {before.dtype} as {field} is, not {g.shape} of {g.dtype}")
        self.steps += 1
        return self._direction(g)

    @abstractmethod
    def _direction(self, g: Vector) -> Vector:
        """Advance the state and return D."""

    def _keep(self, field: str, vector: Vector) -> Vector:
        """Store a state vector on its grid; what was stored."""
        rounded = vector if self.quantise is None else np.asarray(self.quantise(field, vector), vector.dtype)
        self.state[field] = rounded
        return rounded


class SGD(Optimiser):
    """``D = g``, the very array."""

    def _direction(self, g: Vector) -> Vector:
        return g


class Momentum(Optimiser):
    """Heavy ball: ``v = mu v + g``, ``D = v``."""

    fields = ("momentum",)

    def __init__(self, mu: float = 0.9) -> None:
        super().__init__()
        self.mu = _fraction("mu", mu)

    def _direction(self, g: Vector) -> Vector:
        # A copy: a caller who scales D in place must not scale the state.
        return self._keep("momentum", self.mu * self.state["momentum"] + g).copy()


class Nesterov(Momentum):
    """Nesterov's look-ahead: ``v = mu v + g``, ``D = g + mu v``."""

    def _direction(self, g: Vector) -> Vector:
        return g + self.mu * self._keep("momentum", self.mu * self.state["momentum"] + g)


class Adam(Optimiser):
    """``m = beta1 m + (1 - beta1) g``, ``v = beta2 v + (1 - beta2) g^2``; ``D = mhat / (sqrt(vhat) + eps)``.

    mhat and vhat are corrected for the start from zero, ``m / (1 - beta1^t)`` and ``v / (1 - beta2^t)``, t from 1. On a coarse
    grid v may round to zero where m does not, and D is then as large as ``mhat / eps``.
    """

    fields = ("adam_m", "adam_v")

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__()
        self.beta1, self.beta2 = _fraction("beta1", beta1), _fraction("beta2", beta2)
        if not 0 < eps < np.inf:
            raise ValueError(f"eps must be greater than 0 and finite, not {eps!r}")
        self.eps = float(eps)

    def _direction(self, g: Vector) -> Vector:
        m = self._keep("adam_m", self.beta1 * self.state["adam_m"] + (1 - self.beta1) * g)
        v = self._keep("adam_v", self.beta2 * self.state["adam_v"] + (1 - self.beta2) * g * g)
        # A grid that wraps can make v negative.
        root = np.sqrt(np.maximum(v, 0) / (1 - self.beta2**self.steps))
        direction: Vector = m / (1 - self.beta1**self.steps) / (root + self.eps)
        return direction


OPTIMISERS: dict[str, type[Optimiser]] = {"sgd": SGD, "momentum": Momentum, "nesterov": Nesterov, "adam": Adam}
"""Name -> class; each makes a usable optimiser without arguments."""


def make(optimiser: str | Optimiser) -> Optimiser:
    """A fresh optimiser by its name, or the given one itself, state and all."""
    if isinstance(optimiser, Optimiser):
        return optimiser
    if not isinstance(optimiser, str) or optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, or an Optimiser, not {optimiser!r}")
    return OPTIMISERS[optimiser]()


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, not {value!r}")
    return float(value)
