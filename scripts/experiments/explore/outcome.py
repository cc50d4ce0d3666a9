"""A search that is done, as a program or a notebook has it: its rows and fronts, its answer, its page."""

from __future__ import annotations

from html import escape

from .found import Found
from .page import page
from .recommend import COST, PROBABILITY, WITHIN, Recommendation, recommend

HEIGHT = 1100
"""Of the page in a notebook, pixels."""


class Outcome(Found):
    """What :func:`~kappa_rtl.scripts.experiments.explore.run.explore` gives."""

    def recommend(self, *, within: float = WITHIN, probability: float = PROBABILITY, cost: str = COST) -> Recommendation | None:
        """The least widths; see :func:`~kappa_rtl.scripts.experiments.explore.recommend.recommend`."""
        return recommend(self, within=within, probability=probability, cost=cost)

    def page(self, *, within: float = WITHIN, probability: float = PROBABILITY) -> str:
        """The interactive page, with its libraries in it."""
        best = self.recommend(within=within, probability=probability)
        return page(self, best, within=within, probability=probability)

    def _repr_html_(self) -> str:
        """For a notebook: the page in a frame of its own."""
        return f'<iframe srcdoc="{escape(self.page())}" width="100%" height="{HEIGHT}" frameborder="0"></iframe>'
