"""The mathematics of docs/rules.md against runs: what rounding and batches do to each way to find the curvature."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network.data import digits, synthetic
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.model import LinearBlockModel

Floats = NDArray[np.float64]
ETA = 0.1


def squares(bits: int, **options: Any) -> dict[str, float]:
    """Sums over a run on full batches, as parts of ||s||**2: s the intended step, n what rounding adds, dg = H (s + n).

    The gradient's own grid, which is fine, is the rest.
    """
    problem = digits()
    gram = problem.X.T @ problem.X / len(problem.X)
    config = ThrottleConfig.stability_margin(
        elements=640, eta=ETA, weight=f"SQ2.{bits - 2}", gradient="SQ2.16", enabled=False, **options
    )
    model = LinearBlockModel(problem, num_hidden=[], use_bias=False, dtype=np.float64)
    model.theta = model.theta * 0
    seen: list[tuple[Floats, Floats, Floats]] = []
    model.train_instrumented(
        problem.X,
        problem.Y,
        120,
        len(problem.X),
        shuffle=False,
        throttle=Throttle(config, np.zeros(640)),
        observe=lambda step: seen.append((step.theta, step.theta_after, step.gradient)),
        compute_analytic_hessian=False,
    )
    made = dict.fromkeys(("ss", "nn", "expected", "curved", "dd", "gg", "gs", "hh", "hs", "sn", "rr"), 0.0)
    ulp, diagonal = 2.0 ** (2 - bits), np.repeat((gram @ gram).diagonal(), 10)
    for (before, after, gradient), (_, _, then) in pairwise(seen[20:]):
        s, moved, change = -ETA * gradient, after - before, then - gradient
        n = moved - s
        part = s / ulp % 1
        variance = part * (1 - part) * ulp**2
        hs, hn = ((gram @ vector.reshape(64, 10)).ravel() for vector in (s, n))
        for name, value in (
            *(("ss", s @ s), ("nn", n @ n), ("expected", variance.sum()), ("curved", variance @ diagonal), ("dd", moved @ moved)),
            *(("gg", change @ change), ("gs", change @ s), ("hh", hs @ hs), ("hs", s @ hs), ("sn", hs @ n), ("rr", hn @ hn)),
        ):
            made[name] += float(value)
    return {name: value / made["ss"] for name, value in made.items() if name != "ss"}


def test_random_rounding() -> None:
    """Its energy is f (1 - f) ulp**2 an element, and independent of the step: the projection stays right, the lengths do not."""
    for bits in (8, 10, 12):
        of = squares(bits, update=f"SQ1.{bits - 2},stochastic", residual_bits=0)
        assert of["nn"] == pytest.approx(of["expected"], rel=0.06)
        assert of["dd"] == pytest.approx(1 + of["expected"], rel=0.06)
        assert of["rr"] == pytest.approx(of["curved"], rel=0.1)
        intended, applied = of["gg"], of["gg"] / of["dd"]
        assert intended == pytest.approx(of["hh"] + of["curved"], rel=0.1)
        assert applied == pytest.approx((of["hh"] + of["curved"]) / (1 + of["expected"]), rel=0.1)
        assert of["gs"] == pytest.approx(of["hs"], rel=0.1)
        # Rounding moves the weights in all directions: the applied one is a mean of the curvatures of both, the intended a sum.
        all_round = of["rr"] / of["nn"]
        assert min(of["hh"], all_round) < applied < max(of["hh"], all_round) and of["hh"] < intended
        assert bits > 8 or applied < 0.2 * of["hh"]


def test_a_residual_comes_back() -> None:
    """What is kept of one step is in the next gradient: the cross term is positive, and the projection too large."""
    of = squares(8, update="SQ1.6", residual_bits=8)
    assert of["gs"] == pytest.approx(of["hs"] + of["sn"], rel=0.02)
    assert of["sn"] > 0.4 * of["hs"]
    assert of["gg"] / of["dd"] < 0.5 * of["hh"]


@pytest.mark.parametrize(("options", "chi", "alone"), [({}, 1.9, 2**0.5), ({"source": "projection"}, 1.5, 1.0)])
def test_noise_of_batches(options: dict[str, Any], chi: float, alone: float) -> None:
    """Of noise alone C * alpha * eta is the root of 2, or 1 of a projection: where chi is less, each step shortens the next."""
    rng, problem = np.random.default_rng(1), synthetic(0)
    config = ThrottleConfig.stability_margin(elements=8, eta=2.0**-12, chi=chi, eps=0, **options)
    unit, found = FloatThrottle(config, np.zeros(8)), []
    for _ in range(400):
        rows = rng.choice(len(problem.X), 8)
        gradient = problem.X[rows].T @ rng.normal(size=(8, 2)) / 8
        record = unit.step(gradient.ravel())
        found.append((float(record.registers.curvature), float(record.registers.step_size)))
    curvature, step = np.array(found).T
    assert np.sqrt(np.mean((curvature[2:] * step[1:-1]) ** 2)) == pytest.approx(alone, rel=0.25)
