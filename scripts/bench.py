"""``kappa-rtl bench``: speeds, as ratios measured side by side in one run."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..golden.network.data import Problem
from ..golden.throttle import Throttle
from ..golden.training.instrumented import TrainingWarning
from ..golden.training.model import LinearBlockModel
from ..sim.cosim import RtlThrottle
from ..sim.runner import SIMULATORS, SimulationError
from ..sim.stress.speed import bare, speed
from .outputs import Output

ROUNDS = 7


def alternately(first: Callable[[], Any], second: Callable[[], Any], what: str) -> tuple[list[float], list[float]]:
    """Seconds of each, taken in turn after one uncounted round, so that both see the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for count in tqdm(range(ROUNDS + 1), desc=what, leave=False):
        for run, kept in zip((first, second), times, strict=True):
            begun = time.perf_counter()
            run()
            if count:
                kept.append(time.perf_counter() - begun)
    return times


OPTIONS: dict[str, dict[str, Any]] = {
    "golden": {},
    "stochastic": {"update": "SQ1.15,stochastic", "lanes": 8},
    "residual": {"residual_bits": 8},
}
"""Units whose speed is measured: the plain one, and those that draw random numbers or keep what rounding dropped."""


def golden_against_float(elements: int, name: str = "golden") -> dict[str, float]:
    """Absorb and apply of a golden unit, and the same update in plain float64 numpy."""
    config = ThrottleConfig.stability_margin(elements=elements, eta=0.1, **OPTIONS[name])
    random = np.random.default_rng(0)
    gradients = [random.integers(-20000, 20000, elements).astype(np.int16) for _ in range(2)]
    unit = Throttle(config, random.integers(-20000, 20000, elements).astype(np.int16))
    reals = [gradient / 4096.0 for gradient in gradients]
    state: dict[str, Any] = {"theta": random.normal(size=elements) * 0.3, "previous": np.zeros(elements), "turn": 0}

    def golden() -> None:
        state["turn"] += 1
        unit.step(gradients[state["turn"] % 2])

    def floating() -> None:
        gradient = reals[state["turn"] % 2]
        change = gradient - state["previous"]
        energy = change @ change
        state["previous"] = gradient
        moved = state["theta"] + -0.05 * gradient
        motion = moved - state["theta"]
        state["theta"] = moved
        state["energies"] = energy + motion @ motion

    exact, plain = (statistics.median(times) for times in alternately(golden, floating, f"{name} against float64"))
    return {
        f"{name}_M_elements_per_second": elements / exact / 1e6,
        f"float64_M_elements_per_second_beside_{name}": elements / plain / 1e6,
        f"{name}_over_float64": plain / exact,
    }


def bulk_against_beats(simulator: str, elements: int, lanes: int) -> dict[str, float]:
    """Cycles per second of the same core in the bulk harness, and driven beat by beat from Python."""
    config = ThrottleConfig.stability_margin(elements=elements, eta=0.1, lanes=lanes)
    random = np.random.default_rng(0)
    gradients = [random.integers(-2000, 2000, elements).astype(np.int16) for _ in range(4)]
    with RtlThrottle(config, np.zeros(elements), simulator=simulator) as rtl:
        rtl.step(gradients[0])
        rates = []
        for _ in tqdm(range(ROUNDS), desc="in bulk", leave=False):
            before = len(rtl.cycles)
            begun = time.perf_counter()
            for gradient in gradients:
                rtl.step(gradient)
            rates.append(sum(rtl.cycles[before:]) / (time.perf_counter() - begun))
    beats = speed(config.to_table(), 2, simulator)
    bulk, driven = statistics.median(rates), beats["cycles"] / beats["seconds"]
    return {"bulk_cycles_per_second": bulk, "beat_by_beat_cycles_per_second": driven, "bulk_over_beat_by_beat": bulk / driven}


