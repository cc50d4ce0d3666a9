"""The unit of a model whose layers have formats of their own, under one law: segments of one unit, or shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import LIMITS, MAX_FORMAT_WIDTH, ThrottleConfig
from ..formats import Fixed
from ..network.layers import Layer, Variable, variables
from ..network.precision import PrecisionDict, ensure_precision_dict
from ..network.quantisers import STORAGE
from ..rounding import quantise
from ..segments import MOST_SCALE, Segment, slices
from ..sharded import ShardedThrottle
from ..throttle import Datapath, Throttle, real_of
from ..widths import Grids

GRIDS = ("gradient", "weight", "update")
"""The formats that a variable has."""

OF_SEGMENTS = ("entries", "scale_max", "capacity")
"""Settings that a unit without segments has not."""


class Model(Protocol):
    """What is asked of a model: its layers, and its trainable variables as one vector, in their order."""

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def theta(self) -> NDArray[Any]: ...


class Formats(NamedTuple):
    """What a precision says of one variable: the formats of its gradients, its weights and its updates."""

    variable: Variable
    gradient: Fixed
    weight: Fixed
    update: Fixed

    @property
    def elements(self) -> int:
        return int(self.variable.place.stop - self.variable.place.start)


def formats_for(model: Model, precision: PrecisionDict | dict[str, Any]) -> list[Formats]:
    """The formats of each variable, in the order of theta.

    A kernel has the layer's ``weight``, a bias its ``bias``, other variables its ``value``; ``gradient`` and ``update`` are the
    layer's.

    Raises:
        ValueError: a variable without a format, by layer and field.
    """
    formats = ensure_precision_dict(precision)
    if formats is None:
        raise ValueError("precision must name formats, not None: float has no hardware")
    formats.validate([layer.name for layer in model.layers])
    found = []
    for variable in variables(model.layers):
        own = {}
        for field, of_layer in (("gradient", "gradient"), ("weight", STORAGE.get(variable.name, "value")), ("update", "update")):
            fmt = formats.dtype(variable.layer, of_layer)
            if fmt is None:
                raise ValueError(
                    f"precision of {variable.layer}.{of_layer} must be a format, not None: {variable.layer}/{variable.name} "
                    "is in hardware"
                )
            own[field] = fmt
        found.append(Formats(variable, **own))
    return found


def configs_for(
    model: Model, precision: PrecisionDict | dict[str, Any], law: str = "stability_margin", **settings: Any
) -> list[ThrottleConfig]:
    """The configuration of each stretch of neighbouring variables with equal formats, in the order of theta.

    :func:`~kappa_rtl.golden.together.together` makes shards of them, each of which can be exported.

    Args:
        precision: names formats for all of them, see :func:`formats_for`; float has no hardware.
        law: a published law, whose parameters are among ``settings``.
        settings: other fields of a configuration, the same for all: ``eta``, ``lanes``, ``direction`` and so on.

    Raises:
        ValueError: a variable without a format, by layer and field; or a field that is refused.
    """
    found: list[tuple[dict[str, Any], int]] = []
    for one in formats_for(model, precision):
        own = {name: getattr(one, name) for name in GRIDS}
        if found and found[-1][0] == own:
            found[-1] = (own, found[-1][1] + one.elements)
        else:
            found.append((own, one.elements))
    return [ThrottleConfig.of_law(law, elements=size, **own, **settings) for own, size in found]


def segments_for(
    model: Model, precision: PrecisionDict | dict[str, Any], law: str = "stability_margin", **settings: Any
) -> ThrottleConfig | None:
    """The configuration of one unit with a segment for each variable; None where their formats are not those of one unit.

    They are if all weights have one width and the same modes, and so have all updates, each as far from its weight's grid as the
    others from theirs; and if no grid is more than seven bits finer than the coarsest. Gradients may be of any formats: they
    come on grids that hold them, with as many bits as that takes. Where there are more variables than a table may have entries,
    neighbours of one scale share a segment. No unit has them that takes one pass (``delay``).
    """
    if settings.get("delay"):
        return None
    laid = _laid(formats_for(model, precision), settings)
    return None if laid is None else ThrottleConfig.of_law(law, **laid, **settings)


def _laid(formats: Sequence[Formats], settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields of one unit with a segment for each of these variables; None where no unit has them."""
    coarsest = min(one.weight.fraction_bits for one in formats)
    scales = [one.weight.fraction_bits - coarsest for one in formats]
    same = {(one.weight.finer(-scale), one.update.finer(-scale)) for one, scale in zip(formats, scales, strict=True)}
    if len(same) > 1 or max(scales) > settings.get("scale_max", MOST_SCALE):
        return None
    ((weight, update),) = same
    integer = max(one.gradient.integer_bits + scale for one, scale in zip(formats, scales, strict=True))
    fraction = max(one.gradient.fraction_bits - scale for one, scale in zip(formats, scales, strict=True))
    if integer + fraction > MAX_FORMAT_WIDTH:
        return None
    layout = [
        Segment(one.elements, scale, f"{one.variable.layer}/{one.variable.name}")
        for one, scale in zip(formats, scales, strict=True)
    ]
    most = settings.get("entries") or LIMITS["entries"][1]
    if len(layout) > most:
        layout = merged(layout)
    if len(layout) > most:
        return None
    elements = sum(one.elements for one in formats)
    return {
        "elements": elements,
        "gradient": Fixed(True, integer, fraction),
        "weight": weight,
        "update": update,
        "segments": layout,
    }


