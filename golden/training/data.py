"""The problems the loop trains on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set for one bias-free linear layer ``y = x @ W``.

    Attributes:
        name: what it is called in reports.
        inputs: (n, d) float64, before the gain.
        targets: (n, c) float64.
        labels: (n,) class numbers, where accuracy means something; else None.

    Raises:
        ValueError: the arrays do not belong together, or hold a value that is not finite.
    """

    name: str
    inputs: NDArray[np.float64]
    targets: NDArray[np.float64]
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            array = getattr(self, name)
            if array.ndim != 2 or not array.size:
                raise ValueError(f"{name} must be a matrix with a row a sample, not of shape {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")
        n = len(self.inputs)
        if len(self.targets) != n:
            raise ValueError(f"targets must have a row for each of the {n} inputs, not {len(self.targets)}")
        if self.labels is not None and self.labels.shape != (n,):
            raise ValueError(f"labels must have shape ({n},), not {self.labels.shape}")

    @property
    def X(self) -> NDArray[np.float64]:
        return self.inputs

    @property
    def Y(self) -> NDArray[np.float64]:
        return self.targets

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.inputs.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self.targets.shape

    @property
    def shape(self) -> tuple[int, int]:
        """(d, c) of the layer's kernel W."""
        return self.inputs.shape[1], self.targets.shape[1]

    @property
    def elements(self) -> int:
        """How many weights the layer has, d * c: the N of its throttle."""
        d, c = self.shape
        return d * c


def digits() -> Problem:
    """Scikit-learn's 1797 handwritten digits: 64 pixels in 0..1 (sixteenths), one-hot targets of 10 classes; N = 640."""
    from sklearn.datasets import load_digits  # only this problem needs scikit-learn, and its data come with it

    data = load_digits()
    labels = np.asarray(data.target, np.int64)
    return Problem("digits", np.asarray(data.data, np.float64) / 16, np.eye(10)[labels], labels)


TEACHER = np.array([[1.25, -0.75, 0.5, 0.2], [-0.4, 0.9, 1.1, -0.6]])
"""A of the synthetic problem, (outputs, inputs)."""


def synthetic(seed: int = 0, samples: int = 1000) -> Problem:
    """A linear teacher ``y = A x`` with x uniform in the unit cube: 4 inputs, 2 outputs, N = 8; the kernel sought is A^T."""
    inputs = np.random.default_rng(seed).random((samples, TEACHER.shape[1]))
    return Problem("synthetic", inputs, inputs @ TEACHER.T)


def batches(samples: int, epochs: int, batch_size: int, *, shuffle: bool, seed: int) -> Iterator[NDArray[np.intp]]:
    """The row indices of every batch: each row once an epoch, in a new order each time if shuffled; the last may be short."""
    rng = np.random.default_rng(seed)
    for _ in range(epochs):
        order = rng.permutation(samples) if shuffle else np.arange(samples)
        for start in range(0, samples, batch_size):
            yield order[start : start + batch_size]
