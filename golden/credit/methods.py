"""The credit methods by name."""

from __future__ import annotations

from typing import Any

from .bp import BP
from .copying import Copy
from .credit_bridge import CreditBridge
from .dfa import DFA
from .method import Method
from .network import Network
from .state_bridge import StateBridge
from .vector_field import VectorField

METHODS: dict[str, type[Method]] = {method.name: method for method in (BP, DFA, Copy, StateBridge, CreditBridge, VectorField)}
"""Name -> class."""


def make(name: str, network: Network, *, seed: int = 0, **options: Any) -> Method:
    """A method by its name.

    Raises:
        ValueError: there is none of this name, or it refuses an option.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    try:
        return METHODS[name](network, seed=seed, **options)
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from None
