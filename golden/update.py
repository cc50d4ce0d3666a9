"""The scaled update: each element rounded once onto the update grid and once onto the weight grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .config import Source, ThrottleConfig
from .formats import Fixed, Overflow, Rounding
from .norm import BLOCK, energy
from .rounding import fit, random_lift, shift_round, storage_dtype
from .widths import Interval

Integers = NDArray[np.signedinteger[Any]]


@dataclass
class Tally:
    """What happened to the elements of one pass.

    ``motion_energy`` is B, and with ``ratio`` the one that B would otherwise be; ``weight_energy`` is there with ``ratio`` alone,
    and ``moved`` with it and with an intended motion, where B does not tell.
    """

    motion_energy: int = 0
    update_saturated: int = 0
    update_underflow: int = 0
    weight_saturated: int = 0
    weight_near_rail: int = 0
    update_rail: int = 0
    update_near_rail: int = 0
    weight_energy: int = 0
    moved: bool = False

    def __add__(self, other: Tally) -> Tally:
        total = {name: value + getattr(other, name) for name, value in vars(self).items()}
        return Tally(**total | {"moved": self.moved or other.moved})

    def shifted(self, bits: int) -> Tally:
        """With energies on a grid finer by half as many bits."""
        return replace(self, motion_energy=self.motion_energy << bits, weight_energy=self.weight_energy << bits)

    @property
    def counts(self) -> dict[str, int]:
        """The counters among them."""
        return {name: value for name, value in vars(self).items() if name not in ("motion_energy", "weight_energy", "moved")}


def apply_update(
    direction: Integers,
    weights: Integers,
    step: int,
    config: ThrottleConfig,
    *,
    draws: NDArray[np.uint16] | None = None,
    residual: Integers | None = None,
) -> tuple[Integers, Integers, Tally]:
    """``theta' = sat(round(theta + sat(round(-D * step + e))))`` over all elements.

    Args:
        direction, weights: codes on the grids of that name, (N,).
        step: the step size, an integer on the step grid.
        draws: a draw of 16 bits an element, where the update rounds stochastically, (N,).
        residual: e, codes of ``residual_bits`` on the grid 2**-(f_w + residual_bits), (N,); overwritten with the new one.

    Returns:
        The new weights and the updates y as codes, (N,) each, and the tally with B, the exact energy of what was applied, or of
        the direction.
    """
    grids, widths = config.grids, config.widths
    weight, update = grids.weight, grids.update
    raise_weight = widths.common_fraction - weight.fraction_bits
    raise_update = widths.common_fraction - update.fraction_bits
    moved = np.empty(weights.shape, storage_dtype(weight))
    applied = np.empty(weights.shape, storage_dtype(update))
    tally = Tally()
    narrow = np.dtype(np.int32 if max(widths.rounded.signed_bits, widths.sum.signed_bits) <= 30 else np.int64)
    for start in range(0, weights.size, BLOCK):
        block = slice(start, start + BLOCK)
        product = np.multiply(direction[block], -step, dtype=np.int64)
        if residual is not None:
            product = _with_residual(product, residual[block], config)
            exact = product.copy()
        y = _to_update_grid(product, None if draws is None else draws[block], config).astype(narrow)
        span = span_of(y)
        assert span in widths.rounded, "a product is wider than the configuration derived"
        if residual is not None:
            dropped = _fallen(exact, y, widths.update_shift)
        if span not in Interval(*update.rails):
            low, high = update.rails
            tally.update_saturated += int(np.count_nonzero((y < low) | (y > high)))
            fit(y, update, out=y)
            span = span_of(y)
        applied[block] = y
        if residual is not None:
            tally.update_underflow += int(np.count_nonzero((exact != 0) & (y == 0)))
        elif step:  # a zero product rounds to zero in every mode, so the others that gave zero were swallowed
            tally.update_underflow += int(np.count_nonzero(direction[block])) - int(np.count_nonzero(applied[block]))
        if config.every_rail:
            on_rail, near = rails(y, update, span)
            tally.update_rail += on_rail
            tally.update_near_rail += near

        old = weights[block].astype(narrow)
        new = np.left_shift(old, raise_weight)
        new += np.left_shift(y, raise_update, out=y) if raise_update else y
        total = new.copy() if residual is not None else new
        shift_round(new, widths.weight_shift, weight.rounding, out=new)
        if residual is not None:
            residual[block] = _kept(dropped, _fallen(total, new, widths.weight_shift), config)
        span = span_of(new)
        assert span in widths.moved, "a sum is wider than the configuration derived"
        if span not in Interval(*weight.rails):
            low, high = weight.rails
            beyond = (new < low) | (new > high)
            fit(new, weight, out=new)
            span = span_of(new)
            if weight.overflow in (Overflow.WRAP, Overflow.ZERO):  # the other modes leave these on a rail, where they are counted
                tally.weight_saturated += int(np.count_nonzero(beyond & (new > low) & (new < high)))
        moved[block] = new
        saturated, near = rails(new, weight, span)
        tally.weight_saturated += saturated
        tally.weight_near_rail += near

        if config.source is Source.RATIO:
            tally.weight_energy += energy(new)
        if config.asks_moved:
            tally.moved |= bool((new != old).any())
        tally.motion_energy += energy(direction[block] if config.intended else np.subtract(new, old, out=new))
    return moved, applied, tally


def _to_update_grid(product: Integers, draws: NDArray[np.uint16] | None, config: ThrottleConfig) -> Integers:
    """The product rounded in its place, before overflow."""
    shift, rounding = config.widths.update_shift, config.grids.update.rounding
    if rounding is Rounding.STOCHASTIC:
        rounding = Rounding.FLOOR
        if shift > 0:
            assert draws is not None, "stochastic rounding needs its random numbers"
            product += random_lift(draws, config.random_bits, shift)
    return shift_round(product, shift, rounding, out=product)


def _fallen(exact: Integers, rounded: Integers, shift: int) -> Integers:
    """What a rounding by ``shift`` bits dropped, on the finer grid; nothing where it came to no coarser one."""
    wide = exact.astype(np.int64)
    return wide - (rounded.astype(np.int64) << shift) if shift > 0 else np.zeros_like(wide)


def _with_residual(product: Integers, residual: Integers, config: ThrottleConfig) -> Integers:
    """``-D * step + e`` on the grid 2**-product_fraction."""
    grids, fraction = config.grids, config.widths.product_fraction
    lifted = product << fraction - grids.direction.fraction_bits - grids.step.fraction_bits
    lifted += residual.astype(np.int64) << fraction - grids.weight.fraction_bits - config.residual_bits
    return lifted


def _kept(dropped: Integers, fell: Integers, config: ThrottleConfig) -> Integers:
    """The new residual, of what fell off on the product's grid and on that of the sum."""
    widths = config.widths
    total = dropped << widths.dropped_fraction - widths.product_fraction
    total += fell << widths.dropped_fraction - widths.common_fraction
    total >>= widths.dropped_fraction - config.grids.weight.fraction_bits - config.residual_bits
    rail = 1 << config.residual_bits - 1
    return np.clip(total, -rail, rail - 1, out=total)


def rails(codes: Integers, fmt: Fixed, span: Interval) -> tuple[int, int]:
    """How many codes, which lie within ``span``, are on a rail of ``fmt``, and how many near one."""
    low, high = fmt.rails
    near = fmt.near_rail  # in narrow formats beyond the smaller rail
    if span.low > max(low, -near) and span.high < min(high, near):
        return 0, 0
    wide = codes.astype(np.int64)
    return int(np.count_nonzero((wide <= low) | (wide >= high))), int(np.count_nonzero(np.abs(wide) >= near))


def span_of(codes: Integers) -> Interval:
    """The least interval that holds all codes."""
    return Interval(int(codes.min()), int(codes.max()))
