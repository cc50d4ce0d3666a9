"""The designed set: what is synthesised so that costs can be fitted to it, and what is kept apart to see how far the fit is off.

Parts of the unit are cheap to synthesise, so there are many of them: the scalar part, a lane of the update and a lane of the sum
of squares, each of configurations drawn at random. Whole units are drawn from the same configurations, and besides there is the
default one with every option by itself, and units with segments. Every sample has a generator of its own, so a longer set begins
with the shorter one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.lib import wiring

from ...golden.config import LIMITS, ThrottleConfig
from ...golden.formats import Fixed, Overflow, Rounding
from ...golden.registers import WATCHES
from ..lanes.norm import SumOfSquares
from ..lanes.update import Update
from ..scalar.decide import Decide
from ..units.core import StreamingThrottle
from ..units.onepass import OnePass, StreamingOnePass
from ..units.throttle import Throttle
from .targets import TARGETS

__all__ = ["PARTS", "RANDOM", "Sample", "alone", "designed", "drawn", "segmented", "squarer_of", "unit_of"]

RANDOM = {"fit": {"update": 100, "squares": 24, "scalar": 41, "unit": 34}, "unseen": {"unit": 24}}
"""How many configurations are drawn at random, by what they are for and by part."""

MORE = {
    "ecp5": {"fit": {"update": 220, "unit": 100}, "unseen": {"unit": 54}},
    "xilinx": {"fit": {"unit": 50}},
}
"""Where more are drawn, by target."""

MOST_PARTIAL = 2500
"""Units whose multipliers form more products of single bits are left out where look-up tables form them: those take above 10,000,
and the largest of such chips has 9,400."""

WITH_SEGMENTS = 6
"""How many units with segments are drawn at random, none of which is fitted."""

TOO_LARGE = ("fit, unit 31",)
"""Left out: 32 lanes with three wide multipliers each, on which the Yosys of PyPI, 32-bit WebAssembly, breaks down."""

BASE: dict[str, Any] = {"elements": 640, "eta": 0.1, "lanes": 2}
"""The unit that each option of :func:`alone` is added to."""

SMALL: dict[str, Any] = {"elements": 64, "lanes": 1, "mantissa_bits": 8, "exponent_bits": 8, "step_bits": 7, "eps": 0.001}
CORNERS: tuple[dict[str, Any], ...] = (
    {"gradient": "SQ4.15", "delay": 1, "source": "norm"},
    {"gradient": "SQ4.15", "watchdog": ("gradient_floor",), "gradient_floor": 1},
    {"gradient": "SQ4.15", "delay": 1, "motion": "intended"},
    {"gradient": "SQ4.15", "delay": 1, "source": "ratio", "weight": "SQ2.17"},
)
"""A small unit in which squares are of what nothing is subtracted from, a bit wider than a multiplier's block."""

SEGMENTED: tuple[dict[str, Any], ...] = (
    {"entries": 16, "motion": "applied"},
    {"entries": 1, "motion": "applied", "lanes": 1, "scale_max": 0},
    {"entries": 4, "lanes": 8, "scale_max": 3, "capacity": 4096},
    {"entries": 32, "motion": "applied", "lanes": 16},
    {"entries": 8, "lanes": 4, "scale_max": 1, "direction": "SQ4.12"},
    {"entries": 16, "motion": "applied", "lanes": 1, "direction": "SQ4.12"},
    {"entries": 2, "lanes": 3, "scale_max": 5, "residual_bits": 4, "update": "SQ1.15,stochastic"},
    {"entries": 6, "elements": 24, "scale_max": 2, "watchdog": ("gradient_floor",), "gradient_floor": 0.0625},
    {"entries": 12, "lanes": 5, "source": "projection"},
    {"entries": 24, "motion": "applied", "lanes": 12, "scale_max": 4, "direction": "SQ4.12", "source": "ratio"},
)
"""Units with segments that are fitted: what the default one has beside them."""


def unit_of(config: ThrottleConfig) -> Throttle | StreamingThrottle:
    """The unit that is estimated: with its gradient memory where it can have one, in one pass with ``delay``."""
    if config.direction is not None:
        return StreamingOnePass(config) if config.delay else StreamingThrottle(config)
    return OnePass(config) if config.delay else Throttle(config)


