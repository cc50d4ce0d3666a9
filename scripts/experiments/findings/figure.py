"""A finding as a picture: a panel a task and measure, a line a choice with the range of its seeds, float in black."""

from __future__ import annotations

import io
from statistics import median
from typing import TYPE_CHECKING, Any

from ...style import BLACK, GREY, LIMIT, PALETTE, STYLE
from .finding import Finding
from .run import Content
from .table import TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKERS = "osD^vPX*"


def draw(finding: Finding, content: Content) -> bytes:
    """A PNG."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    tasks, measures = content["tasks"], finding.measures
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(max(7.5, 4.9 * len(tasks)), 4.2 * len(measures)), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(measures), len(tasks), squeeze=False, sharey="row")
        lines = list(dict.fromkeys(dot["line"] for task in tasks for dot in task["dots"]))
        for row, measure in zip(axes, measures, strict=True):
            for ax, task in zip(row, tasks, strict=True):
                _panel(ax, finding, task, measure, lines)
            what = f"held-out {TITLES[measure]}" if measure == "score" else TITLES[measure]
            row[0].set_ylabel(f"{what}\nmedian and range of {content['seeds']} seeds", fontsize=9.5)
        figure.suptitle(finding.asks, x=0.01, ha="left", fontsize=12, fontweight="bold")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _panel(ax: Axes, finding: Finding, task: dict[str, Any], measure: str, lines: list[str]) -> None:
    places = sorted({dot["x"] for dot in task["dots"]})
    at = {x: x if finding.x.endswith("_bits") else number for number, x in enumerate(places)}  # other axes have no even scale
    if measure in ("margin", "growing"):
        ax.axhline(LIMIT, color=BLACK, lw=1, label="unstable above")
    if measure == "score" and "float" in task:
        scores = task["float"]["score"]
        ax.axhspan(min(scores), max(scores), color=GREY, alpha=0.2, lw=0)
        ax.axhline(median(scores), color=BLACK, lw=1, label="float")
    for number, line in enumerate(lines):
        dots = sorted((dot for dot in task["dots"] if dot["line"] == line), key=lambda dot: dot["x"])
        if not dots:
            continue
        colour = PALETTE[number % len(PALETTE)]
        x = [at[dot["x"]] + 0.06 * (number - (len(lines) - 1) / 2) for dot in dots]
        ax.vlines(x, [min(dot[measure]) for dot in dots], [max(dot[measure]) for dot in dots], color=colour, alpha=0.5, lw=1.5)
        ax.plot(x, [median(dot[measure]) for dot in dots], color=colour, marker=MARKERS[number % len(MARKERS)], ms=5, label=line)
    ax.set_xticks(list(at.values()), [f"{x:g}" for x in places])
    ax.set_xlabel(finding.label)
    ax.set_title(task["title"], fontsize=9.5)
    if measure in ("min_alpha", "margin", "growing", "seen"):
        ax.set_yscale("log")
