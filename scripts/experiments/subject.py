"""What a run trains, and on what: the tables ``[data]`` and ``[model]`` that ``cosim`` and ``train`` share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...golden.network.data import Problem
from ...golden.network.layers import KINDS
from ...golden.network.reading import Column, load
from ...golden.network.scaling import SCALINGS, Split, prepare
from ...golden.training.model import LinearBlockModel

READING = ("inputs", "targets", "label", "outputs", "header", "separator", "decimal", "encoding")
"""What decides how a file is read."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """The table ``[data]``.

    Args:
        file: the user's data, ``.csv``, ``.tsv``, ``.txt`` or ``.npz``; beside the configuration file if its path is relative.
            Empty for the data of the experiment.
        inputs: the columns that go in, by name or number; all others if not given. Of an ``.npz`` the array.
        targets: the columns of numbers that are to come out, by name or number.
        label: the column of classes, by name or number; not beside ``targets``.
        outputs: without ``targets`` and ``label``: how many columns at the end are targets (1).
        header: whether the first row names the columns; if not given it is found out, or asked for.
        separator: between the columns; if empty it is found.
        decimal: the decimal mark of numbers; if empty it is found.
        encoding: of the text; if empty it is found.
        scaling: of the inputs, column by column, by the rows to train on.
        target_scaling: the same of targets that are no classes.
        held_out: rows that no step trains on: an integer for how many, a decimal below 1 for a share.
        seed: of the choice of these rows, and of the synthetic experiment.

    Raises:
        ValueError: a field is none of these.
    """

    file: str = ""
    inputs: tuple[Column, ...] | None = None
    targets: tuple[Column, ...] | None = None
    label: Column | None = None
    outputs: int | None = None
    header: bool | None = None
    separator: str = ""
    decimal: str = ""
    encoding: str = ""
    scaling: str = "none"
    target_scaling: str = "none"
    held_out: int | float = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("file", "separator", "decimal", "encoding"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"data.{name} must be text, not {getattr(self, name)!r}")
        for name in ("inputs", "targets"):
            given: Any = getattr(self, name)
            if given is None:
                continue
            several = tuple(given) if isinstance(given, (list, tuple)) else (given,)
            if not several or not all(_is_column(column) for column in several):
                raise ValueError(f"data.{name} must be names or numbers of columns, not {given!r}")
            object.__setattr__(self, name, several)
        if self.label is not None and not _is_column(self.label):
            raise ValueError(f"data.label must be the name or the number of a column, not {self.label!r}")
        if self.header is not None and not isinstance(self.header, bool):
            raise ValueError(f"data.header must be true or false, not {self.header!r}")
        if self.outputs is not None and (not _is_integer(self.outputs) or self.outputs < 1):
            raise ValueError(f"data.outputs must be an integer of at least 1, not {self.outputs!r}")
        for name in ("scaling", "target_scaling"):
            if getattr(self, name) not in SCALINGS:
                raise ValueError(f"data.{name} must be one of {', '.join(SCALINGS)}, not {getattr(self, name)!r}")
        if not _is_integer(self.seed) or not 0 <= self.seed < 2**32:
            raise ValueError(f"data.seed must be an integer from 0 to {2**32 - 1}, not {self.seed!r}")
        if not (_is_integer(self.held_out) or (isinstance(self.held_out, float) and self.held_out < 1)) or not self.held_out >= 0:
            raise ValueError(f"data.held_out must be a number of rows, or a share from 0 to below 1, not {self.held_out!r}")
        if not self.file and (beside := [name for name in READING if getattr(self, name) not in (None, "")]):
            raise ValueError(f"data.{beside[0]} must not be given without data.file, not {getattr(self, beside[0])!r}")

    @classmethod
    def of_table(cls, table: Mapping[str, Any], beside: Path | None = None) -> DataSpec:
        """From a configuration file's table; a relative path of the data starts in the folder ``beside``."""
        made = cls(**table)
        if made.file and beside is not None:
            made = replace(made, file=str(beside / made.file))
        return made

    def to_table(self) -> dict[str, Any]:
        """What is set, as a TOML table; the file by its whole path."""
        table = {name: value for name, value in asdict(self).items() if value is not None and value != ""}
        table |= {name: list(table[name]) for name in ("inputs", "targets") if name in table}
        return table | ({"file": str(Path(self.file).resolve())} if self.file else {})

    def read(self) -> Problem:
        """All rows of the file, unscaled.

        Raises:
            ValueError: see :func:`~kappa_rtl.golden.network.reading.load`; or there is no such file.
        """
        try:
            found = Path(self.file).stat()
            return _read(self, (found.st_mtime_ns, found.st_size))
        except OSError as error:
            raise ValueError(f"data.file must be a file that can be read, not {self.file!r}: {error.strerror}") from None

    def split(self, whole: Problem | None = None) -> Split:
        """The rows to train on and those held out, scaled: of the file, or of the data that are given."""
        return prepare(
            self.read() if whole is None else whole,
            scaling=self.scaling,
            target_scaling=self.target_scaling,
            held_out=self.held_out,
            seed=self.seed,
        )


