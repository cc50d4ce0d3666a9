"""Ctrl-C: a command ends at once with status 130, and says how to go on."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

INTERRUPTED = 130
"""The exit status of a command that was interrupted, 128 + SIGINT."""

GRACE = 1.0
"""Seconds after which a command that has not ended by itself is ended: an interrupt may come where Python swallows it, as in a
destructor, or while a thread is waited for that knows nothing of it."""

NOTHING = "nothing was begun that could be gone on with"

_hints: list[Callable[[], str]] = [lambda: NOTHING]


@contextlib.contextmanager
def interruptible(how: str = "the same command goes on from there", begun: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Within it an interruption says that what is done stays, and ``how`` to go on, if anything was ``begun`` to go on from."""
    _hints.append(lambda: f"what is done stays, and {how}" if begun() else NOTHING)
    try:
        yield
    finally:
        if not isinstance(sys.exception(), KeyboardInterrupt):  # whoever answers the interrupt still has to say it
            _hints.pop()


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """For a whole command: the first Ctrl-C unwinds it, for :data:`GRACE` at most; the second one ends it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _say.cache_clear()
    deadline = threading.Timer(GRACE, _end)
    deadline.daemon = True

    def answer(signum: int, frame: FrameType | None) -> None:
        if deadline.is_alive():
            _end()
        deadline.start()
        warnings.simplefilter("ignore")  # of what is left half-made
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, answer)
    try:
        yield
    except KeyboardInterrupt:
        _say()
        sys.exit(INTERRUPTED)  # the deadline stays: as Python ends it waits for every thread
    finally:
        signal.signal(signal.SIGINT, before)


@functools.cache
def _say() -> None:
    """Once, whoever comes first."""
    sys.stderr.write(f"\ninterrupted; {_hints[-1]()}\n")
    sys.stderr.flush()


def _end() -> None:
    """End this process and all that it has started, without unwinding: files are written whole or not at all."""
    for process in reversed(_descendants(os.getpid())):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)
    _say()
    os._exit(INTERRUPTED)


def _descendants(process: int) -> list[int]:
    """The processes that one has started, and those that these have, where the system tells of them."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *_descendants(child)]
    return found
