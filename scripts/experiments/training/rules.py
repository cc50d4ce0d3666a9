"""Experiments on the unit's own options: the laws, how the update is rounded, and a step size that comes a step late.

They need a unit that has these options, golden or RTL; on the float datapath their arms run on the float unit, which has the
same laws and the same delay, and rounds nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ....golden.network.data import Drift, digits
from .published import ETA, LINEAR, Arm, Experiment, Formats, Phase, teacher
from .widths import unit_formats

STEPS = 300


def _digits(name: str, bits: int, *, rate: float, steps: int, unit: Mapping[str, Any], enabled: bool = True) -> Arm:
    """64-32-10 with relu on handwritten digits, all of them a step, on grids of so many bits but for the gradient's 16."""
    formats = dict(unit_formats(bits))
    formats["__default__"] = {**formats["__default__"], "gradient": "SQ4.12"}
    settings = {"learning_rate": rate, "on_still": "floor", "use_controller": enabled}
    return Arm(
        name=name,
        phases=(Phase(steps=steps, settings=settings),),
        problem=lambda seed: digits(),
        model={"num_hidden": [32], "activation": "relu", "dtype": np.float64},
        precision=formats,
        unit=unit,
    )


def experiment_rounding(*, steps: int = STEPS) -> Experiment:
    """Digits on 8 and 10 bits, gradients on 16: what random numbers, or a memory of what was dropped, save of lost updates.

    The update's grid is the weights', but for ``fine``: there it is finer by a bit, and what the random numbers let through is
    rounded to nearest a second time.
    """

    def options(bits: int) -> dict[str, dict[str, Any]]:
        nearest, stochastic = ({"update": f"SQ2.{bits - 3},{mode}"} for mode in ("nearest_even", "stochastic"))
        return {
            "nearest": nearest,
            "stochastic": stochastic,
            "stochastic_4": stochastic | {"random_bits": 4},
            "fine": {"update": f"SQ2.{bits - 2},stochastic"},
            "residual_2": nearest | {"residual_bits": 2},
            "residual_8": nearest | {"residual_bits": 8},
        }

    return Experiment(
        name="rounding",
        title="Digits, 64-32-10: rounding of the update",
        arms=tuple(
            _digits(f"{bits}_{name}", bits, rate=0.1, steps=steps, unit=unit)
            for bits in (8, 10)
            for name, unit in options(bits).items()
        ),
        columns=("loss", "accuracy", "min_alpha", "radius", "angle", "still"),
        seeds=3,
        datapath="golden",
    )


def experiment_laws(*, steps: int = STEPS) -> Experiment:
    """Digits on 16 bits at a rate that the network does not bear, under every law."""
    laws: dict[str, dict[str, Any]] = {
        "stability_margin": {"chi": 1.5},
        "inverse_curvature": {"beta": 1},
        "adgd": {},
        "clip_norm": {"max_norm": "0.1"},
        "trust_ratio": {"trust": "0.02"},
    }
    return Experiment(
        name="laws",
        title="Digits, 64-32-10, 16 bits, at a rate that is too large: the laws",
        arms=(
            _digits("off", 16, rate=1.0, steps=steps, unit={}, enabled=False),
            *(_digits(name, 16, rate=1.0, steps=steps, unit={"law": name} | given) for name, given in laws.items()),
        ),
        columns=("loss", "largest_loss", "accuracy", "min_alpha", "radius", "angle", "still"),
        seeds=3,
        datapath="golden",
    )


def experiment_delay(*, steps: int = 100) -> Experiment:
    """The linear teacher whose inputs grow: alpha of this step, or of the step before, as the one-pass unit applies it."""
    drifts = {"jump": Drift(factor=4.0), "ramp": Drift(shape="ramp", factor=4.0, length=50)}
    formats: dict[str, Formats | None] = {
        "24": None,
        "12": {"dense0": {"weight": "SQ4.8", "update": "SQ4.12", "gradient": "SQ8.8"}},
    }

    def arm(name: str, drift: Drift, precision: Formats | None, delay: int, chi: float) -> Arm:
        settings = {"learning_rate": ETA, "on_still": "floor", "use_controller": True, "chi": chi}
        return Arm(
            name=name,
            phases=(
                Phase(steps=20, plain=True, settings={"learning_rate": ETA}),
                Phase(steps=steps, drift=drift, settings=settings),
            ),
            problem=teacher,
            model=LINEAR | {"dtype": np.float64},
            precision=precision,
            unit={"delay": delay},
        )

    return Experiment(
        name="delay",
        title="Scale drift, 1 to 4: alpha of this step, or of the step before",
        arms=tuple(
            arm(f"{kind}_{bits}_chi{chi:g}_delay{delay}", drift, precision, delay, chi)
            for kind, drift in drifts.items()
            for bits, precision in formats.items()
            for chi in (1.5, 0.75)
            for delay in (0, 1)
        ),
        columns=("loss", "largest_loss", "min_alpha", "margin", "radius", "angle", "diverged_at"),
        seeds=3,
        datapath="golden",
    )
