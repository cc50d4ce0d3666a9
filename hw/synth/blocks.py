"""What the table of costs lists: each component of a configuration, and the core with every number of lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from amaranth.lib import wiring

from ...golden.config import ThrottleConfig
from ..bus.axi import AxiThrottle
from ..lanes.norm import SumOfSquares
from ..lanes.update import Update
from ..scalar.decide import Decide
from ..scalar.divider import Divider
from ..scalar.sqrt import SquareRoot
from ..scalar.unit import ScalarUnit
from ..units.core import StreamingThrottle
from ..units.engine import ThrottleEngine
from ..units.onepass import OnePass
from ..units.throttle import Throttle

LANES = (1, 2, 4, 8, 16)
WHOLE = 8
"""Lanes of the units around the core."""

ALONG: dict[str, dict[str, Any]] = {
    "intended motion": {"motion": "intended"},
    "projection": {"source": "projection", "motion": None},
}
"""What measures curvature along the intended step."""

ONE_PASS: dict[str, dict[str, Any]] = {"applied motion": {}} | ALONG
"""The same in one pass, and what they are compared with."""


def blocks(
    config: ThrottleConfig, lanes: Sequence[int] = LANES
) -> dict[str, tuple[Callable[[], wiring.Component], Callable[[Any], str]]]:
    """What the table of a configuration lists: how to make each block, and what it says of its own latency."""
    unit = ScalarUnit.for_config(config)
    g = config.grids.gradient

    def cores(streaming: bool) -> dict[str, tuple[Callable[[], wiring.Component], Callable[[Any], str]]]:
        kind: Any = StreamingThrottle if streaming else Throttle
        title = "core, streaming" if streaming else "core"

        def made(n: int) -> Callable[[], wiring.Component]:
            return lambda: kind(config.replace(lanes=n))

        return {f"{title}, {n} lane{'s' * (n > 1)}": (made(n), lambda c: f"2 N/L + {c.overhead}") for n in lanes}

    one, whole = config.replace(lanes=1), config.replace(lanes=WHOLE)
    bits = config.mantissa_bits
    return {
        # At 32 bits too, where most of their peers are.
        **{f"divider, {n} bits": (partial(Divider, n), lambda c: str(c.latency)) for n in dict.fromkeys((bits, 32))},
        **{
            f"square root, {2 * n} -> {n} bits": (partial(SquareRoot, 2 * n, n), lambda c: str(c.latency))
            for n in dict.fromkeys((bits, 32))
        },
        f"square root, {unit.radicand_bits} -> {bits + 1} bits, as used": (
            lambda: SquareRoot(unit.radicand_bits, bits + 1),
            lambda c: str(c.latency),
        ),
        "scalar unit": (lambda: ScalarUnit.for_config(config), lambda c: f"<= {max(c.latency.values())}"),
        "scalar part": (lambda: Decide(config), lambda c: f"<= {c.latency} + {c.prelude}"),
        f"sum of squares, a lane of {g.width} bits": (
            lambda: SumOfSquares(lanes=1, width=g.width, energy_bits=config.widths.energy),
            lambda c: f"{c.latency}, II 1",
        ),
        f"update, a lane of {g.width} bits": (lambda: Update(one), lambda c: f"{c.latency}, II 1"),
        **cores(streaming=False),
        **cores(streaming=True),
        **{
            f"core, {what}, {WHOLE} lanes": (partial(Throttle, whole.replace(**options)), lambda c: f"2 N/L + {c.overhead}")
            for what, options in ALONG.items()
        },
        **({} if config.segments else without_segments(whole)),
    }


def without_segments(whole: ThrottleConfig) -> dict[str, tuple[Callable[[], wiring.Component], Callable[[Any], str]]]:
    """The units that take none."""
    return {
        **{
            f"core of one pass, {what}, {WHOLE} lanes": (
                partial(OnePass, whole.replace(delay=1, **options)),
                lambda c: f"N/L + {c.overhead}",
            )
            for what, options in ONE_PASS.items()
        },
        f"unit with weights on chip, {WHOLE} lanes": (lambda: ThrottleEngine(whole), lambda c: f"2 N/L + {c.overhead}"),
        f"unit on AXI, {WHOLE} lanes": (lambda: AxiThrottle(whole), lambda c: f"{c.passes} N/L + {c.overhead}"),
        f"unit on AXI without buffers, {WHOLE} lanes": (
            lambda: AxiThrottle(whole, "check"),
            lambda c: f"{c.passes} N/L + {c.overhead}",
        ),
    }
