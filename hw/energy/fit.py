"""What the energy of a step is estimated with, fitted to simulations of gates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...golden.config import ThrottleConfig
from ..synth.energy import KINDS, EnergyFit, kind_of
from .figures import Figures

__all__ = ["fitted"]


def fitted(runs: Sequence[Figures], configs: Sequence[ThrottleConfig], registers: Sequence[int]) -> EnergyFit:
    """Means for the clock, and a line by least squares for the data of each kind.

    Args:
        runs: what was simulated.
        configs: the unit of each.
        registers: of each, estimated on an ECP5.

    Raises:
        ValueError: a kind has less than two widths.
    """
    clock = np.mean([run.clock / (run.registers * run.cycles) for run in runs])
    flip_flops = np.mean([run.registers / estimated for run, estimated in zip(runs, registers, strict=True)])
    data = {}
    for kind in KINDS:
        dots = [
            (config.grids.weight.width, run.data / run.elements)
            for run, config in zip(runs, configs, strict=True)
            if kind_of(config) == kind
        ]
        if len({bits for bits, _ in dots}) < 2:
            raise ValueError(f"runs must have at least two widths of the kind {kind!r}, to lay a line through")
        slope, start = np.polyfit([bits for bits, _ in dots], [energy for _, energy in dots], 1)
        data[kind] = (float(start), float(slope))
    return EnergyFit(float(clock), float(flip_flops), data)
