"""Formats: what text means, what a width holds, and how scalar constants are made."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_rtl.golden.formats import Fixed, Overflow, Rounding, Scalar, ScalarFormat
from support import spec
from support.strategies import OVERFLOWS, ROUNDINGS, exactly, scalar_formats, scalars, signed_formats


@pytest.mark.parametrize(
    ("text", "signed", "width", "fraction", "rounding", "overflow"),
    [
        ("SQ4.12", True, 16, 12, "nearest_even", "saturate"),
        ("UQ-2.19", False, 17, 19, "nearest_even", "saturate"),
        ("SQ20.-4", True, 16, -4, "nearest_even", "saturate"),
        (" SQ 4.12, floor, wrap ", True, 16, 12, "floor", "wrap"),
        ("SQ2.6,toward_zero", True, 8, 6, "toward_zero", "saturate"),
        ("UQ1.7,nearest_away,zero", False, 8, 7, "nearest_away", "zero"),
        ("SQ1.7,stochastic", True, 8, 7, "stochastic", "saturate"),
        # HLS text has the HLS defaults (AP_TRN, AP_WRAP), not this project's.
        ("ap_fixed<16,4>", True, 16, 12, "floor", "wrap"),
        ("ap_ufixed<16, 4>", False, 16, 12, "floor", "wrap"),
        ("ap_int<8>", True, 8, 0, "floor", "wrap"),
        ("ap_uint<8>", False, 8, 0, "floor", "wrap"),
        ("ap_fixed<8,12>", True, 8, -4, "floor", "wrap"),
        ("ap_fixed<8,-3>", True, 8, 11, "floor", "wrap"),
        ("ap_fixed<16,4,AP_RND>", True, 16, 12, "nearest_up", "wrap"),
        ("ap_fixed<16,4,AP_RND,AP_SAT>", True, 16, 12, "nearest_up", "saturate"),
        ("ap_fixed<16,4,AP_RND_CONV,AP_WRAP>", True, 16, 12, "nearest_even", "wrap"),
        ("ap_fixed<16,4,AP_TRN,AP_SAT_SYM>", True, 16, 12, "floor", "saturate_symmetric"),
        ("ap_fixed<16,4,AP_TRN_ZERO,AP_SAT_ZERO>", True, 16, 12, "toward_zero", "zero"),
        ("ap_fixed<16,4,AP_RND_ZERO,AP_SAT>", True, 16, 12, "nearest_zero", "saturate"),
        ("ap_fixed<16,4,AP_RND_INF,AP_SAT>", True, 16, 12, "nearest_away", "saturate"),
        ("Q4.12", True, 16, 12, "nearest_even", "saturate"),
        ("Q4.12,floor", True, 16, 12, "floor", "saturate"),
        ("fixed<16,6,RND,SAT>", True, 16, 10, "nearest_up", "saturate"),
        ("ufixed<8,4>", False, 8, 4, "floor", "wrap"),
        ("ap_fixed<16,6,AP_RND,AP_SAT,0>", True, 16, 10, "nearest_up", "saturate"),
        ("ap_fixed<16,4,AP_RND_MIN_INF,AP_SAT>", True, 16, 12, "nearest_down", "saturate"),
    ],
)
def test_text_means(text: str, signed: bool, width: int, fraction: int, rounding: str, overflow: str) -> None:
    fmt = Fixed.parse(text)
    assert (fmt.signed, fmt.width, fmt.fraction_bits, fmt.integer_bits) == (signed, width, fraction, width - fraction)
    assert (fmt.rounding, fmt.overflow) == (rounding, overflow)
    assert fmt.ulp == Fraction(2) ** -fraction


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not ''"),
        ("SQ4", "format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not 'SQ4'"),
        ("SQ1.0", "format 'SQ1.0': width must be at least 2 bits, not 1"),
        ("UQ-4.4", "format 'UQ-4.4': width must be at least 1 bit, not 0"),
        ("SQ4.12,up", "format 'SQ4.12,up': rounding must be one of nearest_even, nearest_up, nearest_down, nearest_zero, "
         "nearest_away, floor, toward_zero, stochastic, not 'up'"),
        ("SQ4.12,floor,clip", "format 'SQ4.12,floor,clip': overflow must be one of saturate, saturate_symmetric, wrap, zero, "
         "not 'clip'"),
        ("SQ4.12,floor,wrap,1", "format 'SQ4.12,floor,wrap,1': at most a rounding and an overflow mode may follow, "
         "not ['floor', 'wrap', '1']"),
        ("ap_fixed<16>", "format must read like 'ap_fixed<W,I[,Q,O[,N]]>' or 'ap_int<W>', not 'ap_fixed<16>'"),
        ("ap_fixed<a,4>", "format must read like 'ap_fixed<W,I[,Q,O[,N]]>' or 'ap_int<W>', not 'ap_fixed<a,4>'"),
        ("ap_int<8,AP_RND>", "format must read like 'ap_fixed<W,I[,Q,O[,N]]>' or 'ap_int<W>', not 'ap_int<8,AP_RND>'"),
        ("ap_fixed<16,4,AP_UP>", "format 'ap_fixed<16,4,AP_UP>': rounding must be one of AP_RND, AP_RND_CONV, AP_RND_ZERO, "
         "AP_RND_INF, AP_RND_MIN_INF, AP_TRN, AP_TRN_ZERO, not 'AP_UP'"),
        ("ap_fixed<16,4,AP_RND,CLIP>", "format 'ap_fixed<16,4,AP_RND,CLIP>': overflow must be one of AP_SAT, AP_SAT_SYM, "
         "AP_WRAP, AP_SAT_ZERO, not 'CLIP'"),
        ("fixed<16,4,RND,SAT,1>", "format 'fixed<16,4,RND,SAT,1>': N, the number of saturation bits, must be 0, not '1'"),
        ("ap_fixed<16,4,AP_RND,AP_SAT,0,0>", "format must read like 'ap_fixed<W,I[,Q,O[,N]]>' or 'ap_int<W>', "
         "not 'ap_fixed<16,4,AP_RND,AP_SAT,0,0>'"),
        ("Q-2000.2016", "format 'Q-2000.2016': integer_bits must be from -1000 to 1000, not -2000"),
        ("ap_fixed<9000,4>", "format 'ap_fixed<9000,4>': fraction_bits must be from -1000 to 1000, not 8996"),
        ("Q" + "9" * 5000 + ".1", "format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not 'Q" + "9" * 58
         + "... (5,003 characters)"),
    ],
)  # fmt: skip
def test_refused_text(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        Fixed.parse(text)


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", [*ROUNDINGS, Rounding.STOCHASTIC])
def test_modes_survive_text(rounding: Rounding, overflow: Overflow) -> None:
    fmt = Fixed(True, 4, 12, rounding, overflow)
    assert Fixed.parse(str(fmt)) == fmt
    assert fmt.name == "SQ4.12"
    assert Fixed.parse("SQ4.12").with_modes(rounding, overflow) == fmt


@given(signed_formats(least=2))
def test_text_round_trip_and_rails(fmt: Fixed) -> None:
    assert Fixed.parse(str(fmt)) == fmt
    assert fmt.rails == spec.rails(fmt)
    assert fmt.near_rail == spec.near_rail(fmt)
    unsigned = Fixed(False, fmt.integer_bits, fmt.fraction_bits, fmt.rounding, fmt.overflow)
    assert Fixed.parse(str(unsigned)) == unsigned
    assert unsigned.rails == spec.rails(unsigned) == (0, 2**fmt.width - 1)


@pytest.mark.parametrize(
    ("text", "rails", "near"),
    [
        ("SQ4.12", (-32768, 32767), 31130),  # 0.95 * 32768 = 31129.6
        ("SQ2.6", (-128, 127), 122),  # 121.6
        ("SQ2.6,nearest_even,saturate_symmetric", (-127, 127), 121),  # 120.65
        ("SQ2.0", (-2, 1), 2),
        ("UQ0.8", (0, 255), 243),  # 242.25
        ("UQ1.0,floor,saturate_symmetric", (0, 1), 1),
    ],
)
def test_rails_by_hand(text: str, rails: tuple[int, int], near: int) -> None:
    fmt = Fixed.parse(text)
    assert fmt.rails == rails
    assert fmt.near_rail == near


# -------------------------------------------------------------------------------------------------- scalars


def test_default_scalar_format_is_the_contracts() -> None:
    fmt = ScalarFormat()
    assert (fmt.mantissa_bits, fmt.exponents) == (24, (-512, 511))
    assert fmt.width == 34
    assert fmt.largest == Scalar(2**24 - 1, 511)
    assert fmt.one.fraction == 1
    assert Scalar(0, 0).fraction == 0


@given(st.data(), scalar_formats())
def test_scalar_value(data: st.DataObject, fmt: ScalarFormat) -> None:
    x = data.draw(scalars(fmt))
    assert x.fraction == x.m * spec.power_of_two(x.e)
    if -900 < x.e < 900 and fmt.mantissa_bits <= 53:
        assert Fraction(float(x)) == x.fraction


@given(st.data(), scalar_formats())
def test_constant_is_rnd(data: st.DataObject, fmt: ScalarFormat) -> None:
    oracle = spec.Scalars(fmt.mantissa_bits, fmt.exponent_bits)
    span = 2 ** (fmt.exponent_bits - 1) + fmt.mantissa_bits + 3
    m = data.draw(st.integers(0, 1 << (fmt.mantissa_bits + 2)))
    value = Fraction(m, data.draw(st.sampled_from([1, 3, 4, 10]))) * spec.power_of_two(data.draw(st.integers(-span, span)))
    want = oracle.rnd(value)
    if oracle.overflow or oracle.underflow:
        with pytest.raises(ValueError, match=r"^probe must be zero or between "):
            fmt.constant(value, name="probe")
    else:
        assert list(fmt.constant(value, name="probe")) == oracle.pair(want)


@given(st.data(), scalar_formats())
def test_constant_root_is_rnd_of_the_root(data: st.DataObject, fmt: ScalarFormat) -> None:
    oracle = spec.Scalars(fmt.mantissa_bits, 16)
    near_square = data.draw(st.integers(1, 1 << (fmt.mantissa_bits + 2))) ** 2 + data.draw(st.integers(-1, 1))
    value = Fraction(near_square) * spec.power_of_two(2 * data.draw(st.integers(-40, 40)))
    wide = ScalarFormat(fmt.mantissa_bits, 16)
    assert list(wide.constant(value, name="probe", root=True)) == oracle.pair(oracle.sqrt(value))


RANGE = "probe must be zero or between 2**-489 and 2**535 to be a scalar of 24+10 bits, not "


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Fraction(-1), "probe must be a non-negative scalar, not -1"),
        (Fraction(2) ** 600, RANGE + "4.14952e+180"),
        (Fraction(2) ** -600, RANGE + "2.40992e-181"),
        ((2**25 - 1) * Fraction(2) ** 510, RANGE + "1.12473e+161"),  # the largest plus half an ulp carries out of the range
    ],
)
def test_refused_constant(value: Fraction, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        ScalarFormat().constant(value, name="probe")


@pytest.mark.parametrize("value", [Fraction(10) ** 400, Fraction(1, 10**400)])
def test_refused_constant_beyond_float64(value: Fraction) -> None:
    with pytest.raises(ValueError, match=r"^probe must be zero or between 2\*\*-489 and 2\*\*535 "):
        ScalarFormat().constant(value, name="probe")


def test_a_refused_root_names_what_it_is_the_root_of() -> None:
    with pytest.raises(ValueError, match=r"bits, not the square root of about 2\*\*1202$"):
        ScalarFormat().constant(Fraction(2) ** 1202, name="probe", root=True)


def test_constant_at_the_ends_of_the_range() -> None:
    fmt = ScalarFormat()
    assert fmt.constant(fmt.largest.fraction, name="probe") == fmt.largest
    assert fmt.constant(Fraction(2) ** -489, name="probe") == Scalar(2**23, -512)
    # half an ulp above the largest rounds down to it when it is nearer
    assert fmt.constant(fmt.largest.fraction + Fraction(2) ** 510 - 1, name="probe") == fmt.largest
    # just under the smallest: the carry out of the mantissa brings it back in
    assert fmt.constant((2**25 - 1) * Fraction(2) ** -514, name="probe") == Scalar(2**23, -512)


@pytest.mark.parametrize(
    ("numerator", "m", "e"),
    [(17, 8, 1), (18, 9, 1), (19, 10, 1), (21, 10, 1), (23, 12, 1), (31, 8, 2), (30, 15, 1), (16, 8, 1), (1, 8, -3)],
)
def test_constant_ties_by_hand(numerator: int, m: int, e: int) -> None:
    """Four bits of mantissa: odd five-bit numbers are ties and go to the even mantissa; 31 carries."""
    assert ScalarFormat(4, 6).constant(Fraction(numerator), name="probe") == Scalar(m, e)
