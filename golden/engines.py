"""What works on the elements: numpy, the reference, or the same compiled, which is faster and equal to the bit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from .compiled import CompiledShard, compiler
from .config import ThrottleConfig
from .numbers import whole
from .shard import Shard

ENGINES = ("numpy", "numba", "auto")
"""Their names; ``auto`` is numba where it is installed, and numpy elsewhere."""


Make = Callable[[ThrottleConfig, NDArray[Any]], Shard]
Engine = str | Make
"""The name of an engine, or what makes its shards, of a configuration and the first weights as codes."""


def shards(engine: Engine, threads: int) -> Make:
    """What makes a shard of a configuration and its weights.

    Args:
        engine: one of :data:`ENGINES`, or what is asked for.
        threads: how many work on the elements at once in numba; numpy takes one, whatever this is.

    Raises:
        ValueError: no such engine, one that is not installed, or no positive number of threads.
    """
    count = whole("threads", threads, 1)
    if callable(engine):
        return engine
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    if engine == "numpy" or (engine == "auto" and compiler() is None):
        return Shard
    if compiler() is None:
        raise ValueError(
            f'engine must be numpy or auto where numba is not installed (pip install "kappa-rtl[fast]"), not {engine!r}'
        )
    return functools.partial(CompiledShard, threads=count)
