"""The nonlinearities of networks and of estimators, each with its first two derivatives; and layer normalisation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..network.layers import KINDS, Kind
from .compiled import gelu_loop

Array = NDArray[Any]

EPSILON = 1e-5
_ROOT, _CUBE = math.sqrt(2 / math.pi), 0.044715


# In place: the estimators spend most of their time here, and a fresh array costs more than the arithmetic on it.


def _tanh(x: Array) -> Array:
    """The tanh of gelu."""
    t = x * x
    t *= _ROOT * _CUBE
    t += _ROOT
    t *= x
    return np.tanh(t, out=t)  # type: ignore[no-any-return]


def _inner_slope(x: Array) -> Array:
    """The derivative of what the tanh is taken of."""
    u = x * x
    u *= 3 * _CUBE * _ROOT
    u += _ROOT
    return u


def _gelu(x: Array) -> tuple[Array, Array]:
    """Value and slope, which share the tanh."""
    loop = gelu_loop(_ROOT, _ROOT * _CUBE) if x.dtype == np.float32 else None
    if loop is not None:
        x = np.ascontiguousarray(x)
        y, slope = np.empty_like(x), np.empty_like(x)
        loop(x.reshape(-1), y.reshape(-1), slope.reshape(-1))
        return y, slope
    t, slope = _tanh(x), _inner_slope(x)
    slope *= x
    slope *= 1 - t * t
    t += 1
    slope += t
    slope *= 0.5
    t *= x
    t *= 0.5
    return t, slope


def _gelu_bend(x: Array, y: Array) -> Array:
    t, u = _tanh(x), _inner_slope(x)
    bend: Array = (1 - t * t) * (u + x * (_ROOT * 3 * _CUBE * x - t * u * u))
    return bend


GELU = Kind(lambda x: _gelu(x)[0], lambda x, y: _gelu(x)[1], _gelu_bend, _gelu)
"""``x/2 (1 + tanh(sqrt(2/pi) (x + .044715 x^3)))``: the tanh form, since numpy has no error function.

In float32 compiled where numba is installed, whose last bits are others; elsewhere numpy."""


def phi(alpha: float) -> Kind:
    """``(1 - alpha) z + alpha tanh z``: the identity at alpha = 0, tanh at 1."""
    tanh = KINDS["tanh"]
    if alpha == 1:
        return tanh
    bend = tanh.bend
    assert bend is not None
    return Kind(
        lambda x: (1 - alpha) * x + alpha * np.tanh(x),
        lambda x, y: 1 - alpha * np.square(np.tanh(x)),
        lambda x, y: alpha * bend(x, np.tanh(x)),
    )


def activation(name: str) -> Kind:
    """``gelu``, ``tanh``, ``relu`` or ``phi:ALPHA`` with ALPHA from 0 to 1.

    Raises:
        ValueError: there is no such activation.
    """
    if name == "gelu":
        return GELU
    if name in ("tanh", "relu"):
        return KINDS[name]
    head, _, tail = str(name).partition(":")
    try:
        alpha = float(tail) if head == "phi" else math.nan
    except ValueError:
        alpha = math.nan
    if not 0 <= alpha <= 1:
        raise ValueError(f"activation must be gelu, tanh, relu or phi:ALPHA with ALPHA from 0 to 1, not {name!r}")
    return phi(alpha)


class Normal(NamedTuple):
    """A layer-normalised (..., d), and the (..., 1) that it was multiplied by."""

    value: Array
    scale: Array


def normalise(h: Array) -> Normal:
    """``(h - mean) / sqrt(variance + 1e-5)`` over the last axis, without gain or offset."""
    centred = h - h.mean(axis=-1, keepdims=True)
    scale = 1 / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + EPSILON)
    return Normal(centred * scale, scale)


def normalise_slope(normal: Normal, v: Array) -> Array:
    """The Jacobian of :func:`normalise`, which is symmetric, times v: both the tangent and the gradient."""
    value, scale = normal
    back: Array = scale * (v - v.mean(axis=-1, keepdims=True) - value * (v * value).mean(axis=-1, keepdims=True))
    return back
