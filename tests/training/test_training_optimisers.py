"""Optimisers: the rules by hand, over several steps, and on a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.optimisers import OPTIMISERS, SGD, Adam, Momentum, Nesterov, Optimiser, make
from kappa_rtl.golden.rounding import quantise, values
from support.strategies import exactly

G = [np.array([1.0, -2.0, 0.0]), np.array([0.5, 4.0, -1.0]), np.array([-3.0, 0.25, 2.0])]


def run(optimiser: Optimiser, gradients: list[np.ndarray] = G) -> list[np.ndarray]:
    return [optimiser.propose(g) for g in gradients]


def test_sgd_is_the_gradient() -> None:
    assert all(d is g for d, g in zip(run(SGD()), G, strict=True))


def test_momentum() -> None:
    first, second, third = run(Momentum(mu=0.5))
    assert first.tolist() == G[0].tolist()
    assert second.tolist() == [1.0, 3.0, -1.0]
    assert third.tolist() == [-2.5, 1.75, 1.5]


def test_nesterov() -> None:
    """D = g + mu v with the v of momentum."""
    plain, ahead = run(Momentum(mu=0.5)), run(Nesterov(mu=0.5))
    for g, v, d in zip(G, plain, ahead, strict=True):
        assert d.tolist() == (g + 0.5 * v).tolist()


def test_no_momentum_is_sgd() -> None:
    for optimiser in (Momentum(mu=0), Nesterov(mu=0)):
        assert [d.tolist() for d in run(optimiser)] == [g.tolist() for g in G]


def test_adam_against_the_sums_that_its_recursion_unrolls_to() -> None:
    b1, b2, eps = 0.75, 0.875, 0.01
    for t, d in enumerate(run(Adam(b1, b2, eps)), start=1):
        for n in range(3):
            past = [(t - 1 - k, float(G[k][n])) for k in range(t)]
            m = sum((1 - b1) * b1**age * g for age, g in past) / (1 - b1**t)
            v = sum((1 - b2) * b2**age * g * g for age, g in past) / (1 - b2**t)
            assert d[n] == pytest.approx(m / (math.sqrt(v) + eps), rel=1e-14, abs=0)


def test_the_first_step_of_adam_is_a_sign() -> None:
    np.testing.assert_allclose(Adam().propose(G[0]), [1, -1, 0], rtol=1e-7)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_state_and_reset(name: str, dtype: type) -> None:
    optimiser = make(name)
    gradients = [g.astype(dtype) for g in G]
    first = run(optimiser, gradients)
    assert {d.dtype for d in first} == {np.dtype(dtype)}
    assert set(optimiser.state) == set(optimiser.fields)
    assert all(vector.dtype == dtype and vector.shape == (3,) for vector in optimiser.state.values())
    assert optimiser.steps == 3
    kept = {field: vector.copy() for field, vector in optimiser.state.items()}
    for d in first[1:] if name != "sgd" else []:
        d *= 100
    assert all((optimiser.state[field] == vector).all() for field, vector in kept.items()), "D must not be the state"
    optimiser.reset()
    assert (optimiser.state, optimiser.steps) == ({}, 0)
    assert [d.tolist() for d in run(optimiser, gradients)] == [d.tolist() for d in run(make(name), gradients)]


def grid(fmt: Fixed, seen: list[str]):  # type: ignore[no-untyped-def]
    def onto(field: str, vector: np.ndarray) -> np.ndarray:
        seen.append(field)
        return values(quantise(vector, fmt, field), fmt)

    return onto


def test_the_state_is_rounded_after_each_advance_and_the_direction_comes_from_it() -> None:
    fmt, seen = Fixed.parse("SQ3.0"), []
    momentum, nesterov = Momentum(mu=0.5), Nesterov(mu=0.5)
    momentum.quantise = nesterov.quantise = grid(fmt, seen)
    # v: 1 -2 0; .5+.5=1, -1+4=3, -1; .5-3=-2.5 -> -2 (even), 1.5+.25=1.75 -> 2, -.5+2=1.5 -> 2
    assert [d.tolist() for d in run(momentum)] == [[1, -2, 0], [1, 3, -1], [-2, 2, 2]]
    assert run(nesterov)[2].tolist() == [-3.0 - 1, 0.25 + 1, 2.0 + 1]
    assert seen == ["momentum"] * 6
    assert momentum.propose(np.full(3, 100.0)).tolist() == [3, 3, 3], "the rails are the format's"


def test_adam_on_grids() -> None:
    seen: list[str] = []
    adam = Adam(0.5, 0.5, 0.25)
    adam.quantise = grid(Fixed.parse("SQ4.1"), seen)
    d = adam.propose(np.array([1.0, 0.5, 3.0]))
    # m = .5 .25->0 1.5, v = .5 .125->0 4.5; corrected by 1/2
    assert adam.state["adam_m"].tolist() == [0.5, 0.0, 1.5]
    assert adam.state["adam_v"].tolist() == [0.5, 0.0, 4.5]
    assert d.tolist() == [1 / 1.25, 0.0, 3 / 3.25]
    assert seen == ["adam_m", "adam_v"]


def test_adam_survives_a_grid_that_wraps() -> None:
    adam = Adam()
    adam.quantise = grid(Fixed.parse("SQ1.10,floor,wrap"), [])
    d = adam.propose(np.array([40.0, -3.0]))
    assert adam.state["adam_v"][0] < 0
    assert np.isfinite(d).all()


def test_float32_state_stays_float32_on_a_grid() -> None:
    momentum = Momentum()
    momentum.quantise = grid(Fixed.parse("SQ4.4"), [])
    assert momentum.propose(G[0].astype(np.float32)).dtype == np.float32


def test_make() -> None:
    assert {name: type(make(name)) for name in OPTIMISERS} == OPTIMISERS
    mine = Momentum(mu=0.3)
    assert make(mine) is mine
    assert make("adam") is not make("adam")
    for wrong in ("rmsprop", None, SGD):
        message = f"optimiser must be one of sgd, momentum, nesterov, adam, or an Optimiser, not {wrong!r}"
        with pytest.raises(ValueError, match=exactly(message)):
            make(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Momentum(mu=1), "mu must be at least 0 and less than 1, not 1"),
        (lambda: Nesterov(mu=-0.1), "mu must be at least 0 and less than 1, not -0.1"),
        (lambda: Momentum(mu=math.nan), "mu must be at least 0 and less than 1, not nan"),
        (lambda: Adam(beta1=1.5), "beta1 must be at least 0 and less than 1, not 1.5"),
        (lambda: Adam(beta2=1), "beta2 must be at least 0 and less than 1, not 1"),
        (lambda: Adam(eps=0), "eps must be greater than 0 and finite, not 0"),
        (lambda: SGD().propose(np.zeros((2, 2))), "g must be a flat vector of floats, not (2, 2) of float64"),
        (lambda: SGD().propose(np.zeros(2, int)), "g must be a flat vector of floats, not (2,) of int64"),
        (
            lambda: run(Momentum(), [np.zeros(2), np.zeros(3)]),
            "g must be (2,) of float64 as momentum is, not (3,) of float64",
        ),
        (
            lambda: run(Adam(), [np.zeros(2), np.zeros(2, np.float32)]),
            "g must be (2,) of float64 as adam_m is, not (2,) of float32",
        ),
    ],
)
def test_refusals(build, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=exactly(message)):
        build()
