"""The two passes over the elements as functions of tensors: the golden unit's integers, for torch to run or to compile.

Every sum comes back in one vector, so that a device is waited for once a pass. All arithmetic is in int64, and the configuration
proves that wide enough; an exact sum of products is kept in three, of halves of 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from ...golden.config import Source, ThrottleConfig
from ...golden.formats import Fixed, Overflow, Rounding
from .codes import dtype_of

LIMB = 16
"""Bits of the lower half of a value: products of halves of up to 2**29 elements add up in an int64."""

Pass = Callable[..., Any]


class Ends(NamedTuple):
    """Where a format ends, as plain numbers, which a compiler of torch's can take for constants."""

    low: int
    high: int
    near: int
    mask: int
    wraps: bool
    zeros: bool

    @classmethod
    def of(cls, fmt: Fixed) -> Ends:
        """The ends of a format."""
        wraps, zeros = fmt.overflow is Overflow.WRAP, fmt.overflow is Overflow.ZERO
        return cls(*fmt.rails, fmt.near_rail, (1 << fmt.width) - 1, wraps, zeros)


def whole(sums: Sequence[int], shifts: Sequence[int]) -> int:
    """An exact sum of products from its three parts a stretch: of high halves, of unlike ones, of low ones.

    Each stretch's is shifted up by its bits before they are added.
    """
    parts = zip(sums[::3], sums[1::3], sums[2::3], shifts, strict=True)
    return sum((high << 2 * LIMB) + (middle << LIMB) + low << shift for high, middle, low, shift in parts)


def sizes_of(config: ThrottleConfig) -> list[int]:
    """The elements of each stretch of a shard."""
    return [stretch.place.stop - stretch.place.start for stretch in config.stretches]


def absorb_of(config: ThrottleConfig) -> Pass:
    """``absorb(gradient, previous)``: a vector of sums for A and for what a watchdog compares, three a stretch, and of rails."""
    source, ends, sizes = Source(config.source), Ends.of(config.grids.gradient), sizes_of(config)
    changes, projects = source.is_curvature, source.is_projection
    watched = "gradient_floor" in config.watchdog

    def absorb(gradient: Any, previous: Any) -> Any:
        g, p = gradient.long(), previous.long()
        change = g - p if changes else g
        energy = _energies(p, p - g, sizes) if projects else _energies(change, change, sizes)
        return torch.stack([*energy, *(_energies(g, g, sizes) if watched else energy), *_rails(g, ends)])

    return absorb


def apply_of(config: ThrottleConfig) -> Pass:
    """``apply(direction, theta, residual, lift, step)``: theta', y, the new residual, and a vector of counts and sums.

    Of the vector: y beyond the rails, y that vanished, y on a rail and near one, theta' on a rail and near one, weights that
    moved, three sums a stretch for B and as many for the energy of theta'. ``lift`` is what stochastic rounding adds, ``step`` a
    tensor.
    """
    sizes = sizes_of(config)
    grids, widths, kept_bits, intended = config.grids, config.widths, config.residual_bits, config.intended
    product_lift = widths.product_fraction - grids.direction.fraction_bits - grids.step.fraction_bits
    residual_fraction = grids.weight.fraction_bits + kept_bits
    residual_lift = widths.product_fraction - residual_fraction
    weight_lift = widths.common_fraction - grids.weight.fraction_bits
    update_lift = widths.common_fraction - grids.update.fraction_bits
    first, second = (widths.update_shift, grids.update.rounding.value), (widths.weight_shift, grids.weight.rounding.value)
    weight, update = Ends.of(grids.weight), Ends.of(grids.update)
    stored, moved_by = dtype_of(grids.weight), dtype_of(grids.update)
    of_product, of_sum = widths.dropped_fraction - widths.product_fraction, widths.dropped_fraction - widths.common_fraction
    kept_drop, kept_rail = widths.dropped_fraction - residual_fraction, 1 << max(0, kept_bits - 1)

    def apply(direction: Any, theta: Any, residual: Any, lift: Any, step: Any) -> tuple[Any, Any, Any, Any]:
        d, old = direction.long(), theta.long()
        product = d * -step
        if kept_bits:
            product = (product << product_lift) + (residual.long() << residual_lift)
        rounded = _shift_round(product + lift, *first)
        y = _fit(rounded, update)
        total = (old << weight_lift) + (y << update_lift)
        summed = _shift_round(total, *second)
        new = _fit(summed, weight)
        if kept_bits:
            fallen = (_fallen(product, rounded, first[0]) << of_product) + (_fallen(total, summed, second[0]) << of_sum)
            residual = (fallen >> kept_drop).clamp(-kept_rail, kept_rail - 1).to(torch.int8)
        beyond = (summed < weight.low) | (summed > weight.high)
        on_rail = (new <= weight.low) | (new >= weight.high) | beyond
        moved = d if intended else new - old
        sums = [
            ((rounded < update.low) | (rounded > update.high)).sum(),
            ((product != 0) & (y == 0)).sum(),
            *_rails(y, update),
            on_rail.sum(),
            (new.abs() >= weight.near).sum(),
            (new != old).sum(),
            *_energies(moved, moved, sizes),
            *_energies(new, new, sizes),
        ]
        return new.to(stored), y.to(moved_by), residual, torch.stack(sums)

    return apply


def _rails(codes: Any, ends: Ends) -> tuple[Any, Any]:
    return ((codes <= ends.low) | (codes >= ends.high)).sum(), (codes.abs() >= ends.near).sum()


def _energies(a: Any, b: Any, sizes: list[int]) -> list[Any]:
    """The three parts of ``sum(a * b)`` of every stretch, one after the other."""
    parts = zip(a.split(sizes), b.split(sizes), strict=True)
    return [one for a_part, b_part in parts for one in _inner(a_part, b_part)]


def _inner(a: Any, b: Any) -> tuple[Any, Any, Any]:
    """The three parts of ``sum(a * b)``, for magnitudes up to 2**32."""
    mask = (1 << LIMB) - 1
    a_high, a_low, b_high, b_low = a >> LIMB, a & mask, b >> LIMB, b & mask
    return (a_high * b_high).sum(), (a_high * b_low + a_low * b_high).sum(), (a_low * b_low).sum()


def _shift_round(codes: Any, shift: int, rounding: str) -> Any:
    if shift <= 0:
        return codes << -shift
    half = 1 << (shift - 1)
    lift: Any = 0  # a floor, of stochastic rounding too
    if rounding == Rounding.NEAREST_EVEN.value:
        lift = (codes >> shift & 1) + (half - 1)
    elif rounding == Rounding.NEAREST_UP.value:
        lift = half
    elif rounding == Rounding.NEAREST_DOWN.value:
        lift = half - 1
    elif rounding == Rounding.NEAREST_ZERO.value:
        lift = half - (codes >= 0).long()
    elif rounding == Rounding.NEAREST_AWAY.value:
        lift = half - (codes < 0).long()
    elif rounding == Rounding.TOWARD_ZERO.value:
        lift = (codes < 0).long() * (2 * half - 1)
    return codes + lift >> shift


def _fit(codes: Any, ends: Ends) -> Any:
    if ends.wraps:
        return (codes - ends.low & ends.mask) + ends.low
    if ends.zeros:
        return torch.where((codes < ends.low) | (codes > ends.high), torch.zeros_like(codes), codes)
    return codes.clamp(ends.low, ends.high)


def _fallen(exact: Any, rounded: Any, shift: int) -> Any:
    return exact - (rounded << shift) if shift > 0 else torch.zeros_like(exact)
