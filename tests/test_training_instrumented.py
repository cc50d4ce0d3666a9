"""The instrumented loop against a second implementation in plain loops, and its units, states, warnings and errors."""

from __future__ import annotations

import itertools
import json
import math
import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.rounding import quantise
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training import replay
from kappa_rtl.golden.training.data import batches, synthetic
from kappa_rtl.golden.training.distortion import CAUSES, Segment
from kappa_rtl.golden.training.estimators import ESTIMATORS
from kappa_rtl.golden.training.history import EXTRAS, PUBLISHED, FitHistory
from kappa_rtl.golden.training.instrumented import Step, TrainingWarning, TrainState, train_instrumented
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.golden.training.optimisers import OPTIMISERS
from kappa_rtl.golden.training.published import Controller, Law, PublishedThrottle

Rows = list[list[float]]
Case = dict[str, Any]

# ---------------------------------------------------------------- the second implementation


class Plain:
    """A recorded case's run, number by number; every operation rounded to the case's dtype, every sum in order."""

    def __init__(self, case: Case) -> None:
        self.case = case
        cfg: dict[str, Any] = {
            "dtype": "float64",
            "activation": None,
            "use_batchnorm": False,
            "use_bias": True,
            "loss_mode": "half_mse",
            "learning_rate": 0.05,
            "chi": 1.5,
            "curvature_ema_rho": 0.05,
            "eps": 1e-12,
            "controller": "chi",
            "beta": 1.0,
            "alpha_min": 0.01,
            "use_controller": False,
            "precision": None,
            "zero_dtheta": "spec",
            "ema_init": "zero",
        }
        self.cfg = cfg | case["cfg"]
        self.r: Callable[[float], float] = float
        if self.cfg["dtype"] == "float32":
            self.r = lambda value: float(np.float32(value))
        self.outputs = len(case["Y"][0])
        names: list[tuple[str, str]] = []
        for i, _ in enumerate(self.cfg["num_hidden"]):
            names.append((f"dense{i}", "dense"))
            if self.cfg["activation"]:
                names.append((f"activation{i}", self.cfg["activation"]))
            if self.cfg["use_batchnorm"]:
                names.append((f"batchnorm{i}", "batchnorm"))
        if not self.cfg["num_hidden"] or self.cfg["num_hidden"][-1] != self.outputs:
            names.append((f"dense{len(self.cfg['num_hidden'])}", "dense"))
        self.names = names
        self.variables: list[tuple[str, str, tuple[int, ...]]] = []
        self.theta: list[float] = []
        self.moving: dict[str, list[float]] = {}
        for name, kind in names:
            variables = {"dense": ["kernel", "bias"] if self.cfg["use_bias"] else ["kernel"], "batchnorm": ["gamma", "beta"]}
            for variable in variables.get(kind, []):
                value = np.asarray(case["weights"][f"{name}/{variable}"])
                self.variables.append((name, variable, value.shape))
                self.theta += [self.r(v) for v in value.ravel().tolist()]
            if kind == "batchnorm":
                width = len(case["weights"][f"{name}/gamma"])
                self.moving[f"{name}__moving_mean"] = [0.0] * width
                self.moving[f"{name}__moving_variance"] = [1.0] * width

    def grid(self, layer: str, name: str) -> tuple[float, float, int] | None:
        """Rails and fraction bits of ``Qm.n``."""
        precision = self.cfg["precision"] or {}
        own = precision.get(layer, {})
        text = own[name] if name in own else precision.get("__default__", {}).get(name)
        if text is None:
            return None
        match = re.fullmatch(r"Q(\d+)\.(\d+)", text)
        assert match
        m, n = int(match[1]), int(match[2])
        return -(2.0 ** (m - 1)), 2.0 ** (m - 1) - 2.0**-n, n

    def on(self, value: float, layer: str, name: str) -> float:
        grid = self.grid(layer, name)
        if grid is None:
            return value
        return min(max(round(value * 2 ** grid[2]) / 2 ** grid[2], grid[0]), grid[1])

    def total(self, terms: Any) -> float:
        """A sum from left to right in the dtype."""
        made = 0.0
        for term in terms:
            made = self.r(made + self.r(term))
        return made

    def value(self, layer: str, variable: str) -> Any:
        start = 0
        for name, kind, shape in self.variables:
            size = math.prod(shape)
            if (name, kind) == (layer, variable):
                flat = self.theta[start : start + size]
                return flat if len(shape) == 1 else [flat[i * shape[1] : (i + 1) * shape[1]] for i in range(shape[0])]
            start += size
        raise KeyError

    def gradient(self, x: Rows, y: Rows) -> tuple[Rows, float, dict[tuple[str, str], Any]]:
        """Outputs, loss, and the gradient before its grid; moves the moving statistics."""
        r, cfg, n = self.r, self.cfg, len(x)
        x = [[self.on(v, "input", "value") for v in row] for row in x]
        tape: list[Any] = []
        for name, kind in self.names:
            if kind == "dense":
                kernel = [[self.on(v, name, "weight") for v in row] for row in self.value(name, "kernel")]
                width = len(kernel[0])
                z = [[self.total(row[i] * kernel[i][j] for i in range(len(row))) for j in range(width)] for row in x]
                z = [[self.on(v, name, "accumulator") for v in row] for row in z]
                if cfg["use_bias"]:
                    bias = [self.on(v, name, "bias") for v in self.value(name, "bias")]
                    z = [[r(v + b) for v, b in zip(row, bias, strict=True)] for row in z]
                tape.append((x, kernel))
            elif kind == "batchnorm":
                gamma, beta = self.value(name, "gamma"), self.value(name, "beta")
                z = [[0.0] * len(gamma) for _ in x]
                normal, scales = [[0.0] * len(gamma) for _ in x], []
                for j in range(len(gamma)):
                    mean = r(self.total(row[j] for row in x) / n)
                    variance = r(self.total(r(row[j] - mean) ** 2 for row in x) / n)
                    for kept, now in (("mean", mean), ("variance", variance)):
                        old = self.moving[f"{name}__moving_{kept}"]
                        old[j] = r(0.99 * old[j] + 0.01 * now)
                    scales.append(r(1 / math.sqrt(variance + 1e-3)))
                    for k in range(n):
                        normal[k][j] = r(r(x[k][j] - mean) * scales[j])
                        z[k][j] = r(r(gamma[j] * normal[k][j]) + beta[j])
                tape.append((normal, scales, gamma))
            else:
                act = {"relu": lambda v: v if v > 0 else 0.0, "tanh": math.tanh}[kind]
                z = [[r(act(v)) for v in row] for row in x]
                tape.append((x, z))
            x = [[self.on(v, name, "activation") for v in row] for row in z]
        errors = [[r(a - b) for a, b in zip(p, q, strict=True)] for p, q in zip(x, y, strict=True)]
        squares = self.total(r(e * e) for row in errors for e in row)
        half = cfg["loss_mode"] == "half_mse"
        loss = r(squares / (2 * n if half else n * self.outputs))
        loss = self.on(loss, "loss", "value")
        factor = 1 / n if half else 2 / (n * self.outputs)
        dy = [[r(e * factor) for e in row] for row in errors]
        made: dict[tuple[str, str], Any] = {}
        for (name, kind), kept in zip(reversed(self.names), reversed(tape), strict=True):
            if kind == "dense":
                source, kernel = kept
                made[name, "kernel"] = [
                    self.total(source[k][i] * dy[k][j] for k in range(n)) for i in range(len(kernel)) for j in range(len(dy[0]))
                ]
                if cfg["use_bias"]:
                    made[name, "bias"] = [self.total(row[j] for row in dy) for j in range(len(dy[0]))]
                dy = [[self.total(row[j] * kernel[i][j] for j in range(len(row))) for i in range(len(kernel))] for row in dy]
            elif kind == "batchnorm":
                normal, scales, gamma = kept
                width = len(gamma)
                made[name, "gamma"] = [self.total(dy[k][j] * normal[k][j] for k in range(n)) for j in range(width)]
                made[name, "beta"] = [self.total(dy[k][j] for k in range(n)) for j in range(width)]
                new = [[0.0] * width for _ in dy]
                for j in range(width):
                    mean = made[name, "beta"][j] / n
                    along = made[name, "gamma"][j] / n
                    for k in range(n):
                        new[k][j] = r(gamma[j] * scales[j] * (dy[k][j] - mean - normal[k][j] * along))
                dy = new
            elif kind == "relu":
                dy = [[d if v > 0 else 0.0 for d, v in zip(a, b, strict=True)] for a, b in zip(dy, kept[0], strict=True)]
            else:
                dy = [[r(d * (1 - v * v)) for d, v in zip(a, b, strict=True)] for a, b in zip(dy, kept[1], strict=True)]
        return x, loss, made

    def run(self) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            return self._run()

    def _run(self) -> dict[str, Any]:
        cfg, case, r = self.cfg, self.case, self.r
        eta, eps, rho = cfg["learning_rate"], cfg["eps"], cfg["curvature_ema_rho"]
        rows: list[dict[str, float]] = []
        thetas, gradients = [list(self.theta)], []
        before: list[float] | None = None
        previous: list[float] = []
        curvature = average = 0.0
        seen = False
        for t, indices in enumerate(np.asarray(case["batches"]).tolist()):
            scale = {name: r(case[name][t]) if case.get(name) is not None else 1.0 for name in ("x_scale", "y_scale")}
            chosen = [i for i in indices if i >= 0]
            x = [[r(r(v) * scale["x_scale"]) for v in case["X"][i].tolist()] for i in chosen]
            y = [[r(r(v) * scale["y_scale"]) for v in case["Y"][i].tolist()] for i in chosen]
            theta = list(self.theta)
            outputs, loss, parts = self.gradient(x, y)
            row: dict[str, float] = {"loss": loss}
            row["rmse"] = math.sqrt(
                sum(r(a - b) ** 2 for p, q in zip(outputs, y, strict=True) for a, b in zip(p, q, strict=True))
                / (len(y) * self.outputs)
            )
            row["forward_gain_spectral"] = 1.0
            for name, kind in self.names:
                if kind == "dense":
                    kernel = np.array(self.value(name, "kernel"))
                    whole = np.isfinite(kernel).all()
                    row["forward_gain_spectral"] *= np.linalg.svd(kernel, compute_uv=False)[0] if whole else math.nan
            g, raw_g = [], []
            for name, variable, _ in self.variables:
                raw_g += parts[name, variable]
                g += [self.on(v, name, "gradient") for v in parts[name, variable]]
            motion = change = 0.0
            held = False
            if before is not None:
                change, motion = length(g, before), length(theta, previous)
                held = cfg["zero_dtheta"] == "hold" and motion == 0
                if not held:
                    curvature = change / (motion + eps)
                    average = curvature if cfg["ema_init"] == "first" and not seen else (1 - rho) * average + rho * curvature
                    seen = True
            top = max(curvature, average)
            if cfg["controller"] == "beta":
                would = min(1.0, max(cfg["alpha_min"], 1 / (1 + cfg["beta"] * average)))
            else:
                would = 1.0 if top <= eps else min(1.0, cfg["chi"] / (eta * (top + eps)))
            alpha = would if cfg["use_controller"] else 1.0
            rate = r(alpha * eta)
            updates = [r(-rate * v) for v in g]
            after, start = [], 0
            worst: dict[str, float] = {}
            for name, variable, shape in self.variables:
                storage = {"kernel": "weight", "bias": "bias"}.get(variable, "value")
                part = slice(start, start + math.prod(shape))
                start = part.stop
                new = [
                    self.on(r(w + self.on(u, name, "update")), name, storage)
                    for w, u in zip(theta[part], updates[part], strict=True)
                ]
                after += new
                for kind, values, field in (
                    ("weight", new, storage),
                    ("gradient", g[part], "gradient"),
                    ("raw_gradient", raw_g[part], "gradient"),
                    ("update", updates[part], "update"),
                ):
                    for stat, share in self.fractions(values, name, field).items():
                        worst[f"{kind}_{stat}"] = max(worst.get(f"{kind}_{stat}", 0.0), share)
            applied = [a - b for a, b in zip(after, theta, strict=True)]
            raw, actual = length(updates), length(applied)
            inner = sum(a * b for a, b in zip(applied, updates, strict=True))
            cosine = min(1.0, max(-1.0, inner / (raw * actual))) if raw > 0 and actual > 0 else 0.0
            finite = all(map(math.isfinite, [loss, *g, *theta, *after]))
            row |= {
                "theta_norm": length(theta),
                "theta_norm_after": length(after),
                "grad_norm": length(g),
                "raw_update_norm": raw,
                "unthrottled_update_norm": eta * length(g),
                "actual_update_norm": actual,
                "update_cosine": cosine,
                "update_angle_rad": math.acos(cosine),
                "update_radius_ratio": actual / (raw + eps),
                "dG_norm": change,
                "dtheta_norm": motion,
                "curvature_proxy": curvature,
                "curvature_ema": average,
                "curvature_for_control": top,
                "alpha": alpha,
                "alpha_would": would,
                "eta_eff": alpha * eta,
                "finite": finite,
                "held": held,
                "diverged": not finite or loss > 1e6,
                "dtheta_zero": actual == 0,
                "weight_saturation_fraction_max": worst["weight_saturation"],
                "weight_near_rail_fraction_max": worst["weight_near"],
                "gradient_saturation_fraction_max": worst["gradient_saturation"],
                "gradient_near_rail_fraction_max": worst["gradient_near"],
                "gradient_underflow_fraction_max": worst["raw_gradient_underflow"],
                "update_saturation_fraction_max": worst["update_saturation"],
                "update_underflow_fraction_max": worst["update_underflow"],
            }
            row |= self.sharpness(x, eta, alpha * eta)
            row |= self.errors(theta, after)
            rows.append(row)
            previous, before = theta, g
            self.theta = after
            thetas.append(after)
            gradients.append(g)
            if not finite:
                break
        made: dict[str, Any] = {name: np.array([float(row[name]) for row in rows]) for name in rows[0]}
        made |= {"theta_hist": np.array(thetas), "grad_hist": np.array(gradients)}
        return made | {f"final__{name}": np.array(value) for name, value in self.moving.items()}

    def fractions(self, values: list[float], layer: str, field: str) -> dict[str, float]:
        grid = self.grid(layer, field)
        if grid is None:
            return {"saturation": 0.0, "near": 0.0, "underflow": 0.0}
        low, high, n = grid
        return {
            "saturation": sum(v <= low or v >= high for v in values) / len(values),
            "near": sum(abs(v) >= 0.95 * max(-low, high) for v in values) / len(values),
            "underflow": sum(v != 0 and abs(v) < 2.0 ** -(n + 1) for v in values) / len(values),
        }

    def sharpness(self, x: Rows, eta: float, rate: float) -> dict[str, float]:
        names = ("hessian_lambda_max", "hessian_lambda_min", "hessian_spectral_norm")
        if [kind for _, kind in self.names] != ["dense"] or self.cfg["use_bias"]:
            eigenvalues = np.array([math.nan])
        else:
            matrix = np.array(x)
            factor = 1.0 if self.cfg["loss_mode"] == "half_mse" else 2 / self.outputs
            eigenvalues = np.linalg.eigvalsh(factor * np.kron(np.eye(self.outputs), matrix.T @ matrix / len(x)))
        norm = np.abs(eigenvalues).max()
        made = dict(zip(names, (eigenvalues.max(), eigenvalues.min(), norm), strict=True))
        for suffix, step in (("raw", eta), ("ctrl", rate)):
            made[f"stability_margin_lambda_{suffix}"] = step * eigenvalues.max()
            made[f"stability_margin_norm_{suffix}"] = step * norm
            made[f"spectral_radius_{suffix}"] = np.abs(1 - step * eigenvalues).max()
        return made

    def errors(self, theta: list[float], after: list[float]) -> dict[str, float]:
        made = {"weight_error_fro": math.nan, "weight_error_fro_after": math.nan}
        if self.case.get("reference_A") is not None and len(self.names) == 1:
            teacher = np.asarray(self.case["reference_A"]).T.ravel().tolist()
            made["weight_error_fro"] = length(theta[: len(teacher)], teacher)
            made["weight_error_fro_after"] = length(after[: len(teacher)], teacher)
        return made


