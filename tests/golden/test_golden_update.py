"""The scaled update: every element against the oracle, ties and rails and all modes."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.norm import BLOCK
from kappa_rtl.golden.update import Tally, apply_update
from support import spec
from support.strategies import OVERFLOWS, ROUNDINGS, codes, configs


def oracle(direction: list[int], weights: list[int], step: int, config: ThrottleConfig) -> tuple[list[int], list[int], Tally]:
    """The contract's "apply, per element", in Fractions."""
    _, w, y, s, along = config.grids
    tally, moved, update = Tally(), [], []
    for d, theta in zip(direction, weights, strict=True):
        exact = -spec.real(d, along) * spec.real(step, s)
        rounded = spec.round_to_grid(exact, y)
        low, high = spec.rails(y)
        tally.update_saturated += not low <= rounded <= high
        update.append(spec.fit(rounded, y))
        tally.update_underflow += exact != 0 and update[-1] == 0
        if config.every_rail:
            tally.update_rail += update[-1] <= low or update[-1] >= high
            tally.update_near_rail += abs(update[-1]) >= spec.near_rail(y)
        total = spec.round_to_grid(spec.real(theta, w) + spec.real(update[-1], y), w)
        new, (low, high) = spec.fit(total, w), spec.rails(w)
        tally.weight_saturated += not low < total < high or new <= low or new >= high
        tally.weight_near_rail += abs(new) >= spec.near_rail(w)
        tally.motion_energy += d**2 if config.motion == "intended" else (new - theta) ** 2
        if config.source == "ratio":
            tally.weight_energy += new**2
        if config.source == "ratio" or config.motion == "intended":
            tally.moved |= new != theta
        moved.append(new)
    return moved, update, tally


def check(direction: list[int], weights: list[int], step: int, config: ThrottleConfig) -> Tally:
    d, t = np.array(direction, np.int32), np.array(weights, np.int32)
    moved, update, tally = apply_update(d, t, step, config)
    want = oracle(direction, weights, step, config)
    assert (moved.tolist(), update.tolist(), tally) == want
    assert d.tolist() == direction and t.tolist() == weights, "the arguments must stay as they were"
    return tally


@settings(max_examples=150)
@given(st.data(), configs(plain=True))
def test_against_the_oracle(data: st.DataObject, config: ThrottleConfig) -> None:
    """Without what an element keeps or draws; that is in the runs of the whole unit."""
    size = data.draw(st.integers(1, 12))
    direction = data.draw(st.lists(codes(config.grids.direction), min_size=size, max_size=size))
    weights = data.draw(st.lists(codes(config.grids.weight), min_size=size, max_size=size))
    top = config.step.rails[1]
    power = st.integers(0, config.step.width - 1).map(lambda bit: 1 << bit)
    step = data.draw(st.one_of(st.integers(0, top), st.sampled_from([0, 1, top]), power))
    check(direction, weights, step, config)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_every_direction_and_step_at_small_widths(rounding: str, overflow: str) -> None:
    """All 5-bit D, all 3-bit steps, weights at the rails and inside; the update and the weight grid both round."""
    modes = f"{rounding},{overflow}"
    config = ThrottleConfig(
        elements=1,
        eta=0.5,
        step_bits=3,
        gradient="SQ2.3",
        update=f"SQ-1.4,{modes}",
        weight=f"SQ0.3,{modes}",
        every_rail=True,
        source="ratio",
    )
    directions = range(-16, 16)
    seen = Tally()
    for step in range(8):
        for theta in range(-4, 4):
            tally = check(list(directions), [theta] * 32, step, config)
            for name in vars(seen):
                setattr(seen, name, getattr(seen, name) + getattr(tally, name))
    assert min(vars(seen).values()) > 0, f"not everything was reached: {seen}"


def one(direction: int, theta: int, step: int, config: ThrottleConfig) -> tuple[int, int, Tally]:
    moved, update, tally = apply_update(np.array([direction]), np.array([theta]), step, config)
    return int(moved[0]), int(update[0]), tally


