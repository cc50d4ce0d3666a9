"""Models: their layers, their weights, the plain loop."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.data import batches, synthetic
from kappa_rtl.golden.network.layers import Dense
from kappa_rtl.golden.network.norms import BatchNorm
from kappa_rtl.golden.network.optimisers import Momentum
from kappa_rtl.golden.training.model import BaseModel, LinearBlockModel


@dataclass
class Shapes:
    """Stands for a data set, image-like shapes too."""

    input_shape: tuple[int, ...] = (10, 4)
    output_shape: tuple[int, ...] = (10, 2)


def model(*hidden: int, **settings: Any) -> LinearBlockModel:
    return LinearBlockModel(Shapes(), num_hidden=list(hidden), **({"seed": 0, "dtype": np.float64} | settings))


def layer_names(made: BaseModel) -> list[str]:
    return [layer.name for layer in made.layers]


# ---------------------------------------------------------------- structure


@pytest.mark.parametrize(
    ("hidden", "settings", "names"),
    [
        ((), {}, ["dense0"]),
        ((2,), {}, ["dense0"]),
        ((3,), {}, ["dense0", "dense1"]),
        ((8, 2), {}, ["dense0", "dense1"]),
        ((8, 2), {"activation": "relu"}, ["dense0", "activation0", "dense1", "activation1"]),
        ((8,), {"use_batchnorm": True}, ["dense0", "batchnorm0", "dense1"]),
        (
            (8, 5),
            {"activation": "tanh", "use_batchnorm": True},
            ["dense0", "activation0", "batchnorm0", "dense1", "activation1", "batchnorm1", "dense2"],
        ),
    ],
)
def test_names_and_order(hidden: tuple[int, ...], settings: dict[str, Any], names: list[str]) -> None:
    """Dense, activation, batch normalisation; a bare Dense only where the last block is not as wide as the outputs."""
    assert layer_names(model(*hidden, **settings)) == names


def test_the_extra_layer() -> None:
    for use_bias in (True, False):
        made = model(3, activation="relu", use_batchnorm=True, use_bias=use_bias)
        last = made.layers[-1]
        assert isinstance(last, Dense) and last.units == 2
        assert list(last.params) == (["kernel", "bias"] if use_bias else ["kernel"])


def test_widths_are_the_last_axis() -> None:
    assert model(7).theta.size == 4 * 7 + 7 + 7 * 2 + 2
    assert model(7, use_bias=False).theta.size == 4 * 7 + 7 * 2
    assert model(7, use_batchnorm=True).theta.size == 4 * 7 + 7 + 7 + 7 + 7 * 2 + 2
    assert (model(7).input_shape, model(7).output_shape) == ((4,), (2,))


def test_defaults() -> None:
    made = LinearBlockModel(Shapes())
    assert made.num_hidden == [64, 64] and made.use_bias and not made.use_batchnorm and made.activation is None
    assert layer_names(made) == ["dense0", "dense1", "dense2"] and made.name == "LinearBlockModel"
    assert made.theta.dtype == np.float32
    other = LinearBlockModel(Shapes())
    other.num_hidden.append(3)
    assert made.num_hidden == [64, 64]


def test_theta_order() -> None:
    """By layer: kernel in C order, bias; gamma, beta."""
    made = model(3, use_batchnorm=True)
    shapes = {
        "dense0/kernel": (4, 3),
        "dense0/bias": (3,),
        "batchnorm0/gamma": (3,),
        "batchnorm0/beta": (3,),
        "dense1/kernel": (3, 2),
        "dense1/bias": (2,),
    }
    made.theta = np.arange(29.0)
    start = 0
    for name, shape in shapes.items():
        size = math.prod(shape)
        np.testing.assert_array_equal(made.get_weights()[name], np.arange(start, start + size, dtype=float).reshape(shape))
        start += size
    assert start == 29
    assert list(made.get_weights()) == [
        *list(shapes)[:4],
        "batchnorm0/moving_mean",
        "batchnorm0/moving_variance",
        *list(shapes)[4:],
    ]


def test_summary(capsys: pytest.CaptureFixture[str]) -> None:
    text = model(30, activation="relu", use_batchnorm=True, name="Small").summary()
    assert capsys.readouterr().out == text + "\n"
    lines = text.splitlines()
    assert lines[0] == "Small: input model_input (rows, 4), float64, seed 0"
    assert [line.split() for line in lines[1:]] == [
        ["layer", "type", "output", "parameters"],
        ["dense0", "Dense", "(rows,", "30)", "150"],
        ["activation0", "Activation", "(rows,", "30)", "0"],
        ["batchnorm0", "BatchNorm", "(rows,", "30)", "60"],
        ["dense1", "Dense", "(rows,", "2)", "62"],
        ["total", "272"],
    ]


def test_a_subclass() -> None:
    """Layers in its __post_init__, then build."""

    @dataclass(eq=False)
    class Two(BaseModel):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.layers += [Dense("first", 3), BatchNorm("middle"), Dense("last", 2)]
            self.build()

    problem = synthetic(0, 32)
    made = Two(problem, seed=3)
    assert made.name == "BaseModel"
    assert made.train_instrumented(problem.X, problem.Y, 2, 32).steps == 2


# ---------------------------------------------------------------- weights


def test_glorot() -> None:
    made = LinearBlockModel(Shapes((1, 300), (1, 100)), num_hidden=[200], seed=1)
    for name, limit in (("dense0/kernel", math.sqrt(6 / 500)), ("dense1/kernel", math.sqrt(6 / 300))):
        kernel = made.get_weights()[name]
        assert kernel.dtype == np.float32
        assert 0.999 * limit < np.abs(kernel).max() <= np.float32(limit)
        assert abs(kernel.mean()) < 0.01 * limit and kernel.var() == pytest.approx(limit**2 / 3, rel=0.02)
    assert not made.get_weights()["dense0/bias"].any()


def test_seeds() -> None:
    assert np.array_equal(model(5).theta, model(5).theta)
    assert not np.array_equal(model(5).theta, model(5, seed=1).theta)
    drawn = LinearBlockModel(Shapes())
    assert isinstance(drawn.seed, int) and drawn.seed != LinearBlockModel(Shapes()).seed


def test_reinitialize() -> None:
    """The same weights again, moving statistics included; another seed gives others, and is kept."""
    problem = synthetic(0, 32)
    made = LinearBlockModel(problem, num_hidden=[5], use_batchnorm=True, seed=None)
    begun = made.get_weights()
    made.train(problem.X, problem.Y, epochs=2)
    trained = made.get_weights()
    assert all(not np.array_equal(trained[name], begun[name]) for name in begun)
    made.reinitialize_weights()
    again = made.get_weights()
    assert all(np.array_equal(again[name], begun[name]) for name in begun)
    made.reinitialize_weights(7)
    assert made.seed == 7
    other = made.theta
    assert not np.array_equal(other, LinearBlockModel(problem, num_hidden=[5], use_batchnorm=True, seed=8).theta)
    assert np.array_equal(other, LinearBlockModel(problem, num_hidden=[5], use_batchnorm=True, seed=7).theta)
    with pytest.raises(ValueError, match=r"^seed must be an integer of at least 0, not -1"):
        made.reinitialize_weights(-1)
    assert made.seed == 7 and np.array_equal(made.theta, other)


def test_theta_is_a_copy_and_comes_back() -> None:
    made = model(5, use_batchnorm=True)
    theta = made.theta
    theta += 1
    assert not np.array_equal(made.theta, theta)
    made.theta = theta
    assert np.array_equal(made.theta, theta)
    theta += 1
    assert not np.array_equal(made.theta, theta)


@pytest.mark.parametrize("shape", [(50,), (52,), (1, 51), (2, 51), ()])
def test_theta_of_another_shape(shape: tuple[int, ...]) -> None:
    made = model(7)
    before = made.theta
    with pytest.raises(ValueError, match=r"theta must have shape \(51,\), not"):
        made.theta = np.zeros(shape)
    assert np.array_equal(made.theta, before)


def test_weights_by_name_and_in_order() -> None:
    made, other = model(5, use_batchnorm=True), model(5, use_batchnorm=True, seed=1)
    other.set_weights(made.get_weights())
    assert all(np.array_equal(a, b) for a, b in zip(made.get_weights().values(), other.get_weights().values(), strict=True))
    other = model(5, use_batchnorm=True, seed=1)
    other.set_weights(list(made.get_weights().values()))
    assert np.array_equal(made.theta, other.theta)
    kernel = np.arange(20).reshape(4, 5)
    other.set_weights({"dense0/kernel": kernel, "batchnorm0/moving_mean": np.full(5, 2.0)})
    assert np.array_equal(other.get_weights()["dense0/kernel"], kernel)
    assert other.get_weights()["dense0/kernel"].dtype == np.float64
    assert np.array_equal(other.get_weights()["dense1/kernel"], made.get_weights()["dense1/kernel"])
    given = np.ones((4, 5))
    other.set_weights({"dense0/kernel": given})
    given[:] = 0
    other.get_weights()["dense0/kernel"][:] = 0
    assert other.get_weights()["dense0/kernel"].all()


@pytest.mark.parametrize(
    ("weights", "text"),
    [
        ({"dense0/kernl": np.zeros((4, 2))}, r"weights must be of dense0/kernel, dense0/bias, not 'dense0/kernl'"),
        ({"dense0/kernel": np.zeros((2, 4))}, r"dense0/kernel must be numbers of shape \(4, 2\), not float64 of \(2, 4\)"),
        ({"dense0/bias": np.zeros((2, 1))}, r"dense0/bias must be numbers of shape \(2,\)"),
        ({"dense0/bias": np.array([1.0, np.nan])}, r"dense0/bias must be finite"),
        ({"dense0/bias": np.array([1.0, 1e300])}, r"dense0/bias must be finite in float32"),
        ({"dense0/bias": np.array(["a", "b"])}, r"dense0/bias must hold numbers, not <U1"),
        ({"dense0/bias": np.array([None, 1])}, r"dense0/bias must hold numbers, not object"),
        ([np.zeros((4, 2))], r"weights must be 2 arrays \(dense0/kernel, dense0/bias\), not 1"),
    ],
)
def test_wrong_weights(weights: Any, text: str) -> None:
    made = model(2, dtype=np.float32)
    before = made.theta
    if isinstance(weights, dict):
        weights = {"dense0/kernel": np.ones((4, 2))} | weights
    with pytest.raises(ValueError, match=text):
        made.set_weights(weights)
    assert np.array_equal(made.theta, before)


# ---------------------------------------------------------------- use


def test_train_is_the_plain_loop() -> None:
    problem = synthetic(0, 50)
    made = LinearBlockModel(problem, loss="half_mse", num_hidden=[], use_bias=False, seed=4, dtype=np.float64)
    kernel = made.theta.reshape(4, 2)
    losses = []
    for rows in batches(50, 3, 16, shuffle=True, seed=4):
        error = problem.X[rows] @ kernel - problem.Y[rows]
        losses.append((error**2).sum() / (2 * len(rows)))
        kernel = kernel - 0.3 * problem.X[rows].T @ error / len(rows)
    made_losses = made.train(problem.X, problem.Y, 3, 16, 0.3)["loss"]
    assert made_losses.dtype == np.float64
    np.testing.assert_allclose(made_losses, losses, rtol=1e-12)
    np.testing.assert_allclose(made.theta, kernel.ravel(), rtol=1e-12)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "nesterov", "adam"])
@pytest.mark.parametrize("loss", ["mse", "half_mse"])
def test_train_learns(optimizer: str, loss: str) -> None:
    problem = synthetic(0, 200)
    made = LinearBlockModel(problem, loss=loss, optimizer=optimizer, num_hidden=[8], activation="tanh", seed=0)
    losses = made.train(problem.X, problem.Y, epochs=40, batch_size=20, learning_rate=0.01)["loss"]
    assert len(losses) == 400 and losses[-20:].mean() < 0.5 * losses[:20].mean()
    assert made.theta.dtype == np.float32


def test_train_equals_the_instrumented_loop() -> None:
    """Controller off, the same batches: the very same weights."""
    problem = synthetic(0, 50)
    plain, logged = (
        LinearBlockModel(problem, loss="half_mse", num_hidden=[6], activation="relu", use_batchnorm=True, seed=5) for _ in "ab"
    )
    losses = plain.train(problem.X, problem.Y, 4, 16, 0.1)["loss"]
    history = logged.train_instrumented(problem.X, problem.Y, 4, 16, learning_rate=0.1, batch_seed=5)
    assert np.array_equal(history["loss"], losses)
    assert np.array_equal(plain.theta, logged.theta)
    assert all(np.array_equal(a, b) for a, b in zip(plain.get_weights().values(), logged.get_weights().values(), strict=True))


def test_train_diverges_in_silence() -> None:
    problem = synthetic(0, 50)
    made = LinearBlockModel(problem, num_hidden=[4], seed=0)
    losses = made.train(1e3 * problem.X, problem.Y, epochs=40, batch_size=50, learning_rate=10.0)["loss"]
    assert len(losses) == 40 and not np.isfinite(losses[-1])


def test_an_optimiser_given_keeps_its_state() -> None:
    problem = synthetic(0, 30)
    given = Momentum(0.5)
    made = LinearBlockModel(problem, optimizer=given, num_hidden=[], seed=0)
    made.train(problem.X, problem.Y, 2, 10)
    made.train(problem.X, problem.Y, 2, 10)
    assert given.steps == 12


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"epochs": 0}, r"epochs must be an integer of at least 1, not 0"),
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1, not 0"),
        ({"batch_size": 2.0}, r"batch_size must be an integer of at least 1, not 2\.0"),
        ({"X": np.zeros((5, 3))}, r"X must have shape \(rows, 4\), not \(5, 3\)"),
        ({"Y": np.zeros((4, 2))}, r"Y must have a row for each of the 5 of X, not 4"),
        ({"Y": np.zeros(5)}, r"Y must have shape \(rows, 2\), not \(5,\)"),
    ],
)
def test_train_errors(changes: dict[str, Any], text: str) -> None:
    made = model(2)
    before = made.theta
    with pytest.raises(ValueError, match=text):
        made.train(**({"X": np.zeros((5, 4)), "Y": np.zeros((5, 2))} | changes))
    assert np.array_equal(made.theta, before)


def test_predict() -> None:
    """With the moving statistics, which a prediction leaves alone."""
    made = model(3, activation="relu", use_batchnorm=True)
    weights = made.get_weights()
    rng = np.random.default_rng(0)
    weights = {name: rng.uniform(0.5, 1.5, value.shape) for name, value in weights.items()}
    made.set_weights(weights)
    x = rng.normal(size=(6, 4))
    hidden = np.maximum(x @ weights["dense0/kernel"] + weights["dense0/bias"], 0)
    hidden = (hidden - weights["batchnorm0/moving_mean"]) / np.sqrt(weights["batchnorm0/moving_variance"] + 1e-3)
    hidden = hidden * weights["batchnorm0/gamma"] + weights["batchnorm0/beta"]
    want = hidden @ weights["dense1/kernel"] + weights["dense1/bias"]
    np.testing.assert_allclose(made.predict(x), want, rtol=1e-12)
    np.testing.assert_allclose(made.predict(x[:1]), want[:1], rtol=1e-12)
    assert all(np.array_equal(made.get_weights()[name], value) for name, value in weights.items())


def test_predict_on_grids() -> None:
    made = model(2, use_bias=True)
    made.set_weights({"dense0/bias": np.array([0.3, -0.3])})
    x = np.random.default_rng(0).uniform(-1, 1, (5, 4))
    precision = {
        "input": {"value": "Q1.2"},
        "dense0": {"weight": "Q2.2", "accumulator": "Q3.3", "bias": "Q1.1", "activation": "Q2.2"},
    }

    def grid(v: Any, m: int, n: int) -> Any:
        return np.clip(np.rint(v * 2**n), -(2 ** (m + n - 1)), 2 ** (m + n - 1) - 1) / 2**n

    product = grid(x, 1, 2) @ grid(made.get_weights()["dense0/kernel"], 2, 2)
    want = grid(grid(product, 3, 3) + grid(np.array([0.3, -0.3]), 1, 1), 2, 2)
    np.testing.assert_array_equal(made.predict(x, precision), want)
    assert not np.array_equal(made.predict(x), want)
    assert np.array_equal(made.predict(x, {}), made.predict(x))


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"loss": "mae"}, r"loss must be one of mse, half_mse, keras_mse, softmax_cross_entropy, not 'mae'"),
        ({"optimizer": "rmsprop"}, r"optimiser must be one of sgd, momentum, nesterov, adam, or an Optimiser, not 'rmsprop'"),
        ({"dtype": np.float16}, r"dtype must be float32 or float64, not float16"),
        ({"dtype": int}, r"dtype must be float32 or float64, not int64"),
        ({"activation": "selu"}, r"activation must be None or one of linear, relu, tanh, sigmoid, softplus, not 'selu'"),
        ({"num_hidden": 5}, r"num_hidden must be a list of widths, not 5"),
        ({"num_hidden": "5"}, r"num_hidden must be a list of widths, not '5'"),
        ({"num_hidden": [5, 0]}, r"num_hidden must hold integers of at least 1, not 0"),
        ({"num_hidden": [5.0]}, r"num_hidden must hold integers of at least 1, not 5\.0"),
        ({"num_hidden": [True]}, r"num_hidden must hold integers of at least 1, not True"),
        ({"dataset": Shapes((10, 4, 4))}, r"dense0 must be given vectors, not \(4, 4\): a Flatten before it makes them"),
        ({"dataset": Shapes(output_shape=(10,))}, r"dataset must hold vectors"),
    ],
)
def test_errors(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        LinearBlockModel(**({"dataset": Shapes()} | settings))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (("input", "out"), r"layer names must not be input, loss, __default__"),
        (("loss", "out"), r"layer names must not be .*not 'loss'"),
        (("one", "one"), r"layer names must be unique, not one, one"),
    ],
)
def test_reserved_names(names: tuple[str, ...], text: str) -> None:
    made = BaseModel(Shapes(), seed=0)
    made.layers += [Dense(name, 2) for name in names]
    with pytest.raises(ValueError, match=text):
        made.build()


def test_a_model_of_another_width() -> None:
    made = BaseModel(Shapes(), seed=0)
    made.layers.append(Dense("one", 3))
    with pytest.raises(ValueError, match="the last layer must have 2 outputs, as the dataset has, not 3"):
        made.build()


def test_the_published_signature() -> None:
    """Names, order and defaults, so that a call by position means what it meant."""
    published = {
        "epochs": 10, "batch_size": 32, "learning_rate": 0.05, "shuffle": True, "loss_mode": "half_mse",
        "curvature_ema_rho": 0.05, "chi": 1.5, "eps": 1e-12, "use_controller": False, "compute_analytic_hessian": True,
        "reference_A": None, "precision_dict": None,
    }  # fmt: skip
    found = list(inspect.signature(LinearBlockModel.train_instrumented).parameters.values())
    assert [parameter.name for parameter in found[1:3]] == ["X", "Y"]
    assert {parameter.name: parameter.default for parameter in found[3:15]} == published
    assert all(parameter.kind is parameter.KEYWORD_ONLY for parameter in found[15:])


def test_the_plain_loop_takes_finite_numbers_only() -> None:
    model = LinearBlockModel(synthetic(), num_hidden=[2], use_bias=False, seed=0)
    x, y = np.ones((3, 4)), np.ones((3, 2))
    for changes, text in (
        ({"X": x * np.nan}, r"X\[0, 0\] must be finite in float32, not nan"),
        ({"X": x * 1j}, "X must hold numbers, not complex128"),
        ({"Y": y * 1e300}, r"Y\[0, 0\] must be finite in float32, not 1e\+300"),
        ({"learning_rate": -1}, r"eta \(learning_rate\) must be greater than 0, not -1"),
    ):
        with pytest.raises(ValueError, match=text):
            model.train(**({"X": x, "Y": y} | changes))
    with pytest.raises(ValueError, match=r"X\[0, 0\] must be finite"):
        model.predict(x * np.inf)
