"""The weights of a run's last steps, over which its accuracy is a mean."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from ....golden.checkpoint import State, Stateful
from ....golden.training.instrumented import Step

TAIL = 20
"""Steps at the end over which a run that swings is averaged."""


class Recent(Stateful):
    """The weights after the last :data:`TAIL` steps; saved and loaded with the run that it observes."""

    def __init__(self, observe: Callable[[Step], bool | None] | None) -> None:
        self.thetas: deque[NDArray[Any]] = deque(maxlen=TAIL)
        self._observe = observe

    def __call__(self, step: Step) -> bool | None:
        self.thetas.append(step.theta_after)
        return None if self._observe is None else self._observe(step)

    def state_dict(self) -> State:
        return {"thetas": list(self.thetas)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.thetas = deque(state["thetas"], TAIL)
