"""A design as Amaranth's back end gives it, RTLIL, read into modules of wires, cells and decisions, and tidied for a reader.

Nothing is optimised but what is written twice: wires get the names of the source back, operators that are the same become one,
and modules that only wrap a cell give way to it.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Assign",
    "Case",
    "Cell",
    "Design",
    "Memory",
    "Module",
    "Part",
    "Process",
    "Statement",
    "Switch",
    "Value",
    "Wire",
    "read",
]


@dataclass(eq=False)
class Wire:
    """A net of a module: ``direction`` is that of a port, ``init`` the bits that a register holds at power-up."""

    name: str
    width: int
    direction: str = ""
    init: str = ""
    anonymous: bool = False  #: without a name in the source

    @property
    def whole(self) -> Value:
        return (Part(self, 0, self.width),)


@dataclass(frozen=True)
class Part:
    """Some neighbouring bits of a wire."""

    wire: Wire
    low: int
    width: int

    @property
    def whole(self) -> bool:
        return self.width == self.wire.width


Value = tuple[Part | str, ...]
"""Parts of wires and bits of constants side by side, the highest first."""


@dataclass
class Cell:
    """An operator (``$add``), a register (``$dff``), a submodule or one of the Verilog modules of ``hw.cells``."""

    kind: str
    name: str
    parameters: dict[str, str] = field(default_factory=dict)
    ports: dict[str, Value] = field(default_factory=dict)

    def number(self, name: str) -> int:
        """A parameter that is a number."""
        return int(self.parameters[name])


@dataclass
class Assign:
    target: Part
    value: Value


@dataclass
class Case:
    """What holds where the selector has one of these bit patterns, ``-`` being either; without patterns in all other cases."""

    patterns: list[str]
    body: list[Statement]


@dataclass
class Switch:
    selector: Value
    cases: list[Case]


Statement = Assign | Switch


@dataclass
class Process:
    """How one wire comes about: what is assigned last holds. The first statement gives all bits a value."""

    body: list[Statement]

    @property
    def target(self) -> Wire:
        first = self.body[0]
        assert isinstance(first, Assign) and first.target.whole
        return first.target.wire


@dataclass
class Memory:
    name: str
    width: int
    depth: int


@dataclass
class Module:
    name: str
    wires: dict[str, Wire] = field(default_factory=dict)
    memories: dict[str, Memory] = field(default_factory=dict)
    cells: list[Cell] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    connections: list[tuple[Wire, Value]] = field(default_factory=list)

    @property
    def ports(self) -> list[Wire]:
        return [wire for wire in self.wires.values() if wire.direction]


Design = dict[str, Module]
"""Modules by name, the top first."""


def length(value: Value) -> int:
    """Bits of a value."""
    return sum(len(chunk) if isinstance(chunk, str) else chunk.width for chunk in value)


def bits(value: Value, low: int, width: int) -> Value:
    """Some neighbouring bits of a value."""
    found: list[Part | str] = []
    for chunk in reversed(value):
        size = len(chunk) if isinstance(chunk, str) else chunk.width
        start, stop = max(0, low), min(size, low + width)
        if start < stop:
            if isinstance(chunk, str):
                found.insert(0, chunk[size - stop : size - start])
            else:
                found.insert(0, Part(chunk.wire, chunk.low + start, stop - start))
        low -= size
    return joined(found)


def joined(chunks: Iterable[Part | str]) -> Value:
    """The same bits in as few chunks as there can be."""
    found: list[Part | str] = []
    for chunk in chunks:
        last = found[-1] if found else None
        if isinstance(chunk, str) and isinstance(last, str):
            found[-1] = last + chunk
        elif (
            isinstance(chunk, Part) and isinstance(last, Part) and last.wire is chunk.wire and last.low == chunk.low + chunk.width
        ):
            found[-1] = Part(chunk.wire, chunk.low, last.width + chunk.width)
        else:
            found.append(chunk)
    return tuple(found)


def mapped(value: Value, change: Callable[[Part], Value]) -> Value:
    """A value with something else in the place of its parts."""
    return joined(piece for chunk in value for piece in ((chunk,) if isinstance(chunk, str) else change(chunk)))


def read(text: str) -> Design:
    """The modules of RTLIL as Amaranth writes it."""
    reader = _Reader(text)
    found = {module.name: module for module in reader.modules()}
    for name in list(found)[::-1]:  # modules come before what they hold
        _share(found[name])
        if _wraps(found[name], found) and name != next(iter(found)):
            for module in found.values():
                _unwrap(module, found[name])
            del found[name]
    for module in found.values():
        _name_wires(module)
    return found


class _Reader:
    """The grammar of RTLIL as far as Amaranth uses it, a statement a line."""

    def __init__(self, text: str) -> None:
        self.lines = (line.split() for line in text.splitlines() if line.strip())
        self.module = Module("")

    def modules(self) -> Iterator[Module]:
        init = ""
        for words in self.lines:
            match words:
                case ["attribute", name, *value]:
                    init = value[0].partition("'")[2] if name == r"\init" else init
                case ["module", name]:
                    self.module = Module(name[1:])
                case ["wire", "width", width, *rest, name]:
                    direction = next((word for word in rest if word in ("input", "output")), "")
                    plain, anonymous = name.removeprefix("\\"), name.startswith(("$", r"\port$"))
                    self.module.wires[name] = Wire(plain, int(width), direction, init, anonymous)
                    init = ""
                case ["memory", "width", width, "size", depth, name]:
                    self.module.memories[name] = Memory(name.removeprefix("\\"), int(width), int(depth))
                case ["cell", kind, name]:
                    self.module.cells.append(self.cell(kind, name))
                    init = ""
                case ["process", _]:
                    self.module.processes.append(Process(self.body(("end",))))
                case ["connect", name, *value]:
                    self.module.connections.append((self.module.wires[name], self.value(value)))
                case ["end"]:
                    yield self.module
                case _:
                    raise ValueError(f"RTLIL must be as Amaranth writes it, not {' '.join(words)!r}")

    def cell(self, kind: str, name: str) -> Cell:
        found = Cell(kind.removeprefix("\\"), name.removeprefix("\\"))
        for words in self.lines:
            match words:
                case ["end"]:
                    break
                case ["parameter", *_, name, value]:
                    found.parameters[name[1:]] = value
                case ["connect", name, *value]:
                    found.ports[name[1:]] = self.value(value)
        return found

    def body(self, ends: tuple[str, ...]) -> list[Statement]:
        found: list[Statement] = []
        for words in self.lines:
            match words:
                case ["assign", *both]:
                    cut = 2 if both[1].startswith("[") else 1
                    part = self.value(both[:cut])[0]
                    assert isinstance(part, Part)
                    last = found[-1] if found else None
                    value = self.value(both[cut:])
                    if (
                        isinstance(last, Assign)
                        and last.target.wire is part.wire
                        and last.target.low + last.target.width == part.low
                    ):
                        last.target = Part(part.wire, last.target.low, last.target.width + part.width)
                        last.value = joined((*value, *last.value))
                    else:
                        found.append(Assign(part, value))
                case ["switch", *selector]:
                    found.append(Switch(self.value(selector), self.cases()))
                case [word, *rest] if word in ends:
                    self.closed = [word, *rest]
                    break
        return found

    def cases(self) -> list[Case]:
        found: list[Case] = []
        words = next(self.lines)
        while words[0] == "case":
            patterns = [word.strip(",").partition("'")[2] for word in words[1:]]
            found.append(Case(patterns, self.body(("case", "end"))))
            words = self.closed
        return found

    def value(self, words: list[str]) -> Value:
        found: list[Part | str] = []
        for word in words:
            if word in ("{", "}"):
                continue
            if word[0] in "\\$":
                wire = self.module.wires[word]
                found.append(Part(wire, 0, wire.width))
            elif word[0] == "[":
                high, _, low = word[1:-1].partition(":")
                part = found[-1]
                assert isinstance(part, Part)
                found[-1] = Part(part.wire, int(low or high), int(high) - int(low or high) + 1)
            else:
                found.append(word.partition("'")[2])
        return joined(chunk for chunk in found if chunk)


def _drives(cell: Cell, wires: Container[Wire]) -> bool:
    """Whether an operator drives one of these."""
    return any(isinstance(part, Part) and part.wire in wires for part in cell.ports.get("Y", ()))


def _share(module: Module) -> None:
    """One operator for all that are the same, which a generator writes down wherever it needs one."""
    first: dict[tuple[Any, ...], Wire] = {}
    same: dict[Wire, Wire] = {}

    def shared(part: Part) -> Value:
        return (Part(same.get(part.wire, part.wire), part.low, part.width),)

    count = -1
    while len(same) > count:  # what reads two that became one may be the same now
        count = len(same)
        for cell in module.cells:
            cell.ports = {port: mapped(value, shared) if port != "Y" else value for port, value in cell.ports.items()}
            output = cell.ports.get("Y", ("",))[0]
            if isinstance(output, Part) and output.wire.anonymous and output.wire not in same:
                inputs = tuple((port, value) for port, value in cell.ports.items() if port != "Y")
                kept = first.setdefault((cell.kind, tuple(cell.parameters.items()), inputs), output.wire)
                if kept is not output.wire:
                    same[output.wire] = kept
    module.cells = [cell for cell in module.cells if not _drives(cell, same)]

    def changed(body: list[Statement]) -> None:
        for statement in body:
            if isinstance(statement, Assign):
                statement.value = mapped(statement.value, shared)
            else:
                statement.selector = mapped(statement.selector, shared)
                for case in statement.cases:
                    changed(case.body)

    for process in module.processes:
        changed(process.body)
    module.connections = [(wire, mapped(value, shared)) for wire, value in module.connections]
    module.wires = {name: wire for name, wire in module.wires.items() if wire not in same}


def _name_wires(module: Module) -> None:
    """The names of the source for the wires that drive, and those of ports above all.

    What only stands beside something and is read nowhere goes: second names, fields of structures, constants, and what is
    connected to a cell.
    """
    kept = []
    ports: dict[Wire, Wire] = {}
    connected = {value for cell in module.cells if not cell.kind.startswith("$") for value in cell.ports.values()}
    for wire, value in module.connections:
        driver = value[0].wire if value and isinstance(value[0], Part) and value == value[0].wire.whole else None
        if wire.direction and driver and not driver.direction:
            driver.name, driver.anonymous, driver.direction = wire.name, wire.anonymous, wire.direction
            ports[wire] = driver
        elif wire.direction:
            kept.append((wire, value))
        elif driver and driver.anonymous:
            driver.name, driver.anonymous = wire.name, False
        elif not driver and not set(wire.name) & set(".[") and value not in connected and any(isinstance(c, Part) for c in value):
            kept.append((wire, value))
    stay = {wire for wire, _ in kept}
    gone = {wire for wire, _ in module.connections if wire not in stay}
    module.connections = kept
    within = set(ports.values()) | gone - set(ports)
    module.wires = {name: ports.get(wire, wire) for name, wire in module.wires.items() if wire not in within}


def _wraps(module: Module, design: Design) -> bool:
    """It holds one cell that is a module of its own, and nothing else."""
    alone = len(module.cells) == 1 and not module.processes and not module.memories
    return alone and module.cells[0].kind not in design and not module.cells[0].kind.startswith("$")


def _unwrap(module: Module, wrapper: Module) -> None:
    """The one cell of a wrapper in the place of its instances."""
    for place, instance in enumerate(module.cells):
        if instance.kind != wrapper.name:
            continue
        inner = wrapper.cells[0]
        outer = {wire: instance.ports[key[1:]] for key, wire in wrapper.wires.items() if wire.direction}
        driven = {wire: value for wire, value in wrapper.connections if wire.direction}

        def moved(part: Part, outer: dict[Wire, Value] = outer, instance: Cell = instance) -> Value:
            if part.wire not in outer:  # what the cell drives within the wrapper
                made = Wire(f"{instance.name}_{part.wire.name}", part.wire.width)
                module.wires[f"\\{instance.name}.{part.wire.name}"] = made
                outer[part.wire] = made.whole
            return bits(outer[part.wire], part.low, part.width)

        ports = {port: mapped(value, moved) for port, value in inner.ports.items()}
        module.cells[place] = Cell(inner.kind, instance.name, inner.parameters, ports)
        for wire, value in driven.items():
            target = outer[wire][0]
            assert isinstance(target, Part) and target.whole
            module.connections.append((target.wire, mapped(value, moved)))
