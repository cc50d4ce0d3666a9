"""Terms of a sum at their places, and the tree of adders that makes one of them."""

from __future__ import annotations

from typing import NamedTuple

from amaranth.hdl import Cat, Const, Module, Signal, Value

__all__ = ["Row", "padded", "sums"]


class Row(NamedTuple):
    """A term of a sum, ``value * 2**place``."""

    place: int
    value: Value


def padded(value: Value, bits: int) -> Value:
    """The low ``bits`` bits of a value, zeros above it if it is shorter."""
    return Cat(value, Const(0, max(0, bits - len(value))))[:bits]


def sums(m: Module, rows: list[Row], level: int, most: int) -> list[Row]:
    """Registers for the sums of two rows each; the caller proves that they fit ``most`` bits."""
    return [_sum(m, rows[i : i + 2], f"work{level}_{i // 2}", most) for i in range(0, len(rows), 2)]


def _sum(m: Module, rows: list[Row], name: str, most: int) -> Row:
    """A register for the sum of one or two rows; the caller proves that it fits ``most`` bits."""
    rows = sorted(rows, key=lambda row: row.place)
    low = rows[0].place
    value = rows[0].value
    if len(rows) > 1:
        places = rows[1].place - low
        value = Cat(padded(value, places), value[places:] + rows[1].value)
    register = Signal(min(len(value), most - low), name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return Row(low, register)