class Unit(NamedTuple):
    """A shard of a model's unit: its configuration, and the elements of theta that it holds, integers, (N_k,)."""

    config: ThrottleConfig
    place: NDArray[np.int64]


def shards_for(
    model: Model, precision: PrecisionDict | dict[str, Any], law: str = "stability_margin", **settings: Any
) -> list[Unit]:
    """The shards of a model whose variables have several widths: as few as hold them, wherever in theta they lie.

    Variables that could be segments of one unit (:func:`segments_for`) are in one shard: without segments where their formats are
    the same, with one for each otherwise. With ``delay`` a shard has none, and holds variables of equal formats.

    Raises:
        ValueError: as :func:`configs_for`.
    """
    groups: list[list[Formats]] = []
    for one in formats_for(model, precision):
        for group in groups:
            if _alike([*group, one]) or (not settings.get("delay") and _laid([*group, one], settings)):
                group.append(one)
                break
        else:
            groups.append([one])
    found = []
    for group in groups:
        place = np.concatenate([np.arange(one.variable.place.start, one.variable.place.stop) for one in group])
        if _alike(group):
            fields: dict[str, Any] = {name: getattr(group[0], name) for name in GRIDS} | {"elements": place.size}
        else:
            laid = _laid(group, settings)
            assert laid is not None
            # No finer grid than there is: the energies of all shards meet on the finest that any may have.
            fields = laid | {"scale_max": max(segment.scale for segment in laid["segments"])}
        found.append(Unit(ThrottleConfig.of_law(law, **fields, **settings), place))
    return found


def _alike(formats: Sequence[Formats]) -> bool:
    """Whether they are the same but for their variables."""
    return len({one[1:] for one in formats}) == 1


def merged(segments: Sequence[Segment]) -> list[Segment]:
    """Neighbours of one scale as one segment, which has the first one's name."""
    made: list[Segment] = []
    for segment in segments:
        if made and made[-1].scale == segment.scale:
            made[-1] = replace(made[-1], elements=made[-1].elements + segment.elements)
        else:
            made.append(segment)
    return made


