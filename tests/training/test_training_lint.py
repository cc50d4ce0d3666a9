"""What is said before a run: of the law in force, with what to change, and nothing of settings that are sound."""

from __future__ import annotations

import math
from typing import Any

import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.laws import LAWS
from kappa_rtl.golden.network.precision import PrecisionDict
from kappa_rtl.golden.training.lint import lints
from kappa_rtl.golden.training.published import Law


def unit(law: str = "stability_margin", **more: Any) -> ThrottleConfig:
    return ThrottleConfig.of_law(law, **{"elements": 10, "eta": 0.05} | more)


def published(**more: Any) -> Law:
    return Law(**{"eta": 0.05} | more)


NOISY: dict[str, Any] = {"minibatch": True, "batch_size": 32}
FREEZES = "where minibatch noise dominates, each step multiplies alpha by"
CHI = f"chi = 1 is less than sqrt(2): {FREEZES} 0.707 and the run freezes; take chi of at least 1.5 or the estimator same_batch"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (unit(chi=1.0), CHI),
        (published(chi=1.0), CHI),
        (
            unit("inverse_curvature"),
            "beta = 1 is not less than eta / sqrt(2) = 0.0354: where minibatch noise dominates, alpha falls to alpha_min; take a "
            "smaller beta or the estimator same_batch",
        ),
        (
            unit("adgd"),
            f"adgd is made for whole gradients: {FREEZES} 0.354 and the run freezes; take the estimator same_batch, or all rows "
            "in a batch",
        ),
        (
            unit(chi=0.9, source="projection"),
            f"chi = 0.9 is less than 1: {FREEZES} 0.9 and the run freezes; take chi of at least 1 or larger batches",
        ),
        (
            ThrottleConfig(elements=10, eta=0.05, num=10, bias=3, source="instant"),
            f"num * eta / gain = 0.5 is less than sqrt(2): {FREEZES} 0.354 and the run freezes; take a larger num or "
            "the estimator same_batch",
        ),
    ],
)  # fmt: skip
def test_laws_that_noise_freezes(config: ThrottleConfig | Law, message: str) -> None:
    assert lints(config, **NOISY) == [message]
    assert lints(config, minibatch=False) == [] and lints(config, **NOISY, estimator="same_batch") == []
    off = config.replace(enabled=False) if isinstance(config, ThrottleConfig) else published(chi=1.0, enabled=False)
    assert lints(off, **NOISY) == []


@pytest.mark.parametrize(
    "config",
    [
        unit(),
        published(),
        unit(chi=math.sqrt(2) + 1e-9),
        unit(chi=1.2, source="projection"),
        unit("inverse_curvature", beta=0.01),
        unit("clip_norm", max_norm=1e-6),
        unit("trust_ratio", trust=1e-6),
        published(controller="inverse_curvature", beta=0.01, chi=1e-3),
    ],
)
def test_sound_settings_have_no_word(config: ThrottleConfig | Law) -> None:
    assert lints(config, **NOISY) == []
    assert lints(config, **NOISY, rest=9) == []


@pytest.mark.parametrize("law", LAWS)
def test_a_short_last_batch(law: str) -> None:
    quiet = unit(law, **{"inverse_curvature": {"beta": 0.001}}.get(law, {}))
    said = [line for line in lints(quiet, **NOISY, rest=1) if "last batch" in line]
    if law in ("clip_norm", "trust_ratio"):
        assert said == []
    else:
        assert said == [
            "the last batch of each epoch has 1 of 32 rows: its gradient differs from the others' by its own noise, which the "
            "law takes for curvature, so that alpha falls; take drop_last = True or another batch_size"
        ]


def test_wrapping_that_nobody_asked_for() -> None:
    (line,) = lints(unit(gradient="ap_fixed<16,4>"))
    assert line == (
        "gradient = ap_fixed<16,4> wraps: what is beyond its rails comes back with the other sign, since HLS text without "
        "an overflow mode means that; write SQ4.12 or ap_fixed<16,4,AP_RND_CONV,AP_SAT> to saturate, or AP_WRAP if it is meant to"
    )
    assert (
        lints(unit(gradient="ap_fixed<16,4,AP_TRN,AP_WRAP>", weight="SQ2.14,floor,wrap", update="ap_fixed<16,1,AP_RND,AP_SAT>"))
        == []
    )
    assert [line.split(" = ")[0] for line in lints(unit(weight="ap_fixed<16,2,AP_RND>", direction="ap_fixed<16,8>"))] == [
        "weight",
        "direction",
    ]
    table = {"dense0": {"gradient": "ap_fixed<12,2>", "weight": "SQ2.10"}, "__default__": {"accumulator": "ap_fixed<24,10>"}}
    said = lints(published(), precision=PrecisionDict(table))
    assert [line.split(" wraps")[0] for line in said] == [
        "dense0.gradient = ap_fixed<12,2>",
        "__default__.accumulator = ap_fixed<24,10>",
    ]


