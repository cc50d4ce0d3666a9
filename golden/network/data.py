"""The problems the loops train on, the drift of what they are shown, and the batches."""

from __future__ import annotations

import functools
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .checks import switches


@dataclass(frozen=True, eq=False)
class Problem:
    """A data set: inputs, targets, and labels perhaps. The shapes of its kernel are those of one layer ``y = x @ W``.

    Attributes:
        name: what it is called in reports.
        inputs: (n, d) float64, before the gain.
        targets: (n, c) float64.
        labels: (n,) class numbers, where accuracy means something; else None.
        notes: what was decided when the data were read, in sentences.
        columns: names of the inputs, where they have any.
        classes: names of the classes, where they have any.

    Raises:
        ValueError: the arrays do not belong together, or hold a value that is not finite.
    """

    name: str
    inputs: NDArray[np.float64]
    targets: NDArray[np.float64]
    labels: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("inputs", "targets"):
            array = getattr(self, name)
            if isinstance(array, np.ma.MaskedArray):
                raise ValueError(f"{name} must not have a mask: no value may be missing")
            if array.ndim != 2 or not array.size:
                raise ValueError(f"{name} must be a matrix with a row a sample, not of shape {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite")
        n = len(self.inputs)
        if len(self.targets) != n:
            raise ValueError(f"targets must have a row for each of the {n} inputs, not {len(self.targets)}")
        if self.labels is not None and self.labels.shape != (n,):
            raise ValueError(f"labels must have shape ({n},), not {self.labels.shape}")
        if self.labels is not None:
            outside = np.flatnonzero((self.labels < 0) | (self.labels >= self.targets.shape[1]))
            if outside.size:
                row, last = int(outside[0]), self.targets.shape[1] - 1
                raise ValueError(f"labels must be numbers of outputs, from 0 to {last}, not {self.labels[row]} (row {row})")

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

    def rows(self, chosen: NDArray[np.intp]) -> Problem:
        """Some of the rows, in the order that is given."""
        labels = None if self.labels is None else self.labels[chosen]
        return replace(self, inputs=self.inputs[chosen], targets=self.targets[chosen], labels=labels)

    @property
    def elements(self) -> int:
        """How many weights the layer has, d * c: the N of its throttle."""
        d, c = self.shape
        return d * c


def digits() -> Problem:
    """Scikit-learn's 1797 handwritten digits: 64 pixels in 0..1 (sixteenths), one-hot targets of 10 classes; N = 640."""
    pixels, labels = _digits()
    return Problem("digits", pixels / 16, np.eye(10)[labels], labels)


@functools.cache
def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Pixels of 0..16, (1797, 64), and labels. Scikit-learn ships them as a table, and importing it takes longer than reading."""
    spec = importlib.util.find_spec("sklearn")
    table = Path(str(spec.origin)).parent / "datasets" / "data" / "digits.csv.gz" if spec else None
    if table is not None and table.exists():
        rows = np.loadtxt(table, np.int64, delimiter=",")
        return rows[:, :-1].astype(np.float64), rows[:, -1]
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.asarray(data.data, np.float64), np.asarray(data.target, np.int64)


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


def diabetes() -> Problem:
    """Scikit-learn's diabetes data: 442 patients, 10 standardised inputs, one target brought to zero mean and unit variance."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes()
    target = np.asarray(data.target, np.float64)[:, None]
    return Problem("diabetes", np.asarray(data.data, np.float64) * np.sqrt(442), (target - target.mean()) / target.std())


SHAPES = ("none", "step", "ramp", "sine")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """The scale of the inputs, and perhaps of the targets, from step to step; 1 before it begins.

    Args:
        shape: ``none``, a ``step`` to ``factor`` at ``begin``, a ``ramp`` to it that ends ``length`` steps later, or a ``sine``
            between 1 and ``factor`` with ``length`` steps a period, starting from 1.
        factor: the largest scale.
        begin, length: in steps.
        targets: whether the targets are scaled as the inputs are (``y' = A x'``), or kept.

    Raises:
        ValueError: names the field, the value and the rule.
    """

    shape: str = "step"
    factor: float = 4.0
    begin: int = 0
    length: int = 100
    targets: bool = False

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, not {self.shape!r}")
        switches(targets=self.targets)
        if isinstance(self.factor, (str, bool)) or not (math.isfinite(self.factor) and self.factor > 0):
            raise ValueError(f"factor must be finite and greater than 0, not {self.factor!r}")
        for name, low in (("begin", 0), ("length", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ValueError(f"{name} must be an integer of at least {low}, not {value!r}")

    def __call__(self, step: int) -> float:
        """The scale at a step counted from 0."""
        passed = step - self.begin
        if self.shape == "none" or passed < 0:
            return 1.0
        if self.shape == "step":
            share = 1.0
        elif self.shape == "ramp":
            share = min(1.0, passed / self.length)
        else:
            share = (1 - math.cos(2 * math.pi * passed / self.length)) / 2
        return 1.0 + (self.factor - 1.0) * share
