"""The curvature of a loss: Hessian-vector products, the whole Hessian of a small model, its extreme eigenvalues.

P is the number of trainable parameters, in the order of :func:`~kappa_rtl.golden.network.layers.flatten`. The forward
pass is done in the model's dtype and through the quantisers, if any; the derivatives are straight through them. Batch
statistics are differentiated too; no moving statistic moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..network.layers import Array, Layer, Quantiser, flatten, forward, size, split
from ..network.losses import Loss, Squares, loss_of

Floats = NDArray[np.float64]

LARGEST = 4000
"""The most parameters of which the whole Hessian is made: 128 MB."""

CHUNK = 1 << 17
"""Tensor elements of as many directions as are followed at once: about what a cache holds."""

ROUNDOFF = 1e-12
"""What is left of a Lanczos vector, as a fraction of the spectral norm, is noise below this."""


class Extremes(NamedTuple):
    """The ends of a spectrum. All NaN where an eigenvalue is not finite."""

    lambda_max: float  #: algebraically largest
    lambda_min: float  #: algebraically smallest
    spectral_norm: float  #: largest magnitude


def extremes(eigenvalues: ArrayLike) -> Extremes:
    """The ends of the spectrum that these (real) eigenvalues, in any order, make up.

    Raises:
        ValueError: there are none.
    """
    values = np.asarray(eigenvalues, np.float64).ravel()
    if not values.size:
        raise ValueError("eigenvalues must not be empty")
    if not np.isfinite(values).all():
        return Extremes(math.nan, math.nan, math.nan)
    largest, smallest = float(values.max()), float(values.min())
    return Extremes(largest, smallest, max(abs(largest), abs(smallest)))


def analytic(inputs: Array, outputs: int, loss_mode: str) -> Floats:
    """The Hessian's eigenvalues for one Dense layer without bias: those of ``k X^T X / rows``, each once an output.

    Args:
        inputs: X, (rows, d).
        outputs: how many outputs the layer has.
        loss_mode: "half_mse" has k = 1, "keras_mse" k = 2 / outputs.

    Returns:
        (d * outputs,) in ascending order; NaN where X is not finite.

    Raises:
        ValueError: an argument is none of these.
    """
    x = np.asarray(inputs, np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"inputs must be a matrix with a row a sample, not of shape {x.shape}")
    if outputs < 1:
        raise ValueError(f"outputs must be at least 1, not {outputs}")
    loss = loss_of(loss_mode)
    if not isinstance(loss, Squares):
        raise ValueError(f"loss_mode must be a sum of squares, whose Hessian no weight changes, not {loss_mode!r}")
    if not np.isfinite(x).all():
        return np.full(x.shape[1] * outputs, math.nan)
    # A Gram matrix has no negative eigenvalue but by roundoff.
    eigenvalues = np.maximum(np.linalg.eigvalsh(loss.slope(len(x), outputs) * (x.T @ x)), 0.0)
    return np.repeat(eigenvalues, outputs)


def hvp(
    layers: Sequence[Layer],
    x: Array,
    y: Array,
    loss: Loss,
    vectors: Array,
    *,
    quantisers: Mapping[str, Quantiser] | None = None,
    training: bool = True,
) -> Array:
    """The Hessian times each of K directions, forward over reverse: about the cost of K gradients.

    Args:
        x, y: the batch, (rows, width) and (rows, outputs).
        vectors: (K, P), or one (P,); float64 ones give a float64 answer whatever the model's dtype.
        quantisers: layer name -> precision, see :func:`~kappa_rtl.golden.network.layers.forward`.
        training: batch statistics, as in training; else the moving ones.

    Returns:
        Of the shape of ``vectors``: the change of the gradient.

    Raises:
        ValueError: a shape does not fit.
    """
    product: Array = _Linearised(layers, x, y, loss, quantisers, training)(np.atleast_2d(vectors)).reshape(vectors.shape)
    return product


class _Linearised:
    """The gradient's derivative at one point: the passes that no direction changes, done once."""

    def __init__(
        self,
        layers: Sequence[Layer],
        x: Array,
        y: Array,
        loss: Loss,
        quantisers: Mapping[str, Quantiser] | None,
        training: bool,
    ) -> None:
        if layers:
            x = np.asarray(x, layers[0].dtype)
        pred, self.caches = forward(layers, x, training=training, quantisers=quantisers, update_state=False)
        self.layers, self.loss = layers, loss
        self.pred, self.y = pred, np.asarray(y, pred.dtype)
        dy = loss.gradient(pred, self.y)
        self.slopes = []  # the loss's derivative by each layer's outputs, the last layer's first
        for layer, cache in zip(reversed(layers), reversed(self.caches), strict=True):
            self.slopes.append(dy)
            dy, _ = layer.backward(cache, dy)
        widest = max([x.shape[1], *(slope.shape[1] for slope in self.slopes)])
        self.chunk = max(1, CHUNK // (len(x) * widest))

    def __call__(self, vectors: Array) -> Array:
        """(K, P) -> (K, P)."""
        parts = [self._some(vectors[k : k + self.chunk]) for k in range(0, len(vectors), self.chunk)]
        return np.concatenate(parts) if parts else np.zeros_like(vectors)

    def _some(self, vectors: Array) -> Array:
        x_dot: Array | None = None
        caches_dot = []
        for layer, cache, own in zip(self.layers, self.caches, split(self.layers, vectors), strict=True):
            x_dot, cache_dot = layer.tangent(cache, x_dot, own)
            caches_dot.append(cache_dot)
        if x_dot is None:  # nothing is trainable
            return np.zeros_like(vectors)
        dy_dot = self.loss.tangent(self.pred, self.y, x_dot)
        gradients = []
        for layer, cache, cache_dot, dy in zip(
            reversed(self.layers), reversed(self.caches), reversed(caches_dot), self.slopes, strict=True
        ):
            dy_dot, own = layer.tangent_backward(cache, cache_dot, dy, dy_dot)
            gradients.append(own)
        return flatten(self.layers, gradients[::-1])


def exact(
    layers: Sequence[Layer],
    x: Array,
    y: Array,
    loss: Loss,
    *,
    quantisers: Mapping[str, Quantiser] | None = None,
    training: bool = True,
) -> Floats:
    """The Hessian, (P, P), symmetric to the bit. Arguments as for :func:`hvp`.

    Raises:
        ValueError: P is more than :data:`LARGEST`, or a shape does not fit.
    """
    parameters = size(layers)
    if parameters > LARGEST:
        raise ValueError(f"layers must have at most {LARGEST} parameters for the exact Hessian, not {parameters}")
    hessian = _Linearised(layers, x, y, loss, quantisers, training)(np.eye(parameters))
    symmetric: Floats = (hessian + hessian.T) / 2
    return symmetric


class Lanczos(NamedTuple):
    """What :func:`lanczos` found.

    Where it did not converge, the ends found lie inside of the true ones.
    """

    extremes: Extremes
    iterations: int
    converged: bool


def lanczos(
    layers: Sequence[Layer],
    x: Array,
    y: Array,
    loss: Loss,
    *,
    quantisers: Mapping[str, Quantiser] | None = None,
    training: bool = True,
    ends: str = "both",
    iterations: int = 300,
    tolerance: float = 1e-8,
    seed: int = 0,
) -> Lanczos:
    """The ends of the Hessian's spectrum without the Hessian, by Lanczos iteration with full reorthogonalisation.

    Args:
        layers, x, y, loss, quantisers, training: as for :func:`hvp`.
        ends: "max", "min" or "both": which ends must have converged.
        iterations: at most so many products with the Hessian; their P-vectors are all kept.
        tolerance: an end has converged once its residual, a bound of its distance from an eigenvalue, is at most this
            fraction of the spectral norm.
        seed: of the normally distributed start vector.

    Raises:
        ValueError: an argument is none of these, or the layers have no parameters.
    """
    if ends not in ("max", "min", "both"):
        raise ValueError(f"ends must be one of max, min, both, not {ends!r}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    if not tolerance > 0:
        raise ValueError(f"tolerance must be greater than 0, not {tolerance}")
    parameters = size(layers)
    if not parameters:
        raise ValueError("layers must have at least 1 parameter, not 0")
    watched = {"max": [-1], "min": [0], "both": [0, -1]}[ends]
    product = _Linearised(layers, x, y, loss, quantisers, training)
    last = min(iterations, parameters)
    rng = np.random.default_rng(seed)
    vector = rng.standard_normal(parameters)
    vector /= np.linalg.norm(vector)
    basis = np.empty((min(last, 32), parameters))
    diagonal: list[float] = []
    off: list[float] = []
    while True:
        k = len(diagonal)
        if k == len(basis):
            basis = np.concatenate([basis, np.empty((min(k, last - k), parameters))])
        basis[k] = vector
        image = np.asarray(product(vector[None])[0], np.float64)
        if not np.isfinite(image).all():
            return Lanczos(Extremes(math.nan, math.nan, math.nan), k + 1, False)
        diagonal.append(float(vector @ image))
        for _ in range(2):  # once leaves the roundoff of what it removes; twice is enough
            image -= (basis[: k + 1] @ image) @ basis[: k + 1]
        rest = float(np.linalg.norm(image))
        negligible = rest <= max(tolerance, ROUNDOFF) * max(map(abs, diagonal))
        # The small eigenproblem is solved at every step only while it costs nothing.
        if k < 16 or k % 8 == 0 or negligible or k + 1 == last:
            ritz, last_row = _ritz(diagonal, off)
            found = extremes(ritz)
            # The Krylov space is all there is: every eigenvalue whose eigenvectors the start vector has something of.
            exhausted = k + 1 == parameters or rest <= ROUNDOFF * found.spectral_norm
            settled = all(rest * abs(last_row[end]) <= tolerance * found.spectral_norm for end in watched)
            if exhausted or settled or k + 1 == last:
                return Lanczos(found, k + 1, exhausted or settled)
        off.append(rest)
        vector = image / rest


def _ritz(diagonal: list[float], off: list[float]) -> tuple[Floats, Floats]:
    """Eigenvalues of the tridiagonal matrix, ascending, and the last component of each one's unit eigenvector."""
    matrix = np.diag(np.asarray(diagonal)) + np.diag(np.asarray(off), -1)  # eigh reads the lower half
    eigenvalues, vectors = np.linalg.eigh(matrix)
    return eigenvalues, vectors[-1]


def lambda_max(layers: Sequence[Layer], x: Array, y: Array, loss: Loss, **options: Any) -> float:
    """The Hessian's algebraically largest eigenvalue; options as for :func:`lanczos`, which also tells if it converged."""
    return lanczos(layers, x, y, loss, **({"ends": "max"} | options)).extremes.lambda_max


def lambda_min(layers: Sequence[Layer], x: Array, y: Array, loss: Loss, **options: Any) -> float:
    """The Hessian's algebraically smallest eigenvalue; options as for :func:`lanczos`, which also tells if it converged."""
    return lanczos(layers, x, y, loss, **({"ends": "min"} | options)).extremes.lambda_min
