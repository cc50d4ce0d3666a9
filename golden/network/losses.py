"""The losses of a batch, each with its gradient and the tangent of that gradient."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Loss(ABC):
    """A loss of predictions (rows, outputs) against targets of the same shape. All in the dtype of the predictions."""

    name: str

    @abstractmethod
    def value(self, pred: Array, y: Array) -> float:
        """The loss, summed in the predictions' dtype, so that it overflows where a loss of this dtype does.

        Raises:
            ValueError: the shapes differ.
        """

    @abstractmethod
    def gradient(self, pred: Array, y: Array) -> Array:
        """The loss's derivative by each prediction, (rows, outputs).

        Raises:
            ValueError: the shapes differ.
        """

    @abstractmethod
    def tangent(self, pred: Array, y: Array, pred_dot: Array) -> Array:
        """How :meth:`gradient` changes where the predictions change by ``pred_dot``, (..., rows, outputs)."""


class Squares(Loss):
    """A sum of squares times a factor that depends on the shape alone."""

    @abstractmethod
    def slope(self, rows: int, outputs: int) -> float:
        """The gradient's factor on ``pred - y``."""

    def gradient(self, pred: Array, y: Array) -> Array:
        gradient = _difference(pred, y)
        gradient *= self.slope(*pred.shape)
        return gradient

    def tangent(self, pred: Array, y: Array, pred_dot: Array) -> Array:
        rows, outputs = pred_dot.shape[-2:]
        return pred_dot * self.slope(rows, outputs)


class HalfMSE(Squares):
    """``sum((pred - y)**2) / (2 * rows)``."""

    name = "half_mse"

    def slope(self, rows: int, outputs: int) -> float:
        return 1 / rows

    def value(self, pred: Array, y: Array) -> float:
        return float(np.sum(_squares(pred, y)) / (2 * len(pred)))


class KerasMSE(Squares):
    """``mean((pred - y)**2)`` over rows and outputs."""

    name = "keras_mse"

    def slope(self, rows: int, outputs: int) -> float:
        return 2 / (rows * outputs)

    def value(self, pred: Array, y: Array) -> float:
        return float(np.mean(_squares(pred, y)))


class SoftmaxCrossEntropy(Loss):
    """``-sum(y * log(softmax(pred))) / rows``: the predictions are logits, a target is a distribution, such as one-hot."""

    name = "softmax_cross_entropy"

    def value(self, pred: Array, y: Array) -> float:
        _same_shape(pred, y)
        return float(-np.sum(y * _log_softmax(pred)) / len(pred))

    def gradient(self, pred: Array, y: Array) -> Array:
        _same_shape(pred, y)
        gradient: Array = (np.exp(_log_softmax(pred)) * y.sum(axis=1, keepdims=True) - y) / len(pred)
        return gradient

    def tangent(self, pred: Array, y: Array, pred_dot: Array) -> Array:
        share = np.exp(_log_softmax(pred))
        change: Array = share * (pred_dot - np.sum(share * pred_dot, axis=-1, keepdims=True))
        scaled: Array = change * (y.sum(axis=1, keepdims=True) / len(pred))
        return scaled


LOSSES: dict[str, Loss] = {loss.name: loss for loss in (HalfMSE(), KerasMSE(), SoftmaxCrossEntropy())}
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


def _log_softmax(pred: Array) -> Array:
    below = pred - pred.max(axis=1, keepdims=True)  # never overflows
    logs: Array = below - np.log(np.sum(np.exp(below), axis=1, keepdims=True))
    return logs


def _same_shape(pred: Array, y: Array) -> None:
    # Broadcasting (rows, 1) against (rows,) would silently give a matrix.
    if pred.ndim != 2 or not pred.size or y.shape != pred.shape:
        raise ValueError(f"y must have the predictions' shape (rows, outputs), not {y.shape} against {pred.shape}")


def _difference(pred: Array, y: Array) -> Array:
    _same_shape(pred, y)
    difference: Array = pred - y
    return difference
