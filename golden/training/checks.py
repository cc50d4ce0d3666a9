"""What arguments must be, said once: each check names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray


def counts(**given: Any) -> None:
    """Refuse what is no integer of at least 1."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise ValueError(f"{name} must be an integer of at least 1, not {value!r}")


def seeds(**given: Any) -> None:
    """Refuse what is no integer of at least 0."""
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, not {value!r}")


def switches(**given: Any) -> None:
    """Refuse what is neither True nor False."""
    for name, value in given.items():
        if not isinstance(value, (bool, np.bool_)):
            raise ValueError(f"{name} must be True or False, not {value!r}")


def numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """An array of real numbers; ragged ones, text and complex numbers are refused."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must hold numbers: {error}") from None
    if array.dtype.kind not in "iufb":
        raise ValueError(f"{name} must hold numbers, not {array.dtype}")
    return array


def matrix(name: str, values: ArrayLike, width: int, dtype: DTypeLike) -> NDArray[Any]:
    """A matrix (rows, width) in a dtype in which every element is finite."""
    array = numbers(name, values)
    if array.ndim != 2 or array.shape[1] != width or not len(array):
        raise ValueError(f"{name} must have shape (rows, {width}), not {array.shape}")
    with np.errstate(over="ignore"):
        made = array.astype(dtype, copy=False)
    bad = ~np.isfinite(made)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(at)} must be finite in {np.dtype(dtype)}, not {float(array[at])!r}")
    return made
