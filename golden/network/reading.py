"""The user's own data: columns or arrays chosen, labels mapped to classes, and every decision told in a sentence.

Text files are read by :mod:`~kappa_rtl.golden.network.table`; scaling and the rows held out are
:mod:`~kappa_rtl.golden.network.scaling`'s.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .checks import counts
from .data import Problem
from .table import JUDGED, SWITCHES, Table, as_number, infinite, missing, read, short, whole

Column: TypeAlias = "str | int"
"""A column by its name, or by its number from 0, or from -1 at the end."""

TEXT = (".csv", ".tsv", ".txt")
MOST_CLASSES = 1000
"""Of a label column; one with more is no label."""

SHOWN = 12
"""Classes that a sentence lists."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels as classes 0..K-1.

    Attributes:
        classes: (rows,).
        names: of the classes as the file has them, K of them.
        note: how they were mapped.
    """

    classes: NDArray[np.int64]
    names: tuple[str, ...]
    note: str


def load(
    path: str | Path,
    *,
    outputs: int | None = None,
    inputs: Column | Sequence[Column] | None = None,
    targets: Column | Sequence[Column] | None = None,
    label: Column | None = None,
    header: bool | None = None,
    separator: str = "",
    decimal: str = "",
    encoding: str = "",
) -> Problem:
    """A problem from a file: a table of text (``.csv``, ``.tsv``, ``.txt``), or an ``.npz`` of arrays.

    Of a table, ``label`` is a column of classes, as numbers or text, which become one-hot targets; or ``targets`` are columns of
    numbers. Without either the last column is the label if it holds text, and otherwise the last ``outputs`` columns are targets.
    Inputs are the other columns where they are not named.

    Of an ``.npz`` the three name arrays: ``X``, ``Y`` and ``labels`` where they are not given; with labels ``Y`` may be missing.

    Args:
        outputs: how many columns at the end of a table are targets, 1 if not given; not beside ``targets`` or ``label``.
        inputs, targets, label: columns by name or number; arrays by name.
        header, separator, decimal, encoding: of a table; see :func:`~kappa_rtl.golden.network.table.read`.

    Returns:
        The problem, with what was decided in its ``notes``.

    Raises:
        ValueError: another kind of file, an unknown column, a value that is missing, no number or not finite, labels that are
            no classes; with the file, the line, the column and the value.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if path.suffix.casefold() == ".npz":
        for name, value in (("header", header), ("separator", separator), ("decimal", decimal), ("encoding", encoding)):
            if value not in (None, ""):
                raise ValueError(f"{name} must not be given for an .npz, which has no text, not {value!r}")
        if outputs is not None:
            raise ValueError(f"outputs must not be given for an .npz, whose Y has as many columns, not {outputs!r}")
        return _from_arrays(path, inputs, targets, label)
    if path.suffix.casefold() not in TEXT:
        raise ValueError(f"{path}: data must be a .npz, {', '.join(TEXT[:-1])} or {TEXT[-1]} file")
    table = read(path, header=header, separator=separator, decimal=decimal, encoding=encoding)
    return _from_table(table, outputs, inputs, targets, label)


# ------------------------------------------------------------------------------------------------ a table


