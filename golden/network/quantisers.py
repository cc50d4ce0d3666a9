"""How a quantised layer computes: its tensors on their grids, its products exact before they are rounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..formats import Fixed, Overflow
from ..rounding import fit_whole, round_whole
from .embedding import Embedding
from .layers import Layer, variables
from .overflow import OF_FIELD, Overflows, beyond
from .precision import FIELDS, PrecisionDict, quantize_tensor

STORAGE = {"kernel": "weight", "bias": "bias", "table": "weight"}
"""Variable -> the precision field of its storage; any other one is a "value"."""


class Segment(NamedTuple):
    """Neighbouring elements of a flat vector that share their formats; None is float, which neither rounds nor saturates."""

    size: int
    update: Fixed | None = None
    weight: Fixed | None = None


class InputQuantiser:
    """What a :class:`PrecisionDict` says of the data on the way in; there is no product."""

    def __init__(self, precision: PrecisionDict) -> None:
        self._value = precision.dtype("input", "value")
        self.watch: Overflows | None = None

    def __call__(self, field: str, tensor: NDArray[Any]) -> NDArray[Any]:
        if self.watch is not None:
            self.watch.look("input", "input", tensor, self._value)
        return quantize_tensor(tensor, self._value)

    def product(self, x: NDArray[Any], kernel: NDArray[Any]) -> NDArray[Any]:
        raise TypeError("the input has no kernel")


class LayerQuantiser:
    """What a :class:`PrecisionDict` says of one layer of a model, ready to be applied.

    Args:
        source: the grid that the layer's input lies on, if it does: with the kernel's it decides how a product is exact.

    Attributes:
        watch: counts what lies beyond the rails, before it is brought within them; None counts nothing.
    """

    def __init__(self, precision: PrecisionDict, layer: str, source: Fixed | None) -> None:
        self.layer, self.source = layer, source
        self.watch: Overflows | None = None
        self._formats = {name: precision.dtype(layer, name) for name in FIELDS}
        self._each = precision.accumulate == "each"
        if self._each and self._formats["accumulator"] is not None and (source is None or self._formats["weight"] is None):
            raise ValueError(
                f"accumulate = 'each' needs a format of the input and of the weight of {layer}: its products are added exactly"
            )

    def __call__(self, field: str, tensor: NDArray[Any]) -> NDArray[Any]:
        """The tensor on the field's grid."""
        if self.watch is not None:
            self.watch.look(OF_FIELD[field], self.layer, tensor, self._formats[field])
        return quantize_tensor(tensor, self._formats[field])

    def dtype(self, field: str) -> Fixed | None:
        return self._formats[field]

    def product(self, x: NDArray[Any], kernel: NDArray[Any]) -> NDArray[Any]:
        """``x @ kernel`` on the accumulator's grid: exact before it is rounded, where both factors lie on grids."""
        accumulator, weight = self._formats["accumulator"], self._formats["weight"]
        note = None if accumulator is None or self.watch is None else self._note
        if self.source is None or weight is None or not (np.isfinite(x).all() and np.isfinite(kernel).all()):
            return _onto(x @ kernel, accumulator, note)
        if self._each and accumulator is not None:
            return _accumulate_each(x, kernel, self.source, weight, accumulator, note)
        return exact_product(x, kernel, self.source, weight, accumulator, note)

    def _note(self, outside: NDArray[np.bool_]) -> None:
        """Dot products beyond the accumulator's rails."""
        if self.watch is not None:
            self.watch.add("accumulator", self.layer, outside)


Note = Callable[[NDArray[np.bool_]], None]
"""Told which dot products lie beyond the accumulator's rails, before they are brought within them."""


def _onto(tensor: NDArray[Any], fmt: Fixed | None, note: Note | None) -> NDArray[Any]:
    if note is not None:
        note(beyond(tensor, fmt))
    return quantize_tensor(tensor, fmt)


def exact_product(
    x: NDArray[Any],
    kernel: NDArray[Any],
    source: Fixed,
    weight: Fixed,
    accumulator: Fixed | None,
    note: Note | None = None,
) -> NDArray[Any]:
    """``x @ kernel``, (n, d) by (d, c), of factors on the grids ``source`` and ``weight``: exact, then rounded once.

    Where no sum can pass 2**53 (or 2**24 in float32) BLAS is exact as it is. Otherwise the kernel is split into limbs whose
    products are, and these are added as integers.
    """
    most = x.shape[1] * max(map(abs, source.rails)) * max(map(abs, weight.rails))
    if most <= 1 << (24 if x.dtype == np.float32 else 53):
        return _onto(x @ kernel, accumulator, note)
    if most <= 1 << 53:
        wide = x.astype(np.float64) @ kernel.astype(np.float64)
        return _onto(wide, accumulator, note).astype(x.dtype)
    whole = _codes(x, source).astype(np.float64)
    rest = _codes(kernel, weight)
    # A limb of so many bits keeps every sum of products below 2**53.
    bits = 53 - (x.shape[1] * max(map(abs, source.rails))).bit_length()
    if bits < 1:
        raise ValueError(f"an input format of {source.width} bits and {x.shape[1]} inputs are more than 53 bits together")
    total: NDArray[Any] = np.zeros((x.shape[0], kernel.shape[1]), np.int64 if most < 1 << 61 else object)
    place = 0
    while rest.any():
        top = rest >> (bits - 1)
        # The last limb takes the sign with it.
        limb = rest if np.isin(top, (0, -1)).all() else rest & ((1 << bits) - 1)
        part = (whole @ limb.astype(np.float64)).astype(np.int64)
        total = total + (part.astype(total.dtype) << place)
        rest = (rest - limb) >> bits
        place += bits
    return _from_codes(total, source.fraction_bits + weight.fraction_bits, accumulator, x.dtype, note)


