"""What a unit costs, without any tool: what follows from its configuration, exactly, and what was fitted to syntheses."""

from __future__ import annotations

import functools
import json
import math
import numbers
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...golden.config import ThrottleConfig
from ..units.core import StreamingThrottle
from .bandwidth import traffic
from .design import unit_of
from .energy import energy_fit
from .features import Counts, features

__all__ = ["Cost", "Fit", "aimed", "estimate", "fit_of"]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Cost:
    """What a unit costs on a target. Look-up tables and registers are estimated; all else follows from the configuration.

    Attributes:
        lut: look-up tables, of as many inputs as the target's have; on an ECP5 LUT4, with a carry cell as two; on a GateMate
            halves of a CPE. Estimated.
        ff: registers of a bit each. Estimated.
        dsp: multiplier blocks; on an ECP5 MULT18X18D; none on an iCE40 or a MachXO2, whose products are look-up tables.
        block: block memories; on an ECP5 DP16KD, of 18 kbit.
        distributed: memories in the place of look-up tables, and not among them; on an ECP5 TRELLIS_DPR16X4, of 64 bits.
        memory_bits: what is kept of every element, wherever it is: its weight, its gradient between the passes or, in one pass,
            until the next step if that needs it, its residual, and the parity of both; with segments as many as any layout
            takes, whole beats.
        bytes_a_step: what passes the ports of the unit in a step, whole beats; rounded up.
        cycles: the most clock cycles of a step, streams never stalling.
        mhz: the clock that is assumed, in MHz.
        step_seconds: the most of a step at that clock, in seconds.
        energy: of a step in nJ, in the switching of 180 nm gates and without memories and wires: for ratios. Estimated.
    """

    lut: int
    ff: int
    dsp: int
    block: int
    distributed: int
    memory_bits: int
    bytes_a_step: int
    cycles: int
    mhz: float
    step_seconds: float
    energy: float


@dataclass(frozen=True)
class Fit:
    """What ``kappa-rtl fit`` found for a target: how much each feature takes, and measured clocks in MHz, if any.

    Attributes:
        mhz: by kind of core, ``core``, ``streaming`` or ``one pass``, and lanes.
    """

    target: str
    lut: Mapping[str, float]
    ff: Mapping[str, float]
    mhz: Mapping[str, Mapping[int, float]]

    @classmethod
    def read(cls, path: Path) -> Fit:
        table = json.loads(path.read_text())
        clocks = {kind: {int(lanes): mhz for lanes, mhz in found.items()} for kind, found in table["mhz"].items()}
        return cls(table["target"], table["lut"], table["ff"], clocks)

    def size(self, counts: Counts) -> tuple[int, int]:
        """Look-up tables and registers of what was counted."""
        return _total(self.lut, counts.lut), _total(self.ff, counts.ff)

    def clock(self, config: ThrottleConfig) -> float:
        """The clock of the measured core of the unit's kind whose lanes are next to its own, by their ratio; of two the one with
        more.

        Raises:
            ValueError: of this target no core was placed.
        """
        if not self.mhz:
            raise ValueError(f"mhz must be given for the target {self.target}, on which no core was placed")
        kind = "one pass" if config.delay else "streaming" if config.direction is not None else "core"
        known = self.mhz.get(kind) or self.mhz["core"]
        return known[min(known, key=lambda lanes: (abs(math.log2(lanes / config.lanes)), -lanes))]


def _total(coefficients: Mapping[str, float], counts: Mapping[str, int]) -> int:
    return round(sum(coefficients.get(name, 0) * count for name, count in counts.items()))


def fit_of(target: str) -> Fit:
    """The fit of a target.

    Raises:
        ValueError: there is none.
    """
    known = sorted(path.stem.removeprefix("estimate_") for path in FOLDER.glob("estimate_*.json"))
    if target not in known:
        raise ValueError(f"target must be one that a fit was made for, {', '.join(known)}, not {target!r}")
    return _read(target)


@functools.cache
def _read(target: str) -> Fit:
    return Fit.read(FOLDER / f"estimate_{target}.json")


MHZ = (0.001, 100_000)
"""Between what a clock may lie."""


def _clock(mhz: Any) -> float:
    is_number = isinstance(mhz, numbers.Real) and not isinstance(mhz, bool)
    if not is_number or not MHZ[0] <= mhz <= MHZ[1]:
        raise ValueError(f"mhz must be a number from {MHZ[0]} to {MHZ[1]}, not {mhz!r}")
    return float(mhz)


def aimed(target: str) -> tuple[str, float | None]:
    """The name and the clock in MHz that ``NAME`` or ``NAME@MHZ`` gives.

    Raises:
        ValueError: there is no fit of that target, or the clock is none, or not given where no core was placed.
    """
    given = re.fullmatch(r"([^@]*)(?:@([0-9]+(?:\.[0-9]+)?))?", target) if isinstance(target, str) else None
    if given is None or (given[2] and not MHZ[0] <= float(given[2]) <= MHZ[1]):
        raise ValueError(f"target must be NAME or NAME@MHZ, with a clock from {MHZ[0]} to {MHZ[1]}, not {target!r}")
    fit = fit_of(given[1])
    if not given[2] and not fit.mhz:
        raise ValueError(f"target must have the clock that is assumed, as in {given[1]}@150, not {target!r}: no core was placed")
    return given[1], float(given[2]) if given[2] else None


def estimate(config: ThrottleConfig, target: str = "ecp5", mhz: float | None = None) -> Cost:
    """The cost of a unit, in hundredths of a second: of the core with its gradient memory, which a unit with a direction has not.

    Args:
        target: what it is for; there has to be a fit.
        mhz: the clock in MHz. If not given that of the core in docs/synthesis.json, with its memory, streaming or of one pass,
            whose lanes are nearest: of 16-bit vectors and scalars of 24 bits, the median of three placements. It has to be given
            where the fit has no clock.

    Raises:
        ValueError: no fit of that target, or the clock is no number from .001 to 100,000, or not given and not known.
    """
    fit = fit_of(target)
    return _estimate(config, target, fit.clock(config) if mhz is None else _clock(mhz))


@functools.lru_cache(maxsize=1 << 12)
def _estimate(config: ThrottleConfig, target: str, mhz: float) -> Cost:
    unit = unit_of(config)
    grids, cycles, counts = config.grids, unit.step_cycles, features(unit, target)
    lut, ff = fit_of(target).size(counts)
    on_ecp5 = ff if target == "ecp5" else fit_of("ecp5").size(features(unit))[1]  # what energy was fitted to
    kept = config.words * config.lanes if config.segments else config.elements
    core = unit if isinstance(unit, StreamingThrottle) else unit.core
    vectors = [grids.gradient.width] * (not config.delay or core.changes or config.parity)  # one pass may need no old gradient
    vectors += [config.residual_bits] * (config.residual_bits > 0)
    return Cost(
        lut=lut,
        ff=ff,
        dsp=counts.dsp,
        block=counts.block,
        distributed=counts.distributed,
        memory_bits=kept * (grids.weight.width + sum(bits + config.parity for bits in vectors)),
        bytes_a_step=math.ceil(traffic(unit, "").bytes * config.elements),
        cycles=cycles,
        mhz=mhz,
        step_seconds=cycles / (1e6 * mhz),
        energy=energy_fit().energy(config, on_ecp5, cycles),
    )
