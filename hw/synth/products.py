"""What a signed product takes: multiplier blocks, and what stands beside them, on each family of multipliers.

They follow what Yosys does: its ``mul2dsp`` cuts a product that is wider than a block into chunks, and adds theirs. The functions
take the bits of both factors of a :class:`~kappa_rtl.hw.cells.multiplier.Multiplier`, and

- ``used``: how many bits of the product are used; all if not given;
- ``square``: whether both factors are the same number, so that one register holds both;
- ``spare``: the highest bits of both factors that are known to repeat the sign, which are left out where logic is made of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

__all__ = ["Multiply", "Product", "Rule", "block_of_any_width", "dsp48", "even", "gowin", "look_up_tables", "mult18x18d", "nexus"]


class Product(NamedTuple):
    """What one multiplier takes."""

    dsp: int = 0  #: blocks
    adders: int = 0  #: bits of the carry chains that join their products, two in a cell
    soft: int = 0  #: bits of products by a single bit, for which Yosys takes look-up tables
    registers: int = 0  #: bits of registers; those of a block are inside it
    rows: int = 0  #: where look-up tables multiply: bits of the adders that bring its rows of partial products down to two
    sides: int = 0  #: and of the one that adds those two
    before: int = 0  #: 1 if the block takes in one more register, which stands in front of the multiplier
    behind: int = 0  #: 1 if it takes in one that stands behind it

    def __add__(self, other: object) -> Product:
        assert isinstance(other, Product)
        return Product(*(a + b for a, b in zip(self, other, strict=True)))


class Multiply(Protocol):
    """What a product takes on one family."""

    def __call__(self, a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product: ...


class Rule(NamedTuple):
    """A block as ``mul2dsp`` takes it, of the wider factor and the other one."""

    most: tuple[int, int]  #: bits of its factors
    least: tuple[int, int]  #: what has fewer is left to the next rule
    dsp: int = 1


MULT18X18D = (Rule((18, 18), (2, 2)),)
GOWIN = (Rule((36, 36), (22, 22), 4), Rule((18, 18), (10, 4)), Rule((18, 18), (4, 10)), Rule((9, 9), (4, 4)))
NEXUS = (Rule((36, 36), (19, 19), 4), Rule((36, 18), (19, 2), 2), Rule((18, 18), (2, 2)))


def even(bits: int) -> int:
    """Bits of a chain whose carry cells have two."""
    return 2 * -(-max(0, bits) // 2)


def mult18x18d(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """On an ECP5: a block with registers on both sides in it, if no factor is wider."""
    if max(a, b) <= 18:
        return Product(dsp=1)
    a, b, bits = _known(a, b, used, spare)
    return _cut(a, b, bits, MULT18X18D) + _outside(a, b, bits, square)


def gowin(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """On a GW2A: blocks of 9, 18 and 36 bits, and all registers outside."""
    a, b, bits = _known(a, b, used, spare)
    return _cut(a, b, bits, GOWIN) + _outside(a, b, bits, square)


def nexus(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """On a CrossLink-NX: blocks of 18 bits by 18, of two and of four of them, with the registers on both sides inside.

    Yosys finds them while the multiplier is a module of its own, so all of its bits count.
    """
    return _cut(a, b, a + b, NEXUS)


def dsp48(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """On a 7 series: blocks of 25 bits by 18, one of which adds what another one made."""
    a, b, bits = _known(a, b, used, spare)
    chunk, wide, other = 17, max(a, b), min(a, b)
    if other < 2 or bits < 9:
        return _tables(a, b) + _outside(a, b, bits, square)
    across, down = (1 + -(-max(0, factor - most) // chunk) for factor, most in ((wide, 25), (other, 18)))
    if across == down == 1:
        return Product(dsp=1, before=1, behind=1)
    if across == 1 or down == 1:  # a chain of blocks; what leaves its lower ones waits for the last one
        return Product(dsp=across * down, registers=chunk * (across * down - 1), before=1)
    adders = sum(bits - chunk * (i + 1) for i in range(across - 1))
    return Product(dsp=across * down, adders=adders, registers=bits, before=1)


def block_of_any_width(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """On a GateMate: one that its placer makes of as many cells as it takes, and all registers outside."""
    a, b, bits = _known(a, b, used, spare)
    return Product(dsp=1) + _outside(a, b, bits, square)


def look_up_tables(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """Where there are no multipliers."""
    a, b, bits = _known(a, b, used, spare)
    return _tables(a, b) + _outside(a, b, bits, square)


def _known(a: int, b: int, used: int | None, spare: int) -> tuple[int, int, int]:
    a, b = a - spare, b - spare
    return a, b, min(a + b, a + b if used is None else used)


def _outside(a: int, b: int, bits: int, square: bool) -> Product:
    return Product(registers=a + (0 if square else b) + bits)


def _tables(a: int, b: int) -> Product:
    wide, narrow = max(a, b), min(a, b)
    return Product(soft=wide) if narrow < 2 else Product(rows=(narrow - 2) * wide, sides=a + b)


def _cut(a: int, b: int, bits: int, rules: Sequence[Rule]) -> Product:
    """A product by one rule after the other."""
    a, b = max(a, b), min(a, b)
    return _chunks(a, b, bits, rules, (True, True)) if rules else _tables(a, b)


def _chunks(a: int, b: int, bits: int, rules: Sequence[Rule], signs: tuple[bool, bool]) -> Product:
    """By the first rule: chunks of a block from the lowest bit on, of the first factor and then of the other one.

    Args:
        signs: which factors have a sign; a chunk without one gets it, as another bit, where it is left to the next rule.
    """
    rule, *others = rules
    if a < rule.least[0] or b < rule.least[1]:
        if min(a, b) < 2:
            return _tables(a, b)
        one = signs[0] != signs[1]
        return _cut(a + (one and not signs[0]), b + (one and not signs[1]), bits, others)
    for first, most in ((True, rule.most[0]), (False, rule.most[1])):
        wide, other = (a, b) if first else (b, a)
        if wide <= most:
            continue
        count = -(-(wide - most) // most)
        found = Product(adders=sum(even(bits - most * (i + 1)) for i in range(count)))
        last = wide - count * most
        if first:
            for _ in range(count):
                found += _chunks(most, other, min(bits, other + most), rules, (False, signs[1]))
            return found + _chunks(last, other, other + last, rules, signs)
        for _ in range(count):
            found += _chunks(other, most, min(bits, other + most), rules, (signs[0], False))
        return found + _chunks(other, last, other + last, rules, signs)
    return Product(dsp=rule.dsp)
