"""No block grows unnoticed: what Yosys makes of each stays within 5 % of the committed figures."""

from __future__ import annotations

import gc
import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import UnusedElaboratable
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import to_verilog
from kappa_rtl.hw.scalar.divider import Divider
from kappa_rtl.hw.synth import synthesis
from kappa_rtl.hw.synth.blocks import LANES, blocks
from kappa_rtl.hw.synth.costs import at, blocks_table, goals, renewed, tables, text
from kappa_rtl.hw.synth.synthesis import Figures
from kappa_rtl.hw.synth.targets import TARGETS, Cells, liberty
from kappa_rtl.scripts.main import main
from support import ROOT

DOCS = ROOT / "docs"
COMMITTED: dict[str, Any] = json.loads((DOCS / "synthesis.json").read_text())
BLOCKS = {block["name"]: block for block in COMMITTED["blocks"]}
GROWTH = 1.05

needs_yosys = pytest.mark.skipif(
    synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install '.[synth]' in a checkout"
)


@needs_yosys
@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BLOCKS if "16" not in name or "lane of" in name])
def test_size(name: str) -> None:
    """Look-up tables, registers and DSP blocks; a smaller block is no failure, but the figures want renewing."""
    make, cycles = blocks(ThrottleConfig.stability_margin(elements=640, eta=0.1), LANES)[name]
    component = make()
    found = synthesis.measure(component, name, seeds=()).to_json()
    for kind in ("lut4", "ff", "dsp", "block_ram"):
        assert found[kind] <= GROWTH * BLOCKS[name][kind], f"{name}: {found[kind]} {kind}, {BLOCKS[name][kind]} committed"
    assert cycles(component) == BLOCKS[name]["cycles"]


