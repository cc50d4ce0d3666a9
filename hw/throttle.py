"""The throttle unit: absorb a gradient, decide the step, apply the update."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.config import COUNTER_BITS, ThrottleConfig

from .decide import CONTROL, Decide, constants_signature, status_layout
from .norm import SumOfSquares
from .rounding import rails
from .update import Update

__all__ = ["StreamingThrottle", "Throttle", "registers_layout"]


def registers_layout(config: ThrottleConfig) -> data.StructLayout:
    """Every register of the unit after a step, in the order of the golden model's ``Registers``."""
    status = status_layout(config).members
    scalars = ("norm_gradient", "norm_motion", "curvature", "ema", "alpha", "step_size", "still")
    flags = ("learning_dead", "scalar_overflow", "scalar_underflow")
    counter = unsigned(COUNTER_BITS)
    return data.StructLayout(
        {"A": unsigned(config.widths.gradient_energy), "B": unsigned(config.widths.motion_energy)}
        | {name: status[name] for name in scalars}
        | {name: counter for name in ELEMENT_COUNTERS}
        | {"still_steps": counter}
        | {name: status[name] for name in flags}
    )


ELEMENT_COUNTERS = (
    "gradient_saturated",
    "gradient_near_rail",
    "update_saturated",
    "update_underflow",
    "weight_saturated",
    "weight_near_rail",
)


def _vector(width: int, lanes: int) -> data.ArrayLayout:
    return data.ArrayLayout(signed(width), lanes)


def _ports(config: ThrottleConfig) -> dict[str, Any]:
    """What both variants have in common."""
    g, w, y, _ = config.grids
    lanes = config.lanes
    return {
        "updated": Out(stream.Signature(data.StructLayout({"weight": _vector(w.width, lanes), "update": _vector(y.width, lanes)}))),
        "registers": Out(stream.Signature(registers_layout(config))),
        "clear": In(1),
        "constants": In(constants_signature(config.scalar)),
        "control": In(CONTROL),
    }