def squarer_of(config: ThrottleConfig) -> SumOfSquares:
    """The sum of squares that serves the gradients of a unit: in two passes it serves the weights or the direction too."""
    core = unit_of(config)
    return core.sum if isinstance(core, StreamingThrottle) else core.core.sum


PARTS: Mapping[str, Callable[[ThrottleConfig], wiring.Component]] = {
    "unit": unit_of,
    "scalar": Decide,
    "update": lambda config: Update(config, joins=not config.delay),
    "squares": squarer_of,
}
"""What is synthesised of a configuration; the lanes' parts of one with a single lane."""


@dataclass(frozen=True)
class Sample:
    """One synthesis: the ``part`` of :data:`PARTS`, what it is for, ``fit`` or ``unseen``, and the configuration."""

    name: str
    purpose: str
    part: str
    config: ThrottleConfig

    def component(self) -> wiring.Component:
        return PARTS[self.part](self.config)


def drawn(seed: str, lanes: int | None = None) -> ThrottleConfig:
    """A configuration at random: widths from 4 to 32, M from 8 to 32, lanes from 1 to 32 if not given, every option at times."""
    generator = random.Random(seed)
    while True:
        try:
            return ThrottleConfig(**_fields(generator, lanes))
        except ValueError:  # these fields do not go together
            continue


def _fields(generator: random.Random, lanes: int | None) -> dict[str, Any]:
    def sometimes(chance: float) -> bool:
        return generator.random() < chance

    def modes(roundings: Sequence[Rounding], modified: float) -> tuple[Rounding, Overflow]:
        rounding = generator.choice(roundings) if sometimes(modified) else Rounding.NEAREST_EVEN
        return rounding, generator.choice(list(Overflow)) if sometimes(0.35) else Overflow.SATURATE

    def grid(width: int, integer: int, modes: tuple[Rounding, Overflow] = (Rounding.NEAREST_EVEN, Overflow.SATURATE)) -> Fixed:
        width = min(32, max(4, width))
        return Fixed(True, integer, width - integer, *modes)

    deterministic = [mode for mode in Rounding if mode is not Rounding.STOCHASTIC]
    width = generator.choice([generator.randint(4, 32), generator.randint(6, 18)])  # the usual ones twice as often
    elements = round(2 ** generator.uniform(4, 13))
    weight = grid(width, generator.randint(1, 3), modes(deterministic, 0.35))
    roundings = [*deterministic, *[Rounding.STOCHASTIC] * 3]
    update = grid(width + generator.randint(-3, 6), generator.randint(-2, 1), modes(roundings, 0.6))
    fields: dict[str, Any] = {
        "elements": elements,
        "eta": generator.choice([0.01, 0.1, 0.1, 0.5, 1]),
        "eps": 0.001,
        "lanes": lanes or min(elements, generator.choice([1, 1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 8, 8, 12, 16, 32])),
        "gradient": grid(width + generator.randint(-4, 6), generator.randint(-1, 5)),
        "weight": weight,
        "update": update,
        "mantissa_bits": 24 if sometimes(0.25) else generator.randint(8, 32),
        "exponent_bits": 10 if sometimes(0.5) else generator.randint(8, 14),
        "step_bits": 17 if sometimes(0.5) else generator.randint(6, 24),
        "source": generator.choice(["max"] * 4 + ["projection"] * 2 + ["norm", "ratio"]),
        "growth": sometimes(0.2),
        "residual_bits": generator.randint(2, 8) if sometimes(0.25) else 0,
        "random_bits": generator.choice([16, 16, 8, 4]),
        "every_rail": sometimes(0.2),
        "parity": sometimes(0.15),
        "delay": int(sometimes(0.2)),
        "watchdog": tuple(name for name in WATCHES if sometimes(0.15)),
        "gradient_floor": 0.0625,
    }
    if sometimes(0.15):
        fields["direction"] = grid(width + generator.randint(-4, 6), generator.randint(-1, 5))
    if sometimes(0.3) and fields["source"] == "max":
        fields["motion"] = "intended"
    if sometimes(0.15):
        fields["population"] = elements * generator.randint(2, 8)
        if sometimes(0.3):
            fields["weight_grid"] = Fixed(True, weight.integer_bits, weight.fraction_bits + 2)
    return fields


