"""What a credit experiment says in words and numbers: its table, its findings, its results.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from ....golden.credit.loop import Run
from .arms import COLUMNS, Arm, Claim, Experiment
from .plan import used

NEAR = 0.05
"""A mean within this, or within both spreads, of the published one counts as the same."""

Floats = NDArray[np.float64]
Runs = Mapping[str, Sequence[Run]]
"""Arm name -> the runs, in the order of the plan's seeds."""


def add_leads(experiment: Experiment, runs: Runs) -> None:
    """S1 and S2 of every run: against dfa of its group and seed."""
    for arm in experiment.arms:
        base = next((other for other in experiment.arms if other.group == arm.group and other.method == "dfa"), None)
        for at, run in enumerate(runs[arm.name]):
            for lead, column in (("S1", "gamma"), ("S2", "rho")):
                if column in run.end and base is not None:
                    run.end[lead] = run.end[column] - runs[base.name][at].end[column]


def numbers(runs: Sequence[Run], column: str) -> Floats:
    """The finite figures of a column."""
    values: Floats = np.array([run.end.get(column, math.nan) for run in runs], float)
    finite: Floats = values[np.isfinite(values)]
    return finite


def table_of(experiment: Experiment, runs: Runs) -> str:
    """A row an arm, mean and spread of the seeds, in brackets what was published; then what did and what did not reproduce."""
    lines = [["arm", *experiment.columns]]
    for arm in experiment.arms:
        lines.append([arm.name, *(cell(arm, runs[arm.name], column) for column in experiment.columns)])
    count = len(experiment.plan.seeds)
    spread = f"mean±standard deviation of {count} seeds" if count > 1 else "one seed"
    known = any(arm.published for arm in experiment.arms)
    return "\n".join(
        [
            tabulate(lines, tablefmt="plain", disable_numparse=True),
            "",
            f"{spread}; [published]" if known else spread,
            *(f"{column}: {COLUMNS[column]}" for column in experiment.columns),
            "",
            *findings(experiment, runs),
        ]
    )


def cell(arm: Arm, runs: Sequence[Run], column: str) -> str:
    """One figure as it stands in a table."""
    if column == "verdict":
        return " / ".join(dict.fromkeys(run.end["verdict"] for run in runs))
    values = numbers(runs, column)
    if not values.size:
        return "-"
    if column == "diverged":
        return f"{values.size} of {len(runs)}" if len(runs) > 1 else f"{values[0]:g}"
    text = number(float(values.mean()))
    text += f"±{number(float(values.std()))}" if len(runs) > 1 else ""
    text += f" ({values.size} of {len(runs)})" if values.size < len(runs) else ""
    if column in arm.published:
        mean, spread = arm.published[column]
        text += f" [{mean:g}±{spread:g}]" if spread else f" [{mean:g}]"
    return text


def number(value: float) -> str:
    """Three places, or two digits of what three places would not show."""
    return f"{value:.3f}" if abs(value) >= 5e-3 or not value else f"{value:.1g}"


def findings(experiment: Experiment, runs: Runs) -> list[str]:
    """A line for each claim, with how many seeds bear it out, and one for each published figure that the means are away from."""
    lines = [line for claim in experiment.claims if (line := _asked(experiment, claim, runs))]
    for arm in experiment.arms:
        away = []
        for column, (mean, spread) in arm.published.items():
            values = numbers(runs[arm.name], column)
            room = max(NEAR if column != "nudge" else 0.25 * abs(mean), spread + (values.std() if values.size else 0))
            if not values.size or abs(values.mean() - mean) > room:
                away.append(f"{column} {number(float(values.mean())) if values.size else 'none'} against {mean:g}")
        if away:
            lines.append(f"other figures than published: {arm.name}: {', '.join(away)}")
    return lines


def _asked(experiment: Experiment, claim: Claim, runs: Runs) -> str:
    """A claim and its answer; empty where an arm that it is about is not run. A run without a figure, as it diverged, has 0."""
    arms = [arm for arm in experiment.arms if arm.group == claim.group]

    def holds(pick: Any) -> bool:
        return claim.holds({arm.label: {column: pick(runs[arm.name], column) for column in COLUMNS} for arm in arms})

    def figure(run: Run, column: str) -> float:
        value = run.end.get(column)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0

    def mean(of: Sequence[Run], column: str) -> float:
        return float(np.mean([figure(run, column) for run in of]))

    try:
        answer = "holds" if holds(mean) else "DOES NOT HOLD"
    except KeyError:
        return ""
    count = len(experiment.plan.seeds)
    if count == 1:
        return f"{answer}: {claim.text}"
    borne = sum(holds(lambda of, column, at=at: figure(of[at], column)) for at in range(count))
    return f"{answer} ({borne} of {count} seeds): {claim.text}"


def results(experiment: Experiment, runs: Runs, datapath: str | None) -> dict[str, Any]:
    """The content of results.json: all that the tables and pictures are made from."""
    arms = {}
    for arm in experiment.arms:
        columns: dict[str, dict[str, Any]] = {}
        for column in experiment.columns:
            seeds = [run.end.get(column) for run in runs[arm.name]]
            columns[column] = {"seeds": seeds if column == "verdict" else [_short(value) for value in seeds]}
            if column in arm.published:
                columns[column]["published"] = list(arm.published[column])
        arms[arm.name] = {
            "group": arm.group,
            "label": arm.label,
            "method": arm.method,
            "options": dict(arm.options),
            "columns": columns,
            "curve": curve(runs[arm.name]),
        }
    return {
        "experiment": experiment.name,
        "title": experiment.title,
        "size": experiment.size,
        "version": metadata.version("kappa-rtl"),
        "configuration": used(experiment.name, experiment.plan),
        "datapath": datapath,
        "arms": arms,
        "findings": findings(experiment, runs),
    }


def curve(runs: Sequence[Run]) -> dict[str, list[float | None]]:
    """Of runs with the same looks: the steps, and the mean over the runs of every other column."""
    rows = [run.curve for run in runs if run.curve]
    if not rows:
        return {}
    length = min(map(len, rows))
    made: dict[str, list[float | None]] = {}
    for column in rows[0][0]:
        values = np.array([[row[column] for row in one[:length]] for one in rows], float)
        known = np.isfinite(values)
        sums = np.where(known, values, 0).sum(axis=0)
        made[column] = [_short(total / count) if count else None for total, count in zip(sums, known.sum(axis=0), strict=True)]
    return made


def _short(value: Any) -> float | None:
    """Six digits; None for what is not finite."""
    return float(f"{value:.6g}") if value is not None and math.isfinite(value) else None
