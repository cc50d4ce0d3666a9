"""A component with ghosts beside it: what every proof is made of.

A claim is asserted in every cycle, whatever the inputs and the reset do. Proved by induction (what holds after power-up, and
with a cycle in the next one too), it holds for ever. The same harness proves the reset: from *any* state of all registers, claims
and lemmas hold in as many cycles after a reset as the induction is deep, which takes over from there.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amaranth.asserts import AnyConst
from amaranth.hdl import Assert, Assume, Cat, Elaboratable, Fragment, Instance, Module, ResetSignal, Signal, Value, ValueLike
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from support.mutants import Mutant

HW = "kappa_rtl.hw"


class Harness(Elaboratable):
    """One component, named `dut`, its inputs free, and claims about it.

    Attributes:
        m: the module in which ghosts are built.
        inputs: what the solver chooses in every cycle; the component's inputs are there already.
        after_reset: set it to weaken everything to "in so many cycles after a reset"; 0 for always.
        promises_only: set it to leave the lemmas out.
        ecp5: set it to have the cells as they are for the ECP5, of the primitives in ``ecp5.v``.
        abstract_products: set it to have the multipliers' products free, the wires ``product`` of their cells.
    """

    def __init__(self, dut: wiring.Component) -> None:
        self.m = Module()
        self.inputs: list[Signal] = []
        self.peeks: dict[str, str] = {}
        self.after_reset = 0
        self.abstract_products = False
        self.ecp5 = False
        self._claims: list[tuple[Value, str]] = []
        self._lemmas: list[tuple[Value, str]] = []
        self.promises_only = False
        fragment = Fragment.get(dut, None)
        self.internal = _named(fragment)
        self.m.submodules.dut = _Built(fragment)
        for _, member, value in dut.signature.flatten(dut):
            if member.flow is In:
                self.inputs.append(_signal(value))

    def free(self, shape: Any, name: str) -> Signal:
        """A further input."""
        self.inputs.append(Signal(shape, name=name))
        return self.inputs[-1]

    def state(self, name: str) -> Value:
        """Whether the component's FSM is in a state."""
        signal = self.internal["fsm_state"]
        return signal == next(code for code in range(1 << len(signal)) if signal.decoder(code).startswith(f"{name}/"))

    def peek(self, path: str, shape: Any) -> Signal:
        """A register inside of a Verilog module, by its path in the component."""
        signal = self.free(shape, f"peek{len(self.peeks)}")
        self.peeks[signal.name] = f"dut.{path}"
        return signal

    def ghost(self, shape: Any, name: str, **options: Any) -> Signal:
        return Signal(shape, name=f"ghost_{name}", **options)

    def whichever(self, shape: Any, name: str) -> Any:
        """A constant that the solver chooses: what holds for it holds for all of them."""
        constant = self.ghost(shape, name)
        self.m.d.comb += Value.cast(constant).eq(AnyConst(Value.cast(constant).shape()))
        return constant

    def assume(self, condition: ValueLike) -> None:
        self.m.d.comb += Assume(condition)

    def steady(self, port: ValueLike, name: str) -> None:
        """Assume that an input, a constant of the host's, never changes."""
        started = Signal(name=f"started_{name}", reset_less=True)
        self.m.d.sync += started.eq(1)
        self.assume(~started | (Value.cast(port) == self.past(port, name, reset_less=True)))

    def claim(self, what: str, condition: ValueLike, *, when: ValueLike = 1) -> None:
        """In every cycle in which ``when``, ``condition``: something that the component promises."""
        self._claims.append((~Value.cast(when).any() | Value.cast(condition).any(), what))

    def lemma(self, what: str, condition: ValueLike, *, when: ValueLike = 1) -> None:
        """The same about the inside, on which the induction rests. A mutant has to be rejected without the lemmas."""
        self._lemmas.append((~Value.cast(when).any() | Value.cast(condition).any(), what))

    def past(self, value: ValueLike, name: str, *, reset_less: bool = False) -> Signal:
        """The value a cycle ago; 0 in the first one and, unless ``reset_less``, after a reset."""
        value = Value.cast(value)
        register = Signal(value.shape(), name=f"past_{name}", reset_less=reset_less)
        self.m.d.sync += register.eq(value)
        return register

    def keeps(self, port: Any, name: str) -> None:
        """The output stream's contract: once valid, it stays valid with the same payload until it is taken."""
        held = self.past(port.valid & ~port.ready, f"{name}_held")
        payload = self.past(port.payload, f"{name}_payload")
        self.claim(f"{name}: valid stays until the payload is taken", port.valid, when=held)
        self.claim(f"{name}: the payload stays until it is taken", Value.cast(port.payload) == payload, when=held)

    def elaborate(self, platform: Any) -> Module:
        resets = Signal(self.after_reset, reset_less=True)  # in which of the last cycles there was one
        self.m.d.sync += resets.eq(Cat(ResetSignal(), resets))
        for condition, what in self._claims + ([] if self.promises_only else self._lemmas):
            claimed = Signal(name="claim")
            self.m.d.comb += claimed.eq(condition | (~resets.any() if self.after_reset else 0))
            self.m.d.comb += Assert(claimed, what)
        return self.m


