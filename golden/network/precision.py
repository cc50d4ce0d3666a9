"""Which number format each tensor of a model has, and how a tensor enters it.

Tensors stay real (float32 or float64) and are rounded onto their grids, as in quantisation-aware training; all grids here are
of at most 48 bits, on which float64 is exact, with the bits that decide a rounding below them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..formats import Fixed, Overflow, Rounding
from ..rounding import fit_whole, round_whole

FIELDS = ("weight", "bias", "activation", "accumulator", "gradient", "update", "value", "momentum", "adam_m", "adam_v")
"""What a layer may give a format to."""

RESERVED = ("input", "loss")
"""Names that no layer may have; their one field is ``value``."""

DEFAULT = "__default__"
"""The entry that is asked for whatever another one does not name."""

ACCUMULATE = ("final", "each")
"""When an accumulator is brought onto its grid: after the whole dot product, or after each of its products."""

MAX_WIDTH = 48


class PrecisionDict:
    """Formats by layer and field.

    Args:
        table: ``{layer: {field: format or None}}``; layers of the model, ``input``, ``loss``, ``__default__``. A format is
            text (``"SQ4.12"``, ``"SQ4.12,floor"``, ``"ap_fixed<16,4,AP_RND,AP_SAT>"``) or :class:`Fixed`. Without modes, it
            means nearest even and saturate, HLS text AP_TRN (towards minus infinity, as HLS
            has it) and AP_WRAP. None, or the text ``float``, is float and overrides the default.
        accumulate: ``final`` rounds and saturates the finished dot product; ``each`` adds its products in order, exactly,
            and brings the sum within the accumulator's rails after each one.

    Raises:
        ValueError: an unknown field, a bad format, a wrong type; with the layer, the field and the value.

    >>> precision = PrecisionDict({"dense0": {"weight": "SQ2.6"}, "__default__": {"weight": "SQ4.12"}})
    >>> str(precision.dtype("dense0", "weight")), str(precision.dtype("dense1", "weight")), precision.dtype("dense0", "bias")
    ('SQ2.6', 'SQ4.12', None)
    """

    def __init__(self, table: Mapping[str, Mapping[str, Fixed | str | None]], *, accumulate: str = "final") -> None:
        if accumulate not in ACCUMULATE:
            raise ValueError(f"accumulate must be one of {', '.join(ACCUMULATE)}, not {accumulate!r}")
        if not isinstance(table, Mapping):
            raise ValueError(f"precision must map layers to fields, not {table!r}")
        self.accumulate = accumulate
        self._table: dict[str, dict[str, Fixed | None]] = {}
        for layer, fields in table.items():
            if not isinstance(fields, Mapping):
                raise ValueError(f"precision of {layer} must map fields to formats, not {fields!r}")
            self._table[layer] = {name: _format(layer, name, value) for name, value in fields.items()}

    def dtype(self, layer: str, field: str) -> Fixed | None:
        """The format of a layer's field, or the default's; None is float."""
        if field not in FIELDS:
            raise ValueError(f"field must be one of {', '.join(FIELDS)}, not {field!r}")
        own = self._table.get(layer, {})
        return own[field] if field in own else self._table.get(DEFAULT, {}).get(field)

    def names(self, layer: str, field: str) -> bool:
        """Whether a format, or float, is given for this field of this layer itself."""
        return field in self._table.get(layer, {})

    def validate(self, layers: Sequence[str]) -> None:
        """Refuse a model with a reserved layer name, and entries for layers that it has not.

        Raises:
            ValueError: with the name and the layers there are.
        """
        for name in layers:
            if name in (*RESERVED, DEFAULT):
                raise ValueError(
                    f"layer names must not be {', '.join((*RESERVED, DEFAULT))}, which precision reserves; not {name!r}"
                )
        for name in self._table:
            if name not in (*layers, *RESERVED, DEFAULT):
                raise ValueError(f"precision names must be layers of the model ({', '.join(layers)}), not {name!r}")

    def to_table(self) -> dict[str, dict[str, str | None]]:
        """The formats as text."""
        return {
            layer: {name: None if fmt is None else str(fmt) for name, fmt in fields.items()}
            for layer, fields in self._table.items()
        }

    def __repr__(self) -> str:
        return f"PrecisionDict({self.to_table()!r}, accumulate={self.accumulate!r})"


def ensure_precision_dict(precision: PrecisionDict | Mapping[str, Any] | None) -> PrecisionDict | None:
    """None as it is, a :class:`PrecisionDict` as it is, a mapping parsed.

    Raises:
        ValueError: something else, or a mapping that :class:`PrecisionDict` refuses.
    """
    if precision is None or isinstance(precision, PrecisionDict):
        return precision
    if not isinstance(precision, Mapping):
        raise ValueError(f"precision_dict must be None, a mapping or a PrecisionDict, not {precision!r}")
    return PrecisionDict(precision)


def _format(layer: str, field: str, value: Any) -> Fixed | None:
    where = f"precision of {layer}.{field}"
    if field not in FIELDS or (layer in RESERVED and field != "value"):
        allowed = ("value",) if layer in RESERVED else FIELDS
        raise ValueError(f"{where}: the field must be one of {', '.join(allowed)}, not {field!r}")
    if value is None or value == "float":
        return None
    if isinstance(value, str):
        try:
            value = Fixed.parse(value)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    if not isinstance(value, Fixed):
        raise ValueError(f"{where} must be a format or None, not {value!r}")
    if value.width > MAX_WIDTH:
        raise ValueError(f"{where} must have at most {MAX_WIDTH} bits, not {value.width} ({value})")
    if value.rounding is Rounding.STOCHASTIC:
        raise ValueError(f"{where}: rounding must be deterministic, not {value.rounding.value!r}")
    return value


# -------------------------------------------------------------------------------------------------- tensors


def quantize_tensor(tensor: NDArray[Any], fmt: Fixed | None) -> NDArray[Any]:
    """A tensor on the grid of a format: rounded once, then brought within the rails. Shape and dtype stay.

    Exact for float64; a float32 tensor holds formats of up to 24 bits exactly, wider ones as the nearest float32. NaN stays NaN;
    infinity saturates, and wraps to NaN. None returns the tensor itself. Going backward the derivative is 1 everywhere,
    beyond the rails too (straight through).
    """
    if fmt is None:
        return tensor
    if (fmt.rounding, fmt.overflow) == (
        Rounding.NEAREST_EVEN,
        Overflow.SATURATE,
    ):
        low, high = fmt.rails  # the usual modes, with as few passes as they take
        scaled = np.asarray(np.multiply(tensor, 2.0**fmt.fraction_bits, dtype=np.float64))
        np.rint(scaled, out=scaled)
        np.clip(scaled, low, high, out=scaled)
        scaled *= 2.0**-fmt.fraction_bits
        return scaled.astype(tensor.dtype, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.asarray(tensor, np.float64) * 2.0**fmt.fraction_bits
        whole = fit_whole(round_whole(scaled, fmt.rounding), fmt)
    return (whole * 2.0**-fmt.fraction_bits).astype(tensor.dtype, copy=False)


class RailStats(NamedTuple):
    """Fractions of a tensor's elements."""

    saturation: float = 0.0  #: at a rail or beyond
    near_rail: float = 0.0  #: with at least 0.95 of the larger rail's magnitude
    underflow: float = 0.0  #: not zero, and below half an ulp


def rail_stats(tensor: NDArray[Any], fmt: Fixed | None) -> RailStats:
    """How a tensor stands to the rails and the ulp of a format; zeros without one. NaN counts nowhere."""
    if fmt is None or tensor.size == 0:
        return RailStats()
    low, high = (rail * 2.0**-fmt.fraction_bits for rail in fmt.rails)
    size = np.abs(tensor)
    count = tensor.size
    return RailStats(
        saturation=(np.count_nonzero(tensor <= low) + np.count_nonzero(tensor >= high)) / count,
        near_rail=np.count_nonzero(size >= 0.95 * max(abs(low), abs(high))) / count,
        underflow=(np.count_nonzero(size < 2.0 ** -(fmt.fraction_bits + 1)) - np.count_nonzero(tensor == 0)) / count,
    )