def _from_table(
    table: Table,
    outputs: int | None,
    inputs: Column | Sequence[Column] | None,
    targets: Column | Sequence[Column] | None,
    label: Column | None,
) -> Problem:
    width, notes = len(table.names), list(table.notes)
    if label is not None and targets is not None:
        raise ValueError(f"label must not be given beside targets ({targets!r}), not {label!r}")
    if outputs is not None:
        counts(outputs=outputs)
        if label is not None or targets is not None:
            raise ValueError(f"outputs must not be given beside {'label' if label is not None else 'targets'}, not {outputs!r}")
        if outputs >= width:
            raise ValueError(f"{table.path}: outputs must be less than the {width} columns, not {outputs}")
    chosen = None if inputs is None else _columns(table, "inputs", inputs)
    aim = None if targets is None else _columns(table, "targets", targets)
    kind = None if label is None else _columns(table, "label", label)
    if aim is None and kind is None:
        if outputs is None and (chosen is None or width - 1 not in chosen) and _is_text(table, width - 1):
            kind = [width - 1]
            notes.append(f"The last column, {table.names[-1]!r}, holds text and is taken for the label.")
        elif outputs is None and chosen is not None:
            aim = [i for i in range(width) if i not in chosen]
            if not aim:
                raise ValueError(f"{table.path}: inputs must leave a column for targets or label, not name all {width}")
        else:
            aim = list(range(width - (outputs or 1), width))
    goal = aim if aim is not None else kind
    assert goal is not None
    if chosen is None:
        chosen = [i for i in range(width) if i not in goal]
        if not chosen:
            raise ValueError(f"{table.path}: targets must leave a column for inputs, not name all {width}")
    if both := [table.names[i] for i in chosen if i in goal]:
        raise ValueError(f"inputs must not name what {'targets' if aim else 'label'} names too, {both[0]!r}")
    notes.append(f"Inputs are {_listed([table.names[i] for i in chosen])}.")
    if unused := [table.names[i] for i in range(width) if i not in chosen and i not in goal]:
        notes.append(f"Not used: {_listed(unused)}.")
    X = np.stack([table.numbers(i) for i in chosen], axis=1)
    names = tuple(table.names[i] for i in chosen)
    if kind is not None:
        column = kind[0]
        given = [str(text) for text in table.cells[:, column]]
        labels = map_labels(given, table.names[column], lambda row: table.at(row, column), table.decimal)
        targets_made: NDArray[np.float64] = np.eye(len(labels.names))[labels.classes]
        notes.append(labels.note)
        return Problem(table.path.stem, X, targets_made, labels.classes, tuple(notes), names, labels.names)
    notes.append(f"Targets are {_listed([table.names[i] for i in goal])}.")
    Y = np.stack([table.numbers(i) for i in goal], axis=1)
    if len(goal) == 1 and targets is None and len(found := np.unique(Y)) <= SHOWN < len(Y) and (found == np.rint(found)).all():
        notes.append(
            f"The target holds only {len(found)} whole numbers, and is taken as a quantity; label = {table.names[goal[0]]!r} "
            "would make them classes."
        )
    return Problem(table.path.stem, X, Y, None, tuple(notes), names)


def _columns(table: Table, what: str, given: Column | Sequence[Column]) -> list[int]:
    """Columns by number, from names or numbers."""
    found: list[int] = []
    width = len(table.names)
    several = given if isinstance(given, (list, tuple)) else [given]
    if not several:
        raise ValueError(f"{what} must name at least one column, not {given!r}")
    for column in several:
        if isinstance(column, str):
            if column not in table.names:
                raise ValueError(f"{table.path}: {what} must name columns among {_listed(table.names)}, not {column!r}")
            place = table.names.index(column)
        elif isinstance(column, bool) or not isinstance(column, (int, np.integer)) or not -width <= column < width:
            raise ValueError(
                f"{table.path}: {what} must be names of columns, or numbers from {-width} to {width - 1}, not {column!r}"
            )
        else:
            place = int(column) % width
        if place in found:
            raise ValueError(f"{table.path}: {what} must name a column once, not {table.names[place]!r} again")
        found.append(place)
    return found


def _is_text(table: Table, column: int) -> bool:
    """Whether most of a column's values are neither numbers nor missing nor infinite."""
    given = [text for text in table.cells[:JUDGED, column] if not missing(text) and not infinite(text)]
    if {text.casefold() for text in given} <= SWITCHES:
        return False
    return 2 * sum(table.number(text) is None for text in given) > len(given)


# ------------------------------------------------------------------------------------------------ labels


