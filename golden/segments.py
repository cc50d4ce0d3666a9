"""Segments: stretches of a unit's elements with a binary point of their own, under one alpha and one step.

A segment of scale s has all of its grids s bits finer than the unit's: gradients on ``2**-(f_G + s)``, weights on
``2**-(f_w + s)``, and directions and updates likewise. Codes, rails and roundings are the unit's, so nothing in a lane knows of
it; only the exact sums of squares of segments are shifted onto the finest grid before they are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .numbers import whole

MOST_SCALE = 7
"""Bits by which a segment's grids may be finer than the unit's: three bits of its entry in the table."""


@dataclass(frozen=True)
class Segment:
    """A stretch of elements, in the order of theta.

    Attributes:
        elements: how many, 1 or more.
        scale: bits by which its grids are finer than the unit's, 0..7.
        name: what it is called in reports.
    """

    elements: int
    scale: int = 0
    name: str = ""

    def to_table(self) -> dict[str, Any]:
        """As a table of ``[[throttle.segments]]``."""
        return {"name": self.name, "elements": self.elements, "scale": self.scale}


class Stretch(NamedTuple):
    """Neighbouring elements, and the bits that their sums of squares are shifted up by onto the grids of A and of B."""

    place: slice
    gradient_shift: int
    motion_shift: int


def parse(given: Any, scale_max: int) -> tuple[Segment, ...]:
    """A layout from segments or tables of them, each checked.

    Raises:
        ValueError: names segment, field, value and rule.
    """
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"segments must be a number or a list of segments, not {given!r}")
    found: list[Segment] = []
    for k, one in enumerate(given):
        where = f"segments[{k}]"
        known = [field.name for field in fields(Segment)]
        if isinstance(one, Segment):
            one = one.to_table()
        if not isinstance(one, Mapping):
            raise ValueError(f"{where} must be a table with elements, scale and name, not {one!r}")
        for name in one:
            if name not in known:
                raise ValueError(f"{where}: {name} is no field of a segment; it has {', '.join(known)}")
        if "elements" not in one:
            raise ValueError(f"{where}.elements must be given")
        name = one.get("name", "") or f"segment{k}"
        if not isinstance(name, str):
            raise ValueError(f"{where}.name must be text, not {name!r}")
        if name in [segment.name for segment in found]:
            raise ValueError(f"{where}.name must be a name that no other segment has, not {name!r}")
        elements = whole(f"{where}.elements", one["elements"], 1, 1 << 32)
        found.append(Segment(elements, whole(f"{where}.scale", one.get("scale", 0), 0, scale_max), name))
    return tuple(found)


def beats(segments: Sequence[Segment], lanes: int) -> int:
    """Beats that a pass takes: each segment begins on a new one."""
    return sum(-(-segment.elements // lanes) for segment in segments)


def words(capacity: int, entries: int, lanes: int) -> int:
    """Beats that hold any layout of up to ``entries`` segments with ``capacity`` elements together."""
    return (capacity + entries * (lanes - 1)) // lanes


def slices(segments: Sequence[Segment]) -> Iterator[tuple[Segment, slice]]:
    """Each segment with its place in theta."""
    start = 0
    for segment in segments:
        yield segment, slice(start, start + segment.elements)
        start += segment.elements


def scales(segments: Sequence[Segment]) -> NDArray[np.int64]:
    """The scale of every element, (N,)."""
    return np.repeat([segment.scale for segment in segments], [segment.elements for segment in segments])


def in_beats(segments: Sequence[Segment], lanes: int) -> NDArray[np.int64]:
    """The place of every element among the lanes of all beats, one beat after the other, (N,)."""
    places, first = [], 0
    for segment in segments:
        places.append(first + np.arange(segment.elements))
        first += -(-segment.elements // lanes) * lanes
    return np.concatenate(places)
