"""The layers of a model, each differentiated by hand: forward, backward, and the tangents of both.

Tensors are (rows, width) in the model's dtype; a tangent has a leading axis K of directions, and None stands for a tangent of
zero. A quantiser rounds values only: every derivative is that of the same computation with the quantisers taken for
identities, at the values they gave (the straight-through estimator, also outside the rails).

Variables are replaced, never written in place: a cache refers to those of its forward pass.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array = NDArray[Any]
Cache: TypeAlias = dict[str, Array]
"""What a forward pass leaves for the backward one."""
CacheDot: TypeAlias = dict[str, Array]
"""What a tangent pass leaves for the backward one; a tangent that is not in it is zero."""
Variables: TypeAlias = dict[str, Array]
"""Variable name -> the variable, its gradient, or that gradient's tangent (with the axis K)."""


class Quantiser(Protocol):
    """The precision of one layer."""

    def __call__(self, field: str, tensor: Array) -> Array:
        """The tensor rounded onto the field's grid; unchanged if the field has none."""

    def product(self, x: Array, kernel: Array) -> Array:
        """``x @ kernel``, rounded once, onto the accumulator's grid."""


class Layer(ABC):
    """One layer.

    Attributes:
        name: unique within its model.
        params: the trainable variables, in Keras's order; empty before :meth:`build`.
        state: variables that are not trained (moving statistics).
        keeps: whether every output is one of the inputs, or zero: a grid that these lie on, those lie on.
    """

    keeps: bool = False

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a string that is not empty, not {name!r}")
        self.name = name
        self.params: Variables = {}
        self.state: Variables = {}
        self.width: int | None = None
        self.dtype: np.dtype[Any] = np.dtype(np.float64)

    def build(self, width: int, dtype: DTypeLike, rng: np.random.Generator) -> int:
        """Allocate and initialise for inputs of this width.

        Returns:
            The width of the outputs.

        Raises:
            ValueError: the width is not positive, or the dtype neither float32 nor float64.
        """
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width} ({self.name})")
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype must be float32 or float64, not {np.dtype(dtype)} ({self.name})")
        self.width, self.dtype = width, np.dtype(dtype)
        self.initialise(rng)
        return self.output_width(width)

    def take(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Take the shape of a row's inputs, before :meth:`build`, and give that of its outputs: by default the inputs' own.

        A row is flat whatever its shape is; images are (height, width, channels), sequences (length, width).

        Raises:
            ValueError: the layer cannot have such inputs.
        """
        return shape

    def settings(self) -> dict[str, Any]:
        """What the layer was made with: its kind, and each of its arguments that is a number, a text or a switch."""
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        made = {name: value for name, value in own.items() if isinstance(value, (int, str)) and name not in ("width", "keeps")}
        return {"kind": type(self).__name__} | {name if name != "kind" else "function": value for name, value in made.items()}

    def output_width(self, width: int) -> int:
        """The width of the outputs for inputs of this width."""
        return width

    def initialise(self, rng: np.random.Generator) -> None:  # noqa: B027 - a layer without variables has nothing to do
        """Draw the variables anew; state starts over."""

    def forward(
        self, x: Array, *, training: bool, quantiser: Quantiser | None = None, update_state: bool = True
    ) -> tuple[Array, Cache]:
        """Outputs and what :meth:`backward` needs.

        Args:
            x: (rows, width).
            training: use the batch's statistics, not the moving ones.
            quantiser: the layer's precision; none means exact.
            update_state: let a training pass move the moving statistics.

        Raises:
            ValueError: x has another shape than the layer was built for.
        """
        if self.width is None:
            raise ValueError(f"the layer {self.name} must be built before its first forward pass")
        if x.ndim != 2 or x.shape[1] != self.width:
            raise ValueError(f"x must have shape (rows, {self.width}), not {x.shape} ({self.name})")
        return self._forward(x, training, quantiser, update_state)

    @abstractmethod
    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]: ...

    @abstractmethod
    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        """From the loss's derivative by the outputs, (rows, output width): that by x, and those by the variables."""

    def gradients(self, cache: Cache, dy: Array) -> Variables:
        """The second of what :meth:`backward` gives, for a layer whose x nobody asks for."""
        return self.backward(cache, dy)[1]

    @abstractmethod
    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        """How the outputs change with x and the variables.

        Args:
            x_dot: (K, rows, width), or None for zero.
            params_dot: ``(K, *shape)`` of every variable.

        Returns:
            (K, rows, output width), None for zero; and what :meth:`tangent_backward` needs.
        """

    @abstractmethod
    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        """How what :meth:`backward` gives for dy changes: (K, rows, width) and ``(K, *shape)`` of every variable.

        Args:
            dy_dot: (K, rows, output width), the change of dy.
        """


class Dense(Layer):
    """``x @ kernel + bias``; the kernel (width, units) Glorot-uniform, the bias zero.

    With a quantiser: the kernel on "weight", the product on "accumulator", the bias on "bias", the sum on "activation".

    Raises:
        ValueError: units is not positive.
    """

    def __init__(self, name: str, units: int, use_bias: bool = True) -> None:
        super().__init__(name)
        if units < 1:
            raise ValueError(f"units must be at least 1, not {units} ({name})")
        self.units, self.use_bias = units, use_bias

    def take(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) != 1:
            raise ValueError(f"{self.name} must be given vectors, not {shape}: a Flatten before it makes them")
        return (self.units,)

    def output_width(self, width: int) -> int:
        return self.units

    def initialise(self, rng: np.random.Generator) -> None:
        if self.width is None:
            raise ValueError(f"the layer {self.name} must be built before it is initialised")
        limit = math.sqrt(6 / (self.width + self.units))
        self.params = {"kernel": rng.uniform(-limit, limit, (self.width, self.units)).astype(self.dtype)}
        if self.use_bias:
            self.params["bias"] = np.zeros(self.units, self.dtype)

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        kernel = self.params["kernel"]
        if quantiser is None:
            z = x @ kernel
        else:
            kernel = quantiser("weight", kernel)
            z = quantiser.product(x, kernel)
        if self.use_bias:
            bias = self.params["bias"]
            z = z + (bias if quantiser is None else quantiser("bias", bias))
        if quantiser is not None:
            z = quantiser("activation", z)
        return z, {"x": x, "kernel": kernel}

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        return dy @ cache["kernel"].T, self.gradients(cache, dy)

    def gradients(self, cache: Cache, dy: Array) -> Variables:
        gradients = {"kernel": cache["x"].T @ dy}
        if self.use_bias:
            gradients["bias"] = dy.sum(axis=0)
        return gradients

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        cache_dot = {"kernel": params_dot["kernel"]}
        z_dot = cache["x"] @ params_dot["kernel"]
        if x_dot is not None:
            cache_dot["x"] = x_dot
            z_dot += _times(x_dot, cache["kernel"])
        if self.use_bias:
            z_dot += params_dot["bias"][:, None, :]
        return z_dot, cache_dot

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        kernel_dot = cache["x"].T @ dy_dot
        if "x" in cache_dot:
            kernel_dot += cache_dot["x"].swapaxes(1, 2) @ dy
        gradients = {"kernel": kernel_dot}
        if self.use_bias:
            gradients["bias"] = dy_dot.sum(axis=1)
        dx_dot = _times(dy_dot, cache["kernel"].T)
        dx_dot += dy @ cache_dot["kernel"].swapaxes(1, 2)
        return dx_dot, gradients


def _times(stack: Array, matrix: Array) -> Array:
    """(K, n, m) times (m, p) as one product, much faster than K small ones."""
    product: Array = (stack.reshape(-1, stack.shape[-1]) @ matrix).reshape(*stack.shape[:-1], matrix.shape[1])
    return product


class Kind(NamedTuple):
    """An elementwise function and its derivatives at x, which may use its value y there."""

    value: Callable[[Array], Array]
    slope: Callable[[Array, Array], Array]
    bend: Callable[[Array, Array], Array] | None  #: the second derivative; none means zero everywhere
    both: Callable[[Array], tuple[Array, Array]] | None = None  #: value and slope at once, where that is less work

    def value_and_slope(self, x: Array) -> tuple[Array, Array]:
        """Of the same shape as x each."""
        if self.both is not None:
            return self.both(x)
        y = self.value(x)
        return y, self.slope(x, y)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))  # never overflows
    value: Array = np.where(x < 0, small, 1) / (1 + small)
    return value


