"""What bends an update on its way into the weights, cause by cause.

The change that a unit applies differs from the intended one, ``-rate * direction``, for six causes. :func:`replay` computes
the change with any set of them switched on; with all of them it is the unit's own, bit for bit. :func:`budget` charges each
cause with what it does alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..config import ThrottleConfig
from ..formats import Fixed, Overflow, Rounding
from ..network.quantisers import Segment
from ..rounding import fit, shift_round

Floats = NDArray[np.float64]
Pair = tuple[Floats, Floats]
"""An exact sum ``high + low``, high being that sum rounded to a float64: 106 bits, where a product may need 56."""

CAUSES = (
    "gradient_grid",
    "alpha_error",
    "update_rounding",
    "update_saturation",
    "weight_rounding",
    "weight_saturation",
)
"""The causes, in the order in which an update meets them."""

MAX_WIDTH = 53
"""The widest format: a float64 holds no wider code."""

_QUIET = partial(np.errstate, over="ignore", under="ignore", invalid="ignore")  # numbers near the end of float64

_BEYOND = 2.0**60
"""In ulps: larger than any rail, and four times it still has two bits to spare in an int64."""


class Distortion(NamedTuple):
    """How an applied change differs from the intended one."""

    angle: float  #: radians, 0..pi
    cosine: float
    radius_ratio: float


def distortion(applied: Floats, intended: Floats) -> Distortion:
    """Angle, cosine and ratio of the norms of two vectors of equal length."""
    a, b = float(np.linalg.norm(applied)), float(np.linalg.norm(intended))
    if a == 0 or b == 0:
        return Distortion(math.pi / 2, 0.0, 1.0 if a == b else a / b if b else math.inf)
    u, v = applied / a, intended / b
    # Half the angle as an arctangent: the arccosine of a rounded cosine sees no angle below 1e-8.
    angle = 2 * math.atan2(float(np.linalg.norm(u - v)), float(np.linalg.norm(u + v)))
    return Distortion(angle, math.cos(angle), a / b)


def segments_of(config: ThrottleConfig) -> tuple[Segment, ...]:
    """The formats of a unit's elements: one stretch, or each of its segments."""
    if not config.segments:
        return (Segment(config.elements, config.grids.update, config.grids.weight),)
    grids = [(one.elements, config.grids_at(one.scale)) for one in config.segments]
    return tuple(Segment(elements, own.update, own.weight) for elements, own in grids)


def replay(
    theta: ArrayLike,
    direction_exact: ArrayLike,
    direction_seen: ArrayLike,
    rate_exact: float,
    rate_applied: float,
    segments: Sequence[Segment],
    causes: Iterable[str] = CAUSES,
) -> Floats:
    """The change (P,) that a step makes to the weights when only ``causes`` are at work.

    Without any it is ``-rate_exact * direction_exact``, rounded as one float64 product: the change itself, free of the roundoff
    of a sum with theta. Each cause switches on one thing, in this order:

    * gradient_grid: ``direction_seen`` takes the place of ``direction_exact``;
    * alpha_error: ``rate_applied`` takes the place of ``rate_exact``;
    * update_rounding, update_saturation: the product enters the update format;
    * weight_rounding, weight_saturation: theta plus the product enters the weight format.

    Rounding alone knows no rails: it goes on to the next grid point beyond them. The rails alone leave a value between
    grid points where it is, unless rounding would put it beyond them, which is when the unit counts it; then it goes where the
    unit would put it. So nothing that a rounding alone explains is blamed on a rail. Products and sums are exact until they
    meet a grid: dyadic data of up to a hundred bits give exact results.

    Args:
        theta: (P,) the weights before the step.
        direction_exact, direction_seen: (P,) what the step ought to descend along, and what the unit was given.
        rate_exact, rate_applied: alpha * eta as intended, and as multiplied by (a unit's step size times its ulp).
        segments: the formats; their sizes add up to P.

    Raises:
        ValueError: unknown causes, sizes that do not fit, values that are not finite, a format that is stochastic or too wide.
    """
    wanted = _causes(causes)
    vectors = _vectors(theta, direction_exact, direction_seen, rate_exact, rate_applied, segments)
    for name, vector in (*vectors.items(), ("rate_exact", np.array(rate_exact)), ("rate_applied", np.array(rate_applied))):
        if not np.isfinite(vector).all():
            raise ValueError(f"{name} must be finite, not {vector[~np.isfinite(vector)][0]}")
    with _QUIET():
        return _replay(vectors, rate_exact, rate_applied, segments, wanted)


