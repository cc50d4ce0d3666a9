"""Floats onto a grid and off it in compiled loops, against numpy's own, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden import compiled
from kappa_rtl.golden.floats import grid, loops, takes
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.rounding import quantise, storage_dtype, values

pytestmark = pytest.mark.skipif(compiled.compiler() is None, reason="numba is not installed: pip install '.[fast]' in a checkout")

FORMATS = ["SQ2.2", "SQ4.12", "SQ1.7,nearest_even,saturate_symmetric", "SQ2.20", "SQ4.20", "SQ4.28", "SQ12.-4"]
DTYPES = [np.float32, np.float64]


def reals(fmt: Fixed, dtype: Any, count: int = 4000) -> Any:
    """Values about a grid: far beyond its rails, on ties, below an ulp, the ends of the dtype."""
    rng = np.random.default_rng(fmt.width)
    ulp, rail = 2.0**-fmt.fraction_bits, 2.0 ** (fmt.integer_bits - 1)
    near = rng.integers(-9, 10, count) * ulp / 2
    ends = [0.0, -0.0, rail, -rail, rail - ulp / 2, -rail - ulp / 2, 3e38, -3e38, 1e-40]
    return np.concatenate([rng.normal(size=count) * rail, near, rng.normal(size=count) * ulp, ends]).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", FORMATS)
def test_enter_is_quantise(text: str, dtype: Any) -> None:
    fmt = Fixed.parse(text)
    given = reals(fmt, dtype)
    codes = np.empty(given.size, storage_dtype(fmt))
    beyond = loops().enter(given, grid(fmt, given.dtype), codes)
    assert np.array_equal(codes, quantise(given, fmt))
    whole = np.rint(given.astype(np.float64) * 2.0**fmt.fraction_bits)
    assert beyond == np.count_nonzero((whole < fmt.rails[0]) | (whole > fmt.rails[1])) > 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("text", ["SQ2.6", "SQ2.14", "SQ2.20", "SQ4.20"])
@pytest.mark.parametrize(("factor", "offset"), [(1.0, 0.0), (0.3, 1.0)])
def test_propose_leave_and_same_in_the_dtype_of_the_values(factor: float, offset: float, text: str, dtype: Any) -> None:
    stored, fmt = Fixed.parse(text), Fixed.parse("SQ2.14")
    rng = np.random.default_rng(0)
    theta = rng.integers(stored.rails[0], stored.rails[1] + 1, 50_000).astype(storage_dtype(stored))
    theta.flags.writeable = False
    ulp, base, share = dtype(stored.ulp), dtype(offset), dtype(factor)
    held = np.empty(theta.size, dtype)
    loops().leave(theta, ulp, base, held)
    if offset == 0:
        assert np.array_equal(held, values(theta, stored).astype(dtype))
    assert loops().same(theta, ulp, base, held)
    after = held - 3 * rng.normal(size=theta.size).astype(dtype)
    codes = np.empty(theta.size, storage_dtype(fmt))
    beyond = loops().propose(theta, ulp, base, after, share, grid(fmt, after.dtype), codes)
    proposal = (held - after) * share
    assert proposal.dtype == dtype
    assert np.array_equal(codes, quantise(proposal, fmt))
    whole = np.rint(proposal.astype(np.float64) * 2.0**14)
    assert beyond == np.count_nonzero((whole < fmt.rails[0]) | (whole > fmt.rails[1])) > 0
    moved = theta + rng.integers(-3, 4, theta.size).astype(theta.dtype)
    moved.flags.writeable = False
    found = loops().moments(theta, moved, ulp, base, after, share)
    change, meant = values(moved, stored) - values(theta, stored), proposal.astype(np.float64)
    assert found == pytest.approx((change @ change, meant @ meant, change @ meant), rel=1e-9, abs=1e-9)
    held[-1] = np.nextafter(held[-1], dtype(9))
    assert not loops().same(theta, ulp, base, held)


def test_which_formats_they_have() -> None:
    found = {text: takes(Fixed.parse(text)) for text in ("SQ4.4", "SQ4.4,nearest_even,wrap", "SQ4.4,floor", FORMATS[2])}
    assert list(found.values()) == [True, False, False, True]
