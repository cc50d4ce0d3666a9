"""A step of a throttled optimiser in numbers, by the names that all histories have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...golden.formats import Scalar
from ...golden.training.history import FitHistory
from ...golden.training.linear import counts, fractions
from ...golden.training.metrics import published
from ..rows import Rows
from .unit import Step, Unit, angle_of

Row = dict[str, float]


def row_of(step: Step, eta: float, unit: Unit, before: Mapping[str, int]) -> tuple[Row, dict[str, int]]:
    """What a step has come to, and the counters after it.

    Args:
        eta: the rate of the step.
        before: the counters after the step before it.
    """
    registers, config = step.registers, unit.throttle.config
    now, elements = counts(registers), sum(one.elements for one in unit.plan.configs)
    applied = float(registers.alpha) if config.enabled else 1.0
    angle = (math.nan,) * 3 if step.moments is None else angle_of(step.moments)
    row = {
        "learning_rate": eta,
        "alpha": float(registers.alpha),
        "alpha_applied": applied,
        "eta_eff": applied * eta,
        "step_size": registers.step_size * float(config.step.ulp),
        "curvature": _real(registers.curvature),
        "ema": _real(registers.ema),
        "curvature_for_control": max(_real(registers.curvature), _real(registers.ema)),
        "norm_gradient": _real(registers.norm_gradient),
        "norm_motion": _real(registers.norm_motion),
        "still": float(registers.still),
        "update_angle_rad": angle[0],
        "update_cosine": angle[1],
        "update_radius_ratio": angle[2] / applied if applied else angle[2],
        "gradient_overflow_fraction": step.gradient_beyond / elements,
        "direction_overflow_fraction": step.direction_beyond / elements,
        **fractions(now, before, elements),
    }
    return row, now


def shown(row: Mapping[str, float]) -> Row:
    """A row under the names that loggers sort by; what was not measured is left out."""
    return {f"throttle/{name}": value for name, value in row.items() if not math.isnan(value)}


def history_of(rows: Rows, unit: Unit) -> FitHistory:
    """Rows as a history, with the units' configurations."""
    meta = {"throttle": [shard.config.to_table() for shard in unit.throttle.shards]}
    return FitHistory(published({name: np.array(column) for name, column in rows.columns.items()}), meta=meta)


def _real(value: Any) -> float:
    return float(value) if isinstance(value, (Scalar, float, int)) else float(Scalar(*value))
