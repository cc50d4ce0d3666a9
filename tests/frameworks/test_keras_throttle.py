"""A throttle around Keras optimisers equals the golden unit that is fed the same codes; where there is no Keras it is skipped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.rounding import quantise, values
from kappa_rtl.golden.throttle import Throttle

pytest.importorskip("torch", reason="needs torch: make torch-test has an environment with it")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras: Any = pytest.importorskip("keras", reason="needs Keras: make torch-test has an environment with it", exc_type=ImportError)
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend than torch", allow_module_level=True)

from kappa_rtl.keras import GlobalThrottle, ThrottleMetrics  # noqa: E402, what is looked for above

# Of numpy 2, at Keras' variables.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")

SGD, Adam, AdamW = keras.optimizers.SGD, keras.optimizers.Adam, keras.optimizers.AdamW

RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 3)).astype(np.float32)
Y = (X @ np.array([[0.5], [-1.0], [0.25]])).astype(np.float32)


def variable(weights: Any, name: str = "kernel", **more: Any) -> Any:
    made = keras.Variable(np.asarray(weights, np.float32), name=name, **more)
    return made


def network(optimizer: Any, *, norm: bool = False, **compiling: Any) -> Any:
    keras.utils.set_random_seed(0)
    norms = [keras.layers.BatchNormalization(name="norm")] if norm else []
    model = keras.Sequential(
        [
            keras.layers.Input((3,)),
            keras.layers.Dense(8, activation="relu", name="first"),
            *norms,
            keras.layers.Dense(1, name="last"),
        ],
        name="net",
    )
    model.compile(optimizer=optimizer, loss="mse", **compiling)
    return model


def fit(model: Any, epochs: int = 2, **more: Any) -> Any:
    return model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, **more)


def weights(model: Any) -> list[bytes]:
    return [array.tobytes() for array in model.get_weights()]


def gradients(count: int, size: int = 6) -> list[Any]:
    return [np.random.default_rng(step).normal(size=size).astype(np.float32) for step in range(count)]


# ---------------------------------------------------------------------------------------------- equality to the bit


MAKES = {
    "sgd": lambda rate: SGD(rate),
    "momentum": lambda rate: SGD(rate, momentum=0.9),
    "adamw": lambda rate: AdamW(rate, weight_decay=0.1),
    "nesterov": lambda rate: SGD(rate, momentum=0.9, nesterov=True, weight_decay=0.01),
    "clipped": lambda rate: keras.optimizers.RMSprop(rate, clipnorm=0.5),
    **{
        name: lambda rate, name=name: getattr(keras.optimizers, name)(rate)
        for name in ("Adadelta", "Adagrad", "Adam", "Adamax", "Lamb", "Lion", "Muon", "Nadam")
    },
}


@pytest.mark.parametrize(
    ("engine", "name"),
    [*(("numpy", name) for name in MAKES), *((engine, name) for engine in ("numba", "torch") for name in ("momentum", "adamw"))],
)
def test_the_golden_unit_with_the_same_codes(name: str, engine: str) -> None:
    """Weights, alpha and every register, where another optimiser at a rate of 1 makes the proposals."""
    if engine == "numba":
        pytest.importorskip("numba")
    make, start = MAKES[name], np.array([0.5, -0.25, 0.125, 1.0, -1.0, 0.75])
    moved, twin = variable(start), variable(start)
    throttle, proposer = GlobalThrottle(make(0.125), engine=engine, chi=0.5), make(1.0)
    config = ThrottleConfig.stability_margin(
        elements=6, eta=0.125, chi=0.5, gradient="SQ4.12", weight="SQ2.14", update="SQ1.15", direction="SQ4.12"
    )
    golden, throttled = Throttle(config, start), 0
    grids = config.grids
    for step, gradient in enumerate(gradients(12)):
        throttle.apply([gradient], [moved])
        before = golden.weights.astype(np.float32)
        twin.assign(before)
        proposer.apply([keras.ops.convert_to_tensor(gradient)], [twin])
        proposal = before - keras.ops.convert_to_numpy(twin)
        record = golden.step(quantise(gradient, grids.gradient), quantise(proposal, grids.direction), codes=True)
        assert np.array_equal(keras.ops.convert_to_numpy(moved), record.weights), step
        assert throttle.metrics()["throttle/alpha"] == float(record.registers.alpha)
        assert throttle.metrics()["throttle/curvature"] == float(record.registers.curvature)
        throttled += float(record.registers.alpha) < 1
    assert throttled > 3, "a test of alpha has some that are less than 1"
    assert throttle.unit.throttle.state_dict()["decide"] == golden.state_dict()["decide"]
    assert int(throttle.iterations) == throttle.log.steps == throttle.history.steps == 12


def test_several_formats_and_random_rounding() -> None:
    """Kernels and biases are two units under one law, each on its own grid."""
    formats = {"*/kernel": {"update": "SQ1.11,stochastic", "weight": "SQ2.10"}, "*/bias": {"residual_bits": 4}}
    throttle = GlobalThrottle(SGD(0.05), formats=formats)
    model = network(throttle)
    fit(model)
    assert [len(tensors) for tensors in throttle.unit.plan.tensors] == [2, 2]
    for weight, array in zip(model.weights, model.get_weights(), strict=True):
        fmt = Fixed.parse("SQ2.10" if weight.path.endswith("kernel") else "SQ2.14")
        assert np.array_equal(values(quantise(array, fmt), fmt), array)


# ------------------------------------------------------------------------------------------------------------- fit


def test_fit_and_a_loop_are_the_same() -> None:
    fitted, looped = network(GlobalThrottle(AdamW(0.01))), network(None)
    fit(fitted)
    throttle, loss = GlobalThrottle(AdamW(0.01)), keras.losses.MeanSquaredError()
    throttle.build(looped.trainable_variables)
    for _ in range(2):
        for part in range(0, 64, 16):
            looped.zero_grad()
            loss(Y[part : part + 16], looped(X[part : part + 16], training=True)).backward()
            throttle.apply([v.value.grad for v in looped.trainable_variables], looped.trainable_variables)
    assert weights(fitted) == weights(looped)
    assert fitted.optimizer.metrics() == throttle.metrics()


def test_metrics_in_the_history() -> None:
    model = network(GlobalThrottle(SGD(0.1)))
    seen: list[dict[str, float]] = []
    after = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(dict(logs)))
    history = fit(model, callbacks=[ThrottleMetrics(), after]).history
    own = model.optimizer.history
    assert [row["throttle/alpha"] for row in seen] == own["alpha"].tolist()
    assert history["throttle/alpha"] == [own["alpha"][:4].mean(), own["alpha"][4:].mean()]
    assert set(history) == {"loss", *(f"throttle/{name}" for name in ThrottleMetrics.NAMES)}
    assert history["throttle/update_radius_ratio"][1] == pytest.approx(1, abs=0.01)


def test_what_the_callback_refuses() -> None:
    with pytest.raises(ValueError, match=r"^optimizer must be a GlobalThrottle, not SGD$"):
        fit(network(SGD(0.1)), callbacks=[ThrottleMetrics()])
    with pytest.raises(ValueError, match=r"^names must be of learning_rate, alpha, .*, not 'alfa'$"):
        fit(network(GlobalThrottle(SGD(0.1))), callbacks=[ThrottleMetrics(("alfa",))])


def test_gains_are_stored_from_one() -> None:
    throttle = GlobalThrottle(SGD(0.01), formats={"*": {"weight": "SQ0.12"}, "net/last/*": {"gain_from_one": False}})
    model = network(throttle, norm=True)
    with pytest.warns(UserWarning, match="lie beyond the rails of their format, and were brought onto them"):
        fit(model, 1)
    offsets = {tensor.name: tensor.offset for tensors in throttle.unit.plan.tensors for tensor in tensors}
    assert {name for name, offset in offsets.items() if offset} == {"net/norm/gamma"}
    gamma = keras.ops.convert_to_numpy(model.get_layer("norm").gamma)
    assert (gamma != 1).any() and (np.abs(gamma - 1) < 0.5).all()


def test_curvature_is_that_of_gradients_before_they_are_clipped() -> None:
    plain, clipped = (GlobalThrottle(SGD(0.125, **more)) for more in ({}, {"global_clipnorm": 0.01}))
    for throttle in (plain, clipped):
        moved = variable(np.zeros(6))
        for gradient in gradients(2):
            throttle.apply([gradient], [moved])
    norms = [throttle.metrics()["throttle/norm_gradient"] for throttle in (plain, clipped)]
    assert norms[0] == norms[1]
    assert clipped.metrics()["throttle/norm_motion"] < 0.01 < plain.metrics()["throttle/norm_motion"]


def test_a_scaled_loss() -> None:
    """By the factor of the optimiser within, and by what Keras puts around an optimiser for float16."""
    plain, scaled = network(GlobalThrottle(SGD(0.05))), network(GlobalThrottle(SGD(0.05, loss_scale_factor=64.0)))
    around = network(keras.optimizers.LossScaleOptimizer(GlobalThrottle(SGD(0.05)), initial_scale=64.0))
    for model in (plain, scaled, around):
        fit(model, callbacks=[ThrottleMetrics()])
    assert weights(plain) == weights(scaled) == weights(around)


# ------------------------------------------------------------------------------------------- rates, frozen variables


def test_a_schedule_is_eta() -> None:
    """Also the first step's, and numbers of float32 are the decimals that they print as."""
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([1, 3], [0.1, 0.3, 0.02])
    throttle, moved = GlobalThrottle(SGD(schedule)), variable(np.zeros(6))
    for gradient in gradients(5):
        throttle.apply([gradient], [moved])
    assert throttle.history["learning_rate"].tolist() == [0.1, 0.1, 0.3, 0.3, 0.02]
    assert throttle.get_config()["eta_max"] == 0.3


