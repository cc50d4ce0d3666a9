"""What a run keeps of itself while it is under way, so that it can go on: a folder in its own, which is gone when it is done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from ....golden.checkpoint import read
from ....golden.config import ThrottleConfig
from ....golden.files import write_atomically
from ....golden.training.resume import KIND, Checkpoint
from .lockstep import Log

FOLDER = "unfinished"

SECONDS = 5.0
"""At least so many lie between two savings of a run; a step that was made after the last one is made again."""

AGAIN = "the steps that were logged are computed again"


class Unfinished:
    """The folder ``unfinished`` in a run's own: a checkpoint for each of its parts, and what was handed to the RTL in every step.

    Args:
        out: the folder of the run.
        about: what decides a run, by name; what another one has left there is not used.
        resume: use what is there; it is removed otherwise.
        say: told what is not used, and why: what is another run's, and a file that is cut off or none of these.
    """

    def __init__(self, out: Path, about: Mapping[str, str | int], *, resume: bool, say: Callable[[str], None]) -> None:
        self.folder, self._say = out / FOLDER, say
        self._logs: list[Log] = []
        reason = self._foreign(about) if resume else None
        if reason is None and resume and not any(self.folder.glob("*.npz")):
            reason = "nothing was saved yet"
        if reason is not None:
            say(f"{self.folder}: {reason}; {AGAIN}")
        if not resume or reason is not None:
            self.remove()
        self.folder.mkdir(exist_ok=True)
        for path in sorted(self.folder.glob("*.npz")):
            try:
                state = read(path, KIND)
                say(f"{path.stem} {'is done' if state['done'] else 'goes on'} after {state['run']['steps']} steps")
            except ValueError as error:
                say(f"{error}; {AGAIN}")
                path.unlink()
        write_atomically(self._about, json.dumps(about, indent=1) + "\n")

    @property
    def _about(self) -> Path:
        return self.folder / "about.json"

    def _foreign(self, about: Mapping[str, str | int]) -> str | None:
        """Why what is there is not of this run; None if it is."""
        try:
            found = json.loads(self._about.read_text())
        except FileNotFoundError:
            return "nothing is saved there"
        except (OSError, ValueError):
            return "about.json must be that of a run, and cannot be read"
        other = [name for name in about if not isinstance(found, dict) or found.get(name) != about[name]]
        return f"what is saved there is of another {', '.join(other)}" if other else None

    def checkpoint(self, part: str) -> Checkpoint:
        """Where a part of the run is saved."""
        return Checkpoint(self.folder / f"{part}.npz", seconds=SECONDS, keep=True)

    def log(self, part: str, config: ThrottleConfig, *, streaming: bool) -> Log:
        """What was handed to a part of the run; forgotten where it has no checkpoint, since it is handed over again."""
        log = Log(config, streaming=streaming, path=self.folder / f"{part}.log")
        if log.steps and not (self.folder / f"{part}.npz").exists():
            self._say(f"{part}: {len(log.steps)} steps came before anything was saved, and are computed again")
            log.cut(0)
        self._logs.append(log)
        return log

    def close(self) -> None:
        for log in self._logs:
            log.close()

    def remove(self) -> None:
        """The run is done, or begins anew."""
        self.close()
        if self.folder.exists():
            shutil.rmtree(self.folder)