def budget(
    theta: ArrayLike,
    direction_exact: ArrayLike,
    direction_seen: ArrayLike,
    rate_exact: float,
    rate_applied: float,
    segments: Sequence[Segment],
) -> dict[str, dict[str, float]]:
    """How much of a step's distortion each cause makes; the arguments are those of :func:`replay`.

    Returns:
        ``angle``, the radians between the applied and the intended change, and ``radius``, ``||applied|| / ||intended|| - 1``;
        each with the part of every one of :data:`CAUSES` alone, ``whole``, all of them at work, and ``residual``, whole less
        the sum of the parts: what the causes do to one another (angles also never cancel). The numbers add up to half an ulp
        of the residual. Two zero vectors have no angle and no radius error, a zero vector and another an angle of pi/2; what
        appears where nothing was intended has an infinite radius error, and the residual is then NaN. Every number is NaN if
        one of the arguments is not finite: a diverged run has no budget.

    Raises:
        ValueError: as :func:`replay`, but for values that are not finite.
    """
    vectors = _vectors(theta, direction_exact, direction_seen, rate_exact, rate_applied, segments)
    finite = math.isfinite(rate_exact) and math.isfinite(rate_applied) and all(np.isfinite(v).all() for v in vectors.values())

    def change(*causes: str) -> Floats:
        return _replay(vectors, rate_exact, rate_applied, segments, frozenset(causes))

    sets = {cause: (cause,) for cause in CAUSES} | {"whole": CAUSES}
    pairs = dict.fromkeys(sets, (math.nan, math.nan))
    if finite:
        with _QUIET():
            intended = change()
            pairs = {name: _errors(change(*causes), intended) for name, causes in sets.items()}
    made: dict[str, dict[str, float]] = {}
    for index, name in enumerate(("angle", "radius")):
        parts = {cause: pair[index] for cause, pair in pairs.items()}
        sound = all(math.isfinite(part) for part in parts.values())
        rest = math.fsum([parts["whole"], *(-parts[cause] for cause in CAUSES)]) if sound else math.nan
        made[name] = parts | {"residual": rest}
    return made


# ---------------------------------------------------------------- one step


def _replay(
    vectors: dict[str, Floats], rate_exact: float, rate_applied: float, segments: Sequence[Segment], causes: frozenset[str]
) -> Floats:
    theta = vectors["theta"]
    direction = vectors["direction_seen" if "gradient_grid" in causes else "direction_exact"]
    rate = rate_applied if "alpha_error" in causes else rate_exact
    change = np.empty_like(theta)
    start = 0
    for segment in segments:
        part = slice(start, start + segment.size)
        start += segment.size
        update, _ = _enter(
            _product(-float(rate), direction[part]),
            segment.update, rounded="update_rounding" in causes, railed="update_saturation" in causes,
        )  # fmt: skip
        moved, untouched = _enter(
            _sum(theta[part], update),
            segment.weight, rounded="weight_rounding" in causes, railed="weight_saturation" in causes,
        )  # fmt: skip
        # Where the weight format does nothing, the update itself and not what is left of it after a sum with theta.
        change[part] = np.where(untouched, update[0], _sum(-theta[part], moved)[0])
    return change


def _enter(x: Pair, fmt: Fixed | None, *, rounded: bool, railed: bool) -> tuple[Pair, NDArray[np.bool_]]:
    """``x`` rounded onto the grid of a format, brought within its rails, or both; and where it was left as it is."""
    if fmt is None or not (rounded or railed):
        return x, np.ones(x[0].shape, np.bool_)
    high, low = (np.ldexp(part, fmt.fraction_bits) for part in x)
    # Too small to scale is still not zero, and a floor must see its sign.
    high = np.where((high == 0) & (x[0] != 0), np.copysign(0.25, x[0]), high)
    huge = np.abs(high) >= _BEYOND
    if huge.any():  # as if on the grid
        stand_in = _reduced(x, fmt) if fmt.overflow is Overflow.WRAP else (np.copysign(_BEYOND, high), np.zeros_like(low))
        high, low = np.where(huge, stand_in[0], high), np.where(huge, stand_in[1], low)
    codes = _nearest(high, low, fmt.rounding)
    fitted = np.asarray(fit(codes, fmt) if railed else codes, np.int64)
    untouched = np.where(huge, not railed, (not rounded) & (fitted == codes))
    # An int64 as a pair: the float64 nearest to it and what is missing.
    nearest = fitted.astype(np.float64)
    grid = nearest, (fitted - nearest.astype(np.int64)).astype(np.float64)
    entered = [np.where(untouched, old, np.ldexp(new, -fmt.fraction_bits)) for old, new in zip(x, grid, strict=True)]
    return (entered[0], entered[1]), untouched


