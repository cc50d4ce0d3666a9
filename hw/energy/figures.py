"""What a step cost, in the words of a table: the figures of a run by part, and the rows that show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .account import PORTS, account
from .activity import Activity
from .gating import Gating, gating
from .library import Library
from .netlist import TOP, Netlist

__all__ = ["Figures", "Part", "figures", "parts_table", "runs_table"]

GROUPS = {
    "update.generator": "random numbers",
    "update": "update",
    "sum": "sum of squares",
    "counters": "counters",
    "decide.unit.divider": "divider",
    "decide.unit.root": "square root",
    "decide.unit": "scalar unit",
    "decide": "sequencer",
    TOP: "control",
    PORTS: "inputs",
}
"""Parts of the hierarchy by what they are called in a table; the first whose name a part's begins with."""


RUN = (
    *("weights", "rounding", "cells", "FF", "cycles", "weights moved", "clock pins, nJ", "data, nJ", "of it glitches"),
    *("clock pins' share", "data a weight, pJ", "clock: ideal by part", "clock: busy flag", "clock: ideal by bit"),
)
PART = ("part", "FF", "clock pins, nJ", "data, nJ", "of it glitches", "cycles it changes in", "cycles it is busy")
"""The heads of the tables."""


def group_of(part: str) -> str:
    """What a part of the hierarchy is called in a table."""
    return next((name for path, name in GROUPS.items() if part.startswith(path)), part.partition(".")[0])


@dataclass(frozen=True)
class Part:
    """A part of the unit in one step: energies in pJ, gating in cycles.

    Attributes:
        clock, data: of the clock pins, and of all else.
        settled: of the data, had each net changed at most once a cycle; the rest is glitches.
        registers, changes, ideal, busy: see :class:`~kappa_rtl.hw.energy.gating.Gating`.
    """

    clock: float
    data: float
    settled: float
    registers: int = 0
    changes: int = 0
    ideal: int = 0
    busy: int = 0


@dataclass(frozen=True)
class Figures:
    """One step of one unit: its weights and rounding, what it is, what it did, and each part's figures."""

    weight: str
    rounding: str
    elements: int
    lanes: int
    step: int
    moved: int
    cycles: int
    cells: int
    toggles: int
    settled_toggles: int
    parts: Mapping[str, Part]

    @property
    def name(self) -> str:
        return f"{self.weight}, {self.rounding}"

    @property
    def registers(self) -> int:
        return sum(part.registers for part in self.parts.values())

    @property
    def clock(self) -> float:
        return sum(part.clock for part in self.parts.values())

    @property
    def data(self) -> float:
        return sum(part.data for part in self.parts.values())

    @property
    def settled(self) -> float:
        return sum(part.settled for part in self.parts.values())

    @property
    def ideal(self) -> float:
        """The clock pins' energy with ideal gating by part."""
        return sum(part.clock * part.ideal / self.cycles for part in self.parts.values())

    @property
    def busy(self) -> float:
        """The same with a busy flag a part."""
        return sum(part.clock * part.busy / self.cycles for part in self.parts.values())

    @property
    def single(self) -> float:
        """The same if each register bit had an edge only where it changes."""
        return sum(part.clock * part.changes / part.registers / self.cycles for part in self.parts.values() if part.registers)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, table: Mapping[str, Any]) -> Figures:
        """The figures that :meth:`to_json` gave."""
        return cls(**{**table, "parts": {name: Part(**part) for name, part in table["parts"].items()}})


def figures(netlist: Netlist, library: Library, activity: Activity, **about: Any) -> Figures:
    """The figures of a window; ``about`` are the fields of :class:`Figures` that no window tells."""
    every, settled = account(netlist, library, activity), account(netlist, library, activity.settled())
    gates = gating(netlist, library, activity, group_of)
    clock: defaultdict[str, float] = defaultdict(float)
    data, still = clock.copy(), clock.copy()
    for path, energy in every.items():
        clock[group_of(path)] += energy.clock
        data[group_of(path)] += energy.data
    for path, energy in settled.items():
        still[group_of(path)] += energy.data
    return Figures(
        cycles=activity.cycles,
        cells=len(netlist.gates),
        toggles=activity.toggles,
        settled_toggles=activity.settled().toggles,
        parts={
            name: Part(clock[name], data[name], still[name], *gates.get(name, Gating(0, 0, 0, 0)))
            for name in sorted(clock, key=lambda name: -clock[name] - data[name])
        },
        **about,
    )


def runs_table(found: Iterable[Figures]) -> list[tuple[str, ...]]:
    """A row a run: energies of a step in nJ, and of a weight in pJ."""
    rows: list[tuple[str, ...]] = [RUN]
    for f in found:
        left = [f"{_nj(energy)} ({_share(energy, f.clock)})" for energy in (f.ideal, f.busy, f.single)]
        what = (f.weight, f.rounding, str(f.cells), str(f.registers), str(f.cycles), f"{f.moved} of {f.elements}")
        energies = (_nj(f.clock), _nj(f.data), _share(f.data - f.settled, f.data), _share(f.clock, f.clock + f.data))
        rows.append((*what, *energies, f"{f.data / f.elements:.0f}", *left))
    return rows


def parts_table(f: Figures) -> list[tuple[str, ...]]:
    """A row a part of one run, in nJ a step, the largest first."""
    rows: list[tuple[str, ...]] = [PART]
    for name, part in f.parts.items():
        glitches = _share(part.data - part.settled, part.data)
        rows.append((name, str(part.registers), _nj(part.clock), _nj(part.data), glitches, str(part.ideal), str(part.busy)))
    rows.append(("all", str(f.registers), _nj(f.clock), _nj(f.data), _share(f.data - f.settled, f.data), f"of {f.cycles}", ""))
    return rows


def _nj(energy: float) -> str:
    """Picojoules as nanojoules, in three digits."""
    value = energy / 1e3
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole else "–"
