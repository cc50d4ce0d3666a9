"""Recorded reference runs through the loop; ``tests/vectors/README.md`` tells what the files hold."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.network.quantisers import Segment
from kappa_rtl.golden.training import instrumented, published
from kappa_rtl.golden.training.published import PublishedThrottle
from support import replay

VECTORS = Path(__file__).parent / "vectors"
CASES = (1, 3, 5, 6, 7)

RELATIVE = {1: 1e-8, 3: 2e-6, 5: 1e-10, 6: 1e-10, 7: 1e-10}
ABSOLUTE = {"update_angle_rad": 1e-5, "update_cosine": 1e-9, "weight_error_fro": 1e-12, "weight_error_fro_after": 1e-12}
BIT_FOR_BIT = (5, 6)
AGAINST_THE_GRID = ("raw_update_norm", "update_cosine", "update_angle_rad", "update_radius_ratio")
"""Recorded against the gradient on its grid (case 5); here the intended update is that of the gradient itself."""

FLAGS = ("finite", "diverged", "held", "dtheta_zero")

Case = dict[str, Any]
Expected = dict[str, np.ndarray[Any, Any]]


def load(number: int) -> tuple[Case, Expected]:
    """A case as :func:`replay.run` takes it, and what was recorded."""
    with np.load(VECTORS / f"case{number}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    case: Case = {name: arrays.get(name) for name in ("X", "Y", "batches", "x_scale", "y_scale", "reference_A")}
    case["cfg"] = json.loads(str(arrays["cfg_json"]))
    case["weights"] = {name[3:].replace("__", "/"): array for name, array in arrays.items() if name.startswith("w__")}
    return case, {name[2:]: array for name, array in arrays.items() if name.startswith("h_")}


def tolerance(number: int, name: str, want: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | float:
    """How far each value may be off."""
    if name in FLAGS or (name == "theta_hist" and number in BIT_FOR_BIT):
        return 0.0
    if "_fraction_" in name:
        return 1e-12
    size = np.abs(want)
    if want.ndim == 2:  # a vector a step: its components against its largest
        size = np.broadcast_to(size.max(axis=1, keepdims=True), size.shape)
    return RELATIVE[number] * size + ABSOLUTE.get(name, 1e-300)


def complaints(number: int, got: Mapping[str, Any], want: Expected) -> list[str]:
    """What of a run is not as recorded."""
    found = []
    for name, recorded in want.items():
        if name.startswith("tie_"):
            continue
        if name not in got:
            found.append(f"{name} is missing")
            continue
        made, recorded = np.asarray(got[name], np.float64), np.asarray(recorded, np.float64)
        if made.shape != recorded.shape:
            found.append(f"{name} has shape {made.shape}, not {recorded.shape}")
            continue
        with np.errstate(invalid="ignore"):
            near = np.abs(made - recorded) <= tolerance(number, name, recorded)
        good = near | (made == recorded) | (np.isnan(made) & np.isnan(recorded))
        if not good.all():
            at = int(np.argwhere(~good)[0][0]) if good.ndim else 0
            found.append(f"{name} differs from step {at} on: {made[at]} for {recorded[at]}")
    return found


@pytest.mark.parametrize("number", CASES)
def test_case(number: int) -> None:
    case, want = load(number)
    measured = {name: array for name, array in want.items() if not (number == 5 and name in AGAINST_THE_GRID)}
    assert complaints(number, replay.run(case), measured) == []


def test_all_files_are_compared() -> None:
    assert sorted(path.name for path in VECTORS.glob("*.npz")) == [f"case{number}.npz" for number in CASES]


# ---------------------------------------------------------------- mutants


def as_recorded(want: Expected) -> Expected:
    return {name: np.array(array, np.float64) for name, array in want.items()}


def test_the_recorded_run_itself_passes() -> None:
    for number in CASES:
        _, want = load(number)
        assert complaints(number, as_recorded(want), want) == []


@pytest.mark.parametrize("number", BIT_FOR_BIT)
def test_the_last_bit_of_one_weight_is_seen(number: int) -> None:
    _, want = load(number)
    got = as_recorded(want)
    got["theta_hist"][40, 3] = np.nextafter(got["theta_hist"][40, 3], np.inf)
    assert complaints(number, got, want) == [
        f"theta_hist differs from step 40 on: {got['theta_hist'][40]} for {want['theta_hist'][40]}"
    ]


@pytest.mark.parametrize("number", CASES)
def test_every_name_is_compared(number: int) -> None:
    """A value changed in its sixth digit, a missing name, a wrong length: each is told of that name, and of no other."""
    _, want = load(number)
    for name in want:
        if name.startswith("tie_"):
            continue
        got = as_recorded(want)
        finite = np.flatnonzero(np.isfinite(got[name]))
        if name not in ABSOLUTE and finite.size:
            got[name].flat[finite[-1]] = got[name].flat[finite[-1]] * (1 + 1e-5) + 1e-5
            assert [text.split()[0] for text in complaints(number, got, want)] == [name]
        got[name] = got[name][:-1]
        assert [text.split()[0] for text in complaints(number, got, want)] == [name]
        del got[name]
        assert complaints(number, got, want) == [f"{name} is missing"]


def mutant(number: int, change: Callable[[Case], None]) -> list[str]:
    case, want = load(number)
    case = copy.deepcopy(case)
    change(case)
    return complaints(number, replay.run(case), want)


def test_a_bit_of_an_initial_weight() -> None:
    def change(case: Case) -> None:
        kernel = case["weights"]["dense0/kernel"]
        kernel.view(np.int64)[0, 0] ^= 1 << 40

    for number in CASES:
        assert mutant(number, change)


def test_another_rounding() -> None:
    """Half up in place of half even: case 5 has ties."""

    def change(case: Case) -> None:
        for fields in case["cfg"]["precision"].values():
            for name, fmt in fields.items():
                fields[name] = fmt.replace("Q", "SQ") + ",nearest_up"

    assert any("theta_hist" in text for text in mutant(5, change))


def test_storage_before_the_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old weights rounded and then updated, not the new ones rounded.

    Case 6 without its update format has the same weights, which the first assertion is for: its two grids are one.
    """
    case, want = load(6)
    del case["cfg"]["precision"]["dense0"]["update"]
    assert [text.split()[0] for text in complaints(6, replay.run(case), want)] == ["update_underflow_fraction_max"]
    step = PublishedThrottle.step

    def early(self: PublishedThrottle, gradient: Any, direction: Any = None) -> Any:
        (segment,) = self._segments
        self._theta = published.quantize_tensor(self._theta, segment.weight)
        self._segments = (Segment(segment.size, segment.update, None),)
        record = step(self, gradient, direction)
        self._segments = (segment,)
        return record

    monkeypatch.setattr(PublishedThrottle, "step", early)
    assert any("theta_hist" in text for text in complaints(6, replay.run(case), want))


