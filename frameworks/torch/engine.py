"""The elements of a shard as tensors, on the device of the parameters: the golden unit's integers, computed by torch.

A fourth computation of the contract, compared with the golden unit's and never trusted alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ...golden.checkpoint import State
from ...golden.config import Source, ThrottleConfig
from ...golden.formats import Fixed, Overflow, Rounding
from ...golden.random import LaneGenerators
from ...golden.shard import Absorbed, Shard
from ...golden.update import Tally
from .codes import dtype_of

LIMB = 16
"""Bits of the lower half in which wide values are squared, so that int64 sums of 2**29 of them are exact."""


class TorchShard(Shard):
    """As :class:`~kappa_rtl.golden.shard.Shard`, its vectors tensors on a device; its state are arrays all the same.

    Random numbers are drawn on the host, since a generator's draws follow one another, and brought to the device.
    """

    theta: Any
    residual: Any
    _previous: Any

    def __init__(self, config: ThrottleConfig, weights: Any, device: Any) -> None:
        self.config, self._device = config, torch.device(device)
        self.theta = torch.as_tensor(np.array(weights), device=self._device)
        self._previous = torch.zeros(config.elements, dtype=dtype_of(config.grids.gradient), device=self._device)
        kept = torch.zeros(config.elements, dtype=torch.int8, device=self._device)
        self.residual = kept if config.residual_bits else None
        self._generators = LaneGenerators(config.lane_seeds) if config.stochastic else None

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
        config, source = self.config, Source(self.config.source)
        previous = self._previous.long()
        change = gradient.long() - previous if source.is_curvature else gradient.long()
        watched = "gradient_floor" in config.watchdog
        total = -_inner(previous, change) if source.is_projection else _inner(change, change)
        norm = _inner(gradient.long(), gradient.long()) if watched and source.is_curvature else total
        saturated, near = _rails(gradient, config.grids.gradient)
        self._previous = gradient
        total <<= config.gradient_shift
        return Absorbed(total, norm if source.is_curvature else total, saturated, near)

    def apply(self, direction: Any, step: int) -> tuple[Any, Tally]:
        config, grids, widths = self.config, self.config.grids, self.config.widths
        weight, update = grids.weight, grids.update
        tally = Tally()
        product = direction.long() * -step
        if self.residual is not None:
            product <<= widths.product_fraction - grids.direction.fraction_bits - grids.step.fraction_bits
            product += self.residual.long() << widths.product_fraction - weight.fraction_bits - config.residual_bits
        rounded = _shift_round(product + self._lift(), widths.update_shift, update.rounding)
        y = _fit(rounded, update)
        low, high = update.rails
        tally.update_saturated = _count((rounded < low) | (rounded > high))
        tally.update_underflow = _count((product != 0) & (y == 0))
        if config.every_rail:
            tally.update_rail, tally.update_near_rail = _rails(y, update)

        old = self.theta.long()
        total = (old << widths.common_fraction - weight.fraction_bits) + (y << widths.common_fraction - update.fraction_bits)
        summed = _shift_round(total, widths.weight_shift, weight.rounding)
        new = _fit(summed, weight)
        if self.residual is not None:
            self.residual = self._kept(
                _fallen(product, rounded, widths.update_shift), _fallen(total, summed, widths.weight_shift)
            )
        low, high = weight.rails
        on_rail = (new <= low) | (new >= high) | (summed < low) | (summed > high)
        tally.weight_saturated, tally.weight_near_rail = _count(on_rail), _count(new.abs() >= weight.near_rail)
        if config.source is Source.RATIO:
            tally.weight_energy = _inner(new, new)
        if config.asks_moved:
            tally.moved = bool((new != old).any())
        moved = direction.long() if config.intended else new - old
        tally.motion_energy = _inner(moved, moved) << config.motion_shift
        self.theta = new.to(dtype_of(weight))
        return y.to(dtype_of(update)), tally

    def _lift(self) -> Any:
        """What stochastic rounding adds; see :func:`~kappa_rtl.golden.rounding.random_lift`."""
        if self._generators is None:
            return 0
        config = self.config
        draws = self._generators.draw(config.beats).reshape(-1)[: config.elements]
        shift = config.widths.update_shift
        if shift <= 0:
            return 0
        lift = 2 * torch.as_tensor((draws >> 16 - config.random_bits).astype(np.int64), device=self._device) + 1
        places = shift - config.random_bits - 1
        return lift << places if places >= 0 else lift >> -places

    def _kept(self, dropped: Any, fell: Any) -> Any:
        config, widths = self.config, self.config.widths
        total = (dropped << widths.dropped_fraction - widths.product_fraction) + (
            fell << widths.dropped_fraction - widths.common_fraction
        )
        total >>= widths.dropped_fraction - config.grids.weight.fraction_bits - config.residual_bits
        rail = 1 << config.residual_bits - 1
        return total.clamp_(-rail, rail - 1).to(torch.int8)


def _array(tensor: Any) -> Any:
    return tensor.cpu().numpy().copy()


def _count(flags: Any) -> int:
    return int(torch.count_nonzero(flags))


def _rails(codes: Any, fmt: Fixed) -> tuple[int, int]:
    low, high = fmt.rails
    wide = codes.long()
    return _count((wide <= low) | (wide >= high)), _count(wide.abs() >= fmt.near_rail)


def _inner(a: Any, b: Any) -> int:
    """``sum(a * b)`` as an exact Python integer, for magnitudes up to 2**33 and up to 2**29 elements."""
    a_high, a_low, b_high, b_low = a >> LIMB, a & (1 << LIMB) - 1, b >> LIMB, b & (1 << LIMB) - 1
    middle = int((a_high * b_low).sum()) + int((a_low * b_high).sum())
    return (int((a_high * b_high).sum()) << 2 * LIMB) + (middle << LIMB) + int((a_low * b_low).sum())


def _shift_round(codes: Any, shift: int, rounding: Rounding) -> Any:
    if shift <= 0:
        return codes << -shift
    half = 1 << (shift - 1)
    match rounding:
        case Rounding.NEAREST_EVEN:
            lift: Any = (codes >> shift & 1) + (half - 1)
        case Rounding.NEAREST_UP:
            lift = half
        case Rounding.NEAREST_DOWN:
            lift = half - 1
        case Rounding.NEAREST_ZERO:
            lift = half - (codes >= 0).long()
        case Rounding.NEAREST_AWAY:
            lift = half - (codes < 0).long()
        case Rounding.TOWARD_ZERO:
            lift = (codes < 0).long() * (2 * half - 1)
        case _:  # a floor, of stochastic rounding too
            lift = 0
    return codes + lift >> shift


def _fit(codes: Any, fmt: Fixed) -> Any:
    low, high = fmt.rails
    match fmt.overflow:
        case Overflow.WRAP:
            return (codes - low & (1 << fmt.width) - 1) + low
        case Overflow.ZERO:
            return torch.where((codes < low) | (codes > high), torch.zeros_like(codes), codes)
        case _:
            return codes.clamp(low, high)


def _fallen(exact: Any, rounded: Any, shift: int) -> Any:
    return exact - (rounded << shift) if shift > 0 else torch.zeros_like(exact)
