"""Every intermediate range of the datapath, by interval arithmetic: the one place where widths come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .formats import Fixed


class Grids(NamedTuple):
    """The fixed-point formats of a unit; ``direction`` is the gradient's where it has none of its own."""

    gradient: Fixed
    weight: Fixed
    update: Fixed
    step: Fixed
    direction: Fixed


@dataclass(frozen=True)
class Interval:
    """A closed range of integers; the one place where widths come from."""

    low: int
    high: int

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Interval) -> Interval:
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other: Interval) -> Interval:
        corners = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(corners), max(corners))

    def __contains__(self, other: Interval) -> bool:
        return self.low <= other.low and other.high <= self.high

    def __lshift__(self, bits: int) -> Interval:
        return Interval(self.low << bits, self.high << bits)

    def rounded_shift(self, bits: int) -> Interval:
        """What the range becomes on a grid coarser by ``bits``, whatever the rounding."""
        return Interval(self.low >> bits, -(-self.high >> bits)) if bits > 0 else self

    @property
    def magnitude(self) -> int:
        return max(abs(self.low), abs(self.high))

    @property
    def signed_bits(self) -> int:
        """Width of the two's complement word that holds the range."""
        return max(self.high.bit_length(), (-self.low - 1).bit_length() if self.low < 0 else 0) + 1

    @classmethod
    def word(cls, bits: int) -> Interval:
        """All values of a signed word: what may arrive on a port, rails or not."""
        return cls(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


@dataclass(frozen=True)
class Widths:
    """Every intermediate range, by interval arithmetic from the formats and the element count.

    ``gradient_energy`` and ``motion_energy`` are unsigned widths of A and B; the intervals are integers on the grid
    that their comment names.
    """

    difference: Interval  #: G - P, grid of the gradient
    motion: Interval  #: theta' - theta, grid of the weight
    gradient_energy: int  #: bits of A; of a sum that may be negative, without its sign
    motion_energy: int  #: bits of B
    product: Interval  #: -D * step plus the residual, grid 2**-product_fraction
    product_fraction: int  #: fraction bits of the grid on which these two add
    update_shift: int  #: bits from the product's grid down to the update's; negative: up
    rounded: Interval  #: the product on the update grid, before saturation
    common_fraction: int  #: fraction bits of the grid on which theta and y add
    sum: Interval  #: theta + y on that grid
    weight_shift: int  #: bits from that grid down to the weight's
    moved: Interval  #: the sum on the weight grid, before saturation
    dropped_fraction: int  #: fraction bits of the grid of what both roundings dropped

    @property
    def energy(self) -> int:
        """Bits that hold either energy."""
        return max(self.gradient_energy, self.motion_energy)


def derive(
    grids: Grids, shared: Grids, population: int, residual_bits: int, intended: bool = False, projects: bool = False
) -> Widths:
    """The ranges of a datapath on these grids; ``population`` elements share its energies, in the formats ``shared``.

    With ``intended`` B is the sum of squares of the direction, and with ``projects`` A that of P * (P - G).
    """
    g, w, y, step, d = grids
    gradient, weight = Interval.word(g.width), Interval.word(w.width)
    update = Interval(*y.rails)
    difference, motion = gradient - gradient, weight - weight
    all_gradients, all_weights = Interval.word(shared.gradient.width), Interval.word(shared.weight.width)
    changes = all_gradients - all_gradients
    moves = Interval.word(shared.direction.width) if intended else all_weights - all_weights
    product, product_fraction = Interval.word(d.width) * Interval(-step.rails[1], 0), d.fraction_bits + step.fraction_bits
    if residual_bits:
        residual_fraction = w.fraction_bits + residual_bits
        common = max(product_fraction, residual_fraction)
        product = (product << common - product_fraction) + (Interval.word(residual_bits) << common - residual_fraction)
        product_fraction = common
    update_shift = product_fraction - y.fraction_bits
    rounded = product.rounded_shift(update_shift) if update_shift > 0 else product << -update_shift
    common = max(w.fraction_bits, y.fraction_bits)
    total = (weight << common - w.fraction_bits) + (update << common - y.fraction_bits)
    return Widths(
        difference=difference,
        motion=motion,
        gradient_energy=(population * (all_gradients if projects else changes).magnitude * changes.magnitude).bit_length(),
        motion_energy=(population * moves.magnitude**2).bit_length(),
        product=product,
        product_fraction=product_fraction,
        update_shift=update_shift,
        rounded=rounded,
        common_fraction=common,
        sum=total,
        weight_shift=common - w.fraction_bits,
        moved=total.rounded_shift(common - w.fraction_bits),
        dropped_fraction=max(product_fraction, common),
    )
