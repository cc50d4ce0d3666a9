"""What is asked: for each finding the tasks, the points, and what is drawn over what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any

from ...settings import Settings

Tables = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Task:
    """What is trained: a name for a table, and the tables of a configuration file."""

    title: str
    tables: Tables


def _network(eta: float, batch: int = 64, **model: Any) -> Tables:
    return {
        "model": {"hidden": [32], "activation": "relu"} | model,
        "training": {"steps": 400, "batch": batch},
        "throttle": {"eta": eta},
    }


TASKS = {
    "batches": Task("64-32-10, batches of 64, rate .2", _network(0.2)),
    "fast": Task("64-32-10, batches of 64, rate .5", _network(0.5)),
    "small": Task("64-32-10, batches of 16, rate .2", _network(0.2, 16)),
    "gain": Task("64-32-10 with batch normalisation, gains as they are", _network(0.2, batch_norm=True, gain_from_one=False)),
    "gain from 1": Task("the same, gains kept as gain - 1", _network(0.2, batch_norm=True)),
    "drift": Task("one layer, inputs grow fourfold, rate .1", {}),
}
"""By name; all are digits, with a fifth of the rows held out."""


def _all(row: Mapping[str, Any]) -> bool:
    return True


def _one_answer(row: Mapping[str, Any]) -> bool:
    """Along the intended motion it makes no difference here what a unit does after a step that moved nothing: shown once."""
    return bool(row["motion"] == "applied" or row["on_still"] == "release")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A question, and the search that answers it.

    Args:
        name: of files and of the command's argument.
        asks: the question, in a line.
        tasks: names of :data:`TASKS`; the table and the picture have a part for each.
        space: the table ``[explore]``; empty where no search answers it, but runs of its own.
        x: the column of the search's rows that the picture's axis has, and a row of the table.
        label: of that axis.
        by: columns that tell lines apart.
        measures: what is drawn and tabled, figures that the dots have of each seed.
        costs: what of a unit's costs the table has.
        only: which of the search's rows are shown; by default all.
        widths: whether the table ends with the least width that is good enough.
    """

    name: str
    asks: str
    space: Mapping[str, Any]
    x: str
    label: str
    by: tuple[str, ...]
    tasks: tuple[str, ...] = ("batches",)
    measures: tuple[str, ...] = ("score",)
    costs: tuple[str, ...] = ()
    widths: bool = False
    only: Callable[[Mapping[str, Any]], bool] = _all

    def settings(self, task: str) -> Settings:
        """The search of a task, as a configuration file would say it."""
        return Settings(tables={"explore": {"lanes": 1, **self.space}, **TASKS[task].tables})


ROUNDINGS = ["nearest", "stochastic", "residual:8"]
LAWS = ["stability_margin", "inverse_curvature", "adgd", "clip_norm", "trust_ratio"]

FINDINGS = {
    one.name: one
    for one in (
        Finding(
            name="weight",
            asks="What is a bit of weight worth?",
            space={"weight": [4, 5, 6, 7, 8, 9, 10, 12, 14, 16], "rounding": [*ROUNDINGS, "residual:4"], "law": "off"},
            x="weight_bits",
            label="bits of a weight",
            by=("rounding",),
            costs=("memory_bits", "lut", "energy"),
            widths=True,
        ),
        Finding(
            name="gradient",
            asks="What is a bit of gradient worth?",
            space={
                "gradient": [2, 3, 4, 5, 6, 8, 10, 12],
                "weight": [8, 12],
                "rounding": ["nearest", "stochastic"],
                "law": "off",
            },
            x="gradient_bits",
            label="bits of a gradient",
            by=("weight_bits", "rounding"),
            costs=("memory_bits", "lut"),
        ),
        Finding(
            name="update",
            asks="What is a bit of the update worth?",
            space={"update": [3, 4, 5, 6, 7, 8, 10, 12], "weight": 8, "rounding": ROUNDINGS, "law": "off"},
            x="update_bits",
            label="bits of an update",
            by=("rounding",),
            costs=("memory_bits", "lut"),
        ),
        Finding(
            name="random",
            asks="How many random bits does rounding need?",
            space={
                "rounding": ["nearest", *(f"stochastic:{bits}" for bits in (1, 2, 3, 4, 6, 8, 16))],
                "weight": [5, 6, 8],
                "law": "off",
            },
            x="random_bits",
            label="random bits (0: to nearest)",
            by=("weight_bits",),
            costs=("memory_bits", "lut", "energy"),
        ),
        Finding(
            name="residual",
            asks="How many bits of a residual are worth keeping?",
            space={
                "rounding": ["nearest", *(f"residual:{bits}" for bits in (2, 3, 4, 6, 8))],
                "weight": [5, 6, 8],
                "law": "off",
            },
            x="residual_bits",
            label="bits kept of what rounding drops (0: none)",
            by=("weight_bits",),
            costs=("memory_bits", "lut", "energy"),
        ),
        Finding(
            name="gain",
            asks="What is it worth to keep gains as gain - 1?",
            space={"weight": [4, 5, 6, 7, 8, 10, 12], "rounding": ["nearest", "stochastic"], "law": "off"},
            x="weight_bits",
            label="bits of a weight",
            by=("rounding",),
            tasks=("gain", "gain from 1"),
            widths=True,
        ),
        Finding(
            name="throttle",
            asks="Where does the throttle buy bits?",
            space={"weight": [6, 7, 8, 10, 12, 16], "rounding": "stochastic", "law": ["off", *LAWS]},
            x="weight_bits",
            label="bits of a weight",
            by=("law",),
            tasks=("drift", "fast"),
            widths=True,
        ),
        Finding(
            name="noise",
            asks="When does the noise of minibatches freeze a run?",
            space={
                "weight": 16,
                "rounding": "residual:4",
                "law": [{"law": "stability_margin", "chi": [0.8, 1.0, 1.2, 1.35, round(sqrt(2), 3), 1.5, 1.75, 2.0, 3.0]}],
            },
            x="chi",
            label="chi",
            by=("law_name",),
            tasks=("small", "batches", "drift"),
            measures=("score", "min_alpha"),
        ),
        Finding(
            name="ramp",
            asks="Does the throttle keep the margin while the curvature grows?",
            space={},
            x="length",
            label="steps in which the inputs grow fourfold",
            by=("law",),
            tasks=(),
            measures=("margin", "growing", "seen"),
        ),
        Finding(
            name="still",
            asks="What ends a run that has stopped moving?",
            space={
                "weight": [6, 8, 10],
                "rounding": "nearest",
                "motion": ["applied", "intended"],
                "on_still": ["divide", "hold", "floor", "release"],
                "law": "stability_margin",
            },
            x="weight_bits",
            label="bits of a weight",
            by=("motion", "on_still"),
            tasks=("drift", "batches"),
            measures=("score", "still"),
            only=_one_answer,
        ),
        Finding(
            name="motion",
            asks="Applied or intended motion?",
            space={
                "weight": [6, 8, 12],
                "rounding": ROUNDINGS,
                "motion": ["applied", "intended"],
                "law": "stability_margin",
            },
            x="weight_bits",
            label="bits of a weight",
            by=("rounding", "motion"),
            tasks=("drift", "batches"),
        ),
        Finding(
            name="passes",
            asks="One pass over the weights, or two?",
            space={"weight": [6, 8, 12], "rounding": "stochastic", "delay": [0, 1], "law": LAWS[:2]},
            x="weight_bits",
            label="bits of a weight",
            by=("law", "delay"),
            tasks=("drift", "batches"),
        ),
    )
}
"""By name, in the order of the page."""
