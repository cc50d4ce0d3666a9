"""The picture of a credit experiment: a panel a column, a bar an arm, what was published beside it.

No rcParams are set, and matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...style import BARS
from .experiments import COLUMNS, Experiment


def draw(experiment: Experiment, runs: Mapping[str, list[dict[str, Any]]]) -> bytes:
    """A PNG of an experiment.

    Args:
        runs: arm name -> what each seed gave, by column; bars are means, their ends the spread, dots the seeds.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    groups = list(dict.fromkeys(arm.group for arm in experiment.arms))
    labels = list(dict.fromkeys(arm.label for arm in experiment.arms))
    grouped = len(groups) > 1
    count = len(experiment.drawn)
    columns = 2 if count > 3 else count
    rows = -(-count // columns)
    bars = len(experiment.arms)
    width = max(4.6, 0.9 + 0.24 * bars + (0 if grouped else 0.25 * bars))
    inches = max(8.5, min(18.0, width * columns))
    figure = Figure(figsize=(inches, 4.6 * rows), dpi=110, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    figure.suptitle(f"{experiment.title}: {experiment.size}", x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    for place, column in enumerate(experiment.drawn, 1):
        ax = figure.add_subplot(rows, columns, place)
        size = 0.8 / len(labels) if grouped else 0.7
        for arm in experiment.arms:
            at = labels.index(arm.label)
            x = groups.index(arm.group) + (at - (len(labels) - 1) / 2) * size if grouped else float(at)
            values = np.array([run[column] for run in runs[arm.name]], float)
            values = values[np.isfinite(values)]
            colour = BARS[at % len(BARS)]
            if values.size:
                first = arm.group == groups[0]
                ax.bar(x, values.mean(), size * 0.92, color=colour, alpha=0.85, label=arm.label if first else None)
                if values.size > 1:
                    ax.errorbar(x, values.mean(), values.std(), color="#222222", lw=1.2, capsize=2)
                    ax.plot(np.full(values.size, x), values, ".", color="#222222", ms=3)
            else:
                ax.annotate("none", (x, 0), ha="center", va="bottom", fontsize=7, rotation=90)
            if column in arm.published:
                shown = "published" if place == 1 and arm == next(a for a in experiment.arms if column in a.published) else None
                ax.plot(x, arm.published[column][0], "D", mfc="white", mec="#000000", ms=6, ls="", label=shown)
        ax.axhline(0, color="#444444", lw=0.8)
        ticks = groups if grouped else labels
        turned = len(ticks) > 4
        ax.set_xticks(range(len(ticks)), ticks, rotation=40 if turned else 0, ha="right" if turned else "center", fontsize=9)
        title = textwrap.fill(f"{column}: {COLUMNS[column]}", int(11.5 * inches / columns))
        ax.set_title(title, fontsize=9, loc="left", parse_math=False)
        ax.grid(axis="y", lw=0.4, alpha=0.6)
        ax.set_axisbelow(True)
    handles, names = figure.axes[0].get_legend_handles_labels()
    wanted = [(h, n) for h, n in zip(handles, names, strict=True) if grouped or n == "published"]
    if wanted:
        figure.legend(*zip(*wanted, strict=True), loc="outside lower center", ncols=min(6, len(wanted)), fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
