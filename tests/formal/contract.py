"""What a step owes, written from its page once more: on wires, of all elements of a step side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value

from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.formats import Fixed

from . import wide


def at(values: Sequence[Value], index: Value) -> Value:
    """One of some values, by number; the last one beyond them."""
    result = values[-1]
    for i, value in reversed(list(enumerate(values[:-1]))):
        result = Mux(index == i, value, result)
    return result


def on_rail(value: Value, fmt: Fixed) -> Value:
    low, high = fmt.rails
    return (value <= low) | (value >= high)


def near_rail(value: Value, fmt: Fixed) -> Value:
    """Whether the magnitude is at least 0.95 of the larger rail's, that rounded up to the grid."""
    threshold = -(-95 * -fmt.rails[0] // 100)
    return (value >= threshold) | (value <= -threshold)


class Contract:
    """What each element and the whole of a step owe.

    Args:
        m: the module in which the wires are built.
        config: of a unit with a curvature source or a projection, without residuals and random numbers.
        gradient, previous, weight, direction: a signed value for each element; ``previous`` zero in the first step.
        step: the step size, in ulps of its grid.

    Attributes:
        a, b: the energies; moved: whether a weight has moved.
        update, weight: of each element, y and theta'.
        changes, motions: of each element, what A and B sum the squares of; A of a projection sums no squares.
        counts: by the name of a counter, for each element whether it counts.
    """

    def __init__(
        self,
        m: Module,
        config: ThrottleConfig,
        *,
        gradient: Sequence[Value],
        previous: Sequence[Value],
        weight: Sequence[Value],
        direction: Sequence[Value],
        step: Value,
    ) -> None:
        self.m, self.config = m, config
        g, w, y, s, d = config.grids
        # Products and sums stand on one grid, finer than all others.
        self.product = [self.wire(-value * step) for value in direction]
        below = d.fraction_bits + s.fraction_bits - y.fraction_bits
        self.on_update_grid = [self.wire(wide.rounded(product, below, y.rounding)) for product in self.product]
        self.update = [self.wire(wide.fitted(value, y)) for value in self.on_update_grid]
        finer = max(w.fraction_bits, y.fraction_bits)
        sums = [
            (old << finer - w.fraction_bits) + (change << finer - y.fraction_bits)
            for old, change in zip(weight, self.update, strict=True)
        ]
        self.on_weight_grid = [self.wire(wide.rounded(value, finer - w.fraction_bits, w.rounding)) for value in sums]
        self.weight = [self.wire(wide.fitted(value, w)) for value in self.on_weight_grid]
        self.changes = [self.wire(new - old) for new, old in zip(gradient, previous, strict=True)]
        self.motions = [self.wire(new - old) for new, old in zip(self.weight, weight, strict=True)]
        self.moved = self.wire(Cat(*(value != 0 for value in self.motions)).any())
        if config.intended:
            self.motions = list(direction)
        self.a, self.b = (self.wire(self.added([value * value for value in values])) for values in (self.changes, self.motions))
        if Source(config.source).is_projection:
            sums = self.wire(self.added([old * (old - new) for new, old in zip(gradient, previous, strict=True)]))
            self.a = self.wire(Mux(sums < 0, 0, sums))
        self.counts = {
            "gradient_saturated": [on_rail(value, g) for value in gradient],
            "gradient_near_rail": [near_rail(value, g) for value in gradient],
            "weight_saturated": [
                on_rail(value, w) | wide.is_beyond(exact, w)
                for value, exact in zip(self.weight, self.on_weight_grid, strict=True)
            ],
            "weight_near_rail": [near_rail(value, w) for value in self.weight],
            "update_saturated": [wide.is_beyond(value, y) for value in self.on_update_grid],
            "update_underflow": [(exact != 0) & (value == 0) for exact, value in zip(self.product, self.update, strict=True)],
        }

    def wire(self, value: Value) -> Signal:
        """A name for it, so that it is built once."""
        wire = Signal(Value.cast(value).shape(), name="ghost_owed")
        self.m.d.comb += wire.eq(value)
        return wire

    @staticmethod
    def added(values: Sequence[Any]) -> Value:
        return sum(values, Const(0, 1))

    def count(self, name: str) -> Value:
        """How many elements count."""
        return self.added(self.counts[name])

    def beat(self, values: Sequence[Value], beat: int) -> Sequence[Value]:
        """Those of a beat, a value for each element in it."""
        lanes = self.config.lanes
        return values[beat * lanes : (beat + 1) * lanes]

    def in_lane(self, values: Sequence[Value], lane: int) -> list[Value]:
        """Those of a lane, a value for each beat; zero beyond the elements."""
        found = list(values[lane :: self.config.lanes])
        return found + [Const(0, found[0].shape())] * (self.config.beats - len(found))
