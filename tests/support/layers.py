"""What tests of layers use: grids that note what they round or freeze it, finite differences, layers that are nothing special."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kappa_rtl.golden.network.layers import Layer

Array = np.ndarray[Any, Any]


class Grid:
    """Every field on the same grid; notes what it rounded."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.seen: list[tuple[str, Array]] = []

    def round(self, tensor: Array) -> Array:
        return (np.round(tensor / self.step) * self.step).astype(tensor.dtype)

    def __call__(self, field: str, tensor: Array) -> Array:
        self.seen.append((field, tensor))
        return self.round(tensor)

    def product(self, x: Array, kernel: Array) -> Array:
        return self("accumulator", x @ kernel)


class Offsets:
    """A grid whose roundings are frozen: adds what the grid added to each tensor at its first use.

    Its true derivative is the straight-through one.
    """

    def __init__(self, step: float) -> None:
        self.grid = Grid(step)
        self.offsets: dict[str, Array] = {}

    def __call__(self, field: str, tensor: Array) -> Array:
        if field not in self.offsets:
            self.offsets[field] = self.grid.round(tensor) - tensor
        return tensor + self.offsets[field]

    def product(self, x: Array, kernel: Array) -> Array:
        return self("accumulator", x @ kernel)


def numeric(function: Callable[[Array], float], at: Array, step: float = 1e-5) -> Array:
    """The gradient by central differences."""
    slope = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        ends = []
        for sign in (1, -1):
            moved = at.copy()
            moved[index] += sign * step
            ends.append(function(moved))
        slope[index] = (ends[0] - ends[1]) / (2 * step)
    return slope


def built(layer: Layer, width: int, dtype: Any = np.float64, seed: int = 0) -> Layer:
    """The layer with variables and moving statistics that are nothing special."""
    rng = np.random.default_rng(seed)
    layer.build(width, dtype, rng)
    for name, value in layer.params.items():
        layer.params[name] = (value + rng.normal(size=value.shape)).astype(dtype)
    for name, value in layer.state.items():
        layer.state[name] = (value + rng.random(value.shape)).astype(dtype)
    return layer
