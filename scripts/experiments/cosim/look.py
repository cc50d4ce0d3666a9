"""A look at what the data do to the grids, before anything is built: the inputs, the first gradients, updates and weights.

A run whose first gradient lies beyond its rails, or below its ulp, can be known to fail before it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ....golden.config import Source, ThrottleConfig
from ....golden.formats import Fixed
from ....golden.network import layers as chain
from ....golden.segments import Segment, slices
from ....golden.training.model import LinearBlockModel
from ...style import LIMIT
from ..stands import Stand, sentences, stand, table
from .job import Job
from .network import LOSS, Batches, lambda_max

BATCHES = 8
"""Batches whose gradients are looked at."""


@dataclass(frozen=True)
class Look:
    """What was seen, as a table, and what to make of it, in sentences."""

    stands: tuple[Stand, ...]
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        """For a terminal."""
        return "\n".join([table(self.stands), *self.sentences])


def look(job: Job) -> Look:
    """The first batches of a job at the weights that it starts from, against the grids of its unit and of its narrow runs."""
    model = job.model_anew()
    narrow = next(iter(job.narrow_runs.values()), None)
    model.theta = start = job.start(job.throttle)
    inputs: list[NDArray[np.float64]] = []
    gradients: list[NDArray[np.float64]] = []
    sharpness = 0.0
    drawn = Batches(job)
    with np.errstate(all="ignore"):
        for x, y in _some(drawn, BATCHES if job.batch else 1):
            if not inputs:
                sharpness = lambda_max(model, x, y)
            inputs.append(x.ravel())
            outputs, caches = chain.forward(model.layers, x, training=True, update_state=False)
            gradients.append(chain.flatten(model.layers, chain.backward(model.layers, caches, LOSS.gradient(outputs, y))))
    seen, gradient = np.concatenate(inputs), np.concatenate(gradients)
    gains = [1.0] if job.gain is None else [job.gain(step) for step in range(job.steps)]
    steepest, first = max(map(abs, gains)), gains[0]
    scaled = seen if not first else seen / first * steepest
    stands = [stand("inputs" if steepest == 1 else f"inputs, gain {steepest:g}", scaled, _input(job))]
    for prefix, config in (("", job.throttle), ("narrow: ", narrow)):
        if config is not None:
            stands += list(_of_unit(prefix, config, gradient, model, start if config is job.throttle else job.start(config)))
    return Look(tuple(stands), (*sentences(stands), *_acts(job, sharpness, (steepest / first) ** 2 if first else 1.0)))


def _some(drawn: Batches, count: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    for _, batch in zip(range(count), drawn, strict=False):
        yield batch


def _input(job: Job) -> Fixed | None:
    if job.network is None:
        return Fixed.parse(job.input) if job.input else None
    return None if job.formats is None else job.formats.dtype("input", "value")


def _of_unit(
    prefix: str, config: ThrottleConfig, gradient: NDArray[np.float64], model: LinearBlockModel, start: NDArray[np.float64]
) -> Iterator[Stand]:
    batches = gradient.reshape(-1, config.elements)
    for segment, place in slices(config.segments or [Segment(config.elements)]):
        grids, seen = config.grids_at(segment.scale), batches[:, place].ravel()
        of = f" of {segment.name}" if config.segments else ""
        yield stand(f"{prefix}first gradient{of}", seen, grids.gradient)
        yield stand(f"{prefix}first update{of}, alpha = 1", seen * float(config.eta), grids.update)
        yield stand(f"{prefix}first weights{of}", start[place], grids.weight)


def _acts(job: Job, sharpness: float, growth: float) -> Iterator[str]:
    """Whether the throttle will have anything to do, as far as the first weights tell."""
    config = job.throttle
    if not Source(config.source).is_curvature or not np.isfinite(sharpness):
        return
    most = sharpness * growth
    bias, gain, num = (float(Fraction(getattr(config, name))) for name in ("bias", "gain", "num"))
    alpha = min(1.0, num / (bias + gain * most)) if bias + gain * most else 1.0
    full = float(config.eta) * most
    if alpha == 1.0:
        yield (
            f"eta * lambda_max is {full:.3g} at the first weights (unstable above {LIMIT:g}), where alpha is 1: at this rate the "
            "throttle may never act."
        )
