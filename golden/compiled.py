"""The elements of a unit in compiled loops: what :class:`~kappa_rtl.golden.shard.Shard` does, to the bit, in one pass each.

The loops of :mod:`~kappa_rtl.golden.kernels` are compiled by numba when a unit first needs them, and kept on disk for the next
process. Formats are numbers that they take, so a loop is compiled once for each choice of what it has to do and of storage.
"""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernels
from .config import Source, ThrottleConfig
from .formats import Fixed, Overflow, Rounding
from .kernels import CHUNK, LIMB, Fitter, Kernel, Rounder, Update
from .random import DRAW_BITS
from .rounding import storage_dtype
from .shard import Absorbed, Shard
from .update import Tally

WORTH = 1 << 15
"""Elements for which another thread is worth its start."""


def compiler() -> Any:
    """The module numba, or None where it cannot be imported."""
    try:
        import numba
    except ImportError:
        return None
    return numba


@functools.cache
def compiled(factory: Callable[..., Kernel], *flags: bool) -> Kernel:
    """The loop of a factory as machine code, kept on disk where some folder for it can be written."""
    loop, numba = factory(*flags), compiler()
    try:
        made: Kernel = numba.njit(nogil=True, cache=True)(loop)
    except RuntimeError:  # the package is installed where nobody may write, and so is the home
        made = numba.njit(nogil=True)(loop)
    return made


