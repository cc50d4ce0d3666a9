"""The report of a run: one self-contained page that shows and explains it, and its figures as PNG beside the page.

Nothing is measured here. What the loop recorded (:class:`~kappa_rtl.sim.history.RunHistory`) and what the
cosimulation found (``summary``) is drawn, tabulated and put into words.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from kappa_rtl.golden.training.metrics import METRICS
from kappa_rtl.hw.export import replace as write_atomically

from .figures import PLOTS, draw
from .history import TAIL, Runs, observations, of_kind, summary_table


def write_report(out: Path, summary: Mapping[str, Any], runs: Runs) -> None:
    """Write the PNG plots and ``index.html`` into ``out``; each file appears whole or not at all.

    Args:
        out: the directory; made if it is not there.
        summary: ``title``, ``experiment``, ``steps``, ``differences`` and ``compared`` (numbers of values), ``simulator``,
            ``verdict`` (sentences), ``command``, ``config_toml``, ``files`` (pairs of name and what it is).
        runs: the runs by name, in the order in which tables list them. Runs may be shorter than others and may lack labels.

    Raises:
        ValueError: there is no run with a step.
    """
    if not any(run.steps for run in runs.values()):
        raise ValueError("runs must hold at least one run with a step")
    out.mkdir(parents=True, exist_ok=True)
    figures = []
    for plot in PLOTS:
        if plot.needs and not of_kind(runs, *plot.needs):
            continue
        png = draw(plot, runs)
        write_atomically(out / f"{plot.name}.png", png)
        uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        figures.append({"name": plot.name, "heading": plot.heading, "caption": plot.caption, "uri": uri})
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    page = environment.get_template("report.html.j2").render(
        summary=summary, table=summary_table(runs), figures=figures, observations=observations(runs), metrics=METRICS, tail=TAIL
    )
    write_atomically(out / "index.html", page.encode("utf-8"))


def _number(value: float | None, form: str = ".3g") -> str:
    return "–" if value is None else format(value, form)
