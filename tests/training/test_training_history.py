"""Histories of training runs: access, files, pictures."""

from __future__ import annotations

import copy
import csv
import enum
import io
import json
import math
import pickle
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.training.history import EXTRAS, KEYS, PUBLISHED, FitHistory

INF, NAN = math.inf, math.nan


def odd() -> FitHistory:
    """All that is awkward in files."""
    return FitHistory(
        {"loss": [1.0, INF, NAN], "file": [-INF, -0.0, 5e-324], "a.npy": [1, 2, 3], 'päron, "x"': [0.1, 1 / 3, 1.7e308]},
        layers={"dense0": {"loss": [1, 2, 3]}, "block/dense1": {"alpha": [NAN, 0, 1]}, "still": {}},
        meta={"chi": 1.5, "warnings": ["noise"], "limit": INF, "none": None, "nested": {"on": True, "shape": (2, 3)}},
    )


def drift(steps: int = 60, *, diverges: bool = False) -> FitHistory:
    """A run through a drift of the inputs, by its formulas alone."""
    t = np.arange(steps, dtype=np.float64)
    margin = 0.54 * np.clip(1 + (t - 20) / 10, 1, 4) ** 2
    alpha_would = np.minimum(1, 1.5 / margin)
    alpha = np.ones(steps) if diverges else alpha_would
    angle = 0.2 * np.abs(np.sin(t))
    with np.errstate(over="ignore"):
        loss = np.exp(np.cumsum(np.where(alpha * margin > 2, 30.0, -0.5)))
    columns: dict[str, Any] = {
        "loss": loss,
        "stability_margin_lambda_raw": margin,
        "stability_margin_lambda_ctrl": alpha * margin,
        "alpha": alpha,
        "alpha_would": alpha_would,
        "curvature_proxy": np.where(t > 0, margin / 0.5, 0),
        "curvature_ema": np.where(t > 0, margin / 0.6, 0),
        "curvature_for_control": np.where(t > 0, margin / 0.5, 0),
        "update_cosine": np.cos(angle),
        "update_angle_rad": angle,
        "update_radius_ratio": 1 + 0.3 * np.cos(t),
        "weight_saturation_fraction_max": np.zeros(steps),
        "update_underflow_fraction_max": t / steps,
        "diverged": ~np.isfinite(loss),
    }
    last = steps if np.isfinite(loss).all() else int(np.argmax(~np.isfinite(loss))) + 1
    return FitHistory({name: array[:last] for name, array in columns.items()})


# ---------------------------------------------------------------- what it holds


def test_access() -> None:
    history = FitHistory(
        {"loss": [3, 2, 1]}, layers={"dense0": {"angle": [0, 0, 1]}}, meta={"chi": 1.5}, alpha=np.ones(3, np.float32)
    )
    assert history.steps == 3
    assert list(history) == ["loss", "alpha"]
    assert len(history) == 2
    assert "alpha" in history and "beta" not in history
    assert history.loss is history["loss"]
    assert {array.dtype for array in (*history.values(), history.layers["dense0"]["angle"])} == {np.dtype(np.float64)}
    assert history.meta == {"chi": 1.5}
    assert "alpha" in dir(history) and "save" in dir(history)
    assert repr(history) == "<FitHistory: 3 steps, 2 columns, 1 layers>"
    with pytest.raises(AttributeError, match="FitHistory has no attribute and no column 'beta'"):
        _ = history.beta
    with pytest.raises(KeyError):
        history["beta"]
    assert history.get("beta") is None
    assert not hasattr(history, "beta")


def test_methods_win_over_columns() -> None:
    history = FitHistory(steps=[5, 6], save=[1, 2])
    assert history.steps == 2
    assert history["steps"].tolist() == [5, 6]
    assert callable(history.save)


def test_arrays_are_read_only_copies() -> None:
    given_array = np.ones(2)
    history = FitHistory(loss=given_array)
    given_array[0] = 7
    assert history.loss.tolist() == [1, 1]
    with pytest.raises(ValueError, match="read-only"):
        history.loss[0] = 2


