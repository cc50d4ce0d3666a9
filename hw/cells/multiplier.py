"""A product between registers, in the shape of a hardware multiplier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

CELL = "kappa_rtl_multiply"
SOURCE = Path(__file__).with_name("multiplier.v")


class Multiplier(wiring.Component):
    """``o = a * b`` of signed operands, with registers before and behind the product.

    It is an instance of the Verilog module in ``multiplier.v``, which the export puts into the file. That module is plain
    Verilog, and with ``KAPPA_RTL_ECP5`` defined the DSP block of that family with the registers inside it, which synthesis does
    not infer.

    Ports: ``a``, ``b``, ``enable``, ``o``. Latency: 2 cycles in which ``enable`` is high; the registers hold when it is
    low. Throughput: a product a cycle. Reset: none; two enabled cycles flush it.
    """

    latency = 2

    def __init__(self, a_bits: int, b_bits: int) -> None:
        super().__init__({"a": In(signed(a_bits)), "b": In(signed(b_bits)), "enable": In(1), "o": Out(signed(a_bits + b_bits))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.cell = Instance(
            CELL,
            p_A=len(self.a),
            p_B=len(self.b),
            i_clk=ClockSignal(),
            i_enable=self.enable,
            i_a=self.a,
            i_b=self.b,
            o_o=self.o,
        )
        return m