def _nearest(high: Floats, low: Floats, rounding: Rounding) -> NDArray[np.int64]:
    """``high + low``, of magnitude up to ``_BEYOND``, rounded to integers."""
    # low is too small to carry high over an integer or a half, unless high is one of them already.
    integral = np.floor(high) == high
    part, rest = np.where(integral, low, high), np.where(integral, 0.0, low)
    whole = np.floor(high).astype(np.int64) + np.where(integral, np.floor(low), 0.0).astype(np.int64)
    past = part - np.trunc(part)  # exact, which part - floor(part) is not
    half = np.where(past < 0, -0.5, 0.5)
    side = np.where(past == half, np.sign(rest), np.sign(past - half)).astype(np.int64)
    # All that a rounding must know of the fraction, in two bits: none, below a half, a half, above it.
    quarters = np.where(past == 0, 0, 2 + side)
    return np.asarray(shift_round(4 * whole + quarters, 2, rounding), np.int64)


def _reduced(x: Pair, fmt: Fixed) -> Pair:
    """A value in ulps, of the same sign, that wraps like ``x``."""
    modulus = np.ldexp(1.0, fmt.integer_bits)
    high, low = (np.fmod(part, modulus) for part in x)
    total = _sum(high + np.copysign(modulus, x[0]), (low, np.zeros_like(low)))
    return np.ldexp(total[0], fmt.fraction_bits), np.ldexp(total[1], fmt.fraction_bits)


# ---------------------------------------------------------------- exact arithmetic on pairs


def _product(a: float, b: Floats) -> Pair:
    """``a * b`` (Dekker)."""
    high = a * b
    # Too small for a float64 is still not zero, and a floor must see its sign.
    high = np.where((high == 0) & (b != 0) & (a != 0), np.copysign(np.nextafter(0.0, 1.0), a) * np.sign(b), high)
    a1, a2 = _split(np.float64(a))
    b1, b2 = _split(b)
    low = ((a1 * b1 - high) + a1 * b2 + a2 * b1) + a2 * b2
    return high, np.where(np.isfinite(low), low, 0.0)


def _split(x: Floats | np.float64) -> tuple[Floats | np.float64, Floats | np.float64]:
    """Two parts of 26 bits (Veltkamp)."""
    scaled = 134217729.0 * x
    top = scaled - (scaled - x)
    return top, x - top


def _sum(a: Floats, b: Pair) -> Pair:
    """``a + b`` (Knuth), the high part the larger."""
    high, low = _two_sum(a, b[0])
    return _two_sum(high, low + b[1])


def _two_sum(a: Floats, b: Floats) -> Pair:
    total = a + b
    image = total - a
    return total, (a - (total - image)) + (b - image)


# ---------------------------------------------------------------- arguments and errors


def _errors(applied: Floats, intended: Floats) -> tuple[float, float]:
    """Angle and radius error."""
    if not applied.any() and not intended.any():
        return 0.0, 0.0
    bent = distortion(applied, intended)
    return bent.angle, bent.radius_ratio - 1


def _causes(causes: Iterable[str]) -> frozenset[str]:
    wanted = frozenset({causes} if isinstance(causes, str) else causes)
    if unknown := sorted(wanted - set(CAUSES)):
        raise ValueError(f"causes must be among {', '.join(CAUSES)}, not {unknown[0]!r}")
    return wanted


def _vectors(
    theta: ArrayLike,
    direction_exact: ArrayLike,
    direction_seen: ArrayLike,
    rate_exact: float,
    rate_applied: float,
    segments: Sequence[Segment],
) -> dict[str, Floats]:
    """The vectors as float64, the formats and sizes checked."""
    for name, rate in (("rate_exact", rate_exact), ("rate_applied", rate_applied)):
        if np.ndim(rate) != 0:
            raise ValueError(f"{name} must be a number, not {rate!r}")
    for segment in segments:
        for name, fmt in (("update", segment.update), ("weight", segment.weight)):
            if fmt is None:
                continue
            if fmt.rounding is Rounding.STOCHASTIC:
                raise ValueError(f"{name}: rounding must be deterministic, not {fmt.rounding.value!r}")
            if fmt.width > MAX_WIDTH:
                raise ValueError(f"{name} must be at most {MAX_WIDTH} bits wide, not {fmt.width} ({fmt})")
    size = sum(segment.size for segment in segments)
    given = {"theta": theta, "direction_exact": direction_exact, "direction_seen": direction_seen}
    vectors = {name: np.asarray(vector, np.float64) for name, vector in given.items()}
    for name, vector in vectors.items():
        if vector.shape != (size,):
            raise ValueError(f"{name} must have shape ({size},), as the segments add up to, not {vector.shape}")
    return vectors
