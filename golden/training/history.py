"""What a training run leaves behind: one float a step for each metric, saved and loaded."""

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

from kappa_rtl.golden.training.figures import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
        figure = draw(self, title)
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
