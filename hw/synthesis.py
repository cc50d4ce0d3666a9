"""Size and speed of a component on an ECP5, by open tools: Yosys for the cells, nextpnr for the clock.

A component is measured between scan registers: every input bit comes from a register, every output bit goes into one, so
that all its paths are timed and no pin limits it. The scan registers are not counted.
"""

from __future__ import annotations

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amaranth.lib import wiring

from kappa_rtl.golden.config import ThrottleConfig

from .decide import Decide
from .divider import Divider
from .export import ports, to_verilog
from .norm import Normaliser, SumOfSquares
from .scalar import ScalarUnit
from .sqrt import SquareRoot
from .throttle import StreamingThrottle, Throttle
from .update import Update

SYNTHESIS = {"ecp5": "synth_ecp5", "ice40": "synth_ice40"}
"""Yosys' recipes. Never ``synth_ice40 -dsp``: it turns a product register without reset into the constant 0."""

NEXTPNR = ("--45k", "--package", "CABGA381", "--speed", "6", "--freq", "350", "--timing-allow-fail", "--lpf-allow-unconstrained")
SEEDS = (1, 2, 3)


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
        raise SynthesisError(f"{name} is not installed: pip install 'kappa-rtl[synth]'")
    done = subprocess.run(
        [command, *args], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode:
        raise SynthesisError(f"{name} {' '.join(args)} failed:\n" + "\n".join(done.stdout.splitlines()[-30:]))
    return done.stdout


def version(name: str) -> str:
    """A tool's own version."""
    with workspace() as folder:
        text = run(name, "--version", cwd=folder)
    found = re.search(r"(?:Yosys|Version \"?nextpnr-)\s*v?(\d[\w.+-]*)", text)
    return found[1] if found else text.strip().splitlines()[-1]


@contextmanager
def workspace() -> Iterator[Path]:
    """A temporary folder."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as name:
        yield Path(name)


@dataclass(frozen=True)
class Cells:
    """What a netlist uses, by the target's own cell names."""

    by_type: dict[str, int] = field(default_factory=dict)

    def _of(self, *names: str) -> int:
        return sum(self.by_type.get(name, 0) for name in names)

    @property
    def lut4(self) -> int:
        """Look-up tables of four inputs; a CCU2C (two bits of a carry chain) holds two. ECP5 only."""
        return self._of("LUT4") + 2 * self._of("CCU2C")

    @property
    def distributed(self) -> int:
        """Distributed memories of 16 words by 4 bits, each in the place of four LUT4 and not among them."""
        return self._of("TRELLIS_DPR16X4")

    @property
    def ff(self) -> int:
        return self._of("TRELLIS_FF")

    @property
    def dsp(self) -> int:
        """Multipliers of 18 by 18 bits."""
        return self._of("MULT18X18D")

    @property
    def block(self) -> int:
        """Block memories of 18 kbit."""
        return self._of("DP16KD")


def synthesise(
    text: str, top: str, *, target: str = "ecp5", options: str = "", primitives: bool = False, netlist: Path | None = None
) -> Cells:
    """The cells that Yosys makes of a Verilog text, flattened.

    Args:
        options: further options of the target's recipe.
        primitives: put the ECP5's DSP blocks in the place of the multipliers, and its block memories in that of the memory.
        netlist: takes the result as Verilog.

    Raises:
        ValueError: no such target.
        SynthesisError: Yosys is missing or refuses the text.
    """
    if target not in SYNTHESIS:
        raise ValueError(f"target must be one of {', '.join(SYNTHESIS)}, not {target!r}")
    with workspace() as folder:
        (folder / "block.v").write_text(text)
        steps = [
            *_read(primitives, top),
            f"{SYNTHESIS[target]} {options} -top {top}",
            "check -assert",
            "tee -q -o stat.json stat -json",
        ]
        if netlist:
            steps.append("write_verilog -noattr netlist.v")
        run("yosys", "-q", "-p", "; ".join(steps), cwd=folder)
        if netlist:
            netlist.write_text((folder / "netlist.v").read_text())
        return _cells(folder / "stat.json", top)


def _read(primitives: bool, top: str) -> list[str]:
    """Yosys commands that read ``block.v``."""
    if not primitives:
        return ["read_verilog block.v"]
    # The attribute makes Yosys start over from the source, not flattened, when it comes to know the primitives.
    return ["read_verilog -DECP5 block.v", f"hierarchy -top {top}", "setattr -unset reprocess_after t:MULT18X18D t:DP16KD"]


def _cells(stat: Path, top: str) -> Cells:
    modules = json.loads(stat.read_text())["modules"]
    found = modules.get(f"\\{top}") or modules[top]
    return Cells(found["num_cells_by_type"])


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
    """What was measured of one block; ``fmax`` in MHz by seed, empty if it was not placed."""

    name: str
    cells: Cells
    cycles: str  #: from the component's own latency property
    fmax: tuple[float, ...] = ()

    @property
    def mhz(self) -> float | None:
        return statistics.median(self.fmax) if self.fmax else None

    def to_json(self) -> dict[str, Any]:
        c = self.cells
        return {
            "name": self.name,
            "lut4": c.lut4,
            "ff": c.ff,
            "dsp": c.dsp,
            "block_ram": c.block,
            "distributed_ram": c.distributed,
            "cycles": self.cycles,
            "fmax_mhz": self.mhz,
            "fmax_by_seed": list(self.fmax),
            "cells": c.by_type,
        }


def measure(
    component: wiring.Component,
    name: str,
    *,
    cycles: str = "",
    primitives: bool = True,
    seeds: Sequence[int] = SEEDS,
    jobs: int = 1,
    progress: Callable[[str], None] = lambda stage: None,
    keep: Path | None = None,
) -> Figures:
    """Synthesise a component for ECP5 and place and route it once for each seed.

    Args:
        primitives: take the ECP5's DSP blocks and block memories with their registers, which Yosys does not infer.
        seeds: of nextpnr's placement; none measures the size alone.
        jobs: placements run at the same time.
        progress: called with what was finished: ``synthesised``, then ``seed S``.
        keep: a folder that takes the netlist and nextpnr's reports.

    Raises:
        SynthesisError: a tool is missing or fails.
    """
    with workspace() as folder:
        (folder / "block.v").write_text(to_verilog(component, "block_under_test") + scan(component, "block_under_test"))
        steps = [
            *_read(primitives, "scan"),
            "setattr -mod -set keep_hierarchy 1 block_under_test",  # so that its cells can be told from the scan registers
            "synth_ecp5 -top scan",
            "tee -q -o stat.json stat -json",
            "setattr -mod -unset keep_hierarchy block_under_test",
            "flatten",
            "write_json netlist.json",
        ]
        run("yosys", "-q", "-p", "; ".join(steps), cwd=folder)
        cells = _cells(folder / "stat.json", "block_under_test")
        progress("synthesised")

        def place(seed: int) -> float:
            run(
                "nextpnr-ecp5",
                *NEXTPNR,
                "--seed",
                str(seed),
                "--json",
                "netlist.json",
                "--report",
                f"{seed}.json",
                "-q",
                cwd=folder,
            )
            (clock,) = json.loads((folder / f"{seed}.json").read_text())["fmax"].values()
            progress(f"seed {seed}")
            return float(clock["achieved"])

        with ThreadPoolExecutor(jobs) as pool:
            fmax = tuple(pool.map(place, seeds))
        if keep:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
    return Figures(name, cells, cycles, fmax)


def blocks(
    config: ThrottleConfig, lanes: Sequence[int] = (1, 4, 8)
) -> dict[str, tuple[Callable[[], wiring.Component], Callable[[Any], str]]]:
    """What the table of a configuration lists: how to make each block, and what it says of its own latency."""
    unit = ScalarUnit.for_config(config)
    g = config.grids.gradient

    def cores(streaming: bool) -> dict[str, tuple[Callable[[], wiring.Component], Callable[[Any], str]]]:
        kind: Any = StreamingThrottle if streaming else Throttle
        title = "core, streaming" if streaming else "core"

        def made(n: int) -> Callable[[], wiring.Component]:
            return lambda: kind(config.replace(lanes=n))

        return {f"{title}, {n} lane{'s' * (n > 1)}": (made(n), lambda c: f"2 N/L + {c.overhead}") for n in lanes}

    one = config.replace(lanes=1)
    bits = config.mantissa_bits
    return {
        f"divider, {bits} bits": (lambda: Divider(bits), lambda c: str(c.latency)),
        f"square root, {2 * bits} -> {bits} bits": (lambda: SquareRoot(2 * bits, bits), lambda c: str(c.latency)),
        f"square root, {unit.radicand_bits} -> {bits + 1} bits, as used": (
            lambda: SquareRoot(unit.radicand_bits, bits + 1),
            lambda c: str(c.latency),
        ),
        f"normaliser, {unit.radicand_bits} bits": (lambda: Normaliser(unit.radicand_bits), lambda c: f"<= {c.latency}"),
        "scalar unit": (lambda: ScalarUnit.for_config(config), lambda c: f"<= {max(c.latency.values())}"),
        "scalar part": (lambda: Decide(config), lambda c: f"<= {c.latency} + {c.prelude}"),
        f"sum of squares, a lane of {g.width} bits": (
            lambda: SumOfSquares(lanes=1, width=g.width, energy_bits=config.widths.energy),
            lambda c: f"{c.latency}, II 1",
        ),
        f"update, a lane of {g.width} bits": (lambda: Update(one), lambda c: f"{c.latency}, II 1"),
        **cores(streaming=False),
        **cores(streaming=True),
    }
