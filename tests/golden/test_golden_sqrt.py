"""The square root of an exact integer, against the oracle that compares squares."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.formats import ZERO, Scalar, ScalarFormat
from kappa_rtl.golden.scalar import ScalarUnit
from kappa_rtl.golden.sqrt import sqrt
from support.spec import power_of_two
from support.strategies import agree, both, scalar_formats


@pytest.mark.parametrize("bits", [4, 5])
def test_exhaustively_at_small_widths(bits: int) -> None:
    fmt = ScalarFormat(bits, 6)
    for integer in range(1 << (2 * bits + 3)):
        for scale in (-2, 0):
            unit, oracle = both(fmt)
            agree(unit, oracle, sqrt(unit, integer, scale), oracle.sqrt(integer * power_of_two(scale)))


@settings(max_examples=400)
@given(st.data(), scalar_formats())
def test_against_the_oracle(data: st.DataObject, fmt: ScalarFormat) -> None:
    """Any integer, and those beside the squares of mantissas and of midpoints, where the rounding turns."""
    bits = fmt.mantissa_bits
    any_width = st.integers(0, 200).flatmap(lambda n: st.integers(0, 1 << n))
    root = st.integers(1 << (bits - 1), 1 << bits)
    square = st.builds(lambda m, d, k: ((m * m) << 2 * k) + d, root, st.integers(-1, 1), st.integers(0, 30))
    midpoint = st.builds(lambda m, d, k: ((2 * m + 1) ** 2 << 2 * k) + d, root, st.integers(-1, 1), st.integers(0, 30))
    integer = data.draw(st.one_of(any_width, square, midpoint))
    scale = 2 * data.draw(st.one_of(st.integers(-40, 10), st.integers(-(1 << fmt.exponent_bits), 1 << fmt.exponent_bits)))
    unit, oracle = both(fmt)
    agree(unit, oracle, sqrt(unit, integer, scale), oracle.sqrt(integer * power_of_two(scale)))


def test_midpoints_go_to_even() -> None:
    """sqrt((m + 1/2)**2) is an exact tie, one of each parity; one more or one less decides."""
    unit = ScalarUnit(ScalarFormat(4, 6))
    assert sqrt(unit, 17**2, -2) == Scalar(8, 0)
    assert sqrt(unit, 19**2, -2) == Scalar(10, 0)
    assert sqrt(unit, 17**2 * 16 + 1, -6) == Scalar(9, 0)
    assert sqrt(unit, 19**2 * 16 - 1, -6) == Scalar(9, 0)
    assert sqrt(unit, 31**2, -2) == Scalar(8, 1)  # the carry out of the mantissa


def test_corners() -> None:
    unit = ScalarUnit(ScalarFormat())
    assert sqrt(unit, 0, -1000) == ZERO
    assert sqrt(unit, 1, 0) == unit.format.one
    for k in range(0, 200, 2):
        assert sqrt(unit, 1 << k, 0).fraction == 1 << k // 2  # exact powers
    assert sqrt(unit, 2, 0) == Scalar(11863283, -23)
    assert not unit.overflow and not unit.underflow
    assert sqrt(unit, 1, 2000) == unit.format.largest and unit.overflow
    assert sqrt(unit, 1, -2000) == ZERO and unit.underflow
