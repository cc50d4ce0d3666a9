"""Direct feedback alignment: the output's error through fixed random matrices."""

from __future__ import annotations

import math
from typing import Any

from numpy.typing import NDArray

from .method import Method
from .network import Network, Trace


class DFA(Method):
    """``a_l = B_l e``, the B_l (d, C) normal with variance 1/C, drawn once."""

    name = "dfa"

    def __init__(self, network: Network, *, seed: int = 0) -> None:
        super().__init__(network, seed=seed)
        shape = (self.depth + 1, self.width, self.classes)
        self.feedback = (self.rng.normal(size=shape) / math.sqrt(self.classes)).astype(network.dtype)

    def credit(self, network: Network, trace: Trace) -> NDArray[Any]:
        credit: NDArray[Any] = trace.error @ self.feedback.swapaxes(1, 2)
        return credit
