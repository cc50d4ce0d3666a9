"""What a search asks of whatever it trains: a network in numpy, or a model of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ....golden.config import ThrottleConfig
from ....golden.training.rule import Rule
from .point import Point
from .space import Integers

Result = dict[str, Any]
"""Of a run: ``ending`` (``done``, ``diverged`` or ``dead``), ``steps`` made, ``score``, ``loss`` (the last), ``min_alpha``,
``median_alpha``, ``still`` (share of the steps that moved no weight), ``radius`` and ``angle`` (medians; NaN where they were not
measured), ``saturated`` (share of the weights on a rail at the end), ``curve`` (step, loss, alpha, curvature; few dots),
``seconds``."""


class Seen(Protocol):
    """What a run in float was like; as text, what was found of it; and what an analytic rule asks for, if it says something."""

    @property
    def integers(self) -> Integers: ...

    @property
    def apart(self) -> Integers:
        """With a scale for each tensor."""
        ...

    @property
    def rule(self) -> Rule | None: ...


class Subject(Protocol):
    """What every point trains.

    Attributes:
        seed: of the first run.
        title: what it is, in a line.
        labelled: whether a score is an accuracy, the larger the better; else it is a loss.
        identity: text that tells it from all others, its data included.
    """

    @property
    def seed(self) -> int: ...

    @property
    def title(self) -> str: ...

    @property
    def labelled(self) -> bool: ...

    @property
    def identity(self) -> str: ...

    def config(self, point: Point, **others: Any) -> ThrottleConfig:
        """The unit of a point."""

    def calibrate(self, references: Sequence[Point]) -> Seen:
        """Train the references in float, as far as that is needed to say where binary points belong."""

    def train(self, point: Point, seed: int) -> Result:
        """One run."""


def train(subject: Subject, point: Point, seed: int) -> Result:
    """One run, as a function that other processes can import."""
    return subject.train(point, seed)
