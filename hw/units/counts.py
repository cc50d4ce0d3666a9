"""What the core counts of every beat and of every step."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, Mux, ResetSignal, Signal, Value

from ..lanes.counters import counted, flags, ones, summed
from ..lanes.rounding import rails

COUNTING = 4
"""Cycles from the lanes' last registers to the counts: the flags, their sums in fours, the number of a beat, its addition."""


def count_lanes(
    m: Module, core: Any, applying: Value, decided: Value, seen: Value, last: Value, ended: Signal
) -> dict[str, Value]:
    """Count what the lanes of a core find: a flag a lane, how many are up in the beat, and the totals, which it gives by counter.

    ``applying``: the second pass is under way. ``decided``: the first one is over, and its counts go to the totals. ``seen``,
    ``last``: a beat stands behind the lanes. ``ended``, which it drives: the counts of the second pass go to the totals.
    """
    g, w, y, *_ = core.config.grids
    lanes, tail = core.config.lanes, core.tail
    out = core.update.o.payload
    m.submodules.counters = counters = core.counters

    names = flags(core.config.every_rail)
    found = {name: Signal(lanes, name=f"{name}_flags", reset_less=True) for name in names}
    taken: Value = seen if core.config.intended else seen & core.sum.i.ready
    was_taken, was_last = Signal(), Signal(reset_less=True)
    counts, counts_update = Signal(), Signal()
    m.d.sync += [was_taken.eq(taken), counts.eq(was_taken), counts_update.eq(taken & applying)]
    m.d.sync += was_last.eq(last)
    for lane in range(lanes):
        word = Signal(core.update.word, name=f"word{lane}")
        m.d.comb += word.eq(out.word[lane])
        if g.rails == w.rails:
            on, near = rails(m, word, g)
        else:
            on_g, near_g = rails(m, word[: g.width].as_signed(), g)
            on_w, near_w = rails(m, word[: w.width].as_signed(), w)
            on, near = Mux(applying, on_w, on_g), Mux(applying, near_w, near_g)
        if core.update.hides:
            overflowed = Signal(name=f"overflowed{lane}", reset_less=True)
            m.d.sync += overflowed.eq(out.overflowed[lane])
            on = on | overflowed  # of gradients there is none: the lanes hold zeros then
        inside = ~was_last if lane >= tail else 1
        m.d.sync += [found["rail"][lane].eq(on & inside), found["near"][lane].eq(near & inside)]
        m.d.sync += [found["saturated"][lane].eq(out.saturated[lane]), found["swallowed"][lane].eq(out.swallowed[lane])]
        if core.config.every_rail:  # lanes beyond N need no mask here: their update is zero, which is on no rail
            on, near = rails(m, out.update[lane], y)
            m.d.sync += [found["update_rail"][lane].eq(on), found["update_near"][lane].eq(near)]
    # A flag counts only where its gate is open: for rails a cycle later than for what the lanes say themselves, as they are
    # compared in a cycle more. Behind the gates nothing needs a reset: counters ignore the two cycles after one.
    gates = {"rail": counts, "near": counts, "saturated": counts_update, "swallowed": counts_update}
    for i, name in enumerate(names):
        fours = [Signal(3, name=f"{name}_of_{lane}", reset_less=True) for lane in range(0, lanes, 4)]
        number = Signal(range(lanes + 1), name=f"{name}_number", reset_less=True)
        m.d.sync += [four.eq(ones(found[name][4 * j : 4 * j + 4])) for j, four in enumerate(fours)]
        with m.If(~gates.get(name, counts & applying)):
            m.d.sync += [four.eq(0) for four in fours]
        m.d.sync += number.eq(summed(m, name, fours))
        m.d.comb += counters.numbers[i].eq(number)

    ends = Signal(COUNTING)  # follows the last beat until its numbers are counted
    m.d.sync += ends.eq(Cat(taken & applying & out.last, ends))
    m.d.comb += counters.add.eq(Cat(decided, ends[-1]))
    if core.config.intended:
        m.d.comb += ended.eq(ends[-1])
    first, second = counted(core.config.every_rail)
    return dict(zip(first + second, counters.totals, strict=True))


def count_steps(m: Module, core: Any, counters: dict[str, Signal]) -> None:
    """With ``every_rail``: count steps whose size is on the upper rail of its grid, or near it."""
    if not core.config.every_rail:
        return
    step = core.config.step
    decided, size = Signal(), core.decide.o.payload
    m.d.sync += decided.eq(core.decide.o.valid & core.decide.o.ready)
    for name, least in (("step_rail", step.rails[1]), ("step_near_rail", step.near_rail)):
        there = Signal(name=f"{name}_there", reset_less=True)
        m.d.sync += [there.eq(size >= least), counters[name].eq(counters[name] + (decided & there))]
        with m.If(ResetSignal() | core.decide.clear):
            m.d.sync += counters[name].eq(0)
