"""Points and the space that they are from: what a key may say, what a point is, and where binary points come from."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from kappa_rtl import ThrottleConfig
from kappa_rtl.golden.training.rule import rule
from kappa_rtl.scripts.experiments.explore.calibration import bits
from kappa_rtl.scripts.experiments.explore.network import Network
from kappa_rtl.scripts.experiments.explore.point import FLOAT, Point
from kappa_rtl.scripts.experiments.explore.space import TRAINED, Axes, Integers, floats, point_of
from kappa_rtl.scripts.settings import Settings

INTEGERS = Integers(-1, -2, -5)


def choice(**given: Any) -> dict[str, Any]:
    axes = Axes(**{name: (value,) for name, value in ({"law": "stability_margin"} | given).items()})
    return {name: getattr(axes, name)[0] for name in TRAINED}


@pytest.mark.parametrize(
    ("key", "given", "read"),
    [
        ("weight", 8, (8,)),
        ("weight", {"from": 4, "to": 9, "step": 2}, (4, 6, 8)),
        ("weight", {"from": 4, "to": 5}, (4, 5)),
        ("weight", ["Q2.6", 8], ("SQ2.6", 8)),
        ("gradient", ["auto", "ap_fixed<12,2,AP_RND_CONV,AP_SAT>"], ("auto", "SQ2.10")),
        ("rounding", ["stochastic", "residual:2", "nearest"], ("stochastic:16", "residual:2", "nearest")),
        ("rounding", "stochastic:4", ("stochastic:4",)),
        ("law", "off", (("off", ()),)),
        ("law", {"law": "stability_margin", "chi": [1, 1.5]},
         (("stability_margin", (("chi", 1.0),)), ("stability_margin", (("chi", 1.5),)))),
        ("law", [{"law": "inverse_curvature", "beta": 2, "alpha_min": 0.1}, "adgd"],
         (("inverse_curvature", (("alpha_min", 0.1), ("beta", 2.0))), ("adgd", ()))),
    ],
)  # fmt: skip
def test_a_key_is_a_value_a_list_or_a_range(key: str, given: Any, read: tuple[Any, ...]) -> None:
    made = Axes(**{key: given})
    assert getattr(made, key) == read
    assert Axes(**{name: getattr(made, name) for name in vars(made)}) == made


@pytest.mark.parametrize(
    ("key", "given", "says"),
    [
        ("weight", 1, "explore.weight must be a width from 2 to 32 or a signed format of as many bits, not 1"),
        ("weight", "auto", "explore.weight: "),
        ("weight", "UQ2.6", "explore.weight must be a width from 2 to 32 or a signed format of as many bits, not 'UQ2.6'"),
        ("weight", True, "explore.weight must be a width"),
        ("weight", [], "explore.weight must not be empty"),
        ("weight", {"from": 4}, "explore.weight must be a range {from = .., to = .., step = ..}, not"),
        ("weight", {"from": 9, "to": 4}, "explore.weight must be a range of integers from less to more, not"),
        ("update", 40, "explore.update must be a width from 2 to 32 or a signed format of as many bits or auto, not 40"),
        ("weight", "SQ4.29", "explore.weight must be a width from 2 to 32 or a signed format of as many bits, not 'SQ4.29'"),
        ("update", "SQ1.9,stochastic", "explore.update must be a format without modes, which explore.rounding says, not"),
        ("update", "SQ1.9,floor", "explore.update must be a format without modes"),
        ("law", {"law": "stability_margin", "chi": []}, "explore.law: chi must not be empty"),
        ("law", {"law": "stability_margin", "chi": [1.5, -1]}, "explore.law: chi must not be negative, not -1"),
        ("law", {"law": "inverse_curvature", "alpha_min": 2}, "explore.law: alpha_min must be between 0 and 1, not 2"),
        ("rounding", "residual:9", "explore.rounding must be nearest, stochastic[:1..16] or residual:2..8, not 'residual:9'"),
        ("rounding", "residual:-2", "explore.rounding must be"),
        ("rounding", "stochastic:17", "explore.rounding must be"),
        ("rounding", 4, "explore.rounding must be"),
        ("motion", "along", "explore.motion must be one of auto, applied, intended, projection, not 'along'"),
        ("law", "chi", "explore.law must be one of off, stability_margin"),
        ("law", {"law": "adgd", "chi": 1}, "explore.law: parameters of adgd must be among none, not 'chi'"),
        ("law", {"law": "off", "chi": 1}, "explore.law: parameters of off must be among none, not 'chi'"),
        ("law", {"law": "stability_margin", "chi": ["a"]}, "explore.law: chi must be numbers, not 'a'"),
        ("on_still", "stop", "explore.on_still must be one of release, floor, hold, divide, not 'stop'"),
        ("delay", 2, "explore.delay must be integers from 0 to 1, not 2"),
        ("grids", "each", "explore.grids must be one of one, tensor, not 'each'"),
        ("mantissa_bits", 65, "explore.mantissa_bits must be integers from 4 to 64, not 65"),
        ("lanes", 0, "explore.lanes must be integers from 1 to 32, not 0"),
        ("target", 3, "explore.target must be names of targets, not 3"),
        ("target", "xilinx", "explore.target must have the clock that is assumed, as in xilinx@150, not 'xilinx'"),
        ("target", "xilinx@x", "explore.target must be NAME or NAME@MHZ, with a clock from 0.001 to 100000, not 'xilinx@x'"),
        ("target", "ecp5@0", "explore.target must be NAME or NAME@MHZ, with a clock from 0.001 to 100000, not 'ecp5@0'"),
    ],
)
def test_what_a_key_refuses(key: str, given: Any, says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        Axes(**{key: given})


def test_widths_become_formats_by_the_integers_and_formats_stay() -> None:
    made = point_of(choice(weight=8, gradient=10, update=9), INTEGERS)
    assert (made.weight, made.gradient, made.update) == ("SQ-1.9", "SQ-2.12", "SQ-5.14")
    made = point_of(choice(weight="SQ2.6", gradient="SQ2.10", update="SQ1.9"), INTEGERS)
    assert (made.weight, made.gradient, made.update) == ("SQ2.6", "SQ2.10", "SQ1.9")


@pytest.mark.parametrize(("rounding", "places"), [("nearest", 12), ("stochastic", 9), ("residual:4", 9)])
def test_what_auto_is(rounding: str, places: int) -> None:
    made = point_of(choice(weight=8, rounding=rounding), INTEGERS)
    assert made.gradient == "SQ-2.14"
    assert made.update == f"SQ-5.{places}"
    assert made.motion == ("applied" if rounding == "nearest" else "intended")
    assert point_of(choice(weight=16, rounding=rounding), INTEGERS).gradient == "SQ-2.18"
    assert point_of(choice(weight=4, rounding="residual:4"), Integers(-1, -2, -9)).update == "SQ-3.5"  # two bits at least


def test_what_has_no_effect_makes_no_other_point() -> None:
    for law in ("off", "clip_norm", "trust_ratio"):
        made = {point_of(choice(law=law, motion=motion), INTEGERS) for motion in ("auto", "applied", "intended", "projection")}
        assert len(made | {point_of(choice(law=law, on_still="hold"), INTEGERS)}) == 1
    assert len({point_of(choice(motion=motion), INTEGERS) for motion in ("applied", "intended", "projection")}) == 3


def every_point() -> list[Point]:
    axes = Axes(
        weight=(4, "SQ2.14"),
        rounding=("nearest", "stochastic:4", "residual:3"),
        motion=("auto", "projection"),
        law=("off", "adgd", {"law": "stability_margin", "chi": [0.5, 1.5]}, "clip_norm"),
        on_still=("release", "divide"),
        delay=(0, 1),
        mantissa_bits=(18, 24),
    )
    return list(dict.fromkeys(point_of(one, INTEGERS) for one in axes.choices())) + floats(axes)


def test_points_are_told_apart_and_read_back() -> None:
    points = every_point()
    assert len({point.id for point in points}) == len(points) == len({str(point) for point in points})
    assert [Point.of_table(point.to_table()) for point in points] == points


def test_a_point_is_the_unit_that_it_says() -> None:
    for point in every_point():
        config = point.config(elements=6, eta=0.25, lanes=2)
        assert (config.elements, config.lanes, config.mantissa_bits) == (6, 2, point.mantissa_bits)
        assert config.enabled == (point.law != "off")
        if point.is_float:
            continue
        assert str(config.on_still) == point.on_still and config.delay == point.delay
        kind, _, count = point.rounding.partition(":")
        assert str(config.weight) == point.weight and str(config.gradient) == point.gradient
        assert config.stochastic == (kind == "stochastic") and config.residual_bits == (int(count) if kind == "residual" else 0)
        if kind == "stochastic":
            assert config.random_bits == int(count)
        if point.motion == "projection":
            assert str(config.source).startswith("projection")
        if point.parameters == (("chi", 0.5),):
            assert config.num == Fraction(2)
    assert point_of(choice(weight="SQ4.12", gradient="SQ4.12", update="SQ1.15"), INTEGERS).config(
        elements=640, eta=0.1
    ) == ThrottleConfig.stability_margin(elements=640, eta=0.1, weight="SQ4.12", update="SQ1.15")


def test_the_size_counts_every_combination() -> None:
    axes = Axes(weight=(4, 6), law=("off", {"law": "stability_margin", "chi": [1, 2]}), lanes=(1, 2, 4))
    assert axes.size == len(list(axes.choices())) == 2 * 3 * 3
    assert [point.weight for point in floats(axes)] == [FLOAT] * 3


@pytest.mark.parametrize("largest", [0.3, 0.5, 0.500001, 1.0, 1.5, 2.0, 7.0, 1e-3])
def test_the_integer_bits_reach_and_no_more(largest: float) -> None:
    found = bits(largest)
    assert Fraction(2) ** (found - 1) >= Fraction(largest) > Fraction(2) ** (found - 2)


def test_calibration_is_of_the_float_run_that_goes_best() -> None:
    subject = Network.of(Settings(tables={"training": {"steps": 30}}))
    found = subject.calibrate(floats(Axes()))
    assert found.point.is_float
    assert found.weight > 0 and found.gradient > 0 and found.update > 0
    assert found.integers == Integers(bits(found.weight), bits(found.gradient), bits(found.update))
    fast = Network.of(Settings(tables={"training": {"steps": 60}, "throttle": {"eta": 30}}))
    with pytest.raises(
        ValueError, match=r"explore.law must have one with which float does not diverge at eta = 30, not float, off"
    ):
        fast.calibrate(floats(Axes(law=("off",))))


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"throttle": {"weight": "SQ2.6"}}, "throttle.weight must be a key of [explore], not of [throttle]"),
        ({"throttle": {"lanes": 2}}, "throttle.lanes must be a key of [explore]"),
        ({"throttle": {"law": "adgd"}}, "throttle.law must be a key of [explore]"),
        ({"throttle": {"alpha_min": 0.1}}, "keys of [throttle] must be among eta, rho"),
        ({"throttle": {"eta": True}}, "throttle.eta must be"),
        ({"throttle": {"eta": [0.1]}}, "throttle.eta must be"),
        ({"training": {"steps": 10**11}}, "training.steps must be"),
        ({"training": {"seed": 2**32}}, "training.seed must be"),
        ({"training": {"optimiser": "adam"}}, "throttle.direction must be given with training.optimiser = 'adam'"),
        ({"training": {"weight_decay": 0.1}}, "throttle.direction must be given with a decoupled weight decay"),
        ({"precision": {"dense0": {"weight": "SQ4.4"}}}, "precision.dense0.weight must not be given"),
        ({"throttle": {"parity": True}}, "keys of [throttle] must be among eta, rho"),
        ({"training": {"steps": 0}}, "training.steps must be"),
        ({"training": {"batch": 5000}}, "training.batch must be at most the 1438 rows to train on, not 5000"),
        ({"throttle": {"eta": 0}}, "eta must be greater than 0, not 0"),
    ],
)
def test_what_a_subject_refuses(tables: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        Network.of(Settings(tables=tables))


def test_seeds_draw_the_rows_that_are_held_out() -> None:
    subject = Network.of(Settings())
    rows = [subject.split(seed).held for seed in (0, 1)]
    assert all(held is not None and len(held.X) == 359 for held in rows)
    first, second = (held.X.tobytes() for held in rows if held is not None)
    assert first != second and subject.split(0).held is not None


def test_axes_are_told_apart_by_every_trained_key() -> None:
    """A key that a training depends on and a point forgot would make two trainings one."""
    base = {
        "weight": 8,
        "gradient": 12,
        "update": 11,
        "rounding": "nearest",
        "motion": "applied",
        "law": "adgd",
        "mantissa_bits": 24,
    }
    other = {
        "weight": 9,
        "gradient": 13,
        "update": 12,
        "rounding": "residual:4",
        "motion": "intended",
        "law": "off",
        "mantissa_bits": 18,
    }
    base |= {"on_still": "release", "delay": 0, "mantissa_bits": 24, "grids": "one"}
    other |= {"on_still": "hold", "delay": 1, "mantissa_bits": 18, "grids": "tensor"}
    assert set(base) == set(TRAINED)
    points = {point_of(choice(**base), INTEGERS)}
    for name in TRAINED:
        integers = INTEGERS._replace(scales=(0, 2)) if name == "grids" else INTEGERS
        points.add(point_of(choice(**base | {name: other[name]}), integers))
    assert len(points) == 1 + len(TRAINED)
    assert len(list(itertools.combinations(points, 2))) == 55


@pytest.mark.parametrize(
    ("weight", "least", "largest", "rate", "gradient_format", "weight_format"),
    [
        (0.15, 2.0**-9, 0.05, 2.0**-6, "SQ-2.11", "SQ-1.17"),  # 2 * .05 < 2**-3; 2**-9 / 4; times 2**-6
        (0.25, 2.0**-9 * 1.1, 2.0**-4, 0.011, "SQ-2.11", "SQ-1.18"),  # a rail that is just reached; a rate below 2**-6
        (3.0, 1.0, 1.0, 1.0, "SQ2.2", "SQ3.2"),
        (1e-9, 1.0, 1.0, 1.0, "SQ2.2", "SQ0.2"),  # two bits at least
    ],
)
def test_the_analytic_rule_by_hand(
    weight: float, least: float, largest: float, rate: float, gradient_format: str, weight_format: str
) -> None:
    found = rule(largest_weight=weight, least_deviation=least, largest_deviation=largest, least_rate=rate)
    assert found is not None
    assert (str(found.gradient), str(found.weight)) == (gradient_format, weight_format)
    rails, digit = 2.0 ** (found.gradient.integer_bits - 1), 2.0**-found.gradient.fraction_bits
    assert rails >= 2 * largest and digit <= least / 4
    assert 2.0**-found.weight.fraction_bits <= rate * digit
    assert (
        f"weights of {found.weight.width} ({weight_format}) and gradients of {found.gradient.width} ({gradient_format}) bits"
        in str(found)
    )


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_the_rule_says_nothing_of_nothing(value: float) -> None:
    known = {"largest_weight": 1.0, "least_deviation": 1.0, "largest_deviation": 1.0, "least_rate": 1.0}
    for name in known:
        assert rule(**known | {name: value}) is None


def test_the_rule_is_of_the_calibrated_run() -> None:
    network = Network.of(Settings(tables={"training": {"steps": 30}}))
    found = network.calibrate(floats(Axes()))
    steps: list[Any] = []
    network.train(found.point, network.seed, steps.append)
    deviations = [float(np.std(step.gradient)) for step in steps]
    rates = [step.row["alpha_applied"] * 0.1 for step in steps]
    assert found.rule == rule(
        largest_weight=max(float(np.abs(step.theta_after).max()) for step in steps),
        least_deviation=min(deviations),
        largest_deviation=max(deviations),
        least_rate=min(rates),
    )


def test_what_is_given_twice_is_one() -> None:
    axes = Axes(weight=[8, 8, "SQ2.6"], lanes=[1, 8, 1], law=["off", "off", {"law": "adgd"}])
    assert (axes.weight, axes.lanes, axes.law) == ((8, "SQ2.6"), (1, 8), (("off", ()), ("adgd", ())))


def test_a_rate_may_be_a_ratio_as_text() -> None:
    assert Network.of(Settings(tables={"throttle": {"eta": "1/8"}})).eta == 0.125


def test_what_does_not_throttle_says_how_it_is_measured() -> None:
    """The motion of a unit that rounds at random is intended unless it is told otherwise."""
    for rounding in ("nearest", "stochastic", "residual:4"):
        made = point_of(choice(law="off", rounding=rounding), INTEGERS)
        assert made.motion == "applied" == str(made.config(elements=4, eta=0.1).motion)


def test_float_has_no_format_at_all() -> None:
    tables = {"precision": {"__default__": {"activation": "SQ2.2"}}, "model": {"hidden": [4]}, "training": {"steps": 3}}
    network = Network.of(Settings(tables=tables))
    assert network.arm(Point(weight=FLOAT), 0).precision is None
    assert network.arm(point_of(choice(weight=8), INTEGERS), 0).precision == tables["precision"]


def test_a_run_of_one_step() -> None:
    network = Network.of(Settings(tables={"training": {"steps": 1}}))
    assert network.train(Point(weight=FLOAT), 0)["steps"] == 1


@pytest.mark.parametrize(
    ("tables", "settled"),
    [
        ({"training": {"steps": 60}}, 40),
        ({"training": {"steps": 60}, "model": {"hidden": []}}, 0),
        ({"training": {"steps": 60, "batch": 32}}, None),
        ({"training": {"steps": 60, "schedule": "cosine"}}, None),
        ({"training": {"steps": 60, "optimiser": "momentum"}, "throttle": {"direction": "SQ4.12"}}, None),
    ],
)
def test_from_where_on_steps_are_alike(tables: dict[str, Any], settled: int | None) -> None:
    assert Network.of(Settings(tables=tables)).settled == settled
