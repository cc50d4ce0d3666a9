"""The published experiments: each a handful of arms, an arm one training run that differs from the others in one thing.

An arm is data: a model, phases of training, number formats. Which unit makes its updates is the caller's choice; for a
fixed-point unit :func:`unit_config` derives the configuration from the same settings.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ....golden.config import ThrottleConfig
from ....golden.network.data import TEACHER, Drift, Problem, batches
from ....golden.network.losses import loss_of
from ....golden.throttle import Datapath
from ....golden.training.history import FitHistory
from ....golden.training.instrumented import Step
from ....golden.training.model import BaseModel, LinearBlockModel
from ....golden.training.published import Law
from ....golden.training.resume import Checkpoint
from ....golden.training.schedules import make as make_schedule
from ....golden.training.units import first_weights
from .grids import calibrated, calibrated_config
from .networks import NETWORKS
from .recent import TAIL, Recent

Floats = NDArray[np.float64]
Spreads = Mapping[str, Mapping[str, tuple[float, float, float]]]
"""Median, least and most over the seeds, by arm and column."""
Formats = Mapping[str, Mapping[str, str]]
MakeUnit = Callable[[ThrottleConfig, Any], Datapath]
"""A unit from its configuration and its initial weights, real values on the weight grid."""

LAW_SETTINGS = ("learning_rate", "chi", "beta", "alpha_min", "eps", "curvature_ema_rho", "on_still", "ema_start", "controller")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One call of the training loop.

    Args:
        steps: how many batches.
        drift: scale of the data by step of this phase.
        settings: arguments of the loop.
        plain: in float, on the published unit, whatever the arm's formats and unit: a common start.
    """

    steps: int
    plain: bool = False
    drift: Drift = field(default_factory=lambda: Drift(shape="none"))
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One run of an experiment.

    Args:
        name: of the run, for files and tables.
        phases: one after the other, each beginning with a unit of its own, as separate calls do.
        problem: the data, by seed.
        model: arguments of the model, beside data and seed.
        batch: rows a step; 0 for all.
        precision: number formats; none means float.
        unit: fields of :class:`~kappa_rtl.golden.config.ThrottleConfig` for a fixed-point unit; ``law`` may name its law.
        variant: makes a golden unit that is no part of the contract, for a comparison; it has no other datapath.
        reference: the kernel's goal (outputs, inputs), where there is one.
        noise: standard deviation of the targets' noise, drawn anew for each batch.
        start: what the initial weights are scaled by.
        held: rows that no step trains on.
        goal: the loss whose first step is looked for.
        network: of :data:`~.networks.NETWORKS`, in the place of a block model.
        calibrated: the grids of a fixed-point unit come from a short run in float; see :func:`calibrated`.
    """

    name: str
    phases: tuple[Phase, ...]
    problem: Callable[[int], Problem]
    model: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 0
    precision: Formats | None = None
    unit: Mapping[str, Any] = field(default_factory=dict)
    variant: MakeUnit | None = None
    reference: Floats | None = None
    noise: float = 0.0
    start: float = 1.0
    held: Problem | None = None
    goal: float = math.nan
    network: str = ""
    calibrated: Mapping[str, Any] = field(default_factory=dict)


class Overview(NamedTuple):
    """What is made of a sweep's spreads by arm and column: its table, its picture, and whatever else is to be run for it.

    ``checks`` has the experiment and the name of a simulator, and gives sentences that follow the table.

    Raises:
        SimulationError: a check fails; table and picture are written then.
    """

    table: Callable[[Spreads], str]
    draw: Callable[[Spreads], bytes]
    checks: Callable[[Experiment, str], str] | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms to be compared, the columns of the table that compares them, and what was decided about the data, in sentences."""

    name: str
    title: str
    arms: tuple[Arm, ...]
    columns: tuple[str, ...] = ("loss", "largest_loss", "min_alpha", "margin", "radius", "still", "diverged_at")
    seeds: int = 1
    datapath: str = "float"  #: what it is for, unless another one is named
    draw: Callable[[Mapping[str, list[FitHistory]]], bytes] | None = (
        None  #: its own picture, a PNG, in the place of the usual one
    )
    notes: tuple[str, ...] = ()
    sweep: Overview | None = None  #: of its many runs the rows of the table are kept, and no histories


