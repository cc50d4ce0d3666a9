"""State that is saved and found again: of a unit, an optimiser, an estimator, or a whole run; one ``.npz`` each, bit for bit.

A state is a mapping of names to arrays, numbers, truth values, text, None, lists of them and further mappings. In the file the
arrays are members of their own, and everything else stands in the JSON of a header, with the kind of thing that was saved, a
version, and a digest of the whole.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import write_atomically
from .numbers import item

State = dict[str, Any]

FORMAT, VERSION = "kappa_rtl.checkpoint", 1
HEADER = "header"
"""The member with the JSON; arrays have names with a slash before them."""

_ARRAY, _FLOAT = "$array", "$float"


class Stateful(ABC):
    """What can be saved and loaded: ``state_dict`` and ``load_state_dict`` are its own, the files are the same for all."""

    @abstractmethod
    def state_dict(self) -> State:
        """Everything that the next step depends on, as copies."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of the same kind and configuration.

        Raises:
            ValueError: another configuration, or no such state; names the field. Nothing has changed then.
        """

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the state to an ``.npz``, all or nothing; equal states give equal bytes.

        Raises:
            ValueError: the path does not end so.
        """
        return write(path, type(self).__name__, self.state_dict())

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go on from what :meth:`save` wrote for a thing of the same kind and configuration.

        Raises:
            ValueError: a file that is cut off, of something else, of another version or another configuration; names the file,
                the field and the rule. Nothing has changed then.
            OSError: it cannot be read.
        """
        state = read(path, type(self).__name__)
        try:
            self.load_state_dict(state)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from None


def load_together(parts: Sequence[tuple[Stateful, Mapping[str, Any]]]) -> None:
    """Load each part's state, or none of them: when one refuses, the others are put back."""
    before = [(part, part.state_dict()) for part, _ in parts]
    try:
        for part, state in parts:
            part.load_state_dict(state)
    except ValueError:
        for part, state in before:
            part.load_state_dict(state)
        raise


# ---------------------------------------------------------------- files


def write(path: str | os.PathLike[str], kind: str, state: Mapping[str, Any]) -> Path:
    """Write a state of some kind, all or nothing."""
    target = _named(path)
    write_atomically(target, to_bytes(kind, state))
    return target


def to_bytes(kind: str, state: Mapping[str, Any]) -> bytes:
    """The content of such a file, for whoever keeps it within another."""
    arrays: dict[str, NDArray[Any]] = {}
    body = {"format": FORMAT, "version": VERSION, "kind": kind, "state": _packed(state, "", arrays)}
    header = json.dumps(body | {"digest": _digest(body, arrays)}, allow_nan=False)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        # Not numpy.savez, which writes the time of day.
        for name, array in [(HEADER, np.array(header)), *arrays.items()]:
            member = zipfile.ZipInfo(f"{name}.npy")
            member.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return data.getvalue()


def read(path: str | os.PathLike[str], kind: str) -> State:
    """The state that :func:`write` has put there.

    Raises:
        ValueError: a file that is cut off, of something else, another version or another kind; names the file and the rule.
        OSError: it cannot be read.
    """
    source = _named(path)
    return of_bytes(source.read_bytes(), kind, str(source))


