"""What a run hands to the next one, and to a file."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, agree, load_together
from ..network.optimisers import Optimiser
from ..reference import FloatLaw
from ..throttle import Datapath
from .curvatures import Curvatures
from .estimators import Estimator
from .published import PublishedThrottle

Array = NDArray[Any]


@dataclass
class TrainState(Stateful):
    """What a run hands to the next one, so that C and S, optimiser and estimator go on where they were.

    Make an empty one and give it to the first run; give it to the second run as it is then. ``save`` writes it to a file.
    ``load`` needs one that has a unit, an optimiser and an estimator, as a run has left it or made by hand; the model that goes
    on with it must have the unit's weights: ``model.theta = state.unit.weights``.
    """

    unit: Datapath | PublishedThrottle | None = None
    optimiser: Optimiser | None = None
    estimator: Estimator | None = None
    previous_theta: Array | None = None
    previous_alpha: float = math.nan
    decided_alpha: float = 1.0  #: of a unit with ``delay``: what it will apply in the next step
    decided_rates: tuple[float, float] | None = None
    decided_step: int = -1  #: the same on the step grid; -1 before the first step
    exact: Optimiser | None = None  #: the optimiser in the gradients as they are before any grid, for what it would propose
    float_law: FloatLaw | None = None  #: what the unit's law gives in float64, for the alpha error
    motion_energy: Any = 0
    motion_size: float = 0.0  #: the step size that this energy goes with, where the motion is the intended one
    curvatures: Curvatures = field(default_factory=Curvatures, compare=False)
    steps: int = 0

    def parts(self) -> dict[str, Stateful]:
        """Unit, optimiser and estimator, by these names.

        Raises:
            ValueError: one is not there, or has no state that can be saved.
        """
        found = {"unit": self.unit, "optimiser": self.optimiser, "estimator": self.estimator}
        for name, part in found.items():
            if not isinstance(part, Stateful):
                raise ValueError(f"{name} must be one whose state can be saved and loaded, not {part!r}")
        return cast(dict[str, Stateful], found)

    def state_dict(self) -> State:
        """The state of unit, optimiser and estimator, and what the loop keeps beside them, as copies."""
        made: State = {}
        for name, part in self.parts().items():
            made |= {f"{name}_kind": type(part).__name__, name: part.state_dict()}
        return made | {
            "previous_theta": [] if self.previous_theta is None else [np.array(self.previous_theta)],
            "previous_alpha": self.previous_alpha,
            "decided_alpha": self.decided_alpha,
            "decided_step": self.decided_step,
            "decided_rates": [] if self.decided_rates is None else list(self.decided_rates),
            "exact": [] if self.exact is None else [self.exact.state_dict()],
            "float_law": [] if self.float_law is None else [self.float_law.state_dict()],
            "motion_energy": self.motion_energy,
            "motion_size": self.motion_size,
            "curvatures": self.curvatures.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of a run with the same kinds of unit, optimiser and estimator, bit for bit.

        Raises:
            ValueError: other ones, or no such state; names the field. Nothing has changed then.
        """
        parts = self.parts()
        agree(state, self.state_dict(), *(f"{name}_kind" for name in parts), free=list(parts))
        load_together([(part, state[name]) for name, part in parts.items()])
        self.previous_theta = next((np.array(theta) for theta in state["previous_theta"]), None)
        self.previous_alpha, self.decided_alpha = state["previous_alpha"], state["decided_alpha"]
        self.decided_step = state["decided_step"]
        self.decided_rates = (state["decided_rates"][0], state["decided_rates"][1]) if state["decided_rates"] else None
        self.exact = None
        for kept in state["exact"]:
            self.exact = exact_twin(self.optimiser)
            self.exact.load_state_dict(kept)
        self.float_law = None
        for kept in state["float_law"]:
            assert self.unit is not None and not isinstance(self.unit, PublishedThrottle)
            self.float_law = FloatLaw(self.unit.config)
            self.float_law.load_state_dict(kept)
        self.motion_energy, self.motion_size = state["motion_energy"], state["motion_size"]
        self.curvatures = Curvatures()
        self.curvatures.load_state_dict(state["curvatures"])
        self.steps = state["steps"]


def exact_twin(optimiser: Optimiser | None) -> Optimiser:
    """A copy, state and all, whose state lies on no grid."""
    made = copy.deepcopy(optimiser)
    assert made is not None
    made.quantise = None
    return made
