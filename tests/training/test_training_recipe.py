"""What a recipe adds between the gradient and the unit: against the same written out by hand."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network import layers as chain
from kappa_rtl.golden.network.data import synthetic
from kappa_rtl.golden.network.losses import loss_of
from kappa_rtl.golden.network.optimisers import make
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.instrumented import Step
from kappa_rtl.golden.training.loop import TrainState
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.golden.training.schedules import Cosine, Stairs, Warmup
from kappa_rtl.golden.training.schedules import make as make_schedule
from support.strategies import exactly

pytestmark = pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.instrumented.TrainingWarning")

PROBLEM = synthetic(0, 65)
RATE = 0.2


def build(**more: Any) -> LinearBlockModel:
    return LinearBlockModel(PROBLEM, **{"num_hidden": [3], "activation": "tanh", "seed": 1, "dtype": np.float64} | more)


def fit(model: LinearBlockModel, **more: Any) -> Any:
    settings: dict[str, Any] = {"epochs": 2, "batch_size": 32, "learning_rate": RATE, "shuffle": False, "hessian": "none"}
    return model.train_instrumented(PROBLEM.X, PROBLEM.Y, **settings | more)


def by_hand(optimiser: str, *, decay: float, mode: str, norm: float, decayed: tuple[str, ...]) -> np.ndarray:
    """theta after two epochs: the loop of a text book."""
    model, rule, loss = build(), make(optimiser), loss_of("half_mse")
    mask = np.concatenate(
        [np.full(v.place.stop - v.place.start, v.name in decayed, float) for v in chain.variables(model.layers)]
    )
    for start in (0, 32, 64) * 2:
        x, y = PROBLEM.X[start : start + 32], PROBLEM.Y[start : start + 32]
        outputs, caches = chain.forward(model.layers, x, training=True)
        g = chain.flatten(model.layers, chain.backward(model.layers, caches, loss.gradient(outputs, y)))
        g = g * min(1.0, norm / float(np.linalg.norm(g)))
        shrink = decay * mask * model.theta
        d = rule.propose(g + shrink) if mode == "coupled" else rule.propose(g) + shrink
        model.theta = model.theta - RATE * d
    return model.theta


@pytest.mark.parametrize("optimiser", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("mode", ["coupled", "decoupled"])
@pytest.mark.parametrize(
    ("exclude", "decayed"),
    [(None, ("kernel",)), ((), ("kernel", "bias")), (["*/bias", "dense?/k*"], ())],
    ids=["default", "none", "all"],
)
def test_clipping_and_decay_by_hand(optimiser: str, mode: str, exclude: Any, decayed: tuple[str, ...]) -> None:
    want = by_hand(optimiser, decay=0.25, mode=mode, norm=0.2, decayed=decayed)
    recipe = {
        "weight_decay": 0.25,
        "weight_decay_mode": mode,
        "decay_exclude": exclude,
        "clip": "gradient",
        "max_gradient_norm": 0.2,
    }
    model = build()
    history = fit(model, optimiser=optimiser, **recipe)
    np.testing.assert_allclose(model.theta, want, rtol=1e-12, atol=1e-15)
    assert history["clip_factor"].min() < 0.9 and history["clip_factor"].max() <= 1
    plain = build(optimizer=optimiser, loss="half_mse")
    plain.train(PROBLEM.X, PROBLEM.Y, 1, 65, RATE, **recipe)
    other = build()
    fit(other, optimiser=optimiser, epochs=1, batch_size=65, **recipe)
    np.testing.assert_allclose(plain.theta, other.theta, rtol=1e-12)


def test_curvature_is_measured_on_what_is_not_clipped() -> None:
    free, clipped = (
        fit(build(), epochs=1, use_controller=True, **more) for more in ({}, {"clip": "gradient", "max_gradient_norm": 1e-3})
    )
    assert free["dG_norm"][1] != 0
    np.testing.assert_array_equal(clipped["grad_norm"][0], free["grad_norm"][0])
    moved = clipped["clip_factor"][0] * clipped["grad_norm"][0] * RATE
    np.testing.assert_allclose(clipped["actual_update_norm"][0], moved, rtol=1e-12)


def test_batch_normalisation_does_not_decay_unless_it_is_told_to() -> None:
    gammas = {}
    for exclude in (None, ()):
        model = build(use_batchnorm=True)
        model.train_instrumented(
            PROBLEM.X, PROBLEM.Y, 1, 65, RATE, optimiser="sgd", weight_decay=100.0, decay_exclude=exclude, hessian="none"
        )
        gammas[exclude] = float(np.abs(model.get_weights()["batchnorm0/gamma"] - 1).max())
    assert gammas[None] < 1 < gammas[()]


def test_a_short_last_batch_is_left_out_where_that_is_asked_for() -> None:
    assert fit(build()).steps == 6 and fit(build(), drop_last=True).steps == 4
    assert len(build().train(PROBLEM.X, PROBLEM.Y, 2, 32, 0.1, drop_last=True)["loss"]) == 4
    with pytest.raises(ValueError, match=exactly("drop_last must be False for 65 rows in batches of 66, not True: none is left")):
        fit(build(), batch_size=66, drop_last=True)
    with pytest.raises(ValueError, match=exactly("drop_last must be False where a stream gives the batches, not True")):
        fit(build(), stream=[], drop_last=True)
    one = (
        "batch_size must leave no batch of one row for batch normalisation, not 32 of 65 rows; drop_last leaves the last one out"
    )
    with pytest.raises(ValueError, match=exactly(one)):
        fit(build(use_batchnorm=True))
    with pytest.raises(ValueError, match=exactly(one)):
        build(use_batchnorm=True).train(PROBLEM.X, PROBLEM.Y)
    assert fit(build(use_batchnorm=True), drop_last=True).steps == 4
    with pytest.raises(ValueError, match=exactly("stream x must have at least 2 rows, not 1")):
        fit(build(use_batchnorm=True), stream=[(PROBLEM.X[:1], PROBLEM.Y[:1])])


def stream(bad: bool) -> Iterator[tuple[Any, Any]]:
    """Four batches, and one between them whose gradient overflows."""
    for i in range(4):
        if bad and i == 2:
            yield 1e200 * PROBLEM.X[:9], PROBLEM.Y[:9]
        yield PROBLEM.X[8 * i : 8 * i + 8], PROBLEM.Y[8 * i : 8 * i + 8]


def config(**more: Any) -> ThrottleConfig:
    return ThrottleConfig.stability_margin(
        **{"elements": build(activation=None).theta.size, "eta": RATE, "residual_bits": 3} | more
    )


@pytest.mark.parametrize("unit", ["published", "golden", "float"])
def test_a_skipped_batch_leaves_everything_as_it_was(unit: str) -> None:
    """A run with the batch is the run without it, but for a row that says so: unit, optimiser, estimator and statistics."""
    runs = []
    for bad in (False, True):
        model, state = build(activation=None, use_batchnorm=True), TrainState()
        n = model.theta.size
        made: dict[str, Any] = {
            "published": lambda: None,
            "golden": lambda: Throttle(config(elements=n, weight="SQ3.13"), np.round(model.theta * 64) / 64),  # noqa: B023
            "float": lambda: FloatThrottle(config(elements=n), model.theta),  # noqa: B023
        }
        history = fit(
            model,
            stream=stream(bad),
            on_bad_gradient="skip",
            throttle=made[unit](),
            state=state,
            optimiser="adam",
            estimator="momentum",
        )
        runs.append((history, state.state_dict(), model.get_weights()))
    (want, kept, weights), (got, found, others) = runs
    assert got["skipped"].tolist() == [0, 0, 1, 0, 0] and got["diverged"].sum() == 0 and want["skipped"].sum() == 0
    assert got["dtheta_zero"].tolist() == [0, 0, 1, 0, 0]
    for name in ("loss", "alpha", "actual_update_norm"):
        np.testing.assert_array_equal(np.delete(got[name], 2), want[name])
    for one, other in ((kept, found), (weights, others)):
        np.testing.assert_equal(other, one)


def test_a_bad_gradient_ends_the_run_with_its_name() -> None:
    model = build(activation=None, use_batchnorm=True)
    seen: list[Step] = []
    with pytest.raises(FloatingPointError, match=r"^step 2: batchnorm0/moving_variance must be finite, not inf"):
        fit(model, stream=stream(True), on_bad_gradient="raise", observe=seen.append)
    assert len(seen) == 2 and np.isfinite(model.theta).all()
    assert all(np.isfinite(value).all() for value in model.get_weights().values()), "the statistics are put back too"
    with pytest.raises(FloatingPointError, match=r"^step 2: the gradient of dense0/kernel must be finite, not (nan|-?inf)"):
        fit(build(activation=None), stream=stream(True), on_bad_gradient="raise")
    history = fit(build(activation=None), stream=stream(True))
    assert history.diverged_at == 2, "nothing said: the run has diverged, which is a result"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_decay": -1}, "weight_decay must be finite and at least 0, not -1"),
        ({"weight_decay": "x"}, "weight_decay must be a number, not 'x'"),
        ({"weight_decay_mode": "l2"}, "weight_decay_mode must be one of decoupled, coupled, not 'l2'"),
        ({"decay_exclude": "bias"}, "decay_exclude must be a list of patterns such as 'dense0/*', not 'bias'"),
        (
            {"decay_exclude": ["dense7/*"]},
            "decay_exclude must match variables of the model (dense0/kernel, dense0/bias, dense1/kernel, dense1/bias), "
            "not 'dense7/*'",
        ),
        ({"clip": "update"}, "clip must be one of None, gradient, not 'update'"),
        ({"max_gradient_norm": 0}, "max_gradient_norm must be finite and greater than 0, not 0"),
        ({"on_bad_gradient": "stop"}, "on_bad_gradient must be one of None, raise, skip, not 'stop'"),
        (
            {"schedule": "linear"},
            "schedule must be one of constant, cosine, step, warmup, warmup_cosine, warmup_step, or a callable from a step to a "
            "factor, not 'linear'",
        ),
        (
            {"schedule": "cosine", "stream": []},
            "schedule must be a callable where a stream gives the batches, as nobody knows how many, not 'cosine'",
        ),
        ({"schedule": lambda step: -1.0}, "schedule must give finite factors of at least 0, not -1.0 at step 0"),
        ({"schedule": lambda step: "1"}, "schedule must give finite factors of at least 0, not '1' at step 0"),
    ],
)  # fmt: skip
def test_bad_recipes_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    model = build()
    before = model.theta
    with pytest.raises(ValueError, match=exactly(message)):
        fit(model, **settings)
    assert np.array_equal(model.theta, before)


# ---------------------------------------------------------------- schedules


def test_the_shapes_of_schedules() -> None:
    assert [round(Cosine(4)(t), 12) for t in range(6)] == [
        1,
        round((1 + math.sqrt(0.5)) / 2, 12),
        0.5,
        round((1 - math.sqrt(0.5)) / 2, 12),
        0,
        0,
    ]
    assert Cosine(4, last=0.1)(9) == pytest.approx(0.1)
    assert [Stairs(2, 0.5)(t) for t in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    assert [Warmup(4, Stairs(1, 0.5))(t) for t in range(6)] == [0.25, 0.5, 0.75, 1, 1, 0.5]
    named = make_schedule("warmup_cosine", 40)
    assert named is not None and [named(0), named(3), named(4)] == [0.25, 1, 1] and 0 < named(39) < 0.01
    for bad in (lambda: Cosine(0), lambda: Stairs(1, 2.0), lambda: Warmup(3, 1.0)):  # type: ignore[arg-type]
        with pytest.raises(
            ValueError, match=r"^(steps must be an integer of at least 1|factor must be from 0 to 1|then must be)"
        ):
            bad()


@pytest.mark.parametrize("unit", ["published", "golden", "float"])
def test_a_rate_along_a_schedule(unit: str) -> None:
    """Warm-up, then half a cosine: the rate of each step, and on a grid the bits that are left of it."""
    model = build()
    made: Any = {"golden": Throttle, "float": FloatThrottle}.get(unit, lambda *_: None)(
        config(), np.round(model.theta * 1024) / 1024
    )
    schedule = Warmup(4, Cosine(8))
    history = fit(model, epochs=4, throttle=made, schedule=schedule)
    factors = [schedule(t) for t in range(history.steps)]
    np.testing.assert_allclose(history["learning_rate"], [RATE * factor for factor in factors], rtol=1e-15)
    np.testing.assert_allclose(history["eta_eff"], history["alpha"] * history["learning_rate"], rtol=1e-12)
    assert history["actual_update_norm"][0] > 0 and history["learning_rate"][3] == RATE
    if unit == "golden":
        bits = history["step_bits_left"]
        want = [round(Fraction(eff) / made.config.step.ulp).bit_length() for eff in history["eta_eff"]]
        assert bits.tolist() == want and bits[3] == 17 - (history["alpha"][3] < 0.64) and bits[-1] < 14
    else:
        assert np.isnan(history["step_bits_left"]).all()


def test_a_schedule_needs_a_unit_whose_rate_can_be_set() -> None:
    class Fixed:
        """A unit of one's own with one rate for ever."""

        def __init__(self) -> None:
            self.inner = FloatThrottle(config(), build().theta)
            self.config, self.step, self.weights = self.inner.config, self.inner.step, self.inner.weights

    with pytest.raises(ValueError, match=r"^throttle must have set_rate for a schedule, not <"):
        fit(build(), throttle=Fixed(), schedule="cosine")
    with pytest.raises(ValueError, match=r"^eta must be from 0 to eta_max = 0\.2, not 0\.4"):
        fit(build(), throttle=FloatThrottle(config(), build().theta), schedule=lambda step: 2.0)


def test_a_norm_without_clipping_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^clip must be 'gradient' where max_gradient_norm is given, 0\.1, not None"):
        fit(build(), max_gradient_norm=0.1)
