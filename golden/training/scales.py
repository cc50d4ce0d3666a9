"""A binary point for every tensor of a model, from a short run in float: the segments of its unit.

A weight's rails are four times the largest magnitude that it begins or ends the short run with, and a tensor's scale is by how
many bits it could have a finer grid than the one with the widest. Gradients move with the weights, as a unit's segment has one
scale for both: their common grid reaches two bits beyond the 99.9 % quantile of every tensor.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from ..config import ThrottleConfig
from ..formats import Fixed
from ..network.data import Problem
from ..network.layers import variables
from ..network.precision import rail_stats
from ..numbers import whole
from ..segments import MOST_SCALE, Segment
from .instrumented import Step, train_instrumented
from .model import BaseModel
from .rule import Rule, rule

QUANTILE = 0.999
"""Of a tensor's gradients in a step: the few beyond it may stand at the rail."""

HEADROOM, SPARE = 4.0, 2
"""A weight's rail over its largest magnitude; and a gradient's bits beyond its quantile."""


class TensorScale(NamedTuple):
    """One tensor, as the short run saw it, and its scale."""

    name: str  #: ``layer/variable``
    elements: int
    largest: float  #: magnitude of its weights, at the start and in the end of the short run
    quantile: float  #: the largest of its gradients' over the steps
    wanted: int = 0  #: bits by which its weights' grid could be finer than the widest tensor's
    scale: int = 0  #: of them those that a segment may have
    rule: Rule | None = None  #: the formats that an analytic rule asks for


class Shares(NamedTuple):
    """How a tensor stands to its grids: fractions of its elements."""

    weight_beyond: float  #: on the weight's rails or beyond
    weight_below: float  #: not zero, and below half an ulp
    gradient_beyond: float
    gradient_below: float


@dataclass(frozen=True)
class Scales:
    """Formats for a unit of a model and a scale for each of its tensors.

    Attributes:
        weight, gradient, update: of a segment of scale 0.
        tensors: in the order of theta.
        start: how each of them stood to its grids at the start of the short run; nothing on other grids than it was made for.
        scale_max: the largest scale that a tensor may have.
    """

    weight: Fixed
    gradient: Fixed
    update: Fixed
    tensors: tuple[TensorScale, ...]
    start: tuple[Shares, ...] = ()
    scale_max: int = MOST_SCALE

    @property
    def segments(self) -> tuple[Segment, ...]:
        """A segment for every tensor."""
        return tuple(Segment(one.elements, one.scale, one.name) for one in self.tensors)

    def config(self, law: str = "stability_margin", **settings: Any) -> ThrottleConfig:
        """The configuration of the unit; ``settings`` are other fields of it and the law's parameters."""
        given = {"elements": sum(one.elements for one in self.tensors), "segments": self.segments}
        given |= {"scale_max": self.scale_max, "gradient": self.gradient, "weight": self.weight, "update": self.update}
        return ThrottleConfig.of_law(law, **given | settings)

    def on_one_grid(self) -> Scales:
        """All tensors on one grid, that of the widest."""
        tensors = tuple(one._replace(scale=0) for one in self.tensors)
        gradient = max(map(reach, tensors))
        moved = self.gradient.finer(self.gradient.integer_bits - gradient)
        return replace(self, gradient=moved, tensors=tensors, start=())

    def finer(self, bits: int) -> Scales:
        """Weights and updates of all tensors on grids finer by so many bits, their rails so much nearer."""
        return replace(self, weight=self.weight.finer(bits), update=self.update.finer(bits), start=())

    def shares(self, theta: NDArray[Any], gradient: NDArray[Any] | None = None) -> tuple[Shares, ...]:
        """How each tensor stands to its grids, from weights and a gradient as real values, (N,): a check after a run.

        Without a gradient its shares are NaN.
        """
        found, first = [], 0
        for one in self.tensors:
            place = slice(first, first + one.elements)
            first = place.stop
            w = rail_stats(np.asarray(theta)[place], self.weight.finer(one.scale))
            below = beyond = math.nan
            if gradient is not None:
                g = rail_stats(np.asarray(gradient)[place], self.gradient.finer(one.scale))
                beyond, below = g.saturation, g.underflow
            found.append(Shares(w.saturation, w.underflow, beyond, below))
        return tuple(found)

    def table(self, *shares: Sequence[Shares]) -> str:
        """A row a tensor: what was seen, its grids, the analytic rule's, and the shares, those of the start if none are given."""
        rows: list[Sequence[object]] = []
        for k, one in enumerate(self.tensors):
            asked = one.rule.weight.name if one.rule else "-"
            clamped = f"{one.scale}" if one.scale == one.wanted else f"{one.scale} ({one.wanted} wanted)"
            row = [one.name, one.elements, f"{one.largest:.3g}", f"{one.quantile:.2g}", clamped]
            row += [fmt.finer(one.scale).name for fmt in (self.weight, self.gradient)] + [asked]
            rows.append(
                [
                    *row,
                    *(
                        "-" if math.isnan(share) else f"{share:.2%}"
                        for some in shares or (self.start,)
                        for share in (some[k] if some else ())
                    ),
                ]
            )
        head = ["tensor", "elements", "weights to", "gradients to", "scale", "weight", "gradient", "by the rule"]
        told = ["w beyond", "w below", "g beyond", "g below"] * max(1, len(shares) if shares else bool(self.start))
        return tabulate(rows, head + told, disable_numparse=True)

    def __str__(self) -> str:
        return self.table()


