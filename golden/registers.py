"""Every register, counter and flag of a unit, in the one order in which hardware, manifest, reports and pages list them.

A counter or a flag is a field of :class:`Registers`. What it counts stands beside its name, and everything that lists counters
takes them from here: a further one is a line of this file, and the code that counts it.
"""

from __future__ import annotations

from dataclasses import Field, asdict, dataclass, field, fields
from typing import Any

COUNTER_BITS = 32
"""Counters count modulo 2**32; a host that reads them in time takes differences modulo 2**32."""

BLOCK_BITS = 48
"""Width of a block's energy on the stream of norms; an unsigned integer on any one grid."""

GROWTH_FRACTION = 8
"""Fraction bits of the square of ``norm_growth``, an unsigned word of 24 bits."""

WATCHES = ("gradient_floor", "norm_growth", "learning_dead", "scalar_overflow")
"""What a watchdog can watch, from bit 0 on."""

CONSTANTS = ("eta", "num", "bias", "gain", "rho", "keep", "eps", "alpha_min", "still_norm")
"""What the host writes: scalars, in the order of their registers."""

STATUS = ("norm_gradient", "norm_motion", "curvature", "ema", "alpha", "step_size", "still")
"""What the scalar part found in a step, in the order of its registers."""


def _counter(counts: str, *, of: str = "elements", option: str | None = None) -> Any:
    """A counter: what it counts, whether ``elements`` or ``steps``, and the option of a configuration that it needs."""
    return field(default=0, metadata={"counts": counts, "of": of, "option": option})


def _flag(tells: str, *, option: str | None = None) -> Any:
    """A sticky flag: what it tells, and the option of a configuration that it needs."""
    return field(default=False, metadata={"tells": tells, "option": option})


@dataclass(frozen=True)
class Registers:
    """Every register of the unit after one step; counters and flags accumulate until cleared.

    Exact units hold integers and :class:`~kappa_rtl.golden.formats.Scalar`; the float unit holds floats. ``A`` and ``B`` are
    the energies of the gradient's and the weights' change, ``B`` after the step; ``norm_motion`` is the root of the B
    before it, which the step divided by. With the source ``norm`` or ``ratio``, an intended motion or a projection they are of
    other vectors, as docs/numerics.md says. With ``delay`` the step size, and alpha, are what the next step applies.
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
    gradient_saturated: int = _counter("elements of G on a rail (at or beyond it)")
    gradient_near_rail: int = _counter("elements of G with |G| at or above the near-rail threshold")
    update_saturated: int = _counter("elements whose rounded product lies beyond the rails of y, whatever the overflow mode")
    update_underflow: int = _counter("elements with a non-zero exact product and y = 0")
    weight_saturated: int = _counter(
        "elements of theta' on a rail, or whose rounded sum lay beyond the rails, whatever the overflow mode"
    )
    weight_near_rail: int = _counter("elements of theta' with |theta'| at or above the near-rail threshold")
    update_rail: int = _counter("elements y on a rail of their grid", option="every_rail")
    update_near_rail: int = _counter("elements y with |y| at or above the near-rail threshold", option="every_rail")
    step_rail: int = _counter("steps whose size is the upper rail of its grid", of="steps", option="every_rail")
    step_near_rail: int = _counter(
        "steps whose size is at or above the near-rail threshold of its grid", of="steps", option="every_rail"
    )
    still_steps: int = _counter("steps with `still`: the step before moved no weight", of="steps")
    learning_dead: bool = _flag("`dead_after` steps in a row were still")
    scalar_overflow: bool = _flag("a scalar was too large and became the largest finite one")
    scalar_underflow: bool = _flag("a scalar was too small and became zero")
    step_overflow: bool = _flag("the rounded step size lay beyond its grid, and became the upper rail")
    watchdog: int = 0
    watchdog_step_gradient_floor: int = 0
    watchdog_step_norm_growth: int = 0
    watchdog_step_learning_dead: int = 0
    watchdog_step_scalar_overflow: int = 0
    memory_fault: bool = _flag("a word read from a memory on chip had a lane with a wrong parity", option="parity")

    def to_json(self) -> dict[str, Any]:
        """The registers by name; scalars as ``[m, e]``."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _named(kind: str) -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(Registers) if kind in one.metadata}


_COUNTERS, _FLAGS = _named("counts"), _named("tells")

COUNTERS = tuple(name for name, one in _COUNTERS.items() if one.metadata["option"] is None)
"""The counters that every unit has."""

RAIL_COUNTERS = tuple(name for name, one in _COUNTERS.items() if one.metadata["option"] == "every_rail")
"""What ``every_rail`` adds: elements of y, and steps, on a rail and near one."""

FLAGS = tuple(name for name, one in _FLAGS.items() if one.metadata["option"] is None)
"""The sticky flags that every unit has."""

MEANINGS = {name: one.metadata["counts"] for name, one in _COUNTERS.items()} | {
    name: one.metadata["tells"] for name, one in _FLAGS.items()
}
"""What each counter counts and each flag tells, in a phrase."""


def element_counters(every_rail: bool) -> tuple[str, ...]:
    """The counters of elements that a unit has, in the order of its registers."""
    return tuple(name for name in counters(every_rail) if _COUNTERS[name].metadata["of"] == "elements")


def counters(every_rail: bool) -> tuple[str, ...]:
    """The counters that a unit has, in the order of a register map: an optional one moves no other to another address."""
    return COUNTERS + RAIL_COUNTERS * every_rail
