"""Pictures of the estimators of curvature, over chi."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ....golden.training.history import FitHistory
from ...style import PALETTE, STYLE
from .cell import ESTIMATORS, Cell
from .sweep import Spread


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


def overview(spreads: Mapping[str, Mapping[str, Spread]]) -> bytes:
    """What is chosen between."""
    return b""
