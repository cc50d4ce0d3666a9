# ruff: noqa: E501  a fault a row reads best
"""A step of the core: counting, sequencing, the join of lanes, sums and scalar part; that one answers anything, at any time.

In one file: the record of a step, and the lemmas, which all hang on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.asserts import AnySeq
from amaranth.hdl import Const, Module, Mux, ResetSignal, Value, signed
from amaranth.lib import wiring

from kappa_rtl.golden.config import ThrottleConfig
from support.mutants import Mutant

from .contract import Contract, at
from .harness import Harness, Proof, component

ABSORBS, DECIDES, APPLIES, ENDS = range(4)
"""Phases of a step: until A is taken; until the step size is; until the registers are; until B is."""


class AnyDecision(wiring.Component):
    """In the place of the scalar part: takes energies, answers and reports whatever and whenever it likes."""

    def __init__(self, decide: wiring.Component) -> None:
        super().__init__(dict(decide.signature.members))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for output in (self.i.ready, self.o.valid, self.status):
            value = Value.cast(output)
            m.d.comb += value.eq(AnySeq(value.shape()))
        m.d.comb += self.o.payload.eq(self.status.step_size)
        return m


class Core:
    """The core beside a record of the step: every element that it was given, and how far it has come.

    What a step owes follows from the elements alone, by `Contract`. The lemmas say where each beat stands, and that every register
    on its way holds what follows from its elements.

    Args:
        package, config: of the core: a curvature source or projection, no residuals, random numbers, watchdog or shards; at most
            four lanes. With an intended motion there are the promises alone, for a proof of so many cycles.
        brisk: have everything given and answered at once and never a reset, which finds the trace of a fault sooner.
    """

    def __init__(self, package: str, config: ThrottleConfig, brisk: bool = False) -> None:
        module = component(package, "units.core")
        seen: dict[str, Any] = {}

        class Observed(module.StreamingThrottle):  # type: ignore[misc, name-defined]
            """The core, with registers at hand that have no name of their own."""

            def _count(self, m: Module, applying: Value, *more: Any) -> Any:
                seen["applying"] = applying
                return super()._count(m, applying, *more)

            def _watch(self, m: Module, energy: Value, absorbs: Any, gradient: Any) -> None:
                seen["came"] = absorbs.value
                super()._watch(m, energy, absorbs, gradient)

        self.config, self.flags = config, module.FOUND
        self.groups = module.counted(config.every_rail)
        self.names = [name for group in self.groups for name in group]
        self.dut = dut = Observed(config)
        self.most = (
            dut.step_cycles - dut.decide.latency - dut._wait
        )  # its own cycles of a step, those of the scalar part left out
        dut.decide = self.decide = AnyDecision(dut.decide)
        self.h = Harness(dut)
        self.inside = self.h.internal
        self.applying, self.came = seen["applying"], seen["came"]
        self.state = {name: self.h.state(name) for name in module.STATES}
        self._record()
        self._keep_count()
        if brisk:
            self.h.assume(dut.absorb.valid & dut.apply.valid & self.decide.i.ready & self.decide.o.valid & ~ResetSignal())
        self._promise()
        self._count_time()
        if config.intended:
            return
        self._place_beats()
        self._place_states()
        for lane in range(config.lanes):
            self._follow(lane)
        self._follow_sum()
        self._follow_counts()
        self._follow_totals()
        self._keep_time()

    # ---------------------------------------------------------------- the record

    def _record(self) -> None:
        h, m, dut, decide, beats = self.h, self.h.m, self.dut, self.decide, self.config.beats
        self.phase = h.ghost(range(4), "phase")
        self.absorbed, self.applied, self.updated = (
            h.ghost(range(beats + 1), name) for name in ("absorbed", "applied", "updated")
        )
        self.first = h.ghost(1, "first", init=1)
        self.step = h.ghost(self.config.step.width, "step", reset_less=True)
        shapes = {name: dut.absorb.payload[name][0].shape() for name in ("gradient", "previous")}
        shapes |= {name: dut.apply.payload[name][0].shape() for name in ("weight", "direction")}
        self.record = {
            name: [h.ghost(shape, f"{name}{i}", reset_less=True) for i in range(self.config.elements)]
            for name, shape in shapes.items()
        }
        self.absorbs, self.applies, self.ends = (port.valid & port.ready for port in (dut.absorb, dut.apply, dut.registers))
        takes = decide.i.valid & decide.i.ready
        self.answers, self.takes_b = decide.o.valid & decide.o.ready, takes & (self.phase == ENDS)
        m.d.sync += [
            self.absorbed.eq(self.absorbed + self.absorbs),
            self.applied.eq(self.applied + self.applies),
            self.updated.eq(self.updated + (dut.updated.valid & dut.updated.ready)),
        ]
        for i in range(self.config.elements):
            beat, lane = divmod(i, self.config.lanes)
            with m.If(self.absorbs & (self.absorbed == beat)):
                m.d.sync += self.record["gradient"][i].eq(dut.absorb.payload.gradient[lane])
                m.d.sync += self.record["previous"][i].eq(Mux(self.first, 0, dut.absorb.payload.previous[lane]))
            with m.If(self.applies & (self.applied == beat)):
                m.d.sync += self.record["weight"][i].eq(dut.apply.payload.weight[lane])
                m.d.sync += self.record["direction"][i].eq(dut.apply.payload.direction[lane])
        with m.If(takes):
            m.d.sync += self.phase.eq(DECIDES)
        with m.If(self.answers):
            m.d.sync += [self.phase.eq(APPLIES), self.step.eq(decide.o.payload)]
        with m.If(self.ends):
            m.d.sync += self.phase.eq(ENDS)
        with m.If(self.takes_b):
            m.d.sync += [self.phase.eq(ABSORBS), self.first.eq(0)]
            m.d.sync += [number.eq(0) for number in (self.absorbed, self.applied, self.updated)]
        self.owed = Contract(m, self.config, step=self.step, **self.record)
        # The scalar part's registers hold from its answer until the step's registers are taken.
        status = Value.cast(decide.status)
        held = h.past(self.answers | (self.phase == APPLIES), "answered")
        h.assume((status == h.past(status, "status")) | ~held)

    def _keep_count(self) -> None:
        """The counters as they were before this step. A clear comes between two steps, or while the registers are offered."""
        h, m, dut = self.h, self.h.m, self.dut
        self.before = {name: h.ghost(32, f"before_{name}") for name in self.names}
        self.total = {name: self.owed.wire((self.before[name] + self.owed.count(name))[:32]) for name in self.names}
        self.clears = dut.clear & ~(dut.registers.valid & ~dut.registers.ready)
        between = ((self.phase == ABSORBS) & (self.absorbed == 0)) | (self.phase == ENDS)
        h.assume(~dut.clear | between | dut.registers.valid)
        for name, before in self.before.items():
            with m.If(self.ends):
                m.d.sync += before.eq(self.total[name])
            with m.If(self.clears):
                m.d.sync += before.eq(0)

    # ---------------------------------------------------------------- what is promised

    def _promise(self) -> None:
        h, dut, decide, owed, phase, beats = self.h, self.dut, self.decide, self.owed, self.phase, self.config.beats
        absorbs, applies, ends = phase == ABSORBS, phase == APPLIES, phase == ENDS
        h.claim("a gradient is taken while one is missing", absorbs & (self.absorbed < beats), when=self.absorbs)
        given = (absorbs & (self.absorbed == beats)) | ends
        h.claim("the scalar part is given A once it is whole, and B at the end", given, when=decide.i.valid)
        h.claim("A is exact", decide.i.payload == owed.a, when=decide.i.valid & absorbs)
        h.claim("B is exact", decide.i.payload == owed.b, when=decide.i.valid & ends)
        if self.config.intended:
            h.claim("whether a weight moved", decide.moved == owed.moved, when=decide.i.valid & ends)
        h.claim("the step is awaited after A", phase == DECIDES, when=decide.o.ready)
        h.claim("a weight is taken while one is missing", applies & (self.applied < beats), when=self.applies)
        h.claim("a beat is given back for one that was taken", self.updated < self.applied, when=dut.updated.valid)
        for lane in range(self.config.lanes):
            for field, values in (("update", owed.update), ("weight", owed.weight)):
                right = at(owed.in_lane(values, lane), self.updated)
                h.claim(f"{field} of lane {lane}", dut.updated.payload[field][lane] == right, when=dut.updated.valid)
        h.claim("registers come after the last beat", applies & (self.updated == beats), when=dut.registers.valid)
        registers = dut.registers.payload
        found = {"A": owed.a, "B": owed.b} | self.total
        for name in registers.shape().members:
            right = found[name] if name in found else Value.cast(decide.status[name])
            h.claim(f"register {name}", Value.cast(registers[name]) == right, when=dut.registers.valid)
        h.claim("a clear goes to the scalar part unless registers are held up", decide.clear == self.clears)
        h.keeps(dut.updated, "updated")
        h.keeps(dut.registers, "registers")

    # ---------------------------------------------------------------- where everything stands

    def _place_beats(self) -> None:
        """Beats: in the core's two registers and the lanes' six, in the squarers, in the sum. The last one has a mark everywhere."""
        h, m, inside, beats, came = self.h, self.h.m, self.inside, self.config.beats, self.came
        absorbing, second, restarts = self.phase == ABSORBS, self.phase == APPLIES, self.state["RESTART"]
        valid = inside["update.valid"]
        self.squares = squares = [inside[f"sum.valid{stage}"] for stage in range(self.dut.sum.latency - 1)]
        whole = inside["sum.whole"]
        # Beats of the pass under way that the sum has; it is taken in the first cycle of STEP, answered or not.
        self.in_sum = h.ghost(range(beats + 1), "in_sum")
        with m.If(self.takes_b | ((self.phase == DECIDES) & whole)):
            m.d.sync += self.in_sum.eq(0)
        with m.Elif(squares[-1]):
            m.d.sync += self.in_sum.eq(self.in_sum + 1)
        arrived = self.number(self.in_sum, *squares)
        # Which beat stands in a stage: as many are before it as are in the stages behind that one.
        self.places = [self.number(self.in_sum, *squares[stage + 1 :]) for stage in range(len(squares))]
        self.joins = [self.number(arrived, came[1]), arrived]
        self.moves = [self.number(self.updated, *valid[stage + 1 :]) for stage in range(len(valid))]

        rests = self.state["DECIDE"] | (self.phase == DECIDES) | (self.phase == ENDS) | restarts
        nothing = ~(came.any() | valid.any() | self.number(*squares).any())
        h.lemma("nothing moves between passes", nothing, when=rests)
        h.lemma("nothing moves as the sum is cleared", nothing & (self.in_sum == 0), when=inside["sum.clears"])
        h.lemma("each gradient is somewhere", self.absorbed == self.number(arrived, *came), when=self.state["ABSORB"])
        h.lemma("each update that left is somewhere", self.updated == arrived, when=second)
        h.lemma("each weight is somewhere", self.applied == self.number(self.updated, *valid), when=second)
        h.lemma("no weight in the first pass", ~valid.any(), when=~self.applying)
        h.lemma("no gradient in the second pass", ~came.any(), when=self.applying)
        h.lemma("no more beats than there are", (self.absorbed <= beats) & (self.applied <= beats))
        h.lemma("all absorbed", self.absorbed == beats, when=~absorbing)
        h.lemma("none updated yet", (self.applied == 0) & (self.updated == 0), when=absorbing | (self.phase == DECIDES))
        all_updated = (self.applied == beats) & (self.updated == beats)
        h.lemma("all updated", all_updated, when=(self.phase == ENDS) | self.state["PUBLISH"])
        h.lemma("sum is closed", inside["sum.closed"] == ((arrived == beats) | restarts))
        h.lemma("sum is whole", whole == ((self.in_sum == beats) | restarts), when=~self.state["ABSORB"])
        h.lemma("sum is not whole", ~whole & (self.in_sum < beats), when=self.state["ABSORB"])
        h.lemma("a beat is offered", (self.dut.updated.valid == valid[-1]) & (inside["update.free"] == ~valid[-1]))
        for stage, there in enumerate(squares):
            h.lemma(f"last square {stage}", inside[f"sum.last{stage}"] == (there & (self.places[stage] == beats - 1)))
        for stage, there in enumerate(inside["ends"]):
            h.lemma(f"last update {stage}", there == (second & squares[stage] & (self.places[stage] == beats - 1)))
        for stage in (0, 1):
            h.lemma(f"last gradient {stage}", inside["came_last"][stage] == (self.joins[stage] == beats - 1), when=came[stage])
        for stage, there in enumerate(valid):
            h.lemma(f"last weight {stage}", inside["update.last"][stage] == (self.moves[stage] == beats - 1), when=there)
        h.lemma("no last weight", ~inside["update.last"].any(), when=came.any())

    def _place_states(self) -> None:
        h, inside, state, phase, beats = self.h, self.inside, self.state, self.phase, self.config.beats
        absorbing, second, restarts = phase == ABSORBS, phase == APPLIES, state["RESTART"]
        h.lemma("first pass", (state["ABSORB"] | state["DECIDE"] | restarts) == absorbing)
        h.lemma("awaiting the step", state["STEP"] == (phase == DECIDES))
        h.lemma("second pass", (state["APPLY"] | state["PUBLISH"]) == second)
        h.lemma("end", state["MOTION"] == (phase == ENDS))
        h.lemma("restart", self.absorbed == 0, when=restarts)
        summed = self.in_sum == beats
        h.lemma("decide", (self.absorbed == beats) & summed, when=state["DECIDE"])
        h.lemma("decided", summed | (self.in_sum == 0), when=phase == DECIDES)
        h.lemma("publish", summed & inside["sum.whole"], when=state["PUBLISH"] | (phase == ENDS))
        h.lemma("first", inside["first"] == (self.first & (absorbing | (phase == DECIDES))))
        h.lemma("not applying is absorbing", inside["absorbing"] == ~self.applying)
        h.lemma("applying", self.applying == (second | (phase == ENDS) | restarts))
        takes = Mux(self.applying, second & (self.applied < beats), self.absorbed < beats)
        h.lemma("takes", inside["takes"] == takes)
        h.lemma("beat", inside["beat"] == Mux(self.applying, Mux(second, self.applied, beats), self.absorbed))
        h.lemma("quiet", inside["quiet"] == ~inside["offers"])
        h.lemma("offered", state["PUBLISH"], when=inside["offers"])

    # ---------------------------------------------------------------- what the registers on the way hold

    def number(self, *there: Any) -> Value:
        """How many."""
        return self.owed.wire(self.owed.added([Value.cast(value) for value in there]))

    def two(self, one: Sequence[Value], other: Sequence[Value]) -> list[Value]:
        """Those of the pass under way."""
        return [self.owed.wire(Mux(self.phase == APPLIES, b, a)) for a, b in zip(one, other, strict=True)]

    def _follow_sum(self) -> None:
        h, inside, owed, phase = self.h, self.inside, self.owed, self.phase
        squared = [value * value for value in self.two(owed.changes, owed.motions)]
        partial = [owed.added(squared[: n * self.config.lanes]) for n in range(self.config.beats + 1)]
        under_way = ~inside["sum.clears"] & (phase != ENDS) & ~self.state["RESTART"]
        h.lemma("sum", inside["sum.total"] == at(partial, self.in_sum), when=under_way)
        h.lemma("sum of B", inside["sum.total"] == owed.b, when=phase == ENDS)
        h.lemma("energy A", inside["energy_a"] == owed.a, when=(phase == DECIDES) | (phase == APPLIES))
        h.lemma("energy B", inside["energy_b"] == owed.b, when=self.state["PUBLISH"])
        h.lemma("minus the step", inside["update.minus_step"] == -self.step, when=phase == APPLIES)
        h.lemma("hushes", inside["hushes"] == inside["first"], when=self.came[0])
        h.lemma("hushed", inside["hushes"], when=inside["update.valid"].any())

    def _follow(self, lane: int) -> None:
        """The numbers of a lane. Beyond the elements they may be anything until they leave the lane."""
        h, inside, owed, config, came, squares = self.h, self.inside, self.owed, self.config, self.came, self.squares
        valid, places, joins, moves = inside["update.valid"], self.places, self.joins, self.moves
        mine = {name: owed.in_lane(values, lane) for name, values in self.record.items()}
        whole = (owed.update, owed.weight, owed.product, owed.on_update_grid, owed.on_weight_grid)
        change, new, product, rounded, moved = (owed.in_lane(values, lane) for values in whole)
        real = [Const(beat * config.lanes + lane < config.elements, 1) for beat in range(config.beats)]

        def same(what: str, register: str, values: Sequence[Value], place: Value, when: Value) -> None:
            h.lemma(f"{what}, lane {lane}", inside[register] == at(values, place), when=when & at(real, place))

        # In the squarers, of both passes.
        difference = owed.in_lane(self.two(owed.changes, owed.motions), lane)
        squared = [owed.wire(value * value) for value in difference]
        h.lemma(f"difference {lane}", inside[f"sum.difference{lane}"] == at(difference, places[0]), when=squares[0])
        for factor in ("x", "y"):
            peeked = h.peek(f"sum.squarer{lane}.cell.g_plain.{factor}", signed(self.dut.sum.width + 1))
            h.lemma(f"factor {factor} of squarer {lane}", peeked == at(difference, places[1]), when=squares[1])
        h.lemma(f"product of squarer {lane}", inside[f"sum.squarer{lane}.cell.o"] == at(squared, places[2]), when=squares[2])
        h.lemma(f"square {lane}", inside[f"sum.square{lane}"] == at(squared, places[3]), when=squares[3])

        # Gradients, through the registers of new weights.
        hushes, previous = inside["hushes"], at(mine["previous"], joins[0])
        same("joined", f"joined{lane}", mine["gradient"], joins[0], came[0])
        same("previous", f"before{lane}_0", mine["previous"], joins[0], came[0] & ~hushes)
        h.lemma(f"no previous gradient {lane}", previous == 0, when=came[0] & hushes & at(real, joins[0]))
        same("previous, on", f"before{lane}_1", mine["previous"], joins[1], came[1])
        same("gradient", f"update.new{lane}", mine["gradient"], joins[1], came[1])
        h.lemma(f"no weight beside a gradient {lane}", inside[f"update.weight_5_{lane}"] == 0, when=came[1])
        before = (inside[f"update.weight_4_{lane}"] == 0) & (inside[f"update.summed{lane}"] == 0)
        h.lemma(f"no weight before a gradient {lane}", before, when=came[0])
        h.lemma(f"no gradient beside weights {lane}", inside[f"joined{lane}"] == 0, when=valid.any())
        h.lemma(f"no gradient before weights {lane}", inside[f"before{lane}_1"] == 0, when=valid[1:].any())

        # Weights, stage by stage.
        for stage in range(len(valid) - 1):
            same(f"weight {stage}", f"update.weight_{stage}_{lane}", mine["weight"], moves[stage], valid[stage])
        cell = f"update.multiplier{lane}.cell"
        direction = h.peek(f"{cell}.g_plain.x", signed(config.grids.direction.width))
        factor = h.peek(f"{cell}.g_plain.y", signed(config.step.width + 1))
        h.lemma(f"direction {lane}", direction == at(mine["direction"], moves[0]), when=valid[0] & at(real, moves[0]))
        h.lemma(f"factor of lane {lane}", factor == -self.step, when=valid[0])
        same("product", f"{cell}.o", product, moves[1], valid[1])
        same("rounded", f"update.rounded{lane}", rounded, moves[2], valid[2])
        shift = config.widths.update_shift
        cut = [exact != (near << shift) for exact, near in zip(product, rounded, strict=True)]
        same("inexact", f"update.inexact{lane}", cut, moves[2], valid[2])
        same("was inexact", f"update.was_inexact{lane}", cut, moves[3], valid[3])
        same("update", f"update.update{lane}", change, moves[3], valid[3])
        same("update, on", f"update.update_1_{lane}", change, moves[4], valid[4])
        same("moved", f"update.moved{lane}", moved, moves[4], valid[4])
        saturated, swallowed = (owed.in_lane(owed.counts[f"update_{name}"], lane) for name in ("saturated", "underflow"))
        same("saturated 3", f"update.saturated_0_{lane}", saturated, moves[3], valid[3])
        same("saturated 4", f"update.saturated_1_{lane}", saturated, moves[4], valid[4])
        same("swallowed 4", f"update.swallowed_1_{lane}", swallowed, moves[4], valid[4])
        old = [Mux(there, value, 0) for there, value in zip(real, mine["weight"], strict=True)]
        leaves = {"new": new, "weight_5_": old, "update_2_": change, "saturated_2_": saturated, "swallowed_2_": swallowed}
        for name, values in leaves.items():
            h.lemma(f"{name} {lane}", inside[f"update.{name}{lane}"] == at(values, moves[5]), when=valid[5])

    def _counted(self, name: str | None) -> list[Value]:
        """Of each beat, how many elements a counter counts."""
        if name is None:
            return [Const(0, 1)] * self.config.beats
        return [self.owed.added(self.owed.beat(self.owed.counts[name], beat)) for beat in range(self.config.beats)]

    def _follow_counts(self) -> None:
        """The flags of a beat, how many are up, and the counters of the pass, which then move past the adder."""
        h, inside, owed, phase, squares, places = self.h, self.inside, self.owed, self.phase, self.squares, self.places
        second, adds, cleared = phase == APPLIES, inside["counters.left"][0], inside["counters.clears"]
        self.added = h.ghost(range(len(self.names) + 1), "added")  # totals that are brought up to date
        with h.m.If(self.takes_b):
            h.m.d.sync += self.added.eq(0)
        with h.m.Elif(adds):
            h.m.d.sync += self.added.eq(self.added + 1)
        h.lemma("a clear comes between steps", ~(self.number(*squares).any() | adds | (phase == DECIDES) | second), when=cleared)
        for i, (flag, names) in enumerate(self.flags.items()):
            if i >= max(len(group) for group in self.groups):  # a flag that the unit does not have
                continue
            # The stages of the squarers beside which a flag, the number and the counter have the beat; rails are compared in a cycle more.
            shown, numbered, counted = (1, 3, 4) if flag in ("rail", "near") else (0, 2, 3)
            for lane in range(self.config.lanes):
                of_beat = [owed.in_lane(owed.counts[name], lane) if name else [Const(0, 1)] * self.config.beats for name in names]
                right = at(self.two(*of_beat), places[shown])
                meant = squares[shown] & (1 if names[0] else second)
                h.lemma(f"flag {flag} {lane}", inside[f"{flag}_flags"][lane] == right, when=meant)
            numbers = self.two(*(self._counted(name) for name in names))
            for name, stage in ((f"{flag}_of_0", numbered - 1), (f"{flag}_number", numbered)):
                right = Mux(squares[stage], at(numbers, places[stage]), 0)
                h.lemma(f"{name} of a beat", inside[name] == right, when=~cleared)
            passed = Mux(phase == DECIDES, self.config.beats, self.number(self.in_sum, *squares[counted:]))
            so_far = at([owed.added(numbers[:n]) for n in range(self.config.beats + 1)], passed)
            first_group = len(self.groups[0])
            counts = Mux((phase == ENDS) | (second & (self.added < first_group)), 0, so_far)
            moved: Value = Const(0, 1)
            for group, start in zip(self.groups, (0, first_group), strict=True):
                for k in range(len(group) - i):
                    moved = Mux(self.added == start + k, owed.count(group[i + k]), moved)
            adding = second & (adds | (self.added > first_group))
            h.lemma(f"counter {i}", inside[f"counters.count{i}"] == Mux(adding, moved, counts), when=~cleared)

    def _follow_totals(self) -> None:
        """The totals, a ring that turns as each is added to; and when that is."""
        h, inside, owed, added, names = self.h, self.inside, self.owed, self.added, self.names
        second, first_group, valid = self.phase == APPLIES, len(self.groups[0]), inside["update.valid"]
        done = (self.updated == self.config.beats) & (self.number(*self.squares[:4]) == 0)  # all of the second pass is counted
        left: Value = Const(0, 1)
        for n in range(len(names)):
            to_come = (1 << (first_group if n < first_group else len(names)) - n) - 1
            left = Mux(added == n, Mux(done, to_come, 0) if n == first_group else to_come, left)
        h.lemma("counts to be added", inside["counters.left"] == Mux(second, left, 0))
        h.lemma("none is added before the second pass", added == 0, when=(self.phase == ABSORBS) | (self.phase == DECIDES))
        early = ~valid[1:].any() & (self.applied <= 1) & (self.applied <= added) & (self.updated == 0)
        h.lemma("the first pass is added before the second arrives", early, when=second & (added < first_group))
        h.lemma("the second pass is added when it is done", done, when=second & (added > first_group))
        h.lemma("offered when all is added", added == len(names), when=inside["offers"] | (self.phase == ENDS))
        now = [(self.before[name] + Mux(second & (added > j), owed.count(name), 0))[:32] for j, name in enumerate(names)]
        for i in range(len(names)):
            turned = at([now[(i + n) % len(names)] for n in range(len(names) + 1)], added)
            h.lemma(f"total {i}", inside[f"counters.total{i}"] == turned, when=~inside["counters.clears"])
            h.lemma(f"total {i} is cleared", self.before[names[i]] == 0, when=inside["counters.clears"])

    def _count_time(self) -> None:
        """The cycles of a step in which nobody outside is waited for are bounded: no stall is the core's own, and it never stands still."""
        h, dut, decide = self.h, self.dut, self.decide
        waits = [port.ready & ~port.valid for port in (dut.absorb, dut.apply, decide.o)]
        waits += [port.valid & ~port.ready for port in (dut.updated, dut.registers, decide.i)]
        own = ~self.number(*waits).any()
        time = h.ghost(range(2 * self.most), "time")
        with h.m.If(self.takes_b):
            h.m.d.sync += time.eq(0)
        with h.m.Elif(own):
            h.m.d.sync += time.eq(time + 1)
        h.claim("a step takes no more cycles than promised", time <= self.most)
        self.time = time

    def _keep_time(self) -> None:
        """How many cycles of a step are left, from the state and from where the last beat of the pass is."""
        h, time, beats, state, squares = self.h, self.time, self.config.beats, self.state, self.squares
        valid, whole, offers, added = self.inside["update.valid"], self.inside["sum.whole"], self.inside["offers"], self.added

        def left(passed: Value, missing: Value, stages: Sequence[tuple[Value, Value]], after: int) -> Value:
            """Of a pass, with the stages that a beat passes, and the number of the beat in each."""
            result: Value = Const(after)
            for stage, (there, place) in reversed(list(enumerate(stages))):
                result = Mux(there & (place == beats - 1), after + len(stages) - stage, result)
            return Mux(passed < beats, missing + len(stages) + after, result)

        sums = list(zip(squares, self.places, strict=True))
        to_add = len(self.names) - added
        at_whole = len(self.groups[0]) + len(squares) - 4  # totals that are up to date as the second sum is whole
        whole_at = max(3, 2 + len(self.names) - at_whole)
        publish = Mux(offers, 2, 2 + Mux(to_add > 1, to_add, 1))
        apply = Mux(
            whole, whole_at, left(self.applied, beats - self.applied, [*zip(valid, self.moves, strict=True), *sums], whole_at)
        )
        decides = 1 + beats + len(valid) + len(squares) + whole_at
        absorb = left(self.absorbed, beats - self.absorbed, [*zip(self.came, self.joins, strict=True), *sums], decides + 1)
        most = decides + 1 + len(squares) + len(self.came) + beats + 1
        cases = {"MOTION": 1, "PUBLISH": publish, "APPLY": apply, "STEP": decides, "DECIDE": decides + 1, "ABSORB": absorb}
        to_come: Value = Const(most)
        for name, value in cases.items():
            to_come = Mux(state[name], value, to_come)
        h.lemma("cycles to come", time + to_come <= self.most)
        for stage in range(4, len(squares)):
            begun = added == len(self.groups[0]) + stage - 4
            h.lemma(
                f"added at stage {stage}",
                begun,
                when=(self.phase == APPLIES) & squares[stage] & (self.places[stage] == beats - 1),
            )
        h.lemma("added as the sum is whole", added == at_whole, when=state["APPLY"] & whole)