def test_steps_and_updates_that_the_grids_hardly_hold() -> None:
    (line,) = lints(unit(eta=2.0**-14, eta_max=1, weight="SQ2.28", update="SQ1.29", gradient="SQ2.24"))
    assert line == (
        "eta = 6.10352e-05 has 3 significant bits on the step grid UQ1.16: its rounding alone bends each step by up to 12 %; "
        "take a larger step_bits, or a smaller eta_max"
    )
    narrow = {"eta": 0.1, "weight": "SQ2.6", "update": "SQ2.8", "gradient": "SQ4.8"}
    (line,) = lints(unit(**narrow))
    assert line == (
        "weight = SQ2.6 swallows updates: at eta = 0.1 no element of the gradient below 0.078 moves a weight; take more fraction "
        "bits of weight and update, residual_bits = 4, or an update that rounds stochastically"
    )
    assert lints(unit(**narrow, residual_bits=4)) == [] == lints(unit(**narrow | {"update": "SQ2.8,stochastic"}))


RANDOM = {"update": "SQ1.4,stochastic", "residual_bits": 0}
APPLIED = {"motion": "applied"}
UNNAMED = {"law": None, "chi": None, "source": "instant", "num": 15, "bias": 0}
FITS: list[dict[str, Any]] = [
    *(
        {},
        {"chi": 1.9},
        APPLIED | {"chi": 0.6},
        APPLIED | {"weight": "SQ2.10"},
        APPLIED | {"residual_bits": 0, "update": "SQ1.9"},
    ),
    *(APPLIED | {"enabled": False}, APPLIED | {"law": "adgd", "chi": None}, {"weight": "SQ2.2", "chi": 1.9}),
    *({"source": "projection", "weight": "SQ2.4", "residual_bits": 8}, {"chi": 1.9, "weight": "SQ2.4", "residual_bits": 8}),
    APPLIED | {"residual_bits": 0, "update": "SQ1.15,stochastic"},
]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (APPLIED, "1.5 is too large for the applied motion, which is mostly rounding there, on weights of 6 fraction bits: C "
         "comes out too small, and the run is let go too far; take motion = intended or chi of at most 0.6"),
        (APPLIED | RANDOM | {"weight": "SQ2.4", "chi": 0.6}, "0.6 is too large for the applied motion"),
        ({"source": "projection", "weight": "SQ2.4"}, "1.5 is too large for a projection, on weights of 4 fraction bits"),
        ({"chi": 1.9, "weight": "SQ2.4"}, "1.9 is too large for the intended motion, on weights of 4 fraction bits"),
        ({"chi": 1.9, "residual_bits": 0, "update": "SQ1.9"}, "1.9 is too large for weights that are rounded to nearest"),
        (APPLIED | UNNAMED, "1.5 is too large for the applied motion"),
        *((options, "") for options in FITS),
    ],
)  # fmt: skip
def test_a_chi_under_which_rounding_hides_the_curvature(options: dict[str, Any], said: str) -> None:
    given = {
        "law": "stability_margin",
        "elements": 4,
        "eta": 0.1,
        "weight": "SQ2.6",
        "update": "SQ1.6",
        "residual_bits": 4,
    } | options
    given = {name: value for name, value in given.items() if value is not None}
    found = [message for message in lints(ThrottleConfig.from_table(given)) if message.startswith("chi")]
    assert found == [] if not said else found[0].startswith(f"chi = {said}")


def test_what_noise_asks_for_is_not_forbidden() -> None:
    """No pair of sentences asks for a chi below and above a bound."""
    narrow = {"elements": 4, "eta": 0.1, "weight": "SQ2.4", "update": "SQ1.4,stochastic"}
    found = lints(ThrottleConfig.stability_margin(chi=0.6, motion="applied", **narrow), minibatch=True)
    assert any("take motion = intended" in line for line in found) and not any("at most" in line for line in found)
    found = lints(ThrottleConfig.stability_margin(chi=0.9, source="projection", **narrow), minibatch=True)
    assert any("take chi of at least 1 or" in line for line in found) and not any("at most" in line for line in found)


@pytest.mark.parametrize(("on_still", "first", "said"), [("divide", 0, True), ("release", 0, False), ("divide", 0.1, False)])
def test_a_schedule_from_0_under_the_published_division(on_still: str, first: float, said: bool) -> None:
    config = ThrottleConfig.stability_margin(elements=4, eta=0.1, on_still=on_still)
    found = lints(config, schedule=lambda step: first + step)
    assert any("the schedule begins at 0" in message and "on_still = release" in message for message in found) is said


@pytest.mark.parametrize(("bits", "rho", "said"), [(8, 0.001, True), (24, 1e-8, True), (8, 0.05, False), (24, 0.001, False)])
def test_an_average_that_never_forgets(bits: int, rho: float, said: bool) -> None:
    found = lints(ThrottleConfig.stability_margin(elements=4, eta=0.1, mantissa_bits=bits, rho=rho))
    assert any(message.startswith(f"rho = {rho:g} is lost: 1 - rho is 1 in scalars of {bits} bits") for message in found) is said
