"""The steps of a long training in numbers, without an object for each."""

from __future__ import annotations

from array import array
from collections.abc import Mapping


class Rows:
    """The steps so far, column by column: eight bytes a number, since a training may have a million steps."""

    def __init__(self) -> None:
        self.columns: dict[str, array[float]] = {}

    def append(self, row: Mapping[str, float]) -> None:
        """A further step, with the names of all others."""
        for name, value in row.items():
            self.columns.setdefault(name, array("d")).append(value)
