"""Shards of one model in the simulator: a unit each, with the exchange of their two integers a step between them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..golden.checkpoint import Stateful
from ..golden.config import Motion, ThrottleConfig
from ..golden.numbers import Real
from ..golden.parts import Parts, Place
from ..golden.registers import COUNTER_BITS, Registers
from ..golden.throttle import StepRecord, check_direction, real_of
from ..golden.together import together
from ..hw.units.ports import core_counters, shared_bits
from .cosim import UNREADABLE, RtlThrottle, Stalls
from .runner import SimulationError

EXCHANGES = 2
"""Of a step: A, and B."""


class RtlShard(RtlThrottle):
    """One shard, whose step waits twice for the sum over all shards."""

    def _check(self, config: ThrottleConfig) -> None:
        if config.population is None:
            raise ValueError("population must be given of a shard, not None")

    def begin(self, gradient: ArrayLike, direction: ArrayLike | None) -> None:
        """Set a step off, along codes of its own grids."""
        self._tell(self._given(gradient, direction, True) | {"shares": True})

    def partial(self) -> int:
        """The integer that the shard offers.

        Raises:
            SimulationError: the step ended before it came, or the integer has undefined bits.
        """
        found = self._answer()
        if not isinstance(found, str):
            self._made(found)  # says what is wrong, if that is known
            raise SimulationError(f"step {self._steps - 1}: the step ended before the shard had exchanged {EXCHANGES} integers")
        if set(found) - {"0", "1"}:
            raise SimulationError(f"step {self._steps}: what the shard offers holds undefined bits: {found}")
        return int(found, 2)

    def total(self, integer: int) -> None:
        """The sum over all shards."""
        self._tell(integer)

    def end(self) -> StepRecord:
        """What the step made."""
        return self._made(self._answer())


class RtlShards(Stateful):
    """The exported Verilog of every shard in a simulator of its own, with the interface of golden's ``ShardedThrottle``.

    Args:
        configs: of each shard, as for :class:`~kappa_rtl.golden.sharded.ShardedThrottle`.
        weights, codes, motion, places: as there.
        simulator: ``verilator`` or ``icarus``.
        streaming: the variant without gradient memory; needed for a ``direction`` of its own.
        stalls: pseudo-random idle cycles and backpressure, by a seed of its own in each shard.

    Raises:
        ValueError: the shards do not belong together, or a weight is off its shard's grid.
        SimulationError: the simulator is missing, refuses the Verilog, or stops.
    """

    def __init__(
        self,
        configs: Sequence[ThrottleConfig],
        weights: ArrayLike | Sequence[ArrayLike],
        *,
        codes: bool | None = None,
        motion: Motion | str | None = None,
        places: Sequence[ArrayLike] | None = None,
        simulator: str = "verilator",
        streaming: bool = False,
        stalls: Stalls | None = None,
    ) -> None:
        self._config, parts = together(configs, motion=motion)
        self._places = Parts(self._config, parts, places)
        self._bits = shared_bits(parts[0])
        starts = self._places.split(weights, "weight", "weights", codes)
        pace = stalls or Stalls()
        self._stack = contextlib.ExitStack()
        self._shards: list[RtlShard] = []
        self._steps = 0
        try:
            for k, (part, start) in enumerate(zip(parts, starts, strict=True)):
                own = replace(pace, seed=pace.seed + k)
                shard = RtlShard(part, start, codes=True, simulator=simulator, streaming=streaming, stalls=own)
                self._shards.append(self._stack.enter_context(shard))
        except BaseException:
            self._stack.close()
            raise

    @property
    def config(self) -> ThrottleConfig:
        """Of the whole."""
        return self._config

    @property
    def parts(self) -> list[ThrottleConfig]:
        """The configuration of each shard."""
        return list(self._places.configs)

    @property
    def places(self) -> list[Place]:
        """The elements of theta of each shard."""
        return list(self._places.places)

    @property
    def theta(self) -> NDArray[Any]:
        """The weights as codes of the whole's grid, (N,)."""
        return self._joined([shard.theta for shard in self._shards], "weight")

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights as real values, (N,)."""
        return real_of(self.theta, self._config, "weight")

    @property
    def cycles(self) -> list[int]:
        """Clock cycles of each step, of the shard that took most."""
        return [max(counts) for counts in zip(*(shard.cycles for shard in self._shards), strict=True)]

    @property
    def rate(self) -> Fraction:
        """The learning rate."""
        return self._shards[0].rate

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate of all shards, between two steps."""
        for shard in self._shards:
            shard.set_rate(eta)

    def clear(self) -> None:
        """Zero the counters, the flags and the run of still steps; the training state stays."""
        for shard in self._shards:
            shard.clear()

    def load_weights(self, weights: ArrayLike | Sequence[ArrayLike], *, codes: bool | None = None) -> None:
        """Put other weights in the place of theta, between two steps, as in golden; all else stays."""
        for shard, start in zip(self._shards, self._places.split(weights, "weight", "weights", codes), strict=True):
            shard.load_weights(start, codes=True)

    def state_dict(self) -> NoReturn:
        """Always refused: the hardware's ports do not show its state.

        Raises:
            ValueError: says so, and what to do.
        """
        raise ValueError(UNREADABLE)

    def load_state_dict(self, state: Any) -> NoReturn:
        """Always refused, as :meth:`state_dict` is."""
        raise ValueError(UNREADABLE)

    def step(
        self,
        gradient: ArrayLike | Sequence[ArrayLike],
        direction: ArrayLike | Sequence[ArrayLike] | None = None,
        *,
        codes: bool | None = None,
    ) -> StepRecord:
        """One step of all shards; as that of golden's ``ShardedThrottle``.

        Raises:
            SimulationError: a shard hangs, breaks a stream rule, or shows other sums than its neighbours.
        """
        one: Any = direction  # a list of vectors counts as one
        check_direction(self._config, one)
        absorbed = self._places.split(gradient, "gradient", "gradient", codes)
        along: Sequence[Any] = [None] * len(self._shards)
        if direction is not None:
            along = self._places.split(direction, "direction", "direction", codes)
        for shard, own, other in zip(self._shards, absorbed, along, strict=True):
            shard.begin(own, other)
        for _ in range(EXCHANGES):
            total = sum(shard.partial() for shard in self._shards) % (1 << self._bits)
            for shard in self._shards:
                shard.total(total)
        records = [shard.end() for shard in self._shards]
        self._steps += 1
        return StepRecord(
            self._steps - 1,
            self._registers([record.registers for record in records]),
            self._joined([record.theta for record in records], "weight"),
            self._joined([record.update for record in records], "update"),
            self._config,
        )

    def _registers(self, found: Sequence[Registers]) -> Registers:
        """Those that all shards show alike, and the counters of their own elements added up."""
        own = {name for name in core_counters(self._config) if not name.startswith("step")}
        first = vars(found[0])
        for k, other in enumerate(found):
            for name, value in vars(other).items():
                if name not in own and value != first[name]:
                    where = f"step {self._steps - 1}, {name}"
                    raise SimulationError(f"{where}: must be {first[name]} as in shard 0, not {value} as in {k}")
        totals = {name: sum(getattr(one, name) for one in found) % (1 << COUNTER_BITS) for name in own}
        return replace(found[0], **totals)

    def _joined(self, slices: Sequence[NDArray[Any]], grid: str) -> NDArray[Any]:
        joined = self._places.join(slices, grid)
        joined.flags.writeable = False
        return joined

    def close(self) -> None:
        """End the simulations."""
        self._stack.close()

    def __enter__(self) -> RtlShards:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