def of_bytes(data: bytes, kind: str, source: str) -> State:
    """The state in such content.

    Args:
        source: what errors call it.

    Raises:
        ValueError: as of :func:`read`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = {}
            for member in archive.namelist():
                whole = io.BytesIO(archive.read(member))  # to its end, where its sum is checked
                arrays[member.removesuffix(".npy")] = np.lib.format.read_array(whole, allow_pickle=False)
        body = json.loads(str(arrays.pop(HEADER))) if HEADER in arrays else {}
    except (ValueError, LookupError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{source} must be a whole checkpoint, not one that is cut off or something else: {error}") from None
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ValueError(f"{source}: format must be {FORMAT!r}, not {body.get('format') if isinstance(body, dict) else body!r}")
    for name, wanted in (("version", VERSION), ("kind", kind)):
        if body.get(name) != wanted:
            raise ValueError(f"{source}: {name} must be {wanted!r}, not {body.get(name)!r}")
    digest = body.pop("digest", None)
    if digest != _digest(body, arrays):
        raise ValueError(f"{source}: digest must be that of the content, not {digest!r}: the file was changed")
    state = _unpacked(body["state"], arrays)
    assert isinstance(state, dict)
    return state


def _named(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path must be the name of an .npz file, not {path!r}")
    if Path(path).suffix.lower() != ".npz":
        raise ValueError(f"path must end in .npz, not {os.fspath(path)!r}")
    return Path(path)


def _digest(body: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    found = hashlib.sha256(json.dumps(body, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        found.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _packed(value: Any, place: str, arrays: dict[str, NDArray[Any]]) -> Any:
    """What JSON can say; arrays are put aside under their place."""
    if isinstance(value, np.ndarray):
        arrays[place] = value
        return {_ARRAY: place}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, Mapping):
        return {name: _packed(inner, f"{place}/{name}", arrays) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_packed(inner, f"{place}/{i}", arrays) for i, inner in enumerate(value)]
    assert value is None or isinstance(value, (bool, int, float, str)), f"{place}: a state does not hold {value!r}"
    return value


def _unpacked(value: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if isinstance(value, dict):
        if _ARRAY in value:
            return arrays[value[_ARRAY]]
        if _FLOAT in value:
            return float(value[_FLOAT])
        return {name: _unpacked(inner, arrays) for name, inner in value.items()}
    return [_unpacked(inner, arrays) for inner in value] if isinstance(value, list) else value


# ---------------------------------------------------------------- checks


def same(name: str, found: Any, own: Any) -> None:
    """Refuse a setting that is not the one of whoever loads it; mappings field by field.

    Raises:
        ValueError: names the field and both values.
    """
    if isinstance(own, Mapping) and isinstance(found, Mapping):
        for key in dict.fromkeys([*own, *found]):
            same(key, found.get(key), own.get(key))
    elif isinstance(own, Mapping) or isinstance(found, Mapping) or found != own:
        raise ValueError(f"{name} must be {own!r} as here, not {found!r} as in what is loaded")


def agree(state: Mapping[str, Any], own: State, *settings: str, free: Sequence[str] = ()) -> None:
    """Refuse a state that is not of the make of one's own present one.

    The names in ``settings`` must have the very values, mappings field by field; everything else but what is ``free`` the same
    names, kinds of values, shapes and dtypes. Lists may have any length.

    Raises:
        ValueError: names the field, the value and the rule.
    """
    _named_alike("state", state, own)
    for name in settings:
        same(name, state[name], own[name])
    for name in own:
        if name not in (*settings, *free):
            _like(name, state[name], own[name])


def _named_alike(name: str, found: Any, own: Mapping[str, Any]) -> None:
    if not isinstance(found, Mapping) or set(found) != set(own):
        names = ", ".join(sorted(found)) if isinstance(found, Mapping) else repr(found)
        raise ValueError(f"{name} must have {', '.join(sorted(own))}, not {names}")


def _like(name: str, found: Any, own: Any) -> None:
    if isinstance(own, Mapping):
        _named_alike(name, found, own)
        for key, value in own.items():
            _like(f"{name}.{key}", found[key], value)
    elif isinstance(own, np.ndarray):
        if not isinstance(found, np.ndarray) or (found.shape, found.dtype) != (own.shape, own.dtype):
            shown = f"{found.dtype} of {found.shape}" if isinstance(found, np.ndarray) else repr(found)
            raise ValueError(f"{name} must be {own.dtype} of {own.shape}, not {shown}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(found, (list, tuple)):
            raise ValueError(f"{name} must be a list, not {found!r}")
    elif type(item(found)) is not type(item(own)):
        raise ValueError(f"{name} must be of {type(item(own)).__name__}, not {found!r}")
