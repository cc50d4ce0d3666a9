"""What a command says while it works: never silent for long, and few lines where nobody watches."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

EVERY = {True: 0.5, False: 2.0}
"""Seconds between two words, on a terminal and elsewhere: a log gets lines of its own."""


@contextlib.contextmanager
def stage(what: str, quiet: bool = False) -> Iterator[None]:
    """Say what is being done, at once, and again and again for how long so far; on a terminal all on one line."""
    if quiet:
        yield
        return
    begun, watched = time.perf_counter(), sys.stderr.isatty()
    over = threading.Event()

    def say(text: str, *, ends: bool) -> None:
        print(f"\r{text}    " if watched else text, end="\n" if ends or not watched else "", file=sys.stderr, flush=True)

    def show() -> None:
        while not over.wait(EVERY[watched]):
            say(f"{what}: {time.perf_counter() - begun:.0f} s ...", ends=False)

    say(f"{what} ...", ends=False)
    watcher = threading.Thread(target=show, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
        say(f"{what}: {time.perf_counter() - begun:.1f} s", ends=True)