class StreamingThrottle(wiring.Component):
    """The core without a gradient memory: the previous gradient and the direction come as streams.

    A step: ceil(N/L) beats of ``absorb`` {gradient, previous}; the scalar part decides; ceil(N/L) beats of ``apply``
    {weight, direction}, each answered on ``updated`` {weight, update} in order; then ``registers``, once. The next step's
    gradient is accepted when the registers were taken. In the first step after reset ``previous`` counts as zero.

    The lanes of the last beat beyond N are ignored on the way in and zero on the way out. ``constants`` and ``control`` must
    hold steady during a step. ``clear`` zeroes all counters, flags and the run of still steps in any
    cycle in which the registers are not held up: between two steps, or as the registers are taken, after that read.

    One squarer a lane serves both passes: the gradient's change on the way in, the weight's change on the way out.

    Throughput: a beat a cycle in both passes. A step takes at most :attr:`step_cycles` when no stream stalls.
    Reset, at any time: the unit of a first step.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        g, w, _, _ = config.grids
        lanes = config.lanes
        self.sum = SumOfSquares(
            lanes=lanes, width=max(g.width, w.width), energy_bits=config.widths.energy, tail=config.tail
        )
        self.decide = Decide(config)
        self.update = Update(config)
        super().__init__(
            {
                "absorb": In(stream.Signature(data.StructLayout({"gradient": _vector(g.width, lanes), "previous": _vector(g.width, lanes)}))),
                "apply": In(stream.Signature(data.StructLayout({"weight": _vector(w.width, lanes), "direction": _vector(g.width, lanes)}))),
            }
            | _ports(config)
        )

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        return 2 * self.sum.latency + self.update.latency + max(self.decide.latency, 0) + self.decide.prelude + 8

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the registers, streams never stalling."""
        return 2 * self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        g, w, _, _ = config.grids
        m.submodules.sum = total = self.sum
        m.submodules.decide = decide = self.decide
        m.submodules.update = update = self.update

        wiring.connect(m, wiring.flipped(self.constants), decide.constants)
        wiring.connect(m, wiring.flipped(self.control), decide.control)

        status = decide.status
        energy_a = Signal(config.widths.gradient_energy, reset_less=True)
        energy_b = Signal(config.widths.motion_energy, reset_less=True)
        counters = {name: Signal(COUNTER_BITS, name=name) for name in ELEMENT_COUNTERS}
        first = Signal(init=1)

        beat = Signal(range(config.beats))
        complete = Signal()  # all beats of this pass are in
        last = beat == config.beats - 1
        applying = Signal()
        m.d.comb += [
            update.step.eq(status.step_size),
            update.i.payload.direction.eq(self.apply.payload.direction),
            update.i.payload.weight.eq(self.apply.payload.weight),
            update.i.payload.last.eq(last),
            self.updated.payload.weight.eq(update.o.payload.weight),
            self.updated.payload.update.eq(update.o.payload.update),
            decide.i.payload.eq(Mux(applying, energy_b, energy_a)),
        ]
        for lane in range(config.lanes):
            previous = Mux(first, 0, self.absorb.payload.previous[lane])
            m.d.comb += [
                total.i.payload.minuend[lane].eq(Mux(applying, update.o.payload.weight[lane], self.absorb.payload.gradient[lane])),
                total.i.payload.subtrahend[lane].eq(Mux(applying, update.o.payload.previous[lane], previous)),
            ]
        m.d.comb += decide.clear.eq(self.clear & (~self.registers.valid | self.registers.ready))
        m.d.comb += total.i.payload.last.eq(Mux(applying, update.o.payload.last, last))

        def count_beat(m: Module) -> None:
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))

        registers = self.registers.payload
        for name in registers.shape().members:
            source: Any = {"A": energy_a, "B": energy_b}.get(name)
            m.d.comb += registers[name].eq(counters[name] if name in counters else status[name] if source is None else source)

        with m.FSM():
            with m.State("ABSORB"):
                m.d.comb += [self.absorb.ready.eq(total.i.ready), total.i.valid.eq(self.absorb.valid)]
                with m.If(self.absorb.valid & self.absorb.ready):
                    count_beat(m)
                with m.If(total.o.valid):
                    m.d.comb += total.o.ready.eq(1)
                    m.d.sync += energy_a.eq(total.o.payload)
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.next = "STEP"
            with m.State("STEP"):
                m.d.comb += decide.o.ready.eq(1)
                with m.If(decide.o.valid):
                    m.d.sync += [applying.eq(1), first.eq(0), complete.eq(0)]
                    m.next = "APPLY"
            with m.State("APPLY"):
                m.d.comb += [
                    self.apply.ready.eq(update.i.ready & ~complete),
                    update.i.valid.eq(self.apply.valid & ~complete),
                    self.updated.valid.eq(update.o.valid),
                    update.o.ready.eq(self.updated.ready),
                    total.i.valid.eq(update.o.valid & self.updated.ready),
                ]
                with m.If(self.apply.valid & self.apply.ready):
                    count_beat(m)
                    m.d.sync += complete.eq(last)
                with m.If(total.o.valid):
                    m.d.comb += total.o.ready.eq(1)
                    m.d.sync += energy_b.eq(total.o.payload)
                    m.next = "PUBLISH"
            with m.State("PUBLISH"):
                m.d.comb += self.registers.valid.eq(1)
                with m.If(self.registers.ready):
                    m.next = "MOTION"
            with m.State("MOTION"):
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.d.sync += applying.eq(0)
                    m.next = "ABSORB"

        self._count(m, counters, total, update, applying, clear=decide.clear)
        return m

    def _count(self, m: Module, counters: dict[str, Signal], total: Any, update: Any, applying: Value, clear: Value) -> None:
        """Count lane flags in three stages: flags, their number in the beat, the counter; done well before the energy is."""
        g, w, _, _ = self.config.grids
        lanes, tail = self.config.lanes, self.config.tail
        names = {"rail": ("gradient_saturated", "weight_saturated"), "near": ("gradient_near_rail", "weight_near_rail")}

        flags: dict[str, Signal] = {name: Signal(lanes, name=f"{name}_flags") for name in ("rail", "near", "saturated", "swallowed")}
        taken = total.i.valid & total.i.ready
        m.d.sync += [flag.eq(0) for flag in flags.values()]
        with m.If(taken):
            for lane in range(lanes):
                word = total.i.payload.minuend[lane]
                on, near = rails(word, g) if g.rails == w.rails else (None, None)
                if on is None or near is None:
                    on_g, near_g = rails(word[: g.width].as_signed(), g)
                    on_w, near_w = rails(word[: w.width].as_signed(), w)
                    on, near = Mux(applying, on_w, on_g), Mux(applying, near_w, near_g)
                inside = ~total.i.payload.last if lane >= tail else 1
                m.d.sync += [flags["rail"][lane].eq(on & inside), flags["near"][lane].eq(near & inside)]
            with m.If(applying):
                m.d.sync += [
                    flags["saturated"].eq(Cat(update.o.payload.saturated[lane] for lane in range(lanes))),
                    flags["swallowed"].eq(Cat(update.o.payload.swallowed[lane] for lane in range(lanes))),
                ]
        numbers = {name: Signal(range(lanes + 1), name=f"{name}_number") for name in flags}
        for name, flag in flags.items():
            m.d.sync += numbers[name].eq(sum(flag[lane] for lane in range(lanes)))
        for kind, (of_gradient, of_weight) in names.items():
            with m.If(applying):
                m.d.sync += counters[of_weight].eq(counters[of_weight] + numbers[kind])
            with m.Else():
                m.d.sync += counters[of_gradient].eq(counters[of_gradient] + numbers[kind])
        m.d.sync += [
            counters["update_saturated"].eq(counters["update_saturated"] + numbers["saturated"]),
            counters["update_underflow"].eq(counters["update_underflow"] + numbers["swallowed"]),
        ]
        with m.If(clear):
            m.d.sync += [counter.eq(0) for counter in counters.values()]


