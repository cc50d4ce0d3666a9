"""One unit in several shards, of one format or of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checkpoint import State, same
from .config import Motion, ThrottleConfig
from .engines import Engine, shards
from .numbers import item
from .parts import Parts, Place
from .throttle import Exchange, Throttle, check_config
from .together import together


class ShardedThrottle(Throttle):
    """Units that hold slices of one theta and exchange two exact integers a step; together they are one unit of all of it.

    Given a list of configurations the shards may have formats of their own, see :func:`~kappa_rtl.golden.together.together`.
    Then ``config`` is that of a unit whose formats hold those of all shards; theta, its updates and what ``step`` is given are
    codes or values of its grids, those of a shard on the shard's own coarser ones; and ``step`` takes lists too, a vector a
    shard, each with values or codes of the shard's own grid.

    Args:
        config: formats, law and the size of the whole; or a list with those of each shard.
        weights, codes: the initial theta, (N,), as for :class:`Throttle`; or a list, a vector a shard.
        sizes: elements of each shard, in order, where one configuration is given; their sum is N.
        motion: of all shards, in the place of the one that their configurations have, where a list is given.
        places: the elements of theta that each shard of a list holds, integers; one after the other if not given.
        held: the shards that are held here, by number, where a list is given; all by default. Vectors are then of these.
        exchange: sums integers of the held shards over all; called twice a step, with A, and with B and whether a weight moved.
        engine, threads: as for :class:`Throttle`.

    Raises:
        ValueError: the sizes are not positive integers or do not sum to N; the shards do not belong together.

    >>> unit = ShardedThrottle([ThrottleConfig(elements=1, eta=0.5), ThrottleConfig(elements=1, eta=0.5, weight="SQ4.2")], [0, 1])
    >>> unit.step([0.25, 1.0]).weights.tolist()
    [-0.125, 0.5]
    """

    def __init__(
        self,
        config: ThrottleConfig | Sequence[ThrottleConfig],
        weights: ArrayLike | Sequence[ArrayLike],
        sizes: Sequence[int] | None = None,
        *,
        codes: bool | None = None,
        motion: Motion | str | None = None,
        places: Sequence[ArrayLike] | None = None,
        held: Sequence[int] | None = None,
        exchange: Exchange | None = None,
        engine: Engine = "numpy",
        threads: int = 1,
    ) -> None:
        if isinstance(config, (list, tuple)):
            if sizes is not None:
                raise ValueError(f"sizes must not be given with a list of configurations, which have them, not {sizes!r}")
            configs = list(config)
        else:
            check_config(config)
            assert isinstance(config, ThrottleConfig)
            config.refuse_segments("to a unit of several shards")
            configs = [config.replace(elements=size) for size in _sizes(sizes, config.elements)]
        whole, parts = together(configs, motion=motion)
        here = range(len(parts)) if held is None else held
        if any(not isinstance(k, int) or not 0 <= k < len(parts) for k in here) or len({*here}) != len(here) or not len(here):
            raise ValueError(f"held must be numbers of shards from 0 to {len(parts) - 1}, each once, not {list(here)!r}")
        if exchange is None and len(here) < len(parts):
            raise ValueError(f"exchange must be given where only some shards are held, {list(here)} of {len(parts)}")
        if places is not None and (sizes is not None or len(here) < len(parts)):
            raise ValueError("places must not be given with sizes, nor where only some shards are held")
        self._given, self._parts = [configs[k] for k in here], [parts[k] for k in here]
        self._places = Parts(whole, self._parts, places)
        self._config, self._sizes = whole, [part.elements for part in self._parts]
        make = shards(engine, threads)
        vectors = self._split(weights, "weight", "weights", codes)
        self._begin(whole, [make(part, vector) for part, vector in zip(self._parts, vectors, strict=True)])
        if exchange is not None:
            self._exchange = exchange

    @property
    def configs(self) -> list[ThrottleConfig]:
        """What was given of each shard that is held."""
        return list(self._given)

    @property
    def parts(self) -> list[ThrottleConfig]:
        """The configuration of each shard that is held: what was given, and how it meets the others."""
        return list(self._parts)

    @property
    def places(self) -> list[Place]:
        """The elements of theta of each shard that is held."""
        return list(self._places.places)

    @property
    def residual(self) -> NDArray[Any]:
        """As that of one unit, (N,)."""
        kept = [np.zeros(s.config.elements, np.int8) if s.residual is None else s.residual for s in self._shards]
        return self._places.place(kept)

    @property
    def thetas(self) -> list[NDArray[Any]]:
        """The weights of each shard that is held, codes of its own grid."""
        return [shard.codes for shard in self._shards]

    def state_dict(self) -> State:
        """As that of one unit; of shards with formats of their own also the configuration of each."""
        parts: State = {"parts": [part.to_table() for part in self._parts]} if self._places.mixed else {}
        places: State = {} if self._places.given is None else {"places": self._places.given}
        return super().state_dict() | parts | places

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._places.mixed and "parts" in state:
            same("parts", state["parts"], [part.to_table() for part in self._parts])
        if self._places.given is not None and "places" in state:
            same("places", state["places"], self._places.given)
        super().load_state_dict(state)

    def _split(self, tensor: Any, grid: str, name: str, codes: bool | None) -> list[NDArray[Any]]:
        return self._places.split(tensor, grid, name, codes)

    def _join(self, slices: Sequence[NDArray[Any]], grid: str) -> NDArray[Any]:
        joined = self._places.join(slices, grid)
        joined.flags.writeable = False
        return joined


def _sizes(sizes: Sequence[int] | None, elements: int) -> list[int]:
    counts = [item(size) for size in sizes or ()]
    if not all(isinstance(size, int) and size > 0 for size in counts) or sum(counts) != elements:
        said = None if sizes is None else list(sizes)
        raise ValueError(f"sizes must be positive integers with the sum elements = {elements}, not {said!r}")
    return counts
