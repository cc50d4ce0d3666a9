"""``make coverage``: what the tests reach of the exported Verilog and of the Python, as the tables of docs/coverage.md.

The tests run once, under coverage.py, with every simulation by Verilator built to count. A point of the Verilog is a line, a
branch or an edge of a bit, in the text of one module of a bench: what its instances reach counts together, and so does what the
same text reaches in several designs of the bench. The bank around the units is the bench's own and left out.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

from kappa_rtl.sim.runner import version
from kappa_rtl.sim.verilate import COVERAGE

from . import ROOT

KINDS = ("line", "branch", "toggle")
OURS = ": made by kappa-rtl"
"""Stands in the second line of every exported text, and of no netlist."""

NOT_THE_GENERATOR = (
    "--ignore=tests/mutants",
    "--ignore=tests/sim/test_faults.py",
    "--deselect=tests/hw/test_hw_axi.py::test_every_fault_is_found",
)
"""Leaves out the tests of units with a fault in them."""

LOW = 0.9
"""Modules of which a smaller share of the statements was run are named."""


GROUPS = {
    "counters": r"totals?\d*$|last_|ended|steps|read_|\w+_read$",
    "constants": r"constants_|operand_|held_|level$",
    "cells": r"cell\.",
}
"""Signals whose edges are told together: counters, and the words in which they are read; what a configuration fixes; ports and
wires inside cells, many of which are tied to constants where the cell stands. All others are ``others``.
"""


class Point(NamedTuple):
    """A point of one text: its kind, the module and its instances, the line, and which branch, statement or edge."""

    kind: str
    module: str
    instance: str
    line: int
    what: str


def points(text: str) -> Iterator[tuple[Point, int]]:
    """The points of a coverage file of Verilator's, and how often each was passed."""
    for fields, count in re.findall(r"^C '(.*)' (\d+)$", text, re.MULTILINE):
        about = dict(field.split("\x02", 1) for field in fields.split("\x01")[1:])
        kind, _, module = about["page"].removeprefix("v_").partition("/")
        yield Point(kind, module, about["h"], int(about["l"]), f"{about['n']} {about['o']}"), int(count)


class Reached(NamedTuple):
    """What a bench reached: of how many points of each kind, how many; the lines where a line or a branch was missed, with the
    places; and how many edges were, by signal.
    """

    found: dict[str, int]
    passed: dict[str, int]
    missed: dict[str, list[str]]
    edges: dict[str, int]


def modules(text: str) -> dict[str, tuple[int, str]]:
    """The modules of a text by their names: the line where each begins, and its own text."""
    found = re.finditer(r"^module (\w+).*?^endmodule", text, re.MULTILINE | re.DOTALL)
    return {module[1]: (text.count("\n", 0, module.start()) + 1, module[0]) for module in found}


def of_bench(folder: Path) -> Reached:
    """All designs of a bench, each with every run of it."""
    counts: dict[tuple[str, Point], int] = defaultdict(int)
    where: dict[tuple[str, Point], tuple[str, str]] = {}
    for design in sorted(folder.iterdir()):
        (source,) = design.glob("*.v")
        text = source.read_text()
        lines, known = text.splitlines(), modules(text)
        if OURS not in lines[1]:
            continue
        for data in design.glob("*.dat"):
            for point, count in points(data.read_text()):
                if point.module == folder.name:  # the bank
                    continue
                # A module with parameters has a name of Verilator's, other ones in other designs.
                start, body = known.get(point.module, (1, design.name))
                place = body, point._replace(line=point.line - start, instance="")
                counts[place] += count
                where[place] = lines[point.line - 1].strip(), f"{point.instance}, {point.what.split()[1]}"
    found, passed, missed = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0), defaultdict(list)
    edges: dict[str, int] = defaultdict(int)
    for place, count in sorted(counts.items()):
        _, point = place
        found[point.kind] += 1
        passed[point.kind] += count > 0
        if count:
            continue
        line, which = where[place]
        if point.kind == "toggle":
            signal = re.split(r"[\[:]", point.what.split()[1])[0]
            edges[f"cell.{signal}" if "_cell_" in point.module else signal] += 1
        else:
            missed[line].append(which)
    return Reached(found, passed, dict(missed), dict(edges))


def share(passed: int, found: int) -> str:
    """As text, never rounded up to all."""
    return f"{passed} of {found} ({int(1000 * passed / found) / 10} %)" if found else "none"


