"""Costs on the targets beside the ECP5, against what was synthesised there; multipliers and memories as Yosys makes them."""

from __future__ import annotations

import functools
import json
import warnings
from pathlib import Path

import pytest
from amaranth.hdl import UnusedElaboratable

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw import estimate
from kappa_rtl.hw.cells import memory as memory_cell
from kappa_rtl.hw.cells import multiplier
from kappa_rtl.hw.synth import memories, products, synthesis
from kappa_rtl.hw.synth.costs import renewed
from kappa_rtl.hw.synth.design import Sample, designed
from kappa_rtl.hw.synth.estimate import aimed, fit_of
from kappa_rtl.hw.synth.families import FAMILIES
from kappa_rtl.hw.synth.features import features
from kappa_rtl.hw.synth.fit import Measured, errors, fitted, read, table
from kappa_rtl.hw.synth.memories import DPR16X4, FEW, KINDS, WIDE, Kind, memory
from kappa_rtl.hw.synth.products import Rule
from kappa_rtl.hw.synth.targets import TARGETS, Cells
from support import ROOT

DOCS = ROOT / "docs"
OTHERS = sorted(set(FAMILIES) - {"ecp5"})
FITTED = [name for name in OTHERS if name != "machxo2"]

needs_yosys = pytest.mark.skipif(
    synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install '.[synth]' in a checkout"
)


@functools.cache
def made(sample: Sample) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        return sample.component()


@pytest.fixture(scope="module", params=FITTED)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rows(target: str) -> list[Measured]:
    """The committed syntheses of a target, with what is counted of each."""
    found = read(DOCS / f"estimate_{target}.json", TARGETS[target])
    return [Measured(sample, figures, features(made(sample), target)) for sample, figures in found]


# ---------------------------------------------------------------- multipliers and memories

FACTORS = (
    (5, 4),
    (9, 9),
    (10, 4),
    (17, 8),
    (18, 18),
    (19, 18),
    (20, 4),
    (21, 19),
    (22, 22),
    (24, 17),
    (25, 18),
    (25, 19),
    (26, 18),
)
FACTORS += ((27, 12), (33, 18), (33, 33), (32, 25))
DSP = {
    "xilinx": (1, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2, 2, 2, 4, 4),
    "gowin": (1, 1, 1, 1, 1, 1, 1, 1, 4, 3, 3, 3, 3, 2, 2, 4, 4),
    "nexus": (1, 1, 1, 1, 1, 2, 2, 4, 4, 2, 2, 4, 2, 2, 2, 4, 4),
}
"""What Yosys 0.70 was seen to take, by target, for multipliers of those bits."""

WORDS = ((16, 4), (16, 16), (16, 33), (16, 64), (16, 129), (13, 1024), (30, 512), (36, 2048), (100, 257), (128, 64), (500, 3))
HELD = {
    "xilinx": ((0, 3), (0, 3), (0, 6), (0, 6), (1, 0), (1, 0), (1, 0), (4, 0), (3, 0), (0, 43), (0, 84)),
    "gowin": ((0, 4), (0, 4), (0, 12), (0, 16), (1, 0), (1, 0), (1, 0), (4, 0), (3, 0), (4, 0), (0, 125)),
    "nexus": ((0, 4), (0, 4), (0, 12), (0, 16), (1, 0), (1, 0), (1, 0), (4, 0), (3, 0), (4, 0), (0, 125)),
    "ice40": ((0, 0), (1, 0), (1, 0), (1, 0), (1, 0), (4, 0), (4, 0), (18, 0), (13, 0), (8, 0), (0, 0)),
    "machxo2": ((0, 4), (0, 4), (1, 0), (1, 0), (1, 0), (2, 0), (2, 0), (8, 0), (6, 0), (8, 0), (0, 125)),
    "gatemate": ((0, 0), (1, 0), (1, 0), (1, 0), (1, 0), (1, 0), (1, 0), (4, 0), (3, 0), (4, 0), (0, 0)),
}
"""Block memories, and those in the place of look-up tables, for memories of so many bits a word and so many words."""


@pytest.mark.parametrize("name", sorted(DSP))
def test_blocks_of_a_product(name: str) -> None:
    multiply = FAMILIES[name].multiply
    assert tuple(multiply(a, b).dsp for a, b in FACTORS) == tuple(multiply(b, a).dsp for a, b in FACTORS) == DSP[name]


@pytest.mark.parametrize("name", sorted(HELD))
def test_memories(name: str) -> None:
    held = [memory(name, width, depth) for width, depth in WORDS]
    assert tuple((one.block, one.distributed) for one in held) == HELD[name]


