"""What counts as a number: Python's, numpy's, and arrays of them; told apart from all that only looks like one."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Real = int | float | str | Fraction | np.number[Any] | NDArray[Any]
"""A real number as one writes it: a float means the decimal that it prints as, a string may be a ratio (``"3/2"``).

A numpy scalar or an array of no axes is the number that it holds. A float32 too means the decimal that it prints as, so that
``np.float32(0.1)`` is a tenth."""


def real(name: str, value: Real) -> Fraction:
    """A number that is not negative, exact. Truth values are no numbers.

    Raises:
        ValueError: it is no finite number, or negative; names the field and the value.
    """
    try:
        plain = item(value)
        if isinstance(plain, (bool, np.generic)) and not isinstance(plain, str):
            raise ValueError
        number = Fraction(repr(plain) if isinstance(plain, float) else plain)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{name} must be a finite number, not {value!r}") from None
    if number < 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    return number


def is_number(value: Any) -> bool:
    """Whether it is a real number, of Python's or numpy's, finite or not; truth values and text are none."""
    plain = item(value)
    return isinstance(plain, (int, float, Fraction)) and not isinstance(plain, bool)


def number(name: str, value: Any) -> float:
    """A real number as a float; what bounds it has is for the caller to say.

    Raises:
        ValueError: it is none; names the field and the value.
    """
    if not is_number(value):
        raise ValueError(f"{name} must be a number, not {value!r}")
    return float(item(value))


def whole(name: str, value: Any, low: int, high: float = math.inf) -> int:
    """An integer within bounds; an integer of numpy's too, but no truth value and no float.

    Raises:
        ValueError: it is none; names the field, the value and the rule.
    """
    plain = item(value)
    if isinstance(plain, bool) or not isinstance(plain, int) or not low <= plain <= high:
        rule = f"from {low} to {high}" if high < math.inf else f"of at least {low}"
        raise ValueError(f"{name} must be an integer {rule}, not {value!r}")
    return int(plain)


def switch(name: str, value: Any) -> bool:
    """A truth value, numpy's too; 0 and 1 are none.

    Raises:
        ValueError: it is none; names the field and the value.
    """
    plain = item(value)
    if not isinstance(plain, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return plain


def item(value: Any) -> Any:
    """A numpy scalar, or an array of no axes, as the Python value it is; anything else as it was given.

    A float of another width than float64 is the decimal that it prints as, exactly: a :class:`~fractions.Fraction`, or the float
    that is not finite. A complex number, a date and a masked value stay what they are.
    """
    if not hasattr(value, "dtype") or np.shape(value) != () or has_mask(value):
        return value
    scalar = np.asarray(value)[()]
    kind = _kind(scalar.dtype)
    if kind in "iub":
        return int(scalar) if kind != "b" else bool(scalar)
    if kind != "f":
        return value
    if scalar.dtype == np.float64 or not math.isfinite(float(scalar)):
        return float(scalar)
    return Fraction(str(scalar))


def array(name: str, values: ArrayLike, kinds: str = "iuf") -> NDArray[Any]:
    """An array of real numbers in a dtype that numpy itself computes with.

    The narrow types of other packages (bfloat16, float8 and the like) become float64, and their integers int64, which hold each
    of their values. Arrays with a mask are refused, for what is masked is no number; so is a list with such an array in it.

    Args:
        kinds: of dtype: ``i`` and ``u`` integers, ``f`` floats, ``b`` truth values.

    Raises:
        ValueError: text, objects, complex numbers, dates, ragged lists, a mask; names the array and what it holds.
    """
    if has_mask(values):
        raise ValueError(f"{name} must have no mask, not {type(values).__name__}: fill it, or take the rows without one")
    try:
        made = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must hold numbers: {error}") from None
    kind = _kind(made.dtype)
    if kind not in kinds:
        what = "integers or floats" if kinds == "iuf" else "integers" if kinds == "iu" else "numbers"
        raise ValueError(f"{name} must hold {what}, not {made.dtype}")
    if "b" not in kinds and isinstance(values, (list, tuple)) and _holds_truth(values):
        raise ValueError(f"{name} must hold {'integers' if kinds == 'iu' else 'integers or floats'}, not truth values among them")
    return made if made.dtype.kind == kind else made.astype(np.float64 if kind == "f" else np.int64)


def has_mask(values: Any) -> bool:
    """Whether it is an array with a mask, or a list that holds one. A method of that name, as pandas has, is no mask."""
    if isinstance(values, (list, tuple)):
        return any(map(has_mask, values))
    mask = getattr(values, "mask", None)
    return mask is not None and not callable(mask)


def _holds_truth(values: Any) -> bool:
    """Whether a truth value stands in a list, which numpy would take for a number beside others."""
    if isinstance(values, (list, tuple)):
        return any(map(_holds_truth, values))
    return isinstance(values, (bool, np.bool_))


def _kind(dtype: np.dtype[Any]) -> str:
    """numpy's kind of a dtype; what other packages add calls itself V, and says in its name what it is."""
    if dtype.kind != "V":
        return dtype.kind
    for prefix, kind in (("bfloat", "f"), ("float", "f"), ("int", "i"), ("uint", "i")):
        if dtype.name.startswith(prefix):
            return kind
    return dtype.kind
