"""The residual network: its gradient, what diagnostics ask of it, bad input; and the metrics on known cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.credit.lq import LinearSystem
from kappa_rtl.golden.credit.metrics import gamma, measure, nudge, rho
from kappa_rtl.golden.credit.model import ResidualMLP, unit_rms

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(7, 5)), RNG.integers(0, 3, 7)


@pytest.mark.parametrize("final_norm", [False, True])
@pytest.mark.parametrize("inputs", [None, 5])
@pytest.mark.parametrize("kind", ["gelu", "tanh", "phi:0.25"])
@pytest.mark.parametrize(
    "form", [{}, {"matrices": 2}, {"matrices": 2, "residual_add": False, "w2_std": 0.5}], ids=["one", "two", "replacing"]
)
def test_the_field_of_exact_credit_is_the_gradient(form: dict[str, Any], kind: str, inputs: int | None, final_norm: bool) -> None:
    model = ResidualMLP(5 if inputs is None else 6, 3, 3, inputs=inputs, kind=kind, final_norm=final_norm, seed=2, **form)
    trace = model.trace(X, Y)
    found = model.field(trace, model.exact(trace), normalised=False)
    theta, want = model.theta.copy(), np.empty(model.theta.size)
    for i in range(theta.size):
        losses = []
        for step in (1e-5, -1e-5):
            moved = theta.copy()
            moved[i] += step
            model.theta = moved
            losses.append(model.trace(X, Y).losses.mean())
        want[i] = (losses[0] - losses[1]) / 2e-5
    model.theta = theta
    assert found == pytest.approx(want, rel=1e-7, abs=1e-8)
    parts = model.split(want)
    blocks = [parts[name].ravel() for name in parts if name not in ("embedding", "head", "offset")]
    assert model.gradient(X, Y) == pytest.approx(np.concatenate(blocks), rel=1e-7, abs=1e-8)


def test_a_field_normalised_and_clipped() -> None:
    model = ResidualMLP(5, 3, 3, matrices=2, w2_std=0.3, seed=2)
    trace = model.trace(X, Y)
    exact = model.exact(trace)
    assert np.sqrt(np.square(unit_rms(exact)).mean(axis=2)) == pytest.approx(1, abs=1e-3)
    plain = model.field(trace, exact)
    assert np.array_equal(plain, model.field(trace, unit_rms(exact), normalised=False))
    assert plain == pytest.approx(model.field(trace, exact * 1e3), abs=1e-4), "the length of a credit does not count"
    clipped = model.split(model.field(trace, exact, clip=0.1))
    for layer in range(3):
        parts = np.concatenate([clipped[name][layer].ravel() for name in ("kernel", "bias", "kernel2", "bias2")])
        assert np.linalg.norm(parts) == pytest.approx(0.1)
    assert np.array_equal(clipped["head"], model.split(plain)["head"])


def test_what_diagnostics_ask_for() -> None:
    model = ResidualMLP(5, 3, 3, seed=2)
    trace = model.trace(X, Y)
    assert np.array_equal(model.hidden_states(X), trace.states)
    assert np.array_equal(model.hidden_gradients(X, Y), model.exact(trace) / len(X)), "of the mean loss"
    assert model.gradient(X, Y).shape == (2 * 3 * 5 * 6,)
    assert model.accuracy(X, Y) == np.mean((trace.states[-1] @ model.parts["head"].T).argmax(axis=1) == Y)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0}, "width must be an integer of at least 1, not 0"),
        ({"depth": True}, "depth must be an integer of at least 1, not True"),
        ({"kind": "phi:2"}, "activation must be gelu, tanh, relu or phi:ALPHA with ALPHA from 0 to 1, not 'phi:2'"),
        ({"kind": "sin"}, "activation must be"),
        ({"gain": 0}, "gain must be finite and greater than 0, not 0"),
        ({"w2_std": -1}, "w2_std must be finite and greater than 0, not -1"),
        ({"matrices": 3}, "matrices must be 1 or 2, not 3"),
        ({"matrices": True}, "matrices must be 1 or 2, not True"),
        ({"residual_add": 0}, "residual_add must be True or False, not 0"),
        ({"final_norm": 1}, "final_norm must be True or False, not 1"),
        ({"seed": -1}, "seed must be an integer of at least 0, not -1"),
    ],
)
def test_a_bad_model(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualMLP(**{"width": 5, "depth": 2, "classes": 3} | options)


def test_bad_data() -> None:
    model = ResidualMLP(5, 2, 3)
    for x, y, message in (
        (X[:, :4], Y, r"x must have shape \(rows, 5\), not \(7, 4\)"),
        (X, Y[:3], r"y must be 7 integers, not int64 of \(3,\)"),
        (X, Y + 3, r"y must be from 0 to 2, not 3..5"),
        (X * np.inf, Y, "must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            model.trace(x, y)
    with pytest.raises(ValueError, match=r"theta must have shape \(138,\), not \(3,\)"):
        model.theta = np.zeros(3)


# ---------------------------------------------------------------- metrics


def test_the_metrics_of_exact_credit() -> None:
    """Cosine 1, correlation 1, and a nudge that is eta times the mean squared credit."""
    system = LinearSystem(8, 3, 2)
    trace = system.sample(np.random.default_rng(0), 50)
    exact = system.exact(trace)
    found = measure(system, trace, exact, np.random.default_rng(1))
    assert found["gamma"] == pytest.approx(1) and found["rho"] == pytest.approx(1, abs=1e-4)
    squares = float(np.square(exact[:-1]).sum(axis=2).mean())
    assert found["nudge"] == pytest.approx(-0.01 * squares, rel=0.05)
    against = measure(system, trace, -2 * exact, np.random.default_rng(1))
    assert against["gamma"] == pytest.approx(-1) and against["rho"] == pytest.approx(-1, abs=1e-4) and against["nudge"] > 0


def test_the_metrics_leave_the_last_state_out() -> None:
    exact = RNG.normal(size=(3, 4, 5))
    credit = exact.copy()
    credit[-1] *= -1
    assert gamma(credit, exact) == pytest.approx(1)


def test_the_metrics_of_nothing() -> None:
    system = LinearSystem(8, 3, 2)
    trace = system.sample(np.random.default_rng(0), 5)
    nothing = np.zeros_like(trace.states)
    assert gamma(nothing, system.exact(trace)) == 0
    assert rho(system, trace, nothing, np.random.default_rng(0)) == 0
    assert nudge(system, trace, nothing) == pytest.approx(0, abs=1e-12)
    half = system.exact(trace)
    half[0] = 0  # one layer of three without credit
    assert gamma(half, system.exact(trace)) == pytest.approx(2 / 3)


def test_a_copy_is_nearly_exact_near_the_identity() -> None:
    """The cosine falls by 1 / sqrt(1 + c^2) a layer: why no table of this system stands without the copy."""
    system = LinearSystem(64, 12, 10, spread=0.1)
    trace = system.sample(np.random.default_rng(0), 200)
    copied = np.repeat(trace.delta[None], 13, axis=0)
    want = np.mean([1.01 ** (-k / 2) for k in range(1, 13)])
    assert gamma(copied, system.exact(trace)) == pytest.approx(want, abs=0.01)
