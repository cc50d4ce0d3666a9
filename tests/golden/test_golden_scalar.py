"""Scalar operations: each the exact result rounded once, with its flags."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.formats import ZERO, Scalar, ScalarFormat
from kappa_rtl.golden.scalar import ScalarUnit
from support.strategies import agree, both, scalar_formats, scalars

SMALL = ScalarFormat(4, 6)  # m 8..15, e -32..31
DEFAULT = ScalarFormat()


def test_add_mul_max_min_exhaustively_at_four_bits() -> None:
    every = [ZERO] + [Scalar(m, e) for m in range(8, 16) for e in (-32, -31, -8, -6, -5, -4, -3, -2, -1, 0, 1, 30, 31)]
    raised = {"overflow": 0, "underflow": 0}
    for a in every:
        for b in every:
            for name in ("add", "mul"):
                unit, oracle = both(SMALL)
                agree(unit, oracle, getattr(unit, name)(a, b), getattr(oracle, name)(a.fraction, b.fraction))
                raised["overflow"] += unit.overflow
                raised["underflow"] += unit.underflow
            assert unit.maximum(a, b).fraction == max(a.fraction, b.fraction)
            assert unit.minimum(a, b).fraction == min(a.fraction, b.fraction)
    assert min(raised.values()) > 100


@settings(max_examples=400)
@given(st.data(), scalar_formats())
def test_add_mul_max_min(data: st.DataObject, fmt: ScalarFormat) -> None:
    a, b = data.draw(scalars(fmt)), data.draw(scalars(fmt))
    unit, oracle = both(fmt)
    agree(unit, oracle, unit.add(a, b), oracle.add(a.fraction, b.fraction))
    agree(unit, oracle, unit.mul(a, b), oracle.mul(a.fraction, b.fraction))
    assert unit.maximum(a, b).fraction == max(a.fraction, b.fraction)
    assert unit.minimum(a, b).fraction == min(a.fraction, b.fraction)


@settings(max_examples=300)
@given(st.data(), scalar_formats())
def test_normalise(data: st.DataObject, fmt: ScalarFormat) -> None:
    bits = data.draw(st.integers(0, 3 * fmt.mantissa_bits))
    integer = data.draw(st.one_of(st.integers(0, 1 << bits), st.just((1 << bits) - 1), st.just((1 << bits) + (1 << bits // 2))))
    low, high = fmt.exponents
    scale = data.draw(st.one_of(st.integers(-3, 3), st.integers(low - 60, high + 60)))
    unit, oracle = both(fmt)
    agree(unit, oracle, unit.normalise(integer, scale), oracle.normalise(integer, scale))


@settings(max_examples=200)
@given(st.data(), scalar_formats())
def test_round_with_a_sticky_rest(data: st.DataObject, fmt: ScalarFormat) -> None:
    """``sticky`` stands for any rest strictly between zero and one."""
    integer = data.draw(st.integers(1 << (fmt.mantissa_bits + 1), 1 << (fmt.mantissa_bits + 5)))
    if data.draw(st.booleans()):
        integer = integer & ~7 | 4  # at or near a tie
    scale = data.draw(st.integers(*fmt.exponents))
    for rest in (Fraction(1, 1000), Fraction(999, 1000)):
        unit, oracle = both(fmt)
        agree(unit, oracle, unit.round(integer, scale, True), oracle.rnd((integer + rest) * Fraction(2) ** scale))


# -------------------------------------------------------------------------------------------------- corners


@pytest.mark.parametrize(
    ("integer", "expected"),
    [
        (0, (0, 0)),
        (1, (8, -3)),
        (8, (8, 0)),
        (15, (15, 0)),
        (16, (8, 1)),  # exact power
        (17, (8, 1)),  # tie to even, down
        (19, (10, 1)),  # tie to even, up
        (31, (8, 2)),  # tie that carries out of the mantissa
        (63, (8, 3)),  # above the tie, carries as well
        (0b10001_0001, (9, 5)),  # just above a tie
        (0b10000_1111, (8, 5)),  # just below it
    ],
)
def test_rounding_by_hand(integer: int, expected: tuple[int, int]) -> None:
    unit = ScalarUnit(SMALL)
    assert unit.normalise(integer, 0) == expected
    assert not unit.overflow and not unit.underflow


def test_zero_is_neutral_and_raises_nothing() -> None:
    unit = ScalarUnit(DEFAULT)
    for x in (Scalar(2**23, -512), DEFAULT.one, DEFAULT.largest, ZERO):
        assert unit.add(x, ZERO) == unit.add(ZERO, x) == x
        assert unit.mul(x, ZERO) == unit.mul(ZERO, x) == ZERO
        assert unit.maximum(x, ZERO) == unit.maximum(ZERO, x) == x
        assert unit.minimum(x, ZERO) == unit.minimum(ZERO, x) == ZERO
        assert unit.mul(x, DEFAULT.one) == x
    assert not unit.overflow and not unit.underflow


def test_overflow_gives_the_largest_and_a_flag() -> None:
    unit = ScalarUnit(DEFAULT)
    largest = DEFAULT.largest
    assert unit.add(largest, Scalar(2**23, 511 - 25)) == largest  # less than half an ulp: no overflow
    assert not unit.overflow
    assert unit.add(largest, Scalar(2**23, 511 - 24)) == largest  # half an ulp: the tie carries beyond the range
    assert unit.overflow and not unit.underflow
    unit.clear()
    assert not unit.overflow
    assert unit.mul(largest, DEFAULT.one) == largest and not unit.overflow
    assert unit.mul(largest, Scalar(2**23 + 1, -23)) == largest and unit.overflow


def test_underflow_gives_zero_and_a_flag() -> None:
    unit = ScalarUnit(DEFAULT)
    smallest = Scalar(2**23, -512)
    assert unit.mul(smallest, DEFAULT.one) == smallest and not unit.underflow
    assert unit.mul(smallest, Scalar(2**24 - 1, -24)) == ZERO and unit.underflow and not unit.overflow
    unit.clear()
    assert not unit.underflow
    # half an ulp under the smallest: the carry out of the mantissa brings it back into range
    assert unit.normalise(2**25 - 1, -514) == smallest and not unit.underflow
    assert unit.normalise(2**25 - 2, -514) == ZERO and unit.underflow


def test_flags_are_sticky() -> None:
    unit = ScalarUnit(SMALL)
    unit.mul(SMALL.largest, SMALL.largest)
    unit.mul(Scalar(8, -32), Scalar(8, -32))
    assert unit.overflow and unit.underflow
    unit.add(SMALL.one, SMALL.one)
    assert unit.overflow and unit.underflow
    unit.clear()
    assert not unit.overflow and not unit.underflow
