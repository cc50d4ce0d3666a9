"""Estimators on quadratics with minibatch noise, the settings' lint and the noise watch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from kappa_rtl.golden.training.estimators import ESTIMATORS, Averaged, Estimator, HalfBatch, Naive, NoiseWatch, make
from support.strategies import exactly

ROWS = 32


@dataclass
class Run:
    """SGD on ``sum(c_i theta_i^2) / 2`` with additive noise, drawn anew for each row of each batch."""

    curvatures: np.ndarray
    noise: float
    rate: float
    chi: float | None = None
    C: list[float] = field(default_factory=list)
    alpha: list[float] = field(default_factory=list)
    message: str | None = None

    def go(self, estimator: Estimator, steps: int, seed: int = 0) -> Run:
        rng, watch = np.random.default_rng(seed), NoiseWatch()
        theta = 3 * rng.normal(size=self.curvatures.size)
        before = u_before = None
        ema, alpha = 0.0, 1.0
        for _ in range(steps):
            noise = self.noise * rng.normal(size=(ROWS, theta.size))

            def gradient_at(at: np.ndarray, rows: np.ndarray | None, noise: np.ndarray = noise) -> np.ndarray:
                return self.curvatures * at + (noise if rows is None else noise[rows]).mean(axis=0)

            g = gradient_at(theta, None)
            u = estimator.sense(g, gradient_at=gradient_at, theta=theta, previous_theta=before, rows=ROWS)
            if before is not None:
                c = float(np.linalg.norm(u - u_before) / (np.linalg.norm(theta - before) + 1e-12))
                self.C.append(c)
                told = watch.feed(c * alpha * self.rate / math.sqrt(2), float(np.linalg.norm(g)), alpha)
                self.message = self.message or told
                ema = 0.95 * ema + 0.05 * c
                if self.chi is not None:
                    alpha = min(1.0, self.chi / (self.rate * (max(c, ema) + 1e-12)))
            self.alpha.append(alpha)
            before, u_before, theta = theta, u, theta - alpha * self.rate * g
        return self


FLAT = np.full(200, 0.5)


@pytest.mark.parametrize("rate", [0.02, 0.1])
def test_naive_measures_the_noise_and_the_same_batch_the_curvature(rate: float) -> None:
    settled = slice(400, None)
    naive = np.median(Run(FLAT, 3.0, rate).go(Naive(), 600).C[settled])
    assert naive == pytest.approx(math.sqrt(2) / rate, rel=0.05)
    same = Run(FLAT, 3.0, rate).go(make("same_batch"), 600).C
    np.testing.assert_allclose(same, 0.5, rtol=1e-9)


def test_half_batch_is_unbiased_for_a_motion_of_its_own() -> None:
    """The mean of C^2 over many fresh pairs of batches; noise 20 times the true change, the naive C^2 far off."""
    rng = np.random.default_rng(0)
    steps, size, noise = 4000, 10, 2.0
    curvatures = np.linspace(0.5, 3, size)
    theta, moved = np.ones(size), np.ones(size) + 0.05 * np.linspace(-1, 1, size)
    truth = float(np.sum((curvatures * (moved - theta)) ** 2))
    products, energies = [], []
    for _ in range(steps):
        half_batch, halves = HalfBatch(), []
        u = []
        for at, before in ((theta, None), (moved, theta)):
            xi = noise * rng.normal(size=(ROWS, size))

            def gradient_at(at: np.ndarray, rows: np.ndarray | None, xi: np.ndarray = xi) -> np.ndarray:
                return curvatures * at + (xi if rows is None else xi[rows]).mean(axis=0)

            g = gradient_at(at, None)
            u.append(half_batch.sense(g, gradient_at=gradient_at, theta=at, previous_theta=before, rows=ROWS))
            halves.append((gradient_at(at, np.arange(0, ROWS, 2)), gradient_at(at, np.arange(1, ROWS, 2)), g))
        (a0, b0, g0), (a1, b1, g1) = halves
        product = float((a1 - a0) @ (b1 - b0))
        products.append(product)
        energies.append(float(np.sum((g1 - g0) ** 2)))
        assert float(np.sum((u[1] - u[0]) ** 2)) == pytest.approx(max(0.0, product), rel=1e-9, abs=1e-12)
    error = float(np.std(products)) / math.sqrt(steps)
    assert abs(np.mean(products) - truth) < 3 * error
    assert 3 * error < 0.5 * np.mean(energies), "the test can tell them apart"
    assert np.mean(energies) - truth > 20 * error


def test_half_batch_where_the_noise_makes_the_motion() -> None:
    """What its docstring says remains: C^2 = c^2 + 2 c / (alpha eta), and no 2 / (alpha eta)^2."""
    rate, c = 0.1, 0.5
    squares = np.square(Run(np.full(2000, c), 3.0, rate).go(make("half_batch"), 500).C[250:])
    assert np.mean(squares) == pytest.approx(c**2 + 2 * c / rate, rel=0.1)


@pytest.mark.parametrize("name", ["naive", "same_batch", "half_batch"])
def test_without_noise_all_measure_the_curvature(name: str) -> None:
    np.testing.assert_allclose(Run(FLAT, 0.0, 0.1).go(make(name), 50).C, 0.5, rtol=1e-9)


def test_who_freezes() -> None:
    """chi below sqrt(2) freezes the naive run, and neither that measured on one batch nor that on halves."""
    curvatures = np.linspace(0.05, 2, 64)
    assert Run(curvatures, 3.0, 0.3, chi=1.0).go(Naive(), 400).alpha[-1] < 1e-3
    for name in ("same_batch", "half_batch", "momentum"):
        assert Run(curvatures, 3.0, 0.3, chi=1.0).go(make(name), 400).alpha[-1] > 0.5


# ---------------------------------------------------------------- by hand


def feed(estimator: Estimator, gradients: list[list[float]], others: dict[float, list[float]] | None = None) -> list[list[float]]:
    """u for gradients at theta = 0, 1, 2, ...; ``others`` are the gradients that the present batch has at them."""
    given, made, before = others or {}, [], None
    for step, g in enumerate(gradients):
        theta = np.full(2, float(step))
        made.append(
            estimator.sense(
                np.array(g),
                gradient_at=lambda at, rows: np.array(given[float(at[0])]),
                theta=theta,
                previous_theta=before,
                rows=4,
            ).tolist()
        )
        before = theta
    return made


def test_naive_and_averaged_by_hand() -> None:
    gradients = [[1.0, 2.0], [3.0, 0.0], [-1.0, 4.0]]
    assert feed(Naive(), gradients) == gradients
    assert feed(Averaged(mu=0.5), gradients) == [[1, 2], [2, 1], [0.5, 2.5]]


def test_same_batch_by_hand() -> None:
    got = feed(make("same_batch"), [[1.0, 2.0], [3.0, 0.0], [-1.0, 4.0]], {0.0: [2.0, 2.0], 1.0: [0.0, 1.0]})
    assert got == [[1, 2], [2, 0], [1, 3]]


def half_gradients(rows: np.ndarray | None, even: list[float], odd: list[float]) -> np.ndarray:
    if rows is None:
        return (np.array(even) + odd) / 2
    assert rows.tolist() in ([0, 2, 4], [1, 3])
    return np.array(even if rows[0] == 0 else odd)


def test_half_batch_by_hand() -> None:
    """d_a = (3, 0), d_b = (3, 8): the product is 9, the change of g (3, 4) long 5, so u moves by 3/5 of it; then apart."""
    estimator, u, before = HalfBatch(), [], None
    for even, odd in (([0.0, 0.0], [1.0, 1.0]), ([3.0, 0.0], [4.0, 9.0]), ([4.0, 0.0], [3.0, 9.0]), ([4.0, 0.0], [3.0, 9.0])):
        theta = np.array([len(u), 0.0])
        g = half_gradients(None, even, odd)
        u.append(
            estimator.sense(
                g,
                gradient_at=lambda at, rows, e=even, o=odd: half_gradients(rows, e, o),
                theta=theta,
                previous_theta=before,
                rows=5,
            )
        )
        before = theta
    np.testing.assert_allclose(u[1] - u[0], [1.8, 2.4], rtol=1e-14)
    assert (u[2] == u[1]).all() and (u[3] == u[2]).all(), "halves that disagree, and a gradient that stays"


@pytest.mark.parametrize("name", ESTIMATORS)
def test_dtype_and_a_new_start(name: str) -> None:
    estimator, g = make(name), np.array([1.0, -2.0], np.float32)
    theta = np.zeros(2, np.float32)

    def gradient_at(at: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        return g + at

    def sense(at: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        return estimator.sense(g + at, gradient_at=gradient_at, theta=at, previous_theta=before, rows=4)

    assert sense(theta, None).tolist() == g.tolist()
    assert sense(theta + 1, theta).dtype == np.float32
    assert sense(theta + 2, None).tolist() == (g + 2).tolist(), "without weights before there is nothing to go on from"
    assert make(name).sense(g, gradient_at=gradient_at, theta=theta, previous_theta=theta, rows=4).tolist() == g.tolist()


def test_make_and_refusals() -> None:
    assert {name: type(make(name)) for name in ESTIMATORS} == ESTIMATORS
    mine = Averaged(mu=0.5)
    assert make(mine) is mine
    with pytest.raises(
        ValueError, match=exactly("estimator must be one of naive, same_batch, half_batch, momentum, or an Estimator, not 'best'")
    ):
        make("best")
    with pytest.raises(ValueError, match=exactly("mu must be at least 0 and less than 1, not 1")):
        Averaged(mu=1)
    with pytest.raises(ValueError, match=exactly("rows must be at least 2 for half_batch, not 1")):
        HalfBatch().sense(np.ones(2), gradient_at=lambda at, rows: at, theta=np.ones(2), previous_theta=None, rows=1)


# ---------------------------------------------------------------- warnings


SPREAD = np.linspace(0.05, 2, 64)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.8])
def test_the_watch_on_noisy_problems(rate: float) -> None:
    """Noise is in C of every one of these runs; it is told of where alpha goes down with it, and nowhere else."""
    message = Run(SPREAD, 3.0, rate, 1.0).go(Naive(), 300).message
    assert message is not None
    assert message.startswith("minibatch noise has taken over the curvature and alpha has fallen to ")
    for chi in (None, 1.5):
        run = Run(SPREAD, 3.0, rate, chi).go(Naive(), 300)
        assert run.message is None and run.alpha[-1] > 0.01


@pytest.mark.parametrize("chi", [None, 1.0, 1.5])
@pytest.mark.parametrize("rate", [0.1, 0.3, 0.6, 0.75, 0.9, 0.95])
@pytest.mark.parametrize("curvatures", [np.array([2.0]), np.full(8, 2.0), SPREAD], ids=["one", "flat", "spread"])
def test_the_watch_on_clean_problems(chi: float | None, rate: float, curvatures: np.ndarray) -> None:
    """Rates up to the edge of stability, with an index within the band for a single mode from a rate of 0.53 on."""
    assert Run(curvatures, 0.0, rate, chi).go(Naive(), 100).message is None


def test_the_watch_where_a_clean_run_has_the_index_of_noise() -> None:
    """Throttled from twice the stable rate: C * alpha * eta is chi by law, and only the shrinking gradient tells."""
    run = Run(np.array([2.0]), 0.0, 1.5, 1.5).go(Naive(), NoiseWatch.window + 2)
    indices = np.array(run.C) * run.alpha[:-1] * 1.5 / math.sqrt(2)
    np.testing.assert_allclose(indices[1:], 1.5 / math.sqrt(2), rtol=1e-3)
    assert run.message is None


def test_the_watch_tells_once_and_not_early() -> None:
    watch = NoiseWatch()
    told = [watch.feed(1.0, 2.0, 0.5**step) is not None for step in range(100)]
    assert told == [step == NoiseWatch.window - 1 for step in range(100)]
    assert watch.told
    floor = NoiseWatch(least=0.01)
    assert [floor.feed(1.0, 2.0, 0.01) is not None for _ in range(30)].index(True) == NoiseWatch.window - 1


@pytest.mark.parametrize(
    ("index", "norm", "alpha"),
    [
        (0.5, 1.0, 1e-4),
        (1.5, 1.0, 1e-4),
        (math.nan, 1.0, 1e-4),
        (1.0, math.inf, 1e-4),
        (1.0, 0.0, 1e-4),
        (1.0, 1.0, 0.5),
        (1.0, 1.0, 1e-4),
    ],
)
def test_the_watch_is_silent(index: float, norm: float, alpha: float) -> None:
    watch = NoiseWatch()
    assert all(watch.feed(index, norm, alpha) is None for _ in range(60)), "neither without noise, nor where alpha keeps"
