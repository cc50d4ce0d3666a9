"""The whole unit against the oracle: runs of steps, every register, weight and update at every step."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import spec
from kappa_rtl.golden.config import COUNTERS, FLAGS, ThrottleConfig
from kappa_rtl.golden.decide import Decide
from kappa_rtl.golden.norm import BLOCK, sum_of_squares
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.throttle import StepRecord, Throttle
from kappa_rtl.golden.update import apply_update
from strategies import codes, configs, exactly, vectors


class Pair:
    """The golden unit and the oracle side by side; ``step`` asserts that they agree to the bit."""

    def __init__(self, config: ThrottleConfig, theta: Sequence[int]) -> None:
        self.golden = Throttle(config, np.array(theta, np.int64))
        self.oracle = spec.SpecThrottle(config, theta)
        self.steps = 0

    def step(self, gradient: Sequence[int], direction: Sequence[int] | None = None) -> dict[str, Any]:
        """One step of both; the registers, theta and update that both found."""
        d = None if direction is None else np.array(direction, np.int64)
        record = self.golden.step(np.array(gradient, np.int64), d)
        got = record.registers.to_json() | {"theta": record.theta.tolist(), "update": record.update.tolist()}
        want = self.oracle.step(gradient, direction)
        assert json.loads(json.dumps(got)) == want, f"step {self.steps}"
        assert record.step == self.steps
        assert self.golden.theta.tolist() == want["theta"]
        self.steps += 1
        return want

    def clear(self) -> None:
        self.golden.clear()
        self.oracle.clear()


def reached(config: ThrottleConfig, k: dict[str, Fraction], now: dict[str, Any]) -> set[str]:
    """Which of the situations that a run should meet this step met."""
    alpha = now["alpha"][0] * spec.power_of_two(now["alpha"][1])
    low, high = spec.rails(config.grids.update)
    w_low, w_high = spec.rails(config.grids.weight)
    found = {
        "still": now["still"],
        "moved": now["B"] > 0,
        "alpha 1": alpha == 1,
        "alpha inside": k["alpha_min"] < alpha < 1,
        "alpha at alpha_min": 0 < k["alpha_min"] == alpha < 1,
        "alpha 0": alpha == 0,
        "step 0": now["step_size"] == 0,
        "step at the rail": now["step_size"] == config.step.rails[1],
        "y at the low rail": low in now["update"],
        "y at the high rail": high in now["update"],
        "theta at the low rail": w_low in now["theta"],
        "theta at the high rail": w_high in now["theta"],
        "S apart from C": now["ema"] != now["curvature"] and now["ema"][0] > 0,
        f"{config.on_still} when still": now["still"],
        f"{config.source} inside": k["alpha_min"] < alpha < 1,
        f"ema_start {config.ema_start}": now["ema"][0] > 0,
        "not enabled": not config.enabled and alpha < 1,
    }
    return {name for name, is_so in found.items() if is_so} | {name for name in COUNTERS + FLAGS if now[name]}


EVERYTHING = {
    *COUNTERS, *FLAGS, "still", "moved", "alpha 1", "alpha inside", "alpha at alpha_min", "alpha 0", "step 0", "step at the rail",
    "y at the low rail", "y at the high rail", "theta at the low rail", "theta at the high rail", "S apart from C",
    "floor when still", "hold when still", "divide when still", "instant inside", "ema inside", "max inside",
    "ema_start zero", "ema_start first", "not enabled", "a direction of its own", "cleared",
}  # fmt: skip


def test_runs_against_the_oracle() -> None:
    """Any configuration, adversarial vectors, directions of their own, clears between steps; and all of it was met."""
    met: Counter[str] = Counter()

    @settings(max_examples=200)
    @given(st.data(), configs())
    def runs(data: st.DataObject, config: ThrottleConfig) -> None:
        n = config.elements
        pair = Pair(config, data.draw(st.lists(codes(config.grids.weight), min_size=n, max_size=n)))
        gradients = vectors(config.grids.gradient, n)
        for _ in range(data.draw(st.integers(1, 7))):
            direction = data.draw(st.one_of(st.none(), st.none(), gradients))
            met.update(reached(config, pair.oracle.k, pair.step(data.draw(gradients), direction)))
            met["a direction of its own"] += direction is not None
            if data.draw(st.integers(0, 9)) == 0:
                pair.clear()
                met["cleared"] += 1

    runs()
    # Which examples are drawn hangs on the text of this test; each law's middle is met for certain.
    random = np.random.default_rng(3)
    for source in ("instant", "ema", "max"):
        config = ThrottleConfig(elements=4, eta=0.5, num=0.6, bias=0.1, gain=0.3, source=source)
        pair = Pair(config, [0, 100, -200, 300])
        for _ in range(6):
            met.update(reached(config, pair.oracle.k, pair.step(random.integers(-9000, 9000, 4).tolist(), None)))
    assert set(met) - EVERYTHING == set()
    assert {name for name in EVERYTHING if not met[name]} == set(), f"never met; met were {met}"


@pytest.mark.parametrize("on_still", ["floor", "hold", "divide"])
@pytest.mark.parametrize("law", ["stability_margin", "inverse_curvature"])
def test_training_in_closed_loop(law: str, on_still: str) -> None:
    """A quadratic loss whose curvature grows past the limit, on 8-bit weights: gradients follow the weights."""
    n = 12
    formats = {"gradient": "SQ2.10", "weight": "SQ2.6", "update": "SQ1.9"}
    maker = getattr(ThrottleConfig, law)
    config = maker(elements=n, eta=0.1, rho=0.1, on_still=on_still, ema_start="first", dead_after=3, **formats)
    rng = np.random.default_rng(7)
    target, curvature = rng.uniform(-1, 1, n), rng.uniform(0.3, 3, n)
    pair = Pair(config, [0] * n)
    still = 0
    for step in range(60):
        scale = 1 + step / 6
        error = pair.golden.weights - target
        gradient = np.clip(np.round(scale * curvature * error * 2**10), -2048, 2047).astype(int)
        still += pair.step(gradient.tolist())["still"]
    assert still > 0, "this run is meant to meet still steps"


@pytest.mark.parametrize(
    ("formats", "on_still", "accuracy", "still_steps"),
    [
        ({"weight": "SQ2.6", "gradient": "SQ2.10", "update": "SQ1.9"}, "divide", 0.432, 297),
        ({"weight": "SQ2.6", "gradient": "SQ2.10", "update": "SQ1.9"}, "hold", 0.824, 250),
        ({"weight": "SQ2.6", "gradient": "SQ2.10", "update": "SQ1.9"}, "floor", 0.818, 242),
        ({"weight": "SQ2.14", "gradient": "SQ4.12", "update": "SQ1.15"}, "floor", 0.946, 0),
    ],
)
def test_the_contracts_experiment(formats: dict[str, str], on_still: str, accuracy: float, still_steps: int) -> None:
    """Digits under a growing input gain: the figures that the contract gives, found there in exact rationals.

    The tolerance is for another BLAS, whose last bits may round a gradient the other way.
    """
    digits = load_digits()
    inputs, labels = digits.data / 16, digits.target
    targets = np.eye(10)[labels]
    config = ThrottleConfig.stability_margin(elements=640, eta=0.1, chi=1.5, rho=0.05, on_still=on_still, **formats)
    unit = Throttle(config, np.zeros(640, int))
    hits = []
    for step in range(300):
        x = inputs * (1 + 3 * min(max((step - 50) / 150, 0), 1))
        outputs = x @ unit.weights.reshape(64, 10)
        hits.append(np.mean(outputs.argmax(1) == labels))
        record = unit.step(quantise((x.T @ (outputs - targets)).ravel() / len(x), config.grids.gradient, "gradient"))
    assert np.mean(hits[-20:]) == pytest.approx(accuracy, abs=0.003)
    assert record.registers.still_steps == pytest.approx(still_steps, abs=3)
    assert record.registers.learning_dead or on_still != "divide"


# -------------------------------------------------------------------------------------------------- the first step


def small(**changes: Any) -> ThrottleConfig:
    """Two elements, eta 1/2 (exact in every grid), C itself as the curvature: alpha = min(1, 1 / (1 + C))."""
    values: dict[str, Any] = {"elements": 2, "eta": 0.5, "source": "instant", "eps": 0}
    return ThrottleConfig(**(values | changes))


def value(pair: list[int]) -> Fraction:
    return pair[0] * spec.power_of_two(pair[1])


def test_first_step_sees_no_curvature() -> None:
    """P is 0, so A is the energy of G; C and S stay 0, and B = 0 is not a still step."""
    now = Pair(small(), [0, 0]).step([4096 * 3, -4096 * 4])
    assert now["A"] == 25 * 4096**2
    assert value(now["norm_gradient"]) == 5
    assert now["norm_motion"] == now["curvature"] == now["ema"] == [0, 0]
    assert (now["still"], now["still_steps"]) == (False, 0)
    assert value(now["alpha"]) == 1
    assert now["step_size"] == 2**16
    assert now["update"] == [-(2**15), 2**15 - 1]  # -1.5 and 2 beyond the rails of SQ1.15
    assert now["theta"] == [-(2**14), 2**14]  # the upper rail of y, an ulp short of 1, is a tie on the weight grid: to even


def test_second_step_divides_by_what_was_applied() -> None:
    pair = Pair(small(), [0, 0])
    pair.step([4096, 0])  # moves the first weight by -1/2
    now = pair.step([4096, 2048])  # the gradient changes by 1/2
    assert value(now["norm_motion"]) == value(now["norm_gradient"]) == Fraction(1, 2)
    assert value(now["curvature"]) == 1
    assert value(now["alpha"]) == Fraction(1, 2)
    assert now["step_size"] == 2**15
    assert now["update"] == [-(2**13), -(2**12)]


def test_previous_gradient_is_g_and_not_the_direction() -> None:
    pair = Pair(small(), [0, 0])
    now = pair.step([4096, 0], [0, 4096])
    assert now["update"] == [0, -(2**14)]
    assert pair.step([4096, 0], [4096, 4096])["A"] == 0


@pytest.mark.parametrize(("start", "ema"), [("first", 1), ("zero", Fraction(1, 4))])
def test_ema_starts_from_the_first_curvature_or_from_zero(start: str, ema: Fraction) -> None:
    pair = Pair(small(ema_start=start, rho=0.25, source="ema"), [0, 0])
    assert value(pair.step([4096, 0])["ema"]) == 0
    now = pair.step([4096, 2048])
    assert value(now["curvature"]) == 1 and value(now["ema"]) == ema
    after = pair.step([4096, 2048])  # no change of the gradient: C = 0, S decays from the second curvature on
    assert value(after["curvature"]) == 0 and value(after["ema"]) == ema * Fraction(3, 4)


def test_disabled_reports_alpha_but_does_not_apply_it() -> None:
    pair = Pair(small(enabled=False), [0, 0])
    pair.step([4096, 0])
    now = pair.step([4096, 2048])
    assert value(now["alpha"]) == Fraction(1, 2)
    assert now["step_size"] == 2**16


@pytest.mark.parametrize(("source", "x"), [("instant", Fraction(1, 2)), ("ema", Fraction(11, 16)), ("max", Fraction(11, 16))])
def test_source_when_curvature_falls(source: str, x: Fraction) -> None:
    pair = Pair(small(source=source, ema_start="first", rho=0.25, enabled=False), [0, 0])
    pair.step([4096, 0])
    pair.step([4096, 2048])  # C = S = 1; the motion is (-1/2, -1/4)
    pair.step([4096, 2048], [2048, 0])  # C = 0, S = 3/4; the motion is (-1/4, 0)
    now = pair.step([4096, 2560])  # C = (1/8) / (1/4) = 1/2
    assert value(now["curvature"]) == Fraction(1, 2) and value(now["ema"]) == Fraction(11, 16)
    assert value(now["alpha"]) == spec.Scalars(24, 10).rnd(1 / (1 + x))


# -------------------------------------------------------------------------------------------------- still steps


def into_still(on_still: str, **changes: Any) -> tuple[Pair, dict[str, Any], dict[str, Any]]:
    """Two moving steps, one that moves nothing, and the still one that follows it: the pair and the last two results."""
    pair = Pair(small(on_still=on_still, ema_start="first", source="max", eps=2.0**-10, **changes), [0, 0])
    pair.step([4096, 0])
    pair.step([4096, 2048])
    before = pair.step([4096, 2048], [0, 0])
    assert before["B"] == 0 and not before["still"]
    now = pair.step([4096, 2048 + 512])
    assert now["still"] and now["still_steps"] == 1 and now["norm_motion"] == [0, 0]
    return pair, before, now


def test_still_floor_divides_by_what_the_weight_grid_resolves() -> None:
    pair, before, now = into_still("floor")
    want = pair.oracle.scalars.div(Fraction(1, 8), pair.oracle.k["still_norm"])
    assert value(now["curvature"]) == want > 2000
    assert now["ema"] == before["ema"]


def test_still_hold_keeps_both() -> None:
    _, before, now = into_still("hold")
    assert (now["curvature"], now["ema"]) == (before["curvature"], before["ema"])
    assert value(now["norm_gradient"]) == Fraction(1, 8)


def test_still_divide_is_the_formula_as_published() -> None:
    _, before, now = into_still("divide")
    assert value(now["curvature"]) == 128  # 1/8 over eps = 2**-10
    assert value(now["ema"]) > value(before["ema"])


def test_still_divide_without_eps_overflows() -> None:
    pair = Pair(small(on_still="divide"), [0, 0])
    pair.step([4096, 0], [0, 0])
    now = pair.step([4096, 1])
    assert now["scalar_overflow"] and now["curvature"] == [2**24 - 1, 511]


def test_still_without_a_change_of_the_gradient() -> None:
    for on_still in ("floor", "hold", "divide"):
        pair = Pair(small(on_still=on_still), [0, 0])
        pair.step([4096, 0], [0, 0])
        now = pair.step([4096, 0])
        assert now["still"] and now["A"] == 0 and now["curvature"] == [0, 0] and value(now["alpha"]) == 1
        assert not now["scalar_overflow"]


def test_learning_dead_is_sticky_until_clear() -> None:
    """Three still steps in a row raise it; a moving step between starts the count anew; clear drops flag and run."""
    pair = Pair(small(dead_after=3), [0, 0])

    def still() -> dict[str, Any]:
        return pair.step([0, 0])

    def moving() -> dict[str, Any]:
        return pair.step([0, 0], [4096, 0])

    assert not still()["still"]  # the first
    assert [still()["learning_dead"] for _ in range(2)] == [False, False]
    assert moving()["learning_dead"]  # a step is still by the motion before it: this is the third in a row
    assert moving()["learning_dead"] and not moving()["still"]
    pair.clear()
    now = still()
    assert (now["still_steps"], now["learning_dead"]) == (0, False)
    assert [still()["learning_dead"] for _ in range(2)] == [False, False]
    pair.clear()
    assert [still()["learning_dead"] for _ in range(3)] == [False, False, True]
    assert still()["still_steps"] == 4


# -------------------------------------------------------------------------------------------------- counters and flags


def test_counters_accumulate_until_clear() -> None:
    pair = Pair(small(elements=4), [32767, -32768, 31130, 31129])
    gradient = [32767, -32768, 31130, 31129]
    now = pair.step(gradient, [0, 0, 0, 0])
    assert [now[name] for name in COUNTERS] == [2, 3, 0, 0, 2, 3, 0]
    now = pair.step(gradient, [0, 0, 0, 0])
    assert [now[name] for name in COUNTERS] == [4, 6, 0, 0, 4, 6, 1]
    pair.clear()
    now = pair.step([0, 0, 0, 0], [0, 0, 0, 0])
    assert [now[name] for name in COUNTERS] == [0, 0, 0, 0, 2, 3, 1]


@pytest.mark.parametrize("width", [4, 5, 6])
def test_upper_rail_of_a_narrow_gradient_counts(width: int) -> None:
    """Up to five bits 0.95 of the larger rail lies beyond the upper one."""
    pair = Pair(ThrottleConfig(elements=2, eta=0.5, gradient=f"SQ4.{width - 4}"), [0, 0])
    assert pair.step([2 ** (width - 1) - 1, 0])["gradient_saturated"] == 1


def test_counters_wrap_at_32_bits() -> None:
    """Every counter set to its last value, then one more of each: only by reaching inside, 2**32 events take too long."""
    config = small(elements=3, gradient="SQ4.12", dead_after=100)
    pair = Pair(config, [32767, 0, 0])
    gradient, direction = [32767, 0, 0], [0, 1, -32768]
    pair.step(gradient, [0, 0, 0])
    golden: Any = pair.golden
    golden._counters = dict.fromkeys(golden._counters, 2**32 - 1)
    golden._still_steps = 2**32 - 1
    pair.oracle.counts = dict.fromkeys(pair.oracle.counts, 2**32 - 1)
    now = pair.step(gradient, [0, 0, -32768])
    assert all(now[name] == 0 for name in COUNTERS if name != "update_underflow")
    assert now["update_underflow"] == 2**32 - 1
    assert pair.step(gradient, direction)["update_underflow"] == 2**32 - 1


def test_scalar_overflow_and_underflow_are_sticky_and_cleared() -> None:
    """gain * C beyond the range, and num / q below it, in one step."""
    config = small(gain=2.0**500, num=2.0**-480, bias=0)
    pair = Pair(config, [0, 0])
    assert not pair.step([4096, 0])["scalar_overflow"]
    now = pair.step([4096, 2048])
    assert (now["scalar_overflow"], now["scalar_underflow"]) == (False, True) and now["alpha"] == [0, 0]
    now = pair.step([4096, 2048])
    assert now["scalar_underflow"], "sticky"
    pair.clear()
    now = pair.step([4096, 2048])
    assert (now["scalar_overflow"], now["scalar_underflow"]) == (False, False)


def test_operations_not_executed_raise_no_flag() -> None:
    """rho * C would underflow, but the first C is taken as it is; and a still step on hold touches no average at all."""
    config = small(ema_start="first", rho=2.0**-480, on_still="hold", gradient="SQ4.12")
    pair = Pair(config, [0, 0])
    pair.step([4096, 0])
    now = pair.step([4097, 0], [0, 0])
    assert now["ema"] == now["curvature"] != [0, 0] and not now["scalar_underflow"]
    assert not pair.step([4098, 0])["scalar_underflow"]


@pytest.mark.parametrize(("num", "bias", "alpha"), [(1, 0, 1), (0, 0, 1), (0, 1, 0)])
def test_q_zero_means_one(num: int, bias: int, alpha: int) -> None:
    now = Pair(small(num=num, bias=bias), [0, 0]).step([4096, 0])
    assert value(now["alpha"]) == alpha and not now["scalar_overflow"]


# -------------------------------------------------------------------------------------------------- the interface


def test_real_values_and_codes_are_the_same() -> None:
    config = small()
    by_code, by_value = Throttle(config, [100, -100]), Throttle(config, [100 / 2**14, -100 / 2**14])
    for gradient, direction in (([5, -6], None), ([7, 8], [1, -2])):
        a = by_code.step(gradient, direction)
        b = by_value.step(np.array(gradient) / 2**12, None if direction is None else np.array(direction) / 2**12)
        assert a.registers == b.registers
        assert a.theta.tolist() == b.theta.tolist() and a.update.tolist() == b.update.tolist()
        assert (a.weights * 2**14).tolist() == a.theta.tolist()
        assert (a.update_values * 2**15).tolist() == a.update.tolist()
    assert by_code.weights.tolist() == a.weights.tolist()


def test_records_and_arguments_stay_apart() -> None:
    """A caller may reuse his arrays, and an old record does not change under later steps."""
    config = small()
    weights, gradient = np.array([1000, -1000]), np.array([4096, 8])
    unit, twin = Throttle(config, weights), Throttle(config, weights.copy())
    weights[:] = 0
    records: list[tuple[StepRecord, list[int], list[int]]] = []
    for g in ([4096, 8], [1, 2], [-3, 4]):
        gradient[:] = g
        record = unit.step(gradient)
        records.append((record, record.theta.tolist(), record.update.tolist()))
        gradient[:] = 77
        assert record.registers == twin.step(g).registers
    for record, theta, update in records:
        assert (record.theta.tolist(), record.update.tolist()) == (theta, update)
        with pytest.raises(ValueError, match="read-only"):
            record.theta[0] = 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_refused_by_name_and_index(bad: float) -> None:
    config = small(elements=3)
    with pytest.raises(ValueError, match=exactly(f"weights[1] must be finite, not {bad}")):
        Throttle(config, [0.0, bad, bad])
    unit, twin = Throttle(config, [0, 0, 0]), Throttle(config, [0, 0, 0])
    unit.step([1, 2, 3])
    twin.step([1, 2, 3])
    with pytest.raises(ValueError, match=exactly(f"gradient[2] must be finite, not {bad}")):
        unit.step([0.0, 0.0, bad])
    with pytest.raises(ValueError, match=exactly(f"direction[0] must be finite, not {bad}")):
        unit.step([4096, 4096, 0], [bad, 0.0, 0.0])
    after, same = unit.step([7, 7, 7]), twin.step([7, 7, 7])  # a refused step has left no trace
    assert after.registers == same.registers and after.step == same.step
    assert after.theta.tolist() == same.theta.tolist()


def test_wrong_shape_is_refused() -> None:
    unit = Throttle(small(elements=3), [0, 0, 0])
    for bad, shape in (([0, 0], "(2,)"), ([[0, 0, 0]], "(1, 3)"), (0, "()")):
        with pytest.raises(ValueError, match=exactly(f"gradient must have shape (3,), not {shape}")):
            unit.step(bad)
        with pytest.raises(ValueError, match=exactly(f"direction must have shape (3,), not {shape}")):
            unit.step([0, 0, 0], bad)
        with pytest.raises(ValueError, match=exactly(f"weights must have shape (3,), not {shape}")):
            Throttle(small(elements=3), bad)


def test_off_grid_is_refused() -> None:
    unit = Throttle(small(), [0, 0])
    with pytest.raises(ValueError, match=exactly("gradient[1] must lie on the grid of SQ4.12, not 0.1")):
        unit.step([0.0, 0.1])
    with pytest.raises(ValueError, match=exactly("direction[0] must be a code of SQ4.12, -32768..32767, not 32768")):
        unit.step([0, 0], [32768, 0])


# -------------------------------------------------------------------------------------------------- reductions


def random_codes(rng: np.random.Generator, bits: int, size: int) -> np.ndarray:
    return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), size)


def test_order_of_the_elements_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    size = BLOCK + 99
    config = ThrottleConfig.stability_margin(elements=size, eta=0.1)
    order = rng.permutation(size)
    theta = random_codes(rng, 16, size)
    a, b = Throttle(config, theta), Throttle(config, theta[order])
    for _ in range(4):
        gradient = random_codes(rng, rng.choice([4, 10, 16]), size)
        left, right = a.step(gradient), b.step(gradient[order])
        assert left.registers == right.registers
        assert np.array_equal(left.theta[order], right.theta)
    assert left.registers.curvature.m > 0


@pytest.mark.parametrize("lanes", [2, 3, 8, 32])
def test_lanes_do_not_matter(lanes: int) -> None:
    rng = np.random.default_rng(lanes)
    config = ThrottleConfig.stability_margin(elements=50, eta=0.1)
    theta = random_codes(rng, 16, 50)
    a, b = Throttle(config, theta), Throttle(config.replace(lanes=lanes), theta)
    for _ in range(3):
        gradient = random_codes(rng, 12, 50)
        left, right = a.step(gradient), b.step(gradient)
        assert left.registers == right.registers and np.array_equal(left.theta, right.theta)


@pytest.mark.parametrize("shards", [1, 2, 5, 40])
@pytest.mark.parametrize("bits", [16, 32])
def test_shards_equal_one_unit(shards: int, bits: int) -> None:
    """K units exchange A and B and decide alike; each then applies its own slice."""
    rng = np.random.default_rng(shards)
    size = 500
    config = ThrottleConfig.inverse_curvature(
        elements=size, eta=0.1, gradient=f"SQ4.{bits - 4}", weight=f"SQ2.{bits - 2}", update=f"SQ1.{bits - 1}"
    )
    theta = random_codes(rng, bits, size)
    whole = Throttle(config, theta)
    cuts = np.sort(rng.integers(0, size, shards - 1))
    slices = [piece for piece in np.split(np.arange(size), cuts) if piece.size]
    units = [Decide(config) for _ in slices]
    previous, motion = np.zeros(size, np.int64), 0
    for step in range(5):
        gradient = np.zeros(size, np.int64) if step == 2 else random_codes(rng, int(rng.choice([bits // 2, bits])), size)
        record = whole.step(gradient)
        change = sum(sum_of_squares(gradient[piece], previous[piece]) for piece in slices)
        decisions = [unit.decide(change, motion) for unit in units]
        assert set(decisions) == {decisions[0]}
        assert all(getattr(record.registers, name) == found for name, found in decisions[0]._asdict().items())
        motion = 0
        for piece in slices:
            theta[piece], _, tally = apply_update(gradient[piece], theta[piece], decisions[0].step_size, config)
            motion += tally.motion_energy
        assert (change, motion) == (record.registers.A, record.registers.B)
        assert np.array_equal(record.theta, theta)
        previous = gradient


def test_more_than_a_block_against_the_oracle() -> None:
    """Over a block boundary, with 32-bit rails that no int64 sum would hold."""
    rng = np.random.default_rng(11)
    size = BLOCK + 3
    config = ThrottleConfig.stability_margin(elements=size, eta=0.3, gradient="SQ4.28", weight="SQ2.30", update="SQ1.31")
    pair = Pair(config, random_codes(rng, 32, size).tolist())
    now = pair.step(rng.choice([-(2**31), 2**31 - 1], size).tolist())
    assert now["A"] > 2**62 * (size - 1) and now["B"] > 2**63
    assert now["gradient_saturated"] == size
