"""What a credit method is put to: a fixed system, a student it trains, a frozen network. Each a run from a seed to numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..network.data import batches, digits
from ..network.optimisers import Adam
from . import cifar
from .dfa import DFA
from .lq import LinearSystem
from .method import Method
from .methods import make
from .metrics import measure
from .model import ResidualMLP, unit_rms
from .network import Trace

Array = NDArray[Any]


class Samples(NamedTuple):
    """Labelled samples to train on and others to test on."""

    x: Array
    y: NDArray[np.int64]
    test_x: Array
    test_y: NDArray[np.int64]
    classes: int


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the samples come from.

    Args:
        name: ``ladder``, normal inputs labelled by a random teacher of the student's form; ``digits``; ``cifar10``.
        folder: of CIFAR-10.
        samples, test: how many of the ladder's.
        teacher_gain: of the teacher's initial weights.
    """

    name: str = "digits"
    folder: str = ""
    samples: int = 4096
    test: int = 512
    teacher_gain: float = 1.0

    def draw(self, seed: int, net: Net) -> Samples:
        """The samples; of digits a fifth, drawn by the seed, is for testing."""
        if self.name == "cifar10":
            return Samples(*cifar.load(self.folder), cifar.CLASSES)
        rng = np.random.default_rng([seed, 2])
        if self.name == "digits":
            data = digits()
            assert data.labels is not None
            order = rng.permutation(len(data.X))
            cut = len(order) // 5
            test, train = order[:cut], order[cut:]
            return Samples(data.X[train], data.labels[train], data.X[test], data.labels[test], 10)
        if self.name != "ladder":
            raise ValueError(f"data must be one of ladder, digits, cifar10, not {self.name!r}")
        x = rng.normal(size=(self.samples + self.test, net.width))
        # A teacher with the student's small W2 would be next to linear: its blocks have the gain that its other weights have.
        teacher = net.build(
            seed + 1000, gain=self.teacher_gain, w2_std=self.teacher_gain / math.sqrt(net.width), final_norm=False
        )
        trace = teacher.trace(x, np.zeros(len(x), int))
        trace.error[:, 0] += 1  # the softmax again
        y = trace.error.argmax(axis=1)
        return Samples(x[: self.samples], y[: self.samples], x[self.samples :], y[self.samples :], net.classes)


@dataclass(frozen=True, kw_only=True)
class Net:
    """The shape of a student; see :class:`~kappa_rtl.golden.credit.model.ResidualMLP`."""

    width: int = 32
    depth: int = 4
    classes: int = 10
    kind: str = "gelu"
    final_norm: bool = False
    matrices: int = 1
    w2_std: float = 0.01
    residual_add: bool = True

    def build(self, seed: int, inputs: int | None = None, **changes: Any) -> ResidualMLP:
        """The network with its first weights; ``changes`` are arguments in the place of these."""
        shape = {name: value for name, value in vars(self).items() if name not in ("width", "depth", "classes")}
        return ResidualMLP(self.width, self.depth, self.classes, inputs=inputs, seed=seed, **shape | changes)


Options = Mapping[str, Any]

LADDER, TANH = Data(name="ladder"), Net(kind="phi:1")


@dataclass(frozen=True, kw_only=True)
class LQ:
    """Fit a method to the linear-quadratic system, a fresh batch a step, and measure it on a fresh one."""

    width: int = 16
    depth: int = 4
    classes: int = 4
    sigma: float = 0.03
    spread: float = 0.1
    steps: int = 1500
    batch: int = 128
    evaluate: int = 256

    def run(self, method: str, options: Options, seed: int) -> dict[str, float]:
        system = LinearSystem(self.width, self.depth, self.classes, sigma=self.sigma, spread=self.spread, seed=seed)
        estimator = make(method, system, seed=seed, **options)
        rng = np.random.default_rng([seed, 3])
        if estimator.learns:
            for _ in range(self.steps):
                estimator.fit(system, system.sample(rng, self.batch))
        trace = system.sample(np.random.default_rng([seed, 4]), self.evaluate)
        return measure(system, trace, estimator.credit(system, trace), rng)


