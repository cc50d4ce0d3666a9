"""The tables of what it costs: the blocks of a target, the peers in the same flow, what was wanted, and what memory feeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tabulate import tabulate

from ...golden.config import ThrottleConfig
from .bandwidth import designs, units
from .synthesis import Figures
from .targets import Target

__all__ = ["PEERS", "at", "bandwidths", "blocks_table", "goals", "peers", "renewed", "tables", "text"]

Rows = Sequence[tuple[str, ...]]
Found = Mapping[str, Figures]


class Peer(NamedTuple):
    """A block of another project, measured in the flow of the ECP5's blocks; ``beats`` is how many cycles a result takes."""

    what: str
    lut4: int
    ff: int
    dsp: int
    cycles: str
    beats: int | None
    mhz: int


PEERS = (
    Peer("projf-explore `divu_int`, 32 bits", 128, 170, 0, "33", 33, 173),
    Peer("projf-explore `divu`, Q16.16", 187, 140, 0, "49", 49, 150),
    Peer("freecores `serial_div_uu`, 32 bits", 208, 134, 0, "33", 33, 146),
    Peer("ZipCPU `div.v`, 32 bits", 341, 142, 0, "33", 33, 154),
    Peer("cv32e40p `alu_div`, 32 bits", 390, 108, 0, "33", 33, 140),
    Peer("smolarith, restoring, 32 bits", 401, 242, 0, "35", 35, 159),
    Peer("projf-explore `sqrt_int`, 64 -> 32", 207, 327, 0, "33", 33, 143),
    Peer("projf-explore `sqrt`, Q16.16", 111, 167, 0, "25", 25, 172),
    Peer("HardFloat `divSqrtRecFN_small`, single", 893, 100, 0, "26", 26, 67),
    Peer("FloPoCo divider, single, pipelined", 2115, 1463, 0, "16, II 1", 1, 121),
    Peer("FloPoCo square root, single, pipelined", 1092, 477, 0, "11, II 1", 1, 88),
    Peer("tiny-tpu-v2 `gradient_descent`, Q8.8", 225, 18, 1, "1", 1, 53),
    Peer("log_hsaf `w_update_term`, without saturation", 34, 0, 1, "comb.", 1, 91),
    Peer("Nowiczok NLMS datapath, 16 bits, normalisation not wired in", 2559, 642, 4, "–", None, 106),
)

CORE = re.compile(r"core, (\d+) lanes?")
"""The names of the cores with their gradient memory."""

RATE = 12.8
"""Rate of the page's memory, in GB/s: one channel of 64 bits at 1600 million transfers a second."""


def shown(value: float | None, places: int = 0) -> str:
    return "–" if value is None else f"{value:.{places}f}"


def marked(figures: Figures) -> str:
    """The name of a block, with a dagger if it was measured on an earlier text of the Verilog."""
    return f"{figures.name} †" if figures.old else figures.name


def at(figures: Figures) -> float | None:
    """Size times the time of a result, in LUT*us; None if its cycles vary, or no clock or no look-up tables were found."""
    cycles = 1 if figures.cycles.endswith("II 1") else int(figures.cycles) if figures.cycles.isdecimal() else None
    if cycles is None or not figures.mhz or not figures.cells.target.size:
        return None
    return figures.cells.size * cycles / figures.mhz


def blocks_table(found: Iterable[Figures], target: Target) -> Rows:
    """The blocks, a line each; for a core also the time of a step, and cells times cycles of it."""
    memory = "BRAM" if target.size else "macros"
    rows = [("block", target.unit, "FF", "DSP", memory, "cycles", "Fmax, MHz", "AT, LUT*us", "step, us", "Mcell*cycles")]
    for f in found:
        clock = shown(f.mhz) + (f" ({min(f.fmax):.0f}-{max(f.fmax):.0f})" if len(f.fmax) > 1 else "")
        c = f.cells
        rows.append(
            (
                *(marked(f), str(c.size), str(c.ff), str(c.dsp), str(c.block), f.cycles, f.note or clock),
                *(shown(at(f), 2), shown(f.step_us, 2), shown(f.work, 2)),
            )
        )
    return rows


def peers(found: Found) -> Rows:
    """Blocks of other projects and those of this one beside them."""
    rows = [("block", "LUT4", "FF", "DSP", "cycles", "Fmax, MHz", "AT, LUT*us")]
    for p in PEERS:
        area_time = p.lut4 * p.beats / p.mhz if p.beats else None
        rows.append((p.what, str(p.lut4), str(p.ff), str(p.dsp), p.cycles, str(p.mhz), shown(area_time, 2)))
    for f in found.values():
        if at(f) is not None:
            c = f.cells
            rows.append((f"**{marked(f)}**", str(c.size), str(c.ff), str(c.dsp), f.cycles, shown(f.mhz), shown(at(f), 2)))
    return rows