FEW_BITS = [
    *(("ecp5", 2, 3, 0), ("ecp5", 2, 4, 1), ("ecp5", 5, 2, 0), ("ecp5", 6, 2, 2), ("ecp5", 16, 16, 4)),
    *(
        ("xilinx", 3, 2, 0),
        ("xilinx", 2, 3, 1),
        ("xilinx", 4, 2, 1),
        ("gowin", 2, 512, 32),
        ("gowin", 5, 256, 32),
        ("gowin", 23, 54, 24),
    ),
]


@pytest.mark.parametrize(("name", "width", "depth", "distributed"), FEW_BITS)
def test_memories_of_a_few_bits(name: str, width: int, depth: int, distributed: int) -> None:
    """Where registers are cheaper than a memory in the place of look-up tables, and where those are cheaper than a block."""
    found = memory(name, width, depth)
    assert (found.block, found.distributed) == (0, distributed)
    assert found.registers == width * (2 if distributed else depth + 2)


FAULTS = {
    "a port costs nothing": (memories, "PORT", 0),
    "a block costs more": (memories, "KINDS", {"gowin": (Kind(14, WIDE, 200), DPR16X4._replace(used=4))}),
    "the widest word is missing": (memories, "KINDS", {"nexus": (Kind(14, WIDE[:-1], 128), DPR16X4)}),
    "all of the cost goes with the blocks": (memories, "KINDS", {"gowin": (Kind(14, WIDE, 128), DPR16X4)}),
    "words come in nines": (memories, "KINDS", {"ice40": (Kind(11, (2, 4, 8, 16), 64),)}),
    "a wide block from 21 bits on": (products, "GOWIN", (Rule((36, 36), (19, 19), 4), *products.GOWIN[1:])),
    "no narrow block": (products, "GOWIN", products.GOWIN[:-1]),
    "two blocks count as one": (products, "NEXUS", (products.NEXUS[0], Rule((36, 18), (19, 2), 1), products.NEXUS[2])),
}
"""Faults of what Yosys is said to do."""


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one of the three tables above."""
    module, name, value = FAULTS[fault]
    monkeypatch.setattr(module, name, getattr(module, name) | value if isinstance(value, dict) else value)
    blocks = all(tuple(FAMILIES[name].multiply(a, b).dsp for a, b in FACTORS) == dsp for name, dsp in DSP.items())
    held = all(tuple(memory(name, *shape)[:2] for shape in WORDS) == found for name, found in HELD.items())
    few = all(memory(name, width, depth)[:2] == (0, distributed) for name, width, depth, distributed in FEW_BITS)
    assert not (blocks and held and few)


def test_where_there_are_no_blocks() -> None:
    """Ten rows of twelve bits, eight of which go, and registers on both sides: of a square one for both factors."""
    made = FAMILIES["ice40"].multiply(12, 10, 20)
    assert (made.dsp, made.rows, made.sides, made.registers) == (0, 96, 22, 12 + 10 + 20)
    assert FAMILIES["ice40"].multiply(12, 12, 23, square=True).registers == 12 + 23
    assert FAMILIES["gatemate"].multiply(40, 40).dsp == 1


def test_every_target_that_is_counted_has_memories() -> None:
    assert set(KINDS) == set(FAMILIES) <= set(TARGETS)


def test_the_targets_that_are_fitted() -> None:
    """Those that the page names; a clock has to be said for each."""
    config = ThrottleConfig(elements=640, eta=1, lanes=2)
    for name in FITTED:
        with pytest.raises(ValueError, match=rf"^mhz must be given for the target {name}, on which no core was placed$"):
            estimate(config, name)
        with pytest.raises(ValueError, match=rf"^target must have the clock that is assumed, as in {name}@150, not '{name}'"):
            aimed(name)
        cost = estimate(config, name, mhz=125)
        assert cost.step_seconds == cost.cycles / 125e6 and cost.lut > 1000
        assert (cost.energy, cost.memory_bits) == (estimate(config).energy, estimate(config).memory_bits)
    with pytest.raises(ValueError, match=r"^target must be one that a fit was made for, .*, not 'machxo2'$"):
        estimate(config, "machxo2", mhz=125)


MAPPED = {"xilinx": "coarse", "gowin": "map_ram", "nexus": "map_ram"}
"""Where in Yosys' recipe the multipliers are mapped."""


