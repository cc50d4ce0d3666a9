"""A run that is saved while it is under way, and goes on from there: bit for bit the run that was not interrupted."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import State, Stateful, read, same, write
from ..numbers import number

KIND = "run"


@dataclass(frozen=True)
class Checkpoint:
    """Where a run is saved, and how often.

    Args:
        path: an ``.npz``; where there is one of the same run, the run goes on from it.
        seconds: at least so many lie between two savings; 0 saves after every step.
        keep: whether the file stays when the run is done; the same call then gives the same history without a step.
    """

    path: str | os.PathLike[str]
    seconds: float = 30.0
    keep: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.path, (str, os.PathLike)) or Path(self.path).suffix.lower() != ".npz":
            raise ValueError(f"checkpoint must be the name of an .npz file, not {self.path!r}")
        if not number("checkpoint seconds", self.seconds) >= 0:
            raise ValueError(f"checkpoint seconds must be at least 0, not {self.seconds!r}")


class Keeper:
    """Saves a run at its checkpoint, and brings it back.

    Args:
        checkpoint: None keeps nothing.
        run: what is saved between two steps.
        settings: what the run was called with beside its unit, optimiser and estimator, whose settings are their own; another
            run's file is refused by the first that differs.
    """

    def __init__(self, checkpoint: Checkpoint | None, run: Stateful, settings: Mapping[str, Any]) -> None:
        self.checkpoint, self.run, self.settings = checkpoint, run, dict(settings)
        self._saved = time.monotonic()

    def resume(self) -> bool:
        """Go on from the file, if there is one; whether the run had ended already.

        Raises:
            ValueError: it is no checkpoint, or another run's. Nothing has changed then.
        """
        if self.checkpoint is None:
            return False
        try:  # now, and not when the first saving is due
            with tempfile.TemporaryFile(dir=Path(self.checkpoint.path).parent):
                pass
        except OSError as error:
            raise ValueError(
                f"checkpoint must be in a folder that can be written, not {os.fspath(self.checkpoint.path)!r}: {error.strerror}"
            ) from None
        if not Path(self.checkpoint.path).exists():
            return False
        state = read(self.checkpoint.path, KIND)
        try:
            same("settings", state.get("settings"), self.settings)
            self.run.load_state_dict(state["run"])
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"checkpoint {os.fspath(self.checkpoint.path)}: {error}") from None
        return bool(state["done"])

    def step(self) -> None:
        """A step has been made."""
        if self.checkpoint is not None and time.monotonic() - self._saved >= self.checkpoint.seconds:
            self._save(done=False)

    def end(self) -> None:
        """The run is done."""
        if self.checkpoint is None:
            return
        if self.checkpoint.keep:
            self._save(done=True)
        else:
            Path(self.checkpoint.path).unlink(missing_ok=True)

    def _save(self, *, done: bool) -> None:
        assert self.checkpoint is not None
        state: State = {"settings": self.settings, "run": self.run.state_dict(), "done": done}
        write(self.checkpoint.path, KIND, state)
        self._saved = time.monotonic()


def digest(*arrays: NDArray[Any] | None) -> str:
    """What tells data from other data: their shapes, dtypes and bytes; None is no array."""
    found = hashlib.sha256()
    for array in arrays:
        if array is not None:
            found.update(f"{array.shape} {array.dtype}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
