"""The core whose step is one pass: with ``delay = 1`` the weights move by the step size of the step before."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring

from ...golden.config import Source, ThrottleConfig
from ...golden.formats import Fixed
from ...golden.registers import COUNTER_BITS
from ..cells.chain import either
from ..cells.memory import guard, unit_memory
from ..lanes.rounding import rails
from ..lanes.update import Update
from .core import StreamingThrottle
from .counts import COUNTING, count_steps
from .feed import STAGES, Feed
from .ports import core_counters, pass_on
from .throttle import Throttle

__all__ = ["OnePass", "StreamingOnePass"]

STATES = ("PASS", "DECIDE", "STEP", "FINISH", "PUBLISH", "MOTION")
"""The states of every step. Each costs at most a cycle beyond what the step waits for in it."""


class StreamingOnePass(StreamingThrottle):
    """:class:`StreamingThrottle` in one pass: each beat of ``absorb`` goes with one of ``apply``.

    A step: ceil(N/L) beats of both, taken together, each answered on ``updated``; the scalar part decides from A and from the
    B of the step before; then ``registers``, once. The step size that they show is applied in the next step; the first one
    applies ``config.initial_step``. All else is as there. The gradient and the weight have a squarer each, or with an intended
    motion the gradient and the direction.

    Throughput: a beat a cycle. A step takes at most :attr:`step_cycles` when no stream stalls. Reset, at any time: the unit of
    a first step.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        config.refuse_segments("with delay = 1, whose unit has no table of them")
        super().__init__(config)
        moving = config.grids.direction if config.intended else config.grids.weight
        self.motion = self._sum(moving.width, config.widths.motion_energy)
        self.projects = Source(config.source).is_projection

    def _make_lanes(self) -> None:
        self.update = Update(self.config)
        projects = Source(self.config.source).is_projection
        self.sum = self._sum(self.config.grids.gradient.width, self.config.widths.gradient_energy, projects=projects)

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its ceil(N/L) beats."""
        leaves = self.update.latency + (COUNTING + 1 if self.config.intended else 0)
        return self.sum.latency + self._wait + max(self.decide.latency, leaves) + len(STATES) + self._extras

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat to the registers, streams never stalling."""
        return self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.sum = total = self.sum
        m.submodules.motion = motion = self.motion
        m.submodules.decide = decide = self.decide
        m.submodules.update = update = self.update
        wiring.connect(m, wiring.flipped(self.constants), decide.constants)
        wiring.connect(m, wiring.flipped(self.control), decide.control)

        energy_a = Signal(config.widths.gradient_energy, reset_less=True)
        part_a = Signal(total.o.payload.shape(), reset_less=True)  # a shard's own, with the sign of a projection
        energy_b = Signal(config.widths.motion_energy, reset_less=True)
        counters = {name: Signal(COUNTER_BITS, name=name, reset_less=True) for name in core_counters(config)}
        first = Signal(init=1)
        step = Signal(config.step.width, init=config.initial_step)

        beat = Signal(range(max(2, config.beats)))
        takes = Signal(init=1)  # the pass under way has beats to come
        last = beat == config.beats - 1
        both = self.absorb.valid & self.apply.valid & takes
        enters, leaves = both & update.i.ready, update.o.valid & update.o.ready
        moving = Signal()  # the scalar part is offered B, otherwise A
        m.d.comb += [
            update.step.eq(step),
            update.i.valid.eq(both),
            update.i.payload.direction.eq(self.apply.payload.direction),
            update.i.payload.weight.eq(self.apply.payload.weight),
            update.i.payload.last.eq(last),
            update.o.ready.eq(self.updated.ready),
            self.absorb.ready.eq(takes & update.i.ready & self.apply.valid),
            self.apply.ready.eq(takes & update.i.ready & self.absorb.valid),
            self.updated.valid.eq(update.o.valid),
            total.i.valid.eq(enters),
            total.i.payload.last.eq(last),
            motion.i.valid.eq(enters if config.intended else leaves),
            motion.i.payload.last.eq(last if config.intended else update.o.payload.last),
            decide.i.payload.eq(Mux(moving, energy_b, energy_a)),
        ]
        m.d.comb += [self.updated.payload[name].eq(update.o.payload[name]) for name in self.updated.payload.shape().members]
        for lane in range(config.lanes):
            previous: Any = Mux(first, 0, self.absorb.payload.previous[lane]) if self.changes else 0
            before: Any = 0 if config.source is Source.RATIO else update.o.payload.previous[lane]
            gradient, after = self.absorb.payload.gradient[lane], update.o.payload.weight[lane]
            if config.intended:
                before, after = 0, self.apply.payload.direction[lane]
            m.d.comb += [
                total.i.payload.minuend[lane].eq(previous if self.projects else gradient),
                total.i.payload.subtrahend[lane].eq(gradient if self.projects else previous),
                motion.i.payload.minuend[lane].eq(after),
                motion.i.payload.subtrahend[lane].eq(before),
            ]
            if config.residual_bits:
                m.d.comb += update.i.payload.residual[lane].eq(Mux(first, 0, self.apply.payload.residual[lane]))
        with m.If(enters):
            m.d.sync += [beat.eq(Mux(last, 0, beat + 1)), takes.eq(~last)]

        self._publish(m, {"A": energy_a, "B": energy_b} | counters)
        self._watch(m, energy_a, enters, self.absorb.payload.gradient)
        moved = self._note_motion(m, leaves, decide.i.valid & decide.i.ready & moving)
        gone = Signal()  # with an intended motion, whose sum does not tell: all weights of this pass have left and are counted
        if config.intended:
            going = Signal(COUNTING)
            m.d.sync += [going.eq(Cat(leaves & update.o.payload.last, going)), gone.eq((gone | going[-1]) & ~takes)]
        shares = config.population is not None
        ends = "WATCH" if config.watchdog else "PUBLISH"
        with m.FSM() as fsm:
            with m.State("PASS"):
                m.d.comb += total.o.ready.eq(1)
                m.d.sync += energy_a.eq(self._energy(total.o.payload))
                if shares and self.projects:
                    m.d.sync += part_a.eq(total.o.payload)
                with m.If(total.o.valid):
                    m.next = "SHARE A" if shares else "DECIDE"
            if shares:
                self._share(m, "SHARE A", part_a if self.projects else energy_a, energy_a, "DECIDE", moved)
            with m.State("DECIDE"):
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.next = "STEP"
            with m.State("STEP"):
                m.d.comb += decide.o.ready.eq(1)
                with m.If(decide.o.valid):
                    m.next = "FINISH"
            with m.State("FINISH"):  # the new step size is applied only when all weights of this pass have left
                m.d.comb += motion.o.ready.eq(gone if config.intended else 1)
                m.d.sync += energy_b.eq(motion.o.payload)
                with m.If(motion.o.valid & gone if config.intended else motion.o.valid):
                    m.d.sync += step.eq(decide.status.step_size)
                    m.next = "SHARE B" if shares else ends
            if shares:
                self._share(m, "SHARE B", energy_b, energy_b, ends, moved)
            self._look(m)
            with m.State("PUBLISH"):
                m.d.comb += self.registers.valid.eq(1)
                m.d.sync += first.eq(0)
                with m.If(self.registers.ready):
                    m.d.sync += [takes.eq(1), moving.eq(1)]
                    m.next = "MOTION"
            with m.State("MOTION"):
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.d.sync += moving.eq(0)
                    m.next = "PASS"

        # The counters take two cycles to clear. So from the cycle before the registers are offered until they are taken a clear
        # does nothing: it would change what is offered.
        closing = [fsm.ongoing(state) for state in ["FINISH"] + ["SHARE B TOTAL"] * shares + ["WATCH"] * bool(config.watchdog)]
        held = self.registers.valid & ~self.registers.ready
        m.d.comb += decide.clear.eq(self.clear & ~(either(closing) | held))
        self._count_lanes(m, counters, enters, last, leaves)
        count_steps(m, self, counters)
        with m.If(ResetSignal() | decide.clear):
            m.d.sync += [counter.eq(0) for counter in counters.values()]
        return m

    def _count_lanes(self, m: Module, counters: dict[str, Signal], enters: Value, last: Value, leaves: Value) -> None:
        """Count what the lanes find: a flag a lane, how many are up in the beat, and the counters.

        All is counted when the energies are there, as squares and their sum take longer.
        """
        g, w, y, *_ = self.config.grids
        lanes, out = range(self.config.lanes), self.update.o.payload

        def later(value: Value, name: str) -> Signal:
            delayed = Signal(len(value), name=name)
            m.d.sync += delayed.eq(value)
            return delayed

        def add(name: str, flags: Value, counts: Value) -> None:
            number = Signal(range(self.config.lanes + 1), name=f"{name}_number")
            m.d.sync += number.eq(sum(flags[lane] & counts for lane in lanes))
            m.d.sync += counters[name].eq(counters[name] + number)

        def count_rails(words: Any, fmt: Fixed, names: tuple[str, str], taken: Value, last: Value, beyond: Any = None) -> None:
            taken, last = later(taken, f"{names[0]}_taken"), later(last, f"{names[0]}_last")
            found = [rails(m, words[lane], fmt) for lane in lanes]
            if beyond is not None:
                also = later(Value.cast(beyond), f"{names[0]}_beyond")
                found = [(on | also[lane], near) for lane, (on, near) in enumerate(found)]
            inside = Cat((~last if lane >= self.config.tail else 1) & taken for lane in lanes)
            for name, flags in zip(names, zip(*found, strict=True), strict=True):
                add(name, later(Cat(flags) & inside, f"{name}_flags"), Cat(1))

        count_rails(self.absorb.payload.gradient, g, ("gradient_saturated", "gradient_near_rail"), enters, last)
        overflowed = out.overflowed if self.update.hides else None
        count_rails(out.weight, w, ("weight_saturated", "weight_near_rail"), leaves, out.last, overflowed)
        if self.config.every_rail:
            count_rails(out.update, y, ("update_rail", "update_near_rail"), leaves, out.last)
        for name, flags in (("update_saturated", out.saturated), ("update_underflow", out.swallowed)):
            add(name, later(Value.cast(flags), f"{name}_flags"), later(leaves, f"{name}_leaves"))