# -------------------------------------------------------------------------------------------------- a run


def run_arm(
    arm: Arm,
    seed: int = 0,
    *,
    make_unit: MakeUnit | None = None,
    close: Callable[[Datapath], None] | None = None,
    observe: Callable[[Step], bool | None] | None = None,
    unfinished: Path | None = None,
    seconds: float = 30.0,
) -> FitHistory:
    """Train one arm and return the history of all its phases, with a column ``gain`` and, for labelled data, ``accuracy``.

    Args:
        seed: of the data, the weights and the batches.
        make_unit: makes a fixed-point or float unit for each phase; none means the published one.
        close: called with each unit when its phase is over.
        observe: called after every step; True ends the run.
        unfinished: a folder for the run alone, where it is saved every so many ``seconds`` and from where it goes on; removed
            when the run is done.

    Raises:
        ValueError: an arm that the loop or the unit refuses.
    """
    problem = arm.problem(seed)
    model = model_of(arm, problem, seed)
    model.theta = model.theta * arm.start
    parts: list[FitHistory] = []
    scales: list[float] = []
    recent = Recent(observe)
    for phase in arm.phases:
        settings = dict(phase.settings)
        if "schedule" in settings:
            settings["schedule"] = make_schedule(settings["schedule"], phase.steps)
        unit = None
        if make_unit is not None and not phase.plain:
            config = unit_config(arm, phase, model.theta.size)
            if arm.calibrated:
                config = calibrated_config(
                    arm.calibrated, settings, calibrated(arm.calibrated, settings, arm.batch, model, problem), **arm.unit
                )
            unit = make_unit(config, first_weights(model.theta, config))
        size = arm.batch or len(problem.X)
        whole = bool(settings.pop("drop_last", False))
        stream = _stream(problem, phase, size, seed + 1000 * len(parts), arm.noise, whole)
        checkpoint = None
        if unfinished is not None:
            unfinished.mkdir(parents=True, exist_ok=True)
            checkpoint = Checkpoint(unfinished / f"phase{len(parts)}.npz", seconds, keep=True)
        try:
            parts.append(
                model.train_instrumented(
                    problem.X,
                    problem.Y,
                    batch_size=size,
                    precision_dict=None if phase.plain else arm.precision,
                    reference_A=arm.reference,
                    stream=stream,
                    throttle=unit,
                    observe=recent,
                    checkpoint=checkpoint,
                    **settings,
                )
            )
        finally:
            if unit is not None and close is not None:
                close(unit)
        scales += [phase.drift(t) for t in range(parts[-1].steps)]
        if parts[-1].diverged_at is not None:
            break
    history = FitHistory.join(parts, gain=scales)
    for name, rows in (("accuracy", problem), ("accuracy_held_out", arm.held)):
        if rows is not None and rows.labels is not None:
            history.meta[name] = _accuracy(model, rows, arm)
    if arm.held is not None:
        last, tail = _loss_held_out(model, arm, [model.theta, *recent.thetas])
        history.meta |= {
            name: loss for name, loss in (("loss_held_out", last), ("tail_loss_held_out", tail)) if math.isfinite(loss)
        }
    for name, rows in (("tail_accuracy", problem), ("tail_accuracy_held_out", arm.held)):
        if rows is None or rows.labels is None:
            continue
        shares = []
        for theta in recent.thetas:
            model.theta = theta
            shares.append(_accuracy(model, rows, arm))
        history.meta[name] = float(np.mean(shares))
    history.meta |= {"arm": arm.name, "seed": seed} | ({"goal": arm.goal} if arm.goal > 0 else {})
    if unfinished is not None:
        shutil.rmtree(unfinished)
    return history


def model_of(arm: Arm, problem: Problem, seed: int) -> BaseModel:
    """The arm's network at its first weights."""
    if arm.network:
        return NETWORKS[arm.network](problem, seed)
    return LinearBlockModel(problem, seed=seed, **arm.model)


