# ruff: noqa: E501  a fault a row reads best
"""Rounding in all modes, overflow in all modes, and the rails."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.formats import Fixed, Overflow, Rounding
from support.mutants import Mutant

from . import wide
from .harness import Harness, Proof, component

MODES = [mode for mode in Rounding if mode is not Rounding.STOCHASTIC]


class Rounded(wiring.Component):
    """A value cut off and raised by `round_up`."""

    def __init__(self, rounding: Any, bits: int, places: int, mode: Rounding) -> None:
        self.rounding, self.bits, self.places, self.mode = rounding, bits, places, mode
        super().__init__({"i": In(signed(bits)), "o": Out(signed(bits - places + 1))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        value, places = self.i, self.places
        up = self.rounding.round_up(
            self.mode,
            lsb=value[places],
            guard=value[places - 1],
            sticky=value[: places - 1].any(),
            negative=value[-1],
        )
        m.d.comb += self.o.eq(value[places:].as_signed() + up)
        return m


def rounded(package: str, bits: int, places: int, mode: Rounding) -> Harness:
    dut = Rounded(component(package, "lanes.rounding"), bits, places, mode)
    h = Harness(dut)
    h.claim("what the mode defines", wide.is_rounded(dut.i, places, dut.o, mode))
    h.claim("the bias formula gives the same", wide.rounded(dut.i, places, mode) == dut.o)
    return h


class Fitted(wiring.Component):
    """A value within the rails of a format; and whether a word of the format is on or near a rail, a cycle later."""

    def __init__(self, rounding: Any, bits: int, fmt: Fixed) -> None:
        self.rounding, self.fmt = rounding, fmt
        super().__init__(
            {
                "i": In(signed(bits)),
                "word": In(signed(fmt.width)),
                "o": Out(signed(fmt.width)),
                "beyond": Out(1),
                "on_rail": Out(1),
                "near_rail": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        fitted, beyond = self.rounding.fit(self.i, self.fmt)
        on, near = self.rounding.rails(m, self.word, self.fmt)
        m.d.comb += [self.o.eq(fitted), self.beyond.eq(beyond), self.on_rail.eq(on), self.near_rail.eq(near)]
        return m


def fitted(package: str, bits: int, fmt: Fixed) -> Harness:
    dut = Fitted(component(package, "lanes.rounding"), bits, fmt)
    h = Harness(dut)
    low, high = fmt.rails
    h.claim("within the rails by the overflow mode", dut.o == wide.fitted(dut.i, fmt))
    h.claim("beyond the rails", dut.beyond == wide.is_beyond(dut.i, fmt))
    word = h.past(dut.word, "word", reset_less=True)
    known = h.past(1, "known", reset_less=True)
    h.claim("on a rail", dut.on_rail == ((word <= low) | (word >= high)), when=known)
    h.claim("near a rail", dut.near_rail == ((word >= fmt.near_rail) | (-word >= fmt.near_rail)), when=known)
    return h


class Dithered(wiring.Component):
    """A value cut off after a centred random number was added."""

    def __init__(self, rounding: Any, bits: int, places: int, random: int) -> None:
        self.rounding, self.bits, self.places, self.random = rounding, bits, places, random
        super().__init__({"i": In(signed(bits)), "draw": In(random), "o": Out(signed(bits - places + 1))})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.d.comb += self.o.eq(self.rounding.dither(self.i, self.places, self.draw))
        return m


def dithered(package: str, bits: int, places: int, random: int) -> Harness:
    dut = Dithered(component(package, "lanes.rounding"), bits, places, random)
    h = Harness(dut)
    half = Cat(1, dut.draw, 0).as_signed()  # (d + 1/2) * 2**-R, in units of 2**-(R + 1)
    exact = (dut.i << random + 1) + (half << places)
    h.claim("the floor of the value and (d + 1/2) * 2**-R ulps", dut.o == exact >> places + random + 1)
    return h


DITHER_MUTANTS = (
    Mutant("lanes/rounding.py", "random = Cat(Const(1, 1), random)", "random = Cat(Const(0, 1), random)", "the number is not centred"),
    Mutant("lanes/rounding.py", "random[-bits:])[bits:]", "random[:bits])[bits:]", "the wrong bits of a long number are left out"),
)  # fmt: skip

ROUND_MUTANTS = {
    Rounding.NEAREST_EVEN: Mutant("lanes/rounding.py", "guard & (sticky | lsb)", "guard", "ties round up, not to even"),
    Rounding.NEAREST_UP: Mutant("lanes/rounding.py", "            return guard\n", "            return guard & lsb\n", "halves round up only if odd"),
    Rounding.NEAREST_DOWN: Mutant("lanes/rounding.py", "guard & sticky\n", "guard\n", "ties round up, not down"),
    Rounding.NEAREST_ZERO: Mutant("lanes/rounding.py", "guard & (sticky | negative)", "guard & sticky", "negative ties leave zero"),
    Rounding.NEAREST_AWAY: Mutant("lanes/rounding.py", "guard & (sticky | ~negative)", "guard", "negative ties go to zero"),
    Rounding.FLOOR: Mutant("lanes/rounding.py", "return Const(0, 1)\n        case Rounding.T", "return guard\n        case Rounding.T", "a floor is raised"),
    Rounding.TOWARD_ZERO: Mutant("lanes/rounding.py", "negative & (guard | sticky)", "negative & guard", "the sticky bit is ignored"),
}  # fmt: skip
FIT_MUTANTS = (
    Mutant("lanes/rounding.py", "beyond = top.any() & ~top.all()", "beyond = top.any() & ~top.all() & ~negative", "nothing saturates below"),
    Mutant("lanes/rounding.py", "Const(low, kept.shape())", "Const(low + 1, kept.shape())", "the lower bound is one too high"),
    Mutant("lanes/rounding.py", "Const(high, kept.shape()))", "Const(high - 1, kept.shape()))", "the upper bound is one too low"),
    Mutant("lanes/rounding.py", "_beyond(m, value, near, near - 1, ranks)", "_beyond(m, value, near + 1, near - 1, ranks)", "near begins one too late"),
    Mutant("lanes/rounding.py", "_beyond(m, value, high, -low - 1, ranks)", "_beyond(m, value, high, -low, ranks)", "the lower rail is not seen"),
)  # fmt: skip

PROOFS = [
    *(
        Proof(
            f"rounding {mode.value}",
            f"{bits} bits less {places}: no further and on no other side than the mode defines, ties included",
            lambda package, args=(bits, places, mode): rounded(package, *args),
            "any state",
            1,
            (ROUND_MUTANTS[mode],) if places == 17 else (),
        )
        for mode in MODES
        for bits, places in ((34, 17), (34, 1))
    ),
    *(
        Proof(
            f"rounding stochastic, {random} random bits",
            f"34 bits less {places}: the exact sum with the centred number, floored",
            lambda package, args=(34, places, random): dithered(package, *args),
            "any state",
            1,
            mutants,
        )
        for random, places, mutants in ((16, 17, ()), (4, 17, DITHER_MUTANTS[:1]), (16, 9, DITHER_MUTANTS[1:]))
    ),
    *(
        Proof(
            f"overflow {mode.value}",
            f"{bits} bits into {fmt.name}; the marks of the rails and near them",
            lambda package, bits=bits, fmt=fmt: fitted(package, bits, fmt),
            mutants=FIT_MUTANTS if mode is Overflow.SATURATE and fmt.width == 16 else (),
            depth_mutants=3,
        )
        for mode in Overflow
        for bits, fmt in (
            (18, Fixed(True, 1, 15, Rounding.NEAREST_EVEN, mode)),
            (40, Fixed(True, 2, 30, Rounding.NEAREST_EVEN, mode)),
            (9, Fixed(True, 1, 7, Rounding.NEAREST_EVEN, mode)),
        )
    ),
]
