"""Layers of images: a row is an image, flattened with the channels fastest, as (height, width, channels).

Each is a layer of vectors like all others; the shape of its image is told before it is built, by the model that it is in.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ..numbers import whole
from .checks import switches
from .layers import Array, Cache, CacheDot, Dense, Layer, Quantiser, Variables

PADDINGS = ("same", "valid")


@dataclass(frozen=True)
class Windows:
    """The windows of an image that a layer looks at, and their places in it.

    Args:
        shape: height, width and channels of the image.
        size, stride: of a window, and from one to the next, in both directions.
        padding: ``valid``, windows within the image; or ``same``, as many as there are strides, with zeros around the image, of
            which one more is below and to the right where their number is odd, as in Keras.

    Raises:
        ValueError: no window fits.
    """

    shape: tuple[int, int, int]
    size: int
    stride: int
    padding: str = "valid"

    def __post_init__(self) -> None:
        if min(self.counts) < 1:
            raise ValueError(f"size must be at most that of the image, {self.shape[0]} by {self.shape[1]}, not {self.size}")

    @property
    def counts(self) -> tuple[int, int]:
        """Windows below each other, and beside each other."""
        high, wide, _ = self.shape
        if self.padding == "same":
            return -(-high // self.stride), -(-wide // self.stride)
        return (high - self.size) // self.stride + 1, (wide - self.size) // self.stride + 1

    @property
    def margins(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Zeros above and below, left and right."""
        made = []
        for length, count in zip(self.shape, self.counts, strict=False):
            missing = max(0, (count - 1) * self.stride + self.size - length)
            made.append((missing // 2, missing - missing // 2))
        return made[0], made[1]

    def _places(self) -> list[tuple[slice, slice]]:
        """For each place within a window, the pixels that are there, in the image with its margin."""
        (down, across), step = self.counts, self.stride
        return [
            (slice(i, i + (down - 1) * step + 1, step), slice(j, j + (across - 1) * step + 1, step))
            for i in range(self.size)
            for j in range(self.size)
        ]

    def patches(self, x: Array) -> Array:
        """(..., rows, height * width * channels) to (..., rows * windows, size * size, channels)."""
        *more, rows, _ = x.shape
        image = x.reshape(-1, *self.shape)
        padded = np.pad(image, ((0, 0), *self.margins, (0, 0)))
        found = np.stack([padded[:, down, across] for down, across in self._places()], axis=3)
        return found.reshape(*more, rows * math.prod(self.counts), self.size**2, self.shape[2])

    def spread(self, patches: Array) -> Array:
        """The adjoint of :meth:`patches`: every pixel gets the sum of what its windows have at its place."""
        windows = math.prod(self.counts)
        *more, count, _, channels = patches.shape
        (top, bottom), (left, right) = self.margins
        high, wide, _ = self.shape
        given = patches.reshape(-1, *self.counts, self.size**2, channels)
        padded = np.zeros((len(given), top + high + bottom, left + wide + right, channels), patches.dtype)
        for place, (down, across) in enumerate(self._places()):
            padded[:, down, across] += given[:, :, :, place]
        return padded[:, top : top + high, left : left + wide].reshape(*more, count // windows, high * wide * channels)


class _Windowed(Layer):
    """A layer that looks at windows of an image.

    Attributes:
        windows: known once the image's shape is.
    """

    def __init__(self, name: str, size: int, stride: int, padding: str = "valid") -> None:
        super().__init__(name)
        self.size, self.stride = whole(f"{name}: size", size, 1), whole(f"{name}: stride", stride, 1)
        if padding not in PADDINGS:
            raise ValueError(f"padding must be one of {', '.join(PADDINGS)}, not {padding!r} ({name})")
        self.padding = padding
        self.windows: Windows | None = None

    def take(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 3:
            raise ValueError(f"{self.name} must be given images (height, width, channels), not {shape}")
        try:
            self.windows = Windows((shape[0], shape[1], shape[2]), self.size, self.stride, self.padding)
        except ValueError as error:
            raise ValueError(f"{error} ({self.name})") from None
        return (*self.windows.counts, self.channels(shape[2]))

    def channels(self, given: int) -> int:
        """Of the outputs, for inputs of so many."""
        return given

    @property
    def image(self) -> Windows:
        if self.windows is None:
            raise ValueError(f"the layer {self.name} must be told the shape of its images before it is built")
        return self.windows

    def output_width(self, width: int) -> int:
        image = self.image
        if width != math.prod(image.shape):
            raise ValueError(f"width must be that of images of shape {image.shape}, not {width} ({self.name})")
        return math.prod(image.counts) * self.channels(image.shape[2])


class Conv2D(_Windowed):
    """A convolution (a correlation, as in all frameworks): all windows times a kernel (size * size * channels, filters).

    The kernel is Keras's (size, size, channels, filters) with its first three axes as one; Glorot-uniform by the window's fans,
    the bias zero. With a quantiser it rounds as :class:`~kappa_rtl.golden.network.layers.Dense` does: one product a whole
    window.

    Raises:
        ValueError: filters, size or stride are not positive, or there is no such padding.
    """

    def __init__(
        self, name: str, filters: int, size: int = 3, *, stride: int = 1, padding: str = "same", use_bias: bool = True
    ) -> None:
        super().__init__(name, size, stride, padding)
        switches(**{f"{name}: use_bias": use_bias})
        self.filters, self.use_bias = whole(f"{name}: filters", filters, 1), use_bias
        self._dense = Dense(name, filters, use_bias)

    def channels(self, given: int) -> int:
        return self.filters

    def initialise(self, rng: np.random.Generator) -> None:
        area, channels = self.size**2, self.image.shape[2]
        limit = math.sqrt(6 / (area * (channels + self.filters)))
        self.params = {"kernel": rng.uniform(-limit, limit, (area * channels, self.filters)).astype(self.dtype)}
        if self.use_bias:
            self.params["bias"] = np.zeros(self.filters, self.dtype)

    def _rows(self, x: Array) -> Array:
        """The windows of images as rows of a product."""
        patches = self.image.patches(x)
        return patches.reshape(*patches.shape[:-2], -1)

    def _inputs(self, rows: Array) -> Array:
        """The adjoint of :meth:`_rows`."""
        return self.image.spread(rows.reshape(*rows.shape[:-1], self.size**2, -1))

    def _outputs(self, z: Array) -> Array:
        """A product's rows as images."""
        windows = math.prod(self.image.counts)
        return z.reshape(*z.shape[:-2], z.shape[-2] // windows, windows * self.filters)

    def _products(self, dy: Array) -> Array:
        """The inverse of :meth:`_outputs`."""
        return dy.reshape(*dy.shape[:-2], -1, self.filters)

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        self._dense.params = self.params
        z, cache = self._dense._forward(self._rows(x), training, quantiser, update_state)
        return self._outputs(z), cache

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        rows, gradients = self._dense.backward(cache, self._products(dy))
        return self._inputs(rows), gradients

    def gradients(self, cache: Cache, dy: Array) -> Variables:
        return self._dense.gradients(cache, self._products(dy))

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        z_dot, cache_dot = self._dense.tangent(cache, None if x_dot is None else self._rows(x_dot), params_dot)
        assert z_dot is not None
        return self._outputs(z_dot), cache_dot

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        rows_dot, gradients = self._dense.tangent_backward(cache, cache_dot, self._products(dy), self._products(dy_dot))
        return self._inputs(rows_dot), gradients


class _Pool(_Windowed):
    """A layer that makes one number of each channel of a window."""

    def __init__(self, name: str, size: int = 2, *, stride: int | None = None) -> None:
        super().__init__(name, size, size if stride is None else stride)

    def _pooled(self, y: Array) -> Array:
        """(..., rows * windows, channels) as images."""
        windows = math.prod(self.image.counts)
        return y.reshape(*y.shape[:-2], y.shape[-2] // windows, windows * y.shape[-1])

    def _each(self, dy: Array) -> Array:
        """The inverse of :meth:`_pooled`, with an axis for the places of a window."""
        return dy.reshape(*dy.shape[:-2], -1, 1, self.image.shape[2])

    @abstractmethod
    def _back(self, cache: Cache, dy: Array) -> Array:
        """From the derivative by the outputs, or its tangent, that by the inputs: both are linear."""

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        return self._back(cache, dy), {}

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        return self._back(cache, dy_dot), {}


class MaxPool2D(_Pool):
    """The largest of each channel of a window; of equal ones the first. With a quantiser: on "activation"."""

    keeps = True

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        patches = self.image.patches(x)
        at = patches.argmax(axis=1)[:, None]
        y = self._pooled(np.take_along_axis(patches, at, axis=1)[:, 0])
        return y if quantiser is None else quantiser("activation", y), {"at": at}

    def _back(self, cache: Cache, dy: Array) -> Array:
        each = self._each(dy)
        patches = np.zeros((*each.shape[:-2], self.size**2, each.shape[-1]), dy.dtype)
        np.put_along_axis(patches, np.broadcast_to(cache["at"], each.shape), each, axis=-2)
        return self.image.spread(patches)

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        if x_dot is None:
            return None, {}
        patches = self.image.patches(x_dot)
        at = np.broadcast_to(cache["at"], (len(patches), *cache["at"].shape))
        return self._pooled(np.take_along_axis(patches, at, axis=-2)[..., 0, :]), {}


class AveragePool2D(_Pool):
    """The mean of each channel of a window. With a quantiser: on "activation"."""

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        y = self._pooled(self.image.patches(x).mean(axis=1))
        return y if quantiser is None else quantiser("activation", y), {}

    def _back(self, cache: Cache, dy: Array) -> Array:
        each = self._each(dy) / self.size**2
        return self.image.spread(np.broadcast_to(each, (*each.shape[:-2], self.size**2, each.shape[-1])))

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        return None if x_dot is None else self._pooled(self.image.patches(x_dot).mean(axis=-2)), {}


class Flatten(Layer):
    """Images as vectors, of which the layers behind it are told. With a quantiser: on "activation"."""

    keeps = True

    def take(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (math.prod(shape),)

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        return x if quantiser is None else quantiser("activation", x), {}

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        return dy, {}

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        return x_dot, {}

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        return dy_dot, {}
