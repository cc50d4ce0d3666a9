"""Builds the system and its firmware, simulates the training, and compares it with the golden model: ``run.py [FOLDER]``.

Needs the environment of a checkout, which has LiteX and VexRiscv, and a RISC-V compiler on PATH. ``make soc`` is the same.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import litex
import numpy as np
from compare import STEPS, Difference, compare, header

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import write
from kappa_rtl.sim.verilate import verilate

HERE = Path(__file__).resolve().parent
GCC = "riscv64-unknown-elf-gcc"
LITEX = Path(litex.__file__).parent / "soc"
CPU = LITEX / "cores" / "cpu" / "vexriscv"


def call(folder: Path, *command: str | Path) -> str:
    """Run a program in a folder; gives what it printed, and ends with that where it fails."""
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"error: {Path(command[0]).name} failed\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def build_system(folder: Path, source: Path = HERE / "system.py") -> None:
    """Export the unit, have LiteX write the system, and compile the simulation: ``folder/system``."""
    folder.mkdir(parents=True, exist_ok=True)
    verilog = folder / "throttle_axi.v"
    write(ThrottleConfig.from_toml(HERE / "throttle.toml"), verilog, bus="axi")
    call(folder, sys.executable, source, verilog.name, ".")
    sources = [folder / source for source in (folder / "sources.txt").read_text().split("\n")]
    sources.append(HERE / "main.cpp")
    with tempfile.TemporaryDirectory() as place:  # make compiles nothing in a folder with a space
        for path in sources:
            shutil.copy(path, place)
        verilate(Path(place), "system", arguments=[path.name for path in sources], optimisation="-O1")
        shutil.copy(Path(place) / "system", folder)


def build_firmware(folder: Path, source: Path = HERE / "firmware.c", steps: int = STEPS) -> None:
    """Compile the firmware against the headers that are there, into the ROM's contents."""
    (folder / "digits.h").write_text(header(steps))
    includes = [f"-I{place}" for place in (".", CPU, LITEX / "software" / "include")]
    # There is no library, so no loop may become a call of memset.
    flags = ["-march=rv32im_zicsr", "-mabi=ilp32", "-ffreestanding", "-nostdlib", "-fno-tree-loop-distribute-patterns"]
    flags += ["-O2", "-funroll-loops", "-Wall", "-Wextra", "-Werror"]
    link = ["-T", LITEX / "software" / "bios" / "linker.ld", "-L."]
    call(folder, GCC, *flags, *includes, CPU / "crt0.S", source, *link, "-o", "firmware.elf")
    call(folder, GCC.replace("gcc", "objcopy"), "-O", "binary", "firmware.elf", "firmware.bin")
    code = (folder / "firmware.bin").read_bytes()
    words = np.frombuffer(code + bytes(-len(code) % 4), "<u4")
    (folder / "system_rom.init").write_text("".join(f"{word:08x}\n" for word in words))


def simulate(folder: Path) -> str:
    """Run the firmware; gives what it says."""
    return call(folder, folder / "system")


def main(folder: str = "build/soc") -> None:
    place = Path(folder).resolve()
    if not shutil.which(GCC):
        sys.exit(f"error: no {GCC} on PATH (Debian and Ubuntu: apt-get install gcc-riscv64-unknown-elf)")
    print("Exporting the unit, generating the system, compiling firmware and simulation (about 20 s)", flush=True)
    begun = time.monotonic()
    build_system(place)
    build_firmware(place)
    built = time.monotonic()
    log = simulate(place)
    (place / "log.txt").write_text(log)
    try:
        told = compare(log, place)
    except Difference as difference:
        sys.exit(f"error: {difference}; the firmware's lines are in {os.path.relpath(place)}/log.txt")
    print("\n".join(told))
    print(f"built in {built - begun:.0f} s, simulated in {time.monotonic() - built:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