def test_empty() -> None:
    history = FitHistory()
    assert (history.steps, len(history), history.layers, history.meta, history.diverged_at) == (0, 0, {}, {}, None)
    assert FitHistory(loss=[]).steps == 0
    assert FitHistory(loss=[]).diverged_at is None
    assert FitHistory(layers={"dense0": {"loss": [1, 2]}}).steps == 2


def test_equality() -> None:
    assert odd() == odd()
    assert odd() != FitHistory({**odd(), "loss": [1.0, INF, 0.0]}, layers=odd().layers, meta=odd().meta)
    assert odd() != FitHistory(odd(), layers=odd().layers)
    assert odd() != FitHistory(odd(), layers={**odd().layers, "still": {"x": [1, 2, 3]}}, meta=odd().meta)
    assert odd() != FitHistory(odd(), layers={"dense0": odd().layers["dense0"]}, meta=odd().meta)
    assert FitHistory() != {}
    assert FitHistory(layers={"a": {}}) != FitHistory()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda history: pickle.loads(pickle.dumps(history))])
def test_copies(copied: Any) -> None:
    assert copied(odd()) == odd()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": {"loss": [1]}, "loss": [1]}, "columns must name each array once, not 'loss' twice"),
        ({"loss": [1, 2], "alpha": [1]}, "alpha must have 2 rows as the others have, not 1"),
        ({"loss": [1, 2], "layers": {"dense0": {"x": [1]}}}, "dense0/x must have 2 rows as the others have, not 1"),
        ({"loss": 1.0}, r"loss must have shape \(steps,\), not \(\)"),
        ({"loss": [[1.0]]}, r"loss must have shape \(steps,\), not \(1, 1\)"),
        ({"loss": ["1"]}, "loss must be numbers, not <U1"),
        ({"loss": [None]}, "loss must be numbers, not object"),
        ({"loss": [1j]}, "loss must be numbers, not complex128"),
        ({"columns": {"a/b": [1]}}, "column must be named by a string that is not empty and has no '/', not 'a/b'"),
        ({"columns": {"": [1]}}, "column must be named by .*, not ''"),
        ({"columns": {"__history__": [1]}}, "column must be named by"),
        ({"columns": {1: [1]}}, "column must be named by .*, not 1"),
        ({"layers": {"": {}}}, "layer must be named by a string that is not empty, not ''"),
        ({"layers": {"dense0": {"a/b": [1]}}}, "metric must be named by .*, not 'a/b'"),
        ({"meta": {1: 2}}, "meta must have strings for keys, not 1"),
        ({"meta": {"a": [0, {"b": object()}]}}, r"meta\['a'\]\[1\]\['b'\] must be what JSON can say, not object"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FitHistory(**arguments)


def test_meta_becomes_plain() -> None:
    class Law(enum.StrEnum):
        CHI = "chi"

    meta = FitHistory(
        meta={"law": Law.CHI, "n": np.int64(3), "x": np.float32(0.5), "on": np.True_, "v": np.array([1.0, NAN]), "t": (1, -INF)}
    ).meta
    assert meta == {"law": "chi", "n": 3, "x": 0.5, "on": True, "v": [1.0, "NaN"], "t": [1, "-Infinity"]}
    assert [type(value) for value in meta.values()] == [str, int, float, bool, list, list]


@pytest.mark.parametrize(
    ("columns", "step"),
    [
        ({"loss": [1, NAN, 1]}, 1),
        ({"loss": [1, 2, INF]}, 2),
        ({"loss": [1, 2, 3]}, None),
        ({"loss": [1, NAN, 1], "diverged": [0, 0, 1]}, 2),
        ({"loss": [1, NAN, 1], "diverged": [0, 0, 0]}, None),
        ({"diverged": [0, NAN, 1]}, 1),
        ({"alpha": [NAN]}, None),
    ],
)
def test_diverged_at(columns: dict[str, list[float]], step: int | None) -> None:
    history = FitHistory(columns)
    assert history.diverged_at == step
    assert repr(history).endswith(">" if step is None else f", diverged at step {step}>")


def test_keys() -> None:
    assert len(PUBLISHED) == 37
    assert not set(PUBLISHED) & set(EXTRAS)
    assert set(KEYS) == set(PUBLISHED) | set(EXTRAS)
    assert {"unthrottled_update_norm", "noise_index"} <= set(EXTRAS)
    for name, definition in KEYS.items():
        assert name.isidentifier()
        assert definition and "\n" not in definition and not definition.endswith(".")
        assert not hasattr(FitHistory, name)  # each is an attribute


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("name", ["h.npz", "h.json", "h.NPZ", "h.Json"])
def test_files_round_trip(tmp_path: Path, name: str) -> None:
    for history in (odd(), FitHistory(), FitHistory(loss=[]), drift(diverges=True)):
        path = history.save(tmp_path / name)
        back = FitHistory.load(str(path))
        assert back == history
        assert list(back) == list(history)
        assert list(back.layers) == list(history.layers)
        for column, array in history.items():  # to the bit: the sign of a zero too
            np.testing.assert_array_equal(np.signbit(back[column]), np.signbit(array))
        assert [file.name for file in tmp_path.iterdir()] == [name]
        first = path.read_bytes()
        assert back.save(path).read_bytes() == first


@settings(max_examples=20)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda s: "/" not in s and s.isprintable()),
        st.lists(st.floats(), min_size=2, max_size=2),
        max_size=3,
    )
)
def test_files_round_trip_any(columns: dict[str, list[float]]) -> None:
    import tempfile

    history = FitHistory(columns, layers={"a/b": columns})
    with tempfile.TemporaryDirectory() as folder:
        for name in ("h.npz", "h.json"):
            assert FitHistory.load(history.save(Path(folder, name))) == history


