"""The lockstep of two units that must agree to the bit: what is compared, and the first place where they do not."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from ..golden.config import ThrottleConfig
from ..golden.formats import Scalar
from ..golden.registers import Registers
from ..golden.throttle import StepRecord
from ..hw.units.ports import registers_layout


@dataclass(frozen=True)
class Difference:
    """The first place where two units disagree: a register, or an element of ``update`` or ``theta`` with its width in bits."""

    step: int
    signal: str
    element: int | None
    expected: Any
    got: Any
    width: int | None

    def to_json(self) -> dict[str, Any]:
        """Everything about it; a value is a number or a truth value, and a scalar ``[m, e]``, as in the trace."""
        return {
            "step": self.step,
            "signal": self.signal,
            "element": self.element,
            "width": self.width,
            "golden": _plain(self.expected),
            "rtl": _plain(self.got),
        }

    @property
    def where(self) -> str:
        """The signal, with the element of a vector."""
        return self.signal if self.element is None else f"{self.signal}[{self.element}]"

    def __str__(self) -> str:
        return f"step {self.step}, {self.where}: golden {_both(self.expected, self.width)}, rtl {_both(self.got, self.width)}"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if isinstance(value, bool) else int(value)


def _both(value: Any, width: int | None) -> str:
    """A value in decimal and in bits."""
    if isinstance(value, Scalar):
        return f"{float(value):.9g} = {value.m} * 2**{value.e} (m {value.m:b}, e {value.e})"
    number = int(value)
    bits = f"{number % (1 << width):0{width}b}" if width else f"{number:b}"
    return f"{number} (0b{bits})"


@functools.lru_cache
def held(config: ThrottleConfig) -> frozenset[str]:
    """The registers that a unit has."""
    return frozenset(registers_layout(config).members)


def compare(golden: StepRecord, rtl: StepRecord) -> tuple[int, Difference | None]:
    """How many values two exact records have in common, and the first one in which they differ."""
    compared = 0
    config = golden.config
    assert config is not None, "an exact record has its configuration"
    own = held(config)
    for field in fields(Registers):
        a, b = getattr(golden.registers, field.name), getattr(rtl.registers, field.name)
        if a != b:
            return compared, Difference(golden.step, field.name, None, a, b, None)
        compared += field.name in own  # a register that the unit lacks agrees by its default, and is no evidence
    for name, fmt in (("update", config.grids.update), ("theta", config.grids.weight)):
        a, b = getattr(golden, name), getattr(rtl, name)
        if a.shape != b.shape:
            return compared, Difference(golden.step, f"{name}.shape", None, a.size, b.size, None)
        bad = np.flatnonzero(a != b)
        if bad.size:
            i = int(bad[0])
            return compared, Difference(golden.step, name, i, a[i], b[i], fmt.width)
        compared += a.size
    return compared, None
