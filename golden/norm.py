"""The exact sums of squares and products, the only reductions in the datapath.

An exact integer, so the order of the elements, the number of lanes and the number of shards cannot change a bit of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 13
"""Elements per block: temporaries stay in cache, and BLAS makes no threads for so few, which crawl on a busy machine."""

Integers = NDArray[np.signedinteger[Any]]


def sum_of_squares(minuend: Integers, subtrahend: Integers | None = None) -> int:
    """``sum((minuend - subtrahend)**2)`` as an exact Python integer; signed integer arrays of at most 32 bits, (N,)."""
    total = 0
    for start in range(0, minuend.size, BLOCK):
        block = slice(start, start + BLOCK)
        total += energy(minuend[block] if subtrahend is None else difference(minuend[block], subtrahend[block]))
    return total


def inner(a: Integers, b: Integers) -> int:
    """``sum(a * b)`` of two blocks, exact for magnitudes up to 2**40, as a quarter of ``sum((a+b)**2) - sum((a-b)**2)``."""
    wide, other = a.astype(np.int64), b.astype(np.int64)
    return (energy(wide + other) - energy(wide - other)) // 4


def difference(minuend: Integers, subtrahend: Integers) -> Integers:
    """``minuend - subtrahend`` in a word that cannot overflow."""
    wide = np.int32 if max(minuend.dtype.itemsize, subtrahend.dtype.itemsize) < 4 else np.int64
    return np.subtract(minuend, subtrahend, dtype=wide)


def energy(block: Integers) -> int:
    """``sum(block**2)`` of one block, exact for magnitudes up to 2**40.

    A float64 sum is exact below 2**53 and an int64 sum below 2**63; where neither holds, the values are split as
    ``high * 2**k + low`` and the three partial sums are joined as Python integers.
    """
    if not block.size:
        return 0
    width = max(int(block.max()), -int(block.min())).bit_length()
    count = (block.size - 1).bit_length()
    if 2 * width + count <= 53:
        real = block.astype(np.float64)
        return int(real @ real)
    wide = block.astype(np.int64)
    if 2 * width + count <= 63:
        return int(wide @ wide)
    k = (width + 1) // 2
    assert 2 * k + count <= 62, f"a block of {block.size} values of {width} bits is too wide to sum"
    high, low = wide >> k, wide & ((1 << k) - 1)
    return (int(high @ high) << 2 * k) + (int(high @ low) << k + 1) + int(low @ low)
