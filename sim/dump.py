"""The activity in a waveform: how often each net changed, counted as the file is read.

A line of a value change dump gives a bit its value. It is a change but where a simulator takes one back within the same instant:
then it writes the value that was there. So lines are sorted by net, each cycle's at once, and compared with the one before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..hw.energy.activity import Activity
from ..hw.energy.netlist import net_name
from .runner import SimulationError

TICK = b"10ps"
"""What a dump counts time in."""

PERIOD = 1000
"""Ticks of a clock cycle: the harness's 10 ns."""

BLOCK = 1 << 20
"""Bytes read at once."""


class _Lines(dict[bytes, int]):
    """The number of each line that gives a net its value, twice the net's place and the bit; of any other line -1."""

    def __init__(self, idents: Mapping[bytes, str]) -> None:
        super().__init__((value + ident, 2 * i + bit) for i, ident in enumerate(idents) for bit, value in enumerate((b"0", b"1")))
        self._named = idents

    def __missing__(self, line: bytes) -> int:
        if line[:1] in (b"x", b"z") and line[1:] in self._named:
            raise SimulationError(f"net {self._named[line[1:]]} is undefined in the window")
        return -1

    def read(self, piece: bytes) -> NDArray[np.int64]:
        """The numbers of the lines in a piece of a dump, in order, less those that are no net's."""
        lines = piece.split(b"\n")
        numbers = np.fromiter(map(self.__getitem__, lines), np.int64, len(lines))
        return numbers[numbers >= 0]


class _Tally:
    """What nets hold, and how often each rose and fell until then; arrays of a value a net."""

    def __init__(self, values: NDArray[np.bool_]) -> None:
        self.values = values
        self.rises = np.zeros(len(values), np.int64)
        self.falls = np.zeros(len(values), np.int64)

    def take(self, numbers: NDArray[np.int64]) -> None:
        """Take in lines by their numbers."""
        by_net = numbers[np.argsort(numbers >> 1, kind="stable")]
        nets, bits = by_net >> 1, (by_net & 1).astype(bool)
        begins = np.append(True, nets[1:] != nets[:-1])[: len(nets)]
        before = np.where(begins, self.values[nets], np.append(False, bits[:-1])[: len(nets)])
        for counts, change in ((self.rises, bits & ~before), (self.falls, before & ~bits)):
            counts += np.bincount(nets[change], minlength=len(counts))
        ends = np.append(begins[1:], True)[: len(nets)]
        self.values[nets[ends]] = bits[ends]


def activity(path: Path, nets: Sequence[int], registers: Sequence[int], clock: int) -> Activity:
    """The activity of a dump that begins in the low phase of the clock, half a period before an edge, and ends by ``$dumpoff``.

    Args:
        nets: ascending, those whose changes are counted.
        registers: ascending, those whose changes are kept by cycle.
        clock: the clock's.

    Raises:
        SimulationError: a net is not in the dump or undefined at any time, or the dump is no such window.
    """
    with path.open("rb") as file:
        found = _header(file)
        missing = [net for net in nets if net_name(net) not in found]
        if missing:
            raise SimulationError(
                f"{len(missing)} nets of the netlist are not in the dump, {net_name(missing[0])} the first of them"
            )
        idents: dict[bytes, str] = {}
        for net in nets:  # nets that are one in the simulator share a name there
            idents.setdefault(found[net_name(net)], net_name(net))
        places = {ident: i for i, ident in enumerate(idents)}
        of_net, of_register = (np.array([places[found[net_name(net)]] for net in some], np.int64) for some in (nets, registers))
        lines, pieces = _Lines(idents), _pieces(file)
        first = lines.read(next(pieces))
        if sorted(first >> 1) != list(range(len(idents))):
            raise SimulationError("the dump must begin with a value of every net")
        start = np.zeros(len(idents), bool)
        start[first >> 1] = first & 1
        tally = _Tally(start.copy())
        settled = [np.zeros(len(idents), np.int64) for _ in range(2)]
        kept = []
        for number, piece in enumerate(pieces):
            before = tally.values.copy()
            tally.take(lines.read(piece))
            settled[0] += tally.values & ~before
            settled[1] += before & ~tally.values
            if number:  # before the first edge all is still
                kept.append((tally.values != before)[of_register])
    pulses = [int(counts[places[found[net_name(clock)]]]) for counts in (tally.rises, tally.falls)]
    if pulses != [len(kept)] * 2:
        raise SimulationError(
            f"the clock must rise and fall once a cycle in the dump, not {pulses[0]} and {pulses[1]} times in {len(kept)}"
        )
    return Activity(
        np.asarray(nets, np.int64),
        tally.rises[of_net],
        tally.falls[of_net],
        settled[0][of_net],
        settled[1][of_net],
        np.asarray(registers, np.int64),
        start[of_register],
        np.array(kept, bool).reshape(len(kept), len(registers)),
    )


def _header(file: BinaryIO) -> dict[str, bytes]:
    """The names of a dump and what stands for them; the file is left behind its header."""
    found: dict[str, bytes] = {}
    words: list[bytes] = []
    for line in file:
        words += line.split()
        if words[-1:] != [b"$end"]:
            continue  # a declaration may go over several lines
        match words:
            case [b"$var", _, _, ident, name, *_]:
                found[name.decode()] = ident
            case [b"$timescale", *unit, _] if b"".join(unit) != TICK:
                raise SimulationError(f"the dump must count time in {TICK.decode()}, not {b''.join(unit).decode()}")
            case [b"$enddefinitions", *_]:
                return found
        words = []
    raise SimulationError("the dump has no end of its definitions")


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    """The first values; then what comes before the first edge of the clock, and after each.

    Raises:
        SimulationError: the dump ends without ``$dumpoff``.
    """
    held = b""
    edge = 0

    def until(mark: bytes) -> bytes | None:
        """What stands before a mark, which stays; None if ``$dumpoff`` comes before."""
        nonlocal held
        searched = 0
        while True:
            at, off = held.find(mark, searched), held.find(b"\n$dumpoff", searched)
            if at >= 0 and (off < 0 or at < off):
                piece, held = held[:at], held[at:]
                return piece
            if off >= 0:
                return None
            searched = max(0, len(held) - len(mark) - 16)
            block = file.read(BLOCK)
            if not block:
                raise SimulationError("the dump ends in the midst of the window")
            held += block

    first = until(b"\n$end\n")
    if first is None:
        raise SimulationError("the dump must begin with a value of every net")
    edge = int(first[first.index(b"#") + 1 :].split(b"\n", 1)[0]) + PERIOD // 2
    yield first
    while (piece := until(b"\n#%d\n" % edge)) is not None:
        yield piece
        edge += PERIOD
    yield held[: held.index(b"\n$dumpoff")]
