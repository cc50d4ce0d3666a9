"""The root of an integer."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..cells.chain import chained, either
from ..cells.choose import choose

GROUP = 8
"""Pairs of bits that are looked at together for the leading one."""
BITS = (GROUP - 1).bit_length()
"""Bits of a pair's number in its group."""
START = 4
"""Cycles before the first pair is in the trial: its group is found, it is chosen in its group, and then among all groups."""


class SquareRoot(wiring.Component):
    """Radix-2 non-restoring square root of a W-bit integer (W even), to K significant bits.

    Bits enter in pairs, from the first pair that is not zero, and zeros after the last; with ``shift`` zero pairs before it::

        root   = floor(sqrt(integer * 4**shift * 2**(2*K - W)))
        sticky = that root is not exact

    If W < 2*K - 1 the root of an integer that has one has no more than K - 1 bits: then a lowest bit of one is never exact, the
    sticky bit decides no rounding to K - 1 bits, and it is one.

    The leading one is looked for eight pairs at a time, then pair by pair. Beside the root Q stands ``trial``, what is left of
    the integer so far with the last digit taken for a one: T = R - (2*Q + 1) in the digit's place, which may be negative: then
    the digit is zero, and ``4*R == 4*T + 8*Q + 4``. So the next trial is ``4*T + next pair`` less ``4*Q + 1``, or plus
    ``4*Q + 3`` after a zero: a digit is a sign, and nothing has to be chosen behind the adder. The first digit is always one, so
    the root is whole when a one has reached its top, and there is no counter. It is exact if a trial was zero and all bits that
    came in after it are.

    Latency: :meth:`cycles` from accepting the integer to offering the root. Throughput: one root at a time. Reset: idle.
    """

    def __init__(self, width: int, bits: int) -> None:
        if width < 2 or width % 2:
            raise ValueError(f"width must be even and at least 2, not {width!r}")
        if bits < 2:
            raise ValueError(f"bits must be at least 2, not {bits!r}")
        self.width, self.bits = width, bits
        self.pairs = width // 2
        self.decides = width >= 2 * bits - 1
        """Whether the sticky bit is found out."""
        found = data.StructLayout({"root": unsigned(bits), "sticky": 1, "shift": range(self.pairs + 1)})
        super().__init__({"i": In(stream.Signature(unsigned(width))), "o": Out(stream.Signature(found))})

    def cycles(self, integer: int) -> int:
        """From accepting an integer to offering its root."""
        shift = (self.width - integer.bit_length()) // 2
        start = min(shift // GROUP, self._last) * GROUP
        left = self.pairs - start
        late = self.decides + self._waits
        fed = START + left + late  # all pairs have come in
        found = START + shift - start + self.bits + 1 + self.decides  # zero pairs were passed over, then came a digit a cycle
        return max(found, fed) if integer else fed

    @property
    def _waits(self) -> bool:
        """Whether there may be pairs behind the last digit, which have to come in nevertheless."""
        return self.pairs > self.bits

    @property
    def _last(self) -> int:
        """The number of the last group."""
        return (self.pairs - 1) // GROUP

    @property
    def latency(self) -> int:
        """The cycles of an integer whose top two bits are not both zero."""
        return self.cycles((1 << self.width) - 1)

    @property
    def longest(self) -> int:
        """The most cycles."""
        return max(self.cycles(1 << 2 * place >> 2) for place in range(self.pairs + 1))

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        bits, pairs = self.bits, self.pairs
        busy = Signal()
        looks = Signal()
        running = Signal()
        settling = Signal()  # `running` a cycle late
        done = Signal()
        fresh = Signal(reset_less=True)  # no digit has been made
        integer = Signal(self.width, reset_less=True)  # reversed: its first pair is lowest
        place = Signal(range(pairs), reset_less=True)  # the number of the next pair
        passed = Signal(range(pairs), reset_less=True)  # the number of the pair that is on its way into the trial
        feeds = Signal()  # there is a next pair
        spent = Signal(reset_less=True)  # the last pair has come in
        pair = Signal(2, reset_less=True)
        shift = Signal(range(pairs), reset_less=True)
        trial = Signal(bits + 2, reset_less=True)
        root = Signal(bits, name="digits", reset_less=True)

        empty = Signal(max(1, self._last), reset_less=True)  # the groups, all but the last, that hold no one
        size = 2 * GROUP
        word = self.i.payload[::-1]
        m.d.comb += [self.i.ready.eq(~busy), self.o.valid.eq(done)]
        first: Value = Const(self._last)
        for group in reversed(range(self._last)):
            first = Mux(empty[group], first, group)

        # place + 1, by gates: a carry chain costs more for so few bits.
        following = place ^ Cat(place[:i].all() for i in range(len(place)))
        negative = trial[-1]
        nothing = fresh & ~pair.any()
        sums = chained(
            m,
            "adder",
            lambda trial, operand, negative: trial,
            lambda trial, operand, negative: operand if negative else 1 - operand,
            Cat(pair, trial[:bits]),
            # 4*Q + 3, which is added after a zero: 0b11, a zero from the first digit on, the digits. Inverted, but for the lowest
            # three bits, it takes off 4*Q + 1 after a one.
            Cat(Const(0b11, 2), fresh, root[:-1]),
            Cat(Const(0b111, 3), negative.replicate(bits - 1)),
        )
        with m.If(~running | nothing):
            m.d.sync += trial.eq(0)
        with m.Else():
            m.d.sync += trial.eq(sums)
        # A pair is chosen in each group; all groups but one are held at zero, so that an OR of them is the pair.
        found = []
        for group in range(self._last + 1):
            some = Signal(2, name=f"pair_of_{group}", reset_less=True)
            here = integer[group * size : (group + 1) * size]
            with m.If(~feeds | (place[BITS:] != group)):
                m.d.sync += some.eq(0)
            with m.Else():
                m.d.sync += some.eq(Cat(choose(m, f"pair{group}_{i}", here[1 - i :: 2], place[:BITS]) for i in range(2)))
            found.append(some)
        m.d.sync += [pair.eq(either(found)), passed.eq(place)]

        ends: Value = root[-2] | (spent & nothing)
        if self._waits:
            ended = Signal(reset_less=True)
            ends = ended & (root[-2] | root[-1] | nothing)
            m.d.sync += ended.eq(spent)
        with m.If(settling if self.decides else running & ends):
            m.d.sync += done.eq(~running if self.decides else 1)
        with m.If(feeds):
            m.d.sync += feeds.eq(place != pairs - 1)
        with m.If(running):
            m.d.sync += [place.eq(following), spent.eq(~feeds), fresh.eq(nothing), running.eq(~ends)]
            with m.If(nothing):
                m.d.sync += shift.eq(passed)
        with m.Elif(looks):
            m.d.sync += [place.eq(first << BITS), looks.eq(0), feeds.eq(1), running.eq(1)]
        with m.Elif(~busy):
            m.d.sync += [
                integer.eq(word),
                empty.eq(Cat(~word[i * size : (i + 1) * size].any() for i in range(self._last))),
                fresh.eq(1),
                spent.eq(0),
                looks.eq(self.i.valid),
                busy.eq(self.i.valid),
            ]
        with m.Elif(self.o.ready & done):
            m.d.sync += [busy.eq(0), done.eq(0)]

        with m.If(~busy):
            m.d.sync += root.eq(0)
        with m.Elif(running & ~root[-1]):
            m.d.sync += root.eq(Cat(~(fresh | negative), root))

        sticky: Any = Const(1, 1)
        if self.decides:  # whether the trial is zero is found in two cycles, as it has many bits
            exact = Signal(reset_less=True)
            nibbles = Signal(-(-len(trial) // 4), reset_less=True)  # each four bits of the trial: whether one of them is set
            entered, before = (Signal(2, name=name, reset_less=True) for name in ("entered", "before"))
            counts = settling  # the trial was that of a digit
            if self._waits:
                counts = Signal(reset_less=True)
                m.d.sync += counts.eq(running & ~root[-1])
            m.d.sync += [
                settling.eq(running),
                nibbles.eq(Cat(trial[i : i + 4].any() for i in range(0, len(trial), 4))),
                entered.eq(pair),
                before.eq(entered),
                exact.eq((counts & ~nibbles.any()) | (exact & ~before.any())),  # zeros before the first digit do no harm
            ]
            sticky = ~exact
        m.d.comb += [self.o.payload.root.eq(root), self.o.payload.sticky.eq(sticky), self.o.payload.shift.eq(shift)]
        return m
