"""Number formats: what an integer on a wire means.

Two kinds, both pure descriptions without arithmetic on data, so that golden model and RTL may share them:

* :class:`Fixed`, the fixed-point formats of the vectors, ``SQ(i, f)`` and ``UQ(i, f)``;
* :class:`ScalarFormat`, the non-negative floating format of the scalars, ``m * 2**e``.
"""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import NamedTuple, TypeVar


class Rounding(enum.StrEnum):
    """How a value between two grid points chooses one. The names in brackets are the HLS ones."""

    NEAREST_EVEN = "nearest_even"  #: nearest, ties to the even integer (AP_RND_CONV)
    NEAREST_UP = "nearest_up"  #: nearest, ties towards plus infinity (AP_RND)
    NEAREST_DOWN = "nearest_down"  #: nearest, ties towards minus infinity (AP_RND_MIN_INF)
    NEAREST_ZERO = "nearest_zero"  #: nearest, ties towards zero (AP_RND_ZERO)
    NEAREST_AWAY = "nearest_away"  #: nearest, ties away from zero (AP_RND_INF)
    FLOOR = "floor"  #: towards minus infinity (AP_TRN)
    TOWARD_ZERO = "toward_zero"  #: towards zero (AP_TRN_ZERO)
    STOCHASTIC = "stochastic"  #: floor(x + r), r a random number below one ulp; for the update alone


class Overflow(enum.StrEnum):
    """What becomes of a rounded value beyond the rails. The names in brackets are the HLS ones."""

    SATURATE = "saturate"  #: the nearer rail (AP_SAT)
    SATURATE_SYMMETRIC = "saturate_symmetric"  #: the nearer rail, the lower one being minus the upper (AP_SAT_SYM)
    WRAP = "wrap"  #: the low bits (AP_WRAP)
    ZERO = "zero"  #: zero (AP_SAT_ZERO)


_HLS_ROUNDING = {
    "AP_RND": Rounding.NEAREST_UP,
    "AP_RND_CONV": Rounding.NEAREST_EVEN,
    "AP_RND_ZERO": Rounding.NEAREST_ZERO,
    "AP_RND_INF": Rounding.NEAREST_AWAY,
    "AP_RND_MIN_INF": Rounding.NEAREST_DOWN,
    "AP_TRN": Rounding.FLOOR,
    "AP_TRN_ZERO": Rounding.TOWARD_ZERO,
}
_HLS_OVERFLOW = {
    "AP_SAT": Overflow.SATURATE,
    "AP_SAT_SYM": Overflow.SATURATE_SYMMETRIC,
    "AP_WRAP": Overflow.WRAP,
    "AP_SAT_ZERO": Overflow.ZERO,
}
_Q_TEXT = re.compile(r"(?P<sign>[SU]?)Q(?P<i>-?\d{1,9})\.(?P<f>-?\d{1,9})", re.ASCII)
_HLS_TEXT = re.compile(r"(?:ap_)?(?P<u>u?)(?P<kind>fixed|int)<(?P<args>[^<>]*)>")
_HLS_SIZE = re.compile(r"[+-]?\d{1,9}", re.ASCII)

FARTHEST = 1000
"""No binary point lies farther from a format's bits: beyond, float64 would not hold its values."""

NEAR_RAIL = Fraction(95, 100)
"""An element is near a rail from this fraction of the larger rail on."""


