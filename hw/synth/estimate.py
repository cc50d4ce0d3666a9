"""What a unit costs, without any tool: what follows from its configuration, exactly, and what was fitted to syntheses."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...golden.config import ThrottleConfig
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
        memory_bits: what is kept of every element from step to step, wherever it is: its weight, its gradient and its residual;
            with segments as many as any layout takes, whole beats.
        bytes_a_step: what passes the ports of the unit in a step, whole beats.
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
    """What ``kappa-rtl fit`` found for a target: how much each feature takes, and the measured clock by lanes, in MHz, if any."""

    target: str
    lut: Mapping[str, float]
    ff: Mapping[str, float]
    mhz: Mapping[int, float]

    @classmethod
    def read(cls, path: Path) -> Fit:
        table = json.loads(path.read_text())
        clocks = {int(lanes): mhz for lanes, mhz in table["mhz"].items()}
        return cls(table["target"], table["lut"], table["ff"], clocks)

    def size(self, counts: Counts) -> tuple[int, int]:
        """Look-up tables and registers of what was counted."""
        return _total(self.lut, counts.lut), _total(self.ff, counts.ff)

    def clock(self, lanes: int) -> float:
        """The clock of the measured core whose lanes are next to these, by their ratio; the one with more if two are.

        Raises:
            ValueError: of this target no core was placed.
        """
        if not self.mhz:
            raise ValueError(f"mhz must be given for the target {self.target}, on which no core was placed")
        return self.mhz[min(self.mhz, key=lambda known: (abs(math.log2(known / lanes)), -known))]


def _total(coefficients: Mapping[str, float], counts: Mapping[str, int]) -> int:
    return round(sum(coefficients.get(name, 0) * count for name, count in counts.items()))


@functools.cache
def fit_of(target: str) -> Fit:
    """The fit of a target.

    Raises:
        ValueError: there is none.
    """
    known = sorted(path.stem.removeprefix("estimate_") for path in FOLDER.glob("estimate_*.json"))
    if target not in known:
        raise ValueError(f"target must be one that a fit was made for, {', '.join(known)}, not {target!r}")
    return Fit.read(FOLDER / f"estimate_{target}.json")


def aimed(target: str) -> tuple[str, float | None]:
    """The name and the clock in MHz that ``NAME`` or ``NAME@MHZ`` gives.

    Raises:
        ValueError: there is no fit of that target, or the clock is none, or not given where no core was placed.
    """
    name, at, clock = target.partition("@")
    fit = fit_of(name)
    if not at:
        if not fit.mhz:
            raise ValueError(f"target must have the clock that is assumed, as in {name}@150, not {target!r}: no core was placed")
        return name, None
    try:
        mhz = float(clock)
    except ValueError:
        mhz = math.nan
    if not 0 < mhz < math.inf:
        raise ValueError(f"target must be NAME or NAME@MHZ, with a clock above 0, not {target!r}")
    return name, mhz


@functools.lru_cache(maxsize=1 << 12)
def estimate(config: ThrottleConfig, target: str = "ecp5", mhz: float | None = None) -> Cost:
    """The cost of a unit, in hundredths of a second: of the core with its gradient memory, which a unit with a direction has not.

    Args:
        target: what it is for; there has to be a fit.
        mhz: the clock in MHz. If not given that of the core in docs/synthesis.json whose lanes are nearest: of 16-bit vectors and
            scalars of 24 bits, the median of three placements. It has to be given where the fit has no clock.

    Raises:
        ValueError: no fit of that target, or the clock is not a number above 0, or not given and not known.
    """
    fit = fit_of(target)
    if mhz is None:
        mhz = fit.clock(config.lanes)
    if isinstance(mhz, bool) or not isinstance(mhz, int | float) or not 0 < mhz < math.inf:
        raise ValueError(f"mhz must be a number greater than 0, not {mhz!r}")
    unit = unit_of(config)
    grids, cycles, counts = config.grids, unit.step_cycles, features(unit, target)
    lut, ff = fit.size(counts)
    on_ecp5 = ff if target == "ecp5" else fit_of("ecp5").size(features(unit))[1]  # what energy was fitted to
    kept = config.words * config.lanes if config.segments else config.elements
    return Cost(
        lut=lut,
        ff=ff,
        dsp=counts.dsp,
        block=counts.block,
        distributed=counts.distributed,
        memory_bits=kept * (grids.weight.width + grids.gradient.width + config.residual_bits),
        bytes_a_step=int(traffic(unit, "").bytes * config.elements),
        cycles=cycles,
        mhz=mhz,
        step_seconds=cycles / (1e6 * mhz),
        energy=energy_fit().energy(config, on_ecp5, cycles),
    )
