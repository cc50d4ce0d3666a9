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
from .rounding import storage_dtype, values
from .segments import scales
from .throttle import Exchange, Throttle, check_config, codes_of
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
        held: Sequence[int] | None = None,
        exchange: Exchange | None = None,
        engine: Engine = "numpy",
        threads: int = 1,
    ) -> None:
        if isinstance(config, (list, tuple)):
            if sizes is not None:
                raise ValueError(f"sizes must not be given with a list of configurations, which have them, not {sizes!r}")
            whole, parts = together(config, motion=motion)
        else:
            check_config(config)
            assert isinstance(config, ThrottleConfig)
            config.refuse_segments("to a unit of several shards")
            whole, parts = together([config.replace(elements=size) for size in _sizes(sizes, config.elements)])
        here = range(len(parts)) if held is None else held
        if any(not isinstance(k, int) or not 0 <= k < len(parts) for k in here) or len({*here}) != len(here) or not len(here):
            raise ValueError(f"held must be numbers of shards from 0 to {len(parts) - 1}, each once, not {list(here)!r}")
        if exchange is None and len(here) < len(parts):
            raise ValueError(f"exchange must be given where only some shards are held, {list(here)} of {len(parts)}")
        self._parts = [parts[k] for k in here]
        self._mixed = any(part.weight_grid is not None for part in parts)
        self._config, self._sizes = whole, [part.elements for part in self._parts]
        make = shards(engine, threads)
        vectors = self._split(weights, "weight", "weights", codes)
        self._begin(whole, [make(part, vector) for part, vector in zip(self._parts, vectors, strict=True)])
        if exchange is not None:
            self._exchange = exchange

    @property
    def parts(self) -> list[ThrottleConfig]:
        """The configuration of each shard that is held."""
        return list(self._parts)

    @property
    def thetas(self) -> list[NDArray[Any]]:
        """The weights of each shard that is held, codes of its own grid."""
        return [shard.codes for shard in self._shards]

    def state_dict(self) -> State:
        """As that of one unit; of shards with formats of their own also the configuration of each."""
        parts = {"parts": [part.to_table() for part in self._parts]} if self._mixed else {}
        return super().state_dict() | parts

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self._mixed and "parts" in state:
            same("parts", state["parts"], [part.to_table() for part in self._parts])
        super().load_state_dict(state)

    def _split(self, tensor: Any, grid: str, name: str, codes: bool | None) -> list[NDArray[Any]]:
        if _is_vectors(tensor):
            if len(tensor) != len(self._parts):
                raise ValueError(f"{name} must have {len(self._parts)} vectors, one a shard, not {len(tensor)}")
            found = []
            for k, (vector, part) in enumerate(zip(tensor, self._parts, strict=True)):
                found.append(codes_of(vector, part, grid, f"{name}[{k}]", codes=codes))
                if found[-1].shape != (part.elements,):
                    raise ValueError(f"{name}[{k}] must have shape ({part.elements},), not {found[-1].shape}")
            return found
        slices = super()._split(tensor, grid, name, codes)
        if not self._mixed:
            return slices
        fmt = getattr(self.config.grids, grid)
        return [
            codes_of(values(own, fmt), part, grid, f"{name} of shard {k}", codes=False)
            for k, (own, part) in enumerate(zip(slices, self._parts, strict=True))
        ]

    def _join(self, slices: Sequence[NDArray[Any]], grid: str) -> NDArray[Any]:
        if not self._mixed:
            return super()._join(slices, grid)
        whole = getattr(self.config.grids, grid)
        lifted = []
        for codes, part in zip(slices, self._parts, strict=True):
            shift: Any = whole.fraction_bits - getattr(part.grids, grid).fraction_bits
            if part.segments:
                shift -= scales(part.segments)
            lifted.append(np.left_shift(codes, shift, dtype=storage_dtype(whole)))
        return super()._join(lifted, grid)


def _is_vectors(tensor: Any) -> bool:
    """Whether it is a list of vectors, and not one vector."""
    return isinstance(tensor, (list, tuple)) and bool(tensor) and all(np.ndim(vector) == 1 for vector in tensor)


def _sizes(sizes: Sequence[int] | None, elements: int) -> list[int]:
    counts = [item(size) for size in sizes or ()]
    if not all(isinstance(size, int) and size > 0 for size in counts) or sum(counts) != elements:
        said = None if sizes is None else list(sizes)
        raise ValueError(f"sizes must be positive integers with the sum elements = {elements}, not {said!r}")
    return counts
