"""What a bench puts on the streams of a component: a driver, a consumer, a monitor, and a checker of the stream rules.

They share one view of a clock cycle. After the rising edge whoever drives a wire chooses its value (``drive``); in the middle
of the cycle all wires have settled and everyone looks at them (``sample``). A cycle with valid and ready is a transfer: the
next rising edge takes the payload.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from amaranth.hdl import Shape
from amaranth.lib import data
from cocotb.triggers import Timer
from cocotb.types import LogicArray


class RuleViolation(AssertionError):
    """A component broke a rule of its streams."""


# ------------------------------------------------------------------------------------------------ payloads


def pack(shape: Any, value: Any) -> int:
    """The word of a value: an integer, a sequence for an array, a mapping or named tuple for a structure."""
    if isinstance(shape, data.StructLayout):
        named = value._asdict() if hasattr(value, "_asdict") else value
        return sum(pack(field.shape, named[key]) << field.offset for key, field in shape)
    if isinstance(shape, data.ArrayLayout):
        width: int = Shape.cast(shape.elem_shape).width
        return sum(pack(shape.elem_shape, item) << width * i for i, item in enumerate(value))
    width = Shape.cast(shape).width
    return int(value) & ((1 << width) - 1)


def unpack(shape: Any, word: int) -> Any:
    """The value of a word: an integer, a list for an array, a dictionary for a structure."""
    if isinstance(shape, data.StructLayout):
        return {str(key): unpack(field.shape, word >> field.offset) for key, field in shape}
    if isinstance(shape, data.ArrayLayout):
        width = Shape.cast(shape.elem_shape).width
        return [unpack(shape.elem_shape, word >> width * i) for i in range(shape.length)]
    plain = Shape.cast(shape)
    word &= (1 << plain.width) - 1
    return word - (1 << plain.width) if plain.signed and word >> (plain.width - 1) else word


def defined(wire: Any) -> int | None:
    """The unsigned value of a wire; None if a bit of it is undefined."""
    try:
        return int(wire.value)
    except ValueError:
        return None


class Stream:
    """The wires of one stream, and what they carried when last sampled.

    Attributes:
        valid, ready: None if undefined.
        word: the payload while valid; None if it has an undefined bit.
    """

    def __init__(self, dut: Any, name: str, shape: Any) -> None:
        self.name, self.shape = name, shape
        self.width = Shape.cast(shape).width
        self.payload_wire = getattr(dut, f"{name}_tdata")
        self.valid_wire = getattr(dut, f"{name}_tvalid")
        self.ready_wire = getattr(dut, f"{name}_tready")
        self.valid: int | None = 0
        self.ready: int | None = 0
        self.word: int | None = 0

    def sample(self) -> None:
        self.valid = defined(self.valid_wire)
        self.ready = defined(self.ready_wire)
        self.word = defined(self.payload_wire) if self.valid else 0

    @property
    def transfers(self) -> bool:
        return self.valid == 1 and self.ready == 1


# ------------------------------------------------------------------------------------------------ one duty each


class Driver:
    """Offers queued words on a component's input, with idle cycles between them.

    A word once offered stays until it is taken. While nothing is offered the payload is noise, undefined where the
    simulator knows such a thing, so that a component that looks at it is found out.
    """

    def __init__(self, stream: Stream, rng: random.Random, *, undefined: bool = False) -> None:
        self.stream, self._rng = stream, rng
        self._noise = LogicArray("X" * stream.width) if undefined else None
        self.queue: deque[int] = deque()
        self.idle = 0.0  #: chance of a cycle without a word
        self._offering = False
        self.drop()

    def send(self, value: Any) -> None:
        """Queue a value for the stream."""
        self.queue.append(pack(self.stream.shape, value))

    def drop(self) -> None:
        """Forget all words and offer nothing."""
        self.queue.clear()
        self._offering = False
        self.stream.valid_wire.value = 0
        self._spoil()

    def drive(self) -> None:
        if self._offering:
            if not self.stream.transfers:
                return
            self.queue.popleft()
        offer = bool(self.queue) and (not self.idle or self._rng.random() >= self.idle)
        if offer:
            self.stream.payload_wire.value = self.queue[0]
        elif self._offering:
            self._spoil()
        if offer != self._offering:
            self.stream.valid_wire.value = int(offer)
            self._offering = offer

    def _spoil(self) -> None:
        self.stream.payload_wire.value = self._noise if self._noise is not None else self._rng.getrandbits(self.stream.width)


class Consumer:
    """Gives ready to a component's output, with stalls; ready owes nothing to valid."""

    def __init__(self, stream: Stream, rng: random.Random) -> None:
        self.stream, self._rng = stream, rng
        self.stall = 0.0  #: chance of a cycle without ready; 1 holds the stream up
        self.ready = 0
        stream.ready_wire.value = 0

    def drive(self) -> None:
        ready = int(self.stall < 1 and (not self.stall or self._rng.random() >= self.stall))
        if ready != self.ready:
            self.stream.ready_wire.value = ready
            self.ready = ready


