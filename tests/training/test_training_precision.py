"""Formats by layer and field, and how tensors enter them, against exact rationals."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.formats import Fixed, Overflow, Rounding
from kappa_rtl.golden.network.precision import PrecisionDict, ensure_precision_dict, quantize_tensor, rail_stats
from kappa_rtl.golden.network.quantisers import LayerQuantiser, exact_product
from support import spec

MODES = list(itertools.product([mode for mode in Rounding if mode is not Rounding.STOCHASTIC], Overflow))


@pytest.mark.parametrize(("rounding", "overflow"), MODES)
def test_tensors_against_the_oracle(rounding: Rounding, overflow: Overflow) -> None:
    """Every eighth of an ulp over four times the range, ties and both rails included, signed and unsigned."""
    for signed in (True, False):
        fmt = Fixed(signed, 2, 1, rounding, overflow)
        values = [Fraction(n, 16) for n in range(-16 * 9, 16 * 9)]
        got = quantize_tensor(np.array(values, np.float64), fmt)
        want = [spec.quantise(value, fmt) * spec.power_of_two(-1) for value in values]
        assert [Fraction(x) for x in got.tolist()] == want


def test_dtype_and_shape_stay() -> None:
    fmt = Fixed.parse("SQ4.12")
    for dtype in (np.float32, np.float64):
        assert quantize_tensor(np.full((2, 3), 0.3, dtype), fmt).dtype == dtype
    tensor = np.array([0.3])
    assert quantize_tensor(tensor, None) is tensor
    assert tensor[0] == 0.3


def test_what_is_not_finite() -> None:
    got = quantize_tensor(np.array([np.nan, np.inf, -np.inf]), Fixed.parse("SQ2.2"))
    assert np.isnan(got[0]) and got[1:].tolist() == [1.75, -2.0]


def exactly(x: np.ndarray[Any, Any], kernel: np.ndarray[Any, Any], fmt: Fixed, *, each: bool = False) -> list[list[Fraction]]:
    """The product in rationals."""
    made = []
    for row in x.tolist():
        line = []
        for column in kernel.T.tolist():
            total = Fraction(0)
            low, high = (rail * fmt.ulp for rail in fmt.rails)
            for a, b in zip(row, column, strict=True):
                total += Fraction(a) * Fraction(b)
                if each:
                    total = min(max(total, low), high)
            line.append(spec.quantise(total, fmt) * fmt.ulp)
        made.append(line)
    return made


@pytest.mark.parametrize(
    ("source", "weight", "accumulator"),
    [
        ("SQ4.12", "SQ4.12", "SQ8.16"),
        ("SQ2.6", "SQ2.6", "SQ3.9"),
        ("UQ0.24", "SQ1.23", "SQ8.24"),
        ("SQ8.24", "SQ8.24", "SQ16.32"),
        ("SQ8.24", "SQ8.24", "SQ4.12,nearest_up,wrap"),
        ("SQ4.28", "SQ20.12", "SQ12.2,toward_zero,saturate"),
        ("SQ16.24", "SQ8.24", "SQ16.32,floor,saturate"),
    ],
)
def test_products_are_exact_before_they_are_rounded(source: str, weight: str, accumulator: str) -> None:
    """On BLAS as it is, on limbs in int64, and beyond 64 bits: full-scale codes, so that sums are as large as they get."""
    rng = np.random.default_rng(1)
    s, w, a = (Fixed.parse(text) for text in (source, weight, accumulator))
    for scale in (1.0, 2.0**-8):
        x = quantize_tensor(rng.uniform(*(float(rail * s.ulp) for rail in s.rails), (5, 37)) * scale, s)
        kernel = quantize_tensor(rng.uniform(*(float(rail * w.ulp) for rail in w.rails), (37, 4)) * scale, w)
        x[0], kernel[:, 0] = float(s.rails[1] * s.ulp), float(w.rails[0] * w.ulp)
        got = exact_product(x, kernel, s, w, a)
        assert [[Fraction(v) for v in row] for row in got.tolist()] == exactly(x, kernel, a)


def test_a_float32_tensor_is_multiplied_exactly_too() -> None:
    rng = np.random.default_rng(2)
    s = w = Fixed.parse("SQ4.12")
    a = Fixed.parse("SQ8.16")
    x, kernel = (quantize_tensor(rng.normal(size=shape), s).astype(np.float32) for shape in ((6, 50), (50, 3)))
    got = exact_product(x, kernel, s, w, a)
    assert got.dtype == np.float32
    assert [[Fraction(v) for v in row] for row in got.tolist()] == exactly(x.astype(float), kernel.astype(float), a)


def test_accumulating_each_saturates_on_the_way() -> None:
    precision = PrecisionDict({"d": {"weight": "Q2.2", "accumulator": "Q3.3"}}, accumulate="each")
    x, kernel = np.array([[1.0, 1.0, 1.0, 1.0]]), np.array([[1.75], [1.75], [1.75], [-2.0]])
    quantiser = LayerQuantiser(precision, "d", Fixed.parse("SQ3.2"))
    assert quantiser.product(x, kernel).tolist() == [[1.875]]
    final = PrecisionDict({"d": {"weight": "Q2.2", "accumulator": "Q3.3"}})
    assert LayerQuantiser(final, "d", Fixed.parse("SQ3.2")).product(x, kernel).tolist() == [[3.25]]
    rng = np.random.default_rng(3)
    fmt = Fixed.parse("SQ3.3")
    x = quantize_tensor(rng.normal(size=(9, 20)) * 2, Fixed.parse("SQ3.2"))
    kernel = quantize_tensor(rng.normal(size=(20, 7)) * 2, Fixed.parse("SQ2.2"))
    got = quantiser.product(x, kernel)
    assert [[Fraction(v) for v in row] for row in got.tolist()] == exactly(x, kernel, fmt, each=True)
    assert (got != LayerQuantiser(final, "d", Fixed.parse("SQ3.2")).product(x, kernel)).any()


def test_lookup_and_notations() -> None:
    precision = ensure_precision_dict(
        {
            "dense0": {"weight": "Q2.6", "bias": None},
            "input": {"value": "ap_fixed<12,4,AP_RND,AP_SAT>"},
            "__default__": {"weight": "SQ4.12", "bias": "Q4.12", "value": "Q0.8"},
        }
    )
    assert precision is not None and ensure_precision_dict(precision) is precision and ensure_precision_dict(None) is None
    assert str(precision.dtype("dense0", "weight")) == "SQ2.6"
    assert precision.dtype("dense0", "bias") is None, "an explicit None is float"
    assert str(precision.dtype("dense7", "bias")) == "SQ4.12"
    assert precision.dtype("dense0", "gradient") is None
    assert str(precision.dtype("input", "value")) == "SQ4.8,nearest_up,saturate"
    assert str(precision.dtype("loss", "value")) == "SQ0.8"
    hls = PrecisionDict({"a": {"weight": "ap_fixed<8,2>"}}).dtype("a", "weight")
    assert hls is not None and (hls.rounding, hls.overflow) == (Rounding.FLOOR, Overflow.WRAP)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"dense0": {"wait": "Q2.6"}}, r"precision of dense0.wait: the field must be one of weight, bias, .*, not 'wait'"),
        ({"input": {"weight": "Q2.6"}}, r"precision of input.weight: the field must be one of value, not 'weight'"),
        ({"dense0": {"weight": "2.6"}}, r"precision of dense0.weight: format must read like .* not '2.6'"),
        ({"dense0": {"weight": 8}}, r"precision of dense0.weight must be a format or None, not 8"),
        ({"dense0": "Q2.6"}, r"precision of dense0 must map fields to formats, not 'Q2.6'"),
        ({"dense0": {"weight": "Q40.40"}}, r"precision of dense0.weight must have at most 48 bits, not 80"),
        ({"dense0": {"weight": "Q4.12,stochastic"}}, r"precision of dense0.weight: rounding must be deterministic"),
        ("Q4.12", r"precision_dict must be None, a mapping or a PrecisionDict, not 'Q4.12'"),
    ],
)
def test_what_is_wrong_is_named(table: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ensure_precision_dict(table)


def test_a_table_and_its_fields() -> None:
    with pytest.raises(ValueError, match="accumulate must be one of final, each, not 'late'"):
        PrecisionDict({}, accumulate="late")
    with pytest.raises(ValueError, match=r"precision must map layers to fields, not \['dense0'\]"):
        PrecisionDict(["dense0"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"field must be one of .*, not 'wait'"):
        PrecisionDict({}).dtype("dense0", "wait")


def test_names_must_be_of_the_model() -> None:
    precision = PrecisionDict({"dense1": {"weight": "Q2.6"}})
    precision.validate(["dense0", "dense1"])
    with pytest.raises(ValueError, match=r"precision names must be layers of the model \(dense0\), not 'dense1'"):
        precision.validate(["dense0"])
    with pytest.raises(ValueError, match=r"layer names must not be input, loss, __default__.*; not 'loss'"):
        precision.validate(["dense1", "loss"])


def test_rail_stats() -> None:
    fmt = Fixed.parse("SQ2.2")  # -2 .. 1.75, near a rail from 1.9 on
    tensor = np.array([-2.0, -1.9, 1.75, 1.8, 0.0, 0.125, 0.12, -0.1])
    assert rail_stats(tensor, fmt) == (3 / 8, 2 / 8, 2 / 8)
    assert rail_stats(tensor, None) == (0, 0, 0)
