"""How long a credit experiment will take here, before it begins: a few steps of every arm, and what follows from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from ....golden.credit.methods import METHODS
from ....golden.credit.tasks import LQ, Frozen, Online
from ....golden.throttle import Throttle
from .arms import Arm
from .throttling import Throttled

STEPS = 6


def estimate(todo: Sequence[tuple[Arm, int]], jobs: int) -> float:
    """Seconds, of so many runs at a time; those through a throttle by the golden unit.

    Args:
        todo: the arms that are to run, with their seeds.
    """
    cost: dict[str, float] = {}
    total = 0.0
    for arm, seed in tqdm(todo, unit="run", desc="estimate", disable=None, leave=False, dynamic_ncols=True):
        task = arm.task
        if isinstance(task, Throttled):
            total += task.steps * _throttled(arm, task, seed, cost)
            continue
        if isinstance(task, Frozen):  # the network is trained once a seed, by whichever arm comes first
            known = repr((task.training, seed))
            if known not in cost:
                cost[known] = task.training.steps * _step("bp", task.training, {}, seed, cost)
                total += cost[known]
            if METHODS[arm.method].learns:
                total += task.steps * _step(arm.method, task, arm.options, seed, cost)
        elif isinstance(task, Online) or METHODS[arm.method].learns:
            total += task.steps * _step(arm.method, task, arm.options, seed, cost)
    return total / max(1, min(jobs, len(todo)))


def _step(method: str, task: LQ | Online | Frozen, options: Any, seed: int, cost: dict[str, float]) -> float:
    """What a step costs: once for each sort of arm, since seeds, rates and shares cost nothing."""
    sort = repr((method, sorted(options.items()), type(task), _net(task), task.batch))
    if sort not in cost:
        few: Any = replace(task, steps=STEPS)
        if isinstance(few, Frozen):
            few = replace(few, training=replace(few.training, steps=1))
        if isinstance(few, Online):
            few = replace(few, warmup=0.0)
        cost[sort] = few.run(method, options, seed).seconds / STEPS
    return cost[sort]


def _throttled(arm: Arm, task: Throttled, seed: int, cost: dict[str, float]) -> float:
    """What a step through a unit costs, its start apart."""
    sort = repr((arm.method, sorted(arm.options.items()), task.net, bool(task.bits)))
    if sort not in cost:
        seconds = []
        for steps in (1, 1 + STEPS):
            few = replace(task, steps=steps, warmup=0.0)
            began = time.perf_counter()
            few.run(arm.method, arm.options, seed, Throttle if task.bits else None)
            seconds.append(time.perf_counter() - began)
        cost[sort] = max(0.0, seconds[1] - seconds[0]) / STEPS
    return cost[sort]


def _net(task: LQ | Online | Frozen) -> Any:
    match task:
        case LQ():
            return (task.width, task.depth, task.single)
        case Frozen():
            return task.training.net
    return task.net


def duration(seconds: float) -> str:
    """``2 h 10 min``, ``35 s``."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
