"""A cell library's energies: what a pin's change costs inside its cell and in its load, by the tables of a liberty file.

Liberty gives the power of a change as energy. Its unit is that of the voltage squared times that of the capacitance: here V and
pF, so pJ. Tables are of the load (pF) and of the time an input takes to change (ns).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Arc", "Cell", "Library", "Pin", "Table"]

Floats = NDArray[np.float64]

UNITS = {"time_unit": "1ns", "voltage_unit": "1V", "capacitive_load_unit": ("1", "pf")}
"""What a library must count in."""

LOAD = ("total_output_net_capacitance",)
TIME = ("input_net_transition", "input_transition_time")
"""The names of the tables' variables."""


@dataclass(frozen=True)
class Table:
    """Values over load and time. An axis of one point is one that the values do not depend on.

    Attributes:
        loads: pF, ascending.
        times: ns, ascending.
        values: (loads, times).
    """

    loads: Floats
    times: Floats
    values: Floats

    def at(self, loads: Floats, times: Floats) -> Floats:
        """The values at points, linear between those of the table; a point beyond its edge counts as one on it."""
        i, x = _place(self.loads, loads)
        j, y = _place(self.times, times)
        a, b = (self.values[row, j] * (1 - y) + self.values[row, np.minimum(j + 1, len(self.times) - 1)] * y
                for row in (i, np.minimum(i + 1, len(self.loads) - 1)))  # fmt: skip
        return np.asarray(a * (1 - x) + b * x)


def _place(axis: Floats, points: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Of each point the interval that it is in, and how far along."""
    held = np.clip(points, axis[0], axis[-1])
    at = np.clip(np.searchsorted(axis, held, side="right") - 1, 0, max(0, len(axis) - 2))
    width = axis[np.minimum(at + 1, len(axis) - 1)] - axis[at]
    return at, np.where(width > 0, (held - axis[at]) / np.where(width > 0, width, 1), 0.0)


@dataclass(frozen=True)
class Arc:
    """Two tables for a pin, of its rise and of its fall: energies in pJ, or how long it takes to change in ns.

    ``related`` is the input that the change comes from; empty for the pin's own.
    """

    related: str
    rise: Table
    fall: Table


@dataclass(frozen=True)
class Pin:
    """A pin: what it loads its net with (pF, as it rises and as it falls), and the tables of its changes."""

    name: str
    is_output: bool
    rise_capacitance: float = 0.0
    fall_capacitance: float = 0.0
    is_clock: bool = False
    energies: tuple[Arc, ...] = ()
    transitions: tuple[Arc, ...] = ()


@dataclass(frozen=True)
class Cell:
    """A cell and its pins by name."""

    name: str
    pins: Mapping[str, Pin]
    is_register: bool = False

    @property
    def outputs(self) -> tuple[Pin, ...]:
        return tuple(pin for pin in self.pins.values() if pin.is_output)


@dataclass(frozen=True)
class Library:
    """The cells by name, and the supply in volts."""

    name: str
    voltage: float
    cells: Mapping[str, Cell] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Cell:
        """A cell.

        Raises:
            ValueError: the library has none of that name.
        """
        if name not in self.cells:
            raise ValueError(f"cells must be those of {self.name}, not {name!r}")
        return self.cells[name]

    @classmethod
    def read(cls, path: Path) -> Library:
        """The library of a liberty file.

        Raises:
            ValueError: the file counts in other units, or a table has variables other than load and time.
            ImportError: the extra ``synth`` is not installed.
        """
        from liberty.parser import parse_liberty  # here: it belongs to an extra

        try:
            library = parse_liberty(path.read_text())
        except Exception as error:  # the parser's own kinds are many
            raise ValueError(f"liberty must be a cell library, not {str(path)!r}: {error}") from None
        for name, unit in UNITS.items():
            found = library.get_attribute(name)
            plain = tuple(str(part) for part in found) if isinstance(found, (list, tuple)) else str(found).strip('"')
            if plain != unit:
                raise ValueError(f"{name} of {str(path)!r} must be {unit}, not {plain}")
        templates = {
            str(group.args[0]): [
                str(group.get_attribute(f"variable_{n}")) for n in (1, 2) if group.get_attribute(f"variable_{n}")
            ]
            for group in library.groups
            if group.group_name in ("lu_table_template", "power_lut_template")
        }
        cells = (_cell(group, templates) for group in library.get_groups("cell"))
        return cls(str(library.args[0]), float(library.get_attribute("nom_voltage")), {cell.name: cell for cell in cells})


def _cell(group: Any, templates: Mapping[str, list[str]]) -> Cell:
    pins = [_pin(pin, templates) for pin in group.get_groups("pin")]
    return Cell(str(group.args[0]), {pin.name: pin for pin in pins}, bool(group.get_groups("ff")))


def _pin(group: Any, templates: Mapping[str, list[str]]) -> Pin:
    load = float(group.get_attribute("capacitance") or 0)
    rise, fall = (group.get_attribute(f"{edge}_capacitance") for edge in ("rise", "fall"))
    timings = [timing for timing in group.get_groups("timing") if timing.get_groups("rise_transition")]
    return Pin(
        str(group.args[0]),
        str(group.get_attribute("direction")) == "output",
        load if rise is None else float(rise),
        load if fall is None else float(fall),
        str(group.get_attribute("clock")).lower() == "true",
        tuple(_arcs(group.get_groups("internal_power"), "_power", "power", templates)),
        tuple(_arcs(timings, "_transition", "", templates)),
    )


def _arcs(groups: Iterable[Any], ending: str, either: str, templates: Mapping[str, list[str]]) -> Iterable[Arc]:
    """The arcs of groups with tables ``rise`` and ``fall`` of that ending, or one table for both of the name ``either``."""
    for group in groups:
        tables = [
            (group.get_groups(f"{edge}{ending}") or (group.get_groups(either) if either else [])) for edge in ("rise", "fall")
        ]
        if all(tables):
            rise, fall = (_table(found[0], templates) for found in tables)
            for related in str(group.get_attribute("related_pin") or "").strip('"').split() or [""]:
                yield Arc(related, rise, fall)


def _table(group: Any, templates: Mapping[str, list[str]]) -> Table:
    variables = templates.get(str(group.args[0]), [])
    axes = {}
    for number, variable in enumerate(variables, 1):
        if variable not in LOAD + TIME:
            raise ValueError(f"tables of power and transition must be of load and time, not {variable}")
        axes[variable in LOAD] = np.asarray(group.get_array(f"index_{number}"), np.float64).reshape(-1)
    values = np.asarray(group.get_array("values"), np.float64)
    first_is_time = bool(variables) and variables[0] in TIME
    loads, times = axes.get(True, np.zeros(1)), axes.get(False, np.zeros(1))
    shaped = values.reshape(len(times), len(loads)).T if first_is_time else values.reshape(len(loads), len(times))
    return Table(loads, times, shaped)
