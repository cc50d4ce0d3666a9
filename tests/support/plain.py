"""The instrumented loop a second time, in plain Python numbers and lists, from its definitions alone."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

Rows = list[list[float]]
Case = dict[str, Any]


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
            intended = [r(-rate * v) for v in raw_g]
            raw, actual = length(intended), length(applied)
            inner = sum(a * b for a, b in zip(applied, intended, strict=True))
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
