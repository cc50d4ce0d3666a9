"""``kappa-rtl bench``: speeds, as ratios measured side by side in one run."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..golden.compiled import compiler
from ..golden.config import ThrottleConfig
from ..golden.engines import shards
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
ROW = 10


def alternately(*runs: Callable[[], Any], what: str) -> list[list[float]]:
    """Seconds of each, taken in turn after one uncounted round, so that all see the same machine."""
    times: list[list[float]] = [[] for _ in runs]
    for count in tqdm(range(ROUNDS + 1), desc=what, leave=False):
        for run, kept in zip(runs, times, strict=True):
            begun = time.perf_counter()
            run()
            if count:
                kept.append(time.perf_counter() - begun)
    return times


def in_rows(*runs: Callable[[], Any], what: str) -> list[float]:
    """The median seconds of each, several in a row before the next one's turn, as steps follow each other in training."""

    def row(run: Callable[[], Any]) -> Callable[[], None]:
        def again() -> None:
            for _ in range(ROW):
                run()

        return again

    return [statistics.median(times) / ROW for times in alternately(*map(row, runs), what=what)]


OPTIONS: dict[str, dict[str, Any]] = {
    "golden": {},
    "stochastic": {"update": "SQ1.15,stochastic", "lanes": 8},
    "residual": {"residual_bits": 8},
}
"""Units whose speed is measured: the plain one, and those that draw random numbers or keep what rounding dropped."""


def in_float64(gradients: Sequence[NDArray[Any]]) -> Callable[[], None]:
    """What a step does to the elements, in plain float64 numpy: two sums of squares and the update."""
    reals = itertools.cycle([gradient / 4096.0 for gradient in gradients])
    state: dict[str, Any] = {"theta": np.zeros(gradients[0].size), "previous": np.zeros(gradients[0].size)}

    def step() -> None:
        gradient = next(reals)
        change = gradient - state["previous"]
        energy = change @ change
        state["previous"] = gradient
        moved = state["theta"] + -0.05 * gradient
        motion = moved - state["theta"]
        state["theta"] = moved
        state["energies"] = energy + motion @ motion

    return step


def golden_against_float(elements: int, name: str = "golden") -> dict[str, float]:
    """Absorb and apply of a golden unit, and the same update in plain float64 numpy."""
    config = ThrottleConfig.stability_margin(elements=elements, eta=0.1, **OPTIONS[name])
    random = np.random.default_rng(0)
    gradients = [random.integers(-20000, 20000, elements).astype(np.int16) for _ in range(2)]
    unit = Throttle(config, random.integers(-20000, 20000, elements).astype(np.int16))
    turns = itertools.cycle(gradients)
    floating = in_float64(gradients)
    times = alternately(lambda: unit.step(next(turns)), floating, what=f"{name} against float64")
    exact, plain = map(statistics.median, times)
    return {
        f"{name}_M_elements_per_second": elements / exact / 1e6,
        f"float64_M_elements_per_second_beside_{name}": elements / plain / 1e6,
        f"{name}_over_float64": plain / exact,
    }


def engines_against_float(elements: int) -> dict[str, float]:
    """Both passes on 16-bit formats in numpy, in compiled loops, and in plain float64; and a whole step beside torch's."""
    config = ThrottleConfig.stability_margin(elements=elements, eta=0.1)
    random = np.random.default_rng(0)
    gradients, theta = [random.integers(-20000, 20000, elements).astype(np.int16) for _ in range(2)], np.zeros(elements, np.int16)
    turns = itertools.cycle(gradients)

    def passes(engine: str, threads: int) -> Callable[[], None]:
        shard = shards(engine, threads)(config, theta)

        def run() -> None:
            gradient = next(turns)
            shard.absorb(gradient)
            shard.apply(gradient, config.initial_step)

        return run

    runs = {"float64": in_float64(gradients), "numpy": passes("numpy", 1)}
    if compiler() is not None:
        runs |= {"numba": passes("numba", 1), "numba_2_threads": passes("numba", 2)}
    seconds = dict(zip(runs, in_rows(*runs.values(), what="engines"), strict=True))
    figures = {f"{name}_passes_M_weights_per_second": elements / taken / 1e6 for name, taken in seconds.items()}
    if "numba" in seconds:
        figures |= {f"numba_passes_over_{name}": seconds[name] / seconds["numba"] for name in ("float64", "numpy")}
        figures |= step_against_torch(Throttle(config, theta, engine="numba"), gradients)
    return figures


def step_against_torch(unit: Throttle, gradients: Sequence[NDArray[Any]]) -> dict[str, float]:
    """A whole step of a unit, and where torch is installed a step of its SGD on as many float32 weights, on one thread."""
    turns, runs = itertools.cycle(gradients), [lambda: unit.step(next(turns))]
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(1)
        weights = torch.nn.Parameter(torch.zeros(gradients[0].size))
        weights.grad = torch.ones(gradients[0].size)
        runs.append(torch.optim.SGD([weights], lr=0.1).step)
    times = in_rows(*runs, what="a whole step")
    figures = {"numba_step_ms": times[0] * 1e3}
    return figures | (
        {"torch_sgd_step_ms": times[1] * 1e3, "numba_over_torch_sgd_time": times[0] / times[1]} if times[1:] else {}
    )


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
            statistics.median(times) for times in alternately(loop(formats), loop(None), what="quantised loop against float loop")
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
@click.option("--engines", "alone", is_flag=True, help="Measure the engines of the golden model alone.")
def command(sim: str, elements: int, core_elements: int, lanes: int, path: Path | None, alone: bool) -> None:
    """Measure speeds side by side: golden against float64, its engines against each other, the quantised training loop
    against the float one, the bulk harness against beat by beat from Python and against the bare model, and a short job from
    nothing and again.

    Each figure is a median over alternating rounds on one core; compare the ratios, not the absolutes.

    \b
    Example:
      kappa-rtl bench --json bench.json
    """
    try:
        figures = engines_against_float(elements)
        for name in () if alone else OPTIONS:
            figures |= golden_against_float(elements, name)
        if not alone:
            figures |= quantised_against_float() | bulk_against_beats(sim, core_elements, lanes)
            figures |= bulk_against_bare(1 << 16, lanes) | first_job()
    except (ValueError, SimulationError) as error:
        raise click.ClickException(str(error)) from None
    for name, figure in figures.items():
        click.echo(f"{name.replace('_', ' '):44s} {figure:14,.3f}")
    if compiler() is None:
        click.echo('numba is not installed, so there are no figures of compiled loops: pip install "kappa-rtl[fast]"')
    if path:
        write_atomically(path, json.dumps(figures, indent=1) + "\n")
