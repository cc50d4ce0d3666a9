"""The throttle unit: absorb a gradient, decide the step, apply the update."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetSignal, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.config import COUNTER_BITS, RAIL_COUNTERS, Source, ThrottleConfig

from .counters import Counters, ones, summed
from .decide import Decide
from .gate import gates
from .memory import BlockMemory, guard, unit_memory
from .norm import SumOfSquares
from .ports import core_counters, host_words, pass_on, registers_layout, residual_field, unit_ports, updated_signature, vector
from .rounding import rails
from .update import Update
from .watchdog import Watchdog

__all__ = ["StreamingThrottle", "Throttle", "host_words", "registers_layout"]

STAGES = BlockMemory.latency
"""From the ports of :class:`Throttle` to its core: the memory's."""

JOINING = 2
"""From the core's ports to the lanes' last registers, through which gradients leave for the squarers as weights do."""

COUNTING = 4
"""From the lanes' last registers to the numbers of a beat's flags."""

COUNTED = (
    "gradient_saturated",
    "gradient_near_rail",
    "weight_saturated",
    "weight_near_rail",
    "update_saturated",
    "update_underflow",
)
"""In the order in which the core brings them up to date: those of the first pass, then those of the second."""


class StreamingThrottle(wiring.Component):
    """The core without a gradient memory: the previous gradient and the direction come as streams.

    A step: ceil(N/L) beats of ``absorb`` {gradient, previous}; the scalar part decides; ceil(N/L) beats of ``apply``
    {weight, direction}, each answered on ``updated`` {weight, update} in order; then ``registers``, once. The next step's
    gradient is accepted when the registers were taken. In the first step after reset ``previous`` counts as zero. With
    ``residual_bits`` both streams of the second pass have a field ``residual``: e on the way in, which counts as zero in the
    first step too, and the new e on the way out.

    The lanes of the last beat beyond N are ignored on the way in and zero on the way out. ``constants`` and ``control`` must
    hold steady during a step, ``eps`` and ``on_still`` from the registers of the step before on. ``clear`` zeroes all counters,
    flags and the run of still steps between two steps, or as the registers are taken, after that read; while they are held up
    it does nothing.

    One squarer a lane serves both passes: the gradient's change on the way in, the weight's change on the way out. With the
    sources ``norm`` and ``ratio`` it is the gradient itself on the way in, whatever ``previous`` holds; with ``ratio`` the weight
    itself on the way out.

    A shard (``config.population``) offers its energies on ``partial``, A then B in each step, and waits on ``total`` for their
    sums over all shards. A watchdog (``config.watchdog``, :class:`~kappa_rtl.hw.watchdog.Watchdog`) has the ports
    ``watchdog_mask`` and ``blocks``; blocks taken before a step's registers are offered belong to that step. With
    ``config.parity`` whoever holds the gradients says on ``memory_fault`` that one was not what was stored; the flag is sticky.

    Throughput: a beat a cycle in both passes. A step takes at most :attr:`step_cycles` when no stream stalls.
    Reset, at any time: the unit of a first step.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        g, w, _, _ = config.grids
        lanes = config.lanes
        self.decide = Decide(config)
        self._make_lanes()
        self.takes = Signal(init=1)  # whether a pass has beats to come
        self.watchdog = Watchdog(config) if config.watchdog else None
        self.floor: SumOfSquares | None = None  # of the gradient, where the watchdog asks for it and A is something else
        assert isinstance(config.source, Source)
        self.changes = config.source.is_curvature  # what is squared on the way in: the gradient's change, or the gradient
        if "gradient_floor" in config.watchdog and self.changes:
            self.floor = self._sum(g.width, config.widths.gradient_energy)
        super().__init__(
            {
                "absorb": In(
                    stream.Signature(data.StructLayout({"gradient": vector(g.width, lanes), "previous": vector(g.width, lanes)}))
                ),
                "apply": In(
                    stream.Signature(
                        data.StructLayout(
                            {"weight": vector(w.width, lanes), "direction": vector(g.width, lanes)} | residual_field(config)
                        )
                    )
                ),
            }
            | unit_ports(config)
            | {"updated": Out(updated_signature(config, residual=True))}
            | ({"memory_fault": In(1)} if config.parity else {})
        )

    def _make_lanes(self) -> None:
        self.update = Update(self.config, joins=True)
        self.sum = self._sum(self.update.word.width, self.config.widths.energy, either=True)
        self.counters = Counters((2, 6 if self.config.every_rail else 4), self.config.lanes, self.config.elements)

    def _sum(self, width: int, energy_bits: int, either: bool = False) -> SumOfSquares:
        config = self.config
        return SumOfSquares(lanes=config.lanes, width=width, energy_bits=energy_bits, tail=config.tail, either=either)

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        passes = 2 * self.sum.latency + self.update.latency
        config, extras = self.config, self._extras
        if extras:  # then the registers are not known to be complete before they are
            extras += 1
        if config.population is not None:  # and A is not what was summed here
            extras += 1
        late = max(0, COUNTING + max(self.counters.groups) - self.sum.latency)  # counts, where the second sum is the faster
        return passes + self.decide.latency + self._wait + 7 + JOINING + late + extras

    @property
    def _wait(self) -> int:
        """The most cycles that A waits for what is done about B, while a gradient streams in."""
        return max(0, self.decide.prelude - self.config.beats - self.sum.latency)

    @property
    def _extras(self) -> int:
        """Cycles of the watchdog's look, and of the exchange of both energies with shards that answer at once."""
        look = self.watchdog.latency + 1 if self.watchdog is not None else 0
        return look + (4 if self.config.population is not None else 0)

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
        quiet = Signal(init=1)  # whether the registers are offered, or not
        m.d.sync += [offers.eq(publishes & ~self.counters.more), quiet.eq(~publishes | self.counters.more)]

        beat = Signal(range(config.beats + 1))
        last = beat == config.beats - 1
        takes, applying, absorbing = self.takes, Signal(), Signal(init=1)  # the last two for either pass, from its begin on
        applies, absorbs = Signal(), Signal()  # a pass begins
        # Beats wait with the lanes, whose enable is late: so no logic follows it. Between the passes they never wait.
        with m.If(update.i.ready):
            comes = takes & Mux(applying, self.apply.valid, self.absorb.valid)
            m.d.sync += [beat.eq(beat + comes), takes.eq((takes & ~(comes & last)) | applies | absorbs)]
        with m.If(applies | absorbs):
            m.d.sync += [beat.eq(0), applying.eq(applies), absorbing.eq(absorbs)]
        m.d.comb += [
            update.step.eq(status.step_size),
            update.i.payload.direction.eq(self.apply.payload.direction),
            update.i.payload.weight.eq(self.apply.payload.weight),
            update.i.payload.last.eq(last),
            self.updated.payload.weight.eq(update.o.payload.weight),
            self.updated.payload.update.eq(update.o.payload.update),
            decide.i.payload.eq(Mux(applying, energy_b, energy_a) if shares else total.o.payload),
            self.absorb.ready.eq(takes & ~applying),
            self.apply.ready.eq(takes & applying & update.i.ready),
            update.i.valid.eq(takes & applying & self.apply.valid),
            self.updated.valid.eq(update.o.valid),
            update.o.ready.eq(self.updated.ready),
            self.registers.valid.eq(offers),
        ]
        # A gradient leaves through the registers of the new weights, the one before it beside those of the old ones: whatever is
        # not of this pass is zero there, so that nothing has to be chosen in front of the squarers.
        came, came_last = Signal(JOINING), Signal(JOINING, reset_less=True)
        m.d.sync += [
            came.eq(Cat(self.absorb.valid & self.absorb.ready, came)),
            came_last.eq(Cat(last, came_last)),
        ]
        hushes = Signal(init=1)  # no previous gradient is to be subtracted
        m.d.sync += hushes.eq(applying | first)
        m.d.comb += [
            update.idle.eq(absorbing),
            total.i.valid.eq(came[-1] | (update.o.valid & self.updated.ready)),
            total.i.payload.last.eq(Mux(applying, update.o.payload.last, came_last[-1])),
        ]
        for lane in range(config.lanes):
            joined = Signal(update.word, name=f"joined{lane}", reset_less=True)
            before = [
                Signal(signed(config.grids.gradient.width), name=f"before{lane}_{i}", reset_less=True) for i in range(JOINING)
            ]
            m.d.sync += joined.eq(self.absorb.payload.gradient[lane])
            with m.If(applying):
                m.d.sync += joined.eq(0)
            if self.changes:
                m.d.sync += Cat(before).eq(Cat(self.absorb.payload.previous[lane], before))
                with m.If(hushes):
                    m.d.sync += before[-1].eq(0)
            m.d.comb += [
                update.joined[lane].eq(joined),
                total.i.payload.minuend[lane].eq(update.o.payload.word[lane]),
                total.i.payload.subtrahend[lane].eq(0 if config.source is Source.RATIO else update.o.payload.previous[lane]),
                total.i.payload.other[lane].eq(before[-1]),
            ]
        if config.residual_bits:
            fresh = Signal(init=1)  # until the first step was applied
            with m.If(self.registers.valid):
                m.d.sync += fresh.eq(0)
            m.d.comb += self.updated.payload.residual.eq(update.o.payload.residual)
            for lane in range(config.lanes):
                m.d.comb += update.i.payload.residual[lane].eq(Mux(fresh, 0, self.apply.payload.residual[lane]))
        clears = Signal()  # nothing from the cycle before the registers are offered, for it is late, until they are taken
        m.d.comb += [clears.eq(self.clear & ~publishes), decide.clear.eq(clears), self.counters.clear.eq(clears)]

        counters = self._count(m, applying, applies)
        steps = {name: Signal(COUNTER_BITS, name=name, reset_less=True) for name in core_counters(config) if name not in counters}
        self._count_steps(m, steps)
        self._publish(m, {"A": energy_a, "B": energy_b} | counters | steps)
        self._watch(m, energy_a, came[-1], update.o.payload.word)
        self._note_motion(m, total.i.valid & applying, decide.i.valid & decide.i.ready & applying)

        with m.FSM():
            with m.State("ABSORB"):  # and then the sum stands until the scalar part took it
                with m.If(total.soon):
                    m.next = "SHARE A" if shares else "DECIDE"
            if shares:
                self._share(m, "SHARE A", total.o.payload, energy_a, "DECIDE")
            with m.State("DECIDE"):
                if not shares:
                    m.d.sync += energy_a.eq(total.o.payload)
                m.d.comb += decide.i.valid.eq(1)
                with m.If(decide.i.ready):
                    m.next = "STEP"
            with m.State("STEP"):
                m.d.comb += [total.o.ready.eq(1), decide.o.ready.eq(1), applies.eq(decide.o.valid)]
                with m.If(decide.o.valid):
                    m.d.sync += first.eq(0)
                    m.next = "APPLY"
            with m.State("APPLY"):
                with m.If(total.o.valid):
                    m.d.sync += energy_b.eq(total.o.payload)
                    if not shares and not config.watchdog:
                        m.d.comb += publishes.eq(1)
                    m.next = "SHARE B" if shares else "WATCH" if config.watchdog else "PUBLISH"
            if shares:
                self._share(m, "SHARE B", total.o.payload, energy_b, "WATCH" if config.watchdog else "PUBLISH")
            if self.watchdog is not None:
                with m.State("WATCH"):
                    m.d.comb += self.watchdog.look.eq(1)
                    with m.If(self.watchdog.looked):
                        m.next = "PUBLISH"
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
        """What the watchdog sees; ``energy`` is A, and ``absorbs`` whether a beat of the gradient is summed, ``gradient``."""
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
                floor.o.ready.eq(watchdog.looked),
                watchdog.energy.eq(floor.o.payload),
            ]
        elif "energy" in ports:
            m.d.comb += watchdog.energy.eq(energy)

    def _note_motion(self, m: Module, leaves: Value, taken: Value) -> None:
        """With ``ratio``, where B does not say it: whether a weight has moved, until the scalar part has taken B."""
        if self.config.source is not Source.RATIO:
            return
        out = self.update.o.payload
        differs, moved = Signal(self.config.lanes), Signal()
        m.d.sync += differs.eq(Cat((out.weight[lane] != out.previous[lane]) & leaves for lane in range(self.config.lanes)))
        m.d.comb += self.decide.moved.eq(moved)
        with m.If(taken):
            m.d.sync += moved.eq(0)
        with m.Elif(differs.any()):
            m.d.sync += moved.eq(1)

    def _share(self, m: Module, state: str, energy: Value, target: Signal, then: str) -> None:
        """Two states of the FSM: offer this shard's energy, which stands; take the sum over all shards."""
        with m.State(state):
            m.d.comb += [self.partial.valid.eq(1), self.partial.payload.eq(energy)]
            with m.If(self.partial.ready):
                m.next = f"{state} TOTAL"
        with m.State(f"{state} TOTAL"):
            m.d.comb += self.total.ready.eq(1)
            m.d.sync += target.eq(self.total.payload)
            with m.If(self.total.valid):
                m.next = then

    def _count(self, m: Module, applying: Value, decided: Value) -> dict[str, Value]:
        """Count lane flags: flags, their number in the beat, all numbers; rails are known a cycle later. Gives the totals."""
        g, w, y, _ = self.config.grids
        lanes, tail = self.config.lanes, self.config.tail
        total, out = self.sum.i, self.update.o.payload
        m.submodules.counters = counters = self.counters

        names = ["rail", "near", "saturated", "swallowed"] + ["update_rail", "update_near"] * self.config.every_rail
        flags = {name: Signal(lanes, name=f"{name}_flags", reset_less=True) for name in names}
        taken, was_taken, was_last = total.valid & total.ready, Signal(), Signal(reset_less=True)
        counts, counts_update = Signal(), Signal()
        m.d.sync += [was_taken.eq(taken), counts.eq(was_taken), counts_update.eq(taken & applying)]
        m.d.sync += was_last.eq(total.payload.last)
        for lane in range(lanes):
            word = Signal(self.update.word, name=f"word{lane}")
            m.d.comb += word.eq(out.word[lane])
            if g.rails == w.rails:
                on, near = rails(m, word, g)
            else:
                on_g, near_g = rails(m, word[: g.width].as_signed(), g)
                on_w, near_w = rails(m, word[: w.width].as_signed(), w)
                on, near = Mux(applying, on_w, on_g), Mux(applying, near_w, near_g)
            inside = ~was_last if lane >= tail else 1
            m.d.sync += [flags["rail"][lane].eq(on & inside), flags["near"][lane].eq(near & inside)]
            m.d.sync += [flags["saturated"][lane].eq(out.saturated[lane]), flags["swallowed"][lane].eq(out.swallowed[lane])]
            if self.config.every_rail:  # the zeros of the lanes beyond N lie on no rail
                on, near = rails(m, out.update[lane], y)
                m.d.sync += [flags["update_rail"][lane].eq(on), flags["update_near"][lane].eq(near)]
        # What its gate holds at zero needs no other reset: the counters let a reset's first two cycles go by.
        gates = {"rail": counts, "near": counts, "saturated": counts_update, "swallowed": counts_update}
        for i, name in enumerate(names):
            fours = [Signal(3, name=f"{name}_of_{lane}", reset_less=True) for lane in range(0, lanes, 4)]
            number = Signal(range(lanes + 1), name=f"{name}_number", reset_less=True)
            m.d.sync += [four.eq(ones(flags[name][4 * j : 4 * j + 4])) for j, four in enumerate(fours)]
            with m.If(~gates.get(name, counts & applying)):
                m.d.sync += [four.eq(0) for four in fours]
            m.d.sync += number.eq(summed(m, name, fours))
            m.d.comb += counters.numbers[i].eq(number)

        ends = Signal(COUNTING)  # the last beat's way into the counts
        m.d.sync += ends.eq(Cat(taken & applying & out.last, ends))
        m.d.comb += counters.add.eq(Cat(decided, ends[-1]))
        return dict(zip(COUNTED + RAIL_COUNTERS[:2] * self.config.every_rail, counters.totals, strict=True))

    def _count_steps(self, m: Module, counters: dict[str, Signal]) -> None:
        """Count steps whose size is on its rail, or near it, until ``clear``."""
        if not self.config.every_rail:
            return
        step = self.config.step
        decided, size = Signal(), self.decide.o.payload
        m.d.sync += decided.eq(self.decide.o.valid & self.decide.o.ready)
        for name, least in (("step_rail", step.rails[1]), ("step_near_rail", step.near_rail)):
            there = Signal(name=f"{name}_there", reset_less=True)
            m.d.sync += [there.eq(size >= least), counters[name].eq(counters[name] + (decided & there))]
            with m.If(ResetSignal() | self.decide.clear):
                m.d.sync += counters[name].eq(0)


