"""Counters of what passes over many elements find, with one adder of full width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.registers import COUNTER_BITS
from ..cells.carry import add_either
from ..cells.chain import chained

FOUND = {
    "rail": ("gradient_saturated", "weight_saturated"),
    "near": ("gradient_near_rail", "weight_near_rail"),
    "saturated": (None, "update_saturated"),
    "swallowed": (None, "update_underflow"),
    "update_rail": (None, "update_rail"),
    "update_near": (None, "update_near_rail"),
}
"""What the lanes' flags count up, in the first pass and in the second.

It is the order of the hardware, and not that of the registers: one comparison a lane finds the rails of gradients in the first
pass and those of weights in the second, so these two share a number, and the totals of a pass stand side by side.
"""


RAILS_OF_UPDATES = ("update_rail", "update_near")
"""The flags that a unit has only with ``every_rail``."""


def flags(every_rail: bool) -> list[str]:
    """The lanes' flags, in the order in which they are counted."""
    return [flag for flag in FOUND if every_rail or flag not in RAILS_OF_UPDATES]


def counted(every_rail: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The counters of elements by pass, each in the order in which they are brought up to date."""
    first, second = zip(*(FOUND[flag] for flag in flags(every_rail)), strict=True)
    return tuple(name for name in first if name), tuple(name for name in second if name)


class Counters(wiring.Component):
    """Totals modulo 2**32 of the numbers that come cycle by cycle, brought up to date group by group.

    The numbers of a pass are counted in registers just wide enough, which then pass the adder one by one, as do the totals,
    a ring of registers. So none of them has to be chosen.

    Ports: ``numbers``, what is to be counted; ``add``, a pulse for the group whose counts they were since the last one: from the
    next cycle on, one cycle for each of the group, they are added and all numbers must be zero; ``more`` says that this goes on
    in the next cycle. The groups take turns. ``totals`` are valid after the last group. ``clear`` zeroes them all, and what was
    counted since, in the two cycles that follow; numbers must be zero after these.

    Args:
        groups: how many totals each has, in order; total i of a group counts ``numbers[i]``.
        number: the largest number.
        most: the largest sum of numbers in a pass.

    Reset: the first group's turn; all zero two cycles later, until then numbers may be anything.
    """

    def __init__(self, groups: tuple[int, ...], number: int, most: int) -> None:
        self.groups, self.bits = groups, most.bit_length()
        super().__init__(
            {
                "numbers": In(data.ArrayLayout(range(number + 1), max(groups))),
                "add": In(len(groups)),
                "more": Out(1),
                "clear": In(1),
                "totals": Out(data.ArrayLayout(unsigned(COUNTER_BITS), sum(groups))),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        counts = [Signal(self.bits, name=f"count{i}", reset_less=True) for i in range(max(self.groups))]
        ring = [Signal(COUNTER_BITS, name=f"total{i}", reset_less=True) for i in range(sum(self.groups))]
        left = Signal(max(self.groups) + 1)  # a one for each count that is still to be added
        adding = left[0]
        m.d.sync += left.eq(left >> 1)
        for add, size in zip(self.add, self.groups, strict=True):
            with m.If(add):
                m.d.sync += left.eq((1 << size) - 1)
        m.d.comb += [self.more.eq(left[1]), Cat(*self.totals).eq(Cat(*ring))]
        for i, (count, behind) in enumerate(zip(counts, [*counts[1:], 0], strict=True)):
            m.d.sync += count.eq(add_either(m, f"counted{i}", self.numbers[i], count, behind, adding, self.bits))
        with m.If(adding):
            m.d.sync += Cat(*ring).eq(Cat(*ring[1:], (ring[0] + counts[0])[:COUNTER_BITS]))
        # In the two cycles after `clear` or a reset. The registers are many and far apart: so a register tells them, not a gate.
        cleared, clears = Signal(init=1), Signal(init=1)
        m.d.sync += [cleared.eq(self.clear), clears.eq(self.clear | cleared)]
        with m.If(clears):
            m.d.sync += [register.eq(0) for register in counts + ring]
        return m


def summed(m: Module, name: str, numbers: Sequence[Value]) -> Value:
    """The sum of unsigned numbers, by carry chains of that name: left to itself Yosys makes so short a sum of gates."""
    level = 0
    while len(numbers) > 1:
        pairs = [numbers[i : i + 2] for i in range(0, len(numbers), 2)]
        numbers = [_sum(m, f"{name}_sum{level}_{i}", *pair) for i, pair in enumerate(pairs)]
        level += 1
    return numbers[0]


def _sum(m: Module, name: str, a: Value, b: Value | None = None) -> Value:
    if b is None:
        return a
    bits = max(len(a), len(b)) + 1
    padded = [Cat(value, Const(0, bits - len(value))) for value in (a, b)]
    return chained(m, name, lambda a, b, c: a, lambda a, b, c: b, *padded, Const(0, 1))


def ones(flags: Value) -> Value:
    """How many of up to four flags are up, as gates: a look-up table a bit."""
    if len(flags) < 4:
        return sum(flags, Const(0, 1))
    a, b, c, d = flags
    pair = (a & b) | (c & d) | ((a | b) & (c | d))
    return Cat(flags.xor(), pair & ~flags.all(), flags.all())
