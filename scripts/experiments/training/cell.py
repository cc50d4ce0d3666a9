"""The name of an arm of the curvature experiment, and what it says."""

from __future__ import annotations

from typing import NamedTuple

ESTIMATORS = ("divide", "applied", "intended", "projection")
"""How the curvature is found, in the order of the tables."""

PUBLISHED_CHI = 1.5
"""The law's own bound."""

CORRECTIONS = ("quiet", "mixed")
"""Tried beside them: the intended one without the gradients' rounding, and one between applied and intended."""


class Cell(NamedTuple):
    """What an arm is: its name tells it."""

    task: str
    bits: int  #: of the weights; 0 in float
    rounding: str
    estimator: str
    chi: float  #: 0 without a throttle

    @property
    def name(self) -> str:
        width = str(self.bits) if self.bits else "float"
        rounding = self.rounding.replace("_", "-")
        law = f"{self.estimator}_chi{self.chi:g}" if self.chi else self.estimator
        return f"{self.task}_{width}_{rounding}_{law}"

    @classmethod
    def of(cls, name: str) -> Cell:
        """The inverse of :attr:`name`."""
        task, width, rounding, estimator, *chi = name.split("_")
        return cls(
            task,
            0 if width == "float" else int(width),
            rounding.replace("-", "_"),
            estimator,
            float(chi[0].removeprefix("chi")) if chi else 0.0,
        )
