"""How a soak is shared out: parts that any process does, each equal to the bit wherever that is."""

from __future__ import annotations

import time
from functools import cache
from random import Random
from typing import NamedTuple

import numpy as np

from .layouts import SEGMENTED, Layouts
from .soak import SCALARS, UPDATES, Elements, Failure, Result, Scalars


class Part(NamedTuple):
    """A share of the soak; equal parts are equal to the bit, on any number of processes."""

    kind: str  #: ``scalars``, ``elements`` or ``layouts``
    name: str  #: of the configuration, in :data:`SCALARS`, :data:`UPDATES` or :data:`~kappa_rtl.sim.stress.layouts.SEGMENTED`
    seed: int
    number: int
    size: int  #: scalar steps, element updates at least, or layouts


SHARE = {"scalars": 10_000, "elements": 400_000, "layouts": 200}
"""How much a part has at most."""


def parts(elements: int, steps: int, seed: int, layouts: int = 0) -> list[Part]:
    """The parts of a soak of that many element updates, scalar steps and layouts of segments.

    Half of the steps are those of the first scalar part.
    """
    wide, *others = SCALARS
    share = steps // 2 // len(others)
    counts = [("scalars", wide, steps - share * len(others)), *(("scalars", name, share) for name in others)]
    first, *rest = UPDATES
    counts += [("elements", name, elements // len(UPDATES)) for name in rest]
    counts.append(("elements", first, elements - sum(count for kind, _, count in counts if kind == "elements")))
    last = list(SEGMENTED)[-1]
    counts += [("layouts", name, layouts // len(SEGMENTED)) for name in SEGMENTED if name != last]
    counts.append(("layouts", last, layouts - sum(count for kind, _, count in counts if kind == "layouts")))
    return [
        Part(kind, name, seed, number, min(SHARE[kind], count - begin))
        for kind, name, count in counts
        for number, begin in enumerate(range(0, count, SHARE[kind]))
    ]


@cache
def prepared(kind: str, name: str) -> Scalars | Elements:
    """The program of a configuration, built or found."""
    return Scalars(SCALARS[name]) if kind == "scalars" else Elements(UPDATES[name])


def build(kind: str, name: str) -> None:
    """Build what a part needs, so that all processes find it."""
    if kind == "layouts":
        Layouts(name).__exit__()
    else:
        prepared(kind, name)


def work(part: Part) -> Result:
    """Do a part."""
    begun = time.perf_counter()
    random = f"{part.seed} {part.kind} {part.name} {part.number}"
    if part.kind == "layouts":
        with Layouts(part.name) as unit_of_segments:
            done, cycles, difference = unit_of_segments.soak(Random(random), part.size)
        failure = None if difference is None else Failure(f"{part.name}: {difference}", random, "", "")
        return Result(done, cycles, failure, time.perf_counter() - begun)
    unit = prepared(part.kind, part.name)
    if isinstance(unit, Scalars):
        result = unit.soak(Random(random), part.size)
    else:
        result = unit.soak(np.random.default_rng(list(random.encode())), part.size)
    return result._replace(seconds=time.perf_counter() - begun)
