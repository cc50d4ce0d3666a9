"""The pictures of a credit experiment, made from the content of its results.json.

No rcParams are set, and matplotlib is imported when something is drawn.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...style import BARS, PALETTE
from .arms import COLUMNS, Experiment
from .through import FORMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Content = Mapping[str, Any]
"""Of a results.json."""


def draw(content: Content, experiment: Experiment) -> bytes:
    """A PNG of what an experiment ends with: bars, lines over the depth, or for ``throttle`` a map."""
    if experiment.name == "throttle":
        return _map(content, experiment)
    return _lines(content, experiment) if experiment.lines else _bars(content, experiment)


def _figure(content: Content, width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(width, height), dpi=110, layout=ConstrainedLayoutEngine())
    FigureCanvasAgg(figure)
    title = textwrap.fill(f"{content['title']}: {content['size']}", int(11 * width))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", parse_math=False)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _seeds(arm: Content, column: str) -> NDArray[np.float64]:
    values = np.array([math.nan if value is None else value for value in arm["columns"][column]["seeds"]], float)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def _titled(ax: Axes, column: str, width: float) -> None:
    ax.set_title(textwrap.fill(f"{column}: {COLUMNS[column]}", int(11.5 * width)), fontsize=9, loc="left", parse_math=False)
    ax.grid(axis="y", lw=0.4, alpha=0.6)
    ax.set_axisbelow(True)


def _bars(content: Content, experiment: Experiment) -> bytes:
    """A panel a column, a bar an arm; bars are means, their ends the spread, dots the seeds, diamonds what was published."""
    arms = list(content["arms"].values())
    groups = experiment.groups
    labels = list(dict.fromkeys(arm["label"] for arm in arms))
    grouped = len(groups) > 1
    count = len(experiment.drawn)
    columns = 2 if count > 3 else count
    rows = -(-count // columns)
    width = max(4.6, 0.9 + 0.24 * len(arms) + (0 if grouped else 0.25 * len(arms)))
    inches = max(8.5, min(18.0, width * columns))
    figure = _figure(content, inches, 4.6 * rows)
    for place, column in enumerate(experiment.drawn, 1):
        ax = figure.add_subplot(rows, columns, place)
        size = 0.8 / len(labels) if grouped else 0.7
        marked = False
        for arm in arms:
            at = labels.index(arm["label"])
            x = groups.index(arm["group"]) + (at - (len(labels) - 1) / 2) * size if grouped else float(at)
            values = _seeds(arm, column)
            if values.size:
                first = arm["group"] == groups[0]
                colour = BARS[at % len(BARS)]
                ax.bar(x, values.mean(), size * 0.92, color=colour, alpha=0.85, label=arm["label"] if first else None)
                if values.size > 1:
                    ax.errorbar(x, values.mean(), values.std(), color="#222222", lw=1.2, capsize=2)
                    ax.plot(np.full(values.size, x), values, ".", color="#222222", ms=3)
            else:
                ax.annotate("none", (x, 0), ha="center", va="bottom", fontsize=7, rotation=90)
            if "published" in arm["columns"][column]:
                shown = None if marked or place > 1 else "published"
                marked = True
                ax.plot(x, arm["columns"][column]["published"][0], "D", mfc="white", mec="#000000", ms=6, ls="", label=shown)
        ax.axhline(0, color="#444444", lw=0.8)
        ticks = groups if grouped else labels
        turned = len(ticks) > 4
        ax.set_xticks(range(len(ticks)), ticks, rotation=40 if turned else 0, ha="right" if turned else "center", fontsize=9)
        _titled(ax, column, inches / columns)
    handles, names = figure.axes[0].get_legend_handles_labels()
    wanted = [(h, n) for h, n in zip(handles, names, strict=True) if grouped or n == "published"]
    if wanted:
        figure.legend(
            *zip(*wanted, strict=True),
            loc="outside lower center",
            ncols=_columns(figure, [name for _, name in wanted]),
            fontsize=9,
        )
    return _png(figure)


def _lines(content: Content, experiment: Experiment) -> bytes:
    """A row a column, a panel an activation: over the depth a line an arm, spread as a band, published figures as diamonds."""
    plan = experiment.plan
    arms = list(content["arms"].values())
    labels = list(dict.fromkeys(arm["label"] for arm in arms))
    kinds, depths = plan.activations, plan.depths
    figure = _figure(content, max(8.5, 3.6 * len(kinds)), 2.9 * len(experiment.drawn) + 0.6)
    axes: Any = figure.subplots(len(experiment.drawn), len(kinds), squeeze=False, sharey="row", sharex=True)
    for row, column in zip(axes, experiment.drawn, strict=True):
        for at, (ax, kind) in enumerate(zip(row, kinds, strict=True)):
            for place, label in enumerate(labels):
                chosen = [arm for arm in arms if arm["label"] == label][at * len(depths) : (at + 1) * len(depths)]
                values = [_seeds(arm, column) for arm in chosen]
                mean = np.array([v.mean() if v.size else math.nan for v in values])
                spread = np.array([v.std() if v.size else math.nan for v in values])
                colour = PALETTE[place % len(PALETTE)]
                ax.plot(depths, mean, "o-", ms=4, color=colour, label=label)
                ax.fill_between(depths, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
                known = [(x, arm["columns"][column].get("published")) for x, arm in zip(depths, chosen, strict=True)]
                marks = [(x, theirs[0]) for x, theirs in known if theirs]
                if marks:
                    ax.plot(*zip(*marks, strict=True), "D", mfc="white", mec=colour, mew=1.6, ms=6, ls="")
            ax.axhline(0, color="#444444", lw=0.8)
            _titled(ax, column, 3.6 if len(kinds) > 1 else 8.5)
            if len(kinds) > 1:
                shown = column if at else f"{column}: {COLUMNS[column]}"
                ax.set_title(textwrap.fill(f"{kind.replace('phi:', 'alpha ')}  |  {shown}", 40), fontsize=9, loc="left")
            if column == experiment.drawn[-1]:
                ax.set_xlabel("blocks")
                ax.set_xticks(depths)
    handles, names = axes[0][-1].get_legend_handles_labels()
    if any("published" in arm["columns"][column] for arm in arms for column in experiment.drawn):
        handles.append(axes[0][0].plot([], [], "D", mfc="white", mec="#222222", mew=1.6, ms=6, ls="")[0])
        names.append("published")
    figure.legend(handles, names, loc="outside lower center", ncols=_columns(figure, names), fontsize=9)
    return _png(figure)


def _columns(figure: Figure, names: Sequence[str]) -> int:
    """How many columns of a legend fit the width."""
    return max(1, min(6, len(names), int(figure.get_figwidth() / (0.5 + 0.085 * max(map(len, names))))))


def draw_curves(content: Content, experiment: Experiment) -> bytes:
    """A PNG of the training: a row a measure, a panel a group, a line an arm, means of the seeds."""
    arms = list(content["arms"].values())
    measures = [m for m in ("gamma", "bridge", "accuracy", "alpha") if any(m in arm["curve"] for arm in arms)]
    groups = [group for group in experiment.groups if any(a["curve"] for a in arms if a["group"] == group)]
    if experiment.name == "throttle":  # sixteen groups a method and more: the two that say most
        ends = {str(bits or "float") for bits in (experiment.plan.bits[0], experiment.plan.bits[-1])}
        groups = [group for group in groups if group.split()[-1] in ends]
    labels = list(dict.fromkeys(arm["label"] for arm in arms))
    across = max(1, min(len(groups), 8))
    down = -(-len(groups) // across)
    figure = _figure(content, max(8.5, 2.7 * across), 2.4 * len(measures) * max(1, down) + 0.8)
    axes: Any = figure.subplots(max(1, len(measures) * down), across, squeeze=False, sharex=True)
    for ax in axes.ravel():
        ax.set_visible(False)
    for m, measure in enumerate(measures):
        for g, group in enumerate(groups):
            ax = axes[m * down + g // across][g % across]
            ax.set_visible(True)
            for arm in (one for one in arms if one["group"] == group and measure in one["curve"]):
                y = np.array([math.nan if v is None else v for v in arm["curve"][measure]], float)
                at = labels.index(arm["label"])
                dash = ("-", "--", ":")[at // len(PALETTE) % 3]
                ax.plot(arm["curve"]["step"], y, dash, color=PALETTE[at % len(PALETTE)], lw=1.3, label=arm["label"])
            if measure in ("bridge", "alpha"):
                ax.set_yscale("log")
            ax.set_title(f"{group}  |  {measure}".strip(" |"), fontsize=8, loc="left", parse_math=False)
            ax.tick_params(which="both", labelsize=7)
            if m == len(measures) - 1 and g // across == down - 1:
                ax.set_xlabel("step", fontsize=8)
            ax.grid(lw=0.4, alpha=0.6)
    found = {n: h for ax in axes.ravel() for h, n in zip(*ax.get_legend_handles_labels(), strict=True)}
    if found:
        columns = _columns(figure, list(found))
        figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=columns, fontsize=8)
    return _png(figure)


def _map(content: Content, experiment: Experiment) -> bytes:
    """A panel a form of blocks: methods down, widths and laws across; colour and number are the mean accuracy.

    A law is set in bold where it ends .02 or more above no throttle, and in italics where as much below.
    """
    plan = experiment.plan
    found = {(arm["group"], arm["label"]): _seeds(arm, "accuracy") for arm in content["arms"].values()}
    columns = [(bits, law) for bits in plan.bits for law in plan.laws]
    figure = _figure(content, max(8.5, 1.6 + 0.62 * len(columns)), 0.9 + len(FORMS) * (0.42 * len(plan.methods) + 1.5))
    axes: Any = figure.subplots(len(FORMS), 1, squeeze=False)
    image = None
    for ax, form in zip(axes[:, 0], FORMS, strict=True):
        table = np.full((len(plan.methods), len(columns)), math.nan)
        for i, method in enumerate(plan.methods):
            for j, (bits, law) in enumerate(columns):
                group = f"{form} {method} {bits or 'float'}"
                values, off = found[group, law], found.get((group, "off"))
                table[i, j] = values.mean() if values.size else math.nan
                lead = 0.0 if off is None else (values.mean() if values.size else 0.0) - (off.mean() if off.size else 0.0)
                weight, style = "bold" if lead >= 0.02 else "normal", "italic" if lead <= -0.02 else "normal"
                text = f"{table[i, j]:.2f}".lstrip("0") if values.size else "none"
                text += "*" if 0 < values.size < len(plan.seeds) else ""
                ink = "white" if table[i, j] < 0.55 else "black"
                ax.text(j, i, text, ha="center", va="center", fontsize=8, color=ink, fontweight=weight, fontstyle=style)
        image = ax.imshow(table, vmin=0.0, vmax=1.0, cmap="viridis", aspect="auto")
        ax.set_yticks(range(len(plan.methods)), plan.methods, fontsize=9)
        ax.set_xticks(range(len(columns)), [law.replace("_", "\n") for _, law in columns], fontsize=7)
        for k, bits in enumerate(plan.bits):
            middle = (k + 0.5) * len(plan.laws) - 0.5
            ax.text(middle, -0.62, f"{bits} bits" if bits else "float", ha="center", va="bottom", fontsize=9, fontweight="bold")
            if k:
                ax.axvline(k * len(plan.laws) - 0.5, color="white", lw=3)
        ax.set_title(f"blocks of {form} matri{'x' if form == 'one' else 'ces'}", fontsize=10, loc="left", pad=24)
    if image is not None:
        figure.colorbar(
            image, ax=list(axes[:, 0]), label="accuracy; bold: .02 above off, italics: below; *: a seed diverged", shrink=0.7
        )
    return _png(figure)
