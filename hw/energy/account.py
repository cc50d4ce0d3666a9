"""The account of a window: the energy of every change, by part of the unit, clock pins and data apart.

A change of a net costs V**2 / 2 times the capacitance of the pins that it drives, and what the library's tables say of the cells
around it: of the cell that drives it, shared among that cell's inputs as often as those changed, and of the pins it drives. Nets
have no wires. Leakage is not counted.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .activity import Activity
from .library import Cell, Library, Pin
from .netlist import Gate, Netlist

__all__ = ["PORTS", "Energy", "account", "transitions"]

Floats = NDArray[np.float64]
Places = NDArray[np.intp]

PORTS = "ports"
"""The part of nets that come from outside."""

SWEEPS = 60
"""The most times that transitions are handed on from cell to cell; they settle within a dozen, as cells restore edges."""

SETTLED = 1e-4
"""The change of a transition, in ns, below which it has settled."""


class Energy(NamedTuple):
    """Of a part, in pJ: its clock pins; what its cells take inside as data change; and the loads that they drive then."""

    clock: float = 0.0
    internal: float = 0.0
    load: float = 0.0

    @property
    def data(self) -> float:
        return self.internal + self.load

    def __add__(self, other: object) -> Energy:
        assert isinstance(other, Energy)
        return Energy(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass(frozen=True)
class _Kind:
    """The gates of one cell: of each pin the place of its net among those of the netlist."""

    cell: Cell
    parts: list[str]
    pins: Mapping[str, Places]


@dataclass(frozen=True)
class _Nets:
    """Places of the nets; the last two are the constants. Arrays of this length have a value for each."""

    kinds: tuple[_Kind, ...]
    nets: Places
    loads: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(cls, netlist: Netlist, library: Library) -> _Nets:
        nets = np.array(netlist.nets, np.intp)
        place: dict[int | str, int] = {net: i for i, net in enumerate(netlist.nets)}
        place |= {"0": len(nets), "1": len(nets) + 1}
        by_cell: defaultdict[tuple[str, tuple[str, ...]], list[Gate]] = defaultdict(list)
        for gate in netlist.gates:
            by_cell[gate.cell, tuple(gate.pins)].append(gate)
        kinds = tuple(
            _Kind(
                library[name],
                [gate.part for gate in gates],
                {pin: np.array([place[gate.pins[pin]] for gate in gates], np.intp) for pin in pins},
            )
            for (name, pins), gates in by_cell.items()
        )
        loads = np.zeros(len(nets) + 2)
        for kind in kinds:
            for pin, places in kind.pins.items():
                known = kind.cell.pins[pin]
                if not known.is_output:
                    np.add.at(loads, places, (known.rise_capacitance + known.fall_capacitance) / 2)
        return cls(kinds, nets, loads)


def transitions(netlist: Netlist, library: Library) -> dict[int, float]:
    """How long each net takes to change, in ns, a mean of both edges; what comes from outside has the library's shortest time."""
    nets = _Nets.of(netlist, library)
    return dict(zip(netlist.nets, _transitions(nets, library)[: len(nets.nets)].tolist(), strict=True))


def _transitions(nets: _Nets, library: Library) -> Floats:
    times = [arc.rise.times[0] for cell in library.cells.values() for pin in cell.pins.values() for arc in pin.transitions]
    shortest = min(times, default=0.0)
    found = np.full(len(nets.loads), shortest)
    for _ in range(SWEEPS):
        made = np.full(len(nets.loads), shortest)
        for kind in nets.kinds:
            for pin, places in kind.pins.items():
                arcs = [arc for arc in kind.cell.pins[pin].transitions if arc.related in kind.pins]
                if arcs:
                    loads = nets.loads[places]
                    edges = [table.at(loads, found[kind.pins[arc.related]]) for arc in arcs for table in (arc.rise, arc.fall)]
                    made[places] = np.mean(edges, axis=0)
        if np.abs(made - found).max() < SETTLED:
            return made
        found = made
    raise ValueError("the netlist must have no loop through which transitions grow")


def account(netlist: Netlist, library: Library, activity: Activity) -> dict[str, Energy]:
    """The energy of a window by part, in pJ; that of nets from outside is the part :data:`PORTS`.

    A clock pin's energy, its load and what its cell takes inside, is that of the part it is in; the load of data is that of the
    part that drives it.

    Raises:
        ValueError: the activity is of other nets, or the netlist has a cell that the library has not.
    """
    if activity.nets.tolist() != list(netlist.nets):
        raise ValueError("activity must be that of all nets of the netlist")
    nets = _Nets.of(netlist, library)
    times = _transitions(nets, library)
    rises, falls = (np.concatenate([counts, [0, 0]]).astype(float) for counts in (activity.rises, activity.falls))
    half = library.voltage**2 / 2
    loaded = np.zeros(len(rises))  # of each net as it changes, but for clock pins
    found: defaultdict[str, Energy] = defaultdict(Energy)
    for kind in nets.kinds:
        clock, internal = np.zeros(len(kind.parts)), np.zeros(len(kind.parts))
        for name, places in kind.pins.items():
            pin = kind.cell.pins[name]
            inside = _inside(kind, pin, places, nets.loads, times, rises, falls)
            load = half * (rises[places] * pin.rise_capacitance + falls[places] * pin.fall_capacitance)
            if pin.is_clock:
                clock += inside + load
            else:
                internal += inside
                np.add.at(loaded, places, load)
        for part, energies in zip(kind.parts, zip(clock.tolist(), internal.tolist(), strict=True), strict=True):
            found[part] += Energy(*energies)
    drivers = dict(_drivers(nets, library))
    for net in np.flatnonzero(loaded).tolist():
        found[drivers.get(net, PORTS)] += Energy(load=float(loaded[net]))
    return dict(found)


def _drivers(nets: _Nets, library: Library) -> Iterator[tuple[int, str]]:
    """The part that drives each place."""
    for kind in nets.kinds:
        for pin, places in kind.pins.items():
            if kind.cell.pins[pin].is_output:
                yield from zip(places.tolist(), kind.parts, strict=True)


def _inside(kind: _Kind, pin: Pin, places: Places, loads: Floats, times: Floats, rises: Floats, falls: Floats) -> Floats:
    """What the cells take inside as a pin of theirs changes."""
    arcs = [arc for arc in pin.energies if not arc.related or arc.related in kind.pins]
    if not arcs:
        return np.zeros(len(places))
    causes = [kind.pins[arc.related] if arc.related else places for arc in arcs]
    shares = np.array([rises[cause] + falls[cause] for cause in causes])
    every = shares.sum(axis=0)
    shares = np.where(every > 0, shares / np.where(every > 0, every, 1), 1 / len(arcs))
    load = loads[places]
    total = np.zeros(len(places))
    for arc, cause, share in zip(arcs, causes, shares, strict=True):
        each = [changes[places] * table.at(load, times[cause]) for changes, table in ((rises, arc.rise), (falls, arc.fall))]
        total += share * (each[0] + each[1])
    return total
