"""Formats by name, for ``GlobalThrottle(optimizer, formats=presets.sq12)``; each is a table that may be changed like any other.

A preset gives widths, and how an update is rounded. Where the binary points belong depends on the model: ``calibrate`` finds out.
"""

from __future__ import annotations

from typing import Any

Formats = dict[str, dict[str, Any]]


def _same(bits: int, *, at_random: bool = False, **more: Any) -> Formats:
    """Everything in so many bits: gradients and directions up to 8, weights up to 2, updates up to 1.

    An update that is rounded at random lies on the weights' grid: on a finer one the sum would be rounded to nearest behind
    it, and most of it undone.
    """
    return {
        "*": {
            "gradient": f"SQ4.{bits - 4}",
            "weight": f"SQ2.{bits - 2}",
            "update": f"SQ2.{bits - 2},stochastic" if at_random else f"SQ1.{bits - 1}",
            "direction": f"SQ4.{bits - 4}",
            **more,
        }
    }


sq16 = _same(16)
"""16 bits, to nearest: what float32 does, mostly."""

sq12 = _same(12)
"""12 bits, to nearest: small updates begin to fall away."""

sq8 = _same(8)
"""8 bits, to nearest: most updates of an ordinary rate round to nothing."""

sq12_stochastic = _same(12, at_random=True)
"""12 bits, updates rounded at random: unbiased, for a generator a lane."""

sq8_stochastic = _same(8, at_random=True)
"""8 bits, updates rounded at random: no update falls away on average, at the price of noise, and of a generator a lane."""

sq8_residual = _same(8, residual_bits=4)
"""8 bits, to nearest, with 4 bits a weight of what rounding dropped: the memory of 12 bits, the words of 8."""

PRESETS: dict[str, Formats] = {
    "sq16": sq16,
    "sq12": sq12,
    "sq8": sq8,
    "sq12_stochastic": sq12_stochastic,
    "sq8_stochastic": sq8_stochastic,
    "sq8_residual": sq8_residual,
}
"""Name -> formats; ``formats`` takes the names too."""