def _accuracy(model: BaseModel, problem: Problem, arm: Arm) -> float:
    """The share of the samples whose largest output is their label, at the model's weights."""
    with np.errstate(all="ignore"):
        guess = np.argmax(model.predict(problem.X, arm.precision), axis=1)
    return float(np.mean(guess == problem.labels))


def _loss_held_out(model: BaseModel, arm: Arm, thetas: Sequence[Floats]) -> tuple[float, float]:
    """The loss of the held-out rows at the first of these weights, and its mean over the others."""
    assert arm.held is not None
    losses = []
    with np.errstate(all="ignore"):
        for theta in thetas:
            model.theta = theta
            losses.append(float(loss_of("half_mse").value(model.predict(arm.held.X, arm.precision), arm.held.Y)))
    model.theta = thetas[0]
    return losses[0], float(np.mean(losses[1:]))


def _stream(
    problem: Problem, phase: Phase, size: int, seed: int, noise: float, whole: bool = False
) -> Iterator[tuple[Floats, Floats]]:
    """The batches of a phase; only ``whole`` ones, if that is asked for."""
    rng = np.random.default_rng(seed)
    count = len(problem.X) // size * size if whole else len(problem.X)
    epochs = -(-phase.steps * size // max(1, count)) + 1
    drawn = batches(len(problem.X), epochs, size, shuffle=size < len(problem.X), seed=seed)
    for t, rows in enumerate(rows for rows in drawn if not whole or len(rows) == size):
        if t == phase.steps:
            return
        scale = phase.drift(t)
        x, y = problem.X[rows] * scale, problem.Y[rows] * (scale if phase.drift.targets else 1.0)
        yield x, y + noise * rng.normal(size=y.shape) if noise else y


def unit_config(arm: Arm, phase: Phase, elements: int) -> ThrottleConfig:
    """The configuration of a fixed-point unit for a phase: its law, and the formats of the arm's first layer where it has any."""
    s = {"learning_rate": 0.05, "chi": 1.5, "beta": 1.0, "alpha_min": 0.01, "eps": 1e-12, "curvature_ema_rho": 0.05} | dict(
        phase.settings
    )
    formats = {"gradient": "SQ12.14", "weight": "SQ6.18", "update": "SQ6.18"}
    for layer in ("__default__", "dense0"):
        for name in formats:
            text = (arm.precision or {}).get(layer, {}).get(name)
            if text is not None:
                formats[name] = text
    common = {
        "elements": elements,
        "eta": s["learning_rate"],
        "rho": s["curvature_ema_rho"],
        "eps": s["eps"],
        "on_still": s.get("on_still", "divide"),
        "ema_start": s.get("ema_start", "zero"),
        "enabled": bool(s.get("use_controller", False)),
        "lanes": min(8, elements),
        **formats,
        **arm.unit,
    }
    if law := common.pop("law", None):
        return ThrottleConfig.of_law(law, **common)
    if Law(eta=s["learning_rate"], controller=s.get("controller", "stability_margin")).controller == "inverse_curvature":
        return ThrottleConfig.inverse_curvature(beta=s["beta"], alpha_min=s["alpha_min"], **common)
    return ThrottleConfig.stability_margin(chi=s["chi"], **common)


def summary(history: FitHistory) -> dict[str, float]:
    """What a table says of a run; NaN where it has nothing to say."""
    made = {
        "loss": history["loss"][-1],
        "largest_loss": float(np.max(history["loss"])) if history.steps else math.nan,
        "min_alpha": float(np.min(history["alpha"])) if history.steps else math.nan,
        "margin": float(np.max(history["stability_margin_lambda_ctrl"])) if history.steps else math.nan,
        "radius": float(np.median(history["update_radius_ratio"])) if history.steps else math.nan,
        "angle": float(np.median(history["update_angle_rad"])) if history.steps else math.nan,
        "still": float(np.sum(history["dtheta_zero"])),
        "steps": float(history.steps),
        "diverged_at": math.nan if history.diverged_at is None else float(history.diverged_at),
        "accuracy": float(history.meta.get("accuracy", math.nan)),
        "tail_loss": float(np.mean(history["loss"][-TAIL:])),
        "tail_accuracy": float(history.meta.get("tail_accuracy", math.nan)),
        **{name: float(history.meta.get(name, math.nan)) for name in ("accuracy", *HELD_OUT)},
        "frozen": float(history["alpha"][-1] < 1e-3),
    }
    sharp = history["curvature_proxy"][1:] / history["hessian_lambda_max"][1:]
    made["c_over_lambda"] = float(np.median(sharp)) if len(sharp) else math.nan
    true, rate = history["curvature_true"][1:], history["learning_rate"][1:]
    for name, seen in (("c", "proxy"), ("applied", "applied"), ("intended", "intended"), ("projection", "projection")):
        made[f"{name}_over_true"] = _median(history[f"curvature_{seen}"][1:] / np.where(true > 0, true, np.nan))
    along = history["eta_eff"][1:] * true
    made["margin_along"] = float(np.nanmax(along)) if np.isfinite(along).any() else math.nan
    safe = rate * true < 1
    made["held_back"] = float(np.mean(1 - history["alpha"][1:][safe])) if safe.any() else math.nan
    made["steps_to_goal"] = math.nan
    if "goal" in history.meta:
        there = np.flatnonzero(history["loss"] <= history.meta["goal"])
        made["steps_to_goal"] = float(there[0]) if there.size else math.inf
    return made


HELD_OUT = ("accuracy_held_out", "loss_held_out", "tail_loss_held_out")


def _median(values: Floats) -> float:
    """Of what is a number; NaN where nothing is."""
    return float(np.nanmedian(values)) if np.isfinite(values).any() else math.nan


COLUMNS: dict[str, str] = {
    "loss": "the last loss",
    "largest_loss": "the largest loss",
    "min_alpha": "the smallest alpha that was applied",
    "margin": "the largest alpha * eta * lambda_max; unstable above 2",
    "radius": "median of ||applied|| / ||intended update||",
    "angle": "median angle between applied and intended update, radians",
    "still": "steps that moved no weight",
    "steps": "steps made",
    "diverged_at": "the step whose numbers were no longer finite",
    "accuracy": "share of the samples whose largest output is their label, after training",
    "tail_loss": f"mean loss of the last {TAIL} steps",
    "tail_accuracy": f"mean accuracy on all samples at the weights of the last {TAIL} steps",
    "accuracy_held_out": "the same share of the rows that no step trains on",
    "loss_held_out": "the loss of these rows, after training",
    "frozen": "1 if alpha ended below 0.001",
    "c_over_lambda": "median of C / lambda_max",
    "tail_loss_held_out": f"the same, mean at the weights of the last {TAIL} steps",
    "c_over_true": "median of C over the curvature along the step before, by the Hessian",
    "applied_over_true": "the same of the curvature along the applied step, whatever the law goes by",
    "intended_over_true": "the same of that along the intended step",
    "projection_over_true": "the same of the projection",
    "margin_along": "the largest alpha * eta * curvature along the step before; unstable above 2",
    "held_back": "mean of 1 - alpha over the steps whose eta * curvature along the step before is below 1",
    "steps_to_goal": "the first step whose loss is no more than the task's goal; inf if none is",
}
"""The columns that a table may have."""


# -------------------------------------------------------------------------------------------------- the experiments

BASE: dict[str, dict[str, str]] = {
    "input": {"value": "ap_fixed<12,4,AP_RND,AP_SAT>"},
    "loss": {"value": "ap_fixed<24,12,AP_RND,AP_SAT>"},
    "dense0": {
        "weight": "ap_fixed<12,4,AP_RND,AP_SAT>",
        "activation": "ap_fixed<12,5,AP_RND,AP_SAT>",
        "gradient": "ap_fixed<16,6,AP_RND,AP_SAT>",
        "update": "ap_fixed<16,4,AP_RND,AP_SAT>",
        "accumulator": "ap_fixed<24,10,AP_RND,AP_SAT>",
    },
}
"""The formats of Experiment 000C."""

TIGHT = {"weight": "ap_fixed<8,3,AP_RND,AP_SAT>", "update": "ap_fixed<10,2,AP_RND,AP_SAT>"}


def teacher(seed: int) -> Problem:
    """1,000 samples of the linear teacher, in float32 as published."""
    inputs = np.random.default_rng(seed).random((1000, TEACHER.shape[1])).astype(np.float32).astype(np.float64)
    return Problem("teacher", inputs, inputs @ TEACHER.T)


LINEAR = {"num_hidden": [2], "use_bias": False}
ETA = 0.5


def _drifting(name: str, *, steps: int, targets: bool, precision: Formats | None = None, **settings: Any) -> Arm:
    """20 full batches in float without drift, then the inputs are four times as large from one step to the next."""
    shared = {"learning_rate": ETA}
    return Arm(
        name=name,
        phases=(
            Phase(steps=20, plain=True, settings=shared),
            Phase(steps=steps, drift=Drift(factor=4.0, targets=targets), settings=shared | settings),
        ),
        problem=teacher,
        model=LINEAR,
        precision=precision,
        reference=TEACHER if targets else TEACHER / 4,
    )


def experiment_000(*, targets: bool = False, steps: int = 100) -> Experiment:
    """Scale drift on the linear teacher: without a throttle, with the stability margin, with inverse curvature."""
    return Experiment(
        name="000",
        title="Scale drift of the inputs, 1 to 4 at step 20",
        arms=(
            _drifting("off", steps=steps, targets=targets),
            *(
                _drifting(law, steps=steps, targets=targets, use_controller=True, controller=law)
                for law in ("stability_margin", "inverse_curvature")
            ),
        ),
    )


def experiment_000c(*, targets: bool = False, steps: int = 100) -> Experiment:
    """The same in fixed point, format by format, without and with the stability margin."""
    own = BASE["dense0"]
    formats: dict[str, Formats | None] = {
        "float": None,
        "weight_only": {"dense0": {"weight": own["weight"]}},
        "update_only": {"dense0": {"update": own["update"]}},
        "both": {"dense0": {"weight": own["weight"], "update": own["update"]}},
        "wide": BASE,
        "tight": BASE | {"dense0": own | TIGHT},
    }
    return Experiment(
        name="000C",
        title="Scale drift in fixed point",
        arms=tuple(
            _drifting(f"{name}_{switch}", steps=steps, targets=targets, precision=precision, use_controller=switch == "on")
            for name, precision in formats.items()
            for switch in ("off", "on")
        ),
    )


def experiment_1a(*, steps: int = 100) -> Experiment:
    """One layer in float: a stable rate, one beyond 2 / lambda_max, and that one throttled."""

    def arm(name: str, **settings: Any) -> Arm:
        return Arm(name=name, phases=(Phase(steps=steps, settings=settings),), problem=teacher, model=LINEAR, reference=TEACHER)

    return Experiment(
        name="1A",
        title="One layer: eta * lambda_max against 2",
        arms=(
            arm("stable", learning_rate=1.0),
            arm("unstable", learning_rate=4.0),
            arm("throttle", learning_rate=4.0, use_controller=True),
        ),
    )


def experiment_noise(*, steps: int = 200) -> Experiment:
    """Minibatches of noisy targets: what each estimator takes for curvature, and whether it freezes the run."""

    def arm(estimator: str) -> Arm:
        return Arm(
            name=estimator,
            phases=(
                Phase(steps=steps, settings={"learning_rate": ETA, "chi": 1.0, "use_controller": True, "estimator": estimator}),
            ),
            problem=teacher,
            model=LINEAR | {"dtype": np.float64},
            batch=8,
            noise=0.5,
            reference=TEACHER,
        )

    return Experiment(
        name="noise",
        title="Estimators of curvature under minibatch noise",
        arms=tuple(arm(name) for name in ("naive", "same_batch", "half_batch", "momentum")),
        columns=("c_over_lambda", "loss", "min_alpha", "frozen"),
        seeds=20,
    )