def test_the_page_says_what_was_measured() -> None:
    """Its tables are those of the committed figures."""
    page = (DOCS / "synthesis.md").read_text()
    files = {"synthesis.json": "ecp5", "synthesis_plain.json": "ecp5"}
    for file, name in (files | {f"synthesis_{name}.json": name for name in TARGETS if name != "ecp5"}).items():
        document = json.loads((DOCS / file).read_text())
        found = {block["name"]: Figures.from_json(block, TARGETS[name]) for block in document["blocks"]}
        config = ThrottleConfig.from_table(document["configuration"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedElaboratable)
            made = tables(config, TARGETS[name], found, plain=document["macro"] != TARGETS[name].define)
            assert renewed(page, made) == page, f"the tables of {file}"
            gc.collect()


@pytest.mark.parametrize(
    ("target", "cells", "found"),
    [
        ("ecp5", {"LUT4": 3, "CCU2C": 2, "TRELLIS_FF": 5, "MULT18X18D": 1, "$scopeinfo": 9}, (7, 5, 1, 0)),
        ("ice40", {"SB_LUT4": 3, "SB_CARRY": 2, "SB_DFFESR": 4, "SB_DFF": 1, "SB_RAM40_4K": 2}, (3, 5, 0, 2)),
        (
            "xilinx",
            {"LUT2": 3, "LUT6": 2, "SRL16E": 1, "FDRE": 4, "FDSE": 1, "RAMB36E1": 1, "RAMB18E1": 1, "INV": 7},
            (6, 5, 0, 3),
        ),
        (
            "nexus",
            {"LUT4": 3, "CCU2": 2, "WIDEFN9": 1, "INV": 7, "FD1P3IX": 4, "FD1P3BX": 1}
            | {"MULT18X18": 1, "MULT36X36": 1, "PDP16K": 2},
            (9, 5, 5, 2),
        ),
        ("machxo2", {"LUT4": 3, "CCU2D": 2, "PFUMX": 1, "TRELLIS_FF": 5, "DP8KC": 2}, (7, 5, 0, 2)),
        (
            "gatemate",
            {"CC_LUT1": 1, "CC_LUT2": 1, "CC_L2T4": 1, "CC_L2T5": 1, "CC_MX2": 1, "CC_MX4": 1, "CC_ADDF": 1, "CC_DFF": 5}
            | {"CC_MULT": 2, "CC_BRAM_20K": 1, "CC_BRAM_40K": 1},
            (9, 5, 2, 3),
        ),
        (
            "gowin",
            {"LUT1": 1, "LUT4": 2, "MUX2_LUT5": 1, "ALU": 2, "DFF": 2, "DFFRE": 3}
            | {"MULT18X18": 1, "MULT9X9": 1, "SDPB": 1, "SDPX9B": 1},
            (5, 5, 2, 2),
        ),
    ],
)
def test_cells(target: str, cells: dict[str, int], found: tuple[int, ...]) -> None:
    counted = Cells(cells, TARGETS[target])
    assert (counted.size, counted.ff, counted.dsp, counted.block) == found


def figures(name: str, size: int, cycles: str, mhz: float, dsp: int = 0) -> Figures:
    return Figures(name, Cells({"LUT4": size, "MULT18X18D": dsp}), cycles, (mhz - 10, mhz, mhz + 10), 1000)


def test_area_times_time() -> None:
    """LUT4 times microseconds a result; one a cycle where a block takes one each cycle; none where it depends."""
    assert at(figures("divider", 100, "26", 200)) == 13
    assert at(figures("lane", 100, "6, II 1", 200)) == 0.5
    assert at(figures("core", 100, "2 N/L + 290", 200)) is None
    assert figures("core", 100, "", 200).step_us == 5


def test_figures_of_an_older_text_have_a_dagger() -> None:
    """However they were measured: with other seeds and without the target's own blocks they are of the same text."""
    text_of_now = to_verilog(Divider(8), synthesis.BLOCK) + synthesis.scan(Divider(8), synthesis.BLOCK)
    now = replace(figures("divider", 9, "12", 200), digest=synthesis.digest(text_of_now, TARGETS["ecp5"], True, (1, 2)))
    before = replace(now, digest="0" * 16 + now.digest[16:])
    found = [synthesis.dated(Divider(8), f) for f in (now, before)]
    assert [row[0] for row in blocks_table(found, TARGETS["ecp5"])] == ["block", "divider", "divider †"]
    assert [Figures.from_json(f.to_json(), TARGETS["ecp5"]).old for f in found] == [False, True]


def test_goals_say_by_how_much() -> None:
    found = {f.name: f for f in (figures("core, 8 lanes", 2400, "2 N/L + 150", 180, 18), figures("scalar part", 800, "", 180, 1))}
    assert {what: verdict for what, _, verdict in goals(found)[1:]} == {
        "core, 8 lanes: at least 200 MHz": "missed by 10%",
        "a lane beyond the scalar part: at most 160 LUT4": "missed by 25%",
        "a lane beyond the scalar part: at most 2 DSP": "missed by 6%",
        "scalar part: at most 800 LUT4": "reached, 0% to spare",
        "a step: at most 120 cycles beyond 2 N/L": "missed by 25%",
    }


def test_a_page_is_renewed_in_place() -> None:
    rows = [("a", "b"), ("1", "2")]
    page = "head\n<!-- x -->\nold\n<!-- end -->\nmiddle\n<!-- y -->\n<!-- end -->\n"
    new = renewed(page, {"x": rows})
    assert new == "head\n<!-- x -->\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n<!-- end -->\nmiddle\n<!-- y -->\n<!-- end -->\n"
    assert renewed(new, {"x": rows}) == new
    assert text(rows) == "a  b\n1  2"
    with pytest.raises(ValueError, match=r"^page must have one <!-- z --> before an <!-- end -->, not 0$"):
        renewed(page, {"z": rows})


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=rf"^target must be one of {', '.join(TARGETS)}, not 'virtex'$"):
        synthesis.target_of("virtex")
    with pytest.raises(ValueError, match=r"^liberty must be the osu018 cell library, not 'none\.lib', .* qflow-tech-osu018"):
        liberty(Path("none.lib"))
    refused = CliRunner().invoke(main, ["synth", "--liberty", "none.lib"])
    assert refused.exit_code == 1 and "liberty must be left out with target ecp5" in refused.output
    refused = CliRunner().invoke(main, ["synth", "--only", "no such block"])
    assert refused.exit_code == 1 and "only must match the name of a block, not 'no such block'" in refused.output


@needs_yosys
@pytest.mark.slow
def test_measured_blocks_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second run takes what the file has, as long as the Verilog is the same."""
    path = tmp_path / "figures.json"
    arguments = ["synth", "--only", "^divider|^square root, 48", "--seeds", "0", "--json", str(path)]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    written = path.read_text()
    ran = []
    real = synthesis.run
    monkeypatch.setattr(synthesis, "run", lambda name, *args, cwd: ran.append(args) or real(name, *args, cwd=cwd))
    second = CliRunner().invoke(main, arguments)
    assert second.exit_code == 0 and path.read_text() == written
    assert all(args == ("--version",) for args in ran)
    changed = json.loads(written)
    changed["blocks"][0]["digest"] = "of another text"
    path.write_text(json.dumps(changed))
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert sum(args != ("--version",) for args in ran) == 1 and path.read_text() == written
