"""Lints: what settings will do to a run although each of them is allowed; every one says what to change.

They speak of the law that is in force, and of nothing that was never set. None of them is an error: the run is sound as a
computation, and will probably not show what it was made for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from ..config import OnStill, Source, ThrottleConfig
from ..formats import Fixed, Overflow
from ..network.layers import Layer
from ..network.norms import BatchNorm
from ..network.precision import PrecisionDict
from ..widths import Grids
from .published import Law
from .schedules import Schedule

STEP_BITS = 8
"""With fewer significant bits than this at the full rate, rounding bends the step by more than 0.2 %."""

SWALLOWED = 2.0**-8
"""Of the gradient's rail: where gradients up to that move no weight, a run stands still before it has learnt much."""

SHORT = 4
"""A last batch of fewer than this part of the others' rows: its noise is more than twice theirs."""


NARROWEST, NARROW = 4, 6
"""Fraction bits of weights of a size of about 1: with less nothing trains; up to these rounding hides the curvature."""


class TrainingWarning(UserWarning):
    """The run is sound as a computation, and will probably not show what it was made for."""


def lints(
    config: ThrottleConfig | Law,
    *,
    minibatch: bool = False,
    batch_size: int = 0,
    rest: int = 0,
    estimator: str = "naive",
    precision: PrecisionDict | None = None,
    schedule: Schedule | None = None,
) -> list[str]:
    """What is to be said before a run.

    Args:
        config: of a unit of any kind, or the law of the published one.
        minibatch: whether a step sees some of the rows; of ``batch_size`` rows each, and ``rest`` in the short last one of an
            epoch (0 without one).
        estimator: by name; only the naive one takes noise for curvature.
        precision: the formats of the layers.
        schedule: of the learning rate.
    """
    found = [*_wraps(config, precision)]
    if isinstance(config, ThrottleConfig):
        found += [*_grids(config), *_memory(config), *_chi(config, minibatch=minibatch)]
    if config.enabled and estimator == "naive" and _curved(config):
        found += [*_noise(config)] if minibatch else []
        if 0 < rest * SHORT <= batch_size:
            found.append(
                f"the last batch of each epoch has {rest} of {batch_size} rows: its gradient differs from the others' by its own "
                "noise, which the law takes for curvature, so that alpha falls; take drop_last = True or another batch_size"
            )
    if schedule is not None and config.enabled and _curved(config) and config.on_still == OnStill.DIVIDE and schedule(0) == 0:
        found.append(
            "the schedule begins at 0: that step moves nothing, and on_still = divide then divides by eps, so that alpha falls "
            "to nothing and stays there; take on_still = release, or begin above 0"
        )
    return found


def _curved(config: ThrottleConfig | Law) -> bool:
    """Whether the law goes by curvature; the norm of the gradient, and its ratio to that of the weights, know no noise."""
    return isinstance(config, Law) or Source(config.source).is_curvature


def _wraps(config: ThrottleConfig | Law, precision: PrecisionDict | None) -> Iterator[str]:
    """Formats that wrap because their text said nothing else."""
    named: dict[str, Fixed | None] = {}
    if isinstance(config, ThrottleConfig):
        named = {name: getattr(config.grids, name) for name in ("gradient", "weight", "update")}
        named |= {"direction": config.grids.direction} if config.direction is not None else {}
    if precision is not None:
        for layer in precision.to_table():
            named |= {f"{layer}.{field}": precision.dtype(layer, field) for field in precision.to_table()[layer]}
    for name, fmt in named.items():
        if fmt is not None and fmt.implied and fmt.overflow is Overflow.WRAP:
            bits = f"{fmt.width},{fmt.integer_bits}"
            yield (
                f"{name} = ap_fixed<{bits}> wraps: what is beyond its rails comes back with the other sign, since HLS text "
                f"without an overflow mode means that; write {fmt.name} or ap_fixed<{bits},AP_RND_CONV,AP_SAT> to saturate, or "
                "AP_WRAP if it is meant to"
            )


def coarsest(config: ThrottleConfig) -> Grids:
    """The grids of a unit's elements, with segments the coarsest there are: what is swallowed is swallowed there first."""
    return config.grids_at(min((segment.scale for segment in config.segments), default=0))


def _grids(config: ThrottleConfig) -> Iterator[str]:
    """Steps and updates that their grids hardly hold."""
    grids, eta = coarsest(config), float(config.eta)
    bits = config.initial_step.bit_length()
    if bits < STEP_BITS:
        yield (
            f"eta = {eta:g} has {bits} significant bits on the step grid {config.step.name}: its rounding alone bends each step "
            f"by up to {50 / max(config.initial_step, 1):.2g} %; take a larger step_bits, or a smaller eta_max"
        )
    if config.stochastic or config.residual_bits:
        return
    least = max(float(grids.weight.ulp), float(grids.update.ulp)) / 2 / eta
    rail = max(map(abs, grids.direction.rails)) * float(grids.direction.ulp)
    if least >= SWALLOWED * rail:
        yield (
            f"weight = {grids.weight.name} swallows updates: at eta = {eta:g} no element of the gradient below {least:.2g} moves "
            f"a weight; take more fraction bits of weight and update, residual_bits = 4, or an update that rounds stochastically"
        )


