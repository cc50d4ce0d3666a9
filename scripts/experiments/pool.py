"""Runs in parallel: one process each, with a progress bar; an interruption ends them at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm


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


def compute(tasks: Sequence[Task], jobs: int, title: str) -> Iterator[tuple[Any, Any]]:
    """``(key, result)`` of every task as it is done, in no certain order; with one job, in this process and in order.

    Whoever keeps each result when it comes loses none of the finished ones to an interruption.
    """
    if not tasks:
        return
    with tqdm(total=len(tasks), unit="run", desc=title, disable=None, dynamic_ncols=True) as bar:
        if jobs == 1 or len(tasks) == 1:
            for task in tasks:
                bar.set_postfix_str(task.shown)
                yield task.key, task.function(*task.arguments)
                bar.update()
            return
        # A fresh interpreter each: one BLAS thread a process, and nothing shared with a running simulator.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        context = multiprocessing.get_context("spawn")
        before = set(multiprocessing.active_children())
        with ProcessPoolExecutor(min(jobs, len(tasks)), context, initializer=_follow, initargs=(os.getpid(),)) as pool:
            with _interrupts_held():
                waiting = {pool.submit(task.function, *task.arguments): task for task in tasks}
            try:
                for done in as_completed(waiting):
                    task = waiting[done]
                    bar.set_postfix_str(task.shown)
                    yield task.key, done.result()
                    bar.update()
            except BaseException:
                # The pool is left by its own exit, which waits for its thread: one that is left alone complains as Python ends.
                for future in waiting:
                    future.cancel()
                for process in set(multiprocessing.active_children()) - before:
                    process.terminate()
                raise


def _follow(parent: int) -> None:
    """End this process soon after the one that started it is gone, however that ended: nobody would give it work."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits meanwhile, and processes that are started here never get it, not even while they are starting.

    It reaches every process of a terminal; the first one alone answers, and ends the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
