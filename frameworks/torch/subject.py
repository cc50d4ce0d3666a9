"""A model of the user's in torch as what a search trains: a function ``seed -> Task`` in a file or a module."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed
from ...golden.numbers import whole
from ...golden.segments import Segment
from ...scripts.experiments.explore.network import SAME
from ...scripts.experiments.explore.point import OFF, Point
from ...scripts.experiments.explore.space import TRAINED, Integers
from ...scripts.experiments.explore.subject import Result
from ...scripts.experiments.explore.watch import Watch, curve_of
from ...scripts.settings import Settings
from ...sim.cache import code_digest
from .calibration import calibrate
from .plan import FIELDS, joined, largest_rate, named, pattern_of
from .task import Task
from .throttle import GlobalThrottle

CALIBRATED = 20
"""Steps of the run in float."""

BITS = 16
"""Of the formats that are calibrated: where a binary point belongs does not hang on the width."""


@dataclass(frozen=True)
class Points:
    """Where ``kappa_rtl.torch.calibrate`` puts the binary points: one for all parameters, and if asked one for each."""

    integers: Integers
    entry: Entry
    rule: None = None  # of a few steps it would say nothing

    @cached_property
    def apart(self) -> Integers:
        return self.entry.integers("tensor")

    def __str__(self) -> str:
        i = self.integers
        return (
            f"binary points from {CALIBRATED} steps in float, with room: weights SQ{i.weight}, gradients SQ{i.gradient}, "
            f"directions SQ{i.direction}, updates SQ{i.update}"
        )


@dataclass(frozen=True)
class Entry:
    """The user's function, and what is the same for all points.

    Args:
        where: ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION``.
        seed: of the first run.
        unit: further fields of the unit, the same for all points.

    Raises:
        ValueError: there is no such function, or what it gives is no task; with what the user typed.
    """

    where: str
    seed: int = 0
    unit: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, where: str) -> Entry:
        """From a configuration file, beside which a file of the user's is if its path is relative."""
        throttle, training = settings["throttle"], settings["training"]
        for table in ("data", "model", "precision"):
            if table in settings:
                raise ValueError(f"[{table}] must not be given beside explore.task: the task has its own")
        for name in training:
            if name != "seed":
                raise ValueError(f"training.{name} must not be given beside explore.task, which says so itself")
        for name in throttle:
            if name not in SAME or name in ("direction", *TRAINED):
                raise ValueError(f"keys of [throttle] must be among {', '.join(SAME)} beside explore.task, not {name!r}")
        if not isinstance(where, str) or where.count(":") < 1:
            raise ValueError(f"explore.task must be FILE.py:FUNCTION or MODULE:FUNCTION, not {where!r}")
        path, _, name = where.rpartition(":")
        if path.endswith(".py") and settings.folder is not None:
            where = f"{settings.folder / path}:{name}"
        made = cls(where, whole("training.seed", training.get("seed", 0), 0, 2**32 - 1), throttle)
        made.config(Point(weight="SQ2.14", gradient="SQ4.12", direction="SQ4.12", update="SQ1.15", law=OFF))
        return made

    def task(self, seed: int) -> Any:
        """A fresh task.

        Raises:
            ValueError: the function gives something else.
        """
        torch.manual_seed(seed)
        made = _function(self.where)(seed)
        if not isinstance(made, Task):
            raise ValueError(f"explore.task {self.where!r} must give a kappa_rtl.torch.Task, not {made!r}")
        return made

    @cached_property
    def _first(self) -> tuple[dict[str, int], float, str, bool, int]:
        """The parameters' elements, the largest rate, the name, whether the score grows, and the steps, of the first task."""
        task = self.task(self.seed)
        sizes = {name: parameter.numel() for name, parameter, _ in named(task.optimizer, task.model)}
        name = f"{type(task.model).__name__} with {type(task.optimizer).__name__}"
        return sizes, max(map(largest_rate, task.optimizer.param_groups)), name, task.larger_is_better, task.steps

    @property
    def labelled(self) -> bool:
        return self._first[3]

    @property
    def title(self) -> str:
        sizes, rate, name, _, steps = self._first
        return f"{name}, {sum(sizes.values()):,} weights, eta = {rate:g}, {steps} steps ({self.where.rpartition(':')[2]})"

    @property
    def identity(self) -> str:
        """The function, the file that it is in, what is set and the code here: data that it reads from elsewhere are not seen."""
        path = self.where.rpartition(":")[0]
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest() if path.endswith(".py") else ""
        what = (self.where.rpartition(":")[2], path if not content else "", content, sorted(self.unit.items()))
        return repr((what, code_digest(Path(__file__).parent)))

    def config(self, point: Point, **others: Any) -> ThrottleConfig:
        sizes, rate, *_ = self._first
        own: dict[str, Any] = {}
        if point.scales:
            layout = [Segment(size, scale, name) for (name, size), scale in zip(sizes.items(), point.scales, strict=True)]
            own["segments"] = joined(layout)
        return point.config(elements=sum(sizes.values()), eta=rate, **self.unit | own | others)

    def calibrate(self, references: Sequence[Point]) -> Points:
        """By ``kappa_rtl.torch.calibrate``."""
        return Points(self.integers("one"), self)

    def integers(self, grids: str) -> Integers:
        """Where the binary points are: of ``one`` grid for all, or of one a ``tensor``."""
        task = self.task(self.seed)
        found = calibrate(
            task.model,
            task.optimizer,
            range(min(CALIBRATED, task.steps)),
            lambda _, step: task.loss(step),
            BITS,
            grids=grids,
            steps=CALIBRATED,
        )
        formats = {name: Fixed.parse(text).integer_bits for name, text in found["*"].items() if isinstance(text, str)}
        scales = tuple(found.get(pattern_of(name), {}).get("scale", 0) for name in self._first[0])
        return Integers(formats["weight"], formats["gradient"], formats["update"], formats["direction"], scales)

    def train(self, point: Point, seed: int) -> Result:
        began, task = time.perf_counter(), self.task(seed)
        watch = Watch(None, int(self.unit.get("dead_after", ThrottleConfig.dead_after)))
        throttle = None
        if not point.is_float:
            formats, settings = split(point.fields(**self.unit))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of single formats, where all are tried
                table = {"*": formats} | {
                    pattern_of(name): {"scale": scale} for name, scale in zip(self._first[0], point.scales, strict=False) if scale
                }
                throttle = GlobalThrottle(task.optimizer, model=task.model, formats=table, **settings)
        losses, rows = [], []
        for step in range(task.steps):
            losses.append(task.backward(step))
            task.optimizer.step()
            rows.append(_row(throttle))
            if watch.ends(step, losses[-1], still=rows[-1]["still"] == 1, alpha=rows[-1]["alpha_applied"]):
                break
        ending = watch.ending
        with torch.no_grad():
            score = float(task.score()) if ending != "diverged" else math.nan
        if not math.isfinite(score):
            ending, score = "diverged", 0.0 if task.larger_is_better else math.inf
        columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return {
            "ending": ending,
            "steps": len(losses),
            "score": score,
            "loss": losses[-1],
            "min_alpha": float(np.min(columns["alpha_applied"])),
            "median_alpha": float(np.median(columns["alpha_applied"])),
            "still": float(np.mean(columns["still"])),
            "radius": float(np.median(columns["update_radius_ratio"])),
            "angle": float(np.median(columns["update_angle_rad"])),
            "saturated": float(columns["weight_saturated"][-1]),
            "curve": curve_of(loss=losses, alpha=columns["alpha_applied"], curvature=columns["curvature"]),
            "seconds": time.perf_counter() - began,
        }


def split(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a point as what a format has of them, and as settings of a throttle."""
    return {name: value for name, value in fields.items() if name in FIELDS}, {
        name: value for name, value in fields.items() if name not in FIELDS
    }


PLAIN = {
    "still": 0.0,
    "alpha_applied": 1.0,
    "curvature": math.nan,
    "update_radius_ratio": 1.0,
    "update_angle_rad": 0.0,
    "weight_saturated": 0.0,
}
"""Of a step in float, without a throttle."""


def _row(throttle: Any) -> dict[str, float]:
    if throttle is None:
        return PLAIN
    found = throttle.metrics()
    return {name: found.get(f"throttle/{name}", math.nan) for name in PLAIN}


def _function(where: str) -> Callable[[int], Any]:
    path, _, name = where.rpartition(":")
    try:
        if path.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(path).stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(path)
    except (ImportError, OSError) as error:
        raise ValueError(f"explore.task {where!r} must be in a file or a module that can be imported: {error}") from None
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"explore.task {where!r} must name a function of {path}, which has no {name!r}")
    return found  # type: ignore[no-any-return]
