"""Histories as files: ``.npz`` and strict ``.json``, which say the same; equal histories give equal bytes."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Content = dict[str, Any]
"""``columns`` (name -> array), ``layers`` (layer -> metric -> array) and ``meta``."""

HEADER = "__history__"
"""The member of an .npz with everything that is no array; no column may have its name."""

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def write(path: Path, form: str, content: Content) -> bytes:
    """The bytes of the file that the path's suffix asks for.

    Raises:
        ValueError: the path ends in neither ``.npz`` nor ``.json``.
    """
    return _npz(form, content) if _suffix(path) == ".npz" else _json(form, content)


def read(path: Path, form: str) -> Content:
    """What :func:`write` has made.

    Raises:
        ValueError: the file is no such history.
        OSError: it cannot be read.
    """
    kind, data = _suffix(path), path.read_bytes()
    try:
        return _read_npz(data, form) if kind == ".npz" else _read_json(data, form)
    except UNREADABLE as error:
        raise ValueError(f"{path} must be a history written by save: {error}") from error


UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, EOFError, zipfile.BadZipFile)
"""What a file that is no history may raise while it is read."""


def flat(columns: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All arrays; those of a layer as ``layer/metric``."""
    of_layers = {f"{layer}/{name}": array for layer, metrics in layers.items() for name, array in metrics.items()}
    return {**columns, **of_layers}


def plain(value: Any, where: str) -> Any:
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
        return {str(key): plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{place}]") for place, item in enumerate(value)]
    raise ValueError(f"{where} must be what JSON can say, not {type(value).__name__}")


def _npz(form: str, content: Content) -> bytes:
    header = json.dumps({"format": form, "layers": list(content["layers"]), "meta": content["meta"]}, allow_nan=False)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        # Not numpy.savez: it takes no array called "file", and writes the time of day.
        for name, array in [(HEADER, np.array(header)), *flat(content["columns"], content["layers"]).items()]:
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return data.getvalue()


def _json(form: str, content: Content) -> bytes:
    document = {
        "format": form,
        "meta": content["meta"],
        "columns": plain(content["columns"], "columns"),
        "layers": plain(content["layers"], "layers"),
    }
    return (json.dumps(document, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in (".npz", ".json"):
        raise ValueError(f"path must end in .npz or .json, not {path.name!r}")
    return suffix


def _read_npz(data: bytes, form: str) -> dict[str, Any]:
    arrays: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for member in archive.namelist():
            with archive.open(member) as file:
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    if HEADER not in arrays:
        raise ValueError(f"it has no {HEADER}")
    header = _checked(json.loads(str(arrays.pop(HEADER))), form)
    columns = {name: array for name, array in arrays.items() if "/" not in name}
    layers: dict[str, dict[str, NDArray[Any]]] = {layer: {} for layer in header["layers"]}
    for name, array in arrays.items():
        layer, slash, metric = name.rpartition("/")
        if slash:
            layers[layer][metric] = array
    return {"columns": columns, "layers": layers, "meta": header["meta"]}


def _read_json(data: bytes, form: str) -> dict[str, Any]:
    document = _checked(json.loads(data, parse_constant=_refuse), form)
    return {
        "columns": _numbers(document["columns"]),
        "layers": {layer: _numbers(metrics) for layer, metrics in document["layers"].items()},
        "meta": document["meta"],
    }


def _checked(document: Any, form: str) -> dict[str, Any]:
    found = document.get("format") if isinstance(document, dict) else None
    if found != form:
        raise ValueError(f"format must be {form!r}, not {found!r}")
    assert isinstance(document, dict)
    return document


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _numbers(columns: Mapping[str, list[Any]]) -> dict[str, Floats]:
    return {
        name: np.array([_NON_FINITE[item] if isinstance(item, str) else item for item in column], np.float64)
        for name, column in columns.items()
    }