def test_a_callback_changes_the_rate() -> None:
    throttle = GlobalThrottle(SGD(0.1))
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.5, patience=0, min_delta=1e9)
    history = fit(network(throttle), 4, callbacks=[plateau]).history
    assert throttle.history["learning_rate"][::4].tolist() == pytest.approx([0.1, 0.1, 0.05, 0.025])
    assert history["learning_rate"][0] == np.float32(0.1)


def test_a_rate_beyond_the_largest_changes_nothing() -> None:
    throttle, moved = GlobalThrottle(SGD(0.1)), variable(np.full(6, 0.5))
    throttle.apply(gradients(1), [moved])
    before = keras.ops.convert_to_numpy(moved).copy()
    throttle.learning_rate = 0.2
    with pytest.raises(ValueError, match=r"^eta must be .*0\.1.*, not .*0\.2"):
        throttle.apply(gradients(1), [moved])
    assert np.array_equal(before, keras.ops.convert_to_numpy(moved)) and throttle.log.steps == 1


def test_frozen_variables_stay() -> None:
    throttle = GlobalThrottle(SGD(0.1))
    model = network(throttle)
    model.get_layer("first").trainable = False
    frozen = [array.copy() for array in model.get_layer("first").get_weights()]
    fit(model)
    assert all(map(np.array_equal, frozen, model.get_layer("first").get_weights()))
    assert [tensor.name for tensor in throttle.unit.plan.tensors[0]] == ["net/last/kernel", "net/last/bias"]