def small(**changes: Any) -> ThrottleConfig:
    """Gradients of three bits, weights of four."""
    formats = {"gradient": "SQ1.2", "weight": "SQ2.2", "update": "SQ1.3", "step_bits": 4}
    return ThrottleConfig(**({"eta": 0.5, "eps": "1/64", "mantissa_bits": 5, "exponent_bits": 6} | formats | changes))


ONE_LANE, TWO_LANES = small(elements=2, lanes=1), small(elements=3, lanes=2)
WHAT = "A, B, y, theta', counters exact for every element, as the contract has them; order; no beat lost or counted twice; clear; cycles; whatever the scalar part answers"
ALONG = "A, B, whether a weight moved, y, theta', counters exact for every element, as the contract has them; order; cycles; whatever the scalar part answers, where nobody waits"
PROOFS = [
    Proof(
        "core, 2 elements, 1 lane",
        WHAT,
        lambda package: Core(package, ONE_LANE).h,
        depth=3,
        solver="bitwuzla",
        mutants=(
            Mutant("units/core.py", "hushes.eq(applying | first)", "hushes.eq(applying)", "after a reset the old gradient is still there"),
            Mutant("units/core.py", "            with m.If(applying):\n                m.d.sync += joined.eq(0)", "            with m.If(0):\n                m.d.sync += joined.eq(0)", "the gradient is still there as the weights leave"),
            Mutant("units/core.py", "(takes & ~(comes & last)) | applies | absorbs", "takes | applies | absorbs", "a pass takes more beats than there are"),
            Mutant("units/core.py", "(comes & last)) | applies | absorbs)", "(comes & last)) | absorbs)", "the second pass never begins"),
            Mutant("units/core.py", "with m.If(total.soon):", "with m.If(total.i.valid):", "the step is decided before A is whole"),
            Mutant("units/core.py", "seen.eq(came[-1] | (update.o.valid & self.updated.ready))", "seen.eq(came[-1] | update.o.valid)", "a stalled beat is summed in every cycle"),
            Mutant("units/core.py", "with m.If(offers & self.registers.ready):", "with m.If(offers):", "the registers do not wait to be taken"),
            Mutant("units/core.py", "clears.eq(self.clear & ~publishes)", "clears.eq(self.clear)", "a clear changes registers that are offered"),
            Mutant("units/counts.py", "Cat(decided, ends[-1])", "Cat(decided, ends[-2])", "the counts are added before the last is counted"),
            Mutant("lanes/counters.py", "[*counts[1:], 0]", "[*counts[1:], counts[0]]", "a count that was added stays"),
            Mutant("lanes/counters.py", "m.d.sync += left.eq((1 << size) - 1)", "m.d.sync += left.eq((1 << size - 1) - 1)", "the last of the counts is not added"),
        ),
        small=lambda package: Core(package, ONE_LANE, brisk=True).h,
        depth_mutants=34,
    ),
    Proof(
        "core, 3 elements, 2 lanes",
        WHAT,
        lambda package: Core(package, TWO_LANES).h,
        depth=3,
        solver="bitwuzla",
        mutants=(
            Mutant("units/counts.py", "inside = ~was_last if lane >= tail else 1", "inside = 1", "lanes beyond N are counted"),
            Mutant("lanes/norm.py", "if lane >= self.tail:", "if lane > self.tail:", "the first lane beyond N enters the sum"),
            Mutant("units/core.py", "minuend[lane].eq(update.o.payload.word[lane])", "minuend[lane].eq(update.o.payload.word[0])", "all squarers have the first lane's word"),
        ),
        small=lambda package: Core(package, TWO_LANES, brisk=True).h,
        depth_mutants=34,
    ),
    Proof(
        "core, 3 elements, 2 lanes",
        "after a reset from any state as after power-up",
        lambda package: Core(package, TWO_LANES).h,
        "reset",
        depth=3,
        solver="bitwuzla",
        mutants=(Mutant("units/core.py", "takes = Signal(init=1)", "takes = Signal(init=1, reset_less=True)", "a pass outlives a reset"),),
    ),
    Proof(
        "core, intended motion, 2 elements, 1 lane",
        ALONG,
        lambda package: Core(package, ONE_LANE.replace(motion="intended"), brisk=True).h,
        "bound",
        depth=34,
        solver="bitwuzla",
        mutants=(
            Mutant("units/core.py", "with m.Elif(left & differs.any()):", "with m.Elif(left & differs.all() & 0):", "no weight ever moves"),
            Mutant("units/core.py", "beat, operand = Mux(applying, self.apply.payload.direction[lane], self", "beat, operand = Mux(applying, self.apply.payload.weight[lane], self", "B is of the weights"),
            Mutant("units/core.py", "over.eq(total.o.valid & counted_all & ~applies)", "over.eq(total.o.valid)", "the registers are offered before the last weight is counted"),
        ),
    ),
    Proof(
        "core, projection, 1 element, 1 lane",
        ALONG,
        lambda package: Core(package, ONE_LANE.replace(source="projection", elements=1), brisk=True).h,
        "bound",
        depth=42,
        solver="bitwuzla",
        mutants=(
            Mutant("units/core.py", "return Mux(found[-1], 0, found[:-1]) if found.shape().signed else found", "return found[:-1] if found.shape().signed else found", "a sum below zero is a large A"),
            Mutant("units/core.py", "hushes.eq(first & ~applying)", "hushes.eq(0)", "after a reset the old gradient is still there"),
        ),
    ),
]  # fmt: skip
