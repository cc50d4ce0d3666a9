"""Scalar arithmetic: every operation is the exact real result of its operands, rounded once to M significant bits."""

from __future__ import annotations

from .formats import ZERO, Scalar, ScalarFormat


class ScalarUnit:
    """The operations on scalars of one format, with the two sticky flags that they may raise.

    Attributes:
        overflow: a result was too large; it became the largest finite scalar.
        underflow: a non-zero result was too small; it became zero.
    """

    def __init__(self, fmt: ScalarFormat) -> None:
        self.format = fmt
        self.clear()

    def clear(self) -> None:
        """Drop both flags."""
        self.overflow = False
        self.underflow = False

    def round(self, integer: int, exponent: int, sticky: bool = False) -> Scalar:
        """``rnd(integer * 2**exponent)``, ties to even; ``sticky`` says that the exact value lies above, by less than one.

        With ``sticky`` the integer must have at least two bits more than the mantissa, or the tie could not be told.
        """
        if integer == 0:
            return ZERO
        bits = self.format.mantissa_bits
        drop = integer.bit_length() - bits
        assert drop >= 2 or not sticky, "too few bits to round a sticky value"
        if drop <= 0:
            m = integer << -drop
        else:
            m, rest, half = integer >> drop, integer & ((1 << drop) - 1), 1 << (drop - 1)
            if rest > half or (rest == half and (sticky or m & 1)):
                m += 1
        e = exponent + drop
        if m >> bits:
            m, e = m >> 1, e + 1
        low, high = self.format.exponents
        if e > high:
            return self.too_large()
        if e < low:
            self.underflow = True
            return ZERO
        return Scalar(m, e)

    def too_large(self) -> Scalar:
        """The largest finite scalar, with the overflow flag."""
        self.overflow = True
        return self.format.largest

    def normalise(self, integer: int, scale: int) -> Scalar:
        """``rnd(integer * 2**scale)`` of a non-negative integer."""
        return self.round(integer, scale)

    def add(self, a: Scalar, b: Scalar) -> Scalar:
        """``rnd(a + b)``."""
        low = min(a.e, b.e)
        return self.round((a.m << a.e - low) + (b.m << b.e - low), low)

    def mul(self, a: Scalar, b: Scalar) -> Scalar:
        """``rnd(a * b)``."""
        return self.round(a.m * b.m, a.e + b.e)

    @staticmethod
    def maximum(a: Scalar, b: Scalar) -> Scalar:
        """The larger one, exact."""
        return a if _order(a) >= _order(b) else b

    @staticmethod
    def minimum(a: Scalar, b: Scalar) -> Scalar:
        """The smaller one, exact."""
        return a if _order(a) <= _order(b) else b


def _order(x: Scalar) -> tuple[bool, int, int]:
    """Mantissas are normalised, so scalars order like (non-zero, exponent, mantissa)."""
    return (x.m > 0, x.e, x.m)