def test_alpha_after_the_update_is_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ``eta * g`` meets the update grid, and alpha scales what is left of it."""
    step, rounded = PublishedThrottle.step, published.quantize_tensor

    def late(self: PublishedThrottle, gradient: Any, direction: Any = None) -> Any:
        def unscaled(tensor: Any, fmt: Any) -> Any:
            alpha = self.controller.law_alpha if fmt is self._segments[0].update else 1.0  # type: ignore[attr-defined]
            return rounded(tensor / alpha, fmt) * alpha

        monkeypatch.setattr(published, "quantize_tensor", unscaled)
        return step(self, gradient, direction)

    law = published.Controller.step

    def remember(self: Any, change: float, motion: float) -> float:
        self.law_alpha = law(self, change, motion)
        return float(self.law_alpha)

    monkeypatch.setattr(published.Controller, "step", remember)
    monkeypatch.setattr(PublishedThrottle, "step", late)
    case, want = load(5)
    case["cfg"]["precision"]["dense0"]["weight"] = "Q4.12"
    case["cfg"]["precision"]["dense0"]["update"] = "SQ4.12"  # equal, and not the same object
    assert any("theta_hist" in text for text in complaints(5, replay.run(case), want))


def test_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    """alpha a hundred-thousandth too large wherever it is below 1."""
    step = published.Controller.step

    def larger(self: Any, change: float, motion: float) -> float:
        alpha = step(self, change, motion)
        return alpha * (1 + 1e-5) if alpha < 1 else alpha

    monkeypatch.setattr(published.Controller, "step", larger)
    for number in (1, 3, 5, 6, 7):
        case, want = load(number)
        assert any(text.startswith("alpha_would ") for text in complaints(number, replay.run(case), want))


def test_the_average_without_its_first_zero() -> None:
    assert any("curvature_ema" in text for text in mutant(7, lambda case: case["cfg"].update(ema_init="first")))


def test_scales() -> None:
    for number, name in ((1, "x_scale"), (3, "x_scale"), (6, "y_scale"), (7, "y_scale")):
        case, _ = load(number)
        if np.all(case[name] == 1):
            continue
        assert mutant(number, lambda case, name=name: case.pop(name))  # type: ignore[misc]


def test_the_unthrottled_step() -> None:
    assert mutant(7, lambda case: case["cfg"].update(use_controller=False))


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"zero_dtheta": "skip"}, r"zero_dtheta must be one of spec, hold, floor, not 'skip'"),
        ({"ema_init": "last"}, r"ema_start must be one of zero, first, not 'last'"),
        ({"loss_mode": "mse"}, r"loss_mode must be one of half_mse, keras_mse, softmax_cross_entropy, not 'mse'"),
        ({"dtype": "float16"}, r"dtype must be float32 or float64, not float16"),
    ],
)
def test_errors(changes: dict[str, Any], text: str) -> None:
    case, _ = load(7)
    case["cfg"] |= changes
    with pytest.raises(ValueError, match=text):
        replay.run(case)


def test_what_a_case_says_beside_the_settings_is_told_and_left() -> None:
    case, _ = load(7)
    case["cfg"] |= {"learning_rat": 0.1}
    with pytest.warns(instrumented.TrainingWarning, match="does not know: learning_rat"):
        replay.run(case)


def test_the_arrays_are_left_alone() -> None:
    case, _ = load(6)
    before = copy.deepcopy(case)
    replay.run(case)
    for name in ("X", "Y", "batches", "x_scale"):
        np.testing.assert_array_equal(case[name], before[name])
    np.testing.assert_array_equal(case["weights"]["dense0/kernel"], before["weights"]["dense0/kernel"])
    assert case["cfg"] == before["cfg"]


def test_the_loop_is_the_one_that_users_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a second implementation beside it."""
    calls = []
    step = instrumented.MeasuredLoop.step
    monkeypatch.setattr(instrumented.MeasuredLoop, "step", lambda self, *args: calls.append(1) or step(self, *args))
    case, _ = load(6)
    replay.run(case)
    assert len(calls) == len(case["batches"])
