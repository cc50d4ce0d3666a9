"""Layers and losses: values, gradients against finite differences, dtypes and the straight-through quantisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.images import AveragePool2D, Conv2D, Flatten, MaxPool2D
from kappa_rtl.golden.network.layers import (
    KINDS,
    Activation,
    Dense,
    Layer,
    assign,
    backward,
    flatten,
    forward,
    parameters,
    size,
    split,
)
from kappa_rtl.golden.network.losses import LOSSES, loss_of
from kappa_rtl.golden.network.norms import BatchNorm, LayerNorm
from support.layers import Array, Grid, Offsets, built, numeric

LAYERS: dict[str, tuple[Callable[[], Layer], bool]] = {
    **{kind: (lambda kind=kind: Activation("a", kind), True) for kind in KINDS},
    "dense": (lambda: Dense("d", 3), True),
    "dense_without_bias": (lambda: Dense("d", 3, use_bias=False), True),
    "batchnorm_training": (lambda: BatchNorm("b"), True),
    "batchnorm_inference": (lambda: BatchNorm("b"), False),
    "batchnorm_from_one": (lambda: BatchNorm("b", gain_from_one=True), True),
    "batchnorm_of_images": (lambda: of((1, 2, 2), BatchNorm("b")), True),
    "batchnorm_of_images_inference": (lambda: of((1, 2, 2), BatchNorm("b")), False),
    "layernorm": (lambda: LayerNorm("l"), True),
    "layernorm_from_one": (lambda: LayerNorm("l", gain_from_one=True), False),
    "layernorm_of_sequences": (lambda: of((2, 2), LayerNorm("l")), True),
    "convolution": (lambda: of((2, 2, 1), Conv2D("c", 3, 2)), True),
    "convolution_of_channels": (lambda: of((1, 2, 2), Conv2D("c", 2, 1, use_bias=False)), True),
    "convolution_valid": (lambda: of((4, 1, 1), Conv2D("c", 2, 1, stride=2, padding="valid")), True),
    "maxpool": (lambda: of((2, 2, 1), MaxPool2D("p")), True),
    "maxpool_overlapping": (lambda: of((4, 1, 1), MaxPool2D("p", 1, stride=1)), True),
    "averagepool": (lambda: of((2, 2, 1), AveragePool2D("p")), True),
    "flatten": (lambda: of((2, 2, 1), Flatten("f")), True),
}


def of(shape: tuple[int, ...], layer: Layer) -> Layer:
    """The layer, told what its inputs look like."""
    layer.take(shape)
    return layer


def inputs(rows: int = 6, width: int = 4, seed: int = 1) -> Array:
    x = np.random.default_rng(seed).normal(size=(rows, width))
    return np.where(np.abs(x) < 1e-2, 0.1, x)  # no finite difference across the kink of relu


def model(dtype: Any = np.float64) -> tuple[list[Layer], Array, Array]:
    """A net with one of everything, and a batch."""
    layers: list[Layer] = [
        BatchNorm("batchnorm0"),
        Dense("dense0", 5),
        Activation("activation0", "tanh"),
        BatchNorm("batchnorm1"),
        Dense("dense1", 4, use_bias=False),
        Activation("activation1", "softplus"),
        Dense("dense2", 2),
    ]
    rng = np.random.default_rng(5)
    width = 4
    for seed, layer in enumerate(layers):
        built(layer, width, dtype, seed)
        width = layer.build(width, dtype, rng) if not layer.params else layer.output_width(width)
    return layers, inputs().astype(dtype), rng.normal(size=(6, 2)).astype(dtype)


# ---------------------------------------------------------------- one layer


@pytest.mark.parametrize("quantised", [False, True], ids=["exact", "quantised"])
@pytest.mark.parametrize("name", LAYERS)
def test_backward_against_finite_differences(name: str, quantised: bool) -> None:
    make, training = LAYERS[name]
    layer, x = built(make(), 4), inputs()
    offsets = Offsets(1 / 8) if quantised else None

    def outputs(x: Array) -> tuple[Array, dict[str, Array]]:
        return layer.forward(x, training=training, quantiser=offsets, update_state=False)

    y, cache = outputs(x)
    dy = np.random.default_rng(2).normal(size=y.shape)
    dx, gradients = layer.backward(cache, dy)
    np.testing.assert_allclose(dx, numeric(lambda x: float(np.sum(dy * outputs(x)[0])), x), rtol=1e-6, atol=1e-9)
    assert list(gradients) == list(layer.params)
    for variable, value in layer.params.items():

        def loss(moved: Array, variable: str = variable) -> float:
            layer.params[variable] = moved
            return float(np.sum(dy * outputs(x)[0]))

        np.testing.assert_allclose(gradients[variable], numeric(loss, value), rtol=1e-6, atol=1e-9)
        layer.params[variable] = value


@pytest.mark.parametrize("with_x", [True, False], ids=["x", "variables"])
@pytest.mark.parametrize("name", LAYERS)
def test_tangents_against_finite_differences(name: str, with_x: bool) -> None:
    make, training = LAYERS[name]
    layer, x = built(make(), 4), inputs()
    rng = np.random.default_rng(3)
    y, cache = layer.forward(x, training=training, update_state=False)
    dy, dy_dot = rng.normal(size=y.shape), rng.normal(size=(3, *y.shape))
    x_dot = rng.normal(size=(3, *x.shape)) if with_x else None
    params_dot = {variable: rng.normal(size=(3, *value.shape)) for variable, value in layer.params.items()}
    y_dot, cache_dot = layer.tangent(cache, x_dot, params_dot)
    dx_dot, gradients_dot = layer.tangent_backward(cache, cache_dot, dy, dy_dot)
    here = dict(layer.params)

    def at(k: int, t: float) -> dict[str, Array]:
        layer.params = {variable: value + t * params_dot[variable][k] for variable, value in here.items()}
        y, cache = layer.forward(x if x_dot is None else x + t * x_dot[k], training=training, update_state=False)
        dx, gradients = layer.backward(cache, dy + t * dy_dot[k])
        layer.params = here
        return {"y": y, "dx": dx, **gradients}

    step = 1e-5
    for k in range(3):
        ahead, behind = at(k, step), at(k, -step)
        expected = {part: (ahead[part] - behind[part]) / (2 * step) for part in ahead}
        got = {"y": np.zeros_like(y) if y_dot is None else y_dot[k], "dx": dx_dot[k]}
        got |= {variable: value[k] for variable, value in gradients_dot.items()}
        assert set(got) == set(expected)
        for part in got:
            np.testing.assert_allclose(got[part], expected[part], rtol=1e-6, atol=1e-8, err_msg=part)


@pytest.mark.parametrize("name", LAYERS)
def test_float32_stays_float32(name: str) -> None:
    make, training = LAYERS[name]
    layer, x = built(make(), 4, np.float32), inputs().astype(np.float32)
    y, cache = layer.forward(x, training=training)
    k = np.ones((2, 1, 1), np.float32)
    y_dot, cache_dot = layer.tangent(cache, k * x, {n: np.stack([v, v]) for n, v in layer.params.items()})
    dx, gradients = layer.backward(cache, y)
    dx_dot, gradients_dot = layer.tangent_backward(cache, cache_dot, y, k * y)
    assert y_dot is not None
    tensors = [y, y_dot, dx, dx_dot, *gradients.values(), *gradients_dot.values(), *layer.params.values(), *layer.state.values()]
    assert {tensor.dtype for tensor in tensors} == {np.dtype(np.float32)}
    assert y_dot.shape == (2, *y.shape)
    assert dx_dot.shape == (2, *x.shape)
    for variable, value in layer.params.items():
        assert gradients_dot[variable].shape == (2, *value.shape)
    quantised, _ = layer.forward(x, training=training, quantiser=Grid(1 / 8))
    assert quantised.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_activations_far_out(kind: str, dtype: Any) -> None:
    x = np.array([[-1e30, -1e3, -50, 0, 50, 1e3, 1e30]], dtype)
    layer = Activation("a", kind)
    layer.build(7, dtype, np.random.default_rng())
    y, cache = layer.forward(x, training=True)
    dx, _ = layer.backward(cache, np.ones_like(x))
    low, high = {
        "linear": (x, x),
        "relu": (0 * x, x),
        "tanh": (-np.ones_like(x), np.ones_like(x)),
        "sigmoid": (0 * x, np.ones_like(x)),
        "softplus": (0 * x, x),
    }[kind]
    np.testing.assert_allclose(y[0, :3], low[0, :3], atol=1e-20)
    np.testing.assert_allclose(y[0, 4:], high[0, 4:], rtol=1e-6)
    centre = {"sigmoid": 0.5, "softplus": math.log(2)}.get(kind, 0.0)
    assert y[0, 3] == pytest.approx(centre)
    assert dx[0, 3] == {"linear": 1, "relu": 0, "tanh": 1, "sigmoid": 0.25, "softplus": 0.5}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_activations_show_what_is_no_number(kind: str) -> None:
    layer = Activation("a", kind)
    layer.build(1, np.float64, np.random.default_rng())
    assert np.isnan(layer.forward(np.array([[math.nan]]), training=True)[0]).all()


def test_dense_initialisation() -> None:
    dense = Dense("d", 20)
    assert dense.build(30, np.float32, np.random.default_rng(4)) == 20
    kernel, limit = dense.params["kernel"], math.sqrt(6 / 50)
    assert kernel.shape == (30, 20)
    assert kernel.dtype == np.float32
    assert 0.97 * limit < np.abs(kernel).max() <= limit
    assert abs(kernel.mean()) < 0.02
    assert (dense.params["bias"] == 0).all()
    dense.initialise(np.random.default_rng(5))
    assert (dense.params["kernel"] != kernel).any()
    dense.initialise(np.random.default_rng(4))
    assert (dense.params["kernel"] == kernel).all()
    assert list(Dense("d", 2, use_bias=False).params) == []


def test_dense_quantises_in_this_order() -> None:
    dense, x, grid = built(Dense("d", 3), 4), inputs(), Grid(1 / 4)
    kernel, bias = grid.round(dense.params["kernel"]), grid.round(dense.params["bias"])
    z, cache = dense.forward(x, training=True, quantiser=grid)
    assert [field for field, _ in grid.seen] == ["weight", "accumulator", "bias", "activation"]
    np.testing.assert_array_equal(z, grid.round(grid.round(x @ kernel) + bias))
    dy = np.ones_like(z)
    dx, gradients = dense.backward(cache, dy)  # through the rounded kernel, past every rounding
    np.testing.assert_array_equal(dx, dy @ kernel.T)
    np.testing.assert_array_equal(gradients["kernel"], x.T @ dy)


@pytest.mark.parametrize("name", ["tanh", "relu", "batchnorm_training", "batchnorm_inference"])
def test_other_layers_quantise_their_outputs_only(name: str) -> None:
    make, training = LAYERS[name]
    layer, x, grid = built(make(), 4), inputs(), Grid(1 / 4)
    plain, cache = layer.forward(x, training=training, update_state=False)
    rounded, quantised_cache = layer.forward(x, training=training, quantiser=grid, update_state=False)
    assert [field for field, _ in grid.seen] == ["activation"]
    np.testing.assert_array_equal(rounded, grid.round(plain))
    dy = np.ones_like(x)
    np.testing.assert_array_equal(layer.backward(quantised_cache, dy)[0], layer.backward(cache, dy)[0])


def test_batchnorm_statistics() -> None:
    layer = BatchNorm("b")
    assert layer.build(4, np.float64, np.random.default_rng()) == 4
    x = 3 + 2 * inputs(50)
    y, _ = layer.forward(x, training=True)
    np.testing.assert_allclose(y, (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-3))
    np.testing.assert_allclose(layer.state["moving_mean"], 0.01 * x.mean(axis=0))
    np.testing.assert_allclose(layer.state["moving_variance"], 0.99 + 0.01 * x.var(axis=0))
    before = {name: value.copy() for name, value in layer.state.items()}
    again, _ = layer.forward(x, training=True, update_state=False)
    np.testing.assert_array_equal(again, y)
    inference, _ = layer.forward(x, training=False)
    for name, value in before.items():
        np.testing.assert_array_equal(layer.state[name], value)
    np.testing.assert_allclose(inference, (x - before["moving_mean"]) / np.sqrt(before["moving_variance"] + 1e-3))
    layer.initialise(np.random.default_rng())
    assert (layer.state["moving_mean"] == 0).all()


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda rng: Dense("d", 0), r"units must be at least 1, not 0 \(d\)"),
        (lambda rng: Dense("", 1), "name must be a string that is not empty, not ''"),
        (lambda rng: Activation("a", "swish"), "kind must be one of linear, relu, tanh, sigmoid, softplus, not 'swish'"),
        (lambda rng: Dense("d", 1).build(0, np.float64, rng), "width must be at least 1, not 0"),
        (lambda rng: Dense("d", 1).build(2, np.int64, rng), "dtype must be float32 or float64, not int64"),
        (lambda rng: Dense("d", 1).forward(np.zeros((2, 2)), training=True), "the layer d must be built before its first"),
        (lambda rng: Dense("d", 1).initialise(rng), "the layer d must be built before it is initialised"),
        (lambda rng: BatchNorm("b").initialise(rng), "the layer b must be built before it is initialised"),
        (lambda rng: built(BatchNorm("b"), 3).forward(np.zeros((2, 2)), training=True), r"shape \(rows, 3\), not \(2, 2\)"),
        (lambda rng: split([built(Dense("d", 1), 3)], np.zeros(3)), "a flat vector must have 4 elements, not 3"),
        (lambda rng: loss_of("mse"), "loss_mode must be one of half_mse, keras_mse, softmax_cross_entropy, not 'mse'"),
    ],
)
def test_errors(action: Callable[[np.random.Generator], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        action(np.random.default_rng())


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name: str) -> None:
    loss, rng = loss_of(name), np.random.default_rng(6)
    pred, y, pred_dot = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=(4, 5, 3))
    total = float(np.sum((pred - y) ** 2))
    share = np.exp(pred) / np.exp(pred).sum(axis=1, keepdims=True)
    values = {"half_mse": total / 10, "keras_mse": total / 15, "softmax_cross_entropy": -float(np.sum(y * np.log(share))) / 5}
    assert loss.value(pred, y) == pytest.approx(values[name], rel=1e-13)
    np.testing.assert_allclose(loss.gradient(pred, y), numeric(lambda p: loss.value(p, y), pred), rtol=1e-6, atol=1e-10)
    for k in range(4):
        ends = [loss.gradient(pred + t * pred_dot[k], y) for t in (1e-5, -1e-5)]
        np.testing.assert_allclose(loss.tangent(pred, y, pred_dot)[k], (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-9)
    single = pred.astype(np.float32), y.astype(np.float32)
    assert loss.gradient(*single).dtype == np.float32
    assert isinstance(loss.value(*single), float)
    with np.errstate(over="ignore"):
        far = loss.value(np.float32(1e30) * single[0], single[1])
        assert math.isinf(far) if name != "softmax_cross_entropy" else math.isfinite(far)  # as a float32 loss is
    for wrong in (y[:, 0], y[:3], y[:, :1]):
        with pytest.raises(ValueError, match="y must have the predictions' shape"):
            loss.gradient(pred, wrong)
        with pytest.raises(ValueError, match="y must have the predictions' shape"):
            loss.value(pred, wrong)


# ---------------------------------------------------------------- a chain


@pytest.mark.parametrize("quantised", [False, True], ids=["exact", "quantised"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", LOSSES)
def test_chain_against_finite_differences(name: str, training: bool, quantised: bool) -> None:
    layers, x, y = model()
    loss = loss_of(name)
    names = ["input", *(layer.name for layer in layers)]
    quantisers = {name: Offsets(1 / 16) for name in names} if quantised else None
    theta = parameters(layers)

    def value(theta: Array) -> float:
        assign(layers, theta)
        pred, _ = forward(layers, x, training=training, quantisers=quantisers, update_state=False)
        return loss.value(pred, y)

    pred, caches = forward(layers, x, training=training, quantisers=quantisers, update_state=False)
    g = flatten(layers, backward(layers, caches, loss.gradient(pred, y)))
    np.testing.assert_allclose(g, numeric(value, theta), rtol=1e-6, atol=1e-9)


def test_chain_quantises_the_layers_named() -> None:
    layers, x, _ = model()
    grids = {name: Grid(1 / 4) for name in ("input", "dense0", "activation1")}
    exact, _ = forward(layers, x, training=True, update_state=False)
    pred, caches = forward(layers, x, training=True, quantisers=grids, update_state=False)
    assert (pred != exact).any()
    assert [field for field, _ in grids["input"].seen] == ["value"]
    np.testing.assert_array_equal(grids["input"].seen[0][1], x)
    assert [field for field, _ in grids["dense0"].seen] == ["weight", "accumulator", "bias", "activation"]
    assert [field for field, _ in grids["activation1"].seen] == ["activation"]
    np.testing.assert_array_equal(caches[-1]["x"], grids["input"].round(caches[-1]["x"]))


def test_chain_of_float32() -> None:
    layers, x, y = model(np.float32)
    pred, caches = forward(layers, x, training=True)
    g = flatten(layers, backward(layers, caches, LOSSES["half_mse"].gradient(pred, y)))
    assert pred.dtype == g.dtype == parameters(layers).dtype == np.float32
    assign(layers, np.ones(size(layers)))
    assert parameters(layers).dtype == np.float32


def test_flat_vectors_follow_the_variables() -> None:
    layers, _, _ = model()
    theta = parameters(layers)
    assert theta.shape == (size(layers),) == (4 + 4 + 20 + 5 + 5 + 5 + 20 + 8 + 2,)
    order = [(layer.name, name) for layer in layers for name in layer.params]
    assert order[:4] == [("batchnorm0", "gamma"), ("batchnorm0", "beta"), ("dense0", "kernel"), ("dense0", "bias")]
    np.testing.assert_array_equal(theta[8:28], layers[1].params["kernel"].ravel())
    stack = np.stack([theta, 2 * theta])
    np.testing.assert_array_equal(flatten(layers, split(layers, stack)), stack)
    old = layers[1].params["kernel"]
    copy = old.copy()
    assign(layers, 2 * theta)
    np.testing.assert_array_equal(parameters(layers), 2 * theta)
    np.testing.assert_array_equal(old, copy)  # replaced, not written to: caches stay valid
    theta[:] = 0
    assert parameters(layers).any()
    bare = [built(Activation("a", "tanh"), 2)]
    assert parameters(bare).shape == (0,)
    assert split(bare, np.zeros(0)) == [{}]