def test_npz_is_numpys(tmp_path: Path) -> None:
    with np.load(odd().save(tmp_path / "h.npz"), allow_pickle=False) as data:
        np.testing.assert_array_equal(data["loss"], odd().loss)
        np.testing.assert_array_equal(data["block/dense1/alpha"], [NAN, 0, 1])


def test_json_is_strict(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(odd().save(tmp_path / "h.json").read_text("utf-8"), parse_constant=refuse)
    assert document["columns"]["loss"] == [1.0, "Infinity", "NaN"]
    assert document["columns"]["file"][0] == "-Infinity"
    assert document["layers"]["dense0"]["loss"] == [1, 2, 3]
    assert document["meta"]["limit"] == "Infinity"


def test_unknown_suffix(tmp_path: Path) -> None:
    for call in (FitHistory().save, FitHistory.load):
        with pytest.raises(ValueError, match=r"path must end in .npz or .json, not 'h.txt'"):
            call(tmp_path / "h.txt")
    with pytest.raises(FileNotFoundError):
        FitHistory.load(tmp_path / "none.npz")


def zipped(**members: np.ndarray[Any, Any]) -> bytes:
    data = io.BytesIO()
    np.savez(data, **members)  # type: ignore[arg-type]
    return data.getvalue()


def pickled() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive, archive.open("loss.npy", "w") as file:
        np.lib.format.write_array(file, np.array([None]), allow_pickle=True)
    return data.getvalue()


HEAD = '"format": "kappa_rtl.FitHistory/1"'


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("h.npz", b"", "zip"),
        ("h.npz", b"PK\x03\x04 cut", "zip"),
        ("h.npz", zipped(loss=np.ones(2)), "it has no __history__"),
        ("h.npz", zipped(__history__=np.array("{}")), "format must be 'kappa_rtl.FitHistory/1', not None"),
        ("h.npz", zipped(__history__=np.array(f'{{{HEAD}, "layers": [], "meta": {{}}}}'), **{"a/b": np.ones(1)}), "'a'"),
        ("h.npz", pickled(), "allow_pickle"),
        ("h.json", b"", "Expecting value"),
        ("h.json", b"\xff", "codec"),
        ("h.json", b"[]", "format must be 'kappa_rtl.FitHistory/1', not None"),
        ("h.json", b'{"format": "other"}', "not 'other'"),
        ("h.json", f"{{{HEAD}}}".encode(), "columns"),
        ("h.json", f'{{{HEAD}, "meta": {{}}, "layers": {{}}, "columns": {{"a": [NaN]}}}}'.encode(), "NaN is no JSON"),
        ("h.json", f'{{{HEAD}, "meta": {{}}, "layers": {{}}, "columns": {{"a": ["1"]}}}}'.encode(), "'1'"),
        ("h.json", f'{{{HEAD}, "meta": {{}}, "layers": {{}}, "columns": {{"a": [1], "b": []}}}}'.encode(), "b must have 1 rows"),
        ("h.json", f'{{{HEAD}, "meta": {{}}, "layers": [], "columns": {{}}}}'.encode(), "items"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        FitHistory.load(path)
    assert str(caught.value).startswith(f"{path} must be a history written by save")


def test_writing_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FitHistory(loss=[1]).save(tmp_path / "h.json")

    def fail(*_: object) -> None:
        raise OSError("full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="full"):
        odd().save(path)
    assert FitHistory.load(path) == FitHistory(loss=[1])
    assert list(tmp_path.iterdir()) == [path]


def test_csv(tmp_path: Path) -> None:
    path = odd().to_csv(tmp_path / "h.csv")
    rows = list(csv.reader(path.read_text("utf-8").splitlines()))
    assert rows[0] == ["step", "loss", "file", "a.npy", 'päron, "x"', "dense0/loss", "block/dense1/alpha"]
    assert rows[1] == ["0", "1.0", "-inf", "1.0", "0.1", "1.0", "nan"]
    assert rows[3] == ["2", "nan", "5e-324", "3.0", "1.7e+308", "3.0", "1.0"]
    assert len(rows) == 4
    assert [float(row[4]) for row in rows[1:]] == odd()['päron, "x"'].tolist()
    assert FitHistory(step=[7, 9]).to_csv(path).read_bytes() == b"step\n7.0\n9.0\n"
    assert FitHistory().to_csv(path).read_bytes() == b"step\n"


# ---------------------------------------------------------------- pictures


def panel(figure: Any, title: str) -> Any:
    """The axes with this title."""
    return next(ax for ax in figure.axes if ax.get_title(loc="left") == title)


def texts(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_plot_of_a_drift(tmp_path: Path) -> None:
    figure = drift().plot_results(tmp_path / "h.png", title="drift")
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")
    assert [file.name for file in tmp_path.iterdir()] == ["h.png"]
    assert figure.get_suptitle() == "drift: 60 steps"
    assert panel(figure, "Loss").get_yscale() == "log"
    margin = panel(figure, "Stability margin")
    low, high = margin.get_ylim()
    assert low < 0.54 < 8.64 < high
    assert [text.get_text() for text in margin.get_legend().get_texts()] == ["full step: η λ", "applied: α η λ", "limit: 2"]
    assert any(np.array_equal(line.get_ydata(), [2, 2]) for line in margin.lines)
    assert panel(figure, "Throttle α").get_yscale() == "linear"
    assert [text.get_text() for text in panel(figure, "Underflow").get_legend().get_texts()] == ["update: ≤ 98.3 %"]
    assert panel(figure, "Rails").get_legend().get_texts()[0].get_text() == "weight on: never"
    assert not any(texts(ax) for ax in figure.axes)


def test_plot_of_a_diverged_run() -> None:
    history = drift(diverges=True)
    assert history.diverged_at == history.steps - 1
    figure = history.plot_results()
    assert figure.get_suptitle() == f"{history.steps} steps, diverged at step {history.diverged_at}"
    loss = panel(figure, "Loss")
    line, rim = loss.lines[0], loss.lines[1]
    assert np.isfinite(line.get_ydata()).sum() == np.sum(history.loss <= 1e120)
    assert rim.get_marker() == "^"
    assert rim.get_xdata()[-1] == history.diverged_at


def test_plot_of_a_run_that_stands_still() -> None:
    n = 40
    dead = np.arange(n) > 9
    history = FitHistory(
        loss=np.where(dead, 0.5, 0.9),
        alpha=np.where(dead, 1e-11, 1),
        curvature_proxy=np.where(np.arange(n) % 2, 0, np.where(dead, 1e11, 1)),
        update_cosine=np.where(dead, 0, 1),
        update_angle_rad=np.where(dead, math.pi / 2, 0),
        update_radius_ratio=np.where(dead, 0, 1),
    )
    figure = history.plot_results()
    assert panel(figure, "Throttle α").get_yscale() == "log"
    curvature = panel(figure, "Curvature")
    assert curvature.get_yscale() == "log"
    zeros = next(line for line in curvature.lines if line.get_marker() == "v")
    np.testing.assert_array_equal(zeros.get_xdata(), np.arange(1, n, 2))


def test_plot_of_what_is_missing() -> None:
    figure = FitHistory().plot_results()
    assert sum("not recorded" in texts(ax) for ax in figure.axes) == len(figure.axes) == 10
    figure = FitHistory(loss=[NAN, NAN], diverged=[0, 1]).plot_results()
    assert texts(panel(figure, "Loss")) == ["nothing finite to draw"]


def test_norm_stands_in_for_the_eigenvalue() -> None:
    figure = FitHistory(
        stability_margin_lambda_raw=[NAN, NAN], stability_margin_norm_raw=[1, 3], stability_margin_norm_ctrl=[1, 1]
    ).plot_results()
    assert panel(figure, "Stability margin").get_legend().get_texts()[0].get_text() == "full step: η ‖H‖"


def test_a_lone_value_is_a_dot() -> None:
    figure = FitHistory(loss=[1, 2, NAN, 3, NAN]).plot_results()
    assert panel(figure, "Loss").lines[0].get_markevery() == [3]
    assert panel(FitHistory(loss=[1]).plot_results(), "Loss").lines[0].get_markevery() == [0]


def test_polar_rim() -> None:
    history = FitHistory(update_angle_rad=[0, 1, 3, NAN, 2], update_radius_ratio=[1, INF, 1e9, 1, NAN])
    ax = panel(history.plot_results(), "Update phase: angle and length ratio")
    inside, rim = ax.collections[:2]
    assert inside.get_offsets().tolist() == [[0, 1]]
    top = ax.get_ylim()[1]
    np.testing.assert_allclose(rim.get_offsets(), [[1, top], [3, top]])
    assert ax.get_thetamax() == 180


VALUES = [NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 5e-324, 1e-300, 1.7e308, -1.7e308, 1e119, 1e5, 0.3]


@pytest.mark.parametrize("steps", [1, 30])
def test_plot_copes_with_anything(steps: int) -> None:
    rng = np.random.default_rng(steps)
    FitHistory({name: rng.choice(VALUES, steps) for name in KEYS}).plot_results(title="$x_{").savefig(io.BytesIO(), dpi=30)


def test_plot_path(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"path must end in the format of a picture such as .png, not 'h'"):
        drift(3).plot_results(tmp_path / "h")
    with pytest.raises(ValueError, match="docx"):
        drift(3).plot_results(tmp_path / "h.docx")
    assert not list(tmp_path.iterdir())
    FitHistory().plot_results(tmp_path / "h.svg")
    assert b"<svg" in (tmp_path / "h.svg").read_bytes()


def test_plot_in_threads(tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda place: drift().plot_results(tmp_path / f"{place}.png"), range(2)))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_imports() -> None:
    """Neither matplotlib where nothing is drawn nor ever pyplot."""
    code = (
        "import sys; from kappa_rtl.golden.training.history import FitHistory; lazy = 'matplotlib' not in sys.modules; "
        "FitHistory(loss=[1]).plot_results(); sys.exit(not lazy or 'matplotlib.pyplot' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
