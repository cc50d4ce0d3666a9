"""From a unit's Verilog to a netlist of library cells that know their part."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..synth.synthesis import CONSTRAINTS, MAPPING, run, workspace

__all__ = ["RECIPE", "mapped"]

RECIPE = (
    "read_verilog block.v",
    "hierarchy -top {top}",
    "synth -top {top}",  # not flattened: each part is mapped by itself, and its cells keep its name
    *MAPPING,
    "flatten",
    "opt_clean",
    "read_liberty -lib cells.lib",  # or no check would know a cell's outputs
    "check -assert",
    "setattr -unset src",
    "write_json netlist.json",
)
"""Yosys' commands."""


def mapped(text: str, top: str, library: Path) -> str:
    """Yosys' JSON of the module ``top`` of a Verilog text in the cells of a liberty file.

    Raises:
        SynthesisError: Yosys is missing or refuses the text.
    """
    with workspace() as folder:
        (folder / "block.v").write_text(text)
        shutil.copy(library, folder / "cells.lib")
        (folder / "cells.constr").write_text(CONSTRAINTS)
        run("yosys", "-q", "-p", "; ".join(RECIPE).format(top=top), cwd=folder)
        return (folder / "netlist.json").read_text()