def bulk_against_bare(elements: int, lanes: int) -> dict[str, float]:
    """Cycles per second of a core in the bulk harness under cocotb, and of its compiled model by itself, in turn."""
    config = ThrottleConfig.stability_margin(elements=elements, eta=0.1, lanes=lanes)
    random = np.random.default_rng(0)
    gradients = [random.integers(-2000, 2000, elements).astype(np.int16) for _ in range(4)]
    alone, driven = [], []
    with RtlThrottle(config, np.zeros(elements)) as rtl:
        for count in tqdm(range(ROUNDS + 1), desc="in bulk against the bare model", leave=False):
            before, begun = len(rtl.cycles), time.perf_counter()
            for gradient in gradients:
                rtl.step(gradient)
            seconds, cycles = time.perf_counter() - begun, sum(rtl.cycles[before:])
            rate = bare(config, cycles)
            if count:
                driven.append(cycles / seconds)
                alone.append(rate)
    ratio = statistics.median(one / other for one, other in zip(driven, alone, strict=True))
    return {
        "bulk_M_cycles_per_second": statistics.median(driven) / 1e6,
        "bare_M_cycles_per_second": statistics.median(alone) / 1e6,
        "bulk_over_bare": ratio,
    }


def first_job() -> dict[str, float]:
    """Seconds of `kappa-rtl cosim --steps 3` with nothing kept, and with everything kept."""
    seconds = {}
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        environment = os.environ | {"KAPPA_RTL_CACHE": f"{folder}/cache"}
        command = [sys.executable, "-m", "kappa_rtl.scripts.main", "cosim", "--steps", "3", "--out", f"{folder}/run"]
        for kept in ("cold", "warm"):
            with tqdm(total=1, desc=f"cosim --steps 3, {kept}", leave=False):
                begun = time.perf_counter()
                subprocess.run(command, env=environment, check=True, capture_output=True)
                seconds[f"cosim_of_3_steps_{kept}_seconds"] = time.perf_counter() - begun
    return seconds


def quantised_against_float(steps: int = 10) -> dict[str, float]:
    """The instrumented loop on 784-128-10 with relu, batches of 128: every tensor on a 16-bit grid, and in float."""
    random = np.random.default_rng(0)
    problem = Problem("noise", random.random((128 * steps, 784)), np.eye(10)[random.integers(0, 10, 128 * steps)])
    formats = {
        "input": {"value": "SQ1.15"},
        "__default__": {
            **{"weight": "SQ2.14", "bias": "SQ2.14", "activation": "SQ6.10", "accumulator": "SQ10.22"},
            **{"gradient": "SQ4.12", "update": "SQ1.15"},
        },
    }

    def loop(precision: dict[str, dict[str, str]] | None) -> Callable[[], Any]:
        model = LinearBlockModel(problem, num_hidden=[128], activation="relu", seed=0)
        return lambda: model.train_instrumented(
            problem.X, problem.Y, epochs=1, batch_size=128, precision_dict=precision, compute_analytic_hessian=False
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        quantised, plain = (
            statistics.median(times) for times in alternately(loop(formats), loop(None), "quantised loop against float loop")
        )
    return {
        "quantised_loop_ms_per_step": quantised / steps * 1e3,
        "float_loop_ms_per_step": plain / steps * 1e3,
        "quantised_over_float_time": quantised / plain,
    }


@click.command("bench")
@click.option("--sim", type=click.Choice(SIMULATORS), default="verilator", show_default=True)
@click.option("--elements", type=click.IntRange(1), default=1_000_000, show_default=True, help="N of the golden benchmark.")
@click.option("--core-elements", type=click.IntRange(1), default=8000, show_default=True, help="N of the simulated core.")
@click.option("--lanes", type=click.IntRange(1, 32), default=8, show_default=True, help="Lanes of the simulated core.")
@click.option("--json", "path", type=Output(), help="Write the figures here too.")
def command(sim: str, elements: int, core_elements: int, lanes: int, path: Path | None) -> None:
    """Measure speeds side by side: golden against float64, the quantised training loop against the float one, the bulk
    harness against beat by beat from Python and against the bare model, and a short job from nothing and again.

    Each figure is a median over alternating rounds on one core; compare the ratios, not the absolutes.

    \b
    Example:
      kappa-rtl bench --json bench.json
    """
    try:
        figures: dict[str, float] = {}
        for name in OPTIONS:
            figures |= golden_against_float(elements, name)
        figures |= quantised_against_float() | bulk_against_beats(sim, core_elements, lanes)
        figures |= bulk_against_bare(1 << 16, lanes) | first_job()
    except (ValueError, SimulationError) as error:
        raise click.ClickException(str(error)) from None
    for name, figure in figures.items():
        click.echo(f"{name.replace('_', ' '):36s} {figure:14,.3f}")
    if path:
        write_atomically(path, json.dumps(figures, indent=1) + "\n")
