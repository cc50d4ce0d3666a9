"""Plain identifiers for the modules, wires and cells of a design: the names of the source, numbered where it has one twice."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from .netlist import Design, Module, Part

__all__ = ["RESERVED", "Names", "named"]

RESERVED = frozenset(Path(__file__).with_name("keywords.txt").read_text().split())
"""Words that are no names, in Verilog or in SystemVerilog."""


class Names:
    """Plain identifiers of one module: the names of the source, numbered where it has one twice."""

    def __init__(self) -> None:
        self.taken = set(RESERVED)

    def identifier(self, name: str) -> str:
        plain = re.sub(r"[\W_]+", "_", re.sub(r"\$\d+(?=\.|\[|$)", "", name)).strip("_") or "n"
        plain = plain if plain[0].isalpha() else f"n{plain}"
        numbered = (f"{plain}_{i}" for i in itertools.count(2))
        found = next(text for text in itertools.chain([plain], numbered) if text not in self.taken)
        self.taken.add(found)
        return found


def named(module: Module, design: Design) -> Names:
    """Name ports, wires and cells. An anonymous wire gets a name when it turns out to need one."""
    names = Names()
    named = [wire for wire in module.wires.values() if not wire.anonymous]
    for wire in sorted(named, key=lambda wire: (not wire.direction, "$" in wire.name)):
        wire.name = names.identifier(wire.name)
    for wire in module.wires.values():
        if wire.anonymous and wire.direction:
            wire.name, wire.anonymous = names.identifier("i"), False
    for memory in module.memories.values():
        memory.name = names.identifier(memory.name)
    for cell in module.cells:
        if not cell.kind.startswith("$"):
            cell.name = names.identifier(cell.name)
        # A module's ports that have no name in it are called as what they are connected to.
        inner = design.get(cell.kind)
        for port, value in cell.ports.items() if inner else ():
            assert inner
            wire = inner.wires[f"\\{port}"]
            if wire.anonymous and len(value) == 1 and isinstance(value[0], Part) and not value[0].wire.anonymous:
                part, wire.anonymous = value[0], False
                wire.name = part.wire.name if part.whole else f"{part.wire.name}_{part.low}"
    return names
