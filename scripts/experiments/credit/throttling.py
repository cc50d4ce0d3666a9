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

from ....golden.config import Source, ThrottleConfig
from ....golden.credit.dfa import DFA
from ....golden.credit.loop import Run
from ....golden.credit.method import Method
from ....golden.credit.methods import make
from ....golden.credit.metrics import gamma
from ....golden.credit.model import ResidualMLP
from ....golden.credit.samples import Data, Net, Samples
from ....golden.credit.tasks import Options, blend, held_out, own_share
from ....golden.protocol.rules import TrainingMonitor
from ....golden.reference import FloatThrottle
from ....golden.rounding import quantise, values
from ....golden.throttle import Datapath
from ....golden.training.distortion import distortion

MakeUnit = Callable[[ThrottleConfig, Any], Datapath]
"""A unit from its configuration and its initial weights, real values on the weight grid."""

LAWS = ("off", "stability_margin", "inverse_curvature", "adgd", "clip_norm")
ALIASES = {"margin": "stability_margin", "inverse": "inverse_curvature", "clip": "clip_norm"}
"""Other names of the laws: read, and never written."""
DIGITS, SHALLOW = Data(name="digits"), Net(width=32, depth=2)


@dataclass(frozen=True, kw_only=True)
class Throttled:
    """Train a student on full batches through a unit, and watch it by the diagnostic protocol.

    Args:
        bits: of weights, gradients and updates (SQ3, SQ4 and SQ2); 0 is float64.
        law: one of :data:`LAWS`; ``off`` measures what ``stability_margin`` would do and does nothing.
        rate: eta.
        chi, beta, max_norm: of the laws.
        random: round updates at random (centred) in place of to nearest.
        residual: bits kept of what rounding dropped; 0 for none.
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
    max_norm: float = 1.0
    random: bool = True
    residual: int = 4
    warmup: float = 0.2
    normalised: bool = True
    check: int = 10
    evaluate: int = 256

    def __post_init__(self) -> None:
        object.__setattr__(self, "law", ALIASES.get(self.law, self.law))

    def config(self, elements: int) -> ThrottleConfig:
        """The unit's configuration; in float the formats say only what standing still is.

        Raises:
            ValueError: there is no such law, or no unit of so many bits.
        """
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
            "update": f"SQ2.{width - 2}" + (",stochastic" if self.random else ""),
            "residual_bits": self.residual,
        }
        match self.law:
            case "inverse_curvature":
                return ThrottleConfig.inverse_curvature(beta=self.beta, **formats)
            case "adgd":
                return ThrottleConfig.adgd(**formats)
            case "clip_norm":
                return ThrottleConfig.clip_norm(max_norm=self.max_norm, **formats)
        return ThrottleConfig.stability_margin(chi=self.chi, **formats)

    def run(
        self,
        method: str,
        options: Options,
        seed: int,
        make_unit: MakeUnit | None = None,
        close: Callable[[Any], None] | None = None,
    ) -> Run:
        """One run.

        Args:
            make_unit: makes a fixed-point unit. None is the float one, which knows no grids.
            close: called with the unit in the end.

        Returns:
            in the end ``accuracy`` on test samples and ``gamma`` of the credit, ``best`` the highest accuracy at a look, the
            median ``alpha`` and the smallest ``min_alpha`` that was applied, ``margin`` (90th percentile of alpha * eta * C),
            the median ``angle`` (radians) between applied and intended update, ``still`` steps, the step at which it
            ``diverged`` (NaN: never), and the monitor's ``verdict``; at every look step, accuracy, gamma, alpha and C.
        """
        samples = self.data.draw(seed, self.net)
        model = self.net.build(seed, samples.x.shape[1])
        config = self.config(model.theta.size)
        estimator = make(method, model, seed=seed, **options)
        grid = config.grids.weight
        unit: Any
        if make_unit is None:
            unit = FloatThrottle(config, model.theta)
        else:
            unit = make_unit(config, values(quantise(model.theta, grid), grid))
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # a run that diverges is a result
                return self._train(model, estimator, unit, config, samples, seed)
        finally:
            if close is not None:
                close(unit)

    def _train(
        self, model: ResidualMLP, estimator: Method, unit: Any, config: ThrottleConfig, samples: Samples, seed: int
    ) -> Run:
        start, monitor = DFA(model, seed=seed), TrainingMonitor(name=estimator.name)
        grid, eta, run = config.grids.gradient, self.rate, Run()
        alphas: list[float] = []
        angles: list[float] = []
        margins: list[float] = []
        still, best, found, diverged = 0, 0.0, math.nan, math.nan
        curved = Source(config.source).is_curvature
        model.theta = unit.weights
        for step in range(self.steps):
            trace = model.trace(samples.x, samples.y)
            estimator.fit(model, trace)
            share = own_share(step, self.warmup * self.steps) if estimator.learns else 1.0
            first = start.credit(model, trace) if share < 1 else None
            credit = blend(first, estimator.credit(model, trace) if share else None, share)
            field = model.field(trace, credit, normalised=self.normalised)
            if not np.isfinite(field).all():
                diverged = step
                break
            before = unit.weights
            record = unit.step(values(quantise(field, grid), grid) if self.bits else field)
            alpha = float(record.registers.alpha) if config.enabled else 1.0
            alphas.append(alpha)
            if curved:
                margins.append(alpha * eta * float(record.registers.curvature))
            angles.append(distortion(_change(unit.weights, before), -alpha * eta * field).angle)
            still += not np.any(unit.weights != before)
            model.theta = unit.weights
            if not np.isfinite(unit.weights).all():
                diverged = step
                break
            if (step + 1) % self.check == 0 or step + 1 == self.steps:
                accuracy = model.accuracy(samples.test_x, samples.test_y)
                shown = held_out(model, samples, self.evaluate)
                found = gamma(estimator.credit(model, shown), model.exact(shown))
                best = max(best, accuracy)
                monitor.observe(step + 1, model, samples.test_x, samples.test_y, accuracy)
                seen = float(record.registers.curvature) if curved else math.nan
                run.curve.append({"step": step + 1.0, "accuracy": accuracy, "gamma": found, "alpha": alpha, "curvature": seen})
        finite = np.isfinite(model.theta).all()
        run.end = {
            "accuracy": model.accuracy(samples.test_x, samples.test_y) if finite else math.nan,
            "gamma": found,
            "best": best,
            "alpha": float(np.median(alphas)) if alphas else math.nan,
            "min_alpha": min(alphas, default=math.nan),
            "margin": float(np.quantile(margins, 0.9)) if margins else math.nan,
            "angle": float(np.median(angles)) if angles else math.nan,
            "still": float(still),
            "diverged": float(diverged),
            "verdict": monitor.verdict if math.isnan(diverged) else f"diverged at step {diverged:g}",
        }
        return run


def _change(after: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", invalid="ignore"):
        change: NDArray[np.float64] = after - before
    return change
