"""The picture of an experiment: loss, stability margin or angle, alpha and the update's length, an arm a colour."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ....golden.training.history import FitHistory
from ...style import LIMIT, PALETTE, STYLE
from .published import Experiment

PANELS = (
    ("loss", "loss", True),
    ("alpha", "alpha", True),
    ("update_radius_ratio", "||applied|| / ||intended||", False),
)


MARGIN = ("stability_margin_lambda_ctrl", "alpha * eta * lambda_max", True)
ANGLE = ("update_angle_rad", "angle between applied and intended update, radians", False)
"""In place of the margin, for models that have none."""


def _look(arms: list[str], name: str) -> dict[str, Any]:
    """A colour for what stands before ``_off`` or ``_on``; off is dashed. Others have one each, dotted the second time."""
    stems = list(dict.fromkeys(arm.rsplit("_", 1)[0] if arm.endswith(("_on", "_off")) else arm for arm in arms))
    stem, _, switch = name.rpartition("_") if name.endswith(("_on", "_off")) else (name, "", "")
    turn, colour = divmod(stems.index(stem), len(PALETTE))
    return {"color": PALETTE[colour], "linestyle": (0, (4, 2)) if switch == "off" else (0, (1, 1)) if turn % 2 else "-"}


def plot(experiment: Experiment, runs: Mapping[str, list[FitHistory]], datapath: str) -> bytes:
    """Loss, stability margin, alpha and the update's length by step: seed 0 as a line, the other seeds thin."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(12, 7.6), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle(f"{experiment.title} ({datapath} datapath)", x=0.01, ha="left", fontsize=13, fontweight="bold")
        defined = any(np.isfinite(history[MARGIN[0]]).any() for histories in runs.values() for history in histories)
        panels = (PANELS[0], MARGIN if defined else ANGLE, *PANELS[1:])
        for place, (key, label, logarithmic) in enumerate(panels, 1):
            ax = figure.add_subplot(2, 2, place)
            least, most = math.inf, -math.inf
            for name, histories in runs.items():
                for j, history in enumerate(histories):
                    y = history[key].copy()
                    y[~np.isfinite(y) | (np.abs(y) > 1e30) | ((y <= 0) if logarithmic else False)] = np.nan
                    look = _look(list(runs), name)
                    ax.plot(y, label=name if j == 0 else None, lw=1.7 if j == 0 else 0.5, alpha=1 if j == 0 else 0.5, **look)
                    if np.isfinite(y).any():
                        least, most = min(least, float(np.nanmin(y))), max(most, float(np.nanmax(y)))
            ax.set_title(label)
            ax.set_xlabel("step")
            if logarithmic and math.isfinite(least) and most > 10 * least:
                ax.set_yscale("log")
                ax.set_ylim(max(least, 1e-18) / 2, min(most, 1e8) * 2)
            if key.startswith("stability"):
                ax.axhline(LIMIT, color="#444444", lw=1, ls=(0, (4, 3)))
                ax.annotate(
                    "2: unstable above", (1, LIMIT), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9
                )
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
