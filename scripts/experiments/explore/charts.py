"""The charts of a search, as Vega-Lite: what the page shows, and the browser draws."""

from __future__ import annotations

import itertools
import math
from typing import Any

from ...style import BLACK, BLUE, GREEN, GREY, OLIVE, ORANGE, PINK, RED, SKY, TEAL, VIOLET
from .. import vega
from .found import COSTS, Found
from .space import ONE, TENSOR

HEIGHT = 230
SHAPES = (
    *("circle", "square", "triangle-up", "diamond", "triangle-down", "triangle-left", "triangle-right"),
    "M0,-1L.29,-.4L.95,-.31L.48,.15L.59,.81L0,.5L-.59,.81L-.48,.15L-.95,-.31L-.29,-.4Z",  # a star
    "M-.5,-.87L.5,-.87L1,0L.5,.87L-.5,.87L-1,0Z",  # a hexagon
    "M-1,-1L1,-1L0,0L1,1L-1,1L0,0Z",  # an hourglass
    "M-1,-1L0,0L1,-1L1,1L0,0L-1,1Z",  # a bow
    "M-1,-.5L0,-1L1,-.5L1,1L-1,1Z",  # a house
)
"""Of laws, in this order; beyond twelve they begin again."""

ENDINGS = {"dead": "cross", "diverged": "arrow"}
"""What is drawn behind a point with a run that ended so."""

COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, BLACK, VIOLET, OLIVE, TEAL, GREY)


def scatters(found: Found) -> dict[str, Any]:
    """Linked scatters of the score over each cost: a brush in one marks the same points in all, a click chooses one.

    Raises:
        ValueError: Altair is not installed.
    """
    alt = vega.altair()
    score = "held-out accuracy" if found.larger_is_better else "held-out loss"
    brush = alt.selection_interval(name="brush")
    chosen = alt.selection_point(name="chosen", fields=["point", "lanes"], on="click", nearest=False)
    data = alt.Data(name="rows")
    every = {name: list(getattr(found.axes, name)) for name in ("lanes", "target")}
    units = {name: values for name, values in every.items() if len(values) > 1}
    shown = alt.selection_point(
        name="shown",
        fields=list(units),
        value=[{name: values[0] for name, values in units.items()}],
        bind={name: alt.binding_radio(options=values, name=f"{name} ") for name, values in units.items()},
    )
    laws = list(dict.fromkeys(row["law"] for row in found.rows))
    parts = []
    for cost, title in COSTS.items():
        x = alt.X(f"{cost}:Q", title=title, scale=alt.Scale(zero=False, padding=12), axis=alt.Axis(format="~s", tickCount=4))
        y = alt.Y("score:Q", title=score, scale=alt.Scale(zero=False))
        base = alt.Chart(data).transform_filter(shown) if units else alt.Chart(data)
        front = (
            base.transform_filter(alt.datum[f"front_{cost}"])
            .mark_line(color=GREY, strokeDash=[4, 3], interpolate="step-after")
            .encode(x=x, y=y, order=alt.Order(f"{cost}:Q"))
        )
        spread = base.mark_rule(color=GREY, opacity=0.5).encode(x=x, y=alt.Y("least:Q", title=score), y2="most:Q")
        sizes = alt.Size("grids:N", scale=alt.Scale(domain=[ONE, TENSOR], range=[45, 130]), legend=None)
        points = base.mark_point(filled=True, size=90).encode(
            **({"size": sizes} if len(found.axes.grids) > 1 else {}),
            x=x,
            y=y,
            color=alt.Color("rounding:N", scale=alt.Scale(range=list(COLOURS)), legend=alt.Legend()),
            shape=alt.Shape("law:N", scale=alt.Scale(domain=laws, range=[SHAPES[at % len(SHAPES)] for at in range(len(laws))])),
            opacity=alt.condition(brush, alt.value(0.9), alt.value(0.12)),
            stroke=alt.condition(chosen, alt.value(BLACK), alt.value(None), empty=False),
            tooltip=[
                alt.Tooltip("weight:N"),
                alt.Tooltip("gradient:N"),
                alt.Tooltip("update:N"),
                alt.Tooltip("grids:N"),
                alt.Tooltip("scales:N"),
                alt.Tooltip("rounding:N"),
                alt.Tooltip("law:N"),
                alt.Tooltip("score:Q", format=".3f"),
                alt.Tooltip("ending:N"),
                alt.Tooltip(f"{cost}:Q", title=title, format=".4~s"),
            ],
        )
        # Behind the points, so that a click still finds them.
        marks = [
            base.transform_filter(alt.datum.ending == ending).mark_point(filled=True, size=260, shape=shape, color=BLACK)
            for ending, shape in ENDINGS.items()
        ]
        reference = (
            alt.Chart(alt.Data(name="reference"))
            .mark_rule(color=BLACK, strokeWidth=1)
            .encode(y="score:Q", tooltip=["law:N", "score:Q"])
        )
        ends = [one.encode(x=x, y=y) for one in marks]
        parts.append(alt.layer(front, spread, reference, *ends, points).properties(height=HEIGHT, width=300))
    return vega.beside(parts, brush, chosen, *([shown] if units else []))


def curves() -> dict[str, Any]:
    """Loss, alpha and curvature over the steps of the point that was chosen, a line a seed."""
    alt = vega.altair()
    zoom = alt.selection_interval(name="zoom", encodings=["x"], bind="scales")
    parts = []
    for name, title, kind in (("loss", "loss", "log"), ("alpha", "alpha", "linear"), ("curvature", "C", "log")):
        shown = alt.datum[name] > 0 if kind == "log" else alt.datum[name] >= 0
        parts.append(
            alt.Chart(alt.Data(name="curves"))
            .transform_filter(shown)
            .mark_line(clip=True)
            .encode(
                x=alt.X("step:Q"),
                y=alt.Y(f"{name}:Q", title=title, scale=alt.Scale(type=kind, zero=False)),
                color=alt.Color("run:N", scale=alt.Scale(range=list(COLOURS)), legend=alt.Legend(orient="top", title=None)),
                tooltip=["run:N", "step:Q", f"{name}:Q"],
            )
            .properties(height=150, width=300)
        )
    return vega.beside(parts, zoom)


def rows(found: Found) -> list[dict[str, Any]]:
    """The rows as the charts want them: marked, with the fronts, and with few digits."""
    units = itertools.product(found.axes.lanes, found.axes.target)
    fronts: dict[str, set[int]] = {cost: set() for cost in COSTS}
    for lanes, target in units:
        for cost, kept in fronts.items():
            kept |= {id(row) for row in found.front(cost, lanes=lanes, target=target)}
    made = []
    finite = [row["score"] for row in found.rows if math.isfinite(row["score"])]
    rail = max(finite, default=1.0)  # where a loss that is not finite is drawn
    for row in found.rows:
        on = {f"front_{cost}": id(row) in kept for cost, kept in fronts.items()}
        shown = {name: vega.brief(value) for name, value in row.items()} | on
        for name in ("score", "least", "most"):
            if shown[name] is None:
                shown[name] = vega.brief(rail)
        made.append(shown)
    return made
