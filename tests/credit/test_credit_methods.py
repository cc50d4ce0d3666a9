"""The credit methods and their nets: every gradient against finite differences, the interface, bad input."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.credit import activations
from kappa_rtl.golden.credit.activations import GELU, activation, normalise, normalise_slope
from kappa_rtl.golden.credit.compiled import RAIL, TERMS, lambert
from kappa_rtl.golden.credit.credit_bridge import CreditBridge
from kappa_rtl.golden.credit.lq import LinearSystem
from kappa_rtl.golden.credit.method import CODES
from kappa_rtl.golden.credit.methods import METHODS, make
from kappa_rtl.golden.credit.metrics import gamma
from kappa_rtl.golden.credit.model import ResidualMLP
from kappa_rtl.golden.credit.nets import Net
from kappa_rtl.golden.credit.network import Network, Trace
from kappa_rtl.golden.credit.state_bridge import StateBridge
from kappa_rtl.golden.credit.vector_field import VectorField

SMALL: dict[str, Any] = {"hidden": (9, 7)}


def slope(f: Callable[[np.ndarray], float], x: np.ndarray, v: np.ndarray, eps: float = 1e-5) -> float:
    """The central difference of f at x along v."""
    return (f(x + eps * v) - f(x - eps * v)) / (2 * eps)


def network(kind: str = "gelu") -> tuple[Network, Trace]:
    rng = np.random.default_rng(5)
    if kind == "lq":
        system = LinearSystem(6, 3, 2)
        return system, system.sample(rng, 4)
    model = ResidualMLP(6, 3, 2, kind=kind, seed=1)
    return model, model.trace(rng.normal(size=(4, 6)), np.array([0, 1, 1, 0]))


# ---------------------------------------------------------------- activations and nets


@pytest.mark.parametrize("name", ["gelu", "tanh", "phi:0", "phi:0.25", "phi:1"])
def test_the_derivatives_of_an_activation(name: str) -> None:
    kind, x, h = activation(name), np.linspace(-4, 4, 41), 1e-5
    y = kind.value(x)
    assert kind.slope(x, y) == pytest.approx((kind.value(x + h) - kind.value(x - h)) / (2 * h), abs=1e-9)
    assert kind.bend is not None
    up, down = (kind.slope(x + s, kind.value(x + s)) for s in (h, -h))
    assert kind.bend(x, y) == pytest.approx((up - down) / (2 * h), abs=1e-9)


@pytest.mark.parametrize("without", [False, True], ids=["compiled", "numpy"])
def test_gelu_of_float32_is_that_of_float64_to_its_last_bits(without: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if without:
        monkeypatch.setattr(activations, "gelu_loop", lambda *_: None)
    else:
        pytest.importorskip("numba")
    x = np.concatenate([np.linspace(-12, 12, 100_001), [-1e4, -300, 300, 1e4, 0, 1e-30]]).astype(np.float32)
    value, slope = GELU.value_and_slope(x)
    assert value.dtype == slope.dtype == np.float32
    wide = x.astype(float)
    exact, exact_slope = GELU.value_and_slope(wide)
    assert np.all(np.abs(value - exact) <= 2.0**-22 * np.maximum(1, np.abs(wide)))
    assert np.all(np.abs(slope - exact_slope) <= 1e-5)
    assert np.array_equal(GELU.value(x), value)
    assert np.array_equal(GELU.slope(x, value), slope)


def test_the_compiled_tanh_is_1_at_its_rail() -> None:
    """The slope of gelu beyond is then 1 and 0, however large x is."""
    pytest.importorskip("numba")
    x = np.array([1e3, 1e9, -1e3, -1e9], np.float32)
    value, slope = GELU.value_and_slope(x)
    assert value.tolist() == [1e3, 1e9, 0, 0] and slope.tolist() == [1, 1, 0, 0]


def test_the_compiled_gelu_takes_any_shape_and_layout() -> None:
    pytest.importorskip("numba")
    x = np.random.default_rng(0).normal(size=(6, 4, 10)).astype(np.float32)
    whole = GELU.value_and_slope(x)
    for part in (np.s_[::2], np.s_[:, :, ::3], np.s_[:0]):
        for given, expected in zip(GELU.value_and_slope(x[part]), whole, strict=True):
            assert np.array_equal(given, expected[part])
    assert np.array_equal(GELU.value(x.T), whole[0].T)


def test_lambert_is_the_continued_fraction_of_tanh() -> None:
    above, below = lambert(3)
    assert above == [1, Fraction(1, 15)]
    assert below == [1, Fraction(2, 5)]
    above, below = lambert(TERMS)
    x = np.linspace(-RAIL, RAIL, 10_001)
    found = x * np.polyval([float(c) for c in above[::-1]], x * x) / np.polyval([float(c) for c in below[::-1]], x * x)
    assert np.max(np.abs(found - np.tanh(x))) < 2.0**-24


def test_the_slope_of_layer_normalisation() -> None:
    rng = np.random.default_rng(0)
    h, v, w = rng.normal(size=(3, 2, 5))
    want = slope(lambda x: float((w * normalise(x).value).sum()), h, v)
    assert float((w * normalise_slope(normalise(h), v)).sum()) == pytest.approx(want, rel=1e-8)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["gelu", "tanh", "relu"])
def test_the_gradients_of_a_net(kind: str, skip: bool, layer_norm: bool) -> None:
    rng = np.random.default_rng(3)
    net = Net(5, 2, 5, hidden=(8, 7), rng=rng, layer_norm=layer_norm, skip=skip, kind=kind)
    h, code, t = rng.normal(size=(6, 5)), rng.normal(size=(6, 2)), rng.random(6)
    c, u = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
    made = net.forward(h, t, code)[1]
    by_h, by_theta = net.backward(made, c)
    assert np.array_equal(by_h, net.input_gradient(made, c))
    assert float((by_h * u).sum()) == pytest.approx(slope(lambda x: float((c * net.value(x, t, code)).sum()), h, u), rel=1e-6)
    v, theta = rng.normal(size=net.theta.size), net.theta.copy()

    def at(flat: np.ndarray) -> float:
        net.theta[:] = flat
        value = float((c * net.value(h, t, code)).sum())
        net.theta[:] = theta
        return value

    assert float(by_theta @ v) == pytest.approx(slope(at, theta, v), rel=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("kind", ["gelu", "tanh"])
def test_the_dual_pass(kind: str, layer_norm: bool) -> None:
    """The gradient by theta of values and of their tangents, at once."""
    rng = np.random.default_rng(4)
    net = Net(5, 2, 3, hidden=(8, 7), rng=rng, layer_norm=layer_norm, kind=kind)
    h, code, t = rng.normal(size=(6, 5)), rng.normal(size=(6, 2)), rng.random(6)
    c, c_dot, u = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)), rng.normal(size=(6, 5))
    found = net.tangent_gradient(net.forward(h, t, code)[1], u, c, c_dot)
    v, theta = rng.normal(size=net.theta.size), net.theta.copy()

    def at(flat: np.ndarray) -> float:
        net.theta[:] = flat
        value, made = net.forward(h, t, code)
        tangent = float((net.input_gradient(made, c_dot) * u).sum())
        net.theta[:] = theta
        return float((c * value).sum()) + tangent

    assert float(found @ v) == pytest.approx(slope(at, theta, v), rel=1e-7)


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize("kind", ["lq", "gelu", "tanh", "phi:0.5"])
def test_the_exact_credit(kind: str) -> None:
    """p_l is what running on from a changed h_l does to the loss, noise and all; mixed layers run as each alone."""
    net, trace = network(kind)
    p, n = net.exact(trace), len(trace.losses)
    rng = np.random.default_rng(1)
    sample = rng.integers(0, n, 30)
    layer = rng.integers(0, net.depth + 1, 30)
    h, v = trace.states[layer, sample], rng.normal(size=(30, net.width))
    assert net.losses_from(trace, sample, layer, h) == pytest.approx(trace.losses[sample], abs=1e-12)
    up, down = (net.losses_from(trace, sample, layer, h + s * v) for s in (1e-5, -1e-5))
    assert (up - down) / 2e-5 == pytest.approx((p[layer, sample] * v).sum(axis=1), abs=1e-8)
    below = layer < net.depth
    after = net.advance(trace, sample[below], layer[below], h[below])
    assert after == pytest.approx(trace.states[layer[below] + 1, sample[below]], abs=1e-12)


# ---------------------------------------------------------------- methods


@pytest.mark.parametrize("kind", ["lq", "gelu"])
@pytest.mark.parametrize("name", METHODS)
def test_the_interface(name: str, kind: str) -> None:
    net, trace = network(kind)
    method = make(name, net, seed=2, **(SMALL if METHODS[name].learns else {}))
    before = [array.copy() for array in (trace.states, trace.losses, trace.error, trace.delta)]
    parts = method.fit(net, trace)
    assert ("bridge" in parts) == METHODS[name].learns and np.isfinite(list(parts.values())).all()
    credit = method.credit(net, trace)
    assert credit.shape == trace.states.shape and np.isfinite(credit).all()
    for old, new in zip(before, (trace.states, trace.losses, trace.error, trace.delta), strict=True):
        assert np.array_equal(old, new)
    again = make(name, net, seed=2, **(SMALL if METHODS[name].learns else {}))
    again.fit(net, trace)
    assert np.array_equal(again.credit(net, trace), credit), "the seed decides everything"


def test_what_needs_no_net() -> None:
    net, trace = network()
    assert np.array_equal(make("bp", net).credit(net, trace), net.exact(trace))
    assert np.array_equal(make("copy", net).credit(net, trace), np.stack([trace.delta] * 4))
    dfa = make("dfa", LinearSystem(400, 1, 25))
    assert dfa.feedback.std() == pytest.approx(0.2, rel=0.02), "variance 1 / C"


def gradient_of(method: Any, step: Callable[[], float]) -> np.ndarray:
    """What ``step`` hands to the optimiser, which is kept from moving anything."""
    caught: list[np.ndarray] = []
    method.descend = caught.append
    step()
    return caught[0]


@pytest.mark.parametrize("s_type", CODES)
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (StateBridge, {}),
        (StateBridge, {"skip": True}),
        (CreditBridge, {}),
        (CreditBridge, {"terminal": 0.0}),
        (CreditBridge, {"layer_norm": False}),
        (CreditBridge, {"terminal": 4.0, "perturb": 0.5}),
        (CreditBridge, {"flow": 0.5}),
        (CreditBridge, {"flow": 2.0, "terminal": 0.0, "rows": 5}),
        (VectorField, {}),
        (VectorField, {"one_sided": True, "terminal": 0.0}),
        (VectorField, {"rows": 7}),
    ],
)
def test_an_estimator_descends_its_own_loss(kind: Any, options: dict[str, Any], s_type: str) -> None:
    """The gradient against the loss that fit reports, at fixed random numbers and fixed targets."""
    net, trace = network()
    method = kind(net, seed=0, s_type=s_type, **SMALL, **options)
    theta = method.net.theta.copy()
    state = method.rng.bit_generator.state

    def at(flat: np.ndarray) -> float:
        method.net.theta[:] = flat
        method.rng.bit_generator.state = state
        method.descend = lambda gradient: None
        loss = sum(method.fit(net, trace).values())
        if kind is CreditBridge:
            method.average[:] = theta  # the targets' net stays
        return loss

    v = np.random.default_rng(9).normal(size=theta.size)
    want = slope(at, theta, v)
    method.net.theta[:] = theta
    method.rng.bit_generator.state = state
    assert float(gradient_of(method, lambda: method.fit(net, trace)) @ v) == pytest.approx(want, rel=1e-5)


def test_the_credit_of_a_credit_bridge_is_the_gradient_of_its_value() -> None:
    net, trace = network("lq")
    method = CreditBridge(net, **SMALL)
    states, times, codes = method.everywhere(trace)
    v = np.random.default_rng(0).normal(size=states.shape)
    want = slope(lambda x: float(method.net.value(x, times, codes).sum()), states, v)
    assert float((method.credit(net, trace).reshape(states.shape) * v).sum()) == pytest.approx(want, rel=1e-7)


def test_the_slopes_of_a_vector_field() -> None:
    """On the linear system the loss is quadratic, so that a central difference is exact and a one-sided one is nearly."""
    net, trace = network("lq")
    p = net.exact(trace)
    for one_sided, near in ((False, 1e-9), (True, 0.2)):
        method = VectorField(net, one_sided=one_sided, **SMALL)
        sample, layer = method.pairs(trace)
        v = np.random.default_rng(0).normal(size=(3, len(sample), net.width))
        assert method.slopes(net, trace, v, sample, layer) == pytest.approx((v * p[layer, sample]).sum(axis=2), abs=near)


def test_the_state_bridge_starts_from_nothing_or_from_the_copy() -> None:
    """Without a skip its first credit has nothing to do with the output's; with one it is nearly that."""
    net = ResidualMLP(32, 4, 10, kind="phi:1")
    rng = np.random.default_rng(0)
    trace = net.trace(rng.normal(size=(256, 32)), rng.integers(0, 10, 256))
    plain, skip = (gamma(StateBridge(net, skip=skip).credit(net, trace), net.exact(trace)) for skip in (False, True))
    assert abs(plain) < 0.1 and skip > 0.95
    assert not StateBridge(net).skip, "as in the documents"


