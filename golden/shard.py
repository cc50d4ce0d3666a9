"""The elements of a unit, or of one shard of many: what is done to each, and the exact sums over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .checkpoint import State
from .config import Source, ThrottleConfig
from .formats import Fixed
from .norm import BLOCK, difference, energy, inner
from .random import LaneGenerators
from .rounding import on_grid, storage_dtype
from .segments import in_beats
from .update import Tally, apply_update, rails, span_of


class Absorbed(NamedTuple):
    """What was seen of G: A, the sum of squares of G itself where that is watched, and the elements on a rail and near one.

    With the source ``projection`` A is the sum before it is cut off at zero.
    """

    energy: int
    norm_energy: int
    on_rail: int
    near_rail: int


class Shard:
    """theta, P, the residuals and the generators of the elements of one configuration.

    Args:
        config: formats, law and size.
        weights: the initial theta as codes, (N,).
    """

    def __init__(self, config: ThrottleConfig, weights: NDArray[Any]) -> None:
        self.config = config
        self.theta = weights
        self._previous = np.zeros(config.elements, storage_dtype(config.grids.gradient))
        self.residual = np.zeros(config.elements, np.int8) if config.residual_bits else None
        self._generators = LaneGenerators(config.lane_seeds) if config.stochastic else None

    @property
    def codes(self) -> NDArray[Any]:
        """theta as an array, (N,), on whatever device it is."""
        return self.theta

    def state_dict(self) -> State:
        """theta, P, the residuals and the generators, as copies; None where there are none."""
        return {
            "theta": self.theta.copy(),
            "previous": self._previous.copy(),
            "residual": None if self.residual is None else self.residual.copy(),
            "generators": None if self._generators is None else self._generators.state_dict(),
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse codes that are not on their grids; the make of the state is right already."""
        grids = self.config.grids
        on_grid(state["theta"], grids.weight, "theta", codes=True)
        on_grid(state["previous"], grids.gradient, "previous", codes=True)
        if self.residual is not None:
            on_grid(state["residual"], Fixed(True, self.config.residual_bits, 0), "residual", codes=True)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checked state."""
        self.theta, self._previous = state["theta"].copy(), state["previous"].copy()
        self.theta.flags.writeable = False
        self.residual = None if state["residual"] is None else state["residual"].copy()
        if self._generators is not None:
            self._generators.load_state_dict(state["generators"])

    def absorb(self, gradient: NDArray[Any]) -> Absorbed:
        """Take G: the energy of its change (by source of itself, or <P, P - G> for a projection), and the counts."""
        config = self.config
        assert isinstance(config.source, Source)
        watched = "gradient_floor" in config.watchdog
        total = norm = saturated = near = 0
        for block, shift in blocks(config):
            if config.source.is_projection:
                total += inner(self._previous[block], difference(self._previous[block], gradient[block])) << shift
                norm += energy(gradient[block]) << shift if watched else 0
            elif config.source.is_curvature:
                total += energy(difference(gradient[block], self._previous[block])) << shift
                norm += energy(gradient[block]) << shift if watched else 0
            else:
                total += energy(gradient[block]) << shift
            counts = rails(gradient[block], config.grids.gradient, span_of(gradient[block]))
            saturated, near = saturated + counts[0], near + counts[1]
        self._previous = gradient
        assert abs(total).bit_length() <= config.widths.gradient_energy, "A is wider than was derived"
        return Absorbed(total, norm if config.source.is_curvature else total, saturated, near)

    def apply(self, direction: NDArray[Any], step: int) -> tuple[NDArray[Any], Tally]:
        """Move theta along ``-direction``: the updates y as codes, (N,), and the tally."""
        config = self.config
        draws = self._draws()
        parts, tally = [], Tally()
        for place, _, shift in config.stretches:
            drawn = None if draws is None else draws[place]
            kept = None if self.residual is None else self.residual[place]
            *moved, own = apply_update(direction[place], self.theta[place], step, config, draws=drawn, residual=kept)
            parts.append(moved)
            tally += own.shifted(shift)
        theta, update = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
        theta.flags.writeable = update.flags.writeable = False
        self.theta = theta
        return update, tally

    def _draws(self) -> NDArray[np.uint16] | None:
        """A draw for every element of the next pass, of its lane in its beat; None where nothing is drawn."""
        config = self.config
        if self._generators is None:
            return None
        drawn = self._generators.draw(config.beats).reshape(-1)
        return drawn[in_beats(config.segments, config.lanes)] if config.segments else drawn[: config.elements]


def blocks(config: ThrottleConfig) -> Iterator[tuple[slice, int]]:
    """The elements in blocks, each with the bits that its part of A is shifted up by."""
    for place, shift, _ in config.stretches:
        for start in range(place.start, place.stop, BLOCK):
            yield slice(start, min(start + BLOCK, place.stop)), shift