def _softplus(x: Array) -> Array:
    value: Array = np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))
    return value


def _softplus_bend(x: Array, y: Array) -> Array:
    slope = _sigmoid(x)
    bend: Array = slope * (1 - slope)
    return bend


KINDS: dict[str, Kind] = {
    "linear": Kind(lambda x: x, lambda x, y: np.ones_like(x), None),
    "relu": Kind(lambda x: np.maximum(x, 0), lambda x, y: (x > 0).astype(x.dtype), None),
    "tanh": Kind(np.tanh, lambda x, y: 1 - y * y, lambda x, y: -2 * y * (1 - y * y)),
    "sigmoid": Kind(_sigmoid, lambda x, y: y * (1 - y), lambda x, y: y * (1 - y) * (1 - 2 * y)),
    "softplus": Kind(_softplus, lambda x, y: _sigmoid(x), _softplus_bend),
}
"""Name -> the activation. The slope of relu at zero is 0."""


class Activation(Layer):
    """An elementwise function, one of :data:`KINDS`. With a quantiser: its output on "activation".

    Raises:
        ValueError: there is no such kind.
    """

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name)
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, not {kind!r} ({name})")
        self.kind = kind
        self.keeps = kind in ("linear", "relu")

    def _forward(self, x: Array, training: bool, quantiser: Quantiser | None, update_state: bool) -> tuple[Array, Cache]:
        y = KINDS[self.kind].value(x)
        # The cache has y before its rounding: the slope is that of the function, at x.
        return y if quantiser is None else quantiser("activation", y), {"x": x, "y": y}

    def backward(self, cache: Cache, dy: Array) -> tuple[Array, Variables]:
        return dy * KINDS[self.kind].slope(cache["x"], cache["y"]), {}

    def tangent(self, cache: Cache, x_dot: Array | None, params_dot: Variables) -> tuple[Array | None, CacheDot]:
        if x_dot is None:
            return None, {}
        return x_dot * KINDS[self.kind].slope(cache["x"], cache["y"]), {"x": x_dot}

    def tangent_backward(self, cache: Cache, cache_dot: CacheDot, dy: Array, dy_dot: Array) -> tuple[Array, Variables]:
        kind = KINDS[self.kind]
        dx_dot = dy_dot * kind.slope(cache["x"], cache["y"])
        if kind.bend is not None and "x" in cache_dot:
            dx_dot += cache_dot["x"] * (dy * kind.bend(cache["x"], cache["y"]))
        return dx_dot, {}


