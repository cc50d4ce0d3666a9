"""A network in numpy as what a search trains: data, model and recipe of a configuration file, or the digits of ``make run``."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ....golden.config import LIMITS, ThrottleConfig
from ....golden.network.data import Drift, Problem, digits
from ....golden.network.layers import variables
from ....golden.network.scaling import Split
from ....golden.numbers import real, whole
from ....golden.reference import FloatThrottle
from ....golden.segments import Segment
from ....golden.throttle import Throttle
from ....golden.training.units import merged
from ...settings import LOOP, Settings
from ..subject import DataSpec, ModelSpec
from ..training.published import Arm, Phase
from .calibration import Calibration, calibrate
from .point import NEAREST, OFF, Point
from .space import TRAINED
from .subject import Result
from .trial import Observe, run
from .watch import Watch

STEPS = 300
ETA = 0.1
HELD_OUT = 0.2
ONE_LAYER = ModelSpec(hidden=(), bias=False)

SAME = ("rho", "eps", "ema_start", "dead_after", "step_bits", "exponent_bits", "seed", "direction")
"""Fields of ``[throttle]`` that all points may be given alike."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """What every point trains.

    Without ``[data]`` and ``[model]`` it is the job of ``make run`` with rows held out: digits, one layer from zero, inputs that
    grow fourfold from a sixth of the run to two thirds of it, a rate of .1 on the full batch. A file or a network has no drift.

    Args:
        data: ``held_out`` is a fifth if nothing else is said, drawn by the seed of the run.
        model: the network.
        steps, batch, seed: of a run; a batch of 0 is all rows, and the seed is that of the first run.
        eta: the learning rate.
        unit: further fields of the unit, the same for all points.
        loop: arguments of the training loop.
        precision: formats of what is no part of the unit, by layer; float has none of them either.
        content: a digest of the file of the data, as it was when the search began.

    Raises:
        ValueError: with the field, its value and the rule.
    """

    data: DataSpec = field(default_factory=DataSpec)
    model: ModelSpec = ONE_LAYER
    drift: bool = True
    steps: int = STEPS
    batch: int = 0
    seed: int = 0
    eta: float = ETA
    unit: Mapping[str, Any] = field(default_factory=dict)
    loop: Mapping[str, Any] = field(default_factory=dict)
    precision: Mapping[str, Mapping[str, str]] | None = None
    content: str = ""

    @classmethod
    def of(cls, settings: Settings) -> Network:
        """From a configuration file."""
        data, training, throttle = settings["data"], settings["training"], settings["throttle"]
        axes = [name for name in ("law", "lanes", *TRAINED) if name in throttle]
        if axes:
            raise ValueError(f"throttle.{axes[0]} must be a key of [explore], not of [throttle]: it is what points differ in")
        for name in throttle:
            if name not in ("eta", *SAME):
                raise ValueError(f"keys of [throttle] must be among eta, {', '.join(SAME)} here, not {name!r}")
        data.setdefault("held_out", HELD_OUT)
        own = "data" in settings or "model" in settings
        steps = whole("training.steps", training.get("steps", STEPS), 1, 10**7)
        for layer, formats in settings["precision"].items():
            for name in formats:
                if name in ("weight", "gradient", "update"):
                    raise ValueError(
                        f"precision.{layer}.{name} must not be given here: it is what points differ in, in [explore]"
                    )
        optimiser = training.get("optimiser", "sgd")
        decays = training.get("weight_decay", 0) and training.get("weight_decay_mode", "decoupled") == "decoupled"
        if (optimiser != "sgd" or decays) and "direction" not in throttle:
            why = f"training.optimiser = {optimiser!r}" if optimiser != "sgd" else "a decoupled weight decay"
            raise ValueError(
                f"throttle.direction must be given with {why}: what is proposed is no gradient, and has a grid of its own"
            )
        made = cls(
            data=DataSpec.of_table(data, settings.folder),
            model=ModelSpec(**settings["model"]) if own else ONE_LAYER,
            drift=not own,
            steps=steps,
            batch=whole("training.batch", training.get("batch", 0), 0),
            seed=whole("training.seed", training.get("seed", 0), 0, 2**32 - 1),
            eta=float(real("throttle.eta", throttle.pop("eta", ETA))),
            unit=throttle,
            loop={name: value for name, value in training.items() if name in LOOP},
            precision=settings["precision"] or None,
        )
        if made.data.file:
            made.data.read()  # refused by name, if it cannot be
            made = replace(made, content=digest_of(made.data.file))
        made.config(Point(weight="SQ2.14", gradient="SQ4.12", update="SQ1.15", law=OFF))
        rows = len(made.split(0).train.X)
        if made.batch > rows:
            raise ValueError(f"training.batch must be at most the {rows} rows to train on, not {made.batch}")
        return made

    def split(self, seed: int) -> Split:
        """The rows to train on and those held out, of a run's seed."""
        spec = replace(self.data, seed=(self.data.seed + seed) % 2**32)
        if self.content and digest_of(self.data.file) != self.content:
            raise ValueError(f"data.file must stay as it was when the search began, not change: {self.data.file!r}")
        return spec.split(None if self.data.file else digits())

    def __getstate__(self) -> dict[str, Any]:
        """Without what was read: whoever needs the rows has the file."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @cached_property
    def first(self) -> Split:
        return self.split(self.seed)

    @cached_property
    def tensors(self) -> tuple[tuple[str, int], ...]:
        """Name and elements of each, in the order of the weights."""
        layers = self.model.build(self.first.train, self.seed).layers
        return tuple((f"{one.layer}/{one.name}", one.place.stop - one.place.start) for one in variables(layers))

    @property
    def elements(self) -> int:
        """N."""
        return sum(size for _, size in self.tensors)

    @property
    def labelled(self) -> bool:
        """Whether the score is an accuracy; else it is a loss."""
        return self.first.train.labels is not None

    @property
    def settled(self) -> int | None:
        """The step from which on every step is like the one before, but for the weights; None if none is."""
        if self.batch or any(name in self.loop for name in ("schedule", "optimiser", "estimator", "weight_decay", "clip")):
            return None
        return self.steps // 6 + self.steps // 2 if self.drift else 0

    @property
    def dead_after(self) -> int:
        """Still steps in a row that the unit calls dead."""
        return int(self.unit.get("dead_after", ThrottleConfig.dead_after))

    @property
    def title(self) -> str:
        drift = ", inputs that grow fourfold" if self.drift else ""
        size = f"batches of {self.batch}" if self.batch else "full batches"
        what = f"{self.first.train.name}, {self.model.describe(self.first.train)}"
        return f"{what}{drift}, {size}, eta = {self.eta:g}, {self.steps} steps"

    def config(self, point: Point, **others: Any) -> ThrottleConfig:
        """The unit of a point; of a float one its law, on formats that nothing looks at."""
        return point.config(elements=self.elements, eta=self.eta, **dict(self.unit) | self.segments(point) | others)

    def segments(self, point: Point) -> dict[str, Any]:
        """The field of that name, of a point whose tensors have grids of their own; neighbours share one where they are many."""
        if not point.scales:
            return {}
        layout = [Segment(size, scale, name) for (name, size), scale in zip(self.tensors, point.scales, strict=True)]
        return {"segments": merged(layout) if len(layout) > LIMITS["entries"][1] else layout}

    def arm(self, point: Point, seed: int) -> Arm:
        """The run of a point, of one seed."""
        split = self.split(seed)
        ramp = Drift(shape="ramp", factor=4.0, begin=self.steps // 6, length=max(1, self.steps // 2))
        settings = {"learning_rate": self.eta, "hessian": "none", "use_controller": point.law != OFF, **self.loop}
        return Arm(
            name=point.id,
            phases=(Phase(steps=self.steps, drift=ramp if self.drift else Drift(shape="none"), settings=settings),),
            problem=_Given(split.train),
            model=self.model.arguments | {"dtype": np.float64},
            batch=min(self.batch, len(split.train.X)),
            start=0.0 if self.drift else 1.0,
            precision=None if point.is_float else self.precision,
            unit=point.fields(**self.unit, **self.segments(point), lanes=1),
            held=split.held,
        )

    def calibrate(self, references: Sequence[Point]) -> Calibration:
        """See :func:`~kappa_rtl.scripts.experiments.explore.calibration.calibrate`.

        Raises:
            ValueError: all references diverge.
        """
        found = calibrate(
            lambda point, observe: self.train(point, self.seed, observe),
            references,
            labelled=self.labelled,
            tensors=self.tensors,
        )
        if found is None:
            tried = "; ".join(map(str, references))
            raise ValueError(f"explore.law must have one with which float does not diverge at eta = {self.eta:g}, not {tried}")
        return found

    def train(self, point: Point, seed: int, observe: Observe | None = None) -> Result:
        """See :func:`~kappa_rtl.scripts.experiments.explore.trial.run`."""
        unit = FloatThrottle if point.is_float else Throttle
        watch = Watch(self.settled if point.rounding == NEAREST else None, self.dead_after)
        return run(self.arm(point, seed), seed, unit, watch, labelled=self.labelled, observe=observe)

    @cached_property
    def identity(self) -> str:
        """What is set, and a digest of the rows: a file may have changed."""
        digest = hashlib.sha256()
        for problem in self.first[:2]:
            if problem is not None:
                digest.update(problem.inputs.tobytes() + problem.targets.tobytes())
        table = self.to_table()
        table["data"].pop("file", None)  # wherever it is: a folder may be moved with its data
        return json.dumps(table, sort_keys=True, default=str) + digest.hexdigest()

    def to_table(self) -> dict[str, Any]:
        """All of it, for files and digests."""
        return {
            "data": self.data.to_table(),
            "model": self.model.to_table(),
            "training": {"steps": self.steps, "batch": self.batch, "seed": self.seed, **self.loop},
            "throttle": {"eta": self.eta, **self.unit},
            "precision": self.precision,
            "drift": self.drift,
        }


@dataclass(frozen=True)
class _Given:
    """Data whatever the seed: the split has it already."""

    problem: Problem

    def __call__(self, seed: int) -> Problem:
        return self.problem


def digest_of(file: str) -> str:
    """Of a file's bytes, read again only if the file has changed."""
    found = Path(file).stat()
    return _digest(file, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=4)
def _digest(file: str, mtime: int, size: int) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
