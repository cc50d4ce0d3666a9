"""Learning rates along a run: schedules, which give the factor on the learning rate for each step, counted from 0.

Any callable from a step's number to a number of at least 0 is one. A factor, not a rate: the learning rate that the unit is built
for is then the largest, and its step format holds every one of them. A factor above 1 needs a unit whose ``eta_max`` allows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..numbers import is_number, item, number, whole

Schedule = Callable[[int], float]


def constant(step: int) -> float:
    """1 always."""
    return 1.0


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from 1 down to ``last`` over ``steps`` steps, and ``last`` from then on."""

    steps: int
    last: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", whole("steps", self.steps, 1))
        object.__setattr__(self, "last", _share("last", self.last))

    def __call__(self, step: int) -> float:
        done = min(step / self.steps, 1.0)
        return self.last + (1 - self.last) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Stairs:
    """``factor`` times smaller or larger after each ``every`` steps: ``factor ** (step // every)``."""

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", whole("every", self.every, 1))
        object.__setattr__(self, "factor", _share("factor", self.factor))

    def __call__(self, step: int) -> float:
        return float(self.factor ** (step // self.every))


@dataclass(frozen=True)
class Warmup:
    """A straight line from 0 that reaches 1 with its last step, then another schedule, which counts its steps from there.

    The first step has ``1 / steps`` of the rate and not 0: a step that moves nothing is made in vain, and leaves the next one
    without a motion to measure curvature on.
    """

    steps: int
    then: Schedule = constant

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", whole("steps", self.steps, 1))
        if not callable(self.then):
            raise ValueError(f"then must be a schedule, not {self.then!r}")

    def __call__(self, step: int) -> float:
        return (step + 1) / self.steps if step < self.steps else self.then(step - self.steps)


NAMES = ("constant", "cosine", "step", "warmup", "warmup_cosine", "warmup_step")
"""Schedules over a whole run: ``cosine`` ends at 0 with it, ``step`` is a tenth after each third, a warm-up takes a tenth."""


def make(schedule: str | Schedule | None, steps: int | None) -> Schedule | None:
    """A schedule by name for a run of so many steps, or the given callable itself; None stays.

    Raises:
        ValueError: no such name, a name where the number of steps is not known, or no callable.
    """
    if schedule is None or (callable(schedule) and not isinstance(schedule, str)):
        return schedule
    if schedule not in NAMES:
        raise ValueError(f"schedule must be one of {', '.join(NAMES)}, or a callable from a step to a factor, not {schedule!r}")
    if steps is None:
        raise ValueError(
            f"schedule must be a callable where a stream gives the batches, as nobody knows how many, not {schedule!r}"
        )
    warm = -(-steps // 10) if schedule.startswith("warmup") else 0
    rest = max(1, steps - warm)
    shapes: dict[str, Schedule] = {"cosine": Cosine(rest), "step": Stairs(-(-rest // 3))}
    then = shapes.get(schedule.removeprefix("warmup_"), constant)
    return Warmup(warm, then) if warm else then


def factor_at(schedule: Schedule, step: int) -> float:
    """The factor of a step.

    Raises:
        ValueError: the schedule gives no finite number of at least 0; names the step and the value.
    """
    given: Any = schedule(step)
    if not is_number(given) or not (0 <= item(given) < math.inf):
        raise ValueError(f"schedule must give finite factors of at least 0, not {given!r} at step {step}")
    return number("schedule", given)


def _share(name: str, value: Any) -> float:
    found = number(name, value)
    if not 0 <= found <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value!r}")
    return found