def map_labels(given: Sequence[str], name: str, at: Callable[[int], str], decimal: str = ".") -> Labels:
    """Labels as classes: whole numbers in their order, or, where any of them is text, texts in alphabetical order.

    Args:
        given: the labels as text.
        name: of the column.
        at: where a row is, for a message.

    Raises:
        ValueError: a label is missing, or is a number that is not whole; there are fewer than two classes, or too many.
    """
    for row, text in enumerate(given):
        if missing(text):
            raise ValueError(f"{at(row)}: no label may be missing, and here is {short(text)}")
    read = [as_number(text, decimal) for text in given]
    known: dict[str, Any] = {}
    if all(text is not None for text in read):
        for row, number in enumerate(read):
            value = float(number or "nan")
            if not value.is_integer():
                raise ValueError(f"{at(row)}: labels must be whole numbers or text, not {short(given[row])}")
            known[given[row]] = int(given[row] if whole(given[row]) else value)  # of any size
    else:
        known = {text: text for text in given}
    order = sorted(set(known.values()))
    if len(order) < 2:
        raise ValueError(f"{at(0)}: labels must be of at least two classes, not all {short(given[0])}")
    if len(order) > MOST_CLASSES:
        raise ValueError(
            f"{at(0)}: labels must be of at most {MOST_CLASSES} classes, not {len(order):,}, such as {short(given[0])}"
        )
    place = {value: i for i, value in enumerate(order)}
    classes = np.array([place[known[text]] for text in given], np.int64)
    names = tuple(str(value) for value in order)
    if order == list(range(len(order))):
        note = f"The label {name!r} has the classes 0 to {len(order) - 1}, as they are."
    else:
        pairs = [f"{short(text) if isinstance(order[0], str) else text} -> {i}" for i, text in enumerate(names)]
        pairs = pairs if len(pairs) <= SHOWN else [*pairs[:3], "...", pairs[-1]]
        note = f"The label {name!r} is mapped to {len(order)} classes, in order: {', '.join(pairs)}."
    alone = [text for i, text in enumerate(names) if np.count_nonzero(classes == i) == 1]
    if alone:
        note += f" {len(alone)} of them {'has' if len(alone) == 1 else 'have'} one row only, such as {short(alone[0])}."
    return Labels(classes, names, note)


# ------------------------------------------------------------------------------------------------ arrays


def _from_arrays(path: Path, inputs: Any, targets: Any, label: Any) -> Problem:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if isinstance(error, ValueError) and "Object arrays" in str(error):
            error = ValueError("one holds Python objects, and must hold numbers")
        raise ValueError(f"{path}: must be an .npz of plain arrays: {error}") from None
    names = {}
    for what, given, usual in (("inputs", inputs, "X"), ("targets", targets, "Y"), ("label", label, "labels")):
        one = given[0] if isinstance(given, (list, tuple)) and len(given) == 1 else given
        if one is not None and not (isinstance(one, str) and one in arrays):
            raise ValueError(f"{path}: {what} must name one of the arrays {_listed(list(arrays))}, not {given!r}")
        names[what] = usual if one is None else one
    if label is not None and targets is None and "Y" in arrays:
        arrays.pop("Y")  # the label is what is to be learnt
    if names["inputs"] not in arrays or (names["targets"] not in arrays and names["label"] not in arrays):
        raise ValueError(f"{path}: arrays X and Y, or X and labels, must be there; found {', '.join(arrays) or 'nothing'}")
    notes = []
    X, said = _matrix(path, names["inputs"], arrays[names["inputs"]])
    notes += said
    Y: NDArray[np.float64] | None = None
    if names["targets"] in arrays:
        Y, said = _matrix(path, names["targets"], arrays[names["targets"]])
        notes += said
    labels = None
    if names["label"] in arrays:
        labels = _labels(path, names["label"], arrays[names["label"]], len(X))
        if Y is None:
            notes.append(labels.note + " Targets are one-hot.")
            Y = np.eye(len(labels.names))[labels.classes]
        else:
            labels = _agreed(path, names["label"], arrays[names["label"]], labels, Y, notes)
    assert Y is not None
    if len(Y) != len(X):
        raise ValueError(
            f"{path}: {names['targets']} must have a row for each of the {len(X)} of {names['inputs']}, not {len(Y)}"
        )
    columns = tuple(f"column {i}" for i in range(X.shape[1]))
    classes, known = (None, ()) if labels is None else (labels.classes, labels.names)
    return Problem(path.stem, X, Y, classes, tuple(notes), columns, known)


