"""How the curvature is found: along the step that was applied, along the one that was intended, or by projection onto it.

The small experiment compares them on digits in minutes; the full one is a sweep over tasks, weights, roundings and chi, from
which the advice of the rules page is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....golden.network.data import Drift, Problem, digits
from ....golden.reference import FloatThrottle
from .advice import advice
from .cell import CORRECTIONS, ESTIMATORS, PUBLISHED_CHI, Cell
from .corrections import MixedThrottle, QuietThrottle
from .curvature_figures import over_chi, overview
from .published import LINEAR, Arm, Experiment, MakeUnit, Overview, Phase, teacher
from .still import some_digits

OPTIONS: dict[str, dict[str, str]] = {
    "divide": {"motion": "applied", "on_still": "divide"},
    "applied": {"motion": "applied"},
    "intended": {"motion": "intended"},
    "projection": {"source": "projection"},
    "quiet": {"motion": "intended"},
    "mixed": {"motion": "applied"},
}
"""The formula as published; that with ``release``, the default; the two along the intended step; and two corrections."""

VARIANTS: dict[str, MakeUnit] = {"quiet": QuietThrottle, "mixed": MixedThrottle}

FULL_WIDTHS = (4, 6, 8, 10, 12, 16)
FULL_ROUNDINGS = ("nearest", "stochastic", "residual_2", "residual_4", "residual_8")
FULL_CHIS = (0.3, 0.6, 1.0, 1.5, 1.9)

BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Outliers(Drift):
    """A drift, and one step in every so many, the eleventh at first, at which the data are ``times`` as large besides."""

    every: int = 40
    times: float = 8.0

    def __call__(self, step: int) -> float:
        return super().__call__(step) * (self.times if step % self.every == 10 else 1.0)


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the estimators are compared on.

    Args:
        says: what it is, for the page.
        score: the column that tells how well a run has done.
        goal: the loss whose step is looked for.
    """

    says: str
    problem: Callable[[int], Problem]
    eta: float
    steps: int
    score: str = "tail_accuracy"
    goal: float
    drift: Drift = field(default_factory=lambda: Drift(shape="none"))
    batch: int = 0
    noise: float = 0.0
    model: Mapping[str, Any]
    start: float = 1.0
    held: Problem | None = None


ONE_LAYER: Mapping[str, Any] = {"num_hidden": [], "use_bias": False, "dtype": np.float64}
NETWORK: Mapping[str, Any] = {"num_hidden": [32], "activation": "relu", "dtype": np.float64}
TEACHER_MODEL: Mapping[str, Any] = LINEAR | {"dtype": np.float64}


FEW = 500
"""Rows of digits that a network trains on."""


def few_digits(seed: int) -> Problem:
    """So few of the digits, by seed."""
    every = digits()
    return every.rows(np.random.default_rng(seed).permutation(len(every.inputs))[:FEW])


