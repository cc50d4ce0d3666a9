"""The folder of a search: a file for each run that is done, which are the truth, and a lock while somebody works there."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ....golden.files import write_atomically
from ....sim.cache import code_digest
from ..results import PACKAGE, Key, Results, key
from .point import Point
from .subject import Subject

RUNS = "runs"
LOCK = "lock"
"""A file that every folder of a search has, from its first moment on."""

CODE = code_digest(
    PACKAGE / "golden",
    PACKAGE / "scripts" / "experiments" / "training",
    *(Path(__file__).with_name(name) for name in ("point.py", "network.py", "trial.py", "watch.py")),
)
"""Of all that a run is made by."""


class Store:
    """What is kept of a search, in a folder.

    Args:
        folder: of the search.
        subject: what is trained; other subjects' runs are not found.
    """

    def __init__(self, folder: Path, subject: Subject) -> None:
        self.folder = folder
        self._identity = subject.identity
        self._results = Results(_read)

    def find(self, point: Point, seed: int) -> dict[str, Any] | None:
        """The result of a run that is done; None where there is none of this subject, made by this code."""
        found = self._results.find(self._path(point, seed), self._key(point, seed))
        return None if found is None else dict(found)

    def keep(self, point: Point, seed: int, result: dict[str, Any]) -> None:
        """Write a result, all or nothing."""
        content = {"key": self._key(point, seed), "point": point.to_table(), "seed": seed, "result": _plain(result)}
        write_atomically(self._path(point, seed), (json.dumps(content) + "\n").encode())

    def points(self) -> list[Point]:
        """Of the files that are there, in the order of their names."""
        found: dict[Point, None] = {}
        for path in sorted((self.folder / RUNS).glob("*.json")):
            try:
                found[Point.of_table(json.loads(path.read_text())["point"])] = None
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # not ours, or cut off: it is computed again
        return [point for point in found if not point.is_float]

    def _path(self, point: Point, seed: int) -> Path:
        return self.folder / RUNS / f"{point.id}-{seed}-{self._key(point, seed)['job'][:8]}.json"

    def _key(self, point: Point, seed: int) -> Key:
        return key(hashlib.sha256(repr((self._identity, point, seed)).encode()).hexdigest()) | {"code": CODE}


def _read(path: Path) -> tuple[Any, dict[str, Any]]:
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or not isinstance(content.get("result"), dict):
        raise ValueError(f"{path} must be a run of this command")
    return content.get("key"), _numbers(content["result"])


def _plain(value: Any) -> Any:
    """JSON knows no number that is not finite: they are kept as text."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    """The inverse of :func:`_plain`."""
    if isinstance(value, dict):
        return {name: _numbers(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return float(value) if value in ("nan", "inf", "-inf") else value


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else may work in the folder meanwhile. The file stays, but the lock is gone with its process, however that ended.

    Raises:
        ValueError: somebody does; with who it is.
    """
    (folder / RUNS).mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            who = file.read().strip() or "another process"
            raise ValueError(f"out = {str(folder)!r} must be nobody else's at this time: {who} is exploring there") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
