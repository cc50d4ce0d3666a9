"""Shards of different formats under one law: what they must have in common, and the formats in which their energies meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .config import MAX_FORMAT_WIDTH, Motion, ThrottleConfig
from .formats import Fixed
from .segments import MOST_SCALE

OWN = (
    *("elements", "lanes", "gradient", "weight", "update", "direction", "random_bits", "seed", "residual_bits"),
    *("segments", "entries", "scale_max", "capacity"),
)
"""What shards of one unit need not have in common."""


def together(
    configs: Sequence[ThrottleConfig], *, motion: Motion | str | None = None
) -> tuple[ThrottleConfig, list[ThrottleConfig]]:
    """Units that are to be shards of one: the configuration of the whole, and that of each shard.

    The whole has formats that hold those of all shards, so that A, B and all that follows from them are on its grids, and a
    weight of any shard is one of its weights. A shard's own A and B are exact integers, which static shifts bring onto those
    grids. A segment lies within one shard; the whole has none. Shard k draws its random numbers, if any, with its seed + k. Where
    formats differ, motions that are the default become ``intended``; ``motion`` says otherwise.

    Args:
        configs: of each shard, none with a ``population``.
        motion: of all of them, in the place of their own.

    Raises:
        ValueError: they differ in what they must have in common, or no format holds them; names the field and the values.

    >>> whole, shards = together([ThrottleConfig(elements=4, eta=0.5), ThrottleConfig(elements=2, eta=0.5, weight="SQ4.4")])
    >>> whole.elements, str(whole.weight), shards[1].motion_shift, str(shards[1].weight_grid)
    (6, 'SQ4.14', 0, 'SQ4.14')
    """
    if not configs:
        raise ValueError("configs must be of one shard at least, not []")
    first = configs[0]
    for k, config in enumerate(configs):
        if not isinstance(config, ThrottleConfig):
            raise ValueError(f"configs[{k}] must be a ThrottleConfig, not {config!r}")
        if config.population is not None:
            raise ValueError(f"configs[{k}].population must not be given, not {config.population}: it is that of all shards")
        if config.room != config.elements:
            raise ValueError(
                f"configs[{k}].capacity must be its elements = {config.elements} beside other shards, not {config.capacity}: "
                "their widths and constants are of all elements that there are"
            )
    total = sum(config.elements for config in configs)
    alike = all(_formats(config) == _formats(first) and not config.segments for config in configs)
    shared: dict[str, Any] = {} if alike else {f"{name}_grid": fmt for name, fmt in _containers(configs).items()}
    asked = {config.motion for config in configs}
    if motion is None and len(asked) == 1 and any(config.motion is not config.default_motion for config in configs):
        (motion,) = asked  # one of them at least was given it, and all have it
    if motion is not None:
        shared["motion"] = motion
    shards = [config.replace(population=total, seed=(config.seed + k) % (1 << 32), **shared) for k, config in enumerate(configs)]
    for field in (f.name for f in dataclasses.fields(ThrottleConfig) if f.name not in OWN):
        for k, shard in enumerate(shards):
            found, wanted = getattr(shard, field), getattr(shards[0], field)
            if found != wanted:
                raise ValueError(
                    f"{field} must be the same in all shards, not {_said(wanted)} in shard 0 and {_said(found)} in {k}"
                )
    if alike:
        return first.replace(elements=total, motion=shards[0].motion), shards
    return _whole(first, configs, shards[0].motion, total), shards


def _whole(first: ThrottleConfig, configs: Sequence[ThrottleConfig], motion: Any, total: int) -> ThrottleConfig:
    grids = _containers(configs)
    update = _container("update", [config.grids.update.extended(config.finest) for config in configs])
    kept = max(config.residual_bits for config in configs)
    one = {"segments": (), "entries": 0, "scale_max": MOST_SCALE, "capacity": None}
    try:
        return first.replace(elements=total, update=update, residual_bits=kept, motion=motion, **one, **grids)
    except ValueError as error:
        raise ValueError(f"shards of different formats, taken together: {error}") from None


def _containers(configs: Sequence[ThrottleConfig]) -> dict[str, Fixed]:
    """The least formats that hold all gradients, all weights and, if a shard has a grid of its own for it, all directions.

    Of a shard with segments those of any that it may have.
    """
    names = ("gradient", "weight", "direction")[: 3 if any(config.direction is not None for config in configs) else 2]
    return {name: _container(name, [getattr(one.grids, name).extended(one.finest) for one in configs]) for name in names}


def _container(name: str, formats: Sequence[Fixed]) -> Fixed:
    integer, fraction = max(fmt.integer_bits for fmt in formats), max(fmt.fraction_bits for fmt in formats)
    if integer + fraction > MAX_FORMAT_WIDTH:
        names = ", ".join(dict.fromkeys(fmt.name for fmt in formats))
        raise ValueError(
            f"{name}: what holds {names} of the shards, scale_max of each included, must be at most {MAX_FORMAT_WIDTH} bits "
            f"wide, not {integer + fraction}"
        )
    return Fixed(True, integer, fraction)


def _formats(config: ThrottleConfig) -> tuple[Any, ...]:
    return (*config.grids, config.direction, config.residual_bits, config.random_bits)


def _said(value: Any) -> str:
    return str(getattr(value, "value", value))
