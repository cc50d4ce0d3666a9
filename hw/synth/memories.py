"""What a memory of so many words takes: the cheapest of what a family has, as Yosys' ``memory_libmap`` reckons it.

That weighs the blocks, the multiplexers and enables where several stand one behind the other, and what the memory would be in
registers. The costs are those of Yosys 0.70. On an ECP5 ``memory.v`` has the blocks itself, and Yosys chooses only beyond them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FEW", "KINDS", "Kind", "Memory", "memory"]

FEW = 16
"""Words that ``memory.v`` leaves to look-up tables on an ECP5, in the place of a block memory."""

DEEP = 16384
"""And up to how many it has blocks."""

SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (DEEP, 1))
"""Words of those, and the bits of each."""

WIDE = (1, 2, 4, 9, 18, 36)


class Kind(NamedTuple):
    """One way to hold a memory."""

    address: int  #: bits of the address of the narrowest word
    widths: tuple[int, ...]  #: bits of a word; the address of each is a bit shorter than that of the one before
    cost: int  #: of one
    block: int = 1  #: block memories that one counts; none if it is in the place of look-up tables
    byte: int = 9  #: bits of a word come in so many at a time
    used: int = 0  #: how much of the cost goes with the bits that are used


class Memory(NamedTuple):
    """What one memory takes."""

    block: int = 0  #: block memories
    distributed: int = 0  #: memories in the place of look-up tables
    registers: int = 0  #: bits of the registers that hold it, or stand behind it
    chosen: int = 0  #: bits that multiplexers behind several choose from, less those they choose


PORT = 2
"""What a port beside the written one adds to the cost of a memory."""

DPR16X4 = Kind(4, (4,), 4, block=0, byte=4)
KINDS: dict[str, tuple[Kind, ...]] = {
    "ecp5": (Kind(14, WIDE, 128), DPR16X4),
    "nexus": (Kind(14, WIDE, 128), DPR16X4),
    "gowin": (Kind(14, WIDE, 128), DPR16X4._replace(used=4)),
    "machxo2": (Kind(13, WIDE[:-1], 64), DPR16X4),
    "ice40": (Kind(11, (2, 4, 8, 16), 64, byte=1),),
    "gatemate": (
        Kind(14, (1, 2, 5, 10, 20, 40), 129, byte=1),
        Kind(15, (1, 2, 5, 10, 20, 40, 80), 257, block=2, byte=1),
        Kind(16, (1, 2, 5), 513, block=4, byte=1),
    ),
    "xilinx": (
        Kind(14, WIDE, 129),
        Kind(15, (*WIDE, 72), 257, block=2),
        *(Kind(address, (width,), 8, block=0, byte=width, used=7) for address, width in ((5, 6), (6, 3))),
        Kind(7, (1,), 8, block=0, byte=1, used=8),
    ),
}
"""What each target has."""


def memory(target: str, width: int, depth: int) -> Memory:
    """What a memory (:class:`~kappa_rtl.hw.cells.memory.BlockMemory`) takes on a target: ``depth`` words of ``width`` bits."""
    depth = max(2, depth)
    if target == "ecp5" and FEW < depth <= DEEP:
        return Memory(block=-(-width // next(bits for words, bits in SHAPES if depth <= words)))
    least, found = width * depth, Memory(registers=width * (depth + 2), chosen=width * (depth - 1))
    for blocks in (False, True):  # look-up tables come first, and what is found counts as less than its cost by the fraction
        ways = [(kind, *_held(kind, width, depth)) for kind in KINDS[target] if bool(kind.block) == blocks]
        if not ways:
            continue
        kind, cost, count, deep = min(ways, key=lambda way: way[1])
        if cost < least:
            least = int(cost)
            held = {"block": kind.block * count} if blocks else {"distributed": count}
            found = Memory(**held, registers=width * (1 if blocks else 2), chosen=(deep - 1) * width)
    return found


def _held(kind: Kind, width: int, depth: int) -> tuple[float, int, int]:
    """What a memory costs in one way to hold it, in words of the best width: the cost, how many, how many behind each other."""
    found: tuple[float, int, int] | None = None
    for place, bits in enumerate(kind.widths):
        deep = -(-depth // (1 << kind.address - place))
        byte = min(kind.byte, bits)
        count = -(-deep * (-(-width // byte) * byte) // bits)
        gates = (deep - 1) * width + (deep if deep > 1 else 0)
        cost = (kind.cost - kind.used) * count + kind.used * deep * width / bits + gates / 2 + PORT
        if found is None or cost < int(found[0]):
            found = cost, count, deep
    assert found is not None
    return found
