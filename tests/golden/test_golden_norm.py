"""The exact sum of squares: exact at any size, and blind to order, lanes and shards."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_rtl.golden.norm import BLOCK, energy, sum_of_squares

RAIL = 2**31


def exact(a: list[int], b: list[int] | None = None) -> int:
    return sum((x - y) ** 2 for x, y in zip(a, b or [0] * len(a), strict=True))


@given(st.data(), st.sampled_from([8, 16, 32]), st.integers(1, 20))
def test_against_python_integers(data: st.DataObject, bits: int, size: int) -> None:
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    code = st.one_of(st.sampled_from([low, high, 0, 1, -1]), st.integers(low, high))
    a, b = (data.draw(st.lists(code, min_size=size, max_size=size)) for _ in range(2))
    for dtype in (f"int{bits}", "int64"):
        x, y = np.array(a, dtype), np.array(b, dtype)
        assert sum_of_squares(x, y) == exact(a, b)
        assert sum_of_squares(x) == exact(a)
        assert x.tolist() == a and y.tolist() == b


def test_result_is_a_python_integer() -> None:
    total = sum_of_squares(np.array([3, 4], np.int16))
    assert type(total) is int and total == 25
    assert sum_of_squares(np.array([], np.int16)) == 0


@pytest.mark.parametrize("size", [1, 2, 3, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 3])
@pytest.mark.parametrize("width", [8, 16, 25, 31, 32])
def test_rails_at_every_block_boundary(size: int, width: int) -> None:
    """All differences at their largest, so that every partial sum is as wide as it gets: int64 would overflow at 32 bits."""
    low, high = -(1 << (width - 1)), (1 << (width - 1)) - 1
    a, b = np.full(size, low, np.int32), np.full(size, high, np.int32)
    assert sum_of_squares(a, b) == sum_of_squares(b, a) == size * (2**width - 1) ** 2
    assert sum_of_squares(a) == size * low**2
    assert sum_of_squares(b) == size * high**2


def test_int64_overflows_where_this_does_not() -> None:
    a = np.array([-RAIL, RAIL - 1, -RAIL, 5], np.int32)
    b = np.array([RAIL - 1, -RAIL, RAIL - 1, 2], np.int32)
    want = 3 * (2**32 - 1) ** 2 + 9
    assert sum_of_squares(a, b) == want > 2**63
    wide = a.astype(np.int64) - b
    assert int(np.sum(wide * wide)) != want


@pytest.mark.parametrize("bits", range(20, 41))
def test_energy_around_every_change_of_method(bits: int) -> None:
    """One value of each width beside many small ones, odd so that the lowest bit of the sum counts."""
    rng = random.Random(bits)
    for size in (1, 2, 3, 1000, BLOCK):
        for top in (2**bits - 1, 1 - 2**bits, -(2 ** (bits - 1)) - 1):
            values = [top] + [rng.choice([top, -top, rng.randint(-(2**bits) + 1, 2**bits - 1)]) for _ in range(min(size, 50) - 1)]
            values += [1, -1] * ((size - len(values)) // 2)
            assert energy(np.array(values, np.int64)) == exact(values)


def random_codes(rng: np.random.Generator, size: int, bits: int = 32) -> np.ndarray:
    return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), size, dtype=np.int64).astype(np.int32)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_order_lanes_and_shards_do_not_matter(bits: int) -> None:
    rng = np.random.default_rng(bits)
    size = 2 * BLOCK + 777
    a, b = random_codes(rng, size, bits), random_codes(rng, size, bits)
    want = exact(a.tolist(), b.tolist())
    assert sum_of_squares(a, b) == want
    for _ in range(3):
        order = rng.permutation(size)
        assert sum_of_squares(a[order], b[order]) == want
    assert sum_of_squares(a[::-1], b[::-1]) == want
    for lanes in (1, 2, 3, 8, 32):
        assert sum(sum_of_squares(a[lane::lanes], b[lane::lanes]) for lane in range(lanes)) == want
    for shards in (1, 2, 5, 64):
        cuts = np.sort(rng.integers(0, size, shards - 1))
        pieces = zip(np.split(a, cuts), np.split(b, cuts), strict=True)
        assert sum(sum_of_squares(x, y) for x, y in pieces) == want


@pytest.mark.slow
def test_a_hundred_million_elements() -> None:
    """Exact at 10**8 elements of 32 bits and of 8 bits; the first without any memory, the second in 100 MB."""
    size = 10**8
    low, high = np.broadcast_to(np.int32(-RAIL), size), np.broadcast_to(np.int32(RAIL - 1), size)
    assert sum_of_squares(low, high) == size * (2**32 - 1) ** 2
    assert sum_of_squares(low) == size * RAIL**2
    pattern = np.random.default_rng(0).integers(-128, 128, 10007).astype(np.int8)
    whole, rest = divmod(size, pattern.size)
    want = whole * exact(pattern.tolist()) + exact(pattern[:rest].tolist())
    assert sum_of_squares(np.resize(pattern, size)) == want
