"""The report of a run: one self-contained page that shows and explains it, and its figures as PNG beside the page.

Nothing is measured here. What the loop recorded (:class:`~kappa_rtl.scripts.experiments.cosim.history.RunHistory`) and what the
cosimulation found (``summary``) is drawn, tabulated and put into words.
"""

from __future__ import annotations

import base64
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ....golden.files import write_atomically
from ....golden.training.metrics import METRICS
from .figures import PLOTS, Plot, draw
from .history import TAIL, Runs, observations, summary_table
from .steps import steps_page


def write_report(out: Path, summary: Mapping[str, Any], runs: Runs) -> None:
    """Write the PNG plots, ``steps.html`` and ``index.html`` into ``out``; each file appears whole or not at all.

    ``steps.html`` is interactive and has scripts, the report has none. Without Altair there is none, and the report says so.

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
    plots = [plot for plot in PLOTS if plot.shows(runs)]
    for plot, png in zip(plots, _drawn(plots, runs), strict=True):
        write_atomically(out / f"{plot.name}.png", png)
        uri = "data:image/png;base64," + base64.b64encode(png).decode("ascii")
        figures.append({"name": plot.name, "heading": plot.heading, "caption": plot.caption, "uri": uri})
    try:
        write_atomically(out / "steps.html", steps_page(str(summary["title"]), runs))
        without = ""
    except ValueError as error:  # what draws it is an extra: the report does without
        (out / "steps.html").unlink(missing_ok=True)
        without = str(error)
    page = render(
        "report.html.j2",
        without_steps=without,
        summary=summary,
        table=summary_table(runs),
        figures=figures,
        observations=observations(runs),
        metrics=METRICS,
        tail=TAIL,
    )
    write_atomically(out / "index.html", page.encode("utf-8"))


def render(template: str, **names: Any) -> str:
    """A page from a template beside this file; every text is escaped, and a name that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    return environment.get_template(template).render(**names)


def _drawn(plots: Sequence[Plot], runs: Runs) -> list[bytes]:
    """The pictures, by as many processes as there are processors: drawing takes longer than a short run."""
    workers = min(len(plots), os.cpu_count() or 1)
    if workers < 2 or "fork" not in multiprocessing.get_all_start_methods():
        return [draw(plot, runs) for plot in plots]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
        return list(pool.map(draw, plots, [runs] * len(plots)))


def _number(value: float | None, form: str = ".3g") -> str:
    return "–" if value is None else format(value, form)
