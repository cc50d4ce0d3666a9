"""Size and speed of a component by open tools: Yosys for the cells, nextpnr or OpenSTA for the clock.

A component is measured between scan registers: every input bit comes from a register, every output bit goes into one, so
that all its paths are timed and no pin limits it. The scan registers are not counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from ..export import to_verilog
from ..manifest import ports
from .targets import TARGETS, Cells, Target, liberty

SEEDS = (1, 2, 3)
BLOCK = "block_under_test"
"""The module that is measured."""


class SynthesisError(RuntimeError):
    """A tool is missing or failed; the message ends with the tail of its output."""


def tool(name: str) -> str | None:
    """The command of a synthesis tool (``yosys``, ``nextpnr-ecp5``), on PATH or beside this interpreter; the YoWASP one first."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(f"yowasp-{name}", path=path) or shutil.which(name, path=path)


def run(name: str, *args: str, cwd: Path) -> str:
    """Run a tool in ``cwd`` and return what it prints.

    The YoWASP tools see a ``/tmp`` of their own: all files must be named relative to ``cwd``.

    Raises:
        SynthesisError: the tool is missing, or fails.
    """
    command = tool(name)
    if command is None:
        raise SynthesisError(f"{name} is not installed: pip install '.[synth]' in a checkout")
    done = subprocess.run(
        [command, *args], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        raise SynthesisError(f"{name} {' '.join(args)} failed:\n" + "\n".join(done.stdout.splitlines()[-30:]))
    return done.stdout


def version(name: str) -> str:
    """A tool's own version."""
    with workspace() as folder:
        text = run(name, "-version" if name == "sta" else "--version", cwd=folder)
    found = re.search(r"(?:Yosys|Version \"?nextpnr-)\s*v?(\d[\w.+-]*)", text)
    return found[1] if found else text.strip().splitlines()[-1]


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as name:
        yield Path(name)


def target_of(name: str) -> Target:
    """The target of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in TARGETS:
        raise ValueError(f"target must be one of {', '.join(TARGETS)}, not {name!r}")
    return TARGETS[name]


CONSTRAINTS = "set_driving_cell INVX2\nset_load 0.05\n"
"""With a driver and a load Yosys' mapper sizes gates and buffers nets of many sinks."""

MAPPING = ("dfflibmap -liberty cells.lib", "abc -liberty cells.lib -constr cells.constr -D 4000", "opt_clean")
"""Yosys' commands from its own gates to those of a cell library."""


def _recipe(target: Target, top: str, options: str = "") -> list[str]:
    """Yosys commands from a design to the target's cells."""
    steps = [f"{target.recipe} {options} -top {top}"]
    if target.keeps:
        apart = [f"setattr -mod -set keep_hierarchy 1 {target.keeps}"]
        steps = [*apart, *steps, f"setattr -mod -unset keep_hierarchy {target.keeps}", "flatten"]
    if not target.size:
        steps += MAPPING
    return steps


def _library(target: Target, given: Path | None, folder: Path) -> str:
    """Put the cell library where a recipe finds it; the option with which ``stat`` reads areas from it."""
    if target.size:
        return ""
    shutil.copy(liberty(given), folder / "cells.lib")
    (folder / "cells.constr").write_text(CONSTRAINTS)
    return "-liberty cells.lib"


def synthesise(
    text: str,
    top: str,
    *,
    target: str = "ecp5",
    options: str = "",
    primitives: bool = False,
    library: Path | None = None,
    netlist: Path | None = None,
) -> Cells:
    """The cells that Yosys makes of a Verilog text, flattened.

    Args:
        options: further options of the target's recipe.
        primitives: put the target's own multiplier and memory blocks in the place of the plain Verilog, where there are any.
        library: the liberty file of an ASIC target; where Debian's package puts it if not given.
        netlist: takes the result as Verilog.

    Raises:
        ValueError: no such target, or no cell library.
        SynthesisError: Yosys is missing or refuses the text.
    """
    aim = target_of(target)
    with workspace() as folder:
        (folder / "block.v").write_text(text)
        areas = _library(aim, library, folder)
        steps = [
            *_read(aim, primitives, top),
            *_recipe(aim, top, options),
            "check -assert",
            f"tee -q -o stat.json stat -json {areas}",
        ]
        if netlist:
            steps.append("write_verilog -noattr netlist.v")
        run("yosys", "-q", "-p", "; ".join(steps), cwd=folder)
        if netlist:
            netlist.write_text((folder / "netlist.v").read_text())
        return _cells(folder / "stat.json", top, aim)


def _read(target: Target, primitives: bool, top: str) -> list[str]:
    """Yosys commands that read ``block.v``."""
    if not (primitives and target.define):
        return ["read_verilog block.v", f"hierarchy -top {top}"]
    # The attribute makes Yosys start over from the source, not flattened, when it comes to know the primitives.
    return [
        f"read_verilog -D{target.define} block.v",
        f"hierarchy -top {top}",
        "setattr -unset reprocess_after t:MULT18X18D t:DP16KD t:CCU2C",
    ]


def _cells(stat: Path, top: str, target: Target) -> Cells:
    modules = json.loads(stat.read_text())["modules"]
    found = modules.get(f"\\{top}") or modules[top]
    return Cells(found["num_cells_by_type"], target, found.get("area"))


def scan(component: wiring.Component, name: str) -> str:
    """A Verilog module ``scan`` that holds the module ``name`` of a component between registers.

    All inputs but the clock shift in one bit a cycle; the outputs are registered and fold into one bit.
    """
    every = [port for port in ports(component) if port["name"] != "clk"]
    ins = [port for port in every if port["direction"] == "input" and port["width"]]
    outs = [port for port in every if port["direction"] == "output" and port["width"]]

    def connect(found: list[dict[str, Any]], vector: str) -> list[str]:
        lines, offset = [], 0
        for port in found:
            lines.append(f".{port['name']}({vector}[{offset} +: {port['width']}])")
            offset += port["width"]
        return lines

    total_in, total_out = (sum(port["width"] for port in found) for found in (ins, outs))
    connections = ", ".join([".clk(clk)", *connect(ins, "given"), *connect(outs, "made")])
    return f"""\
module scan(input clk, input si, output so);
  reg [{total_in - 1}:0] given;
  wire [{total_out - 1}:0] made;
  reg [{total_out - 1}:0] taken, folded;
  {name} block ({connections});
  always @(posedge clk) begin
    given <= {{given, si}};
    taken <= made;
    folded <= taken ^ {{folded, 1'b0}};
  end
  assign so = folded[{total_out - 1}];
endmodule
"""


@dataclass(frozen=True)
class Figures:
    """What was measured of one block; ``fmax`` in MHz by seed, empty if no tool gave one."""

    name: str
    cells: Cells
    cycles: str  #: from the component's own latency property
    fmax: tuple[float, ...] = ()
    step_cycles: int | None = None  #: the most of a whole step, of a core
    digest: str = ""  #: of the Verilog and the way it was measured
    note: str = ""
    old: bool = False  #: of an earlier text of the Verilog than the one that is made now

    @property
    def mhz(self) -> float | None:
        return statistics.median(self.fmax) if self.fmax else None

    @property
    def step_us(self) -> float | None:
        """Time of a step at the median clock, in microseconds."""
        return self.step_cycles / self.mhz if self.step_cycles and self.mhz else None

    @property
    def work(self) -> float | None:
        """Cells times cycles of a step, in millions: what energy goes with, as long as every cell switches alike."""
        return self.cells.logic * self.step_cycles / 1e6 if self.step_cycles else None

    def to_json(self) -> dict[str, Any]:
        c = self.cells
        return {
            "name": self.name,
            c.target.unit.lower(): c.size,
            "ff": c.ff,
            "dsp": c.dsp,
            "block_ram": c.block,
            "distributed_ram": c.distributed,
            "cycles": self.cycles,
            "fmax_mhz": self.mhz,
            "fmax_by_seed": list(self.fmax),
            "step_cycles": self.step_cycles,
            "step_us": self.step_us,
            "megacell_cycles": self.work,
            "note": self.note,
            "digest": self.digest,
            "old": self.old,
            "cells": dict(c.by_type),
        }

    @classmethod
    def from_json(cls, table: dict[str, Any], target: Target) -> Figures:
        """The figures that :meth:`to_json` wrote."""
        cells = Cells(table["cells"], target, None if target.size else table[target.unit])
        return cls(
            table["name"],
            cells,
            table["cycles"],
            tuple(table["fmax_by_seed"]),
            table.get("step_cycles"),
            table.get("digest", ""),
            table.get("note", ""),
            table.get("old", False),
        )


def digest(text: str, target: Target, primitives: bool, seeds: Sequence[int]) -> str:
    """Whether a block would be measured again: of its Verilog, less the comments, and after a dash of the way it is measured."""
    body = re.sub(r"^//.*\n", "", text, flags=re.MULTILINE)
    about = repr((target, primitives and bool(target.define), list(seeds)))
    return "-".join(hashlib.sha256(part.encode()).hexdigest()[:16] for part in (body, about))


def dated(component: wiring.Component, known: Figures) -> Figures:
    """The figures, marked as old if they are of another Verilog than the one that is made of the component now."""
    body, _ = digest(_between_registers(component), known.cells.target, False, ()).split("-")
    return replace(known, old=body != known.digest.split("-")[0])


def _between_registers(component: wiring.Component) -> str:
    return to_verilog(component, BLOCK) + scan(component, BLOCK)


def measure(
    component: wiring.Component,
    name: str,
    *,
    target: str = "ecp5",
    cycles: str = "",
    primitives: bool = True,
    library: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda stage: None,
    keep: Path | None = None,
    known: Figures | None = None,
) -> Figures:
    """Synthesise a component and time it: place and route it once for each seed, or analyse the netlist of an ASIC.

    Args:
        target: one of :data:`~kappa_rtl.hw.synth.targets.TARGETS`. Where no open tool gives a clock, none is given; the clock of
            an ASIC is that of gates without wires, from OpenSTA if it is there. An ASIC's memories are left to macros: they are
            neither counted nor timed.
        primitives: take the target's own multiplier and memory blocks with their registers, which Yosys does not infer.
        library: the liberty file of an ASIC.
        seeds: of nextpnr's placement; none measures the size alone.
        jobs: placements run at the same time.
        progress: called with what was finished: ``synthesised``, then ``seed S``.
        keep: a folder that takes the netlist and nextpnr's reports.
        known: figures of an earlier run, which are given back if they are of the same Verilog measured in the same way.

    Raises:
        ValueError: no such target, or no cell library.
        SynthesisError: a tool is missing or fails.
    """
    aim = target_of(target)
    text = _between_registers(component)
    mark = digest(text, aim, primitives, seeds)
    if known and known.digest == mark:
        for stage in ("synthesised", *(f"seed {seed}" for seed in seeds)):
            progress(stage)
        return replace(known, old=False)
    with workspace() as folder:
        (folder / "block.v").write_text(text)
        for name_of_file, content in aim.files.items():
            (folder / name_of_file).write_text(content)
        areas = _library(aim, library, folder)
        steps = [
            *_read(aim, primitives, "scan"),
            *([] if aim.size else [f"blackbox *{BLOCK}_cell_memory*"]),
            f"setattr -mod -set keep_hierarchy 1 {BLOCK}",  # so that its cells can be told from the scan registers
            *_recipe(aim, "scan"),
            f"tee -q -o stat.json stat -json {areas}",
            f"setattr -mod -unset keep_hierarchy {BLOCK}",
            "flatten",
            *aim.finish,
            # OpenSTA takes no vectors on memories: their pins become pins of the design.
            *(["expose -evert t:*_memory", "splitnets -ports", "opt_clean -purge"] if not aim.size else []),
            "write_verilog -noattr -noexpr -nohex netlist.v" if not aim.size else "write_json netlist.json",
        ]
        run("yosys", "-q", "-p", "; ".join(steps), cwd=folder)
        cells = _cells(folder / "stat.json", BLOCK, aim)
        progress("synthesised")

        def place(seed: int) -> float | None:
            program, *options = aim.placer
            try:
                run(
                    program,
                    *(*options, "--seed", str(seed), "--json", "netlist.json", "--report", f"{seed}.json", "-q"),
                    cwd=folder,
                )
                (clock,) = json.loads((folder / f"{seed}.json").read_text())["fmax"].values()
                return float(clock["achieved"])
            except SynthesisError as error:
                if FULL.search(str(error)):
                    return None
                raise
            finally:
                progress(f"seed {seed}")

        note = ""
        if aim.placer:
            with ThreadPoolExecutor(jobs) as pool:
                fmax = tuple(mhz for mhz in pool.map(place, seeds) if mhz)
            if seeds and not fmax:
                note = f"does not fit: {' '.join(aim.placer[:2])}"
        else:
            fmax = analyse(folder) if seeds and not aim.size else ()
            for seed in seeds:
                progress(f"seed {seed}")
        if keep:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
    return Figures(name, cells, cycles, fmax, getattr(component, "step_cycles", None), mark, note)


FULL = re.compile(r"bels? remaining|unable to place|failed to (?:find a placement|place|expand region)", re.IGNORECASE)
"""What nextpnr says of a design that is larger than the device."""


def analyse(folder: Path) -> tuple[float, ...]:
    """The clock of ``netlist.v`` with ``cells.lib`` by OpenSTA, in MHz: of gates without wires. Empty if OpenSTA is not there."""
    if tool("sta") is None:
        return ()
    (folder / "sta.tcl").write_text(
        "read_liberty cells.lib\nread_verilog netlist.v\nlink_design scan\n"
        "create_clock -period 100 clk\nreport_worst_slack\nexit\n"
    )
    found = re.search(r"worst slack (-?[\d.]+)", run("sta", "sta.tcl", cwd=folder))
    if not found:
        raise SynthesisError("sta reported no worst slack")
    return (1e3 / (100 - float(found[1])),)