@dataclass(frozen=True, kw_only=True)
class Online:
    """Train a student by a method, which learns from the same batches; measure student and credit in the end.

    Args:
        warmup: w: the first w of the steps use feedback alignment's credit, the next w blend it linearly into the method's own,
            each normalised. Only for methods that learn.
        rate: Adam's, for the student.
        clip: the largest norm of one block's part of the update; none if 0.
    """

    data: Data = LADDER
    net: Net = TANH
    steps: int = 1500
    batch: int = 128
    rate: float = 1e-3
    warmup: float = 0.2
    clip: float = 1.0
    evaluate: int = 256

    def run(self, method: str, options: Options, seed: int) -> dict[str, float]:
        samples = self.data.draw(seed, self.net)
        model = self.net.build(seed, samples.x.shape[1])
        estimator = make(method, model, seed=seed, **options)
        self.train(model, estimator, samples, seed)
        return report(model, estimator, samples, self.evaluate, seed)

    def train(self, model: ResidualMLP, estimator: Method, samples: Samples, seed: int) -> None:
        """Train the student, and the estimator beside it."""
        start, adam = DFA(model, seed=seed), Adam()
        epochs = -(-self.steps // max(1, len(samples.x) // self.batch)) + 1
        stream = batches(len(samples.x), epochs, self.batch, shuffle=True, seed=seed)
        for step, rows in zip(range(self.steps), stream, strict=False):
            trace = model.trace(samples.x[rows], samples.y[rows])
            estimator.fit(model, trace)
            share = self.share(step) if estimator.learns else 1.0
            credit = blend(start.credit(model, trace), estimator.credit(model, trace) if share else None, share)
            field = model.field(trace, credit, clip=self.clip or None)
            model.theta = model.theta - self.rate * adam.propose(field)

    def share(self, step: int) -> float:
        """How much of the method's own credit a step uses."""
        length = self.warmup * self.steps
        return 1.0 if not length else min(1.0, max(0.0, (step - length) / length))


def blend(start: Array, own: Array | None, share: float) -> Array:
    """``(1 - share) start + share own``, both normalised."""
    if own is None:
        return start
    return own if share == 1 else (1 - share) * unit_rms(start) + share * unit_rms(own)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Train a student by backpropagation, freeze it, and only then fit a method to it."""

    training: Online
    steps: int = 1500
    batch: int = 128
    eta: float = 0.003

    def run(self, method: str, options: Options, seed: int) -> dict[str, float]:
        task = self.training
        samples = task.data.draw(seed, task.net)
        model = task.net.build(seed, samples.x.shape[1])
        task.train(model, make("bp", model, seed=seed), samples, seed)
        estimator = make(method, model, seed=seed, **options)
        rng = np.random.default_rng([seed, 5])
        if estimator.learns:
            for _ in range(self.steps):
                rows = rng.integers(0, len(samples.x), self.batch)
                estimator.fit(model, model.trace(samples.x[rows], samples.y[rows]))
        return report(model, estimator, samples, task.evaluate, seed, eta=self.eta)


def report(
    model: ResidualMLP, estimator: Method, samples: Samples, evaluate: int, seed: int, *, eta: float = 0.01
) -> dict[str, float]:
    """The credit's measures on test samples, and the accuracy on all of them."""
    trace = held_out(model, samples, evaluate)
    found = measure(model, trace, estimator.credit(model, trace), np.random.default_rng([seed, 6]), eta=eta)
    return found | {"accuracy": model.accuracy(samples.test_x, samples.test_y)}


def held_out(model: ResidualMLP, samples: Samples, evaluate: int) -> Trace:
    """The trace of the first so many test samples."""
    return model.trace(samples.test_x[:evaluate], samples.test_y[:evaluate])
