"""How often each net of a netlist changed in a window of whole clock cycles."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Activity"]

Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Activity:
    """The changes of a window, which begins in the low phase of the clock and holds every edge of ``cycles`` cycles.

    A change that a cycle takes back is a glitch: what is ``settled`` is at most one change of a net in a cycle.

    Attributes:
        nets: (n,) the nets, ascending.
        rises, falls: (n,) all changes of each.
        settled_rises, settled_falls: (n,) the same without glitches.
        registers: (r,) the nets whose changes are kept by cycle.
        before: (r,) their values before the first edge.
        changes: (cycles, r) whether each changed after an edge.
    """

    nets: Counts
    rises: Counts
    falls: Counts
    settled_rises: Counts
    settled_falls: Counts
    registers: Counts
    before: NDArray[np.bool_]
    changes: NDArray[np.bool_]

    @property
    def cycles(self) -> int:
        return len(self.changes)

    @property
    def toggles(self) -> int:
        """All changes of all nets."""
        return int(self.rises.sum() + self.falls.sum())

    def settled(self) -> Activity:
        """The same window with its glitches left out."""
        return Activity(
            self.nets,
            self.settled_rises,
            self.settled_falls,
            self.settled_rises,
            self.settled_falls,
            self.registers,
            self.before,
            self.changes,
        )

    def values(self, nets: tuple[int, ...]) -> NDArray[np.bool_]:
        """(cycles, nets) what some of the registers hold as each edge comes."""
        places = np.searchsorted(self.registers, nets)
        before = self.before[places] ^ (np.cumsum(self.changes[:, places], axis=0) % 2).astype(bool)
        return np.vstack([self.before[places][None], before[:-1]])
