"""The random numbers of stochastic rounding: a generator for each lane, the same in golden and in hardware.

A lane's bits b[0], b[1], ... obey ``b[n] = b[n - 63] ^ b[n - 62]`` (the primitive polynomial x**63 + x + 1, period
2**63 - 1). b[0] to b[62] are its seed. Every beat of an apply pass draws the next 16 bits in every lane, whether the lane holds
an element or not, the first of them the most significant; the first draw after reset is b[63] to b[78]. A rounding takes the
top ``random_bits`` of its draw.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

DRAW_BITS = 16
DEGREE = 63
_MASK = (1 << 64) - 1


def lane_seeds(seed: int, lanes: int) -> tuple[int, ...]:
    """b[0] to b[62] of each lane, b[0] lowest: the low 63 bits of the outputs of SplitMix64 begun at ``seed``, 1 for zero."""
    found = []
    for lane in range(1, lanes + 1):
        z = (seed + lane * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _MASK
        found.append((z ^ z >> 31) & (_MASK >> 1) or 1)
    return tuple(found)


class LaneGenerators:
    """The draws of all lanes, a beat a row.

    Squaring the polynomial four times gives ``b[n] = b[n - 63 * 16] ^ b[n - 62 * 16]``: whole draws obey the recurrence of
    the bits. Squaring it further lets many draws be made at once from the ones before them.
    """

    def __init__(self, seeds: tuple[int, ...]) -> None:
        bits = np.array([[seed >> i & 1 for seed in seeds] for i in range(DEGREE)], np.uint16)
        bits = np.concatenate([bits, np.empty((DEGREE * DRAW_BITS, len(seeds)), np.uint16)])
        for n in range(DEGREE, len(bits)):
            bits[n] = bits[n - DEGREE] ^ bits[n - DEGREE + 1]
        places = np.arange(DRAW_BITS)[::-1]
        drawn = bits[DEGREE:].reshape(DEGREE, DRAW_BITS, len(seeds))
        self._ahead = (drawn << places[:, None].astype(np.uint16)).sum(axis=1, dtype=np.uint16)

    def state_dict(self) -> dict[str, NDArray[np.uint16]]:
        """The draws that are made ahead, (63, lanes), from which all others follow."""
        return {"ahead": self._ahead.copy()}

    def load_state_dict(self, state: Mapping[str, NDArray[np.uint16]]) -> None:
        """Go on from a state of as many lanes."""
        self._ahead = state["ahead"].copy()

    def draw(self, beats: int) -> NDArray[np.uint16]:
        """The next ``beats`` draws of every lane, (beats, lanes)."""
        rows = np.empty((beats + DEGREE, self._ahead.shape[1]), np.uint16)
        rows[:DEGREE] = self._ahead
        made = DEGREE
        while made < len(rows):
            reach = 1 << (made // DEGREE).bit_length() - 1
            count = min((DEGREE - 1) * reach, len(rows) - made)
            first = made - DEGREE * reach
            np.bitwise_xor(
                rows[first : first + count], rows[first + reach : first + reach + count], out=rows[made : made + count]
            )
            made += count
        self._ahead = rows[beats:].copy()
        return rows[:beats]
