"""Where the compiled engine has to equal numpy: configurations of each kind, hard vectors, and the comparison.

A kind fixes what a loop is compiled for, so that its many configurations cost one compilation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed, Overflow, Rounding
from kappa_rtl.golden.kernels import STRETCH
from kappa_rtl.golden.shard import Shard
from support.strategies import ROUNDINGS

CLIPS = [(one, other) for one in list(Overflow)[:2] for other in list(Overflow)[:2]]
FOLDS = [(one, other) for one in Overflow for other in Overflow if (one, other) not in CLIPS]
SIZES = [1, 2, 3, 7, 40, 40, 40, 40, STRETCH - 1, STRETCH, STRETCH + 1, 2 * STRETCH + 77]
INT8, INT16, INT32 = (4, 8), (9, 16), (17, 32)


class Kind(NamedTuple):
    """Widths of gradient, update and weight, of a direction of its own, and what else is fixed."""

    gradient: tuple[int, int]
    update: tuple[int, int]
    weight: tuple[int, int]
    overflows: list[tuple[Overflow, Overflow]] = CLIPS
    step_bits: tuple[int, int] = (10, 24)
    stochastic: bool = False
    direction: tuple[int, int] | None = None
    residual: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


FLOOR = MappingProxyType({"watchdog": ("gradient_floor",), "gradient_floor": 1, "every_rail": True})

KINDS = {
    "plain": Kind(INT16, INT16, INT16),
    "folds": Kind(INT16, INT16, INT16, FOLDS),
    "kept": Kind(INT16, INT16, INT16, FOLDS, residual=True, stochastic=True, options=FLOOR | {"motion": "intended"}),
    "wide": Kind(INT32, INT32, INT32, step_bits=(2, 24)),
    "wide_kept": Kind(
        INT32, INT32, INT32, FOLDS, (2, 24), residual=True, stochastic=True, options=FLOOR | {"source": "projection"}
    ),
    "ratio": Kind(INT16, INT16, INT16, options={"source": "ratio"}),
}
"""Few kinds that reach every line of the loops."""

MORE = {
    "bytes": Kind(INT8, INT8, INT8, FOLDS),
    "bytes_kept": Kind(INT8, INT8, INT8, residual=True),
    "bytes_drawn": Kind(INT16, INT8, INT8, stochastic=True),
    "residual": Kind(INT16, INT16, INT16, residual=True),
    "drawn": Kind(INT16, INT16, INT16, stochastic=True),
    "rails": Kind(INT16, INT16, INT16, options={"every_rail": True}),
    "master": Kind(INT16, INT16, INT32),
    "fine": Kind(INT16, INT32, INT16, FOLDS, residual=True),
    "norm": Kind(INT32, INT16, INT16, options={"source": "norm"}),
    "projection": Kind(INT16, INT16, INT16, options={"source": "projection_ema"}),
    "intended": Kind(INT32, INT32, INT16, FOLDS, options={"motion": "intended", "source": "instant"}),
    "wide_ratio": Kind(INT32, INT32, INT32, FOLDS, (2, 24), residual=True, options={"source": "ratio"}),
    "floor": Kind(INT32, INT8, INT16, options=FLOOR | {"source": "ema"}),
    "own": Kind(INT16, INT16, INT16, direction=INT8),
    "own_wide": Kind(INT8, INT16, INT16, FOLDS, direction=INT32, options={"every_rail": True}),
    "own_intended": Kind(INT8, INT16, INT16, direction=INT16, residual=True, options={"motion": "intended"}),
}
"""Others, each of which is compiled anew."""


def configurations(kind: Kind, seed: int, count: int) -> Iterator[ThrottleConfig]:
    """Valid configurations of a kind, whose updates neither all vanish nor all saturate, mostly."""
    random = np.random.default_rng(seed)
    while count:
        try:
            yield _configuration(kind, random)
        except ValueError:  # wider than a word, or a norm beyond the scalars
            continue
        count -= 1


def _configuration(kind: Kind, random: np.random.Generator) -> ThrottleConfig:
    def between(low: int, high: int) -> int:
        return int(random.integers(low, high + 1))

    widths = {name: between(*bounds) for name, bounds in kind._asdict().items() if name in ("gradient", "update", "weight")}
    along = between(*kind.direction) if kind.direction else widths["gradient"]
    step_bits, octave, fraction = between(*kind.step_bits), between(-12, 6), between(-9, 41)
    eta = Fraction(between(1 << 12, (1 << 13) - 1), 1 << 12) * Fraction(2) ** octave
    shift = max(-4, along + step_bits - widths["update"] + between(-6, 5))
    places = {"gradient": fraction, "update": fraction + step_bits - octave - 1 - shift}
    places["weight"] = places["update"] + between(-6, 6)
    first, second = (ROUNDINGS[between(0, len(ROUNDINGS) - 1)] for _ in range(2))
    if kind.stochastic:
        first = Rounding.STOCHASTIC
    overflows = kind.overflows[between(0, len(kind.overflows) - 1)]
    modes = {"gradient": (second, overflows[1]), "update": (first, overflows[0]), "weight": (second, overflows[1])}
    formats = {name: Fixed(True, width - places[name], places[name], *modes[name]) for name, width in widths.items()}
    options = dict(kind.options) | ({"residual_bits": between(2, 8)} if kind.residual else {})
    if "gradient_floor" in options:
        options["gradient_floor"] = Fraction(3) / Fraction(2) ** fraction
    if kind.direction:
        options["direction"] = Fixed(True, along - fraction, fraction)
    if "motion" not in options and not str(options.get("source", "")).startswith("projection"):
        options["motion"] = "applied"
    return ThrottleConfig(
        elements=SIZES[between(0, len(SIZES) - 1)],
        eta=eta,
        step_bits=step_bits,
        lanes=between(1, 7),
        random_bits=between(1, 16),
        seed=between(0, 99),
        **formats,
        **options,
    )


def vector(random: np.random.Generator, fmt: Fixed, elements: int) -> NDArray[Any]:
    """Codes of a word: rails and what is near, few significant bits, zeros, small ones and any."""
    low, high = -(1 << fmt.width - 1), (1 << fmt.width - 1) - 1
    near = min(fmt.near_rail, high)
    corners = np.array([0, 0, 1, -1, low, low, low + 1, low + 2, high, high - 1, near, near - 1, -near, 1 - near])
    few = (2 * random.integers(0, 8, elements) + 1 << random.integers(0, fmt.width, elements)) * random.choice([1, -1], elements)
    small = random.integers(-9, 10, elements)
    made = [random.choice(corners, elements), few, small, random.integers(low, high + 1, elements)]
    choice = random.integers(0, 4, elements) if random.integers(0, 4) else np.full(elements, random.integers(0, 4))
    dtype = f"int{next(bits for bits in (8, 16, 32) if fmt.width <= bits)}"
    return np.clip(np.choose(choice, made), low, high).astype(dtype)


def difference(config: ThrottleConfig, make: Any, seed: int, steps: int = 4) -> str | None:
    """What differs first between numpy's shard and the one that ``make`` makes, over some steps; None if nothing does."""
    random, grids = np.random.default_rng(seed), config.grids
    theta = vector(random, grids.weight, config.elements)
    one, other = Shard(config, theta.copy()), make(config, theta.copy())
    rail = config.step.rails[1]
    for count in range(steps):
        gradient = vector(random, grids.gradient, config.elements)
        seen, again = one.absorb(gradient), other.absorb(gradient)
        if seen != again:
            return f"absorb {count}: {seen} and {again}"
        along = gradient if config.direction is None else vector(random, grids.direction, config.elements)
        step = int(random.choice([0, 1, rail, rail, config.initial_step, int(random.integers(0, rail + 1))]))
        (update, tally), (y, found) = one.apply(along, step), other.apply(along, step)
        if tally != found:
            return f"apply {count}: {tally} and {found}"
        if update.dtype != y.dtype or not np.array_equal(update, y) or y.flags.writeable or other.theta.flags.writeable:
            return f"apply {count}: updates"
        if (name := unlike(one.state_dict(), other.state_dict())) is not None:
            return f"apply {count}: {name}"
    return None


def unlike(one: Any, other: Any, name: str = "state") -> str | None:
    """The name of what differs first in two states; None if nothing does."""
    if isinstance(one, dict):
        if not isinstance(other, dict) or list(one) != list(other):
            return name
        return next((found for key in one if (found := unlike(one[key], other[key], key)) is not None), None)
    if isinstance(one, np.ndarray):
        same = isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
        return None if same else name
    return None if one == other and type(one) is type(other) else name
