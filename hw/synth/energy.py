"""The energy of a step without a simulation: clock pins by flip-flops and cycles, data by the weights' width and what moves."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...golden.config import ThrottleConfig

__all__ = ["KINDS", "EnergyFit", "energy_fit", "kind_of"]

PATH = Path(__file__).with_name("energy_osu018.json")

NARROWEST = 8
"""Bits of a weight, of those that were simulated."""

KINDS = ("nearest", "kept")
"""What becomes of what rounding to nearest would swallow: lost, so that much stands still; or drawn or kept, and all moves."""


def kind_of(config: ThrottleConfig) -> str:
    """Which line of the data's energy a unit is on: one of :data:`KINDS`."""
    return "kept" if config.residual_bits or config.stochastic else "nearest"


@dataclass(frozen=True)
class EnergyFit:
    """What a step takes in switching, fitted to simulations of gates.

    Attributes:
        clock: pJ a flip-flop and cycle, of its clock pins.
        flip_flops: of the standard cells, for one that is estimated on an ECP5, whose multipliers have registers inside.
        data: pJ a weight of all else, by kind: at a width of 0 bits, and for each bit of the weights, beside which gradient and
            update were simulated a little wider; those have no part of their own, nor has a direction.
    """

    clock: float
    flip_flops: float
    data: Mapping[str, tuple[float, float]]

    def parts(self, kind: str, *, weight_bits: int, elements: int, registers: int, cycles: int) -> tuple[float, float]:
        """Of clock pins and of data, in nJ a step. Nothing is gated.

        Args:
            registers: estimated on an ECP5.
        """
        clock = self.clock * self.flip_flops * registers * cycles
        return 1e-3 * clock, 1e-3 * elements * self.of_weight(kind, weight_bits)

    def of_weight(self, kind: str, bits: int) -> float:
        """pJ a weight of the data. What rounding to nearest swallows never takes more than what moves, and below the narrowest
        width that was simulated, where its line would come to nothing, it takes less in proportion to the bits.
        """
        if kind == "nearest" and bits < NARROWEST:
            return self._line(kind, NARROWEST) * bits / NARROWEST
        return min(self._line(kind, bits), self._line("kept", bits))

    def _line(self, kind: str, bits: int) -> float:
        start, slope = self.data[kind]
        return start + slope * bits

    def energy(self, config: ThrottleConfig, registers: int, cycles: int) -> float:
        """Of a step of a unit, in nJ; see :meth:`parts`."""
        bits = config.grids.weight.width
        parts = self.parts(kind_of(config), weight_bits=bits, elements=config.elements, registers=registers, cycles=cycles)
        return sum(parts)

    def to_json(self) -> str:
        """What ``hw/synth/energy_osu018.json`` has."""
        data = {kind: [round(value, 2) for value in line] for kind, line in self.data.items()}
        return json.dumps({"clock": round(self.clock, 4), "flip_flops": round(self.flip_flops, 4), "data": data}, indent=1) + "\n"


@functools.cache
def energy_fit() -> EnergyFit:
    """The one that estimates are made with."""
    table = json.loads(PATH.read_text())
    return EnergyFit(table["clock"], table["flip_flops"], {kind: tuple(line) for kind, line in table["data"].items()})
