"""A memory with a register behind it, in the shape of a hardware block memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amaranth.hdl import Cat, ClockSignal, Instance, Module, Signal, Value, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig

CELL = "kappa_rtl_memory"
SOURCE = Path(__file__).with_name("memory.v")


def _ports(width: int, depth: int) -> dict[str, Any]:
    address = range(max(2, depth))
    return {
        "write": In(1),
        "write_address": In(address),
        "write_data": In(width),
        "read": In(1),
        "read_address": In(address),
        "read_output": In(1),
        "read_data": Out(width),
    }


class BlockMemory(wiring.Component):
    """``depth`` words of ``width`` bits; each cycle one is written and one is read. Not the same one: that read is undefined.

    It is an instance of the Verilog module in ``memory.v``, which the export puts into the file. That module is plain Verilog,
    and with ``KAPPA_RTL_ECP5`` defined the block memories of that family with their output registers, which synthesis does not
    infer: without them a memory answers late in its cycle.

    Ports: ``write`` enables ``write_address``, ``write_data``; ``read`` enables ``read_address``; ``read_output`` enables the
    register of ``read_data``. Latency of a read: 2 cycles, the first with ``read`` and the second with ``read_output`` high;
    each stage holds when its enable is low. Throughput: a read and a write a cycle. Reset: none.
    """

    latency = 2

    def __init__(self, width: int, depth: int) -> None:
        self.depth = depth
        super().__init__(_ports(width, depth))

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


class GuardedMemory(wiring.Component):
    """:class:`BlockMemory` with a parity bit for each lane of a word, made as it is written and checked as it is used.

    Further ports: ``used`` says that ``read_data`` is taken in this cycle; ``fault``, two cycles later, that a lane of it was not
    what was written: a single bit, or any odd number of them. Nothing is checked before the last word was written for
    the first time. Costs a memory bit and two parity trees a lane.

    Args:
        width, depth: of the memory as it is used.
        lanes: parts of a word, of equal width.
        words: words in use, written in order.
    """

    latency = BlockMemory.latency

    def __init__(self, width: int, depth: int, *, lanes: int, words: int) -> None:
        self.depth, self.lanes, self.words = depth, lanes, words
        super().__init__(_ports(width, depth) | {"used": In(1), "fault": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        width = len(self.read_data)
        m.submodules.memory = memory = BlockMemory(width + self.lanes, self.depth)
        for name in ("write", "write_address", "read", "read_address", "read_output"):
            m.d.comb += getattr(memory, name).eq(getattr(self, name))
        stored = memory.read_data[width:]
        m.d.comb += [
            memory.write_data.eq(Cat(self.write_data, self._parity(self.write_data))),
            self.read_data.eq(memory.read_data),
        ]

        filled, checks = Signal(), Signal()
        found, expected = Signal(self.lanes, reset_less=True), Signal(self.lanes, reset_less=True)
        with m.If(self.write & (self.write_address == self.words - 1)):
            m.d.sync += filled.eq(1)
        m.d.sync += [
            found.eq(self._parity(self.read_data)),
            expected.eq(stored),
            checks.eq(self.used & filled),
            self.fault.eq(checks & (found != expected)),
        ]
        return m

    def _parity(self, word: Value) -> Value:
        part = len(word) // self.lanes
        return Cat(word[part * lane : part * (lane + 1)].xor() for lane in range(self.lanes))


def unit_memory(config: ThrottleConfig, bits: int) -> BlockMemory | GuardedMemory:
    """A memory for the beats of a vector with so many bits an element, guarded if the configuration asks for it."""
    width, depth = config.lanes * bits, max(2, config.words)
    return GuardedMemory(width, depth, lanes=config.lanes, words=config.beats) if config.parity else BlockMemory(width, depth)


def guard(m: Module, fault: Value, memories: Mapping[Any, ValueLike]) -> None:
    """Tell guarded memories when their word is used, and ``fault`` when one of them finds it changed."""
    m.d.comb += [memory.used.eq(used) for memory, used in memories.items()]
    m.d.comb += fault.eq(Cat(memory.fault for memory in memories).any())
