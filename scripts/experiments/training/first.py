"""A look at what an experiment's data do to the formats of its arms, at the weights that the first seed draws."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....golden.formats import Fixed
from ....golden.network import layers as chain
from ....golden.network.losses import loss_of
from ....golden.network.precision import PrecisionDict
from ....golden.network.quantisers import gradient_formats, segments
from ....golden.training.model import LinearBlockModel
from ..stands import Stand, sentences, stand, table
from .published import Arm, Experiment


def first_look(experiment: Experiment, seed: int) -> str:
    """A table of the inputs, the first gradient, update and weights against the grids of every arm that has other ones."""
    stands: list[Stand] = []
    seen = []
    for arm in experiment.arms:
        if arm.precision not in seen:
            seen.append(arm.precision)
            stands += _of_arm(arm, seed)
    return "\n".join([table(stands), *sentences(stands)])


def _of_arm(arm: Arm, seed: int) -> Iterator[Stand]:
    name = arm.name.removesuffix("_off").removesuffix("_on")
    problem, rate = arm.problem(seed), float(arm.phases[-1].settings["learning_rate"])
    model = LinearBlockModel(problem, seed=seed, **arm.model)
    precision = None if arm.precision is None else PrecisionDict(arm.precision)
    rows = slice(0, arm.batch or len(problem.X))
    x, y = np.asarray(problem.X[rows], model.dtype), np.asarray(problem.Y[rows], model.dtype)
    with np.errstate(all="ignore"):
        outputs, caches = chain.forward(model.layers, x, training=True, update_state=False)
        parts = chain.backward(model.layers, caches, loss_of("half_mse").gradient(outputs, y))
        gradient = chain.flatten(model.layers, parts)
    if precision is None:  # it has no grids
        yield stand(f"{name}: inputs", x.ravel(), None)
        yield stand(f"{name}: first gradient", gradient, None)
        return
    kept = segments(model.layers, precision)
    yield stand(f"{name}: inputs", x.ravel(), precision.dtype("input", "value"))
    for what, vector, grids in (
        ("first gradient", gradient, gradient_formats(model.layers, precision)),
        ("first update, alpha = 1", gradient * rate, [segment.update for segment in kept]),
        ("first weights", model.theta, [segment.weight for segment in kept]),
    ):
        yield from _by_grid(f"{name}: {what}", vector, grids, model)


def _by_grid(what: str, vector: NDArray[Any], grids: Sequence[Fixed | None], model: LinearBlockModel) -> Iterator[Stand]:
    """A stand for each grid that the variables of a vector have."""
    parts: dict[Fixed | None, list[NDArray[Any]]] = defaultdict(list)
    for variable, grid in zip(chain.variables(model.layers), grids, strict=True):
        parts[grid].append(vector[variable.place])
    for grid, several in parts.items():
        yield stand(what, np.concatenate(several), grid)
