"""The training loop, its metrics and the float reference unit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network import layers
from kappa_rtl.golden.network.data import Drift
from kappa_rtl.golden.network.losses import loss_of
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.registers import COUNTER_BITS, Registers
from kappa_rtl.golden.rounding import values
from kappa_rtl.golden.throttle import StepRecord, Throttle
from kappa_rtl.golden.training import METRICS, GainRamp, Problem, Run, StepRow, digits, synthetic
from kappa_rtl.golden.training.distortion import distortion
from kappa_rtl.golden.training.linear import counts, fractions, lambda_max
from kappa_rtl.golden.training.model import LinearBlockModel


def gradient(inputs: np.ndarray, targets: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(outputs, gradient)`` of the half-MSE of one bias-free layer, by the layers of the harness."""
    model = LinearBlockModel(Problem("made", inputs, targets), num_hidden=[], use_bias=False, dtype=np.float64)
    model.theta = kernel.ravel()
    outputs, caches = layers.forward(model.layers, inputs, training=True)
    (parts,) = layers.backward(model.layers, caches, loss_of("half_mse").gradient(outputs, targets))
    return outputs, parts["kernel"]


def config(problem: Problem, **changes: object) -> ThrottleConfig:
    defaults: dict[str, object] = {"eta": 0.1, "chi": 1.5}
    return ThrottleConfig.stability_margin(elements=problem.elements, **(defaults | changes))  # type: ignore[arg-type]


def zeros(problem: Problem) -> np.ndarray:
    return np.zeros(problem.elements)


@pytest.fixture(scope="module")
def data() -> Problem:
    return digits()


# ---------------------------------------------------------------- problems


def test_digits(data: Problem) -> None:
    assert data.inputs.shape == (1797, 64)
    assert data.elements == 640
    assert data.inputs.min() == 0
    assert data.inputs.max() == 1
    assert data.labels is not None
    assert (data.targets.argmax(axis=1) == data.labels).all()
    assert (data.targets.sum(axis=1) == 1).all()


def test_synthetic_is_a_linear_teacher_and_reproducible() -> None:
    problem = synthetic(3)
    kernel = np.array([[1.25, -0.4], [-0.75, 0.9], [0.5, 1.1], [0.2, -0.6]])
    np.testing.assert_allclose(problem.targets, problem.inputs @ kernel, rtol=0, atol=1e-15)
    assert problem.inputs.shape == (1000, 4)
    assert problem.labels is None
    assert (problem.inputs == synthetic(3).inputs).all()
    assert (problem.inputs != synthetic(4).inputs).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": np.zeros((4, 2))}, "targets must have a row for each of the 3 inputs, not 4"),
        ({"inputs": np.zeros(3)}, r"inputs must be a matrix with a row a sample, not of shape \(3,\)"),
        ({"inputs": np.full((3, 2), np.nan)}, "inputs must be finite"),
        ({"labels": np.zeros(2, np.int64)}, r"labels must have shape \(3,\), not \(2,\)"),
    ],
)
def test_problem_errors(change: dict[str, np.ndarray], message: str) -> None:
    parts = {"inputs": np.zeros((3, 2)), "targets": np.zeros((3, 2))} | change
    with pytest.raises(ValueError, match=message):
        Problem("wrong", **parts)


# ---------------------------------------------------------------- gradient and metrics


def test_gradient_against_finite_differences() -> None:
    rng = np.random.default_rng(1)
    x, y, w = rng.normal(size=(7, 5)), rng.normal(size=(7, 3)), rng.normal(size=(5, 3))

    def loss(kernel: np.ndarray) -> float:
        return float(np.sum((x @ kernel - y) ** 2) / (2 * len(x)))

    outputs, slope = gradient(x, y, w)
    np.testing.assert_array_equal(outputs, x @ w)
    h = 1e-5
    for index in np.ndindex(w.shape):
        nudge = np.zeros_like(w)
        nudge[index] = h
        assert slope[index] == pytest.approx((loss(w + nudge) - loss(w - nudge)) / (2 * h), rel=1e-8, abs=1e-9)


def test_lambda_max_is_the_hessians() -> None:
    rng = np.random.default_rng(2)
    x, y, w = rng.normal(size=(9, 4)), rng.normal(size=(9, 2)), rng.normal(size=(4, 2))
    # The Hessian column by column: the loss is quadratic, so differences of gradients are exact but for rounding.
    base = gradient(x, y, w)[1]
    columns = []
    for index in np.ndindex(w.shape):
        nudge = np.zeros_like(w)
        nudge[index] = 1
        columns.append((gradient(x, y, w + nudge)[1] - base).ravel())
    assert lambda_max(x) == pytest.approx(np.linalg.eigvalsh(np.array(columns))[-1], rel=1e-12)


