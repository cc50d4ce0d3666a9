"""The loop of a credit run: looked at while it goes on, saved at times, and gone on with from there."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful
from ..network.optimisers import Adam
from ..training.resume import Checkpoint, Keeper
from .method import Method
from .model import ResidualMLP

Row = dict[str, float]

LOOKS = 20
"""How often a run is looked at while it goes on."""


@dataclass
class Run:
    """What a run gave.

    Attributes:
        end: the measures in the end.
        curve: a row a look, the first before the first step: ``step``, ``gamma``, for a student ``accuracy``, and ``bridge``,
            the mean since the look before of how far the estimator was from what it learns below the last state.
        seconds: what the steps took, without looks and measures; no part of the result.
    """

    end: dict[str, Any] = field(default_factory=dict)
    curve: list[Row] = field(default_factory=list)
    seconds: float = field(default=0.0, compare=False, repr=False)


class Loop(Stateful):
    """So many steps, with :data:`LOOKS` looks and one before the first.

    Args:
        steps: how many.
        look: what is measured at a look.
        estimator: the method.
        model, adam: a student and its optimiser, where there is one.
        rng: what the loop draws from.

    Attributes:
        step: how many are done.
        curve, seconds: see :class:`Run`.
    """

    def __init__(
        self,
        steps: int,
        look: Callable[[], Row],
        estimator: Method,
        *,
        model: ResidualMLP | None = None,
        adam: Adam | None = None,
        rng: np.random.Generator | None = None,
    ) -> None:
        self.steps, self.step = steps, 0
        self.curve: list[Row] = []
        self.seconds = 0.0
        self._look, self._estimator, self._model, self._adam, self._rng = look, estimator, model, adam, rng
        self._at = {round(part * steps / LOOKS) for part in range(LOOKS + 1)}
        self._bridge: list[float] = []

    def run(
        self,
        advance: Callable[[NDArray[np.intp] | None], Mapping[str, float]],
        checkpoint: Checkpoint | None,
        settings: Mapping[str, Any],
        stream: Iterable[NDArray[np.intp]] = (),
    ) -> None:
        """Make all steps.

        Args:
            advance: makes one, from the next item of the stream; the parts of the estimator's loss.
            checkpoint: where the run is saved, and found again; None for nowhere.
            settings: what tells it from other runs.
            stream: batches, as many as steps; without one, None is given.
        """
        keeper = Keeper(checkpoint, self, settings)
        keeper.resume()
        rows = iter(stream)
        for _ in range(self.step):
            next(rows, None)
        if not self.step:
            self._observe()
        while self.step < self.steps:
            began = time.perf_counter()
            parts = advance(next(rows, None))
            self.seconds += time.perf_counter() - began
            self.step += 1
            if "bridge" in parts:
                self._bridge.append(parts["bridge"])
            if self.step in self._at:
                self._observe()
            keeper.step()
        keeper.end()

    def _observe(self) -> None:
        mean = float(np.mean(self._bridge)) if self._bridge else math.nan
        self.curve.append({"step": float(self.step), **self._look(), "bridge": mean})
        self._bridge.clear()

    def state_dict(self) -> State:
        """The step, the curve, and whatever the next step depends on."""
        state: State = {
            "step": self.step,
            "curve": [dict(row) for row in self.curve],
            "bridge": list(self._bridge),
            "estimator": self._estimator.state_dict(),
        }
        if self._model is not None and self._adam is not None:
            state |= {"theta": self._model.theta.copy(), "adam": self._adam.state_dict()}
        if self._rng is not None:
            state["rng"] = self._rng.bit_generator.state
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same run."""
        self._estimator.load_state_dict(state["estimator"])
        if self._model is not None and self._adam is not None:
            self._adam.load_state_dict(state["adam"])
            self._model.theta = state["theta"]
        if self._rng is not None:
            self._rng.bit_generator.state = state["rng"]
        self.step, self.curve, self._bridge = state["step"], list(state["curve"]), list(state["bridge"])
