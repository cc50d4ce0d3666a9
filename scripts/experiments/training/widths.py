"""Experiments by width: a network in float and on grids of 16, 12 and 8 bits, on data that come along or are the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ....golden.network.data import Problem, diabetes, digits
from ..subject import DataSpec, ModelSpec
from .published import Arm, Experiment, Formats, Phase


def unit_formats(bits: int) -> Formats:
    """Every tensor on a grid of so many bits, products on one twice as wide."""
    return {
        "input": {"value": f"SQ4.{bits - 4}"},
        "__default__": {
            "weight": f"SQ3.{bits - 3}",
            "bias": f"SQ3.{bits - 3}",
            "activation": f"SQ6.{bits - 6}",
            "accumulator": f"SQ10.{2 * bits - 10}",
            "gradient": f"SQ4.{bits - 4}",
            "update": f"SQ2.{bits - 2}",
        },
    }


def _by_width(
    name: str,
    title: str,
    problem: Problem,
    *,
    rate: float,
    steps: int,
    precision: Formats | None,
    model: Mapping[str, Any] | None = None,
    held: Problem | None = None,
) -> Experiment:
    """In float and on grids of 16, 12 and 8 bits, or those that are given, without and with the stability margin.

    Args:
        model: arguments of the model; if not given, one hidden layer of 32 with relu.
    """
    widths: dict[str, Formats | None] = {"float": None}
    widths |= {"given": precision} if precision else {str(bits): unit_formats(bits) for bits in (16, 12, 8)}
    columns = ["loss", "min_alpha", "radius", "angle", "still", "diverged_at"]
    if held is not None:
        columns[1:1] = ["loss_held_out"]
    if problem.labels is not None:
        columns[1:1] = ["accuracy", "accuracy_held_out"] if held is not None else ["accuracy"]
    return Experiment(
        name=name,
        title=title + ("; formats as given" if precision else ""),
        arms=tuple(
            Arm(
                name=f"{width}_{switch}",
                phases=(
                    Phase(steps=steps, settings={"learning_rate": rate, "on_still": "floor", "use_controller": switch == "on"}),
                ),
                problem=lambda seed: problem,
                model={"num_hidden": [32], "activation": "relu"} if model is None else model,
                precision=formats,
                held=held,
            )
            for width, formats in widths.items()
            for switch in ("off", "on")
        ),
        columns=tuple(columns),
    )


def experiment_digits(*, steps: int = 300, precision: Formats | None = None) -> Experiment:
    """Handwritten digits at a rate that the network does not bear."""
    title = "Digits, 64-32-10 with relu, at a rate that is too large"
    return _by_width("digits", title, digits(), rate=1.0, steps=steps, precision=precision)


def experiment_diabetes(*, steps: int = 300, precision: Formats | None = None) -> Experiment:
    """A small regression at a rate that the network does not bear."""
    title = "Diabetes, 10-32-1 with relu, at a rate that is too large"
    return _by_width("diabetes", title, diabetes(), rate=0.5, steps=steps, precision=precision)


def experiment_data(
    *, data: DataSpec, model: ModelSpec | None = None, steps: int = 300, precision: Formats | None = None
) -> Experiment:
    """A file of the user's, at a rate of 0.1; see :func:`~kappa_rtl.golden.network.reading.load`."""
    split, network = data.split(), model or ModelSpec()
    title = f"{split.train.name}, {network.describe(split.train)}"
    made = _by_width(
        "data",
        title,
        split.train,
        rate=0.1,
        steps=steps,
        precision=precision,
        model=network.arguments | {"dtype": np.float64},
        held=split.held,
    )
    return replace(made, notes=split.notes)
