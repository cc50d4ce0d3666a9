"""What is measured of each tensor of a model whose tensors have binary points of their own.

The rows stand in a history's ``layers`` beside those of the layers, under ``layer/variable``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..formats import Fixed
from ..network.layers import Variable
from ..network.precision import rail_stats
from ..network.quantisers import Segment
from ..widths import Grids
from .distortion import CAUSES, budget
from .measures import RAILS, Row, alignment

Array = NDArray[Any]

TENSORS: dict[str, str] = {
    "update_cosine": "cosine of the angle between the applied and the intended update of this tensor",
    "update_angle_rad": "that angle, radians",
    "update_radius_ratio": "||applied update|| / (||intended update|| + eps) of this tensor",
    "still_fraction": "weights that did not move, of those that were meant to; 0 where none was",
    **{f"{kind}_{what}_fraction": f"of the {kind}: as of a layer" for kind, counted in RAILS.items() for what in counted},
    "weight_bits": "bits that the largest weight's code needs, with its sign",
    "gradient_bits": "bits that the largest gradient's code needs, with its sign",
}
"""What is logged of each tensor in every step -> its definition; with the distortion budget also ``angle_<cause>`` and so on."""


def names(variables: Sequence[Variable]) -> list[str]:
    """What the variables are called in a history."""
    return [f"{variable.layer}/{variable.name}" for variable in variables]


def tensors(
    variables: Sequence[Variable],
    grids: Sequence[Grids],
    *,
    theta: Array,
    after: Array,
    intended: Array,
    gradient: Array,
    raw_gradient: Array,
    update: Array,
    eps: float,
) -> dict[str, Row]:
    """A row for each variable, by its name.

    Args:
        grids: those that each variable is on.
        theta, after: the stored weights before and after the step; intended: its change before any rounding.
        gradient: on its grid, and raw_gradient before; update: before its quantisation.
        eps: of the ratio of lengths.
    """
    found = {}
    for name, v, own in zip(names(variables), variables, grids, strict=True):
        applied = after[v.place].astype(np.float64) - theta[v.place].astype(np.float64)
        meant = intended[v.place].astype(np.float64)
        along, moved, wanted = float(applied @ meant), float(np.linalg.norm(applied)), float(np.linalg.norm(meant))
        row = alignment(along, moved, wanted, eps)
        some = np.count_nonzero(meant)
        row["still_fraction"] = np.count_nonzero((applied == 0) & (meant != 0)) / some if some else 0.0
        stats = {
            "weight": rail_stats(after[v.place], own.weight)._asdict(),
            "gradient": rail_stats(gradient[v.place], own.gradient)._asdict()
            | {"underflow": rail_stats(raw_gradient[v.place], own.gradient).underflow},
            "update": rail_stats(update[v.place], own.update)._asdict(),
        }
        row |= {f"{kind}_{what}_fraction": stats[kind][what] for kind, counted in RAILS.items() for what in counted}
        row |= {"weight_bits": used(after[v.place], own.weight), "gradient_bits": used(gradient[v.place], own.gradient)}
        found[name] = row
    return found


def budgets(
    variables: Sequence[Variable],
    segments: Sequence[Segment],
    *,
    theta: Array,
    exact: Array,
    seen: Array,
    rates: tuple[float, float] | None,
) -> dict[str, Row]:
    """The distortion of each variable's update by its causes, as :func:`~kappa_rtl.golden.training.distortion.budget` has it."""
    made = {}
    for name, v, own in zip(names(variables), variables, segments, strict=True):
        if rates is None:
            made[name] = {f"{kind}_{cause}": math.nan for kind in ("angle", "radius") for cause in (*CAUSES, "whole", "residual")}
            continue
        parts = budget(theta[v.place], exact[v.place], seen[v.place], *rates, [own])
        made[name] = {f"{kind}_{cause}": part for kind, causes in parts.items() for cause, part in causes.items()}
    return made


def used(vector: Array, fmt: Fixed) -> float:
    """Bits of the two's complement word that holds all elements of a vector as codes; 1 where all are zero."""
    if not np.isfinite(vector).all():
        return math.nan
    largest, least = (math.floor(math.ldexp(float(end), fmt.fraction_bits)) for end in (vector.max(), vector.min()))
    return float(max(max(0, largest).bit_length(), (-1 - min(-1, least)).bit_length()) + 1)