def test_frozen_later_is_a_missing_gradient() -> None:
    """It stays, and is kept in the gradient as it was, or is zero there."""
    for missing, change in (("keep", 0.0), ("zero", 1.0)):
        throttle = GlobalThrottle(SGD(0.1), missing=missing)
        one, other = variable([0.5], "one"), variable([0.5], "other")
        throttle.apply([np.ones(1), np.ones(1)], [one, other])
        stopped = float(other.numpy()[0])
        throttle.apply([np.ones(1)], [one])
        assert float(other.numpy()[0]) == stopped
        assert throttle.metrics()["throttle/norm_gradient"] == change
        with pytest.warns(UserWarning, match="Gradients do not exist"):
            throttle.apply([np.ones(1), None], [one, other])
        assert float(other.numpy()[0]) == stopped


def test_weights_that_somebody_changed_are_read_anew() -> None:
    throttle, moved = GlobalThrottle(SGD(0.1)), variable([0.5])
    throttle.apply([np.ones(1)], [moved])
    moved.assign([0.25])
    with pytest.warns(UserWarning, match=r"^kernel was changed between two steps, and is read anew$"):
        throttle.apply([np.zeros(1)], [moved])
    assert moved.numpy().tolist() == [0.25]


# ------------------------------------------------------------------------------------------------------------ resume


