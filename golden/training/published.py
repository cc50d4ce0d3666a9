"""The published loop's own update unit: tensors rounded onto their grids, every scalar in float64.

It has the interface of the float, golden and RTL units, but a format for each variable and no format for the scalars: what the
gap between its runs and those of the golden unit shows is the price of the scalars' own width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, agree
from ..config import EmaStart, OnStill
from ..network.precision import quantize_tensor
from ..network.quantisers import Segment
from ..numbers import Real, array, item, number, real
from ..reference import FloatCurvature
from ..registers import Registers
from ..throttle import StepRecord

CONTROLLERS = ("stability_margin", "inverse_curvature")
ALIASES = {"chi": "stability_margin", "beta": "inverse_curvature"}
"""What the laws were published as: read, and never written."""


@dataclass(frozen=True, kw_only=True)
class Law:
    """The published laws of alpha.

    ``stability_margin`` (also read as ``chi``): ``min(1, chi / (eta * (max(C, S) + eps)))``.
    ``inverse_curvature`` (also read as ``beta``): ``1 / (1 + beta * S)`` within ``alpha_min`` and 1.

    Args:
        eta: the learning rate.
        controller, chi, beta, alpha_min: the law.
        rho: weight of the new C in S.
        eps: added to ``||dtheta||``, and to the curvature in ``stability_margin``.
        enabled: whether alpha is applied, or only computed.
        on_still: what a step does where theta has not moved: ``divide`` by eps as published, ``hold`` C and S, or divide
            by the ``floor`` of what the weight grids resolve.
        ema_start: S from 0, or from the first C.

    Raises:
        ValueError: names the field, the value and the rule.
    """

    eta: float
    controller: str = "stability_margin"
    chi: float = 1.5
    beta: float = 1.0
    alpha_min: float = 0.01
    rho: float = 0.05
    eps: float = 1e-12
    enabled: bool = True
    on_still: str = "divide"
    ema_start: str = "zero"

    def __post_init__(self) -> None:
        given: Any = self.controller
        object.__setattr__(self, "controller", ALIASES.get(given, given) if isinstance(given, str) else given)
        if self.controller not in CONTROLLERS:
            raise ValueError(f"controller must be one of {', '.join(CONTROLLERS)}, not {self.controller!r}")
        for name, kind in (("on_still", OnStill), ("ema_start", EmaStart)):
            if getattr(self, name) not in [member.value for member in kind]:
                names = ", ".join(member.value for member in kind)
                raise ValueError(f"{name} must be one of {names}, not {getattr(self, name)!r}")
        if not isinstance(item(self.enabled), bool):
            raise ValueError(f"enabled (use_controller) must be True or False, not {self.enabled!r}")
        object.__setattr__(self, "enabled", item(self.enabled))
        for name, shown, low, high in (
            ("eta", "eta (learning_rate)", 0.0, math.inf),
            ("chi", "chi", 0.0, math.inf),
            ("beta", "beta", 0.0, math.inf),
            ("alpha_min", "alpha_min", 0.0, 1.0),
            ("rho", "rho (curvature_ema_rho)", 0.0, 1.0),
            ("eps", "eps", 0.0, math.inf),
        ):
            given = getattr(self, name)
            value = number(shown, given)
            if not (low <= value <= high and math.isfinite(value)) or (name in ("eta", "chi") and value == 0):
                above = "greater than 0" if name in ("eta", "chi") else "at least 0"
                raise ValueError(f"{shown} must be {above}{f' and at most {high:g}' if high < math.inf else ''}, not {given!r}")
            object.__setattr__(self, name, value)


class Controller(FloatCurvature):
    """C, S and alpha under a published law: the float law's C and S, and alpha in the order of operations that was published.

    Attributes:
        rate: the learning rate, the law's eta until it is changed.
        still_norm: what ``on_still = "floor"`` divides by; without a grid (0) it divides by eps.
    """

    def __init__(self, law: Law, still_norm: float = 0.0) -> None:
        super().__init__()
        self.law, self.rate = law, law.eta
        self.still_norm = still_norm

    def step(self, change: float, motion: float) -> float:
        """alpha as the law has it, from ``||dG||`` and ``||dtheta||``; the first step knows neither and has C = 0."""
        law = self.law
        self.observe(
            change,
            motion,
            still=not self._first and motion == 0,
            eps=law.eps,
            rho=law.rho,
            on_still=law.on_still,
            ema_start=law.ema_start,
            still_norm=self.still_norm,
            divide=lambda a, b: float(np.divide(a, b)),
        )
        if law.controller == "inverse_curvature":
            return min(1.0, max(law.alpha_min, 1 / (1 + law.beta * self.average)))
        # FloatLaw has num / (bias + gain * x) with num = chi / eta, which is the same but for its last bit; and there a quotient
        # by zero is the largest float, here infinity.
        bound = self.rate * (max(self.curvature, self.average) + law.eps)
        return min(1.0, law.chi / bound) if bound else 1.0


class PublishedThrottle(Stateful):
    """One unit over tensors of any dtype, each stretch of them with formats of its own.

    The update of an element is ``-eta_eff * D`` with ``eta_eff = alpha * eta`` rounded once to the tensors' dtype; it is rounded
    onto the update grid, added, and the sum onto the weight grid. NaN and infinity pass through: a diverging run is a result.

    Args:
        law: the law of alpha.
        weights: (P,) float32 or float64.
        segments: the update and weight formats, stretch by stretch; none means float throughout.
    """

    def __init__(self, law: Law, weights: NDArray[Any], segments: Sequence[Segment] = ()) -> None:
        self._theta = np.array(array("weights", weights))
        if self._theta.ndim != 1 or self._theta.dtype not in (np.float32, np.float64):
            raise ValueError(f"weights must be a vector of float32 or float64, not {self._theta.shape} of {self._theta.dtype}")
        self.controller = Controller(law)
        self.adopt(law, segments)
        self._theta.flags.writeable = False
        self._previous: NDArray[Any] | None = None
        self._motion = 0.0
        self._still_steps = 0
        self._steps = 0

    def adopt(self, law: Law, segments: Sequence[Segment] = ()) -> None:
        """Go on under another law and other formats; weights, C and S stay.

        Raises:
            ValueError: the segments do not cover the weights.
        """
        segments = tuple(segments) or (Segment(self._theta.size),)
        if sum(segment.size for segment in segments) != self._theta.size:
            raise ValueError(f"segments must cover the {self._theta.size} weights, not {sum(s.size for s in segments)}")
        self.law = self.controller.law = law
        self.set_rate(law.eta)
        self._segments = segments
        floor = sum(s.size * float(s.weight.ulp / 2) ** 2 for s in segments if s.weight is not None)
        self.controller.still_norm = math.sqrt(floor)

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate, between two steps; with it what ``stability_margin`` makes of it. At 0 nothing moves.

        Raises:
            ValueError: the rate is no number, or negative; it stays then.
        """
        self.controller.rate = float(real("eta", eta))

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.controller.rate

    def state_dict(self) -> State:
        """Everything that the next step depends on, as copies."""
        return {
            "law": dict(vars(self.law)),
            "segments": [[s.size, *(None if fmt is None else str(fmt) for fmt in s[1:])] for s in self._segments],
            "rate": self.rate,
            "theta": self._theta.copy(),
            "previous": np.zeros(self._theta.shape) if self._previous is None else self._previous.copy(),
            "motion": self._motion,
            "steps": self._steps,
            "still_steps": self._still_steps,
            "controller": self.controller.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state under the same law and formats, bit for bit.

        Raises:
            ValueError: another law, other formats, or no such state; names the field. Nothing has changed then.
        """
        agree(state, self.state_dict(), "law", "segments")
        self.set_rate(state["rate"])
        self._theta = state["theta"].copy()
        self._theta.flags.writeable = False
        self._previous = state["previous"].copy() if state["steps"] else None
        self._motion, self._steps, self._still_steps = state["motion"], state["steps"], state["still_steps"]
        self.controller.load_state_dict(state["controller"])

    @property
    def weights(self) -> NDArray[Any]:
        """The weights, (P,), in their dtype."""
        return self._theta

    def step(self, gradient: NDArray[Any], direction: NDArray[Any] | None = None) -> StepRecord:
        """Measure the curvature on ``gradient`` (P,), and step along ``-direction`` (``-gradient`` if not given)."""
        gradient = array("gradient", gradient)
        along = gradient if direction is None else array("direction", direction)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            change = 0.0 if self._previous is None else norm(np.subtract(gradient, self._previous, dtype=np.float64))
            motion = self._motion
            still = self._previous is not None and motion == 0
            alpha = self.controller.step(change, motion)
            rate = self._theta.dtype.type((alpha if self.law.enabled else 1.0) * self.rate)
            update = along * -rate
            theta = np.empty_like(self._theta)
            start = 0
            for segment in self._segments:
                part = slice(start, start + segment.size)
                start += segment.size
                update[part] = quantize_tensor(update[part], segment.update)
                theta[part] = quantize_tensor(self._theta[part] + update[part], segment.weight)
            self._motion = norm(np.subtract(theta, self._theta, dtype=np.float64))
        theta.flags.writeable = update.flags.writeable = False
        self._previous = np.array(gradient, np.float64)  # a copy: the caller may write into its own
        self._theta = theta
        self._still_steps += still
        registers = Registers(
            A=change**2 if change < 1e150 else math.inf,
            B=self._motion**2 if self._motion < 1e150 else math.inf,
            norm_gradient=change,
            norm_motion=motion,
            curvature=self.controller.curvature,
            ema=self.controller.average,
            alpha=alpha,
            step_size=float(rate),
            still=still,
            still_steps=self._still_steps,
        )
        self._steps += 1
        return StepRecord(self._steps - 1, registers, theta, update)


def norm(vector: NDArray[Any]) -> float:
    """The Euclidean norm of a tensor, summed in float64."""
    wide = np.asarray(vector, np.float64).ravel()
    return math.sqrt(float(wide @ wide)) if wide.size else 0.0