PLAIN = ThrottleConfig(elements=1, eta=0.5, step_bits=4, gradient="SQ4.4", weight="SQ2.6", update="SQ1.7")
"""Step grid UQ0.4; products on 2**-8; updates on 2**-7; weights on 2**-6."""


def test_grids_of_the_corners_below() -> None:
    assert PLAIN.step == Fixed(False, 0, 4)
    assert (PLAIN.widths.update_shift, PLAIN.widths.weight_shift) == (1, 1)


@pytest.mark.parametrize(
    ("direction", "step", "update", "moved"),
    [
        (0, 8, 0, 0),
        (1, 0, 0, 0),
        (2, 1, -1, 0),  # exactly one update ulp; half a weight ulp, tie to even 0
        (1, 1, 0, 0),  # -1/2: tie to even, 0
        (3, 1, -2, -1),  # -3/2: tie to even, -2
        (5, 1, -2, -1),  # -5/2: tie to even, -2
        (-1, 1, 0, 0),
        (-3, 1, 2, 1),
        (-5, 1, 2, 1),
        (6, 1, -3, -2),  # -3/2 weight ulps: tie to even, -2
        (-6, 1, 3, 2),
        (-10, 1, 5, 2),  # 5/2 weight ulps: tie to even, 2
        (-127, 15, 127, 64),  # beyond the upper rail; 127/2 rounds to 64
        (127, 15, -128, -64),  # beyond the lower rail
    ],
)
def test_round_half_even_of_both_signs(direction: int, step: int, update: int, moved: int) -> None:
    got = one(direction, 0, step, PLAIN)
    assert got[:2] == (moved, update)
    assert got[2].motion_energy == moved**2


def test_theta_decides_the_tie() -> None:
    """theta + y is rounded as a sum: half an ulp beside an odd weight moves it, beside an even one does not."""
    assert one(2, 0, 1, PLAIN)[0] == 0
    assert one(2, 1, 1, PLAIN)[0] == 0
    assert one(2, 2, 1, PLAIN)[0] == 2
    assert one(2, -1, 1, PLAIN)[0] == -2
    assert one(-2, -1, 1, PLAIN)[0] == 0
    assert one(-2, 3, 1, PLAIN)[0] == 4


def test_rails_count() -> None:
    assert one(-128, 127, 15, PLAIN)[2] == Tally(0, 1, 0, 1, 1)  # clipped twice, and nothing moved
    assert one(127, -128, 15, PLAIN)[2] == Tally(0, 1, 0, 1, 1)
    assert one(0, 121, 15, PLAIN)[2] == Tally()
    assert one(0, 122, 15, PLAIN)[2] == Tally(weight_near_rail=1)
    assert one(0, -122, 15, PLAIN)[2] == Tally(weight_near_rail=1)
    assert one(0, -127, 15, PLAIN)[2] == Tally(weight_near_rail=1)
    assert one(0, -128, 15, PLAIN)[2] == Tally(weight_near_rail=1, weight_saturated=1)
    # on a rail of the update grid without having been clipped
    assert one(32, 0, 8, PLAIN)[1:] == (-128, Tally(motion_energy=64**2))


def test_underflow_counts_only_products_that_were_not_zero() -> None:
    assert one(1, 0, 1, PLAIN)[2] == Tally(update_underflow=1)
    assert one(0, 0, 1, PLAIN)[2] == Tally()
    assert one(1, 0, 0, PLAIN)[2] == Tally()
    floor = PLAIN.replace(update="SQ1.7,floor,saturate")
    assert one(1, 0, 1, floor)[1:] == (-1, Tally())
    assert one(-1, 0, 1, floor)[1:] == (0, Tally(update_underflow=1))


@pytest.mark.parametrize(("overflow", "update"), [("saturate", 127), ("saturate_symmetric", 127), ("wrap", -32), ("zero", 0)])
def test_saturation_counts_whatever_the_overflow_mode(overflow: str, update: int) -> None:
    config = PLAIN.replace(update=f"SQ1.7,nearest_even,{overflow}")
    _, y, tally = one(-56, 0, 8, config)  # 224 ulps
    assert y == update
    assert tally.update_saturated == 1
    assert tally.update_underflow == (update == 0)


