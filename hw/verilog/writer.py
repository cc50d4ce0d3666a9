"""Verilog of a design: Verilog-2005 that is SystemVerilog too, written to be read.

Operators that are used once stand where they are used. All that follows at once from something else is an ``assign`` or the
value of a wire, and all registers of a module are one ``always`` block: so nothing waits for an event at the start of time,
which the two languages see differently.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .names import Names, named
from .netlist import Assign, Cell, Design, Module, Part, Process, Statement, Switch, Value, Wire, bits, joined, length
from .statements import Choice, If, Node, block, merged, negated, when, wrapped

__all__ = ["write"]

UNARY = {"$not": "~", "$neg": "-", "$reduce_or": "|", "$reduce_and": "&", "$reduce_xor": "^", "$reduce_bool": "|"}
BINARY = {
    **{"$add": "+", "$sub": "-", "$mul": "*", "$and": "&", "$or": "|", "$xor": "^"},
    **{"$shl": "<<", "$shr": ">>", "$sshr": ">>>", "$shift": ">>"},
    **{"$eq": "==", "$ne": "!=", "$lt": "<", "$le": "<=", "$gt": ">", "$ge": ">="},
}
COMPARES = ("$eq", "$ne", "$lt", "$le", "$gt", "$ge")
SHIFTS = ("$shl", "$shr", "$sshr", "$shift")
REDUCES = ("$reduce_or", "$reduce_and", "$reduce_xor", "$reduce_bool")
CHAINS = ("&", "|", "^", "+")
"""Operators of which several may follow each other without parentheses."""


@dataclass(frozen=True)
class Expression:
    """Verilog text, how many bits it has where nothing around it asks for more, and how it may be used.

    ``operator`` is its outermost one, nothing for a name, a slice or a constant. ``closed``: its bits do not depend on how many
    the text around it has.
    """

    text: str
    width: int
    operator: str = ""
    signed: bool = False
    closed: bool = False


def write(design: Design, names: dict[str, str]) -> str:
    """The text of all modules, the top first.

    Args:
        names: of the modules in Verilog, by their names in the design and by the kinds of cells that are not in it.
    """
    identifiers = {module.name: named(module, design) for module in design.values()}
    return "\n".join(_Writer(module, design, names, identifiers[module.name]).text() for module in design.values())


class _Writer:
    """One module. Expressions are written as they are asked for; what cannot stand in another one becomes a wire."""

    def __init__(self, module: Module, design: Design, names: dict[str, str], identifiers: Names) -> None:
        self.module, self.design, self.names, self.identifiers = module, design, names, identifiers
        self.cells = {self._output(cell): cell for cell in module.cells if cell.kind.startswith("$") and "Y" in cell.ports}
        self.registers = {self._output(cell): cell for cell in module.cells if cell.kind in ("$dff", "$adff")}
        self.reads = {self._output(cell): cell for cell in module.cells if cell.kind == "$memrd_v2"}
        self.fetched = [wire for wire, cell in self.reads.items() if cell.number("CLK_ENABLE")]
        self.processes = {process.target: process for process in module.processes}
        self.connected = dict(module.connections)
        self.uses: Counter[Wire] = Counter()
        for value in self._read():
            self.uses.update({chunk.wire for chunk in value if isinstance(chunk, Part)})
        # What decides the next state of one register, and nothing else, stands in the clocked block.
        self.clocked: dict[Wire, Process] = {}
        for wire, cell in self.registers.items():
            source = cell.ports["D"]
            if len(source) == 1 and isinstance(source[0], Part) and source[0].whole:
                process = self.processes.get(source[0].wire)
                if process and self.uses[source[0].wire] == 1 and source[0].wire.anonymous:
                    self.clocked[wire] = process
                    del self.processes[source[0].wire]
        self.inlined = {wire for wire in self.cells if self.uses[wire] == 1 and wire.anonymous}
        self.begun: set[Wire] = set()
        self.lines: dict[Wire, str] = {}
        self.declared: dict[Wire, None] = {}  # those that have to be before what they are made of

    def _output(self, cell: Cell) -> Wire:
        chunk = cell.ports[{"$dff": "Q", "$adff": "Q", "$memrd_v2": "DATA"}.get(cell.kind, "Y")][0]
        assert isinstance(chunk, Part) and chunk.whole
        return chunk.wire

    def _read(self) -> Iterator[Value]:
        """All values that something is made of."""
        for cell in self.module.cells:
            driven = ("Y", "Q", *(["DATA"] if cell.kind == "$memrd_v2" else [])) if cell.kind.startswith("$") else ()
            yield from (value for port, value in cell.ports.items() if port not in driven)
        yield from (value for _, value in self.module.connections)
        for process in self.module.processes:
            yield from self._values(process.body)

    def _values(self, body: Iterable[Statement]) -> Iterator[Value]:
        for statement in body:
            if isinstance(statement, Assign):
                yield statement.value
            else:
                yield statement.selector
                for case in statement.cases:
                    yield from self._values(case.body)

    # ---------------------------------------------------------------------------------------------- expressions

    def value(self, value: Value, width: int | None = None) -> Expression:
        """A value; ``width`` is that of the text around it, which widens operands to it; None if nothing around it does."""
        size = length(value)
        if not size:
            return Expression("1'h0", 1, closed=True)
        if len(value) == 1:
            return self._chunk(value[0], width)
        pieces: list[str] = []
        repeated = 0
        for place, chunk in enumerate(value):
            repeated += 1
            if place + 1 < len(value) and value[place + 1] == chunk:
                continue
            text = self._chunk(chunk, None).text
            pieces.append(text if repeated == 1 else f"{{{repeated}{{{text}}}}}")
            repeated = 0
        return Expression("{" + ", ".join(pieces) + "}" if len(pieces) > 1 else pieces[0], size, closed=True)

    def _chunk(self, chunk: Part | str, width: int | None) -> Expression:
        if isinstance(chunk, str):
            return Expression(_constant(chunk), len(chunk), closed=True)
        wire = chunk.wire
        if chunk.whole and wire in self.inlined:
            found = self.cell(self.cells[wire])
            if found.closed or (width is None and found.width == wire.width):
                return found
            if found.width <= wire.width == width and not found.signed:
                return found  # the text around it widens the operands, as this operator does
            if found.width == wire.width:
                return Expression(f"{{{found.text}}}", wire.width, closed=True)
            self.inlined.discard(wire)
        self.define(wire)
        if chunk.whole:
            return Expression(wire.name, wire.width, closed=True)
        place = str(chunk.low) if chunk.width == 1 else f"{chunk.low + chunk.width - 1}:{chunk.low}"
        return Expression(f"{wire.name}[{place}]", chunk.width, closed=True)

    def operand(self, value: Value, operator: str, width: int | None = None, *, signed: bool = False) -> Expression:
        """A value as an operand, in parentheses where it needs them."""
        found = self.value(value, width)
        if signed:
            return Expression(f"$signed({self.value(value).text})", length(value), signed=True)
        if (
            found.operator
            and not (found.operator == operator in CHAINS)
            and not (found.operator == "~" and operator in BINARY.values())
        ):
            return Expression(f"({found.text})", found.width, "", found.signed, found.closed)
        return found

    def cell(self, cell: Cell) -> Expression:
        """An operator."""
        kind, ports = cell.kind, cell.ports
        width = length(ports["Y"])
        if kind == "$mux":
            condition = self.operand(ports["S"], "?")
            then = self.operand(ports["B"], "", width)
            otherwise = self.value(ports["A"], width)
            text = f"{condition.text} ? {then.text} : {otherwise.text}"
            return Expression(text, max(then.width, otherwise.width), "?")
        signed = cell.parameters["A_SIGNED"] == "1"
        if kind == "$reduce_and" and not length(ports["A"]):
            return Expression("1'h1", 1, closed=True)  # all of no bits
        if kind in UNARY:
            reduces = kind in REDUCES
            operand = self.operand(ports["A"], "unary", None if reduces else width, signed=signed)
            text = f"{UNARY[kind]}{operand.text}"
            if reduces:
                return Expression(text, 1, "unary", closed=True)
            return Expression(text, operand.width, UNARY[kind], signed)
        if kind not in BINARY:
            raise ValueError(f"a cell must be one of {', '.join([*UNARY, *BINARY, '$mux'])}, not {kind!r}")
        operator = ">>>" if kind == "$shift" and signed else BINARY[kind]
        # The two that are compared widen each other alone: one at least has to have all its bits by itself.
        inside = None if kind in COMPARES else width
        one = self.operand(ports["A"], operator, inside, signed=signed)
        if kind in SHIFTS:
            other = self.operand(ports["B"], operator)
            return Expression(f"{one.text} {operator} {other.text}", one.width, operator, signed)
        other = self.operand(ports["B"], operator, inside, signed=signed)
        text = f"{one.text} {operator} {other.text}"
        if kind in COMPARES:
            return Expression(text, 1, operator, closed=True)
        return Expression(text, max(one.width, other.width), operator, signed)

    # ------------------------------------------------------------------------------------------------- wires

    def define(self, wire: Wire) -> None:
        """Write a wire with its value, behind those that it is made of."""
        if wire in self.begun:
            if wire not in self.lines:  # it is made of itself, by other bits
                self.declared[wire] = None
            return
        if wire.direction == "input" or wire in self.registers or wire in self.fetched:
            return
        self.begun.add(wire)
        if wire.anonymous:
            wire.name, wire.anonymous = self.identifiers.identifier("n"), False
        if wire in self.cells:
            value = self.cell(self.cells[wire]).text
        elif wire in self.processes:
            value = self.decided(self.processes[wire])
        elif wire in self.connected:
            value = self.value(self.connected[wire]).text
        elif wire in self.reads:
            value = f"{self.memory(self.reads[wire])}[{self.value(self.reads[wire].ports['ADDR']).text}]"
        else:  # an instance drives it
            self.declared[wire] = None
            self.lines[wire] = ""
            return
        self.lines[wire] = value

    def decided(self, process: Process) -> str:
        """What a process gives its wire, as one expression; piece by piece where it decides on pieces."""
        wire = process.target
        edges = {0, wire.width}
        for target in _targets(process.body):
            edges |= {target.low, target.low + target.width}
        places = sorted(edges)
        pieces = [self._piece(process.body, low, high - low) for low, high in itertools.pairwise(places)]
        if not any(isinstance(piece, Decision) for piece in pieces):
            return self.value(joined(chunk for piece in reversed(pieces) if isinstance(piece, tuple) for chunk in piece)).text
        if len(pieces) == 1:
            return self._chosen(pieces[0], wire.width).text
        return "{" + ", ".join(self._chosen(piece, None).text for piece in reversed(pieces)) + "}"

    def _piece(self, body: list[Statement], low: int, width: int, before: Tree = ()) -> Tree:
        """The value of some bits behind these statements."""
        for statement in body:
            if isinstance(statement, Assign):
                target = statement.target
                if target.low <= low < target.low + target.width:
                    before = bits(statement.value, low - target.low, width)
                continue
            ways = [(case.patterns, self._piece(case.body, low, width, before)) for case in statement.cases]
            if any(way is not before for _, way in ways):
                if not statement.selector:
                    before = ways[0][1]
                    continue
                last = ways.pop()[1] if not ways[-1][0] else before
                before = Decision(statement.selector, ways, last)
        return before

    def _chosen(self, tree: Tree, width: int | None) -> Expression:
        if not isinstance(tree, Decision):
            return self.value(tree, width)
        text = ""
        for patterns, way in tree.ways:
            then = self._chosen(way, width)
            condition = self.matches(tree.selector, patterns)
            condition = f"({condition})" if " " in condition and condition[0] != "(" else condition
            text += f"{condition} ? {f'({then.text})' if then.operator else then.text} : "
        otherwise = self._chosen(tree.otherwise, width)
        return Expression(text + otherwise.text, otherwise.width, "?")

    def matches(self, selector: Value, patterns: list[str]) -> str:
        """Whether a selector has one of these patterns."""
        found = []
        for pattern in patterns:
            fixed = [place for place, bit in enumerate(reversed(pattern)) if bit != "-"]
            if len(fixed) == 1:
                bit = self.value(bits(selector, fixed[0], 1)).text
                found.append(bit if "1" in pattern else negated(bit))
                continue
            # Each bit that matters is looked at where it is made, the others are not read.
            same = joined(chunk for place in reversed(fixed) for chunk in bits(selector, place, 1))
            self.inlined -= {chunk.wire for chunk in same if isinstance(chunk, Part)}
            found.append(f"{self.operand(same, '==').text} == {_constant(pattern.replace('-', ''))}")
        return found[0] if len(found) == 1 else " || ".join(f"({text})" if " " in text else text for text in found)

    # ------------------------------------------------------------------------------------------------ memories

    def memory(self, cell: Cell) -> str:
        """The memory of a port."""
        return self.module.memories[cell.parameters["MEMID"].strip('"').removeprefix("\\")].name

    def memories(self) -> Iterator[str]:
        """What is in them at power-up, and their clocked ports. A word that is read as it is written is the old one."""
        for cell in self.module.cells:
            if cell.kind == "$meminit_v2":
                name, width, words = self.memory(cell), cell.number("WIDTH"), cell.number("WORDS")
                data = "".join(chunk for chunk in cell.ports["DATA"] if isinstance(chunk, str))
                rows = [_constant(data[len(data) - width * (i + 1) : len(data) - width * i]) for i in range(words)]
                yield from block("initial", [f"{name}[{i}] = {row};" for i, row in enumerate(rows)], 2)
            elif cell.kind in ("$memwr_v2", "$memrd_v2") and cell.number("CLK_ENABLE"):
                if cell.parameters.get("TRANSPARENCY_MASK", "").partition("'")[2].strip("0"):
                    raise ValueError(f"memory {self.memory(cell)} must give the old word when it is written, not the new one")
                edge = "posedge" if cell.number("CLK_POLARITY") else "negedge"
                word = f"{self.memory(cell)}[{self.value(cell.ports['ADDR']).text}]"
                if cell.kind == "$memrd_v2":
                    enable = self.value(cell.ports["EN"]).text
                    node: Node = f"{self._output(cell).name} <= {word};"
                    nodes = [node if enable == "1'h1" else If(enable, [node])]
                else:
                    nodes = self._strobed(word, cell.ports["DATA"], cell.ports["EN"])
                yield from block(f"always @({edge} {self.value(cell.ports['CLK']).text})", nodes, 2)

    def _strobed(self, word: str, data: Value, enables: Value) -> list[Node]:
        """A write: its bits in pieces that have one enable."""
        size = length(enables)
        each = [bits(enables, place, 1) for place in range(size)]
        cuts = [0, *(place for place in range(1, size) if each[place] != each[place - 1]), size]
        found: list[Node] = []
        for low, high in itertools.pairwise(cuts):
            piece = word if high - low == size else f"{word}[{high - 1}:{low}]"
            node = f"{piece} <= {self.value(bits(data, low, high - low)).text};"
            enable = self.value(each[low]).text
            found.append(node if enable == "1'h1" else If(enable, [node]))
        return found

    # -------------------------------------------------------------------------------------------- clocked blocks

    def clock(self) -> Iterator[str]:
        """The registers, a block for each clock and reset."""
        blocks: dict[tuple[str, str], list[Wire]] = {}
        for wire, cell in self.registers.items():
            edge = "posedge" if cell.number("CLK_POLARITY") else "negedge"
            event = f"{edge} {self.value(cell.ports['CLK']).text}"
            reset = self.value(cell.ports["ARST"]).text if cell.kind == "$adff" else ""
            blocks.setdefault((event, reset), []).append(wire)
        for (event, reset), wires in blocks.items():
            states, resets = [], []
            for wire in wires:
                bodies, cleared = self._next(wire)
                states += bodies
                resets += cleared
            nodes = merged(states) + merged(resets)
            if reset:
                event = f"{event} or posedge {reset}"
                nodes = [If(reset, [f"{wire.name} <= {_constant(wire.init)};" for wire in wires], nodes)]
            yield from block(f"always @({event})", nodes, 2)

    def _next(self, wire: Wire) -> tuple[list[list[Node]], list[list[Node]]]:
        """What happens to a register at an edge of its clock, in lists whose order is free; and what resets it after all."""
        process = self.clocked.get(wire)
        if process is None:
            return [[f"{wire.name} <= {self.value(self.registers[wire].ports['D'], wire.width).text};"]], []

        def nodes(body: list[Statement]) -> list[Node]:
            found: list[Node] = []
            for statement in body:
                if isinstance(statement, Assign):
                    target = Part(wire, statement.target.low, statement.target.width)
                    if (target,) != statement.value:  # else it holds by itself
                        value = self.value(statement.value, target.width)
                        found.append(f"{self.value((target,)).text} <= {value.text};")
                elif not statement.selector:
                    found += nodes(statement.cases[0].body)
                else:
                    found += self._switch(statement, [nodes(case.body) for case in statement.cases])
            return found

        body, last = process.body, process.body[-1]
        resets: list[list[Node]] = []
        # A synchronous reset is the last decision. It stands behind those of all registers, once.
        if isinstance(last, Switch) and self.value(last.selector).text == "rst" and last.cases[0].patterns == ["1"]:
            reset = last.cases[0].body
            if len(reset) == 1 and isinstance(reset[0], Assign) and reset[0].value == (wire.init,):
                body, resets = body[:-1], [nodes([last])]
        # What is said of different bits may stand in any order.
        spans = [list(_targets([statement])) for statement in body[1:]]
        ends = sorted((min(p.low for p in span), max(p.low + p.width for p in span)) for span in spans if span)
        if nodes(body[:1]) or any(end > low for (_, end), (low, _) in itertools.pairwise(ends)):
            return [nodes(body)], resets
        return [nodes([statement]) for statement in body], resets

    def _switch(self, switch: Switch, bodies: list[list[Node]]) -> list[Node]:
        """A switch by the bits of one selector is a ``case``, one by conditions a chain in which the first that holds counts."""
        rows = [case.patterns for case in switch.cases]
        if length(switch.selector) > 1 and not any("-" in pattern for row in rows for pattern in row):
            cases = [
                (", ".join(_constant(pattern) for pattern in row) or "default", body)
                for row, body in zip(rows, bodies, strict=True)
            ]
            if rows[-1]:
                cases = [(label, body) for label, body in cases if body] + [("default", [])]
            return [Choice(self.value(switch.selector).text, cases)]
        found: list[Node] = []
        for row, body in reversed(list(zip(rows, bodies, strict=True))):
            if not row:
                found = body
            elif body:
                found = [when(self.matches(switch.selector, row), body, found)]
            elif found:
                found = [when(negated(self.matches(switch.selector, row)), found, [])]
        return found

    # --------------------------------------------------------------------------------------------------- text

    def text(self) -> str:
        """The module."""
        for wire in self.module.wires.values():
            if not wire.anonymous:
                self.define(wire)
        instances = [line for cell in self.module.cells if not cell.kind.startswith("$") for line in self.instance(cell)]
        clocked = [*self.clock(), *self.memories()]
        ports = self.module.ports
        lines = [f"module {self.names[self.module.name]} ("]
        for wire in ports:
            kind = "reg" if wire in self.registers or wire in self.fetched else "wire"
            lines.append(f"  {wire.direction} {kind} {_range(wire)}{wire.name}{',' if wire is not ports[-1] else ''}")
        lines.append(");")
        lines += [f"  reg {_range(wire)}{wire.name};" for wire in (*self.registers, *self.fetched) if not wire.direction]
        lines += [f"  reg [{one.width - 1}:0] {one.name} [0:{one.depth - 1}];" for one in self.module.memories.values()]
        lines += [f"  wire {_range(wire)}{wire.name};" for wire in self.declared if not wire.direction]
        for wire, value in self.lines.items():
            if value:
                declares = wire not in self.declared and not wire.direction
                lines.append(wrapped(f"{f'wire {_range(wire)}' if declares else 'assign '}{wire.name} = {value};", 2))
        initial: list[Node] = [f"{wire.name} = {_constant(wire.init)};" for wire in self.registers]
        initial += [f"{wire.name} = {_constant('0' * wire.width)};" for wire in self.fetched]
        if initial:
            lines += block("initial", initial, 2)
        return "\n".join([*lines, *clocked, *instances, "endmodule", ""])

    def instance(self, cell: Cell) -> Iterator[str]:
        """A submodule, or one of the modules that stand behind the design."""
        inner = self.design.get(cell.kind)
        parameters = ", ".join(f".{name}({_parameter(value)})" for name, value in cell.parameters.items())
        ports = ", ".join(
            f".{inner.wires[chr(92) + port].name if inner else port}({self.value(value).text})"
            for port, value in cell.ports.items()
        )
        yield wrapped(f"{self.names[cell.kind]} {f'#({parameters}) ' if parameters else ''}{cell.name} ({ports});", 2)


@dataclass
class Decision:
    """One of several values, by the patterns of a selector."""

    selector: Value
    ways: list[tuple[list[str], Tree]]
    otherwise: Tree


Tree = Value | Decision


def _targets(body: Iterable[Statement]) -> Iterator[Part]:
    for statement in body:
        if isinstance(statement, Assign):
            yield statement.target
        else:
            for case in statement.cases:
                yield from _targets(case.body)


def _range(wire: Wire) -> str:
    return f"[{wire.width - 1}:0] " if wire.width > 1 else ""


def _constant(pattern: str) -> str:
    return f"{len(pattern)}'h{int(pattern, 2):x}"


def _parameter(value: str) -> str:
    return _constant(value.partition("'")[2]) if "'" in value else value
