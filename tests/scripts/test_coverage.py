"""What `make coverage` makes of Verilator's files: sums over runs and designs, without the bank and what is no export."""

from __future__ import annotations

from pathlib import Path

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import export
from support.coverage import OURS, grouped, of_bench, share

TEXT = """\
// SPDX-License-Identifier: Apache-2.0
// demo: made by kappa-rtl 0
module demo_m2;
  if (up) n <= 1;
endmodule
"""
POINTS = {  # page, line, column, what, instance: how often in each of two runs
    ("v_line/demo_m2", 3, "1", "block", "demo.m2"): (3, 4),
    ("v_branch/demo_m2", 4, "3", "if", "demo.m2"): (0, 0),
    ("v_branch/demo_m2", 4, "4", "else", "demo.m2"): (0, 7),
    ("v_toggle/demo_m2", 4, "7", "up:0->1", "demo.m2"): (0, 0),
    ("v_toggle/demo", 3, "1", "clk:0->1", "demo"): (0, 0),
}


def write(folder: Path, text: str) -> None:
    folder.mkdir(parents=True)
    (folder / "demo.v").write_text(text)
    for run in (0, 1):
        lines = []
        for (*values, instance), counts in POINTS.items():
            fields = zip(("page", "l", "n", "o", "h"), (*values, instance), strict=True)
            lines.append(f"C '\x01{chr(1).join(f'{name}{chr(2)}{value}' for name, value in fields)}' {counts[run]}")
        (folder / f"{run}.dat").write_text("# SystemC::Coverage-3\n" + "\n".join(lines) + "\n")


def test_runs_of_a_design_are_one(tmp_path: Path) -> None:
    """A point counts once whatever run or design passed it; the bank's do not; a missed branch is told by its line."""
    write(tmp_path / "demo" / "verilator-1", TEXT)
    write(tmp_path / "demo" / "verilator-3", TEXT)
    write(tmp_path / "demo" / "verilator-2", "// of synthesis\nmodule demo; endmodule // a netlist\n")
    reached = of_bench(tmp_path / "demo")
    assert reached.found == {"line": 1, "branch": 2, "toggle": 1}
    assert reached.passed == {"line": 1, "branch": 1, "toggle": 0}
    assert reached.edges == {"up": 1}
    assert reached.missed == {"if (up) n <= 1;": ["demo.m2, if"]}


def test_an_exported_text_is_known() -> None:
    assert OURS in export(ThrottleConfig(elements=3, eta=0.1))[0].splitlines()[1]


def test_edges_are_of_one_group_each() -> None:
    edges = {"total12": 1, "last_still_steps": 2, "operand_eta": 4, "cell.d": 8, "dividend": 16, "levels": 32}
    assert grouped(edges) == [3, 4, 8, 48]


def test_a_share_is_never_rounded_up_to_all() -> None:
    assert share(9999, 10000) == "9999 of 10000 (99.9 %)"
    assert share(0, 0) == "none"
