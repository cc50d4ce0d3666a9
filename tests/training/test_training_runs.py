"""Runs of the instrumented loop as their callers meet them: states that go on, errors, warnings, the law."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.data import synthetic
from kappa_rtl.golden.network.quantisers import Segment
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.instrumented import Step, TrainingWarning, TrainState, train_instrumented
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.golden.training.published import Controller, Law, PublishedThrottle
from support.training import problem_model, unit_for

# ---------------------------------------------------------------- state


@pytest.mark.parametrize("unit", ["published", "golden", "float"])
@pytest.mark.parametrize(("optimiser", "estimator"), [("sgd", "naive"), ("momentum", "same_batch"), ("adam", "half_batch")])
def test_a_state_continues_exactly(unit: str, optimiser: str, estimator: str) -> None:
    """20 steps are 10 and 10, bit for bit."""

    def fresh() -> tuple[Any, LinearBlockModel, dict[str, Any]]:
        problem, model = problem_model(4, activation="tanh", use_bias=True, use_batchnorm=True)
        throttle = None if unit == "published" else unit_for(model, unit, eta="0.6")
        return problem, model, {"throttle": throttle, "optimiser": optimiser, "estimator": estimator}

    rng = np.random.default_rng(5)
    problem, model, options = fresh()
    stream = [(problem.X[rows], problem.Y[rows]) for rows in rng.integers(64, size=(20, 10))]
    common = {"learning_rate": 0.6, "use_controller": True, "distortion": True}
    whole = model.train_instrumented(problem.X, problem.Y, stream=stream, **common, **options)
    kept = model.theta
    problem, model, options = fresh()
    state = TrainState()
    first = model.train_instrumented(problem.X, problem.Y, stream=stream[:10], state=state, **common, **options)
    second = model.train_instrumented(problem.X, problem.Y, stream=iter(stream[10:]), state=state, **common)
    assert np.array_equal(model.theta, kept) and state.steps == 20
    for name in whole:
        assert np.array_equal(whole[name], np.concatenate([first[name], second[name]]), equal_nan=True), name


def test_the_budget_of_a_continued_run() -> None:
    """Asked for only in the second run, it is what it would have been: the law in float64 went along in the first."""
    parts = []
    for early in (True, False):
        problem, model = problem_model()
        state, throttle = TrainState(), unit_for(model, eta="0.7", chi="0.3")
        model.train_instrumented(problem.X, problem.Y, 5, 64, throttle=throttle, state=state, distortion=early)
        parts.append(model.train_instrumented(problem.X, problem.Y, 5, 64, state=state, distortion=True))
    assert parts[0] == parts[1] and 0 < np.abs(parts[0]["radius_alpha_error"]).max() < 1e-3


def test_without_a_state_a_run_begins_unthrottled() -> None:
    problem, model = problem_model()
    options = {"learning_rate": 3.0, "use_controller": True}
    first = model.train_instrumented(problem.X, problem.Y, 10, 64, **options)
    assert first["alpha"][-1] < 0.9
    second = model.train_instrumented(problem.X, problem.Y, 10, 64, **options)
    assert second["alpha"][0] == 1 and second["curvature_proxy"][0] == second["curvature_ema"][0] == 0


def test_a_state_under_another_law() -> None:
    """C and S go on; learning rate, law and formats are those of the run."""
    problem, model = problem_model()
    state = TrainState()
    first = model.train_instrumented(problem.X, problem.Y, 10, 64, learning_rate=0.5, state=state)
    theta = model.theta
    second = model.train_instrumented(
        problem.X, problem.Y, 10, 64, learning_rate=2.0, chi=0.5, use_controller=True, state=state,
        precision_dict={"dense0": {"weight": "Q2.10"}},
    )  # fmt: skip
    assert np.all(first["alpha"] == 1) and second.meta["eta"] == 2.0 and second.meta["enabled"] is True
    assert second["theta_norm"][0] == first["theta_norm_after"][-1] and second["dtheta_norm"][0] > 0
    assert second["curvature_proxy"][0] > 0
    assert second["alpha"][0] == pytest.approx(min(1, 0.5 / (2.0 * second["curvature_for_control"][0])), rel=1e-9)
    assert np.array_equal(np.rint(model.theta * 1024), model.theta * 1024) and not np.array_equal(model.theta, theta)


def test_a_state_of_another_model() -> None:
    problem, model = problem_model()
    state = TrainState()
    model.train_instrumented(problem.X, problem.Y, 2, 64, state=state)
    model.reinitialize_weights()
    with pytest.raises(ValueError, match="the model's weights must be those that the state was left with"):
        model.train_instrumented(problem.X, problem.Y, 2, 64, state=state)
    with pytest.raises(ValueError, match="throttle must be the unit of the state"):
        model.train_instrumented(problem.X, problem.Y, 2, 64, state=state, throttle=unit_for(model))


# ---------------------------------------------------------------- errors


NAN = np.full((64, 4), np.nan)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"X": NAN}, r"X\[0, 0\] must be finite in float64, not nan"),
        ({"Y": np.where(np.arange(128).reshape(64, 2) == 5, np.inf, 1.0)}, r"Y\[2, 1\] must be finite in float64, not inf"),
        ({"X": np.ones((64, 3))}, r"X must have shape \(rows, 4\), not \(64, 3\)"),
        ({"X": np.ones(64)}, r"X must have shape \(rows, 4\), not \(64,\)"),
        ({"X": np.ones((0, 4)), "Y": np.ones((0, 2))}, r"X must have shape \(rows, 4\), not \(0, 4\)"),
        ({"Y": np.ones((64, 1))}, r"Y must have shape \(rows, 2\), not \(64, 1\)"),
        ({"Y": np.ones((63, 2))}, r"Y must have a row for each of the 64 of X, not 63"),
        ({"X": np.ones((64, 4), object)}, r"X must hold numbers, not object"),
        ({"X": np.ones((64, 4), complex)}, r"X must hold numbers, not complex128"),
        ({"X": np.full((64, 4), "1")}, r"X must hold numbers, not <U1"),
        ({"epochs": 0}, r"epochs must be an integer of at least 1, not 0"),
        ({"epochs": 1.0}, r"epochs must be an integer of at least 1, not 1\.0"),
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1, not 0"),
        ({"batch_size": True}, r"batch_size must be an integer of at least 1, not True"),
        ({"learning_rate": 0.0}, r"eta \(learning_rate\) must be greater than 0, not 0\.0"),
        ({"learning_rate": math.nan}, r"eta \(learning_rate\) must be greater than 0, not nan"),
        ({"learning_rate": "0.1"}, r"eta \(learning_rate\) must be a number, not '0\.1'"),
        ({"chi": -1.0}, r"chi must be greater than 0, not -1\.0"),
        ({"chi": 1j}, r"chi must be a number, not 1j"),
        ({"beta": -1.0}, r"beta must be at least 0, not -1\.0"),
        ({"alpha_min": 1.5}, r"alpha_min must be at least 0 and at most 1, not 1\.5"),
        ({"curvature_ema_rho": 1.5}, r"rho \(curvature_ema_rho\) must be at least 0 and at most 1, not 1\.5"),
        ({"eps": math.inf}, r"eps must be at least 0, not inf"),
        ({"use_controller": "no"}, r"enabled \(use_controller\) must be True or False, not 'no'"),
        ({"controller": "gamma"}, r"controller must be one of stability_margin, inverse_curvature, not 'gamma'"),
        ({"on_still": "skip"}, r"on_still must be one of release, floor, hold, divide, not 'skip'"),
        ({"ema_start": "last"}, r"ema_start must be one of zero, first, not 'last'"),
        ({"loss_mode": "mse"}, r"loss_mode must be one of half_mse, keras_mse, softmax_cross_entropy, not 'mse'"),
        ({"optimiser": "rms"}, r"optimiser must be one of sgd, momentum, nesterov, adam, or an Optimiser, not 'rms'"),
        ({"estimator": "best"}, r"estimator must be one of naive, same_batch, half_batch, momentum, .* not 'best'"),
        ({"estimator": "half_batch", "batch_size": 9}, r"batch_size must leave no batch of one row for half_batch, not 9 of 64"),
        ({"hessian": "full"}, r"hessian must be one of none, analytic, exact, lanczos, not 'full'"),
        ({"divergence_loss": 0.0}, r"divergence_loss must be greater than 0, not 0\.0"),
        ({"reference_A": np.ones((4, 2))}, r"reference_A must have shape \(outputs, inputs\) = \(2, 4\), not \(4, 2\)"),
        ({"reference_A": np.full((2, 4), np.nan)}, r"reference_A must be finite, not nan"),
        ({"reference_A": [["a"]]}, r"reference_A must hold numbers, not <U1"),
        ({"X": [[1.0, 2.0], [3.0]]}, r"X must hold numbers: .*inhomogeneous"),
        ({"precision_dict": {"dense9": {"weight": "Q1.2"}}}, r"precision names must be layers of the model \(.*\), not 'dense9'"),
        ({"precision_dict": {"dense0": {"wait": "Q1.2"}}}, r"precision of dense0\.wait: the field must be one of"),
        ({"precision_dict": {"dense0": {"weight": "1.2"}}}, r"precision of dense0\.weight"),
        ({"precision_dict": {"input": {"weight": "Q1.2"}}}, r"precision of input\.weight: the field must be one of value"),
        ({"precision_dict": 5}, r"precision_dict must be None, a mapping or a PrecisionDict, not 5"),
        ({"throttle": 9}, r"throttle must have 8 elements, as the model has weights, not 9"),
    ],
)
def test_errors_before_the_first_step(changes: dict[str, Any], text: str) -> None:
    """The field, the value, the rule; model, state and observer see nothing."""
    problem, model = problem_model()
    if "throttle" in changes:
        config = ThrottleConfig.stability_margin(elements=9, eta="0.1")
        changes = {"throttle": Throttle(config, np.zeros(9, int))}
    state, seen = TrainState(), []
    before = model.theta
    with pytest.raises(ValueError, match=text):
        train_instrumented(model, **({"X": problem.X, "Y": problem.Y, "observe": seen.append, "state": state} | changes))
    assert not seen and np.array_equal(model.theta, before)
    assert state == TrainState()


def test_a_refused_run_leaves_the_weights() -> None:
    """A throttle that fits and a bad argument beside it: the model keeps its own weights."""
    problem, model = problem_model()
    before = model.theta
    throttle = unit_for(model, weight="SQ2.3")
    with pytest.raises(ValueError, match="epochs"):
        model.train_instrumented(problem.X, problem.Y, 0, throttle=throttle)
    assert np.array_equal(model.theta, before)


def test_beyond_float32() -> None:
    problem, model = problem_model(dtype=np.float32)
    with pytest.raises(ValueError, match=r"X\[0, 0\] must be finite in float32, not 1e\+300"):
        model.train_instrumented(np.full((64, 4), 1e300), problem.Y)
    with pytest.raises(ValueError, match="dtype must be float64 for the float unit, not float32"):
        model.train_instrumented(problem.X, problem.Y, throttle=unit_for(model, "float"))
    with pytest.raises(ValueError, match="dtype must be float64 for weights of more than 24 bits"):
        model.train_instrumented(problem.X, problem.Y, throttle=unit_for(model, weight="SQ4.28"))


def test_too_many_weights_for_the_exact_hessian() -> None:
    problem, model = problem_model(700)
    with pytest.raises(ValueError, match="hessian must not be 'exact' for more than 4000 weights, not 4200"):
        model.train_instrumented(problem.X, problem.Y, hessian="exact")


def test_a_stream_that_does_not_fit() -> None:
    problem, model = problem_model()
    stream = [(problem.X, problem.Y), (problem.X, problem.Y[:, :1])]
    with pytest.raises(ValueError, match=r"stream y must have shape \(rows, 2\), not \(64, 1\)") as error:
        model.train_instrumented(problem.X, problem.Y, stream=stream)
    assert error.value.history.steps == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_exception_carries_the_rows(kind: type[BaseException]) -> None:
    problem, model = problem_model(3)

    def stop(step: Step) -> None:
        if step.step == 4:
            raise kind("enough")

    with pytest.raises(kind, match="enough") as error:
        model.train_instrumented(problem.X, problem.Y, 10, 64, observe=stop)
    rows = error.value.history  # type: ignore[attr-defined]
    whole = problem_model(3)[1].train_instrumented(problem.X, problem.Y, 5, 64)
    assert isinstance(rows, FitHistory) and rows.steps == 5 and rows == whole


# ---------------------------------------------------------------- warnings


def told(**settings: Any) -> list[str]:
    problem, model = problem_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model.train_instrumented(problem.X, problem.Y, 1, **settings)
    assert all(issubclass(item.category, TrainingWarning) for item in caught)
    assert history.meta["warnings"] == [str(item.message) for item in caught]
    return [str(item.message).split(" is ")[0] for item in caught]


def test_warnings() -> None:
    """On laws that noise freezes, where there are minibatches and the law is in force."""
    assert told(batch_size=16, use_controller=True, chi=1.2) == ["chi = 1.2"]
    assert told(batch_size=16, use_controller=True, chi=1.5) == []
    assert told(batch_size=64, use_controller=True, chi=1.2) == []
    assert told(batch_size=100, use_controller=True, chi=1.2) == []
    assert told(batch_size=16, use_controller=False, chi=1.2) == []
    assert told(batch_size=16, use_controller=True, chi=1.2, estimator="same_batch") == []
    assert told(batch_size=16, use_controller=True, controller="beta", beta=1.0) == ["beta = 1"]
    assert told(batch_size=16, use_controller=True, controller="beta", beta=0.01) == []


def test_noise_is_told_of_once() -> None:
    rng = np.random.default_rng(0)
    problem, model = problem_model(samples=400)
    Y = problem.Y + rng.normal(size=problem.Y.shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.train_instrumented(problem.X, Y, 10, 4, learning_rate=0.05, use_controller=True, chi=1.2)
    assert [str(item.message).split(" ")[0] for item in caught] == ["chi", "minibatch"]
    assert told(batch_size=64, use_controller=True) == []


# ---------------------------------------------------------------- the law


@pytest.mark.parametrize("on_still", ["divide", "hold", "floor", "release"])
def test_zero_motion(on_still: str) -> None:
    """A grid that swallows a step: dividing by eps kills the run, holding and the floor do not."""
    theta = np.zeros(2)
    law = Law(eta=0.1, on_still=on_still)
    unit = PublishedThrottle(law, theta, [Segment(2, None, Fixed.parse("SQ2.6"))])
    unit.step(np.array([0.01, 0.0]))
    still = unit.step(np.array([0.03, 0.0]))
    assert still.registers.still and still.registers.still_steps == 1
    want = {"divide": 0.02 / 1e-12, "hold": 0.0, "floor": 0.02 / (math.sqrt(2) * 2.0**-7)}
    want["release"] = want["floor"]
    curvature = want[on_still]
    assert still.registers.curvature == pytest.approx(curvature)
    assert still.registers.ema == pytest.approx(0.05 * curvature if on_still == "divide" else 0)
    assert still.registers.alpha == pytest.approx(min(1, 1.5 / (0.1 * curvature)) if curvature else 1)


def test_the_law_is_frozen_and_float64() -> None:
    law = Law(eta=np.float32(0.5), chi=1, rho=np.float32(0.25))
    assert all(type(getattr(law, name)) is float for name in ("eta", "chi", "beta", "alpha_min", "rho", "eps"))


def test_the_published_unit_refuses() -> None:
    law = Law(eta=0.1)
    for weights in (np.zeros((2, 2)), np.zeros(2, int), np.zeros(2, np.float16)):
        with pytest.raises(ValueError, match="weights must be a vector of float32 or float64"):
            PublishedThrottle(law, weights)
    with pytest.raises(ValueError, match="segments must cover the 3 weights, not 2"):
        PublishedThrottle(law, np.zeros(3), [Segment(2)])


def test_the_hessian_of_one_layer_does_not_hang_on_theta() -> None:
    """A run whose weights have overflowed still has the sharpness of its data."""
    data = synthetic()
    model = LinearBlockModel(data, num_hidden=[2], use_bias=False, seed=0)
    history = model.train_instrumented(
        data.X * 4, data.Y, epochs=60, batch_size=1000, learning_rate=0.5, stop_when_diverged=False
    )
    assert history["diverged"][-1] == 1 and np.isfinite(history["hessian_lambda_max"]).all()


def test_a_large_eps_is_part_of_the_law() -> None:
    controller = Controller(Law(eta=0.5, chi=1.5, eps=10))
    assert controller.step(0, 0) == pytest.approx(1.5 / (0.5 * 10))


@pytest.mark.parametrize(("alias", "law"), [("chi", "stability_margin"), ("beta", "inverse_curvature")])
def test_a_law_is_read_by_the_name_it_was_published_under_and_never_written_so(alias: str, law: str) -> None:
    assert Law(eta=0.5, controller=alias) == Law(eta=0.5, controller=law)
    problem, model = problem_model()
    history = model.train_instrumented(problem.X, problem.Y, 1, 64, controller=alias)
    assert history.meta["law"]["controller"] == law


def test_both_words_for_alpha() -> None:
    """Off, the law's alpha is not applied; the key of a history means what it was published as."""
    problem, model = problem_model()
    rows: list[Step] = []
    history = model.train_instrumented(problem.X, problem.Y, 5, 64, learning_rate=3.0, chi=0.1, observe=rows.append)
    assert (history["alpha"] == 1).all() and history["alpha_would"].min() < 1
    assert (history["alpha_applied"] == history["alpha"]).all() and "alpha_applied" not in list(history)
    assert (history["curvature"] == history["curvature_proxy"]).all()
    assert [step.row["alpha"] for step in rows] == history["alpha_would"].tolist()
    assert [step.row["alpha_applied"] for step in rows] == history["alpha"].tolist()
