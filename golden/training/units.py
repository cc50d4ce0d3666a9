"""The unit of a model whose layers have formats of their own: shards, one for each stretch of equal formats, under one law."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config import ThrottleConfig
from ..network.layers import Layer, Variable, variables
from ..network.precision import PrecisionDict, ensure_precision_dict
from ..network.quantisers import STORAGE
from ..rounding import quantise
from ..sharded import ShardedThrottle
from ..throttle import Datapath, Throttle
from ..widths import Grids


class Model(Protocol):
    """What is asked of a model: its layers, and its trainable variables as one vector, in their order."""

    @property
    def layers(self) -> Sequence[Layer]: ...

    @property
    def theta(self) -> NDArray[Any]: ...


def configs_for(
    model: Model, precision: PrecisionDict | dict[str, Any], law: str = "stability_margin", **settings: Any
) -> list[ThrottleConfig]:
    """The configuration of each stretch of neighbouring variables with equal formats, in the order of theta.

    A kernel has the layer's ``weight``, a bias its ``bias``, other variables its ``value``; ``gradient`` and ``update`` are the
    layer's. :func:`~kappa_rtl.golden.together.together` makes shards of them, each of which can be exported.

    Args:
        precision: names formats for all of them; float has no hardware.
        law: a published law, whose parameters are among ``settings``.
        settings: other fields of a configuration, the same for all: ``eta``, ``lanes``, ``direction`` and so on.

    Raises:
        ValueError: a variable without a format, by layer and field; or a field that is refused.
    """
    formats = ensure_precision_dict(precision)
    if formats is None:
        raise ValueError("precision must name formats, not None: float has no hardware")
    formats.validate([layer.name for layer in model.layers])
    found: list[tuple[dict[str, Any], int]] = []
    for variable in variables(model.layers):
        own = {}
        for field, of_layer in (("gradient", "gradient"), ("weight", STORAGE.get(variable.name, "value")), ("update", "update")):
            own[field] = formats.dtype(variable.layer, of_layer)
            if own[field] is None:
                raise ValueError(
                    f"precision of {variable.layer}.{of_layer} must be a format, not None: {variable.layer}/{variable.name} "
                    "is in hardware"
                )
        size = variable.place.stop - variable.place.start
        if found and found[-1][0] == own:
            found[-1] = (own, found[-1][1] + size)
        else:
            found.append((own, size))
    return [ThrottleConfig.of_law(law, elements=size, **own, **settings) for own, size in found]


def unit_for(
    model: Model,
    precision: PrecisionDict | dict[str, Any],
    law: str = "stability_margin",
    *,
    motion: str | None = None,
    **settings: Any,
) -> Throttle:
    """The golden unit of a model on the formats of its layers, with the model's weights rounded onto them.

    Args:
        model, precision, law, settings: see :func:`configs_for`.
        motion: in the place of the default, which is ``intended`` where formats differ.
    """
    configs, theta = configs_for(model, precision, law, **settings), np.asarray(model.theta, np.float64)
    slices = np.split(theta, np.cumsum([config.elements for config in configs])[:-1])
    starts = [quantise(part, config.grids.weight, "weights") for part, config in zip(slices, configs, strict=True)]
    if len(configs) == 1:
        config = configs[0] if motion is None else configs[0].replace(motion=motion)
        return Throttle(config, starts[0], codes=True)
    return ShardedThrottle(configs, starts, codes=True, motion=motion)


def grids_of(unit: Datapath, model_variables: Sequence[Variable]) -> list[Grids]:
    """The grids that each variable is on in a unit.

    Raises:
        ValueError: a variable lies in shards of different formats.
    """
    parts: Sequence[ThrottleConfig] = getattr(unit, "parts", [unit.config])
    ends = np.cumsum([part.elements for part in parts])
    found = []
    for variable in model_variables:
        first, last = (int(np.searchsorted(ends, at, side="right")) for at in (variable.place.start, variable.place.stop - 1))
        if last >= len(parts):
            raise ValueError(f"throttle must have as many elements as the model, not {ends[-1]}")
        if any(part.grids != parts[first].grids for part in parts[first : last + 1]):
            raise ValueError(f"throttle must have {variable.layer}/{variable.name} in shards of one format")
        found.append(parts[first].grids)
    return found
