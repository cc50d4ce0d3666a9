"""What a training run leaves behind: one float a step for each metric, saved, loaded and drawn."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import secrets
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

Floats = NDArray[np.float64]

PUBLISHED: dict[str, str] = {
    "loss": "loss of the batch",
    "rmse": "sqrt(mean((yhat - y)**2)) over all entries of the batch",
    "theta_norm": "||theta||, theta all trainable variables",
    "grad_norm": "||g||, g the gradient after its quantisation",
    "raw_update_norm": "||alpha * eta * D||, the intended update; D is the optimiser's direction, g itself for plain descent",
    "actual_update_norm": "||theta after - theta before||, after quantisation of update and storage",
    "update_cosine": "cosine between applied and intended update, within [-1, 1]; 0 if either is zero",
    "update_angle_rad": "arccos(update_cosine), radians",
    "update_radius_ratio": "||applied update|| / (||intended update|| + eps); 1 is undistorted",
    "curvature_proxy": "C = ||g - previous g|| / (||theta - previous theta|| + eps); 0 at the first step",
    "curvature_ema": "S = (1 - rho) * previous S + rho * C",
    "curvature_for_control": "max(C, S)",
    "alpha": "factor applied to the step size: alpha_would, or 1 with the controller off",
    "alpha_would": "what the controller's law gives, applied or not",
    "eta_eff": "alpha * eta",
    "forward_gain_spectral": "product of the largest singular values of the Dense kernels",
    "hessian_lambda_max": "largest eigenvalue of the loss's Hessian; NaN where it is not computed",
    "hessian_lambda_min": "smallest eigenvalue of the loss's Hessian",
    "hessian_spectral_norm": "largest magnitude of an eigenvalue of the loss's Hessian",
    "stability_margin_lambda_raw": "eta * hessian_lambda_max; plain descent is unstable above 2",
    "stability_margin_lambda_ctrl": "alpha * eta * hessian_lambda_max, alpha the applied one",
    "stability_margin_norm_raw": "eta * hessian_spectral_norm",
    "stability_margin_norm_ctrl": "alpha * eta * hessian_spectral_norm",
    "spectral_radius_raw": "max over the eigenvalues of |1 - eta * lambda|; unstable above 1",
    "spectral_radius_ctrl": "max over the eigenvalues of |1 - alpha * eta * lambda|",
    "weight_error_fro": "Frobenius norm of kernel^T - reference_A; NaN without a matching reference",
    "loss_is_finite": "1 if the loss is finite, else 0",
    "grad_is_finite": "1 if all of g is finite, else 0",
    "theta_is_finite_before": "1 if all of theta is finite before the update, else 0",
    "theta_is_finite_after": "1 if all of theta is finite after the update, else 0",
    "diverged": "1 if something is not finite or the loss passes its bound, else 0; the run ends with such a row",
    "weight_saturation_fraction_max": "fraction of a variable on a rail after the update, largest over the variables",
    "weight_near_rail_fraction_max": "fraction of a variable with at least 0.95 of the larger rail's magnitude, largest",
    "gradient_saturation_fraction_max": "fraction of a quantised gradient on a rail, largest over the variables",
    "gradient_near_rail_fraction_max": "fraction of a quantised gradient near a rail, largest over the variables",
    "update_saturation_fraction_max": "fraction of an update that is at or beyond a rail before its quantisation, largest",
    "update_underflow_fraction_max": "fraction of an update that is not 0 but below half a grid step in magnitude, largest",
}
"""The published metrics. Unless told otherwise a value is the one before the step's update; norms are Euclidean."""

