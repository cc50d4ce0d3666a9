"""Which parameters of an optimiser make which units: names, formats by name, gains that are stored from 1."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed
from ...golden.laws import LAWS
from .presets import PRESETS

FIELDS = ("gradient", "weight", "update", "direction", "residual_bits", "random_bits", "seed", "lanes")
"""What formats may say of a parameter, beside ``gain_from_one``."""

TAKEN = {
    "elements": "it is how many the parameters have",
    "eta": "the optimiser's rate is eta, and eta_max bounds it",
    "population": "it is how many all shards have",
    "gradient_grid": "it follows from the formats",
    "weight_grid": "it follows from the formats",
    "direction_grid": "it follows from the formats",
    "delay": "a step has to be decided before it is applied, since the rate may change between two steps",
    "parity": "there is no memory on chip here",
}
"""Fields of a configuration that are not for settings, and why."""


@dataclass(frozen=True)
class Tensor:
    """A parameter of the optimiser.

    Attributes:
        group: the number of its parameter group.
        offset: 1 where the stored weight is the parameter minus 1, else 0.
        place: where its elements begin in its unit.
    """

    name: str
    parameter: Any
    group: int
    offset: float
    place: int


@dataclass(frozen=True)
class Plan:
    """The units, in the order of their first parameters, and the tensors of each; patterns that name no parameter."""

    configs: tuple[ThrottleConfig, ...]
    tensors: tuple[tuple[Tensor, ...], ...]
    idle: tuple[str, ...] = ()

    def refuse_idle(self, idle: Iterable[str]) -> None:
        """Raise an error for the first of these patterns, if there is any."""
        for pattern in idle:
            names = ", ".join(tensor.name for members in self.tensors for tensor in members)
            raise ValueError(f"formats must name parameters, not {pattern!r}; they are {names}")


def named(optimizer: Any, model: Any | None) -> list[tuple[str, Any, int]]:
    """Name, parameter and group of everything that the optimiser updates.

    The names are the model's, or those that the optimiser was made with (``SGD(model.named_parameters())``), or ``0.0``,
    ``0.1``: group and place.
    """
    of_model = {} if model is None else {id(parameter): name for name, parameter in model.named_parameters()}
    found = []
    for group, settings in enumerate(optimizer.param_groups):
        own = settings.get("param_names") or [f"{group}.{place}" for place in range(len(settings["params"]))]
        for name, parameter in zip(own, settings["params"], strict=True):
            found.append((of_model.get(id(parameter), name), parameter, group))
    return found


def largest_rate(group: Mapping[str, Any]) -> float:
    """The largest rate that a parameter group and the schedulers on it have named so far."""
    return max(float(group.get(name, 0)) for name in ("lr", "initial_lr", "max_lr"))


def plan_of(
    optimizer: Any,
    *,
    model: Any | None,
    formats: str | Mapping[str, Mapping[str, Any]],
    eta: float,
    eta_max: float,
    law: str,
    a_tensor_a_unit: bool,
    settings: Mapping[str, Any],
) -> Plan:
    """Parameters of equal formats are one unit.

    Raises:
        ValueError: a field that formats have not, a parameter that cannot be on its grid; names pattern or parameter and rule.
    """
    parameters = named(optimizer, model)
    return plan_of_parameters(
        parameters,
        gains=gains_of(model, parameters),
        formats=formats,
        a_tensor_a_unit=a_tensor_a_unit,
        eta=eta,
        eta_max=eta_max,
        law=law,
        settings=settings,
    )


def plan_of_parameters(
    parameters: Sequence[tuple[str, Any, int]],
    *,
    gains: Collection[int],
    formats: str | Mapping[str, Mapping[str, Any]],
    eta: float,
    eta_max: float,
    law: str,
    settings: Mapping[str, Any],
    a_tensor_a_unit: bool = False,
) -> Plan:
    """The same for parameters from anywhere: name, parameter and group of each.

    Args:
        gains: the ``id`` of each parameter that is stored from 1.
    """
    check_settings(law, settings)
    table = table_of(formats)
    matched: set[str] = set()
    units: dict[str, tuple[dict[str, Any], list[Tensor]]] = {}
    for name, parameter, group in parameters:
        fields: dict[str, Any] = {}
        for pattern, own in table.items():
            if fnmatch.fnmatchcase(name, pattern):
                matched.add(pattern)
                fields |= own
        offset = float(fields.pop("gain_from_one", id(parameter) in gains))
        _check(name, parameter, fields, offset)
        key = name if a_tensor_a_unit else f"{parameter.dtype} {sorted((field, str(value)) for field, value in fields.items())}"
        members = units.setdefault(key, (fields, []))[1]
        place = members[-1].place + members[-1].parameter.numel() if members else 0
        members.append(Tensor(name, parameter, group, offset, place))
    configs = tuple(
        ThrottleConfig.of_law(
            law, elements=sum(one.parameter.numel() for one in members), eta=eta, eta_max=eta_max, **fields, **settings
        )
        for fields, members in units.values()
    )
    idle = tuple(pattern for pattern in table if pattern not in matched)
    return Plan(configs, tuple(tuple(members) for _, members in units.values()), idle)


def check_settings(law: str, settings: Mapping[str, Any]) -> None:
    """Refuse settings that are no fields of a configuration, or that are not the user's to give here."""
    known = {field.name for field in dataclasses.fields(ThrottleConfig)} | set(LAWS[law].parameters if law in LAWS else ())
    for name in settings:
        if name in FIELDS:
            raise ValueError(f"{name} must be given in formats, as {{'*': {{{name!r}: {settings[name]!r}}}}}, not beside them")
        if name in TAKEN:
            raise ValueError(f"{name} must not be given: {TAKEN[name]}")
        if name not in known:
            raise ValueError(f"{name} is no setting of a throttle; it has {', '.join(sorted(known - set(FIELDS) - set(TAKEN)))}")


