"""The instrumented loop: what a history holds, every unit, every optimiser and estimator, the distortion budget."""

from __future__ import annotations

import itertools
import json
import math
import warnings
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.data import batches
from kappa_rtl.golden.network.optimisers import OPTIMISERS
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.curvatures import NAMES
from kappa_rtl.golden.training.distortion import CAUSES
from kappa_rtl.golden.training.estimators import ESTIMATORS
from kappa_rtl.golden.training.history import EXTRAS, PUBLISHED
from kappa_rtl.golden.training.instrumented import Step, TrainingWarning, TrainState
from support.training import equal, problem_model, unit_for

# ---------------------------------------------------------------- the history


@pytest.mark.parametrize("unit", ["published", "float", "golden"])
@pytest.mark.parametrize("hidden", [(), (3,)])
def test_all_published_metrics_are_there(unit: str, hidden: tuple[int, ...]) -> None:
    problem, model = problem_model(*hidden, activation="relu" if hidden else None)
    throttle = None if unit == "published" else unit_for(model, unit)
    history = model.train_instrumented(problem.X, problem.Y, 3, 64, throttle=throttle, reference_A=np.ones((2, 4)))
    assert len(PUBLISHED) == 37
    assert set(PUBLISHED) | set(EXTRAS) <= set(history)
    for name in history:
        assert history[name].shape == (3,) and history[name].dtype == np.float64, name
        nan = hidden and name.startswith(("hessian", "stability", "spectral", "weight_error", "autodiff"))
        nan = nan or name in NAMES or name == "curvature_true"  # of the step before, which the first one has not
        nan = nan or name == "autodiff_lambda_max" or (name == "step_bits_left" and unit != "golden")
        assert np.isfinite(history[name]).all() != bool(nan), name
    assert set(history.layers) == {layer.name for layer in model.layers if layer.params}
    assert json.dumps(history.meta, allow_nan=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_formats_are_no_precision(dtype: Any) -> None:
    """precision_dict None, empty, and all of None: bit for bit."""
    form = {"activation": "relu", "use_batchnorm": True, "use_bias": True, "dtype": dtype}
    fields = dict.fromkeys(("weight", "bias", "activation", "accumulator", "gradient", "update", "value"))
    histories, thetas = [], []
    for precision in (None, {}, {"__default__": fields}, {"__default__": {"update": "Q4.4"}, **dict.fromkeys(
        ("dense0", "batchnorm0", "dense1", "activation0"), fields
    )}):  # fmt: skip
        problem, model = problem_model(6, **form)
        histories.append(
            model.train_instrumented(
                problem.X, problem.Y, 5, 16, learning_rate=0.4, use_controller=True, precision_dict=precision, hessian="exact"
            )
        )
        thetas.append(model.theta)
    assert all(np.array_equal(theta, thetas[0]) for theta in thetas)
    assert all(equal(history, histories[0]) for history in histories)


def test_the_model_has_the_last_weights() -> None:
    for kind in ("published", "float", "golden"):
        problem, model = problem_model(3, activation="relu")
        steps: list[Step] = []
        held = []

        def watch(step: Step, steps: list[Step] = steps, held: list[Any] = held, model: Any = model) -> None:
            steps.append(step)
            held.append(np.array_equal(model.theta, step.theta_after))

        throttle = None if kind == "published" else unit_for(model, kind)
        model.train_instrumented(problem.X, problem.Y, 4, 64, learning_rate=0.2, throttle=throttle, observe=watch)
        assert np.array_equal(model.theta, steps[-1].theta_after) and all(held)
        assert not np.array_equal(model.theta, steps[-1].theta)
        for a, b in itertools.pairwise(steps):
            assert np.array_equal(a.theta_after, b.theta)


def test_full_batches_and_shuffles() -> None:
    problem, model = problem_model(samples=50)
    rows: list[int] = []
    history = model.train_instrumented(
        problem.X, problem.Y, 3, 16, shuffle=False, observe=lambda step: rows.append(step.step), use_controller=False
    )
    assert history.steps == 12 and rows == list(range(12))
    kernel = problem_model(samples=50)[1].theta.reshape(4, 2)
    for taken in batches(50, 3, 16, shuffle=False, seed=0):
        kernel = kernel - 0.05 * problem.X[taken].T @ (problem.X[taken] @ kernel - problem.Y[taken]) / len(taken)
    np.testing.assert_allclose(model.theta, kernel.ravel(), rtol=1e-12)


def test_arguments_of_other_types() -> None:
    """Lists, integers and float32 numbers in place of float64: the law's scalars stay float64."""
    problem, model = problem_model()
    plain = model.train_instrumented(problem.X, problem.Y, 6, 64, learning_rate=0.5, chi=0.25, use_controller=True)
    other = problem_model()[1]
    again = other.train_instrumented(
        problem.X.tolist(), problem.Y.tolist(), np.int64(6), np.int32(64),
        learning_rate=np.float32(0.5), chi=np.float32(0.25), use_controller=np.bool_(True),
    )  # fmt: skip
    assert equal(plain, again)


def test_what_an_observer_writes_changes_nothing() -> None:
    problem, model = problem_model()

    def spoil(step: Step) -> None:
        step.gradient[:] = 0

    spoiled = model.train_instrumented(problem.X, problem.Y, 6, 64, learning_rate=1.0, use_controller=True, observe=spoil)
    clean = problem_model()[1].train_instrumented(problem.X, problem.Y, 6, 64, learning_rate=1.0, use_controller=True)
    assert equal(spoiled, clean)


def test_overflow_in_float64() -> None:
    """No eigenvalues and no angle where squares overflow, and no exception either."""
    problem, model = problem_model()
    history = model.train_instrumented(1e200 * problem.X, problem.Y, 3, 64)
    assert history.steps == 1 and history.diverged_at == 0
    for name in ("hessian_lambda_max", "stability_margin_lambda_raw", "update_cosine", "update_angle_rad"):
        assert math.isnan(history[name][0])
    problem, model = problem_model()
    history = model.train_instrumented(5 * problem.X, problem.Y, 500, 64, learning_rate=0.5)
    assert history.diverged_at == history.steps - 1 < 200
    problem, model = problem_model()
    longer = model.train_instrumented(5 * problem.X, problem.Y, 300, 64, learning_rate=0.5, stop_when_diverged=False)
    assert longer.steps == 300 and longer.diverged_at == history.diverged_at
    problem, model = problem_model()
    shorter = model.train_instrumented(5 * problem.X, problem.Y, 300, 64, learning_rate=0.5, divergence_loss=1e6)
    assert shorter.steps < history.steps and shorter["loss"][-1] > 1e6 >= shorter["loss"][:-1].max()


def test_unit_that_cannot_take_a_gradient() -> None:
    """A gradient that is not a number has no code: the run ends with a row without a step."""
    problem, model = problem_model(dtype=np.float32)
    model.set_weights({"dense0/kernel": np.ones((4, 2))})
    x = np.full((4, 4), 3e38, np.float32)
    x[:, 0] = 0  # times infinite outputs
    steps: list[Step] = []
    history = model.train_instrumented(
        problem.X, problem.Y, stream=[(problem.X, problem.Y), (x, np.zeros((4, 2)))] * 2,
        throttle=unit_for(model), observe=steps.append,
    )  # fmt: skip
    assert history.steps == 2 and history.diverged_at == 1 and steps[-1].record is None
    assert np.isnan(history["alpha"][-1]) and history["grad_is_finite"][-1] == 0 == history["actual_update_norm"][-1]
    assert np.array_equal(steps[-1].theta, steps[-1].theta_after)


# ---------------------------------------------------------------- units


def test_the_golden_unit_in_a_network() -> None:
    """Two layers with biases: every step is the one of a unit fed by hand, from weights to gradient to weights."""
    problem, model = problem_model(5, activation="relu", use_bias=True)
    begun = model.theta
    config = unit_for(model).config
    x, y = problem.X, problem.Y
    unit = Throttle(config, quantise(begun, config.grids.weight), codes=True)
    steps: list[Step] = []
    history = model.train_instrumented(
        x,
        y,
        25,
        64,
        throttle=Throttle(config, quantise(begun, config.grids.weight), codes=True),
        observe=steps.append,
        learning_rate=99.0,
    )
    for t in range(25):
        w0, b0, w1, b1 = np.split(unit.weights, np.cumsum([20, 5, 10]))
        w0, w1 = w0.reshape(4, 5), w1.reshape(5, 2)
        np.testing.assert_array_equal(steps[t].theta, unit.weights)
        z = x @ w0 + b0
        a = np.maximum(z, 0)
        error = (a @ w1 + b1 - y) / 64
        dz = error @ w1.T * (z > 0)
        g = np.concatenate([(x.T @ dz).ravel(), dz.sum(0), (a.T @ error).ravel(), error.sum(0)])
        record = unit.step(quantise(g, config.grids.gradient), codes=True)
        np.testing.assert_array_equal(steps[t].theta_after, unit.weights)
        assert steps[t].record is not None and steps[t].record.registers == record.registers
        assert history["curvature_proxy"][t] == float(record.registers.curvature)
        assert history["alpha_would"][t] == float(record.registers.alpha)
    assert history.meta["eta"] == 0.2 and history.meta["unit"] == "Throttle"


def test_the_float_unit_is_the_published_one() -> None:
    """The same law in float64: the same run up to roundoff, on a network with minibatches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        problem, model = problem_model(5, activation="tanh", use_bias=True)
        unit = unit_for(model, "float", eta="0.5", chi="1.5")
        a = model.train_instrumented(problem.X, problem.Y, 10, 16, throttle=unit)
        problem, model = problem_model(5, activation="tanh", use_bias=True)
        b = model.train_instrumented(problem.X, problem.Y, 10, 16, learning_rate=0.5, chi=1.5, use_controller=True)
    for name in ("loss", "alpha", "curvature_proxy", "curvature_ema", "actual_update_norm", "theta_norm_after", "noise_index"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-8, err_msg=name)


@pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.instrumented.TrainingWarning")
def test_a_network_on_grids_with_the_golden_unit() -> None:
    """Layers' precision and the unit's at once: all weights on the unit's grid, gradients on both."""
    problem, model = problem_model(5, activation="relu", use_bias=True, use_batchnorm=True)
    steps: list[Step] = []
    model.train_instrumented(
        problem.X, problem.Y, 10, 16, throttle=unit_for(model), observe=steps.append,
        precision_dict={"__default__": {"activation": "Q4.8", "gradient": "Q4.6"}},
    )  # fmt: skip
    for step in steps:
        assert np.array_equal(np.rint(step.theta * 2**12), step.theta * 2**12)
        assert np.array_equal(np.rint(step.gradient * 2**6), step.gradient * 2**6)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("unit", ["published", "golden"])
def test_optimisers(optimiser: str, unit: str) -> None:
    """They learn; the intended update is the proposal times alpha eta; the applied one is what it became."""
    problem, model = problem_model(6, activation="tanh", use_bias=True)
    eta = 0.01 if optimiser == "adam" else 0.05
    throttle = unit_for(model, eta=str(eta), weight="SQ4.16", update="SQ2.18") if unit == "golden" else None
    steps: list[Step] = []
    history = model.train_instrumented(
        problem.X, problem.Y, 60, 64, learning_rate=eta, use_controller=True, throttle=throttle, optimiser=optimiser,
        observe=steps.append,
    )  # fmt: skip
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history.meta["optimiser"] == OPTIMISERS[optimiser].__name__
    by_rule = OPTIMISERS[optimiser]()
    for step, row in zip(steps, range(60), strict=True):
        direction = by_rule.propose(step.gradient)
        if unit == "golden":
            direction = quantise(direction, throttle.config.grids.gradient) / 2.0**12
        rate, size = history["eta_eff"][row], np.linalg.norm(direction)
        # The intended update is that of the gradients before their grid, an ulp of a few thousand away.
        assert history["raw_update_norm"][row] == pytest.approx(rate * size, rel=1e-12 if unit == "published" else 0.02)
        assert history["unthrottled_update_norm"][row] == pytest.approx(eta * size, rel=1e-12)
        bounds = {"rtol": 1e-12, "atol": 1e-14} if unit == "published" else {"rtol": 2e-3, "atol": 2e-5}
        np.testing.assert_allclose(step.theta_after - step.theta, -rate * direction, **bounds)
    assert history["update_cosine"].min() > 0.99


def test_optimiser_state_on_its_grid() -> None:
    problem, model = problem_model(3, use_bias=True)
    state = TrainState()
    precision = {"dense0": {"momentum": "Q4.3"}, "__default__": {"momentum": "Q4.6"}, "dense1": {"momentum": None}}
    model.train_instrumented(problem.X, problem.Y, 5, 64, optimiser="momentum", precision_dict=precision, state=state)
    assert state.optimiser is not None
    v = state.optimiser.state["momentum"]
    assert np.array_equal(np.rint(v[:15] * 8), v[:15] * 8) and not np.array_equal(np.rint(v[15:] * 64), v[15:] * 64)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("unit", ["published", "float", "golden"])
@pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.instrumented.TrainingWarning")
def test_estimators(estimator: str, unit: str) -> None:
    """Full batches: same_batch measures what naive does. Batch statistics move once a step, whatever the passes."""
    curvatures = []
    for name in ("naive", estimator):
        problem, model = problem_model(4, activation="tanh", use_bias=True, use_batchnorm=True)
        throttle = None if unit == "published" else unit_for(model, unit)
        history = model.train_instrumented(
            problem.X, problem.Y, 12, 64, learning_rate=0.2, use_controller=True, throttle=throttle, estimator=name
        )
        curvatures.append(history["curvature_proxy"])
        assert np.isfinite(history["alpha"]).all() and history["loss"][-1] < history["loss"][0]
        weights = model.get_weights()
        assert (weights["batchnorm0/moving_variance"] < 1).all() and (weights["batchnorm0/moving_variance"] > 0.99**12).all()
    if estimator == "same_batch":
        np.testing.assert_allclose(curvatures[1], curvatures[0], rtol=1e-6 if unit != "golden" else 1e-12)


def test_same_batch_by_hand() -> None:
    """Minibatches of one linear layer: C is the curvature of each batch along the motion."""
    problem, model = problem_model(samples=48)
    steps: list[Step] = []
    history = model.train_instrumented(
        problem.X, problem.Y, 4, 12, learning_rate=0.3, use_controller=True, estimator="same_batch", observe=steps.append
    )
    drawn = list(batches(48, 4, 12, shuffle=True, seed=0))
    for t in range(1, len(steps)):
        motion = (steps[t].theta - steps[t - 1].theta).reshape(4, 2)
        x = problem.X[drawn[t]]
        curvature = np.linalg.norm(x.T @ (x @ motion) / 12) / np.linalg.norm(motion)
        assert history["curvature_proxy"][t] == pytest.approx(curvature, rel=1e-6)


# ---------------------------------------------------------------- distortion


@pytest.mark.parametrize("unit", ["published", "golden"])
def test_budget(unit: str) -> None:
    """Parts and residual are the whole; without a gradient grid and an error of alpha the whole is the angle of the row."""
    problem, model = problem_model()
    if unit == "published":
        options: dict[str, Any] = {"precision_dict": {"dense0": {"weight": "Q2.6", "update": "Q2.8"}}, "learning_rate": 0.5}
    else:
        options = {"throttle": unit_for(model, eta="0.7", chi="0.3", update="SQ1.9", weight="SQ3.9")}
    history = model.train_instrumented(problem.X, problem.Y, 30, 64, use_controller=True, distortion=True, **options)
    for kind in ("angle", "radius"):
        parts = sum(history[f"{kind}_{cause}"] for cause in CAUSES)
        np.testing.assert_allclose(parts + history[f"{kind}_residual"], history[f"{kind}_whole"], rtol=1e-12, atol=1e-15)
    assert history["angle_update_rounding"].max() > 1e-3 and history["angle_weight_rounding"].max() > 0
    if unit == "published":
        for name in ("angle_gradient_grid", "angle_alpha_error", "radius_gradient_grid", "radius_alpha_error"):
            assert not history[name].any(), name
        moved = history["dtheta_zero"] == 0
        assert moved.sum() > 3
        np.testing.assert_allclose(history["angle_whole"][moved], history["update_angle_rad"][moved], atol=1e-7)
        np.testing.assert_allclose(history["radius_whole"] + 1, history["update_radius_ratio"], rtol=1e-9, atol=1e-9)
    else:
        assert history["angle_gradient_grid"].max() > 0 and 0 < np.abs(history["radius_alpha_error"]).max() < 1e-3


def test_no_budget_unless_asked_for() -> None:
    problem, model = problem_model()
    assert not any(name.startswith(("angle_", "radius_")) for name in model.train_instrumented(problem.X, problem.Y, 2))
