"""The accumulator on which all scalar work is done."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.formats import ScalarFormat
from ..cells.chain import chained, either, total_of
from ..cells.gate import gates
from ..cells.multiplier import Multiplier
from .divider import Divider
from .operations import SHORT, Operation, scalar_layout
from .rows import Row, padded, sums
from .sqrt import SquareRoot

__all__ = ["ScalarUnit"]


CHUNK = 17
"""Bits of a factor that one hardware multiplier takes: 18 less a sign."""

START = 1
"""The cycle in which an operation is taken."""

LISTENING = 1
"""The cycle in which a QUOTIENT or a ROOT begins to listen for its digits, after the phases of a sum."""

LANDING = 2
"""Cycles from a sum, or from digits that have come, to the next operation: the mantissa is chosen, and rounded; it lands in y
while the next operation is taken."""

SHORTEST = 2
"""Cycles of an operation without arithmetic: x and y are compared, and y takes its new value."""


class ScalarUnit(wiring.Component):
    """An accumulator ``y`` and what can be done to it; every operation is correctly rounded, and takes its fixed time.

    All but the comparisons end in one sum, ``work = x * y`` or ``work = larger + smaller * 2**-places``: to shift is to multiply
    by a power of two, for the multipliers are there. One rounder behind it (nearest, ties to even) serves sums, products, steps,
    and the digits of the divider and the root, which work beside everything else until they are asked for::

        MUL, PRODUCT  START -> multipliers, two cycles -> terms -> ... -> work -> ROUND -> LAND
        ADD, STEP     START -> ALIGN -> SHIFT -> multipliers, and as above
        QUOTIENT, ROOT     until the digits are there                  -> ROUND -> LAND

    Overflow gives the largest finite scalar and ``overflow``; underflow gives zero and ``underflow``; y/0 is an overflow
    for y > 0 and zero for y = 0. The step is the exact product, rounded once; it saturates.

    Args:
        fmt: the scalar format.
        step_bits, step_fraction: width and fraction bits of the step grid.
        radicand_bits: width of the integer to take a root of, even.

    Ports: ``op`` and ``x``, taken as ``go`` is high, which it may be when ``done`` is; ``began`` is high in the cycle after it.
    ``radicand`` normalised integers, each begins a root. ``y`` the accumulator, ``step`` the step. ``overflow``,
    ``underflow`` and ``step_overflow``, of a step beyond its grid, are high for one cycle.

    Latency: :meth:`cycles`, from one ``go`` to the next. Reset: idle, y not defined.
    """

    def __init__(self, *, fmt: ScalarFormat, step_bits: int, step_fraction: int, radicand_bits: int) -> None:
        self.fmt, self.step_bits, self.step_fraction = fmt, step_bits, step_fraction
        self.radicand_bits = radicand_bits
        self.width = max(fmt.mantissa_bits, step_bits + 1)  # bits of a factor; a mantissa shorter than that is at its top
        grid = self.width - fmt.mantissa_bits - step_fraction
        self.step_exponent = grid
        """The x.e of a STEP: the exponent of a mantissa that counts ulps of the step grid, in a factor's whole width."""
        self.exponent_bits = ((1 << fmt.exponent_bits) + 2 * self.width + abs(grid) + 2).bit_length() + 1
        self.divider = Divider(fmt.mantissa_bits)
        self.root = SquareRoot(radicand_bits, fmt.mantissa_bits + 1)
        super().__init__(
            {
                "op": In(Operation),
                "x": In(self.operand),
                "go": In(1),
                "done": Out(1),
                "began": Out(1),
                "radicand": In(stream.Signature(unsigned(radicand_bits))),
                "y": Out(scalar_layout(fmt)),
                "step": Out(step_bits),
                "overflow": Out(1),
                "underflow": Out(1),
                "step_overflow": Out(1),
            }
        )

    @property
    def operand(self) -> data.StructLayout:
        """A scalar with room for exponents beyond its range."""
        return data.StructLayout({"m": unsigned(self.fmt.mantissa_bits), "e": signed(self.exponent_bits)})

    def literal(self, exponent: int) -> data.Const:
        """An operand of which the exponent alone counts."""
        return self.operand.const({"m": 0, "e": exponent})

    @classmethod
    def for_config(cls, config: ThrottleConfig) -> ScalarUnit:
        return cls(
            fmt=config.scalar,
            step_bits=config.step.width,
            step_fraction=config.step.fraction_bits,
            radicand_bits=2 * -(-max(config.widths.energy, config.mantissa_bits + 1 if config.growth else 0) // 2),
        )

    @property
    def _levels(self) -> int:
        """Levels of the tree that adds the terms of a product."""
        a, b = -(-self.width // CHUNK), -(-(self.width + 1) // CHUNK)
        return (a + b - 1).bit_length()

    @property
    def _round(self) -> tuple[int, int]:
        """How many phases pass before ``work`` holds a product, and a sum: that is aligned and shifted first."""
        product = Multiplier.latency + self._levels
        align, shift = 1, 1
        return product, align + shift + product

    def cycles(self, op: Operation) -> int:
        """From taking an operation to being done with it: ``done`` is high in the last one. Digits: if they were there before."""
        product, total = self._round
        if op in SHORT:
            return SHORTEST
        if op in (Operation.QUOTIENT, Operation.ROOT):
            return self.waiting
        return START + (product if op in (Operation.MUL, Operation.PRODUCT) else total) + LANDING

    @property
    def latency(self) -> dict[Operation, int]:
        """The most cycles by operation; of a QUOTIENT or a ROOT, from the beginning of its digits."""
        root = START + LISTENING + self.root.longest + LANDING
        digits = {Operation.QUOTIENT: self.division, Operation.ROOT: max(self.waiting, root)}
        return {op: digits.get(op) or self.cycles(op) for op in Operation}

    @property
    def division(self) -> int:
        """The most cycles of a DIVIDE or UNDER and a QUOTIENT behind it."""
        below_one = 1  # a quotient below one takes the divider a cycle more
        return max(START + self.divider.latency + below_one + LANDING, SHORTEST + self.waiting)

    @property
    def waiting(self) -> int:
        """The cycles of a QUOTIENT or a ROOT whose digits are there."""
        return START + self._round[1] + LISTENING + LANDING

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.divider = divider = self.divider
        m.submodules.root = root = self.root
        bits, width, exponent_bits = self.fmt.mantissa_bits, self.width, self.fmt.exponent_bits
        pad = width - bits
        exponent = signed(self.exponent_bits)
        product_round, sum_round = self._round

        x = Signal(self.operand, reset_less=True)
        y_m = Signal(width, reset_less=True)  # a factor: a scalar's mantissa is at its top
        y_e = Signal(exponent, reset_less=True)
        x_m = Cat(Const(0, pad), x.m)
        m.d.comb += [self.y.m.eq(y_m[pad:]), self.y.e.eq(y_e)]

        # ------------------------------------------------------------ which operation, and its phase

        # Bit i of `asked` is that of the operation with the value 1 << i; and what several of them have in common.

        asked = Signal(self.op.shape(), reset_less=True)
        (loads, largest_of, smallest_of, multiplies, adds, cuts, steps, _, under, quotes, roots) = asked
        short, digits, integer, subtracts, apart = (
            Signal(name=name, reset_less=True) for name in ("short", "digits", "integer", "subtracts", "apart")
        )
        with m.If(self.go):
            m.d.sync += [
                asked.eq(self.op),
                short.eq(~Cat(self.op[i] for i in (3, 4, 9, 10)).any()),
                digits.eq(self.op[9] | self.op[10]),
                integer.eq(self.op[5] | self.op[6]),
                subtracts.eq(self.op[4] | self.op[7] | self.op[8]),
                apart.eq(self.op[3] | self.op[9]),
            ]

        begins = Signal()
        m.d.sync += begins.eq(self.go & (self.op[7] | self.op[8]))
        phase = Signal(sum_round + 1, init=1 << sum_round)  # one-hot: how long the operation has run; it stays in the last one
        done = Signal(init=1)
        waiting = Signal()
        at_sum, listens_quotient, listens_root = (Signal(name=name) for name in ("at_sum", "listens_quotient", "listens_root"))
        chooses = Signal()
        rounds = Signal()
        lands = Signal()
        began, second, last = phase[0], phase[1], phase[-1]
        m.d.comb += [
            self.done.eq(done),
            self.began.eq(began),
            chooses.eq(at_sum | (listens_quotient & divider.o.valid) | (listens_root & root.o.valid)),
            divider.o.ready.eq(listens_quotient),
            root.o.ready.eq(listens_root),
        ]
        m.d.sync += [
            at_sum.eq((multiplies & phase[product_round - 1]) | (adds & phase[sum_round - 1])),
            listens_quotient.eq(waiting & quotes & last),
            listens_root.eq(waiting & roots & last),
            rounds.eq(chooses),
            lands.eq(rounds),
            phase.eq(Cat(0, phase[:-1]) | (last << sum_round)),
        ]
        with m.If(self.go):
            m.d.sync += [phase.eq(1), done.eq(0), waiting.eq(1), x.eq(self.x)]
        with m.Elif(rounds | (short & began)):
            m.d.sync += done.eq(1)
        with m.If(chooses):
            m.d.sync += waiting.eq(0)

        # ------------------------------------------------------------ comparison

        # Mantissas are normalised, so (non-zero, exponent, mantissa) orders scalars as one unsigned number, were it not for the
        # exponents' signs, which count the other way: each takes the place of the other one.
        def key(m_: Value, e: Value, sign_of: Value) -> Value:
            return Cat(m_, e[: exponent_bits - 1], sign_of[exponent_bits - 1], m_[-1])

        difference = Signal(bits + exponent_bits + 2)  # its sign is what is needed, as it comes out of the adder
        less = Signal(reset_less=True)  # x < y
        m.d.comb += difference.eq(key(x.m, x.e, y_e) - key(y_m[pad:], y_e, x.e))
        m.d.sync += less.eq(difference[-1])
        takes_x = second & (loads | Mux(less, smallest_of, largest_of))

        # ------------------------------------------------------------ which of x and y is shifted, and how far

        total = Signal(exponent, reset_less=True)  # x.e + y.e, or x.e - y.e
        e_sum = chained(
            m,
            "exponents",
            lambda x, y, subtracts: x,
            lambda x, y, subtracts: y ^ subtracts,
            Cat(subtracts, x.e),
            Cat(0, y_e),
            subtracts,
        )
        m.d.sync += total.eq(e_sum[1:])
        gap = total
        # Which of them is `small`: the smaller one of a sum, x of a product, y of a STEP, the dividend of a quotient.
        second_is_y = Signal(reset_less=True)
        # These gates serve both the multipliers and the divider.
        small = gates(m, "small", width, lambda x, y, second: y if second else x, x_m, y_m, second_is_y)
        # The size of the gap. A negative one is only inverted, which is its size less one: the missing one is added to the lowest
        # two bits below, where it costs no carry chain.
        size = gap.as_unsigned() ^ gap[-1].replicate(len(gap))
        reach = (width + 1).bit_length()
        near = ~size[reach:].any()
        # The size, decoded: one-hot in fours, and one-hot what is left of it. Together they give 2**-size as a factor, `power`.
        fours = Signal(width // 4 + 1, reset_less=True)
        ones = Signal(5, reset_less=True)
        m.d.sync += [
            fours.eq(Cat(size[2:reach] == i for i in range(len(fours)))),
            ones.eq(Cat(size[:2] + gap[-1] == i for i in range(len(ones)))),
        ]
        # A number that is shifted farther than that lies below the guard bit, which is then zero: it cannot change the rounding.
        with m.If(~(second & adds & near)):
            m.d.sync += fours.eq(0)
        pairs = [(four, one) for four in range(len(fours)) for one in range(len(ones))]
        power = Cat(
            either(fours[four] & ones[one] for four, one in pairs if 4 * four + one == width - i) for i in range(width + 1)
        )
        saturates = Signal(reset_less=True)
        with m.If(second):
            m.d.sync += saturates.eq(gap[-1] & y_m[-1])
        with m.If(second & adds):
            m.d.sync += second_is_y.eq(steps | ~y_m[-1] | (x.m[-1] & ~gap[-1]))
        with m.If(self.go):
            m.d.sync += second_is_y.eq(self.op[7] | self.op[10])

        # ------------------------------------------------------------ product and sum

        factor = power | Mux(multiplies, Cat(0, y_m), 0)
        # The larger one of a sum, from x or from y; the other register is zero.
        larger_x, larger_y = (Signal(width, name=f"larger_{of}", reset_less=True) for of in "xy")
        m.d.sync += [
            larger_x.eq(Mux(adds & ~steps & second_is_y, x_m, 0)),
            larger_y.eq(Mux(adds & ~steps & ~second_is_y, y_m, 0)),
        ]
        parts: dict[int, list[tuple[int, Value]]] = {}
        for i in range(0, width, CHUNK):
            for j in range(0, width + 1, CHUNK):
                one, other = small[i : i + CHUNK], factor[j : j + CHUNK]
                multiplier = Multiplier(len(one) + 1, len(other) + 1)
                m.submodules[f"multiplier{i // CHUNK}_{j // CHUNK}"] = multiplier
                m.d.comb += [multiplier.a.eq(Cat(one, 0)), multiplier.b.eq(Cat(other, 0)), multiplier.enable.eq(1)]
                parts.setdefault(i - j, []).append((i + j, multiplier.o[: len(one) + len(other)]))
        # Partial products that are two chunks apart do not overlap: they stand side by side in one row of the sum.
        rows = []
        for found in parts.values():
            start = found[0][0]
            row = Cat()
            for place, value in found:
                row = Cat(padded(row, place - start), value)
            rows.append(Row(start, row))
        # The lowest row has free bits at its top: there the larger one of a sum is added.
        low, *rows = sorted(rows, key=lambda row: row.place)
        value = padded(low.value, 2 * width + 1)
        high = chained(
            m,
            "addition",
            lambda a, b, c: a | b,
            lambda a, b, c: c,
            Cat(larger_x, Const(0, 1)),
            Cat(larger_y, Const(0, 1)),
            value[width:],
        )
        rows = [Row(0, Cat(value[:width], high)), *sums(m, rows, 0, 2 * width + 1)]
        first = Signal(2 * width + 1, name="work0", reset_less=True)
        m.d.sync += first.eq(rows[0].value)
        rows[0] = Row(0, first)
        level = 1
        while len(rows) > 1:
            rows = sums(m, rows, level, 2 * width + 1)
            level += 1
        assert level == self._levels
        work = padded(rows[0].value, 2 * width + 1)

        # ------------------------------------------------------------ exponents

        # The exponent of a quotient, kept from its begin: of x / y in one register, of y / x less one in the other; one is zero.
        under_e, over_e = (Signal(exponent, name=name, reset_less=True) for name in ("under_e", "over_e"))
        over = Signal(reset_less=True)
        has_gap = Signal()
        m.d.sync += has_gap.eq(begins)
        with m.If(has_gap):
            m.d.sync += [under_e.eq(Mux(under, gap, 0)), over_e.eq(Mux(under, 0, ~gap)), over.eq(~under)]
        # The exponent is the sum of these; each is zero in operations that do not need it.
        base, x_e, other_e = (Signal(exponent, name=name, reset_less=True) for name in ("base", "x_e", "other_e"))
        offset = Signal(exponent, reset_less=True)
        m.d.sync += [
            base.eq(Mux(apart, Mux(quotes, under_e | over_e, total), 0)),
            x_e.eq(Mux(~apart & second_is_y, x.e, 0)),
            other_e.eq(Mux(~apart & ~second_is_y, y_e, 0)),
        ]
        m.d.sync += offset.eq(
            Mux(multiplies, bits - 1, Mux(quotes, Mux(divider.o.payload.below, -bits, 1 - bits), 0))
            | Mux(roots, ~padded(root.o.payload.shift, self.exponent_bits), 0)
        )
        e = Signal(exponent, reset_less=True)
        m.d.sync += e.eq(total_of(m, "exponent", base, x_e, offset, other_e, roots, quotes & over))

        bounded = Signal(reset_less=True)  # the exponent is compared with its range
        endless = Signal(reset_less=True)  # the result overflows, whatever its exponent
        infinite = Signal(reset_less=True)  # the quotient under way is of a division by zero
        silent = Signal(reset_less=True)  # and that is no overflow
        m.d.sync += [endless.eq(quotes & infinite), bounded.eq(~integer & ~(quotes & infinite))]
        # ------------------------------------------------------------ digits

        with m.If(begins):
            m.d.sync += [infinite.eq(Mux(under, ~y_m[-1], y_m[-1] & ~x.m[-1])), silent.eq(under & ~y_m[-1])]
        divisor_x, divisor_y = (Signal(bits, name=f"divisor_{of}", reset_less=True) for of in "xy")  # one of them is zero
        with m.If(begins):
            m.d.sync += [
                divisor_x.eq(Mux(second_is_y, x.m, 0)),
                divisor_y.eq(Mux(second_is_y, 0, y_m[pad:])),
            ]
        m.d.comb += [
            divider.i.valid.eq(begins),  # for a cycle: the dividend is taken at once, and the divisor holds steady
            # A dividend without its top bit counts as zero; but UNDER by zero is the largest scalar, 0 / 0 too.
            divider.i.payload.dividend.eq(Cat(small[pad:-1], small[-1] | (under & ~y_m[-1]))),
            divider.i.payload.divisor.eq(divisor_x | divisor_y),
        ]
        wiring.connect(m, wiring.flipped(self.radicand), root.i)

        # ------------------------------------------------------------ rounding

        top = work[-1]
        lost = Signal()  # a PRODUCT cut something off, which the STEP that follows must know
        # Where a mantissa comes from, with the guard bit below it. Each source has registers of its own, and all but one are held
        # at zero: a register's reset costs no logic, and an OR makes one mantissa of them.
        sources: dict[str, tuple[Value, Value]] = {
            "high": (~digits & top, work[width:]),
            "low": (~digits & ~top, work[width - 1 : -1]),
            "quotient": (quotes, Cat(Const(0, pad), divider.o.payload.quotient)),
            "root": (roots, Cat(Const(0, pad), root.o.payload.root)),
        }
        # Whether anything below the guard bit is set, in parts that are joined a cycle later. A quotient is never a tie, so its
        # guard bit is enough; a root brings a sticky bit.
        half = width // 2
        parts_below = [(top & work[width - 1]) | lost, work[:half].any(), work[half : width - 1].any()]
        if pad:  # a scalar's mantissa is shorter than an integer
            parts_below.append(~integer & Mux(top, work[width:], work[width - 1 : -1])[:pad].any())
            sources = {name: (here, Mux(integer, value, value[pad:])) for name, (here, value) in sources.items()}
        kept = {name: Signal(width, name=f"kept_{name}", reset_less=True) for name in sources}
        guard, up, carries = (Signal(name=name, reset_less=True) for name in ("guard", "up", "carries"))
        below = Signal(len(parts_below), reset_less=True)
        sticky = below.any()
        for name, (here, value) in sources.items():
            m.d.sync += kept[name].eq(Mux(here, value[1:], 0))
        first_below = either(Mux(here, value[0], 0) for here, value in sources.values())
        m.d.sync += [
            guard.eq(first_below),
            up.eq(first_below & ~cuts),
            below.eq(Mux(digits, quotes | root.o.payload.sticky, Cat(parts_below))),
            carries.eq(top & ~digits),
        ]
        with m.If(rounds):
            m.d.sync += lost.eq(cuts & (guard | sticky))

        raised = Signal(width + 1)
        one, other, third, fourth = (Cat(part, Const(0, 1)) for part in kept.values())
        m.d.comb += raised.eq(total_of(m, "rounder", one, other, third, fourth, up))  # a tie is raised here, and made even below
        leading = either(kept.values())
        some = Mux(integer, leading[-1], leading[bits - 1]) if pad else leading[-1]
        # Whether the exponent is out of its range; and whether it is next to an end of it, where a carry changes the answer.
        large_e, small_e, last_e, before_e = (
            Signal(name=name, reset_less=True) for name in ("large_e", "small_e", "last_e", "before_e")
        )
        high = self.fmt.exponents[1]
        over_e = e[exponent_bits - 1 :]  # an exponent is within its range if these bits are all alike
        # By fours, as gates that stay: left to itself synthesis uses more levels of logic than the clock allows.
        low_e = e[: exponent_bits - 1]
        nibbles = [low_e[i : i + 4] for i in range(0, len(low_e), 4)]
        full_e = Cat(gates(m, f"full{i}", 1, lambda *bits: all(bits), *nibble) for i, nibble in enumerate(nibbles)).all()
        is_last, is_before = full_e & ~over_e.any(), full_e & ~over_e[0] & over_e[1:].all()
        m.d.sync += [
            large_e.eq(some & ((~e[-1] & over_e.any() & bounded) | endless)),
            small_e.eq(e[-1] & ~over_e.all() & ~is_before),
            last_e.eq(some & is_last & bounded),
            before_e.eq(is_before & bounded),
        ]
        with m.If(~bounded):
            m.d.sync += small_e.eq(0)

        value = Signal(width, reset_less=True)
        # The exponent is one higher: for a product or sum that reaches the top bit, or for all ones that were rounded up.
        carried, carried_on = Signal(reset_less=True), Signal(reset_less=True)
        higher = carried | carried_on
        highest = Signal(reset_less=True)  # the top bit of an integer
        # A tie is made even. The leading one stays: where all ones are rounded up the exponent tells it.
        rounded = Cat(raised[0] & (sticky | ~up), raised[1 : width - 1], leading[-1])
        m.d.sync += [
            value.eq(rounded),
            carried.eq(carries),
            carried_on.eq(raised[bits] & ~integer if pad else raised[bits]),
            highest.eq(raised[width - 1]),
        ]
        if pad:
            m.d.sync += value.eq(Mux(integer, rounded, Cat(Const(0, pad), rounded[: bits - 1], leading[bits - 1])))

        # ------------------------------------------------------------ back into the accumulator

        # As one gate that stays, or synthesis would make `higher` first: the way from here to all registers is long enough.
        causes = (small_e, before_e, carried, carried_on)
        too_small = gates(m, "too_small", 1, lambda small, before, a, b: small or (before and not (a or b)), *causes)
        too_large = Signal()
        m.d.comb += too_large.eq(large_e | (last_e & higher))
        nothing = Const(0, len(e))
        landed_e = total_of(m, "incrementer", e, nothing, nothing, nothing, carried, carried_on)
        m.d.sync += [
            self.overflow.eq(lands & too_large & ~(quotes & silent)),
            self.underflow.eq(lands & value[-1] & too_small),
        ]
        with m.If(lands & too_small):
            m.d.sync += y_m.eq(0)
        with m.Elif(lands):
            m.d.sync += y_m.eq(value | Cat(Const(0, pad), too_large.replicate(bits)))
        with m.Elif(takes_x):
            m.d.sync += y_m.eq(x_m)
        with m.If(lands & (~value[-1] | too_small)):
            m.d.sync += y_e.eq(0)
        with m.Elif(lands):
            m.d.sync += y_e.eq(Mux(too_large, high, landed_e))
        with m.Elif(takes_x):
            m.d.sync += y_e.eq(x.e)
        full = Signal()
        m.d.comb += self.step_overflow.eq(full)
        # Its initial value is the one to which it saturates: then that is done by the register's own set, without logic.
        step = Signal(self.step_bits, init=(1 << self.step_bits) - 1, reset_less=True)
        m.d.comb += self.step.eq(step)
        m.d.sync += full.eq(lands & steps & (saturates | highest | value[self.step_bits :].any()))
        with m.If(lands & steps):
            m.d.sync += step.eq(value)
        with m.If(full):
            m.d.sync += step.eq(~Const(0, self.step_bits))
        return m
