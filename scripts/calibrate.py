"""``kappa-rtl calibrate``: what the diagnostic protocol sees of healthy and of failing runs."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from ..golden.protocol.rules import Outcome, growth, replay
from ..golden.protocol.trace import Row, load_traces, save_traces
from .experiments.credit.calibration import ARMS, HELD_OUT, SETTINGS, Setting, calibrate
from .experiments.pool import Task, compute
from .interrupts import interruptible
from .outputs import Folder

HEAD = (
    "setting",
    "arm",
    "largest growth",
    "smallest ‖g_L‖",
    "a sample's own",
    "(c) in the end",
    "fires at",
    "pp to come",
    "accuracy",
    "frozen",
    "verdicts in the end",
)


@click.command("calibrate")
@click.argument("settings", nargs=-1, type=click.Choice(list(SETTINGS)))
@click.option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Runs of each arm.")
@click.option("--epochs", type=click.IntRange(1, 100_000), help="Of every run.")
@click.option("--jobs", type=click.IntRange(1, 1024), default=1, show_default=True, help="Runs at a time.")
@click.option(
    "--out",
    type=Folder(),
    default=Path("calibrate"),
    show_default=True,
    help="Folder of the traces.",
)
def command(settings: tuple[str, ...], seeds: int, epochs: int | None, jobs: int, out: Path) -> None:
    """Train by backpropagation and by direct feedback alignment, and table what the flags see; all settings by default.

    \b
    norm      4 blocks of 64, LayerNorm before the head, Adam at 0.001
    bare      the same without that LayerNorm
    sgd       with it, plain descent at 0.01
    deep      as norm, 8 blocks
    embedded  as norm, blocks of 48 behind a learned embedding
    one       as norm, blocks of one matrix; one-bare without the LayerNorm

    The traces, SETTING-SEED.json, are read by `kappa-rtl monitor`; those that are there already are not made again.

    \b
    Example:
      kappa-rtl calibrate norm --seeds 1
      kappa-rtl monitor calibrate/norm-0.json
    """
    chosen = {name: SETTINGS[name] for name in settings or SETTINGS}
    if epochs:
        chosen = {name: replace(setting, epochs=epochs) for name, setting in chosen.items()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        with interruptible():
            runs = _run_all(chosen, seeds, jobs, out)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    lines = [line for name in chosen for line in _lines(name, [runs[name, seed] for seed in range(seeds)])]
    click.echo(tabulate([HEAD, *lines], tablefmt="plain", disable_numparse=True))


def _run_all(chosen: dict[str, Setting], seeds: int, jobs: int, out: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """The members of every run's file, made where it is not there or of another setting."""
    runs: dict[tuple[str, int], dict[str, Any]] = {}
    todo = []
    for name, setting in chosen.items():
        for seed in range(seeds):
            path = out / f"{name}-{seed}.json"
            kept: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
            if kept.get("setting") == asdict(setting):
                runs[name, seed] = kept | {"logs": load_traces(path)[1]}
            else:
                todo.append(Task((name, seed), f"{name}, seed {seed}", calibrate, (setting, seed)))
    for (name, seed), made in compute(todo, jobs, "calibrate"):
        about = {key: value for key, value in made.items() if key != "logs"}
        save_traces(out / f"{name}-{seed}.json", made["logs"], title=f"digits, {chosen[name]}, seed {seed}", **about)
        runs[name, seed] = made
    return runs


def _lines(name: str, runs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A line an arm: the range over the seeds."""
    lines: list[tuple[str, ...]] = []
    for arm in ARMS:
        logs: list[list[Row]] = [run["logs"][arm] for run in runs]
        outcomes = [replay(log, arm) for log in logs]
        ends = [run["reports"][arm] for run in runs]
        verdicts = sorted({end["verdict"] for end in ends})
        smallest = [min(_worst(row["bp_grad_norms_per_sample_med"][-1], 0.0) for row in log) for log in logs]
        lines.append(
            (
                name,
                arm,
                _range([max(_worst(growth(row["hidden_norms"]), math.inf) for row in log) for log in logs], ".3g"),
                _range(smallest, ".2g"),
                _range([HELD_OUT * one for one in smallest], ".2g"),
                _range([float(end["direction"]) for end in ends], "z.2f"),
                _epochs(outcomes),
                _range([100 * outcome.gain for outcome in outcomes if outcome.flags], "+.1f"),
                _range([log[-1]["acc_eval"] for log in logs], ".3f"),
                _range([run["frozen_acc"] for run in runs], ".3f"),
                ", ".join(f"{verdict} {sum(end['verdict'] == verdict for end in ends)}" for verdict in verdicts),
            )
        )
    return lines


def _worst(value: float, worst: float) -> float:
    """NaN as the worst that it can stand for: neither max nor min may lose it."""
    return worst if math.isnan(value) else value


def _epochs(outcomes: list[Outcome]) -> str:
    fired = [outcome.fired_epoch for outcome in outcomes if outcome.fired_epoch is not None]
    if not fired:
        return "never"
    return _range(fired, "d") + ("" if len(fired) == len(outcomes) else f", {len(fired)} of {len(outcomes)}")


def _range(values: Sequence[float], form: str) -> str:
    if not values:
        return "-"
    low, high = format(min(values), form), format(max(values), form)
    return low if low == high else f"{low} to {high}"
