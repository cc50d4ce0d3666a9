"""The oracle of shards of several formats under one law."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from kappa_rtl.golden.config import ThrottleConfig
from support.spec import Lane, SpecThrottle, constants, power_of_two


class SpecShards(SpecThrottle):
    """Shards of several formats under one law: energies are real numbers, added over all; the registers show A and B on the
    finest grids among the shards', squared.

    Its own scalar part stands for that of every shard, since all of them see the same sums.
    """

    def __init__(self, parts: Sequence[ThrottleConfig], thetas: Sequence[Sequence[int]], motion: str) -> None:
        total = sum(part.elements for part in parts)
        one = {"elements": total, "segments": [], "entries": 0, "scale_max": 7, "capacity": None}
        super().__init__(parts[0].replace(**one, motion=motion), [0] * total)
        self.shards = [SpecThrottle(part.replace(motion=motion), theta) for part, theta in zip(parts, thetas, strict=True)]
        finest = [part.grids.weight.fraction_bits + shard.finest // 2 for part, shard in zip(parts, self.shards, strict=True)]
        self.k = constants(self.config, max(finest))
        for k, shard in enumerate(self.shards):
            shard.lanes = [Lane((parts[k].seed + k) % 2**32, lane) for lane in range(parts[k].lanes)]
            shard.counts = self.counts  # one set of counters

    def step_all(self, gradients: Sequence[Sequence[int]], directions: Sequence[Sequence[int]] | None = None) -> dict[str, Any]:
        """One step of all shards, of which each has its vector."""
        directions = gradients if directions is None else directions
        g = [shard.config.grids.gradient.fraction_bits + shard.finest // 2 for shard in self.shards]
        intended = self.config.motion == "intended"
        grids = [(shard.config.grids, shard.finest // 2) for shard in self.shards]
        moving = [(own.direction if intended else own.weight).fraction_bits + finer for own, finer in grids]
        absorbed = [shard.absorb(G) for shard, G in zip(self.shards, gradients, strict=True)]
        A = max(Fraction(0), sum((a * power_of_two(-2 * f) for a, f in zip(absorbed, g, strict=True)), Fraction(0)))
        self.moved = any(shard.moved for shard in self.shards)
        scalars, step = self.decide_step(A, self._motion(moving))
        updates = [shard.apply(D, step)[1] for shard, D in zip(self.shards, directions, strict=True)]
        B = self._motion(moving)
        self.watch(A * power_of_two(2 * self.config.grids.gradient.fraction_bits))
        self.number += 1
        return {
            "A": A * power_of_two(2 * max(g)),
            "B": B * power_of_two(2 * max(moving)),
            **scalars,
            **self.flags(),
            "theta": [list(shard.theta) for shard in self.shards],
            "update": updates,
        }

    def _motion(self, fractions: Sequence[int]) -> Fraction:
        return sum((shard.B * power_of_two(-2 * f) for shard, f in zip(self.shards, fractions, strict=True)), Fraction(0))
