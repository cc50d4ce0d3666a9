"""Verilog that drives itself, compiled to a program: a clock, files in, files out, and no Python in the loop."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .. import cache
from ..runner import Design, SimulationError, check
from ..verilate import CompileError, verilate

MAIN = """
#include "Vtop.h"
int main(int argc, char** argv) {
  VerilatedContext context;
  context.commandArgs(argc, argv);
  Vtop top{&context};
  while (!context.gotFinish()) {
    top.clk ^= 1;
    top.eval();
  }
  top.final();
}
"""
"""Verilog could make the clock too (``--timing``); this is twice as fast."""


def program(design: Design) -> Path:
    """The compiled program of a design whose top module has one port, ``clk``, and ends by itself; kept like all builds.

    Raises:
        SimulationError: Verilator is not installed or refuses the sources.
    """
    check("verilator")
    root = cache.root()
    target = root / f"native-{design.key('verilator', False)}"
    if target.exists():
        return cache.use(target) / design.toplevel
    cache.prepare()
    # Built beside its place and moved there whole: who comes second throws his away.
    with tempfile.TemporaryDirectory(dir=root, prefix="native-", ignore_cleanup_errors=True) as folder:
        here = Path(folder)
        sources = [Path(shutil.copy(source, here / source.name)).name for source in design.sources]
        (here / "main.cpp").write_text(MAIN)
        arguments = ["--x-initial", "fast", "main.cpp", *sources]
        arguments += [f"-G{name}={_number(value)}" for name, value in design.parameters.items()]
        try:
            verilate(here, design.toplevel, arguments=arguments, optimisation=design.optimisation)
        except CompileError as error:
            raise SimulationError(f"verilator could not build {design.toplevel}:\n{error}") from None
        with contextlib.suppress(OSError):
            here.rename(target)
    return target / design.toplevel


def _number(value: int) -> str:
    """A parameter's value; a plain number has 32 bits."""
    return str(value) if value < 1 << 31 else f"{value.bit_length()}'h{value:x}"


def play(program: Path, stimulus: bytes) -> list[str]:
    """Run such a program on a stimulus; the lines of its response.

    Raises:
        SimulationError: it stopped early.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-", dir=memory) as folder:
        given, told = Path(folder) / "stimulus", Path(folder) / "response"
        given.write_bytes(stimulus)
        done = subprocess.run(
            [str(program), f"+stimulus={given}", f"+response={told}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        lines = told.read_text().splitlines() if told.exists() else []
    if done.returncode or not lines or not lines[-1].endswith(" cycles"):
        raise SimulationError(f"{program.name} stopped after {len(lines)} answers: {''.join(lines[-1:])}\n{done.stdout[-2000:]}")
    return lines
