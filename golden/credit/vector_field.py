"""The vector field: a net that says the credit itself, trained on what small perturbations do to the loss."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.checks import counts, switches
from .method import Estimator, real
from .network import Network, Trace, normal


class VectorField(Estimator):
    """``a(h_l, t_l, s)`` in R^d, with ``<a, v>`` trained to be the loss's slope g along random unit directions v.

    ``g = (loss(h + eps v) - loss(h - eps v)) / (2 eps)``, or one-sided. The loss is ``d mean_j (<a, v_j> - g_j)^2``, where d
    makes up for the length of v in a random direction, plus ``terminal ||a_L - delta_L||^2``.

    Args:
        directions: M, fresh ones for each pair and step.
        eps: how far a perturbation goes.
        one_sided: measure ``(loss(h + eps v) - loss(h)) / eps``: M + 1 runs in place of 2 M.
        shuffled: the control: each g goes to another pair of the batch.
        terminal: weight of the term at L.
    """

    name = "vector_field"

    def __init__(
        self,
        network: Network,
        *,
        directions: int = 4,
        eps: float = 0.01,
        one_sided: bool = False,
        shuffled: bool = False,
        terminal: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        counts(directions=directions)
        real("eps", eps, above=0)
        real("terminal", terminal, least=0)
        switches(one_sided=one_sided, shuffled=shuffled)
        self.directions, self.eps, self.one_sided, self.shuffled = directions, eps, one_sided, shuffled
        self.terminal = terminal

    def slopes(self, network: Network, trace: Trace, v: NDArray[Any], sample: Any, layer: Any) -> NDArray[Any]:
        """g, (M, rows), along v (M, rows, d)."""
        h = trace.states[layer, sample]
        pushed = [h + self.eps * v] if self.one_sided else [h + self.eps * v, h - self.eps * v]
        rows = np.concatenate(pushed).reshape(-1, self.width)
        times = len(rows) // len(sample)
        losses = network.losses_from(trace, np.tile(sample, times), np.tile(layer, times), rows).reshape(-1, *v.shape[:2])
        if self.one_sided:  # the loss of the unperturbed run is the batch's own
            slopes: NDArray[Any] = (losses[0] - trace.losses[sample]) / self.eps
            return slopes
        slopes = (losses[0] - losses[1]) / (2 * self.eps)
        return slopes

    def fit(self, network: Network, trace: Trace) -> dict[str, float]:
        sample, layer = self.pairs(trace)
        rows, n = len(sample), len(trace.losses)
        v = normal(self.rng, (self.directions, rows, self.width), network.dtype)
        v /= np.sqrt(np.einsum("mrd,mrd->mr", v, v))[:, :, None]
        g = self.slopes(network, trace, v, sample, layer)
        if self.shuffled:
            g = np.stack([self.rng.permutation(row) for row in g])
        h, t, codes = trace.states[layer, sample], self.times(layer), self.code(trace)
        code = self.at(codes, sample)
        if self.terminal:  # the last states join the batch
            h, t = np.concatenate([h, trace.states[-1]]), np.concatenate([t, np.ones(n)])
            code = None if codes is None or code is None else np.concatenate([code, codes])
        a, made = self.net.forward(h, t, code)
        miss = np.einsum("mrd,rd->mr", v, a[:rows]) - g
        weight = self.width / miss.size
        parts = {"bridge": float(weight * np.square(miss).sum())}
        cotangent = 2 * weight * np.einsum("mr,mrd->rd", miss, v)
        if self.terminal:
            gap = a[rows:] - trace.delta
            parts["terminal"] = self.terminal / n * float(np.square(gap).sum())
            cotangent = np.concatenate([cotangent, 2 * self.terminal / n * gap])
        self.descend(self.net.backward(made, cotangent)[1])
        return parts

    def credit(self, network: Network, trace: Trace) -> NDArray[Any]:
        return self.net.value(*self.everywhere(trace)).reshape(trace.states.shape)
