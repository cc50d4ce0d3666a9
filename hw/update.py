"""The scaled update lanes: each element rounded once onto the update grid and once onto the weight grid."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Overflow, Rounding

from .multiplier import Multiplier
from .rounding import extended, fit, round_up


class Update(wiring.Component):
    """``y = sat(round(-direction * step))``, ``weight' = sat(round(weight + y))`` in L lanes.

    The step has a static binary point, so a lane needs no shifter. Pipeline: operands, product, rounded product, y,
    rounded sum, weight'; the whole of it waits while the output is not taken. Lanes from the configuration's tail on give
    zeros in the beat marked ``last``.

    Ports: ``i`` {direction, weight, last}, ``step`` (held steady from a cycle before the first beat to the last one out),
    ``o`` {weight, previous, update, saturated, swallowed, last}: the new and the old weight, y, and per lane whether the
    product was beyond the update's rails, and whether a non-zero product gave y = 0.

    Latency: 6 cycles. Throughput: a beat a cycle. Reset: empty.
    """

    latency = 6

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        g, w, y, step = config.grids
        lanes = config.lanes

        def vector(shape: Any) -> data.ArrayLayout:
            return data.ArrayLayout(shape, lanes)

        gradient, weight, update = (vector(signed(fmt.width)) for fmt in (g, w, y))
        flags = vector(unsigned(1))
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"direction": gradient, "weight": weight, "last": 1}))),
                "step": In(step.width),
                "o": Out(
                    stream.Signature(
                        data.StructLayout(
                            {
                                "weight": weight,
                                "previous": weight,
                                "update": update,
                                "saturated": flags,
                                "swallowed": flags,
                                "last": 1,
                            }
                        )
                    )
                ),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        g, w, y, step = config.grids

        advance = Signal()
        valid = Signal(self.latency)
        last = Signal(self.latency, reset_less=True)
        minus_step = Signal(signed(step.width + 1))
        m.d.comb += [
            advance.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(advance),
            self.o.valid.eq(valid[-1]),
            self.o.payload.last.eq(last[-1]),
            minus_step.eq(-self.step),
        ]
        with m.If(advance):
            m.d.sync += [valid.eq(Cat(self.i.valid, valid)), last.eq(Cat(self.i.payload.last, last))]

        for lane in range(config.lanes):
            out = self.o.payload

            def stage(shape: Any, name: str, lane: int = lane) -> Any:
                return Signal(shape, name=f"{name}{lane}", reset_less=True)

            weights = [stage(signed(w.width), f"weight_{i}_") for i in range(self.latency)]
            product = Signal(signed(config.widths.product.signed_bits), name=f"product{lane}")
            rounded = stage(signed(config.widths.rounded.signed_bits), "rounded")
            inexact = stage(1, "inexact")
            update = stage(signed(y.width), "update")
            saturated = [stage(1, f"saturated_{i}_") for i in range(3)]
            swallowed = [stage(1, f"swallowed_{i}_") for i in range(3)]
            moved = stage(signed(config.widths.moved.signed_bits), "moved")
            updates = [update, stage(signed(y.width), "update_1_"), stage(signed(y.width), "update_2_")]
            new = stage(signed(w.width), "new")

            multiplier = Multiplier(g.width, step.width + 1)
            m.submodules[f"multiplier{lane}"] = multiplier
            m.d.comb += [
                multiplier.a.eq(self.i.payload.direction[lane]),
                multiplier.b.eq(minus_step),
                multiplier.enable.eq(advance),
                product.eq(multiplier.o),
            ]
            lowered, dropped = self._to_update_grid(product)
            fitted, beyond = fit(rounded, y)
            resolved, _ = fit(moved, w)
            with m.If(advance):
                m.d.sync += [
                    Cat(weights).eq(Cat(self.i.payload.weight[lane], weights)),
                    rounded.eq(lowered),
                    inexact.eq(dropped),
                    update.eq(fitted),
                    Cat(updates[1:]).eq(Cat(updates)),
                    Cat(saturated).eq(Cat(beyond, saturated)),
                    Cat(swallowed).eq(Cat(self._swallowed(rounded, inexact, fitted), swallowed)),
                    moved.eq(self._to_weight_grid(weights[3], update)),
                    new.eq(resolved),
                ]
                if lane >= config.tail:
                    with m.If(last[-2]):
                        m.d.sync += [new.eq(0), weights[-1].eq(0), updates[-1].eq(0), saturated[-1].eq(0), swallowed[-1].eq(0)]
            m.d.comb += [
                out.weight[lane].eq(new),
                out.previous[lane].eq(weights[-1]),
                out.update[lane].eq(updates[-1]),
                out.saturated[lane].eq(saturated[-1]),
                out.swallowed[lane].eq(swallowed[-1]),
            ]
        return m

    def _to_update_grid(self, product: Value) -> tuple[Value, Value]:
        """The exact product rounded to the update grid, and whether anything was dropped."""
        shift, rounding = self.config.widths.update_shift, self.config.grids.update.rounding
        if shift <= 0:
            return product << -shift, Const(0, 1)
        product = extended(product, shift + 1)
        guard, sticky = product[shift - 1], product[: shift - 1].any()
        if rounding is Rounding.NEAREST_EVEN:  # a tie goes up, then back to even: `sticky` stays out of the carry chain
            raised = product[shift:].as_signed() + guard
            return Cat(raised[0] & ~(guard & ~sticky), raised[1:]).as_signed(), guard | sticky
        up = round_up(rounding, lsb=product[shift], guard=guard, sticky=sticky, negative=product[-1])
        return product[shift:].as_signed() + up, guard | sticky

    def _swallowed(self, rounded: Value, inexact: Value, fitted: Value) -> Value:
        """Whether a product that is not zero gives y = 0."""
        if self.config.grids.update.overflow in (Overflow.SATURATE, Overflow.SATURATE_SYMMETRIC):
            return ~rounded.any() & inexact
        return ~fitted.any() & (inexact | rounded.any())  # these modes may turn into zero what rounding did not

    def _to_weight_grid(self, weight: Value, update: Value) -> Value:
        """The exact sum rounded to the weight grid.

        Where the update's grid is the finer one, the dropped bits are the update's own and the floor's lowest bit is an
        exclusive or, so the round-up is known before the sum and enters it as the carry.
        """
        widths, grids = self.config.widths, self.config.grids
        shift, rounding = widths.weight_shift, grids.weight.rounding
        if shift == 0:
            return weight + (update << widths.common_fraction - grids.update.fraction_bits)
        update = extended(update, shift + 1)
        guard, sticky = update[shift - 1], update[: shift - 1].any()
        whole = update[shift:].as_signed()
        if rounding in (Rounding.NEAREST_ZERO, Rounding.NEAREST_AWAY, Rounding.TOWARD_ZERO):  # these need the sum's sign
            total = weight + whole
            return total + round_up(rounding, lsb=total[0], guard=guard, sticky=sticky, negative=total[-1])
        up = round_up(rounding, lsb=weight[0] ^ whole[0], guard=guard, sticky=sticky, negative=Const(0, 1))
        carried = Cat(Const(1, 1), weight).as_signed() + Cat(up, whole).as_signed()
        return carried[1:].as_signed()
