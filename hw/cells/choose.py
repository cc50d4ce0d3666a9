"""One of a few bits by its number, as multiplexers and not as logic, where a technology has some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from amaranth.hdl import Cat, Const, Instance, Module, Signal, Value

CELL = "kappa_rtl_choose"
SOURCE = Path(__file__).with_name("choose.v")


def choose(m: Module, name: str, bits: Sequence[Value], number: Value) -> Value:
    """``bits[number]``, of up to eight bits; if there is no such bit, any of them.

    An instance, of that name, of the Verilog module in ``choose.v``, which the export puts into the file: plain Verilog, and with
    ``KAPPA_RTL_ECP5`` defined that family's multiplexers.
    """
    chosen = Signal(name=name)
    m.submodules[name] = Instance(
        CELL,
        p_COUNT=len(bits),
        i_i=Cat(*bits),
        i_select=Cat(number, Const(0, 3 - len(number))),
        o_o=chosen,
    )
    return chosen