@pytest.mark.parametrize("degrees", [0, 1e-6, 1, 45, 90, 179, 180])
@pytest.mark.parametrize("length", [0.5, 3])
def test_distortion_finds_angle_and_length(degrees: float, length: float) -> None:
    angle = math.radians(degrees)
    found = distortion(length * np.array([math.cos(angle), math.sin(angle), 0]), np.array([1.0, 0, 0]))
    assert found.angle == pytest.approx(angle, rel=1e-9, abs=1e-15)
    assert found.cosine == pytest.approx(math.cos(angle), abs=1e-15)
    assert found.radius_ratio == pytest.approx(length, rel=1e-15)


def test_distortion_without_a_direction() -> None:
    nothing, something = np.zeros(2), np.ones(2)
    assert distortion(nothing, something) == (math.pi / 2, 0, 0)
    assert distortion(nothing, nothing) == (math.pi / 2, 0, 1)
    assert distortion(something, nothing) == (math.pi / 2, 0, math.inf)


def registers(**counters: int) -> Registers:
    return Registers(A=0, B=0, norm_gradient=0, norm_motion=0, curvature=0, ema=0, alpha=1, step_size=0, still=False, **counters)  # type: ignore[arg-type]


def test_fractions_are_differences_modulo_the_counter() -> None:
    before = registers(gradient_saturated=2**COUNTER_BITS - 3, update_underflow=10)
    now = registers(gradient_saturated=2, update_underflow=30)
    found = fractions(counts(now), counts(before), 40)
    assert found["gradient_saturated"] == 5 / 40
    assert found["update_underflow"] == 20 / 40
    assert found["weight_saturated"] == 0
    assert fractions(counts(now), counts(None), 40)["update_underflow"] == 30 / 40


def test_ramp() -> None:
    ramp = GainRamp()
    assert [ramp(step) for step in (0, 50, 125, 200, 299)] == [1, 1, 2.5, 4, 4]
    assert ramp(51) == pytest.approx(1.02)
    with pytest.raises(ValueError, match="last must be greater than first = 50, not 50"):
        GainRamp(last=50)


# ---------------------------------------------------------------- the loop


def first(rows: Iterator[StepRow], count: int) -> list[StepRow]:
    return list(islice(rows, count))


@pytest.mark.parametrize("labelled", [True, False])
def test_rows_hold_what_metrics_lists(data: Problem, labelled: bool) -> None:
    problem = data if labelled else synthetic()
    for unit in (FloatThrottle(config(problem), zeros(problem)), Throttle(config(problem), zeros(problem))):
        for row in first(Run(problem, unit, steps=3, gain=GainRamp(first=0, last=2)), 3):
            assert set(row.metrics) == set(METRICS) - {"accuracy_held_out", "loss_held_out"} - (
                set() if labelled else {"accuracy"}
            )
            assert all(type(value) is float for value in row.metrics.values())


def test_metrics_by_their_definitions(data: Problem) -> None:
    """A row recomputed from nothing but the record and the data."""
    cfg = config(data, weight="SQ2.6", gradient="SQ2.10", update="SQ1.9")
    unit = Throttle(cfg, zeros(data))
    ramp = GainRamp(first=0, last=10)
    theta = zeros(data)
    for row in first(Run(data, unit, steps=6, gain=ramp, input_format=Fixed.parse("SQ4.4")), 6):
        gain = 1 + 3 * row.step / 10
        x = data.inputs * gain
        seen = np.round(x * 16) / 16
        outputs = seen @ theta.reshape(64, 10)
        metrics, answer = row.metrics, row.record.registers
        assert metrics["loss"] == pytest.approx(np.sum((outputs - data.targets) ** 2) / 2 / 1797, rel=1e-12)
        assert metrics["accuracy"] == np.mean(outputs.argmax(axis=1) == data.labels)
        assert metrics["gain"] == gain
        assert metrics["eta_lambda_max"] == pytest.approx(0.1 * np.linalg.norm(x, 2) ** 2 / 1797, rel=1e-10)
        assert metrics["alpha_eta_lambda_max"] == metrics["alpha"] * metrics["eta_lambda_max"]
        handed = seen.T @ (outputs - data.targets) / 1797
        np.testing.assert_allclose(values(row.gradient, cfg.grids.gradient), handed.ravel(), rtol=0, atol=2**-11 + 1e-12)
        # The yardstick sees the inputs as they are, not as they are quantised.
        ideal = -metrics["alpha"] * 0.1 * (x.T @ (x @ theta.reshape(64, 10) - data.targets) / 1797).ravel()
        moved = row.record.weights - theta
        norms = np.linalg.norm(moved) * np.linalg.norm(ideal)
        assert metrics["cosine"] == pytest.approx(moved @ ideal / norms if norms else 0, rel=1e-9)
        assert metrics["angle"] == pytest.approx(math.acos(metrics["cosine"]))
        assert metrics["radius_ratio"] == pytest.approx(np.linalg.norm(moved) / np.linalg.norm(ideal), rel=1e-9)
        assert metrics["step_size"] == answer.step_size * float(cfg.step.ulp)
        assert metrics["curvature"] == float(answer.curvature)
        assert metrics["norm_motion"] == float(answer.norm_motion)
        assert metrics["still"] == answer.still
        low, high = cfg.grids.weight.rails
        assert metrics["weight_saturated"] == np.mean((row.record.theta == low) | (row.record.theta == high))
        theta = row.record.weights
    assert row.metrics["update_underflow"] > 0


