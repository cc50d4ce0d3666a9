"""What is measured of each tensor, by hand; and where it stands in a history."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.layers import Variable
from kappa_rtl.golden.network.quantisers import Segment
from kappa_rtl.golden.segments import Segment as Laid
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.tensors import TENSORS, budgets, tensors, used
from kappa_rtl.golden.training.units import first_weights, unit_for
from kappa_rtl.golden.widths import Grids
from support.training import problem_model

pytestmark = pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.lint.TrainingWarning")

VARIABLES = [Variable("a", "kernel", slice(0, 2), (2,)), Variable("a", "bias", slice(2, 4), (2,))]


def grids(weight: str) -> Grids:
    fmt = Fixed.parse(weight)
    return Grids(Fixed.parse("SQ2.4"), fmt, fmt, Fixed(False, 1, 8), Fixed.parse("SQ2.4"))


def test_rows_by_hand() -> None:
    """A tensor that stands still but for one weight beside one that moves as it is meant to and lands on its rail."""
    found = tensors(
        VARIABLES,
        [grids("SQ2.4"), grids("SQ1.5")],
        theta=np.array([0.5, -0.25, 0.75, 0.0]),
        after=np.array([0.5, 0.0, 0.96875, 0.0]),
        intended=np.array([0.25, 0.25, 0.21875, 0.0]),
        gradient=np.array([-0.25, -0.25, -0.5, 0.0]),
        raw_gradient=np.array([-0.25, -0.25, -0.5, 0.01]),
        update=np.array([0.25, 0.25, 0.01, 0.0]),
        eps=0.0,
    )
    kernel, bias = found["a/kernel"], found["a/bias"]
    assert set(kernel) == set(bias) == set(TENSORS)
    assert kernel["still_fraction"] == 0.5 and bias["still_fraction"] == 0.0  # the bias that stood was not meant to move
    assert kernel["update_angle_rad"] == pytest.approx(math.pi / 4) and bias["update_angle_rad"] == 0
    assert kernel["update_radius_ratio"] == pytest.approx(2**-0.5) and bias["update_radius_ratio"] == 1
    assert (kernel["weight_saturation_fraction"], bias["weight_saturation_fraction"]) == (0, 0.5)
    assert (kernel["gradient_underflow_fraction"], bias["gradient_underflow_fraction"]) == (0, 0.5)
    assert bias["update_underflow_fraction"] == 0.5
    assert (kernel["weight_bits"], bias["weight_bits"]) == (5, 6)  # 8 of 1/16 and 31 of 1/32, with their sign
    assert (kernel["gradient_bits"], bias["gradient_bits"]) == (3, 4)


@pytest.mark.parametrize(("codes", "bits"), [([0], 1), ([-1], 1), ([1], 2), ([-2], 2), ([-3, 3], 3), ([7, -8], 4), ([8], 5)])
def test_used_bits(codes: list[int], bits: int) -> None:
    assert used(np.array(codes) / 16, Fixed.parse("SQ4.4")) == bits


def test_a_tensor_that_is_not_finite_has_no_bits() -> None:
    assert math.isnan(used(np.array([math.inf]), Fixed.parse("SQ4.4")))


def test_causes_by_tensor() -> None:
    """Rounding alone bends the coarse one; the fine one is on its grid."""
    formats = [Segment(2, None, Fixed.parse("SQ4.0")), Segment(2, None, Fixed.parse("SQ2.8"))]
    vectors: dict[str, Any] = {
        "theta": np.zeros(4),
        "exact": -np.array([1, 0.25, 1, 0.25]),
        "seen": -np.array([1, 0.25, 1, 0.25]),
    }
    found = budgets(VARIABLES, formats, rates=(1.0, 1.0), **vectors)
    assert found["a/kernel"]["angle_weight_rounding"] == pytest.approx(math.atan(0.25))
    assert found["a/bias"]["angle_whole"] == 0
    assert all(math.isnan(value) for value in budgets(VARIABLES, formats, rates=None, **vectors)["a/kernel"].values())


LAYERS = {
    "dense0": {"weight": "SQ2.10", "bias": "SQ2.10", "gradient": "SQ4.8", "update": "SQ1.11"},
    "dense1": {"weight": "SQ1.11", "bias": "SQ1.11", "gradient": "SQ3.11", "update": "SQ0.12"},
}


def trained(tmp_path: Path | None = None, steps: int = 4, **options: Any) -> FitHistory:
    problem, model = problem_model(3, use_bias=True, activation="relu")
    unit = unit_for(model, LAYERS, eta=0.25, chi=1.9, lanes=2)
    return model.train_instrumented(problem.X, problem.Y, steps, 16, throttle=unit, precision_dict=LAYERS, **options)


def test_a_history_has_them_beside_its_layers(tmp_path: Path) -> None:
    history = trained(distortion=True)
    assert list(history.layers) == [
        *("dense0", "activation0", "dense1", "dense0/kernel", "dense0/bias", "dense1/kernel", "dense1/bias"),
    ]
    kernel = history.layers["dense0/kernel"]
    assert set(TENSORS) < set(kernel) and "angle_whole" in kernel and len(kernel["still_fraction"]) == history.steps
    for suffix in ("npz", "json"):
        assert FitHistory.load(history.save(tmp_path / f"history.{suffix}")) == history
    assert history.plot_results(tmp_path / "history.png") is not None


def test_one_grid_has_none() -> None:
    problem, model = problem_model(3, use_bias=True, activation="relu")
    unit = unit_for(model, dict.fromkeys(LAYERS, LAYERS["dense0"]), eta=0.25, chi=1.9)
    history = model.train_instrumented(problem.X, problem.Y, 1, 16, throttle=unit)
    assert not any("/" in layer for layer in history.layers)


def test_segments_of_a_file_too() -> None:
    """A layout that was given, of which a variable is one of two segments' neighbours of one scale."""
    problem, model = problem_model(3, use_bias=True, activation="relu")
    unit = unit_for(model, LAYERS, eta=0.25, chi=1.9)
    config = unit.config.replace(segments=[Laid(model.theta.size, 1, "all")])
    history = model.train_instrumented(problem.X, problem.Y, 1, 16, throttle=Throttle(config, first_weights(model.theta, config)))
    assert "dense1/bias" in history.layers
