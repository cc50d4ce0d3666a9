"""Optimisers: what a gradient becomes before the throttle scales it.

An optimiser proposes a direction D and the unit steps along ``-alpha * eta * D``, so none of them knows a learning rate.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, agree
from ..numbers import number

Vector = NDArray[np.floating[Any]]


class Optimiser(Stateful):
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

    def state_dict(self) -> State:
        """The steps and the state's vectors, as copies, with the rule's own settings; ``quantise`` is the loop's."""
        return {"settings": settings_of(self), "steps": self.steps, "state": {name: v.copy() for name, v in self.state.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of an optimiser with the same settings, bit for bit.

        Raises:
            ValueError: other settings, or no such state; names the field. Nothing has changed then.
        """
        agree(state, self.state_dict(), "settings", free=["state"])
        self.state = vectors("state", state["state"], self.fields)
        self.steps = state["steps"]

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
        self.eps = number("eps", eps)
        if not 0 < self.eps < np.inf:
            raise ValueError(f"eps must be greater than 0 and finite, not {eps!r}")

    def _direction(self, g: Vector) -> Vector:
        m = self._keep("adam_m", self.beta1 * self.state["adam_m"] + (1 - self.beta1) * g)
        v = self._keep("adam_v", self.beta2 * self.state["adam_v"] + (1 - self.beta2) * g * g)
        # A grid that wraps can make v negative.
        root = np.sqrt(np.maximum(v, 0) / (1 - self.beta2**self.steps))
        direction: Vector = m / (1 - self.beta1**self.steps) / (root + self.eps)
        return direction


OPTIMISERS: dict[str, type[Optimiser]] = {"sgd": SGD, "momentum": Momentum, "nesterov": Nesterov, "adam": Adam}
"""Name -> class; each makes a usable optimiser without arguments."""


def settings_of(rule: Any) -> dict[str, float]:
    """The numbers that a rule was made with: what it holds beside its state."""
    return {name: value for name, value in vars(rule).items() if isinstance(value, (int, float)) and name != "steps"}


def vectors(name: str, state: Any, fields: Sequence[str]) -> dict[str, Vector]:
    """Copies of a state's vectors: all of these fields, or none of them before a first step.

    Raises:
        ValueError: other fields, no vectors of floats, or of different lengths or dtypes; names the field.
    """
    if not isinstance(state, Mapping) or (state and set(state) != set(fields)):
        raise ValueError(f"{name} must have {', '.join(fields) or 'nothing'}, not {', '.join(state) if state else state!r}")
    first: Any = next(iter(state.values()), None)
    for field, vector in state.items():
        if not isinstance(vector, np.ndarray) or vector.ndim != 1 or vector.dtype.kind != "f":
            raise ValueError(f"{name}.{field} must be a vector of floats, not {vector!r}")
        if (vector.shape, vector.dtype) != (first.shape, first.dtype):
            raise ValueError(f"{name}.{field} must be {first.dtype} of {first.shape}, not {vector.dtype} of {vector.shape}")
    return {field: vector.copy() for field, vector in state.items()}


def make(optimiser: str | Optimiser) -> Optimiser:
    """A fresh optimiser by its name, or the given one itself, state and all."""
    if isinstance(optimiser, Optimiser):
        return optimiser
    if not isinstance(optimiser, str) or optimiser not in OPTIMISERS:
        raise ValueError(f"optimiser must be one of {', '.join(OPTIMISERS)}, or an Optimiser, not {optimiser!r}")
    return OPTIMISERS[optimiser]()


def _fraction(name: str, value: float) -> float:
    fraction = number(name, value)
    if not 0 <= fraction < 1:
        raise ValueError(f"{name} must be at least 0 and less than 1, not {value!r}")
    return fraction
