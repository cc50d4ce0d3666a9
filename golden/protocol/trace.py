"""The trace of a training run: a row an epoch of what the diagnostic protocol looks at, checked, saved and loaded."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import write_atomically
from ..numbers import array as plain
from ..numbers import number, whole

Floats = NDArray[np.float64]


class Row(TypedDict):
    """One line of a trace: the state after ``epoch`` epochs."""

    epoch: int
    hidden_norms: list[float]
    bp_grad_norms_per_sample_med: list[float]
    acc_eval: float


ROW = tuple(Row.__annotations__)


def row(epoch: Any, hidden_norms: ArrayLike, gradient_norms: ArrayLike, accuracy: Any) -> Row:
    """A checked row of plain numbers; they need not be finite.

    Raises:
        ValueError: no count of epochs, a norm that is negative or no number, no gradient norm, or an accuracy that is no number.
    """
    epoch = whole("epoch", epoch, 0)
    gradients = norms("bp_grad_norms_per_sample_med", gradient_norms)
    if not gradients.size:
        raise ValueError("bp_grad_norms_per_sample_med must hold at least one norm, not none")
    return {
        "epoch": epoch,
        "hidden_norms": norms("hidden_norms", hidden_norms).tolist(),
        "bp_grad_norms_per_sample_med": gradients.tolist(),
        "acc_eval": number("acc_eval", accuracy),
    }


def parse(entry: Any, name: str) -> Row:
    """The row that a mapping with the keys of :class:`Row` holds; other keys are let be.

    Args:
        entry: what JSON gave; the strings ``NaN``, ``Infinity`` and ``-Infinity`` are numbers.
        name: of the entry, in errors.
    """
    if not isinstance(entry, Mapping) or any(key not in entry for key in ROW):
        raise ValueError(f"{name} must be an object with {', '.join(ROW)}, not {entry!r:.80}")
    try:
        return row(*(_numbers(entry[key]) for key in ROW))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def norms(name: str, values: ArrayLike) -> Floats:
    """(n,) float64."""
    try:
        array = plain(name, values)
    except ValueError:
        array = np.zeros(())
    if array.ndim != 1:
        raise ValueError(f"{name} must be a list of numbers, not {values!r}")
    if (array < 0).any():
        at = int(np.argmax(array < 0))
        raise ValueError(f"{name}[{at}] must be at least 0, not {float(array[at])!r}")
    return array.astype(np.float64)


# ---- files

LOG = "_log"
_NAMES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def save_traces(path: str | os.PathLike[str], logs: Mapping[str, Sequence[Row]], **about: Any) -> Path:
    """Write traces as strict JSON, all or nothing: ``{"bp_log": [...], "dfa_log": [...]}``, what is not finite as a string.

    Args:
        path: where.
        logs: the rows by the name of the run.
        about: more members, such as ``title`` and ``command``.
    """
    members = [(key, json.dumps(_plain(value), allow_nan=False, ensure_ascii=False)) for key, value in about.items()]
    for name, rows in logs.items():
        lines = ",\n".join(json.dumps(_plain(entry), allow_nan=False) for entry in rows)
        members.append((name + LOG, f"[\n{lines}\n]"))
    text = "{\n" + ",\n".join(f"{json.dumps(key)}: {value}" for key, value in members) + "\n}\n"
    return write_atomically(path, text)


def load_traces(path: str | os.PathLike[str]) -> tuple[str, dict[str, list[Row]]]:
    """``(title, {name: rows})`` of a file: an object whose members ``NAME_log`` are logs, or a log alone.

    Raises:
        ValueError: it is no such file, or a row of it is none; names it.
        OSError: it cannot be read.
    """
    source = Path(path)
    try:
        document = json.loads(source.read_bytes())
    except ValueError as error:
        raise ValueError(f"{source} must be JSON: {error}") from None
    if isinstance(document, list):
        document = {source.stem + LOG: document}
    members = document.items() if isinstance(document, dict) else ()
    logs = {key.removesuffix(LOG): value for key, value in members if key.endswith(LOG)}
    if not logs or not all(isinstance(log, list) for log in logs.values()):
        raise ValueError(f"{source} must be a list of rows, or an object with such lists as bp_log")
    checked = {name: [parse(entry, f"{source}: {name}{LOG}[{i}]") for i, entry in enumerate(log)] for name, log in logs.items()}
    return str(document.get("title", source.stem)), checked


def _plain(value: Any) -> Any:
    """In strict JSON's own types."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _numbers(value: Any) -> Any:
    """Back from strict JSON."""
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NAMES.get(value, value) if isinstance(value, str) else value
