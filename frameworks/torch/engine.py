"""The elements of a shard as tensors, on the device of the parameters.

A fourth computation of the contract, compared with the golden unit's and never trusted alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...golden.checkpoint import State
from ...golden.config import Source, ThrottleConfig
from ...golden.random import DRAW_BITS, LaneGenerators
from ...golden.shard import Absorbed, Shard
from ...golden.update import Tally
from . import passes
from .codes import dtype_of


class TorchShard(Shard):
    """As :class:`~kappa_rtl.golden.shard.Shard`, its vectors tensors on a device; its state are arrays all the same.

    Random numbers are drawn on the host, since a generator's draws follow one another, and brought to the device.

    Args:
        config: formats, law and size.
        weights: the initial theta as codes, an array (N,).
        device: of torch.
        compile: run both passes through ``torch.compile``.
    """

    theta: Any
    residual: Any
    _previous: Any

    def __init__(self, config: ThrottleConfig, weights: Any, device: Any, compile: bool = False) -> None:
        self.config, self._device = config, torch.device(device)
        self.theta = torch.as_tensor(np.array(weights), device=self._device)
        self._previous = torch.zeros(config.elements, dtype=dtype_of(config.grids.gradient), device=self._device)
        kept = torch.zeros(config.elements, dtype=torch.int8, device=self._device)
        self.residual = kept if config.residual_bits else None
        self._generators = LaneGenerators(config.lane_seeds) if config.stochastic else None
        self._absorb, self._apply = passes.absorb_of(config), passes.apply_of(config)
        if compile:
            self._absorb, self._apply = (torch.compile(one, dynamic=False) for one in (self._absorb, self._apply))

    @property
    def codes(self) -> Any:
        return _array(self.theta)

    def state_dict(self) -> State:
        return {
            "theta": _array(self.theta),
            "previous": _array(self._previous),
            "residual": None if self.residual is None else _array(self.residual),
            "generators": None if self._generators is None else self._generators.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.theta = torch.as_tensor(state["theta"].copy(), device=self._device)
        self._previous = torch.as_tensor(state["previous"].copy(), device=self._device)
        if self.residual is not None:
            self.residual = torch.as_tensor(state["residual"].copy(), device=self._device)
        if self._generators is not None:
            self._generators.load_state_dict(state["generators"])

    def absorb(self, gradient: Any) -> Absorbed:
        found = self._absorb(gradient, self._previous).tolist()
        self._previous = gradient
        shifts = [stretch.gradient_shift for stretch in self.config.stretches]
        ends = 3 * len(shifts)
        total = passes.whole(found[:ends], shifts)
        norm = passes.whole(found[ends : 2 * ends], shifts) if Source(self.config.source).is_curvature else total
        return Absorbed(total, norm, *found[2 * ends :])

    def apply(self, direction: Any, step: int) -> tuple[Any, Tally]:
        config = self.config
        size = torch.tensor(step, device=self._device)
        self.theta, update, self.residual, sums = self._apply(direction, self.theta, self.residual, self._lift(), size)
        found = sums.tolist()
        shifts = [stretch.motion_shift for stretch in config.stretches]
        ends = 7 + 3 * len(shifts)
        tally = Tally(
            motion_energy=passes.whole(found[7:ends], shifts),
            update_saturated=found[0],
            update_underflow=found[1],
            weight_saturated=found[4],
            weight_near_rail=found[5],
            moved=config.asks_moved and found[6] > 0,
        )
        if config.every_rail:
            tally.update_rail, tally.update_near_rail = found[2:4]
        if config.source is Source.RATIO:
            tally.weight_energy = passes.whole(found[ends:], shifts)
        return update, tally

    def _lift(self) -> Any:
        """What stochastic rounding adds; see :func:`~kappa_rtl.golden.rounding.random_lift`."""
        config, shift = self.config, self.config.widths.update_shift
        draws = self._draws()
        if draws is None or shift <= 0:
            return 0
        lift = 2 * torch.as_tensor((draws >> DRAW_BITS - config.random_bits).astype(np.int64), device=self._device) + 1
        places = shift - config.random_bits - 1
        return lift << places if places >= 0 else lift >> -places


def _array(tensor: Any) -> Any:
    return tensor.cpu().numpy().copy()