class CompiledShard(Shard):
    """A :class:`~kappa_rtl.golden.shard.Shard` whose two passes are compiled; the same results and the same state.

    Args:
        config: formats, law and size.
        weights: the initial theta as codes, (N,).
        threads: how many work on the elements at once.
    """

    def __init__(self, config: ThrottleConfig, weights: NDArray[Any], threads: int = 1) -> None:
        super().__init__(config, weights)
        self._threads = threads
        source, grids = Source(config.source), config.grids
        self._rails = fitter(grids.gradient)
        # 16 bits or fewer: a difference has a square below 2**32, and with a code a product below 2**31.
        self._absorb_narrow = grids.gradient.width <= 16
        self._absorb = compiled(
            kernels.absorb,
            self._absorb_narrow,
            source.is_curvature and not source.is_projection,
            source.is_projection,
            source.is_curvature and "gradient_floor" in config.watchdog,
        )
        self._split = step_split(config)
        self._apply_narrow = self._split is not None
        self._apply = compiled(
            kernels.apply,
            self._apply_narrow,
            any(fmt.overflow in (Overflow.WRAP, Overflow.ZERO) for fmt in (grids.update, grids.weight)),
            config.every_rail,
            config.intended,
            source is Source.RATIO,
        )
        self._first = rounder(grids.update.rounding, config.widths.update_shift)
        self._second = rounder(grids.weight.rounding, config.widths.weight_shift)
        self._update, self._weight = fitter(grids.update), fitter(grids.weight)

    def absorb(self, gradient: NDArray[Any]) -> Absorbed:
        """As :meth:`Shard.absorb <kappa_rtl.golden.shard.Shard.absorb>`."""
        new, old = _readable(gradient), _readable(self._previous)
        limb, seen = LIMB[self._absorb_narrow], (0, 0, 0, 0)
        for place, shift, _ in self.config.stretches:
            found = self._over(lambda part: self._absorb(new[part], old[part], self._rails), place)
            sums = (found[0] << limb) + found[1] << shift, (found[2] << limb) + found[3] << shift
            seen = tuple(map(operator.add, seen, (*sums, found[4], found[5])))
        total, norm, on_rail, near_rail = seen
        assert abs(total).bit_length() <= self.config.widths.gradient_energy, "A is wider than the configuration derived"
        self._previous = gradient
        return Absorbed(total, norm if Source(self.config.source).is_curvature else total, on_rail, near_rail)

    def apply(self, direction: NDArray[Any], step: int) -> tuple[NDArray[Any], Tally]:
        """As :meth:`Shard.apply <kappa_rtl.golden.shard.Shard.apply>`."""
        config, residual = self.config, self.residual
        along, theta = _readable(direction), _readable(self.theta)
        drawn = self._draws()
        draws = _readable(drawn) if drawn is not None and config.widths.update_shift > 0 else None
        moved = np.empty(config.elements, storage_dtype(config.grids.weight))
        update = np.empty(config.elements, storage_dtype(config.grids.update))
        plan = update_plan(config, step, self._split)

        def run(part: slice) -> tuple[int, ...]:
            kept, drawn = (None if one is None else one[part] for one in (residual, draws))
            vectors = (along[part], theta[part], kept, drawn, moved[part], update[part])
            return self._apply(*vectors, plan, self._first, self._second, self._update, self._weight)  # type: ignore[no-any-return]

        tally, limb = Tally(), LIMB[self._apply_narrow]
        for place, _, shift in config.stretches:
            found = self._over(run, place)
            tally += Tally(
                motion_energy=(found[7] << limb) + found[8],
                update_saturated=found[0],
                update_underflow=found[1] if step or residual is not None else 0,  # a zero product loses nothing
                weight_saturated=found[2],
                weight_near_rail=found[3],
                update_rail=found[4],
                update_near_rail=found[5],
                weight_energy=(found[9] << limb) + found[10],
                moved=found[6] > 0,
            ).shifted(shift)
        moved.flags.writeable = update.flags.writeable = False
        self.theta = moved
        return update, tally

    def _over(self, run: Callable[[slice], tuple[int, ...]], place: slice) -> list[int]:
        """The sums, in Python's integers, of what a loop finds in the parts of a stretch, each part in some thread."""
        n = place.stop - place.start
        threads = max(1, min(self._threads, n // WORTH))
        size = min(CHUNK, -(-n // threads))
        parts = [slice(start, min(start + size, place.stop)) for start in range(place.start, place.stop, size)]
        found = _pool(threads, os.getpid()).map(run, parts) if threads > 1 else map(run, parts)
        return [sum(map(int, column)) for column in zip(*found, strict=True)]


@functools.cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads of this process, started once: those of a parent do not live in what it forks."""
    return ThreadPoolExecutor(threads, thread_name_prefix="kappa-rtl")


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """A view in one piece that cannot be written, as all inputs are: a loop is compiled anew for any other kind of array."""
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def rounder(rounding: Rounding, shift: int) -> Rounder:
    """The integers of a rounding by ``shift`` bits; of none where it comes to no coarser grid, or at random."""
    if shift <= 0 or rounding in (Rounding.FLOOR, Rounding.STOCHASTIC):
        return Rounder(max(shift, 0), 0, 0, 0)
    half = 1 << shift - 1
    base, even, negative = {
        Rounding.NEAREST_EVEN: (half - 1, 1, 0),
        Rounding.NEAREST_UP: (half, 0, 0),
        Rounding.NEAREST_DOWN: (half - 1, 0, 0),
        Rounding.NEAREST_ZERO: (half - 1, 0, 1),
        Rounding.NEAREST_AWAY: (half, 0, -1),
        Rounding.TOWARD_ZERO: (0, 0, 2 * half - 1),
    }[rounding]
    return Rounder(shift, base, even, negative)


def fitter(fmt: Fixed) -> Fitter:
    """The integers of a format's overflow and of its rails."""
    low, high = fmt.rails
    wraps, zeros = fmt.overflow is Overflow.WRAP, fmt.overflow is Overflow.ZERO
    return Fitter(low, high, (1 << fmt.width) - 1, int(wraps), int(zeros), fmt.near_rail)


def update_plan(config: ThrottleConfig, step: int, narrow_split: int | None) -> Update:
    """The integers of an apply pass with a step size; its low part has ``narrow_split`` bits, or there is none in 64 bits."""
    grids, widths = config.grids, config.widths
    split, last = (0, 63) if narrow_split is None else (narrow_split, 31)
    product_lift, residual_lift = lifts(config)
    lifted = -step << product_lift
    places = max(widths.update_shift, 0) - config.random_bits - 1
    return Update(
        step_high=lifted >> split,
        step_low=lifted & ((1 << split) - 1),
        split=split,
        residual_lift=residual_lift,
        draw_drop=DRAW_BITS - config.random_bits,
        draw_up=max(places, 0),
        draw_down=max(-places, 0),
        weight_lift=widths.common_fraction - grids.weight.fraction_bits,
        update_lift=widths.common_fraction - grids.update.fraction_bits,
        # A shift beyond the word moves nothing but zeros up, and nothing but signs down.
        product_lift=min(widths.dropped_fraction - widths.product_fraction, last),
        sum_lift=min(widths.dropped_fraction - widths.common_fraction, last),
        residual_drop=min(widths.dropped_fraction - grids.weight.fraction_bits - config.residual_bits, last),
        residual_rail=1 << config.residual_bits - 1 if config.residual_bits else 0,
    )


def lifts(config: ThrottleConfig) -> tuple[int, int]:
    """Bits from the grid of -D * step, and from that of a residual, up to the grid on which both are rounded."""
    grids, widths = config.grids, config.widths
    up = max(-widths.update_shift, 0)
    product = up + widths.product_fraction - grids.direction.fraction_bits - grids.step.fraction_bits
    kept = widths.product_fraction - grids.weight.fraction_bits - config.residual_bits
    return product, up + kept if config.residual_bits else 0


def step_split(config: ThrottleConfig) -> int | None:
    """The bits of the step's low part with which 32 bits hold an apply pass from end to end; None if none will do."""
    grids, widths = config.grids, config.widths
    shift, reach = max(widths.update_shift, 0), 1 << grids.direction.width - 1
    product_lift, residual_lift = lifts(config)
    step = grids.step.rails[1] << product_lift
    residual = (1 << config.residual_bits - 1) << residual_lift if config.residual_bits else 0
    fits = (
        shift <= 30
        and widths.sum.signed_bits <= 30
        and widths.weight_shift <= 29
        and grids.weight.width <= 16  # the square of a motion
        and (not config.intended or grids.direction.width <= 16)
    )
    if config.residual_bits:
        of_product = shift + widths.dropped_fraction - widths.product_fraction if shift else 0
        of_sum = widths.weight_shift + widths.dropped_fraction - widths.common_fraction if widths.weight_shift else 0
        fits = fits and max(of_product, of_sum) <= 29
    for split in range(shift + 1) if fits else ():
        rest = reach * ((1 << split) - 1) + residual
        whole = reach * ((step >> split) + 1) + (rest >> split) + 1 + (2 << shift - split)
        if max(rest, whole) < 1 << 31:
            return split
    return None