def length(a: list[float], b: list[float] | None = None) -> float:
    return math.sqrt(sum(v * v for v in (a if b is None else [p - q for p, q in zip(a, b, strict=True)])))


# ---------------------------------------------------------------- cases


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


# ---------------------------------------------------------------- the history


def problem_model(*hidden: int, seed: int = 0, samples: int = 64, **settings: Any) -> tuple[Any, LinearBlockModel]:
    problem = synthetic(0, samples)
    form = {"dtype": np.float64, "use_bias": False} | settings
    return problem, LinearBlockModel(problem, num_hidden=list(hidden), seed=seed, **form)


def equal(a: FitHistory, b: FitHistory, *, names: Any = None) -> bool:
    names = list(a) if names is None else names
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in names)


def unit_for(model: LinearBlockModel, kind: str = "golden", **settings: Any) -> Any:
    """A throttle unit for a model's weights."""
    law = {"eta": "0.2", "gradient": "SQ4.12", "weight": "SQ4.12", "update": "SQ2.14", "rho": "0.05"} | settings
    config = ThrottleConfig.stability_margin(elements=model.theta.size, **law)
    if kind == "float":
        return FloatThrottle(config, model.theta)
    return Throttle(config, quantise(model.theta, config.grids.weight))


@pytest.mark.parametrize("unit", ["published", "float", "golden"])
@pytest.mark.parametrize("hidden", [(), (3,)])
def test_all_published_metrics_are_there(unit: str, hidden: tuple[int, ...]) -> None:
    problem, model = problem_model(*hidden, activation="relu" if hidden else None)
    throttle = None if unit == "published" else unit_for(model, unit)
    history = model.train_instrumented(problem.X, problem.Y, 3, 64, throttle=throttle, reference_A=np.ones((2, 4)))
    assert len(PUBLISHED) == 37
    assert set(PUBLISHED) | set(EXTRAS) <= set(history)
    for name in history:
        assert history[name].shape == (3,) and history[name].dtype == np.float64, name
        nan = hidden and name.startswith(("hessian", "stability", "spectral", "weight_error", "autodiff"))
        assert np.isfinite(history[name]).all() != bool(nan or name == "autodiff_lambda_max"), name
    assert set(history.layers) == {layer.name for layer in model.layers if layer.params}
    assert json.dumps(history.meta, allow_nan=False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_formats_are_no_precision(dtype: Any) -> None:
    """precision_dict None, empty, and all of None: bit for bit."""
    form = {"activation": "relu", "use_batchnorm": True, "use_bias": True, "dtype": dtype}
    fields = dict.fromkeys(("weight", "bias", "activation", "accumulator", "gradient", "update", "value"))
    histories, thetas = [], []
    for precision in (None, {}, {"__default__": fields}, {"__default__": {"update": "Q4.4"}, **dict.fromkeys(
        ("dense0", "batchnorm0", "dense1", "activation0"), fields
    )}):  # fmt: skip
        problem, model = problem_model(6, **form)
        histories.append(
            model.train_instrumented(
                problem.X, problem.Y, 5, 16, learning_rate=0.4, use_controller=True, precision_dict=precision, hessian="exact"
            )
        )
        thetas.append(model.theta)
    assert all(np.array_equal(theta, thetas[0]) for theta in thetas)
    assert all(equal(history, histories[0]) for history in histories)


def test_the_model_has_the_last_weights() -> None:
    for kind in ("published", "float", "golden"):
        problem, model = problem_model(3, activation="relu")
        steps: list[Step] = []
        held = []

        def watch(step: Step, steps: list[Step] = steps, held: list[Any] = held, model: Any = model) -> None:
            steps.append(step)
            held.append(np.array_equal(model.theta, step.theta_after))

        throttle = None if kind == "published" else unit_for(model, kind)
        model.train_instrumented(problem.X, problem.Y, 4, 64, learning_rate=0.2, throttle=throttle, observe=watch)
        assert np.array_equal(model.theta, steps[-1].theta_after) and all(held)
        assert not np.array_equal(model.theta, steps[-1].theta)
        for a, b in itertools.pairwise(steps):
            assert np.array_equal(a.theta_after, b.theta)


def test_full_batches_and_shuffles() -> None:
    problem, model = problem_model(samples=50)
    rows: list[int] = []
    history = model.train_instrumented(
        problem.X, problem.Y, 3, 16, shuffle=False, observe=lambda step: rows.append(step.step), use_controller=False
    )
    assert history.steps == 12 and rows == list(range(12))
    kernel = problem_model(samples=50)[1].theta.reshape(4, 2)
    for taken in batches(50, 3, 16, shuffle=False, seed=0):
        kernel = kernel - 0.05 * problem.X[taken].T @ (problem.X[taken] @ kernel - problem.Y[taken]) / len(taken)
    np.testing.assert_allclose(model.theta, kernel.ravel(), rtol=1e-12)


def test_arguments_of_other_types() -> None:
    """Lists, integers and float32 numbers in place of float64: the law's scalars stay float64."""
    problem, model = problem_model()
    plain = model.train_instrumented(problem.X, problem.Y, 6, 64, learning_rate=0.5, chi=0.25, use_controller=True)
    other = problem_model()[1]
    again = other.train_instrumented(
        problem.X.tolist(), problem.Y.tolist(), np.int64(6), np.int32(64),
        learning_rate=np.float32(0.5), chi=np.float32(0.25), use_controller=np.bool_(True),
    )  # fmt: skip
    assert equal(plain, again)


def test_what_an_observer_writes_changes_nothing() -> None:
    problem, model = problem_model()

    def spoil(step: Step) -> None:
        step.gradient[:] = 0

    spoiled = model.train_instrumented(problem.X, problem.Y, 6, 64, learning_rate=1.0, use_controller=True, observe=spoil)
    clean = problem_model()[1].train_instrumented(problem.X, problem.Y, 6, 64, learning_rate=1.0, use_controller=True)
    assert equal(spoiled, clean)


def test_overflow_in_float64() -> None:
    """No eigenvalues and no angle where squares overflow, and no exception either."""
    problem, model = problem_model()
    history = model.train_instrumented(1e200 * problem.X, problem.Y, 3, 64)
    assert history.steps == 1 and history.diverged_at == 0
    for name in ("hessian_lambda_max", "stability_margin_lambda_raw", "update_cosine", "update_angle_rad"):
        assert math.isnan(history[name][0])
    problem, model = problem_model()
    history = model.train_instrumented(5 * problem.X, problem.Y, 500, 64, learning_rate=0.5)
    assert history.diverged_at == history.steps - 1 < 200
    problem, model = problem_model()
    longer = model.train_instrumented(5 * problem.X, problem.Y, 300, 64, learning_rate=0.5, stop_when_diverged=False)
    assert longer.steps == 300 and longer.diverged_at == history.diverged_at
    problem, model = problem_model()
    shorter = model.train_instrumented(5 * problem.X, problem.Y, 300, 64, learning_rate=0.5, divergence_loss=1e6)
    assert shorter.steps < history.steps and shorter["loss"][-1] > 1e6 >= shorter["loss"][:-1].max()


def test_unit_that_cannot_take_a_gradient() -> None:
    """A gradient that is not a number has no code: the run ends with a row without a step."""
    problem, model = problem_model(dtype=np.float32)
    model.set_weights({"dense0/kernel": np.ones((4, 2))})
    x = np.full((4, 4), 3e38, np.float32)
    x[:, 0] = 0  # times infinite outputs
    steps: list[Step] = []
    history = model.train_instrumented(
        problem.X, problem.Y, stream=[(problem.X, problem.Y), (x, np.zeros((4, 2)))] * 2,
        throttle=unit_for(model), observe=steps.append,
    )  # fmt: skip
    assert history.steps == 2 and history.diverged_at == 1 and steps[-1].record is None
    assert np.isnan(history["alpha"][-1]) and history["grad_is_finite"][-1] == 0 == history["actual_update_norm"][-1]
    assert np.array_equal(steps[-1].theta, steps[-1].theta_after)


# ---------------------------------------------------------------- units


def test_the_golden_unit_in_a_network() -> None:
    """Two layers with biases: every step is the one of a unit fed by hand, from weights to gradient to weights."""
    problem, model = problem_model(5, activation="relu", use_bias=True)
    begun = model.theta
    config = unit_for(model).config
    x, y = problem.X, problem.Y
    unit = Throttle(config, quantise(begun, config.grids.weight))
    steps: list[Step] = []
    history = model.train_instrumented(
        x, y, 25, 64, throttle=Throttle(config, quantise(begun, config.grids.weight)), observe=steps.append, learning_rate=99.0
    )
    for t in range(25):
        w0, b0, w1, b1 = np.split(unit.weights, np.cumsum([20, 5, 10]))
        w0, w1 = w0.reshape(4, 5), w1.reshape(5, 2)
        np.testing.assert_array_equal(steps[t].theta, unit.weights)
        z = x @ w0 + b0
        a = np.maximum(z, 0)
        error = (a @ w1 + b1 - y) / 64
        dz = error @ w1.T * (z > 0)
        g = np.concatenate([(x.T @ dz).ravel(), dz.sum(0), (a.T @ error).ravel(), error.sum(0)])
        record = unit.step(quantise(g, config.grids.gradient))
        np.testing.assert_array_equal(steps[t].theta_after, unit.weights)
        assert steps[t].record is not None and steps[t].record.registers == record.registers
        assert history["curvature_proxy"][t] == float(record.registers.curvature)
        assert history["alpha_would"][t] == float(record.registers.alpha)
    assert history.meta["eta"] == 0.2 and history.meta["unit"] == "Throttle"


def test_the_float_unit_is_the_published_one() -> None:
    """The same law in float64: the same run up to roundoff, on a network with minibatches."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        problem, model = problem_model(5, activation="tanh", use_bias=True)
        unit = unit_for(model, "float", eta="0.5", chi="1.5")
        a = model.train_instrumented(problem.X, problem.Y, 10, 16, throttle=unit)
        problem, model = problem_model(5, activation="tanh", use_bias=True)
        b = model.train_instrumented(problem.X, problem.Y, 10, 16, learning_rate=0.5, chi=1.5, use_controller=True)
    for name in ("loss", "alpha", "curvature_proxy", "curvature_ema", "actual_update_norm", "theta_norm_after", "noise_index"):
        np.testing.assert_allclose(a[name], b[name], rtol=1e-8, err_msg=name)


@pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.instrumented.TrainingWarning")
def test_a_network_on_grids_with_the_golden_unit() -> None:
    """Layers' precision and the unit's at once: all weights on the unit's grid, gradients on both."""
    problem, model = problem_model(5, activation="relu", use_bias=True, use_batchnorm=True)
    steps: list[Step] = []
    model.train_instrumented(
        problem.X, problem.Y, 10, 16, throttle=unit_for(model), observe=steps.append,
        precision_dict={"__default__": {"activation": "Q4.8", "gradient": "Q4.6"}},
    )  # fmt: skip
    for step in steps:
        assert np.array_equal(np.rint(step.theta * 2**12), step.theta * 2**12)
        assert np.array_equal(np.rint(step.gradient * 2**6), step.gradient * 2**6)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("unit", ["published", "golden"])
def test_optimisers(optimiser: str, unit: str) -> None:
    """They learn; the intended update is the proposal times alpha eta; the applied one is what it became."""
    problem, model = problem_model(6, activation="tanh", use_bias=True)
    eta = 0.01 if optimiser == "adam" else 0.05
    throttle = unit_for(model, eta=str(eta), weight="SQ4.16", update="SQ2.18") if unit == "golden" else None
    steps: list[Step] = []
    history = model.train_instrumented(
        problem.X, problem.Y, 60, 64, learning_rate=eta, use_controller=True, throttle=throttle, optimiser=optimiser,
        observe=steps.append,
    )  # fmt: skip
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history.meta["optimiser"] == OPTIMISERS[optimiser].__name__
    by_rule = OPTIMISERS[optimiser]()
    for step, row in zip(steps, range(60), strict=True):
        direction = by_rule.propose(step.gradient)
        if unit == "golden":
            direction = quantise(direction, throttle.config.grids.gradient) / 2.0**12
        rate, size = history["eta_eff"][row], np.linalg.norm(direction)
        assert history["raw_update_norm"][row] == pytest.approx(rate * size, rel=1e-12)
        assert history["unthrottled_update_norm"][row] == pytest.approx(eta * size, rel=1e-12)
        bounds = {"rtol": 1e-12, "atol": 1e-14} if unit == "published" else {"rtol": 2e-3, "atol": 2e-5}
        np.testing.assert_allclose(step.theta_after - step.theta, -rate * direction, **bounds)
    assert history["update_cosine"].min() > 0.99


def test_optimiser_state_on_its_grid() -> None:
    problem, model = problem_model(3, use_bias=True)
    state = TrainState()
    precision = {"dense0": {"momentum": "Q4.3"}, "__default__": {"momentum": "Q4.6"}, "dense1": {"momentum": None}}
    model.train_instrumented(problem.X, problem.Y, 5, 64, optimiser="momentum", precision_dict=precision, state=state)
    assert state.optimiser is not None
    v = state.optimiser.state["momentum"]
    assert np.array_equal(np.rint(v[:15] * 8), v[:15] * 8) and not np.array_equal(np.rint(v[15:] * 64), v[15:] * 64)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("unit", ["published", "float", "golden"])
@pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.instrumented.TrainingWarning")
def test_estimators(estimator: str, unit: str) -> None:
    """Full batches: same_batch measures what naive does. Batch statistics move once a step, whatever the passes."""
    curvatures = []
    for name in ("naive", estimator):
        problem, model = problem_model(4, activation="tanh", use_bias=True, use_batchnorm=True)
        throttle = None if unit == "published" else unit_for(model, unit)
        history = model.train_instrumented(
            problem.X, problem.Y, 12, 64, learning_rate=0.2, use_controller=True, throttle=throttle, estimator=name
        )
        curvatures.append(history["curvature_proxy"])
        assert np.isfinite(history["alpha"]).all() and history["loss"][-1] < history["loss"][0]
        weights = model.get_weights()
        assert (weights["batchnorm0/moving_variance"] < 1).all() and (weights["batchnorm0/moving_variance"] > 0.99**12).all()
    if estimator == "same_batch":
        np.testing.assert_allclose(curvatures[1], curvatures[0], rtol=1e-6 if unit != "golden" else 1e-12)


def test_same_batch_by_hand() -> None:
    """Minibatches of one linear layer: C is the curvature of each batch along the motion."""
    problem, model = problem_model(samples=48)
    steps: list[Step] = []
    history = model.train_instrumented(
        problem.X, problem.Y, 4, 12, learning_rate=0.3, use_controller=True, estimator="same_batch", observe=steps.append
    )
    drawn = list(batches(48, 4, 12, shuffle=True, seed=0))
    for t in range(1, len(steps)):
        motion = (steps[t].theta - steps[t - 1].theta).reshape(4, 2)
        x = problem.X[drawn[t]]
        curvature = np.linalg.norm(x.T @ (x @ motion) / 12) / np.linalg.norm(motion)
        assert history["curvature_proxy"][t] == pytest.approx(curvature, rel=1e-6)


# ---------------------------------------------------------------- distortion


@pytest.mark.parametrize("unit", ["published", "golden"])
def test_budget(unit: str) -> None:
    """Parts and residual are the whole; without a gradient grid and an error of alpha the whole is the angle of the row."""
    problem, model = problem_model()
    if unit == "published":
        options: dict[str, Any] = {"precision_dict": {"dense0": {"weight": "Q2.6", "update": "Q2.8"}}, "learning_rate": 0.5}
    else:
        options = {"throttle": unit_for(model, eta="0.7", chi="0.3", update="SQ1.9", weight="SQ3.9")}
    history = model.train_instrumented(problem.X, problem.Y, 30, 64, use_controller=True, distortion=True, **options)
    for kind in ("angle", "radius"):
        parts = sum(history[f"{kind}_{cause}"] for cause in CAUSES)
        np.testing.assert_allclose(parts + history[f"{kind}_residual"], history[f"{kind}_whole"], rtol=1e-12, atol=1e-15)
    assert history["angle_update_rounding"].max() > 1e-3 and history["angle_weight_rounding"].max() > 0
    if unit == "published":
        for name in ("angle_gradient_grid", "angle_alpha_error", "radius_gradient_grid", "radius_alpha_error"):
            assert not history[name].any(), name
        moved = history["dtheta_zero"] == 0
        assert moved.sum() > 3
        np.testing.assert_allclose(history["angle_whole"][moved], history["update_angle_rad"][moved], atol=1e-7)
        np.testing.assert_allclose(history["radius_whole"] + 1, history["update_radius_ratio"], rtol=1e-9, atol=1e-9)
    else:
        assert history["angle_gradient_grid"].max() > 0 and 0 < np.abs(history["radius_alpha_error"]).max() < 1e-3


def test_no_budget_unless_asked_for() -> None:
    problem, model = problem_model()
    assert not any(name.startswith(("angle_", "radius_")) for name in model.train_instrumented(problem.X, problem.Y, 2))


# ---------------------------------------------------------------- state


@pytest.mark.parametrize("unit", ["published", "golden", "float"])
@pytest.mark.parametrize(("optimiser", "estimator"), [("sgd", "naive"), ("momentum", "same_batch"), ("adam", "half_batch")])
def test_a_state_continues_exactly(unit: str, optimiser: str, estimator: str) -> None:
    """20 steps are 10 and 10, bit for bit."""

    def fresh() -> tuple[Any, LinearBlockModel, dict[str, Any]]:
        problem, model = problem_model(4, activation="tanh", use_bias=True, use_batchnorm=True)
        throttle = None if unit == "published" else unit_for(model, unit, eta="0.6")
        return problem, model, {"throttle": throttle, "optimiser": optimiser, "estimator": estimator}

    rng = np.random.default_rng(5)
    problem, model, options = fresh()
    stream = [(problem.X[rows], problem.Y[rows]) for rows in rng.integers(64, size=(20, 10))]
    common = {"learning_rate": 0.6, "use_controller": True, "distortion": True}
    whole = model.train_instrumented(problem.X, problem.Y, stream=stream, **common, **options)
    kept = model.theta
    problem, model, options = fresh()
    state = TrainState()
    first = model.train_instrumented(problem.X, problem.Y, stream=stream[:10], state=state, **common, **options)
    second = model.train_instrumented(problem.X, problem.Y, stream=iter(stream[10:]), state=state, **common)
    assert np.array_equal(model.theta, kept) and state.steps == 20
    for name in whole:
        assert np.array_equal(whole[name], np.concatenate([first[name], second[name]]), equal_nan=True), name


def test_the_budget_of_a_continued_run() -> None:
    """Asked for only in the second run, it is what it would have been: the law in float64 went along in the first."""
    parts = []
    for early in (True, False):
        problem, model = problem_model()
        state, throttle = TrainState(), unit_for(model, eta="0.7", chi="0.3")
        model.train_instrumented(problem.X, problem.Y, 5, 64, throttle=throttle, state=state, distortion=early)
        parts.append(model.train_instrumented(problem.X, problem.Y, 5, 64, state=state, distortion=True))
    assert parts[0] == parts[1] and 0 < np.abs(parts[0]["radius_alpha_error"]).max() < 1e-3


def test_without_a_state_a_run_begins_unthrottled() -> None:
    problem, model = problem_model()
    options = {"learning_rate": 3.0, "use_controller": True}
    first = model.train_instrumented(problem.X, problem.Y, 10, 64, **options)
    assert first["alpha"][-1] < 0.9
    second = model.train_instrumented(problem.X, problem.Y, 10, 64, **options)
    assert second["alpha"][0] == 1 and second["curvature_proxy"][0] == second["curvature_ema"][0] == 0


def test_a_state_under_another_law() -> None:
    """C and S go on; learning rate, law and formats are those of the run."""
    problem, model = problem_model()
    state = TrainState()
    first = model.train_instrumented(problem.X, problem.Y, 10, 64, learning_rate=0.5, state=state)
    theta = model.theta
    second = model.train_instrumented(
        problem.X, problem.Y, 10, 64, learning_rate=2.0, chi=0.5, use_controller=True, state=state,
        precision_dict={"dense0": {"weight": "Q2.10"}},
    )  # fmt: skip
    assert np.all(first["alpha"] == 1) and second.meta["eta"] == 2.0 and second.meta["enabled"] is True
    assert second["theta_norm"][0] == first["theta_norm_after"][-1] and second["dtheta_norm"][0] > 0
    assert second["curvature_proxy"][0] > 0
    assert second["alpha"][0] == pytest.approx(min(1, 0.5 / (2.0 * second["curvature_for_control"][0])), rel=1e-9)
    assert np.array_equal(np.rint(model.theta * 1024), model.theta * 1024) and not np.array_equal(model.theta, theta)


def test_a_state_of_another_model() -> None:
    problem, model = problem_model()
    state = TrainState()
    model.train_instrumented(problem.X, problem.Y, 2, 64, state=state)
    model.reinitialize_weights()
    with pytest.raises(ValueError, match="the model's weights must be those that the state was left with"):
        model.train_instrumented(problem.X, problem.Y, 2, 64, state=state)
    with pytest.raises(ValueError, match="throttle must be the unit of the state"):
        model.train_instrumented(problem.X, problem.Y, 2, 64, state=state, throttle=unit_for(model))


# ---------------------------------------------------------------- errors


NAN = np.full((64, 4), np.nan)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"X": NAN}, r"X\[0, 0\] must be finite in float64, not nan"),
        ({"Y": np.where(np.arange(128).reshape(64, 2) == 5, np.inf, 1.0)}, r"Y\[2, 1\] must be finite in float64, not inf"),
        ({"X": np.ones((64, 3))}, r"X must have shape \(rows, 4\), not \(64, 3\)"),
        ({"X": np.ones(64)}, r"X must have shape \(rows, 4\), not \(64,\)"),
        ({"X": np.ones((0, 4)), "Y": np.ones((0, 2))}, r"X must have shape \(rows, 4\), not \(0, 4\)"),
        ({"Y": np.ones((64, 1))}, r"Y must have shape \(rows, 2\), not \(64, 1\)"),
        ({"Y": np.ones((63, 2))}, r"Y must have a row for each of the 64 of X, not 63"),
        ({"X": np.ones((64, 4), object)}, r"X must hold numbers, not object"),
        ({"X": np.ones((64, 4), complex)}, r"X must hold numbers, not complex128"),
        ({"X": np.full((64, 4), "1")}, r"X must hold numbers, not <U1"),
        ({"epochs": 0}, r"epochs must be an integer of at least 1, not 0"),
        ({"epochs": 1.0}, r"epochs must be an integer of at least 1, not 1\.0"),
        ({"batch_size": 0}, r"batch_size must be an integer of at least 1, not 0"),
        ({"batch_size": True}, r"batch_size must be an integer of at least 1, not True"),
        ({"learning_rate": 0.0}, r"eta \(learning_rate\) must be greater than 0, not 0\.0"),
        ({"learning_rate": math.nan}, r"eta \(learning_rate\) must be greater than 0, not nan"),
        ({"learning_rate": "0.1"}, r"eta \(learning_rate\) must be a number, not '0\.1'"),
        ({"chi": -1.0}, r"chi must be greater than 0, not -1\.0"),
        ({"chi": 1j}, r"chi must be a number, not 1j"),
        ({"beta": -1.0}, r"beta must be at least 0, not -1\.0"),
        ({"alpha_min": 1.5}, r"alpha_min must be at least 0 and at most 1, not 1\.5"),
        ({"curvature_ema_rho": 1.5}, r"rho \(curvature_ema_rho\) must be at least 0 and at most 1, not 1\.5"),
        ({"eps": math.inf}, r"eps must be at least 0, not inf"),
        ({"use_controller": "no"}, r"enabled \(use_controller\) must be True or False, not 'no'"),
        ({"controller": "gamma"}, r"controller must be one of chi, beta, not 'gamma'"),
        ({"on_still": "skip"}, r"on_still must be one of floor, hold, divide, not 'skip'"),
        ({"ema_start": "last"}, r"ema_start must be one of zero, first, not 'last'"),
        ({"loss_mode": "mse"}, r"loss_mode must be one of half_mse, keras_mse, not 'mse'"),
        ({"optimiser": "rms"}, r"optimiser must be one of sgd, momentum, nesterov, adam, or an Optimiser, not 'rms'"),
        ({"estimator": "best"}, r"estimator must be one of naive, same_batch, half_batch, momentum, .* not 'best'"),
        ({"estimator": "half_batch", "batch_size": 9}, r"batch_size must leave no batch of one row for half_batch, not 9 of 64"),
        ({"hessian": "full"}, r"hessian must be one of none, analytic, exact, lanczos, not 'full'"),
        ({"divergence_loss": 0.0}, r"divergence_loss must be greater than 0, not 0\.0"),
        ({"reference_A": np.ones((4, 2))}, r"reference_A must have shape \(outputs, inputs\) = \(2, 4\), not \(4, 2\)"),
        ({"reference_A": np.full((2, 4), np.nan)}, r"reference_A must be finite, not nan"),
        ({"reference_A": [["a"]]}, r"reference_A must hold numbers, not <U1"),
        ({"X": [[1.0, 2.0], [3.0]]}, r"X must hold numbers: .*inhomogeneous"),
        ({"precision_dict": {"dense9": {"weight": "Q1.2"}}}, r"precision names must be layers of the model \(.*\), not 'dense9'"),
        ({"precision_dict": {"dense0": {"wait": "Q1.2"}}}, r"precision of dense0\.wait: the field must be one of"),
        ({"precision_dict": {"dense0": {"weight": "1.2"}}}, r"precision of dense0\.weight"),
        ({"precision_dict": {"input": {"weight": "Q1.2"}}}, r"precision of input\.weight: the field must be one of value"),
        ({"precision_dict": 5}, r"precision_dict must be None, a mapping or a PrecisionDict, not 5"),
        ({"throttle": 9}, r"throttle must have 8 elements, as the model has weights, not 9"),
    ],
)
def test_errors_before_the_first_step(changes: dict[str, Any], text: str) -> None:
    """The field, the value, the rule; model, state and observer see nothing."""
    problem, model = problem_model()
    if "throttle" in changes:
        config = ThrottleConfig.stability_margin(elements=9, eta="0.1")
        changes = {"throttle": Throttle(config, np.zeros(9, int))}
    state, seen = TrainState(), []
    before = model.theta
    with pytest.raises(ValueError, match=text):
        train_instrumented(model, **({"X": problem.X, "Y": problem.Y, "observe": seen.append, "state": state} | changes))
    assert not seen and np.array_equal(model.theta, before)
    assert state == TrainState()


