"""How many bytes an element of a step moves, and what that leaves of the lanes' speed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from amaranth.lib import stream

from ...golden.config import ThrottleConfig
from ..manifest import bit_map
from ..units.core import StreamingThrottle
from ..units.engine import ThrottleEngine
from ..units.throttle import Throttle

__all__ = ["DESIGNS", "Traffic", "designs", "traffic", "units"]

DESIGNS: Mapping[str, tuple[int, int]] = {
    # G, P, the new P, G again; theta, the one before, theta again, both new ones.
    "two passes with copies": (4, 5),
    # ||dtheta|| is that of the applied change, and G and P change places.
    "two passes, no previous weights, gradients swapped": (3, 2),
    "two passes, the first one as the gradient is written": (2, 2),
    "one pass, with the alpha of the step before": (2, 2),
    "SGD without throttle": (1, 2),
}
"""How often a design reads or writes a gradient vector and a weight vector in a step."""


@dataclass(frozen=True)
class Traffic:
    """What a unit moves in a step, by stream and field, in bits; and at what rate it computes."""

    name: str
    bits: Mapping[str, int]
    elements: int
    step_cycles: int

    @property
    def bytes(self) -> Fraction:
        """Bytes an element."""
        return Fraction(sum(self.bits.values()), 8 * self.elements)

    def rate(self, mhz: float) -> float:
        """Million elements a second at a clock, streams never stalling."""
        return self.elements / self.step_cycles * mhz

    def without(self, name: str, *fields: str) -> Traffic:
        """The same unit where these fields come from, or stay, on the chip."""
        missing = set(fields) - set(self.bits)
        if missing:
            raise ValueError(f"fields must be among {', '.join(self.bits)}, not {', '.join(sorted(missing))}")
        return Traffic(name, {key: n for key, n in self.bits.items() if key not in fields}, self.elements, self.step_cycles)


def traffic(component: Throttle | StreamingThrottle | ThrottleEngine, name: str) -> Traffic:
    """From the ports alone: each vector stream passes ceil(N/L) beats a step, of whole payloads.

    Not counted are ``registers``, which pass once; ``updated.update``, which tells what a step did and is no state; and what
    passes between steps only, theta into and out of the unit that keeps it, and a table of segments.
    """
    config = component.config
    bits: dict[str, int] = {}
    for port, member in component.signature.members.items():
        if not (member.is_signature and isinstance(member.signature, stream.Signature)) or port in ASIDE:
            continue
        for leaf in bit_map(member.signature.members["payload"].shape):
            field = f"{port}.{leaf['name'].split('[')[0]}".removesuffix(".")
            if field not in ASIDE:
                bits[field] = bits.get(field, 0) + leaf["width"] * config.beats
    return Traffic(name, bits, config.elements, component.step_cycles)


ASIDE = ("registers", "updated.update", "load", "stored", "layout")


def units(config: ThrottleConfig) -> list[Traffic]:
    """The units that this project builds, and what they move when the gradient is absorbed on its way into memory."""
    streaming = traffic(StreamingThrottle(config), "streaming core")
    memory = traffic(Throttle(config), "core with gradient memory")
    return [
        streaming,
        streaming.without("streaming core, absorbing the gradient as it is written", "absorb.gradient"),
        memory,
        memory.without("core with gradient memory, absorbing the gradient as it is made", "gradient"),
        traffic(ThrottleEngine(config), "core with gradient memory and weights on chip"),
    ]


def designs(config: ThrottleConfig) -> dict[str, Fraction]:
    """Bytes an element of each of :data:`DESIGNS`, in the formats of a configuration."""
    g, w = config.grids.gradient.width, config.grids.weight.width
    return {name: Fraction(gradients * g + weights * w, 8) for name, (gradients, weights) in DESIGNS.items()}
