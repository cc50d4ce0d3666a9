"""What the diagnostic protocol sees of a model: its hidden states and the loss's gradients by them, as norms."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .trace import Floats


class Observable(Protocol):
    """What the monitor asks of a model with hidden states h_0 .. h_L, for a batch x, y with the samples on the first axis."""

    def hidden_states(self, x: Any) -> Iterable[Any]:
        """The L+1 hidden states, each (n, ...)."""

    def hidden_gradients(self, x: Any, y: Any) -> Iterable[Any]:
        """The exact gradients of the loss's mean over the samples by them, each (n, ...)."""


class Diagnosable(Observable, Protocol):
    """What the protocol asks of a model."""

    def gradient(self, x: Any, y: Any) -> ArrayLike:
        """(P,) the exact gradient of the mean loss, all blocks' weights as one vector."""


def hidden_norms(model: Observable, x: Any) -> Floats:
    """(L+1,) the mean over the samples of ``||h_l||``; not finite if one of a sample is not."""
    means: Floats = state_sizes(model, x).mean(axis=1)
    return means


def gradient_norms(model: Observable, x: Any, y: Any) -> Floats:
    """(L+1,) the median over the samples of the norm of its row of ``d (mean loss) / d h_l``; not finite if one is not."""
    return medians(gradient_sizes(model, x, y))


def state_sizes(model: Observable, x: Any) -> Floats:
    """The norms of all samples' states, (L+1, n)."""
    return _rows("hidden_states", model.hidden_states(x))


def gradient_sizes(model: Observable, x: Any, y: Any) -> Floats:
    """The norms of all samples' rows of the mean loss's gradients, (L+1, n)."""
    return _rows("hidden_gradients", model.hidden_gradients(x, y))


def _rows(name: str, layers: Iterable[Any]) -> Floats:
    """The norm of each sample's part of each layer, (layers, n)."""
    found: list[Floats] = []
    for layer in layers:
        array = np.asarray(layer, np.float64)
        if array.ndim < 2 or not len(array) or (found and len(array) != len(found[0])):
            raise ValueError(f"{name} must be arrays with a row a sample, not of shape {array.shape}")
        found.append(np.linalg.norm(array.reshape(len(array), -1), axis=1))
    return np.array(found, np.float64) if found else np.zeros((0, 0))


def medians(sizes: Floats) -> Floats:
    """Over the samples; a median would pass over an infinite value among many."""
    found = [np.median(row) if (place := not_finite(row)) is None else row[place] for row in sizes]
    return np.array(found, np.float64)


def not_finite(array: Floats) -> int | None:
    """Where the first element is that is not finite. (A maximum would not do: NaN compares false with everything.)"""
    bad = ~np.isfinite(array)
    return int(np.argmax(bad)) if bad.any() else None