def test_a_refused_run_leaves_the_weights() -> None:
    """A throttle that fits and a bad argument beside it: the model keeps its own weights."""
    problem, model = problem_model()
    before = model.theta
    throttle = unit_for(model, weight="SQ2.3")
    with pytest.raises(ValueError, match="epochs"):
        model.train_instrumented(problem.X, problem.Y, 0, throttle=throttle)
    assert np.array_equal(model.theta, before)


def test_beyond_float32() -> None:
    problem, model = problem_model(dtype=np.float32)
    with pytest.raises(ValueError, match=r"X\[0, 0\] must be finite in float32, not 1e\+300"):
        model.train_instrumented(np.full((64, 4), 1e300), problem.Y)
    with pytest.raises(ValueError, match="dtype must be float64 for the float unit, not float32"):
        model.train_instrumented(problem.X, problem.Y, throttle=unit_for(model, "float"))
    with pytest.raises(ValueError, match="dtype must be float64 for weights of more than 24 bits"):
        model.train_instrumented(problem.X, problem.Y, throttle=unit_for(model, weight="SQ4.28"))


def test_too_many_weights_for_the_exact_hessian() -> None:
    problem, model = problem_model(700)
    with pytest.raises(ValueError, match="hessian must not be 'exact' for more than 4000 weights, not 4200"):
        model.train_instrumented(problem.X, problem.Y, hessian="exact")


