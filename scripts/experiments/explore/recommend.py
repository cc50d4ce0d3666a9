"""The least widths that are good enough: whose score is within a distance of float, with a probability over seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import tomli_w

from ....golden.config import ThrottleConfig
from .found import COSTS, Found, Trained, shown

WITHIN, PROBABILITY, COST = 0.01, 0.75, "memory_bits"


@dataclass(frozen=True)
class Recommendation:
    """A point that is good enough, and the unit that it is.

    Attributes:
        trained: the point with its results.
        config: its unit, the cheapest with the fewest lanes.
        cost: what it has least of, and how much.
        good, seeds: how many of the seeds are within the distance.
        within: the distance.
    """

    trained: Trained
    config: ThrottleConfig
    cost: tuple[str, float]
    good: int
    seeds: int
    within: float

    @property
    def probability(self) -> float:
        """That another seed is within it too, by Laplace's rule of succession."""
        return succession(self.good, self.seeds)

    @property
    def toml(self) -> str:
        """The unit as a configuration file."""
        return tomli_w.dumps({"throttle": self.config.to_table()})

    def __str__(self) -> str:
        name, value = COSTS[self.cost[0]], shown(self.cost[1])
        return (
            f"{self.trained.point}: within {self.within:g} of float in {self.good} of {self.seeds} seeds, the next one with a "
            f"probability of {self.probability:.2f}; {name}: {value}"
        )


def succession(good: int, seeds: int) -> float:
    """The probability that the next one is good too, where nothing was known before: ``(good + 1) / (seeds + 2)``."""
    return (good + 1) / (seeds + 2)


def check(within: float, probability: float, seeds: int) -> None:
    """Refuse what no point could reach.

    Raises:
        ValueError: names the argument, the value and the rule.
    """
    if not within >= 0:
        raise ValueError(f"within must be at least 0, not {within!r}")
    if not 0 < probability < 1:
        raise ValueError(f"probability must be between 0 and 1, not {probability!r}")
    most = succession(seeds, seeds)
    if probability > most:
        needed = math.ceil((2 * probability - 1) / (1 - probability) - 1e-9)
        raise ValueError(
            f"probability must be at most {most:.3g} with seeds = {seeds}, which say no more, not {probability!r}; take at least "
            f"{needed} seeds"
        )


def recommend(
    found: Found, *, within: float = WITHIN, probability: float = PROBABILITY, cost: str = COST
) -> Recommendation | None:
    """The cheapest point that is within a distance of float with at least a probability; None where there is none.

    Float is the law that goes best without any grid, and every seed is held against the same seed of it. Three seeds of three
    give a probability of .8, eight of eight .9.

    Args:
        within: by how much the score may be worse.
        cost: what is to be least.

    Raises:
        ValueError: names the argument, the value and the rule.
    """
    check(within, probability, len(found.reference.scores))
    if cost not in COSTS:
        raise ValueError(f"cost must be one of {', '.join(COSTS)}, not {cost!r}")
    sign = 1 if found.larger_is_better else -1
    cheapest: dict[str, dict[str, Any]] = {}
    for row in sorted(found.rows, key=lambda row: (row[cost], row["lanes"])):
        cheapest.setdefault(row["point"], row)
    enough = []
    for one in found.trained:
        distances = found.distances(one)
        good = sum(distance <= within for distance in distances)
        if succession(good, len(distances)) >= probability and one.ending != "diverged":
            enough.append((cheapest[one.point.id][cost], -good, -sign * one.median("score"), one))
    if not enough:
        return None
    paid, _, _, best = min(enough, key=lambda item: item[:3])
    good = sum(distance <= within for distance in found.distances(best))
    config = found.config(best.point, cheapest[best.point.id]["lanes"])
    return Recommendation(best, config, (cost, paid), good, len(best.scores), within)
