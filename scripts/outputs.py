"""Files and folders that a command is asked to write: refused before any work is done for them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click


class Output(click.Path):
    """A path at which a file can be written: nothing is there yet or a file is, in a folder that can be written.

    With ``parents`` the command makes the folder if it is missing.
    """

    def __init__(self, suffix: str = "", *, parents: bool = False) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self._suffix, self._parents = suffix, parents

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if path.exists() and not path.is_file():
            self.fail(f"{str(path)!r} must be a file, or nothing yet", param, ctx)
        if self._suffix and path.suffix != self._suffix:
            self.fail(f"{str(path)!r} must end in {self._suffix}", param, ctx)
        folder = nearest(path.parent) if self._parents else path.parent
        if (reason := refusal(folder)) is not None:
            self.fail(f"{str(path)!r} must be in a folder that can be written: {reason}", param, ctx)
        return path


class Folder(click.Path):
    """A folder in which files can be written, or that can be made; it is not made here."""

    def __init__(self) -> None:
        super().__init__(file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if (reason := refusal(nearest(path))) is not None:
            self.fail(f"{str(path)!r} must be a folder that can be written: {reason}", param, ctx)
        return path


def nearest(folder: Path) -> Path:
    """The folder itself, or the one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())


def refusal(folder: Path) -> str | None:
    """Why no file can be written into a folder; None if one can. Tried, as no permission tells it of every kind of folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)
