"""The configuration: what it refuses, in which words; the constants, the widths, and its text."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed, Scalar
from kappa_rtl.golden.laws import LAWS
from kappa_rtl.golden.registers import CONSTANTS, WATCHES
from kappa_rtl.golden.widths import Interval
from support import spec
from support.strategies import ROUNDINGS, configs, exactly

SCALAR_RANGE = "must be zero or between 2**-489 and 2**535 to be a scalar of 24+10 bits, not"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"elements": 0}, "elements must be an integer from 1 to 4294967296, not 0"),
        ({"elements": 2**32 + 1}, "elements must be an integer from 1 to 4294967296, not 4294967297"),
        ({"elements": 4.0}, "elements must be an integer from 1 to 4294967296, not 4.0"),
        ({"elements": True}, "elements must be an integer from 1 to 4294967296, not True"),
        ({"lanes": 0}, "lanes must be an integer from 1 to 32, not 0"),
        ({"lanes": 33}, "lanes must be an integer from 1 to 32, not 33"),
        ({"mantissa_bits": 3}, "mantissa_bits must be an integer from 4 to 64, not 3"),
        ({"mantissa_bits": 65}, "mantissa_bits must be an integer from 4 to 64, not 65"),
        ({"exponent_bits": 5}, "exponent_bits must be an integer from 6 to 16, not 5"),
        ({"exponent_bits": 17}, "exponent_bits must be an integer from 6 to 16, not 17"),
        ({"step_bits": 1}, "step_bits must be an integer from 2 to 24, not 1"),
        ({"step_bits": 25}, "step_bits must be an integer from 2 to 24, not 25"),
        ({"dead_after": 0}, "dead_after must be an integer from 1 to 2147483647, not 0"),
        ({"enabled": 1}, "enabled must be true or false, not 1"),
        ({"gradient": "SQ4"}, "gradient: format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not 'SQ4'"),
        ({"gradient": "UQ4.12"}, "gradient must be a signed format, not UQ4.12"),
        ({"gradient": 16}, "gradient must be a format such as 'SQ4.12', not 16"),
        ({"weight": "SQ10.23"}, "weight must be at most 32 bits wide, not 33 (SQ10.23)"),
        ({"weight": "SQ1.0"}, "weight: format 'SQ1.0': width must be at least 2 bits, not 1"),
        (
            {"weight": "SQ1.15,stochastic"},
            "weight: rounding must be a deterministic mode, not 'stochastic'; the update's alone may be it",
        ),
        (
            {"watchdog": ["gradient_flor"]},
            f"watchdog must name conditions among {', '.join(WATCHES)}, not 'gradient_flor'",
        ),
        ({"watchdog": ["norm_growth"] * 2}, "watchdog must name a condition once, not 'norm_growth' again"),
        ({"watchdog": "norm_growth"}, "watchdog must be a list of names, not 'norm_growth'"),
        ({"gradient_floor": 1e6}, "gradient_floor must be a norm that SQ4.12 can reach with 4 elements, not 1e+06"),
        (
            {"watchdog": ["gradient_floor"]},
            "gradient_floor must be greater than 0 where watchdog names it, not 0: no norm is below that",
        ),
        ({"norm_growth": 256}, "norm_growth must be from 1/16 to 255.999, not 256"),
        ({"norm_growth": "1/17"}, "norm_growth must be from 1/16 to 255.999, not 0.0588235"),
        ({"residual_bits": 1}, "residual_bits must be 0 or from 2 to 8, not 1"),
        ({"residual_bits": 9}, "residual_bits must be an integer from 0 to 8, not 9"),
        ({"delay": 2}, "delay must be an integer from 0 to 1, not 2"),
        ({"random_bits": 0}, "random_bits must be an integer from 1 to 16, not 0"),
        ({"seed": -1}, "seed must be an integer from 0 to 4294967295, not -1"),
        ({"growth": 1}, "growth must be true or false, not 1"),
        ({"parity": "yes"}, "parity must be true or false, not 'yes'"),
        (
            {"source": "median"},
            "source must be one of instant, ema, max, projection, projection_instant, projection_ema, norm, ratio, not 'median'",
        ),
        ({"on_still": "stop"}, "on_still must be one of release, floor, hold, divide, not 'stop'"),
        ({"ema_start": "one"}, "ema_start must be one of zero, first, not 'one'"),
        ({"eta": 0}, "eta must be greater than 0, not 0"),
        ({"eta": -0.1}, "eta must not be negative, not -0.1"),
        ({"eta": float("nan")}, "eta must be a finite number, not nan"),
        ({"eta": float("inf")}, "eta must be a finite number, not inf"),
        ({"eta": "fast"}, "eta must be a finite number, not 'fast'"),
        ({"eta": True}, "eta must be a finite number, not True"),
        ({"num": -1}, "num must not be negative, not -1"),
        ({"rho": 1.5}, "rho must be between 0 and 1, not 1.5"),
        ({"alpha_min": 2}, "alpha_min must be between 0 and 1, not 2"),
        ({"eta_max": 0.05}, "eta_max must be at least eta = 0.1, not 0.05"),
        ({"gain": 1e200}, f"gain {SCALAR_RANGE} 1e+200"),
        ({"bias": 2.0**535}, f"bias {SCALAR_RANGE} 1.12473e+161"),
        ({"eps": 1e-200}, f"eps {SCALAR_RANGE} 1e-200"),
        ({"exponent_bits": 6}, "eps must be zero or between 2**-9 and 2**55 to be a scalar of 24+6 bits, not 1e-12"),
        ({"eta": 1e-100}, "update = SQ1.15 lies 346 bits from the product's grid; the bound is 62"),
        (
            {"update": "SQ1.31", "weight": "SQ31.1"},
            "weight = SQ31.1 needs an intermediate of 63 bits; the bound is 62 (direction SQ4.12, step UQ-3.20)",
        ),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    good = {"elements": 4, "eta": 0.1}
    ThrottleConfig(**good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=exactly(message)):
        ThrottleConfig(**(good | changes))


@pytest.mark.parametrize("name", ["eta", "num", "bias", "gain", "eps"])
def test_a_number_beyond_float64_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} " + re.escape(SCALAR_RANGE)):
        ThrottleConfig(**({"elements": 4, "eta": 0.1} | {name: "1e400"}))


@pytest.mark.parametrize("name", ["rho", "alpha_min"])
def test_a_fraction_beyond_float64_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be between 0 and 1, not "):
        ThrottleConfig(**({"elements": 4, "eta": 0.1} | {name: "1e400"}))


def test_norms_beyond_the_exponent_are_refused() -> None:
    message = "gradient = SQ-200.216 gives norms with exponents -240..-222; exponent_bits = 8 holds -128..127"
    formats = {"gradient": "SQ-200.216", "update": "SQ-60.76", "weight": "SQ-60.76"}
    with pytest.raises(ValueError, match=exactly(message)):
        ThrottleConfig(elements=4, eta=2.0**110, eps=0, exponent_bits=8, **formats)


def test_law_constructors_refuse_what_the_law_sets() -> None:
    for name, value in {"num": 1, "bias": 1, "gain": 1, "source": "ema", "alpha_min": 0}.items():
        message = f"{name} is set by the law stability_margin and must not be given with it, not {value!r}"
        with pytest.raises(ValueError, match=exactly(message)):
            ThrottleConfig.stability_margin(elements=4, eta=0.1, **{name: value})
    for name, value in {"num": 1, "bias": 1, "gain": 1, "source": "ema"}.items():
        message = f"{name} is set by the law inverse_curvature and must not be given with it, not {value!r}"
        with pytest.raises(ValueError, match=exactly(message)):
            ThrottleConfig.inverse_curvature(elements=4, eta=0.1, **{name: value})
    with pytest.raises(ValueError, match=exactly("eta must be greater than 0, not 0")):
        ThrottleConfig.stability_margin(elements=4, eta=0)
    with pytest.raises(ValueError, match=exactly("chi must not be negative, not -1")):
        ThrottleConfig.stability_margin(elements=4, eta=0.1, chi=-1)
    with pytest.raises(ValueError, match=exactly("beta must not be negative, not -2")):
        ThrottleConfig.inverse_curvature(elements=4, eta=0.1, beta=-2)


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_integers_of_numpy_become_plain_ones(kind: Any) -> None:
    """Sizes come from arrays; JSON and TOML take only int."""
    config = ThrottleConfig(elements=kind(4), eta=0.1, lanes=kind(2))
    assert config == ThrottleConfig(elements=4, eta=0.1, lanes=2)
    assert type(config.elements) is type(config.lanes) is int
    assert json.loads(json.dumps(config.registers()))["elements"] == 4
    with pytest.raises(ValueError, match=r"^elements must be an integer from 1 to 4294967296, not "):
        ThrottleConfig(elements=kind(0), eta=0.1)


def test_keyword_only_and_frozen() -> None:
    with pytest.raises(TypeError):
        ThrottleConfig(4, 0.1)  # type: ignore[misc]
    config = ThrottleConfig(elements=4, eta=0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.eta = 1  # type: ignore[misc]
    with pytest.raises(ValueError, match=exactly("lanes must be an integer from 1 to 32, not 64")):
        config.replace(lanes=64)
    assert config.replace(lanes=8).lanes == 8 and config.lanes == 1
    assert config.replace() == config and hash(config.replace()) == hash(config)


# -------------------------------------------------------------------------------------------------- the laws


def test_stability_margin_is_the_law_of_the_table() -> None:
    config = ThrottleConfig.stability_margin(elements=4, eta=0.3, chi=0.9, eps=1e-6, rho=0.1)
    assert config.num == 3  # of the decimals as written; 0.9 / 0.3 in floats is not 3
    assert (config.bias, config.gain, config.alpha_min, config.source) == (Fraction(1, 10**6), 1, 0, "max")
    assert (config.eps, config.rho) == (Fraction(1, 10**6), Fraction(1, 10))
    assert config.constants["num"] == Scalar(3 << 22, -22)
    assert config.constants["bias"] == config.constants["eps"]


def test_inverse_curvature_is_the_law_of_the_table() -> None:
    config = ThrottleConfig.inverse_curvature(elements=4, eta=0.3, beta="1/3", alpha_min=0.25)
    assert (config.num, config.bias, config.gain) == (1, 1, Fraction(1, 3))
    assert (config.alpha_min, config.source) == (Fraction(1, 4), "ema")


def test_defaults_are_the_contracts() -> None:
    config = ThrottleConfig(elements=640, eta=0.1)
    assert [str(fmt) for fmt in config.grids] == ["SQ4.12", "SQ2.14", "SQ1.15", "UQ-3.20", "SQ4.12"]
    assert (config.mantissa_bits, config.exponent_bits, config.step_bits) == (24, 10, 17)
    assert (config.source, config.ema_start, config.on_still, config.enabled) == ("max", "zero", "release", True)


# -------------------------------------------------------------------------------------------------- derived


@settings(max_examples=150)
@given(configs())
def test_constants_and_step_format_against_the_oracle(config: ThrottleConfig) -> None:
    want = spec.constants(config)
    pair = spec.Scalars(config.mantissa_bits, config.exponent_bits).pair
    assert tuple(config.constants) == CONSTANTS == tuple(want)
    assert {name: list(value) for name, value in config.constants.items()} == {name: pair(value) for name, value in want.items()}
    assert (config.step.integer_bits, config.step.fraction_bits) == spec.step_format(config)
    assert not config.step.signed and config.step.width == config.step_bits


@pytest.mark.parametrize(
    ("eta", "eta_max", "step"),
    [
        (0.1, None, "UQ-3.20"),
        (0.125, None, "UQ-2.19"),
        (0.1, 0.5, "UQ0.17"),
        (0.9999999999, None, "UQ0.17"),
        (1, None, "UQ1.16"),
        (3, None, "UQ2.15"),
    ],
)
def test_step_format_has_its_top_bit_in_use(eta: float, eta_max: float | None, step: str) -> None:
    assert ThrottleConfig(elements=4, eta=eta, eta_max=eta_max).step.name == step


def test_constants_by_hand() -> None:
    constants = ThrottleConfig.stability_margin(elements=640, eta=0.1, chi=1.5).constants
    assert constants["num"] == Scalar(15 << 20, -20)
    assert constants["eta"] == Scalar(13421773, -27)  # 0.1 rounded up, as in float32
    assert constants["rho"] == Scalar(13421773, -28)
    assert constants["keep"] == Scalar(15938355, -24)  # 0.95, not 1 - rnd(0.05)
    assert constants["still_norm"] == Scalar(13263554, -34)  # sqrt(640) / 2**15
    assert ThrottleConfig(elements=4, eta=1).constants["still_norm"].fraction == Fraction(1, 2**14)


def test_step_error_bounds_what_the_steps_rounding_does() -> None:
    config = ThrottleConfig(elements=640, eta=0.1)
    assert config.step_error == Fraction(8) * Fraction(1, 2**21) * 2**15


@pytest.mark.parametrize(
    ("elements", "lanes", "beats", "tail"),
    [(1, 1, 1, 1), (640, 8, 80, 8), (641, 8, 81, 1), (7, 32, 1, 7), (64, 32, 2, 32)],
)
def test_beats_and_tail(elements: int, lanes: int, beats: int, tail: int) -> None:
    config = ThrottleConfig(elements=elements, eta=0.1, lanes=lanes)
    assert (config.beats, config.tail) == (beats, tail)


@pytest.mark.parametrize(
    ("gradient", "weight", "update", "eta"),
    [
        ("SQ2.2", "SQ1.3", "SQ1.4", 0.5),
        ("SQ1.3", "SQ2.3", "SQ3.1", 3),
        ("SQ2.2", "SQ3.1,floor,wrap", "SQ1.4,floor,saturate_symmetric", 0.1),
    ],
)
def test_widths_hold_every_value(gradient: str, weight: str, update: str, eta: float) -> None:
    """All values of the words, all steps, all roundings: every intermediate lies in its interval, and the energies fit."""
    config = ThrottleConfig(elements=3, eta=eta, gradient=gradient, weight=weight, update=update, step_bits=3)
    g, w, y, step, _ = config.grids
    widths = config.widths

    def word(fmt: Fixed) -> range:
        return range(-(2 ** (fmt.width - 1)), 2 ** (fmt.width - 1))

    def inside(seen: set[int], interval: Interval, tight: bool = True) -> None:
        assert interval.low <= min(seen) and max(seen) <= interval.high
        assert not tight or (interval.low, interval.high) == (min(seen), max(seen))

    inside({a - b for a, b in product(word(g), repeat=2)}, widths.difference)
    inside({a - b for a, b in product(word(w), repeat=2)}, widths.motion)
    products = {-d * s for d, s in product(word(g), range(step.rails[1] + 1))}
    inside(products, widths.product)
    scale = spec.power_of_two(-widths.update_shift)
    assert scale == spec.real(1, g) * spec.real(1, step) / spec.real(1, y)
    rounded = {spec.round_integer(p * scale, mode) for p, mode in product(products, ROUNDINGS)}
    inside(rounded, widths.rounded)
    fine = Fraction(2) ** widths.common_fraction
    sums = {(spec.real(t, w) + spec.real(u, y)) * fine for t, u in product(word(w), range(y.rails[0], y.rails[1] + 1))}
    assert all(value.denominator == 1 for value in sums)
    inside({int(value) for value in sums}, widths.sum)
    assert widths.weight_shift == widths.common_fraction - w.fraction_bits
    assert widths.gradient_energy == (3 * (2**g.width - 1) ** 2).bit_length()
    assert widths.motion_energy == (3 * (2**w.width - 1) ** 2).bit_length()
    assert widths.energy == max(widths.gradient_energy, widths.motion_energy)


@pytest.mark.parametrize(
    ("low", "high", "bits"), [(0, 0, 1), (-1, 0, 1), (0, 1, 2), (-8, 7, 4), (-9, 7, 5), (-8, 8, 5), (3, 4, 4)]
)
def test_signed_bits(low: int, high: int, bits: int) -> None:
    assert Interval(low, high).signed_bits == bits


# -------------------------------------------------------------------------------------------------- text


@settings(max_examples=150)
@given(configs())
def test_table_survives_toml(config: ThrottleConfig) -> None:
    assert ThrottleConfig.from_table(tomllib.loads(tomli_w.dumps(config.to_table()))) == config


def test_a_published_law_is_written_as_such() -> None:
    table = ThrottleConfig.stability_margin(elements=4, eta=0.1, chi=1.9).to_table()
    assert table["law"] == "stability_margin" and table["chi"] == 1.9 and table["eta"] == 0.1
    assert not {"num", "bias", "gain", "source", "alpha_min"} & set(table)
    table = ThrottleConfig.inverse_curvature(elements=4, eta=0.1, beta=0.5).to_table()
    assert table["law"] == "inverse_curvature" and table["beta"] == 0.5 and table["alpha_min"] == 0.01
    assert "law" not in ThrottleConfig(elements=4, eta=0.1, gain=2).to_table()


def test_toml_file(tmp_path: Path) -> None:
    path = tmp_path / "throttle.toml"
    path.write_text(
        '[throttle]\nlaw = "stability_margin"\nelements = 640\nlanes = 8\neta = 0.1\nchi = 1.5\n'
        'gradient = "SQ2.10"\nweight = "SQ2.6"\nupdate = "ap_fixed<10,1,AP_RND_CONV,AP_SAT>"\non_still = "hold"\n'
    )
    expected = ThrottleConfig.stability_margin(
        elements=640, lanes=8, eta=0.1, chi=1.5, gradient="SQ2.10", weight="SQ2.6", update="SQ1.9", on_still="hold"
    )
    assert ThrottleConfig.from_toml(path) == expected
    path.write_text("[other]\nx = 1\n")
    with pytest.raises(ValueError, match=exactly(f"{path}: a table [throttle] must be there; found other")):
        ThrottleConfig.from_toml(path)


FIELDS = ", ".join(sorted(field.name for field in dataclasses.fields(ThrottleConfig)))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"eta": 0.1}, "elements must be given"),
        ({"elements": 4}, "eta must be given"),
        ({"elements": 4, "eta": 0.1, "law": "x"}, f"law must be one of {', '.join(LAWS)}, not 'x'"),
        ({"elements": 4, "eta": 0.1, "chi": 1}, f"chi is no field of a throttle configuration; it has {FIELDS}"),
        (
            {"elements": 4, "eta": 0.1, "law": "stability_margin", "num": 1},
            "num is set by the law stability_margin and must not be given with it, not 1",
        ),
    ],
)
def test_refused_tables(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        ThrottleConfig.from_table(table)


def test_registers_are_plain_integers_and_text() -> None:
    config = ThrottleConfig.stability_margin(elements=640, eta=0.1, weight="SQ2.6,floor,wrap")
    registers = config.registers()
    assert json.loads(json.dumps(registers)) == registers
    assert registers["formats"] == {
        "gradient": [4, 12],
        "weight": [2, 6],
        "update": [1, 15],
        "step": [-3, 20],
        "direction": [4, 12],
    }
    assert registers["constants"] == {name: list(config.constants[name]) for name in CONSTANTS}
    assert registers["rounding"]["weight"] == "floor" and registers["overflow"]["weight"] == "wrap"
    assert (registers["mantissa_bits"], registers["exponent_bits"], registers["enabled"]) == (24, 10, True)
    assert (registers["source"], registers["on_still"], registers["ema_start"]) == ("max", "release", "zero")
    assert registers["near_rail"] == {"gradient": 31130, "weight": 122}


def test_the_motion_goes_with_the_source() -> None:
    """Where none is given: a source of another kind comes with its own, and a projection under a law sees what the law sees."""
    plain = ThrottleConfig.stability_margin(elements=4, eta=0.1)
    projecting = plain.replace(source="projection")
    assert (plain.motion, projecting.motion, projecting.replace(source="max")) == ("applied", "intended", plain)
    intended = plain.replace(motion="intended")
    assert intended.replace(source="ema").motion == "intended" and intended.replace(source="norm").motion == "applied"
    for law, x in (("stability_margin", ""), ("inverse_curvature", "_ema"), ("adgd", "_instant")):
        config = ThrottleConfig.of_law(law, elements=4, eta=0.1, source="projection")
        assert config.source == f"projection{x}" and config.to_table() | {"law": law, "source": "projection"} == config.to_table()
        assert ThrottleConfig.from_table(config.to_table()) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motion": "meant"}, "motion must be one of applied, intended, not 'meant'"),
        ({"source": "projection", "motion": "applied"}, "motion must be intended with the source projection, not applied"),
        ({"source": "norm", "motion": "intended"}, "motion must be applied with the source norm, not intended"),
        ({"source": "projection", "direction": "SQ2.4"}, "direction must not be given with the source projection, not SQ2.4"),
        (
            {"motion": "intended", "mantissa_bits": 12},
            "step_bits must be at most mantissa_bits = 12 with the motion intended, not 17",
        ),
        (
            {"motion": "intended", "exponent_bits": 6, "eps": 0, "mantissa_bits": 20, "weight": "SQ8.0"},
            "step_bits = 17 gives step sizes with exponents from -39 on, which the motion intended takes as scalars",
        ),
    ],
)
def test_refused_of_an_intended_motion(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        ThrottleConfig(**({"elements": 4, "eta": 0.1} | changes))
