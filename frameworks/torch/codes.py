"""Tensors of floats onto a grid and back, on whatever device they are: the same codes as ``golden.rounding.quantise``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ...golden.formats import Fixed, Overflow, Rounding
from ...golden.rounding import storage_dtype

DTYPES = {"int8": torch.int8, "int16": torch.int16, "int32": torch.int32, "int64": torch.int64}


class Coded(NamedTuple):
    """Codes (n,) in the dtype that the grid is stored in, and how many values lay beyond its rails before they were fitted."""

    codes: Any
    beyond: int


def flat(tensors: Sequence[Any]) -> Any:
    """Tensors of a unit as one vector; a single one is not copied."""
    vectors = [tensor.reshape(-1) for tensor in tensors]
    return vectors[0] if len(vectors) == 1 else torch.cat(vectors)


def dtype_of(fmt: Fixed) -> Any:
    """The torch dtype that a format's codes are stored in."""
    return DTYPES[storage_dtype(fmt).name]


class NotFiniteError(ValueError):
    """A value that is on no grid.

    Attributes:
        place, value: the first one.
    """

    def __init__(self, place: int, value: float) -> None:
        super().__init__(f"values[{place}] must be finite, not {value!r}")
        self.place, self.value = place, value


def coded(values: Any, fmt: Fixed) -> Coded:
    """Values (n,) rounded once onto the grid, then brought within the rails by the format's overflow mode.

    Raises:
        NotFiniteError: a value is NaN or infinite.
    """
    low, high = fmt.rails
    # In float32 where scaling up loses nothing and the rails are float32s; float64 holds every format's codes.
    single = values.dtype != torch.float64 and 0 <= fmt.fraction_bits <= 60 and fmt.width <= 24
    whole = _rounded((values.float() if single else values.double()) * 2.0**fmt.fraction_bits, fmt.rounding)
    least, most = (float(end) for end in torch.aminmax(whole))
    if not (math.isfinite(least) and math.isfinite(most)):
        if not bool(torch.isfinite(values).all()):
            place = int(torch.nonzero(~torch.isfinite(values))[0])
            raise NotFiniteError(place, float(values[place]))
        # Too large to be scaled: beyond any rail.
        whole.clamp_(-(2.0**100), 2.0**100)
    beyond = 0
    if least < low or most > high:
        out = (whole < low) | (whole > high)
        beyond = int(torch.count_nonzero(out))
        if fmt.overflow is Overflow.ZERO:
            whole = torch.where(out, torch.zeros_like(whole), whole)
        elif fmt.overflow is Overflow.WRAP:
            whole = _wrapped(values, fmt)
        else:
            whole.clamp_(low, high)
    return Coded(whole.to(dtype_of(fmt)), beyond)


def _wrapped(values: Any, fmt: Fixed) -> Any:
    """As the golden model wraps: by the remainder first, so that what is scaled is never too large."""
    low, high = fmt.rails
    whole = _rounded(torch.fmod(values.double(), 2.0**fmt.integer_bits) * 2.0**fmt.fraction_bits, fmt.rounding)
    span = 2.0**fmt.width
    return torch.where(whole > high, whole - span, torch.where(whole < low, whole + span, whole))


def _rounded(scaled: Any, rounding: Rounding) -> Any:
    match rounding:
        case Rounding.NEAREST_EVEN:
            return torch.round(scaled)
        case Rounding.FLOOR:
            return torch.floor(scaled)
        case Rounding.TOWARD_ZERO:
            return torch.trunc(scaled)
    tie = (scaled - torch.trunc(scaled)).abs() == 0.5
    match rounding:
        case Rounding.NEAREST_UP:
            on_tie = torch.ceil(scaled)
        case Rounding.NEAREST_DOWN:
            on_tie = torch.floor(scaled)
        case Rounding.NEAREST_ZERO:
            on_tie = torch.trunc(scaled)
        case _:
            on_tie = torch.copysign(torch.ceil(scaled.abs()), scaled)
    return torch.where(tie, on_tie, torch.round(scaled))


def values_of(codes: Any, fmt: Fixed, dtype: Any) -> Any:
    """The real values of codes, exact where the dtype holds them."""
    wide = torch.float64 if fmt.width > 24 or dtype == torch.float64 else torch.float32
    return codes.to(wide).mul_(2.0**-fmt.fraction_bits).to(dtype)
