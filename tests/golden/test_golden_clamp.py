"""The law with its clamp, the step size, and the bound of alpha's error."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.clamp import alpha_law, step_size
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.decide import Decide
from kappa_rtl.golden.formats import ZERO, Fixed, Scalar, ScalarFormat
from kappa_rtl.golden.scalar import ScalarUnit
from support import spec
from support.strategies import agree, both, scalar_formats, scalars


def law(oracle: spec.Scalars, k: dict[str, Scalar], x: Scalar) -> Fraction:
    q = oracle.add(k["bias"].fraction, oracle.mul(k["gain"].fraction, x.fraction))
    if q == 0:
        return Fraction(1)
    return min(Fraction(1), max(k["alpha_min"].fraction, oracle.div(k["num"].fraction, q)))


@settings(max_examples=400)
@given(st.data(), scalar_formats(least_exponent_bits=7))
def test_alpha_law_against_the_oracle(data: st.DataObject, fmt: ScalarFormat) -> None:
    k = {name: data.draw(scalars(fmt)) for name in ("num", "bias", "gain")}
    k["alpha_min"] = data.draw(st.sampled_from([ZERO, fmt.one, Scalar(fmt.one.m, fmt.one.e - 1)]))
    x = data.draw(scalars(fmt))
    unit, oracle = both(fmt)
    got = alpha_law(unit, k, x)
    agree(unit, oracle, got, law(oracle, k, x))
    assert k["alpha_min"].fraction <= got.fraction <= 1


def scalar(text: str | int) -> Scalar:
    return ScalarFormat().constant(Fraction(text), name="probe")


@pytest.mark.parametrize(
    ("num", "bias", "gain", "alpha_min", "x", "alpha"),
    [
        (3, 1, 1, 0, 2, 1),  # exactly at the upper clamp
        (3, 1, 1, 0, 3, "3/4"),
        (3, 1, 1, 0, 1, 1),  # beyond it
        (1, 1, 1, "1/4", 3, "1/4"),  # exactly at the lower
        (1, 1, 1, "1/4", 7, "1/4"),  # beyond it
        (1, 1, 1, 1, 7, 1),  # alpha_min = 1
        (0, 1, 1, 0, 7, 0),  # num = 0
        (0, 1, 1, "1/4", 7, "1/4"),
        (5, 0, 1, 0, 0, 1),  # q = 0: 1, and no division
        (0, 0, 1, 0, 0, 1),
        (5, 0, 0, 0, 9, 1),
        (5, 0, 1, 0, 10, "1/2"),
    ],
)
def test_clamp_by_hand(num: int, bias: int, gain: int, alpha_min: str | int, x: int, alpha: str | int) -> None:
    unit = ScalarUnit(ScalarFormat())
    k = {"num": scalar(num), "bias": scalar(bias), "gain": scalar(gain), "alpha_min": scalar(alpha_min)}
    assert alpha_law(unit, k, scalar(x)).fraction == Fraction(alpha)
    assert not unit.overflow and not unit.underflow


def test_law_at_the_ends_of_the_range() -> None:
    unit = ScalarUnit(ScalarFormat())
    k = {"num": unit.format.one, "bias": ZERO, "gain": scalar(4), "alpha_min": ZERO}
    alpha = alpha_law(unit, k, unit.format.largest)  # gain * x overflows to the largest, and 1 / largest underflows
    assert unit.overflow and unit.underflow and alpha == ZERO
    unit.clear()
    k = {"num": unit.format.largest, "bias": ZERO, "gain": unit.format.one, "alpha_min": ZERO}
    assert alpha_law(unit, k, Scalar(2**23, -512)) == unit.format.one
    assert unit.overflow and not unit.underflow
    unit.clear()
    k = {"num": unit.format.one, "bias": ZERO, "gain": scalar("1/2"), "alpha_min": ZERO}
    assert alpha_law(unit, k, Scalar(2**23, -512)) == unit.format.one  # gain * x underflows to q = 0
    assert unit.underflow and not unit.overflow


# -------------------------------------------------------------------------------------------------- the step size


@settings(max_examples=300)
@given(st.data(), scalar_formats(), st.integers(2, 24), st.integers(-30, 30))
def test_step_size_against_fractions(data: st.DataObject, fmt: ScalarFormat, bits: int, integer_bits: int) -> None:
    grid = Fixed(False, integer_bits, bits - integer_bits)
    alpha = data.draw(st.one_of(st.just(fmt.one), scalars(fmt)))
    eta = data.draw(scalars(fmt))
    exact = alpha.fraction * eta.fraction
    want = spec.quantise(exact, grid), spec.round_to_grid(exact, grid) > spec.rails(grid)[1]
    assert step_size(grid, alpha, eta) == want


@settings(max_examples=300)
@given(st.data(), scalar_formats(least_exponent_bits=7))
def test_step_size_beside_ties(data: st.DataObject, fmt: ScalarFormat) -> None:
    """alpha * eta with few bits on a grid as fine as they are: ties of both parities, exact values and the rail."""
    few = st.builds(lambda m, e: fmt.constant(Fraction(m) * Fraction(2) ** e, name="x"), st.integers(1, 15), st.integers(-6, 0))
    alpha, eta = data.draw(few), data.draw(few)
    grid = Fixed(False, data.draw(st.integers(1, 9)) - 6, 6)
    exact = alpha.fraction * eta.fraction
    want = spec.quantise(exact, grid), spec.round_to_grid(exact, grid) > spec.rails(grid)[1]
    assert step_size(grid, alpha, eta) == want


@pytest.mark.parametrize(
    ("alpha", "eta", "step"),
    [
        (0, 1, 0),
        (1, 1, 16),
        ("1/2", "1/16", 0),  # ties to even
        ("1/2", "3/16", 2),
        ("1/2", "5/16", 2),
        (1, "63/16", 63),
        (1, "127/32", 63),  # rounds beyond the rail
        (1, 4, 63),
        ("1/64", "1/4", 0),
    ],
)
def test_step_size_by_hand(alpha: str | int, eta: str | int, step: int) -> None:
    assert step_size(Fixed.parse("UQ2.4"), scalar(alpha), scalar(eta))[0] == step


# -------------------------------------------------------------------------------------------------- the error bound


def error_sample(rng: random.Random, bits: int) -> tuple[Fraction, int] | None:
    """One measurement through the scalar part with ``source = instant``: (relative error of alpha, its exponent).

    Every format and constant is placed at random over the exponent range, yet so that each of the seven roundings
    matters: eps near the motion's norm, bias near gain * C, mantissas often just above a power of two, where a relative
    error is largest. None if an intermediate left the range of the scalars.
    """

    def around(octave: int) -> Fraction:
        top = rng.choice([2.0, 1.02])
        return Fraction(rng.uniform(1, top)) * Fraction(2) ** octave

    def energy() -> int:
        return int(around(rng.choice([2 * rng.randint(0, 15), rng.randint(0, 36)])) ** 2) or 1

    f_g, f_w = rng.randint(-440, 430), rng.randint(-440, 430)
    a, b = energy(), energy()
    ng_octave = (a.bit_length() - 1) // 2 - f_g
    nd_octave = (b.bit_length() - 1) // 2 - f_w
    c_octave = ng_octave - nd_octave
    gain_octave = rng.randint(max(-460, -460 - c_octave), min(460, 460 - c_octave)) if abs(c_octave) < 900 else 0
    q_octave = gain_octave + c_octave
    num_octave = q_octave - rng.choice([3, rng.randint(3, 100), rng.randint(3, 900)])
    values = {
        "eps": around(nd_octave + rng.choice([-1, 0, 0, 1, -rng.randint(0, 2 * bits)])),
        "gain": around(gain_octave),
        "bias": around(q_octave + rng.choice([-1, 0, 0, 1, -rng.randint(0, 2 * bits)])),
        "num": around(num_octave),
    }
    try:
        config = ThrottleConfig(
            elements=4096, eta=Fraction(2) ** (f_g - f_w), source="instant", mantissa_bits=bits, exponent_bits=10,
            gradient=Fixed(True, 16 - f_g, f_g), weight=Fixed(True, 16 - f_w, f_w), update=Fixed(True, 16 - f_w, f_w), **values,
        )  # fmt: skip
    except ValueError:
        return None  # a constant, or eta, beyond the range
    decide = Decide(config)
    decide.decide(a, b)  # the first step leaves C alone
    alpha = decide.decide(a, b).alpha
    if decide.unit.overflow or decide.unit.underflow:
        return None
    k = spec.constants(config)
    exact = spec.Scalars(200, 20)  # far beyond what is measured
    ng = exact.sqrt(a * spec.power_of_two(-2 * f_g))
    nd = exact.sqrt(b * spec.power_of_two(-2 * f_w))
    truth = k["num"] / (k["bias"] + k["gain"] * (ng / (nd + k["eps"])))
    assert truth < 1, "the clamp would hide the error"
    return abs(alpha.fraction / truth - 1), alpha.e + bits


@pytest.mark.parametrize("bits", [12, 13, 16, 24, 32])
def test_alpha_error_bound(bits: int, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(bits)
    samples = [sample for sample in (error_sample(rng, bits) for _ in range(1500)) if sample]
    worst = max(error for error, _ in samples) * 2**bits
    octaves = sorted(octave for _, octave in samples)
    bound = Fraction(701, 100)
    with capsys.disabled():
        print(
            f"\nalpha, M = {bits}: worst relative error {float(worst):.3f} * 2**-M, bound {float(bound)} * 2**-M, "
            f"{len(samples)} samples, alpha from 2**{octaves[0]} to 2**{octaves[-1]}"
        )
    assert worst <= bound
    assert worst > 2.5, "a measurement this far below the bound has missed the roundings"
    assert len(samples) > 800
    assert octaves[0] < -450 and octaves[-1] > -8
