"""The residual network that is trained, softmax cross-entropy at the end.

Its blocks are ``h_{l+1} = h_l + act(LN(h_l) W1 + b1) W2 + b2``, W2 small at first, or with one matrix ``h_l + act(LN(h_l) W1
+ b1)``.
"""

from __future__ import annotations

import copy
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
        gain: standard deviation of the initial weights times the root of their fan-in; not of W2.
        matrices: 1 or 2, of a block.
        w2_std: standard deviation of the initial W2.
        residual_add: whether a block adds to its state, or replaces it.
        seed: of the initial weights.

    Attributes:
        theta: the weights as one vector (P,): embedding, W1 (L, d, d), b1 (L, d), with two matrices W2 and b2 of the same
            shapes, head (C, d), its bias (C,).

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
        matrices: int = 2,
        w2_std: float = 0.01,
        residual_add: bool = True,
        seed: int = 0,
        dtype: DTypeLike = np.float64,
    ) -> None:
        counts(width=width, depth=depth, classes=classes, inputs=width if inputs is None else inputs)
        seeds(seed=seed)
        switches(final_norm=final_norm, residual_add=residual_add)
        for name, value in (("gain", gain), ("w2_std", w2_std)):
            if isinstance(value, (bool, str)) or not 0 < value < math.inf:
                raise ValueError(f"{name} must be finite and greater than 0, not {value!r}")
        if isinstance(matrices, bool) or matrices not in (1, 2):
            raise ValueError(f"matrices must be 1 or 2, not {matrices!r}")
        self.width, self.depth, self.classes = width, depth, classes
        self.inputs = width if inputs is None else inputs
        self.kind, self.final_norm, self._act = kind, final_norm, activation(kind)
        self.matrices, self.residual_add = matrices, residual_add
        self.dtype = np.dtype(dtype)
        embedding = 0 if self.inputs == width else self.inputs
        self.shapes: dict[str, tuple[int, ...]] = {
            "embedding": (embedding, width),
            "kernel": (depth, width, width),
            "bias": (depth, width),
            **({"kernel2": (depth, width, width), "bias2": (depth, width)} if matrices == 2 else {}),
            "head": (classes, width),
            "offset": (classes,),
        }
        rng = np.random.default_rng(seed)
        parts = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        for name, fan_in in (("embedding", self.inputs), ("kernel", width), ("head", width)):
            parts[name] = rng.normal(size=self.shapes[name]) * gain / math.sqrt(fan_in)
        if matrices == 2:
            parts["kernel2"] = rng.normal(size=self.shapes["kernel2"]) * w2_std
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
        after: Array = self._act.value(self._inner(layer, h)[1])
        if self.matrices == 2:
            after = after @ self.parts["kernel2"][layer]
            after += self.parts["bias2"][layer]
        return h + after if self.residual_add else after

    def transpose(self, layer: int, h: Array, a: Array) -> Array:
        normal, z = self._inner(layer, h)
        dz = self._to_inner(layer, self._act.value_and_slope(z)[1], a)
        back: Array = normalise_slope(normal, dz @ self.parts["kernel"][layer].T)
        return a + back if self.residual_add else back

    def _to_inner(self, layer: int, slope: Array, a: Array) -> Array:
        """The gradient of ``<a, F_l>`` by what the activation is given, where it has this slope."""
        through = a @ self.parts["kernel2"][layer].T if self.matrices == 2 else a
        back: Array = through * slope
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

    def outputs(self, x: ArrayLike) -> Array:
        """The softmax of the head's outputs, (n, C)."""
        error = self.trace(x, np.zeros(len(np.asarray(x)), int)).error
        error[:, 0] += 1
        return error

    def accuracy(self, x: ArrayLike, y: ArrayLike) -> float:
        """The share of the samples whose largest output is their label."""
        return float(np.mean(self.outputs(x).argmax(axis=1) == np.asarray(y)))

    def cast(self, dtype: DTypeLike) -> ResidualMLP:
        """The same network with its weights in another dtype."""
        made = copy.copy(self)
        made.dtype = np.dtype(dtype)
        made.theta = self.theta
        return made

    # ---------------------------------------------------------------- the update

    def field(self, trace: Trace, credit: Array, *, normalised: bool = True, clip: float | None = None) -> Array:
        """What the weights are moved along: the gradient (P,) of the local surrogate ``mean <f_l(h_l), stop(a_{l+1})>``.

        The embedding's is that of ``mean <h_0, a_0>``. The head has its own exact gradient. With exact credit, not normalised,
        the whole is the gradient of the mean loss.

        Args:
            credit: (L+1, n, d).
            normalised: divide each sample's credit by its RMS + 1e-6.
            clip: the largest norm of one block's part, kernels and biases together; None for any.
        """
        a = unit_rms(credit) if normalised else credit
        n = trace.states.shape[1]
        theta = np.zeros_like(self.theta)
        parts = self.split(theta)
        for layer in range(self.depth):
            normal, z = self._inner(layer, trace.states[layer])
            (y, slope), meant = self._act.value_and_slope(z), a[layer + 1] / n
            dz = self._to_inner(layer, slope, meant)
            found = {"kernel": normal.value.T @ dz, "bias": dz.sum(axis=0)}
            if self.matrices == 2:
                found |= {"kernel2": y.T @ meant, "bias2": meant.sum(axis=0)}
            size = math.sqrt(sum(float(np.vdot(part, part)) for part in found.values()))
            shrink = 1.0 if clip is None or size <= clip else clip / size
            for name, part in found.items():
                parts[name][layer] = part * shrink
        if trace.inputs is not None:
            parts["embedding"][...] = trace.inputs.T @ a[0] / n
        last = trace.states[-1]
        parts["head"][...] = trace.error.T @ (normalise(last).value if self.final_norm else last) / n
        parts["offset"][...] = trace.error.mean(axis=0)
        return theta

    # ---------------------------------------------------------------- what diagnostics ask for

    def hidden_states(self, x: ArrayLike) -> Array:
        """h_0..h_L, (L+1, n, d)."""
        return self.trace(x, np.zeros(len(np.asarray(x)), int)).states

    def hidden_gradients(self, x: ArrayLike, y: ArrayLike) -> Array:
        """The gradient of the mean loss by h_0..h_L, (L+1, n, d)."""
        return self.exact(self.trace(x, y)) / len(np.asarray(x))

    def gradient(self, x: ArrayLike, y: ArrayLike) -> Array:
        """The gradient of the mean loss by all blocks' kernels and biases, one vector."""
        trace = self.trace(x, y)
        parts = self.split(self.field(trace, self.exact(trace), normalised=False))
        return np.concatenate([parts[name].ravel() for name in ("kernel", "bias", "kernel2", "bias2") if name in parts])


def unit_rms(credit: Array) -> Array:
    """Each sample's credit (..., d) divided by its root mean square + 1e-6."""
    scaled: Array = credit / (np.sqrt(np.square(credit).mean(axis=-1, keepdims=True)) + SMALL)
    return scaled