def test_a_stream_that_does_not_fit() -> None:
    problem, model = problem_model()
    stream = [(problem.X, problem.Y), (problem.X, problem.Y[:, :1])]
    with pytest.raises(ValueError, match=r"stream y must have shape \(rows, 2\), not \(64, 1\)") as error:
        model.train_instrumented(problem.X, problem.Y, stream=stream)
    assert error.value.history.steps == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_exception_carries_the_rows(kind: type[BaseException]) -> None:
    problem, model = problem_model(3)

    def stop(step: Step) -> None:
        if step.step == 4:
            raise kind("enough")

    with pytest.raises(kind, match="enough") as error:
        model.train_instrumented(problem.X, problem.Y, 10, 64, observe=stop)
    rows = error.value.history  # type: ignore[attr-defined]
    whole = problem_model(3)[1].train_instrumented(problem.X, problem.Y, 5, 64)
    assert isinstance(rows, FitHistory) and rows.steps == 5 and rows == whole


# ---------------------------------------------------------------- warnings


def told(**settings: Any) -> list[str]:
    problem, model = problem_model()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        history = model.train_instrumented(problem.X, problem.Y, 1, **settings)
    assert all(issubclass(item.category, TrainingWarning) for item in caught)
    assert history.meta["warnings"] == [str(item.message) for item in caught]
    return [str(item.message).split(" is ")[0] for item in caught]


