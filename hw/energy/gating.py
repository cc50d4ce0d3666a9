"""What gating the clock by part would leave of it: in which cycles a part needs an edge, by the changes of its registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .activity import Activity
from .library import Library
from .netlist import Netlist

__all__ = ["STATE", "Gating", "gating"]

STATE = "fsm_state"
"""The core's state, by the name of its register in the Verilog."""


class Gating(NamedTuple):
    """A part's registers, in bits, and the cycles of a window that they need.

    ``ideal`` is that of a gate that knows beforehand whether any of them changes. ``busy`` is that of a flag that goes up and
    down once a visit of the core to one of its states, from the first change to the last: what an ``EnableInserter`` with a
    register for busy can express.
    """

    registers: int  #: bits
    changes: int  #: of all bits in the window
    ideal: int  #: cycles at whose edge a bit changes
    busy: int  #: cycles between such, within a visit


def gating(netlist: Netlist, library: Library, activity: Activity, group: Callable[[str], str]) -> dict[str, Gating]:
    """The gating of each group of parts.

    Raises:
        ValueError: the netlist has lost the core's state, or its registers are not those of the activity.
    """
    part_of = {
        net: group(gate.part)
        for gate in netlist.gates
        if (cell := library[gate.cell]).is_register
        for pin in cell.outputs
        if isinstance(net := gate.pins.get(pin.name), int)
    }
    if sorted(part_of) != activity.registers.tolist():
        raise ValueError("activity must keep the changes of all registers of the netlist")
    state = tuple(bit for bit in netlist.words.get(STATE, ()) if isinstance(bit, int))
    if not state or not set(state) <= set(part_of):
        raise ValueError(f"netlist must have kept the register {STATE}, and has {', '.join(sorted(netlist.words)[:5])}, ...")
    held = activity.values(state)
    visit = np.concatenate([[0], np.cumsum((held[1:] != held[:-1]).any(axis=1))])
    parts = np.array([part_of[net] for net in activity.registers.tolist()])
    found = {}
    for part in dict.fromkeys(parts.tolist()):
        changes = activity.changes[:, parts == part]
        needs = np.asarray(changes.any(axis=1))
        found[part] = Gating(changes.shape[1], int(changes.sum()), int(needs.sum()), _spans(needs, visit))
    return found


def _spans(needs: NDArray[np.bool_], visit: NDArray[np.int64]) -> int:
    """Cycles from the first to the last that is needed, of each visit."""
    total = 0
    for number in np.unique(visit[needs]):
        (where,) = np.nonzero(needs & (visit == number))
        total += int(where[-1] - where[0] + 1)
    return total
