"""Shards against one unit: the same scalars, weights and sums, whatever the split."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from support.strategies import codes, configs, exactly, vectors


@st.composite
def splits(draw: st.DrawFn, elements: int) -> list[int]:
    """Positive sizes with a given sum."""
    sizes = []
    while elements:
        sizes.append(draw(st.integers(1, elements)))
        elements -= sizes[-1]
    return sizes


@settings(max_examples=60)
@given(st.data(), configs(watchdog=("learning_dead", "scalar_overflow")))
def test_any_split_is_the_whole(data: st.DataObject, config: ThrottleConfig) -> None:
    assume(not config.stochastic and config.source != "ratio")
    n = config.elements
    theta = data.draw(st.lists(codes(config.grids.weight), min_size=n, max_size=n))
    one = Throttle(config, theta, codes=True)
    many = ShardedThrottle(config, theta, data.draw(splits(n)), codes=True)
    for _ in range(data.draw(st.integers(1, 5))):
        gradient = data.draw(vectors(config.grids.gradient, n))
        along = vectors(config.grids.direction, n)
        either = st.none() if Source(config.source).is_projection else st.one_of(st.none(), along)
        direction = data.draw(along if config.direction else either)
        a, b = (unit.step(np.array(gradient), direction, codes=True) for unit in (one, many))
        assert a.registers == b.registers
        assert np.array_equal(a.theta, b.theta)
        assert np.array_equal(a.update, b.update)


@pytest.mark.parametrize("sizes", [[], [4], [3, 0, 2], [6, -1], [5, 1]])
def test_sizes_must_cover_the_elements(sizes: list[int]) -> None:
    config = ThrottleConfig(elements=5, eta=0.1)
    with pytest.raises(ValueError, match=exactly(f"sizes must be positive integers with the sum elements = 5, not {sizes}")):
        ShardedThrottle(config, np.zeros(5, np.int64), sizes)


def test_ratio_has_no_shards() -> None:
    config = ThrottleConfig.trust_ratio(elements=4, eta=0.1)
    with pytest.raises(ValueError, match=r"^population must not be given with the source ratio"):
        ShardedThrottle(config, np.zeros(4, np.int64), [2, 2])


@pytest.mark.parametrize(("population", "said"), [(3, "3"), (1 << 33, str(1 << 33)), (True, "True"), (4.0, "4.0")])
def test_population_is_checked(population: Any, said: str) -> None:
    with pytest.raises(ValueError, match=exactly(f"population must be an integer from 4 to 4294967296, not {said}")):
        ThrottleConfig(elements=4, eta=0.1, population=population)


def test_a_floor_of_the_gradient_has_no_shards() -> None:
    message = "watchdog must not name gradient_floor with population: shards exchange no sum of squares of G itself"
    with pytest.raises(ValueError, match=exactly(message)):
        ThrottleConfig(elements=4, eta=0.1, population=8, watchdog=("gradient_floor",))
    ThrottleConfig.clip_norm(elements=4, eta=0.1, population=8, watchdog=("gradient_floor",), gradient_floor=1)


def test_shards_draw_their_own_numbers() -> None:
    config = ThrottleConfig(elements=200, eta=0.5, update="SQ2.6,stochastic", weight="SQ2.6", gain=0, seed=(1 << 32) - 1)
    unit = ShardedThrottle(config, np.zeros(200, np.int64), [100, 100])
    first, second = np.split(unit.step(np.full(200, 77), codes=True).update, 2)
    assert not np.array_equal(first, second)