def grouped(edges: Mapping[str, int]) -> list[int]:
    """How many edges are of each group of signals, and how many of none."""
    counts = [sum(count for signal, count in edges.items() if re.match(pattern, signal)) for pattern in GROUPS.values()]
    return [*counts, sum(edges.values()) - sum(counts)]


def verilog(folder: Path, every_line: bool) -> None:
    """Print what was reached of the Verilog, by bench."""
    print(f"\n{version('verilator')}\n\n| bench | lines | branches | edges of bits |\n|---|---|---|---|")
    benches = {bench.name: of_bench(bench) for bench in sorted(folder.iterdir())}
    for name, reached in benches.items():
        if any(reached.found.values()):
            print(f"| {name} | {' | '.join(share(reached.passed[kind], reached.found[kind]) for kind in KINDS)} |")
    print(f"\n| bench | edges missed | {' | '.join(GROUPS)} | others |\n|---|---|---|---|---|---|")
    for name, reached in benches.items():
        if reached.edges:
            print(f"| {name} | {sum(reached.edges.values())} | {' | '.join(map(str, grouped(reached.edges)))} |")
    for name, reached in benches.items() if every_line else ():
        for line, where in reached.missed.items():
            print(f"\n{name}: `{line}`\n    {'; '.join(sorted(set(where)))}")
        if reached.edges:
            signals = sorted(reached.edges.items(), key=lambda signal: -signal[1])
            print(f"\n{name}, edges: {', '.join(f'{signal} {count}' for signal, count in signals)}")


def python(report: Path) -> None:
    """Print what was reached of the Python, by folder, and the modules of which little was."""
    print(f"\ncoverage.py {metadata.version('coverage')}\n\n| folder | files | statements | branches |\n|---|---|---|---|")
    sums: dict[str, list[int]] = defaultdict(lambda: [0] * 5)
    low = []
    for name, file in json.loads(report.read_text())["files"].items():
        summary, folder = file["summary"], str(Path(name).parent)
        if summary["covered_lines"] < LOW * summary["num_statements"]:
            low.append(f"{name}: {share(summary['covered_lines'], summary['num_statements'])}")
        numbers = (1, *(summary[key] for key in ("covered_lines", "num_statements", "covered_branches", "num_branches")))
        sums[folder] = [old + new for old, new in zip(sums[folder], numbers, strict=True)]
    for folder, (files, *numbers) in sorted(sums.items()):
        print(f"| {folder} | {files} | {share(*numbers[:2])} | {share(*numbers[2:])} |")
    print(f"\nBelow {LOW:.0%}:", *low, sep="\n    ")


def main() -> int:
    parser = argparse.ArgumentParser(prog="support.coverage", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "coverage", help="where everything is kept")
    parser.add_argument("--add", action="store_true", help="add to what an earlier run left there: other tests of the same code")
    parser.add_argument("--no-run", action="store_true", help="only print what an earlier run left there")
    parser.add_argument(
        "--every-line",
        action="store_true",
        help="also print the lines of the Verilog with a miss, and the missed edges by signal",
    )
    args, more = parser.parse_known_args()
    out = args.out.resolve()
    report, settings = out / "python.json", ["--rcfile", str(ROOT / "pyproject.toml"), "--data-file", str(out / "data")]
    status = 0
    if not args.no_run:
        if not args.add:
            shutil.rmtree(out, ignore_errors=True)
        (out / "verilog").mkdir(parents=True, exist_ok=True)
        tests = [*NOT_THE_GENERATOR, *(more or ["-n", "auto", "--dist", "worksteal"])]
        environment = os.environ | {COVERAGE: str(out / "verilog"), "COVERAGE_FILE": str(out / "data")}
        run = [sys.executable, "-m", "coverage", "run", *settings[:2], "-m", "pytest", *tests]
        status = subprocess.run(run, cwd=ROOT, env=environment).returncode
        coverage = [sys.executable, "-m", "coverage"]
        subprocess.run([*coverage, "combine", "--quiet", "--append", *settings], cwd=ROOT, check=True)
        subprocess.run([*coverage, "json", "--quiet", *settings, "-o", str(report)], cwd=ROOT, check=True)
    elif not report.exists():
        print(f"error: out must be a folder that `make coverage` filled, not {str(out)!r}", file=sys.stderr)
        return 2
    verilog(out / "verilog", args.every_line)
    python(report)
    return status


if __name__ == "__main__":
    sys.exit(main())
