"""The exported Verilog in other people's tools: every variant, every branch of the macro, whatever stands around it.

Run as a program (``PYTHONPATH=tests python tests/hw/test_tools.py``) it tries the tools of this machine and renews the table of
docs/tools.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from test_export import OPTIONS, SMALL

from kappa_rtl.hw.export import export
from support.parsers import Parser, parsers

PAGE = Path(__file__).parents[2] / "docs" / "tools.md"

UNITS = {
    "memory": (SMALL, {}),
    "streaming": (SMALL, {"variant": "streaming"}),
    "engine": (SMALL, {"variant": "engine"}),
    "axi": (SMALL, {"bus": "axi"}),
    "shard": (OPTIONS["watched_shard"], {"reset": "async"}),
    "one_pass": (OPTIONS["one_pass"].replace(parity=True), {"reset": "async", "reset_polarity": "low"}),
}
MACROS = ("", "KAPPA_RTL_ECP5")

BEFORE = "`timescale 1ns/1ps\n`default_nettype none\nmodule earlier (input wire x, output wire y);\n  assign y = x;\nendmodule\n"
AFTER = "module later (input wire x, output wire y);\n  assign y = x;\nendmodule\n`default_nettype wire\n"
CLOSED = "`timescale 1ns/1ps\n`default_nettype none\nmodule later (input wire x, output wire y);\n  assign y = x;\nendmodule\n"
AROUND = ("alone", "separate, before", "separate, behind", "in one file")
"""How the text stands to others, which have a time scale and forbid nets that nobody declared."""


@cache
def text(name: str) -> str:
    config, options = UNITS[name]
    return export(config, name=name, **options)[0]  # type: ignore[arg-type]


@cache
def boxes() -> str:
    """The cells of the ECP5 that the units use, empty: their ports as they are connected."""
    pins: dict[str, set[str]] = {}
    for body in re.findall(
        r"\b(CCU2C|LUT4|PFUMX|L6MUX21|DP16KD|MULT18X18D) (?:#\(.*?\) )?\w+ \((.*?)\);", every_unit(), re.DOTALL
    ):
        pins.setdefault(body[0], set()).update(re.findall(r"\.(\w+)\(", body[1]))
    found = ["/* verilator lint_off UNDRIVEN */\n/* verilator lint_off UNUSED */\n/* verilator lint_off DECLFILENAME */"]
    found.append("/* verilator lint_off TIMESCALEMOD */")
    for cell, names in pins.items():
        outputs = {name for name in names if re.fullmatch(r"S[01]|COUT|Z|O|P\d+|DO[AB]\d+", name)}
        ports = ", ".join(f"{'output' if name in outputs else 'input'} wire {name}" for name in sorted(names))
        parameters = sorted(set(re.findall(rf"\b{cell} #\((.*?)\) ", every_unit(), re.DOTALL)))
        known = sorted({name for one in parameters for name in re.findall(r"\.([A-Z]\w+)\(", one)})
        given = f" #({', '.join(f'parameter {name} = 0' for name in known)})" if known else ""
        driven = "".join(f"  assign {name} = 1'b0;\n" for name in sorted(outputs))
        found.append(f"module {cell}{given} ({ports});\n{driven}endmodule")
    assert len(pins) == 6, sorted(pins)
    return "\n".join(found) + "\n"


@cache
def every_unit() -> str:
    return "".join(text(name) for name in UNITS)


def design(folder: Path, around: str, macro: str, units: Iterable[str] = UNITS) -> list[Path]:
    """Units in one design, under a top module that holds an instance of each, and what stands around them."""
    ports = []
    every = "".join(text(name) for name in units)
    for name in units:
        head = re.search(rf"^module {name} \((.*?)\);", text(name), re.DOTALL | re.MULTILINE)
        assert head
        ports += [(name, *port) for port in re.findall(r"(input|output) \w+ (\[\d+:0\] )?(\w+)", head[1])]
    wires = ",\n".join(f"  {direction} wire {size}{unit}_{port}" for unit, direction, size, port in ports)
    instances = []
    for name in units:
        pins = ", ".join(f".{port}({unit}_{port})" for unit, _, _, port in ports if unit == name)
        instances.append(f"  {name} {name}_unit ({pins});\n")
    waivers = "/* verilator lint_off DECLFILENAME */\n/* verilator lint_off MULTITOP */\n/* verilator lint_off TIMESCALEMOD */\n"
    top = f"{waivers}module top (\n{wires}\n);\n{''.join(instances)}endmodule\n"
    files = {"top.v": top, "boxes.v": boxes() if macro else ""}
    match around:
        case "alone":
            files = {"units.v": every} | files
        case "separate, before":
            files = {"before.v": waivers + BEFORE, "units.v": every, "after.v": waivers + AFTER} | files
        case "separate, behind":
            files = {"units.v": every, "after.v": waivers + CLOSED} | files
        case _:
            files = {"all.v": waivers + BEFORE + every + AFTER} | files
    for name, body in files.items():
        (folder / name).write_text(body)
    return [folder / name for name, body in files.items() if body]


every_tool = pytest.mark.parametrize("tool", parsers())
both_branches = pytest.mark.parametrize("macro", MACROS, ids=lambda macro: macro or "plain")


@pytest.mark.slow
@pytest.mark.ci
@both_branches
@every_tool
def test_every_tool_reads_two_units_between_other_files(tool: str, macro: str, tmp_path: Path) -> None:
    assert said(tool, design(tmp_path, "in one file", macro, ("axi", "one_pass")), macro) == ""


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("around", AROUND)
@both_branches
@every_tool
def test_every_tool_reads_every_unit(tool: str, macro: str, around: str, tmp_path: Path) -> None:
    """Six units of different configurations in one design, with what may stand around them."""
    assert said(tool, design(tmp_path, around, macro), macro) == ""


def said(tool: str, files: list[Path], macro: str) -> str:
    parser = parsers()[tool]
    if not parser.version:
        pytest.skip(f"{parser.name} is not installed")
    return parser.check(files, "top", macro)


FAULTS = {
    "an instance named by a keyword": (") sum (", ") cell (", "KAPPA_RTL_ECP5"),
    "a net that nobody declared": ("assign o = one + other;", "assign carried = one + other; assign o = carried;", ""),
    "an unknown module": ("axi_cell_multiply #", "axi_cell_multiplier #", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_tools_do_look(fault: str, tmp_path: Path) -> None:
    """Each fault is found by every tool that elaborates; Verible only parses, and takes the keyword too."""
    old, new, macro = FAULTS[fault]
    files = design(tmp_path, "in one file", macro, ("axi", "one_pass"))
    body = files[0].read_text()
    assert old in body
    files[0].write_text(body.replace(old, new, 1))
    for name, parser in parsers().items():
        if parser.version and parser.name != "Verible":
            assert parser.check(files, "top", macro) != "", name


def table(tried: list[Parser]) -> str:
    rows = [f"| {one.name} | {one.version} | {one.language} |" for one in tried]
    return "\n".join(["<!-- tools -->", "| tool | version | language |", "|---|---|---|", *rows, "<!-- end -->"])


def test_the_page_has_the_tools_of_the_lock() -> None:
    page = PAGE.read_text()
    for parser in parsers().values():
        if parser.name in ("slang", "Verible") or parser.version.count(".") == 2:
            assert f"| {parser.name} | {parser.version} | {parser.language} |" in page


def main() -> None:
    import tempfile

    tried = []
    for name, parser in parsers().items():
        if not parser.version:
            sys.exit(f"{parser.name} is not installed, and the table is to have it")
        for macro in MACROS:
            for around in AROUND:
                with tempfile.TemporaryDirectory() as folder:
                    said = parser.check(design(Path(folder), around, macro), "top", macro)
                    if said:
                        sys.exit(f"{name}, {around}, {macro or 'plain'}: {said}")
        tried.append(parser)
    page = PAGE.read_text()
    PAGE.write_text(re.sub(r"<!-- tools -->.*<!-- end -->", lambda _: table(tried), page, flags=re.DOTALL))


if __name__ == "__main__":
    main()
