"""The runs of a report step by step: curves to zoom into, which go along with each other, and the updates in a polar plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ...style import BLACK, COLOURS, GREY, NARROW_COLOURS, PALETTE, RED
from .. import vega
from .history import RunHistory, Runs

SHOWN = 1000
"""Steps of a run at most: of a longer one some are left out, and the page says so."""

CURVES = (
    ("loss", "loss", "log"),
    ("accuracy", "accuracy of the batch", "linear"),
    ("alpha_eta_lambda_max", "αηλmax, unstable above 2", "log"),
    ("alpha", "α", "log"),
    ("curvature", "C", "log"),
    ("degrees", "angle to the float update, °", "linear"),
)
"""A metric, its title and its scale; one that no run has is left out."""

IN_FIXED_POINT = ("golden", "rtl", "narrow")

TRAIL = 20
"""Steps that stay visible behind the slider."""

NEAREST, FARTHEST = 1.5, 4.0
"""The rim of the polar plot, at least and at most: what is longer is on the rim."""


def steps_page(title: str, runs: Runs) -> str:
    """The HTML.

    Raises:
        ValueError: Altair or what inlines it is not installed.
    """
    longest = max(run.steps for run in runs.values())
    every = -(-longest // SHOWN)
    rows = [row for run in runs.values() for row in _rows(run, every)]
    distorted = any("x" in row for row in rows)
    rim = min(FARTHEST, max([NEAREST, *(row["length"] for row in rows if row.get("length") is not None)]))
    return vega.render(
        Path(__file__).with_name("steps.html.j2"),
        title=title,
        every=every,
        distorted=distorted,
        steps=vega.script(rows),
        curves=vega.script(_curves(runs, {name for row in rows for name, value in row.items() if value is not None})),
        polar=vega.script(_polar(runs, longest, every, rim) if distorted else None),
        guides=vega.script(_guides(rim) if distorted else []),
    )


def _rows(run: RunHistory, every: int) -> list[dict[str, Any]]:
    """A row a step, with few digits; the place of its update where it was measured against the float one."""
    columns = {name: run[name] for name, *_ in CURVES if name in run}
    if "angle" in run:
        columns["degrees"] = np.degrees(run["angle"])
        if run.kind in IN_FIXED_POINT:
            radius = np.minimum(run["radius_ratio"], FARTHEST)
            columns |= {"x": radius * np.cos(run["angle"]), "y": radius * np.sin(run["angle"]), "length": run["radius_ratio"]}
    made = []
    for step in range(0, run.steps, every):
        values = {name: vega.brief(float(column[step])) for name, column in columns.items()}
        made.append({"run": run.title, "step": step} | values)
    return made


def _colours(runs: Runs) -> Any:
    """A colour a run: those of the report's pictures."""
    alt = vega.altair()
    narrow = iter((*NARROW_COLOURS, *PALETTE))
    titles = [run.title for run in runs.values()]
    colours = [run.colour or (next(narrow) if run.kind == "narrow" else COLOURS[run.kind]) for run in runs.values()]
    return alt.Color("run:N", scale=alt.Scale(domain=titles, range=colours), title=None)


def _curves(runs: Runs, known: set[str]) -> dict[str, Any]:
    alt = vega.altair()
    zoom = alt.selection_interval(name="zoom", encodings=["x"], bind="scales")
    chosen = alt.selection_point(name="chosen", fields=["run"], bind="legend")
    parts = []
    for name, title, kind in CURVES:
        if name not in known:
            continue
        drawn = alt.Chart(alt.Data(name="steps")).mark_line(clip=True, strokeWidth=1.4)
        if kind == "log":
            drawn = drawn.transform_filter(alt.datum[name] > 0)
        parts.append(
            drawn.encode(
                x=alt.X("step:Q"),
                y=alt.Y(
                    f"{name}:Q",
                    title=title,
                    scale=alt.Scale(type="log") if kind == "log" else alt.Scale(zero=False),
                    axis=alt.Axis(format=".0e" if kind == "log" else "~f", tickCount=6),
                ),
                color=_colours(runs),
                opacity=alt.condition(chosen, alt.value(0.95), alt.value(0.08)),
                tooltip=["run:N", "step:Q", f"{name}:Q"],
            ).properties(height=210, width=300)
        )
    return vega.beside(parts, zoom, chosen)


def _polar(runs: Runs, longest: int, every: int, rim: float) -> dict[str, Any]:
    alt = vega.altair()
    slider = alt.binding_range(min=0, max=longest - 1, step=every, name="step ")
    at = alt.param(name="at", value=(longest - 1) // 2 // every * every, bind=slider)
    plain = alt.Axis(grid=False, title=None, ticks=False, labels=False, domain=False)
    x = alt.X("x:Q", axis=plain, scale=alt.Scale(domain=[-rim, rim], nice=False))
    y = alt.Y("y:Q", axis=plain, scale=alt.Scale(domain=[0, rim], nice=False))
    lines = alt.Chart(alt.Data(name="guides")).mark_line(color=GREY, strokeWidth=0.7, opacity=0.6)
    guides = lines.encode(x=x, y=y, detail="line:N", order="at:Q")
    labels = alt.Chart(alt.Data(name="guides")).transform_filter("datum.text != null")
    text = labels.mark_text(dx=10, dy=-4, color=GREY, fontSize=10).encode(x=x, y=y, text="text:N")
    whole = alt.Chart(alt.Data(values=[{"x": 1, "y": 0}])).mark_point(shape="diamond", size=120, color=RED, strokeWidth=2)
    dots = alt.Chart(alt.Data(name="steps")).transform_filter("isValid(datum.x)")
    shown = dots.transform_filter(f"datum.step <= at && datum.step > at - {TRAIL * every}").mark_point(filled=True, size=50)
    points = shown.encode(
        x=x,
        y=y,
        color=_colours({name: run for name, run in runs.items() if run.kind in IN_FIXED_POINT and "angle" in run}),
        opacity=alt.condition("datum.step == at", alt.value(1), alt.value(0.25)),
        stroke=alt.condition("datum.step == at", alt.value(BLACK), alt.value(None)),
        tooltip=["run:N", "step:Q", "length:Q", "degrees:Q"],
    )
    chart = (guides + text + whole.encode(x=x, y=y) + points).add_params(at).properties(height=300, width=600)
    return vega.beside([chart])


def _guides(rim: float) -> list[dict[str, Any]]:
    """Half circles of some lengths up to the rim, and rays, as dots of lines."""
    made: list[dict[str, Any]] = []
    for radius in (length for length in (0.5, 1.0, 2.0, 3.0, 4.0) if length <= rim):
        for at in range(37):
            turn = math.pi * at / 36
            place = {"x": vega.brief(radius * math.cos(turn)), "y": vega.brief(radius * math.sin(turn))}
            made.append({"line": f"r{radius}", "at": at, "text": f"{radius:g}" if at == 0 else None} | place)
    for degrees in range(0, 181, 30):
        turn = math.radians(degrees)
        for at, radius in enumerate((0.0, rim)):
            place = {"x": vega.brief(radius * math.cos(turn)), "y": vega.brief(radius * math.sin(turn))}
            made.append({"line": f"d{degrees}", "at": at, "text": f"{degrees}°" if at and degrees else None} | place)
    return made