class Throttle(wiring.Component):
    """The unit with its gradient memory inside, of ceil(N/L) words: plain SGD, along the gradient that it absorbed.

    Ports: ``gradient`` in, ``weights`` in, ``updated`` {weight, update} out, ``registers`` out, ``clear``, ``constants``,
    ``control``; see :class:`StreamingThrottle`. Weights are accepted once the whole gradient is in, at most one beat before
    the step is decided. The memory needs no reset: in the first step the previous gradient counts as zero.

    Throughput: a beat a cycle in both passes; two cycles a step more than the streaming core.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.core = StreamingThrottle(config)
        g, w, _, _ = config.grids
        super().__init__(
            {"gradient": In(stream.Signature(_vector(g.width, config.lanes))), "weights": In(stream.Signature(_vector(w.width, config.lanes)))}
            | _ports(config)
        )

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        return self.core.overhead + 2

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the registers, streams never stalling."""
        return 2 * self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.core = core = self.core
        m.submodules.memory = memory = Memory(shape=unsigned(config.lanes * config.grids.gradient.width), depth=config.beats, init=[])
        read, write = memory.read_port(), memory.write_port()

        for name in ("updated", "registers"):
            wiring.connect(m, getattr(core, name), wiring.flipped(getattr(self, name)))
        for name in ("constants", "control"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(core, name))
        m.d.comb += core.clear.eq(self.clear)

        # One stage between the ports and the core, the time of a memory read. It holds a gradient or a weight, never both.
        applying = Signal()  # which pass the next beat belongs to
        address = Signal(range(config.beats))
        held = Signal.like(address, reset_less=True)
        has_gradient, has_weight = Signal(), Signal()
        gradient = Signal.like(self.gradient.payload, reset_less=True)
        weight = Signal.like(self.weights.payload, reset_less=True)
        m.d.comb += [
            self.gradient.ready.eq(~applying & ~has_weight & (~has_gradient | core.absorb.ready)),
            self.weights.ready.eq(applying & ~has_gradient & (~has_weight | core.apply.ready)),
            core.absorb.valid.eq(has_gradient),
            core.absorb.payload.gradient.eq(gradient),
            core.absorb.payload.previous.eq(read.data),
            core.apply.valid.eq(has_weight),
            core.apply.payload.weight.eq(weight),
            core.apply.payload.direction.eq(read.data),
            read.addr.eq(address),
            write.addr.eq(held),
            write.data.eq(gradient),
            write.en.eq(core.absorb.valid & core.absorb.ready),
        ]
        accept = Signal()
        m.d.comb += [
            accept.eq((self.gradient.valid & self.gradient.ready) | (self.weights.valid & self.weights.ready)),
            read.en.eq(accept),
        ]
        with m.If(core.absorb.ready):
            m.d.sync += has_gradient.eq(0)
        with m.If(core.apply.ready):
            m.d.sync += has_weight.eq(0)
        with m.If(accept):
            m.d.sync += [
                has_gradient.eq(~applying),
                has_weight.eq(applying),
                gradient.eq(self.gradient.payload),
                weight.eq(self.weights.payload),
                held.eq(address),
                address.eq(address + 1),
            ]
            with m.If(address == config.beats - 1):
                m.d.sync += [address.eq(0), applying.eq(~applying)]
        return m
