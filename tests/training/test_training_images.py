"""Networks of images and of words: against torch, through the loops, on grids; and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.data import digits
from kappa_rtl.golden.network.embedding import Embedding
from kappa_rtl.golden.network.images import AveragePool2D, Conv2D, Flatten, MaxPool2D, Windows
from kappa_rtl.golden.network.layers import Activation, Dense, Layer, backward, flatten, forward
from kappa_rtl.golden.network.losses import loss_of
from kappa_rtl.golden.network.norms import BatchNorm, LayerNorm
from kappa_rtl.golden.network.precision import PrecisionDict
from kappa_rtl.golden.network.quantisers import layer_quantisers
from kappa_rtl.golden.training.hessian import hvp
from kappa_rtl.golden.training.lint import TrainingWarning, idle_biases
from kappa_rtl.golden.training.model import LinearBlockModel, Sequential
from kappa_rtl.golden.training.resume import Checkpoint
from kappa_rtl.golden.training.units import unit_for

VECTORS = dict(np.load(Path(__file__).parent / "chains" / "chains.npz"))

Array = np.ndarray[Any, Any]


def images() -> list[Layer]:
    return [
        Conv2D("conv0", 3, 3),
        BatchNorm("norm0"),
        Activation("relu0", "relu"),
        MaxPool2D("pool0", 2, stride=1),
        Conv2D("conv1", 2, 3, stride=2, use_bias=False),
        Activation("tanh1", "tanh"),
        AveragePool2D("pool1", 2, stride=1),
        Flatten("flatten"),
        Dense("dense0", 5),
    ]


def words() -> list[Layer]:
    return [Embedding("words", 7, 4), LayerNorm("norm0"), Flatten("flatten"), Dense("dense0", 3)]


class Given:
    """A dataset of these shapes."""

    def __init__(self, x: Array, y: Array) -> None:
        self.input_shape, self.output_shape = x.shape, y.shape


def conv(layers: int = 1, **norm: Any) -> Sequential:
    chain: list[Layer] = [
        Conv2D("conv0", 4, use_bias=False),
        BatchNorm("norm0", **norm),
        Activation("relu0", "relu"),
        MaxPool2D("pool0"),
        Flatten("flatten"),
        Dense("dense0", 10),
    ]
    return Sequential(digits(), chain=chain, shape=(8, 8, 1), seed=3, dtype=np.float64)


# ---------------------------------------------------------------- against torch


@pytest.mark.parametrize(
    ("name", "chain", "shape"), [("images", images, (6, 5, 2)), ("words", words, None)], ids=["images", "words"]
)
def test_a_network_is_torchs(name: str, chain: Callable[[], list[Layer]], shape: tuple[int, ...] | None) -> None:
    """Outputs, loss, gradient and Hessian-vector product of the same weights, float64 in both."""
    given = {key.partition("/")[2]: value for key, value in VECTORS.items() if key.startswith(name)}
    x, y = given["x"], given["y"]
    model = Sequential(Given(x, y), chain=chain(), shape=shape, dtype=np.float64, seed=0)
    model.theta = given["theta"]
    loss = loss_of("softmax_cross_entropy")
    outputs, caches = forward(model.layers, x, training=True, update_state=False)
    np.testing.assert_allclose(outputs, given["outputs"], rtol=1e-12, atol=1e-13)
    assert loss.value(outputs, y) == pytest.approx(float(given["loss"]), rel=1e-13)
    gradient = flatten(model.layers, backward(model.layers, caches, loss.gradient(outputs, y)))
    np.testing.assert_allclose(gradient, given["gradient"], rtol=1e-10, atol=1e-13)
    product = hvp(model.layers, x, y, loss, given["along"])
    np.testing.assert_allclose(product, given["product"], rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------- windows


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 5)])
def test_spreading_is_the_adjoint_of_patches(size: int, stride: int, padding: str) -> None:
    """``<patches(x), p> = <x, spread(p)>``, exactly: both are sums of integers."""
    rng = np.random.default_rng(size + 10 * stride)
    windows = Windows((5, 4, 3), size, stride, padding)
    x = rng.integers(-9, 9, (2, 3, 60)).astype(np.float64)
    patches = windows.patches(x)
    assert patches.shape == (2, 3 * math.prod(windows.counts), size**2, 3)
    given = rng.integers(-9, 9, patches.shape).astype(np.float64)
    assert np.vdot(patches, given) == np.vdot(x, windows.spread(given))


def test_a_window_is_where_it_is_said_to_be() -> None:
    """An image of 3 by 4: the second window of the second row, two pixels high and wide."""
    windows = Windows((3, 4, 1), 2, 1)
    image = np.arange(12.0)
    assert windows.counts == (2, 3)
    assert windows.patches(image[None])[4, :, 0].tolist() == [5, 6, 9, 10]
    around = Windows((3, 4, 1), 3, 2, "same")
    assert around.counts == (2, 2) and around.margins == ((1, 1), (0, 1))
    assert around.patches(image[None])[0, :, 0].tolist() == [0, 0, 0, 0, 1, 2, 4, 5, 6]


def test_the_largest_of_equal_ones_is_the_first() -> None:
    layer = MaxPool2D("p")
    layer.take((2, 2, 1))
    layer.build(4, np.float64, np.random.default_rng(0))
    y, cache = layer.forward(np.array([[1.0, 3.0, 3.0, 3.0]]), training=True)
    assert y.tolist() == [[3.0]] and layer.backward(cache, np.ones((1, 1)))[0].tolist() == [[0, 1, 0, 0]]


# ---------------------------------------------------------------- on grids


def test_a_quantised_convolution_is_that_of_integers() -> None:
    """Codes of inputs and kernel, a sum over the window, one rounding: counted with integers, pixel by pixel."""
    rng = np.random.default_rng(1)
    layer = Conv2D("conv0", 1, 2, padding="valid")
    given = Given(np.zeros((2, 18)), np.zeros((2, 4)))
    model = Sequential(given, chain=[layer, Flatten("flatten")], shape=(3, 3, 2), dtype=np.float64, seed=0)
    precision = PrecisionDict({"input": {"value": "SQ4.4"}, "conv0": {"weight": "SQ3.5", "accumulator": "SQ9.3"}})
    quantiser = layer_quantisers(model.layers, precision)["conv0"]
    codes, kernel = rng.integers(-100, 100, (2, 3, 3, 2)), rng.integers(-100, 100, (8, 1))
    layer.params["kernel"] = kernel / 32
    found, _ = layer.forward((codes / 16).reshape(2, -1), training=True, quantiser=quantiser)
    for row in range(2):
        for i in range(2):
            for j in range(2):
                total = int(np.sum(codes[row, i : i + 2, j : j + 2].ravel() * kernel[:, 0]))  # of 9 fraction bits
                rounded = (total + 32 - (total % 128 == 32)) >> 6  # to nearest, ties to even, 3 fraction bits
                assert found[row, 2 * i + j] == min(max(rounded, -(1 << 11)), (1 << 11) - 1) / 8


def test_what_a_pool_keeps_has_an_exact_product_behind_it() -> None:
    """The largest and the flattened ones are on the grid that they were on; of an embedding it is that of its table."""
    grids = {"input": {"value": "SQ4.4"}, "conv0": {"activation": "SQ5.3"}, "words": {"weight": "SQ2.6"}}
    made = layer_quantisers(
        [Conv2D("conv0", 1), Activation("r", "relu"), MaxPool2D("p"), Flatten("f"), Dense("d", 2)],
        PrecisionDict({name: grids[name] for name in ("input", "conv0")}),
    )
    assert str(made["d"].source) == "SQ5.3"  # type: ignore[union-attr]
    made = layer_quantisers([Embedding("words", 3, 2), Flatten("f"), Dense("d", 2)], PrecisionDict({"words": grids["words"]}))
    assert str(made["d"].source) == "SQ2.6"  # type: ignore[union-attr]
    made = layer_quantisers([AveragePool2D("p"), Dense("d", 2)], PrecisionDict({"input": grids["input"]}))
    assert made["d"].source is None  # type: ignore[union-attr]


# ---------------------------------------------------------------- through the loops


def test_a_convolutional_network_learns_digits() -> None:
    data, model = digits(), conv()
    X = data.inputs.reshape(-1, 8, 8, 1)
    history = model.train_instrumented(X, data.targets, 10, 64, 0.2, loss_mode="softmax_cross_entropy", drop_last=True)
    assert np.mean(np.argmax(model.predict(X), axis=1) == data.labels) > 0.9
    assert (model.predict(X) == model.predict(data.inputs)).all()
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert np.isnan(history["forward_gain_spectral"]).all()


def test_a_unit_trains_a_convolutional_network() -> None:
    """Golden, with weights of 12 bits and a residual; the weights stay on their grid."""
    data, model = digits(), conv(gain_from_one=True)
    unit = unit_for(model, {"__default__": {"weight": "SQ1.11", "bias": "SQ1.11", "value": "SQ1.11", "gradient": "SQ1.15",
                                            "update": "SQ-1.12"}}, eta=0.25, residual_bits=6)  # fmt: skip
    history = model.train_instrumented(
        data.inputs, data.targets, 10, 64, throttle=unit, loss_mode="softmax_cross_entropy", drop_last=True
    )
    assert (model.theta * 2**11 == np.round(model.theta * 2**11)).all()
    assert history["alpha"].min() > 0.01
    assert np.mean(np.argmax(model.predict(data.inputs), axis=1) == data.labels) > 0.85


def test_a_gain_from_one_is_the_same_network() -> None:
    """But for what is kept: gamma one less."""
    plain, stored = conv(), conv(gain_from_one=True)
    at = [(name, value) for name, value in stored.get_weights().items() if name.endswith("gamma")]
    assert at and all((value == 0).all() for _, value in at)
    data = digits()
    for model in (plain, stored):
        model.train_instrumented(data.inputs, data.targets, 1, 64, 0.2, loss_mode="softmax_cross_entropy", drop_last=True)
    np.testing.assert_allclose(plain.get_weights()["norm0/gamma"], stored.get_weights()["norm0/gamma"] + 1, rtol=1e-12)
    np.testing.assert_allclose(plain.predict(data.inputs), stored.predict(data.inputs), rtol=1e-9, atol=1e-12)
    block = LinearBlockModel(data, num_hidden=[4], use_batchnorm=True, gain_from_one=True)
    assert (block.get_weights()["batchnorm0/gamma"] == 0).all()


def test_a_network_is_reinitialised_and_shown() -> None:
    model = conv()
    before = model.theta
    model.theta = before + 1
    model.reinitialize_weights()
    assert (model.theta == before).all()
    text = model.summary()
    assert "(rows, 8, 8, 4)" in text and "(rows, 4, 4, 4)" in text and "input model_input (rows, 8, 8, 1)" in text


# ---------------------------------------------------------------- what is refused


def sequential(*chain: Layer, shape: tuple[int, ...] | None = (8, 8, 1)) -> Sequential:
    return Sequential(digits(), chain=chain, shape=shape, dtype=np.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sequential(Dense("d", 10)), r"d must be given vectors, not \(8, 8, 1\): a Flatten before it makes them"),
        (lambda: sequential(Conv2D("c", 1), shape=None), r"c must be given images \(height, width, channels\), not \(64,\)"),
        (lambda: sequential(Conv2D("c", 1, 9, padding="valid")), r"size must be at most that of the image, 8 by 8, not 9 \(c\)"),
        (lambda: sequential(Conv2D("c", 0)), "c: filters must be an integer of at least 1"),
        (lambda: sequential(Conv2D("c", 1, padding="full")), r"padding must be one of same, valid, not 'full' \(c\)"),
        (lambda: sequential(MaxPool2D("p", 0)), "p: size must be an integer of at least 1"),
        (lambda: sequential(Flatten("f"), shape=(8, 8)), "the last layer must have 10 outputs, as the dataset has, not 64"),
        (lambda: sequential(Conv2D("c", 10), shape=(8, 8, 1)), "must have 10 outputs, as the dataset has, not 8, 8, 10"),
        (lambda: sequential(Flatten("f"), shape=(8, 9)), r"shape must be that of rows of 64 elements, not \(8, 9\)"),
        (lambda: sequential("dense"), "chain must hold layers, not 'dense'"),
        (lambda: Sequential(digits(), chain=None), "chain must be a list of layers, not None"),  # type: ignore[arg-type]
        (lambda: Sequential(digits(), chain=Dense("d", 10)), "chain must be a list of layers, not <"),  # type: ignore[arg-type]
        (lambda: Sequential(digits(), chain=[Flatten("f")], shape=64), "shape must be that of a row, such as"),  # type: ignore[arg-type]
        (lambda: sequential(*conv().layers), "chain must hold layers of no other model, not conv0, which has been built"),
        (lambda: Conv2D("c", 1, use_bias=3), "c: use_bias must be True or False, not 3"),  # type: ignore[arg-type]
        (
            lambda: Sequential(Given(np.zeros((2, 1)), np.zeros((2, 1))), chain=[Embedding("e", 2**24 + 1, 1), Flatten("f")]),
            "vocabulary must be at most 16777216, numbers that float32 holds, not 16777217",
        ),  # type: ignore[arg-type]
        (lambda: BatchNorm("b", gain_from_one="yes"), "gain_from_one must be True or False, not 'yes'"),  # type: ignore[arg-type]
        (lambda: Conv2D("c", 1).build(4, np.float64, np.random.default_rng()), "c must be told the shape of its images before"),
        (lambda: Embedding("e", 0, 1), "e: vocabulary must be an integer of at least 1"),
        (lambda: Embedding("e", 2, 1).take((2, 2)), r"e must be given vectors of whole numbers, not \(2, 2\)"),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("wrong", [-1.0, 7.0, 0.5])
def test_an_embedding_refuses_what_is_no_row_of_it(wrong: float) -> None:
    model = Sequential(Given(np.zeros((2, 3)), np.zeros((2, 3))), chain=words(), dtype=np.float64)
    with pytest.raises(ValueError, match=rf"x must be whole numbers from 0 to 6, not {wrong} \(words\)"):
        model.predict(np.array([[0, 1, wrong]]))


def test_a_bias_in_front_of_a_batch_norm_is_named() -> None:
    """Where there is a grid; a layer between the two makes it one that counts."""
    data = digits()
    chain = [Flatten("flatten"), Dense("dense0", 10), BatchNorm("norm0")]
    model = Sequential(data, chain=chain, shape=(8, 8, 1), seed=0, dtype=np.float64)
    formats = dict.fromkeys(("weight", "bias", "value", "gradient", "update"), "SQ2.14")
    unit = unit_for(model, {"__default__": formats}, eta=0.125)
    with pytest.warns(TrainingWarning, match="dense0/bias stands in front of norm0, which takes it away"):
        model.train_instrumented(data.inputs, data.targets, 1, 1797, throttle=unit)
    assert idle_biases([chain[1], Activation("relu", "relu"), chain[2]]) == idle_biases([chain[1], LayerNorm("l")]) == []


def test_what_a_pool_or_a_flatten_gives_is_on_its_format() -> None:
    """And that is what the product behind it takes it for."""
    x = np.random.default_rng(3).normal(size=(2, 4))
    for first in (MaxPool2D("first", 1), Flatten("first")):
        chain: list[Layer] = [first, Flatten("flatten"), Dense("dense0", 2)]
        model = Sequential(Given(x, np.zeros((2, 2))), chain=chain, shape=(2, 2, 1), seed=0, dtype=np.float64)
        precision = {"first": {"activation": "SQ4.4"}, "dense0": {"weight": "SQ2.44", "accumulator": "SQ8.30"}}
        kernel = np.round(model.layers[2].params["kernel"] * 2**44) / 2**44
        expected = np.round(np.round(x * 16) / 16 @ kernel * 2**30) / 2**30
        np.testing.assert_allclose(model.predict(x, precision), expected, atol=1.1 * 2**-30)


def test_numbers_of_words_are_on_no_grid() -> None:
    x = np.array([[0.0, 6.0, 3.0]])
    model = Sequential(Given(x, np.zeros((1, 3))), chain=words(), seed=0, dtype=np.float64)
    model.predict(x, {"__default__": {"value": "SQ2.14", "weight": "SQ2.14"}})
    with pytest.raises(ValueError, match=r"precision must have no format of input\.value: words is given numbers of words"):
        model.predict(x, {"input": {"value": "SQ6.0"}})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda chain: chain.__setitem__(3, AveragePool2D("pool0")), "pool0.kind"),
        (lambda chain: chain.__setitem__(2, Activation("relu0", "tanh")), "relu0.function"),
        (lambda chain: chain.__setitem__(1, BatchNorm("norm0", gain_from_one=True)), "norm0.gain_from_one"),
    ],
)
def test_a_run_does_not_go_on_in_another_network(change: Callable[[list[Layer]], None], named: str, tmp_path: Path) -> None:
    """Although its variables have the same names and shapes."""

    def chain() -> list[Layer]:
        return [
            Conv2D("conv0", 4),
            BatchNorm("norm0"),
            Activation("relu0", "relu"),
            MaxPool2D("pool0"),
            Flatten("flatten"),
            Dense("dense0", 10),
        ]

    def train(layers: list[Layer], stop: int) -> Any:
        model = Sequential(digits(), chain=layers, shape=(8, 8, 1), seed=3, dtype=np.float64)
        kept = Checkpoint(tmp_path / "run.npz", seconds=0, keep=True)
        return model.train_instrumented(
            digits().inputs[:64], digits().targets[:64], 1, 16, 0.1, checkpoint=kept, observe=lambda step: step.step >= stop
        )

    train(chain(), 2)
    other = chain()
    change(other)
    with pytest.raises(ValueError, match=rf"checkpoint .*{named}"):
        train(other, 9)
    assert train(chain(), 9).steps >= 3


# ---------------------------------------------------------------- what single faults showed


def test_a_convolution_begins_within_the_fans_of_its_window() -> None:
    """Of 3 by 3 pixels and 2 channels to 16 filters: 18 in, 144 out."""
    layer = Conv2D("conv0", 16, 3)
    layer.take((8, 8, 2))
    layer.build(128, np.float64, np.random.default_rng(0))
    limit = math.sqrt(6 / (18 + 144))
    assert 0.97 * limit < np.abs(layer.params["kernel"]).max() <= limit and (layer.params["bias"] == 0).all()


def test_the_table_of_an_embedding_is_on_its_format() -> None:
    layer = Embedding("words", 5, 3)
    shape = layer.take((2,))
    layer.build(2, np.float64, np.random.default_rng(0))
    assert shape == (2, 3) and np.abs(layer.params["table"]).max() <= 0.05
    quantiser = layer_quantisers([layer], PrecisionDict({"words": {"weight": "SQ1.5"}}))["words"]
    y, _ = layer.forward(np.array([[4.0, 0.0]]), training=True, quantiser=quantiser)
    assert (y.reshape(2, 3) == np.round(layer.params["table"][[4, 0]] * 32) / 32).all() and (y * 32 % 1 == 0).all()


def test_one_layer_under_cross_entropy_has_no_analytic_hessian() -> None:
    """The exact one stands in its place, and changes with the weights."""
    data = digits()
    model = LinearBlockModel(data, num_hidden=[], use_bias=False, seed=0, dtype=np.float64)
    settings = {"loss_mode": "softmax_cross_entropy", "observe": lambda step: step.step >= 1}
    rows = data.inputs[:40], data.targets[:40]
    none = model.train_instrumented(*rows, 2, 40, 0.5, hessian="analytic", **settings)
    assert np.isnan(none["hessian_lambda_max"]).all()
    exact = model.train_instrumented(*rows, 2, 40, 0.5, hessian="exact", **settings)
    assert (exact["hessian_lambda_max"] == exact["autodiff_lambda_max"]).all() and len(set(exact["hessian_lambda_max"])) == 2


def test_images_come_in_their_own_shape_or_flat() -> None:
    """Also from a stream; another shape of as many pixels is refused."""
    data, model = digits(), conv()
    X = data.inputs.reshape(-1, 8, 8, 1)
    stream = [(X[:32], data.targets[:32]), (data.inputs[32:64], data.targets[32:64])]
    history = model.train_instrumented(X, data.targets, 1, 32, 0.1, loss_mode="softmax_cross_entropy", stream=stream)
    assert history.steps == 2
    with pytest.raises(ValueError, match=r"X must have shape \(rows, 64\), not \(1797, 4, 16\)"):
        model.predict(data.inputs.reshape(-1, 4, 16))
