"""An embedding: rows of a table in the place of their numbers."""

from __future__ import annotations

import numpy as np

from ..numbers import whole
from .layers import Array, Cache, CacheDot, Layer, Quantiser, Variables

LARGEST = 0.05
"""Of the table's first elements, as in Keras."""


class Embedding(Layer):
    """Whole numbers (rows, length), from 0 to below ``vocabulary``, as (rows, length * units): a row of the table for each.

    The table is drawn uniformly from -.05 to .05. With a quantiser: the table on "weight", the
    output on "activation". The derivative by the numbers is zero.

    Raises:
        ValueError: vocabulary or units are not positive, or the dtype does not hold all numbers; from a pass, a number that is
            none of the table's.
    """

    def __init__(self, name: str, vocabulary: int, units: int) -> None:
        super().__init__(name)
        self.vocabulary, self.units = whole(f"{name}: vocabulary", vocabulary, 1), whole(f"{name}: units", units, 1)

    def take(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 1:
            raise ValueError(f"{self.name} must be given vectors of whole numbers, not {shape}")
        return (*shape, self.units)

    def output_width(self, width: int) -> int:
        return width * self.units

    def initialise(self, rng: np.random.Generator) -> None:
        most = 2 ** (np.finfo(self.dtype).nmant + 1)
        if self.vocabulary > most:
            raise ValueError(
                f"vocabulary must be at most {most}, numbers that {self.dtype} holds, not {self.vocabulary} ({self.name})"
            )
        self.params = {"table": rng.uniform(-LARGEST, LARGEST, (self.vocabulary, self.units)).astype(self.dtype)}

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        wrong = (x != np.floor(x)) | (x < 0) | (x >= self.vocabulary)
        if wrong.any():
            raise ValueError(f"x must be whole numbers from 0 to {self.vocabulary - 1}, not {float(x[wrong][0])!r} ({self.name})")
        at, table = x.astype(np.int64), self.params["table"]
        y = (table if quantiser is None else quantiser("weight", table))[at].reshape(len(x), -1)
        return y if quantiser is None else quantiser("activation", y), {"at": at}

    def _summed(self, at: Array, dy: Array) -> Array:
        """(..., rows, length * units) added up by the rows of the table."""
        each = dy.reshape(*dy.shape[:-2], -1, self.units)
        total = np.zeros((*each.shape[:-2], self.vocabulary, self.units), dy.dtype)
        for single, given in zip(total.reshape(-1, self.vocabulary, self.units), each.reshape(-1, *each.shape[-2:]), strict=True):
            np.add.at(single, at.ravel(), given)
        return total

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        return np.zeros(cache["at"].shape, dy.dtype), self.gradients(cache, dy)

    def gradients(self, cache: Cache, dy: Array) -> Variables:
        return {"table": self._summed(cache["at"], dy)}

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        table_dot = params_dot["table"]
        at = cache["at"]
        return table_dot[:, at].reshape(len(table_dot), len(at), -1), {}

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        return np.zeros((len(dy_dot), *cache["at"].shape), dy.dtype), {"table": self._summed(cache["at"], dy_dot)}
