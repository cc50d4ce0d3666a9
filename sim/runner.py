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
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import cocotb_tools.config
from cocotb_tools.check_results import get_results
from cocotb_tools.runner import Icarus, Runner, Verilator

from . import cache
from .verilate import COVERAGE, linked, verilate

SIMULATORS = ("verilator", "icarus", "icarus-2005")
"""Icarus reads SystemVerilog, as cocotb's own runner has it; the last one is the same simulator with Verilog-2005."""


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


@dataclass(frozen=True)
class Design:
    """What is simulated: sources, the top module, its parameters and macros."""

    sources: tuple[Path, ...]
    toplevel: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    defines: Mapping[str, int] = field(default_factory=dict)
    main: Path | None = (
        None  #: the program around Verilator's model, which then says itself what is public; cocotb's if not given
    )
    optimisation: str = "-O2"  #: of the C++ compiler; where Python drives every cycle, -O0 is soon compiled and no slower
    delays: bool = False  #: whether the specify blocks of cells count, in Icarus

    def key(self, simulator: str, waves: bool) -> str:
        """A digest of everything that the build depends on."""
        digest = hashlib.sha256()
        for source in (*self.sources, *([self.main] if self.main else [])):
            digest.update(source.read_bytes())
        about = [
            version(simulator),
            metadata.version("cocotb"),
            sys.executable,
            self.toplevel,
            self.main is not None,
            self.optimisation,
            waves,
            *(["delays"] if self.delays else []),
            *([COVERAGE] if COVERAGE in os.environ else []),
        ]
        digest.update(repr((about, sorted(self.parameters.items()), sorted(self.defines.items()))).encode())
        return digest.hexdigest()[:20]


class _Icarus(Icarus):
    """cocotb's runner, which silences waveforms that it did not ask for itself: ours are asked for in the Verilog."""

    waves_written = False

    def _test_command(self) -> list[list[str]]:
        (command,) = super()._test_command()
        return [["-vcd" if word == "-none" and self.waves_written else word for word in command]]


def _verilate(design: Design, folder: Path, waves: bool) -> None:
    """Compile a design for cocotb: its library linked in, the top level's signals within its reach."""
    package = linked(cocotb_tools.config.libs_dir.parent)
    libs, stock = package / "libs", package / "share" / "lib" / "verilator" / "verilator.cpp"
    arguments = [
        "--vpi",
        *(() if design.main else ("--public-depth", "1")),
        *("--x-initial", "unique"),
        *("-LDFLAGS", f"-Wl,-rpath,{libs} -L{libs} -lcocotbvpi_verilator"),
        *(f"-G{name}={value}" for name, value in design.parameters.items()),
        *(f"-D{name}={value}" for name, value in design.defines.items()),
        design.main.name if design.main else str(stock),
        *(source.name for source in design.sources),
    ]
    verilate(folder, design.toplevel, arguments=arguments, optimisation=design.optimisation, waves=waves)


def _compile_icarus(design: Design, folder: Path, log: Path, language: str) -> None:
    Icarus().build(
        sources=[folder / source.name for source in design.sources],
        hdl_toplevel=design.toplevel,
        parameters=design.parameters,
        defines=dict(design.defines),
        build_args=[
            f"-g{language}",
            "-Wall",
            "-Wno-timescale",
            "-Wno-implicit-dimensions",
            *(["-gspecify"] if design.delays else []),
        ],
        build_dir=folder,
        timescale=("1ns", "1ns"),
        waves=False,
        always=True,
        log_file=log,
    )


def build(design: Design, simulator: str = "verilator", waves: bool = False) -> Path:
    """Compile a design, unless it was before; returns the folder of the compiled model.

    Raises:
        ValueError: no such simulator.
        SimulationError: the simulator is not installed or refuses the sources.
    """
    check(simulator)
    root = cache.root()
    target = root / f"{simulator}-{design.key(simulator, waves)}"
    if (target / "built").exists():
        return cache.use(target)
    cache.prepare()
    with _locked(root / f"{target.name}.lock"):
        if (target / "built").exists():
            return target
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        log = target / "build.log"
        try:
            for source in (*design.sources, *([design.main] if design.main else [])):
                shutil.copy(source, target / source.name)
            if simulator == "verilator":
                _verilate(design, target, waves)
            else:
                _compile_icarus(design, target, log, simulator.partition("-")[2] or "2012")
        except (SystemExit, OSError, subprocess.CalledProcessError, RuntimeError, ValueError) as error:
            raise SimulationError(f"{simulator} could not build {design.toplevel}: {error}\n{_tail(log)}") from None
        (target / "built").touch()
    cache.trim()
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
        made: Runner = Verilator() if simulator == "verilator" else _Icarus()
        made.waves_written = waves  # type: ignore[attr-defined]
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
        if COVERAGE in os.environ and simulator == "verilator" and design.main is None:  # cocotb's program writes it
            _keep_coverage(design, where, built.name)
        tests, failed = get_results(results)
        if failed or not tests:
            raise SimulationError(f"{module} on {simulator}: {failed} of {tests} tests failed\n{_tail(log, 60)}")


def _keep_coverage(design: Design, where: Path, name: str) -> None:
    """Put what a simulation reached beside the text that it ran, under the name of the build."""
    kept = Path(os.environ[COVERAGE]) / design.toplevel / name
    kept.mkdir(parents=True, exist_ok=True)
    for source in design.sources:
        shutil.copy(source, kept / source.name)
    shutil.move(where / "coverage.dat", kept / f"{uuid.uuid4().hex}.dat")


def check(simulator: str) -> None:
    """Refuse a simulator that does not exist or is not here."""
    if simulator not in SIMULATORS:
        raise ValueError(f"sim must be one of {', '.join(SIMULATORS)}, not {simulator!r}")
    if not available(simulator):
        need = "a C++ compiler as c++, make and perl" if simulator == "verilator" else "iverilog and vvp (Debian: iverilog)"
        raise SimulationError(f"sim = {simulator!r} needs {need} on PATH")


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
