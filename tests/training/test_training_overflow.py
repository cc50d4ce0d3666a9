"""What the loop's own quantisers clip, wrap or zero is counted before they do; the update is measured against what was meant."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.data import Problem, synthetic
from kappa_rtl.golden.network.overflow import KINDS, Overflows, beyond
from kappa_rtl.golden.network.precision import PrecisionDict
from kappa_rtl.golden.network.quantisers import LayerQuantiser
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.instrumented import TrainingWarning
from kappa_rtl.golden.training.model import LinearBlockModel
from support.strategies import OVERFLOWS, ROUNDINGS


@given(
    st.lists(st.floats(-40, 40, width=32), min_size=1, max_size=8),
    st.sampled_from(ROUNDINGS),
    st.sampled_from(OVERFLOWS),
    st.sampled_from(["SQ4.3", "SQ3.0", "SQ5.-2"]),
)
def test_beyond_is_what_rounding_alone_leaves_outside(values: list[float], rounding: str, overflow: str, text: str) -> None:
    """Against the codes of a format with many more bits on top."""
    fmt = Fixed.parse(f"{text},{rounding},{overflow}")
    wide = Fixed(True, fmt.integer_bits + 20, fmt.fraction_bits, fmt.rounding)
    codes = quantise(np.array(values), wide)
    low, high = fmt.rails
    assert beyond(np.array(values), fmt).tolist() == ((codes < low) | (codes > high)).tolist()


def test_infinity_is_beyond_and_nan_is_nowhere() -> None:
    assert beyond(np.array([math.inf, -math.inf, math.nan, 0.0]), Fixed.parse("SQ4.4")).tolist() == [True, True, False, False]
    assert not beyond(np.array([math.inf]), None).any() and beyond(np.zeros(0), Fixed.parse("SQ4.4")).size == 0


@pytest.mark.parametrize("overflow", ["saturate", "wrap", "zero"])
@pytest.mark.parametrize(("each", "widths"), [(False, (8, 8)), (False, (28, 28)), (True, (8, 8))])
def test_dot_products_by_hand(overflow: str, each: bool, widths: tuple[int, int]) -> None:
    """6 + 6 - 6 = 6 fits a rail of 8 only at its end; 6 + 6 does not; every way of making the product says so."""
    source, weight = (f"SQ4.{bits - 4}" for bits in widths)
    precision = PrecisionDict(
        {"input": {"value": source}, "d": {"weight": weight, "accumulator": f"SQ4.4,nearest_even,{overflow}"}},
        accumulate="each" if each else "final",
    )
    quantiser = LayerQuantiser(precision, "d", precision.dtype("input", "value"))
    quantiser.watch = seen = Overflows()
    x = np.array([[2.0, 2.0, -2.0], [2.0, 2.0, 0.0], [1.0, 0.0, 0.0], [7.96875 - 1.96875, 0.0, 0.0]])
    quantiser.product(x, np.array([[3.0], [3.0], [3.0]]))
    beyond_rails = 2 + each  # 12 and 18, and on the way 12 of the first
    assert seen.whole()["accumulator_overflow_fraction"] == beyond_rails / 4
    assert seen.of_layer("d")["accumulator_overflow_fraction"] == beyond_rails / 4


def one_weight(gradient: float) -> tuple[Problem, LinearBlockModel]:
    """One weight at 0 whose gradient is this."""
    problem = Problem("one", np.ones((1, 1)), np.full((1, 1), -gradient))
    model = LinearBlockModel(problem, num_hidden=[], use_bias=False, seed=0, dtype=np.float64)
    model.theta = np.zeros(1)
    return problem, model


def test_a_gradient_that_wraps_is_seen() -> None:
    """HLS text without modes wraps: -12 comes back as 4, and the step goes the wrong way."""
    problem, model = one_weight(-12.0)
    config = ThrottleConfig.stability_margin(elements=1, eta="1/16", gradient="ap_fixed<16,4>")
    with pytest.warns(TrainingWarning, match=r"^gradient = ap_fixed<16,4> wraps: .* write SQ4\.12 or .* to saturate, or AP_WRAP"):
        history = model.train_instrumented(problem.X, problem.Y, 1, 1, throttle=Throttle(config, model.theta))
    assert history["gradient_overflow_fraction"].tolist() == [1.0]
    assert history["update_cosine"][0] == -1 and history["update_angle_rad"][0] == math.pi
    assert history["update_radius_ratio"][0] == pytest.approx(4 / 12)
    assert history["raw_update_norm"][0] == 12 / 16 and history["actual_update_norm"][0] == 4 / 16
    assert history.layers["dense0"]["gradient_overflow_fraction"].tolist() == [1.0]


@pytest.mark.parametrize(("direction", "overflow"), [(None, 1.0), ("SQ10.6", 0.0)])
def test_a_direction_beyond_the_gradients_grid_is_seen(direction: str | None, overflow: float) -> None:
    """A momentum piles up gradients of 60 to several hundred, on a grid that ends at 64; one of its own holds them."""
    problem, model = one_weight(-60.0)
    config = ThrottleConfig.stability_margin(
        elements=1,
        eta=2.0**-13,
        eta_max=2.0**-13,
        gradient="SQ7.9",
        direction=direction,
        enabled=False,
        weight="SQ4.20",
        update="SQ2.22",
    )
    history = model.train_instrumented(problem.X, problem.Y, 10, 1, throttle=Throttle(config, model.theta), optimiser="momentum")
    assert history["direction_overflow_fraction"].tolist() == [0.0] + [overflow] * 9
    assert history["gradient_overflow_fraction"].max() == 0
    ratio = history["update_radius_ratio"]
    assert ratio[0] == pytest.approx(1, abs=1e-3)
    assert ratio[9] == pytest.approx(1.0 if direction else 64 / 387, rel=0.05)


def test_a_wrapped_gradient_in_a_momentum_shows_in_the_angle() -> None:
    """The direction is that of the wrapped gradients, and the yardstick that of the gradients themselves."""
    problem, model = one_weight(-12.0)
    config = ThrottleConfig.stability_margin(elements=1, eta="1/16", gradient="SQ4.12,floor,wrap")
    history = model.train_instrumented(problem.X, problem.Y, 2, 1, throttle=Throttle(config, model.theta), optimiser="momentum")
    assert history["update_cosine"].tolist() == [-1, -1]


def test_every_kind_by_layer_and_as_a_whole() -> None:
    problem = synthetic(0, 24)
    model = LinearBlockModel(problem, num_hidden=[3], activation="relu", seed=1, dtype=np.float64)
    precision = {
        "input": {"value": "SQ0.8"},
        "loss": {"value": "SQ-4.12"},
        "__default__": dict.fromkeys(("weight", "accumulator", "activation", "gradient", "update"), "SQ-3.14")
        | {"adam_m": "SQ-6.17"},
    }
    settings: dict[str, Any] = {"learning_rate": 0.5, "optimiser": "adam", "precision_dict": precision, "shuffle": False}
    history = model.train_instrumented(problem.X, problem.Y, 4, 24, **settings, hessian="none")
    kinds = {kind: history[f"{kind}_overflow_fraction"] for kind in KINDS}
    for kind in ("input", "parameter", "accumulator", "loss", "gradient", "state", "update"):
        assert 0 < kinds[kind].max() <= 1, kind
    assert kinds["input"].tolist() == [float(np.mean(problem.X * 256 > 127.5))] * 4
    assert kinds["direction"].max() == 0, "the published unit has no grid for it"
    assert set(history.layers) == {"dense0", "activation0", "dense1"}
    sizes = {"dense0": 4 * 3 + 3, "dense1": 3 * 2 + 2}
    parts = [sizes[name] * history.layers[name]["gradient_overflow_fraction"] for name in sizes]
    np.testing.assert_allclose(sum(parts) / sum(sizes.values()), kinds["gradient"], rtol=1e-12)
    # What other passes meet is no part of the step.
    again = LinearBlockModel(problem, num_hidden=[3], activation="relu", seed=1, dtype=np.float64)
    more = again.train_instrumented(problem.X, problem.Y, 4, 24, **settings, hessian="lanczos", estimator="same_batch")
    for kind in ("input", "parameter", "accumulator", "gradient", "state"):
        np.testing.assert_array_equal(more[f"{kind}_overflow_fraction"], kinds[kind])


def test_without_grids_nothing_overflows() -> None:
    problem = synthetic(0, 24)
    model = LinearBlockModel(problem, num_hidden=[3], seed=1, dtype=np.float64)
    history = model.train_instrumented(problem.X, problem.Y, 2, 24, learning_rate=1e3)
    assert all(history[f"{kind}_overflow_fraction"].max() == 0 for kind in KINDS)
