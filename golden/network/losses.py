"""The losses of a batch, each with its gradient and the tangent of that gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Loss(ABC):
    """A sum of squares times a factor that depends on the shape alone. All in the dtype of the predictions."""

    name: str

    @abstractmethod
    def slope(self, rows: int, outputs: int) -> float:
        """The gradient's factor on ``pred - y``."""

    @abstractmethod
    def value(self, pred: Array, y: Array) -> float:
        """The loss of predictions (rows, outputs) against targets of the same shape.

        Summed in their dtype, so that it overflows where a loss of this dtype does.

        Raises:
            ValueError: the shapes differ.
        """

    def gradient(self, pred: Array, y: Array) -> Array:
        """The loss's derivative by each prediction, (rows, outputs).

        Raises:
            ValueError: the shapes differ.
        """
        gradient = _difference(pred, y)
        gradient *= self.slope(*pred.shape)
        return gradient

    def tangent(self, pred_dot: Array) -> Array:
        """How :meth:`gradient` changes where the predictions change by ``pred_dot``, (..., rows, outputs)."""
        rows, outputs = pred_dot.shape[-2:]
        return pred_dot * self.slope(rows, outputs)


class HalfMSE(Loss):
    """``sum((pred - y)**2) / (2 * rows)``."""

    name = "half_mse"

    def slope(self, rows: int, outputs: int) -> float:
        return 1 / rows

    def value(self, pred: Array, y: Array) -> float:
        return float(np.sum(_squares(pred, y)) / (2 * len(pred)))


class KerasMSE(Loss):
    """``mean((pred - y)**2)`` over rows and outputs."""

    name = "keras_mse"

    def slope(self, rows: int, outputs: int) -> float:
        return 2 / (rows * outputs)

    def value(self, pred: Array, y: Array) -> float:
        return float(np.mean(_squares(pred, y)))


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (HalfMSE(), KerasMSE())}
"""Name, the ``loss_mode`` of a run -> the loss."""


def loss_of(loss_mode: str) -> Loss:
    """The loss of this name.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(loss_mode, str) or loss_mode not in LOSSES:
        raise ValueError(f"loss_mode must be one of {', '.join(LOSSES)}, not {loss_mode!r}")
    return LOSSES[loss_mode]


def _squares(pred: Array, y: Array) -> Array:
    difference = _difference(pred, y)
    return np.square(difference, out=difference)


def _difference(pred: Array, y: Array) -> Array:
    # Broadcasting (rows, 1) against (rows,) would silently give a matrix.
    if pred.ndim != 2 or not pred.size or y.shape != pred.shape:
        raise ValueError(f"y must have the predictions' shape (rows, outputs), not {y.shape} against {pred.shape}")
    difference: Array = pred - y
    return difference