def _chi(config: ThrottleConfig, *, minibatch: bool) -> Iterator[str]:
    """A chi under which rounding hides the curvature, by ``kappa-rtl train curvature --full``; docs/rules.md has the table."""
    bits, source, kept = coarsest(config).weight.fraction_bits, Source(config.source), config.residual_bits
    bounds_curvature = float(config.bias) <= 1e-6 and config.gain and not config.growth and source.is_curvature
    if not (config.enabled and bounds_curvature and NARROWEST <= bits <= NARROW):
        return
    chi = float(config.num) * float(config.eta) / float(config.gain)
    random = config.stochastic and config.grids.update.fraction_bits <= bits  # a finer update is rounded to nearest afterwards
    tight = bits == NARROWEST and kept < 8
    way, most = "", 1.5
    if not (random or kept):
        way = "" if bits == NARROWEST else "weights that are rounded to nearest"
    elif not config.intended:
        way, most = "the applied motion, which is mostly rounding there", 0.3 if tight else 0.6
    elif tight:
        way, most = ("a projection", 1.0) if source.is_projection else ("the intended motion", 1.5)
    if not way or chi <= most * (1 + 1e-9):  # chi is a quotient
        return
    remedy = "motion = intended" if not config.intended and (random or kept) else ""
    smaller = "" if remedy and (minibatch or kept == 8) else f"chi of at most {most:g}"  # noise asks for a larger one
    yield (
        f"chi = {chi:g} is too large for {way}, on weights of {bits} fraction bits: C comes out too small, and the run is let go "
        f"too far; take {' or '.join(filter(None, (remedy, smaller)))}"
    )


def _memory(config: ThrottleConfig) -> Iterator[str]:
    """An average that never forgets, as what it keeps in a step rounds to all of it."""
    averages = Source(config.source).is_curvature and Source(config.source).x in (Source.EMA, Source.MAX)
    if config.enabled and averages and config.constants["keep"] == config.scalar.one:
        yield (
            f"rho = {float(config.rho):g} is lost: 1 - rho is 1 in scalars of {config.mantissa_bits} bits, so that the average "
            "of C never forgets, after a still step either; take a larger rho, or more mantissa_bits"
        )


def _noise(config: ThrottleConfig | Law) -> Iterator[str]:
    """Laws that minibatch noise turns into a standstill.

    Put ``C = sqrt(2) / (alpha * eta)`` into the law: where x is C or the larger of C and S, a step multiplies alpha by
    ``num * eta / (gain * sqrt(2))``; where x is S, no alpha above 0 is left unless ``gain < eta / sqrt(2)``. Noise alone makes
    ``C = 1 / (alpha * eta)`` of a projection: 1 stands then where the root of 2 stands.
    """
    projects = isinstance(config, ThrottleConfig) and Source(config.source).is_projection
    noise, shown = (1.0, "1") if projects else (math.sqrt(2), "sqrt(2)")
    remedy = "larger batches" if projects else "the estimator same_batch"
    if isinstance(config, Law):
        name, eta = config.controller, config.eta
        averaged, ratio, gain = name == "inverse_curvature", config.chi, config.beta
    else:
        name, eta, gain = str(config.to_table().get("law", "")), float(config.eta), float(config.gain)
        averaged = Source(config.source).x is Source.EMA
        ratio = float(config.num) * eta / gain if gain else math.inf
    frozen = f"where minibatch noise dominates, each step multiplies alpha by {ratio / noise:.3g} and the run freezes"
    if averaged and gain >= eta / noise:
        word = "beta" if name == "inverse_curvature" else "gain"
        yield (
            f"{word} = {gain:g} is not less than eta / {shown} = {eta / noise:.3g}: where minibatch noise dominates, "
            f"alpha falls to alpha_min; take a smaller {word} or {remedy}"
        )
    elif not averaged and ratio < noise:
        if name == "stability_margin":
            yield f"chi = {ratio:g} is less than {shown}: {frozen}; take chi of at least {1 if projects else 1.5} or {remedy}"
        elif name == "adgd":
            yield f"adgd is made for whole gradients: {frozen}; take {remedy}, or all rows in a batch"
        else:
            yield f"num * eta / gain = {ratio:g} is less than {shown}: {frozen}; take a larger num or {remedy}"


def idle_biases(layers: Sequence[Layer]) -> list[str]:
    """Biases that a batch normalisation behind them takes away again: their gradient is what rounding leaves of a zero.

    On a grid that is noise beside which the format has to hold real gradients, and it counts as a change of the gradient.
    """
    return [
        f"{first.name}/bias stands in front of {second.name}, which takes it away: its gradient is noise; take use_bias = False"
        for first, second in itertools.pairwise(layers)
        if "bias" in first.params and isinstance(second, BatchNorm)
    ]
