"""The cells that are written in Verilog: the plain form and that of the ECP5, each against what it is for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

from amaranth.hdl import Cat, Const, Fragment, Instance, Module, Mux, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.config import ThrottleConfig
from support.mutants import Mutant

from .harness import Harness, Proof, component

CONFIG = ThrottleConfig.stability_margin(eta=0.1, elements=640)


class Use(NamedTuple):
    """A cell as the hardware has it: shapes of operands and output, how it is made, what that should be, and when."""

    name: str
    operands: tuple[Any, ...]
    output: Any
    build: Callable[..., Value]
    meant: Callable[..., Value]
    when: Callable[..., Value] = lambda *operands: Const(1)


class Cells(wiring.Component):
    """Cells side by side, each with ports of its own."""

    def __init__(self, uses: list[Use]) -> None:
        self.uses = uses
        layouts = [data.StructLayout({f"x{i}": shape for i, shape in enumerate(use.operands)}) for use in uses]
        super().__init__(
            {f"i{i}": In(layout) for i, layout in enumerate(layouts)} | {f"o{i}": Out(use.output) for i, use in enumerate(uses)}
        )

    def operands(self, number: int) -> list[Value]:
        port = getattr(self, f"i{number}")
        return [port[f"x{i}"] for i in range(len(self.uses[number].operands))]

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for i, use in enumerate(self.uses):
            m.d.comb += getattr(self, f"o{i}").eq(use.build(m, f"cell{i}", *self.operands(i)))
        return m


def cells(package: str, kind: str, ecp5: bool) -> Harness:
    dut = Cells(list(USES[kind](package)))
    h = Harness(dut)
    h.ecp5 = ecp5
    for i, use in enumerate(dut.uses):
        operands = dut.operands(i)
        h.claim(use.name, getattr(dut, f"o{i}") == use.meant(*operands), when=use.when(*operands))
    return h


def chains(package: str) -> Iterator[Use]:
    """Every chain of the scalar unit, by the two functions with which it is made there."""
    chain = component(package, "cells.chain")
    made: dict[tuple[int, int], tuple[Any, Any, int]] = {}

    class Recorded(chain.Chain):
        def __init__(self, width: int, one: Any, other: Any, *, three: bool = False) -> None:
            super().__init__(width, one, other, three=three)
            made[width, self.table] = one, other, 3 if three else 4

    with mock.patch.object(chain, "Chain", Recorded):
        for bits in (24, 32):
            config = CONFIG.replace(mantissa_bits=bits)
            Fragment.get(component(package, "scalar.unit").ScalarUnit.for_config(config), None)
            Fragment.get(component(package, "scalar.sqrt").SquareRoot(2 * bits, bits), None)
    for (width, table), (one, other, inputs) in sorted(made.items()):

        def build(m: Module, name: str, *operands: Value, one: Any = one, other: Any = other) -> Any:
            return chain.chained(m, name, one, other, *operands)

        def meant(*operands: Value, one: Any = one, other: Any = other) -> Any:
            return (_bitwise(one, *operands) + _bitwise(other, *operands))[: len(operands[0])]

        yield Use(f"table {table:04x} of {width} bits", (unsigned(width),) * inputs, width, build, meant)


def _bitwise(function: Callable[..., int], *operands: Value) -> Value:
    """Of each bit of the operands, by a table of the function."""
    rows = 1 << len(operands)
    table = Const(sum(bool(function(*(row >> i & 1 for i in range(len(operands))))) << row for row in range(rows)), rows)
    return Cat(table.bit_select(Cat(bits), 1) for bits in zip(*operands, strict=True))


def choices(package: str) -> Iterator[Use]:
    """Of any number of bits; the roots have them of 8, and of 5 at the end."""
    for count in range(1, 9):

        def build(m: Module, name: str, bits: Value, number: Value) -> Any:
            return component(package, "cells.choose").choose(m, name, list(bits), number)

        places = unsigned((count - 1).bit_length())
        yield Use(
            f"one of {count} bits",
            (unsigned(count), places),
            1,
            build,
            lambda bits, number: (bits >> number)[0],
            lambda bits, number, count=count: number < count,
        )


def gates(package: str) -> Iterator[Use]:
    """Functions of one to four bits, of words and of single bits that go to all."""
    functions: dict[str, tuple[Callable[..., int], tuple[int, ...]]] = {
        "the same": (lambda a: a, (3,)),
        "either, or the other is not": (lambda a, b: b or not a, (1, 1)),
        "a choice": (lambda a, b, select: b if select else a, (24, 24, 1)),
        "a choice of two": (lambda select, a, b, c: a or b if select else not c, (1, 1, 1, 1)),
    }
    for name, (function, widths) in functions.items():
        width = 3 if max(widths) == 1 else max(widths)

        def build(m: Module, cell: str, *operands: Value, function: Any = function, width: int = width) -> Any:
            return component(package, "cells.gate").gates(m, cell, width, function, *operands)

        def meant(*operands: Value, function: Any = function, width: int = width) -> Any:
            return _bitwise(function, *(word.replicate(width) if len(word) == 1 else word for word in operands))

        yield Use(f"{name}, {width} bits", tuple(unsigned(bits) for bits in widths), width, build, meant)


def carries(package: str) -> Iterator[Use]:
    """Of the widths that the throttle has, and of one more, as two bits share a cell."""
    carry = component(package, "cells.carry")
    throttle = Fragment.get(component(package, "units.throttle").Throttle(CONFIG), None)
    made = set(_instances(throttle, f"{carry.CELL}_"))
    for kind, width in sorted({(kind, width + more) for kind, width in made for more in (0, 1)}):
        bits, word, build, meant = {
            "add": ([1], unsigned(width), carry.add_either, lambda a, b, c, select: a + Mux(select, c, b)),
            # Up to an even one.
            "round": ([1], signed(width), carry.round_half, lambda a, b, half: a + b + (half & (a[0] ^ b[0]))),
            "subtract": ([], signed(width), carry.subtract_either, lambda a, b, c: a - (b | c)),
        }[kind]
        words = [word] * (2 if kind == "round" else 3)

        def cell(m: Module, name: str, *operands: Value, build: Any = build, width: int = width) -> Any:
            return build(m, name, *operands, width)

        def sum_of(*operands: Value, meant: Any = meant, width: int = width) -> Any:
            return meant(*operands)[:width]

        yield Use(f"{kind} {width} bits", (*words, *bits), width, cell, sum_of)


def _instances(fragment: Any, prefix: str) -> Iterator[tuple[str, int]]:
    """The modules of Verilog in a design, and how wide they are."""
    if isinstance(fragment, Instance) and fragment.type.startswith(prefix):
        yield fragment.type.removeprefix(prefix), fragment.parameters["WIDTH"]
    for inner, *_ in fragment.subfragments:
        yield from _instances(inner, prefix)


USES = {"chain": chains, "choose": choices, "gate": gates, "carry": carries}
WHAT = {
    "chain": "one + other modulo 2**width, for all functions and widths of divider, root and scalar unit, M = 24 and 32",
    "choose": "the bit of that number, of 1 to 8 bits",
    "gate": "any function of one to four bits, bit by bit; a single bit goes to all",
    "carry": "a - (b or c), a + (c if select else b), a + b + half / 2 with a tie to even, at the throttle's widths and one more",
}
FORM = "assign g[i] = TABLE[{2'b00, b[i], a[i]}]"
MUTANTS = {
    ("chain", False): (
        Mutant("cells/chain.v", FORM, "assign g[i] = TABLE[{2'b10, b[i], a[i]}]", "a carry is that of other rows of the table"),
        Mutant("cells/chain.py", "sum(bit << row for", "1 ^ sum(bit << row for", "a bit of the table, where all are zero"),
    ),
    ("chain", True): (
        Mutant("cells/chain.py", "sum(bit << row for", "1 ^ sum(bit << row for", "a bit of the table, where all are zero"),
        Mutant("cells/chain.py", "sum(bit << row for", "1 << 13 ^ sum(bit << row for", "a bit of the table of four inputs"),
        Mutant("cells/chain.v", ".INIT1(TABLE)", ".INIT1(TABLE ^ 16'h0800)", "a bit of every other table"),
        Mutant("cells/chain.v", "assign carry[0] = 1'b0", "assign carry[0] = 1'b1", "the chain begins with a carry"),
    ),
    ("choose", False): (
        Mutant("cells/choose.v", "assign o = of[select]", "assign o = of[select[1:0]]", "its upper half is not seen"),
    ),
    ("choose", True): (
        Mutant("cells/choose.v", "16'hcaca", "16'hcaea", "a bit of a table"),
        Mutant(
            "cells/choose.v",
            ".ALUT(two[2*k+1]), .BLUT(two[2*k])",
            ".ALUT(two[2*k]), .BLUT(two[2*k+1])",
            "a lower bit for an upper one",
        ),
        Mutant("cells/choose.v", "COUNT > 6", "COUNT > 7", "of seven bits the last one is lost"),
    ),
    ("gate", False): (
        Mutant(
            "cells/gate.v", "TABLE[{d[i], c[i], b[i], a[i]}]", "TABLE[{d[i], b[i], c[i], a[i]}]", "two operands change places"
        ),
        Mutant(
            "cells/gate.py", "<< row for row in range(16)", "<< row for row in range(15)", "the last row of the table is lost"
        ),
    ),
    ("gate", True): (
        Mutant("cells/gate.v", ".C(c[i]), .D(d[i])", ".C(d[i]), .D(c[i])", "two operands change places"),
        Mutant("cells/gate.v", ".INIT(TABLE)", ".INIT(TABLE ^ 16'h0100)", "a bit of the table"),
    ),
    ("carry", False): (
        Mutant("cells/carry.v", "half & (a[0] ^ b[0])", "half", "a tie rounds up"),
        Mutant("cells/carry.v", "assign o = a + (s ? c : b)", "assign o = a + (s ? b : c)", "the other operand"),
    ),
    ("carry", True): (
        Mutant("cells/carry.v", ".INIT1(16'hA9AA)", ".INIT1(16'hA8AA)", "a bit of the difference's table"),
        Mutant("cells/carry.v", ".INIT0(16'h569A)", ".INIT0(16'h569E)", "a bit of the sum's table"),
        Mutant("cells/carry.v", "16'h060E", "16'h0606", "a bit of the rounding's table"),
    ),
}
PROOFS = [
    Proof(
        f"{kind}, {'ECP5' if ecp5 else 'plain'}",
        WHAT[kind],
        lambda package, kind=kind, ecp5=ecp5: cells(package, kind, ecp5),
        "any state",
        1,
        mutants=MUTANTS[kind, ecp5],
    )
    for kind in USES
    for ecp5 in (False, True)
]
