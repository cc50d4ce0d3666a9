"""What decides a run: the job, read from a file and options, refused by field, value and rule, and written back whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from ....golden.config import OnStill, Source, ThrottleConfig
from ....golden.formats import Fixed, Rounding
from ....golden.network.data import Problem, digits, synthetic
from ....golden.network.layers import variables
from ....golden.network.precision import PrecisionDict
from ....golden.network.quantisers import layer_quantisers
from ....golden.network.scaling import Split
from ....golden.training.linear import GainRamp
from ....golden.training.model import LinearBlockModel
from ....golden.training.units import first_weights, grids_in
from ...settings import Settings, read
from ..subject import DataSpec, ModelSpec

EXPERIMENTS = ("digits", "synthetic")
NARROW = {"gradient": "SQ2.10", "weight": "SQ2.6", "update": "SQ1.9"}
"""The 8-bit weights, with the gradient and update formats that go with them."""

KEPT = 4
"""Residual bits of the narrow run that has some."""

ETA = {"digits": 0.1, "synthetic": 0.5}
"""The learning rate of each experiment; of a file it is that of the first one."""

ONE_LAYER = ModelSpec(hidden=(), bias=False)
"""What the experiments train where no model is given."""

TABLE_OF = {
    **dict.fromkeys(("experiment", "gain", "input", "sim", "idle", "stall"), "run"),
    **dict.fromkeys(("steps", "batch", "seed", "loop"), "training"),
}
"""The table that a field of a job stands in, where it is no table itself."""

SCALARS = ("steps", "batch", "seed", "experiment", "input", "sim", "idle", "stall")
"""The fields that are single values; options of the command have these names too."""

NOT_HERE = ("weight", "update", "gradient")
"""Fields of ``[precision]`` that are the unit's, and in ``[throttle]``."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides a run; written to ``config.toml`` and read back from it.

    A job on an experiment's own data, without a table ``[model]`` and without arguments of the training loop, trains one layer
    without bias from zero. Any other one trains the network of ``[model]``.

    Args:
        throttle: the unit's configuration; its ``elements`` are the weights of the model.
        experiment: ``digits`` (64 inputs, 10 outputs) or ``synthetic`` (4 inputs, 2 outputs, a teacher), where no file is given.
        steps: training steps.
        seed: of the weights, the batches and the stalls.
        batch: rows a step; 0 for all. The one layer draws them with replacement, a network takes each row once an epoch.
        loop: arguments of the training loop.
        gain: the drift of the input gain: a factor on the inputs, step by step. The experiments have one, a file has none.
        input: the grid of the inputs; empty for none.
        sim: the simulator.
        idle, stall: chances of 256 a cycle for idle producers and withheld ready in the simulation.
        narrow: formats of the additional runs on narrow weights (:attr:`narrow_runs`); empty for none of them.
        data: the user's data, and what is done to them.
        model: the network; none is the one layer, or for a file the network that an empty table is.
        precision: formats of a network's tensors by layer, for the runs on hardware: inputs, activations, accumulators, biases.
    """

    throttle: ThrottleConfig
    experiment: str = "digits"
    steps: int = 300
    seed: int = 0
    batch: int = 0
    loop: Mapping[str, Any] = field(default_factory=dict)
    gain: GainRamp | None = field(default_factory=GainRamp)
    input: str = ""
    sim: str = "verilator"
    idle: int = 0
    stall: int = 0
    narrow: Mapping[str, str] = field(default_factory=lambda: dict(NARROW))
    data: DataSpec = field(default_factory=DataSpec)
    model: ModelSpec | None = None
    precision: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _experiment(self.experiment)
        for name, low, high in (
            ("steps", 1, 10**7),
            ("seed", 0, 2**32 - 1),
            ("batch", 0, 10**6),
            ("idle", 0, 250),
            ("stall", 0, 250),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")
        if self.narrow and set(self.narrow) != set(NARROW):
            raise ValueError(f"narrow must give {', '.join(NARROW)} or nothing, not {', '.join(self.narrow)}")
        try:
            if self.input != "":  # false and 0 are no formats either
                Fixed.parse(self.input)
        except ValueError as error:
            raise ValueError(f"run.input: {error}") from None
        try:
            self.narrow_runs  # noqa: B018  # refuses what no unit has
        except ValueError as error:
            raise ValueError(f"narrow.{error}") from None
        if self.precision and not self.is_network:
            raise ValueError("precision must not be given for the one layer, whose formats are throttle's and run.input; a table "
                             "[model] makes it a network")  # fmt: skip
        if self.is_network and self.batch > len(self.problem.X):
            raise ValueError(f"batch must be at most the {len(self.problem.X)} rows to train on, not {self.batch}")
        elements = self.problem.elements if self.network is None else self.network.theta.size
        if self.throttle.elements != elements:
            raise ValueError(f"elements must be {elements} for {self.subject}, not {self.throttle.elements}")
        if self.throttle.segments:
            grids_in([self.throttle], [slice(0, elements)], variables(self.model_anew().layers))  # refuses a tensor of two grids
        if self.network is not None and (formats := self.formats) is not None:
            layer_quantisers(self.network.layers, formats)  # refuses what the model has not

    # ---------------------------------------------------------------- the data and the model

    @property
    def name(self) -> str:
        """What is trained on: the experiment, or the file's name."""
        return Path(self.data.file).stem if self.data.file else self.experiment

    @property
    def subject(self) -> str:
        """The same for a message."""
        if self.network is None:
            return f"the experiment {self.experiment}"
        assert self._model is not None
        return f"the model {self._model.describe(self.problem)} on {self.name}"

    @property
    def is_network(self) -> bool:
        """Whether a network is trained, and not the one layer without bias."""
        return self._model is not None

    @property
    def _model(self) -> ModelSpec | None:
        return _model_of(self.data, self.model, self.loop)

    @cached_property
    def _split(self) -> Split:
        return self.data.split(_rows_of(self.experiment, self.data))

    @property
    def problem(self) -> Problem:
        """The data to train on."""
        return self._split.train

    @property
    def held(self) -> Problem | None:
        """The rows that no step trains on."""
        return self._split.held

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided about the data, in sentences; nothing where an experiment's own are taken as they are."""
        as_they_are = not self.data.file and replace(self.data, seed=0) == DataSpec()
        return () if as_they_are else self._split.notes

    @cached_property
    def network(self) -> LinearBlockModel | None:
        """The model with its first weights; None for the one layer."""
        return None if self._model is None else self._model.build(self.problem, self.seed)

    def model_anew(self) -> LinearBlockModel:
        """A model of a run's own, with the first weights; for the one layer too."""
        return (self._model or ONE_LAYER).build(self.problem, self.seed)

    def start(self, config: ThrottleConfig) -> NDArray[np.float64]:
        """The first weights on the unit's grid, (N,): zeros, or what the model begins with."""
        if self.network is None:
            return np.zeros(config.elements)
        return first_weights(self.network.theta, config)

    @cached_property
    def formats(self) -> PrecisionDict | None:
        """Formats of a network's tensors on hardware, beside the unit's own; None where all of them are float."""
        for layer, fields in self.precision.items():
            for name in fields:
                if name in NOT_HERE:
                    raise ValueError(f"precision.{layer}.{name} must not be given here: the unit's format is throttle.{name}")
        table = {layer: dict(fields) for layer, fields in self.precision.items()}
        if self.input:
            if "input" in table:
                raise ValueError(f"run.input must not be given beside precision.input, not {self.input!r}")
            table["input"] = {"value": self.input}
        return PrecisionDict(table) if table else None

    @property
    def streaming(self) -> bool:
        """Whether the unit steps along another vector than the gradient that it measures, as optimisers and estimators ask."""
        return bool(set(self.loop) - {"drop_last"})

    @cached_property
    def narrow_runs(self) -> dict[str, ThrottleConfig]:
        """The unit on narrow weights, by what becomes of an update that rounding would swallow; none where none are asked for.

        ``divide``: it is lost, and a step after one that moved nothing is as published; ``release``: the same with the default
        for such a step (one run, ``nearest``, of a unit that looks at no applied motion); ``stochastic``: it is rounded at random
        onto the weights' grid; ``residual``: :data:`KEPT` bits of it are kept. Each has the motion that is the default for its
        rounding.
        """
        if not self.narrow:
            return {}
        lost = self.throttle.replace(**self.narrow, residual_bits=0, motion=None, on_still=OnStill.RELEASE)
        update = replace(lost.grids.update, fraction_bits=lost.grids.weight.fraction_bits)
        kept = replace(update, rounding=Rounding.NEAREST_EVEN) if lost.stochastic else update
        looks = Source(lost.source).is_curvature and not lost.intended
        nearest = {"divide": lost.replace(on_still=OnStill.DIVIDE), "release": lost} if looks else {"nearest": lost}
        return nearest | {
            "stochastic": lost.replace(update=str(replace(update, rounding=Rounding.STOCHASTIC)), motion=None),
            "residual": lost.replace(update=str(kept), residual_bits=KEPT, motion=None),
        }

    def narrow_title(self, name: str) -> str:
        """What a narrow run is called."""
        shown = {"residual": f"residual of {KEPT}"}.get(name, name)
        return f"{self.narrow_runs[name].grids.weight.width} bits, {shown}"

    # ---------------------------------------------------------------- text

    def to_toml(self) -> str:
        """The job as TOML, every value resolved."""
        run = {name: getattr(self, name) for name in SCALARS if TABLE_OF[name] == "run"}
        if self.data.file:
            del run["experiment"]
        if self.gain is not None:
            run["gain"] = asdict(self.gain)
        training = {name: getattr(self, name) for name in SCALARS if TABLE_OF[name] == "training"}
        tables: dict[str, Any] = {
            "data": self.data.to_table(),
            "model": self.model.to_table() if self.model else None,
            "training": training | dict(self.loop),
            "precision": {layer: dict(fields) for layer, fields in self.precision.items()} or None,
            "run": run,
            "narrow": dict(self.narrow),
            "throttle": self.throttle.to_table(),
        }
        return tomli_w.dumps({name: table for name, table in tables.items() if table is not None})

    @classmethod
    def read(cls, path: Path | None = None, **changes: Any) -> Job:
        """A job from a configuration file and changes that override it.

        Changes are the single values of a job (its ``seed`` is the data's too), ``held_out``, ``lanes``, ``gain``; None changes
        nothing.
        """
        return cls.of(read(path), **changes)

    @classmethod
    def of(cls, settings: Settings, **changes: Any) -> Job:
        """The same from tables that were read."""
        given = {name: value for name, value in changes.items() if value is not None}
        lanes, held_out = given.pop("lanes", None), given.pop("held_out", None)
        run, training, data = settings["run"], settings["training"], settings["data"]
        if held_out is not None:
            data["held_out"] = held_out
        if "seed" in given:
            data["seed"] = given["seed"]
        job: dict[str, Any] = run | {name: training.pop(name) for name in ("steps", "batch", "seed") if name in training}
        spec = DataSpec.of_table(data, settings.folder)
        if spec.file and ("experiment" in run or "experiment" in given):
            named = given.get("experiment", run.get("experiment"))
            raise ValueError(f"experiment must not be given beside data.file = {data['file']!r}, not {named!r}")
        job |= given
        experiment = _experiment(job.get("experiment", "digits"))
        model = ModelSpec(**settings["model"]) if "model" in settings else None
        network = _model_of(spec, model, training)
        if "gain" in job:
            job["gain"] = _gain(job["gain"])
        elif network is not None:
            job["gain"] = None
        if "narrow" in settings:
            job["narrow"] = settings["narrow"]
        elif network is not None:
            job["narrow"] = {}
        fields: dict[str, Any] = {"loop": training, "data": spec, "model": model, "precision": settings["precision"]}
        table: dict[str, Any] = {"law": "stability_margin", "eta": ETA[experiment], "lanes": 8} | settings["throttle"]
        if "law" not in settings["throttle"] and "num" in settings["throttle"]:
            del table["law"]
        if lanes is not None:
            table["lanes"] = lanes
        if "elements" not in table:
            problem = _rows_of(experiment, spec)
            table["elements"] = network.build(problem, 0).theta.size if network else problem.elements
        return cls(throttle=ThrottleConfig.from_table(table), **fields, **job)


