"""The throttle unit: absorb a gradient, decide the step, apply the update."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .config import COUNTER_BITS, FLAGS, ThrottleConfig
from .decide import Decide
from .formats import Scalar
from .norm import BLOCK, difference, energy
from .rounding import on_grid, storage_dtype, values
from .update import apply_update, rails, span_of

Number = int | float | Scalar


@dataclass(frozen=True)
class Registers:
    """Every register of the unit after one step; counters and flags accumulate until cleared.

    Exact units hold integers and :class:`~kappa_rtl.golden.formats.Scalar`; the float unit holds floats. ``A`` and ``B`` are
    the energies of the gradient's and the weights' change, ``B`` after the step; ``norm_motion`` is the root of the B
    before it, which the step divided by.
    """

    A: Any
    B: Any
    norm_gradient: Any
    norm_motion: Any
    curvature: Any
    ema: Any
    alpha: Any
    step_size: Any
    still: bool
    gradient_saturated: int = 0
    gradient_near_rail: int = 0
    update_saturated: int = 0
    update_underflow: int = 0
    weight_saturated: int = 0
    weight_near_rail: int = 0
    still_steps: int = 0
    learning_dead: bool = False
    scalar_overflow: bool = False
    scalar_underflow: bool = False

    def to_json(self) -> dict[str, Any]:
        """The registers by name; scalars as ``[m, e]``."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class StepRecord:
    """One step of a unit: its number, its registers, the weights after it and the updates.

    ``theta`` and ``update`` are codes, (N,), of the exact units, and real values of the float ones; codes need ``config``.
    """

    step: int
    registers: Registers
    theta: NDArray[Any]
    update: NDArray[Any]
    config: ThrottleConfig | None = None

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights after the step as real values, (N,)."""
        return values(self.theta, self.config.grids.weight) if self.config and self.theta.dtype.kind != "f" else self.theta

    @property
    def update_values(self) -> NDArray[np.float64]:
        """The updates as real values, before they met the weight grid, (N,)."""
        return values(self.update, self.config.grids.update) if self.config and self.update.dtype.kind != "f" else self.update


class Datapath(Protocol):
    """What the float, the golden and the RTL unit have in common: all that a training loop may know of them."""

    @property
    def config(self) -> ThrottleConfig: ...

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights as real values, (N,)."""
        ...

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None) -> StepRecord:
        """One step along ``-direction`` (``-gradient`` if not given)."""
        ...


class Throttle:
    """The bit-accurate unit.

    Args:
        config: formats, law and size.
        weights: the initial theta, (N,): integer codes, or real values on the weight grid.
    """

    def __init__(self, config: ThrottleConfig, weights: ArrayLike) -> None:
        self._config = config
        self._theta = _vector(weights, config, "weight", "weights")
        self._theta.flags.writeable = False
        self._previous = np.zeros(config.elements, storage_dtype(config.grids.gradient))
        self._motion_energy = 0
        self._decide = Decide(config)
        self._steps = 0
        self.clear()

    @property
    def config(self) -> ThrottleConfig:
        return self._config

    @property
    def theta(self) -> NDArray[Any]:
        """The weights as codes, (N,)."""
        return self._theta

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights as real values, (N,)."""
        return values(self._theta, self.config.grids.weight)

    def clear(self) -> None:
        """Zero the counters, the flags and the run of still steps; the training state stays."""
        self._counters: dict[str, Any] = dict.fromkeys(
            (
                "gradient_saturated",
                "gradient_near_rail",
                "update_saturated",
                "update_underflow",
                "weight_saturated",
                "weight_near_rail",
            ),
            0,
        )
        self._still_steps = 0
        self._still_run = 0
        self._dead = False
        self._decide.unit.clear()

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None) -> StepRecord:
        """Absorb ``gradient``, decide, and apply the step along ``-direction`` (``-gradient`` if not given).

        Args:
            gradient, direction: (N,) integer codes, or real values on the gradient grid.

        Raises:
            ValueError: a wrong shape, a value that is not finite, off the grid or beyond it.
        """
        config = self.config
        absorbed = _vector(gradient, config, "gradient", "gradient")
        along = absorbed if direction is None else _vector(direction, config, "gradient", "direction")

        gradient_energy, saturated, near = absorb(absorbed, self._previous, config)
        self._previous = absorbed
        self._count(gradient_saturated=saturated, gradient_near_rail=near)

        decision = self._decide.decide(gradient_energy, self._motion_energy)
        self._still_steps += decision.still
        self._still_run = self._still_run + 1 if decision.still else 0
        self._dead |= self._still_run >= config.dead_after

        theta, update, tally = apply_update(along, self._theta, decision.step_size, config)
        theta.flags.writeable = update.flags.writeable = False
        self._theta, self._motion_energy = theta, tally.motion_energy
        self._count(
            update_saturated=tally.update_saturated,
            update_underflow=tally.update_underflow,
            weight_saturated=tally.weight_saturated,
            weight_near_rail=tally.weight_near_rail,
        )
        flags: dict[str, Any] = dict(
            zip(FLAGS, (self._dead, self._decide.unit.overflow, self._decide.unit.underflow), strict=True)
        )
        registers = Registers(
            A=gradient_energy,
            B=tally.motion_energy,
            **decision._asdict(),
            **self._counters,
            still_steps=self._still_steps & _COUNTER_MASK,
            **flags,
        )
        record = StepRecord(self._steps, registers, theta, update, config)
        self._steps += 1
        return record

    def _count(self, **more: int) -> None:
        for name, count in more.items():
            self._counters[name] = (self._counters[name] + count) & _COUNTER_MASK


_COUNTER_MASK = (1 << COUNTER_BITS) - 1


def absorb(gradient: NDArray[Any], previous: NDArray[Any], config: ThrottleConfig) -> tuple[int, int, int]:
    """``(A, on a rail, near a rail)``: the exact energy of ``gradient - previous``, and the elements of G at the rails."""
    total = saturated = near = 0
    for start in range(0, gradient.size, BLOCK):
        block = slice(start, start + BLOCK)
        total += energy(difference(gradient[block], previous[block]))
        counts = rails(gradient[block], config.grids.gradient, span_of(gradient[block]))
        saturated, near = saturated + counts[0], near + counts[1]
    assert total.bit_length() <= config.widths.gradient_energy, "A is wider than the configuration derived"
    return total, saturated, near


def _vector(tensor: ArrayLike, config: ThrottleConfig, grid: str, name: str) -> NDArray[Any]:
    array = on_grid(tensor, getattr(config.grids, grid), name)
    if array.shape != (config.elements,):
        raise ValueError(f"{name} must have shape ({config.elements},), not {array.shape}")
    return array