def test_flow_matching_is_of_the_way_that_states_go() -> None:
    """With nothing else to learn its outputs come to L (h_{l+1} - h_l), the same everywhere on a straight way."""
    system = LinearSystem(4, 2, 2, sigma=0.0, spread=0.0)
    system.A[:] = np.eye(4) * 1.5
    method, rng = CreditBridge(system, flow=1.0, layer_norm=False, hidden=(32,), learning_rate=1e-2), np.random.default_rng(0)
    first = last = 0.0
    for step in range(400):
        parts = method.fit(system, system.sample(rng, 32))
        first, last = (parts["flow"] if step == 0 else first), parts["flow"]
    assert last < 0.05 * first
    trace = system.sample(rng, 8)
    out = method.net.value(trace.states[0], np.zeros(8), trace.error)[:, 1:]
    way = (2 * 0.5 * trace.states[0]).ravel()
    assert np.corrcoef(out.ravel(), way)[0, 1] > 0.98
    assert out.ravel() @ way == pytest.approx(way @ way, rel=0.1), "L times the step, and not the step"


def test_values_of_many_draws_are_those_of_each() -> None:
    """What the draws share is computed once."""
    rng = np.random.default_rng(0)
    for skip, outputs in ((False, 1), (True, 5)):
        net = Net(5, 2, outputs, hidden=(8, 7), rng=rng, skip=skip)
        h, t, code = rng.normal(size=(3, 6, 5)), rng.random(6), rng.normal(size=(6, 2))
        assert net.value(h, t, code) == pytest.approx(np.stack([net.forward(one, t, code)[0] for one in h]), abs=1e-12)


