"""What is done to data before a run: rows held out by a seed, and columns scaled by what the rows to train on show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .checks import seeds
from .data import Problem

SCALINGS = ("none", "standard", "minmax", "maxabs")
"""None; zero mean and unit variance; 0 to 1; the largest magnitude 1."""

MEANT = {
    "standard": "brought to mean 0 and standard deviation 1",
    "minmax": "brought to 0..1",
    "maxabs": "divided by their largest magnitude",
}


class Split(NamedTuple):
    """The rows to train on, those that no step sees (None if there are none), and what was decided."""

    train: Problem
    held: Problem | None
    notes: tuple[str, ...]


def prepare(
    problem: Problem, *, scaling: str = "none", target_scaling: str = "none", held_out: int | float = 0, seed: int = 0
) -> Split:
    """Hold rows out, then scale all columns by the others.

    Args:
        scaling, target_scaling: of :data:`SCALINGS`; targets that are classes are not scaled.
        held_out: how many rows, an integer; or a share of them, between 0 and 1, rounded.
        seed: of the order in which they are chosen.

    Raises:
        ValueError: an argument is none of these; no row would be left on one side.
    """
    for name, value in (("scaling", scaling), ("target_scaling", target_scaling)):
        if value not in SCALINGS:
            raise ValueError(f"{name} must be one of {', '.join(SCALINGS)}, not {value!r}")
    if target_scaling != "none" and problem.labels is not None:
        raise ValueError(f"target_scaling must be none for classes, whose targets are 0 and 1, not {target_scaling!r}")
    seeds(seed=seed)
    rows = len(problem.inputs)
    count = held_rows(held_out, rows, problem.name)
    order = np.random.default_rng(seed).permutation(rows)
    train = problem.rows(order[count:]) if count else problem
    held = problem.rows(order[:count]) if count else None
    notes = list(problem.notes)
    if count:
        notes.append(f"{count} of {rows} rows are held out, chosen by the seed {seed}; {rows - count} are trained on.")
        if train.labels is not None and problem.labels is not None:
            unseen = sorted(set(problem.labels.tolist()) - set(train.labels.tolist()))
            if unseen:
                shown = problem.classes[unseen[0]] if problem.classes else unseen[0]
                notes.append(f"{len(unseen)} of the classes are in no row to train on, such as {shown!r}.")
    for field, kind in (("inputs", scaling), ("targets", target_scaling)):
        fitted = getattr(train, field)
        if kind == "none":
            if field == "inputs" or problem.labels is None:
                notes.append(f"{field.capitalize()} are not scaled; they lie from {fitted.min():.4g} to {fitted.max():.4g}.")
            continue
        offset, divisor, constant = fit(fitted, kind)
        train = _applied(train, field, offset, divisor, kind)
        held = None if held is None else _applied(held, field, offset, divisor, kind)
        notes.append(
            f"{field.capitalize()} are {MEANT[kind]}, column by column, as the {len(fitted)} rows to train on have them."
        )
        if constant:
            names = [problem.columns[i] if field == "inputs" and problem.columns else f"column {i}" for i in constant]
            shown = ", ".join(map(repr, names[:6])) + (", ..." if len(names) > 6 else "")
            notes.append(f"{len(names)} column{'s' if len(names) > 1 else ''} of the {field} never change: {shown}.")
    return Split(train, held, tuple(notes))


def held_rows(held_out: Any, rows: int, name: str) -> int:
    """How many rows a share or a number is.

    Raises:
        ValueError: neither a number of rows nor a share, or one that leaves no row to train on.
    """
    if isinstance(held_out, bool) or not isinstance(held_out, (int, float, np.integer, np.floating)):
        raise ValueError(f"held_out must be a number of rows or a share between 0 and 1, not {held_out!r}")
    if isinstance(held_out, (float, np.floating)):
        if not 0 <= held_out < 1:
            raise ValueError(f"held_out must be a share from 0 to below 1, or an integer number of rows, not {held_out!r}")
        count = round(held_out * rows)
        if held_out and not 0 < count < rows:
            raise ValueError(f"held_out must leave rows on both sides, and {held_out!r} of the {rows} rows of {name} is {count}")
        return count
    if held_out < 0:
        raise ValueError(f"held_out must be at least 0, not {held_out!r}")
    if held_out >= rows:
        raise ValueError(f"held_out must be less than the {rows} rows of {name}, not {held_out!r}")
    return int(held_out)


def fit(columns: NDArray[np.float64], kind: str) -> tuple[NDArray[np.float64], NDArray[np.float64], list[int]]:
    """``(offset, divisor, constant)`` of columns (rows, d), so that ``(x - offset) / divisor`` is scaled; a constant column has
    the divisor 1."""
    low, high = columns.min(axis=0), columns.max(axis=0)
    constant = low == high
    zero = np.zeros(columns.shape[1])
    with np.errstate(over="ignore", invalid="ignore"):
        if kind == "standard":  # of numbers about 1, as squares of very large and very small ones leave a float64
            largest = np.abs(columns).max(axis=0)
            largest[largest == 0] = 1.0
            near = columns / largest
            offset, divisor = near.mean(axis=0) * largest, near.std(axis=0) * largest
        elif kind == "minmax":
            offset, divisor = low, high - low
        else:
            offset, divisor = zero, np.abs(columns).max(axis=0)
            return offset, np.where(divisor == 0, 1.0, divisor), [int(i) for i in np.flatnonzero(constant)]
    lost = np.flatnonzero(~constant & ~(np.isfinite(divisor) & (divisor > 0)))
    if len(lost):
        raise ValueError(f"column {int(lost[0])} must have numbers whose spread a float64 can hold, to be scaled ({kind})")
    # The mean of equal numbers may miss them by a last digit.
    offset, divisor = np.where(constant, low, offset), np.where(constant | (divisor == 0), 1.0, divisor)
    return offset, divisor, [int(i) for i in np.flatnonzero(constant)]


def _applied(problem: Problem, field: str, offset: NDArray[np.float64], divisor: NDArray[np.float64], kind: str) -> Problem:
    with np.errstate(over="ignore", invalid="ignore"):
        made: NDArray[np.float64] = (getattr(problem, field) - offset) / divisor
    bad = np.argwhere(~np.isfinite(made))
    if len(bad):
        raise ValueError(
            f"{field} must be finite when they are scaled ({kind}), not in column {int(bad[0][1])} of {problem.name}"
        )
    return replace(problem, inputs=made) if field == "inputs" else replace(problem, targets=made)
