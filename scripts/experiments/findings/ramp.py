"""What the throttle sees of a curvature that grows smoothly: the margin it leaves, beside the exact one of a single layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ....golden.network.data import Drift
from ....golden.reference import FloatThrottle
from ....golden.training.instrumented import Step
from ...settings import Settings
from ..explore.network import Network
from ..explore.point import FLOAT, OFF, Point
from ..training.published import run_arm

LENGTHS = (1, 5, 15, 50, 150)
"""Steps in which the inputs grow fourfold, and lambda_max sixteenfold."""

LAWS = (OFF, "stability_margin", "inverse_curvature", "adgd")

TITLE = "one layer in float, inputs grow fourfold, rate .1"


def tasks(seeds: int) -> list[dict[str, Any]]:
    """The one task of this finding, as its results have it. Half a minute for five seeds."""
    network = Network.of(Settings())
    dots = []
    for law in LAWS:
        for length in LENGTHS:
            found = [_run(network, law, length, network.seed + number) for number in range(seeds)]
            dots.append({"x": length, "line": law} | {name: [one[name] for one in found] for name in found[0]})
    return [{"task": "ramp", "title": TITLE, "dots": dots}]


def _run(network: Network, law: str, length: int, seed: int) -> dict[str, Any]:
    """One run: ``margin``, the largest ``alpha * eta * lambda_max`` of its steps; ``growing``, that of the steps while the inputs
    grow, the first at their full scale among them; ``seen``, C over lambda_max in the first step of the largest margin.

    The loss is half the mean square of a linear layer: its Hessian has the eigenvalues of ``X^T X / n``, which grow with the
    square of the inputs' scale.
    """
    arm = network.arm(Point(weight=FLOAT, law=law), seed)
    ramp = Drift(shape="ramp", factor=4.0, begin=network.steps // 6, length=length)
    arm = replace(arm, phases=(replace(arm.phases[0], drift=ramp),))
    inputs = network.split(seed).train.X
    largest = float(np.linalg.eigvalsh(inputs.T @ inputs / len(inputs))[-1])
    steps: list[tuple[float, float]] = []

    def look(step: Step) -> bool:
        curvature = largest * ramp(step.step) ** 2
        steps.append((step.row["alpha_applied"] * step.row["learning_rate"] * curvature, step.row["curvature"] / curvature))
        return False

    with np.errstate(all="ignore"):
        history = run_arm(arm, seed, make_unit=FloatThrottle, observe=look)
    begin, finite = network.steps // 6, [i for i, step in enumerate(steps) if all(map(math.isfinite, step))]
    largest_at = max(finite, key=lambda i: (steps[i][0], -i))
    growing = max(steps[i][0] for i in finite if begin < i <= begin + length)
    diverged = history.diverged_at is not None
    return {
        "margin": round(steps[largest_at][0], 4),
        "growing": round(growing, 4),
        "seen": round(steps[largest_at][1], 6),
        "ending": "diverged" if diverged else "done",
    }
