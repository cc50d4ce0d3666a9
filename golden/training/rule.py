"""An analytic rule beside what is measured: the precision that a float run asks for by the statistics of its gradients.

After C. Sakr and N. Shanbhag, Per-Tensor Fixed-Point Quantization of the Back-Propagation Algorithm, ICLR 2019 (arXiv
1812.11732), for one grid for all weights: a gradient's rail is at least twice its largest standard deviation over the run, and
its last digit at most a quarter of the least; a weight, which accumulates, has a last digit that is at most the least rate times
the gradient's.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..formats import Fixed


class Rule(NamedTuple):
    """The formats that the rule asks for."""

    gradient: Fixed
    weight: Fixed

    def __str__(self) -> str:
        gradient, weight = (f"of {one.width} ({one.name})" for one in self)
        return (
            f"the analytic rule of Sakr and Shanbhag asks for weights {weight} and gradients {gradient} bits, rounded to nearest"
        )


def rule(*, largest_weight: float, least_deviation: float, largest_deviation: float, least_rate: float) -> Rule | None:
    """What the rule asks for; None where a deviation or a rate is 0 or not finite, of which it says nothing.

    Args:
        largest_weight: the largest magnitude of a weight over the run.
        least_deviation, largest_deviation: of the gradient's elements, over the steps.
        least_rate: alpha times eta, over the steps.
    """
    known = (largest_weight, least_deviation, largest_deviation, least_rate)
    if not all(0 < value < math.inf for value in known):
        return None
    digit = math.floor(math.log2(least_deviation / 4))
    gradient = Fixed(True, max(1 + math.ceil(math.log2(2 * largest_deviation)), 2 + digit), -digit)
    last = math.floor(math.log2(least_rate)) + digit
    weight = Fixed(True, max(1 + math.ceil(math.log2(largest_weight)), 2 + last), -last)
    return Rule(gradient, weight)
