"""What a unit with memories has in front of its core: the stages in which beats wait for what is read beside them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import data, wiring

from ...golden.config import ThrottleConfig
from ..cells.memory import BlockMemory, GuardedMemory
from .core import StreamingThrottle
from .segments import Table, tag_layout

__all__ = ["STAGES", "Feed", "store_residuals"]

STAGES = BlockMemory.latency
"""Cycles from the ports of a unit to its core: those in which a memory is read."""


class Feed:
    """Beats on their way from the ports of a unit to its core, and the memory of gradients that is read beside them.

    A pass takes ceil(N/L) beats, whose words lie in the memories at addresses from 0 on. Each beat carries its address along:
    where it leaves, the word that was read at that address stands beside it, and the new word is written in its place. All
    stages move at once, as the memory's own registers do: otherwise the ready signals would run through each of them.

    It is no component: its registers are those of the unit's module, which says when the stages move, when a pass begins, and
    which beats enter.

    Args:
        gradient, weight: the shapes of the beats that are carried; with the weights on chip there are only gradients.
        arrives: a beat enters, if the stages move; the unit drives it.
        takes: whether the first pass begins at reset.

    Attributes:
        takes: the pass has beats to come.
        address: that of the next beat to enter; ``last``: that of the last one of a pass.
        valid: the stages that hold a beat, the first one lowest.
        places: the addresses of the beats, by stage.
        gradients, weights: the beats themselves, by stage.
        empty: no stage holds a beat.
        tags: what the table says of the beats, by stage, with segments.
        ends, known: whether the beat that would enter is the last one of its pass; and whether that is known, if it may not be.
        ended: the pass has no beats to come, and all have left.
    """

    def __init__(
        self,
        config: ThrottleConfig,
        gradient: data.ArrayLayout,
        weight: data.ArrayLayout | None = None,
        *,
        arrives: Signal,
        takes: bool,
    ) -> None:
        self.last = config.beats - 1
        address = range(max(2, config.words))
        self.takes = Signal(init=takes)
        self.arrives = arrives
        self.address = Signal(address)
        self.valid = Signal(STAGES)
        self.places = [Signal(address, name=f"place{i}", reset_less=True) for i in range(STAGES)]
        self.gradients = [Signal(gradient, name=f"gradient{i}", reset_less=True) for i in range(STAGES)]
        self.weights = [Signal(weight, name=f"weight{i}", reset_less=True) for i in range(STAGES)] if weight is not None else []
        self.table = Table(config) if config.segments else None
        tags = STAGES if config.segments else 0
        self.tags: list[Any] = [Signal(tag_layout(config), name=f"tag{i}", reset_less=True) for i in range(tags)]
        self.ends: Value = self.address == self.last if self.table is None else self.table.tags.payload.last
        self.known: Value | None = None if self.table is None else self.table.tags.valid
        self.empty: Value = ~self.valid.any()
        self.ended: Value = ~self.takes & self.empty

    def offer(self, m: Module, core: StreamingThrottle, memory: BlockMemory | GuardedMemory) -> None:
        """Give the core the gradient that leaves, and the one before it."""
        m.d.comb += [
            core.absorb.payload.gradient.eq(self.gradients[-1]),
            core.absorb.payload.previous.eq(memory.read_data),
        ]
        if self.table is not None:
            m.d.comb += [core.absorb.payload.tag.eq(self.tags[-1]), core.apply.payload.tag.eq(self.tags[-1])]

    def look_up(self, m: Module, layout: Any, wanted: Value, moves: Value) -> None:
        """With segments: the table, written from ``layout``; ``wanted``: a beat is offered to the unit."""
        if self.table is None:
            return
        m.submodules.table = table = self.table
        wiring.connect(m, wiring.flipped(layout), table.entries)
        m.d.comb += [table.wanted.eq(wanted), table.tags.ready.eq(self.arrives & moves)]

    def read(self, m: Module, memory: BlockMemory | GuardedMemory, reads: Value, moves: Value) -> None:
        """Read a memory word by word as the beats enter."""
        m.d.comb += [memory.read_address.eq(self.address), memory.read.eq(reads), memory.read_output.eq(moves)]

    def write(self, m: Module, memory: BlockMemory | GuardedMemory, writes: Value) -> None:
        """Write the gradient that leaves in the place of the one before it."""
        m.d.comb += [
            memory.write_address.eq(self.places[-1]),
            memory.write_data.eq(self.gradients[-1]),
            memory.write.eq(writes),
        ]

    def move(self, m: Module, beats: Iterable[tuple[Any, list[Signal]]] = ()) -> None:
        """To be called where the stages move: valid bits and addresses by a stage, and these beats, from the ports on."""
        m.d.sync += [
            self.valid.eq(Cat(self.arrives, self.valid)),
            Cat(self.places).eq(Cat(self.address, self.places)),
            *([Cat(self.tags).eq(Cat(self.table.tags.payload, self.tags))] if self.table is not None else []),
            *(Cat(stages).eq(Cat(payload, stages)) for payload, stages in beats),
        ]

    def count(self, m: Module) -> None:
        """Step the address on as a beat enters; the last one ends the pass. To be called where the stages move."""
        with m.If(self.arrives):
            m.d.sync += self.address.eq(self.address + 1)
            with m.If(self.ends):
                m.d.sync += [self.address.eq(0), self.takes.eq(0)]


def store_residuals(m: Module, core: StreamingThrottle, residuals: BlockMemory | GuardedMemory, written: Signal) -> None:
    """Write the new residuals, as their weights leave the core, at the address ``written``."""
    m.d.comb += [
        residuals.write_address.eq(written),
        residuals.write_data.eq(core.updated.payload.residual),
        residuals.write.eq(core.updated.valid),  # as long as they wait: it is the same word
    ]