def table_of(formats: Any) -> dict[str, dict[str, Any]]:
    """Formats by pattern, the defaults of 16 bits below them.

    Raises:
        ValueError: names the preset, pattern or field that is none, and what there is.
    """
    if isinstance(formats, str):
        if formats not in PRESETS:
            raise ValueError(f"formats must be a table or one of {', '.join(PRESETS)}, not {formats!r}")
        formats = PRESETS[formats]
    if not isinstance(formats, Mapping) or not all(isinstance(own, Mapping) for own in formats.values()):
        raise ValueError(f"formats must map patterns of names to fields, not {formats!r}")
    table = {"*": dict(PRESETS["sq16"]["*"])}
    for pattern, own in formats.items():
        for field, value in own.items():
            if field not in (*FIELDS, "gain_from_one"):
                raise ValueError(f"formats[{pattern!r}] has {', '.join((*FIELDS, 'gain_from_one'))}, not {field!r}")
            if field == "gain_from_one" and not isinstance(value, bool):
                raise ValueError(f"formats[{pattern!r}].gain_from_one must be True or False, not {value!r}")
        table[pattern] = table.get(pattern, {}) | dict(own)
    return table


def gains_of(model: Any | None, parameters: Iterable[tuple[str, Any, int]]) -> set[int]:
    """The gains of norm layers: by the kind of the module, or where no model is given, vectors that are all ones."""
    if model is None:
        return {id(p) for _, p, _ in parameters if p.ndim == 1 and p.numel() > 1 and bool((p.detach() == 1).all())}
    norms = (module for module in model.modules() if "Norm" in type(module).__name__)
    return {id(module.weight) for module in norms if getattr(module, "weight", None) is not None and module.weight.ndim == 1}


def _check(name: str, parameter: Any, fields: Mapping[str, Any], offset: float) -> None:
    if not parameter.is_floating_point():
        raise ValueError(f"{name} must be a parameter of floats, not {parameter.dtype}")
    if not parameter.numel():
        raise ValueError(f"{name} must have elements, not the shape {tuple(parameter.shape)}")
    if any(stride == 0 and size > 1 for stride, size in zip(parameter.stride(), parameter.shape, strict=True)):
        raise ValueError(f"{name} must have memory for each of its elements, not be expanded: take its .clone()")
    weight = fields["weight"]
    fmt = Fixed.parse(weight) if isinstance(weight, str) else weight
    held = {torch.float64: 53, torch.float32: 24, torch.bfloat16: 8, torch.float16: 11}.get(parameter.dtype, 0)
    # With 1 added a gain may need a bit more than its integer bits, or all of them where these lie below the point.
    bits = max(fmt.integer_bits, 1) + 1 + fmt.fraction_bits if offset else fmt.width
    if bits - 1 > held:
        raise ValueError(f"{name}: weight must be a format whose values {parameter.dtype} holds, in {held} bits, not {fmt}")


def lines(plan: Plan) -> Sequence[str]:
    """The units in words, one a line."""
    return [
        f"{config.elements} elements in {len(tensors)} tensors: "
        + ", ".join(f"{name} {getattr(config.grids, name)}" for name in ("gradient", "direction", "update", "weight"))
        for config, tensors in zip(plan.configs, plan.tensors, strict=True)
    ]
