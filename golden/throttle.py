"""The throttle unit: absorb a gradient, decide the step, apply the update."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checkpoint import State, Stateful, agree
from .config import Source, ThrottleConfig
from .decide import Decide
from .engines import Engine, shards
from .formats import Scalar
from .numbers import Real, real, whole
from .registers import COUNTER_BITS, FLAGS, WATCHES, Registers
from .rounding import on_grid, taken, values
from .segments import Segment, parse, scales, slices
from .shard import Shard
from .update import Tally
from .watchdog import Watchdog

Number = int | float | Scalar
Codes = NDArray[Any]
Exchange = Callable[[Sequence[int]], Sequence[int]]
"""From integers of the shards that are held here to their sums over all shards, wherever those are."""


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
        return real_of(self.theta, self.config, "weight") if self.config and self.theta.dtype.kind != "f" else self.theta

    @property
    def update_values(self) -> NDArray[np.float64]:
        """The updates as real values, before they met the weight grid, (N,)."""
        return real_of(self.update, self.config, "update") if self.config and self.update.dtype.kind != "f" else self.update


class Datapath(Protocol):
    """What the float, the golden and the RTL unit have in common: all that a training loop may know of them."""

    @property
    def config(self) -> ThrottleConfig: ...

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights as real values, (N,)."""
        ...

    @property
    def rate(self) -> Any:
        """The learning rate: the configuration's eta until it is changed."""
        ...

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate, between two steps."""
        ...

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None, *, codes: bool | None = None) -> StepRecord:
        """One step along ``-direction`` (``-gradient`` if not given).

        Args:
            gradient, direction: (N,) real values, or codes of the gradient's grid: an integer array of the dtype that the grid is
                stored in (int8 to 8 bits, int16 to 16, int32 above) holds codes, and so does any with ``codes = True``;
                everything else holds values, lists of integers too, and with ``codes = False`` all does.
        """
        ...


class Throttle(Stateful):
    """The bit-accurate unit. ``save`` and ``load`` are of its whole state; ``load_weights`` replaces theta alone.

    Args:
        config: formats, law and size.
        weights: the initial theta, (N,): real values on the weight grid, or codes by the rule of :meth:`Datapath.step`.
        codes: whether they are codes, where the rule is not to decide it.
        engine, threads: what works on the elements, to the same bits; see :func:`~kappa_rtl.golden.engines.shards`.
    """

    Decide = Decide  #: its scalar part

    def __init__(
        self,
        config: ThrottleConfig,
        weights: ArrayLike,
        *,
        codes: bool | None = None,
        engine: Engine = "numpy",
        threads: int = 1,
    ) -> None:
        check_config(config)
        self._config, self._sizes = config, [config.elements]
        self._engine, self._threads = engine, threads
        self._begin(config, [shards(engine, threads)(config, *self._split(weights, "weight", "weights", codes))])

    def _begin(self, config: ThrottleConfig, shards: Sequence[Shard]) -> None:
        self._shards = shards
        self._exchange: Exchange = list
        self._last = Tally()
        self._decide = self.Decide(config)
        self.set_rate(config.eta)
        self._step_size = config.initial_step
        self._applied = 0
        self._watchdog = Watchdog(config) if config.watchdog else None
        self._steps = 0
        self.clear()

    @property
    def config(self) -> ThrottleConfig:
        return self._config

    @property
    def shards(self) -> Sequence[Shard]:
        """What holds the elements."""
        return self._shards

    @property
    def theta(self) -> NDArray[Any]:
        """The weights as codes, (N,)."""
        return self._join([shard.codes for shard in self._shards], "weight")

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights as real values, (N,)."""
        return real_of(self.theta, self.config, "weight")

    @property
    def residual(self) -> NDArray[Any]:
        """What rounding dropped of each element so far, codes of ``residual_bits``, (N,); zeros where nothing is kept."""
        kept = [np.zeros(s.config.elements, np.int8) if s.residual is None else s.residual for s in self._shards]
        return np.concatenate(kept)

    def state_dict(self) -> State:
        """Everything that the next step depends on, as copies."""
        return {
            "config": self.config.to_table(),
            "sizes": self._sizes,
            "rate": str(self._rate),
            "steps": self._steps,
            "step_size": self._step_size,
            "applied": self._applied,
            "still_run": self._still_run,
            "dead": self._dead,
            "counters": dict(self._counters),
            "last": dict(vars(self._last)),
            "decide": self._decide.state_dict(),
            "watchdog": self._watchdog.state_dict() if self._watchdog else None,
            "shards": {str(place): shard.state_dict() for place, shard in enumerate(self._shards)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same configuration, bit for bit.

        Raises:
            ValueError: another configuration, or no such state; names the field. Nothing has changed then.
        """
        agree(state, self.state_dict(), "config", "sizes")
        for place, shard in enumerate(self._shards):
            shard.check_state(state["shards"][str(place)])
        for name in ("steps", "still_run"):
            whole(name, state[name], 0)
        for name in ("step_size", "applied"):
            whole(name, state[name], 0, self.config.step.rails[1])
        for name, count in state["counters"].items():
            whole(f"counters.{name}", count, 0, _COUNTER_MASK)
        energy = (1 << self.config.widths.motion_energy) - 1
        for name, count in state["last"].items():
            if name != "moved":
                whole(f"last.{name}", count, 0, energy if name.endswith("energy") else self.config.elements)
        self._decide.check_state(state["decide"])
        if self._watchdog:
            self._watchdog.check_state(state["watchdog"])
        self.set_rate(state["rate"])
        self._steps, self._step_size, self._applied = state["steps"], state["step_size"], state["applied"]
        self._still_run, self._dead = state["still_run"], state["dead"]
        self._counters.update(state["counters"])
        self._last = Tally(**state["last"])
        self._decide.load_state_dict(state["decide"])
        if self._watchdog:
            self._watchdog.load_state_dict(state["watchdog"])
        for place, shard in enumerate(self._shards):
            shard.load_state_dict(state["shards"][str(place)])

    def load_weights(self, weights: ArrayLike, *, codes: bool | None = None) -> None:
        """Put other weights in the place of theta, between two steps, values or codes as they came first; all else stays."""
        for shard, part in zip(self._shards, self._split(weights, "weight", "weights", codes), strict=True):
            shard.theta = part

    def layout(self, segments: Sequence[Segment | Mapping[str, Any]], weights: ArrayLike, *, codes: bool | None = None) -> None:
        """Go on with another network: other segments, of any sizes that fit the unit, and its first weights.

        All training state begins anew, as after a reset: P, the residuals, C, S, the random numbers, counters and flags. The
        learning rate stays.

        Args:
            segments: of the new network, in the order of its theta.
            weights, codes: its first theta, as for a new unit.

        Raises:
            ValueError: segments that do not fit the table, the room or the scales of the unit, or weights that do not fit them;
                nothing has changed then.
        """
        config, rate = laid_out(self.config, segments), self._rate
        begun = type(self)(config, weights, codes=codes, engine=self._engine, threads=self._threads)
        begun.set_rate(rate)
        vars(self).update(vars(begun))

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate, between two steps: eta and what the law makes of it, from the next decision on.

        With ``delay`` the step that is already decided keeps its size. At a rate of 0 nothing moves.

        Raises:
            ValueError: the rate is not from 0 to ``eta_max``, or a constant at it is no scalar; the rate stays then.
        """
        self._decide.constants = self.config.constants_at(eta)
        self._rate = real("eta", eta)

    @property
    def rate(self) -> Fraction:
        """The learning rate."""
        return self._rate

    def clear(self) -> None:
        """Zero the counters, the flags and the run of still steps; the training state stays."""
        self._counters: dict[str, Any] = dict.fromkeys(self.config.counters, 0)
        self._still_run = 0
        self._dead = False
        self._decide.clear()
        if self._watchdog:
            self._watchdog.clear()

    @property
    def watchdog(self) -> Watchdog:
        """The watchdog, whose mask may be changed between steps.

        Raises:
            ValueError: the configuration watches nothing.
        """
        if not self._watchdog:
            raise ValueError(f"watchdog must name what is watched, of {', '.join(WATCHES)}, not {self.config.watchdog!r}")
        return self._watchdog

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None, *, codes: bool | None = None) -> StepRecord:
        """Absorb ``gradient``, decide, and apply the step along ``-direction`` (``-gradient`` if not given).

        Args:
            gradient, direction: (N,) real values on the grids of that name, or codes by the rule of :meth:`Datapath.step`.
            codes: whether they are codes, where the rule is not to decide it.

        Raises:
            ValueError: a wrong shape, a value that is not finite, off the grid or beyond it.
        """
        along = gradients = self._split(gradient, "gradient", "gradient", codes)
        check_direction(self.config, direction)
        if direction is not None:
            along = self._split(direction, "direction", "direction", codes)
        registers, moves = self.advance(gradients, along)
        return StepRecord(self._steps - 1, registers, self.theta, self._join(moves, "update"), self.config)

    def advance(self, gradients: Sequence[Codes], along: Sequence[Codes]) -> tuple[Registers, list[Codes]]:
        """A step on codes that were checked before: a vector a shard, on its own grids; the registers and the updates likewise.

        With it a caller who keeps the codes himself is spared the copies of :meth:`step`.
        """
        config, shards = self.config, self._shards
        seen = [shard.absorb(part) for shard, part in zip(shards, gradients, strict=True)]
        (gradient_energy,) = self._exchange([sum(one.energy for one in seen)])
        last = self._last
        if Source(config.source).is_projection:
            gradient_energy = max(0, gradient_energy)
        if config.source is Source.RATIO:
            decision = self._decide.decide(gradient_energy, last.weight_energy, last.moved)
        elif config.intended:
            decision = self._decide.decide(gradient_energy, last.motion_energy, last.moved, self._applied)
        else:
            decision = self._decide.decide(gradient_energy, last.motion_energy)
        self._still_run = self._still_run + 1 if decision.still else 0
        self._dead |= self._still_run >= config.dead_after

        applied = self._applied = self._step_size if config.delay else decision.step_size
        self._step_size = decision.step_size
        moves = [shard.apply(part, applied) for shard, part in zip(shards, along, strict=True)]
        own = functools.reduce(Tally.__add__, (move[1] for move in moves))
        motion_energy, moved = self._exchange([own.motion_energy, int(own.moved)])
        tally = self._last = replace(own, motion_energy=motion_energy, moved=moved > 0)

        self._count(
            gradient_saturated=sum(one.on_rail for one in seen),
            gradient_near_rail=sum(one.near_rail for one in seen),
            still_steps=decision.still,
            step_rail=decision.step_size == config.step.rails[1],
            step_near_rail=decision.step_size >= config.step.near_rail,
            **tally.counts,
        )
        unit = self._decide.unit
        raised = (self._dead, unit.overflow, unit.underflow, self._decide.step_overflow)
        flags: dict[str, Any] = dict(zip(FLAGS, raised, strict=True))
        if self._watchdog:
            self._watchdog.look(self._steps, sum(one.norm_energy for one in seen), self._dead, unit.overflow)
            flags |= self._watchdog.registers
        registers = Registers(
            A=gradient_energy,
            B=tally.weight_energy if config.source is Source.RATIO else tally.motion_energy,
            **decision._asdict(),
            **self._counters,
            **flags,
        )
        self._steps += 1
        return registers, [move[0] for move in moves]

    def _split(self, tensor: ArrayLike, grid: str, name: str, codes: bool | None) -> list[Codes]:
        """The codes of a vector that was given, a slice a shard."""
        array = codes_of(tensor, self.config, grid, name, codes=codes)
        if array.shape != (sum(self._sizes),):
            raise ValueError(f"{name} must have shape ({sum(self._sizes)},), not {array.shape}")
        return np.split(array, np.cumsum(self._sizes)[:-1])

    def _join(self, slices: Sequence[Codes], grid: str) -> Codes:
        """Slices of codes side by side, read-only; one alone is not copied."""
        joined = slices[0] if len(slices) == 1 else np.concatenate(slices)
        joined.flags.writeable = False
        return joined

    def _count(self, **more: int) -> None:
        for name in self._counters:
            self._counters[name] = (self._counters[name] + int(more[name])) & _COUNTER_MASK


_COUNTER_MASK = (1 << COUNTER_BITS) - 1


def codes_of(tensor: ArrayLike, config: ThrottleConfig, grid: str, name: str, *, codes: bool | None = None) -> Codes:
    """Values on the unit's grid of that name, those of a segment on its own, or codes that were given, as codes; (N,).

    Raises:
        ValueError: a wrong shape; a value that is not finite, off the grid or beyond it.
    """
    fmt = getattr(config.grids, grid)
    array, coded = taken(tensor, fmt, name, codes)
    if config.segments and not coded:
        if array.shape != (config.elements,):
            raise ValueError(f"{name} must have shape ({config.elements},), not {array.shape}")
        parts = [
            on_grid(array[place], getattr(config.grids_at(segment.scale), grid), f"{name} of {segment.name}", codes=False)
            for segment, place in slices(config.segments)
        ]
        return np.concatenate(parts)
    return on_grid(tensor, fmt, name, codes=codes)


def real_of(codes: Codes, config: ThrottleConfig, grid: str) -> NDArray[np.float64]:
    """The real values of a unit's codes on its grid of that name, those of a segment on its own, exact; (N,)."""
    found = values(codes, getattr(config.grids, grid))
    return np.ldexp(found, -scales(config.segments)) if config.segments else found


def laid_out(config: ThrottleConfig, segments: Sequence[Segment | Mapping[str, Any]]) -> ThrottleConfig:
    """The configuration of the same hardware with other segments."""
    if not config.segments:
        raise ValueError("segments must be in the configuration of a unit whose layout changes, not none")
    found = parse(segments, config.scale_max)
    total = sum(segment.elements for segment in found)
    if not 0 < total <= config.room:
        raise ValueError(f"segments must have from 1 to capacity = {config.room} elements together, not {total}")
    return config.replace(segments=found, elements=total, capacity=config.room)


def check_config(config: Any) -> None:
    """Refuse what is no configuration, such as a table of one."""
    if not isinstance(config, ThrottleConfig):
        raise ValueError(f"config must be a ThrottleConfig, not {config!r}; ThrottleConfig.from_table makes one of a table")


def check_direction(config: ThrottleConfig, direction: ArrayLike | None) -> None:
    """Refuse a step without a direction where the configuration has a grid for it: the gradient does not lie on that.

    And one with a direction where the curvature is the projection onto the gradient.
    """
    if direction is None and config.direction is not None:
        raise ValueError(f"direction must be given to a unit that has a grid for it, {config.direction}")
    if direction is not None and Source(config.source).is_projection:
        raise ValueError(f"direction must not be given with the source {config.source}: it projects onto the gradient")
