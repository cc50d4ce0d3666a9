"""The page of a search: self-contained and interactive, for a designer and a researcher both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tomli_w

from .. import vega
from . import charts
from .found import COSTS, Found, Trained, shown
from .recommend import PROBABILITY, WITHIN, Recommendation
from .space import TENSOR, finer

ABOUT = (
    "from the configuration: look-up tables are estimated, the clock is that of the nearest core that was measured or the one "
    "that was given, and energy is an estimate of what 180 nm gates would take, good for ratios; "
    "memory, bytes and cycles are exact"
)


def page(found: Found, recommendation: Recommendation | None, *, within: float = WITHIN, probability: float = PROBABILITY) -> str:
    """The HTML, with its libraries inside.

    Raises:
        ValueError: Altair or what inlines it is not installed.
    """
    lanes = min(found.axes.lanes)
    front = found.front(lanes=lanes)
    first = recommendation.trained.point.id if recommendation else front[0]["point"] if front else ""
    best = found.reference
    return vega.render(
        Path(__file__).with_name("page.html.j2"),
        title=found.subject.title,
        seeds=len(best.scores),
        recommendation=str(recommendation) if recommendation else "",
        within=within,
        probability=probability,
        notes=[*_notes(found)],
        costs=ABOUT,
        cost_names=list(COSTS),
        shown=shown,
        cost_titles=list(COSTS.values()),
        front=front,
        lanes=lanes,
        rows=vega.script(charts.rows(found)),
        reference=vega.script([{"law": str(best.point), "score": vega.brief(best.median("score"))}]),
        details=vega.script({one.point.id: _details(found, one) for one in found.trained}),
        scatters=vega.script(charts.scatters(found)),
        curves=vega.script(charts.curves()),
        sizes=len(found.axes.grids) > 1,
        first=vega.script(first) if first else "",
        lanes_first=found.axes.lanes[0],
    )


def _notes(found: Found) -> list[str]:
    """What to know before the charts are read."""
    best = found.reference
    scores = best.scores
    made = [
        f"{best.point}, without any grid: {best.median('score'):.3f} ({min(scores):.3f} to {max(scores):.3f} over the seeds)."
    ]
    made += [
        f"{other.point}: {other.ending}." if other.ending == "diverged" else f"{other.point}: {other.median('score'):.3f}."
        for other in found.references
        if other is not best
    ]
    made.append(f"{found.calibration}."[:1].upper() + f"{found.calibration}."[1:])
    if TENSOR in found.axes.grids:
        made.append(f"{finer(found.calibration.apart)}."[:1].upper() + f"{finer(found.calibration.apart)}."[1:])
    if found.calibration.rule is not None:
        made.append(f"For comparison, {found.calibration.rule}.")
    if found.measured:
        made.append(f"{len(found.measured)} of {len(found.rows)} units were synthesised and placed; the others are estimated.")
    endings = [one.ending for one in found.trained]
    for name, text in (("diverged", "diverged"), ("dead", "stood still at the end")):
        if name in endings:
            made.append(f"{endings.count(name)} of {len(endings)} points {text} with a seed or more.")
    return made


def _details(found: Found, one: Trained) -> dict[str, Any]:
    """What a click shows."""
    scores = ", ".join(f"{score:.3f}" for score in one.scores)
    endings = ", ".join(result["ending"] for result in one.results)
    return {
        "title": str(one.point),
        "note": f"Scores by seed: {scores}; ended {endings}. Drag and scroll over a curve to zoom; all three go along.",
        "toml": {
            str(lanes): tomli_w.dumps({"throttle": found.config(one.point, lanes).to_table()}) for lanes in found.axes.lanes
        },
        "command": "kappa-rtl export --config unit.toml -o throttle.v   # the lines above as unit.toml",
        "runs": [
            {"name": f"seed {found.subject.seed + number}"}
            | {name: [vega.brief(value) for value in values] for name, values in result["curve"].items()}
            for number, result in enumerate(one.results)
        ],
    }