def test_warnings() -> None:
    """On laws that noise freezes, where there are minibatches and the law is in force."""
    assert told(batch_size=16, use_controller=True, chi=1.2) == ["chi = 1.2"]
    assert told(batch_size=16, use_controller=True, chi=1.5) == []
    assert told(batch_size=64, use_controller=True, chi=1.2) == []
    assert told(batch_size=100, use_controller=True, chi=1.2) == []
    assert told(batch_size=16, use_controller=False, chi=1.2) == []
    assert told(batch_size=16, use_controller=True, chi=1.2, estimator="same_batch") == []
    assert told(batch_size=16, use_controller=True, controller="beta", beta=1.0) == ["beta = 1"]
    assert told(batch_size=16, use_controller=True, controller="beta", beta=0.01) == []


def test_noise_is_told_of_once() -> None:
    rng = np.random.default_rng(0)
    problem, model = problem_model(samples=400)
    Y = problem.Y + rng.normal(size=problem.Y.shape)
    with pytest.warns(TrainingWarning, match="minibatch noise has taken over the curvature") as caught:
        model.train_instrumented(problem.X, Y, 10, 4, learning_rate=0.05, use_controller=True, chi=1.5)
    assert len(caught) == 1
    assert told(batch_size=64, use_controller=True) == []


