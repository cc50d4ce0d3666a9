"""What students are trained on, and the shape of a student."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..network.data import digits
from . import cifar
from .model import ResidualMLP

Array = NDArray[Any]


class Samples(NamedTuple):
    """Labelled samples to train on and others to test on; shared by all who ask for them, and read-only."""

    x: Array
    y: NDArray[np.int64]
    test_x: Array
    test_y: NDArray[np.int64]
    classes: int


@dataclass(frozen=True, kw_only=True)
class Net:
    """The shape of a student; see :class:`~kappa_rtl.golden.credit.model.ResidualMLP`.

    Args:
        single: train in float32; it is measured in float64 all the same.
    """

    width: int = 32
    depth: int = 4
    classes: int = 10
    kind: str = "gelu"
    final_norm: bool = False
    matrices: int = 2
    w2_std: float = 0.01
    residual_add: bool = True
    single: bool = False

    def build(self, seed: int, inputs: int | None = None, **changes: Any) -> ResidualMLP:
        """The network with its first weights; ``changes`` are arguments in the place of these."""
        shape = {name: value for name, value in vars(self).items() if name not in ("width", "depth", "classes", "single")}
        shape["dtype"] = np.float32 if self.single else np.float64
        return ResidualMLP(self.width, self.depth, self.classes, inputs=inputs, seed=seed, **shape | changes)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples come from.

    Args:
        name: ``ladder``, normal inputs labelled by a random teacher of the student's form; ``digits``; ``cifar10``.
        folder: of CIFAR-10.
        digest: of its files, which tells runs on other content apart.
        samples, test: how many of the ladder's.
        teacher_gain: of the teacher's initial weights.
    """

    name: str = "digits"
    folder: str = ""
    digest: str = ""
    samples: int = 4096
    test: int = 512
    teacher_gain: float = 1.0

    def draw(self, seed: int, net: Net) -> Samples:
        """The samples; of digits a fifth, drawn by the seed, is for testing. Arms that follow one another share them.

        Raises:
            ValueError: there is no such data, or its folder does not hold it.
        """
        return _draw(self, seed, net) if self.name == "ladder" else _draw(self, 0 if self.name == "cifar10" else seed, None)

    @property
    def size(self) -> int:
        """How many samples there are to train on."""
        if self.name == "ladder":
            return self.samples
        if self.name == "cifar10":
            return cifar.size(self.folder)
        count = len(digits().X)
        return count - count // 5


@functools.lru_cache(maxsize=2)
def _draw(data: Data, seed: int, net: Net | None) -> Samples:
    rng = np.random.default_rng([seed, 2])
    if data.name == "cifar10":
        drawn = Samples(*cifar.load(data.folder), cifar.CLASSES)
    elif data.name == "digits":
        found = digits()
        assert found.labels is not None
        order = rng.permutation(len(found.X))
        cut = len(order) // 5
        test, train = order[:cut], order[cut:]
        drawn = Samples(found.X[train], found.labels[train], found.X[test], found.labels[test], 10)
    elif data.name == "ladder" and net is not None:
        x = rng.normal(size=(data.samples + data.test, net.width))
        # A teacher with the student's small W2 would be next to linear: its blocks have the gain that its other weights have.
        gain = data.teacher_gain
        teacher = net.build(seed + 1000, gain=gain, w2_std=gain / math.sqrt(net.width), final_norm=False, dtype=np.float64)
        y = teacher.outputs(x).argmax(axis=1)
        drawn = Samples(x[: data.samples], y[: data.samples], x[data.samples :], y[data.samples :], net.classes)
    else:
        raise ValueError(f"data must be one of ladder, digits, cifar10, not {data.name!r}")
    for array in drawn[:4]:
        array.flags.writeable = False
    return drawn
