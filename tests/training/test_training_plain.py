"""The instrumented loop against a second implementation in plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.data import synthetic
from kappa_rtl.golden.training.model import LinearBlockModel
from support import replay
from support.plain import Plain

Case = dict[str, Any]


def make_case(
    *,
    hidden: tuple[int, ...] = (),
    inputs: int = 4,
    outputs: int = 2,
    samples: int = 24,
    steps: int = 30,
    batch: int = 24,
    pad: bool = False,
    gain: float = 1.0,
    seed: int = 0,
    bias: bool = True,
    **cfg: Any,
) -> Case:
    rng = np.random.default_rng(seed)
    X = rng.uniform(-1, 1, (samples, inputs))
    teacher = rng.normal(size=(outputs, inputs))
    Y = X @ teacher.T + 0.05 * rng.normal(size=(samples, outputs))
    rows = np.array([rng.permutation(samples)[:batch] for _ in range(steps)])
    if pad:
        rows[1::3, -batch // 3 :] = -1
    case: Case = {
        "X": X,
        "Y": Y,
        "batches": rows,
        "reference_A": teacher,
        "x_scale": np.linspace(1, gain, steps),
        "y_scale": np.linspace(1, 0.5 * (1 + gain), steps) if pad else None,
        "cfg": {"num_hidden": list(hidden), "use_bias": bias} | cfg,
    }
    weights: dict[str, Any] = {}
    widths = [*hidden] if hidden and hidden[-1] == outputs else [*hidden, outputs]
    for i, width in enumerate(widths):
        weights[f"dense{i}/kernel"] = rng.uniform(-0.8, 0.8, (inputs, width))
        if bias:
            weights[f"dense{i}/bias"] = rng.uniform(-0.2, 0.2, width)
        if cfg.get("use_batchnorm") and i < len(hidden):
            weights[f"batchnorm{i}/gamma"] = rng.uniform(0.6, 1.4, width)
            weights[f"batchnorm{i}/beta"] = rng.uniform(-0.3, 0.3, width)
        inputs = width
    case["weights"] = weights
    return case


CASES: dict[str, tuple[Case, float]] = {
    "one layer, float64": (make_case(bias=False, use_controller=True, learning_rate=0.8, gain=6.0), 1e-6),
    "one layer, float32": (
        make_case(bias=False, use_controller=True, learning_rate=0.8, gain=3.0, dtype="float32", batch=10, pad=True),
        2e-3,
    ),
    "keras_mse, one layer": (make_case(bias=False, loss_mode="keras_mse", learning_rate=0.3, outputs=3), 1e-8),
    "beta, first": (
        make_case(
            hidden=(5,), activation="tanh", controller="beta", beta=2.0, alpha_min=0.2, ema_init="first", use_controller=True,
            curvature_ema_rho=0.3, learning_rate=0.4, gain=3.0, pad=True, batch=9,
        ),
        1e-7,
    ),
    "beta, off": (make_case(controller="beta", beta=0.7, learning_rate=0.1, loss_mode="keras_mse", pad=True, batch=9), 1e-8),
    "batchnorm": (
        make_case(
            hidden=(5, 3), activation="relu", use_batchnorm=True, learning_rate=0.2, pad=True, batch=12, use_controller=True
        ),
        1e-6,
    ),
    "batchnorm, float32": (
        make_case(hidden=(5,), activation="relu", use_batchnorm=True, learning_rate=0.05, dtype="float32", steps=15),
        5e-3,
    ),
    "batchnorm last, no bias": (
        make_case(hidden=(4, 2), use_batchnorm=True, bias=False, learning_rate=0.1, loss_mode="keras_mse", chi=1.0),
        1e-6,
    ),
    "hold": (
        make_case(
            bias=False, zero_dtheta="hold", use_controller=True, learning_rate=0.05, batch=6, steps=40,
            precision={"dense0": {"weight": "Q2.5", "update": "Q2.5"}},
        ),
        1e-10,
    ),
    "hold, first": (
        make_case(
            bias=False, zero_dtheta="hold", ema_init="first", use_controller=True, learning_rate=0.05, batch=6, steps=40, seed=3,
            precision={"dense0": {"weight": "Q2.4", "update": "Q2.6"}}, controller="beta",
        ),
        1e-10,
    ),
    "saturating": (
        make_case(
            bias=False, use_controller=True, learning_rate=1.2, gain=4.0,
            precision={"dense0": {"weight": "Q0.6", "update": "Q0.7", "gradient": "Q0.5"}, "input": {"value": "Q1.4"}},
        ),
        1e-10,
    ),
    "grids everywhere": (
        make_case(
            hidden=(5,), activation="relu", use_batchnorm=True, learning_rate=0.25, batch=8, pad=True, use_controller=True,
            loss_mode="keras_mse", gain=2.0,
            precision={
                "__default__": {
                    "weight": "Q3.9", "bias": "Q3.7", "activation": "Q4.10", "accumulator": "Q6.14",
                    "gradient": "Q4.12", "update": "Q2.12", "value": "Q4.8",
                },
                "dense0": {"gradient": None, "weight": "Q2.6"},
                "activation0": {"activation": None},
                "dense1": {"bias": None, "update": "Q1.10", "accumulator": None},
            },
        ),
        1e-9,
    ),
    "grids, no default": (
        make_case(
            hidden=(4,), activation="relu", learning_rate=0.25, batch=8,
            precision={
                "dense0": {"weight": "Q2.6", "activation": "Q3.5", "update": "Q2.8"}, "activation0": {"activation": "Q3.3"},
                "dense1": {"bias": "Q2.8", "gradient": "Q2.6", "activation": "Q3.6"}, "input": {"value": "Q1.5"},
                "loss": {"value": "Q4.6"},
            },
        ),
        1e-9,
    ),
}  # fmt: skip


def compare(got: Any, want: dict[str, Any], relative: float, *, exact: bool, loose: bool) -> None:
    for name, wanted in want.items():
        made = np.asarray(got[name], np.float64)
        assert made.shape == wanted.shape, name
        if exact and name == "theta_hist":
            np.testing.assert_array_equal(made, wanted, name)
            continue
        scale = np.abs(wanted) if wanted.ndim < 2 else np.abs(wanted).max(axis=1, keepdims=True)
        absolute = {"update_angle_rad": 3e-2 if loose else 1e-5, "update_cosine": 1e-3 if loose else 1e-9}.get(name, 1e-12)
        with np.errstate(invalid="ignore"):
            good = np.abs(made - wanted) <= relative * scale + absolute
        good |= (made == wanted) | (np.isnan(made) & np.isnan(wanted))
        assert good.all(), f"{name} at {np.argwhere(~good)[0]}: {made[~good][0]!r} for {wanted[~good][0]!r}"


@pytest.mark.parametrize("name", CASES)
def test_against_plain_loops(name: str) -> None:
    case, relative = CASES[name]
    want = Plain(case).run()
    got = replay.run(case)
    compare(got, want, relative, exact="precision" in case["cfg"], loose=case["cfg"].get("dtype") == "float32")


def test_the_cases_reach_what_they_are_for() -> None:
    runs = {name: Plain(case).run() for name, (case, _) in CASES.items()}
    assert 0 < runs["hold"]["held"].sum() < 40 and 0 < runs["hold, first"]["held"].sum() < 40
    for name in ("weight_saturation", "weight_near_rail", "gradient_saturation", "update_saturation", "update_underflow"):
        assert runs["saturating"][f"{name}_fraction_max"].max() > 0, name
    assert runs["grids, no default"]["gradient_underflow_fraction_max"].max() > 0
    for name in ("one layer, float64", "one layer, float32", "beta, first", "batchnorm"):
        assert runs[name]["alpha"].min() < 0.9, name
    assert runs["beta, first"]["alpha"].min() == 0.2
    assert np.all(runs["beta, off"]["alpha"] == 1) and runs["beta, off"]["alpha_would"].min() < 1
    assert len(runs["one layer, float32"]["loss"]) == 30


@pytest.mark.parametrize(
    "settings",
    [
        {"use_controller": True, "chi": 4.0, "learning_rate": 1.0},
        {"use_controller": False, "learning_rate": 3.0},
        {"use_controller": False, "learning_rate": 2.0, "hidden": (3,), "activation": "relu", "bias": True},
    ],
    ids=["chi too large", "off", "two layers"],
)
def test_float32_until_it_overflows(settings: dict[str, Any]) -> None:
    """Drift to divergence: all rows, the diverged one too, are those of the plain loops."""
    case = make_case(**({"dtype": "float32", "steps": 140, "bias": False} | settings))
    case["x_scale"] = 1 + 0.5 * np.minimum(np.arange(140), 10)
    want = Plain(case).run()
    steps = len(want["loss"])
    assert 5 < steps < 140 and want["diverged"][-1] == 1 and want["finite"][-1] == 0 and want["finite"][-2] == 1
    model, stream, options = by_hand(case)
    thetas = [model.theta]
    history = model.train_instrumented(
        case["X"], case["Y"], stream=stream, observe=lambda step: thetas.append(step.theta_after), **options
    )
    assert history.steps == steps and history.diverged_at == steps - 1
    assert history["diverged"].tolist() == [0] * (steps - 1) + [1]
    shown = ("loss", "rmse", "theta_norm", "grad_norm", "curvature_proxy", "curvature_ema", "alpha", "alpha_would", "eta_eff")
    flags = ("loss_is_finite", "grad_is_finite", "theta_is_finite_before", "theta_is_finite_after")
    early = {name: want[name][: steps - 1] for name in shown}
    compare(history.__class__({name: history[name][: steps - 1] for name in shown}), early, 2e-2, exact=False, loose=True)
    assert not all(history[name][-1] for name in flags) and all(history[name][:-1].all() for name in flags)
    last = {name: (history[name][-1], want[name][-1]) for name in ("loss", "alpha_would", "curvature_proxy", "theta_norm")}
    for name, (got, wanted) in last.items():
        assert got == pytest.approx(wanted, rel=0.05, nan_ok=True), name
    assert np.isfinite(history["stability_margin_lambda_raw"]).all() != bool(settings.get("hidden"))
    assert replay.run(case)["finite"][steps - 1] == 0 and len(replay.run(case)["loss"]) == 140


def by_hand(case: Case) -> tuple[LinearBlockModel, Any, dict[str, Any]]:
    """A case's model, batches and settings as a user would write them."""
    cfg = dict(case["cfg"])
    dtype = np.dtype(cfg.pop("dtype", "float64"))
    form = {name: cfg.pop(name) for name in ("num_hidden", "activation", "use_batchnorm", "use_bias") if name in cfg}
    model = LinearBlockModel(synthetic(0, 4), **form, seed=0, dtype=dtype)
    model.set_weights(case["weights"])
    X, Y = case["X"].astype(dtype), case["Y"].astype(dtype)

    def stream() -> Any:
        for t, rows in enumerate(case["batches"]):
            yield X[rows] * dtype.type(case["x_scale"][t]), Y[rows]

    return model, stream(), cfg
