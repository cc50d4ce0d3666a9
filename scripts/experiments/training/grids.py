"""The grids of a unit for an arm whose short run in float shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ....golden.config import ThrottleConfig
from ....golden.network.data import Problem
from ....golden.training.model import BaseModel
from ....golden.training.scales import Scales, calibrate


def calibrated(how: Mapping[str, Any], settings: Mapping[str, Any], batch: int, model: BaseModel, problem: Problem) -> Scales:
    """The grids of a unit that a short run in float shows, on batches of so many rows, or of all if 0.

    ``how``, an arm's ``calibrated``, has ``bits`` of a weight; ``grids``, ``tensor`` for a segment each or ``one`` for all;
    ``finer``, the bits by which all are finer than the calibration asks for; and ``rounding``: ``nearest``, ``stochastic`` or
    ``residual``, to nearest with four bits kept of what is dropped.
    """
    found = calibrate(
        model,
        problem,
        how["bits"],
        random=how["rounding"] == "stochastic",
        learning_rate=settings["learning_rate"],
        batch_size=batch or len(problem.inputs),
        loss_mode=settings.get("loss_mode", "half_mse"),
    )
    return (found.on_one_grid() if how["grids"] == "one" else found).finer(how["finer"])


def calibrated_config(how: Mapping[str, Any], settings: Mapping[str, Any], grids: Scales, **more: Any) -> ThrottleConfig:
    """The configuration of a unit on these grids, under a phase's law, with other fields as they are given."""
    kept: dict[str, Any] = {"residual_bits": 4} if how["rounding"] == "residual" else {}
    return grids.config(
        eta=settings["learning_rate"],
        chi=settings["chi"],
        on_still=settings.get("on_still", "release"),
        enabled=bool(settings.get("use_controller", False)),
        lanes=8,
        **kept,
        **more,
    )
