"""Pictures of the estimators of curvature, over chi."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ....golden.training.history import FitHistory
from ...style import PALETTE, STYLE
from .advice import Spreads, chis, kinds
from .cell import ESTIMATORS, PUBLISHED_CHI, Cell


def over_chi(runs: Mapping[str, list[FitHistory]]) -> bytes:
    """Accuracy over chi, a width a column and a way of rounding a row, an estimator a colour; batches of some rows dashed."""
    found: dict[tuple[str, int, str, str], dict[float, list[float]]] = {}
    for name, histories in runs.items():
        cell = Cell.of(name)
        shares = [float(history.meta.get("tail_accuracy", np.nan)) for history in histories]
        found.setdefault((cell.task, cell.bits, cell.rounding, cell.estimator), {})[cell.chi] = shares
    widths, roundings = sorted({key[1] for key in found}), list(dict.fromkeys(key[2] for key in found))
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(2.6 * len(widths) + 1, 2.3 * len(roundings) + 1), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle("Accuracy of the last steps over chi", x=0.01, ha="left", fontweight="bold")
        axes = figure.subplots(len(roundings), len(widths), sharex=True, sharey=True, squeeze=False)
        for (kind, bits, rounding, estimator), points in found.items():
            ax = axes[roundings.index(rounding)][widths.index(bits)]
            chis = sorted(points)
            middle = [float(np.median(points[chi])) for chi in chis]
            colour = PALETTE[ESTIMATORS.index(estimator)]
            ax.plot(chis, middle, color=colour, ls="-" if kind == "digits" else "--", marker=".", label=estimator)
            if kind == "digits":
                least, most = ([pick(points[chi]) for chi in chis] for pick in (min, max))
                ax.fill_between(chis, least, most, color=colour, alpha=0.15, lw=0)
            ax.set_title(f"{bits} bits, {rounding.replace('_', ' ')}")
        for row in range(len(roundings)):
            for column in range(len(widths)):
                axes[row][column].set_visible(bool(axes[row][column].lines))
        for ax in axes[-1]:
            ax.set_xlabel("chi")
        handles: dict[str, Any] = {}
        for ax in figure.axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def overview(spreads: Spreads) -> bytes:
    """A panel a task, a row a width and rounding, a column an estimator and chi; the published law and the default are framed."""
    tasks = list(dict.fromkeys(cell.task for cell in map(Cell.of, spreads)))
    rows, columns = kinds(spreads), [(estimator, chi) for estimator in ESTIMATORS for chi in chis(spreads)]
    with mpl.rc_context(STYLE | {"axes.grid": False}):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(16, 7.6 * -(-len(tasks) // 3)), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle("What each way to find the curvature leaves of a run, over chi", x=0.01, ha="left", fontweight="bold")
        panels = figure.subplots(-(-len(tasks) // 3), 3, squeeze=False).ravel()
        for ax, task in zip(panels, tasks, strict=False):
            _heat(ax, spreads, task, rows, columns)
        for ax in panels[len(tasks) :]:
            ax.set_visible(False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _heat(ax: Axes, spreads: Spreads, task: str, rows: Sequence[tuple[int, str]], columns: Sequence[tuple[str, float]]) -> None:
    """One task: accuracy, or how many times the loss is that of the best cell."""
    cells = [[Cell(task, bits, rounding, estimator, chi).name for estimator, chi in columns] for bits, rounding in rows]

    def of(column: str) -> NDArray[np.float64]:
        return np.array([[spreads[name][column][0] if name in spreads else np.nan for name in line] for line in cells])

    shown, label, span = of("tail_accuracy"), "accuracy", (0.1, 1.0)
    if np.isnan(shown).all():
        held = of("tail_loss_held_out")
        loss = of("tail_loss") if np.isnan(held).all() else held
        shown, label, span = (
            -np.log10(loss / np.nanmin(loss)),
            "loss, times the best (log10, negative)",
            (-5.0, 0.0),
        )
    image = ax.imshow(shown, aspect="auto", cmap="viridis", interpolation="nearest", vmin=span[0], vmax=span[1])
    ax.figure.colorbar(image, ax=ax, shrink=0.5, label=label, location="bottom")
    ax.set_title(task, pad=18)
    names = [f"{bits} {rounding.replace('_', ' ')}" if bits else "float" for bits, rounding in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    ax.set_xticks(range(len(columns)), [f"{chi:g}" for _, chi in columns], fontsize=7, rotation=90)
    width = len(columns) // len(ESTIMATORS)
    for k, estimator in enumerate(ESTIMATORS):
        ax.text(k * width + (width - 1) / 2, -0.8, estimator, ha="center", fontsize=8.5)
        ax.axvline(k * width - 0.5, color="white", lw=2)
    for place, (bits, rounding) in enumerate(rows):
        if not bits:
            continue
        default = "applied" if rounding == "nearest" else "intended"
        for estimator, colour in (("divide", "#D55E00"), (default, "black")):
            at = columns.index((estimator, PUBLISHED_CHI))
            ax.add_patch(Rectangle((at - 0.5, place - 0.5), 1, 1, fill=False, ec=colour, lw=1.6))