WIDEST = 100_000
"""Of a hidden layer: numpy makes every weight, and a simulator moves it."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The table ``[model]``: Dense layers, each hidden one with an activation and perhaps batch normalisation behind it.

    Args:
        hidden: the widths of the hidden layers; empty for one layer from the inputs to the outputs.
        activation: behind every hidden layer, or ``none``.
        bias: whether the Dense layers have one.
        batch_norm: whether it follows every hidden layer's activation.
        gain_from_one: whether its gains are kept as gain - 1, which is zero at first and needs no bit before the binary point.

    Raises:
        ValueError: a field is none of these.
    """

    hidden: tuple[int, ...] = (32,)
    activation: str = "relu"
    bias: bool = True
    batch_norm: bool = False
    gain_from_one: bool = True

    def __post_init__(self) -> None:
        given: Any = self.hidden
        if not isinstance(given, (list, tuple)):
            raise ValueError(f"model.hidden must be a list of widths, not {given!r}")
        for width in given:
            if not _is_integer(width) or not 1 <= width <= WIDEST:
                raise ValueError(f"model.hidden must hold integers from 1 to {WIDEST}, not {width!r}")
        object.__setattr__(self, "hidden", tuple(given))
        if self.activation not in ("none", *KINDS):
            raise ValueError(f"model.activation must be one of none, {', '.join(KINDS)}, not {self.activation!r}")
        for name in ("bias", "batch_norm", "gain_from_one"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"model.{name} must be true or false, not {getattr(self, name)!r}")

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of :class:`~kappa_rtl.golden.training.model.LinearBlockModel`."""
        return {
            "num_hidden": list(self.hidden),
            "activation": None if self.activation == "none" else self.activation,
            "use_batchnorm": self.batch_norm,
            "use_bias": self.bias,
            "gain_from_one": self.gain_from_one,
            "head": True,
        }

    def build(self, problem: Problem, seed: int) -> LinearBlockModel:
        """The model with its first weights, in float64."""
        return LinearBlockModel(problem, loss="half_mse", seed=seed, dtype=np.float64, **self.arguments)

    def describe(self, problem: Problem) -> str:
        """For a title: ``64-32-10 with relu``."""
        d, c = problem.shape
        text = "-".join(map(str, (d, *self.hidden, c)))
        return text + (f" with {self.activation}" if self.hidden and self.activation != "none" else "")

    def to_table(self) -> dict[str, Any]:
        """As a TOML table."""
        return asdict(self) | {"hidden": list(self.hidden)}


@functools.lru_cache(maxsize=1)
def _read(spec: DataSpec, stamp: tuple[int, int]) -> Problem:
    """The file as it is at a time: who asks for its size first, and then for its rows, reads it once."""
    return load(spec.file, **{name: getattr(spec, name) for name in READING})


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_column(value: object) -> bool:
    return isinstance(value, str) or _is_integer(value)
