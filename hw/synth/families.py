"""How the targets differ in what is counted of a unit: multipliers, carry chains, delays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .products import Multiply, block_of_any_width, dsp48, gowin, look_up_tables, mult18x18d, nexus

__all__ = ["FAMILIES", "Family"]


@dataclass(frozen=True)
class Family:
    """One target.

    Attributes:
        multiply: what a product takes.
        paired: whether a carry cell has two bits.
        short: whether the bits of a sum beyond those of its shorter summand need no look-up table beside the carry.
        delays: whether registers behind each other, which nothing is taken from, become look-up tables.
    """

    name: str
    multiply: Multiply
    paired: bool = False
    short: bool = False
    delays: bool = False


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family("ecp5", mult18x18d, paired=True),
        Family("nexus", nexus, paired=True),
        Family("machxo2", look_up_tables, paired=True),
        Family("gowin", gowin),
        Family("ice40", look_up_tables),
        Family("gatemate", block_of_any_width),
        Family("xilinx", dsp48, short=True, delays=True),
    )
}
"""The targets whose units can be counted, by name."""
