"""The state bridge: predict the last state, and send delta_L back through the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.checks import switches
from .method import Estimator
from .network import Network, Trace


class StateBridge(Estimator):
    """``a_l = J_G^T delta_L`` with ``G(h_l, t_l, s)`` trained on ``||(G - h_L) / max(||h_L||, 1)||^2``.

    delta_L is that of the true h_L.

    Args:
        skip: G is h plus a net, and so starts as the copy of the output's credit; without it G starts from nothing.
    """

    name = "state_bridge"

    def __init__(self, network: Network, *, s_type: str = "none", skip: bool = False, **options: Any) -> None:
        switches(skip=skip)
        self.skip = skip
        super().__init__(network, s_type=s_type, **options)

    def fit(self, network: Network, trace: Trace) -> dict[str, float]:
        sample, layer = self.pairs(trace)
        goal = trace.states[-1][sample]
        guess, made = self.net.forward(trace.states[layer, sample], self.times(layer), self.at(self.code(trace), sample))
        weight = 1 / np.square(np.maximum(np.linalg.norm(goal, axis=1, keepdims=True), 1))
        miss = guess - goal
        self.descend(self.net.backward(made, 2 * weight * miss / len(miss))[1])
        return {"bridge": float((weight * np.square(miss)).sum() / len(miss))}

    def credit(self, network: Network, trace: Trace) -> NDArray[Any]:
        states, times, codes = self.everywhere(trace)
        _, made = self.net.forward(states, times, codes)
        delta = np.tile(trace.delta, (self.depth + 1, 1))
        return self.net.input_gradient(made, delta).reshape(trace.states.shape)
