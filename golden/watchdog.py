"""The watchdog: what a run must not do, noted with the step in which it first did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .checkpoint import State
from .config import ThrottleConfig
from .numbers import whole
from .registers import BLOCK_BITS, COUNTER_BITS, GROWTH_FRACTION, WATCHES


class Watchdog:
    """Sticky bits, and the number of the step that set each.

    Attributes:
        mask: which conditions may fire, a bit each in the order of :data:`~kappa_rtl.golden.registers.WATCHES`.
        fired: which have, since the last clear.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.mask = sum(1 << WATCHES.index(name) for name in config.watchdog)
        self._grown = False
        self._last: int | None = None
        self.clear()

    def clear(self) -> None:
        """Forget what fired; not what the blocks of the step under way have shown."""
        self.fired = 0
        self._steps = dict.fromkeys(WATCHES, 0)

    def state_dict(self) -> State:
        """The mask, what has fired and when, and what the blocks of the step under way have shown."""
        return {
            "mask": self.mask,
            "fired": self.fired,
            "steps": dict(self._steps),
            "grown": self._grown,
            "last": [] if self._last is None else [self._last],
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse what no watchdog can have; the make of the state is right already."""
        for name in ("mask", "fired"):
            whole(f"watchdog.{name}", state[name], 0, (1 << len(WATCHES)) - 1)
        for name, step in state["steps"].items():
            whole(f"watchdog.steps.{name}", step, 0, (1 << COUNTER_BITS) - 1)
        if len(state["last"]) > 1:
            raise ValueError(f"watchdog.last must be the last block's energy or nothing, not {state['last']!r}")
        for energy in state["last"]:
            whole("watchdog.last", energy, 0, (1 << BLOCK_BITS) - 1)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checked state."""
        self.mask, self.fired, self._grown = state["mask"], state["fired"], state["grown"]
        self._steps = dict(state["steps"])
        self._last = next(iter(state["last"]), None)

    def blocks(self, energies: Iterable[int]) -> None:
        """Further blocks of the step to come: the squares of their norms, integers of 48 bits on a grid of their own.

        Raises:
            ValueError: one is no such integer.
        """
        for energy in energies:
            now = whole("a block's energy", energy, 0, (1 << BLOCK_BITS) - 1)
            if self._last is not None and now << GROWTH_FRACTION > self.config.growth_squared * self._last:
                self._grown = True
            self._last = now

    def look(self, step: int, energy: int, learning_dead: bool, scalar_overflow: bool) -> None:
        """The end of a step: its number, the sum of squares of its G, and two flags as it left them."""
        found = (energy < self.config.floor_energy, self._grown, learning_dead, scalar_overflow)
        for bit, (name, so) in enumerate(zip(WATCHES, found, strict=True)):
            if so and self.mask >> bit & 1 and not self.fired >> bit & 1:
                self.fired |= 1 << bit
                self._steps[name] = step % (1 << COUNTER_BITS)
        self._grown, self._last = False, None

    @property
    def registers(self) -> dict[str, int]:
        """The registers, by name."""
        return {"watchdog": self.fired} | {f"watchdog_step_{name}": step for name, step in self._steps.items()}
