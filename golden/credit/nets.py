"""The estimators' own small networks: a function of state, depth and code, with the dual pass for second-order terms.

A loss on ``grad_h V`` needs the gradient of a gradient. With a direction u on the input h, <u, grad_h V> is the output's tangent;
so values and tangents go forward as pairs, and back-propagating through the pairs gives what is sought.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .activations import Normal, activation, normalise, normalise_slope

Array = NDArray[Any]

FREQUENCIES = 4
"""Of the sinusoidal time: sine and cosine of pi t, 2 pi t, 4 pi t, 8 pi t."""


class Pass:
    """What a forward pass leaves for the backward ones."""

    def __init__(self, normal: Normal) -> None:
        self.normal = normal
        self.inputs: list[Array] = []  # of each dense layer
        self.slopes: list[Array] = []  # of each activation
        self.sums: list[Array] = []  # what each activation was given
        self.outputs: list[Array] = []  # and what it gave


class Net:
    """A multilayer perceptron on ``[h, time(t), code]``, h layer-normalised or not.

    Args:
        width: of h.
        code: of the code; 0 for none.
        outputs: k.
        hidden: the widths of the hidden layers.
        layer_norm: give h layer-normalised, which leaves out its mean and its length, and a gradient none along them.
        skip: add h to the outputs, which are then as wide.
        kind: the activation, smooth where the dual pass is used.
        rng: draws the weights, normal with variance 1 / fan-in; those of the last layer are a tenth of that with ``skip``.

    Attributes:
        theta: the weights as one vector (P,), written in place by :meth:`move`.
    """

    def __init__(
        self,
        width: int,
        code: int,
        outputs: int,
        *,
        hidden: tuple[int, ...],
        rng: np.random.Generator,
        layer_norm: bool = True,
        skip: bool = False,
        kind: str = "gelu",
        dtype: DTypeLike = np.float64,
    ) -> None:
        self.width, self.code, self.outputs = width, code, outputs
        self.layer_norm, self.skip = layer_norm, skip
        self.act = activation(kind)
        sizes = (width + 2 * FREQUENCIES + code, *hidden, outputs)
        self.shapes = [shape for i, o in pairwise(sizes) for shape in ((i, o), (o,))]
        parts = [rng.normal(size=s) / math.sqrt(s[0]) if len(s) == 2 else np.zeros(s) for s in self.shapes]
        if skip:
            parts[-2] = parts[-2] * 0.1
        self.theta = np.concatenate([part.ravel() for part in parts]).astype(dtype)
        self.layers = self.split(self.theta)

    def split(self, flat: Array) -> list[tuple[Array, Array]]:
        """Kernel and bias of each layer, views of a vector (P,)."""
        parts, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            parts.append(flat[start:stop].reshape(shape))
            start = stop
        return list(zip(parts[::2], parts[1::2], strict=True))

    def move(self, change: Array) -> None:
        """Add a vector (P,) to theta."""
        self.theta += change.astype(self.theta.dtype, copy=False)

    def forward(self, h: Array, t: Array, code: Array | None) -> tuple[Array, Pass]:
        """The outputs (rows, k) for states (rows, d), times (rows,) in 0..1 and codes (rows, code)."""
        normal, x = self._inputs(h, t, code)
        made = Pass(normal)
        for i, (kernel, bias) in enumerate(self.layers):
            made.inputs.append(x)
            z = x @ kernel
            z += bias
            if i == len(self.layers) - 1:
                return z + h.astype(z.dtype, copy=False) if self.skip else z, made
            x, slope = self.act.value_and_slope(z)
            made.sums.append(z)
            made.outputs.append(x)
            made.slopes.append(slope)
        raise AssertionError("a net has an output layer")

    def value(self, h: Array, t: Array, code: Array | None) -> Array:
        """The outputs alone, (..., rows, k), for states (..., rows, d): what rows share is computed once for all of them."""
        h = h.astype(self.theta.dtype, copy=False)
        kernel, bias = self.layers[0]
        x = self._normal(h).value.reshape(-1, self.width) @ kernel[: self.width]
        x = x.reshape(*h.shape[:-1], -1)
        x += self._beside(t, code) @ kernel[self.width :] + bias
        for kernel, bias in self.layers[1:]:
            x = self.act.value(x)
            x = x.reshape(-1, len(kernel)) @ kernel
            x += bias
        x = x.reshape(*h.shape[:-1], self.outputs)
        return x + h if self.skip else x

    def _normal(self, h: Array) -> Normal:
        return normalise(h) if self.layer_norm else Normal(h, np.ones(1, h.dtype))

    def _beside(self, t: Array, code: Array | None) -> Array:
        """What the net is given beside h, (rows, 2 FREQUENCIES + code)."""
        angles = np.outer(t, math.pi * 2.0 ** np.arange(FREQUENCIES))
        parts = [np.sin(angles), np.cos(angles)]
        if self.code:
            assert code is not None
            parts.append(code)
        return np.concatenate(parts, axis=1).astype(self.theta.dtype, copy=False)

    def _inputs(self, h: Array, t: Array, code: Array | None) -> tuple[Normal, Array]:
        normal = self._normal(h.astype(self.theta.dtype, copy=False))
        return normal, np.concatenate([normal.value, self._beside(t, code)], axis=1)

    def backward(self, made: Pass, cotangent: Array) -> tuple[Array, Array]:
        """The gradient of ``<cotangent, outputs>`` by h, (rows, d), and by theta, (P,)."""
        slopes, gradient = made.slopes, np.empty_like(self.theta)
        c = cotangent = cotangent.astype(self.theta.dtype, copy=False)
        for i, (kernel, bias) in reversed(list(enumerate(self.split(gradient)))):
            np.matmul(made.inputs[i].T, c, out=kernel)
            c.sum(axis=0, out=bias)
            c = c @ self.layers[i][0].T
            if i:
                c *= slopes[i - 1]
        return self._to_states(made, c, cotangent), gradient

    def input_gradient(self, made: Pass, cotangent: Array) -> Array:
        """Only the gradient by h, (rows, d)."""
        slopes = made.slopes
        c = cotangent = cotangent.astype(self.theta.dtype, copy=False)
        for i in reversed(range(len(self.layers))):
            c = c @ self.layers[i][0].T
            if i:
                c *= slopes[i - 1]
        return self._to_states(made, c, cotangent)

    def _to_states(self, made: Pass, c: Array, cotangent: Array) -> Array:
        back = self._through(made, c[:, : self.width])
        return back + cotangent if self.skip else back

    def _through(self, made: Pass, v: Array) -> Array:
        return normalise_slope(made.normal, v) if self.layer_norm else v

    def tangent_gradient(self, made: Pass, direction: Array, cotangent: Array, cotangent_dot: Array) -> Array:
        """The gradient by theta of ``<cotangent, outputs> + <cotangent_dot, outputs_dot>``, (P,): the dual pass.

        Args:
            direction: (rows, d), the tangent of h that makes outputs_dot; itself not differentiated.
        """
        x_dot = np.zeros_like(made.inputs[0])
        x_dot[:, : self.width] = self._through(made, direction)
        slopes, inputs_dot, sums_dot = made.slopes, [x_dot], []
        for (kernel, _), slope in zip(self.layers, slopes, strict=False):
            z_dot = inputs_dot[-1] @ kernel
            sums_dot.append(z_dot)
            inputs_dot.append(slope * z_dot)
        gradient = np.empty_like(self.theta)
        c, c_dot = (part.astype(self.theta.dtype, copy=False) for part in (cotangent, cotangent_dot))
        for i, (kernel, bias) in reversed(list(enumerate(self.split(gradient)))):
            kernel[...] = made.inputs[i].T @ c + inputs_dot[i].T @ c_dot
            c.sum(axis=0, out=bias)
            if i:
                weights = self.layers[i][0].T
                by_x, by_dot = c @ weights, c_dot @ weights
                c = by_x * slopes[i - 1]
                if self.act.bend is not None:
                    c += by_dot * sums_dot[i - 1] * self.act.bend(made.sums[i - 1], made.outputs[i - 1])
                c_dot = by_dot * slopes[i - 1]
        return gradient
