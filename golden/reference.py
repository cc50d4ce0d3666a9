"""The throttle in plain float64: the same law and the same branches, nothing rounded.

What the golden model and the RTL are measured against. It takes the same configuration, of which the number formats
matter only through ``still_norm`` (half a weight ulp times the root of N).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checkpoint import State, Stateful, agree
from .config import EmaStart, OnStill, Source, ThrottleConfig
from .formats import Fixed
from .numbers import Real, is_number, real, whole
from .registers import Registers
from .rounding import real_values, taken
from .segments import Segment, scales
from .throttle import StepRecord, check_config, check_direction, laid_out

Floats = NDArray[np.float64]


def _divide(a: float, b: float) -> float:
    """``a / b``; by zero the largest finite value if a > 0, and 0 if a = 0, as the scalars have it."""
    if b:
        return a / b
    return sys.float_info.max if a > 0 else a


class FloatCurvature:
    """C and S from step to step, in float64: what every float law goes by.

    Attributes:
        curvature, average: C and S.
        held: whether the last step kept both because there was no motion, by ``on_still = hold``.
    """

    def __init__(self) -> None:
        self.curvature = 0.0
        self.average = 0.0
        self.held = False
        self._first = True
        self._seen = False

    def state_dict(self) -> State:
        """C and S, and what has been seen so far."""
        return {
            "curvature": float(self.curvature),
            "average": float(self.average),
            "held": bool(self.held),
            "first": self._first,
            "seen": self._seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.curvature, self.average, self.held = state["curvature"], state["average"], state["held"]
        self._first, self._seen = state["first"], state["seen"]

    def observe(
        self,
        change: float,
        motion: float,
        *,
        still: bool,
        scale: float | None = None,
        eps: float,
        rho: float,
        on_still: str,
        ema_start: str,
        still_norm: float,
        divide: Callable[[float, float], float],
    ) -> None:
        """Take in ``||dG||`` and ``||dtheta||``; the first step knows neither and has C = 0.

        Args:
            still: whether the step before moved no weight, or with an intended motion that this motion is zero.
            scale: the step size of the step before, where ``change`` is the root of <P, P - G> for a projection onto the step.
            still_norm: what ``floor`` and ``release`` divide by; without a grid (0) they divide by eps.
            divide: how a quotient is made, by zero too.
        """
        self.held = still and on_still == OnStill.HOLD
        if self._first or self.held:
            pass
        elif still and on_still in (OnStill.FLOOR, OnStill.RELEASE) and still_norm:
            self.curvature = divide(change, still_norm)
            if on_still == OnStill.RELEASE:
                self.average *= 1 - rho
        else:
            self.curvature = divide(change, motion + eps)
            if scale is not None:
                self.curvature *= self.curvature * scale
            starts = ema_start == EmaStart.FIRST and not self._seen
            self.average = self.curvature if starts else (1 - rho) * self.average + rho * self.curvature
            self._seen = True
        self._first = False


class FloatLaw(FloatCurvature):
    """C, S and alpha of a configuration from step to step, in float64, from its constants' real values."""

    _cap = math.inf
    _last: float | None = None

    def __init__(self, config: ThrottleConfig) -> None:
        super().__init__()
        self.config = config
        self._rho, self._eps, self._alpha_min = float(config.rho), float(config.eps), float(config.alpha_min)
        self.set_rate(config.eta)
        self._still_norm = float(config.grids.weight.ulp) / 2 * math.sqrt(config.elements)
        if config.segments:
            self._still_norm = math.sqrt(config.still_energy)

    def set_rate(self, eta: Real) -> None:
        """The constants at another learning rate, :meth:`ThrottleConfig.at_rate`."""
        reals: dict[str, Fraction | None] = {name: getattr(self.config, name) for name in ("eta", "num", "bias", "gain")}
        reals |= self.config.at_rate(eta)
        self.eta, self._num, self._bias, self._gain = (
            sys.float_info.max if value is None else float(value) for value in reals.values()
        )

    def state_dict(self) -> State:
        """What the curvature has, and the last alphas of ``growth``."""
        return super().state_dict() | {"cap": self._cap, "last": [] if self._last is None else [self._last]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        super().load_state_dict(state)
        self._cap, self._last = state["cap"], next(iter(state["last"]), None)

    def step(self, norm_gradient: float, norm_motion: float, moved: bool | None = None, scale: float | None = None) -> float:
        """alpha, from ``||dG||`` and ``||dtheta||``; the first step sees no curvature.

        With the source ``norm`` the first of them is ``||G||``; with ``ratio`` they are ``||G||`` and ``||theta||``, and
        ``moved`` says whether the last step moved a weight. With a projection the first is the root of <P, P - G>, and ``scale``
        the step size of the step before.
        """
        config = self.config
        if config.source is Source.NORM:
            self.curvature = norm_gradient
        elif config.source is Source.RATIO:
            self.curvature = norm_gradient / norm_motion if norm_motion and not self._first else 0.0
            self._first = False
        else:
            self.observe(
                norm_gradient,
                norm_motion,
                still=not self._first and not (norm_motion != 0 if moved is None else moved),
                scale=scale,
                eps=self._eps,
                rho=self._rho,
                on_still=OnStill(config.on_still),
                ema_start=EmaStart(config.ema_start),
                still_norm=self._still_norm,
                divide=_divide,
            )
        x = {
            Source.INSTANT: self.curvature,
            Source.EMA: self.average,
            Source.MAX: max(self.curvature, self.average),
        }[Source(config.source).x]
        q = self._bias + self._gain * x
        alpha = min(1.0, max(self._alpha_min, min(1.0 if q == 0 else _divide(self._num, q), self._cap)))
        if config.growth:
            if self._last is not None:
                self._cap = math.sqrt(1 + _divide(alpha, self._last)) * alpha
            self._last = alpha
        return alpha


class FloatThrottle(Stateful):
    """One throttle unit in float64, with the interface of :class:`~kappa_rtl.golden.throttle.Throttle`.

    The law uses the real values of the configuration's constants, not their rounded scalars. Nothing is rounded, so nothing
    saturates, underflows or is left over, all counters but ``still_steps`` stay 0, and no watchdog looks on. NaN and infinity
    pass through: a diverging run is a result.

    Args:
        config: the law; ``enabled = False`` runs unthrottled and still reports the alpha it would have used.
        weights: (N,) the initial parameters: real values, or codes of the configuration's weight grid by the rule of
            :meth:`Datapath.step <kappa_rtl.golden.throttle.Datapath.step>`, which stand for their values.
        codes: whether they are codes, where the rule is not to decide it.

    Raises:
        ValueError: the weights are not a vector of ``config.elements``.
    """

    def __init__(self, config: ThrottleConfig, weights: ArrayLike, *, codes: bool | None = None) -> None:
        check_config(config)
        self._config = config
        self._theta = self._vector("weights", weights, config.grids.weight, codes)
        self._previous = np.zeros(config.elements)
        self._energy = 0.0  # B: the sum of squares of the last applied change, with `ratio` of the weights, or of the direction
        self._moved = False
        self._law = FloatLaw(config)
        self.set_rate(config.eta)
        self._pending = float(config.eta)
        self._applied = 0.0
        self._steps = 0
        self.clear()

    def _vector(self, name: str, given: ArrayLike, grid: Fixed, codes: bool | None) -> Floats:
        vector = real_values(given, grid, name, codes=codes)
        if self.config.segments and taken(given, grid, name, codes)[1] and vector.shape == (self.config.elements,):
            vector = np.ldexp(vector, -scales(self.config.segments))
        if vector.shape != (self.config.elements,):
            raise ValueError(f"{name} must have shape ({self.config.elements},), not {vector.shape}")
        vector.flags.writeable = False
        return vector

    @property
    def config(self) -> ThrottleConfig:
        return self._config

    @property
    def weights(self) -> Floats:
        """The parameters, (N,)."""
        return self._theta

    @property
    def theta(self) -> Floats:
        """The same as :attr:`weights`, (N,): without a grid there are no codes."""
        return self._theta

    def state_dict(self) -> State:
        """Everything that the next step depends on, as copies."""
        return {
            "config": self.config.to_table(),
            "rate": str(self._rate),
            "theta": self._theta.copy(),
            "previous": self._previous.copy(),
            "energy": self._energy,
            "moved": self._moved,
            "pending": self._pending,
            "applied": self._applied,
            "steps": self._steps,
            "still_steps": self._still_steps,
            "still_run": self._still_run,
            "dead": self._dead,
            "law": self._law.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same configuration, bit for bit.

        Raises:
            ValueError: another configuration, or no such state; names the field. Nothing has changed then.
        """
        agree(state, self.state_dict(), "config")
        for name in ("steps", "still_steps", "still_run"):
            whole(name, state[name], 0)
        for name, value in (("energy", state["energy"]), *((f"law.{name}", state["law"][name]) for name in ("cap", "average"))):
            if value < 0:
                raise ValueError(f"{name} must not be negative, not {value!r}")
        if len(state["law"]["last"]) > 1 or not all(is_number(alpha) for alpha in state["law"]["last"]):
            raise ValueError(f"law.last must be the last alpha or nothing, not {state['law']['last']!r}")
        self.set_rate(state["rate"])
        self._theta, self._previous = state["theta"].copy(), state["previous"].copy()
        self._theta.flags.writeable = self._previous.flags.writeable = False
        self._energy, self._moved = state["energy"], state["moved"]
        self._pending, self._applied = state["pending"], state["applied"]
        self._steps, self._still_steps = state["steps"], state["still_steps"]
        self._still_run, self._dead = state["still_run"], state["dead"]
        self._law.load_state_dict(state["law"])

    def layout(self, segments: Sequence[Segment | Mapping[str, Any]], weights: ArrayLike, *, codes: bool | None = None) -> None:
        """Go on with another network, as :meth:`kappa_rtl.golden.throttle.Throttle.layout` does."""
        begun = type(self)(laid_out(self.config, segments), weights, codes=codes)
        begun.set_rate(self._rate)
        vars(self).update(vars(begun))

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate, between two steps, as :meth:`kappa_rtl.golden.throttle.Throttle.set_rate` does."""
        self._law.set_rate(eta)
        self._rate = real("eta", eta)

    @property
    def rate(self) -> Fraction:
        """The learning rate."""
        return self._rate

    def clear(self) -> None:
        """Zero the count, the flag and the run of still steps; the training state stays."""
        self._still_steps = 0
        self._still_run = 0
        self._dead = False

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None, *, codes: bool | None = None) -> StepRecord:
        """One step: measure curvature on the gradient, scale the direction, move the weights.

        Args:
            gradient: (N,) the gradient G at the present weights.
            direction: (N,) what to descend along instead of G; the proposal of an optimiser.
            codes: whether both are codes of the configuration's grids, where the rule is not to decide it.

        Returns:
            The record, with ``theta`` and ``update`` as float64 values and plain floats for the scalars.
        """
        grids = self.config.grids
        check_direction(self.config, direction)
        g = self._vector("gradient", gradient, grids.gradient, codes)
        d = g if direction is None else self._vector("direction", direction, grids.direction, codes)
        with np.errstate(over="ignore", invalid="ignore"):
            source = Source(self.config.source)
            sensed = g - self._previous if source.is_curvature else g
            energy = float(-self._previous @ sensed if source.is_projection else sensed @ sensed)
            energy = 0.0 if source.is_projection and energy < 0 else energy
            ng, nd = math.sqrt(energy), math.sqrt(self._energy)
            still = self._steps > 0 and not self._moved
            if self.config.intended:
                nd *= self._applied
                alpha = self._law.step(ng, nd, nd != 0, self._applied if source.is_projection else None)
            else:
                alpha = self._law.step(ng, nd, self._moved)
            size = (alpha if self.config.enabled else 1.0) * self._law.eta
            self._applied = self._pending if self.config.delay else size
            self._pending = size
            update = -self._applied * d
            theta = self._theta + update
            applied = theta - self._theta
            motion = float(applied @ applied)
            self._moved = motion != 0
            self._energy = float(d @ d) if self.config.intended else float(theta @ theta) if source is Source.RATIO else motion
        self._still_run = self._still_run + 1 if still else 0
        self._still_steps += still
        self._dead |= self._still_run >= self.config.dead_after
        theta.flags.writeable = update.flags.writeable = False
        self._previous = g
        self._theta = theta
        registers = Registers(
            A=energy,
            B=self._energy,
            norm_gradient=ng,
            norm_motion=nd,
            curvature=self._law.curvature,
            ema=self._law.average,
            alpha=alpha,
            step_size=size,
            still=still,
            still_steps=self._still_steps,
            learning_dead=self._dead,
        )
        record = StepRecord(self._steps, registers, theta, update, self._config)
        self._steps += 1
        return record