# ---------------------------------------------------------------- the law


@pytest.mark.parametrize("on_still", ["divide", "hold", "floor"])
def test_zero_motion(on_still: str) -> None:
    """A grid that swallows a step: dividing by eps kills the run, holding and the floor do not."""
    theta = np.zeros(2)
    law = Law(eta=0.1, on_still=on_still)
    unit = PublishedThrottle(law, theta, [Segment(2, None, Fixed.parse("SQ2.6"))])
    unit.step(np.array([0.01, 0.0]))
    still = unit.step(np.array([0.03, 0.0]))
    assert still.registers.still and still.registers.still_steps == 1
    want = {"divide": 0.02 / 1e-12, "hold": 0.0, "floor": 0.02 / (math.sqrt(2) * 2.0**-7)}[on_still]
    assert still.registers.curvature == pytest.approx(want)
    assert still.registers.ema == pytest.approx(0.05 * want if on_still == "divide" else 0)
    assert still.registers.alpha == pytest.approx(min(1, 1.5 / (0.1 * want)) if want else 1)


def test_the_law_is_frozen_and_float64() -> None:
    law = Law(eta=np.float32(0.5), chi=1, rho=np.float32(0.25))
    assert all(type(getattr(law, name)) is float for name in ("eta", "chi", "beta", "alpha_min", "rho", "eps"))


def test_the_published_unit_refuses() -> None:
    law = Law(eta=0.1)
    for weights in (np.zeros((2, 2)), np.zeros(2, int), np.zeros(2, np.float16)):
        with pytest.raises(ValueError, match="weights must be a vector of float32 or float64"):
            PublishedThrottle(law, weights)
    with pytest.raises(ValueError, match="segments must cover the 3 weights, not 2"):
        PublishedThrottle(law, np.zeros(3), [Segment(2)])


def test_the_hessian_of_one_layer_does_not_hang_on_theta() -> None:
    """A run whose weights have overflowed still has the sharpness of its data."""
    data = synthetic()
    model = LinearBlockModel(data, num_hidden=[2], use_bias=False, seed=0)
    history = model.train_instrumented(
        data.X * 4, data.Y, epochs=60, batch_size=1000, learning_rate=0.5, stop_when_diverged=False
    )
    assert history["diverged"][-1] == 1 and np.isfinite(history["hessian_lambda_max"]).all()


def test_a_large_eps_is_part_of_the_law() -> None:
    controller = Controller(Law(eta=0.5, chi=1.5, eps=10))
    assert controller.step(0, 0) == pytest.approx(1.5 / (0.5 * 10))
