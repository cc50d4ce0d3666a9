"""For models in torch: the throttle on an optimiser, and the diagnostic protocol on a module.

torch itself is no dependency of the package.

>>> from kappa_rtl.torch import presets
>>> presets.sq8_stochastic["*"]["update"]
'SQ2.6,stochastic'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .frameworks.torch import presets

if TYPE_CHECKING:
    from .frameworks.torch.beside import BesideError
    from .frameworks.torch.calibration import calibrate
    from .frameworks.torch.observed import Observed
    from .frameworks.torch.task import Task
    from .frameworks.torch.throttle import GlobalThrottle

__all__ = ["BesideError", "GlobalThrottle", "Observed", "Task", "calibrate", "presets"]

_HOMES = {
    "BesideError": "beside",
    "GlobalThrottle": "throttle",
    "Observed": "observed",
    "Task": "task",
    "calibrate": "calibration",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f".frameworks.torch.{_HOMES[name]}", "kappa_rtl"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
