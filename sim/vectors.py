"""How vectors pass between golden and the simulator: as the files of the harness's memories."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..golden import segments as layouts
from ..golden.formats import Fixed
from ..golden.rounding import storage_dtype
from ..golden.segments import Segment, in_beats
from .runner import SimulationError


def pack(codes: NDArray[Any], width: int, lanes: int, padding: int = 0, segments: Sequence[Segment] = ()) -> bytes:
    """Codes as the bytes of a memory: a word a beat, lane 0 in its low bits, highest byte first, unused lanes ``padding``."""
    beats = _beats(codes.size, lanes, segments)
    padded = np.full(beats * lanes, padding, np.int64)
    padded[in_beats(segments, lanes) if segments else slice(0, codes.size)] = codes
    if width in (8, 16, 32):
        rows = padded.astype(f"<i{width // 8}").view(np.uint8).reshape(beats, -1)
    else:
        bits = (padded[:, None] >> np.arange(width)) & 1
        rows = np.packbits(bits.reshape(beats, -1).astype(np.uint8), axis=1, bitorder="little")
    return rows[:, ::-1].tobytes()


def unpack(data: bytes, fmt: Fixed, lanes: int, count: int, segments: Sequence[Segment] = ()) -> NDArray[np.signedinteger[Any]]:
    """The codes in the dump of such a memory: words of equal size, from the lowest byte up.

    Raises:
        SimulationError: bytes are missing, or an unused lane is not zero.
    """
    width, beats = fmt.width, _beats(count, lanes, segments)
    if len(data) % beats or len(data) // beats * 8 < width * lanes:
        raise SimulationError(f"the simulator wrote {len(data)} bytes of a vector of {count} elements")
    rows = np.frombuffer(data, np.uint8).reshape(beats, -1)
    if width in (8, 16, 32):
        codes = np.ascontiguousarray(rows[:, : width * lanes // 8]).view(f"<i{width // 8}").reshape(-1)
    else:
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : width * lanes].reshape(-1, width).astype(np.int64)
        codes = bits @ (1 << np.arange(width, dtype=np.int64)) - (bits[:, -1] << width)
    if segments:
        places = in_beats(segments, lanes)
        codes = np.concatenate([codes[places], np.delete(codes, places)])
    if codes[count:].any():
        raise SimulationError("the lanes beyond the last element must be zero")
    return codes[:count].astype(storage_dtype(fmt))


def _beats(count: int, lanes: int, segments: Sequence[Segment]) -> int:
    """Beats of a vector of so many elements, in these segments if there are any."""
    return layouts.beats(segments, lanes) if segments else -(-count // lanes)


def from_text(text: str, words: int | None = None) -> bytes:
    """The same bytes from a dump in hexadecimal, a word a line and highest digit first, as four-state simulators write it.

    ``words``: how many of them there are, from the first one on; all if not given.

    Raises:
        SimulationError: a bit is undefined.
    """
    digits = re.sub("//[^\n]*", "", text) if "/" in text else text  # Icarus writes addresses as comments
    try:
        return b"".join(bytes.fromhex(line)[::-1] for line in digits.split()[:words])
    except ValueError as error:
        raise SimulationError(f"the simulator wrote undefined or missing bits into a vector: {error}") from None