def _matrix(path: Path, name: str, array: NDArray[Any]) -> tuple[NDArray[np.float64], list[str]]:
    """An array as a matrix with a row a sample."""
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{path}: {name} must hold real numbers, not {array.dtype}")
    if array.ndim < 1 or not array.size:
        raise ValueError(f"{path}: {name} must be a matrix with a row a sample, not of shape {array.shape}")
    with np.errstate(over="ignore"):
        made = array.reshape(len(array), -1).astype(np.float64)
    bad = np.argwhere(~np.isfinite(made))
    if len(bad):
        row, column = map(int, bad[0])
        raise ValueError(f"{path}: {name}[{row}, {column}] must be finite, not {float(made[row, column])!r}")
    if array.ndim == 2:
        return made, []
    return made, [f"{name} of shape {array.shape} is read as {made.shape[1]} column{'s' if made.shape[1] > 1 else ''}."]


def _labels(path: Path, name: str, array: NDArray[Any], rows: int) -> Labels:
    """An array of labels as classes."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (rows,):
        raise ValueError(f"{path}: {name} must have shape ({rows},), a label a row, not {array.shape}")
    if array.dtype.kind not in "biufUS":
        raise ValueError(f"{path}: {name} must be whole numbers or text, not {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"{path}: {name}[{row}] must be finite, not {float(array[row])!r}")
    plain = array.astype(np.int64) if array.dtype.kind == "b" else np.char.decode(array) if array.dtype.kind == "S" else array
    return map_labels([str(value) for value in plain.tolist()], name, lambda row: f"{path}: {name}[{row}]")


def _agreed(path: Path, name: str, array: NDArray[Any], labels: Labels, Y: NDArray[np.float64], notes: list[str]) -> Labels:
    """Labels beside targets: each must be the number of an output, and where targets are one-hot that of the 1."""
    outputs = Y.shape[1]
    if len(Y) != len(labels.classes):
        raise ValueError(f"{path}: Y must have a row for each of the {len(labels.classes)} labels, not {len(Y)}")
    if outputs < 2:
        raise ValueError(
            f"{path}: {name} must not be given beside targets of {outputs} column, whose largest output is always the same; "
            "leave Y out, and the labels become one-hot targets"
        )
    numbers = [int(text) if whole(text) else -1 for text in labels.names]
    if min(numbers) >= 0 and max(numbers) < outputs:  # they are numbers of outputs, if perhaps not of all
        places = np.array(numbers, np.int64)[labels.classes]
        labels = Labels(places, tuple(map(str, range(outputs))), f"{name} are the numbers of outputs, as they are.")
    elif len(labels.names) != outputs:
        row = next(row for row, label in enumerate(labels.classes) if not 0 <= numbers[label] < outputs)
        raise ValueError(
            f"{path}: {name}[{row}] must be the number of an output, from 0 to {outputs - 1}, or one of {outputs} labels in all; "
            f"it is {short(str(array.reshape(-1)[row]))}, and there are {len(labels.names)}"
        )
    one_hot = bool(((Y == 0) | (Y == 1)).all() and (Y.sum(axis=1) == 1).all())
    apart = np.flatnonzero(np.argmax(Y, axis=1) != labels.classes)
    if one_hot and apart.size:
        row = int(apart[0])
        raise ValueError(
            f"{path}: {name}[{row}] must agree with the targets, which have their 1 in column {int(np.argmax(Y[row]))}, not be "
            f"{short(str(array.reshape(-1)[row]))} (class {int(labels.classes[row])}); {apart.size} of {len(Y)} rows differ"
        )
    notes.append(labels.note)
    if apart.size:
        notes.append(f"In {apart.size} of {len(Y)} rows the largest target is not that of the label.")
    return labels


def _listed(names: Sequence[str]) -> str:
    """Names for a sentence; of many the first and the last."""
    shown = [short(name) for name in names]
    if len(shown) > SHOWN:
        shown = [*shown[:3], "...", shown[-1]]
        return f"{', '.join(shown)} ({len(names)} columns)"
    return ", ".join(shown)
