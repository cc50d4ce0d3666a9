"""A credit method's update through a throttle unit: what becomes of a learning signal in few bits, throttled or not.

The unit is handed the method's whole update field as its gradient: curvature, alpha and the new weights are the unit's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....golden.config import ThrottleConfig
from ....golden.credit.dfa import DFA
from ....golden.credit.method import Method
from ....golden.credit.methods import make
from ....golden.credit.model import ResidualMLP
from ....golden.credit.tasks import Data, Net, Options, Samples, blend
from ....golden.protocol.rules import TrainingMonitor
from ....golden.reference import FloatThrottle
from ....golden.rounding import quantise, values
from ....golden.throttle import Datapath
from ....golden.training.distortion import distortion, segments_of
from ....golden.training.published import Law, PublishedThrottle

MakeUnit = Callable[[ThrottleConfig, Any], Datapath]
"""A unit from its configuration and its initial weights, real values on the weight grid."""

LAWS = ("off", "stability_margin", "inverse_curvature")
ALIASES = {"margin": "stability_margin", "inverse": "inverse_curvature"}
"""Former names of the laws: read, and never written."""
DIGITS, SHALLOW = Data(name="digits"), Net(width=32, depth=2)


@dataclass(frozen=True, kw_only=True)
class Throttled:
    """Train a student on full batches through a unit, and watch it by the diagnostic protocol.

    Args:
        bits: of weights, gradients and updates (SQ3, SQ4 and SQ2); 0 is float64.
        law: ``off``, ``stability_margin`` or ``inverse_curvature``.
        rate: eta.
        chi, beta: of the laws.
        warmup: see :class:`~kappa_rtl.golden.credit.tasks.Online`.
        normalised: whether credits are divided by their RMS; each method as the others.
        check: steps between two looks of the monitor.
    """

    data: Data = DIGITS
    net: Net = SHALLOW
    bits: int = 0
    law: str = "stability_margin"
    steps: int = 200
    rate: float = 1.0
    chi: float = 1.5
    beta: float = 1.0
    warmup: float = 0.2
    normalised: bool = True
    check: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", ALIASES.get(self.law, self.law))

    def config(self, elements: int) -> ThrottleConfig:
        """The unit's configuration; in float the formats say only what standing still is."""
        if self.law not in LAWS:
            raise ValueError(f"law must be one of {', '.join(LAWS)}, not {self.law!r}")
        if self.bits and not 6 <= self.bits <= 24:
            raise ValueError(f"bits must be 0 for float or from 6 to 24, not {self.bits!r}")
        width = self.bits or 24
        formats: Mapping[str, Any] = {
            "elements": elements,
            "eta": self.rate,
            "enabled": self.law != "off",
            "lanes": 8,
            "gradient": f"SQ4.{width - 4}",
            "weight": f"SQ3.{width - 3}",
            "update": f"SQ2.{width - 2}",
        }
        if self.law == "inverse_curvature":
            return ThrottleConfig.inverse_curvature(beta=self.beta, **formats)
        return ThrottleConfig.stability_margin(chi=self.chi, **formats)

    def published(self) -> Law:
        """The law of the published unit."""
        controller = "stability_margin" if self.law == "off" else self.law
        return Law(
            eta=self.rate, controller=controller, chi=self.chi, beta=self.beta, enabled=self.law != "off", on_still="floor"
        )

    def run(
        self,
        method: str,
        options: Options,
        seed: int,
        make_unit: MakeUnit | None = None,
        close: Callable[[Any], None] | None = None,
    ) -> dict[str, Any]:
        """One run.

        Args:
            make_unit: makes a fixed-point unit. None is the float one: without bits it knows no grids, with bits it is the
                published one, of rounded tensors and float64 scalars.
            close: called with the unit in the end.

        Returns:
            ``accuracy`` on test samples at the end, ``best`` the highest at a look, the smallest ``min_alpha`` that was applied,
            the median ``angle`` (radians) between applied and intended update, ``still`` steps, the step at which it ``diverged``
            (NaN: never), and the monitor's ``verdict``.
        """
        samples = self.data.draw(seed, self.net)
        model = self.net.build(seed, samples.x.shape[1])
        config = self.config(model.theta.size)
        estimator = make(method, model, seed=seed, **options)
        grid = config.grids.weight
        unit: Any
        weights = values(quantise(model.theta, grid), grid) if self.bits else model.theta
        if make_unit is not None:
            unit = make_unit(config, weights)
        elif self.bits:
            unit = PublishedThrottle(self.published(), weights, segments_of(config))
        else:
            unit = FloatThrottle(config, weights)
        try:
            return self._train(model, estimator, unit, config, samples, seed)
        finally:
            if close is not None:
                close(unit)

    def _train(
        self, model: ResidualMLP, estimator: Method, unit: Any, config: ThrottleConfig, samples: Samples, seed: int
    ) -> dict[str, Any]:
        start, monitor = DFA(model, seed=seed), TrainingMonitor(name=estimator.name)
        grid, eta = config.grids.gradient, self.rate
        alphas: list[float] = []
        angles: list[float] = []
        still, best, diverged = 0, 0.0, math.nan
        model.theta = unit.weights
        for step in range(self.steps):
            trace = model.trace(samples.x, samples.y)
            estimator.fit(model, trace)
            share = self._share(step) if estimator.learns else 1.0
            credit = blend(start.credit(model, trace), estimator.credit(model, trace) if share else None, share)
            field = model.field(trace, credit, normalised=self.normalised)
            if not np.isfinite(field).all():
                diverged = step
                break
            before = unit.weights
            record = unit.step(values(quantise(field, grid), grid) if self.bits else field)
            alpha = float(record.registers.alpha) if config.enabled else 1.0
            alphas.append(alpha)
            angles.append(distortion(_change(unit.weights, before), -alpha * eta * field).angle)
            still += not np.any(unit.weights != before)
            model.theta = unit.weights
            if not np.isfinite(unit.weights).all():
                diverged = step
                break
            if (step + 1) % self.check == 0 or step + 1 == self.steps:
                accuracy = model.accuracy(samples.test_x, samples.test_y)
                best = max(best, accuracy)
                monitor.observe(step + 1, model, samples.test_x, samples.test_y, accuracy)
        finite = np.isfinite(model.theta).all()
        return {
            "accuracy": model.accuracy(samples.test_x, samples.test_y) if finite else math.nan,
            "best": best,
            "min_alpha": min(alphas, default=math.nan),
            "angle": float(np.median(angles)) if angles else math.nan,
            "still": float(still),
            "diverged": float(diverged),
            "verdict": monitor.verdict if math.isnan(diverged) else f"diverged at step {diverged:g}",
        }

    def _share(self, step: int) -> float:
        length = self.warmup * self.steps
        return 1.0 if not length else min(1.0, max(0.0, (step - length) / length))


def _change(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        change: NDArray[np.float64] = after - before
    return change
