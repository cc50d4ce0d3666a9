"""The quotient of two scalars, against the exact ratio."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.divider import divide
from kappa_rtl.golden.formats import ZERO, Scalar, ScalarFormat
from kappa_rtl.golden.scalar import ScalarUnit
from support.strategies import agree, both, scalar_formats, scalars


@pytest.mark.parametrize("bits", [4, 6])
def test_exhaustively_at_small_widths(bits: int) -> None:
    fmt = ScalarFormat(bits, 6)
    mantissas = range(1 << (bits - 1), 1 << bits)
    for a in mantissas:
        for b in mantissas:
            unit, oracle = both(fmt)
            x, y = Scalar(a, 0), Scalar(b, 3)
            agree(unit, oracle, divide(unit, x, y), oracle.div(x.fraction, y.fraction))


@settings(max_examples=400)
@given(st.data(), scalar_formats())
def test_against_the_oracle(data: st.DataObject, fmt: ScalarFormat) -> None:
    a, b = data.draw(scalars(fmt)), data.draw(scalars(fmt))
    unit, oracle = both(fmt)
    agree(unit, oracle, divide(unit, a, b), oracle.div(a.fraction, b.fraction))


@given(st.data(), scalar_formats())
def test_near_ties(data: st.DataObject, fmt: ScalarFormat) -> None:
    """a is the product of b and a midpoint, rounded: the quotient lies as near to that midpoint as it can."""
    bits = fmt.mantissa_bits
    b = data.draw(st.integers(1 << (bits - 1), (1 << bits) - 1))
    middle = 2 * data.draw(st.integers(1 << (bits - 1), (1 << bits) - 1)) + 1
    unit, oracle = both(fmt)
    a = unit.normalise(b * middle, -bits - 1)
    agree(unit, oracle, divide(unit, a, Scalar(b, 0)), oracle.div(a.fraction, Fraction(b)))


def test_corners() -> None:
    unit = ScalarUnit(ScalarFormat())
    one, largest, smallest = unit.format.one, unit.format.largest, Scalar(2**23, -512)
    for x in (one, largest, smallest, Scalar(12345678, -40)):
        assert divide(unit, x, x) == one
        assert divide(unit, x, one) == x
        assert divide(unit, ZERO, x) == ZERO
    assert divide(unit, ZERO, ZERO) == ZERO
    assert not unit.overflow and not unit.underflow
    assert divide(unit, smallest, ZERO) == largest and unit.overflow and not unit.underflow
    unit.clear()
    assert divide(unit, largest, smallest) == largest and unit.overflow
    unit.clear()
    assert divide(unit, smallest, largest) == ZERO and unit.underflow and not unit.overflow
    assert divide(unit, one, Scalar(3 << 22, -22)) == Scalar(11184811, -25)  # 1/3
