"""What the golden tests draw: formats, scalars, configurations and adversarial gradients."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed, Overflow, Rounding, Scalar, ScalarFormat
from kappa_rtl.golden.laws import LAWS
from kappa_rtl.golden.registers import WATCHES
from kappa_rtl.golden.scalar import ScalarUnit
from support import spec

ROUNDINGS = [mode for mode in Rounding if mode is not Rounding.STOCHASTIC]
OVERFLOWS = list(Overflow)


def exactly(message: str) -> str:
    """The pattern for ``pytest.raises(match=...)`` that only this text matches."""
    return f"^{re.escape(message)}$"


@st.composite
def signed_formats(draw: st.DrawFn, least: int = 4, most: int = 32) -> Fixed:
    """Signed formats of ``least..most`` bits, any modes; integer or fraction bits may be negative."""
    width, fraction = draw(st.integers(least, most)), draw(st.integers(-9, 41))
    return Fixed(True, width - fraction, fraction, draw(st.sampled_from(ROUNDINGS)), draw(st.sampled_from(OVERFLOWS)))


@st.composite
def scalar_formats(draw: st.DrawFn, least_exponent_bits: int = 6) -> ScalarFormat:
    """M 4..40; with at least 7 bits of exponent 1 is a scalar, whatever M."""
    return ScalarFormat(draw(st.integers(4, 40)), draw(st.integers(least_exponent_bits, 12)))


@st.composite
def scalars(draw: st.DrawFn, fmt: ScalarFormat) -> Scalar:
    """Zero, or any scalar; mantissas at the ends and with few bits, exponents at the ends and near each other, are likely."""
    if draw(st.integers(0, 9)) == 0:
        return Scalar(0, 0)
    low, high = fmt.exponents
    bottom, top = 1 << (fmt.mantissa_bits - 1), (1 << fmt.mantissa_bits) - 1
    m = draw(
        st.one_of(
            st.integers(bottom, top),
            st.sampled_from([bottom, bottom + 1, top - 1, top]),
            st.integers(0, fmt.mantissa_bits - 1).map(lambda bit: bottom | 1 << bit),
        )
    )
    near_one = st.integers(-3 * fmt.mantissa_bits, fmt.mantissa_bits).map(lambda e: min(max(e, low), high))
    e = draw(st.one_of(near_one, st.integers(low, high), st.sampled_from([low, low + 1, high - 1, high])))
    return Scalar(m, e)


def both(fmt: ScalarFormat) -> tuple[ScalarUnit, spec.Scalars]:
    """The golden unit and the oracle of one scalar format, flags down."""
    return ScalarUnit(fmt), spec.Scalars(fmt.mantissa_bits, fmt.exponent_bits)


def agree(unit: ScalarUnit, oracle: spec.Scalars, got: Scalar, want: Fraction) -> None:
    """Assert the same scalar and the same flags."""
    assert list(got) == oracle.pair(want)
    assert (unit.overflow, unit.underflow) == (oracle.overflow, oracle.underflow)


def some_real(span: int) -> st.SearchStrategy[Fraction]:
    """Zero, one, and 20-bit numbers over ``2**-span..2**span``."""

    def within(octaves: int) -> st.SearchStrategy[Fraction]:
        mantissa = st.integers(1 << 19, 1 << 20)
        return st.builds(lambda m, k: Fraction(m, 1 << 20) * Fraction(2) ** k, mantissa, st.integers(-octaves, octaves))

    return st.one_of(st.sampled_from([Fraction(0), Fraction(1)]), within(8), within(8), within(span))


@st.composite
def configs(draw: st.DrawFn, *, plain: bool = False, segmented: bool = False, **fixed: Any) -> ThrottleConfig:
    """Valid configurations whose updates neither all vanish nor all saturate, mostly.

    In ``plain`` ones an update hangs on nothing but the step: no random numbers, no residuals, no delay. ``segmented`` ones have
    segments, of few elements and of many, of equal scales and of others.

    The gradient format and eta are free; the update and the weight grid are then put where the products fall.
    """
    modes = st.tuples(st.sampled_from(ROUNDINGS), st.sampled_from(OVERFLOWS))
    g_width, y_width, w_width = (draw(st.integers(4, 32)) for _ in range(3))
    g_fraction = draw(st.integers(-9, 41))
    step_bits = draw(st.one_of(st.just(17), st.integers(2, 24)))
    octave = draw(st.integers(-12, 6))
    eta = Fraction(draw(st.one_of(st.just(1 << 12), st.integers((1 << 12) + 1, (1 << 13) - 1))), 1 << 12) * Fraction(2) ** octave
    shift = max(-4, g_width + step_bits - y_width + draw(st.integers(-6, 5)))
    y_fraction = g_fraction + (step_bits - octave - 1) - shift
    w_fraction = y_fraction + draw(st.integers(-6, 6))

    def fmt(width: int, fraction: int, *more: Rounding) -> Fixed:
        rounding, overflow = draw(modes)
        return Fixed(True, width - fraction, fraction, draw(st.sampled_from([rounding, *more])), overflow)

    values: dict[str, Any] = {
        "elements": draw(st.integers(1, 20)),
        "gradient": fmt(g_width, g_fraction),
        "update": fmt(y_width, y_fraction, *([] if plain else [Rounding.STOCHASTIC])),
        "weight": fmt(w_width, w_fraction),
        "step_bits": step_bits,
        "mantissa_bits": draw(st.one_of(st.just(24), st.integers(4, 40))),
        "exponent_bits": draw(st.integers(9, 11)),
        "eta": eta,
        "rho": draw(st.sampled_from([Fraction(1, 20), Fraction(0), Fraction(1), Fraction(1, 3), Fraction(1, 1000)])),
        "ema_start": draw(st.sampled_from(["zero", "first"])),
        "on_still": draw(st.sampled_from(["release", "floor", "hold", "divide"])),
        "enabled": draw(st.integers(0, 4)) > 0,
        "dead_after": draw(st.integers(1, 4)),
        "eps": draw(st.one_of(st.just(Fraction("1e-12")), some_real(200))),
        "lanes": draw(st.integers(1, 5)),
        "growth": draw(st.integers(0, 3)) == 0,
        "residual_bits": draw(st.sampled_from([0, 0, *range(2, 9)])),
        "every_rail": draw(st.booleans()),
        "delay": draw(st.integers(0, 2)) // 2,
        "random_bits": draw(st.one_of(st.just(16), st.integers(1, 16))),
        "seed": draw(st.integers(0, (1 << 32) - 1)),
        "watchdog": tuple(name for name in WATCHES if draw(st.booleans())),
        "gradient_floor": draw(st.sampled_from([Fraction(1), Fraction(1 << g_width - 2)])) / Fraction(2) ** g_fraction,
        "norm_growth": draw(st.sampled_from([Fraction(50), Fraction(3, 2), Fraction(13, 10)])),
    }
    if draw(st.integers(0, 2)) == 0:  # of the gradient's width or another, its fraction bits near the gradient's
        d_width = draw(st.one_of(st.just(g_width), st.integers(4, g_width)))
        values["direction"] = fmt(d_width, g_fraction + draw(st.integers(-4, 2)))
    if segmented:
        most = draw(st.integers(0, 7))
        layout = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(0, most)), min_size=1, max_size=5))
        values |= {
            "segments": [{"elements": n, "scale": scale} for n, scale in layout],
            "elements": sum(n for n, _ in layout),
            "scale_max": draw(st.integers(most, 7)),
            "entries": len(layout) + draw(st.integers(0, 2)),
        }
        values["capacity"] = values["elements"] + draw(st.integers(0, 9))
    values |= ({"residual_bits": 0, "delay": 0} if plain else {}) | fixed
    law = draw(st.sampled_from([*LAWS, "free", "extreme"]))
    along = "applied"  # which length of a step, or which projection, the curvature is measured with
    if values["step_bits"] <= values["mantissa_bits"] and law not in ("clip_norm", "trust_ratio"):
        along = draw(st.sampled_from(["applied", "intended"] + ["projection"] * ("direction" not in values)))
    if along == "projection" and law in LAWS and "source" not in fixed:
        values["source"] = along
    elif law in LAWS:
        values["motion"] = "applied" if along == "projection" else along
    if law in LAWS and law not in ("stability_margin", "inverse_curvature"):  # whose parameters have bounds, below
        del values["growth"]
        parameters = tuple(LAWS[law].parameters)
        return ThrottleConfig.of_law(law, **values, **{name: draw(some_real(8)) for name in parameters})
    if law in ("stability_margin", "inverse_curvature"):
        del values["growth"]
    if law == "stability_margin":
        return ThrottleConfig.stability_margin(chi=draw(some_real(8)), **values)
    alpha_min = draw(st.sampled_from([Fraction(0), Fraction(1, 100), Fraction(1, 2), Fraction(1)]))
    if law == "inverse_curvature":
        return ThrottleConfig.inverse_curvature(beta=draw(some_real(8)), alpha_min=alpha_min, **values)
    sources = {
        "applied": ["instant", "ema", "max", "norm", "ratio"],
        "intended": ["instant", "ema", "max"],
        "projection": ["projection_instant", "projection_ema", "projection"],
    }
    values |= {"alpha_min": alpha_min, "source": draw(st.sampled_from(sources[along]))}
    if along != "projection":
        values["motion"] = along if "source" not in fixed else "applied"
    if law == "extreme":  # next to the ends of a small exponent, so that the scalars overflow and underflow
        values["exponent_bits"] = 9
        ends = st.sampled_from([Fraction(0), Fraction(1), *(3 * Fraction(2) ** octave for octave in (240, 200, -210))])
        values |= {name: draw(ends) for name in ("num", "bias", "gain", "eps")}
    else:
        values |= {name: draw(some_real(200)) for name in ("num", "bias", "gain")}
    return ThrottleConfig(**(values | fixed))


def codes(fmt: Fixed) -> st.SearchStrategy[int]:
    """Codes of a word: zero, an ulp, both rails and what is near, few significant bits (ties of either sign), any."""
    low, high = -(1 << (fmt.width - 1)), (1 << (fmt.width - 1)) - 1
    near = fmt.near_rail
    corners = st.sampled_from([0, 1, -1, low, low + 1, high, high - 1, near - 1, min(near, high), 1 - near, -near])
    few_bits = st.builds(
        lambda odd, k, sign: max(low, min(high, sign * (2 * odd + 1) << k)),
        st.integers(0, 7),
        st.integers(0, fmt.width - 2),
        st.sampled_from([1, -1]),
    )
    return st.one_of(corners, few_bits, st.integers(low, high))


def vectors(fmt: Fixed, elements: int) -> st.SearchStrategy[list[int]]:
    """Vectors of codes: mixed, all zero, or one code everywhere."""
    mixed = st.lists(codes(fmt), min_size=elements, max_size=elements)
    return st.one_of(mixed, mixed, mixed, st.just([0] * elements), codes(fmt).map(lambda code: [code] * elements))
