"""Curvature along the step that was meant, in the loops: what units go by, what is logged, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training import Problem, Run, digits
from kappa_rtl.golden.training.model import LinearBlockModel


@pytest.fixture(scope="module")
def data() -> Problem:
    return digits()


@pytest.mark.parametrize("unit", [FloatThrottle, Throttle])
@pytest.mark.parametrize("options", [{"motion": "intended"}, {"source": "projection"}, {"source": "projection", "delay": 1}])
def test_curvature_along_the_intended_step(data: Problem, unit: type, options: dict[str, Any]) -> None:
    """Every unit goes by the estimate that its row has under that name; that of a quadratic is the true one."""
    config = ThrottleConfig.stability_margin(elements=data.elements, eta=0.1, eps=0, **options)
    rows = [row.metrics for row in Run(data, unit(config, np.zeros(data.elements)), steps=30)]
    name = "curvature_projection" if "source" in options else "curvature_intended"
    late = 2 if "delay" in options else 1
    for row in rows[late:]:
        assert row["curvature"] == pytest.approx(row[name], rel=1e-9 if unit is FloatThrottle else 0.02)
    true = [row["curvature_true"] for row in rows[1:]]
    assert all(0 < value <= row["eta_lambda_max"] / 0.1 * (1 + 1e-9) for value, row in zip(true, rows[1:], strict=True))
    if unit is FloatThrottle:  # the gain is the same, so that the gradient's change is the Hessian's
        found = [row["curvature_projection"] for row in rows[1:]]
        assert found == pytest.approx(true, rel=1e-6)


def test_a_projection_is_along_the_gradient(data: Problem) -> None:
    """Refused before the first step, by what steps along another vector."""
    config = ThrottleConfig.stability_margin(elements=data.elements, eta=0.1, source="projection")
    for given, message in (
        ({"optimiser": "momentum"}, "optimiser must be sgd with the source projection, which projects onto G, not Momentum"),
        ({"estimator": "same_batch"}, "estimator must be naive with the source projection"),
        ({"clip": "gradient"}, "clip must be None with the source projection"),
        ({"weight_decay": 0.1}, "weight_decay_mode must be coupled with the source projection"),
    ):
        model = LinearBlockModel(data, num_hidden=[], use_bias=False, dtype=np.float64)
        unit = Throttle(config, np.zeros(data.elements))
        with pytest.raises(ValueError, match=re.escape(message)):
            model.train_instrumented(data.X, data.Y, 1, 64, throttle=unit, **given)


@pytest.mark.filterwarnings("ignore:weight = SQ3.3 swallows updates")
def test_held_is_what_has_no_motion(data: Problem) -> None:
    """With an intended motion, weights that stay are no reason to hold C; a rate of 0 is one."""
    config = ThrottleConfig.stability_margin(
        elements=data.elements, eta=0.1, motion="intended", on_still="hold", weight="SQ3.3", update="SQ3.3"
    )
    model = LinearBlockModel(data, num_hidden=[], use_bias=False, dtype=np.float64)
    model.theta = model.theta * 0
    unit = Throttle(config, np.zeros(data.elements))
    history = model.train_instrumented(
        data.X, data.Y, 6, len(data.X), throttle=unit, schedule=lambda step: 0.0 if step == 3 else 1.0
    )
    assert history["dtheta_zero"].any(), "this run is meant to meet weights that stay"
    assert history["held"].tolist() == [0, 0, 0, 0, 1, 0]
