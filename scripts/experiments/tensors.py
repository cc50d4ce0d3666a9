"""What became of the updates of each tensor, where tensors have grids of their own: a strip a tensor, over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Columns = Mapping[str, NDArray[np.float64]]

PANELS = (
    ("update_angle_rad", "angle between applied and intended update (°)", 180 / math.pi, 90.0, "Blues"),
    ("update_radius_ratio", "its length, of the intended (white: as long)", 1.0, 2.0, "PuOr"),
    ("still_fraction", "weights that stood still, of those meant to move", 1.0, 1.0, "Blues"),
    ("weight_saturation_fraction", "weights on a rail", 1.0, 1.0, "Blues"),
)
"""Metric, title, factor, the end of the colours, and which they are."""


def of_tensors(layers: Mapping[str, Columns]) -> dict[str, Columns]:
    """The tensors among the rows of a history's layers."""
    return {name: columns for name, columns in layers.items() if "still_fraction" in columns}


def draw(figure: Any, tensors: Mapping[str, Columns]) -> None:
    """Fill a figure, or a part of one, with a panel a metric, and a strip a tensor in it with its median beside it."""
    axes = figure.subplots(len(PANELS), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (metric, title, factor, most, colours) in zip(axes, PANELS, strict=True):
        rows = np.array([np.asarray(columns[metric]) * factor for columns in tensors.values()])
        steps = rows.shape[1]
        shown = ax.pcolormesh(
            np.arange(steps + 1) - 0.5,
            np.arange(len(rows) + 1) - 0.5,
            np.ma.masked_invalid(rows),
            cmap=colours,
            vmin=0,
            vmax=most,
            rasterized=True,
        )
        ax.set_facecolor("#dddddd")  # what is no number
        ax.set_yticks(range(len(rows)), list(tensors))
        ax.invert_yaxis()
        ax.grid(False)
        ax.set_title(title, loc="left", fontsize=10)
        for place, row in enumerate(rows):
            known = row[np.isfinite(row)]
            middle = f"{np.median(known):.2g}" if known.size else "-"
            ax.text(1.01, place, middle, transform=ax.get_yaxis_transform(), va="center", fontsize=8)
        figure.colorbar(shown, ax=ax, pad=0.09, fraction=0.03)
    axes[0].text(1.01, 1.02, "median", transform=axes[0].transAxes, va="bottom", fontsize=8)
    axes[-1].set_xlabel("training step")


def height(tensors: Mapping[str, Columns]) -> float:
    """Of such a figure, in inches."""
    return len(PANELS) * (0.75 + 0.24 * len(tensors))


def alone(tensors: Mapping[str, Columns]) -> Figure:
    """A figure of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, height(tensors)), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, tensors)
    return figure
