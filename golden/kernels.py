"""The two passes over the elements as loops that a compiler makes one vector loop of; :mod:`~kappa_rtl.golden.compiled` has them.

Plain Python without numba: each factory takes what is known of a configuration before it is compiled and gives the loop.
``word`` is the integer that everything is computed in. Every result is cast to it and the shifts are numpy's, since ``+`` and
``>>`` would be widened to 64 bits, half as many to a vector. What leaves the word wraps, which is meant where it is done.

An exact sum is kept in two limbs. Where the word has 32 bits a term has at most 32 and the limbs split it at 16, else at 32: the
sum is ``high * 2**limb + low``, and no limb can overflow in a pass of :data:`CHUNK` elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

CHUNK = 1 << 22
"""Elements of one call at most."""

STRETCH = 1 << 12
"""Elements whose counts and limbs are kept in the word before they are added up in 64 bits."""

LIMB = {True: 16, False: 32}
"""Where a term of a sum is split, by whether it is computed in 32 bits."""

Kernel = Callable[..., Any]


class Rounder(NamedTuple):
    """A rounding as ``(x + base + (x >> shift & even) + (negative if x < 0)) >> shift``, for any deterministic mode."""

    shift: int
    base: int
    even: int
    negative: int


class Fitter(NamedTuple):
    """An overflow: the rails, the mask of the word's width, whether it wraps, whether it gives zero; and where near begins."""

    low: int
    high: int
    mask: int
    wraps: int
    zeros: int
    near: int


class Update(NamedTuple):
    """The integers of an apply pass. Shifts are not negative; what goes up to a finer grid has its own."""

    step_high: int  #: the step with its sign, lifted onto the grid on which it is rounded: its high part
    step_low: int  #: its low part, ``split`` bits
    split: int
    residual_lift: int  #: bits from the residual's grid up to the product's
    draw_drop: int  #: bits of a draw that are not taken
    draw_up: int  #: bits from a draw's half up to the product's grid, or
    draw_down: int  #: down to it
    weight_lift: int  #: bits from the weight's grid up to that of the sum
    update_lift: int  #: bits from the update's grid up to it
    product_lift: int  #: bits up to the grid of what both roundings dropped, from the product's
    sum_lift: int  #: and from the sum's
    residual_drop: int  #: bits from there down to the residual's
    residual_rail: int  #: how far below zero a residual may lie


def absorb(narrow: bool, change: bool, projects: bool, watched: bool) -> Kernel:
    """The loop of an absorb pass: A in two limbs, the sum of squares of G in two, elements on a rail and near one.

    Args:
        narrow: whether 32 bits hold every term.
        change: whether A is of G - P, and not of G.
        projects: whether A is of P * (P - G).
        watched: whether the sum of squares of G is asked for beside A.
    """
    word, bare = (np.int32, np.uint32) if narrow else (np.int64, np.uint64)
    limb = LIMB[narrow]
    ones = (1 << limb) - 1

    def absorb_pass(gradient: Any, previous: Any, rails: Fitter) -> tuple[np.int64, ...]:
        lowest, free = word(rails.low + 1), bare(rails.high - rails.low - 2)
        nearest, far = word(1 - rails.near), bare(2 * rails.near - 2)
        place, mask = bare(limb), bare(ones)
        sum_high = sum_low = norm_high = norm_low = on_rail = near_rail = np.int64(0)
        for start in range(0, gradient.size, STRETCH):
            g_part, p_part = gradient[start : start + STRETCH], previous[start : start + STRETCH]
            a_high, a_low, g_high, g_low = word(0), word(0), word(0), word(0)
            on, close = word(0), word(0)
            for i in range(g_part.size):
                g, p = word(g_part[i]), word(p_part[i])
                if projects:
                    term = word(p * word(p - g))
                    a_high = word(a_high + word(term >> word(limb)))
                    a_low = word(a_low + word(term & word(ones)))
                else:
                    seen = word(g - p) if change else g
                    square = bare(word(seen * seen))
                    a_high = word(a_high + word(bare(square >> place)))
                    a_low = word(a_low + word(bare(square & mask)))
                if watched:
                    norm = bare(word(g * g))
                    g_high = word(g_high + word(bare(norm >> place)))
                    g_low = word(g_low + word(bare(norm & mask)))
                on = word(on + word(bare(word(g - lowest)) > free))
                close = word(close + word(bare(word(g - nearest)) > far))
            sum_high, sum_low = sum_high + np.int64(a_high), sum_low + np.int64(a_low)
            norm_high, norm_low = norm_high + np.int64(g_high), norm_low + np.int64(g_low)
            on_rail, near_rail = on_rail + np.int64(on), near_rail + np.int64(close)
        return sum_high, sum_low, norm_high, norm_low, on_rail, near_rail

    return absorb_pass


