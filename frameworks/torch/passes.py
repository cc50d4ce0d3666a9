"""The two passes over the elements as functions of tensors: the golden unit's integers, for torch to run or to compile.

Every sum comes back in one vector, so that a device is waited for once a pass. All arithmetic is in int64, and the configuration
proves that wide enough; an exact sum of products is kept in three, of halves of 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...golden.config import Source, ThrottleConfig
from ...golden.formats import Fixed, Overflow, Rounding
from .codes import dtype_of

LIMB = 16
"""Bits of the lower half of a value: products of halves of up to 2**29 elements add up in an int64."""

Pass = Callable[..., Any]


def whole(sums: list[int]) -> int:
    """An exact sum of products from its three parts: of high halves, of unlike ones, of low ones."""
    high, middle, low = sums
    return (high << 2 * LIMB) + (middle << LIMB) + low


def absorb_of(config: ThrottleConfig) -> Pass:
    """``absorb(gradient, previous)``: a vector of three sums for A, three for what a watchdog compares, and counts of rails."""
    source, fmt = Source(config.source), config.grids.gradient
    watched = "gradient_floor" in config.watchdog

    def absorb(gradient: Any, previous: Any) -> Any:
        g, p = gradient.long(), previous.long()
        change = g - p if source.is_curvature else g
        energy = _inner(p, p - g) if source.is_projection else _inner(change, change)
        return torch.stack([*energy, *(_inner(g, g) if watched else energy), *_rails(g, fmt)])

    return absorb


def apply_of(config: ThrottleConfig) -> Pass:
    """``apply(direction, theta, residual, lift, step)``: theta', y, the new residual, and a vector of counts and sums.

    Of the vector: y beyond the rails, y that vanished, y on a rail and near one, theta' on a rail and near one, weights that
    moved, three sums for B and three for the energy of theta'. ``lift`` is what stochastic rounding adds, ``step`` a tensor.
    """
    grids, widths = config.grids, config.widths
    weight, update, kept_bits = grids.weight, grids.update, config.residual_bits
    product_lift = widths.product_fraction - grids.direction.fraction_bits - grids.step.fraction_bits
    residual_lift = widths.product_fraction - weight.fraction_bits - kept_bits
    weight_lift, update_lift = widths.common_fraction - weight.fraction_bits, widths.common_fraction - update.fraction_bits

    def apply(direction: Any, theta: Any, residual: Any, lift: Any, step: Any) -> tuple[Any, Any, Any, Any]:
        d, old = direction.long(), theta.long()
        product = d * -step
        if kept_bits:
            product = (product << product_lift) + (residual.long() << residual_lift)
        rounded = _shift_round(product + lift, widths.update_shift, update.rounding)
        y = _fit(rounded, update)
        total = (old << weight_lift) + (y << update_lift)
        summed = _shift_round(total, widths.weight_shift, weight.rounding)
        new = _fit(summed, weight)
        if kept_bits:
            dropped, fell = _fallen(product, rounded, widths.update_shift), _fallen(total, summed, widths.weight_shift)
            residual = _kept(dropped, fell, config)
        beyond = (summed < weight.rails[0]) | (summed > weight.rails[1])
        on_rail = (new <= weight.rails[0]) | (new >= weight.rails[1]) | beyond
        moved = d if config.intended else new - old
        sums = [
            ((rounded < update.rails[0]) | (rounded > update.rails[1])).sum(),
            ((product != 0) & (y == 0)).sum(),
            *_rails(y, update),
            on_rail.sum(),
            (new.abs() >= weight.near_rail).sum(),
            (new != old).sum(),
            *_inner(moved, moved),
            *_inner(new, new),
        ]
        return new.to(dtype_of(weight)), y.to(dtype_of(update)), residual, torch.stack(sums)

    return apply


def _rails(codes: Any, fmt: Fixed) -> tuple[Any, Any]:
    low, high = fmt.rails
    return ((codes <= low) | (codes >= high)).sum(), (codes.abs() >= fmt.near_rail).sum()


def _inner(a: Any, b: Any) -> tuple[Any, Any, Any]:
    """The three parts of ``sum(a * b)``, for magnitudes up to 2**32."""
    mask = (1 << LIMB) - 1
    a_high, a_low, b_high, b_low = a >> LIMB, a & mask, b >> LIMB, b & mask
    return (a_high * b_high).sum(), (a_high * b_low + a_low * b_high).sum(), (a_low * b_low).sum()


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


def _kept(dropped: Any, fell: Any, config: ThrottleConfig) -> Any:
    widths = config.widths
    total = (dropped << widths.dropped_fraction - widths.product_fraction) + (
        fell << widths.dropped_fraction - widths.common_fraction
    )
    total = total >> widths.dropped_fraction - config.grids.weight.fraction_bits - config.residual_bits
    rail = 1 << config.residual_bits - 1
    return total.clamp(-rail, rail - 1).to(torch.int8)
