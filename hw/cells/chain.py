"""A sum whose operands are chosen inside the carry cells, where a technology has room for that."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from amaranth.hdl import Cat, Const, Instance, Module, Value, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

CELL = "kappa_rtl_chain"
SOURCE = Path(__file__).with_name("chain.v")

Function = Callable[..., int]


class Chain(wiring.Component):
    """``o = one(a, b, c, d) + other(a, b, c, d)``, bit by bit two functions of four bits, modulo ``2**width``.

    It is an instance of the Verilog module in ``chain.v``, which the export puts into the file: plain Verilog, and with
    ``KAPPA_RTL_ECP5`` defined that family's carry cells. They tell by a and b alone what they generate, in the part of the
    sum's table where c and d are zero. So where one and other are equal they follow from a and b, as ``one ^ other`` does with
    zeros for c and d; or d is held at one, and then one and other are functions of three bits.

    A carry comes in from an added bit below in which both are one.

    Raises:
        ValueError: the functions are not like that.

    Ports: ``a``, ``b``, ``c``, ``d``, ``o``. Combinational.
    """

    def __init__(self, width: int, one: Function, other: Function, *, three: bool = False) -> None:
        self.width = width
        self.table = _table(one, other, three)
        super().__init__({name: In(width) for name in "abcd"} | {"o": Out(width)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        ports: dict[str, Any] = {f"i_{name}": getattr(self, name) for name in "abcd"}
        m.submodules.cell = Instance(CELL, p_WIDTH=self.width, p_TABLE=Const(self.table, 16), **ports, o_o=self.o)
        return m


def chained(m: Module, name: str, one: Function, other: Function, *operands: ValueLike) -> Value:
    """The output of a chain of that name, a submodule, as wide as the first operand; an operand of one bit goes to all cells."""
    width = len(Value.cast(operands[0]))
    m.submodules[name] = chain = Chain(width, one, other, three=len(operands) == 3)
    for port, operand in zip("abcd", [*operands, (1 << width) - 1][:4], strict=True):
        value = Value.cast(operand)
        m.d.comb += getattr(chain, port).eq(value.replicate(width) if len(value) == 1 else value)
    return chain.o


def total_of(
    m: Module, name: str, a: ValueLike, b: ValueLike, c: ValueLike, d: ValueLike, carry: Value, or_carry: ValueLike = 0
) -> Value:
    """``(a | b) + (c | d)`` by a chain of that name, as wide as a, and one more if there is a carry."""
    lowest = Value.cast(or_carry)[0]
    operands = (Cat(carry, a), Cat(lowest, b), Cat(carry, c), Cat(lowest, d))
    return chained(m, name, lambda a, b, c, d: a | b, lambda a, b, c, d: c | d, *operands)[1:]


def either(values: Iterable[Value]) -> Value:
    """All of them in one OR."""
    return functools.reduce(operator.or_, values)


def _table(one: Function, other: Function, three: bool) -> int:
    """What the cells hold, a bit for each {d, c, b, a}."""
    table = [False] * 16
    generates: dict[int, bool] = {}
    for row in range(8 if three else 16):
        bits = [row >> i & 1 for i in range(3 if three else 4)]
        x, y = bool(one(*bits)), bool(other(*bits))
        table[row + 8 if three else row] = x != y
        if x == y and generates.setdefault(row % 4, x) != x:
            raise ValueError("one and other must follow from a and b where they are equal")
    for row, carry in generates.items():
        if three:
            table[row] = carry
        elif table[row] != carry:
            raise ValueError("one ^ other for c = d = 0 must be what they are where they are equal")
    return sum(bit << row for row, bit in enumerate(table))