class Transfer(NamedTuple):
    """A word that was taken, the cycle in which it was first offered, and the one in which it was taken."""

    word: int
    offered: int
    taken: int


class Monitor:
    """Records the transfers of a stream, and hands each to whom it may concern."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.transfers: list[Transfer] = []
        self.listeners: list[Callable[[Transfer], None]] = []
        self._offered: int | None = None

    def sample(self, cycle: int) -> None:
        stream = self.stream
        if not stream.valid:
            self._offered = None
            return
        if self._offered is None:
            self._offered = cycle
        if stream.ready:
            transfer = Transfer(stream.word or 0, self._offered, cycle)
            self._offered = None
            self.transfers.append(transfer)
            for listener in self.listeners:
                listener(transfer)

    def forget(self) -> None:
        self.transfers.clear()
        self._offered = None


class Checker:
    """Watches the rules of a component's output.

    What is offered stays, unchanged, until it is taken; valid and ready are defined, and so is every bit of a valid payload
    (:meth:`sample`). Valid and payload do not follow ready within a cycle (:meth:`probe`). That valid does not wait for
    ready shows with ready held low: then the bench owes the component patience, and the component a valid
    (:attr:`patience`).

    Raises:
        RuleViolation: with the stream, the cycle and the rule.
    """

    def __init__(self, stream: Stream, where: str = "") -> None:
        self.stream, self._where = stream, where
        self.patience: int | None = None  #: cycles with ready low in which a valid must come; None: nothing is due
        self._waited = 0
        self._held: int | None = None

    def forget(self) -> None:
        """The component was reset: what it offered is gone."""
        self._held = None
        self._waited = 0

    def sample(self, cycle: int) -> None:
        stream = self.stream
        if stream.valid is None or stream.ready is None:
            self._broken(cycle, "valid and ready must be defined")
        if stream.valid and stream.word is None:
            self._broken(cycle, f"every bit of a valid payload must be defined, not {stream.payload_wire.value}")
        if self._held is not None:
            if not stream.valid:
                self._broken(cycle, "valid must stay until the payload is taken")
            if stream.word != self._held:
                self._broken(
                    cycle, f"the payload must stay until it is taken; it changed from {self._held:#x} to {stream.word:#x}"
                )
        self._held = stream.word if stream.valid and not stream.ready else None
        self._waited = 0 if stream.valid or stream.ready else self._waited + 1
        if self.patience is not None and self._waited > self.patience:
            self._broken(cycle, f"valid must not wait for ready; none came in {self._waited} cycles")

    async def probe(self, cycle: int) -> None:
        """Turn ready over for a moment in the middle of a cycle, after :meth:`sample`."""
        stream = self.stream
        stream.ready_wire.value = 1 - int(stream.ready or 0)
        await Timer(1, "ns")
        if defined(stream.valid_wire) != stream.valid:
            self._broken(cycle, "valid must not depend on ready")
        if stream.valid and defined(stream.payload_wire) != stream.word:
            self._broken(cycle, "the payload must not depend on ready")
        stream.ready_wire.value = int(stream.ready or 0)
        await Timer(1, "ns")

    def _broken(self, cycle: int, rule: str) -> None:
        raise RuleViolation(f"{self._where}{self.stream.name}, cycle {cycle}: {rule}")
