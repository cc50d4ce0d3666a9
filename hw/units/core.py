"""The core of the unit: absorb a gradient, decide the step, apply the update; its memories are others' concern."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import Source, ThrottleConfig
from ...golden.registers import COUNTER_BITS
from ..lanes.counters import FOUND as FOUND
from ..lanes.counters import Counters, counted
from ..lanes.norm import SumOfSquares
from ..lanes.update import Update
from ..scalar.decide import Decide
from .counts import COUNTING as COUNTING
from .counts import count_lanes, count_steps
from .ports import core_counters, residual_field, unit_ports, updated_signature, vector
from .segments import START, Table, both, delayed, tag_layout
from .watchdog import Watchdog

__all__ = ["StreamingThrottle"]

JOINING = 2
"""Cycles from the core's ports to the lanes' last registers: through these gradients reach the squarers, as new weights do."""

STATES = ("ABSORB", "DECIDE", "STEP", "APPLY", "PUBLISH", "MOTION", "RESTART")
"""The states of every step. Each costs at most a cycle beyond what the step waits for in it."""

SHARING = ("SHARE A", "SHARE A TOTAL", "SHARE B", "SHARE B TOTAL")
"""The states that a shard has besides: a cycle each where the other shards answer at once."""


class StreamingThrottle(wiring.Component):
    """The core without a gradient memory: the previous gradient and the direction come as streams.

    A step: ceil(N/L) beats of ``absorb`` {gradient, previous}; the scalar part decides; ceil(N/L) beats of ``apply``
    {weight, direction}, each answered on ``updated`` {weight, update} in order; then ``registers``, once. The next step's
    gradient is accepted when the registers were taken. In the first step after reset ``previous`` counts as zero. With
    ``residual_bits`` both streams of the second pass have a field ``residual``: e on the way in, which counts as zero in the
    first step too, and the new e on the way out.

    With segments (``config.segments``) ``layout`` takes a new table of them, whole and right after a reset, which brings the
    configuration's back. A pass has the beats of the table's segments, each of which begins on a new one.

    The lanes of the last beat beyond N, or of a segment's, are ignored on the way in and zero on the way out. ``constants`` and
    ``control`` must
    hold steady during a step, ``eps`` and ``on_still`` from the registers of the step before on. ``clear`` zeroes all counters,
    flags and the run of still steps between two steps, or as the registers are taken, after that read; while they are held up
    it does nothing.

    One squarer a lane serves both passes: the gradient's change on the way in, the weight's change on the way out. With the
    sources ``norm`` and ``ratio`` it is the gradient itself on the way in, whatever ``previous`` holds; with ``ratio`` the weight
    itself on the way out. With an intended motion it is the direction as it comes in; with the source ``projection``, whose
    direction must be the gradient, the product of ``previous`` and its change on the way in.

    A shard (``config.population``) offers its energies on ``partial``, A then B in each step, and waits on ``total`` for their
    sums over all shards. A watchdog (``config.watchdog``, :class:`~kappa_rtl.hw.units.watchdog.Watchdog`) has the ports
    ``watchdog_mask`` and ``blocks``; blocks taken before a step's registers are offered belong to that step. With
    ``config.parity`` whoever holds the gradients says on ``memory_fault`` that one was not what was stored; the flag is sticky.

    Throughput: a beat a cycle in both passes. A step takes at most :attr:`step_cycles` when no stream stalls.
    Reset, at any time: the unit of a first step.
    """

    def __init__(self, config: ThrottleConfig, tagged: bool = False) -> None:
        self.config = config
        g, w, *_ = config.grids
        lanes = config.lanes
        # With segments the table is here, or with a unit around the core, which has tagged the beats as they came in.
        self.table = Table(config) if config.segments and not tagged else None
        tag = {"tag": tag_layout(config)} if tagged else {}
        self.decide = Decide(config)
        self._make_lanes()
        self.takes = Signal(init=1)  # the pass under way has beats to come
        self.moved_anywhere = Signal(reset_less=True)  # of a shard: whether a weight of any shard moved in the last step
        self.watchdog = Watchdog(config) if config.watchdog else None
        # The squared norm of the gradient, which the watchdog compares with its floor, is A itself or needs squarers of its own.
        self.floor: SumOfSquares | None = None
        assert isinstance(config.source, Source)
        self.changes = config.source.is_curvature  # A is the energy of the gradient's change; otherwise of the gradient itself
        if "gradient_floor" in config.watchdog and self.changes:
            self.floor = self._sum(g.width, config.widths.gradient_energy)
        super().__init__(
            {
                "absorb": In(
                    stream.Signature(
                        data.StructLayout({"gradient": vector(g.width, lanes), "previous": vector(g.width, lanes)} | tag)
                    )
                ),
                "apply": In(
                    stream.Signature(
                        data.StructLayout(
                            {"weight": vector(w.width, lanes), "direction": vector(config.grids.direction.width, lanes)}
                            | residual_field(config)
                            | tag
                        )
                    )
                ),
            }
            | {name: port for name, port in unit_ports(config).items() if not (tagged and name == "layout")}
            | {"updated": Out(updated_signature(config, residual=True))}
            | ({"memory_fault": In(1)} if config.parity else {})
        )

    def _make_lanes(self) -> None:
        self.update = Update(self.config, joins=True)
        g, d = self.config.grids.gradient, self.config.grids.direction
        if self.config.intended:  # one operand is the gradient before or the direction, the other one the gradient or nothing
            self.sum = self._sum(
                max(g.width, d.width), self.config.widths.energy, projects=Source(self.config.source).is_projection
            )
        else:
            self.sum = self._sum(self.update.word.width, self.config.widths.energy, either=True)
        first, second = counted(self.config.every_rail)
        most = self.config.capacity or self.config.elements  # of this unit, whatever shards there are beside it
        self.counters = Counters((len(first), len(second)), self.config.lanes, most)

    def _sum(self, width: int, energy_bits: int, **options: Any) -> SumOfSquares:
        config = self.config
        shift_bits = config.scale_max.bit_length() if config.segments else 0
        return SumOfSquares(
            lanes=config.lanes, width=width, energy_bits=energy_bits, tail=self.tail, shift_bits=shift_bits, **options
        )

    @property
    def tail(self) -> int:
        """From which lane on a last beat is ignored; none with segments, whose tags say it for each beat."""
        return self.config.lanes if self.config.segments else self.config.tail

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        second = self.update.latency + self.sum.latency
        if self.config.intended:  # the sum is of what comes in, and then waits for what leaves to be counted
            second = max(JOINING + self.sum.latency, self.update.latency + COUNTING + 1) + 1
        passes = self.sum.latency + JOINING + second
        # Cycles that the counts take beyond the second pass.
        counts = max(0, self.update.latency + COUNTING + max(self.counters.groups) - second)
        # With a further state behind APPLY the registers are offered a cycle after PUBLISH was reached, not at once. And in a
        # shard the scalar part takes the A of all shards from a register, not that of its own lanes from their adder.
        late = int(self._extras > 0) + int(self.config.population is not None)
        return passes + self.decide.latency + self._wait + len(STATES) + counts + self._extras + late

    @property
    def _wait(self) -> int:
        """The most cycles that A waits for the scalar part, which prepares the step from B while the gradient streams in."""
        return max(0, self.decide.prelude - self.config.beats - self.sum.latency)

    @property
    def _extras(self) -> int:
        """Cycles in states that not every unit has: the watchdog's, and those of the exchange with other shards."""
        look = 1 + self.watchdog.latency if self.watchdog is not None else 0
        # With segments each pass waits for its first tag, and that may wait for the table to turn back.
        turning = 2 * (START + self.config.entries) if self.config.segments else 0
        return look + turning + (len(SHARING) if self.config.population is not None else 0)

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the registers, streams never stalling."""
        return 2 * self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.sum = total = self.sum
        m.submodules.decide = decide = self.decide
        m.submodules.update = update = self.update

        wiring.connect(m, wiring.flipped(self.constants), decide.constants)
        wiring.connect(m, wiring.flipped(self.control), decide.control)

        status = decide.status
        shares = config.population is not None
        energy_a = Signal(config.widths.gradient_energy, reset_less=True)
        energy_b = Signal(config.widths.motion_energy, reset_less=True)
        first = Signal(init=1)
        publishes = Signal()
        offers = Signal()
        quiet = Signal(init=1)  # the inverse of `offers`, in a register of its own for the sake of the clock
        m.d.sync += [offers.eq(publishes & ~self.counters.more), quiet.eq(~publishes | self.counters.more)]

        beat = Signal(range(config.beats + 1))
        last: Value = beat == config.beats - 1
        # The pass under way, from its first cycle until the other one begins; and pulses with which a pass begins.
        takes, applying, absorbing = self.takes, Signal(), Signal(init=1)
        applies, absorbs = Signal(), Signal()
        # The lanes' ready comes late in the cycle, so it is only the enable of these registers, and no logic follows it. The two
        # pulses come while the lanes are empty, and therefore ready.
        offered = takes & Mux(applying, self.apply.valid, self.absorb.valid)
        known: Value | None = None  # whether what is said of the beat that is offered is known, if it may not be
        if config.segments:
            last, known = self._look_up(m, offered, applying)
        with m.If(update.i.ready):
            comes = both(offered, known)
            goes_on = takes.eq((takes & ~(comes & last)) | applies | absorbs)
            m.d.sync += goes_on if config.segments else [beat.eq(beat + comes), goes_on]
        with m.If(applies | absorbs):
            begins = [applying.eq(applies), absorbing.eq(absorbs)]
            m.d.sync += begins if config.segments else [beat.eq(0), *begins]
        m.d.comb += [
            update.step.eq(status.step_size),
            update.i.payload.direction.eq(self.apply.payload.direction),
            update.i.payload.weight.eq(self.apply.payload.weight),
            update.i.payload.last.eq(last),
            self.updated.payload.weight.eq(update.o.payload.weight),
            self.updated.payload.update.eq(update.o.payload.update),
            decide.i.payload.eq(Mux(applying, energy_b, energy_a) if shares else self._energy(total.o.payload)),
            self.absorb.ready.eq(both(takes & ~applying, known)),
            self.apply.ready.eq(both(takes & applying & update.i.ready, known)),
            update.i.valid.eq(both(takes & applying & self.apply.valid, known)),
            self.updated.valid.eq(update.o.valid),
            update.o.ready.eq(self.updated.ready),
            self.registers.valid.eq(offers),
        ]
        # Both passes share the squarers. A gradient reaches them through the lanes' registers of new weights, and the gradient
        # before it by the side of the old weights. What does not belong to the pass under way is held at zero in registers, so
        # that the two meet in an OR, and no multiplexer stands in front of the squarers.
        came, came_last = Signal(JOINING), Signal(JOINING, reset_less=True)
        # A beat of gradients or of new weights stands behind the lanes: what is summed, unless the motion is the intended one.
        seen, seen_last = total.i.valid, total.i.payload.last
        if config.intended:
            seen, seen_last, enters = Signal(name="seen"), Signal(name="seen_last"), Signal(JOINING, name="enters")
            m.d.sync += enters.eq(Cat(self.apply.valid & self.apply.ready, enters))
            m.d.comb += [total.i.valid.eq(came[-1] | enters[-1]), total.i.payload.last.eq(came_last[-1])]
        m.d.sync += [
            came.eq(Cat(self.absorb.valid & self.absorb.ready, came)),
            came_last.eq(Cat(last, came_last)),
        ]
        hushes = Signal(init=1)  # no previous gradient is to be subtracted
        if config.intended:
            m.d.sync += hushes.eq(first & ~applying)
        else:
            m.d.sync += hushes.eq(applying | first)
        m.d.comb += [
            update.idle.eq(absorbing),
            seen.eq(came[-1] | (update.o.valid & self.updated.ready)),
            seen_last.eq(Mux(applying, update.o.payload.last, came_last[-1])),
        ]
        for lane in range(config.lanes):
            joined = Signal(update.word, name=f"joined{lane}", reset_less=True)
            before = [
                Signal(signed(config.grids.gradient.width), name=f"before{lane}_{i}", reset_less=True) for i in range(JOINING)
            ]
            m.d.sync += joined.eq(self.absorb.payload.gradient[lane])
            with m.If(applying):
                m.d.sync += joined.eq(0)
            self._mask(m, lane, joined)
            m.d.comb += update.joined[lane].eq(joined)
            if config.intended:
                self._along(m, lane, joined, applying, hushes)
                continue
            if self.changes:
                m.d.sync += Cat(before).eq(Cat(self.absorb.payload.previous[lane], before))
                self._mask(m, lane, before[0])
                with m.If(hushes):
                    m.d.sync += before[-1].eq(0)
            m.d.comb += [
                total.i.payload.minuend[lane].eq(update.o.payload.word[lane]),
                total.i.payload.subtrahend[lane].eq(0 if config.source is Source.RATIO else update.o.payload.previous[lane]),
                total.i.payload.other[lane].eq(before[-1]),
            ]
        if config.residual_bits:
            fresh = Signal(init=1)  # in the first step, whose residuals count as zero
            with m.If(self.registers.valid):
                m.d.sync += fresh.eq(0)
            m.d.comb += self.updated.payload.residual.eq(update.o.payload.residual)
            for lane in range(config.lanes):
                m.d.comb += update.i.payload.residual[lane].eq(Mux(fresh, 0, self.apply.payload.residual[lane]))
        # The counters take two cycles to clear. So from the cycle before the registers are offered until they are taken a clear
        # does nothing: it would change what is offered.
        clears = Signal()
        m.d.comb += [clears.eq(self.clear & ~publishes), decide.clear.eq(clears), self.counters.clear.eq(clears)]

        ended = Signal()  # the new weights of the last beat are counted
        counters = self._count(m, applying, applies, seen, seen_last, ended)
        steps = {name: Signal(COUNTER_BITS, name=name, reset_less=True) for name in core_counters(config) if name not in counters}
        count_steps(m, self, steps)
        self._publish(m, {"A": energy_a, "B": energy_b} | counters | steps)
        self._watch(m, energy_a, came[-1], update.o.payload.word)
        moved = self._note_motion(m, seen & applying, decide.i.valid & decide.i.ready & applying)

        # The second pass is over: B is there, and with an intended motion, whose sum does not tell, all weights are counted.
        over: Value = total.o.valid
        if config.intended:
            counted_all, over = Signal(name="counted_all"), Signal(name="over")
            m.d.sync += [counted_all.eq((counted_all | ended) & ~applies), over.eq(total.o.valid & counted_all & ~applies)]
        closing = "WATCH" if config.watchdog else "PUBLISH"
        with m.FSM():
            with m.State("ABSORB"):  # the sum is not taken here: it stands in its adder until the step is decided
                with m.If(total.soon):
                    m.next = "SHARE A" if shares else "DECIDE"
            if shares:
                self._share(m, "SHARE A", total.o.payload, energy_a, "DECIDE", moved)
            with m.State("DECIDE"):
                if not shares:
                    m.d.sync += energy_a.eq(self._energy(total.o.payload))
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.next = "STEP"
            with m.State("STEP"):
                m.d.comb += [total.o.ready.eq(1), decide.o.ready.eq(1), applies.eq(decide.o.valid)]
                with m.If(decide.o.valid):
                    m.d.sync += first.eq(0)
                    m.next = "APPLY"
            with m.State("APPLY"):
                with m.If(over):
                    m.d.sync += energy_b.eq(total.o.payload)
                    if not shares and not config.watchdog:
                        m.d.comb += publishes.eq(1)
                    m.next = "SHARE B" if shares else closing
            if shares:
                self._share(m, "SHARE B", total.o.payload, energy_b, closing, moved)
            self._look(m)
            with m.State("PUBLISH"):
                m.d.comb += publishes.eq(quiet | ~self.registers.ready)
                with m.If(offers & self.registers.ready):
                    m.next = "MOTION"
            with m.State("MOTION"):
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.next = "RESTART"
            with m.State("RESTART"):
                m.d.comb += total.o.ready.eq(1)
                m.d.comb += absorbs.eq(1)
                m.next = "ABSORB"
        return m

    def _look_up(self, m: Module, offered: Value, applying: Value) -> tuple[Value, Value | None]:
        """With segments: whether the beat that is offered is its pass's last, and whether that is known, if it may not be.

        What else is said of the beat goes to the lanes, and to the sum as late as it is summed.
        """
        config, update = self.config, self.update
        known: Value | None = None
        self._tag: Any = Signal(tag_layout(config), name="tag")
        if self.table is None:
            m.d.comb += self._tag.eq(Mux(applying, self.apply.payload.tag, self.absorb.payload.tag))
        else:
            m.submodules.table = table = self.table
            wiring.connect(m, wiring.flipped(self.layout), table.entries)
            known = table.tags.valid
            m.d.comb += [
                table.wanted.eq(offered),
                table.tags.ready.eq(offered & update.i.ready),
                self._tag.eq(table.tags.payload),
            ]
        m.d.comb += [update.i.payload.outside.eq(self._tag.outside), update.i.payload.shift.eq(self._tag.shift)]
        if self.sum.shift_bits:
            late = delayed(m, "entered_shift", self._tag.shift, JOINING)[-1]
            leaving = late if config.intended else Mux(applying, update.o.payload.shift, late)
            m.d.comb += self.sum.i.payload.shift.eq(leaving)
        return self._tag.last, known

    def _mask(self, m: Module, lane: int, word: Signal) -> None:
        """With segments: a register that takes a lane of the beat that comes in is zero where that lies beyond its segment."""
        if self.config.segments:
            with m.If(self._tag.outside[lane]):
                m.d.sync += word.eq(0)

    def _along(self, m: Module, lane: int, joined: Signal, applying: Value, hushes: Value) -> None:
        """Give the sum, with an intended motion, the gradient before and this one, or the direction and nothing.

        ``joined`` is the gradient a cycle late, and zero in the second pass.
        """
        beat, operand = Mux(applying, self.apply.payload.direction[lane], self.absorb.payload.previous[lane]), self.sum.i.payload
        minuends = [Signal(signed(self.sum.width), name=f"along{lane}_{i}", reset_less=True) for i in range(JOINING)]
        subtrahend = Signal(signed(self.sum.width), name=f"away{lane}", reset_less=True)
        m.d.sync += [minuends[0].eq(beat), minuends[1].eq(minuends[0]), subtrahend.eq(joined)]
        self._mask(m, lane, minuends[0])
        with m.If(hushes):
            m.d.sync += minuends[1].eq(0)
        m.d.comb += [operand.minuend[lane].eq(minuends[1]), operand.subtrahend[lane].eq(subtrahend)]

    def _publish(self, m: Module, found: dict[str, Signal]) -> None:
        """The registers: what is found here, and the rest from the scalar part and the watchdog."""
        registers = self.registers.payload
        if self.config.parity:
            faulty = Signal(name="memory_was_faulty")
            with m.If(self.memory_fault):
                m.d.sync += faulty.eq(1)
            with m.Elif(self.decide.clear):
                m.d.sync += faulty.eq(0)
            found = found | {"memory_fault": faulty}
        for name in registers.shape().members:
            if name in found:
                source: Any = found[name]
            else:
                part = self.watchdog if self.watchdog is not None and name.startswith("watchdog") else self.decide
                source = part.status[name]
            m.d.comb += registers[name].eq(source)

    def _watch(self, m: Module, energy: Value, absorbs: Value, gradient: Any) -> None:
        """Connect the watchdog: to A, ``energy``; and to the beat ``gradient``, which is summed where ``absorbs``."""
        if self.watchdog is None:
            return
        m.submodules.watchdog = watchdog = self.watchdog
        ports = watchdog.signature.members
        m.d.comb += [watchdog.mask.eq(self.watchdog_mask), watchdog.clear.eq(self.decide.clear)]
        for name in ("learning_dead", "scalar_overflow"):
            if name in ports:
                m.d.comb += getattr(watchdog, name).eq(self.decide.status[name])
        if "blocks" in ports:
            wiring.connect(m, wiring.flipped(self.blocks), watchdog.blocks)
        if self.floor is not None:
            m.submodules.floor = floor = self.floor
            m.d.comb += [
                floor.i.valid.eq(absorbs),
                *(floor.i.payload.minuend[lane].eq(gradient[lane]) for lane in range(self.config.lanes)),
                floor.i.payload.last.eq(self.sum.i.payload.last),
                *([floor.i.payload.shift.eq(self.sum.i.payload.shift)] if floor.shift_bits else []),
                floor.o.ready.eq(watchdog.looked),
                watchdog.energy.eq(floor.o.payload),
            ]
        elif "energy" in ports:
            m.d.comb += watchdog.energy.eq(energy)

    def _look(self, m: Module) -> None:
        """A state of the FSM: the watchdog's look, before the registers are published."""
        if self.watchdog is None:
            return
        with m.State("WATCH"):
            m.d.comb += self.watchdog.look.eq(1)
            with m.If(self.watchdog.looked):
                m.next = "PUBLISH"

    @staticmethod
    def _energy(found: Value) -> Value:
        """What is taken for A: a projection's sum has a sign, and counts as zero where it is negative."""
        return Mux(found[-1], 0, found[:-1]) if found.shape().signed else found

    def _note_motion(self, m: Module, leaves: Value, taken: Value) -> Signal:
        """Where B is not the energy of the weights' change note here whether any weight has changed.

        ``leaves``: a beat of new weights leaves the lanes. ``taken``: the scalar part takes B, and with it this bit; that of a
        shard is of all shards.
        """
        differs, left, moved = Signal(self.config.lanes), Signal(), Signal()
        if not self.config.asks_moved:
            return moved
        out = self.update.o.payload
        m.d.sync += [
            differs.eq(Cat(out.weight[lane] != out.previous[lane] for lane in range(self.config.lanes))),
            left.eq(leaves),
        ]
        m.d.comb += self.decide.moved.eq(moved)
        if self.config.population is not None:
            m.d.comb += self.decide.moved.eq(self.moved_anywhere)
        with m.If(taken):
            m.d.sync += moved.eq(0)
        with m.Elif(left & differs.any()):
            m.d.sync += moved.eq(1)
        return moved

    def _share(self, m: Module, state: str, energy: Value, target: Signal, then: str, moved: Signal) -> None:
        """Two states of the FSM: offer this shard's ``energy``, then put the sum over all shards into ``target``.

        Beside shards of other formats it is offered on the grid of all. With an intended motion ``moved`` goes along with B,
        above it.
        """
        bits, total = self.config.widths.energy, self.total.payload
        shift = self.config.gradient_shift if state == "SHARE A" else self.config.motion_shift
        offered = energy << shift if shift else energy
        with m.State(state):
            m.d.comb += [self.partial.valid.eq(1), self.partial.payload.eq(offered)]
            if self.config.intended and state == "SHARE B":
                above = Const(0, max(0, bits - len(offered)))
                m.d.comb += self.partial.payload.eq(Cat(offered[:bits], above, moved))
            with m.If(self.partial.ready):
                m.next = f"{state} TOTAL"
        with m.State(f"{state} TOTAL"):
            m.d.comb += self.total.ready.eq(1)
            if not self.config.intended:
                m.d.sync += target.eq(self.total.payload)
            elif state == "SHARE B":
                m.d.sync += [target.eq(total[:bits]), self.moved_anywhere.eq(total[bits:].any())]
            else:
                m.d.sync += target.eq(self._energy(total.as_signed()) if self.sum.projects else total)
            with m.If(self.total.valid):
                m.next = then

    def _count(self, m: Module, applying: Value, decided: Value, seen: Value, last: Value, ended: Signal) -> dict[str, Value]:
        return count_lanes(m, self, applying, decided, seen, last, ended)