def test_symmetric_low_rail_is_clipped_and_counted() -> None:
    config = PLAIN.replace(update="SQ1.7,nearest_even,saturate_symmetric", weight="SQ2.6,nearest_even,saturate_symmetric")
    assert one(32, 0, 8, config)[1:] == (-127, Tally(update_saturated=1, motion_energy=64**2))  # -63.5 ties to even -64
    moved, _, tally = one(0, -128, 8, config)  # a weight below the symmetric rail is brought onto it
    assert (moved, tally) == (-127, Tally(motion_energy=1, weight_saturated=1, weight_near_rail=1))


@pytest.mark.parametrize("width", [2, 3, 4, 5, 6])
def test_both_rails_count_in_narrow_formats(width: int) -> None:
    """Up to five bits 0.95 of the larger rail lies beyond the upper one: on a rail, yet not near it."""
    config = ThrottleConfig(elements=4, eta=0.5, gradient="SQ4.4", update="SQ1.7", weight=f"SQ1.{width - 1}")
    top = 2 ** (width - 1) - 1
    for weights in ([top, 0, 0, 0], [top, top, 0, top], [-top - 1, 0, 0, 0], [top, -top - 1, top, 0]):
        tally = check([0, 0, 0, 0], weights, 1, config)
        assert tally.weight_saturated == sum(t in (top, -top - 1) for t in weights)


def test_a_rail_in_the_second_block_counts() -> None:
    size = BLOCK + 5
    direction, weights = np.zeros(size, np.int8), np.zeros(size, np.int8)
    direction[0], direction[-1], weights[BLOCK], weights[1] = 1, 127, 127, -128
    moved, update, tally = apply_update(direction, weights, 15, PLAIN.replace(elements=size))
    assert (update[0], update[-1], moved[BLOCK], moved[1]) == (-8, -128, 127, -128)
    assert np.count_nonzero(moved) == 4 and np.count_nonzero(update) == 2
    assert tally == Tally(16 + 64**2, 1, 0, 2, 2)


def test_shards_and_order_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    size = BLOCK + 321
    config = ThrottleConfig(elements=size, eta=0.1)
    direction = rng.integers(-(2**15), 2**15, size).astype(np.int16)
    weights = rng.integers(-(2**15), 2**15, size).astype(np.int16)
    moved, update, tally = apply_update(direction, weights, 100_000, config)
    for cuts in ([1], [size // 2], sorted(rng.integers(1, size, 9).tolist())):
        pieces = zip(np.split(direction, cuts), np.split(weights, cuts), strict=True)
        parts = [apply_update(*piece, 100_000, config) for piece in pieces]
        assert np.array_equal(np.concatenate([part[0] for part in parts]), moved)
        assert np.array_equal(np.concatenate([part[1] for part in parts]), update)
        assert {name: sum(getattr(part[2], name) for part in parts) for name in vars(tally)} == vars(tally)
    order = rng.permutation(size)
    shuffled = apply_update(direction[order], weights[order], 100_000, config)
    assert np.array_equal(shuffled[0], moved[order]) and np.array_equal(shuffled[1], update[order]) and shuffled[2] == tally


def test_wide_words_are_exact() -> None:
    """32-bit formats and a 24-bit step: products of 56 bits, of which float64 would lose the last."""
    config = ThrottleConfig(elements=1, eta=1, step_bits=24, gradient="SQ1.31", update="SQ1.31", weight="SQ1.31")
    rails = [-(2**31), -(2**31) + 1, 2**31 - 1, 2**31 - 2, 2**30, 3, -3, 1, 0]
    for step, (d, t) in product((2**24 - 1, 2**23, 2**23 + 1, 2**22, 1), product(rails, repeat=2)):
        check([d], [t], step, config)
    assert Fraction(float((2**31 - 1) * (2**24 - 1))) != (2**31 - 1) * (2**24 - 1)
