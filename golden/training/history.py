"""What a training run leaves behind: one float a step for each metric, saved and loaded."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import write_atomically
from ..tables import html
from . import archive
from .archive import plain
from .metrics import DEFINITIONS, FRACTIONS, LOST, PUBLISHED_NAMES, published

Floats = NDArray[np.float64]

EXTRAS: dict[str, str] = {
    name: DEFINITIONS[name]
    for name in (
        *(
            "unthrottled_update_norm",
            "learning_rate",
            "step_bits_left",
            "clip_factor",
            "skipped",
            *LOST,
            *("curvature_applied", "curvature_intended", "curvature_projection", "curvature_true"),
            "noise_index",
            "dG_norm",
            "dtheta_norm",
            "dtheta_zero",
            "held",
            "finite",
            "theta_norm_after",
        ),
        *("weight_error_fro_after", "autodiff_lambda_max", "gradient_underflow_fraction_max"),
    )
}
"""Metrics beyond the published ones."""

_OF_COSIM = (
    *(
        "accuracy",
        "accuracy_held_out",
        "loss_held_out",
        "gain",
        "norm_gradient",
        "norm_motion",
        "step_size",
        "still",
        "angle",
        "cosine",
        "radius_ratio",
    ),
    *FRACTIONS,
)

PUBLISHED: dict[str, str] = {
    key: text for key, text in published(DEFINITIONS).items() if key not in EXTRAS and key not in _OF_COSIM
}
"""The published keys, 37 of them, with the definition of each."""

KEYS: dict[str, str] = PUBLISHED | EXTRAS
"""Key of each metric of the harness -> its definition. A history may hold others, and need not hold these."""


class History(Mapping[str, Floats]):
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

    _FORMAT: ClassVar[str] = "kappa_rtl.History/1"
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
        self.meta = plain({} if meta is None else meta, "meta")

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
        if not isinstance(other, History):
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
        return f"<{type(self).__name__}: {self.steps} steps, {len(self)} columns, {len(self.layers)} layers{end}>"

    def _repr_html_(self) -> str:
        return self.to_html(repr(self).strip("<>"))

    def to_html(self, caption: str) -> str:
        """A table for a notebook: what each column begins and ends with, and its range."""
        rows = []
        for name, array in self._columns.items():
            known = array[~np.isnan(array)]
            ends = (array[0], array[-1], known.min(), known.max()) if known.size else ()
            rows.append([name, *(f"{value:.6g}" for value in ends)])
        return html(caption, ["metric", "first", "last", "least", "most"], rows)

    def _content(self) -> archive.Content:
        return {"columns": self._columns, "layers": self.layers, "meta": self.meta}

    def _flat(self) -> Iterable[tuple[str, Floats]]:
        """All arrays; those of a layer as ``layer/metric``."""
        return archive.flat(self._columns, self.layers).items()

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
    def join(cls, parts: Sequence[Self], **columns: ArrayLike) -> Self:
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
        write_atomically(target, archive.write(target, self._FORMAT, self._content()))
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file is no such history.
            OSError: it cannot be read.
        """
        source = Path(path)
        content = archive.read(source, cls._FORMAT)
        try:
            return cls(**content)
        except archive.UNREADABLE as error:
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
        write_atomically(target, text.getvalue().encode())
        return target

    def to_frame(self) -> Any:
        """A pandas ``DataFrame``: a row a step, the columns, then ``layer/metric``."""
        import pandas as pd  # here: it takes a second, and few ask for a frame

        return pd.DataFrame(dict(self._flat()), index=pd.RangeIndex(self.steps, name="step"))


class FitHistory(History):
    """The history of :func:`~kappa_rtl.golden.training.instrumented.train_instrumented`, under the published keys.

    In these ``alpha`` is what was applied and ``alpha_would`` what the law gave; everywhere else ``alpha`` is what the law gave
    and ``alpha_applied`` what was applied. Where a metric has a name of its own beside the published key, that name reads too:
    ``h["alpha_applied"]`` is ``h["alpha"]``, ``h["curvature"]`` is ``h["curvature_proxy"]``. It is not written.
    """

    _FORMAT: ClassVar[str] = "kappa_rtl.FitHistory/1"

    @classmethod
    def of_rows(cls, rows: Sequence[Mapping[str, float]], **rest: Any) -> Self:
        """From the rows of a loop, whose names are those of :data:`~kappa_rtl.golden.training.metrics.DEFINITIONS`."""
        columns = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
        return cls(published(columns), **rest)

    def __getitem__(self, name: str) -> Floats:
        if name not in self._columns and name not in KEYS:  # "alpha" is a key of its own
            name = PUBLISHED_NAMES.get(name, name)
        return self._columns[name]

    def plot_results(self, path: str | os.PathLike[str] | None = None, *, title: str = "") -> Any:
        """Draw the run: loss, stability margins, alpha, curvature, update geometry (lines and polar), rails and underflow.

        What was not recorded leaves its panel empty; what lies outside a panel (infinite, or 0 on a logarithmic axis) is a
        triangle on its edge. Nothing is shown and pyplot is not used, so that this works in any thread and without a screen.
        It gives a matplotlib ``Figure``; who draws it is an entry point of the installed package, for nothing here draws.

        Args:
            path: where to save it, all or nothing; its suffix is the format (``.png``, ``.pdf``, ``.svg``).
            title: heading of the figure.

        Raises:
            ValueError: the path has no suffix, or one that is no picture's.
        """
        (drawer,) = entry_points(group="kappa_rtl.pictures", name="history")
        figure = drawer.load()(self, title)
        if path is not None:
            target = Path(path)
            if not target.suffix:
                raise ValueError(f"path must end in the format of a picture such as .png, not {target.name!r}")
            data = io.BytesIO()
            figure.savefig(data, format=target.suffix[1:].lower())
            write_atomically(target, data.getvalue())
        return figure


def _name(name: object, what: str) -> str:
    """A name as it may stand in files."""
    if not isinstance(name, str) or not name or name == archive.HEADER or (what != "layer" and "/" in name):
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
