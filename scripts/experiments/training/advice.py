"""What a sweep says of width, rounding, estimator and chi: the table of the rules page."""

from __future__ import annotations

from collections.abc import Mapping

from tabulate import tabulate

from .sweep import Spread


def advice(spreads: Mapping[str, Mapping[str, Spread]]) -> str:
    """A line an arm."""
    return tabulate([[name, row["tail_accuracy"][0], row["tail_loss"][0]] for name, row in spreads.items()])
