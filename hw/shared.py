"""One scalar unit for many clients: how a state machine asks it for an operation, and how the requests reach it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from typing import Any, NamedTuple

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring

from .scalar import Operation, ScalarUnit

__all__ = ["Shared", "issue", "offer", "share"]


class Request(NamedTuple):
    """An operation that a client's FSM asks for while ``asked`` is high; the operands hold for a cycle more."""

    asked: Signal
    op: Operation
    a: Any
    b: Any


def issue(
    m: Module,
    unit: Any,
    state: str,
    op: Operation,
    a: Any,
    b: Any,
    target: Any,
    then: str,
    *,
    field: str = "value",
    when: Any = 1,
    otherwise: str | None = None,
) -> Request:
    """Two FSM states that have the unit do one operation: ``target = op(a, b)``, then on to state ``then``.

    The first one waits for ``when``, or goes to the state ``otherwise`` without it; the operands are needed from the cycle
    after on.

    The operands reach the unit by :func:`offer`, to which all requests of a client go.
    """
    asked = Signal(name=f"asks_{state.lower().replace(' ', '_')}")
    with m.State(state):
        m.d.comb += [unit.request.valid.eq(when), asked.eq(when)]
        with m.If(unit.request.valid & unit.request.ready):
            m.next = f"{state} WAIT"
        if otherwise:
            with m.Elif(~when):
                m.next = otherwise
    with m.State(f"{state} WAIT"):
        m.d.comb += unit.response.ready.eq(1)
        with m.If(unit.response.valid):
            m.d.sync += target.eq(unit.response.payload[field])
            m.next = then
    return Request(asked, op, a, b)


def offer(m: Module, unit: Any, requests: list[Request]) -> None:
    """Send the request that was asked for in the cycle before; all zeros if none was.

    One choice a bit, without any order among the requests, from a register for each: what state an FSM is in takes its time.
    """
    chosen = [Signal(name=f"{request.asked.name}_q") for request in requests]
    m.d.sync += [was_asked.eq(request.asked) for was_asked, request in zip(chosen, requests, strict=True)]
    for name in ("op", "a", "b"):
        asked: dict[int, list[Signal]] = {}  # by operand, so that one that is used often is one choice
        operands = {id(getattr(request, name)): Value.cast(getattr(request, name)) for request in requests}
        for request, was_asked in zip(requests, chosen, strict=True):
            asked.setdefault(id(getattr(request, name)), []).append(was_asked)
        m.d.comb += Value.cast(unit.request.payload[name]).eq(
            _either(Mux(Cat(asked[key]).any(), operands[key], 0) for key in operands)
        )


def share(m: Module, unit: ScalarUnit, clients: list[Any]) -> None:
    """Let several clients use one unit; at most one of them may have an operation under way at a time.

    A request is taken at once and its operands come a cycle later, from :func:`offer`: an operation takes a client
    ``unit.latency[op] + 1`` cycles from its request to the response, which is taken as it comes, and one to use it.
    """
    asked = Signal()
    m.d.comb += [
        unit.i.valid.eq(asked),
        unit.i.payload.as_value().eq(_either(client.request.payload.as_value() for client in clients)),
        unit.o.ready.eq(Cat(*(client.response.ready for client in clients)).any()),
    ]
    m.d.sync += asked.eq(Cat(*(client.request.valid for client in clients)).any())
    for client in clients:
        m.d.comb += [
            client.request.ready.eq(1),
            client.response.valid.eq(unit.o.valid),
            client.response.payload.eq(unit.o.payload),
        ]


def _either(values: Iterable[Value]) -> Value:
    return functools.reduce(operator.or_, values)


class Shared(wiring.Component):
    """A client with a unit of its own: what one instantiates to use or to test a client alone.

    Ports are those of the client, without ``unit``.
    """

    def __init__(self, client: Any, unit: ScalarUnit) -> None:
        self.client, self.unit = client, unit
        super().__init__({name: member for name, member in client.signature.members.items() if name != "unit"})

    @property
    def latency(self) -> int:
        """Its client's."""
        return int(self.client.latency)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.client = self.client
        m.submodules.unit = self.unit
        wiring.connect(m, wiring.flipped(self), _without_unit(self.client))
        share(m, self.unit, [self.client.unit])
        return m


def _without_unit(client: wiring.Component) -> Any:
    members = {name: member for name, member in client.signature.members.items() if name != "unit"}
    face = wiring.Signature(members)

    class Face:
        signature = face

    view = Face()
    for name in members:
        setattr(view, name, getattr(client, name))
    return view