def unit_for(
    model: Model,
    precision: PrecisionDict | dict[str, Any],
    law: str = "stability_margin",
    *,
    motion: str | None = None,
    **settings: Any,
) -> Throttle:
    """The golden unit of a model on the formats of its layers, with the model's weights rounded onto them.

    Where the variables have one format it is a plain unit, unless ``settings`` ask for room for other networks; where they differ
    in their binary points alone, one unit with a segment for each (:func:`segments_for`), which is one piece of hardware; else
    shards (:func:`shards_for`), with segments where a width has several binary points.

    Args:
        model, precision, law, settings: see :func:`configs_for`.
        motion: in the place of the default, which is ``intended`` where formats differ.

    Raises:
        ValueError: as :func:`configs_for`; or room for segments where it takes shards.
    """
    plain = {name: value for name, value in settings.items() if name not in OF_SEGMENTS}
    configs, theta = configs_for(model, precision, law, **plain), np.asarray(model.theta, np.float64)
    if len(configs) == 1 and plain == settings:
        config = configs[0] if motion is None else configs[0].replace(motion=motion)
        return Throttle(config, first_weights(theta, config))
    laid = segments_for(model, precision, law, **settings)
    if laid is not None:
        laid = laid if motion is None else laid.replace(motion=motion)
        return Throttle(laid, first_weights(theta, laid))
    for name in settings.keys() - plain.keys():
        raise ValueError(
            f"{name} must not be given for formats that take shards, which have no room for others, not {settings[name]!r}"
        )
    units = shards_for(model, precision, law, **plain)
    starts = [first_codes(theta[unit.place], unit.config) for unit in units]
    return ShardedThrottle(
        [unit.config for unit in units], starts, codes=True, motion=motion, places=[unit.place for unit in units]
    )


def grids_of(unit: Datapath, model_variables: Sequence[Variable]) -> list[Grids]:
    """The grids that each variable is on in a unit.

    Raises:
        ValueError: a variable lies in shards of different formats.
    """
    parts: Sequence[ThrottleConfig] = getattr(unit, "parts", [unit.config])
    places: Sequence[Any] = getattr(unit, "places", [slice(0, unit.config.elements)])
    return grids_in(parts, places, model_variables)


def grids_in(parts: Sequence[ThrottleConfig], places: Sequence[Any], model_variables: Sequence[Variable]) -> list[Grids]:
    """The grids that each variable is on in shards of these configurations, or one, that hold these elements of theta.

    Raises:
        ValueError: a variable lies in shards or segments of different formats.
    """
    held, grids = np.full(sum(part.elements for part in parts), -1), list[Grids]()
    for part, place in zip(parts, places, strict=True):
        number, numbers = len(grids), np.empty(part.elements, np.int64)
        for k, (segment, own) in enumerate(slices(part.segments or [Segment(part.elements)])):
            grids.append(part.grids_at(segment.scale))
            numbers[own] = number + k
        held[place] = numbers
    found = []
    for variable in model_variables:
        if variable.place.stop > held.size:
            raise ValueError(f"throttle must have as many elements as the model, not {held.size}")
        own_grids = {grids[k] for k in np.unique(held[variable.place])}
        if len(own_grids) > 1:
            kind = "segments of one scale" if len(parts) == 1 else "shards of one format"
            raise ValueError(f"throttle must have {variable.layer}/{variable.name} in {kind}")
        found.append(own_grids.pop())
    return found


def first_weights(theta: NDArray[Any], config: ThrottleConfig) -> NDArray[np.float64]:
    """Weights as real values on the grids of a unit, those of a segment on its own, rounded once and within its rails."""
    return real_of(first_codes(theta, config), config, "weight")


def first_codes(theta: NDArray[Any], config: ThrottleConfig) -> NDArray[Any]:
    """The same as codes."""
    vector = np.asarray(theta, np.float64)
    parts = slices(config.segments or [Segment(config.elements)])
    return np.concatenate([quantise(vector[place], config.grids_at(segment.scale).weight, "weights") for segment, place in parts])