def alike(*found: Scales) -> list[Scales]:
    """The same of several models, on the formats of one unit: those with the widest range; scales are counted from them.

    Give the unit's ``config`` room for the largest of them (``capacity``) and entries for the one with most tensors.

    Raises:
        ValueError: they are of different widths, or update their weights differently.
    """
    made = {(one.weight.width, one.gradient.width, one.update.finer(-one.weight.fraction_bits)) for one in found}
    if len(made) != 1:
        widths = ", ".join(f"{one.weight.width} (update {one.update}, gradient {one.gradient.width})" for one in found)
        raise ValueError(f"scales must be of one width and rounding, not {widths or 'none'}")
    most = max(one.weight.integer_bits for one in found)
    moved = []
    for one in found:
        finer = most - one.weight.integer_bits
        tensors = tuple(
            tensor._replace(wanted=tensor.wanted + finer, scale=min(tensor.scale + finer, one.scale_max))
            for tensor in one.tensors
        )
        weight, update = one.weight.finer(-finer), one.update.finer(-finer)
        moved.append(replace(one, weight=weight, update=update, tensors=tensors, start=()))
    room = max(reach(tensor) for one in moved for tensor in one.tensors)
    return [replace(one, gradient=one.gradient.finer(one.gradient.integer_bits - room)) for one in moved]


def reach(tensor: TensorScale) -> int:
    """Integer bits of the common gradient format with which a tensor's gradients have what they are to have."""
    return bits(tensor.quantile) + SPARE + tensor.scale


def bits(largest: float) -> int:
    """The integer bits, the sign among them, of the smallest signed format that reaches a magnitude."""
    return math.ceil(math.log2(largest)) + 1 if 0 < largest < math.inf else -MOST_SCALE


def calibrate(
    model: BaseModel,
    data: Problem,
    width: int,
    *,
    gradient_bits: int = 16,
    random: bool = False,
    steps: int = 20,
    batch_size: int = 64,
    learning_rate: float = 0.05,
    loss_mode: str = "half_mse",
    scale_max: int = MOST_SCALE,
    seed: int = 0,
) -> Scales:
    """A scale for every tensor of a model, from a short run of a copy of it in float, unthrottled.

    Args:
        model: at its first weights; it stays as it is.
        data: what it is to be trained on.
        width: bits of a weight and of an update, 4..24.
        gradient_bits: of a gradient, 4..24.
        random: the update's rounding is stochastic; its grid is then the weight's, where it is else a bit finer.
        steps, batch_size, learning_rate, loss_mode, seed: of the short run.
        scale_max: the largest scale that a tensor gets.

    Raises:
        ValueError: an argument that is none of these, or a run whose weights or gradients are not finite.

    >>> from kappa_rtl.golden.network.data import digits
    >>> from kappa_rtl.golden.training.model import LinearBlockModel
    >>> found = calibrate(LinearBlockModel(digits(), num_hidden=[32], activation="relu", seed=0), digits(), 8)
    >>> [segment.name for segment in found.segments], found.config(eta=0.1).weight.width
    (['dense0/kernel', 'dense0/bias', 'dense1/kernel', 'dense1/bias'], 8)
    """
    whole("width", width, 4, 24)
    whole("gradient_bits", gradient_bits, 4, 24)
    whole("steps", steps, 1)
    copied = copy.deepcopy(model)
    own = variables(copied.layers)
    begun, gradients, rates = copied.theta, [], []

    def look(step: Step) -> bool:
        gradients.append(step.gradient)
        rates.append(step.row["learning_rate"])
        return len(gradients) == steps

    train_instrumented(
        copied,
        data.inputs,
        data.targets,
        epochs=steps,
        batch_size=min(batch_size, len(data.inputs)),
        learning_rate=learning_rate,
        loss_mode=loss_mode,
        compute_analytic_hessian=False,
        batch_seed=seed,
        observe=look,
    )
    ended, seen = copied.theta, np.abs(np.stack(gradients))
    for name, values in (("weights", ended), ("gradients", seen)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} of the short run must be finite: take a learning_rate below {learning_rate}")
    tensors = []
    for v in own:
        largest = float(max(np.abs(begun[v.place]).max(), np.abs(ended[v.place]).max()))
        deviations = [float(np.std(step[v.place])) for step in gradients]
        asked = rule(
            largest_weight=largest,
            least_deviation=min(deviations),
            largest_deviation=max(deviations),
            least_rate=float(min(rates)),
        )
        quantile = float(np.quantile(seen[:, v.place], QUANTILE, axis=1).max())
        tensors.append(TensorScale(f"{v.layer}/{v.name}", v.place.stop - v.place.start, largest, quantile, rule=asked))
    most, scaled = scale(tensors, scale_max)
    room = max(map(reach, scaled))
    found = Scales(
        weight=Fixed(True, most, width - most),
        gradient=Fixed(True, room, gradient_bits - room),
        update=Fixed.parse(f"SQ{most}.{width - most},stochastic") if random else Fixed(True, most - 1, width - most + 1),
        tensors=tuple(scaled),
        scale_max=scale_max,
    )
    return replace(found, start=found.shares(begun, gradients[0]))


def scale(tensors: Sequence[TensorScale], scale_max: int = MOST_SCALE) -> tuple[int, list[TensorScale]]:
    """The integer bits of the weights of the tensor with the widest range, and all tensors with their scales counted from it."""
    needed = [bits(HEADROOM * one.largest) for one in tensors]
    most = max(needed)
    wanted = [most - own for own in needed]
    return most, [one._replace(wanted=finer, scale=min(finer, scale_max)) for one, finer in zip(tensors, wanted, strict=True)]
