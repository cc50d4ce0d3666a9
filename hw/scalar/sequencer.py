"""What the scalar unit does one after the other: a program as a list, and the state machine that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from amaranth.hdl import Module, Mux, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..cells.chain import either
from .operations import SHORT, Operation, scalar_layout
from .unit import LANDING, ScalarUnit

__all__ = ["Alone", "Do", "longest", "sequence"]


OFFERED = 2
"""Cycles from the end of an operation until the ports offer or ask for what the next one waits for: it begins, and a register
says so."""

HEARD = 2
"""Cycles from the answer that an operation waits for until the next one is taken: a register says that it came, and another one
that nothing is waited for."""


class Do(NamedTuple):
    """One operation on the accumulator y.

    Conditions go by name, and the first one that holds counts. Those of ``instead`` and ``then`` are looked at as the operation
    before this one ends.
    """

    name: str
    op: Operation
    x: str = ""  #: its operand; any, if it has none
    store: str = ""  #: the register that takes y as the operation begins: what the one before it made
    instead: Mapping[str, Operation] = {}  #: by condition: another operation
    then: Mapping[
        str, str
    ] = {}  #: by condition: the name of what follows; "" is no condition. By default the next one of the list
    until: str = ""  #: the condition that it waits for when it is done


def sequence(
    m: Module, unit: ScalarUnit, program: Sequence[Do], *, operands: Mapping[str, Any], conditions: Mapping[str, Any]
) -> dict[str, Signal]:
    """Have a unit run a program for ever, from its first operation at reset.

    Each operation takes ``unit.cycles``; beside it, the next one is looked up and its operand chosen.

    Args:
        operands: scalars that may be x, by name; they have to be there two cycles before they are used.
        conditions: by name.

    Returns:
        By name of an operation: whether it is under way. By name of a register: whether it shall take y.
    """
    places = {do.name: place for place, do in enumerate(program)}
    for do, default in zip(program, [*program[1:], program[0]], strict=True):
        for name in [*do.then.values()] + ([] if "" in do.then else [default.name]):
            late = do.op in SHORT and do.store and program[places[name]].x == do.store
            assert not late, f"{name}: {do.store} is stored too late to be its operand"
    assert program[0].op is Operation.HOLD, "the program begins at reset, with an operation that was not looked up"
    stored = sorted({do.store for do in program} - {""})
    awaited = {do.until: Signal(name=f"awaits_{do.until}") for do in program if do.until}
    under_way = {do.name: Signal(name=f"does_{do.name}") for do in program if do.until}

    following = Signal(len(program), init=1)  # what is done next, one-hot

    def of_next(what: Callable[[Do], ValueLike]) -> Value:
        """What holds for the operation that is next."""
        return either(Mux(following[place], what(do), 0) for place, do in enumerate(program))

    def next_in(some: Iterable[Do]) -> Value:
        return either(following[places[do.name]] for do in some)

    def choice(choices: Mapping[str, Any], default: Any, value: Callable[[Any], int]) -> ValueLike:
        """That of the first condition that holds; ``""`` is no condition."""
        result: ValueLike = value(choices.get("", default))
        for name in reversed([name for name in choices if name]):
            result = Mux(conditions[name], value(choices[name]), result)
        return result

    def then(do: Do, value: Callable[[str], int]) -> ValueLike:
        return choice(do.then, program[(places[do.name] + 1) % len(program)].name, value)

    op = of_next(lambda do: choice(do.instead, do.op, lambda op: op.value))
    after = of_next(lambda do: then(do, lambda name: 1 << places[name]))
    early_op = Signal(Operation)
    storing = {name: Signal(name=f"storing_{name}") for name in stored}
    stores = {name: Signal(name=f"stores_{name}") for name in stored}

    # The operand is chosen in two cycles: first a register for each takes a copy, and all but one are held at zero by their
    # resets, which costs no logic; then an OR of all of them is x.
    x = unit.x.as_value()
    copies = []
    for name, value in operands.items():
        copy = Signal(unit.operand, name=f"operand_{name}", reset_less=True)
        absent = Signal(name=f"no_{name}", init=1)
        users = sum(1 << places[do.name] for do in program if do.x == name)
        with m.If(unit.go):
            m.d.sync += absent.eq(~(after & users).any())
        with m.If(absent):
            m.d.sync += copy.eq(0)
        with m.Else():
            m.d.sync += [copy[field].eq(getattr(value, field)) for field in ("m", "e")]
        copies.append(copy.as_value())
    while len(copies) > 1:  # four at a time, as many as a look-up table takes
        copies = [either(copies[i : i + 4]) for i in range(0, len(copies), 4)]
    m.d.comb += x.eq(copies[0])

    # Whether the operation under way has to wait on: from a register, and so known a cycle late.
    blocked = Signal()
    with m.If(unit.go):
        m.d.sync += blocked.eq(next_in(do for do in program if do.until))
    with m.Elif(~unit.began):
        m.d.sync += blocked.eq(either(waits & ~Value.cast(conditions[name]) for name, waits in awaited.items()))
    m.d.sync += early_op.eq(op)
    m.d.comb += [unit.op.eq(early_op), unit.go.eq(unit.done & ~blocked)]
    with m.If(unit.go):
        m.d.sync += following.eq(after)
        m.d.sync += [waits.eq(next_in(do for do in program if do.until == name)) for name, waits in awaited.items()]
        m.d.sync += [does.eq(following[places[name]]) for name, does in under_way.items()]
        m.d.sync += [storing[name].eq(next_in(do for do in program if do.store == name)) for name in stored]
    m.d.sync += [stores[name].eq(storing[name] & unit.began) for name in stored]
    return under_way | stores


def longest(program: Sequence[Do], unit: ScalarUnit, start: str, end: str) -> int:
    """The most cycles from taking what the operation ``start`` waits for to offering or asking what ``end`` does.

    Of a radicand, if it is one, that is taken then the digits are begun in the same cycle.
    """
    places = {do.name: place for place, do in enumerate(program)}

    def walk(place: int, time: int, root: int, quotient: int) -> int:
        do, following = program[place], program[(place + 1) % len(program)].name
        if do.name == end:
            return time + OFFERED
        if do.op in (Operation.DIVIDE, Operation.UNDER):
            quotient = time
        if do.op is Operation.QUOTIENT:
            time = max(time + unit.waiting, quotient + unit.division)
        elif do.op is Operation.ROOT:
            time = max(time + unit.waiting, root + unit.root.longest + LANDING)
        elif do.until:  # nobody keeps it waiting: what it offers is taken at once
            time = root = time + OFFERED + HEARD
        else:
            time += max(unit.cycles(op) for op in (do.op, *do.instead.values()))
        names = [*do.then.values()] + ([] if "" in do.then else [following])
        return max(walk(places[name], time, root, quotient) for name in names)

    after = program[places[start]]
    names = [*after.then.values()] + ([] if "" in after.then else [program[places[start] + 1].name])
    return max(walk(places[name], HEARD, 0, 0) for name in names)


class Alone(wiring.Component):
    """A program on a unit of its own: what one instantiates to use or to test a part of a step by itself.

    Args:
        taken: operands that come with each run, in the payload of ``i``; their first one is y at its begin.
        operands: others, by name: constants of the host's, ports that hold steady, or values that are given here.
        conditions: ports, by name.
        aside: operations that the program goes to by name alone.

    Ports: ``i`` what is taken; ``o`` the accumulator ``y``, ``step``, and what was stored, each as it stood last.
    """

    def __init__(
        self,
        unit: ScalarUnit,
        program: Sequence[Do],
        *,
        taken: Sequence[str],
        operands: Mapping[str, Any],
        conditions: Sequence[str] = (),
        aside: Sequence[Do] = (),
    ) -> None:
        self.unit, self._taken, self._operands, self._conditions = unit, taken, operands, conditions
        begin = (Do("begin", Operation.HOLD, until="taken"), Do("settle", Operation.HOLD), Do("take", Operation.LOAD, taken[0]))
        self.program = (*begin, *program, Do("end", Operation.HOLD, until="answered", then={"": "begin"}), *aside)
        scalar = scalar_layout(unit.fmt)
        self._stored = sorted({do.store for do in self.program} - {"", *taken})
        result = {"y": scalar, "step": unit.step_bits} | dict.fromkeys(self._stored, scalar)
        ports: dict[str, Any] = {name: In(scalar) for name, value in operands.items() if value is None}
        super().__init__(
            ports
            | {name: In(1) for name in conditions}
            | {
                "i": In(stream.Signature(data.StructLayout(dict.fromkeys(taken, scalar)))),
                "o": Out(stream.Signature(data.StructLayout(result))),
            }
        )

    @property
    def latency(self) -> int:
        """The most cycles from taking the operands to offering the result."""
        return longest(self.program, self.unit, "begin", "end")

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        given = Signal(self.i.payload.shape())
        kept = {name: Signal(scalar_layout(unit.fmt), name=name) for name in self._stored}
        asks = Signal()
        offers = Signal()
        operands = {name: getattr(self, name) if value is None else value for name, value in self._operands.items()}
        does = sequence(
            m,
            unit,
            self.program,
            operands={name: given[name] for name in self._taken} | operands | kept,
            conditions={name: getattr(self, name) for name in self._conditions} | {"taken": ~asks, "answered": ~offers},
        )
        with m.If(unit.began):
            m.d.sync += [asks.eq(does["begin"]), offers.eq(does["end"])]
        with m.If(asks & self.i.valid):
            m.d.sync += [asks.eq(0), given.eq(self.i.payload)]
        with m.If(offers & self.o.ready):
            m.d.sync += offers.eq(0)
        for name, register in kept.items():
            with m.If(does[name]):
                m.d.sync += register.eq(unit.y)
            m.d.comb += self.o.payload[name].eq(register)
        m.d.comb += [
            self.i.ready.eq(asks),
            self.o.valid.eq(offers),
            self.o.payload.y.eq(unit.y),
            self.o.payload.step.eq(unit.step),
        ]
        return m