def _accumulate_each(
    x: NDArray[Any], kernel: NDArray[Any], source: Fixed, weight: Fixed, accumulator: Fixed, note: Note | None
) -> NDArray[Any]:
    """The dot products with every partial sum within the accumulator's rails, and one rounding at the end.

    Between the additions the sum keeps the products' fraction bits; only its integer part is as wide as the accumulator's.
    """
    xs, ks = _codes(x, source), _codes(kernel, weight)
    fraction = source.fraction_bits + weight.fraction_bits
    down = fraction - accumulator.fraction_bits
    if accumulator.width + max(0, down) > 61 or source.width + weight.width > 61:
        raise ValueError(
            f"accumulate = 'each' holds sums of at most 61 bits: {accumulator} of products {source} by {weight} is more"
        )
    if down < 0:
        raise ValueError(f"accumulator {accumulator} must not have more fraction bits than a product, {fraction}")
    low, high = (rail << down for rail in accumulator.rails)
    total = np.zeros((x.shape[0], kernel.shape[1]), np.int64)
    outside = np.zeros(total.shape, bool)
    for i in range(x.shape[1]):
        total += xs[:, i : i + 1] * ks[i]
        if note is not None:
            outside |= (total < low) | (total > high)
        match accumulator.overflow:
            case Overflow.WRAP:
                total = ((total - low) & ((1 << accumulator.width + down) - 1)) + low
            case Overflow.ZERO:
                total *= (total >= low) & (total <= high)
            case _:
                np.clip(total, low, high, out=total)
    return _from_codes(total, fraction, accumulator, x.dtype, None if note is None else lambda last: note(outside | last))


def _codes(tensor: NDArray[Any], fmt: Fixed) -> NDArray[np.int64]:
    return np.ldexp(tensor.astype(np.float64), fmt.fraction_bits).astype(np.int64)


def _from_codes(codes: NDArray[Any], fraction: int, fmt: Fixed | None, dtype: Any, note: Note | None = None) -> NDArray[Any]:
    """Integers of ``fraction`` fraction bits, on the grid of ``fmt``, as reals."""
    if fmt is None:
        return np.ldexp(codes.astype(np.float64), -fraction).astype(dtype)
    down = fraction - fmt.fraction_bits
    if note is not None:
        low, high = fmt.rails
        unbound = round_whole(_scaled(codes, down), fmt.rounding)
        note((unbound < low) | (unbound > high))
    if fmt.overflow is Overflow.WRAP:
        codes = codes & ((1 << fmt.width + max(0, down)) - 1)
    whole = fit_whole(round_whole(_scaled(codes, down), fmt.rounding), fmt)
    return (whole * 2.0**-fmt.fraction_bits).astype(dtype)


def _scaled(codes: NDArray[Any], down: int) -> NDArray[np.float64]:
    """``codes * 2**-down`` as floats that round as they do, or lie beyond any rail as they do."""
    if down <= 2:
        whole: NDArray[np.float64] = np.ldexp(codes.astype(np.float64), -down)
        return whole
    # Two bits and a sticky one below the grid decide any rounding; what is above fits a float64 or is beyond the rails.
    limit = 1 << 52
    kept = np.clip(codes >> (down - 2), -limit, limit)
    sticky = (codes & ((1 << (down - 2)) - 1)) != 0
    near: NDArray[np.float64] = kept.astype(np.float64) / 4 + np.where(sticky, 0.125, 0.0)
    return near


# -------------------------------------------------------------------------------------------------- models


def layer_quantisers(layers: Sequence[Layer], precision: PrecisionDict) -> dict[str, InputQuantiser | LayerQuantiser]:
    """A quantiser for the data, called ``input``, and for each layer, by name.

    Raises:
        ValueError: the precision names a layer that is not there, or asks for what has no exact product.
    """
    precision.validate([layer.name for layer in layers])
    made: dict[str, InputQuantiser | LayerQuantiser] = {}
    grid = None
    if not (layers and isinstance(layers[0], Embedding)):
        made["input"] = InputQuantiser(precision)
        grid = precision.dtype("input", "value")
    elif precision.names("input", "value"):
        raise ValueError(f"precision must have no format of input.value: {layers[0].name} is given numbers of words, no values")
    for layer in layers:
        made[layer.name] = LayerQuantiser(precision, layer.name, grid)
        out = precision.dtype(layer.name, "activation")
        stored = precision.dtype(layer.name, "weight") if isinstance(layer, Embedding) else None
        grid = out if out is not None else grid if layer.keeps else stored
    return made


def segments(layers: Sequence[Layer], precision: PrecisionDict | None) -> tuple[Segment, ...]:
    """The formats of update and storage, variable by variable, in the order of theta."""
    if precision is None:
        return tuple(Segment(v.place.stop - v.place.start) for v in variables(layers))
    return tuple(
        Segment(
            v.place.stop - v.place.start,
            precision.dtype(v.layer, "update"),
            precision.dtype(v.layer, STORAGE.get(v.name, "value")),
        )
        for v in variables(layers)
    )


def gradient_formats(layers: Sequence[Layer], precision: PrecisionDict | None) -> tuple[Fixed | None, ...]:
    """The gradient's format, variable by variable."""
    return tuple(precision.dtype(v.layer, "gradient") if precision else None for v in variables(layers))