def goals(found: Found) -> Rows:
    """What was wanted of the ECP5's blocks, and by how much it is reached or missed; only what was measured."""
    rows = [("goal", "found", "")]

    def goal(what: str, value: float | None, bound: float, places: int, at_least: bool = False) -> None:
        if value is None:
            return
        reached = value >= bound if at_least else value <= bound
        off = abs(value / bound - 1)
        rows.append((what, shown(value, places), f"reached, {off:.0%} to spare" if reached else f"missed by {off:.0%}"))

    core, scalar = found.get("core, 8 lanes"), found.get("scalar part")
    if core:
        goal("core, 8 lanes: at least 200 MHz", core.mhz, 200, 0, at_least=True)
    if core and scalar:
        goal("a lane beyond the scalar part: at most 160 LUT4", (core.cells.size - scalar.cells.size) / 8, 160, 0)
        goal("a lane beyond the scalar part: at most 2 DSP", (core.cells.dsp - scalar.cells.dsp) / 8, 2, 2)
    if scalar:
        goal("scalar part: at most 800 LUT4", scalar.cells.size, 800, 0)
    for name, bound in (("divider, 24 bits", 10), ("square root, 48 -> 24 bits", 13)):
        if name in found:
            goal(f"{name}: at most {bound} LUT*us", at(found[name]), bound, 1)
    if core and (overhead := re.fullmatch(r"2 N/L \+ (\d+)", core.cycles)):
        goal("a step: at most 120 cycles beyond 2 N/L", int(overhead[1]), 120, 0)
    return rows


def bandwidths(config: ThrottleConfig, found: Found, rate: float) -> Rows:
    """Bytes an element, the elements that a memory of ``rate`` GB/s then feeds, and those that the lanes compute."""
    rows = [("design", "bytes an element", f"fed at {rate:g} GB/s, M/s", "computed, M/s", "limit")]
    for name, size in designs(config).items():
        rows.append((name, f"{float(size):g}", shown(1e3 * rate / float(size)), "–", "–"))
    lanes = f"{config.lanes} lane{'s' * (config.lanes > 1)}"
    for unit in units(config):
        streaming, whole = unit.name.startswith("streaming"), unit.name.endswith("weights on chip")
        block = "core, streaming" if streaming else "unit with weights on chip" if whole else "core"
        measured = found.get(f"{block}, {lanes}")
        computed = unit.rate(measured.mhz) if measured and measured.mhz else None
        fed = 1e3 * rate / float(unit.bytes)
        limit = "–" if computed is None else "memory" if fed < computed else "lanes"
        rows.append((unit.name, f"{float(unit.bytes):g}", shown(fed), shown(computed), limit))
    return rows


def tables(config: ThrottleConfig, target: Target, found: Found, plain: bool = False) -> dict[str, Rows]:
    """What :func:`renewed` puts into a page: the blocks of a target, and of the ECP5 all that is known besides.

    Args:
        plain: measured without the target's own blocks, which has a table of its own.
    """
    made = {f"{target.name}{' plain' * plain}": blocks_table(found.values(), target)}
    if target.name == "ecp5" and not plain:
        made |= {"peers": peers(found), "goals": goals(found), "bandwidth": bandwidths(config.replace(lanes=8), found, RATE)}
    return made


def text(rows: Rows) -> str:
    """A table in columns, names on the left and figures on the right."""
    sides = ("left", *("right" for _ in rows[0][1:]))
    return tabulate(rows, tablefmt="plain", colalign=sides, disable_numparse=True)


def markdown(rows: Rows) -> str:
    """A table of Markdown, its cells as short as they are: a figure that changes changes its own line alone."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def renewed(page: str, tables: Mapping[str, Rows]) -> str:
    """A page with what stands between ``<!-- NAME -->`` and ``<!-- end -->`` replaced by the table of that name.

    Raises:
        ValueError: the page has no place for a table.
    """
    for name, rows in tables.items():
        start, end = f"<!-- {name} -->\n", "<!-- end -->"
        places = page.count(start)
        if places != 1:
            raise ValueError(f"page must have one <!-- {name} --> before an <!-- end -->, not {places}")
        before, _, after = page.partition(start)
        page = f"{before}{start}\n{markdown(rows)}\n\n{end}{after.partition(end)[2]}"
    return page
