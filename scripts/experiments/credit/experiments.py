"""The credit experiments by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .arms import Experiment
from .images import depth, frozen, main, online, scan
from .plan import Plan, plan_of
from .synthetic import audit, boundary, forms, ladder, lq
from .through import throttle

MAKERS: dict[str, Callable[[Plan], Experiment]] = {
    "lq": lq,
    "ladder": ladder,
    "audit": audit,
    "boundary": boundary,
    "forms": forms,
    "frozen": frozen,
    "online": online,
    "depth": depth,
    "scan": scan,
    "main": main,
    "throttle": throttle,
}
"""Name -> what makes the experiment of a plan."""


def experiment_of(name: str, *, full: bool = False, **changes: Any) -> Experiment:
    """An experiment at its own sizes, small or as published, or with some of them changed.

    Raises:
        ValueError: there is none of this name, it has no such size, or a value is bad.
    """
    if name not in MAKERS:
        raise ValueError(f"experiment must be one of {', '.join(MAKERS)}, not {name!r}")
    return MAKERS[name](plan_of(name, full=full, **changes))