EXTRAS: dict[str, str] = {
    "unthrottled_update_norm": "||eta * D||, the intended update without the throttle",
    "noise_index": "C * alpha * eta / sqrt(2); about 1 where minibatch noise makes up C",
    "dG_norm": "||g - previous g||; 0 at the first step",
    "dtheta_norm": "||theta - previous theta||; 0 at the first step",
    "dtheta_zero": "1 if the update moved no variable at all, else 0",
    "held": "1 if C and S were kept because theta had not moved, else 0",
    "finite": "1 if everything in the step is finite, else 0",
    "theta_norm_after": "||theta|| after the update",
    "weight_error_fro_after": "weight_error_fro after the update",
    "autodiff_lambda_max": "largest eigenvalue of the Hessian by differentiation, through the quantisers where there are any",
    "gradient_underflow_fraction_max": "fraction of a gradient that is not 0 but below half a grid step in magnitude, largest",
}
"""Metrics beyond the published ones."""

KEYS: dict[str, str] = PUBLISHED | EXTRAS
"""Name of each metric -> its definition. A history may hold others, and need not hold these."""

_FORMAT = "kappa_rtl.FitHistory/1"
_HEADER = "__history__"  # the member of an .npz with everything that is no array
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class FitHistory(Mapping[str, Floats]):
    """The metrics of one run: ``h["loss"]`` and, where no method has the name, ``h.loss``.

    Two histories are equal if their arrays (a NaN equals a NaN), layers and meta are.

    Args:
        columns: name -> (steps,) numbers; a name has no ``/``.
        layers: layer -> metric -> (steps,) numbers.
        meta: anything JSON can say: settings, warnings. Tuples and arrays become lists, and numbers that are not finite
            the strings ``NaN``, ``Infinity`` and ``-Infinity``.
        arrays: more columns.

    Attributes:
        steps: the number of rows.
        layers: the metrics of single layers.
        meta: what was given as such.

    All arrays are float64, read-only copies.

    Raises:
        ValueError: arrays of different lengths, not of numbers or not of one axis; a bad name; meta which JSON cannot say.
    """

    steps: int
    layers: dict[str, dict[str, Floats]]
    meta: dict[str, Any]

    def __init__(
        self,
        columns: Mapping[str, ArrayLike] | None = None,
        *,
        layers: Mapping[str, Mapping[str, ArrayLike]] | None = None,
        meta: Mapping[str, Any] | None = None,
        **arrays: ArrayLike,
    ) -> None:
        columns = {} if columns is None else columns
        if twice := sorted(set(columns) & set(arrays)):
            raise ValueError(f"columns must name each array once, not {twice[0]!r} twice")
        self._columns = {_name(name, "column"): _array(value, name) for name, value in {**columns, **arrays}.items()}
        self.layers = {
            _name(layer, "layer"): {_name(name, "metric"): _array(value, f"{layer}/{name}") for name, value in metrics.items()}
            for layer, metrics in ({} if layers is None else layers).items()
        }
        self.steps = next((len(array) for _, array in self._flat()), 0)
        for name, array in self._flat():
            if len(array) != self.steps:
                raise ValueError(f"{name} must have {self.steps} rows as the others have, not {len(array)}")
        self.meta = _plain({} if meta is None else meta, "meta")

    def __getitem__(self, name: str) -> Floats:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """The number of columns; :attr:`steps` is that of the rows."""
        return len(self._columns)

    def __getattr__(self, name: str) -> Floats:
        # Through __dict__: a copy being unpickled asks for attributes before it has columns.
        columns: dict[str, Floats] = self.__dict__.get("_columns", {})
        if name in columns:
            return columns[name]
        raise AttributeError(f"{type(self).__name__} has no attribute and no column {name!r}")

    def __dir__(self) -> Iterable[str]:
        return [*super().__dir__(), *self._columns]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FitHistory):
            return NotImplemented
        mine, theirs = dict(self._flat()), dict(other._flat())
        return (
            mine.keys() == theirs.keys()
            and all(np.array_equal(array, theirs[name], equal_nan=True) for name, array in mine.items())
            and self.layers.keys() == other.layers.keys()
            and self.meta == other.meta
        )

    def __repr__(self) -> str:
        end = "" if self.diverged_at is None else f", diverged at step {self.diverged_at}"
        return f"<FitHistory: {self.steps} steps, {len(self)} columns, {len(self.layers)} layers{end}>"

    def _flat(self) -> Iterator[tuple[str, Floats]]:
        """All arrays; those of a layer as ``layer/metric``."""
        yield from self._columns.items()
        for layer, metrics in self.layers.items():
            for name, array in metrics.items():
                yield f"{layer}/{name}", array

    @property
    def diverged_at(self) -> int | None:
        """The first step with ``diverged`` set (without that column: with a loss that is not finite); None if there is none."""
        if "diverged" in self:
            bad = self["diverged"] != 0
        elif "loss" in self:
            bad = ~np.isfinite(self["loss"])
        else:
            return None
        return int(np.argmax(bad)) if bad.any() else None

    # ---- files

    @classmethod
    def join(cls, parts: Sequence[FitHistory], **columns: ArrayLike) -> FitHistory:
        """Runs one after the other as one: the columns and the layers' metrics that all have; the meta of the last.

        Args:
            columns: more columns, as long as all parts together.
        """
        common = [name for name in parts[0] if all(name in part for part in parts)]
        layers = [name for name in parts[0].layers if all(name in part.layers for part in parts)]
        return cls(
            {name: np.concatenate([part[name] for part in parts]) for name in common},
            layers={
                layer: {
                    name: np.concatenate([part.layers[layer][name] for part in parts])
                    for name in parts[0].layers[layer]
                    if all(name in part.layers[layer] for part in parts)
                }
                for layer in layers
            },
            meta=parts[-1].meta,
            **columns,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an ``.npz`` (no pickles; ``numpy.load`` gives the columns by name) or a ``.json`` (strict), all or nothing.

        Equal histories give equal bytes. JSON has the numbers that are not finite as the strings ``NaN``, ``Infinity`` and
        ``-Infinity``.

        Raises:
            ValueError: the path ends in neither.
        """
        target = Path(path)
        _write(target, self._npz() if _suffix(target) == ".npz" else self._json())
        return target

    def _npz(self) -> bytes:
        header = json.dumps({"format": _FORMAT, "layers": list(self.layers), "meta": self.meta}, allow_nan=False)
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
            # Not numpy.savez: it takes no array called "file", and writes the time of day.
            for name, array in [(_HEADER, np.array(header)), *self._flat()]:
                member = zipfile.ZipInfo(f"{name}.npy")
                member.compress_type = zipfile.ZIP_DEFLATED
                with archive.open(member, "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
        return data.getvalue()

    def _json(self) -> bytes:
        document = {
            "format": _FORMAT,
            "meta": self.meta,
            "columns": {name: _plain(array, name) for name, array in self._columns.items()},
            "layers": {
                layer: {name: _plain(array, name) for name, array in metrics.items()} for layer, metrics in self.layers.items()
            },
        }
        return (json.dumps(document, allow_nan=False, ensure_ascii=False) + "\n").encode()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FitHistory:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is no such history.
            OSError: it cannot be read.
        """
        source = Path(path)
        kind, data = _suffix(source), source.read_bytes()
        try:
            return cls(**(_read_npz(data) if kind == ".npz" else _read_json(data)))
        except (ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{source} must be a history written by save: {error}") from error

    def to_csv(self, path: str | os.PathLike[str]) -> Path:
        """Write a line a step, all or nothing: ``step`` (from 0), the columns, then ``layer/metric``; ``nan``, ``inf``, ``-inf``.

        Numbers are the shortest that read back as the same float64. A column of its own called ``step`` takes the counter's
        place.
        """
        columns: dict[str, list[Any]] = {name: array.tolist() for name, array in self._flat()}
        if "step" not in columns:
            columns = {"step": list(range(self.steps)), **columns}
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(columns)
        lines.writerows(zip(*(map(repr, column) for column in columns.values()), strict=True))
        target = Path(path)
        _write(target, text.getvalue().encode())
        return target

    # ---- picture

    def plot_results(self, path: str | os.PathLike[str] | None = None, *, title: str = "") -> Figure:
        """Draw the run: loss, stability margins, alpha, curvature, update geometry (lines and polar), rails and underflow.

        What was not recorded leaves its panel empty; what lies outside a panel (infinite, or 0 on a logarithmic axis) is a
        triangle on its edge. Nothing is shown and pyplot is not used, so that this works in any thread and without a screen.

        Args:
            path: where to save it, all or nothing; its suffix is the format (``.png``, ``.pdf``, ``.svg``).
            title: heading of the figure.

        Raises:
            ValueError: the path has no suffix, or one that is no picture's.
        """
        figure = _draw(self, title)
        if path is not None:
            target = Path(path)
            if not target.suffix:
                raise ValueError(f"path must end in the format of a picture such as .png, not {target.name!r}")
            data = io.BytesIO()
            figure.savefig(data, format=target.suffix[1:].lower())
            _write(target, data.getvalue())
        return figure


def _name(name: object, what: str) -> str:
    """A name as it may stand in files."""
    if not isinstance(name, str) or not name or name == _HEADER or (what != "layer" and "/" in name):
        rule = "a string that is not empty" + ("" if what == "layer" else " and has no '/'")
        raise ValueError(f"{what} must be named by {rule}, not {name!r}")
    return name


def _array(value: ArrayLike, name: object) -> Floats:
    """A read-only float64 copy, (steps,)."""
    given = np.asarray(value)
    if given.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers, not {given.dtype}")
    if given.ndim != 1:
        raise ValueError(f"{name} must have shape (steps,), not {given.shape}")
    array = given.astype(np.float64)
    array.flags.writeable = False
    return array


def _plain(value: Any, where: str) -> Any:
    """``value`` in JSON's own types."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # a plain one also of a subclass such as an enumeration's member
    if value is None:
        return None
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise ValueError(f"{where} must have strings for keys, not {key!r}")
        return {str(key): _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    raise ValueError(f"{where} must be what JSON can say, not {type(value).__name__}")


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".json"):
        raise ValueError(f"path must end in .npz or .json, not {path.name!r}")
    return suffix


def _write(path: Path, data: bytes) -> None:
    """Write a file whole: a reader finds the old one or the new one."""
    # Not tempfile: its files are closed to others, whatever the user's mask says.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with draft.open("xb") as file:
            file.write(data)
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _read_npz(data: bytes) -> dict[str, Any]:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    if _HEADER not in arrays:
        raise ValueError(f"it has no {_HEADER}")
    header = _checked(json.loads(str(arrays.pop(_HEADER))))
    columns = {name: array for name, array in arrays.items() if "/" not in name}
    layers: dict[str, dict[str, NDArray[Any]]] = {layer: {} for layer in header["layers"]}
    for name, array in arrays.items():
        layer, slash, metric = name.rpartition("/")
        if slash:
            layers[layer][metric] = array
    return {"columns": columns, "layers": layers, "meta": header["meta"]}


def _read_json(data: bytes) -> dict[str, Any]:
    document = _checked(json.loads(data, parse_constant=_refuse))
    return {
        "columns": _numbers(document["columns"]),
        "layers": {layer: _numbers(metrics) for layer, metrics in document["layers"].items()},
        "meta": document["meta"],
    }


def _checked(document: Any) -> dict[str, Any]:
    found = document.get("format") if isinstance(document, dict) else None
    if found != _FORMAT:
        raise ValueError(f"format must be {_FORMAT!r}, not {found!r}")
    assert isinstance(document, dict)
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _numbers(columns: Mapping[str, list[Any]]) -> dict[str, Floats]:
    return {
        name: np.array([_NON_FINITE[item] if isinstance(item, str) else item for item in column], np.float64)
        for name, column in columns.items()
    }


# ---- drawing. No rcParams are set and no mathematical text is used: both are shared between threads.

# Okabe and Ito's colours, which the colour-blind can tell apart.
_BLACK, _BLUE, _ORANGE, _GREEN, _RED, _SKY, _PINK = "#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
_SMALL = 9.0
_BOUND = 1e120
"""What is larger is drawn as infinite: nothing overflows where axes are laid out."""

_Line = tuple[str, str, dict[str, Any]]  # column, label, look
_UNDER = {"linewidth": 4.0, "alpha": 0.55}  # a broad line under the one that it may coincide with


def _draw(history: FitHistory, title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.projections.polar import PolarAxes

    figure = Figure(figsize=(13, 15), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(4, 2, height_ratios=(1, 1, 1.5, 0.8))
    loss, margin = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    alpha, curvature = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    geometry = grid[2, 0].subgridspec(3, 1)
    cosine, angle, ratio = (figure.add_subplot(geometry[row]) for row in range(3))
    polar = figure.add_subplot(grid[2, 1], projection="polar")
    assert isinstance(polar, PolarAxes)
    rails, underflow = figure.add_subplot(grid[3, 0]), figure.add_subplot(grid[3, 1])

    lost = history.diverged_at
    rows = f"{history.steps} step" + ("" if history.steps == 1 else "s")
    fate = rows if lost is None else f"{rows}, diverged at step {lost}"
    figure.suptitle(f"{title}: {fate}" if title else fate, fontsize=14, fontweight="bold", parse_math=False)

    _loss_panel(loss, history)
    _margin_panel(margin, history)
    _alpha_panel(alpha, history)
    _curvature_panel(curvature, history)
    _geometry_panels(cosine, angle, ratio, history)
    _polar_panel(polar, figure, history)
    _fraction_panel(
        rails,
        history,
        "Rails",
        [
            ("weight_near_rail_fraction_max", "weight near", {"color": _SKY} | _UNDER),
            ("weight_saturation_fraction_max", "weight on", {"color": _BLUE}),
            ("gradient_near_rail_fraction_max", "gradient near", {"color": _ORANGE} | _UNDER),
            ("gradient_saturation_fraction_max", "gradient on", {"color": _RED, "linestyle": "--"}),
            ("update_saturation_fraction_max", "update on", {"color": _BLACK, "linestyle": ":"}),
        ],
    )
    _fraction_panel(
        underflow,
        history,
        "Underflow",
        [
            ("gradient_underflow_fraction_max", "gradient", {"color": _ORANGE} | _UNDER),
            ("update_underflow_fraction_max", "update", {"color": _BLACK}),
        ],
    )
    for ax in (loss, margin, alpha, curvature, cosine, angle, ratio, rails, underflow):
        _finish(ax, history, bottom=ax not in (cosine, angle))
    figure.align_ylabels([loss, alpha, cosine, angle, ratio, rails])
    figure.align_ylabels([margin, curvature, underflow])
    return figure


def _loss_panel(ax: Axes, history: FitHistory) -> None:
    shown = _lines(ax, history, [("loss", "loss", {"color": _BLUE})], "loss before the update", legend=False)
    ax.set_title("Loss", loc="left", fontsize=11, fontweight="bold")
    _scale(ax, shown, decades=1)
    _edges(ax, shown)


def _margin_panel(ax: Axes, history: FitHistory) -> None:
    names = ("stability_margin_lambda", "λ"), ("stability_margin_norm", "‖H‖")
    # Without the largest eigenvalue the norm must do.
    stem, letter = next(((s, t) for s, t in names if _finite(history, f"{s}_raw", f"{s}_ctrl").size), names[0])
    wanted: list[_Line] = [
        (f"{stem}_raw", f"full step: η {letter}", {"color": _ORANGE} | _UNDER),
        (f"{stem}_ctrl", f"applied: α η {letter}", {"color": _BLUE}),
    ]
    ax.set_title("Stability margin", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(ax, history, wanted, "step size × curvature", legend=False)
    if not shown:
        return
    ax.axhline(2, color=_RED, linewidth=1.3, linestyle="--", label="limit: 2")
    _legend(ax)
    _scale(ax, shown, decades=1, include=(2.0,))
    _edges(ax, shown)


def _alpha_panel(ax: Axes, history: FitHistory) -> None:
    wanted: list[_Line] = [
        ("alpha_would", "by the law", {"color": _ORANGE} | _UNDER),
        ("alpha", "as applied", {"color": _BLUE}),
    ]
    ax.set_title("Throttle α", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(ax, history, wanted, "α (no unit)")
    if _scale(ax, shown, decades=1.3, include=(1.0,)) == "linear":
        ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
    _edges(ax, shown)


def _curvature_panel(ax: Axes, history: FitHistory) -> None:
    wanted: list[_Line] = [
        ("curvature_for_control", "max(C, S)", {"color": _SKY} | _UNDER),
        ("curvature_proxy", "C", {"color": _BLACK}),
        ("curvature_ema", "S", {"color": _RED, "linestyle": "--"}),
    ]
    ax.set_title("Curvature", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(ax, history, wanted, "loss / weight²")
    _scale(ax, shown, decades=1)
    # The first step has no C by definition; its zero says nothing.
    _edges(ax, [(np.where(np.arange(len(array)) > 0, array, np.nan), look) for array, look in shown])


def _geometry_panels(cosine: Axes, angle: Axes, ratio: Axes, history: FitHistory) -> None:
    cosine.set_title("Update as applied against update as intended", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(cosine, history, [("update_cosine", "cosine", {"color": _BLUE})], "cosine", legend=False)
    if shown:
        low = max(-1.0, min([0.9, *_finite(history, "update_cosine")]))
        cosine.set_ylim(low - 0.06 * (1 - low), 1 + 0.06 * (1 - low))
    shown = _lines(
        angle, history, [("update_angle_rad", "angle", {"color": _BLUE})], "angle (°)", legend=False, scale=180 / math.pi
    )
    if shown:
        # Below a degree an angle is as good as none, and often but the cosine's own rounding.
        high = min(180.0, max([1.0, *np.degrees(_finite(history, "update_angle_rad"))]))
        angle.set_ylim(-0.06 * high, 1.06 * high)
    shown = _lines(ratio, history, [("update_radius_ratio", "ratio", {"color": _BLUE})], "length ratio", legend=False)
    if shown:
        ratio.axhline(1, color="#777777", linewidth=1, linestyle=":")
        high = max([1.0, *_finite(history, "update_radius_ratio")])
        if high > 5:
            _scale(ratio, shown, decades=0, include=(1.0,))
        else:
            ratio.set_ylim(-0.06 * high, 1.1 * high)
        _edges(ratio, shown)


def _polar_panel(ax: PolarAxes, figure: Figure, history: FitHistory) -> None:
    """Angle: how far the applied update points away from the intended one; radius: how long it is against it."""
    ax.set_title("Update phase: angle and length ratio", loc="left", fontsize=11, fontweight="bold", pad=16)
    ax.tick_params(labelsize=_SMALL)
    ax.tick_params(axis="y", pad=9)  # clear of the diamond
    ax.grid(color="#cccccc", linewidth=0.6)
    empty = np.zeros(0)
    angle, radius = history.get("update_angle_rad", empty), history.get("update_radius_ratio", empty)
    if "update_angle_rad" not in history or "update_radius_ratio" not in history:
        angle = radius = empty
    good = (angle >= 0) & (angle <= math.pi) & (radius >= 0)
    angle, radius, steps = angle[good], radius[good], np.flatnonzero(good)
    reach = 180 if angle.size and np.degrees(angle.max()) > 92 else 90
    ax.set_thetamin(0)
    ax.set_thetamax(reach)
    ax.set_thetagrids(np.arange(0, reach + 1, 30 if reach == 180 else 15))
    # What is longer than that is drawn on the rim: a few outliers shall not press the others together.
    top = 1.1 * min(4.0, max([1.0, *radius[np.isfinite(radius)]]))
    ax.set_ylim(0, top)
    ax.set_yticks([0.25, 0.5, 0.75, 1] if top < 1.6 else list(range(1, math.floor(top) + 1)))
    ax.set_rlabel_position(0)
    sweep = np.linspace(0, math.radians(reach), 100)
    ax.plot(sweep, np.ones(100), color="#888888", linewidth=1, linestyle=":", zorder=2)
    ax.plot(
        [0], [1], marker="D", markersize=11, markerfacecolor="none", markeredgecolor=_RED, markeredgewidth=2,
        linestyle="none", zorder=5, clip_on=False, label="undistorted",
    )  # fmt: skip
    if not angle.size:
        ax.text(
            0.5, 0.5, _why_empty(history, "update_angle_rad", "update_radius_ratio"), transform=ax.transAxes,
            ha="center", va="center", color="#666666", fontsize=_SMALL + 1, backgroundcolor="white",
        )  # fmt: skip
        return
    look: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": max(1, history.steps - 1), "zorder": 4, "clip_on": False}
    beyond = radius > top
    dots = ax.scatter(angle[~beyond], radius[~beyond], c=steps[~beyond], s=18, linewidths=0, **look)
    if beyond.any():
        ax.scatter(
            angle[beyond], np.full(np.count_nonzero(beyond), top), c=steps[beyond], s=40, marker="^", linewidths=0.5,
            edgecolors="black", label=f"longer than {top:.2g}", **look,
        )  # fmt: skip
    # In the room which the sector leaves of its cell.
    upright = reach == 90
    place = (1.14, 0.15, 0.03, 0.7) if upright else (0.2, 0.02, 0.6, 0.03)
    bar = figure.colorbar(dots, cax=ax.inset_axes(place), orientation="vertical" if upright else "horizontal")
    bar.set_label("step", fontsize=_SMALL + 1)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.outline.set_visible(False)
    bar.set_ticks(sorted({round(step) for step in np.linspace(0, history.steps - 1, 6)}))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2, frameon=False, fontsize=_SMALL)


def _fraction_panel(ax: Axes, history: FitHistory, title: str, wanted: list[_Line]) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    peaks = {name: float(np.max(_finite(history, name), initial=0)) for name, _, _ in wanted}
    labelled = [
        (name, f"{label}: {_percent(peaks[name]) if peaks[name] else 'never'}", look)
        for name, label, look in wanted
        if name in history
    ]
    if _lines(ax, history, labelled or wanted, "largest share", legend=False):
        if len(labelled) > 3:  # too many for the title's line
            _legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        else:
            _legend(ax)
        high = min(max(peaks.values()), 1.0) or 1.0
        ax.set_ylim(-0.04 * high, 1.08 * high)
        ax.yaxis.set_major_formatter(PercentFormatter(1))


def _percent(share: float) -> str:
    return f"≤ {100 * share:.3g} %"


def _why_empty(history: FitHistory, *names: str) -> str:
    return "nothing finite to draw" if all(name in history for name in names) and history.steps else "not recorded"


def _finite(history: FitHistory, *names: str) -> Floats:
    """All values of these columns that are drawn as finite."""
    values: Floats = np.concatenate([np.zeros(0), *(history[name] for name in names if name in history)])
    return values[np.abs(values) <= _BOUND]


def _lines(
    ax: Axes,
    history: FitHistory,
    wanted: list[_Line],
    label: str,
    *,
    legend: bool = True,
    scale: float = 1.0,
) -> list[tuple[Floats, dict[str, Any]]]:
    """Draw what is there; the arrays drawn, with their look. None: the panel says so."""
    shown: list[tuple[Floats, dict[str, Any]]] = []
    thin = min(1.0, max(0.4, math.sqrt(300 / max(history.steps, 1))))  # long runs would be a block of colour
    ax.set_ylabel(label, fontsize=_SMALL + 1)
    ax.set_autoscaley_on(False)  # the panel sets its limits: matplotlib's overflow on a log axis that ends near the largest float
    for name, text, look in wanted:
        if not (name in history and np.count_nonzero(~np.isnan(history[name]))):
            continue
        array = np.where(np.abs(history[name]) > _BOUND, np.copysign(math.inf, history[name]), history[name]) * scale
        good = np.isfinite(array)
        # A value between two that are missing is no line; it gets a dot.
        alone = good & ~np.append(False, good[:-1]) & ~np.append(good[1:], False)
        ax.plot(
            np.where(good, array, np.nan), label=text, marker="o", markersize=5, markevery=np.flatnonzero(alone).tolist(),
            **(look | {"linewidth": thin * look.get("linewidth", 1.5)}),
        )  # fmt: skip
        shown.append((array, look))
    if not shown:
        why = _why_empty(history, *(name for name, _, _ in wanted))
        ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color="#666666", fontsize=_SMALL + 1)
        ax.set_yticks([])
        return shown
    if legend:
        _legend(ax)
    return shown


def _legend(ax: Axes, **place: Any) -> None:
    """Outside the axes, never over data: above, to the right of the title, if not told otherwise."""
    legend = ax.legend(
        **({"loc": "lower right", "bbox_to_anchor": (1.01, 1.02)} | place), ncol=3, frameon=False, fontsize=_SMALL,
        borderpad=0.2, columnspacing=1.2, handlelength=1.6, handletextpad=0.5,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(marker="")


def _scale(ax: Axes, shown: list[tuple[Floats, dict[str, Any]]], *, decades: float, include: tuple[float, ...] = ()) -> str:
    """A logarithmic axis where the values span more than so many decades; "log" or "linear"."""
    from matplotlib.ticker import LogLocator

    values = np.concatenate([np.array(include, np.float64), *(array for array, _ in shown)])
    values = values[np.isfinite(values)]
    positive = np.maximum(values[values > 0], 1 / _BOUND)
    if not positive.size or positive.max() <= positive.min() * 10.0**decades:
        if values.size:
            low, high = float(values.min()), float(values.max())
            room = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
            ax.set_ylim(low - room, high + room)
        return "linear"
    low, high = math.log10(positive.min()), math.log10(positive.max())
    room = min(max(0.06 * (high - low), 0.05), 3.0)
    ax.set_yscale("log", nonpositive="mask")
    ax.set_ylim(10 ** (low - room), 10 ** (high + room))
    short = high - low < 2.5
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,), numticks=8 if not short else 12))
    plain = low > -3.3 and high < 4.3
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if plain else _power(value))
    ax.minorticks_off()
    return "log"


def _power(value: float) -> str:
    """A tick's number as a digit times a power of ten, without mathematical text."""
    power = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10.0**power)
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "1" if digit == 1 and not power else f"10{raised}" if digit == 1 else f"{digit}·10{raised}"


def _edges(ax: Axes, shown: list[tuple[Floats, dict[str, Any]]]) -> None:
    """Triangles on the edge for what has no place on the axis: infinities, and on a logarithmic axis what is not above 0."""
    for array, look in shown:
        low = array == -math.inf
        if ax.get_yscale() == "log":
            low |= array <= 0
        for where, height, marker in ((array == math.inf, 1.0, "^"), (low, 0.0, "v")):
            steps = np.flatnonzero(where)
            if steps.size:
                ax.plot(
                    steps, np.full(steps.size, height), marker=marker, markersize=6, linestyle="none", color=look["color"],
                    clip_on=False, transform=ax.get_xaxis_transform(), zorder=5, markeredgewidth=0,
                )  # fmt: skip


def _finish(ax: Axes, history: FitHistory, *, bottom: bool) -> None:
    """What all panels over the steps have in common."""
    from matplotlib.ticker import MaxNLocator

    last = max(history.steps - 1, 0)
    ax.set_xlim(-0.5 - 0.01 * last, last * 1.01 + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.tick_params(labelsize=_SMALL, labelbottom=bottom)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    if bottom:
        ax.set_xlabel("step", fontsize=_SMALL + 1)
    if history.diverged_at is not None:
        ax.axvline(history.diverged_at, color=_PINK, linewidth=1.5, linestyle="-.", zorder=1)
