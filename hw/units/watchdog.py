"""The watchdog: what a run must not do, noted with the step in which it first did."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.registers import BLOCK_BITS, COUNTER_BITS, GROWTH_FRACTION, WATCHES

__all__ = ["FACTOR_BITS", "Growth", "Watchdog", "watchdog_layout", "watchdog_mask"]

FACTOR_BITS = BLOCK_BITS // 2
"""Bits of the square of ``norm_growth``."""


def watchdog_layout(config: ThrottleConfig) -> data.StructLayout:
    """The watchdog's registers: its bits, and for each condition that is built the number of the step that set its bit."""
    steps = {f"watchdog_step_{name}": unsigned(COUNTER_BITS) for name in config.watchdog}
    return data.StructLayout(({"watchdog": unsigned(len(WATCHES))} if config.watchdog else {}) | steps)


def watchdog_mask(config: ThrottleConfig) -> int:
    """What the host writes to ``watchdog_mask`` for a configuration."""
    return sum(1 << WATCHES.index(name) for name in config.watchdog)


class Growth(wiring.Component):
    """Whether an integer of a list is more than ``factor * 2**-8`` times the one before it; exact.

    Multiplied and compared bit by bit from the lowest on, the rest at once; the first of a list has nothing before it.

    Ports: ``i`` unsigned integers of 48 bits; ``o``, whether one has grown since ``restart``, which begins a new list and is
    heeded while ``i.ready``.

    Latency: :attr:`latency` cycles from taking an integer to ``o``. Throughput: an integer in as many. Reset: a new list.
    """

    latency = 1 + FACTOR_BITS + 2
    """A cycle in which the integer is taken, one for each bit of the factor, and the states COMPARE and NOTE."""

    def __init__(self, factor: int) -> None:
        if not 0 < factor < 1 << FACTOR_BITS:
            raise ValueError(f"factor must be from 1 to {(1 << FACTOR_BITS) - 1}, not {factor!r}")
        self.factor = factor
        super().__init__({"i": In(stream.Signature(unsigned(BLOCK_BITS))), "restart": In(1), "o": Out(1)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        low = FACTOR_BITS - GROWTH_FRACTION  # how many bits of the latest integer are compared one by one, as the product is made
        before = Signal(BLOCK_BITS, reset_less=True)
        latest = Signal(BLOCK_BITS, reset_less=True)
        product = Signal(BLOCK_BITS, reset_less=True)  # its bits that have not been compared yet
        factor = Signal(FACTOR_BITS, init=self.factor)  # rotates once round, its next bit lowest
        place = Signal(range(FACTOR_BITS))
        follows = Signal()
        above = Signal(reset_less=True)  # of the bits compared so far, those of the latest integer are the larger number

        half = BLOCK_BITS // 2
        rest: Value = latest[: BLOCK_BITS - low]
        low_above, high_above, same = (Signal(name=name, reset_less=True) for name in ("low_above", "high_above", "same"))

        total = product + Mux(factor[0], before, 0)
        whole = place >= GROWTH_FRACTION
        bit = latest[0] & whole
        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [latest.eq(self.i.payload), product.eq(0), above.eq(0)]
                with m.If(self.restart):
                    m.d.sync += [follows.eq(0), self.o.eq(0)]
                with m.If(self.i.valid):
                    m.d.sync += follows.eq(1)
                    m.next = "FIRST"
                    with m.If(follows & ~self.restart):
                        m.next = "MULTIPLY"
            with m.State("FIRST"):
                m.d.sync += before.eq(latest)
                m.next = "IDLE"
            with m.State("MULTIPLY"):
                m.d.sync += [product.eq(total >> 1), factor.eq(factor.rotate_right(1)), place.eq(place + 1)]
                with m.If(bit != total[0]):
                    m.d.sync += above.eq(bit)
                with m.If(whole):
                    m.d.sync += latest.eq(latest.rotate_right(1))
                with m.If(place == FACTOR_BITS - 1):
                    m.d.sync += place.eq(0)
                    m.next = "COMPARE"
            with m.State("COMPARE"):  # in two halves: one comparison of all bits would be too long for the clock
                m.d.sync += [
                    before.eq(latest.rotate_left(low)),
                    low_above.eq(Cat(above, rest[:half]) > Cat(Const(0, 1), product[:half])),
                    high_above.eq(rest[half:] > product[half:]),
                    same.eq(rest[half:] == product[half:]),
                ]
                m.next = "NOTE"
            with m.State("NOTE"):
                with m.If(high_above | (same & low_above)):
                    m.d.sync += self.o.eq(1)
                m.next = "IDLE"
        return m


class Watchdog(wiring.Component):
    """Looks at the conditions once a step; the first time that one is found its bit rises and the step's number is noted.

    Only what ``config.watchdog`` names is built, and of the ports ``blocks``, ``energy``, ``learning_dead`` and
    ``scalar_overflow`` only those that it needs.

    Ports: ``look`` asks at the end of a step, until ``looked`` says that this is the cycle; ``mask``, a bit a condition in the
    order of :data:`~kappa_rtl.golden.registers.WATCHES`; ``energy``, the sum of squares of the step's gradient (a shard's own
    elements, but with the source ``norm``, whose A is of all), and the two flags, steady from the cycle before ``look`` on;
    ``blocks``, energies of a network's blocks, which belong to the step that is looked at next; ``clear``; ``status``, the
    registers.

    Latency: ``looked`` comes at most :attr:`latency` cycles after ``look``; the registers follow a cycle later.
    Reset: nothing found, step 0.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        watched = config.watchdog
        self.growth = Growth(config.growth_squared) if "norm_growth" in watched else None
        ports: dict[str, Any] = {
            "look": In(1),
            "looked": Out(1),
            "mask": In(len(WATCHES)),
            "clear": In(1),
            "status": Out(watchdog_layout(config)),
        }
        if "gradient_floor" in watched:
            ports["energy"] = In(config.widths.gradient_energy)
        if self.growth is not None:
            ports["blocks"] = In(stream.Signature(unsigned(BLOCK_BITS)))
        ports |= {name: In(1) for name in ("learning_dead", "scalar_overflow") if name in watched}
        super().__init__(ports)

    @property
    def latency(self) -> int:
        """The most cycles from ``look`` to ``looked``."""
        return self.growth.latency if self.growth is not None else 0

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        step = Signal(COUNTER_BITS)
        found: dict[str, Value] = {
            name: getattr(self, name) for name in ("learning_dead", "scalar_overflow") if name in config.watchdog
        }
        if "gradient_floor" in config.watchdog:
            below = Signal(reset_less=True)
            m.d.sync += below.eq(self.energy < config.floor_energy)
            found["gradient_floor"] = below
        m.d.comb += self.looked.eq(self.look)
        if self.growth is not None:
            m.submodules.growth = growth = self.growth
            m.d.comb += [
                growth.i.payload.eq(self.blocks.payload),
                growth.i.valid.eq(self.blocks.valid & ~self.look),
                self.blocks.ready.eq(growth.i.ready & ~self.look),
                self.looked.eq(self.look & growth.i.ready),
                growth.restart.eq(self.looked),
            ]
            found["norm_growth"] = growth.o

        with m.If(self.looked):
            m.d.sync += step.eq(step + 1)
        for name in config.watchdog:
            bit = WATCHES.index(name)
            fired, noted = self.status.watchdog[bit], self.status[f"watchdog_step_{name}"]
            with m.If(self.looked & found[name] & self.mask[bit] & ~fired):
                m.d.sync += [fired.eq(1), noted.eq(step)]
            with m.If(self.clear):
                m.d.sync += [fired.eq(0), noted.eq(0)]
        return m
