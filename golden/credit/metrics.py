"""How good a credit is: its direction, and whether it foretells what a change of the state does to the loss.

All are taken at h_0..h_{L-1}; the credit of h_L is known to everyone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .network import Network, Trace, flat_states

Array = NDArray[Any]


def gamma(credit: Array, exact: Array) -> float:
    """Mean over samples and layers below L of the cosine between credit and exact credit, both (L+1, n, d); 0 for a zero."""
    a, p = credit[:-1], exact[:-1]
    norms = np.linalg.norm(a, axis=2) * np.linalg.norm(p, axis=2)
    products = np.einsum("lnd,lnd->ln", a, p)
    return float(np.mean(np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)))


def rho(
    network: Network, trace: Trace, credit: Array, rng: np.random.Generator, *, directions: int = 32, eps: float = 1e-3
) -> float:
    """Mean over the layers of the Pearson correlation between ``eps <a, v>`` and what ``h + eps v`` does to the loss.

    The correlation runs over samples and random unit directions v; it is 0 where either side has no spread (below 1e-12).
    """
    h, sample, layer = flat_states(trace, network.depth)
    a = credit[:-1].reshape(h.shape)
    said, done = [], []
    for _ in range(directions):
        v = rng.normal(size=h.shape)
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        said.append(eps * np.einsum("rd,rd->r", a, v))
        done.append(network.losses_from(trace, sample, layer, h + eps * v) - trace.losses[sample])
    x, y = (np.stack(part).reshape(directions, network.depth, -1).swapaxes(0, 1) for part in (said, done))
    return float(np.mean([_pearson(x[at].ravel(), y[at].ravel()) for at in range(network.depth)]))


def _pearson(x: Array, y: Array) -> float:
    if not (x.std() >= 1e-12 and y.std() >= 1e-12):
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def nudge(network: Network, trace: Trace, credit: Array, *, eta: float = 0.01) -> float:
    """Mean over samples and layers of ``loss(h - eta a) - loss(h)``, the credit at its own length: below 0 is a help."""
    h, sample, layer = flat_states(trace, network.depth)
    losses = network.losses_from(trace, sample, layer, h - eta * credit[:-1].reshape(h.shape))
    return float(np.mean(losses - trace.losses[sample]))


def measure(
    network: Network, trace: Trace, credit: Array, rng: np.random.Generator, *, eta: float = 0.01, directions: int = 32
) -> dict[str, float]:
    """``gamma``, ``rho`` and ``nudge`` of a credit (L+1, n, d)."""
    return {
        "gamma": gamma(credit, network.exact(trace)),
        "rho": rho(network, trace, credit, rng, directions=directions),
        "nudge": nudge(network, trace, credit, eta=eta),
    }
