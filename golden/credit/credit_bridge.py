"""The credit bridge: a scalar value of state and time, whose gradient is the credit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State
from ..network.checks import counts
from .method import Estimator, real
from .network import Network, Trace, normal

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
        flow: w: with w > 0 the net has d more outputs F, flow matching as an auxiliary: ``sum_l w mean |F_l - L (h_{l+1} -
            h_l)|^2 / d`` joins the loss, so that its hidden layers also learn where states go.
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
        flow: float = 0.0,
        **options: Any,
    ) -> None:
        real("flow", flow, least=0)
        self.flow = flow
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

    def state_dict(self) -> State:
        """Also the weights of Vbar."""
        return super().state_dict() | {"average": self.average.copy()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.average[:] = state["average"]

    def outputs(self, width: int) -> int:
        return 1 + width if self.flow else 1

    def targets(self, h: Array, t: Array, code: Array | None) -> Array:
        """T, (rows,), from the next states (rows, d) and their times: all draws in one product."""
        noise = normal(self.rng, (self.samples, *h.shape), self.net.theta.dtype)
        noise *= self.spread
        noise += h
        live = self.net.theta.copy()
        self.net.theta[:] = self.average
        x = self.net.value(noise, t, code)[..., 0] / -self.temperature
        self.net.theta[:] = live
        top = x.max(axis=0)
        soft: Array = -self.temperature * (top + np.log(np.exp(x - top).mean(axis=0)))
        return soft

    def bridge_gradient(
        self, h: Array, t: Array, code: Array | None, goal: Array, velocity: Array | None
    ) -> tuple[dict[str, float], Array]:
        """The parts of the loss below L and their gradient (P,).

        Args:
            h, t, code: the rows.
            goal: (rows,) what V should be.
            velocity: (rows, d) what F should be; None without it.
        """
        out, made = self.net.forward(h, t, code)
        miss, weight = out[:, 0] - goal, self.depth / len(h)
        parts = {"bridge": weight * float(np.vdot(miss, miss))}
        cotangent = np.zeros_like(out)
        cotangent[:, 0] = 2 * weight * miss
        if velocity is not None:
            gap, share = out[:, 1:] - velocity, self.flow * weight / self.width
            parts["flow"] = share * float(np.vdot(gap, gap))
            cotangent[:, 1:] = 2 * share * gap
        return parts, self.net.backward(made, cotangent)[1]

    def end_gradient(self, h: Array, code: Array | None, losses: Array, delta: Array) -> tuple[dict[str, float], Array]:
        """The parts of the loss at L and their gradient (P,), for last states h (n, d)."""
        n = len(h)
        out, made = self.net.forward(h, np.ones(n), code)
        miss = out[:, 0] - losses
        parts = {"end": float(np.vdot(miss, miss)) / n}
        cotangent, ones = np.zeros_like(out), np.zeros_like(out)
        cotangent[:, 0], ones[:, 0] = 2 / n * miss, 1
        if not self.terminal:
            return parts, self.net.backward(made, cotangent)[1]
        gap = self.net.input_gradient(made, ones) - delta
        parts["terminal"] = self.terminal / n * float(np.vdot(gap, gap))
        return parts, self.net.tangent_gradient(made, 2 * self.terminal / n * gap, cotangent, ones)

    def fit(self, network: Network, trace: Trace) -> dict[str, float]:
        sample, layer = self.pairs(trace)
        codes = self.code(trace)
        code = self.at(codes, sample)
        h = trace.states[layer, sample]
        if self.perturb:
            h = h + self.perturb * normal(self.rng, h.shape, h.dtype)
            after = network.advance(trace, sample, layer, h)
        else:
            after = trace.states[layer + 1, sample]
        goal = self.targets(after, self.times(layer + 1), code)
        velocity = self.depth * (after - h) if self.flow else None
        below, gradient = self.bridge_gradient(h, self.times(layer), code, goal, velocity)
        end, more = self.end_gradient(trace.states[-1], codes, trace.losses, trace.delta)
        self.descend(gradient + more)
        self.average *= self.ema
        self.average += (1 - self.ema) * self.net.theta
        return below | end

    def credit(self, network: Network, trace: Trace) -> Array:
        out, made = self.net.forward(*self.everywhere(trace))
        ones = np.zeros_like(out)
        ones[:, 0] = 1
        return self.net.input_gradient(made, ones).reshape(trace.states.shape)