def test_a_soft_minimum_of_equal_values_is_that_value() -> None:
    net, trace = network("lq")
    method = CreditBridge(net, spread=0.0, **SMALL)
    states, times, codes = method.everywhere(trace)
    assert method.targets(states, times, codes) == pytest.approx(method.net.value(states, times, codes)[:, 0], abs=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("nobody", {}, "method must be one of bp, dfa"),
        ("bp", {"hidden": (3,)}, "bp: .*unexpected"),
        ("state_bridge", {"s_type": "all"}, "s_type must be one of none, eT"),
        ("state_bridge", {"learning_rate": 0}, "learning_rate must be finite and greater than 0, not 0"),
        ("vector_field", {"directions": 0}, "directions must be an integer of at least 1, not 0"),
        ("vector_field", {"eps": -1.0}, "eps must be finite and greater than 0, not -1.0"),
        ("vector_field", {"hidden": (3, 0)}, r"hidden\[1\] must be an integer of at least 1, not 0"),
        ("vector_field", {"one_sided": 1}, "one_sided must be True or False, not 1"),
        ("credit_bridge", {"ema": 1.0}, "ema must be at least 0 and less than 1, not 1.0"),
        ("credit_bridge", {"terminal": float("nan")}, "terminal must be finite and at least 0, not nan"),
        ("credit_bridge", {"flow": -1.0}, "flow must be finite and at least 0, not -1.0"),
        ("state_bridge", {"skip": 1}, "skip must be True or False, not 1"),
        ("dfa", {"seed": -1}, "seed must be an integer of at least 0, not -1"),
    ],
)
def test_bad_options(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, LinearSystem(4, 2, 2), **options)