def _growing(steps: int) -> Drift:
    """Fourfold inputs, from a sixth of the run over a half of it."""
    return Drift(shape="ramp", factor=4.0, begin=steps // 6, length=steps // 2)


def tasks(steps: int) -> dict[str, Task]:
    """The tasks by name; the shorter ones take two thirds of ``steps``."""
    short = -(-steps * 2 // 3)
    one: dict[str, Any] = {
        "problem": some_digits,
        "eta": 0.1,
        "steps": steps,
        "drift": _growing(steps),
        "model": ONE_LAYER,
        "start": 0.0,
    }
    net: dict[str, Any] = {"problem": few_digits, "eta": 0.2, "steps": short, "model": NETWORK}
    linear: dict[str, Any] = {"problem": teacher, "eta": 0.5, "steps": short, "model": TEACHER_MODEL}
    return {
        "digits": Task(says="digits, one layer, inputs that grow fourfold, full batches", goal=0.2, **one),
        "batches": Task(says="the same, batches of 256", batch=BATCH, goal=0.2, **one),
        "network": Task(says="digits, 64-32-10, a rate that it bears, full batches", goal=0.2, **net),
        "netbatches": Task(says="the same, batches of 125", batch=FEW // 4, goal=0.2, **net),
        "noise": Task(
            says="linear teacher, batches of 8 with noisy targets",
            score="tail_loss_held_out",
            goal=0.27,
            batch=8,
            noise=0.5,
            held=teacher(1000),
            **linear,
        ),
        "outliers": Task(
            says="linear teacher, inputs that grow fourfold, and eight times as large in one step of 40",
            score="tail_loss",
            goal=1e-2,
            drift=Outliers(shape="ramp", factor=4.0, begin=short // 6, length=short // 2),
            **linear,
        ),
    }


SMALL_TASKS = ("digits", "batches")


def unit_of(bits: int, rounding: str) -> dict[str, Any]:
    """Weights of so many bits, the update on their grid, gradients on 12 bits or as many as the weights.

    To nearest the update keeps three more bits, as in the co-simulation: there it is rounded twice in any case.
    """
    if not bits:
        return {}
    gradient = f"SQ2.{max(10, bits - 2)}"
    made = {"weight": f"SQ2.{bits - 2}", "gradient": gradient, "update": f"SQ1.{bits + (1 if rounding == 'nearest' else -2)}"}
    if rounding == "stochastic":
        made["update"] += ",stochastic"
    bits_kept = rounding.removeprefix("residual_")
    return made | ({"residual_bits": int(bits_kept)} if bits_kept != rounding else {})


def arm_of(cell: Cell, task: Task) -> Arm:
    """The arm of a cell."""
    settings = {"learning_rate": task.eta, "chi": cell.chi or 1.0, "use_controller": cell.chi > 0, "on_still": "release"}
    return Arm(
        name=cell.name,
        phases=(Phase(steps=task.steps, settings=settings, drift=task.drift),),
        problem=task.problem,
        model=task.model,
        batch=task.batch,
        noise=task.noise,
        start=task.start,
        unit=unit_of(cell.bits, cell.rounding) | (OPTIONS[cell.estimator] if cell.chi else {}),
        variant=VARIANTS.get(cell.estimator) if cell.bits else FloatThrottle,
        held=task.held,
        goal=task.goal,
    )


def cells(task: str, widths: Sequence[int], roundings: Sequence[str], chis: Sequence[float], *, full: bool) -> list[Cell]:
    """The arms of a task.

    ``divide`` and ``applied`` differ after a step that moved no weight alone. In the full sweep the first runs over all chi where
    the update is rounded to nearest, and else at the published one. A residual beside 16 bits is left out: nothing is lost there.
    """
    made = []
    for bits in widths:
        for rounding in roundings:
            if bits >= 16 and (rounding.startswith("residual") or not full) and rounding != "nearest":
                continue
            if full:
                made.append(Cell(task, bits, rounding, "off", 0.0))
            for chi in chis:
                published = rounding == "nearest" or chi == PUBLISHED_CHI or not full
                tried = [name for name in ESTIMATORS if published or name != "divide"]
                if full and bits in (6, 8) and rounding in ("stochastic", "residual_4"):
                    tried += CORRECTIONS
                made += [Cell(task, bits, rounding, estimator, chi) for estimator in tried]
    if full:
        made.append(Cell(task, 0, "none", "off", 0.0))
        made += [Cell(task, 0, "none", estimator, chi) for chi in chis for estimator in ("applied", "projection")]
    return made


def experiment_curvature(
    *,
    steps: int = 300,
    full: bool = False,
    widths: Sequence[int] = (),
    roundings: Sequence[str] = (),
    chis: Sequence[float] = (),
    seeds: int = 0,
) -> Experiment:
    """Curvature along the applied step, along the intended one, or by projection: digits whose inputs grow, on narrow weights.

    One layer, eta = .1; full batches of 1,500 digits by seed, and batches of 256 of these. ``full`` is the sweep: two networks, a
    noisy problem and one with outliers too, all weights from 4 to 16 bits, five ways of rounding, five chi, five seeds.
    """
    widths = widths or (FULL_WIDTHS if full else (6, 8, 16))
    roundings = roundings or (FULL_ROUNDINGS if full else ("nearest", "stochastic", "residual_4"))
    chis = chis or (FULL_CHIS if full else (0.6, 1.5))
    known = tasks(steps)
    names = tuple(known) if full else SMALL_TASKS
    arms = tuple(arm_of(cell, known[name]) for name in names for cell in cells(name, widths, roundings, chis, full=full))
    return Experiment(
        name="curvature",
        title="How the curvature is found" if full else "Digits whose inputs grow fourfold: how the curvature is found",
        arms=arms,
        columns=("tail_accuracy", "tail_loss", "min_alpha", "margin", "c_over_true", "still"),
        seeds=seeds or (5 if full else 3),
        datapath="golden",
        draw=over_chi,
        sweep=Overview(advice, overview) if full else None,
    )
