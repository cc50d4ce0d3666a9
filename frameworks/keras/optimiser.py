"""What a throttle asks of the Keras optimiser within it: which ones it takes, and what their rate is."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from ...golden.numbers import number

UNEVEN = ("Adafactor", "Ftrl", "ScheduleFreeAdamW")
"""Optimisers whose step is not proportional to their rate, so that it cannot be taken for a direction."""

WRAPPERS = ("GlobalThrottle", "LossScaleOptimizer", "MultiOptimizer")

REFUSED = {
    "use_ema": "the average would be of weights that the throttle has not decided on yet",
    "gradient_accumulation_steps": "the throttle makes a step for every gradient: give it larger batches",
}
"""What an optimiser must not do -> why."""

RATES = ("initial_learning_rate", "warmup_target", "end_learning_rate", "values")
"""The rates that a schedule of Keras names in its configuration."""


def check_optimizer(optimizer: Any) -> None:
    """Refuse what a throttle cannot stand around.

    Raises:
        ValueError: names what is wrong with the optimiser, the value and the rule.
    """
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"optimizer must be a keras optimiser, not {optimizer!r}")
    kind = type(optimizer).__name__
    if kind in WRAPPERS:
        raise ValueError(f"optimizer must be one that updates weights itself, not {kind}: put that around the throttle")
    if kind in UNEVEN:
        raise ValueError(f"optimizer must take steps proportional to its rate, which {', '.join(UNEVEN)} do not; not {kind}")
    for name, why in REFUSED.items():
        value = getattr(optimizer, name)
        if value:
            raise ValueError(f"{name} must be {False if name == 'use_ema' else None}, not {value!r}: {why}")
    if optimizer.built:
        raise ValueError("optimizer must not be built yet, for its momentum would hold its own rate: give the throttle a new one")


def check_variables(variables: Sequence[Any]) -> None:
    """Refuse variables that are more than weights.

    Raises:
        ValueError: names the variable and the rule.
    """
    for variable in variables:
        if variable.constraint is not None:
            raise ValueError(
                f"constraint of {variable.path} must be None, not {variable.constraint!r}: it would move weights off their grid"
            )
        if getattr(variable, "overwrite_with_gradient", False):
            raise ValueError(
                f"{variable.path} must be moved by its gradient, which it is overwritten with: quantise after training"
            )


def largest_rate(optimizer: Any, eta_max: Any) -> float:
    """The largest rate that will come: what is given, or else the largest that the optimiser or its schedule names.

    Raises:
        ValueError: nothing names one, or it is less than the present rate, zero or not finite.
    """
    most, schedule = None if eta_max is None else number("eta_max", eta_max), optimizer._learning_rate
    if most is None and isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        settings = schedule.get_config()
        named = [settings[name] for name in RATES if settings.get(name) is not None]
        most = max((float(rate) for value in named for rate in np.ravel(value)), default=None)
    elif most is None and not callable(schedule):
        most = rate_of(optimizer)
    if most is None:
        raise ValueError("eta_max must be given, the largest rate that will come, since the schedule names none")
    if not 0 < most < math.inf or most < rate_of(optimizer):
        raise ValueError(f"eta_max must be at least the rate {rate_of(optimizer)!r}, finite and greater than 0, not {most!r}")
    return float(most)


def rate_of(optimizer: Any) -> float:
    """The rate of the coming step: the decimal that the variable prints as, so that .1 in float32 is a tenth."""
    found = keras.ops.convert_to_numpy(optimizer.learning_rate)
    return float(str(found[()]))


@contextlib.contextmanager
def at_rate_one(optimizer: Any) -> Iterator[None]:
    """The optimiser with a rate of 1 in the place of its own, so that what a step does to the weights is a direction."""
    own = optimizer._learning_rate
    optimizer._learning_rate = 1.0
    try:
        yield
    finally:
        optimizer._learning_rate = own
