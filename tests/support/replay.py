"""A recorded case, step by step through :func:`~kappa_rtl.golden.training.instrumented.train_instrumented`.

A case is a dictionary of arrays and settings: ``X`` (n, inputs), ``Y`` (n, outputs), ``batches`` (T, B) of row indices, -1 for
none, ``weights`` by ``layer/variable``, ``cfg`` (below), and perhaps ``x_scale``, ``y_scale`` (T,) and ``reference_A``.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.training.instrumented import Step, TrainingWarning
from kappa_rtl.golden.training.model import LinearBlockModel

DEFAULTS: dict[str, Any] = {
    "dtype": "float64",
    "num_hidden": [],
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
    "autodiff_hessian": False,
}
"""The settings of a case, ``cfg``, and what an absent one means."""

DIVERGENCE_LOSS = 1e6
ZERO_MOTION = {"spec": "divide", "hold": "hold", "floor": "floor"}


@dataclass(frozen=True)
class _Shapes:
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


def run(inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Train as the case says; every metric (T,), ``theta_hist`` (T+1, P), ``grad_hist`` (T, P) and the final moving statistics.

    Raises:
        ValueError: what the loop refuses.
    """
    if unknown := [name for name in inputs["cfg"] if name not in DEFAULTS]:
        warnings.warn(f"cfg holds what the replay does not know: {', '.join(unknown)}", TrainingWarning, stacklevel=2)
    cfg = DEFAULTS | dict(inputs["cfg"])
    if cfg["zero_dtheta"] not in ZERO_MOTION:
        raise ValueError(f"zero_dtheta must be one of {', '.join(ZERO_MOTION)}, not {cfg['zero_dtheta']!r}")
    dtype = np.dtype(cfg["dtype"])
    X, Y = np.asarray(inputs["X"], dtype), np.asarray(inputs["Y"], dtype)
    model = LinearBlockModel(
        _Shapes(X.shape, Y.shape),
        num_hidden=list(cfg["num_hidden"]),
        activation=cfg["activation"],
        use_batchnorm=cfg["use_batchnorm"],
        use_bias=cfg["use_bias"],
        seed=0,
        dtype=dtype,
    )
    model.set_weights(inputs["weights"])
    thetas, gradients = [model.theta], []

    def keep(step: Step) -> None:
        thetas.append(step.theta_after)
        gradients.append(step.gradient)

    def stream() -> Any:
        for t, rows in enumerate(np.asarray(inputs["batches"])):
            chosen = rows[rows >= 0]
            x, y = X[chosen], Y[chosen]
            for name in ("x_scale", "y_scale"):
                if inputs.get(name) is not None:
                    factor = dtype.type(inputs[name][t])
                    x, y = (x * factor, y) if name == "x_scale" else (x, y * factor)
            yield x, y

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # a case is what it is
        history = model.train_instrumented(
            X,
            Y,
            batch_size=np.asarray(inputs["batches"]).shape[1],
            stream=stream(),
            **{
                name: cfg[name]
                for name in (
                    *("learning_rate", "loss_mode", "chi", "curvature_ema_rho", "eps"),
                    *("controller", "beta", "alpha_min", "use_controller"),
                )
            },
            precision_dict=cfg["precision"],
            on_still=ZERO_MOTION[cfg["zero_dtheta"]],
            ema_start=cfg["ema_init"],
            hessian="exact" if cfg["autodiff_hessian"] else "analytic",
            reference_A=inputs.get("reference_A"),
            divergence_loss=DIVERGENCE_LOSS,
            stop_when_diverged=False,
            observe=keep,
        )
    made: dict[str, NDArray[Any]] = dict(history)
    made |= {"theta_hist": np.array(thetas, np.float64), "grad_hist": np.array(gradients, np.float64)}
    for layer in model.layers:
        made |= {f"final__{layer.name}__{name}": value for name, value in layer.state.items()}
    return made
