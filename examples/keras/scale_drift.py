"""Experiment 000 as a plain Keras loop, throttle off and on, beside the harness's own run: ``scale_drift.py [picture.png]``.

A linear student learns in 20 full batches, then its inputs are four times as large. Both sides compute in float64 and sum in
other orders, so that their losses agree to float rounding only. On the grid their gradients are the same codes, and everything
behind that is equal to the bit: alpha, C and every weight of every step.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from matplotlib.figure import Figure

from kappa_rtl import Throttle
from kappa_rtl.golden.training.model import LinearBlockModel
from kappa_rtl.keras import GlobalThrottle
from kappa_rtl.scripts.experiments.training.published import LINEAR, experiment_000, run_arm, teacher

ETA, GAIN, BEFORE, STEPS = 0.5, 4.0, 20, 100  # as experiment 000 has them
FORMATS = {"*": {"gradient": "SQ12.14", "direction": "SQ12.14", "weight": "SQ6.18", "update": "SQ6.18"}}
PUBLISHED = {"chi": 1.5, "rho": 0.05, "eps": 1e-12, "on_still": "divide", "ema_start": "zero"}
DOUBLE = {**LINEAR, "dtype": np.float64}


def train(kernel: Any, optimizer: Any, x: Any, y: Any, steps: int) -> list[tuple[float, Any]]:
    """The linear student, in float64 as Keras' own Dense on torch is not; loss before and weights after each step."""
    rows, x, y = [], torch.tensor(x), torch.tensor(y)
    for _ in range(steps):
        loss = ((x @ kernel.value - y) ** 2).mean()  # of two outputs: the harness's half_mse
        optimizer.apply(torch.autograd.grad(loss, [kernel.value]), [kernel])
        rows.append((float(loss.detach()), keras.ops.convert_to_numpy(kernel).ravel().copy()))
    return rows


def main(picture: str = "scale_drift.png") -> None:
    problem = teacher(0)
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels = figure.subplots(1, 2)
    for colour, arm, enabled in zip(("tab:red", "tab:blue"), experiment_000().arms, (False, True), strict=False):
        harness: list[Any] = []
        history = run_arm(replace(arm, model=DOUBLE), make_unit=Throttle, observe=harness.append)

        start = LinearBlockModel(problem, seed=0, **DOUBLE).theta.reshape(4, 2)
        kernel = keras.Variable(start, dtype="float64", name="kernel")
        train(kernel, keras.optimizers.SGD(ETA), problem.X, problem.Y, BEFORE)
        throttle = GlobalThrottle(keras.optimizers.SGD(ETA), formats=FORMATS, enabled=enabled, **PUBLISHED)
        throttle.build([kernel])  # which brings it onto its grid, before the first gradient
        rows = train(kernel, throttle, GAIN * problem.X, problem.Y, STEPS)

        theirs = harness[BEFORE:]
        same = {
            "weights": sum(np.array_equal(weights, step.theta_after) for (_, weights), step in zip(rows, theirs, strict=True)),
            "alpha": int(np.sum(throttle.history["alpha"] == history["alpha"][BEFORE:])),
            "C": int(np.sum(throttle.history["curvature_proxy"] == history["curvature_proxy"][BEFORE:])),
        }
        off = max(abs(loss / step.row["loss"] - 1) for (loss, _), step in zip(rows, theirs, strict=True))
        counted = ", ".join(f"{name} in {count}" for name, count in same.items())
        print(f"{arm.name}: equal to the bit: {counted} of {STEPS} steps; losses within {off:.0e}; last loss {rows[-1][0]:.2g}")
        panels[0].semilogy(history["loss"], color=colour, lw=5, alpha=0.3, label=f"{arm.name}, harness")
        panels[0].semilogy(range(BEFORE, BEFORE + STEPS), [loss for loss, _ in rows], color=colour, label=f"{arm.name}, Keras")
        panels[1].plot(range(BEFORE, BEFORE + STEPS), throttle.history["alpha"], color=colour, label=arm.name)
    for ax, title in zip(panels, ("loss", "alpha applied"), strict=True):
        ax.set(title=title, xlabel="step")
        ax.legend()
    figure.suptitle(f"Inputs {GAIN:g} times as large from step {BEFORE} on: a Keras loop and the harness")
    figure.savefig(picture)


main(*sys.argv[1:])
