"""The random numbers of stochastic rounding: the lanes' bits, and what they do to a mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.random import LaneGenerators, lane_seeds
from kappa_rtl.golden.throttle import Throttle
from support import spec

WORD = st.integers(0, (1 << 32) - 1)


@settings(max_examples=20)
@given(WORD, st.integers(1, 32), st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_draws_are_those_of_the_recurrence(seed: int, lanes: int, beats: list[int]) -> None:
    """In whatever portions they are drawn."""
    generators = LaneGenerators(lane_seeds(seed, lanes))
    drawn = np.concatenate([generators.draw(count) for count in beats])
    oracle = [spec.Lane(seed, lane) for lane in range(lanes)]
    assert drawn.tolist() == [[lane.draw() for lane in oracle] for _ in range(sum(beats))]


def test_many_at_once_are_those_drawn_one_by_one() -> None:
    seeds = lane_seeds(7, 3)
    one, many = LaneGenerators(seeds), LaneGenerators(seeds)
    singles = np.concatenate([one.draw(1) for _ in range(5000)])
    assert np.array_equal(many.draw(5000), singles)


def test_the_polynomial_is_primitive() -> None:
    """x has the order 2**63 - 1 modulo x**63 + x + 1: it divides that number, and no quotient of it by one of its primes."""
    modulus = 1 << 63 | 0b11

    def times(a: int, b: int) -> int:
        product = 0
        while b:
            product ^= a if b & 1 else 0
            a, b = a << 1, b >> 1
            a ^= modulus if a >> 63 else 0
        return product

    def power(exponent: int) -> int:
        result, base = 1, 2
        while exponent:
            result = times(result, base) if exponent & 1 else result
            base, exponent = times(base, base), exponent >> 1
        return result

    order, primes = (1 << 63) - 1, (7, 73, 127, 337, 92737, 649657)
    rest = order
    for prime in primes:
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert power(order) == 1
    assert all(power(order // prime) != 1 for prime in primes)


def test_lanes_and_seeds_differ() -> None:
    seeds = {s for seed in range(100) for s in lane_seeds(seed, 32)}
    assert len(seeds) == 3200
    assert all(0 < s < 1 << 63 for s in seeds)


@pytest.mark.parametrize("random_bits", [1, 4, 16])
def test_the_mean_is_kept(random_bits: int) -> None:
    """Ulps and a third, 300,000 times: nearest drops the third, stochastic keeps it, to its random bits and four sigma."""
    n = 300_000
    config = ThrottleConfig(
        elements=n, lanes=8, eta=2.0**-3, bias=1, gain=0, update="SQ2.14,stochastic", random_bits=random_bits, seed=3
    )
    gradient = np.full(n, -(8 << config.widths.update_shift) // (3 * config.initial_step), np.int64)
    exact = -int(gradient[0]) * config.initial_step / (1 << config.widths.update_shift)
    unit = Throttle(config, np.zeros(n, np.int64))
    moved = unit.step(gradient, codes=True).update
    assert set(np.unique(moved).tolist()) <= {int(exact), int(exact) + 1}
    sigma = 0.5 / np.sqrt(n)
    assert abs(moved.mean() - exact) < 2.0**-random_bits + 4 * sigma
    assert Throttle(config.replace(update="SQ2.14"), np.zeros(n, np.int64)).step(gradient, codes=True).update.std() == 0


def test_products_on_the_grid_stay() -> None:
    config = ThrottleConfig(elements=64, lanes=3, eta=0.5, gain=0, update="SQ2.14,stochastic")
    gradient = np.arange(64) - 32 << config.widths.update_shift
    update = (
        Throttle(config, np.zeros(64, np.int64)).step(np.zeros(64, np.int64), np.clip(gradient, -32768, 32767), codes=True).update
    )
    exact = -np.clip(gradient, -32768, 32767) * config.initial_step >> config.widths.update_shift
    assert np.array_equal(update, np.clip(exact, -32768, 32767))
