"""What a unit does after a step that moved no weight: five answers, with an outlier and without."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ....golden.decide import Decide
from ....golden.divider import divide
from ....golden.ema import ema
from ....golden.formats import Scalar
from ....golden.network.data import Drift, Problem, digits
from ....golden.throttle import Throttle
from ....golden.training.history import FitHistory
from ...style import PALETTE, STYLE
from .published import Arm, Experiment, Formats, Phase

ANSWERS = ("divide", "hold", "floor", "average", "release")
"""The modes of ``on_still``; and ``average``, in which S takes the floored C, which is no mode of the unit."""

OUTLIER = 40
"""The step of the outlier in the bowl; on digits it is three times as late, in the midst of the ramp."""


@dataclass(frozen=True, kw_only=True)
class Outlier(Drift):
    """A drift, and one step at which the data are ``times`` as large besides; none with ``times`` = 1."""

    at: int = OUTLIER
    times: float = 1.0

    def __call__(self, step: int) -> float:
        return super().__call__(step) * (self.times if step == self.at else 1.0)


class _Averaging(Decide):
    """S takes the floored C as it takes any other."""

    def stand_still(self, norm_gradient: Scalar) -> None:
        self.curvature = divide(self.unit, norm_gradient, self.constants["still_norm"])
        self.average = ema(self.unit, self.constants["keep"], self.constants["rho"], self.average, self.curvature)


class AveragingThrottle(Throttle):
    """The golden unit with the answer ``average``."""

    Decide = _Averaging


def bowl(seed: int, elements: int = 64) -> Problem:
    """A quadratic of so many elements as one linear output, a row an element: curvatures from .1 to 1, the goal on no grid."""
    rng = np.random.default_rng(seed)
    curvature, goal = np.geomspace(0.1, 1.0, elements), rng.uniform(-1, 1, elements)
    inputs = np.diag(np.sqrt(elements * curvature))
    return Problem("bowl", inputs, (inputs @ goal)[:, None])


def some_digits(seed: int) -> Problem:
    """1,500 of the 1,797 digits, by seed: full batches draw nothing else that could differ."""
    every = digits()
    return every.rows(np.random.default_rng(seed).permutation(len(every.inputs))[:1500])


@dataclass(frozen=True)
class _Task:
    """What the answers are compared on: problem, formats, batch, noise, law, drift and the outlier's size."""

    problem: Any
    steps: int
    settings: Mapping[str, Any]
    drift: Mapping[str, Any]
    batch: int = 0
    noise: float = 0.0
    times: float = 8.0


EIGHT: Formats = {"__default__": {"gradient": "SQ2.10", "weight": "SQ2.6", "update": "SQ1.9"}}
"""The 8-bit weights of the co-simulation, and the gradients and updates that go with them. The forward pass is in float."""

RAMP = {"shape": "ramp", "factor": 4.0, "begin": 50, "length": 150, "at": 3 * OUTLIER}
TASKS = {
    "digits": _Task(some_digits, 300, {"learning_rate": 0.1, "chi": 1.5}, RAMP),
    "batches": _Task(some_digits, 300, {"learning_rate": 0.1, "chi": 1.9}, RAMP, batch=256),
    "bowl": _Task(bowl, 2000, {"learning_rate": 0.5, "chi": 1.5}, {"shape": "none"}, noise=0.1, times=30.0),
}


def experiment_still(*, steps: int = 0) -> Experiment:
    """Five answers to a step that moved nothing, on 8-bit weights: digits, in batches too, a noisy bowl, with an outlier too.

    The inputs of digits grow fourfold; an outlier is one step on data several times as large. ``steps`` shortens all runs.
    """
    arms = []
    for task, made in TASKS.items():
        for kind, times in (("clean", 1.0), ("outlier", made.times)):
            for answer in ANSWERS:
                settings = {**made.settings, "use_controller": True, "on_still": "floor" if answer == "average" else answer}
                phase = Phase(steps=steps or made.steps, settings=settings, drift=Outlier(times=times, **made.drift))
                arms.append(
                    Arm(
                        name=f"{task}_{kind}_{answer}",
                        phases=(phase,),
                        problem=made.problem,
                        model={"num_hidden": [], "use_bias": False, "dtype": np.float64},
                        batch=made.batch,
                        noise=made.noise,
                        start=0.0,
                        unit=EIGHT["__default__"],
                        variant=AveragingThrottle if answer == "average" else None,
                    )
                )
    return Experiment(
        name="still",
        title="8-bit weights: what follows a step that moved nothing",
        arms=tuple(arms),
        columns=("tail_loss", "tail_accuracy", "min_alpha", "still"),
        seeds=5,
        datapath="golden",
        draw=recovery,
    )


def recovery(runs: Mapping[str, list[FitHistory]]) -> bytes:
    """Loss and alpha by step, with the outlier: the median of the seeds, a task a column, an answer a colour.

    The loss of the outlier's own step, which is the same for all, is left out: it would hide all others.
    """
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(12, 7.2), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle(
            "8-bit weights, one outlier: what follows a step that moved nothing", x=0.01, ha="left", fontweight="bold"
        )
        for row, (key, label) in enumerate((("loss", "loss"), ("alpha", "alpha"))):
            for column, (task, made) in enumerate(TASKS.items()):
                ax = figure.add_subplot(2, len(TASKS), 1 + row * len(TASKS) + column)
                at = made.drift.get("at", OUTLIER)
                for answer, colour in zip(ANSWERS, PALETTE, strict=False):
                    histories = runs[f"{task}_outlier_{answer}"]
                    shortest = min(history.steps for history in histories)
                    y = np.median([history[key][:shortest] for history in histories], axis=0)
                    y = np.where(np.isfinite(y) & (y > 0), y, np.nan)
                    if key == "loss":
                        y[at : at + 1] = np.nan
                    ax.plot(y, color=colour, lw=2.4 if answer == "release" else 1.3, label=answer)
                ax.axvline(at, color="#444444", lw=1, ls=(0, (4, 3)))
                ax.set(title=f"{task}: {label}", xlabel="step", yscale="log")
                if task == "bowl":
                    ax.set_xlim(0, min(400, TASKS[task].steps))
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