def apply(narrow: bool, folds: bool, every_rail: bool, intended: bool, ratio: bool) -> Kernel:
    """The loop of an apply pass, which fills theta' and y, puts e' in the place of e, and gives counts and sums.

    Args:
        narrow: whether 32 bits hold everything on the way; the step is then multiplied in two parts.
        folds: whether a grid wraps or gives zero beyond its rails, so that clipping is not all there is.
        every_rail: whether rails of y are counted.
        intended: whether B is of the direction, and not of the weights' motion.
        ratio: whether the sum of squares of theta' is asked for.
    """
    word, bare = (np.int32, np.uint32) if narrow else (np.int64, np.uint64)
    limb = LIMB[narrow]
    ones = (1 << limb) - 1

    def apply_pass(
        direction: Any,
        theta: Any,
        residual: Any,
        draws: Any,
        moved: Any,
        applied: Any,
        step: Update,
        first: Rounder,
        second: Rounder,
        update: Fitter,
        weight: Fitter,
    ) -> tuple[np.int64, ...]:
        split, down, full, sum_down = word(step.split), word(first.shift - step.split), word(first.shift), word(second.shift)
        weight_lift, update_lift, residual_lift = word(step.weight_lift), word(step.update_lift), word(step.residual_lift)
        product_lift, sum_lift, residual_drop = word(step.product_lift), word(step.sum_lift), word(step.residual_drop)
        draw_drop, draw_up, draw_down = word(step.draw_drop), word(step.draw_up), word(step.draw_down)
        step_high, step_low, below = word(step.step_high), word(step.step_low), word((1 << step.split) - 1)
        first_base, first_even, first_negative = word(first.base), word(first.even), word(first.negative)
        second_base, second_even, second_negative = word(second.base), word(second.even), word(second.negative)
        y_low, y_high, y_mask = word(update.low), word(update.high), word(update.mask)
        w_low, w_high, w_mask = word(weight.low), word(weight.high), word(weight.mask)
        y_wraps, y_zeros, w_wraps, w_zeros = update.wraps != 0, update.zeros != 0, weight.wraps != 0, weight.zeros != 0
        # Codes on no rail are ``free + 1`` from ``lowest`` on, those not near one ``far + 1`` from ``nearest`` on.
        y_lowest, y_free = word(update.low + 1), bare(update.high - update.low - 2)
        w_lowest, w_free = word(weight.low + 1), bare(weight.high - weight.low - 2)
        y_nearest, y_far = word(1 - update.near), bare(2 * update.near - 2)
        w_nearest, w_far = word(1 - weight.near), bare(2 * weight.near - 2)
        rail = word(step.residual_rail)
        place, mask = bare(limb), bare(ones)
        y_beyond = underflow = w_on_rail = w_near_rail = y_on_rail = y_near_rail = changed = np.int64(0)
        sum_high = sum_low = norm_high = norm_low = np.int64(0)
        for start in range(0, theta.size, STRETCH):
            stop = start + STRETCH
            d_part, w_part = direction[start:stop], theta[start:stop]
            moved_part, applied_part = moved[start:stop], applied[start:stop]
            if residual is not None:
                e_part = residual[start:stop]
            if draws is not None:
                r_part = draws[start:stop]
            beyond, swallowed, w_on, w_close, y_on, y_close, other = (
                word(0), word(0), word(0), word(0), word(0), word(0), word(0),
            )  # fmt: skip
            b_high, b_low, n_high, n_low = word(0), word(0), word(0), word(0)
            for i in range(w_part.size):
                d, old = word(d_part[i]), word(w_part[i])
                # -D * step + e, exact: in 32 bits as whole * 2**split + rest.
                if narrow:
                    rest = np.multiply(d, step_low)
                    if residual is not None:
                        rest = word(rest + np.left_shift(word(e_part[i]), residual_lift))
                    whole = np.add(np.multiply(d, step_high), np.right_shift(rest, split))
                    rest = np.bitwise_and(rest, below)
                else:
                    whole, rest = np.multiply(d, step_high), word(0)
                    if residual is not None:
                        whole = word(whole + np.left_shift(word(e_part[i]), residual_lift))
                # Rounded onto the update grid.
                if draws is not None:
                    lift = word(word(np.right_shift(word(r_part[i]), draw_drop) << 1) + word(1))
                    lift = np.right_shift(np.left_shift(lift, draw_up), draw_down)
                else:
                    lift = word(first_base + word(np.right_shift(whole, down) & first_even))
                    lift = word(lift + (first_negative if whole < 0 else word(0)))
                if narrow:
                    y = np.right_shift(word(whole + np.right_shift(word(rest + lift), split)), down)
                else:
                    y = np.right_shift(word(whole + lift), down)
                if residual is not None:
                    exact = word(np.left_shift(whole, split) + rest)
                    dropped = word(exact - np.left_shift(y, full))
                # Brought within its rails.
                fitted = min(max(y, y_low), y_high)
                if folds:
                    wrapped = word(word(word(y - y_low) & y_mask) + y_low)
                    zeroed = y if fitted == y else word(0)
                    fitted = wrapped if y_wraps else (zeroed if y_zeros else fitted)
                beyond = word(beyond + word(fitted != y))
                y = fitted
                applied_part[i] = y
                if residual is not None:
                    swallowed = word(swallowed + word((word(whole | rest) != 0) & (y == 0)))
                else:
                    swallowed = word(swallowed + word((d != 0) & (y == 0)))
                if every_rail:
                    y_on = word(y_on + word(bare(word(y - y_lowest)) > y_free))
                    y_close = word(y_close + word(bare(word(y - y_nearest)) > y_far))
                # theta + y, exact, then rounded onto the weight grid.
                total = word(np.left_shift(old, weight_lift) + np.left_shift(y, update_lift))
                lift = word(second_base + word(np.right_shift(total, sum_down) & second_even))
                lift = word(lift + (second_negative if total < 0 else word(0)))
                new = np.right_shift(word(total + lift), sum_down)
                if residual is not None:
                    fell = word(total - np.left_shift(new, sum_down))
                    left = word(np.left_shift(dropped, product_lift) + np.left_shift(fell, sum_lift))
                    left = np.right_shift(left, residual_drop)
                    e_part[i] = min(max(left, word(-rail)), word(rail - word(1)))
                fitted = min(max(new, w_low), w_high)
                if folds:
                    wrapped = word(word(word(new - w_low) & w_mask) + w_low)
                    zeroed = new if fitted == new else word(0)
                    fitted = wrapped if w_wraps else (zeroed if w_zeros else fitted)
                    w_on = word(w_on + word((fitted != new) | (bare(word(fitted - w_lowest)) > w_free)))
                else:
                    w_on = word(w_on + word(bare(word(new - w_lowest)) > w_free))
                new = fitted
                moved_part[i] = new
                w_close = word(w_close + word(bare(word(new - w_nearest)) > w_far))
                # The sums.
                if intended or ratio:
                    other = word(other + word(new != old))
                motion = d if intended else word(new - old)
                square = bare(word(motion * motion))
                b_high = word(b_high + word(bare(square >> place)))
                b_low = word(b_low + word(bare(square & mask)))
                if ratio:
                    norm = bare(word(new * new))
                    n_high = word(n_high + word(bare(norm >> place)))
                    n_low = word(n_low + word(bare(norm & mask)))
            y_beyond, underflow = y_beyond + np.int64(beyond), underflow + np.int64(swallowed)
            w_on_rail, w_near_rail = w_on_rail + np.int64(w_on), w_near_rail + np.int64(w_close)
            y_on_rail, y_near_rail = y_on_rail + np.int64(y_on), y_near_rail + np.int64(y_close)
            changed = changed + np.int64(other)
            sum_high, sum_low = sum_high + np.int64(b_high), sum_low + np.int64(b_low)
            norm_high, norm_low = norm_high + np.int64(n_high), norm_low + np.int64(n_low)
        return (
            y_beyond, underflow, w_on_rail, w_near_rail, y_on_rail, y_near_rail, changed, sum_high, sum_low, norm_high, norm_low,
        )  # fmt: skip

    return apply_pass
