"""Runs that are found again: each is kept under a key of its job, the product's version and the code that made it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...sim.cache import code_digest

Key = dict[str, str]

PACKAGE = Path(__file__).resolve().parents[2]

CODE = code_digest(*(PACKAGE / room for room in ("golden", "hw", "sim", "scripts")))
"""Of the package as it was loaded: any change may change a result, and one that is made later does so in a later process."""


def key(job: str) -> Key:
    """What a result of this job is kept under.

    Args:
        job: a digest of all that the run was given.
    """
    return {"job": job, "version": metadata.version("kappa-rtl"), "code": CODE}


class Results:
    """Looks for former runs; says once if there are some that other code has made.

    Args:
        read: ``path -> (key, content)`` of a former run; a ValueError or an OSError where there is none.
    """

    def __init__(self, read: Callable[[Path], tuple[Any, Any]]) -> None:
        self._read = read
        self._told = False

    def find(self, path: Path, wanted: Key) -> Any | None:
        """The content kept at a path under this very key; None where there is none, and the run is to be made."""
        try:
            found, content = self._read(path)
        except (OSError, ValueError):
            return None  # nothing there, not ours, or cut off
        if found == wanted:
            return content
        if isinstance(found, dict) and found.get("job") == wanted["job"] and not self._told:
            self._told = True
            tqdm.write("code changed since: computing again", file=sys.stderr)
        return None
