"""A client of the scalar unit, against the list of operations that it shall ask for.

The unit is not there: its responses are what the solver likes, when it likes. So what is proved holds for any unit, and with the
operations of `prove_scalar` it is the whole of the client's arithmetic.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from amaranth.hdl import Const, Signal, Value

from .harness import Harness


class Asked(NamedTuple):
    """One operation: its state in the client's FSM, what it shall ask for, where the result goes, and what comes next."""

    state: str
    op: Any
    a: Any
    b: Any
    result: Signal
    then: Any  #: the number of the next operation, an expression
    field: str = "value"
    when: Any = 1  #: else it is left out, in a cycle,
    otherwise: int = 0  #: and this one is next


def follows(h: Harness, dut: Any, steps: list[Asked], *, start: Any, idle: str) -> Value:
    """Have the client follow the list; the ghost's results are the `result` signals. Gives whether all is done.

    ``start`` is the number of the first operation, as the client takes its input; the number after the last one is "done".
    """
    m = h.m
    number = h.ghost(range(len(steps) + 2), "number", init=len(steps) + 1)
    waiting = h.ghost(1, "waiting")  # asked, and no response yet
    none, done = len(steps) + 1, len(steps)
    accepted, taken = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
    request, response = dut.unit.request, dut.unit.response
    h.assume(request.ready)  # a shared unit's client is always heard
    fired = request.valid & request.ready
    answered = response.valid & response.ready

    # The operands come in the cycle after.
    fresh = h.past(fired, "fired")
    h.claim("no operation without being asked for one", ~fresh | waiting)
    with m.If(taken):
        m.d.sync += number.eq(none)
    with m.If(accepted):
        m.d.sync += number.eq(start)
    with m.If(fired):
        m.d.sync += waiting.eq(1)
    with m.If(answered):
        m.d.sync += waiting.eq(0)
    states: Value = Const(0)
    for index, step in enumerate(steps):
        here = number == index
        with m.If(here & answered):
            m.d.sync += [Value.cast(step.result).eq(Value.cast(response.payload[step.field])), number.eq(step.then)]
        with m.If(here & ~waiting & ~Value.cast(step.when)[0]):
            m.d.sync += number.eq(step.otherwise)
        h.claim(f"{step.state}: operation", request.payload.op == step.op, when=fresh & here)
        h.claim(f"{step.state}: first operand", Value.cast(request.payload.a) == Value.cast(step.a), when=fresh & here)
        h.claim(f"{step.state}: second operand", Value.cast(request.payload.b) == Value.cast(step.b), when=fresh & here)
        asks = h.internal[f"asks_{step.state.lower()}"]
        h.lemma(f"{step.state}: its register", h.internal[f"{asks.name}_q"] == (fresh & here))
        if step.state != idle:
            h.lemma(f"{step.state}: asking", h.state(step.state) == (here & ~waiting))
            h.claim(f"{step.state}: asked at once", fired == step.when, when=here & ~waiting)
        h.lemma(f"{step.state}: waiting", h.state(f"{step.state} WAIT") == (here & waiting))
        states = states | h.state(f"{step.state} WAIT") | h.state(step.state)
    h.lemma("only states there are", states | h.state(idle) | h.state("RESPOND"))
    h.lemma("idle", h.state("RESPOND") == (number == done))
    h.lemma("waiting for one of them", ~waiting | (number < done))
    h.lemma("numbers there are", number <= none)
    h.claim("answers are taken at once", response.ready == waiting)
    h.claim("offered when all is done", dut.o.valid == (number == done))
    h.keeps(dut.o, "result")
    return number == done
