"""How every picture looks: one palette, which the colour-blind can tell apart, and one set of rcParams."""

from __future__ import annotations

from typing import Any

BLACK, BLUE, ORANGE, GREEN, RED, SKY, PINK = "#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
"""Okabe and Ito's colours, but for their yellow."""
GREY, OLIVE, VIOLET, TEAL = "#7F7F7F", "#7F6A00", "#4B0092", "#1A7A6A"
"""Some more, where there are many lines."""

PALETTE = (BLUE, RED, GREEN, PINK, ORANGE, SKY, OLIVE, BLACK)
"""Of lines that differ in name only, in this order."""

BARS = (GREY, ORANGE, BLUE, GREEN, PINK, SKY, RED, OLIVE, VIOLET, TEAL, BLACK)
"""Of bars, the first of which is a baseline."""

COLOURS: dict[str, str] = {"unthrottled": RED, "throttled": BLUE, "golden": ORANGE, "rtl": BLACK}
"""Of the co-simulation's runs, by kind; line styles and markers differ too."""

NARROW_COLOURS = (PINK, GREEN, SKY, OLIVE)
"""Of its runs on narrow weights."""

LIMIT = 2.0
"""Gradient descent on a quadratic is unstable where the step size times the largest eigenvalue is above this."""

STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "figure.dpi": 130,
    "savefig.facecolor": "white",
}
