"""Layouts of segments at random."""

from __future__ import annotations

import itertools
from random import Random

from ...golden.config import ThrottleConfig
from ...golden.segments import Segment


def some_layout(random: Random, config: ThrottleConfig) -> tuple[Segment, ...]:
    """Segments that fit the unit, of any sizes: often as many as its table holds, or all that it has room for."""
    count = min(random.choice([1, config.entries, random.randint(1, config.entries)]), config.room)
    cuts = sorted(random.sample(range(1, config.room), count - 1)) if count > 1 else []
    end = random.choice([config.room, random.randint(cuts[-1] + 1 if cuts else 1, config.room)])
    return tuple(
        Segment(stop - start, random.randint(0, config.scale_max), f"{start}")
        for start, stop in itertools.pairwise([0, *cuts, end])
    )
