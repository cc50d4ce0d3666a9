"""The moving average: two products and their sum, each rounded once, against the oracle."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.ema import ema
from kappa_rtl.golden.formats import ZERO, Scalar, ScalarFormat
from kappa_rtl.golden.scalar import ScalarUnit
from support.strategies import agree, both, scalar_formats, scalars


@settings(max_examples=300)
@given(st.data(), scalar_formats())
def test_against_the_oracle(data: st.DataObject, fmt: ScalarFormat) -> None:
    keep, rho, average, value = (data.draw(scalars(fmt)) for _ in range(4))
    unit, oracle = both(fmt)
    want = oracle.ema(keep.fraction, rho.fraction, average.fraction, value.fraction)
    agree(unit, oracle, ema(unit, keep, rho, average, value), want)


@given(st.data(), st.integers(4, 40))
def test_error_of_one_step(data: st.DataObject, bits: int) -> None:
    """Three roundings: at most 3.01 * 2**-M beyond what the average already carried."""
    fmt = ScalarFormat(bits, 12)
    rho = Fraction(data.draw(st.integers(1, 999)), 1000)
    keep_s, rho_s = (fmt.constant(x, name="x") for x in (1 - rho, rho))
    mantissas, exponents = st.integers(1 << (bits - 1), (1 << bits) - 1), st.integers(-20, 20)
    average, value = (Scalar(data.draw(mantissas), data.draw(exponents)) for _ in range(2))
    exact = keep_s.fraction * average.fraction + rho_s.fraction * value.fraction
    got = ema(ScalarUnit(fmt), keep_s, rho_s, average, value).fraction
    assert abs(got / exact - 1) <= Fraction(301, 100) / 2**bits


def test_one_rounding_per_operation() -> None:
    """Four bits: 13*13 + 13*8 = 169 + 104 -> 176 + 104 = 280 -> 288; the sum 273 in a single rounding would be 272."""
    unit = ScalarUnit(ScalarFormat(4, 6))
    got = ema(unit, Scalar(13, 0), Scalar(13, 0), Scalar(13, 0), Scalar(8, 0))
    assert got.fraction == 288


@pytest.mark.parametrize("average", [ZERO, Scalar(2**23, -23), Scalar(2**24 - 1, 511), Scalar(2**23, -512)])
def test_rho_zero_and_one_are_exact(average: Scalar) -> None:
    unit = ScalarUnit(ScalarFormat())
    one, value = unit.format.one, Scalar(2**23 + 1, 3)
    assert ema(unit, one, ZERO, average, value) == average
    assert ema(unit, ZERO, one, average, value) == value
    assert not unit.overflow and not unit.underflow
