"""The vectors of a unit on AXI as a program has them in memory: plain arrays, padded to whole beats."""

from __future__ import annotations

from typing import NamedTuple

from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed
from .registers import field_bits

__all__ = ["Vector", "vectors"]


class Vector(NamedTuple):
    """A vector in memory: little-endian elements side by side, each sign-extended in a field of 8, 16 or 32 bits."""

    port: str  #: the AXI4-Stream that carries it
    grid: Fixed
    elements: int
    lanes: int
    beats: int

    @property
    def length(self) -> int:
        """Elements with those that fill the last beat, of each segment."""
        return self.beats * self.lanes

    @property
    def field_bits(self) -> int:
        return field_bits(self.grid.width)

    @property
    def bytes(self) -> int:
        """What a DMA moves."""
        return self.length * self.field_bits // 8


def vectors(config: ThrottleConfig) -> dict[str, Vector]:
    """By the names that they have in header and driver."""
    grids = config.grids
    of = {
        "gradient": ("s_axis_gradient", grids.gradient),
        "weights": ("s_axis_weights", grids.weight),
        "updated": ("m_axis_updated", grids.weight),
    }
    return {name: Vector(port, grid, config.elements, config.lanes, config.beats) for name, (port, grid) in of.items()}
