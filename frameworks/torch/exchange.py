"""Processes that hold parts of one model: what they tell each other at first, and the integers that they add up in a step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist

from ...golden.config import ThrottleConfig
from .plan import Plan

LIMB = 32
"""Bits of a limb: sums of 2**30 of them fit an int64."""

LIMBS = 5
"""Energies have at most ``32 + 66`` bits, and a sign."""


class Ranks:
    """The processes of a group, each with shards of its own.

    Args:
        group: the process group; every process makes its throttle, with the same law.
        plan: of the tensors that are held here, a shard each.

    Attributes:
        elsewhere: the shards of the processes before this one, and of those behind it.
    """

    def __init__(self, group: Any, plan: Plan) -> None:
        self._group = group
        rank, size = dist.get_rank(group), dist.get_world_size(group)
        told: list[Any] = [None] * size
        dist.all_gather_object(told, ([config.to_table() for config in plan.configs], set(plan.idle)), group=group)
        plan.refuse_idle(sorted(set.intersection(*(idle for _, idle in told))))
        all_configs = [[ThrottleConfig.from_table(table) for table in tables] for tables, _ in told]
        before = [config for held in all_configs[:rank] for config in held]
        after = [config for held in all_configs[rank + 1 :] for config in held]
        self.elsewhere = (before, after)

    def exchange(self, found: Sequence[int]) -> list[int]:
        """The sums over all processes, exact: integers are sent as limbs, with their sign."""
        limbs = [[_sign(value) * (abs(value) >> LIMB * i & (1 << LIMB) - 1) for i in range(LIMBS)] for value in found]
        tensor = torch.tensor(limbs, dtype=torch.int64)
        dist.all_reduce(tensor, group=self._group)
        return [sum(limb << LIMB * i for i, limb in enumerate(row)) for row in tensor.tolist()]


def _sign(value: int) -> int:
    return -1 if value < 0 else 1
