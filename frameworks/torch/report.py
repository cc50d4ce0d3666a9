"""A run of a throttled optimiser on one page, self-contained."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape

from ...golden.tables import html
from ...golden.training.history import FitHistory
from ...golden.training.metrics import DEFINITIONS

STYLE = "body{font:15px sans-serif;margin:2em auto;max-width:70em}td,th{padding:.15em .8em;text-align:left}img{max-width:100%}"


def page_of(history: FitHistory, units: Sequence[str], title: str) -> str:
    """The page: units, what the last step came to, and the picture of the run."""
    picture = io.BytesIO()
    history.plot_results(title=title).savefig(picture, format="png")
    rows = [(name, f"{history[name][-1]:.6g}", DEFINITIONS.get(name, "")) for name in history] if history.steps else []
    image = base64.b64encode(picture.getvalue()).decode()
    return "\n".join(
        [
            f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>",
            f"<h1>{escape(title)}</h1>",
            f"<p>{history.steps} steps through</p><ul>",
            *(f"<li>{escape(unit)}</li>" for unit in units),
            "</ul>",
            f"<img alt='alpha, curvature, angle, length and rails over the steps' src='data:image/png;base64,{image}'>",
            html("The last step", ["metric", "value", "what it is"], rows),
            "</html>",
        ]
    )
