"""A synthesised unit as cells of a library that know their part, and nets that are numbers.

Yosys maps each part of the hierarchy by itself, and flattens after that: so a cell's name begins with the part that it is of.
The Verilog for the simulation is written from here, with a plain name for each net, which every simulator dumps as it is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["TOP", "Gate", "Netlist", "net_name"]

TOP = "control"
"""The part of what stands in no part: the core's own state and what joins the others."""

PART = re.compile(r"\\?([A-Za-z_]\w*)\.")
"""A part's name at the front of a flattened cell's."""

CONSTANT = {"0": "1'b0", "1": "1'b1"}


@dataclass(frozen=True)
class Gate:
    """A cell: its name in the library, the part it is of, and the net of each pin; a string is a constant bit."""

    cell: str
    part: str
    pins: Mapping[str, int | str]


@dataclass(frozen=True)
class Port:
    """A port of the unit and its nets, lowest bit first."""

    name: str
    is_output: bool
    bits: tuple[int | str, ...]


@dataclass(frozen=True)
class Netlist:
    """Ports, gates, and the nets of the words that kept their names."""

    top: str
    ports: tuple[Port, ...]
    gates: tuple[Gate, ...]
    words: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)

    @property
    def nets(self) -> tuple[int, ...]:
        """Every net at a pin of a cell, ascending."""
        return tuple(sorted({bit for gate in self.gates for bit in gate.pins.values() if isinstance(bit, int)}))

    @classmethod
    def of_json(cls, text: str, top: str) -> Netlist:
        """What Yosys' ``write_json`` wrote of a flattened unit.

        Raises:
            ValueError: a pin or port is of an undefined bit, which no gate has.
        """
        module = json.loads(text)["modules"][top]
        cells = [(name, cell) for name, cell in module["cells"].items() if not cell["type"].startswith("$")]
        gates = tuple(Gate(cell["type"], part_of(name), dict(_pins(name, cell))) for name, cell in cells)
        ports = tuple(
            Port(name, port["direction"] == "output", tuple(_bit(f"port {name}", bit) for bit in port["bits"]))
            for name, port in module["ports"].items()
        )
        words = {name: tuple(word["bits"]) for name, word in module["netnames"].items() if not word["hide_name"]}
        return cls(top, ports, gates, words)

    def to_verilog(self, *more: str) -> str:
        """The netlist as a module of the unit's ports; ``more`` are lines inside it."""
        lines = [f"module {self.top} ({', '.join(port.name for port in self.ports)});"]
        for port in self.ports:
            lines.append(f"  {'output' if port.is_output else 'input'} [{len(port.bits) - 1}:0] {port.name};")
        given = {bit for port in self.ports if not port.is_output for bit in port.bits}
        lines += [f"  wire {net_name(net)};" for net in sorted({*self.nets, *(bit for bit in given if isinstance(bit, int))})]
        for port in self.ports:
            for i, bit in enumerate(port.bits):
                left, right = (f"{port.name}[{i}]", _written(bit)) if port.is_output else (_written(bit), f"{port.name}[{i}]")
                lines.append(f"  assign {left} = {right};")
        for i, gate in enumerate(self.gates):
            pins = ", ".join(f".{pin}({_written(bit)})" for pin, bit in gate.pins.items())
            lines.append(f"  {gate.cell} g{i} ({pins});")
        return "\n".join(["`timescale 1ns / 10ps", *lines, *more, "endmodule", ""])


def net_name(net: int) -> str:
    """What a net is called in the Verilog and in its dump."""
    return f"n{net}"


def part_of(name: str) -> str:
    """The part that a flattened cell is of, such as ``decide.unit.divider``; :data:`TOP` for none."""
    rest, path = name.removeprefix("$flatten"), []
    while found := PART.match(rest):
        path.append(found[1])
        rest = rest[found.end() :]
    return ".".join(path) or TOP


def _pins(name: str, cell: Mapping[str, Any]) -> Iterator[tuple[str, int | str]]:
    for pin, bits in cell["connections"].items():
        for bit in bits:  # none where the pin is open
            yield pin, _bit(f"pin {pin} of {name}", bit)


def _bit(where: str, bit: int | str) -> int | str:
    if isinstance(bit, str) and bit not in CONSTANT:
        raise ValueError(f"the netlist must have no undefined bits, not {bit!r} at {where}")
    return bit


def _written(bit: int | str) -> str:
    return net_name(bit) if isinstance(bit, int) else CONSTANT[bit]
