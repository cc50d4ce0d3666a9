"""What a signed product takes on an ECP5: multiplier blocks, and beyond their width adders and registers beside them."""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 18
"""Bits of a factor of MULT18X18D."""

FEW = 16
"""Words that look-up tables hold, in the place of a block memory."""

SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Words of a block memory, and the bits of each."""


class Product(NamedTuple):
    """What one multiplier takes."""

    dsp: int = 0  #: blocks
    adders: int = 0  #: bits of the carry chains that join their products, two in a cell
    soft: int = 0  #: bits of products by a single bit, for which Yosys takes look-up tables
    registers: int = 0  #: bits of registers; those of a block are inside it

    def __add__(self, other: object) -> Product:
        assert isinstance(other, Product)
        return Product(*(a + b for a, b in zip(self, other, strict=True)))

    def times(self, count: int) -> Product:
        return Product(*(count * n for n in self))


def product(a: int, b: int, used: int | None = None, *, square: bool = False, spare: int = 0) -> Product:
    """A multiplier (:class:`~kappa_rtl.hw.cells.multiplier.Multiplier`) of so many bits.

    Args:
        used: bits of the product that are used; all if not given.
        square: both factors are the same number, so one register holds both.
        spare: highest bits of both factors that are known to repeat the sign: beyond the width of a block they are left out.
    """
    if a <= BLOCK and b <= BLOCK:
        return Product(dsp=1)
    a, b = a - spare, b - spare
    bits = min(a + b, a + b if used is None else used)
    return _split(max(a, b), min(a, b), bits) + Product(registers=a + (0 if square else b) + bits)


def _split(a: int, b: int, bits: int) -> Product:
    """Yosys' ``mul2dsp``: chunks of a whole block from the lowest bit on, of the first factor and then of the other one."""
    if min(a, b) < 2:
        return Product(soft=max(a, b))
    if a <= BLOCK and b <= BLOCK:
        return Product(dsp=1)
    wide, other = (a, b) if a > BLOCK else (b, a)
    chunks = -(-(wide - BLOCK) // BLOCK)
    last = wide - chunks * BLOCK
    found = Product()
    for chunk in range(chunks):
        found += _split(BLOCK, other, min(bits, other + BLOCK)) + Product(adders=even(bits - BLOCK * (chunk + 1)))
    return found + _split(last, other, other + last)


def even(bits: int) -> int:
    """A carry cell has two bits."""
    return 2 * -(-max(0, bits) // 2)


def memory_blocks(width: int, depth: int) -> int:
    """Block memories (DP16KD) of a memory of so many words.

    Those of ``memory.v``, in the widest words that reach the depth; beyond what one reaches as Yosys lays them side by side and
    one behind the other, the fewest there are.
    """
    depth = max(2, depth)
    if depth <= FEW:
        return 0
    counts = [-(-width // bits) * -(-depth // words) for words, bits in SHAPES]
    reaching = [count for (words, _), count in zip(SHAPES, counts, strict=True) if depth <= words]
    return reaching[0] if reaching else min(counts)
