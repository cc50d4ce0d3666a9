"""What a credit method sees of a network: states, a loss at the end, and how to run on from any state.

A batch has n samples, states are (n, d), the loss is that of each sample, (n,).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Index = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Trace:
    """One forward pass.

    Attributes:
        target: what the loss compares with: labels (n,) or targets (n, C).
        states: (L+1, n, d), h_0..h_L.
        noise: (L, n, d) what was added at each block, kept so that runs from a changed state differ by that change alone.
        losses: (n,).
        error: (n, C), e = dloss/dz of each sample: softmax minus one-hot, or Ch - y.
        delta: (n, d), dloss/dh_L, which is local to the output.
        inputs: (n, inputs) where an embedding is learned.
    """

    target: Array
    states: Array
    noise: Array | None
    losses: Array
    error: Array
    delta: Array
    inputs: Array | None = None


class Network(ABC):
    """L blocks ``h_{l+1} = f_l(h_l)`` of width d, and a head with C outputs.

    Attributes:
        depth, width, classes: L, d and C.
        dtype: of states and credits.
    """

    depth: int
    width: int
    classes: int
    dtype: np.dtype[Any]

    @abstractmethod
    def block(self, layer: int, h: Array) -> Array:
        """f_l(h) without noise, (n, d)."""

    @abstractmethod
    def transpose(self, layer: int, h: Array, a: Array) -> Array:
        """The transposed Jacobian of f_l at h, times a: (n, d)."""

    @abstractmethod
    def head(self, h: Array, target: Array) -> tuple[Array, Array, Array]:
        """Losses (n,), error (n, C) and delta (n, d) of last states h."""

    def run(self, h: Array, target: Array, noise: Array | None = None, inputs: Array | None = None) -> Trace:
        """The forward pass from h_0, (n, d)."""
        states = [h]
        for layer in range(self.depth):
            h = self.block(layer, h)
            if noise is not None:
                h = h + noise[layer]
            states.append(h)
        return Trace(target, np.stack(states), noise, *self.head(h, target), inputs)

    def exact(self, trace: Trace) -> Array:
        """The exact credit p_l = dloss/dh_l of each sample, (L+1, n, d): backpropagation."""
        p = [trace.delta]
        for layer in reversed(range(self.depth)):
            p.append(self.transpose(layer, trace.states[layer], p[-1]))
        return np.stack(p[::-1])

    def advance(self, trace: Trace, sample: Index, layer: Index, h: Array) -> Array:
        """f_l(h) for rows that stand at different layers.

        Args:
            sample, layer: (rows,) whose noise, and which block; every layer below L.
            h: (rows, d).
        """
        after = np.empty_like(h)
        for at in range(self.depth):
            rows = np.flatnonzero(layer == at)
            if rows.size:
                after[rows] = self.block(at, h[rows])
                if trace.noise is not None:
                    after[rows] += trace.noise[at, sample[rows]]
        return after

    def losses_from(self, trace: Trace, sample: Index, layer: Index, h: Array) -> Array:
        """The losses (rows,) of running on from the states h (rows, d) at these layers, with the samples' noise and targets.

        Args:
            sample, layer: (rows,) layers from 0 to L.
        """
        order = np.argsort(layer, kind="stable")
        h, sample = h[order], sample[order]
        starts = np.searchsorted(layer[order], np.arange(self.depth), side="right")
        for at, active in enumerate(starts):  # the rows that have begun stand first
            if active:
                moved = self.block(at, h[:active])
                if trace.noise is not None:
                    moved += trace.noise[at, sample[:active]]
                h[:active] = moved
        losses = np.empty(len(h), h.dtype)
        losses[order] = self.head(h, trace.target[sample])[0]
        return losses


def normal(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Standard normal numbers of a dtype."""
    return rng.standard_normal(shape, np.float32 if dtype == np.float32 else np.float64)


def flat_states(trace: Trace, layers: int) -> tuple[Array, Index, Index]:
    """The states of the first so many layers as rows (layers * n, d), with their samples and layers."""
    n, d = trace.states.shape[1:]
    sample, layer = np.tile(np.arange(n), layers), np.repeat(np.arange(layers), n)
    return trace.states[:layers].reshape(-1, d), sample, layer
