"""Sums of which an operand is chosen, or a bit rounded, on the way into the carry chain."""

from __future__ import annotations

from pathlib import Path

from amaranth.hdl import Instance, Module, Signal, Value, signed

__all__ = ["CELL", "SOURCE", "add_either", "round_half", "subtract_either"]

CELL = "kappa_rtl_carry"
SOURCE = Path(__file__).with_name("carry.v")
"""The Verilog modules of both, which the export puts into the file. They are plain Verilog, and with ``KAPPA_RTL_ECP5`` defined
the carry cells of that family, in whose look-up tables the choice costs nothing, which synthesis does not find."""


def subtract_either(m: Module, name: str, a: Value, b: Value, c: Value, bits: int) -> Signal:
    """``a - (b | c)`` of signed operands in so many bits, by an instance of that name. Combinational."""
    return _sum(m, "subtract", name, Signal(signed(bits), name=name), {"a": a, "b": b, "c": c})


def add_either(m: Module, name: str, a: Value, b: Value, c: Value, select: Value, bits: int) -> Signal:
    """``a + (c if select else b)`` of unsigned operands in so many bits, by an instance of that name. Combinational."""
    return _sum(m, "add", name, Signal(bits, name=name), {"a": a, "b": b, "c": c}, i_s=select)


def round_half(m: Module, name: str, a: Value, b: Value, half: Value, bits: int) -> Signal:
    """``a + b + half / 2`` of signed operands in so many bits, a tie to even, by an instance of that name. Combinational."""
    return _sum(m, "round", name, Signal(signed(bits), name=name), {"a": a, "b": b}, i_half=half)


def _sum(m: Module, kind: str, name: str, result: Signal, operands: dict[str, Value], **bits: Value) -> Signal:
    ports: dict[str, Value] = {}
    for port, value in operands.items():
        ports[f"i_{port}"] = operand = Signal(len(result), name=f"{name}_{port}")
        m.d.comb += operand.eq(value)
    m.submodules[f"{name}_cell"] = Instance(f"{CELL}_{kind}", p_WIDTH=len(result), **ports, **bits, o_o=result)
    return result
