"""The linear-quadratic system: a fixed random chain near the identity, of which the exact credit is known in closed form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..network.checks import counts, seeds
from .network import Network, Trace, normal

Array = NDArray[Any]


class LinearSystem(Network):
    """``h_{l+1} = A_l h_l + sigma noise``, ``loss = ||C h_L - y||^2 / 2``, with ``A_l = I + spread N / sqrt(d)``; all fixed.

    Args:
        width, depth, classes: d, L, and the rows m of C.
        sigma: standard deviation of the noise.
        spread: c, how far each A_l is from the identity.
        seed: of the A_l and of C.
        dtype: of all that is computed; A_l and C are drawn in float64 and rounded to it.
    """

    def __init__(
        self,
        width: int = 64,
        depth: int = 12,
        classes: int = 10,
        *,
        sigma: float = 0.03,
        spread: float = 0.1,
        seed: int = 0,
        dtype: DTypeLike = np.float64,
    ) -> None:
        counts(width=width, depth=depth, classes=classes)
        seeds(seed=seed)
        for name, value in (("sigma", sigma), ("spread", spread)):
            if isinstance(value, (bool, str)) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, not {value!r}")
        self.width, self.depth, self.classes, self.sigma = width, depth, classes, sigma
        rng = np.random.default_rng(seed)
        self.dtype = np.dtype(dtype)
        steps = np.eye(width) + spread * rng.normal(size=(depth, width, width)) / math.sqrt(width)
        self.A = steps.astype(self.dtype)
        self.C = (rng.normal(size=(classes, width)) / math.sqrt(width)).astype(self.dtype)

    def block(self, layer: int, h: Array) -> Array:
        after: Array = h @ self.A[layer].T
        return after

    def transpose(self, layer: int, h: Array, a: Array) -> Array:
        back: Array = a @ self.A[layer]
        return back

    def head(self, h: Array, target: Array) -> tuple[Array, Array, Array]:
        error = h @ self.C.T - target
        return 0.5 * np.square(error).sum(axis=1), error, error @ self.C

    def sample(self, rng: np.random.Generator, n: int) -> Trace:
        """A batch of n: states, targets and noise standard normal, the noise times sigma."""
        shapes = (self.depth, n, self.width), (n, self.width), (n, self.classes)
        noise, start, target = (normal(rng, shape, self.dtype) for shape in shapes)
        noise *= self.sigma
        return self.run(start, target, noise)
