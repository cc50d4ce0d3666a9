"""What is a number, and what is a code: one rule for every unit."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pandas as pd
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.network.checks import matrix
from kappa_rtl.golden.network.optimisers import Momentum
from kappa_rtl.golden.numbers import real, switch, whole
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.rounding import on_grid
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.published import Law
from kappa_rtl.sim.cosim import RtlThrottle
from support.strategies import exactly

FILL = "fill it, or take the rows without one"
SQ2_14, SQ4_12 = Fixed.parse("SQ2.14"), Fixed.parse("SQ4.12")


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, np.longdouble, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
@pytest.mark.parametrize("axes", [lambda x: x, np.array])
def test_a_float_of_any_width_is_what_it_prints_as(kind: Callable[[Any], Any], axes: Callable[[Any], Any]) -> None:
    for text in ("0.125", "0.1"):
        value = kind(float(text)) if kind is not np.longdouble else np.longdouble(text)
        assert real("eta", axes(value)) == Fraction(str(value))
    assert real("eta", axes(kind(0.125))) == Fraction(1, 8)
    assert real("eta", axes(np.float32(0.1))) == Fraction(1, 10)


@pytest.mark.parametrize(
    "value",
    [True, np.True_, np.array(True), 1j, np.complex64(1), np.ma.masked, np.ma.array(0.5), np.datetime64(1, "s"),
     np.timedelta64(1, "s"), np.float32("nan"), ml_dtypes.bfloat16("inf"), np.array([0.5]), np.array("0.5"), None, [0.5], b"1"],
)  # fmt: skip
def test_what_is_no_number_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match=exactly(f"eta must be a finite number, not {value!r}")):
        ThrottleConfig(elements=1, eta=value)


def test_numpy_scalars_are_numbers_in_every_field() -> None:
    plain = ThrottleConfig.stability_margin(elements=2, lanes=2, eta=0.125, chi=1.5, delay=1, parity=True)
    config = ThrottleConfig.stability_margin(
        elements=np.array(2), lanes=np.uint8(2), eta=np.float32(0.125), chi=np.array(1.5, np.float16), delay=np.int64(1),
        parity=np.True_,
    )  # fmt: skip
    assert config == plain and type(config.elements) is int and config.parity is True
    assert whole("seed", np.array(3, np.uint64), 0) == 3 and switch("on", np.array(False)) is False
    assert Law(eta=np.array(0.1, np.float32)).eta == 0.1 and Momentum(np.float32(0.9)).mu == 0.9  # type: ignore[arg-type]
    for bad in (2.0, np.float64(2), np.True_, "2", np.array([2])):
        with pytest.raises(ValueError, match=r"^elements must be an integer from 1 to 4294967296, not "):
            ThrottleConfig(elements=bad, eta=0.1)  # type: ignore[arg-type]


def codes_of(unit: Callable[..., Any], weights: Any, gradient: Any, **how: Any) -> list[float]:
    config = ThrottleConfig.stability_margin(elements=2, eta=0.25)
    made = unit(config, weights, **how)
    made.step(gradient, **how)
    return np.asarray(made.weights).tolist()


def sharded(config: ThrottleConfig, weights: Any, **how: Any) -> ShardedThrottle:
    return ShardedThrottle(config, weights, [1, 1], **how)


@pytest.mark.parametrize("unit", [Throttle, sharded, FloatThrottle])
def test_one_rule_tells_codes_from_values(unit: Callable[..., Any]) -> None:
    """The storage's own integers are codes, and so is what is said to be; every other tensor has the values that it shows."""
    by_value = codes_of(unit, [0.5, -1.0], [1.0, 2.0])
    assert by_value == [0.25, -1.5]
    for kind in (list, np.int32, np.int64, np.uint8, np.float16, np.float32, ml_dtypes.bfloat16, ml_dtypes.int4):
        made = [1, 2] if kind is list else np.array([1, 2]).astype(kind)
        assert codes_of(unit, np.array([0.5, -1], np.float16), made) == by_value
    stored = np.array([4096, 8192], np.int16)
    start = np.array([8192, -16384], np.int16)
    assert codes_of(unit, start, stored) == by_value
    assert codes_of(unit, start.tolist(), stored.astype(np.int64), codes=True) == by_value
    with pytest.raises(ValueError, match=exactly("weights must hold integers where codes = True, not float64")):
        codes_of(unit, [0.5, -1.0], stored, codes=True)
    assert codes_of(unit, np.array([0, 1], np.int16), np.array([1, 2], np.int16), codes=False) == [-0.25, 0.5]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            np.ma.array([0.5, 0.25], mask=[0, 1]),
            "weights must have no mask, not MaskedArray: fill it, or take the rows without one",
        ),
        (np.ma.array([0.5, 0.25]), "weights must have no mask, not MaskedArray: fill it, or take the rows without one"),
        ([np.ma.array([0.5]), [0.25]], "weights must have no mask, not list: fill it, or take the rows without one"),
        ([0.5j, 0], "weights must hold integers or floats, not complex128"),
        ([None, 0], "weights must hold integers or floats, not object"),
        (np.array(["2026-01-01"], "datetime64[D]"), "weights must hold integers or floats, not datetime64[D]"),
        (np.zeros(2, [("a", float)]), "weights must hold integers or floats, not [('a', '<f8')]"),
        ([[0.5], [0.5, 0.25]], None),
    ],
)
def test_what_holds_no_numbers_is_refused_by_name(tensor: Any, message: str | None) -> None:
    for take in (on_grid, lambda t, _, name: FloatThrottle(ThrottleConfig(elements=2, eta=1), t)):
        with pytest.raises(ValueError, match=exactly(message) if message else r"^weights must hold numbers: "):
            take(tensor, SQ2_14, "weights")


