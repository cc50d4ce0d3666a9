"""Units of a search synthesised: what the tools make of them, in the place of what was estimated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ....golden.files import write_atomically
from ....hw.synth.design import unit_of
from ....hw.synth.estimate import aimed
from ....hw.synth.synthesis import Figures, measure, target_of, tool
from . import SYNTH
from .found import COSTS, Found, Key, key_of

SEEDS = (1,)
"""Of placement: one a unit."""

FOLDER = "synth"


def ready(which: str, targets: Iterable[str]) -> None:
    """Refuse what could not be measured.

    Raises:
        ValueError: no such choice, or a tool that a target needs is not installed.
    """
    if which not in SYNTH:
        raise ValueError(f"synth must be one of {', '.join(SYNTH)}, not {which!r}")
    if which == "none":
        return
    for target in targets:
        for name in ("yosys", *target_of(aimed(target)[0]).placer[:1]):
            if tool(name) is None:
                raise ValueError(f'synth {which!r} must have {name}: pip install "kappa-rtl[synth]"')


def measured(found: Found, which: str, out: Path) -> dict[Key, Figures]:
    """Synthesise and place the units of the fronts, or all; each is written when it is done, and found again.

    Args:
        which: ``front``, the units that are on the front of some cost, among all or among those of their lanes; ``all``.
        out: the folder of the search.

    Raises:
        SynthesisError: a tool fails.
    """
    rows = found.rows if which == "all" else _on_fronts(found)
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    made: dict[Key, Figures] = {}
    with tqdm(rows, unit="unit", desc="synth", disable=None, dynamic_ncols=True) as bar:
        for row in bar:
            bar.set_postfix_str(f"{row['weight']}, {row['rounding']}, {row['lanes']} lanes")
            one = next(one for one in found.trained if one.point.id == row["point"])
            path = out / FOLDER / f"{row['point']}-{row['lanes']}-{row['target']}.json"
            unit, (target, _) = unit_of(found.config(one.point, row["lanes"])), aimed(row["target"])
            figures = measure(unit, str(one.point), target=target, seeds=SEEDS, known=_known(path, target))
            write_atomically(path, json.dumps(figures.to_json(), indent=1) + "\n")
            made[key_of(row)] = replace(figures, name=str(one.point))
    return made


def _on_fronts(found: Found) -> list[dict[str, Any]]:
    fronts = [found.front(cost) for cost in COSTS]
    fronts += [
        found.front(cost, lanes=lanes, target=target)
        for cost in COSTS
        for lanes in found.axes.lanes
        for target in found.axes.target
    ]
    kept = {key_of(row) for front in fronts for row in front}
    return [row for row in found.rows if key_of(row) in kept]


def _known(path: Path, target: str) -> Figures | None:
    """What was measured before; the measurement itself sees whether it is of the same Verilog."""
    try:
        return Figures.from_json(json.loads(path.read_text()), target_of(target))
    except (OSError, ValueError, KeyError, TypeError):
        return None  # nothing there, or cut off
