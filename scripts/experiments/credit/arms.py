"""What a credit experiment is made of: arms that differ in one thing, what was published of them, and what they claim."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ....golden.credit.tasks import LQ, Frozen, Online
from .plan import Plan
from .throttling import Throttled

Task = LQ | Online | Frozen | Throttled
Figure = tuple[float, float]
"""A published mean and its spread, 0 where none was given."""
Means = Mapping[str, Mapping[str, float]]
"""Arm name -> column -> the mean over the seeds, or what one seed gave."""

COLUMNS: dict[str, str] = {
    "gamma": "mean cosine of credit and exact credit below the last state",
    "rho": "correlation of what the credit says of a small change with what it does to the loss",
    "nudge": "change of the loss when states move against the credit by eta",
    "S1": "gamma minus that of dfa",
    "S2": "rho minus that of dfa",
    "accuracy": "share of the test samples whose largest output is their label",
    "best": "the best accuracy at any look",
    "alpha": "median alpha that was applied",
    "min_alpha": "the smallest alpha that was applied",
    "margin": "90th percentile of alpha * eta * C; gradient descent on a quadratic bears 2",
    "angle": "median angle between applied and intended update, radians",
    "still": "steps that moved no weight",
    "diverged": "the step whose numbers were no longer finite",
    "verdict": "of the diagnostic protocol",
}
"""The columns that a table may have."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One method on one task; ``group`` says which others it is compared with, ``label`` what it is there.

    Attributes:
        options: of the method.
        published: column -> what was published of it.
    """

    label: str
    method: str
    task: Task
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""
    published: Mapping[str, Figure] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique in its experiment, and fit for a file."""
        return named(self.group, self.label)


def named(group: str, label: str) -> str:
    """The name of an arm."""
    return "-".join(re.sub(r"[^\w.+-]+", "_", part) for part in (group, label) if part)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A published finding, and whether it is borne out by the means of a run, or by one seed's figures.

    Attributes:
        holds: asked with the figures of the arms of ``group`` by their labels; a claim of a group that is not run is not made.
    """

    text: str
    holds: Callable[[Means], bool]
    group: str = ""


def claims(group: str, asked: Mapping[str, Callable[[Means], bool]]) -> list[Claim]:
    """The claims of a group, from text to what is asked."""
    return [Claim(text=f"{group}: {text}" if group else text, holds=holds, group=group) for text, holds in asked.items()]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Arms, the columns of their table, the claims that it is held against.

    Attributes:
        size: the sizes in words, with the published ones.
        lines: draw the columns over the depth, a line an arm; else as bars.
    """

    name: str
    title: str
    size: str
    plan: Plan
    arms: tuple[Arm, ...]
    columns: tuple[str, ...] = ("gamma", "rho", "nudge", "S1", "S2")
    drawn: tuple[str, ...] = ("gamma", "rho")
    claims: tuple[Claim, ...] = ()
    lines: bool = False

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        assert len(set(names)) == len(names), f"{self.name}: two arms have one name"

    @property
    def groups(self) -> list[str]:
        """In the order of the arms."""
        return list(dict.fromkeys(arm.group for arm in self.arms))


def figures(**columns: float | Figure) -> dict[str, Figure]:
    """Published figures, each a mean or a mean and its spread."""
    return {name: value if isinstance(value, tuple) else (value, 0.0) for name, value in columns.items()}