def test_unthrottled_margin_is_the_full_steps(data: Problem) -> None:
    unit = FloatThrottle(config(data, enabled=False, chi=0.001), zeros(data))
    row = first(Run(data, unit, steps=3), 3)[-1]
    assert row.metrics["alpha"] < 1
    assert row.metrics["alpha_applied"] == 1
    assert row.metrics["alpha_eta_lambda_max"] == row.metrics["eta_lambda_max"]
    assert row.metrics["step_size"] == 0.1


def test_float_unit_gets_floats_and_is_not_distorted(data: Problem) -> None:
    for row in Run(data, FloatThrottle(config(data), zeros(data)), steps=5):
        assert row.gradient.dtype == np.float64
        assert row.metrics["angle"] < 1e-12
        assert row.metrics["radius_ratio"] == pytest.approx(1, abs=1e-12)
        assert row.metrics["update_underflow"] == 0


def test_units_fed_alike_get_the_same_gradients(data: Problem) -> None:
    """Two runs side by side, as golden and RTL are."""
    runs = [Run(data, Throttle(config(data), zeros(data)), steps=40, batch=100, seed=5) for _ in range(2)]
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one.gradient, other.gradient)
        assert one.record.registers == other.record.registers


EIGHT = {"weight": "SQ2.6", "gradient": "SQ2.10", "update": "SQ1.9"}


