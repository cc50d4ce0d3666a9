"""Scalars on wires, and what the scalar unit can do to them."""

from __future__ import annotations

import enum

from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from ...golden.formats import Scalar, ScalarFormat

__all__ = ["SHORT", "Operation", "constant", "scalar_layout"]


class Operation(enum.Enum):
    """What becomes of the accumulator y, with the operand x. A value is a set of bits: what the unit does for the operation."""

    HOLD = 0  #: y
    LOAD = 1  #: x
    MAX = 2  #: the larger one
    MIN = 4  #: the smaller one
    MUL = 8  #: rnd(x * y)
    ADD = 16  #: rnd(x + y)
    PRODUCT = MUL | 32  #: x * y, for the STEP that follows: cut off, what is lost is remembered, and no bound on the exponent
    STEP = ADD | 64  #: y on the grid whose exponent x has, an integer in ``step``
    DIVIDE = 128  #: y, while y / x is begun
    UNDER = 256  #: y, while x / y is begun; by zero it is the largest scalar, and no overflow
    QUOTIENT = 512  #: rnd of the quotient that was begun
    ROOT = 1024  #: rnd of the root of the radicand that came; x has the exponent of an integer that was not shifted


SHORT = (Operation.HOLD, Operation.LOAD, Operation.MAX, Operation.MIN, Operation.DIVIDE, Operation.UNDER)


def scalar_layout(fmt: ScalarFormat) -> data.StructLayout:
    """``{m, e}``, the mantissa in the low bits; zero is all zeros."""
    return data.StructLayout({"m": unsigned(fmt.mantissa_bits), "e": signed(fmt.exponent_bits)})


def constant(value: Scalar, fmt: ScalarFormat) -> data.Const:
    """A scalar as a constant."""
    return scalar_layout(fmt).const({"m": value.m, "e": value.e})
