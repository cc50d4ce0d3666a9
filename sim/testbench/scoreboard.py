"""What was expected against what came, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any


class Mismatch(AssertionError):
    """A component gave something else than the model."""


class Scoreboard:
    """A queue of expected values, each compared with the next that is observed.

    A structure is compared by the fields that are expected: those left out may hold anything.

    Raises:
        Mismatch: with the number of the value, what came, what was expected, and the note that came with it.
    """

    def __init__(self, name: str, where: str = "") -> None:
        self.name, self._where = name, where
        self._expected: deque[tuple[Any, Any]] = deque()
        self.compared = 0

    def __len__(self) -> int:
        """Values still to come."""
        return len(self._expected)

    def expect(self, value: Any, note: Any = "") -> None:
        """Queue what is to come; the note says what it comes from."""
        self._expected.append((value, note))

    def observe(self, value: Any) -> None:
        """Compare the next value."""
        if not self._expected:
            raise Mismatch(
                f"{self._where}{self.name}: nothing was expected after {self.compared} values, but {_text(value)} came"
            )
        expected, note = self._expected.popleft()
        for field, want, got in _differences(expected, value):
            raise Mismatch(
                f"{self._where}{self.name}{field} of value {self.compared} must be {_text(want)}, not {_text(got)}"
                + (f", for {note}" if note != "" else "")
            )
        self.compared += 1

    def drained(self) -> None:
        """Everything that was expected has come."""
        if self._expected:
            raise Mismatch(
                f"{self._where}{self.name}: {len(self._expected)} of {self.compared + len(self._expected)} values never came"
            )


def _differences(expected: Any, observed: Any, field: str = "") -> list[tuple[str, Any, Any]]:
    """The leaves that differ: their path, expected, observed."""
    named = expected._asdict() if hasattr(expected, "_asdict") else expected
    if isinstance(named, Mapping):
        return [d for key, want in named.items() for d in _differences(want, observed[key], f"{field}.{key}")]
    if isinstance(named, (list, tuple)):
        return [
            d for i, (want, got) in enumerate(zip(named, observed, strict=True)) for d in _differences(want, got, f"{field}[{i}]")
        ]
    return [] if named == observed else [(field, named, observed)]


def _text(value: Any) -> str:
    return f"{value} ({value:#x})" if isinstance(value, int) and not isinstance(value, bool) else str(value)
