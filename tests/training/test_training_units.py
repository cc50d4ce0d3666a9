"""A model whose layers have formats of their own, through shards under one law, and what that is by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.layers import variables
from kappa_rtl.golden.rounding import quantise, values
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.units import configs_for, unit_for
from support.strategies import exactly
from support.training import equal, problem_model

FIRST = {"weight": "SQ4.6", "bias": "SQ4.6", "gradient": "SQ4.6", "update": "SQ2.8"}
SECOND = {"weight": "SQ4.12", "bias": "SQ4.10", "gradient": "SQ4.12", "update": "SQ2.14"}
LAYERS = {"dense0": FIRST, "dense1": SECOND}
pytestmark = pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.lint.TrainingWarning")

LAW: dict[str, Any] = {"eta": 0.25, "chi": 0.2}


def model_of(**settings: Any) -> tuple[Any, Any]:
    return problem_model(3, use_bias=True, activation="relu", **settings)


def test_stretches_of_equal_formats_are_shards() -> None:
    _, model = model_of()
    configs = configs_for(model, LAYERS, **LAW)
    assert [(config.elements, str(config.weight), str(config.gradient)) for config in configs] == [
        (4 * 3 + 3, "SQ4.6", "SQ4.6"),
        (3 * 2, "SQ4.12", "SQ4.12"),
        (2, "SQ4.10", "SQ4.12"),
    ]
    unit = unit_for(model, LAYERS, **LAW)
    assert isinstance(unit, ShardedThrottle) and str(unit.config.motion) == "intended"
    assert str(unit_for(model, LAYERS, motion="applied", **LAW).config.motion) == "applied"
    assert isinstance(unit_for(model, {"__default__": FIRST}, **LAW), Throttle)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_is_the_units_own_steps(dtype: Any, optimizer: str) -> None:
    problem, model = model_of(dtype=dtype, optimizer=optimizer)
    unit = unit_for(model, LAYERS, **LAW)
    by_hand = unit_for(model, LAYERS, **LAW)
    seen: list[Any] = []
    step = unit.step

    def spied(gradient: Any, direction: Any = None, *, codes: Any = None) -> Any:
        seen.append((np.array(gradient), None if direction is None else np.array(direction)))
        return step(gradient, direction, codes=codes)

    unit.step = spied  # type: ignore[method-assign]
    history = model.train_instrumented(problem.X, problem.Y, 4, 16, throttle=unit, optimiser=optimizer, precision_dict=LAYERS)
    assert len(seen) == 16 and (seen[0][1] is None) == (optimizer == "sgd")
    own = [config.grids for config in by_hand.parts for _ in range(config.elements)]
    for gradient, direction in seen:
        for vector, whole, name in (
            (gradient, unit.config.grids.gradient, "gradient"),
            (direction, unit.config.grids.direction, "direction"),
        ):
            if vector is not None:  # on each variable's own grid, as codes of the common one
                real = values(vector, whole)
                fitted = [
                    float(values(quantise([x], getattr(g, name)), getattr(g, name))[0]) for x, g in zip(real, own, strict=True)
                ]
                assert real.tolist() == fitted
        record = by_hand.step(gradient, direction, codes=True)
    assert np.array_equal(record.weights, np.asarray(model.theta, np.float64))
    assert history["weight_saturation_fraction_max"].max() == 0 and np.isfinite(history["alpha"]).all()
    assert history["alpha"].min() < 1


def test_one_format_in_shards_is_the_unit_of_it() -> None:
    histories = []
    for kind in ("one", "shards"):
        problem, model = model_of()
        config = configs_for(model, {"__default__": FIRST}, motion="applied", **LAW)[0]
        start = quantise(model.theta, config.grids.weight)
        unit = Throttle(config, start, codes=True) if kind == "one" else ShardedThrottle(config, start, [10, 13], codes=True)
        histories.append(model.train_instrumented(problem.X, problem.Y, 3, 16, throttle=unit, distortion=True))
    assert equal(*histories)


def test_the_budget_of_causes_is_of_each_layers_own_grids() -> None:
    problem, model = model_of()
    history = model.train_instrumented(
        problem.X, problem.Y, 3, 64, throttle=unit_for(model, LAYERS, **LAW), precision_dict=LAYERS, distortion=True
    )
    assert history["angle_whole"].min() > 0
    assert history["angle_whole"] == pytest.approx(history["update_angle_rad"], abs=1e-6)
    assert history["radius_whole"] + 1 == pytest.approx(history["update_radius_ratio"], rel=1e-6)


@pytest.mark.parametrize(
    ("precision", "message"),
    [
        (None, "precision must name formats, not None: float has no hardware"),
        (
            {"dense0": FIRST, "dense1": {"weight": "SQ4.6", "gradient": "SQ4.6", "update": "SQ2.8"}},
            "precision of dense1.bias must be a format, not None: dense1/bias is in hardware",
        ),
        (
            {"__default__": FIRST, "dense0": {"gradient": None}},
            "precision of dense0.gradient must be a format, not None: dense0/kernel is in hardware",
        ),
    ],
)
def test_float_is_refused_by_layer(precision: Any, message: str) -> None:
    _, model = model_of()
    with pytest.raises(ValueError, match=exactly(message)):
        unit_for(model, precision, **LAW)


def test_a_variable_in_shards_of_different_formats_is_refused() -> None:
    problem, model = model_of()
    configs = configs_for(model, LAYERS, **LAW)
    moved = [configs[0].replace(elements=14), configs[1].replace(elements=7), configs[2]]
    unit = ShardedThrottle(moved, np.zeros(model.theta.size))
    assert [v.name for v in variables(model.layers)] == ["kernel", "bias"] * 2
    with pytest.raises(ValueError, match=exactly("throttle must have dense0/bias in shards of one format")):
        model.train_instrumented(problem.X, problem.Y, 1, 64, throttle=unit)


def test_segments_where_binary_points_alone_differ() -> None:
    """A segment a variable; room for more if it is asked for; shards where a unit cannot have them."""
    _, model = model_of()
    layers = {"dense0": FIRST, "dense1": {"weight": "SQ3.7", "bias": "SQ3.7", "gradient": "SQ4.6", "update": "SQ1.9"}}
    unit = unit_for(model, layers, **LAW, capacity=100, entries=6)
    assert not isinstance(unit, ShardedThrottle)
    assert [segment.scale for segment in unit.config.segments] == [0, 0, 1, 1]
    assert (unit.config.room, unit.config.entries, str(unit.config.gradient)) == (100, 6, "SQ5.6")
    assert [segment.elements for segment in unit_for(model, layers, **LAW, entries=2).config.segments] == [15, 8]
    assert isinstance(unit_for(model, layers, **LAW, delay=1), ShardedThrottle)
    assert len(unit_for(model, {"__default__": FIRST}, **LAW, entries=6).config.segments) == 4
    wider = layers | {"dense1": FIRST | {"weight": "SQ4.7", "bias": "SQ4.7"}}
    assert isinstance(unit_for(model, wider, **LAW), ShardedThrottle)