@dataclass(frozen=True)
class Fixed:
    """A fixed-point format: ``value = integer * 2**-fraction_bits``.

    ``integer_bits`` counts the sign bit (the ARM convention); the width is ``integer_bits + fraction_bits``. Either may
    be negative as long as the width is at least one bit (two, when signed), and neither is beyond 1000.

    >>> Fixed.parse("SQ4.12").rails
    (-32768, 32767)
    >>> str(Fixed.parse("ap_fixed<16, 4, AP_RND, AP_SAT>"))
    'SQ4.12,nearest_up,saturate'
    """

    signed: bool
    integer_bits: int
    fraction_bits: int
    rounding: Rounding = Rounding.NEAREST_EVEN
    overflow: Overflow = Overflow.SATURATE
    implied: bool = field(default=False, compare=False, repr=False)  #: whether HLS text has left its overflow mode to HLS

    def __post_init__(self) -> None:
        for name in ("integer_bits", "fraction_bits"):
            value = getattr(self, name)
            if not -FARTHEST <= value <= FARTHEST:
                raise ValueError(f"format {self.name}: {name} must be from -{FARTHEST} to {FARTHEST}, not {value}")
        least = 2 if self.signed else 1
        if self.width < least:
            raise ValueError(
                f"format {self.name}: width must be at least {least} bit{'s' if least > 1 else ''}, not {self.width}"
            )

    def finer(self, bits: int) -> Fixed:
        """The format of that width whose binary point stands so many bits higher: a finer grid, and nearer rails."""
        return replace(self, integer_bits=self.integer_bits - bits, fraction_bits=self.fraction_bits + bits)

    def extended(self, bits: int) -> Fixed:
        """The format of that range with so many fraction bits more."""
        return replace(self, fraction_bits=self.fraction_bits + bits)

    @classmethod
    def parse(cls, text: str) -> Fixed:
        """A format from its text: ``SQ4.12``, ``UQ-2.19``, ``SQ4.12,floor,wrap``, ``ap_fixed<16,4,AP_RND,AP_SAT>``.

        ``Q4.12`` is ``SQ4.12``. ``SQ``/``UQ`` text defaults to nearest_even and saturate; HLS text to AP_TRN and AP_WRAP, as in
        HLS, where ``ap_`` and ``AP_`` may be left out, and a fifth argument, the number of saturation bits, must be 0.

        Raises:
            ValueError: the text is no format, or one that no grid has; with the text as it was given.
        """
        compact = "".join(str(text).split())
        try:
            return cls._parse(compact, text)
        except ValueError as error:
            # A grid that is refused is named as it was typed.
            said = re.sub(r"^format [SU]Q-?\d+\.-?\d+: ", f"format {text!r}: ", str(error))
            raise ValueError(said) from None

    @classmethod
    def _parse(cls, compact: str, text: str) -> Fixed:
        head, *modes = compact.split(",") if "<" not in compact else [compact]
        if match := _Q_TEXT.fullmatch(head):
            if len(modes) > 2:
                raise ValueError(f"format {text!r}: at most a rounding and an overflow mode may follow, not {modes!r}")
            rounding = _choice(Rounding, modes[0], text) if modes else Rounding.NEAREST_EVEN
            overflow = _choice(Overflow, modes[1], text) if len(modes) > 1 else Overflow.SATURATE
            return cls(match["sign"] != "U", int(match["i"]), int(match["f"]), rounding, overflow)
        if match := _HLS_TEXT.fullmatch(head):
            return cls._from_hls(text, match)
        raise ValueError(f"format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not {_clipped(text)}")

    @classmethod
    def _from_hls(cls, text: str, match: re.Match[str]) -> Fixed:
        args = match["args"].split(",")
        sizes, modes = (1, args[1:]) if match["kind"] == "int" else (2, args[2:])
        numbers = [int(arg) for arg in args[:sizes] if _HLS_SIZE.fullmatch(arg)]
        if len(numbers) != sizes or len(modes) > (0 if match["kind"] == "int" else 3):
            raise ValueError(f"format must read like 'ap_fixed<W,I[,Q,O[,N]]>' or 'ap_int<W>', not {_clipped(text)}")
        if len(modes) == 3 and modes.pop() != "0":
            raise ValueError(f"format {text!r}: N, the number of saturation bits, must be 0, not {args[-1]!r}")
        modes = [mode if mode.startswith("AP_") else f"AP_{mode}" for mode in modes]
        width, integer = numbers[0], numbers[-1]
        rounding, overflow = Rounding.FLOOR, Overflow.WRAP
        if modes:
            if modes[0] not in _HLS_ROUNDING:
                raise ValueError(f"format {text!r}: rounding must be one of {', '.join(_HLS_ROUNDING)}, not {args[2]!r}")
            rounding = _HLS_ROUNDING[modes[0]]
        if len(modes) > 1:
            if modes[1] not in _HLS_OVERFLOW:
                raise ValueError(f"format {text!r}: overflow must be one of {', '.join(_HLS_OVERFLOW)}, not {args[3]!r}")
            overflow = _HLS_OVERFLOW[modes[1]]
        return cls(not match["u"], integer, width - integer, rounding, overflow, implied=len(modes) < 2)

    @property
    def name(self) -> str:
        """The grid alone, without its modes: ``SQ4.12``."""
        return f"{'S' if self.signed else 'U'}Q{self.integer_bits}.{self.fraction_bits}"

    def __str__(self) -> str:
        if (self.rounding, self.overflow) == (Rounding.NEAREST_EVEN, Overflow.SATURATE):
            return self.name
        return f"{self.name},{self.rounding},{self.overflow}"

    @property
    def width(self) -> int:
        """Bits a value takes, the sign included."""
        return self.integer_bits + self.fraction_bits

    @property
    def ulp(self) -> Fraction:
        """The distance of two neighbouring values."""
        return Fraction(2) ** -self.fraction_bits

    @property
    def rails(self) -> tuple[int, int]:
        """The smallest and the largest integer that rounding and saturating can give."""
        if not self.signed:
            return 0, (1 << self.width) - 1
        top = (1 << (self.width - 1)) - 1
        return (-top if self.overflow is Overflow.SATURATE_SYMMETRIC else -top - 1), top

    @property
    def near_rail(self) -> int:
        """The smallest magnitude, in ulps, that counts as near a rail."""
        return math.ceil(NEAR_RAIL * max(abs(rail) for rail in self.rails))

    def with_modes(self, rounding: Rounding, overflow: Overflow) -> Fixed:
        """The same grid with other modes."""
        return replace(self, rounding=rounding, overflow=overflow, implied=False)


