"""Normalising layers: of each column over a batch, and of each row over its columns."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from .checks import switches
from .layers import Array, Cache, CacheDot, Layer, Quantiser, Variables

MOMENTUM = 0.99
"""Of the moving statistics: what stays of them in a step."""

BATCH_EPSILON, ROW_EPSILON = 1e-3, 1e-5
"""What is added to a variance over a batch, as in Keras, and to one over a row, as in torch."""


class _Norm(Layer):
    """``gain * (x - mean) / sqrt(variance + epsilon) + beta``, over the rows of a matrix whose columns are channels.

    Vectors have as many channels as elements; images and sequences have those of their last axis, and every pixel or place
    counts as a row.

    Args:
        gain_from_one: keep ``gamma = gain - 1``, which begins at 0 and needs no bit before the binary point. By default gamma is
            the gain, as in Keras and torch.

    Attributes:
        channels: columns; 0 until the shape is told or the layer is built.
    """

    def __init__(self, name: str, *, gain_from_one: bool = False) -> None:
        super().__init__(name)
        switches(gain_from_one=gain_from_one)
        self.gain_from_one = gain_from_one
        self.channels = 0

    def take(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.channels = shape[-1]
        return shape

    def initialise(self, rng: np.random.Generator) -> None:
        if self.width is None:
            raise ValueError(f"the layer {self.name} must be built before it is initialised")
        self.channels = self.channels or self.width
        ones, zeros = np.ones(self.channels, self.dtype), np.zeros(self.channels, self.dtype)
        self.params = {"gamma": zeros.copy() if self.gain_from_one else ones, "beta": zeros}

    @property
    def gain(self) -> Array:
        """What the normalised inputs are multiplied by."""
        gamma = self.params["gamma"]
        return gamma + 1 if self.gain_from_one else gamma

    def _columns(self, x: Array) -> Array:
        """(..., rows, width) as (..., rows * places, channels)."""
        return x.reshape(*x.shape[:-2], -1, self.channels)

    def _back(self, columns: Array) -> Array:
        """The inverse of :meth:`_columns`."""
        assert self.width is not None  # there is nothing to bring back before that
        return columns.reshape(*columns.shape[:-2], -1, self.width)

    def _out(self, normal: Array, quantiser: Quantiser | None) -> Array:
        y = self._back(self.gain * normal + self.params["beta"])
        return y if quantiser is None else quantiser("activation", y)

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        normal, dy = cache["normal"], self._columns(dy)
        gradients = {"gamma": (dy * normal).sum(axis=0), "beta": dy.sum(axis=0)}
        slope = dy * cache["gain"]  # the derivative by the normalised x
        axis = self._axis(cache)
        if axis is not None:
            slope = slope - slope.mean(axis=axis, keepdims=True) - normal * (slope * normal).mean(axis=axis, keepdims=True)
        return self._back(cache["scale"] * slope), gradients

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        normal, axis = cache["normal"], self._axis(cache)
        gain_dot = params_dot["gamma"][:, None, :]
        cache_dot = {"gain": gain_dot}
        y_dot = gain_dot * normal + params_dot["beta"][:, None, :]
        if x_dot is not None:
            normal_dot = self._columns(x_dot) * cache["scale"]
            if axis is not None:
                normal_dot -= normal_dot.mean(axis=axis, keepdims=True)
                # The mean of normal * normal_dot is minus the relative change of the scale.
                shrink = (normal * normal_dot).mean(axis=axis, keepdims=True)
                normal_dot -= normal * shrink
                cache_dot["shrink"] = shrink
            cache_dot["normal"] = normal_dot
            y_dot += cache["gain"] * normal_dot
        return self._back(y_dot), cache_dot

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        normal, scale, axis = cache["normal"], cache["scale"], self._axis(cache)
        dy, dy_dot = self._columns(dy), self._columns(dy_dot)
        normal_dot = cache_dot.get("normal")
        gamma_dot = (dy_dot * normal).sum(axis=1)
        if normal_dot is not None:
            gamma_dot += (dy * normal_dot).sum(axis=1)
        gradients = {"gamma": gamma_dot, "beta": dy_dot.sum(axis=1)}
        slope_dot = dy_dot * cache["gain"] + dy * cache_dot["gain"]
        if axis is None:
            return self._back(scale * slope_dot), gradients
        slope = dy * cache["gain"]
        along = (slope * normal).mean(axis=axis, keepdims=True)
        along_dot = (slope_dot * normal).mean(axis=axis, keepdims=True)
        if normal_dot is not None:
            along_dot += (slope * normal_dot).mean(axis=axis, keepdims=True)
        rest_dot = slope_dot - slope_dot.mean(axis=axis, keepdims=True) - normal * along_dot
        if normal_dot is not None:
            rest = slope - slope.mean(axis=axis, keepdims=True) - normal * along
            rest_dot -= normal_dot * along + cache_dot["shrink"] * rest
        return self._back(scale * rest_dot), gradients

    @abstractmethod
    def _axis(self, cache: Cache) -> int | None:
        """What mean and variance were taken over, -2 for rows and -1 for columns; None where they are constants."""


class BatchNorm(_Norm):
    """Batch normalisation: of each channel over the batch, and over the pixels of an image.

    Training takes mean and (biased) variance from the batch and moves the moving ones 1 % of the way there; inference takes
    the moving ones. epsilon is 1e-3. With a quantiser: the output on "activation".
    """

    def initialise(self, rng: np.random.Generator) -> None:
        super().initialise(rng)
        zeros = np.zeros_like(self.params["beta"])
        self.state = {"moving_mean": zeros, "moving_variance": zeros + 1}

    def _axis(self, cache: Cache) -> int | None:
        return -2 if cache["training"] else None

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        x = self._columns(x)
        if training:
            mean = x.mean(axis=0)
            centred = x - mean
            variance = np.square(centred).mean(axis=0)
            if update_state:
                for name, now in (("moving_mean", mean), ("moving_variance", variance)):
                    self.state[name] = MOMENTUM * self.state[name] + (1 - MOMENTUM) * now
        else:
            centred, variance = x - self.state["moving_mean"], self.state["moving_variance"]
        scale = 1 / np.sqrt(variance + BATCH_EPSILON)
        normal = centred * scale
        cache = {"normal": normal, "scale": scale, "gain": self.gain, "training": np.asarray(training)}
        return self._out(normal, quantiser), cache


class LayerNorm(_Norm):
    """Layer normalisation: of each row over its channels; of an image each pixel, of a sequence each place. epsilon is 1e-5.

    With a quantiser: the output on "activation".
    """

    def _axis(self, cache: Cache) -> int | None:
        return -1

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        x = self._columns(x)
        centred = x - x.mean(axis=1, keepdims=True)
        scale = 1 / np.sqrt(np.square(centred).mean(axis=1, keepdims=True) + ROW_EPSILON)
        normal = centred * scale
        return self._out(normal, quantiser), {"normal": normal, "scale": scale, "gain": self.gain}