def _model_of(data: DataSpec, model: ModelSpec | None, loop: Mapping[str, Any]) -> ModelSpec | None:
    """The network that is trained; None for the one layer without bias."""
    if model is None and data.file:
        return ModelSpec()
    return ONE_LAYER if model is None and loop else model


def _rows_of(experiment: str, data: DataSpec) -> Problem:
    """All rows, before any are held out or scaled."""
    if data.file:
        return data.read()
    return digits() if experiment == "digits" else synthetic(data.seed)


def _experiment(name: object) -> str:
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {name!r}")
    return str(name)


def _gain(gain: Any) -> GainRamp:
    if not isinstance(gain, dict) or set(gain) - {"start", "end", "first", "last"}:
        raise ValueError(f"run.gain must be a table of start, end, first and last, not {gain!r}")
    for name, value in gain.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"run.gain.{name} must be a number, not {value!r}")
    try:
        return GainRamp(**gain)
    except ValueError as error:
        raise ValueError(f"run.gain.{error}") from None


def measure(config: ThrottleConfig) -> str:
    """What C is, in words."""
    source, change = Source(config.source), "the length of the gradient's change"
    if source is Source.NORM:
        return "the length of the gradient"
    if source is Source.RATIO:
        return "the length of the gradient over that of the weights"
    if source.is_projection:
        return "the component of the gradient's change along the step that was intended, over that step's length"
    return f"{change} over that of the {'step that was intended' if config.intended else 'change that was applied'}"
