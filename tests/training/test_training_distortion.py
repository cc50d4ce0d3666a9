"""The distortion budget: the golden unit's change bit for bit, each cause alone against Fractions, the sums."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.quantisers import Segment
from kappa_rtl.golden.rounding import values
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.distortion import CAUSES, budget, replay, segments_of
from support import spec
from support.strategies import OVERFLOWS, ROUNDINGS, codes, configs, exactly, vectors

SETS = [frozenset(chosen) for size in range(7) for chosen in combinations(CAUSES, size)]


# ---------------------------------------------------------------- the unit


def check_unit(config: ThrottleConfig, theta: list[int], steps: list[tuple[list[int], list[int] | None]]) -> None:
    unit = Throttle(config, np.array(theta), codes=True)
    for gradient, direction in steps:
        before = unit.weights
        record = unit.step(np.array(gradient), None if direction is None else np.array(direction), codes=True)
        grids = config.grids
        seen = values(gradient, grids.gradient) if direction is None else values(direction, grids.direction)
        rate = record.registers.step_size * float(config.step.ulp)
        change = replay(before, seen * 1.25, seen, rate * 0.75, rate, segments_of(config))
        assert change.tobytes() == (unit.weights - before + 0.0).tobytes()


@settings(max_examples=200)
@given(st.data(), configs(plain=True))
def test_all_causes_are_what_the_unit_does(data: st.DataObject, config: ThrottleConfig) -> None:
    theta = data.draw(vectors(config.grids.weight, config.elements))
    gradients, along = (vectors(grid, config.elements) for grid in (config.grids.gradient, config.grids.direction))
    without = st.none() if Source(config.source).is_projection else st.none() | along
    directions = along if config.direction else without
    check_unit(config, theta, data.draw(st.lists(st.tuples(gradients, directions), min_size=1, max_size=3)))


@pytest.mark.parametrize("overflow", OVERFLOWS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize(
    "grids",
    [
        {"gradient": "SQ4.12", "update": "SQ-6.14", "weight": "SQ-2.12"},
        {"gradient": "SQ4.28", "update": "SQ-6.38", "weight": "SQ-2.34", "step_bits": 24},  # products beyond a float64
        {"gradient": "SQ3.2", "update": "SQ-2.6", "weight": "SQ0.4", "step_bits": 4},
    ],
)
def test_the_unit_in_every_mode(rounding: str, overflow: str, grids: dict[str, object]) -> None:
    """Vectors of 2000 at the rails of both formats, and with ties."""
    modes = f",{rounding},{overflow}"
    made = grids | {name: f"{grids[name]}{modes}" for name in ("update", "weight")}
    config = ThrottleConfig.stability_margin(elements=2000, eta=0.0078, **made)  # type: ignore[arg-type]
    rng = np.random.default_rng(1)
    top, rail = 1 << (config.grids.gradient.width - 1), 1 << (config.grids.weight.width - 1)
    steps = [((rng.integers(-top, top, 2000) >> rng.integers(0, 12)).tolist(), None) for _ in range(4)]
    check_unit(config, rng.integers(-rail, rail, 2000).tolist(), steps)


# ---------------------------------------------------------------- each cause alone


def enter(x: Fraction, fmt: Fixed | None, rounded: bool, railed: bool) -> Fraction:
    if fmt is None or not (rounded or railed):
        return x
    code = spec.round_to_grid(x, fmt)
    fitted = spec.fit(code, fmt)
    if railed and fitted != code:
        return spec.real(fitted, fmt)
    return spec.real(code, fmt) if rounded else x


def oracle(theta: float, exact: float, seen: float, rates: tuple[float, float], segment: Segment, on: frozenset[str]) -> Fraction:
    y = -Fraction(rates["alpha_error" in on]) * Fraction(seen if "gradient_grid" in on else exact)
    y = enter(y, segment.update, "update_rounding" in on, "update_saturation" in on)
    return enter(Fraction(theta) + y, segment.weight, "weight_rounding" in on, "weight_saturation" in on) - Fraction(theta)


@settings(max_examples=150)
@given(st.data(), configs(plain=True))
def test_every_set_of_causes_against_fractions(data: st.DataObject, config: ThrottleConfig) -> None:
    """On dyadic data, exactly; the exact direction is finer than the gradient grid by 4 bits."""
    g, w, update, step, _ = config.grids
    size = data.draw(st.integers(1, 6))
    theta = [float(spec.real(code, w)) for code in data.draw(st.lists(codes(w), min_size=size, max_size=size))]
    seen = [float(spec.real(code, g)) for code in data.draw(st.lists(codes(g), min_size=size, max_size=size))]
    exact = [value + data.draw(st.integers(-15, 15)) * float(g.ulp) / 16 for value in seen]
    rates = (
        data.draw(st.integers(0, 2**20)) * float(step.ulp) / 8,
        data.draw(st.integers(0, step.rails[1])) * float(step.ulp),
    )
    segment = Segment(size, *data.draw(st.sampled_from([(update, w), (None, w), (update, None), (None, None)])))
    for on in data.draw(st.lists(st.sampled_from(SETS), min_size=6, max_size=6)):
        got = replay(theta, exact, seen, *rates, [segment], on)
        want = [oracle(t, e, s, rates, segment, on) for t, e, s in zip(theta, exact, seen, strict=True)]
        assert got.tolist() == [float(value) for value in want], sorted(on)


def sized(low: float, high: float) -> st.SearchStrategy[float]:
    """Floats of which no product of two is too small for a float64."""
    return st.floats(low, high).map(lambda x: x if abs(x) > 1e-150 else 0.0)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(*[sized(-1e6, 1e6)] * 3), min_size=1, max_size=6),
    sized(0, 10),
    st.sampled_from(ROUNDINGS),
    st.sampled_from(OVERFLOWS),
    st.sampled_from(["SQ4.12", "UQ4.4", "SQ2.0", "SQ10.43", "SQ20.-12", "SQ-30.40"]),
    st.sampled_from(SETS),
)
def test_any_floats_against_fractions(
    rows: list[tuple[float, ...]], rate: float, rounding: str, overflow: str, text: str, on: frozenset[str]
) -> None:
    """The rounding decisions are exact, with nothing dyadic; the result is good to a few ulps where nothing rounded it.

    On the finest grids all numbers stay so small that a float64 holds each of its points.
    """
    fmt = Fixed.parse(f"{text},{rounding},{overflow}")
    if fmt.fraction_bits >= 40:
        rows = [tuple(value / 2**16 for value in row) for row in rows]
    theta, exact, seen = ([row[k] for row in rows] for k in range(3))
    segment = Segment(len(rows), fmt, fmt)
    got = replay(theta, exact, seen, rate, rate * 0.9, [segment], on)
    want = [oracle(*row, (rate, rate * 0.9), segment, on) for row in rows]
    np.testing.assert_allclose(got, [float(value) for value in want], rtol=1e-15, atol=1e-300)


def test_no_cause_is_the_float_product() -> None:
    rng = np.random.default_rng(2)
    theta, exact, seen = rng.normal(size=(3, 500))
    fmt = Fixed.parse("SQ2.3")
    assert (replay(theta, exact, seen, 0.1, 0.2, [Segment(500, fmt, fmt)], ()) == -0.1 * exact).all()
    assert (replay(theta, exact, seen, 0.1, 0.2, [Segment(500)]) == -0.2 * seen).all(), "without formats nothing rounds"
    assert (replay(theta, exact, seen, 0.1, 0.2, [Segment(500, fmt, fmt)], "gradient_grid") == -0.1 * seen).all()


def one(theta: float, direction: float, text: str, cause: str) -> float:
    """The change by a step of rate 1 along ``-direction`` into equal update and weight formats."""
    fmt = Fixed.parse(text)
    return float(replay([theta], [direction], [direction], 1.0, 1.0, [Segment(1, fmt, fmt)], [cause])[0])


def test_rounding_knows_no_rails_and_rails_do_not_round() -> None:
    assert one(0, -9.75, "SQ3.0", "update_rounding") == 10
    assert one(0, -9.75, "SQ3.0", "update_saturation") == 3
    assert one(0, -2.75, "SQ3.0", "update_saturation") == 2.75
    assert one(0, -3.25, "SQ3.0", "update_saturation") == 3.25, "rounds to the rail, and is not beyond it"
    assert one(0, -3.5, "SQ3.0", "update_saturation") == 3
    assert one(0, 9.75, "SQ3.0", "update_saturation") == -4
    assert one(0, 9.75, "SQ3.0,nearest_even,saturate_symmetric", "update_saturation") == -3
    assert one(0, -9.75, "SQ3.0,nearest_even,zero", "update_saturation") == 0
    assert one(0, -9.75, "SQ3.0,nearest_even,wrap", "update_saturation") == 2
    assert one(2, -2.75, "SQ3.0", "weight_rounding") == 3
    assert one(2, -2.75, "SQ3.0", "weight_saturation") == 1
    assert one(2, -0.75, "SQ3.0", "weight_saturation") == 0.75
    assert one(2, -3e-20, "SQ3.0", "weight_saturation") == 3e-20, "the update itself, not what a sum with theta leaves of it"
    assert one(2, 3e-20, "SQ3.0,floor", "weight_rounding") == -1, "a floor sees what a float64 sum does not"
    assert one(0, 1e-320, "SQ3.0,floor", "update_rounding") == -1
    assert one(2, -2.75, "SQ3.0", "gradient_grid") == 2.75


def test_numbers_beyond_any_word() -> None:
    huge = 1e300
    assert one(0, -huge, "SQ3.0", "update_rounding") == huge
    assert one(0, -huge, "SQ3.40", "update_saturation") == 4 - 2.0**-40
    assert one(0, huge, "SQ3.40", "update_saturation") == -4
    assert one(0, huge, "SQ3.0,nearest_even,zero", "update_saturation") == 0
    assert one(0, -(2.0**70), "SQ3.0,nearest_even,wrap", "update_saturation") == 0
    assert one(0, -(2.0**62 + 2.0**10), "SQ12.0,nearest_even,wrap", "update_saturation") == 2.0**10
    assert one(0, -(2.0**62 + 2.0**11), "SQ12.0,nearest_even,wrap", "update_saturation") == -(2.0**11)
    assert one(0, -huge, "SQ-997.1000", "update_rounding") == huge


def test_segments_have_their_own_formats() -> None:
    segments = [Segment(2, Fixed.parse("SQ3.0")), Segment(1), Segment(2, None, Fixed.parse("SQ3.1,floor"))]
    direction = -np.full(5, 0.75)
    assert replay(np.zeros(5), direction, direction, 1, 1, segments).tolist() == [1, 1, 0.75, 0.5, 0.5]


# ---------------------------------------------------------------- the budget


def test_the_budget_adds_up_and_names_the_guilty() -> None:
    rng = np.random.default_rng(3)
    exact = rng.normal(size=200)
    seen = values(np.rint(exact * 16).astype(int), Fixed.parse("SQ4.4"))
    theta = values(rng.integers(-128, 128, 200), Fixed.parse("SQ1.7"))
    made = budget(theta, exact, seen, 0.1, 0.0996, [Segment(200, Fixed.parse("SQ-2.9"), Fixed.parse("SQ1.7"))])
    assert list(made) == ["angle", "radius"]
    for numbers in made.values():
        assert list(numbers) == [*CAUSES, "whole", "residual"]
        parts = [numbers[cause] for cause in CAUSES]
        largest = max(abs(number) for number in numbers.values())
        assert math.fsum([*parts, numbers["residual"]]) == pytest.approx(numbers["whole"], rel=0, abs=math.ulp(largest))
    angle, radius = made["angle"], made["radius"]
    assert all(number > 0 for cause, number in angle.items() if cause not in ("alpha_error", "residual"))
    assert angle["alpha_error"] < 1e-15, "a rate turns nothing"
    assert radius["alpha_error"] == pytest.approx(-0.004, rel=1e-12)
    assert radius["update_saturation"] < 0
    assert angle["whole"] < sum(angle[cause] for cause in CAUSES), "independent errors add in quadrature"


@settings(max_examples=60)
@given(st.data())
def test_the_sum_is_exact_whatever_the_parts(data: st.DataObject) -> None:
    finite = st.floats(-8, 8)
    size = data.draw(st.integers(1, 5))
    theta, exact, seen = (data.draw(st.lists(finite, min_size=size, max_size=size)) for _ in range(3))
    fmt = Fixed.parse(data.draw(st.sampled_from(["SQ3.4", "SQ2.2,floor,wrap", "SQ1.12,nearest_up,zero"])))
    for numbers in budget(theta, exact, seen, 0.3, 0.25, [Segment(size, fmt, fmt)]).values():
        parts, whole, residual = [numbers[cause] for cause in CAUSES], numbers["whole"], numbers["residual"]
        if all(map(math.isfinite, [*parts, whole])):
            assert abs(Fraction(whole) - sum(map(Fraction, [*parts, residual]))) <= Fraction(math.ulp(residual)) / 2
        else:
            assert math.isnan(residual)


def test_an_undistorted_step_has_an_empty_budget() -> None:
    fmt = Fixed.parse("SQ4.12")
    direction = np.array([0.5, -1.0, 0.25])
    made = budget(np.zeros(3), direction, direction, 0.5, 0.5, [Segment(3, fmt, fmt)])
    assert set(chain.from_iterable(numbers.values() for numbers in made.values())) == {0.0}


def test_zero_vectors() -> None:
    fmt = Fixed.parse("SQ4.0")
    segments = [Segment(2, fmt, fmt)]
    still = budget([0, 0], [0, 0], [0, 0], 0.5, 0.5, segments)
    assert set(chain.from_iterable(numbers.values() for numbers in still.values())) == {0.0}
    swallowed = budget([0, 0], [0.25, 0.5], [0.25, 0.5], 0.5, 0.5, segments)
    assert swallowed["angle"]["whole"] == swallowed["angle"]["update_rounding"] == math.pi / 2
    assert swallowed["radius"]["whole"] == swallowed["radius"]["weight_rounding"] == -1
    assert swallowed["radius"]["residual"] == 1, "swallowed twice, by two grids"
    appeared = budget([0, 0], [0, 0], [2, 0], 0.5, 0.5, segments)
    assert appeared["angle"]["gradient_grid"] == appeared["angle"]["whole"] == math.pi / 2
    assert appeared["radius"]["whole"] == math.inf
    assert math.isnan(appeared["radius"]["residual"])


def test_a_diverged_step_has_no_budget_and_a_huge_one_does_not_warn() -> None:
    fmt = Fixed.parse("SQ4.4")
    for wrong in (math.nan, math.inf):
        for rates in ((0.1, wrong), (0.1, 0.1)):
            made = budget([0, 1], [1, 1], [1, 1 if wrong in rates else wrong], *rates, [Segment(2, fmt, None)])
            assert all(math.isnan(number) for numbers in made.values() for number in numbers.values())
    budget([1e308, 1], [1e308, 1], [-1e308, 1], 1e300, 1e300, [Segment(1), Segment(1, fmt, fmt)])


# ---------------------------------------------------------------- refusals


def args(**changes: object) -> dict[str, object]:
    good: dict[str, object] = {"theta": [0.0, 0.0], "direction_exact": [1.0, 1.0], "direction_seen": [1.0, 1.0]}
    return good | {"rate_exact": 0.5, "rate_applied": 0.5, "segments": [Segment(2)]} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"causes": ["luck"]}, f"causes must be among {', '.join(CAUSES)}, not 'luck'"),
        ({"theta": [0.0]}, "theta must have shape (2,), as the segments add up to, not (1,)"),
        ({"segments": [Segment(2), Segment(1)]}, "theta must have shape (3,), as the segments add up to, not (2,)"),
        ({"direction_seen": [[1.0, 1.0]]}, "direction_seen must have shape (2,), as the segments add up to, not (1, 2)"),
        ({"direction_exact": [1.0, math.inf]}, "direction_exact must be finite, not inf"),
        ({"rate_applied": math.nan}, "rate_applied must be finite, not nan"),
        ({"rate_exact": [0.5]}, "rate_exact must be a number, not [0.5]"),
        (
            {"segments": [Segment(2, Fixed.parse("SQ4.4,stochastic"))]},
            "update: rounding must be deterministic, not 'stochastic'",
        ),
        ({"segments": [Segment(2, None, Fixed.parse("SQ4.50"))]}, "weight must be at most 53 bits wide, not 54 (SQ4.50)"),
    ],
)
def test_refusals(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        replay(**args(**changes))  # type: ignore[arg-type]
    if "causes" not in changes and "finite" not in message:
        with pytest.raises(ValueError, match=exactly(message)):
            budget(**args(**changes))  # type: ignore[arg-type]