def _mapped(target: str, modules: dict[str, str], source: str, until: str, tmp_path: Path) -> dict[str, Cells]:
    """What Yosys' recipe makes, up to a label, of modules that it does not flatten."""
    aim = TARGETS[target]
    instances = "\n".join(f"  {name} {name}_i(clk, enable, in, out[{i}]);" for i, name in enumerate(modules))
    top = f"module top(input clk, enable, input [1023:0] in, output [{len(modules) - 1}:0] out);\n{instances}\nendmodule\n"
    (tmp_path / "all.v").write_text(source + "\n".join(modules.values()) + top)
    steps = f"read_verilog all.v; hierarchy -top top; {aim.recipe} -top top -run begin:{until}; tee -q -o stat.json stat -json"
    synthesis.run("yosys", "-q", "-p", steps, cwd=tmp_path)
    found = json.loads((tmp_path / "stat.json").read_text())["modules"]
    return {name: Cells(found[f"\\{name}"]["num_cells_by_type"], aim) for name in modules}


@needs_yosys
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MAPPED))
def test_blocks_as_yosys_takes_them(name: str, tmp_path: Path) -> None:
    """Every product of 2 to 36 bits, in one run."""
    modules = {
        f"m_{a}_{b}": f"(* keep_hierarchy *) module m_{a}_{b}(input clk, enable, input [1023:0] in, output out);\n"
        f"  wire [{a + b - 1}:0] o;\n  assign out = ^o;\n"
        f"  kappa_rtl_multiply #(.A({a}), .B({b})) m(clk, enable, in[0 +: {a}], in[512 +: {b}], o);\nendmodule\n"
        for a in range(2, 37)
        for b in range(2, a + 1)
    }
    found = _mapped(name, modules, multiplier.SOURCE.read_text(), MAPPED[name], tmp_path)
    multiply = FAMILIES[name].multiply
    assert {key: cells.dsp for key, cells in found.items()} == {
        key: multiply(*map(int, key.split("_")[1:])).dsp for key in modules
    }


@needs_yosys
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ecp5", *OTHERS])
def test_memories_as_yosys_chooses_them(name: str, tmp_path: Path) -> None:
    """Of widths and depths on both sides of every place where the choice changes, in one run."""
    shapes = [
        (width, depth)
        for width in (2, 3, 4, 5, 6, 8, 13, 16, 24, 30, 32, 36, 48, 64, 72, 96, 100, 128, 256, 500)
        for depth in (2, 3, 4, 7, 8, 9, 16, 17, 32, 33, 48, 60, 64, 65, 100, 128, 129, 256, 257, 512, 513, 1024, 1025, 2049, 4097)
        if name != "ecp5" or depth <= FEW  # beyond, memory.v has the blocks itself
    ]
    modules = {
        f"m_{width}_{depth}": "(* keep_hierarchy *)"
        f"module m_{width}_{depth}(input clk, enable, input [1023:0] in, output out);\n"
        f"  wire [{width - 1}:0] o;\n  assign out = ^o;\n  localparam A = {max(1, (depth - 1).bit_length())};\n"
        f"  kappa_rtl_memory #(.WIDTH({width}), .DEPTH({depth}), .ADDRESS(A))"
        f" m(clk, in[0], in[1 +: A], in[32 +: {width}], in[600], in[601 +: A], in[640], o);\nendmodule\n"
        for width, depth in shapes
    }
    found = _mapped(name, modules, memory_cell.SOURCE.read_text(), "map_ffram", tmp_path)
    held = {key: memory(name, *map(int, key.split("_")[1:])) for key in modules}
    assert {key: (cells.block, cells.distributed) for key, cells in found.items()} == {
        key: (one.block, one.distributed) for key, one in held.items()
    }


# ---------------------------------------------------------------- the fits


def test_the_set_is_the_designed_one(rows: list[Measured], target: str) -> None:
    assert [row.sample for row in rows] == designed(target=target)


def test_blocks_and_memories_are_exact(rows: list[Measured], target: str) -> None:
    """Of every synthesis, part or unit, fitted or not."""
    off = errors(rows, fit_of(target))
    assert [one.name for one in off if one.dsp or one.block or one.distributed] == [] and len(off) > 150


def test_the_fit_is_of_the_committed_syntheses(rows: list[Measured], target: str) -> None:
    found, committed = fitted(rows, target, {}), fit_of(target)
    assert found.lut == pytest.approx(committed.lut, abs=0.002) and found.ff == pytest.approx(committed.ff, abs=0.002)


def test_the_page_says_how_far_it_is_off(rows: list[Measured], target: str) -> None:
    page = (DOCS / "synthesis.md").read_text()
    assert renewed(page, {f"estimate_{target}": table(rows, fit_of(target))}) == page
