"""The scalar part of a step: from the two energies to alpha and the step size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from .checkpoint import State
from .clamp import alpha_law, growth_cap, step_size
from .config import EmaStart, OnStill, Source, ThrottleConfig
from .divider import divide
from .ema import ema
from .formats import ZERO, Scalar, ScalarFormat
from .scalar import ScalarUnit
from .sqrt import sqrt


class Decision(NamedTuple):
    """What the scalar part found in one step."""

    norm_gradient: Scalar
    norm_motion: Scalar
    curvature: Scalar
    ema: Scalar
    alpha: Scalar
    step_size: int
    still: bool


class Decide:
    """C, S and alpha from step to step.

    State: ``curvature`` C, ``average`` S, ``first`` (no step taken yet), ``seen`` (S has taken a C), the last two alphas, the
    ``constants``, and the sticky flags, of which ``step_overflow`` says that a step lay beyond the rails of its grid.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.unit = ScalarUnit(config.scalar)
        self.constants = config.constants
        self.curvature = ZERO
        self.average = ZERO
        self.first = True
        self.seen = False
        self.alphas: tuple[Scalar, ...] = ()
        self.step_overflow = False

    def state_dict(self) -> State:
        """All but the constants, which follow from the configuration and the rate; scalars as ``[m, e]``."""
        return {
            "curvature": list(self.curvature),
            "average": list(self.average),
            "first": self.first,
            "seen": self.seen,
            "alphas": [list(alpha) for alpha in self.alphas],
            "overflow": self.unit.overflow,
            "underflow": self.unit.underflow,
            "step_overflow": self.step_overflow,
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse what is no scalar of the format; the make of the state is right already."""
        for name in ("curvature", "average"):
            _check_scalar(name, state[name], self.config.scalar)
        if len(state["alphas"]) > 2:
            raise ValueError(f"alphas must be of the last two steps, not {state['alphas']!r}")
        for alpha in state["alphas"]:
            _check_scalar("alphas", alpha, self.config.scalar)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checked state."""
        self.curvature, self.average = Scalar(*state["curvature"]), Scalar(*state["average"])
        self.first, self.seen = state["first"], state["seen"]
        self.alphas = tuple(Scalar(*alpha) for alpha in state["alphas"])
        self.unit.overflow, self.unit.underflow = state["overflow"], state["underflow"]
        self.step_overflow = state["step_overflow"]

    def clear(self) -> None:
        """Zero the flags."""
        self.unit.clear()
        self.step_overflow = False

    def stand_still(self, norm_gradient: Scalar) -> None:
        """C and S after a step without motion, by ``floor`` or ``release``: as if each element had moved half an ulp."""
        self.curvature = divide(self.unit, norm_gradient, self.constants["still_norm"])
        if self.config.on_still is OnStill.RELEASE:
            self.average = self.unit.mul(self.constants["keep"], self.average)

    def decide(self, gradient_energy: int, motion_energy: int, moved: bool | None = None, size: int = 0) -> Decision:
        """One step: A and B, exact integers on the grids 2**-(2*f), to the step size on its own grid.

        ``moved`` says whether the last step moved a weight, where B does not (source ``ratio``, intended motion). ``size`` is
        the step size that it was made with, an integer on the step grid, which an intended motion is measured with.
        """
        config, unit, constants = self.config, self.unit, self.constants
        cap = growth_cap(unit, *self.alphas) if config.growth and len(self.alphas) == 2 else None
        fractions = config.energy_fractions
        norm_gradient = sqrt(unit, gradient_energy, -2 * fractions["A"])
        norm_motion = sqrt(unit, motion_energy, -2 * fractions["B"])
        scale = ZERO
        if config.intended:
            scale = unit.normalise(size, -config.step.fraction_bits)  # exact, as a scalar holds any step size
            norm_motion = unit.mul(norm_motion, scale)
        still = not self.first and not (motion_energy != 0 if moved is None else moved)
        stands = not norm_motion.m if config.intended else still  # there is no motion to divide by
        if config.source is Source.NORM:
            self.curvature = norm_gradient
        elif config.source is Source.RATIO:
            # B is zero before the first step too; weights that are all zero do not hold the first ones back.
            self.curvature = divide(unit, norm_gradient, norm_motion) if norm_motion.m else ZERO
        elif self.first or (stands and config.on_still is OnStill.HOLD):
            pass
        elif stands and config.on_still is not OnStill.DIVIDE:
            self.stand_still(norm_gradient)
        else:
            self.curvature = divide(unit, norm_gradient, unit.add(norm_motion, constants["eps"]))
            if Source(config.source).is_projection:
                self.curvature = unit.mul(unit.mul(self.curvature, self.curvature), scale)
            if not self.seen and config.ema_start is EmaStart.FIRST:
                self.average = self.curvature
            else:
                self.average = ema(unit, constants["keep"], constants["rho"], self.average, self.curvature)
            self.seen = True
        self.first = False
        match Source(config.source).x:
            case Source.EMA:
                x = self.average
            case Source.MAX:
                x = unit.maximum(self.curvature, self.average)
            case _:
                x = self.curvature
        alpha = alpha_law(unit, constants, x, cap)
        self.alphas = (alpha, *self.alphas[:1])
        applied = alpha if config.enabled else unit.format.one
        step, beyond = step_size(config.step, applied, constants["eta"])
        self.step_overflow |= beyond
        return Decision(norm_gradient, norm_motion, self.curvature, self.average, alpha, step, still)


def _check_scalar(name: str, value: Any, fmt: ScalarFormat) -> None:
    """Refuse what is not ``[m, e]`` of a scalar."""
    low, high = fmt.exponents
    pair = list(value) if isinstance(value, (list, tuple)) else []
    if len(pair) == 2 and all(isinstance(part, int) and not isinstance(part, bool) for part in pair):
        m, e = pair
        if (m, e) == ZERO or (m > 0 and m.bit_length() == fmt.mantissa_bits and low <= e <= high):
            return
    raise ValueError(f"{name} must be [m, e] of a scalar of {fmt.mantissa_bits}+{fmt.exponent_bits} bits, not {value!r}")
