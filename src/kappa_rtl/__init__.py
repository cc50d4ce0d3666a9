"""A global training throttle as hardware: the numpy model, the Amaranth datapath, and the measurement of what fixed point costs.

Three units share one interface, ``unit.step(gradient) -> StepRecord``:

>>> from kappa_rtl import FloatThrottle, Throttle, ThrottleConfig
>>> config = ThrottleConfig.stability_margin(elements=2, eta=0.125)
>>> golden, real = Throttle(config, [0.0, 0.0]), FloatThrottle(config, [0.0, 0.0])
>>> golden.step([0.5, -0.25]).weights.tolist() == real.step([0.5, -0.25]).weights.tolist()
True

:class:`Throttle` is the bit-accurate model, :class:`FloatThrottle` the same law in float64, :class:`ShardedThrottle` several
units that share one law, and :class:`RtlThrottle` and :class:`RtlShards` are the exported Verilog of these in a simulator.
:func:`export` gives that Verilog and its manifest. Each is imported when it is first asked for, so that the model needs neither
Amaranth nor a simulator.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .golden.config import ThrottleConfig
    from .golden.reference import FloatThrottle
    from .golden.sharded import ShardedThrottle
    from .golden.throttle import Throttle
    from .hw.export import export
    from .sim.cosim import RtlThrottle
    from .sim.shards import RtlShards

__version__ = metadata.version("kappa-rtl")

__all__ = [
    "FloatThrottle",
    "RtlShards",
    "RtlThrottle",
    "ShardedThrottle",
    "Throttle",
    "ThrottleConfig",
    "__version__",
    "export",
]

_HOMES = {
    "ThrottleConfig": "golden.config",
    "Throttle": "golden.throttle",
    "ShardedThrottle": "golden.sharded",
    "FloatThrottle": "golden.reference",
    "RtlThrottle": "sim.cosim",
    "RtlShards": "sim.shards",
    "export": "hw.export",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
