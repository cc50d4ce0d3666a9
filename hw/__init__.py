"""The throttle as hardware: Amaranth components, one a file, and their Verilog export.

Each room builds on those before it: cells, lanes and scalar, units, bus, ``manifest`` and ``export``, synth. From golden they
import formats, configuration, register names and the atomic writer, never arithmetic.

:func:`estimate` gives what a unit costs, without any tool; it is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["Cost", "estimate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.synth.estimate"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