@pytest.mark.parametrize("how", ["keras", "weights.h5"])
@pytest.mark.parametrize(
    ("update", "more"), [("SQ1.11", {}), ("SQ1.11,stochastic", {}), ("SQ1.11", {"*/bias": {"scale": 1}, "*/beta": {"scale": 3}})]
)
def test_a_loaded_run_goes_on_to_the_bit(tmp_path: Path, how: str, update: str, more: Any) -> None:
    """Batch norm, AdamW's moments, generators, residuals, a rate that was changed, and the throttle's own state."""

    def throttle() -> Any:
        residual = {"residual_bits": 4} if "," not in update else {}
        return GlobalThrottle(AdamW(0.05), formats={"*": {"update": update, "weight": "SQ2.10", **residual}} | more, rho=0.25)

    whole = network(throttle(), norm=True)
    fit(whole, 1)
    assert {segment.scale for segment in whole.optimizer.unit.throttle.config.segments} == ({0, 1, 3} if more else set())
    whole.optimizer.learning_rate = 0.025
    fit(whole, 1)
    path = tmp_path / f"run.{how}"
    if how == "keras":
        whole.save(path)
        resumed = keras.saving.load_model(path)
    else:
        whole.save_weights(path)
        resumed = network(throttle(), norm=True)
        resumed.optimizer.build(resumed.trainable_variables)
        resumed.load_weights(path)
    assert resumed.optimizer.log.steps == 8 and float(resumed.optimizer.learning_rate) == np.float32(0.025)
    for model in (whole, resumed):
        fit(model, 2)
    assert weights(whole) == weights(resumed)
    assert whole.optimizer.metrics() == resumed.optimizer.metrics()
    assert [v.numpy().tobytes() for v in whole.optimizer.variables] == [v.numpy().tobytes() for v in resumed.optimizer.variables]

    other = network(throttle(), norm=True)  # and a run that lacks the state is another one
    fit(other, 1)
    other.set_weights(whole.get_weights())
    with pytest.warns(UserWarning, match="was changed between two steps"):
        fit(other, 1)
    assert weights(other) != weights(whole)


def test_what_loading_refuses(tmp_path: Path) -> None:
    def saved(optimizer: Any, name: str) -> Path:
        model = network(optimizer)
        fit(model, 1)
        model.save_weights(tmp_path / f"{name}.weights.h5")
        return tmp_path / f"{name}.weights.h5"

    model = network(GlobalThrottle(SGD(0.1)))
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(
        ValueError, match="the file must hold the state of a throttle, which the model that was saved did not have"
    ):
        model.load_weights(saved(SGD(0.1), "plain"))
    with pytest.raises(ValueError, match=r"chi must be 1\.5 as here, not 1 as in what is loaded"):
        model.load_weights(saved(GlobalThrottle(SGD(0.1), chi=1.0), "chi"))
    with pytest.raises(ValueError, match=r"the throttle must know its variables first: call build\(variables\)"):
        GlobalThrottle(SGD(0.1)).load_own_variables({"throttle": np.zeros(1, np.uint8)})