class OnePass(Throttle):
    """The unit of one pass with its gradient memory inside, of ceil(N/L) words: plain SGD, along the gradient that comes in.

    Ports: those of :class:`~kappa_rtl.hw.units.throttle.Throttle`. A beat of ``gradient`` is taken together with one of
    ``weights``.

    Throughput: a beat a cycle; two cycles a step more than the streaming core.
    """

    Core = StreamingOnePass

    def __init__(self, config: ThrottleConfig) -> None:
        config.refuse_segments("with delay = 1, whose unit has no table of them")
        super().__init__(config)

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its ceil(N/L) beats."""
        return self.core.overhead + STAGES  # the pass waits for the first word that it reads

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat to the registers, streams never stalling."""
        return self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.core = core = self.core
        m.submodules.memory = memory = unit_memory(config, config.grids.gradient.width)
        pass_on(m, self, core)

        # Gradients and weights enter together, and the next pass when this one has left: so no word is read before it was
        # written, nor in the cycle in which it is.
        moves, arrives = Signal(), Signal()
        feed = Feed(config, self.gradient.payload.shape(), self.weights.payload.shape(), arrives=arrives, takes=True)
        takes, valid = feed.takes, feed.valid
        m.d.comb += [
            moves.eq(~valid[-1] | core.absorb.ready),
            arrives.eq(takes & self.gradient.valid & self.weights.valid),
            self.gradient.ready.eq(takes & moves & self.weights.valid),
            self.weights.ready.eq(takes & moves & self.gradient.valid),
            core.absorb.valid.eq(valid[-1]),
        ]
        feed.offer(m, core, memory)
        m.d.comb += [
            core.apply.valid.eq(valid[-1]),
            core.apply.payload.weight.eq(feed.weights[-1]),
            core.apply.payload.direction.eq(feed.gradients[-1]),
        ]
        feed.read(m, memory, moves, moves)
        feed.write(m, memory, valid[-1] & moves)
        with m.If(moves):
            feed.move(m, ((self.gradient.payload, feed.gradients), (self.weights.payload, feed.weights)))
            feed.count(m)
        ended = feed.empty
        if config.residual_bits:
            residuals = self._keep_residuals(m, feed, reads=moves, moves=moves)
            ended = core.registers.valid & core.registers.ready  # only then have all residuals been written
        with m.If(~takes & ended):
            m.d.sync += takes.eq(1)
        if config.parity:
            taken = valid[-1] & moves
            guard(m, core.memory_fault, {memory: taken} | ({residuals: taken} if config.residual_bits else {}))
        return m
