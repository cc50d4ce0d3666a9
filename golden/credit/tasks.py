"""What a credit method is put to: a fixed system, a student it trains, a frozen network. Each a run from a seed to numbers."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.data import batches
from ..network.optimisers import Adam
from ..training.resume import Checkpoint
from .dfa import DFA
from .loop import Loop, Row, Run
from .lq import LinearSystem
from .method import Method
from .methods import make
from .metrics import gamma, measure
from .model import ResidualMLP, unit_rms
from .network import Trace
from .samples import Data, Net, Samples

Array = NDArray[Any]
Options = Mapping[str, Any]

LADDER, TANH = Data(name="ladder"), Net(kind="phi:1")


@dataclass(frozen=True, kw_only=True)
class LQ:
    """Fit a method to the linear-quadratic system, a fresh batch a step, and measure it on a fresh one.

    Args:
        single: fit in float32; it is measured in float64 all the same.
    """

    width: int = 16
    depth: int = 4
    classes: int = 4
    sigma: float = 0.03
    spread: float = 0.1
    steps: int = 1500
    batch: int = 128
    evaluate: int = 256
    single: bool = False

    def system(self, seed: int, *, single: bool = False) -> LinearSystem:
        """The system of this seed."""
        dtype = np.float32 if single else np.float64
        return LinearSystem(self.width, self.depth, self.classes, sigma=self.sigma, spread=self.spread, seed=seed, dtype=dtype)

    def run(self, method: str, options: Options, seed: int, checkpoint: Checkpoint | None = None) -> Run:
        """One run, saved at the checkpoint while it is under way."""
        system, exact = self.system(seed, single=self.single), self.system(seed)
        estimator = make(method, system, seed=seed, **options)
        rng = np.random.default_rng([seed, 3])
        trace = exact.sample(np.random.default_rng([seed, 4]), self.evaluate)
        loop = Loop(self.steps, lambda: {"gamma": gamma(estimator.credit(exact, trace), exact.exact(trace))}, estimator, rng=rng)
        if estimator.learns:
            loop.run(
                lambda _: estimator.fit(system, system.sample(rng, self.batch)), checkpoint, told(self, method, options, seed)
            )
        return Run(measure(exact, trace, estimator.credit(exact, trace), rng), loop.curve, loop.seconds)


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

    def run(self, method: str, options: Options, seed: int, checkpoint: Checkpoint | None = None) -> Run:
        """One run, saved at the checkpoint while it is under way."""
        samples = self.data.draw(seed, self.net)
        model = self.net.build(seed, samples.x.shape[1])
        estimator = make(method, model, seed=seed, **options)
        loop = self.train(model, estimator, samples, seed, checkpoint, told(self, method, options, seed))
        return Run(report(model, estimator, samples, self.evaluate, seed), loop.curve, loop.seconds)

    def train(
        self,
        model: ResidualMLP,
        estimator: Method,
        samples: Samples,
        seed: int,
        checkpoint: Checkpoint | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Loop:
        """Train the student, and the estimator beside it; the loop that did."""
        start, adam = DFA(model, seed=seed), Adam()
        loop = Loop(self.steps, lambda: look(model, estimator, samples, self.evaluate), estimator, model=model, adam=adam)

        def advance(rows: NDArray[np.intp] | None) -> Mapping[str, float]:
            assert rows is not None
            trace = model.trace(samples.x[rows], samples.y[rows])
            fitted = estimator.fit(model, trace)
            share = self.share(loop.step) if estimator.learns else 1.0
            first = start.credit(model, trace) if share < 1 else None
            credit = blend(first, estimator.credit(model, trace) if share else None, share)
            field = model.field(trace, credit, clip=self.clip or None)
            model.theta = model.theta - self.rate * adam.propose(field)
            return fitted

        epochs = -(-self.steps // max(1, len(samples.x) // self.batch)) + 1
        loop.run(advance, checkpoint, settings or {}, batches(len(samples.x), epochs, self.batch, shuffle=True, seed=seed))
        return loop

    def share(self, step: int) -> float:
        """How much of the method's own credit a step uses."""
        return own_share(step, self.warmup * self.steps)


def own_share(step: int, length: float) -> float:
    """The share of the method's own credit after a warm-up of so many steps: 0 within it, 1 from twice its length on."""
    return 1.0 if not length else min(1.0, max(0.0, (step - length) / length))


def blend(start: Array | None, own: Array | None, share: float) -> Array:
    """``(1 - share) start + share own``, both normalised; one that has no share may be None."""
    if own is None or start is None:
        made = start if own is None else own
        assert made is not None
        return made
    return own if share == 1 else (1 - share) * unit_rms(start) + share * unit_rms(own)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    """Train a student by backpropagation, freeze it, and only then fit a method to it."""

    training: Online
    steps: int = 1500
    batch: int = 128
    eta: float = 0.003

    def run(self, method: str, options: Options, seed: int, checkpoint: Checkpoint | None = None) -> Run:
        """One run, saved at the checkpoint while it is under way; the network that is frozen is not, but trained again."""
        task = self.training
        samples = task.data.draw(seed, task.net)
        model = _reference(task, seed)
        estimator = make(method, model, seed=seed, **options)
        rng = np.random.default_rng([seed, 5])
        loop = Loop(self.steps, lambda: look(model, estimator, samples, task.evaluate), estimator, rng=rng)

        def advance(_: Any) -> Mapping[str, float]:
            rows = rng.integers(0, len(samples.x), self.batch)
            return estimator.fit(model, model.trace(samples.x[rows], samples.y[rows]))

        if estimator.learns:
            loop.run(advance, checkpoint, told(self, method, options, seed))
        return Run(report(model, estimator, samples, task.evaluate, seed, eta=self.eta), loop.curve, loop.seconds)


@functools.lru_cache(maxsize=1)
def _reference(task: Online, seed: int) -> ResidualMLP:
    """The network that backpropagation trains: all methods that follow one another are fitted to the very same."""
    samples = task.data.draw(seed, task.net)
    model = task.net.build(seed, samples.x.shape[1])
    task.train(model, make("bp", model, seed=seed), samples, seed)
    return model


def look(model: ResidualMLP, estimator: Method, samples: Samples, evaluate: int) -> Row:
    """Gamma and accuracy on test samples."""
    trace = held_out(model, samples, evaluate)
    return {
        "gamma": gamma(estimator.credit(model, trace), model.exact(trace)),
        "accuracy": model.accuracy(samples.test_x, samples.test_y),
    }


def report(
    model: ResidualMLP, estimator: Method, samples: Samples, evaluate: int, seed: int, *, eta: float = 0.01
) -> dict[str, Any]:
    """The credit's measures on test samples, and the accuracy on all of them; in float64."""
    exact = model.cast(np.float64)
    trace = held_out(exact, samples, evaluate)
    found = measure(exact, trace, estimator.credit(exact, trace), np.random.default_rng([seed, 6]), eta=eta)
    return found | {"accuracy": exact.accuracy(samples.test_x, samples.test_y)}


def held_out(model: ResidualMLP, samples: Samples, evaluate: int) -> Trace:
    """The trace of the first so many test samples."""
    return model.trace(samples.test_x[:evaluate], samples.test_y[:evaluate])


def told(task: Any, method: str, options: Options, seed: int) -> dict[str, Any]:
    """What a run is given, as text: what tells its checkpoint from others'."""
    return {"task": repr(task), "method": method, "options": repr(sorted(options.items())), "seed": seed}
