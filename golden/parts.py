"""Which elements of a theta each shard holds, and on which grids: vectors of the whole cut up, and put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import ThrottleConfig
from .rounding import storage_dtype, values
from .segments import scales
from .throttle import codes_of

Place = slice | NDArray[Any]
"""Elements of theta, in order: neighbours, or whichever."""


class Parts:
    """The elements of shards among those of all.

    Args:
        whole: the configuration of all of them, of which these may be some.
        configs: that of each shard.
        places: the elements of theta that each holds, integers, (N_k,); one after the other if not given.

    Raises:
        ValueError: places that are not of the shards' sizes, or not each element once.
    """

    def __init__(
        self, whole: ThrottleConfig, configs: Sequence[ThrottleConfig], places: Sequence[ArrayLike] | None = None
    ) -> None:
        self.whole, self.configs = whole, list(configs)
        self.elements = sum(config.elements for config in configs)
        self.mixed = any(config.weight_grid is not None for config in configs)
        ends = np.cumsum([config.elements for config in configs]).tolist()
        self.places: list[Place] = [slice(end - one.elements, end) for one, end in zip(configs, ends, strict=True)]
        self.given: list[list[int]] | None = None
        if places is not None:
            self._put(places)

    def _put(self, places: Sequence[ArrayLike]) -> None:
        if len(places) != len(self.configs):
            raise ValueError(f"places must be {len(self.configs)}, one a shard, not {len(places)}")
        found = [np.asarray(place) for place in places]
        for k, (place, config) in enumerate(zip(found, self.configs, strict=True)):
            if place.dtype.kind not in "iu" or place.shape != (config.elements,):
                raise ValueError(f"places[{k}] must be {config.elements} integers, not {place.dtype} of shape {place.shape}")
        if not np.array_equal(np.sort(np.concatenate(found)), np.arange(self.elements)):
            raise ValueError(f"places must have each element from 0 to {self.elements - 1} once")
        self.places = list(found)
        self.given = [place.tolist() for place in found]

    def split(self, tensor: ArrayLike | Sequence[ArrayLike], grid: str, name: str, codes: bool | None) -> list[NDArray[Any]]:
        """The codes of each shard, on its own grids: of a vector of all, of values or codes of the whole; or of one a shard.

        Raises:
            ValueError: a wrong shape; a value that is not finite, off a shard's grid or beyond it.
        """
        if _is_vectors(tensor):
            given: Any = tensor
            if len(given) != len(self.configs):
                raise ValueError(f"{name} must have {len(self.configs)} vectors, one a shard, not {len(given)}")
            found = []
            for k, (vector, config) in enumerate(zip(given, self.configs, strict=True)):
                found.append(codes_of(vector, config, grid, f"{name}[{k}]", codes=codes))
                if found[-1].shape != (config.elements,):
                    raise ValueError(f"{name}[{k}] must have shape ({config.elements},), not {found[-1].shape}")
            return found
        whole: Any = tensor
        array = codes_of(whole, self.whole, grid, name, codes=codes)
        if array.shape != (self.elements,):
            raise ValueError(f"{name} must have shape ({self.elements},), not {array.shape}")
        slices = [array[place] for place in self.places]
        if not self.mixed:
            return slices
        fmt = getattr(self.whole.grids, grid)
        return [
            codes_of(values(own, fmt), config, grid, f"{name} of shard {k}", codes=False)
            for k, (own, config) in enumerate(zip(slices, self.configs, strict=True))
        ]

    def join(self, slices: Sequence[NDArray[Any]], grid: str) -> NDArray[Any]:
        """The codes of all, (N,), on the grid of the whole."""
        return self.place([self._lifted(codes, config, grid) for codes, config in zip(slices, self.configs, strict=True)])

    def _lifted(self, codes: NDArray[Any], config: ThrottleConfig, grid: str) -> NDArray[Any]:
        if not self.mixed:
            return codes
        whole = getattr(self.whole.grids, grid)
        shift: Any = whole.fraction_bits - getattr(config.grids, grid).fraction_bits
        if config.segments:
            shift = shift - scales(config.segments)
        lifted: NDArray[Any] = np.left_shift(codes, shift, dtype=storage_dtype(whole))
        return lifted

    def place(self, slices: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """What the shards have of each element, in the order of theta."""
        if self.given is None:
            return np.concatenate(slices)
        found = np.empty(self.elements, slices[0].dtype)
        for place, own in zip(self.places, slices, strict=True):
            found[place] = own
        return found


def _is_vectors(tensor: Any) -> bool:
    """Whether it is a list of vectors, and not one vector."""
    return isinstance(tensor, (list, tuple)) and bool(tensor) and all(np.ndim(vector) == 1 for vector in tensor)
