"""Files that a command is asked to write: refused before any work is done for them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click


class Output(click.Path):
    """A path at which a file can be written: nothing is there yet or a file is, in a folder that can be written."""

    def __init__(self, suffix: str = "") -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self._suffix = suffix

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        assert isinstance(path, Path)
        if path.exists() and not path.is_file():
            self.fail(f"{str(path)!r} must be a file, or nothing yet", param, ctx)
        if self._suffix and path.suffix != self._suffix:
            self.fail(f"{str(path)!r} must end in {self._suffix}", param, ctx)
        if not os.access(path.parent, os.W_OK):
            self.fail(f"{str(path)!r} must be in a folder that can be written", param, ctx)
        return path