class _Built(Elaboratable):
    def __init__(self, fragment: Fragment) -> None:
        self.fragment = fragment

    def elaborate(self, platform: Any) -> Fragment:
        return self.fragment


def _named(fragment: Fragment, prefix: str = "") -> dict[str, Signal]:
    """The signals that a design assigns, by name: ``remainder``, or ``divider.remainder`` in a submodule."""
    found = {}
    for statements in fragment.statements.values():
        for statement in statements:
            for signal in statement._lhs_signals():
                found[prefix + signal.name] = signal
    if isinstance(fragment, Instance):
        for name, (value, kind) in fragment.ports.items():
            if kind == "o":
                found[prefix + name] = value
    for inner, name, *_ in fragment.subfragments:
        found |= _named(inner, f"{prefix}{name}.")
    return found


def _signal(value: Any) -> Signal:
    cast = Value.cast(value)
    assert isinstance(cast, Signal)
    return cast


def component(package: str, module: str) -> Any:
    """A module of the generator, or of a faulty copy of it."""
    return importlib.import_module(f"{package}.{module}")


@dataclass(frozen=True)
class Proof:
    """What is proved, and how.

    Args:
        name: of the block and the widths.
        what: in words.
        build: the harness around the components of a package.
        kind: ``induction`` (for ever, from reset), ``reset`` (claims and lemmas, ``depth`` cycles after a reset from any state),
            ``bound`` (all of the first ``depth`` cycles from reset) or ``any state`` (the same, but from every state that the
            harness assumes, whatever the other registers hold).
        depth: of the induction or the bound, in cycles.
        solver: ``z3`` or ``bitwuzla``.
        mutants: faults of the generator that have to be rejected: those of an induction in ``depth_mutants`` cycles from reset,
            without its lemmas, on ``small`` if that is given.
    """

    name: str
    what: str
    build: Callable[[str], Harness]
    kind: str = "induction"
    depth: int = 2
    mutants: tuple[Mutant, ...] = ()
    small: Callable[[str], Harness] | None = None
    depth_mutants: int = 0
    solver: str = "z3"

    def refutation(self) -> Proof:
        """The run that has to fail on a mutant: with a trace from reset."""
        if self.kind != "induction":
            return self
        build = self.small or self.build

        def promises(package: str) -> Harness:
            harness = build(package)
            harness.promises_only = True
            return harness

        return Proof(self.name, self.what, promises, "bound", self.depth_mutants, solver=self.solver)


@dataclass(frozen=True)
class Identity:
    """An identity of integers that a proof rests on, in bit vectors wide enough for it; z3 proves it as it is."""

    name: str
    what: str
    build: Callable[[], Any]
    kind: str = "identity"
    depth: int = 0
    mutants: tuple[Mutant, ...] = ()