class Throttle(wiring.Component):
    """The unit with its gradient memory inside, of ceil(N/L) words: plain SGD, along the gradient that it absorbed.

    Ports: ``gradient`` in, ``weights`` in, ``updated`` {weight, update} out, ``registers`` out, ``clear``, ``constants``,
    ``control``; see :class:`StreamingThrottle`. Weights are accepted once the whole gradient is in, at most two beats before
    the step is decided. The memory needs no reset: in the first step the previous gradient counts as zero.

    With ``residual_bits`` the residuals are memory beside the gradients: read with them in the apply pass, and written as the
    weights leave.

    Throughput: a beat a cycle in both passes; four cycles a step more than the streaming core.
    """

    Core: type[StreamingThrottle] = StreamingThrottle

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.core = self.Core(config)
        g, w, _, _ = config.grids
        super().__init__(
            {
                "gradient": In(stream.Signature(vector(g.width, config.lanes))),
                "weights": In(stream.Signature(vector(w.width, config.lanes))),
            }
            | unit_ports(config)
        )

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        return self.core.overhead + 2 * STAGES

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the registers, streams never stalling."""
        return 2 * self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.core = core = self.core
        depth = max(2, config.beats)
        m.submodules.memory = memory = unit_memory(config, config.grids.gradient.width)

        pass_on(m, self, core)

        # Stages between the ports and the core, which hold gradients or weights, never both: so no weight's direction is read
        # before the gradient is stored, and no word in the cycle in which it is written. They move all at once, or the ready
        # signals would run through each of them; for the same reason a pass ends by registers, and begins a cycle late.
        takes = Signal(init=1)  # the pass has beats to come
        weighs = Signal()  # its beats are weights
        address = Signal(range(depth))
        valid = Signal(STAGES)
        places = [Signal(range(depth), name=f"place{i}", reset_less=True) for i in range(STAGES)]
        gradients = [Signal(self.gradient.payload.shape(), name=f"gradient{i}", reset_less=True) for i in range(STAGES)]
        weights = [Signal(self.weights.payload.shape(), name=f"weight{i}", reset_less=True) for i in range(STAGES)]
        arrives = Signal()
        # A gate for four lanes each, and one for all else: from one it is far to all of them.
        move = gates(
            m,
            "moves",
            -(-config.lanes // 4) + 1,
            lambda takes, empty, ready, blocked: empty or ready if takes else not blocked,
            core.takes,
            core.update.empty,
            self.updated.ready,
            valid[-1],
        )
        moves = move[-1]
        ended = ~takes & ~valid.any()  # and then they move
        m.d.comb += [
            arrives.eq(takes & Mux(weighs, self.weights.valid, self.gradient.valid)),
            self.gradient.ready.eq(takes & ~weighs & moves),
            self.weights.ready.eq(takes & weighs & moves),
            core.absorb.valid.eq(valid[-1] & ~weighs),
            core.absorb.payload.gradient.eq(gradients[-1]),
            core.absorb.payload.previous.eq(memory.read_data),
            core.apply.valid.eq(valid[-1] & weighs),
            core.apply.payload.weight.eq(weights[-1]),
            core.apply.payload.direction.eq(memory.read_data),
            memory.read_address.eq(address),
            memory.read.eq(moves),
            memory.read_output.eq(moves),
            memory.write_address.eq(places[-1]),
            memory.write_data.eq(gradients[-1]),
            memory.write.eq(core.absorb.valid),  # in each cycle in which the gradient waits to be absorbed: it is the same one
        ]
        with m.If(moves):
            m.d.sync += [
                valid.eq(Cat(arrives, valid)),
                Cat(places).eq(Cat(address, places)),
            ]
            m.d.sync += [
                address.eq(address + arrives),
                takes.eq((takes & ~(arrives & (address == config.beats - 1))) | ended),
                weighs.eq(weighs ^ ended),
            ]
        for lane in range(config.lanes):
            with m.If(move[lane // 4]):
                for stages, word in ((gradients, self.gradient.payload), (weights, self.weights.payload)):
                    for register, before in zip(stages, [word, *stages], strict=False):
                        m.d.sync += register[lane].eq(before[lane])
        with m.If(ended):
            m.d.sync += address.eq(0)
        if config.residual_bits:
            residuals = self._keep_residuals(m, address, reads=moves & weighs, moves=moves)
        if config.parity:
            taken = valid[-1] & moves
            guard(m, core.memory_fault, {memory: taken} | ({residuals: taken & weighs} if config.residual_bits else {}))
        return m

    def _keep_residuals(self, m: Module, address: Signal, *, reads: Value, moves: Value) -> Any:
        """The residuals' memory: read as ``address`` says, written in order as the updates leave."""
        config, core = self.config, self.core
        m.submodules.residuals = residuals = unit_memory(config, config.residual_bits)
        written = Signal(range(max(2, config.beats)))
        m.d.comb += [
            core.apply.payload.residual.eq(residuals.read_data),
            residuals.read_address.eq(address),
            residuals.read.eq(reads),
            residuals.read_output.eq(moves),
            residuals.write_address.eq(written),
            residuals.write_data.eq(core.updated.payload.residual),
            residuals.write.eq(core.updated.valid),  # and it stays the same while it waits
        ]
        with m.If(core.updated.valid & core.updated.ready):
            m.d.sync += written.eq(Mux(written == config.beats - 1, 0, written + 1))
        return residuals
