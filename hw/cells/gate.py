"""Gates that stay as they are: copies of one that has many readers far apart, or one that others shall share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from amaranth.hdl import Const, Instance, Module, Signal, Value

CELL = "kappa_rtl_gate"
SOURCE = Path(__file__).with_name("gate.v")


def gates(m: Module, name: str, width: int, function: Callable[..., int], *operands: Value) -> Signal:
    """A function of up to four bits, bit by bit; an operand of one bit goes to all of them.

    An instance, of that name, of the Verilog module in ``gate.v``, which the export puts into the file: plain Verilog, and with
    ``KAPPA_RTL_ECP5`` defined a look-up table a bit, which synthesis leaves alone. Combinational.
    """
    table = sum(bool(function(*(row >> i & 1 for i in range(len(operands))))) << row for row in range(16))
    made = Signal(width, name=name)
    ports: dict[str, Value] = {}
    for port, operand in zip("abcd", [*operands, *[Const(0, 1)] * 4], strict=False):
        ports[f"i_{port}"] = operand.replicate(width) if len(operand) == 1 else operand
    m.submodules[f"{name}_gates"] = Instance(CELL, p_WIDTH=width, p_TABLE=Const(table, 16), **ports, o_o=made)
    return made
