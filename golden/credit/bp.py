"""Backpropagation: the exact credit, which all others are measured against."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from .method import Method
from .network import Network, Trace


class BP(Method):
    """``a_l = p_l = dloss/dh_l``."""

    name = "bp"

    def credit(self, network: Network, trace: Trace) -> NDArray[Any]:
        return network.exact(trace)
