"""What is kept between runs: compiled simulations and generated Verilog, under names that say everything they were made from.

The cache lies in ``KAPPA_RTL_CACHE``, or in the user's cache folder. It is bounded: what was used longest ago goes first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

UNFIT = " \t'\"$&;()#%:*?[]{}<>|~`\\"
"""What make and Verilator's own scripts do not take in a path."""

KINDS = {
    "verilog": "generated Verilog",
    "netlist": "netlists of library cells",
    "verilator": "simulations compiled by Verilator",
    "icarus": "simulations compiled by Icarus",
    "native": "programs without Python in their loop",
    "runtime": "Verilator's own library, compiled",
}
"""What is kept: the first word of an entry's name, and what it is."""

CODE = ("*.py", "*.v", "*.cpp", "*.py.txt", "*.j2")
"""The files that are code."""

LIMIT = "KAPPA_RTL_CACHE_LIMIT"
"""Names the environment variable with the bound in MiB."""

DEFAULT_LIMIT = 2048

IN_USE = 3600
"""Seconds for which an entry that was asked for stays whatever the bound says: it may be running."""


def root() -> Path:
    """Where everything is kept; elsewhere if that path holds a character which make does not take."""
    chosen = os.environ.get("KAPPA_RTL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kappa-rtl"
    place = Path(chosen).absolute()
    if any(mark in str(place) for mark in UNFIT):
        place = Path(tempfile.gettempdir()) / f"kappa-rtl-{os.getuid()}"
    return place


def limit() -> int:
    """The bound in bytes.

    Raises:
        ValueError: ``KAPPA_RTL_CACHE_LIMIT`` is no whole number of MiB.
    """
    given = os.environ.get(LIMIT) or str(DEFAULT_LIMIT)
    if not given.isdecimal():
        raise ValueError(f"{LIMIT} must be a whole number of MiB, not {given!r}")
    return int(given) << 20


def prepare() -> Path:
    """The folder, made if it is not there.

    Raises:
        ValueError: it cannot be made or written, or the bound is no number.
    """
    limit()
    place = root()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise ValueError(f"KAPPA_RTL_CACHE must be a folder that can be written, not {str(place)!r}: {error}") from None
    return place


class Entry(NamedTuple):
    """One thing that is kept."""

    path: Path
    kind: str  #: of :data:`KINDS`
    size: int  #: bytes
    used: float  #: when it was last asked for, seconds since the epoch


def entries() -> list[Entry]:
    """Everything that is kept, what was used longest ago first."""
    return sorted(_entries(), key=lambda entry: entry.used)


def _entries() -> Iterator[Entry]:
    for path in root().glob("*"):
        kind = path.name.partition("-")[0]
        if kind in KINDS and path.suffix != ".lock":
            with contextlib.suppress(FileNotFoundError):  # somebody else trims too
                files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
                yield Entry(path, kind, sum(file.stat().st_size for file in files), path.stat().st_mtime)


def use(path: Path) -> Path:
    """Note that an entry is in use now."""
    with contextlib.suppress(FileNotFoundError):
        os.utime(path)
    return path


def trim() -> int:
    """Bring the cache within its bound; gives the bytes that went."""
    kept = entries()
    excess, gone = sum(entry.size for entry in kept) - limit(), 0
    for entry in kept:
        if gone >= excess or entry.used > time.time() - IN_USE:
            break
        _remove(entry.path)
        gone += entry.size
    return gone


def clear() -> int:
    """Remove everything that is kept; gives the bytes that went."""
    kept = entries()
    for entry in kept:
        _remove(entry.path)
    for lock in root().glob("*.lock"):
        lock.unlink(missing_ok=True)
    return sum(entry.size for entry in kept)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)


def code_digest(*places: Path) -> str:
    """A digest of the code below some folders, and of some files: what was made by other code is not found again."""
    digest = hashlib.sha256()
    for place in places:
        folder = place.parent if place.is_file() else place
        found = [place] if place.is_file() else sorted(path for suffix in CODE for path in place.rglob(suffix))
        for path in found:
            digest.update(f"{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
