"""Runs in parallel, with a progress bar; an interruption ends them at once, and a worker that dies is replaced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from .executors import LOCAL, interrupts_held, workers

DEATHS = 3
"""Of workers without a run that was done in between: then it is the run that kills them."""


@dataclass(frozen=True)
class Task:
    """One run: ``function(*arguments)``, which other processes must be able to import.

    Attributes:
        key: by which the caller knows its result.
        shown: beside the progress bar.
    """

    key: Any
    shown: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


def compute(
    tasks: Iterable[Task], jobs: int, title: str, *, executor: str | Executor = LOCAL, total: int | None = None
) -> Iterator[tuple[Any, Any]]:
    """``(key, result)`` of every task as it is done, in no certain order; with one local job, in this process and in order.

    Whoever keeps each result when it comes loses none of the finished ones to an interruption.

    Args:
        tasks: drawn when there is somebody to compute them, so that they may follow from results.
        executor: see :func:`~kappa_rtl.scripts.experiments.executors.workers`.
        total: of the bar, where the tasks do not tell how many they are.

    Raises:
        BrokenExecutor: workers die of the same runs again and again.
    """
    count = len(tasks) if isinstance(tasks, Sized) else None
    if count == 0:
        return
    source = iter(tasks)
    with tqdm(total=total if count is None else count, unit="run", desc=title, disable=None, dynamic_ncols=True) as bar:
        if executor == LOCAL and (jobs == 1 or count == 1):
            for task in source:
                bar.set_postfix_str(task.shown)
                yield task.key, task.function(*task.arguments)
                bar.update()
            return
        again: list[Task] = []
        deaths = 0
        while True:
            try:
                for task, result in _computed(source, again, jobs if count is None else min(jobs, count), executor):
                    bar.set_postfix_str(task.shown)
                    yield task.key, result
                    bar.update()
                    deaths = 0
                return
            except BrokenExecutor:
                deaths += 1
                if deaths == DEATHS or not again:
                    raise
                tqdm.write(f"a worker died: the {len(again)} runs that were under way begin again", file=sys.stderr)


def _computed(source: Iterator[Task], again: list[Task], jobs: int, executor: str | Executor) -> Iterator[tuple[Task, Any]]:
    """Results as they come; ``again`` holds, whenever this ends, the tasks that were handed out and not done."""
    with workers(executor, jobs) as team:
        waiting: dict[Future[Any], Task] = {}

        def hand_out(task: Task) -> None:
            with interrupts_held():
                waiting[team.executor.submit(task.function, *task.arguments)] = task

        try:
            for task in again:
                hand_out(task)
            while True:
                while len(waiting) < team.slots() + 1 and (drawn := next(source, None)) is not None:
                    again.append(drawn)
                    hand_out(drawn)
                if not waiting:
                    return
                for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                    task = waiting.pop(done)
                    result = done.result()
                    again.remove(task)
                    yield task, result
        except BaseException:
            for future in waiting:
                future.cancel()
            raise
