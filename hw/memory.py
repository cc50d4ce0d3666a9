"""A memory with a register behind it, in the shape of a hardware block memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from amaranth.hdl import ClockSignal, Instance, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

CELL = "kappa_rtl_memory"
SOURCE = Path(__file__).with_name("memory.v")


class BlockMemory(wiring.Component):
    """``depth`` words of ``width`` bits; each cycle one is written and one is read. Not the same one: that read is undefined.

    It is an instance of the Verilog module in ``memory.v``, which the export puts into the file. That module is plain Verilog,
    and with ``ECP5`` defined the block memories of that family with their output registers, which synthesis does not infer:
    without them a memory answers late in its cycle.

    Ports: ``write`` enables ``write_address``, ``write_data``; ``read`` enables ``read_address``; ``read_output`` enables the
    register of ``read_data``. Latency of a read: 2 cycles, the first with ``read`` and the second with ``read_output`` high;
    each stage holds when its enable is low. Throughput: a read and a write a cycle. Reset: none.
    """

    latency = 2

    def __init__(self, width: int, depth: int) -> None:
        self.depth = depth
        address = range(max(2, depth))
        super().__init__(
            {
                "write": In(1),
                "write_address": In(address),
                "write_data": In(width),
                "read": In(1),
                "read_address": In(address),
                "read_output": In(1),
                "read_data": Out(width),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.cell = Instance(
            CELL,
            p_WIDTH=len(self.read_data),
            p_DEPTH=self.depth,
            p_ADDRESS=len(self.read_address),
            i_clk=ClockSignal(),
            i_write=self.write,
            i_write_address=self.write_address,
            i_write_data=self.write_data,
            i_read=self.read,
            i_read_address=self.read_address,
            i_read_output=self.read_output,
            o_read_data=self.read_data,
        )
        return m