def sha(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(np.array(arrays, np.int64).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("formats", "batch", "grid", "gradients", "weights"),
    [
        ({}, None, None, "85598f0081f0ecaa", "d9f321a77760280d"),
        ({}, None, "SQ4.12", "b8a754fb85d37147", "ee11b231ba4dcc88"),
        ({}, 32, None, "e655f5f7dc47e27f", "905ea137aa43915f"),
        (EIGHT | {"on_still": "floor"}, None, None, "93dd5aec926a594d", "df33a3a260195635"),
        (EIGHT | {"on_still": "floor"}, 32, "SQ4.12", "7464198d65e126a8", "80a83218ce82f88b"),
    ],
)
def test_the_golden_bits_are_those_recorded(
    data: Problem, formats: dict[str, str], batch: int | None, grid: str | None, gradients: str, weights: str
) -> None:
    """60 steps of gradients and weights, as the loop gave them when it was one of its own."""
    unit = Throttle(config(data, **formats), zeros(data))
    seen = None if grid is None else Fixed.parse(grid)
    rows = list(Run(data, unit, steps=60, gain=GainRamp(1, 4, 10, 40), input_format=seen, batch=batch, seed=3))
    assert sha([row.gradient for row in rows]) == gradients
    assert sha([row.record.theta for row in rows]) == weights


def test_seed_decides_the_batches(data: Problem) -> None:
    def losses(seed: int) -> list[float]:
        unit = Throttle(config(data), zeros(data))
        return [row.metrics["loss"] for row in Run(data, unit, steps=8, batch=64, seed=seed)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_minibatch_curvature_is_its_own(data: Problem) -> None:
    rows = first(Run(data, Throttle(config(data), zeros(data)), steps=2, batch=32, seed=0), 2)
    drawn = np.random.default_rng(0).integers(1797, size=32)
    assert rows[0].metrics["eta_lambda_max"] == pytest.approx(0.1 * np.linalg.norm(data.inputs[drawn], 2) ** 2 / 32)
    assert rows[0].metrics["eta_lambda_max"] != rows[1].metrics["eta_lambda_max"]


def test_one_step_at_a_time(data: Problem) -> None:
    calls = []

    class Watched(Throttle):
        def step(self, *args: object, **more: object) -> StepRecord:
            calls.append(1)
            return super().step(*args, **more)  # type: ignore[arg-type]

    run = Run(data, Watched(config(data), zeros(data)), steps=10)
    assert not calls
    next(run)
    assert len(calls) == 1


def test_loop_errors(data: Problem) -> None:
    with pytest.raises(ValueError, match="elements must be 8 for the problem synthetic, not 640"):
        Run(synthetic(), Throttle(config(data), zeros(data)), steps=1)
    with pytest.raises(ValueError, match="batch must be at least 1, not 0"):
        Run(data, Throttle(config(data), zeros(data)), steps=1, batch=0)


def test_gradient_that_is_not_finite_names_its_step() -> None:
    problem = synthetic()
    run = Run(problem, Throttle(config(problem), np.full(8, 0.5)), steps=3, gain=GainRamp(1, 1e200, first=0, last=1))
    next(run)
    with pytest.raises(FloatingPointError, match=r"step 1: the gradient is not finite \(loss inf\)"):
        next(run)


def test_diverged_row_is_the_last() -> None:
    problem = synthetic()
    unit = FloatThrottle(config(problem), np.full(8, 0.5))
    rows = list(Run(problem, unit, steps=9, gain=GainRamp(1, 1e200, first=0, last=1)))
    assert [row.diverged for row in rows] == [False, True]
    assert not math.isfinite(rows[-1].metrics["loss"])


# ---------------------------------------------------------------- the result that the project stands on


def outcome(data: Problem, unit: FloatThrottle | Throttle, batch: int | None = None) -> tuple[float, int, int | None]:
    """(mean accuracy of the last 20 steps, still steps, the step at which it diverged)."""
    rows = list(Run(data, unit, steps=300, gain=GainRamp(), batch=batch))
    accuracy = float(np.mean([row.metrics["accuracy"] for row in rows[-20:]]))
    return round(accuracy, 3), rows[-1].record.registers.still_steps, rows[-1].step if rows[-1].diverged else None


def test_float_diverges_without_the_throttle_and_not_with_it(data: Problem) -> None:
    assert outcome(data, FloatThrottle(config(data, enabled=False), zeros(data)))[2] == 111
    assert outcome(data, FloatThrottle(config(data), zeros(data))) == (0.947, 0, None)


def test_sixteen_bits_keep_up_with_float(data: Problem) -> None:
    assert outcome(data, Throttle(config(data), zeros(data))) == (0.946, 0, None)


@pytest.mark.parametrize(
    ("on_still", "full", "still", "batches"),
    [("divide", 0.432, 297, 0.336), ("hold", 0.824, 250, 0.451), ("floor", 0.818, 242, 0.517), ("release", 0.873, 182, 0.517)],
)
def test_eight_bits_by_on_still(data: Problem, on_still: str, full: float, still: int, batches: float) -> None:
    narrow = EIGHT | {"on_still": on_still}
    assert outcome(data, Throttle(config(data, **narrow), zeros(data))) == (full, still, None)
    assert outcome(data, Throttle(config(data, chi=1.9, **narrow), zeros(data)), batch=256)[0] == batches


# ---------------------------------------------------------------- the float unit


def law(**changes: object) -> ThrottleConfig:
    defaults: dict[str, object] = {
        "elements": 4,
        "eta": 0.5,
        "num": 2,
        "bias": 1,
        "gain": 3,
        "alpha_min": 0.01,
        "rho": 0.25,
        "eps": 0.5,
    }
    return ThrottleConfig(**(defaults | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["instant", "ema", "max"])
@pytest.mark.parametrize("ema_start", ["zero", "first"])
def test_float_unit_by_hand(source: str, ema_start: str) -> None:
    rng = np.random.default_rng(7)
    unit = FloatThrottle(law(source=source, ema_start=ema_start), np.ones(4))
    theta, previous, motion, c, s = np.ones(4), np.zeros(4), 0.0, 0.0, 0.0
    for step in range(6):
        g = rng.normal(size=4)
        ng = np.linalg.norm(g - previous)
        if step:
            c = float(ng) / (motion + 0.5)
            s = c if step == 1 and ema_start == "first" else 0.75 * s + 0.25 * c
        alpha = min(1, max(0.01, 2 / (1 + 3 * {"instant": c, "ema": s, "max": max(c, s)}[source])))
        record = unit.step(g)
        answer = record.registers
        assert answer.norm_motion == pytest.approx(motion)
        assert [answer.norm_gradient, answer.curvature, answer.ema, answer.alpha] == pytest.approx([ng, c, s, alpha])
        np.testing.assert_allclose(record.update, -alpha * 0.5 * g, rtol=1e-14)
        moved = theta - alpha * 0.5 * g
        motion = float(np.linalg.norm(moved - theta))
        theta, previous = moved, g
        np.testing.assert_allclose(unit.weights, theta, rtol=1e-14)
        assert record.step == step


def test_float_unit_direction() -> None:
    unit = FloatThrottle(law(), np.zeros(4))
    record = unit.step(np.ones(4), direction=np.array([0.0, 1, 2, 3]))
    np.testing.assert_array_equal(record.update, [0, -0.5, -1, -1.5])
    assert record.registers.norm_gradient == 2


@pytest.mark.parametrize("on_still", ["divide", "hold", "floor", "release"])
def test_float_unit_after_no_motion(on_still: str) -> None:
    unit = FloatThrottle(law(on_still=on_still, weight="SQ2.6"), np.zeros(4))
    unit.step(np.ones(4))
    before = unit.step(np.zeros(4)).registers  # moves nothing
    after = unit.step(np.ones(4)).registers
    assert not before.still
    assert after.still
    assert after.still_steps == 1
    if on_still == "hold":
        assert (after.curvature, after.ema) == (before.curvature, before.ema)
    elif on_still in ("floor", "release"):
        assert after.curvature == 2 / (2**-7 * 2)
        assert after.ema == (before.ema if on_still == "floor" else 0.75 * before.ema)
    else:
        assert after.curvature == 2 / 0.5
        assert after.ema == pytest.approx(0.75 * before.ema + 0.25 * 4)
    assert after.still_steps == 1
    unit.clear()
    assert unit.step(np.zeros(4)).registers.still_steps == 0


def test_float_unit_at_zero_denominators() -> None:
    """x / 0 is the largest value, 0 / 0 is 0 and a law without a denominator gives 1."""
    unit = FloatThrottle(law(eps=0, bias=0, alpha_min=0, on_still="divide"), np.zeros(4))
    assert unit.step(np.zeros(4)).registers.alpha == 1
    still = unit.step(np.zeros(4)).registers
    assert (still.curvature, still.alpha) == (0, 1)
    jump = unit.step(np.ones(4)).registers
    assert math.isfinite(jump.curvature)
    assert jump.curvature > 1e308
    assert jump.alpha == 0


def test_float_unit_learning_dead() -> None:
    unit = FloatThrottle(law(dead_after=3), np.zeros(4))
    assert [unit.step(np.zeros(4)).registers.learning_dead for _ in range(5)] == [False, False, False, True, True]


def test_float_unit_is_what_wide_formats_tend_to() -> None:
    """chi is small, so that alpha works from the first step on and no direction is unstable: there errors would grow."""
    problem = synthetic()
    wide = {"gradient": "SQ4.28", "weight": "SQ3.29", "update": "SQ2.30", "step_bits": 24, "mantissa_bits": 40}
    cfg = config(problem, eta=0.5, chi=0.2, **wide)
    both = [
        Run(problem, unit(cfg, zeros(problem)), steps=30, gain=GainRamp(first=5, last=50)) for unit in (FloatThrottle, Throttle)
    ]
    for plain, exact in zip(*both, strict=True):
        np.testing.assert_allclose(exact.record.weights, plain.record.weights, rtol=0, atol=2e-6)
        assert exact.metrics["alpha"] == pytest.approx(plain.metrics["alpha"], rel=1e-4)
    assert plain.metrics["alpha"] < 0.2


def test_float_unit_leaves_its_arguments_alone() -> None:
    weights, g = np.zeros(4), np.ones(4)
    unit = FloatThrottle(law(), weights)
    record = unit.step(g)
    g[:] = 9
    weights[:] = 9
    np.testing.assert_array_equal(unit.weights, -0.5)
    assert unit.step(np.ones(4)).registers.norm_gradient == 0
    with pytest.raises(ValueError, match="read-only"):
        record.theta[0] = 1
    with pytest.raises(ValueError, match=r"gradient must have shape \(4,\), not \(3,\)"):
        unit.step(np.ones(3))


@pytest.mark.parametrize(
    ("drift", "message"),
    [
        ({"shape": "jump"}, "shape must be one of none, step, ramp, sine, not 'jump'"),
        ({"factor": 0.0}, "factor must be finite and greater than 0, not 0.0"),
        ({"factor": math.inf}, "factor must be finite and greater than 0, not inf"),
        ({"begin": -1}, "begin must be an integer of at least 0, not -1"),
        ({"length": 0}, "length must be an integer of at least 1, not 0"),
    ],
)
def test_what_is_no_drift(drift: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Drift(**drift)
