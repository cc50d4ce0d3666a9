"""Hessian-vector products, the exact Hessian and its extremes by Lanczos iteration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.layers import Activation, Dense, Layer, assign, backward, flatten, forward, parameters
from kappa_rtl.golden.network.losses import LOSSES
from kappa_rtl.golden.network.norms import BatchNorm
from kappa_rtl.golden.training import hessian
from kappa_rtl.golden.training.hessian import analytic, exact, extremes, hvp, lambda_max, lambda_min, lanczos

Array = np.ndarray[Any, Any]
HALF = LOSSES["half_mse"]


class Grid:
    """Every field to the nearest odd 1/32: none to zero, where relu has its kink."""

    def __call__(self, field: str, tensor: Array) -> Array:
        return (np.floor(tensor * 16) + 0.5) / 16

    def product(self, x: Array, kernel: Array) -> Array:
        return self("accumulator", x @ kernel)


class Offsets(Grid):
    """A grid whose roundings are frozen at first use: its true derivative is the straight-through one."""

    def __init__(self) -> None:
        self.offsets: dict[str, Array] = {}

    def __call__(self, field: str, tensor: Array) -> Array:
        if field not in self.offsets:
            self.offsets[field] = super().__call__(field, tensor) - tensor
        return tensor + self.offsets[field]


def net(kind: str, batchnorm: bool, *, dtype: Any = np.float64, rows: int = 9) -> tuple[list[Layer], Array, Array]:
    """Dense, activation, batch norm if wanted, Dense; variables and statistics that are nothing special; a batch."""
    rng = np.random.default_rng(7)
    layers: list[Layer] = [Dense("dense0", 5), Activation("activation0", kind)]
    if batchnorm:
        layers.insert(0, BatchNorm("batchnorm"))
        layers.append(BatchNorm("batchnorm0"))
    layers.append(Dense("dense1", 2))
    width = 4
    for layer in layers:
        width = layer.build(width, dtype, rng)
        for store in (layer.params, layer.state):
            for name, value in store.items():
                store[name] = (value + 0.5 * rng.random(value.shape)).astype(dtype)
    return layers, rng.normal(size=(rows, 4)).astype(dtype), rng.normal(size=(rows, 2)).astype(dtype)


def linear(widths: tuple[int, int] = (4, 3), *, spectrum: list[float] | None = None) -> tuple[list[Layer], Array, Array]:
    """One Dense without bias, X^T X / rows having this spectrum if given."""
    rng = np.random.default_rng(8)
    dense = Dense("dense0", widths[1], use_bias=False)
    dense.build(widths[0], np.float64, rng)
    x = rng.normal(size=(20, widths[0]))
    if spectrum is not None:
        u, _, v = np.linalg.svd(x, full_matrices=False)
        x = u @ np.diag(np.sqrt(20 * np.asarray(spectrum))) @ v
    return [dense], x, rng.normal(size=(20, widths[1]))


@pytest.mark.parametrize("quantised", [False, True], ids=["exact", "quantised"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(
    ("kind", "batchnorm"),
    [("linear", False), ("relu", True), ("tanh", False), ("tanh", True), ("sigmoid", True), ("softplus", True)],
)
def test_hvp_against_finite_differences_of_the_gradient(kind: str, batchnorm: bool, training: bool, quantised: bool) -> None:
    layers, x, y = net(kind, batchnorm)
    loss = LOSSES["keras_mse" if kind == "tanh" else "half_mse"]
    names = ["input", *(layer.name for layer in layers)]
    frozen = {name: Offsets() for name in names} if quantised else None
    theta = parameters(layers)
    vectors = np.random.default_rng(9).normal(size=(3, len(theta)))

    def gradient(theta: Array) -> Array:
        assign(layers, theta)
        pred, caches = forward(layers, x, training=training, quantisers=frozen, update_state=False)
        return flatten(layers, backward(layers, caches, loss.gradient(pred, y)))

    gradient(theta)
    step = 1e-5
    expected = np.array([(gradient(theta + step * v) - gradient(theta - step * v)) / (2 * step) for v in vectors])
    assign(layers, theta)
    states = [dict(layer.state) for layer in layers]
    grids = dict.fromkeys(names, Grid()) if quantised else None
    got = hvp(layers, x, y, loss, vectors, quantisers=grids, training=training)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-8)
    for layer, state in zip(layers, states, strict=True):
        assert all(layer.state[name] is value for name, value in state.items())


def test_hvp_of_several_is_that_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    layers, x, y = net("tanh", True)
    vectors = np.random.default_rng(10).normal(size=(7, len(parameters(layers))))
    together = hvp(layers, x, y, HALF, vectors)
    assert together.shape == vectors.shape
    for vector, product in zip(vectors, together, strict=True):
        np.testing.assert_allclose(hvp(layers, x, y, HALF, vector), product, rtol=1e-12, atol=1e-13)
    monkeypatch.setattr(hessian, "CHUNK", 3 * 9 * 5)  # three at a time
    np.testing.assert_allclose(hvp(layers, x, y, HALF, vectors), together, rtol=1e-12, atol=1e-13)
    assert hvp(layers, x, y, HALF, vectors[:0]).shape == (0, vectors.shape[1])


def test_hvp_dtypes() -> None:
    layers, x, y = net("tanh", True, dtype=np.float32)
    vectors = np.random.default_rng(10).normal(size=(2, len(parameters(layers))))
    single = hvp(layers, x, y, HALF, vectors.astype(np.float32))
    double = hvp(layers, x, y, HALF, vectors)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    wide, _, _ = net("tanh", True)
    assign(wide, parameters(layers).astype(np.float64))
    reference = hvp(wide, x.astype(np.float64), y.astype(np.float64), HALF, vectors)
    scale = np.abs(reference).max()
    np.testing.assert_allclose(single, reference, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(double, reference, rtol=0, atol=1e-6 * scale)
    assert lambda_max(layers, x, y, HALF) == pytest.approx(lambda_max(wide, x, y, HALF), rel=1e-5)


def test_hvp_of_a_vector_of_the_wrong_length() -> None:
    layers, x, y = linear()
    with pytest.raises(ValueError, match="a flat vector must have 12 elements, not 11"):
        hvp(layers, x, y, HALF, np.zeros((2, 11)))


def test_hvp_where_layers_without_variables_come_first_or_alone() -> None:
    rng = np.random.default_rng(11)
    bare = Activation("activation", "tanh")
    bare.build(4, np.float64, rng)
    layers, x, y = linear()
    vectors = rng.normal(size=(2, 12))
    expected = hvp(layers, np.tanh(x), y, HALF, vectors)
    np.testing.assert_allclose(hvp([bare, *layers], x, y, HALF, vectors), expected, rtol=1e-13)
    assert hvp([bare], x, x, HALF, np.zeros((3, 0))).shape == (3, 0)
    assert exact([bare], x, x, HALF).shape == (0, 0)


@pytest.mark.parametrize("loss_mode", ["half_mse", "keras_mse"])
def test_exact_equals_the_analytic_hessian_of_one_layer(loss_mode: str) -> None:
    layers, x, y = linear()
    full = exact(layers, x, y, LOSSES[loss_mode])
    factor = {"half_mse": 1, "keras_mse": 2 / 3}[loss_mode]
    np.testing.assert_allclose(full, factor * np.kron(x.T @ x / 20, np.eye(3)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(np.linalg.eigvalsh(full), analytic(x, 3, loss_mode), rtol=1e-12)


@pytest.mark.parametrize("batchnorm", [False, True])
def test_exact_is_symmetric_and_agrees_with_the_products(batchnorm: bool) -> None:
    layers, x, y = net("tanh", batchnorm)
    full = exact(layers, x, y, HALF)
    assert (full == full.T).all()
    assert full.dtype == np.float64
    raw = hvp(layers, x, y, HALF, np.eye(len(full)))
    np.testing.assert_allclose(raw, raw.T, atol=1e-14 * np.abs(full).max() * 10)
    v = np.random.default_rng(12).normal(size=len(full))
    np.testing.assert_allclose(full @ v, hvp(layers, x, y, HALF, v), rtol=1e-11, atol=1e-12)


def test_exact_refuses_large_models() -> None:
    layers, x, y = linear((50, 100))
    with pytest.raises(ValueError, match="layers must have at most 4000 parameters for the exact Hessian, not 5000"):
        exact(layers, x, y, HALF)


def test_analytic() -> None:
    x = np.array([[3.0, 0.0], [0.0, 1.0]], np.float32)
    np.testing.assert_allclose(analytic(x, 2, "half_mse"), [0.5, 0.5, 4.5, 4.5])
    np.testing.assert_allclose(analytic(x, 4, "keras_mse"), [0.25] * 4 + [2.25] * 4)
    assert analytic(np.ones((3, 2)), 1, "half_mse")[0] == 0  # a rank too few: none negative
    assert np.isnan(analytic(np.array([[math.inf]]), 2, "half_mse")).all()
    with pytest.raises(ValueError, match="loss_mode must be one of half_mse, keras_mse, softmax_cross_entropy, not 'mse'"):
        analytic(x, 2, "mse")
    with pytest.raises(ValueError, match="outputs must be at least 1, not 0"):
        analytic(x, 0, "half_mse")
    with pytest.raises(ValueError, match=r"inputs must be a matrix with a row a sample, not of shape \(3,\)"):
        analytic(np.zeros(3), 1, "half_mse")


def test_extremes() -> None:
    assert extremes([1.0, -3.0, 2.0]) == (2.0, -3.0, 3.0)
    assert extremes(np.array([5.0])) == (5.0, 5.0, 5.0)
    assert all(math.isnan(end) for end in extremes([1.0, math.nan]))
    assert all(math.isnan(end) for end in extremes([1.0, math.inf]))
    with pytest.raises(ValueError, match="eigenvalues must not be empty"):
        extremes([])


# ---------------------------------------------------------------- Lanczos


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(("kind", "batchnorm"), [("tanh", False), ("tanh", True), ("relu", True), ("softplus", False)])
def test_lanczos_finds_the_exact_ends(kind: str, batchnorm: bool, training: bool) -> None:
    layers, x, y = net(kind, batchnorm)
    expected = extremes(np.linalg.eigvalsh(exact(layers, x, y, HALF, training=training)))
    found = lanczos(layers, x, y, HALF, training=training)
    assert found.converged
    np.testing.assert_allclose(found.extremes, expected, rtol=1e-9)
    assert lambda_max(layers, x, y, HALF, training=training) == pytest.approx(expected.lambda_max, rel=1e-9)
    assert lambda_min(layers, x, y, HALF, training=training) == pytest.approx(expected.lambda_min, rel=1e-9)


@pytest.mark.parametrize(
    "spectrum", [[2.0, 2.0, 2.0, 0.5], [3.0, 3.0, 3.0, 3.0], [1.0, 0.0, 0.0, 0.0], [0.0] * 4, [4.0, 3, 2, 1]]
)
def test_lanczos_where_eigenvalues_coincide(spectrum: list[float]) -> None:
    layers, x, y = linear(spectrum=spectrum)
    found = lanczos(layers, x, y, HALF)
    assert found.converged
    assert found.iterations <= len(set(spectrum)) + 1  # it has met every eigenvalue that there is
    np.testing.assert_allclose(found.extremes, (max(spectrum), min(spectrum), max(spectrum)), rtol=1e-9, atol=1e-12)


def test_lanczos_where_a_negative_eigenvalue_is_the_largest() -> None:
    layers, x, y = net("softplus", False)
    # Where curved units are pushed up against a target far away, the bend term outweighs the positive one.
    y = -50 * np.ones_like(y)
    layers[-1].params["kernel"] = -np.abs(layers[-1].params["kernel"])
    expected = extremes(np.linalg.eigvalsh(exact(layers, x, y, HALF)))
    assert expected.lambda_min < -expected.lambda_max < 0
    found = lanczos(layers, x, y, HALF).extremes
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.spectral_norm == -found.lambda_min
    assert lambda_max(layers, x, y, HALF) == pytest.approx(expected.lambda_max, rel=1e-9)


def test_lanczos_through_quantisers() -> None:
    layers, x, y = net("tanh", True)
    grids = {layer.name: Grid() for layer in layers}
    expected = extremes(np.linalg.eigvalsh(exact(layers, x, y, HALF, quantisers=grids)))
    np.testing.assert_allclose(lanczos(layers, x, y, HALF, quantisers=grids).extremes, expected, rtol=1e-9)
    assert expected.lambda_max != pytest.approx(lambda_max(layers, x, y, HALF), rel=1e-4)


def test_lanczos_of_a_wider_net() -> None:
    rng = np.random.default_rng(13)
    layers: list[Layer] = [Dense("dense0", 24), Activation("activation0", "tanh"), Dense("dense1", 4)]
    width = 16
    for layer in layers:
        width = layer.build(width, np.float64, rng)
    x, y = rng.normal(size=(40, 16)), rng.normal(size=(40, 4))
    expected = extremes(np.linalg.eigvalsh(exact(layers, x, y, HALF)))
    found = lanczos(layers, x, y, HALF)
    assert found.converged
    assert found.iterations < 150 < len(parameters(layers))
    np.testing.assert_allclose(found.extremes, expected, rtol=1e-7)


def test_lanczos_is_reproducible_and_says_if_it_was_cut_short() -> None:
    layers, x, y = net("tanh", True)
    assert lanczos(layers, x, y, HALF, seed=3) == lanczos(layers, x, y, HALF, seed=3)
    short = lanczos(layers, x, y, HALF, iterations=2)
    assert not short.converged
    assert short.iterations == 2
    whole = lanczos(layers, x, y, HALF).extremes
    assert whole.lambda_min < short.extremes.lambda_min < short.extremes.lambda_max < whole.lambda_max


def test_lanczos_of_what_is_no_number() -> None:
    layers, x, y = net("tanh", False)
    found = lanczos(layers, math.nan * x, y, HALF)
    assert not found.converged
    assert all(math.isnan(end) for end in found.extremes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ends": "all"}, "ends must be one of max, min, both, not 'all'"),
        ({"iterations": 0}, "iterations must be at least 1, not 0"),
        ({"tolerance": 0.0}, "tolerance must be greater than 0, not 0.0"),
    ],
)
def test_lanczos_errors(options: dict[str, Any], message: str) -> None:
    layers, x, y = linear()
    with pytest.raises(ValueError, match=message):
        lanczos(layers, x, y, HALF, **options)
    bare = Activation("activation", "tanh")
    bare.build(4, np.float64, np.random.default_rng())
    with pytest.raises(ValueError, match="layers must have at least 1 parameter, not 0"):
        lanczos([bare], x, x, HALF)
