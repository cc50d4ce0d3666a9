"""Where runs are computed: an executor by its name. ``concurrent.futures.Executor`` is all that is asked of it."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass

LOCAL = "local"

PATIENCE = 60
"""Seconds in which a cluster has to have a worker."""


@dataclass(frozen=True)
class Workers:
    """An executor that is open, and how many runs it computes at a time."""

    executor: Executor
    slots: Callable[[], int]  #: now: a cluster may grow


@contextlib.contextmanager
def workers(where: str | Executor, jobs: int) -> Iterator[Workers]:
    """An executor, closed in the end.

    Args:
        where: ``local``, a process for each job; ``dask``, a Dask cluster on this machine, with a process for each job;
            ``tcp://HOST:PORT`` or any other address of a Dask scheduler; or an executor of one's own, which is left open.
        jobs: how many runs at a time, where that is not the cluster's affair.

    Raises:
        ValueError: no such executor, Dask is not installed, or the cluster does not answer.
    """
    if isinstance(where, Executor):
        own = int(getattr(where, "_max_workers", jobs))
        yield Workers(where, lambda: max(jobs, own))
    elif where == LOCAL:
        with _processes(jobs) as made:
            yield made
    else:
        with _dask(where, jobs) as made:
            yield made


def check(where: str | Executor) -> None:
    """Refuse what :func:`workers` would, before anything is begun; a scheduler is asked whether it is there.

    Raises:
        ValueError: no such executor, Dask is not installed, or the scheduler does not answer.
    """
    if isinstance(where, Executor) or where == LOCAL:
        return
    if where != "dask" and "://" not in where:
        raise ValueError(f"executor must be local, dask or the address of a scheduler such as tcp://HOST:8786, not {where!r}")
    try:
        import distributed  # here: it takes a second, and only those who ask for it want it
    except ImportError:
        raise ValueError(f'executor {where!r} must have Dask: pip install "kappa-rtl[cluster]"') from None
    if where != "dask":
        try:
            distributed.Client(where, timeout=10).close()
        except (OSError, TimeoutError, ValueError) as error:
            raise ValueError(f"executor must be the address of a scheduler that answers, not {where!r}: {error}") from None


@contextlib.contextmanager
def _dask(where: str, jobs: int) -> Iterator[Workers]:
    check(where)
    from distributed import Client, LocalCluster  # here: it takes a second

    with contextlib.ExitStack() as stack:
        if where == "dask":
            cluster = stack.enter_context(
                LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None, silence_logs=logging.CRITICAL)
            )
            client = stack.enter_context(Client(cluster))
        else:
            client = stack.enter_context(Client(where, timeout=10))
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError:
            raise ValueError(f"executor {where!r} must have a worker, and had none within {PATIENCE} s") from None
        yield Workers(client.get_executor(), lambda: max(1, sum(client.ncores().values())))


@contextlib.contextmanager
def _processes(jobs: int) -> Iterator[Workers]:
    """A fresh interpreter each: one BLAS thread a process, and nothing shared with a running simulator."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(jobs, context, initializer=_follow, initargs=(os.getpid(),)) as pool:
        try:
            yield Workers(pool, lambda: jobs)
        except BaseException:
            # The pool is left by its own exit, which waits for its thread: one that is left alone complains as Python ends.
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
def interrupts_held() -> Iterator[None]:
    """Ctrl-C waits meanwhile, and processes that are started here never get it, not even while they are starting.

    It reaches every process of a terminal; the first one alone answers, and ends the others.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
