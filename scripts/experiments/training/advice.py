"""What a sweep says of width, rounding, estimator and chi: the table of the rules page.

A score is the mean accuracy over the tasks that have one: the mean of their medians over the seeds, and of their extremes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from .cell import ESTIMATORS, PUBLISHED_CHI, Cell
from .sweep import Spread

Spreads = Mapping[str, Mapping[str, Spread]]

NEAR = 0.02
"""Scores that differ by less are alike: the draws of the data move them by as much."""

HEAD = ("weights", "rounding", f"published, chi {PUBLISHED_CHI:g}", "applied", "intended", "projection")


def score(spreads: Spreads, tasks: Sequence[str], cell: Cell) -> Spread:
    """Of a cell over tasks that have an accuracy; NaN where the sweep has none of it."""
    found = [spreads.get(cell._replace(task=task).name, {}).get("tail_accuracy", (math.nan,) * 3) for task in tasks]
    middle, least, most = (fmean(one[i] for one in found) for i in range(3))
    return middle, least, most


def rated(spreads: Spreads) -> list[str]:
    """The tasks that have an accuracy."""
    cells = {name: Cell.of(name) for name in spreads}
    return list(dict.fromkeys(c.task for name, c in cells.items() if not math.isnan(spreads[name]["tail_accuracy"][0])))


def kinds(spreads: Spreads) -> list[tuple[int, str]]:
    """Widths and roundings in the order of the table, float last."""
    found = list(dict.fromkeys((cell.bits, cell.rounding) for cell in map(Cell.of, spreads)))
    return sorted(found, key=lambda kind: kind[0] or math.inf)


def chis(spreads: Spreads) -> list[float]:
    """Those of the sweep, ascending."""
    return sorted({cell.chi for cell in map(Cell.of, spreads)} - {0.0})


def rows(spreads: Spreads) -> list[list[str]]:
    """The table: a row a width and rounding, a cell an estimator."""
    tasks, made = rated(spreads), []
    for bits, rounding in kinds(spreads):
        published = Cell(tasks[0], bits, rounding, "divide" if bits else "applied", PUBLISHED_CHI)
        cells = [_shown(score(spreads, tasks, published))]
        for estimator in ESTIMATORS[1:]:
            over = {chi: score(spreads, tasks, published._replace(estimator=estimator, chi=chi)) for chi in chis(spreads)}
            known = {chi: found for chi, found in over.items() if not math.isnan(found[0])}
            cells.append(_best(known) if known else "–")
        made.append([f"{bits} bits" if bits else "float", rounding.replace("_", " of ") if bits else "–", *cells])
    return made


def _best(over: Mapping[float, Spread]) -> str:
    """The best score over chi, and the chi beside the best that are as good."""
    best = max(over, key=lambda chi: over[chi][0])
    low, high = best, best
    alike = [chi for chi in sorted(over) if over[chi][0] > over[best][0] - NEAR]
    for chi in reversed([chi for chi in sorted(over) if chi < best]):
        if chi not in alike:
            break
        low = chi
    for chi in (chi for chi in sorted(over) if chi > best):
        if chi not in alike:
            break
        high = chi
    span = f"chi {low:g}" if low == high else f"chi {low:g}..{high:g}"
    return f"{_shown(over[best])}, {span}"


def _shown(found: Spread) -> str:
    middle, least, most = found
    return "–" if math.isnan(middle) else f"{_digits(middle)} ({_digits(least)}-{_digits(most)})"


def _digits(value: float) -> str:
    return f"{value:.2f}".removeprefix("0") if value < 0.995 else f"{value:.2f}"


def advice(spreads: Spreads) -> str:
    """The table as Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *rows(spreads)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


DETAILS = (
    ("digits", "margin_along", "largest alpha * eta * curvature, digits"),
    ("batches", "margin_along", "the same, batches"),
    ("network", "held_back", "held back, network, %"),
    ("netbatches", "held_back", "held back, netbatches, %"),
    ("network", "steps_to_goal", "steps to the loss, network"),
    ("noise", "tail_loss_held_out", "held-out loss, noise"),
    ("outliers", "tail_loss", "loss, outliers"),
)
"""Of which task and column the second table speaks, and what it calls them."""

DETAILED = ("nearest", "stochastic", "residual_4", "residual_8")


def details(spreads: Spreads) -> str:
    """What the published chi leaves of margin, freedom and loss, as Markdown: applied / intended / projection in each cell."""
    lines = [["weights", "rounding", *(what for *_, what in DETAILS)], ["---"] * (2 + len(DETAILS))]
    for bits, rounding in kinds(spreads):
        if rounding not in (*DETAILED, "none") or bits == 4:
            continue
        cells = []
        for task, column, _ in DETAILS:
            some = [Cell(task, bits, rounding, estimator, PUBLISHED_CHI).name for estimator in ESTIMATORS[1:]]
            cells.append(" / ".join(_plain(spreads[name][column][0], column) if name in spreads else "–" for name in some))
        lines.append([f"{bits} bits" if bits else "float", rounding.replace("_", " of ") if bits else "–", *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _plain(value: float, column: str) -> str:
    """Two digits, a share in percent; never for what did not happen."""
    if column == "held_back":
        return f"{100 * value:.0f}"
    return "never" if math.isinf(value) else "–" if math.isnan(value) else f"{value:.2g}" if value < 100 else f"{value:.0f}"
