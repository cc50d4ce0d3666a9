"""Models, units and comparisons that the tests of the training loop share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network.data import synthetic
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.model import LinearBlockModel


def problem_model(*hidden: int, seed: int = 0, samples: int = 64, **settings: Any) -> tuple[Any, LinearBlockModel]:
    problem = synthetic(0, samples)
    form = {"dtype": np.float64, "use_bias": False} | settings
    return problem, LinearBlockModel(problem, num_hidden=list(hidden), seed=seed, **form)


def equal(a: FitHistory, b: FitHistory, *, names: Any = None) -> bool:
    names = list(a) if names is None else names
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in names)


def unit_for(model: LinearBlockModel, kind: str = "golden", **settings: Any) -> Any:
    """A throttle unit for a model's weights."""
    law = {"eta": "0.2", "gradient": "SQ4.12", "weight": "SQ4.12", "update": "SQ2.14", "rho": "0.05"} | settings
    config = ThrottleConfig.stability_margin(elements=model.theta.size, **law)
    if kind == "float":
        return FloatThrottle(config, model.theta)
    return Throttle(config, quantise(model.theta, config.grids.weight), codes=True)


def train_alike(units: Sequence[Any], layers: dict[str, Any]) -> None:
    """Train a model on each unit, with formats by layer: the weights are identical after every step, and move."""
    runs: list[list[Any]] = []
    for unit in units:
        problem, model = problem_model(3, use_bias=True, activation="relu")
        seen: list[Any] = []

        def look(step: Any, seen: list[Any] = seen) -> None:
            seen.append(step.theta_after)

        model.train_instrumented(problem.X, problem.Y, 4, 16, throttle=unit, precision_dict=layers, observe=look)
        runs.append(seen)
    first, *others = runs
    assert len(first) == 16 and any((theta != first[0]).any() for theta in first)
    assert all((a == b).all() for other in others for a, b in zip(first, other, strict=True))
