"""The steps of the unit on a bus: what runs it by registers, and publishes what it found. All of it is reset by a command."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Const, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.registers import BLOCK_BITS, CONSTANTS, WATCHES
from ..units.onepass import OnePass
from ..units.ports import shared_bits, vector
from ..units.throttle import Throttle
from .file import structure
from .frames import beats_of
from .layout import Layout
from .map import INTERRUPTS
from .registers import WORD, Access, RegisterMap, field_bits

__all__ = ["BETWEEN", "PUBLISHING", "Steps", "numbers", "updated_shape"]

PUBLISHING = 2
"""Cycles from the core's registers to those that the host reads and to the event ``done``: the step ends, and they are copied."""

BETWEEN = 2
"""Cycles from the event ``done`` to the first beat of the next step at the earliest."""


def numbers(config: ThrottleConfig) -> dict[str, tuple[bool, int]]:
    """Streams of plain numbers that the unit has beside its vectors: by name whether it goes out, and bits."""
    energy = shared_bits(config)
    shard = {"partial": (True, energy), "total": (False, energy)} if config.population is not None else {}
    return shard | ({"blocks": (False, BLOCK_BITS)} if "norm_growth" in config.watchdog else {})


def updated_shape(config: ThrottleConfig) -> data.StructLayout:
    """A beat of the updated weights as a port has it."""
    bits = config.lanes * field_bits(config.grids.weight.width)
    return data.StructLayout({"data": bits, "keep": bits // 8, "last": 1})


class Steps(wiring.Component):
    """The core with what starts its steps, holds its constants steady and publishes its registers.

    Ports: ``gradient`` and ``weights``, vectors in frames; ``updated``, what leaves; ``left``, all beats of it have; ``holds``,
    the last beat of the weights is to wait; with segments those of :class:`~kappa_rtl.hw.bus.layout.Layout` that are of frames;
    streams of numbers; ``stored``, ``values``, ``raised`` and ``carried_out`` as
    :class:`~kappa_rtl.hw.bus.file.RegisterFile` has them, and the flags that are pins.

    Reset: a unit that has taken no step.
    """

    def __init__(self, config: ThrottleConfig, registers: RegisterMap) -> None:
        self.config, self.registers = config, registers
        self.core = OnePass(config) if config.delay else Throttle(config)
        g, w, *_ = config.grids
        super().__init__(
            {
                "gradient": In(beats_of(vector(g.width, config.lanes))),
                "weights": In(beats_of(vector(w.width, config.lanes))),
                "updated": Out(stream.Signature(updated_shape(config))),
                "left": In(1),
                "holds": In(1),
                "stored": In(structure(registers, Access.RW, Access.W1C, Access.W1S)),
                "values": Out(structure(registers, Access.RO)),
                "raised": Out(structure(registers, Access.W1C)),
                "carried_out": Out(structure(registers, Access.W1S)),
                "learning_dead": Out(1),
            }
            | ({"watchdog": Out(1)} if config.watchdog else {})
            | ({"comes": In(1), "beats": Out(range(config.words + 1)), "shut": Out(1)} if config.segments else {})
            | {name: (Out if out else In)(stream.Signature(bits)) for name, (out, bits) in numbers(config).items()}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        busy = Signal()
        ends = Signal()
        begins = self._vectors(m, busy)
        # A step ends when its last weight has left: until then its registers wait in the core.
        m.d.comb += core.registers.ready.eq(ends)
        m.d.sync += ends.eq(core.registers.valid & self.left & ~ends)
        m.d.sync += busy.eq((busy | begins) & ~ends)

        # What the host wrote reaches the core between two steps; but what prepares the next one (`eps`, `on_still`), as one ends.
        def follow(port: Value, register: str, name: str, when: Value) -> None:
            part = next(f for f in self.registers[register].fields if f.name == name)
            held = Signal(part.width, name=f"held_{register}_{name}", init=part.reset % (1 << part.width))
            m.d.comb += port.eq(held)
            with m.If(when):
                m.d.sync += held.eq(getattr(self.stored, register)[name])

        for name in CONSTANTS:
            for letter in ("m", "e"):
                port = getattr(getattr(core.constants, name), letter)
                follow(port, f"{name}_{letter}", "value", ends if name == "eps" else ~busy)
        for name in ("source", "on_still", "ema_first", "enabled"):
            follow(Value.cast(getattr(core.control, name)), "control", name, ends if name == "on_still" else ~busy)
        for name in self.config.watchdog:
            follow(core.watchdog_mask[WATCHES.index(name)], "watchdog_mask", name, ~busy)
        for name, (out, _) in numbers(self.config).items():
            mine, theirs = wiring.flipped(getattr(self, name)), getattr(core, name)
            wiring.connect(m, *((theirs, mine) if out else (mine, theirs)))

        clear = self.stored.command.clear
        clears = Signal()  # should a step begin meanwhile, its first beat has not passed the stages before the core
        m.d.sync += clears.eq(clear & ~busy & ~clears)
        m.d.comb += [core.clear.eq(clears), self.carried_out.command.clear.eq(clears)]
        if self.config.segments:
            self._lay_out(m)
        self._publish(m, busy, ends)
        return m

    def _lay_out(self, m: Module) -> None:
        """The table of segments, as the host writes it."""
        m.submodules.layout = layout = Layout(self.config)
        wiring.connect(m, layout.entries, self.core.layout)
        m.d.comb += [
            layout.entry.elements.eq(self.stored.layout.elements),
            layout.entry.scale.eq(self.stored.layout.scale),
            layout.asked.eq(self.stored.command.layout),
            layout.comes.eq(self.comes | self.core.gradient.valid),  # what is offered to the core begins a pass, taken or not
            self.carried_out.command.layout.eq(layout.done),
            self.raised.irq_status.layout.eq(layout.refused),
            self.values.status.layout.eq(layout.partial),
            self.values.beats.value.eq(layout.beats),
            self.beats.eq(layout.beats),
            self.shut.eq(layout.shut),
        ]

    def _vectors(self, m: Module, busy: Signal) -> Value:
        """The three streams of vectors; gives whether a step begins."""
        config, core = self.config, self.core
        # Beats of a gradient are let in. The core says late in a cycle that it takes one, and behind the last one of a frame it
        # takes none for a while: so what follows from a beat comes out of registers, and where a step begins from its offer.
        accepts, ready, offered = Signal(), Signal(), Signal()
        ends = self.weights.payload.last & self.holds
        for name, allowed in (("gradient", accepts), ("weights", ~ends)):
            beat, port = getattr(self, name), getattr(core, name)
            m.d.comb += [
                port.payload.eq(beat.payload.data),
                port.valid.eq(beat.valid & allowed),
                beat.ready.eq(port.ready & allowed),
            ]
        begins = core.gradient.valid & ~busy & (core.weights.valid if config.delay else 1)
        finished = ready & offered  # the last beat was taken
        m.d.sync += [
            ready.eq(core.gradient.ready),
            offered.eq(core.gradient.valid & self.gradient.payload.last),
            accepts.eq(Mux(busy, accepts & ~finished, self.stored.control.run | begins)),
        ]

        out, updated = core.updated, self.updated
        last: Value = Const(1)
        if config.segments:
            last = core.core.update.o.payload.last
        elif config.beats > 1:
            beat, last = Signal(range(config.beats), name="updated_beat"), Signal(name="updated_last")
            m.d.comb += last.eq(beat == config.beats - 1)
            with m.If(out.valid & out.ready):
                m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        m.d.comb += [updated.valid.eq(out.valid), out.ready.eq(updated.ready), updated.payload.last.eq(last)]
        step = field_bits(config.grids.weight.width)
        for lane in range(config.lanes):
            keeps = (~last) if lane >= config.tail else Const(1)
            if config.segments:
                keeps = ~core.core.update.o.payload.outside[lane]
            m.d.comb += [
                updated.payload.data.word_select(lane, step).eq(out.payload.weight[lane]),
                updated.payload.keep.word_select(lane, step // 8).eq(keeps.replicate(step // 8)),
            ]
        return begins

    def _publish(self, m: Module, busy: Signal, ends: Signal) -> None:
        """The registers of the last step, and the events."""
        found = self.core.registers.payload
        steps = Signal(WORD, name="ended")
        m.d.comb += [self.values.steps.value.eq(steps), self.values.status.busy.eq(busy)]
        with m.If(ends):
            m.d.sync += steps.eq(steps + 1)
        held: dict[str, Signal] = {}
        status = {f.name for f in self.registers["status"].fields}
        for name, shape in found.shape().members.items():
            held[name] = Signal(shape, name=f"last_{name}")
            with m.If(ends):
                m.d.sync += held[name].eq(found[name])
            if name in status:
                m.d.comb += self.values.status[name].eq(held[name])
            elif name == "watchdog":
                m.d.comb += [
                    self.values.watchdog[watched].eq(held[name][WATCHES.index(watched)]) for watched in self.config.watchdog
                ]
            elif isinstance(shape, data.StructLayout):
                for part in ("m", "e"):
                    m.d.comb += getattr(self.values, f"{name}_{part}").value.eq(getattr(held[name], part))
            else:
                m.d.comb += getattr(self.values, name).value.eq(held[name])

        raised = self.raised.irq_status
        m.d.comb += [raised.done.eq(ends), self.learning_dead.eq(held["learning_dead"])]
        for name in (*INTERRUPTS, "memory_fault"):
            if name in held:
                m.d.comb += raised[name].eq(ends & found[name])
        if self.config.watchdog:
            m.d.comb += [raised.watchdog.eq(ends & found.watchdog.any()), self.watchdog.eq(held["watchdog"].any())]
