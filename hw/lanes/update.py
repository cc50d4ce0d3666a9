"""The scaled update lanes: each element rounded once onto the update grid and once onto the weight grid."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed, Overflow, Rounding
from ..cells.carry import round_half
from ..cells.gate import gates
from ..cells.multiplier import Multiplier
from .random import LaneGenerator
from .rounding import dither, extended, fit, only_rail, round_up

PIPELINE = ("operands", "product", "rounded product", "y", "rounded sum", "weight'")
"""The registers of a lane, one after the other; with residuals there is one more, behind the product."""


class Update(wiring.Component):
    """``y = sat(round(-direction * step))``, ``weight' = sat(round(weight + y))`` in L lanes.

    The step has a static binary point, so a lane needs no shifter. Pipeline: operands, product, rounded product, y,
    rounded sum, weight'; the whole of it waits while the output is not taken. Lanes from the configuration's tail on give
    zeros in the beat marked ``last``. Where the update rounds stochastically each lane has a generator, which draws once a beat.

    With ``residual_bits`` an element brings e, which joins the product in a stage of its own, and leaves with what both
    roundings dropped.

    Ports: ``i`` {direction, weight, residual, last}, ``step`` (held steady from a cycle before the first beat to the last one
    out), ``o`` {weight, previous, update, residual, saturated, swallowed, last}: the new and the old weight, y, the new e, and
    per lane whether the product was beyond the update's rails, and whether a non-zero product gave y = 0. ``residual`` is there
    with ``residual_bits`` alone; and ``overflowed``, whether the sum was beyond the weight's rails, where :attr:`hides`.

    With ``joins`` other words leave the lanes in the place of weights while no beat is inside: from two cycles after ``idle``
    rose the output's ``word`` is what ``joined`` was a cycle before, and ``previous`` is zero. From a cycle after it fell
    ``joined`` must be zero, and ``word`` is the weight. ``empty`` says that no beat is offered, from a register beside that of
    ``o.valid``: for logic that shall not wait for what all lanes wait for.

    With segments a beat brings ``outside``, the lanes beyond its segment, which give zeros in the place of those beyond the tail;
    both this and ``shift`` go through unchanged.

    Latency: :attr:`latency` cycles. Throughput: a beat a cycle. Reset: empty, the generators at their seeds.
    """

    def __init__(self, config: ThrottleConfig, joins: bool = False) -> None:
        self.config, self.joins = config, joins
        g, w, y, step, d = config.grids
        lanes = config.lanes

        def vector(shape: Any) -> data.ArrayLayout:
            return data.ArrayLayout(shape, lanes)

        direction, weight, update = (vector(signed(fmt.width)) for fmt in (d, w, y))
        flags = vector(unsigned(1))
        residual = {"residual": vector(signed(config.residual_bits))} if config.residual_bits else {}
        self.word = signed(max(g.width, w.width) if joins else w.width)
        tags = {"outside": unsigned(lanes), "shift": unsigned(config.scale_max.bit_length())} if config.segments else {}
        entering = {"direction": direction, "weight": weight, **residual, "last": 1} | tags
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout(entering))),
                "step": In(step.width),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "weight": weight,
                                "previous": weight,
                                "update": update,
                                **residual,
                                "saturated": flags,
                                "swallowed": flags,
                                "last": 1,
                            }
                            | ({"overflowed": flags} if self.hides else {})
                            | ({"word": vector(self.word)} if joins else {})
                            | tags
                        )
                    )
                ),
            }
            | ({"joined": In(vector(self.word)), "idle": In(1), "empty": Out(1)} if joins else {})
        )

    @property
    def hides(self) -> bool:
        """Whether a weight may lie inside its rails though the sum lay beyond them: the overflow mode does not saturate."""
        return self.config.grids.weight.overflow in (Overflow.WRAP, Overflow.ZERO)

    @property
    def latency(self) -> int:
        """Cycles from taking a beat to offering it updated."""
        return len(PIPELINE) + bool(self.config.residual_bits)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        _, w, y, step, d = config.grids
        widths, residual_bits = config.widths, config.residual_bits

        valid = Signal(self.latency)
        # The inverse of valid[-1], in a register of its own: valid[-1] has a long way to all lanes, so it leads nowhere else.
        empty = Signal(init=1)
        last = Signal(self.latency, reset_less=True)
        # A register, as the way from here to all lanes is long. With `delay` the first beat may come right after a reset.
        minus_step = Signal(signed(step.width + 1), init=-config.initial_step if config.delay else 0)
        m.d.sync += minus_step.eq(-self.step)
        pairs = -(-config.lanes // 2)  # a gate for two lanes each: a single one would be far from most of them
        advances = gates(m, "advances", pairs, lambda offered, ready: ready or not offered, valid[-1], self.o.ready)
        advance = advances[0]
        m.d.comb += [
            self.i.ready.eq(advance),
            self.o.valid.eq(~empty),
            self.o.payload.last.eq(last[-1]),
        ]
        with m.If(advance):
            m.d.sync += [valid.eq(Cat(self.i.valid, valid)), last.eq(Cat(self.i.payload.last, last))]
            m.d.sync += empty.eq(~valid[-2])
        if self.joins:
            # `empty` once more, for logic outside. Its equation is another one, or synthesis would merge the two registers.
            free = Signal(init=1)
            m.d.sync += free.eq((free | self.o.ready) & ~valid[-2])
            m.d.comb += self.empty.eq(free)
            with m.If(self.idle):
                m.d.sync += last.eq(0)

        if config.segments:
            outside = [Signal(config.lanes, name=f"outside{i}", reset_less=True) for i in range(self.latency - 1)]
            shifts = [Signal.like(self.i.payload.shift, name=f"shift{i}", reset_less=True) for i in range(self.latency)]
            leaves = Signal(config.lanes, name="outside_leaves", reset_less=True)
            with m.If(advance):
                m.d.sync += [
                    Cat(outside).eq(Cat(self.i.payload.outside, outside)),
                    leaves.eq(outside[-1]),
                    Cat(shifts).eq(Cat(self.i.payload.shift, shifts)),
                ]
            if self.joins:
                with m.If(self.idle):
                    m.d.sync += Cat(outside).eq(0)
            m.d.comb += [self.o.payload.shift.eq(shifts[-1]), self.o.payload.outside.eq(leaves)]

        for lane in range(config.lanes):
            out, advance = self.o.payload, advances[lane // 2]

            def stage(shape: Any, name: str, lane: int = lane, init: int = 0) -> Any:
                return Signal(shape, name=f"{name}{lane}", reset_less=True, init=init)

            weights = [stage(signed(w.width), f"weight_{i}_") for i in range(self.latency)]
            product = Signal(signed(widths.product.signed_bits - self.merged), name=f"product{lane}")
            raised = stage(signed(y.width if self.clips_one else widths.rounded.signed_bits), "raised")
            negative = stage(1, "negative")
            guard, sticky = stage(1, "guard"), stage(max(1, -(-(self.shift - 1) // 4)), "sticky")
            rounded = Signal(signed(widths.rounded.signed_bits), name=f"rounded{lane}")
            inexact = Signal(name=f"inexact{lane}")
            was_inexact = stage(1, "was_inexact")
            update = stage(signed(y.width), "update", init=self.rail or 0)
            saturated = [stage(1, f"saturated_{i}_") for i in range(3)]
            swallowed = [stage(1, f"swallowed_{i}_") for i in range(1, 3)]
            summed = stage(signed(w.width if self._sums_words else widths.moved.signed_bits), "summed")
            moved = Signal(signed(widths.moved.signed_bits), name=f"moved{lane}")
            updates = [update, stage(signed(y.width), "update_1_"), stage(signed(y.width), "update_2_")]
            new = stage(self.word, "new")

            multiplier = Multiplier(d.width, step.width + 1)
            m.submodules[f"multiplier{lane}"] = multiplier
            m.d.comb += [
                multiplier.a.eq(self.i.payload.direction[lane]),
                multiplier.b.eq(minus_step),
                multiplier.enable.eq(advance),
            ]
            if residual_bits:
                residuals = [stage(signed(residual_bits), f"residual_{i}_") for i in range(multiplier.latency)]
                total = stage(product.shape(), "total")
                with m.If(advance):
                    m.d.sync += Cat(residuals).eq(Cat(self.i.payload.residual[lane], residuals))
                    m.d.sync += total.eq(self._with_residual(multiplier.o, residuals[-1]))
                m.d.comb += product.eq(total)
            else:
                m.d.comb += product.eq(multiplier.o)
            draw: Value = Const(0, 1)
            if config.stochastic and widths.update_shift > 0:
                m.submodules[f"generator{lane}"] = generator = LaneGenerator(config.lane_seeds[lane])
                # It draws as the beat's product comes to be rounded.
                m.d.comb += generator.enable.eq(advance & valid[self.latency - len(PIPELINE)])
                draw = generator.o
            # A tie is rounded up, and a cycle later its lowest bit is cleared: so `sticky` stays out of the carry chain.
            even = y.rounding is Rounding.NEAREST_EVEN and self.shift > 0
            m.d.comb += [
                inexact.eq(guard | sticky.any()),
                rounded.eq(raised),
                # Where a word is one bit too narrow for its value the sign is known otherwise: from the product's sign, and for
                # the sum from those of both summands.
                rounded[-1].eq(raised[-1] & negative if self.clips_one else raised[-1]),
                moved.eq(summed),
                moved[-1].eq(majority(weights[-2][-1], updates[-2][-1], summed[-1]) if self._sums_words else summed[-1]),
            ]
            if even:
                m.d.comb += rounded[0].eq(raised[0] & ~(guard & ~sticky.any()))
            dropped = extended(product, max(0, self.shift))[: max(0, self.shift)]
            fitted, beyond = fit(rounded, y)
            if self.rail is not None:
                fitted = rounded
            on_weight_grid = self._to_weight_grid(m, f"sum{lane}", weights[-3], update)
            resolved, spilled = fit(moved, w)
            if self.joins:
                resolved = resolved | self.joined[lane]
            leaves = [new, weights[-1], updates[-1], saturated[-1], swallowed[-1]]
            if self.hides:
                overflowed = stage(1, "overflowed")
                with m.If(advance):
                    m.d.sync += overflowed.eq(spilled)
                m.d.comb += out.overflowed[lane].eq(overflowed)
                leaves.append(overflowed)
            if residual_bits:
                of_product = [stage(signed(self.below + 1), f"dropped_{i}_") for i in range(3)]
                kept = stage(signed(residual_bits), "kept")
                with m.If(advance):
                    m.d.sync += [
                        of_product[0].eq(self._dropped_of_product(product)),
                        of_product[1].eq(Cat(of_product[0][:-1], of_product[0][-1] ^ (rounded[0] if self.shift > 0 else 0))),
                        of_product[2].eq(of_product[1]),
                        kept.eq(self._kept(of_product[-1], self._dropped_of_sum(weights[-2], updates[-2], moved))),
                    ]
                m.d.comb += out.residual[lane].eq(kept)
                leaves.append(kept)
            with m.If(advance):
                m.d.sync += [
                    Cat(weights).eq(Cat(self.i.payload.weight[lane], weights)),
                    raised.eq(self._to_update_grid(product, draw)),
                    negative.eq(product[-1]),
                    guard.eq(dropped[-1:]),
                    sticky.eq(Cat(dropped[:-1][i : i + 4].any() for i in range(0, len(dropped) - 1, 4))),
                    was_inexact.eq(inexact),
                    update.eq(fitted),
                    Cat(updates[1:]).eq(Cat(updates)),
                    Cat(saturated).eq(Cat(beyond, saturated)),
                    Cat(swallowed).eq(Cat(~update.any() & self._lost(was_inexact, saturated[0]), swallowed)),
                    summed.eq(on_weight_grid),
                    new.eq(resolved),
                ]
                if not config.segments and lane >= config.tail:
                    with m.If(last[-2]):
                        m.d.sync += [word.eq(0) for word in leaves]
            if config.segments:  # the registers' own reset, in a look-up table beside that of their enable and not behind it
                with m.If((empty | self.o.ready) & outside[-1][lane]):
                    m.d.sync += [word.eq(0) for word in leaves]
            if self.rail is not None:  # a constant, which costs no logic: it is the register's own set or reset
                with m.If((empty | self.o.ready) & beyond):
                    m.d.sync += update.eq(self.rail)
            if self.joins:
                with m.If(self.idle):
                    m.d.sync += [summed.eq(0), weights[-2].eq(0)]
                m.d.comb += out.word[lane].eq(new)
            m.d.comb += [
                out.weight[lane].eq(new),
                out.previous[lane].eq(weights[-1]),
                out.update[lane].eq(updates[-1]),
                out.saturated[lane].eq(saturated[-1]),
                out.swallowed[lane].eq(swallowed[-1]),
            ]
        return m

    def _to_update_grid(self, product: Value, draw: Value) -> Value:
        """The exact product rounded to the update grid. For nearest-even a tie goes up here, and is made even a cycle later."""
        shift, rounding = self.shift, self.config.grids.update.rounding
        if shift <= 0:
            return product << -shift
        product = extended(product, shift + 1)
        guard, sticky = product[shift - 1], product[: shift - 1].any()
        if rounding is Rounding.STOCHASTIC:
            return dither(product, shift, draw[-self.config.random_bits :])
        if rounding is Rounding.NEAREST_EVEN:
            rounding = Rounding.NEAREST_UP
        up = round_up(rounding, lsb=product[shift], guard=guard, sticky=sticky, negative=product[-1])
        return product[shift:].as_signed() + up

    def _lost(self, inexact: Value, saturated: Value) -> Value:
        """Whether y = 0 means that a product which is not zero was swallowed."""
        if self.config.grids.update.overflow in (Overflow.SATURATE, Overflow.SATURATE_SYMMETRIC):
            return inexact
        return inexact | saturated  # these modes may turn into zero what rounding did not

    @property
    def rail(self) -> int | None:
        """The one rail that products can be clipped to, if it is only one; with residuals it is both."""
        rounded = self.config.widths.rounded
        return None if self.config.residual_bits else only_rail(self.config.grids.update, rounded.low, rounded.high)

    @property
    def clips_one(self) -> bool:
        """Whether a rounded product can leave the word of y only by being its upper rail plus one.

        Then the word is enough for it, as the product's sign tells that number from the lower rail, which has the same bits.
        """
        rail, rounded = 1 << self.config.grids.update.width - 1, self.config.widths.rounded
        return not self.config.residual_bits and -rail <= rounded.low and rounded.high == rail

    @property
    def _sums_words(self) -> bool:
        """Whether both summands fit words of a weight's width.

        Then the sum is kept in such a word too, and its sign is the majority of the summands' signs and of the word's top bit.
        """
        (_, w, y, *_), widths = self.config.grids, self.config.widths
        summand = max(1, y.width + widths.common_fraction - y.fraction_bits - widths.weight_shift)
        return widths.moved.signed_bits == w.width + 1 and summand <= w.width

    def _to_weight_grid(self, m: Module, name: str, weight: Value, update: Value) -> Value:
        """The exact sum rounded to the weight grid.

        Where the update's grid is the finer one, the dropped bits are the update's own and the floor's lowest bit is an
        exclusive or, so the round-up is known before the sum and enters it as the carry.
        """
        widths, w, y = self.config.widths, self.config.grids.weight, self.config.grids.update
        shift, rounding = widths.weight_shift, w.rounding
        if shift == 0:
            return weight + (update << widths.common_fraction - y.fraction_bits)
        update = extended(update, shift + 1)
        guard, sticky = update[shift - 1], update[: shift - 1].any()
        whole = update[shift:].as_signed()
        if shift == 1 and rounding is Rounding.NEAREST_EVEN:
            return round_half(m, name, weight, whole, guard, w.width if self._sums_words else widths.moved.signed_bits)
        if rounding in (Rounding.NEAREST_ZERO, Rounding.NEAREST_AWAY, Rounding.TOWARD_ZERO):  # these need the sum's sign
            total = weight + whole
            return total + round_up(rounding, lsb=total[0], guard=guard, sticky=sticky, negative=total[-1])
        up = round_up(rounding, lsb=weight[0] ^ whole[0], guard=guard, sticky=sticky, negative=Const(0, 1))
        carried = Cat(Const(1, 1), weight).as_signed() + Cat(up, whole).as_signed()
        return carried[1:].as_signed()

    # ---------------------------------------------------------------- residuals

    @property
    def _residual_fraction(self) -> int:
        return self.config.grids.weight.fraction_bits + self.config.residual_bits

    @property
    def below(self) -> int:
        """How many bits of a product below the update's ulp can reach the new e: those on the grids of e and of the sum."""
        widths = self.config.widths
        reach = max(widths.common_fraction, self._residual_fraction)
        return max(0, widths.update_shift - max(0, widths.product_fraction - reach))

    @property
    def merged(self) -> int:
        """How many of the exact sum's lowest bits are merged into the one above them.

        They lie below all that can reach the new e: all that matters is whether one of them is set, as in a sticky bit.
        """
        config, widths = self.config, self.config.widths
        if not config.residual_bits or config.stochastic:
            return 0
        return max(0, min(widths.update_shift - self.below, widths.update_shift - 1) - 1)

    @property
    def shift(self) -> int:
        """How many bits of the word that is rounded lie below the update's grid."""
        return self.config.widths.update_shift - self.merged

    def _with_residual(self, product: Value, residual: Value) -> Value:
        """The exact sum of a product and its e, its lowest bits merged."""
        d, step = self.config.grids.direction, self.config.grids.step
        fraction, merged = self.config.widths.product_fraction, self.merged
        product = product[: d.width + step.width].as_signed()  # all of -direction * step
        exact = (product << fraction - d.fraction_bits - step.fraction_bits) + (residual << fraction - self._residual_fraction)
        return Cat(exact[: merged + 1].any(), exact[merged + 1 :]).as_signed() if merged else exact

    def _dropped_of_product(self, product: Value) -> Value:
        """What rounding the product drops, without the bits that cannot reach the new e.

        The product is rounded to its floor or to one more. Its bits below the grid, with the grid's lowest bit as the sign, are
        what is dropped if the rounded product is even; if it is odd the sign has to be inverted, once it is known.
        """
        shift = self.shift
        if shift <= 0:
            return Const(0, signed(1))
        return extended(product, shift + 1)[shift - self.below : shift + 1].as_signed()

    def _dropped_of_sum(self, weight: Value, update: Value, moved: Value) -> Value:
        """What rounding the sum dropped, in the same way: here the rounded sum is known."""
        shift = self.config.widths.weight_shift
        if shift == 0:
            return Const(0, signed(1))
        update = extended(update, shift + 1)
        return Cat(update[:shift], weight[0] ^ update[shift] ^ moved[0]).as_signed()

    def _kept(self, of_product: Value, of_sum: Value) -> Value:
        """The new e: all that was dropped, rounded down to the grid of e, and saturated."""
        config, bits = self.config, self.config.residual_bits
        product_fraction = config.grids.update.fraction_bits + self.below
        sum_fraction = config.widths.common_fraction
        fraction = max(product_fraction, sum_fraction, self._residual_fraction)
        total = (of_product << fraction - product_fraction) + (of_sum << fraction - sum_fraction)
        below = fraction - self._residual_fraction
        kept, _ = fit(extended(total, below + 1)[below:].as_signed(), Fixed(True, bits, 0))
        return kept


def majority(a: Value, b: Value, c: Value) -> Value:
    return (a & b) | (a & c) | (b & c)
