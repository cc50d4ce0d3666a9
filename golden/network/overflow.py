"""What the grids of a step do not hold: counted before a quantiser clips, wraps or zeroes it, when it can still be seen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats import Fixed, Rounding
from ..rounding import round_whole

KINDS: dict[str, str] = {
    "input": "the data",
    "parameter": "the kernels and biases as the forward pass rounds them",
    "accumulator": "the dot products",
    "activation": "the outputs of the layers",
    "loss": "the loss",
    "gradient": "the gradient",
    "sensed": "what an estimator shows a unit with grids in the gradient's place",
    "state": "the optimiser's state",
    "direction": "the direction of an optimiser, for a unit with grids",
    "update": "the update, before it is added",
    "weight": "the sums of weight and update",
}
"""Kind of tensor -> what it is."""

OF_FIELD = {
    "value": "input",
    "weight": "parameter",
    "bias": "parameter",
    "accumulator": "accumulator",
    "activation": "activation",
    "momentum": "state",
    "adam_m": "state",
    "adam_v": "state",
}
"""Precision field -> the kind that it is counted as."""


def beyond(tensor: NDArray[Any], fmt: Fixed | None) -> NDArray[np.bool_]:
    """Which elements lie beyond the rails of a format once they are rounded, whatever its overflow mode; none without a format.

    Infinity does, NaN does not. Stochastic rounding counts as to nearest.
    """
    array = np.asarray(tensor)
    if fmt is None or not array.size:
        return np.zeros(array.shape, bool)
    low, high = fmt.rails
    scaled = np.multiply(array, 2.0**fmt.fraction_bits, dtype=np.float64)
    if scaled.min() >= low and scaled.max() <= high:  # the usual case, and NaN is never in it
        return np.zeros(array.shape, bool)
    rounding = Rounding.NEAREST_EVEN if fmt.rounding is Rounding.STOCHASTIC else fmt.rounding
    with np.errstate(invalid="ignore"):
        whole = round_whole(scaled, rounding)
    found: NDArray[np.bool_] = (whole < low) | (whole > high)
    return found


class Overflows:
    """The counts of one step, by kind and layer."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], tuple[int, int]] = {}

    def add(self, kind: str, layer: str, outside: NDArray[np.bool_]) -> None:
        """Elements, and which of them lie beyond the rails."""
        count, size = self._counts.get((kind, layer), (0, 0))
        self._counts[kind, layer] = count + int(np.count_nonzero(outside)), size + outside.size

    def look(self, kind: str, layer: str, tensor: NDArray[Any], fmt: Fixed | None) -> None:
        """A tensor before it enters a grid; nothing is counted where there is none."""
        if fmt is not None:
            self.add(kind, layer, beyond(tensor, fmt))

    def whole(self) -> dict[str, float]:
        """``KIND_overflow_fraction`` of all elements of a kind; 0 where none had a grid."""
        return self._fractions(self._counts)

    def of_layer(self, layer: str) -> dict[str, float]:
        """The same of one layer."""
        return self._fractions(key for key in self._counts if key[1] == layer)

    def _fractions(self, keys: Iterable[tuple[str, str]]) -> dict[str, float]:
        chosen = list(keys)
        made = {}
        for kind in KINDS:
            counts = [self._counts[key] for key in chosen if key[0] == kind]
            size = sum(count[1] for count in counts)
            made[f"{kind}_overflow_fraction"] = sum(count[0] for count in counts) / size if size else 0.0
        return made
