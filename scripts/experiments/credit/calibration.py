"""Healthy and failing runs on handwritten digits, to calibrate the diagnostic protocol on: what its flags see of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....golden.credit.bp import BP
from ....golden.credit.dfa import DFA
from ....golden.credit.model import ResidualMLP
from ....golden.network.checks import counts, seeds
from ....golden.network.data import digits
from ....golden.network.optimisers import make
from ....golden.protocol.rules import DiagnosticReport, TrainingMonitor, diagnose

ARMS = ("bp", "dfa")
HELD_OUT = 397
"""Samples that no run trains on, and all are measured on."""


@dataclass(frozen=True)
class Setting:
    """What a run is made with; both arms alike.

    Attributes:
        optimiser, rate, batch: of the updates.
        final_norm, depth, width, matrices: of the network; unless it is as wide as the 64 pixels, its embedding is learned too.
        epochs: of a run.
    """

    optimiser: str = "adam"
    rate: float = 0.001
    final_norm: bool = True
    depth: int = 4
    width: int = 64
    matrices: int = 2
    batch: int = 50
    epochs: int = 40

    def __str__(self) -> str:
        norm = "LayerNorm before the head" if self.final_norm else "bare head"
        blocks = f"{self.depth} blocks of {self.width}{', one matrix each' if self.matrices == 1 else ''}"
        return f"{blocks}, {norm}, {self.optimiser} at {self.rate:g}"


SETTINGS: dict[str, Setting] = {
    "norm": Setting(),
    "bare": Setting(final_norm=False),
    "sgd": Setting(optimiser="sgd", rate=0.01),
    "deep": Setting(depth=8),
    "embedded": Setting(width=48),
    "one": Setting(matrices=1),
    "one-bare": Setting(matrices=1, final_norm=False),
}


def train_watched(
    setting: Setting, arm: str, seed: int = 0, *, stop: bool = False, after_epoch: Callable[[], Any] = lambda: None
) -> tuple[TrainingMonitor, ResidualMLP]:
    """Train one network under the monitor, which measures it on the held-out samples before the first epoch and after each.

    Args:
        setting: network and optimiser.
        arm: ``bp``; ``dfa``, each sample's credit divided by its RMS; or ``frozen``, where only the head is trained.
        seed: of the weights, the feedback and the order of the samples; the held-out samples are always the same.
        stop: whether to stop at the first flag.
        after_epoch: called after every epoch.

    Returns:
        The monitor and the network as it was left.

    Raises:
        ValueError: no such arm, or a seed that is none.
    """
    if arm not in (*ARMS, "frozen"):
        raise ValueError(f"arm must be one of {', '.join(ARMS)}, frozen, not {arm!r}")
    seeds(seed=seed)
    counts(batch=setting.batch, epochs=setting.epochs)
    (train_x, train_y), (x, y) = split()
    model = ResidualMLP(
        setting.width,
        setting.depth,
        int(train_y.max()) + 1,
        inputs=train_x.shape[1],
        final_norm=setting.final_norm,
        matrices=setting.matrices,
        seed=seed,
    )
    method = (DFA if arm == "dfa" else BP)(model, seed=seed)
    optimiser, rng = make(setting.optimiser), np.random.default_rng([seed, 1])
    moved = np.ones_like(model.theta)
    if arm == "frozen":
        moved[: -(model.parts["head"].size + model.parts["offset"].size)] = 0
    monitor = TrainingMonitor(epochs=setting.epochs, name=arm)
    monitor.observe(0, model, x, y, model.accuracy(x, y))
    with np.errstate(over="ignore", invalid="ignore"):  # a run that blows up is a result
        for epoch in range(1, setting.epochs + 1):
            order = rng.permutation(len(train_x))
            for start in range(0, len(order), setting.batch):
                rows = order[start : start + setting.batch]
                trace = model.trace(train_x[rows], train_y[rows])
                field = model.field(trace, method.credit(model, trace), normalised=arm == "dfa")
                model.theta = model.theta - setting.rate * optimiser.propose(field * moved)
            fired = monitor.observe(epoch, model, x, y, model.accuracy(x, y))
            after_epoch()
            if fired and stop:
                break
    return monitor, model


@np.errstate(over="ignore", invalid="ignore")
def judge(model: ResidualMLP, accuracy: float, frozen: float, name: str) -> DiagnosticReport:
    """All four flags of a trained network, on the held-out samples as four batches."""
    _, (x, y) = split()
    return diagnose(model, [(x[k::4], y[k::4]) for k in range(4)], accuracy, frozen, name)


def calibrate(setting: Setting, seed: int = 0, *, after_epoch: Callable[[], Any] = lambda: None) -> dict[str, Any]:
    """Both arms and the frozen baseline with one seed, to their ends.

    Returns:
        ``setting``; ``frozen_acc``; ``reports``, of each arm (c), verdict and notes in the end; ``logs``, of each arm its rows.
    """
    frozen = train_watched(setting, "frozen", seed, after_epoch=after_epoch)[0].trace[-1]["acc_eval"]
    logs, reports = {}, {}
    for arm in ARMS:
        monitor, model = train_watched(setting, arm, seed, after_epoch=after_epoch)
        report = judge(model, monitor.trace[-1]["acc_eval"], frozen, arm)
        logs[arm] = monitor.trace
        reports[arm] = {"direction": report.direction, "verdict": report.verdict, "notes": list(report.notes)}
    return {"setting": asdict(setting), "frozen_acc": frozen, "reports": reports, "logs": logs}


@cache
def split() -> tuple[tuple[NDArray[np.float64], NDArray[np.int64]], tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """``((inputs, labels), (inputs, labels))``: to train on, and held out."""
    problem = digits()
    assert problem.labels is not None
    order = np.random.default_rng(0).permutation(len(problem.inputs))
    train, held = order[HELD_OUT:], order[:HELD_OUT]
    return (problem.inputs[train], problem.labels[train]), (problem.inputs[held], problem.labels[held])