def test_values_of_integers_are_exact() -> None:
    assert on_grid([1, -2], SQ2_14).tolist() == [1 << 14, -2 << 14]
    assert on_grid([48, -16], Fixed.parse("SQ20.-4")).tolist() == [3, -1]
    with pytest.raises(ValueError, match=exactly("tensor[1] must lie on the grid of SQ20.-4, not 8")):
        on_grid([16, 8], Fixed.parse("SQ20.-4"))
    with pytest.raises(ValueError, match=exactly("tensor[0] must be from -2.0 to 1.99993896484375 for SQ2.14, not 2")):
        on_grid(np.array([2], np.uint64), SQ2_14)
    fine = np.array([0.5], np.longdouble) + np.longdouble(2) ** -60
    if np.finfo(np.longdouble).nmant > 60:  # a float64 would hide what is off the grid
        with pytest.raises(ValueError, match=r"must lie on the grid of SQ4.12"):
            on_grid(fine, SQ4_12)


def test_data_of_every_kind_is_taken_and_masks_are_not() -> None:
    for kind in (bool, np.int8, np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2):
        assert matrix("X", np.eye(2).astype(kind), 2, np.float32).tolist() == [[1, 0], [0, 1]]
    assert matrix("X", pd.DataFrame({"a": [1.0], "b": [2.0]}), 2, np.float64).tolist() == [[1, 2]]  # has a method called mask
    with pytest.raises(ValueError, match=r"^X must have no mask, not MaskedArray"):
        matrix("X", np.ma.array([[1.0, 2.0]], mask=[[0, 1]]), 2, np.float64)


def test_bytes_in_either_order_are_codes() -> None:
    """As files bring them: an int16 is one whichever byte comes first."""
    config = ThrottleConfig.stability_margin(elements=3, eta=0.5)
    codes = np.array([1, 0, -1], np.int16)
    for unit in (Throttle, FloatThrottle):
        one, other = (unit(config, np.zeros(3)).step(array) for array in (codes, codes.astype(codes.dtype.newbyteorder())))
        np.testing.assert_array_equal(one.update, other.update)
        assert one.registers == other.registers


@pytest.mark.parametrize("unit", [Throttle, FloatThrottle])
def test_what_only_looks_like_codes_or_numbers(unit: Any) -> None:
    made = unit(ThrottleConfig.stability_margin(elements=3, eta=0.5), np.zeros(3))
    for given in ([True, 0, 0], [np.True_, 0.5, 0], (0, 1, False)):
        with pytest.raises(ValueError, match=exactly("gradient must hold integers or floats, not truth values among them")):
            made.step(given)
    for codes in ("no", "yes", 1, 0):
        with pytest.raises(ValueError, match=f"^codes must be True, False or None, not {codes!r}"):
            made.step(np.zeros(3, np.int64), codes=codes)


@pytest.mark.parametrize("unit", [Throttle, FloatThrottle])
def test_a_direction_with_a_grid_must_be_given(unit: Any) -> None:
    made = unit(ThrottleConfig.stability_margin(elements=3, eta=0.5, direction="SQ2.6"), np.zeros(3))
    with pytest.raises(ValueError, match=r"^direction must be given to a unit that has a grid for it, SQ2\.6"):
        made.step(np.ones(3))
    assert made.step(np.ones(3), np.full(3, 0.5)).weights.tolist() == [-0.25] * 3


@pytest.mark.parametrize("unit", [Throttle, FloatThrottle, RtlThrottle, lambda c, w: ShardedThrottle(c, w, [2, 1])])
def test_a_table_is_no_configuration(unit: Any) -> None:
    with pytest.raises(ValueError, match=r"^config must be a ThrottleConfig, not \{'elements': 3\}; ThrottleConfig.from_table"):
        unit({"elements": 3}, np.zeros(3))
