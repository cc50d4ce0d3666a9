"""What arguments must be, said once: each check names the argument, its value and the rule."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from ..numbers import array, item, whole


def counts(**given: Any) -> None:
    """Refuse what is no integer of at least 1."""
    for name, value in given.items():
        whole(name, value, 1)


def seeds(**given: Any) -> None:
    """Refuse what is no integer of at least 0."""
    for name, value in given.items():
        whole(name, value, 0)


def switches(**given: Any) -> None:
    """Refuse what is neither True nor False."""
    for name, value in given.items():
        if not isinstance(item(value), bool):
            raise ValueError(f"{name} must be True or False, not {value!r}")


def numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """An array of real numbers, truth values among them as 0 and 1; see :func:`~kappa_rtl.golden.numbers.array`."""
    return array(name, values, "iufb")


def matrix(name: str, values: ArrayLike, width: int, dtype: DTypeLike, shape: tuple[int, ...] = ()) -> NDArray[Any]:
    """A matrix (rows, width) in a dtype in which every element is finite; rows of a ``shape`` as large are flattened."""
    given = numbers(name, values)
    if len(shape) > 1 and given.shape[1:] == shape:
        given = given.reshape(len(given), -1)
    if given.ndim != 2 or given.shape[1] != width or not len(given):
        raise ValueError(f"{name} must have shape (rows, {width}), not {given.shape}")
    with np.errstate(over="ignore"):
        made = given.astype(dtype, copy=False)
    bad = ~np.isfinite(made)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(at)} must be finite in {np.dtype(dtype)}, not {float(given[at])!r}")
    return made