def _clipped(text: object) -> str:
    """What was typed, for a message."""
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:60]}... ({len(str(text)):,} characters)"


Mode = TypeVar("Mode", Rounding, Overflow)


def _choice(kind: type[Mode], text: str, context: object) -> Mode:
    try:
        return kind(text)
    except ValueError:
        names = ", ".join(member.value for member in kind)
        raise ValueError(f"format {context!r}: {kind.__name__.lower()} must be one of {names}, not {text!r}") from None


def shown(value: Fraction) -> str:
    """A number for a message: short, never rounded to one that it is not next to, and of any size."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number in (0.0, math.inf) and value != 0:
        return f"about 2**{value.numerator.bit_length() - value.denominator.bit_length()}"
    text = f"{number:g}"
    return repr(number) if Fraction(text).denominator == 1 and Fraction(text) != value and abs(value) < 10**5 else text


class Scalar(NamedTuple):
    """A non-negative scalar ``m * 2**e``; zero is ``(0, 0)``, everything else has the top bit of ``m`` set."""

    m: int
    e: int

    def __float__(self) -> float:
        return math.ldexp(float(self.m), self.e)

    @property
    def fraction(self) -> Fraction:
        """The exact value."""
        return self.m * Fraction(2) ** self.e


ZERO = Scalar(0, 0)


@dataclass(frozen=True)
class ScalarFormat:
    """The format of the scalars: an M-bit mantissa ``2**(M-1) <= m < 2**M`` and a signed exponent of E bits."""

    mantissa_bits: int = 24
    exponent_bits: int = 10

    @property
    def exponents(self) -> tuple[int, int]:
        """The smallest and the largest exponent."""
        return -(1 << (self.exponent_bits - 1)), (1 << (self.exponent_bits - 1)) - 1

    @property
    def width(self) -> int:
        """Bits of the packed word ``{e, m}``, the mantissa in the low bits."""
        return self.mantissa_bits + self.exponent_bits

    @property
    def largest(self) -> Scalar:
        """What an overflow gives."""
        return Scalar((1 << self.mantissa_bits) - 1, self.exponents[1])

    @property
    def one(self) -> Scalar:
        return Scalar(1 << (self.mantissa_bits - 1), 1 - self.mantissa_bits)

    def constant(self, value: Fraction, *, name: str, root: bool = False) -> Scalar:
        """The scalar nearest to ``value`` (to its square root, if ``root``), ties to even; for the host's constants.

        Raises:
            ValueError: the value is negative, or too large or too small for the exponent.
        """
        if value < 0:
            raise ValueError(f"{name} must be a non-negative scalar, not {value}")
        if value == 0:
            return ZERO
        top = value.numerator.bit_length() - value.denominator.bit_length()
        if root:  # of value * 4**shift, whose root has two bits more than the mantissa
            shift = self.mantissa_bits + 2 - top // 2
            scaled = value * Fraction(4) ** shift
            m = math.isqrt(scaled.numerator // scaled.denominator)
            sticky = m * m != scaled
        else:
            shift = self.mantissa_bits + 2 - top
            scaled = value * Fraction(2) ** shift
            m = scaled.numerator // scaled.denominator
            sticky = m != scaled
        drop = m.bit_length() - self.mantissa_bits
        rest = 2 * (m & ((1 << drop) - 1)) + sticky
        m, e = m >> drop, drop - shift
        if rest > (1 << drop) or (rest == (1 << drop) and m & 1):
            m += 1
        if m >> self.mantissa_bits:
            m, e = m >> 1, e + 1
        low, high = self.exponents
        if not low <= e <= high:
            raise ValueError(
                f"{name} must be zero or between 2**{low + self.mantissa_bits - 1} and 2**{high + self.mantissa_bits} "
                f"to be a scalar of {self.mantissa_bits}+{self.exponent_bits} bits, "
                f"not {'the square root of ' if root else ''}{shown(value)}"
            )
        return Scalar(m, e)
