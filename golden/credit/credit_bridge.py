"""The credit bridge: a scalar value of state and time, whose gradient is the credit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..network.checks import counts
from .method import Estimator, real
from .network import Network, Trace

Array = NDArray[Any]


class CreditBridge(Estimator):
    """``a_l = grad_h V(h_l, t_l, s)``; V is the loss at L and bridged downwards.

    The loss is ``mean (V_L - loss)^2 + sum_l mean (V_l - T_l)^2 + terminal mean ||grad_h V_L - delta_L||^2`` with the target
    ``T_l = -temperature log mean_k exp(-Vbar(h_{l+1} + spread xi_k, t_{l+1}, s) / temperature)``, Vbar the moving average of V.

    Args:
        terminal: weight of the gradient's match at L, which is local to the output.
        temperature, samples, spread: lambda, K and sigma_b of the soft minimum.
        ema: how much Vbar keeps in a step.
        perturb: p: with p > 0, V is trained at ``h_l + p noise`` against T_l at ``f_l`` of that, the code unchanged. With the
            error as code V is a function of the code alone on the data, and without p nothing says what its gradient is.
    """

    name = "credit_bridge"

    def __init__(
        self,
        network: Network,
        *,
        terminal: float = 1.0,
        temperature: float = 0.1,
        samples: int = 8,
        spread: float = 0.1,
        ema: float = 0.995,
        perturb: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(network, **options)
        real("terminal", terminal, least=0)
        real("temperature", temperature, above=0)
        real("spread", spread, least=0)
        real("perturb", perturb, least=0)
        counts(samples=samples)
        real("ema", ema, least=0)
        if ema >= 1:
            raise ValueError(f"ema must be at least 0 and less than 1, not {ema!r}")
        self.terminal, self.temperature, self.samples = terminal, temperature, samples
        self.spread, self.ema, self.perturb = spread, ema, perturb
        self.average = self.net.theta.copy()

    def outputs(self) -> int:
        return 1

    def targets(self, h: Array, t: Array, code: Array | None) -> Array:
        """T, (rows,), from the next states (rows, d) and their times."""
        live = self.net.theta.copy()
        self.net.theta[:] = self.average
        noise = self.rng.normal(size=(self.samples, *h.shape))
        values = np.concatenate([self.net.value(h + self.spread * one, t, code) for one in noise], axis=1)
        self.net.theta[:] = live
        x = -values.T / self.temperature
        top = x.max(axis=0)
        soft: Array = -self.temperature * (top + np.log(np.exp(x - top).mean(axis=0)))
        return soft

    def loss_gradient(
        self, h: Array, t: Array, code: Array | None, goal: Array, weight: Array, delta: Array
    ) -> tuple[float, Array]:
        """The loss and its gradient (P,).

        Args:
            h, t, code: the rows; the last n of them are the last states of the batch.
            goal, weight: (rows,) what V should be and how much a miss counts.
            delta: (n, d), what the gradient of V at the last n rows should be.
        """
        n = len(delta)
        value, made = self.net.forward(h, t, code)
        miss = value[:, 0] - goal
        loss = float(weight @ np.square(miss))
        cotangent = (2 * weight * miss)[:, None]
        if not self.terminal:
            return loss, self.net.backward(made, cotangent)[1]
        gap = self.net.input_gradient(made, np.ones_like(value))[-n:] - delta
        direction = np.zeros((len(h), self.width))
        direction[-n:] = 2 * self.terminal / n * gap
        loss += self.terminal / n * float(np.square(gap).sum())
        return loss, self.net.tangent_gradient(made, direction, cotangent, np.ones_like(value))

    def fit(self, network: Network, trace: Trace) -> float:
        sample, layer = self.pairs(trace)
        rows, n, codes = len(sample), len(trace.losses), self.code(trace)
        code = self.at(codes, sample)
        h = trace.states[layer, sample]
        if self.perturb:
            h = h + self.perturb * self.rng.normal(size=h.shape)
            after = network.advance(trace, sample, layer, h)
        else:
            after = trace.states[layer + 1, sample]
        goal = np.concatenate([self.targets(after, self.times(layer + 1), code), trace.losses])
        weight = np.concatenate([np.full(rows, self.depth / rows), np.full(n, 1 / n)])
        joined = None if codes is None or code is None else np.concatenate([code, codes])
        times = np.concatenate([self.times(layer), np.ones(n)])
        loss, gradient = self.loss_gradient(np.concatenate([h, trace.states[-1]]), times, joined, goal, weight, trace.delta)
        self.descend(gradient)
        self.average *= self.ema
        self.average += (1 - self.ema) * self.net.theta
        return loss

    def credit(self, network: Network, trace: Trace) -> Array:
        value, made = self.net.forward(*self.everywhere(trace))
        return self.net.input_gradient(made, np.ones_like(value)).reshape(trace.states.shape)