def test_the_configuration_comes_back() -> None:
    """Formats, enumerations and numbers of numpy are JSON; the largest rate is the one of the start."""
    import json

    from kappa_rtl.golden.config import OnStill

    throttle = GlobalThrottle(
        Adam(0.1),
        formats={"*": {"weight": Fixed.parse("SQ2.10")}},
        chi=np.float32(1.25),
        on_still=OnStill.DIVIDE,
        measure=3,
        name="own",
    )
    throttle.learning_rate = 0.05
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(throttle)))
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == throttle.get_config() and again.name == "own"
    assert (again.get_config()["eta_max"], again.get_config()["chi"], again.get_config()["on_still"]) == (0.1, 1.25, "divide")


# ------------------------------------------------------------------------------------------------------------- errors


def own_schedule(step: int = 0) -> float:
    return 0.1


REFUSED = {
    "no optimiser": (lambda: GlobalThrottle("sgd"), "optimizer must be a keras optimiser, not 'sgd'"),
    "two throttles": (
        lambda: GlobalThrottle(GlobalThrottle(SGD(0.1))),
        "optimizer must be one that updates weights itself, not GlobalThrottle: put that around the throttle",
    ),
    "loss scale": (
        lambda: GlobalThrottle(keras.optimizers.LossScaleOptimizer(SGD(0.1))),
        "optimizer must be one that updates weights itself, not LossScaleOptimizer: put that around the throttle",
    ),
    "uneven": (
        lambda: GlobalThrottle(keras.optimizers.Ftrl(0.1)),
        "optimizer must take steps proportional to its rate, which Adafactor, Ftrl, ScheduleFreeAdamW do not; not Ftrl",
    ),
    "ema": (
        lambda: GlobalThrottle(SGD(0.1, use_ema=True)),
        "use_ema must be False, not True: the average would be of weights that the throttle has not decided on yet",
    ),
    "accumulation": (
        lambda: GlobalThrottle(SGD(0.1, gradient_accumulation_steps=4)),
        "gradient_accumulation_steps must be None, not 4: the throttle makes a step for every gradient: give it larger batches",
    ),
    "missing": (lambda: GlobalThrottle(SGD(0.1), missing="drop"), "missing must be one of keep, zero, not 'drop'"),
    "engine": (
        lambda: GlobalThrottle(SGD(0.1), engine="jax"),
        "engine must be one of auto, numpy, numba, torch, torch_compiled, not 'jax'",
    ),
    "measure": (lambda: GlobalThrottle(SGD(0.1), measure=-1), "measure must be an integer of at least 0, not -1"),
    "eta_max": (
        lambda: GlobalThrottle(SGD(0.1), eta_max=0.05),
        "eta_max must be at least the rate 0.1, finite and greater than 0, not 0.05",
    ),
    "schedule": (
        lambda: GlobalThrottle(SGD(own_schedule)),
        "eta_max must be given, the largest rate that will come, since the schedule names none",
    ),
    "preset": (
        lambda: GlobalThrottle(SGD(0.1), formats="sq9"),
        "formats must be a table or one of sq16, sq12, sq8, sq12_stochastic, sq8_stochastic, sq8_residual, not 'sq9'",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    make, text = REFUSED[what]
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole text is compared
        make()
    assert str(error.value) == text


def test_a_built_optimiser_is_refused() -> None:
    optimizer = SGD(0.1)
    optimizer.build([variable([0.5])])
    with pytest.raises(ValueError, match=r"^optimizer must not be built yet, for its momentum would hold its own rate"):
        GlobalThrottle(optimizer)


def test_what_a_step_refuses() -> None:
    throttle, moved = GlobalThrottle(SGD(0.1)), variable([0.5, 0.25])
    for call, text in (
        (lambda: throttle.apply([np.ones(2)]), "trainable_variables must be given to the first step"),
        (lambda: throttle.apply([np.ones(2)] * 2, [moved]), "grads must be as many as the variables, 1, not 2"),
        (lambda: throttle.apply([None], [moved]), "grads must hold a gradient, not None alone"),
        (lambda: throttle.history, r"the throttle must know its variables first: call build\(variables\)"),
        (lambda: throttle.apply([np.array([1, np.nan])], [moved]), r"^gradient of kernel\[1\] must be finite, not nan$"),
        (lambda: throttle.stateless_apply([], [], []), "stateless_apply must not be called"),
        (lambda: throttle.apply([np.ones(2)], [variable([1.0], "other")]), "Unknown variable"),
    ):
        with pytest.raises(ValueError, match=text):
            call()
    assert moved.numpy().tolist() == [0.5, 0.25] and throttle.log.steps == 0


def test_what_variables_are_refused() -> None:
    kernel = variable([0.5])
    kernel.constraint = keras.constraints.NonNeg()
    with pytest.raises(
        ValueError, match=r"^constraint of kernel must be None, not .*NonNeg.*: it would move weights off their grid"
    ):
        GlobalThrottle(SGD(0.1)).build([kernel])
    scale = variable([0.5], "scale")
    scale.overwrite_with_gradient = True
    with pytest.raises(ValueError, match=r"^scale must be moved by its gradient, which it is overwritten with"):
        GlobalThrottle(SGD(0.1)).build([scale])
    with pytest.raises(ValueError, match=r"^formats must name parameters, not '\*/bias'; they are kernel$"):
        GlobalThrottle(SGD(0.1), formats={"*/bias": {"weight": "SQ2.10"}}).build([variable([0.5])])


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"^backend must be torch, not 'jax': set KERAS_BACKEND=torch before keras is imported$"):
        GlobalThrottle(SGD(0.1))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_a_compiled_step_runs_the_throttle() -> None:
    """jit_compile=True compiles what is around it: forty seconds, mostly of the compiler's."""
    eager, compiled = (network(GlobalThrottle(SGD(0.01)), jit_compile=jit) for jit in (False, True))
    for model in (eager, compiled):
        fit(model)
    assert compiled.optimizer.log.steps == 8
    for ours, theirs in zip(eager.get_weights(), compiled.get_weights(), strict=True):
        assert np.allclose(ours, theirs, atol=1e-3)


def test_what_belongs_to_the_optimiser_within() -> None:
    inner = keras.optimizers.SGD(0.1, weight_decay=0.5)
    throttle = GlobalThrottle(inner)
    throttle.exclude_from_weight_decay(var_names=["bias"])
    variables = [keras.Variable(np.full(2, 0.5, "float32"), name=name) for name in ("kernel", "bias")]
    throttle.build(variables)
    throttle.apply([np.zeros(2, "float32"), np.zeros(2, "float32")], variables)
    assert float(variables[0].numpy()[0]) < 0.5 == float(variables[1].numpy()[0])
    with pytest.raises(ValueError, match=r"^clipnorm must be set on inner_optimizer, which makes the step"):
        throttle.clipnorm = 1.0


def test_an_exception_within_leaves_the_weights() -> None:
    inner = keras.optimizers.SGD(0.1)
    throttle = GlobalThrottle(inner)
    variable = keras.Variable(np.full(2, 0.5, "float32"), name="kernel")
    throttle.apply([np.ones(2, "float32")], [variable])
    before, apply = variable.numpy().copy(), inner.apply

    def failing(*given: object) -> None:
        apply(*given)
        raise RuntimeError("half a step")

    inner.apply = failing
    with pytest.raises(RuntimeError, match="half a step"):
        throttle.apply([np.ones(2, "float32")], [variable])
    assert np.array_equal(variable.numpy(), before) and float(throttle.learning_rate.numpy()) == np.float32(0.1)
