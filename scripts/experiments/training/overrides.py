"""What a configuration file changes in an experiment: the same tables as everywhere, put into every arm.

Arms are named after what they differ in. So what they differ in cannot be changed for all of them: that is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from typing import Any

from ....golden.config import ThrottleConfig
from ....golden.laws import LAWS
from ....golden.network.optimisers import OPTIMISERS
from ....golden.training.estimators import ESTIMATORS
from ....golden.training.model import LinearBlockModel
from ....golden.training.published import CONTROLLERS
from ...settings import Settings
from .published import Arm, Experiment

LOOP_NAMES = {
    "law": "controller",
    "eta": "learning_rate",
    "rho": "curvature_ema_rho",
    "enabled": "use_controller",
    **{name: name for name in ("chi", "beta", "alpha_min", "eps", "on_still", "ema_start")},
}
"""Keys of ``[throttle]`` that the training loop has too, and what it calls them: the published unit knows no others."""

NUMBERS = ("eta", "rho", "chi", "beta", "alpha_min", "eps")
FORMATS = ("gradient", "weight", "update")

NONE: Any = object()
"""In place of a value that an arm does not set."""


@dataclass(frozen=True)
class Overrides:
    """A file's tables as an experiment takes them.

    Attributes:
        loop: arguments of the training loop, of every arm's last phase.
        unit: fields of a unit's configuration.
        precision: formats by layer; None leaves every arm its own.
        batch: rows a step, 0 for all; None leaves it.
        elements: what the file says that the model has; None if it does not.
        keys: what each is called in the file.
    """

    loop: Mapping[str, Any] = field(default_factory=dict)
    unit: Mapping[str, Any] = field(default_factory=dict)
    precision: Mapping[str, Mapping[str, str]] | None = None
    batch: int | None = None
    elements: int | None = None
    keys: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Overrides:
        """From a configuration file.

        Raises:
            ValueError: a value of the wrong type.
        """
        throttle, training = settings["throttle"], settings["training"]
        for name, known in (("optimiser", OPTIMISERS), ("estimator", ESTIMATORS)):
            if name in training and training[name] not in known:
                raise ValueError(f"training.{name} must be one of {', '.join(known)}, not {training[name]!r}")
        batch = training.pop("batch", None)
        if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 0):
            raise ValueError(f"training.batch must be an integer of at least 0, not {batch!r}")
        for name in ("steps", "seed"):
            training.pop(name, None)
        loop, keys = dict(training), {name: f"training.{name}" for name in training}
        unit = {name: throttle.pop(name) for name in list(throttle) if name not in LOOP_NAMES}
        if (law := throttle.get("law")) is not None and law not in CONTROLLERS:
            if law not in LAWS:
                raise ValueError(f"throttle.law must be one of {', '.join(LAWS)}, not {law!r}")
            unit |= {"law": throttle.pop("law")} | {name: throttle.pop(name) for name in LAWS[law].parameters if name in throttle}
        for name, value in throttle.items():
            loop[LOOP_NAMES[name]] = _number(name, value) if name in NUMBERS else value
            keys[LOOP_NAMES[name]] = f"throttle.{name}"
        keys |= {name: f"throttle.{name}" for name in unit}
        for name in FORMATS:
            if name in unit:  # in the unit's own words, before it is asked of a layer
                try:
                    ThrottleConfig.from_table({"elements": 1, "eta": 1, name: unit[name]})
                except ValueError as error:
                    if str(error).startswith(f"{name} must be a signed") or str(error).startswith(f"{name}: "):
                        raise ValueError(f"throttle.{error}") from None
        elements = unit.pop("elements", None)
        return cls(loop, unit, settings["precision"] or None, batch, elements, keys)

    @property
    def formats(self) -> dict[str, dict[str, str]] | None:
        """All formats of the file as one table: the unit's are those of every layer that has none of its own.

        A unit holds biases as it holds weights.
        """
        table = {layer: dict(fields) for layer, fields in (self.precision or {}).items()}
        unit = {name: str(self.unit[name]) for name in FORMATS if name in self.unit}
        if "weight" in unit:
            unit["bias"] = unit["weight"]
        if unit:
            table["__default__"] = unit | table.get("__default__", {})
        return table or None

    def without_formats(self) -> Overrides:
        """The same for an experiment that was made with the formats."""
        return replace(self, precision=None, unit={name: value for name, value in self.unit.items() if name not in FORMATS})

    def put_into(self, experiment: Experiment, datapath: str) -> Experiment:
        """The experiment with every arm changed.

        Args:
            datapath: ``float`` is the published unit, which has two laws.

        Raises:
            ValueError: the arms differ in what is to be changed, or the law that they have has no such parameter.
        """
        arms = experiment.arms
        for name in self.loop:
            self._refuse(experiment, name, partial(_setting, name=name))
        for name in self.unit:
            self._refuse(experiment, name, partial(_format_of if name in FORMATS else _unit_field, name=name))
        if "law" in self.unit or "controller" in self.loop:
            self._refuse(experiment, "law" if "law" in self.unit else "controller", _law)
        if self.precision is not None:
            self._refuse(experiment, "precision", lambda arm: arm.precision, "precision")
        if self.batch is not None:
            self._refuse(experiment, "batch", lambda arm: arm.batch, "training.batch")
            rows = min(len(arm.problem(0).X) for arm in arms)
            if self.batch > rows:
                raise ValueError(f"training.batch must be at most the {rows} rows to train on, not {self.batch}")
        if datapath == "float" and "law" in self.unit:
            raise ValueError(
                f"throttle.law must be {' or '.join(CONTROLLERS)} on the datapath float, not {self.unit['law']!r}; the datapaths "
                "golden and rtl have it"
            )
        changed = replace(experiment, arms=tuple(map(self._changed, arms)))
        self._check_parameters(changed)
        self._check_elements(changed)
        return changed

    def _changed(self, arm: Arm) -> Arm:
        last = replace(arm.phases[-1], settings={**arm.phases[-1].settings, **self.loop})
        return replace(
            arm,
            phases=(*arm.phases[:-1], last),
            precision=arm.precision if self.precision is None else self.precision,
            unit={**arm.unit, **self.unit},
            batch=arm.batch if self.batch is None else self.batch,
        )

    def _refuse(self, experiment: Experiment, name: str, read: Callable[[Arm], Any], key: str = "") -> None:
        if len({repr(None if (value := read(arm)) is NONE else value) for arm in experiment.arms}) > 1:
            names = [arm.name for arm in experiment.arms]
            shown = ", ".join(names if len(names) < 5 else [*names[:3], "...", names[-1]])
            raise ValueError(
                f"{key or self.keys[name]} must not be given for the experiment {experiment.name}: its arms ({shown}) differ in "
                "it and are named after it"
            )

    def _check_parameters(self, experiment: Experiment) -> None:
        """Refuse a law's parameter where no arm has that law."""
        laws = {_law(arm) for arm in experiment.arms}
        has = {name for law in laws for name in LAWS[law].parameters}
        for name in {name for law in LAWS.values() for name in law.parameters}:
            given = name in self.unit or (name in self.loop and name in LOOP_NAMES.values())
            if given and name not in has and name not in ThrottleConfig.__dataclass_fields__:
                raise ValueError(
                    f"throttle.{name} must not be given with the law {' or '.join(sorted(laws))}, which has "
                    f"{', '.join(sorted(has)) or 'no parameter'}"
                )
        if "alpha_min" in self.loop and "alpha_min" not in has:
            raise ValueError(f"throttle.alpha_min must not be given with the law {' or '.join(sorted(laws))}, which sets it")

    def _check_elements(self, experiment: Experiment) -> None:
        if self.elements is None:
            return
        for arm in experiment.arms:
            weights = LinearBlockModel(arm.problem(0), seed=0, **arm.model).theta.size
            if weights != self.elements:
                raise ValueError(
                    f"throttle.elements must be {weights}, the weights of the model of {experiment.name}, not {self.elements}"
                )


def _law(arm: Arm) -> str:
    """The law of an arm; off arms have the one that they do not apply."""
    named = arm.unit.get("law", arm.phases[-1].settings.get("controller", CONTROLLERS[0]))
    return str(named)


def _setting(arm: Arm, name: str) -> Any:
    return arm.phases[-1].settings.get(name, NONE)


def _unit_field(arm: Arm, name: str) -> Any:
    return arm.unit.get(name, NONE)


def _format_of(arm: Arm, name: str) -> Any:
    """A unit's format in an arm, by its own field or by the formats of the first layer."""
    precision = arm.precision or {}
    own = precision.get("dense0", {}).get(name, precision.get("__default__", {}).get(name, NONE))
    return arm.unit.get(name, own)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError(f"throttle.{name} must be a number, not {value!r}")
    try:
        return float(Fraction(value)) if isinstance(value, str) else float(value)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"throttle.{name} must be a number, not {value!r}") from None
