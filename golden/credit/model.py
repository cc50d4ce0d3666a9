"""The residual network that is trained: ``h_{l+1} = h_l + act(LN(h_l) W_l + b_l)``, softmax cross-entropy at the end."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..network.checks import counts, matrix, seeds, switches
from .activations import activation, normalise, normalise_slope
from .network import Network, Trace

Array = NDArray[Any]

SMALL = 1e-6
"""Added to the RMS that a credit is divided by."""


class ResidualMLP(Network):
    """A pre-LayerNorm residual network.

    Inputs as wide as the states are h_0; others go through a learned linear embedding without bias.

    Args:
        width, depth, classes: d, L and C.
        inputs: width of the inputs; None is d.
        kind: the activation, see :func:`~kappa_rtl.golden.credit.activations.activation`.
        final_norm: layer-normalise h_L before the head, so that a growing state weakens dloss/dh_L.
        gain: standard deviation of the initial weights times the root of their fan-in.
        seed: of the initial weights.

    Attributes:
        theta: the weights as one vector (P,): embedding, kernels (L, d, d), biases (L, d), head (C, d), its bias (C,).

    Raises:
        ValueError: names the argument, the value and the rule.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        classes: int,
        *,
        inputs: int | None = None,
        kind: str = "gelu",
        final_norm: bool = False,
        gain: float = 1.0,
        seed: int = 0,
        dtype: DTypeLike = np.float64,
    ) -> None:
        counts(width=width, depth=depth, classes=classes, inputs=width if inputs is None else inputs)
        seeds(seed=seed)
        switches(final_norm=final_norm)
        if isinstance(gain, (bool, str)) or not 0 < gain < math.inf:
            raise ValueError(f"gain must be finite and greater than 0, not {gain!r}")
        self.width, self.depth, self.classes = width, depth, classes
        self.inputs = width if inputs is None else inputs
        self.kind, self.final_norm, self._act = kind, final_norm, activation(kind)
        self.dtype = np.dtype(dtype)
        embedding = 0 if self.inputs == width else self.inputs
        self.shapes: dict[str, tuple[int, ...]] = {
            "embedding": (embedding, width),
            "kernel": (depth, width, width),
            "bias": (depth, width),
            "head": (classes, width),
            "offset": (classes,),
        }
        rng = np.random.default_rng(seed)
        parts = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        for name, fan_in in (("embedding", self.inputs), ("kernel", width), ("head", width)):
            parts[name] = rng.normal(size=self.shapes[name]) * gain / math.sqrt(fan_in)
        self.theta = self._flat(parts)

    # ---------------------------------------------------------------- weights

    @property
    def theta(self) -> Array:
        return self._theta

    @theta.setter
    def theta(self, flat: ArrayLike) -> None:
        size = sum(math.prod(shape) for shape in self.shapes.values())
        theta = np.array(flat, self.dtype)
        if theta.shape != (size,):
            raise ValueError(f"theta must have shape ({size},), not {theta.shape}")
        theta.flags.writeable = False  # the parts are views of it
        self._theta = theta
        self.parts = self.split(theta)

    def split(self, flat: Array) -> dict[str, Array]:
        """The parts of a vector (P,) by name, views of it."""
        parts, start = {}, 0
        for name, shape in self.shapes.items():
            stop = start + math.prod(shape)
            parts[name] = flat[start:stop].reshape(shape)
            start = stop
        return parts

    def _flat(self, parts: dict[str, Array]) -> Array:
        return np.concatenate([parts[name].ravel() for name in self.shapes])

    # ---------------------------------------------------------------- forward and exact credit

    def _inner(self, layer: int, h: Array) -> tuple[Any, Array]:
        normal = normalise(h)
        return normal, normal.value @ self.parts["kernel"][layer] + self.parts["bias"][layer]

    def block(self, layer: int, h: Array) -> Array:
        after: Array = h + self._act.value(self._inner(layer, h)[1])
        return after

    def transpose(self, layer: int, h: Array, a: Array) -> Array:
        normal, z = self._inner(layer, h)
        dz = a * self._act.slope(z, self._act.value(z))
        back: Array = a + normalise_slope(normal, dz @ self.parts["kernel"][layer].T)
        return back

    def head(self, h: Array, target: Array) -> tuple[Array, Array, Array]:
        normal = normalise(h) if self.final_norm else None
        z = (h if normal is None else normal.value) @ self.parts["head"].T + self.parts["offset"]
        z = z - z.max(axis=1, keepdims=True)
        error = np.exp(z)
        total = error.sum(axis=1, keepdims=True)
        rows = np.arange(len(z))
        losses = np.log(total[:, 0]) - z[rows, target]
        error /= total
        error[rows, target] -= 1
        delta = error @ self.parts["head"]
        return losses, error, delta if normal is None else normalise_slope(normal, delta)

    def trace(self, x: ArrayLike, y: ArrayLike) -> Trace:
        """The forward pass of inputs (n, inputs) with labels (n,).

        Raises:
            ValueError: x or y has another shape, or y a label that is no class.
        """
        inputs = matrix("x", x, self.inputs, self.dtype)
        labels = np.asarray(y)
        if labels.shape != (len(inputs),) or labels.dtype.kind not in "iu":
            raise ValueError(f"y must be {len(inputs)} integers, not {labels.dtype} of {labels.shape}")
        if labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(f"y must be from 0 to {self.classes - 1}, not {labels.min()}..{labels.max()}")
        if self.shapes["embedding"][0] == 0:
            return self.run(inputs, labels)
        return self.run(inputs @ self.parts["embedding"], labels, inputs=inputs)

    def accuracy(self, x: ArrayLike, y: ArrayLike) -> float:
        """The share of the samples whose largest output is their label."""
        error = self.trace(x, y).error
        labels = np.asarray(y)
        rows = np.arange(len(error))
        error[rows, labels] += 1  # the softmax again
        return float(np.mean(error.argmax(axis=1) == labels))

    # ---------------------------------------------------------------- the update

    def field(self, trace: Trace, credit: Array, *, normalised: bool = True, clip: float | None = None) -> Array:
        """What the weights are moved along: the gradient (P,) of the local surrogate ``mean <f_l(h_l), stop(a_{l+1})>``.

        The embedding's is that of ``mean <h_0, a_0>``. The head has its own exact gradient. With exact credit, not normalised,
        the whole is the gradient of the mean loss.

        Args:
            credit: (L+1, n, d).
            normalised: divide each sample's credit by its RMS + 1e-6.
            clip: the largest norm of one block's part, kernel and bias together; None for any.
        """
        a = unit_rms(credit) if normalised else credit
        n = trace.states.shape[1]
        theta = np.zeros_like(self.theta)
        parts = self.split(theta)
        for layer in range(self.depth):
            normal, z = self._inner(layer, trace.states[layer])
            dz = a[layer + 1] * self._act.slope(z, self._act.value(z)) / n
            kernel, bias = normal.value.T @ dz, dz.sum(axis=0)
            size = math.sqrt(float(np.vdot(kernel, kernel) + np.vdot(bias, bias)))
            shrink = 1.0 if clip is None or size <= clip else clip / size
            parts["kernel"][layer], parts["bias"][layer] = kernel * shrink, bias * shrink
        if trace.inputs is not None:
            parts["embedding"][...] = trace.inputs.T @ a[0] / n
        last = trace.states[-1]
        parts["head"][...] = trace.error.T @ (normalise(last).value if self.final_norm else last) / n
        parts["offset"][...] = trace.error.mean(axis=0)
        return theta

    # ---------------------------------------------------------------- what diagnostics ask for

    def hidden_norms(self, x: ArrayLike, y: ArrayLike | None = None) -> Array:
        """The mean norm of h_l over the samples, (L+1,)."""
        labels = np.zeros(len(np.asarray(x)), int) if y is None else y
        norms: Array = np.linalg.norm(self.trace(x, labels).states, axis=2).mean(axis=1)
        return norms

    def gradient_norms(self, x: ArrayLike, y: ArrayLike) -> Array:
        """The median over the samples of ||dloss/dh_l||, (L+1,), each sample's own loss."""
        norms: Array = np.median(np.linalg.norm(self.exact(self.trace(x, y)), axis=2), axis=1)
        return norms

    def gradient(self, x: ArrayLike, y: ArrayLike) -> Array:
        """The gradient of the mean loss by all blocks' kernels and biases, one vector."""
        trace = self.trace(x, y)
        parts = self.split(self.field(trace, self.exact(trace), normalised=False))
        return np.concatenate([parts["kernel"].ravel(), parts["bias"].ravel()])


def unit_rms(credit: Array) -> Array:
    """Each sample's credit (..., d) divided by its root mean square + 1e-6."""
    scaled: Array = credit / (np.sqrt(np.square(credit).mean(axis=-1, keepdims=True)) + SMALL)
    return scaled
