"""How fast a core runs that Python drives beat by beat, and one that nobody drives, for comparison with the bulk harness."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cocotb

from ...golden.config import ThrottleConfig
from ...hw.units.ports import host_words, registers_layout, updated_signature
from ..benches.throttle import Run, component
from ..exports import exported
from ..runner import Design
from ..testbench.bank import benches, simulate
from .native import play, program

SPEED = "KAPPA_RTL_SPEED"
"""Names the environment variable with the file that :func:`throughput` writes."""


@cocotb.test
async def throughput(dut: Any) -> None:
    """Plain drivers and monitors, every beat from Python; writes how many cycles it took, and how many seconds."""
    (bench,) = benches(dut, component)
    bench.probing = 0
    bench.checkers.clear()
    await bench.reset()
    run = Run(bench, bench.component.config)
    steps = int(json.loads(os.environ[SPEED])["steps"])
    for _ in range(steps):
        run.step()
    for name in ("updated", "registers"):
        bench.monitors[name].listeners.clear()
    begin = time.perf_counter()
    await bench.until(lambda: len(bench.monitors["registers"].transfers) == steps, limit=steps * 2 * bench.component.step_cycles)
    seconds = time.perf_counter() - begin
    assert len(bench.monitors["updated"].transfers) == steps * run.config.beats
    Path(json.loads(os.environ[SPEED])["path"]).write_text(json.dumps({"cycles": bench.cycle, "seconds": seconds}))


def bare(config: ThrottleConfig, cycles: int) -> float:
    """Cycles per second of the unit's compiled model by itself: no cocotb, no files, streams that never wait."""
    g, w, *_ = config.grids
    layout = updated_signature(config).members["payload"].shape
    words = {name.partition("_")[2].upper(): word for name, word in host_words(config).items()}
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        source = Path(folder) / "throttle.v"
        source.write_text(exported(config)[0])
        sizes = {"LANES": config.lanes, "GRADIENT": g.width, "WEIGHT": w.width, "UPDATED": layout.size}
        sizes |= {"REGISTERS": registers_layout(config).size, "SCALAR": config.scalar.width}
        made = program(Design((source, Path(__file__).with_name("bare.v")), "bare", sizes | words))
    begun = time.perf_counter()
    play(made, str(cycles).encode())
    return cycles / (time.perf_counter() - begun)


def speed(table: Mapping[str, Any], steps: int, simulator: str = "verilator") -> dict[str, float]:
    """``{"cycles": ..., "seconds": ...}`` of a core that Python drives beat by beat: the clocked loop alone, nothing stalling."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        path = Path(folder) / "speed.json"
        env = {SPEED: json.dumps({"steps": steps, "path": str(path)})}
        simulate("throttle", {"core": table}, module=__name__, simulator=simulator, env=env, optimisation="-O2")
        return json.loads(path.read_text())  # type: ignore[no-any-return]
