"""Rounding and overflow on arrays: every mode by hand and against Fractions, and what is refused."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_rtl.golden.formats import Fixed, Overflow, Rounding
from kappa_rtl.golden.rounding import fit, on_grid, quantise, random_lift, shift_round, values
from support import spec
from support.strategies import OVERFLOWS, ROUNDINGS, exactly, signed_formats

QUARTERS = [-10, -9, -7, -6, -5, -3, -2, -1, 0, 1, 2, 3, 5, 6, 7, 9, 10]
"""Halves, the ties of both signs between even and odd integers, and what lies beside them, in quarters."""


def check_mode(rounding: Rounding, expected: list[int]) -> None:
    """``QUARTERS / 4`` rounded by every route must give ``expected``; and a whole range against Fractions."""
    fmt = Fixed(True, 16, 0, rounding)
    codes = np.array(QUARTERS, np.int64)
    assert len(expected) == len(QUARTERS)
    assert [spec.round_integer(Fraction(q, 4), rounding) for q in QUARTERS] == expected
    assert shift_round(codes, 2, rounding).tolist() == expected
    assert quantise(codes / 4, fmt).tolist() == expected
    sweep = np.arange(-1100, 1101, dtype=np.int64)
    for shift in range(-3, 9):
        want = [spec.round_integer(Fraction(int(c)) / Fraction(2) ** shift, rounding) for c in sweep]
        assert shift_round(sweep, shift, rounding).tolist() == want
        assert quantise(sweep * 2.0**-shift, fmt).tolist() == want
        in_place = sweep.copy()
        shift_round(in_place, shift, rounding, out=in_place)
        assert in_place.tolist() == want


# -2.5, -2.25, -1.75, -1.5, -1.25, -.75, -.5, -.25, 0, .25, .5, .75, 1.25, 1.5, 1.75, 2.25, 2.5


def test_nearest_even() -> None:
    check_mode(Rounding.NEAREST_EVEN, [-2, -2, -2, -2, -1, -1, 0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 2])


def test_nearest_up() -> None:
    check_mode(Rounding.NEAREST_UP, [-2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3])


def test_nearest_down() -> None:
    check_mode(Rounding.NEAREST_DOWN, [-3, -2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])


def test_nearest_zero() -> None:
    check_mode(Rounding.NEAREST_ZERO, [-2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])


def test_nearest_away() -> None:
    check_mode(Rounding.NEAREST_AWAY, [-3, -2, -2, -2, -1, -1, -1, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3])


def test_floor() -> None:
    check_mode(Rounding.FLOOR, [-3, -3, -2, -2, -2, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 2, 2])


def test_toward_zero() -> None:
    check_mode(Rounding.TOWARD_ZERO, [-2, -2, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])


def test_stochastic_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^rounding must be deterministic, not 'stochastic'$"):
        shift_round(np.array([1]), 1, Rounding.STOCHASTIC)
    with pytest.raises(ValueError, match=r"^G: rounding must be deterministic, not 'stochastic'$"):
        quantise([0.5], Fixed.parse("SQ4.12,stochastic"), "G")


# -------------------------------------------------------------------------------------------------- overflow

SPAN = range(-25, 26)
"""Three words of four bits and a little more."""


def check_overflow(overflow: Overflow, expected: dict[int, int]) -> None:
    fmt = Fixed(True, 4, 0, overflow=overflow)
    codes = np.array(SPAN, np.int64)
    got = dict(zip(SPAN, fit(codes, fmt).tolist(), strict=True))
    assert got == {code: spec.fit(code, fmt) for code in SPAN}
    assert got | expected == got
    assert quantise(codes.astype(float), fmt).tolist() == list(got.values())
    in_place = codes.copy()
    fit(in_place, fmt, out=in_place)
    assert in_place.tolist() == list(got.values())
    unsigned = Fixed(False, 4, 0, overflow=overflow)
    assert quantise(codes.astype(float), unsigned).tolist() == [spec.fit(code, unsigned) for code in SPAN]


def test_saturate() -> None:
    check_overflow(Overflow.SATURATE, {-25: -8, -9: -8, -8: -8, -7: -7, 0: 0, 7: 7, 8: 7, 24: 7})


def test_saturate_symmetric() -> None:
    check_overflow(Overflow.SATURATE_SYMMETRIC, {-25: -7, -9: -7, -8: -7, -7: -7, 0: 0, 7: 7, 8: 7, 24: 7})


def test_wrap() -> None:
    check_overflow(Overflow.WRAP, {-25: 7, -9: 7, -8: -8, -7: -7, 0: 0, 7: 7, 8: -8, 16: 0, 24: -8})


def test_zero() -> None:
    check_overflow(Overflow.ZERO, {-25: 0, -9: 0, -8: -8, -7: -7, 0: 0, 7: 7, 8: 0, 24: 0})


# -------------------------------------------------------------------------------------------------- properties


@given(
    st.sampled_from(ROUNDINGS),
    st.integers(-4, 62),
    st.lists(st.one_of(st.integers(-(2**57), 2**57), st.integers(-3, 3)), min_size=1, max_size=8),
    st.integers(0, 56),
)
def test_shift_round_against_fractions(rounding: Rounding, shift: int, codes: list[int], tie_bit: int) -> None:
    halves = [(2 * code + 1) << max(shift - 1, 0) for code in codes if abs(code) < 2 ** (60 - max(shift, 0))]
    for batch in (codes, halves, [1 << tie_bit, -(1 << tie_bit)]):
        want = [spec.round_integer(Fraction(code) / Fraction(2) ** shift, rounding) for code in batch]
        assert shift_round(np.array(batch, np.int64), shift, rounding).tolist() == want


@given(st.data(), signed_formats(least=2), st.booleans())
def test_quantise_against_fractions(data: st.DataObject, fmt: Fixed, signed: bool) -> None:
    fmt = Fixed(signed, fmt.integer_bits, fmt.fraction_bits, fmt.rounding, fmt.overflow)
    ulp = float(fmt.ulp)
    halves = st.builds(lambda n: n * ulp / 2, st.integers(-(2 ** (fmt.width + 3)), 2 ** (fmt.width + 3)))
    anything = st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x == 0 or 1e-290 < abs(x) < 1e290)
    beside = st.builds(lambda x, up: math.nextafter(x, math.inf if up else -math.inf), halves, st.booleans())
    reals = data.draw(st.lists(st.one_of(halves, beside, anything), min_size=1, max_size=8))
    got = quantise(np.array(reals), fmt)
    assert got.dtype == np.int64
    assert got.tolist() == [spec.quantise(Fraction(x), fmt) for x in reals]
    low, high = spec.rails(fmt)
    assert low <= got.min() and got.max() <= high
    assert values(got, fmt).tolist() == [float(spec.real(int(code), fmt)) for code in got]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("fraction", [-40, -1, 0, 12, 60])
def test_quantise_at_the_ends_of_float64(rounding: Rounding, fraction: int) -> None:
    """The largest and the smallest doubles: scaling them must neither overflow, nor warn, nor lose them."""
    extremes = [1.7976931348623157e308, 2.0**1023, 1e300, 2.2250738585072014e-308, 5e-324, 3 * 5e-324]
    reals = [sign * x for x in extremes for sign in (1, -1)]
    for overflow in OVERFLOWS:
        fmt = Fixed(True, 16 - fraction, fraction, rounding, overflow)
        assert quantise(reals, fmt).tolist() == [spec.quantise(Fraction(x), fmt) for x in reals]


def test_quantise_keeps_the_shape() -> None:
    fmt = Fixed.parse("SQ4.12")
    assert quantise(np.ones((2, 3)), fmt).tolist() == [[4096] * 3] * 2
    assert quantise([], fmt).shape == (0,)
    assert quantise(-0.0, fmt) == 0


# -------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("overflow", OVERFLOWS)
def test_not_finite_is_refused_by_name_and_index(bad: float, overflow: Overflow) -> None:
    fmt = Fixed.parse("SQ4.12").with_modes(Rounding.NEAREST_EVEN, overflow)
    tensor = np.zeros((3, 4))
    tensor[1, 2] = tensor[2, 0] = bad
    for route in (quantise, on_grid):
        with pytest.raises(ValueError, match=exactly(f"gradient[1, 2] must be finite, not {bad}")):
            route(tensor, fmt, "gradient")


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ([0.0, 0.1], "weights[1] must lie on the grid of SQ4.12, not 0.1"),
        ([0.0, 8.0], "weights[1] must be from -8.0 to 7.999755859375 for SQ4.12, not 8.0"),
        ([-8.0 - 2**-12], "weights[0] must be from -8.0 to 7.999755859375 for SQ4.12, not -8.000244140625"),
        ([0, 1, 32768], "weights[2] must be from -8.0 to 7.999755859375 for SQ4.12, not 32768"),
        ([[0], [-9]], "weights[1, 0] must be from -8.0 to 7.999755859375 for SQ4.12, not -9"),
        ([True], "weights must hold integers or floats, not bool"),
        (["a"], "weights must hold integers or floats, not <U1"),
    ],
)
def test_off_grid_is_refused(tensor: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        on_grid(tensor, Fixed.parse("SQ4.12"), "weights")  # type: ignore[arg-type]


@pytest.mark.parametrize("tensor", [[1e308], [5e-324], np.array([2**63], np.uint64), np.array([-(2**63)]), np.array([2**63 - 1])])
def test_extremes_are_refused_by_name(tensor: list[float]) -> None:
    for text in ("SQ4.12", "SQ20.-4"):
        with pytest.raises(ValueError, match=r"^weights\[0\] must "):
            on_grid(tensor, Fixed.parse(text), "weights")


@given(st.data(), signed_formats(least=2))
def test_on_grid_takes_every_code_either_way(data: st.DataObject, fmt: Fixed) -> None:
    """Any code of the word, the low rail of a symmetric format included: it may arrive on a port."""
    low, high = -(1 << (fmt.width - 1)), (1 << (fmt.width - 1)) - 1
    codes = [low, high, *data.draw(st.lists(st.integers(low, high), max_size=6))]
    assert on_grid(np.array(codes), fmt, codes=True).tolist() == codes
    assert on_grid(values(codes, fmt), fmt).tolist() == codes


@pytest.mark.parametrize("random_bits", range(1, 17))
def test_the_bias_of_stochastic_rounding(random_bits: int) -> None:
    """Over all draws the mean is the product rounded to R bits below the ulp, half up: none drifts by more than half of that.

    Exact, for products of R + 3 bits below the ulp in two ulps of either sign; of all of them the mean shift is a tie's share.
    """
    shift = random_bits + 3
    draws = (np.arange(1 << random_bits) << 16 - random_bits).astype(np.uint16)
    lift = random_lift(draws, random_bits, shift)
    every = 1 if random_bits <= 5 else (4 << shift) // 211  # a stride that meets all remainders of 8
    products = range(-2 << shift, 2 << shift, every)
    drift = 0
    for product in products:
        mean = int(((product + lift) >> shift).sum())  # times 2**R
        assert mean == (product + 4) >> 3, f"{product} * 2**-{shift}"
        drift += 8 * mean - product
    if every == 1:
        assert drift == 4 * len(products) // 8
    few = random_lift(draws, random_bits, random_bits - 1 or 1)
    assert few.min() == 0 and few.max() == (1 << (random_bits - 1 or 1)) - 1, "bits below the product's are left out"