# ---------------------------------------------------------------- a chain of layers


def forward(
    layers: Sequence[Layer],
    x: Array,
    *,
    training: bool,
    quantisers: Mapping[str, Quantiser] | None = None,
    update_state: bool = True,
) -> tuple[Array, list[Cache]]:
    """The last layer's outputs and every layer's cache.

    Args:
        x: (rows, width) of the first layer, in its dtype.
        training, update_state: see :meth:`Layer.forward`.
        quantisers: layer name -> its precision, a missing one is exact; that of "input" rounds x onto its field "value".
    """
    quantisers = quantisers or {}
    if "input" in quantisers:
        x = quantisers["input"]("value", x)
    caches = []
    for layer in layers:
        x, cache = layer.forward(x, training=training, quantiser=quantisers.get(layer.name), update_state=update_state)
        caches.append(cache)
    return x, caches


def backward(layers: Sequence[Layer], caches: Sequence[Cache], dy: Array) -> list[Variables]:
    """Every layer's gradients, in the order of the layers, from the loss's derivative by the last outputs."""
    gradients: list[Variables] = []
    for place, (layer, cache) in reversed(list(enumerate(zip(layers, caches, strict=True)))):
        if place:
            dy, own = layer.backward(cache, dy)
        else:
            own = layer.gradients(cache, dy)  # the loss's derivative by the data costs as much, and nobody asks for it
        gradients.append(own)
    return gradients[::-1]


def size(layers: Iterable[Layer]) -> int:
    """P, how many trainable numbers the layers have."""
    return sum(variable.size for layer in layers for variable in layer.params.values())


def flatten(layers: Sequence[Layer], parts: Sequence[Variables]) -> Array:
    """One flat vector (P,) of something that each variable has one of, or (K, P) of tangents; in Keras's order."""
    pieces = []
    for layer, part in zip(layers, parts, strict=True):
        for name, variable in layer.params.items():
            tensor = part[name]
            pieces.append(tensor.reshape(*tensor.shape[: tensor.ndim - variable.ndim], variable.size))
    return np.concatenate(pieces, axis=-1) if pieces else np.zeros(0)


def split(layers: Sequence[Layer], flat: Array) -> list[Variables]:
    """The inverse of :func:`flatten`: views of a vector (P,) or (K, P).

    Raises:
        ValueError: the last axis is not P long.
    """
    if flat.shape[-1] != size(layers):
        raise ValueError(f"a flat vector must have {size(layers)} elements, not {flat.shape[-1]}")
    parts, start = [], 0
    for layer in layers:
        part = {}
        for name, variable in layer.params.items():
            part[name] = flat[..., start : start + variable.size].reshape(*flat.shape[:-1], *variable.shape)
            start += variable.size
        parts.append(part)
    return parts


def parameters(layers: Sequence[Layer]) -> Array:
    """theta: the trainable variables as one flat vector (P,), a copy."""
    return flatten(layers, [layer.params for layer in layers])


def assign(layers: Sequence[Layer], theta: Array) -> None:
    """Set the trainable variables from a flat vector (P,), rounded to their dtype.

    Raises:
        ValueError: theta is not P long.
    """
    for layer, part in zip(layers, split(layers, theta), strict=True):
        layer.params = {name: np.array(value, layer.dtype) for name, value in part.items()}


class Variable(NamedTuple):
    """One trainable variable: its layer, its name, its place in theta and its shape."""

    layer: str
    name: str
    place: slice
    shape: tuple[int, ...]


def variables(layers: Iterable[Layer]) -> list[Variable]:
    """The trainable variables, in the order of theta."""
    found, start = [], 0
    for layer in layers:
        for name, value in layer.params.items():
            found.append(Variable(layer.name, name, slice(start, start + value.size), value.shape))
            start += value.size
    return found