def alone() -> Iterator[ThrottleConfig]:
    """The default unit with one thing changed at a time: its lanes, its widths, the width of the scalars, each option."""
    changed: Sequence[dict[str, Any]] = (
        {},
        *({"lanes": lanes} for lanes in (1, 4, 7, 8, 16)),
        *({"gradient": f"SQ4.{n - 4}", "weight": f"SQ2.{n - 2}", "update": f"SQ1.{n - 1}"} for n in (6, 8, 12, 18, 24, 32)),
        *({"mantissa_bits": bits} for bits in (8, 16, 32)),
        {"elements": 4096},
        {"elements": 24},
        *({"source": source} for source in ("projection", "norm", "ratio")),
        {"motion": "intended"},
        {"growth": True},
        {"delay": 1},
        {"delay": 1, "motion": "intended"},
        {"direction": "SQ4.12"},
        {"population": 1280},
        {"residual_bits": 4},
        {"every_rail": True},
        {"parity": True},
        *({"watchdog": (name,), "gradient_floor": 0.0625} for name in WATCHES),
        {"update": "SQ1.15,stochastic", "motion": "applied"},
        {"update": "SQ1.17"},
    )
    many = ({"lanes": 32}, {"lanes": 32, "gradient": "SQ2.6", "weight": "SQ2.8", "update": "SQ1.9"})
    for changes in [*changed, *({**SMALL, **corner} for corner in CORNERS), *many]:
        yield ThrottleConfig(**BASE | changes)


def segmented(elements: int, entries: int, scale_max: int = LIMITS["scale_max"][1], **fields: Any) -> ThrottleConfig:
    """A configuration with up to three segments in a table of so many entries."""
    sizes = [elements] if min(entries, elements) < 3 else [elements - 2 * (elements // 3), *[elements // 3] * 2]
    layout: Any = [{"elements": size, "scale": min(place, scale_max)} for place, size in enumerate(sizes)]
    return ThrottleConfig(elements=elements, segments=layout, entries=entries, scale_max=scale_max, **fields)


def drawn_with_segments(seed: str, streams: bool) -> ThrottleConfig:
    """As :func:`drawn`, up to 16 lanes, with a table of 1 to 32 entries and room for up to twice the elements.

    Args:
        streams: whether directions come as a stream, so that there is no gradient memory.
    """
    generator = random.Random(seed)
    while True:
        fields = _fields(generator, generator.choice([1, 2, 4, 8, 16]))
        for name in ("delay", "parity", "population", "weight_grid"):  # what there is not with segments
            fields.pop(name, None)
        if ("direction" in fields) != streams:
            continue
        elements = fields["elements"]
        fields |= {"entries": generator.randint(1, 32), "scale_max": generator.randint(*LIMITS["scale_max"])}
        try:
            return segmented(**fields, capacity=generator.randint(elements, 2 * elements))
        except ValueError:
            continue


def designed(purpose: str | None = None, target: str = "ecp5") -> list[Sample]:
    """The whole set for a target, or that of one purpose; parts first, then units."""
    made = []
    for kind, counts in RANDOM.items():
        for part, count in (counts | MORE.get(target, {}).get(kind, {})).items():
            lanes = None if part == "unit" else 1
            if (kind, part) == ("fit", "unit"):
                made += [Sample(f"fit, option {i}", "fit", "unit", config) for i, config in enumerate(alone())]
            for i in range(count):
                name = f"{kind}, {part} {i}"
                made.append(Sample(name, kind, part, drawn(name, lanes)))
    made += [Sample(f"fit, segments {i}", "fit", "unit", segmented(**BASE | own)) for i, own in enumerate(SEGMENTED)]
    for i in range(WITH_SEGMENTS):
        name = f"unseen, segments {i}"
        made.append(Sample(name, "unseen", "unit", drawn_with_segments(name, streams=bool(i % 2))))
    most = MOST_PARTIAL if not TARGETS[target].dsp else math.inf
    return [
        sample
        for sample in made
        if purpose in (None, sample.purpose) and sample.name not in TOO_LARGE and _partial(sample.config) <= most
    ]


def _partial(config: ThrottleConfig) -> int:
    """Products of single bits that the multipliers of all lanes form."""
    gradient, _, _, step, direction = config.grids
    return config.lanes * (direction.width * (step.width + 1) + (gradient.width + 1) ** 2)
