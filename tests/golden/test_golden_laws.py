"""The laws against their own papers' formulas, written out in float64, and against the float unit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.laws import LAWS
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from support.strategies import exactly

FORMATS = {"gradient": "SQ8.24", "weight": "SQ4.28", "update": "SQ4.28", "step_bits": 24}


class Quadratic:
    """Half a quadratic form with curvatures from 0.1 to 4, whose gradients are on a grid."""

    def __init__(self, n: int = 12) -> None:
        rng = np.random.default_rng(5)
        self.curvature, self.minimum = np.geomspace(0.1, 4, n), rng.uniform(-1, 1, n)
        self.begin = np.round(rng.uniform(-1, 1, n) * 2**20) / 2**20

    def gradient(self, theta: Any) -> Any:
        return np.round(self.curvature * (theta - self.minimum) * 2**24) / 2**24


def alphas(unit: FloatThrottle | Throttle, task: Quadratic, steps: int) -> list[float]:
    return [float(unit.step(task.gradient(unit.weights)).registers.alpha) for _ in range(steps)]


def test_adgd_is_its_algorithm() -> None:
    """lambda = min(sqrt(1 + theta) * lambda, |dx| / (2 |dg|)), theta the ratio of the last two; at most eta."""
    task, eta = Quadratic(), 3.0
    unit = FloatThrottle(ThrottleConfig.adgd(elements=12, eta=eta, eps=0), task.begin)
    x, rates = task.begin, [eta]
    before = None
    for _ in range(60):
        g = task.gradient(x)
        if before is not None:
            rate = float(np.linalg.norm(x - before[0]) / (2 * np.linalg.norm(g - before[1])))
            if len(rates) > 1:
                rate = min(rate, math.sqrt(1 + rates[-1] / rates[-2]) * rates[-1])
            rates.append(min(eta, rate))
        before = x, g
        x = x - rates[-1] * g
    got = np.array(alphas(unit, task, 60)) * eta
    np.testing.assert_allclose(got, rates, rtol=1e-9)
    assert 0 < min(rates) < max(rates) / 4, "the law must have had something to do"


def test_clip_is_the_clipped_norm() -> None:
    task = Quadratic()
    unit = FloatThrottle(ThrottleConfig.clip_norm(elements=12, eta=0.2, max_norm=0.7), task.begin)
    for _ in range(20):
        gradient, before = task.gradient(unit.weights), unit.weights
        unit.step(gradient)
        clipped = gradient * min(1.0, 0.7 / np.linalg.norm(gradient))
        np.testing.assert_allclose(unit.weights, before - 0.2 * clipped, rtol=1e-12)


def test_trust_ratio_is_larc() -> None:
    task, eta, trust, decay = Quadratic(), 0.5, 0.1, 0.01
    unit = FloatThrottle(ThrottleConfig.trust_ratio(elements=12, eta=eta, trust=trust, weight_decay=decay), task.begin)
    unit.step(task.gradient(unit.weights))
    for _ in range(20):
        gradient, theta = task.gradient(unit.weights), unit.weights
        local = trust * np.linalg.norm(theta) / (np.linalg.norm(gradient) + decay * np.linalg.norm(theta))
        assert float(unit.step(gradient).registers.alpha) == pytest.approx(min(local / eta, 1), rel=1e-12)


@pytest.mark.parametrize("delay", [0, 1])
@pytest.mark.parametrize("law", list(LAWS))
def test_golden_follows_float(law: str, delay: int) -> None:
    """On fine grids the two train alike; how many bits agree, the other tests say."""
    task = Quadratic()
    own = {"stability_margin": {"chi": 0.6}, "clip_norm": {"max_norm": 0.5}, "trust_ratio": {"trust": 0.05}}.get(law, {})
    config = ThrottleConfig.of_law(law, elements=12, eta=0.4, delay=delay, **own, **FORMATS)
    exact, real = (alphas(kind(config, task.begin), task, 30) for kind in (Throttle, FloatThrottle))
    np.testing.assert_allclose(exact, real, rtol=2e-4)
    assert min(real) < 0.9, f"{law} does not throttle here: give it a parameter in `own`"


def test_weights_of_zero_do_not_hold_back() -> None:
    """||theta|| = 0 has no ratio: C is 0, alpha is 1, and no flag rises."""
    unit = Throttle(ThrottleConfig.trust_ratio(elements=2, eta=0.5), [0, 0])
    for gradient in ([0, 0], [0, 0], [1, 0]):
        registers = unit.step(gradient).registers
        assert (float(registers.alpha), registers.scalar_overflow) == (1.0, False)
    assert float(unit.step([1, 0]).registers.alpha) < 1


def test_a_still_step_under_the_ratio() -> None:
    """B is the weights' own energy there, so that only the motion itself tells that nothing moved."""
    unit = Throttle(ThrottleConfig.trust_ratio(elements=2, eta=2.0**-9, dead_after=2), [100, 0], codes=True)
    stills = [unit.step([1, 0], codes=True).registers for _ in range(4)]
    assert [r.still for r in stills] == [False, True, True, True]
    assert [r.learning_dead for r in stills] == [False, False, True, True]
    assert all(r.B == 10000 for r in stills)


@pytest.mark.parametrize(("law", "name"), [("adgd", "gain"), ("clip_norm", "num"), ("trust_ratio", "source"), ("adgd", "growth")])
def test_a_law_refuses_what_it_sets(law: str, name: str) -> None:
    with pytest.raises(ValueError, match=exactly(f"{name} is set by the law {law} and must not be given with it, not 1")):
        ThrottleConfig.of_law(law, elements=4, eta=0.1, **{name: 1})


@pytest.mark.parametrize("law", list(LAWS))
def test_a_law_reads_back_as_itself(law: str) -> None:
    """With its own defaults; or two laws would be one, and the first would be written in the place of the second."""
    assert ThrottleConfig.of_law(law, elements=4, eta=0.1).to_table()["law"] == law


def test_an_unknown_law_is_refused() -> None:
    names = ", ".join(LAWS)
    with pytest.raises(ValueError, match=exactly(f"law must be one of {names}, not 'adam'")):
        ThrottleConfig.of_law("adam", elements=4, eta=0.1)
