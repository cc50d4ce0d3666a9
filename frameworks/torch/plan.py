"""Which parameters of an optimiser make which units: names, formats by name, scales, gains that are stored from 1."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...golden.config import LIMITS, ThrottleConfig
from ...golden.formats import Fixed
from ...golden.laws import LAWS
from ...golden.numbers import whole
from ...golden.segments import MOST_SCALE, Segment
from ...golden.training.units import merged
from .presets import PRESETS

FIELDS = ("gradient", "weight", "update", "direction", "residual_bits", "random_bits", "seed", "lanes")
"""What formats may say of a parameter and a configuration of a unit, beside what is in :data:`ITS_OWN`."""

ITS_OWN = ("scale", "gain_from_one")
"""And what they say of a parameter alone: bits by which its grids are finer than its formats, and whether it is a gain."""

GRIDS = ("gradient", "weight", "update", "direction")

TAKEN = {
    "elements": "it is how many the parameters have",
    "eta": "the optimiser's rate is eta, and eta_max bounds it",
    "population": "it is how many all shards have",
    "gradient_grid": "it follows from the formats",
    "weight_grid": "it follows from the formats",
    "direction_grid": "it follows from the formats",
    "delay": "a step has to be decided before it is applied, since the rate may change between two steps",
    "parity": "there is no memory on chip here",
    "segments": "parameters with a scale are segments, which is a field of formats",
}
"""Fields of a configuration that are not for settings, and why."""


@dataclass(frozen=True)
class Tensor:
    """A parameter of the optimiser.

    Attributes:
        group: the number of its parameter group.
        offset: 1 where the stored weight is the parameter minus 1, else 0.
        place: where its elements begin in its unit.
        scale: bits by which its grids are finer than those of its unit.
    """

    name: str
    parameter: Any
    group: int
    offset: float
    place: int
    scale: int = 0


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


def pattern_of(name: str) -> str:
    """The pattern of one parameter's name alone."""
    return glob.escape(name)


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
    """Parameters of equal formats are one unit; with scales, each of them is a segment of it.

    Where formats make several units, which have no segments, a scale makes formats of a unit's own. Where there are more
    parameters than a table may have entries, they lie in the order of their scales, and those of one scale are a segment.

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
    named_segments: bool = True,
) -> Plan:
    """The same for parameters from anywhere: name, parameter and group of each.

    Args:
        gains: the ``id`` of each parameter that is stored from 1.
        named_segments: whether segments have the parameters' names, which a saved state is then held against.
    """
    check_settings(law, settings)
    table = table_of(formats)
    matched: set[str] = set()
    found: list[tuple[Tensor, dict[str, Any]]] = []
    for name, parameter, group in parameters:
        fields: dict[str, Any] = {}
        for pattern, own in table.items():
            if fnmatch.fnmatchcase(name, pattern):
                matched.add(pattern)
                fields |= own
        offset = float(fields.pop("gain_from_one", id(parameter) in gains))
        tensor = Tensor(name, parameter, group, offset, 0, fields.pop("scale", 0))
        _check(tensor, fields)
        found.append((tensor, fields))
    one = not a_tensor_a_unit and len({_key(tensor, fields) for tensor, fields in found}) == 1
    if not one:
        found = [(dataclasses.replace(tensor, scale=0), _finer(fields, tensor.scale)) for tensor, fields in found]
    units: dict[str, tuple[dict[str, Any], list[Tensor]]] = {}
    for tensor, fields in found:
        key = tensor.name if a_tensor_a_unit else _key(tensor, fields)
        units.setdefault(key, (fields, []))[1].append(tensor)
    configs, tensors = [], []
    for fields, members in units.values():
        members, own = _laid_out(members, settings, named_segments)
        sizes = [tensor.parameter.numel() for tensor in members]
        configs.append(ThrottleConfig.of_law(law, elements=sum(sizes), eta=eta, eta_max=eta_max, **fields, **own, **settings))
        places = itertools.accumulate(sizes, initial=0)
        tensors.append(tuple(dataclasses.replace(one, place=place) for one, place in zip(members, places, strict=False)))
    idle = tuple(pattern for pattern in table if pattern not in matched)
    return Plan(tuple(configs), tuple(tensors), idle)


def _laid_out(members: list[Tensor], settings: Mapping[str, Any], with_names: bool) -> tuple[list[Tensor], dict[str, Any]]:
    """The parameters of a unit in their order, and its segments, if any of them has a scale."""
    if not any(tensor.scale for tensor in members):
        return members, {}
    layout = [Segment(one.parameter.numel(), one.scale, one.name if with_names else "") for one in members]
    layout = joined(layout, settings.get("entries", 0))
    if len(layout) < len(members):
        members = sorted(members, key=lambda tensor: tensor.scale)
    return members, {"segments": layout}


def joined(layout: list[Segment], entries: int = 0) -> list[Segment]:
    """The segments as they are, or one for each scale where the table has not as many entries."""
    if len(layout) <= (entries or LIMITS["entries"][1]):
        return layout
    return merged(sorted(layout, key=lambda segment: segment.scale))


def _key(tensor: Tensor, fields: Mapping[str, Any]) -> str:
    """What parameters of one unit have in common."""
    return f"{tensor.parameter.dtype} {sorted((field, str(value)) for field, value in fields.items())}"


def _finer(fields: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """The fields with grids finer by so many bits."""
    moved = {name: fields[name] for name in GRIDS if fields.get(name) is not None} if scale else {}
    return {**fields, **{name: _format(value).finer(scale) for name, value in moved.items()}}


def _format(given: Any) -> Fixed:
    return Fixed.parse(given) if isinstance(given, str) else given


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
            if field not in (*FIELDS, *ITS_OWN):
                raise ValueError(f"formats[{pattern!r}] has {', '.join((*FIELDS, *ITS_OWN))}, not {field!r}")
            if field == "gain_from_one" and not isinstance(value, bool):
                raise ValueError(f"formats[{pattern!r}].gain_from_one must be True or False, not {value!r}")
            if field == "scale":
                whole(f"formats[{pattern!r}].scale", value, 0, MOST_SCALE)
        table[pattern] = table.get(pattern, {}) | dict(own)
    return table


def gains_of(model: Any | None, parameters: Iterable[tuple[str, Any, int]]) -> set[int]:
    """The gains of norm layers: by the kind of the module, or where no model is given, vectors that are all ones."""
    if model is None:
        return {id(p) for _, p, _ in parameters if p.ndim == 1 and p.numel() > 1 and bool((p.detach() == 1).all())}
    norms = (module for module in model.modules() if "Norm" in type(module).__name__)
    return {id(module.weight) for module in norms if getattr(module, "weight", None) is not None and module.weight.ndim == 1}


def _check(tensor: Tensor, fields: Mapping[str, Any]) -> None:
    name, parameter, offset = tensor.name, tensor.parameter, tensor.offset
    if not parameter.is_floating_point():
        raise ValueError(f"{name} must be a parameter of floats, not {parameter.dtype}")
    if not parameter.numel():
        raise ValueError(f"{name} must have elements, not the shape {tuple(parameter.shape)}")
    if any(stride == 0 and size > 1 for stride, size in zip(parameter.stride(), parameter.shape, strict=True)):
        raise ValueError(f"{name} must have memory for each of its elements, not be expanded: take its .clone()")
    fmt = _format(fields["weight"]).finer(tensor.scale)
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
        + _scales(config)
        for config, tensors in zip(plan.configs, plan.tensors, strict=True)
    ]


def _scales(config: ThrottleConfig) -> str:
    scales = [segment.scale for segment in config.segments]
    return f", in {len(scales)} segments finer by {min(scales)} to {max(scales)} bits" if scales else ""
