"""The step in which golden and RTL differ, side by side: a page, the same as JSON, and a waveform of it."""

from __future__ import annotations

import json
import math
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ....golden.files import write_atomically
from ....golden.formats import Scalar
from ....golden.registers import MEANINGS, Registers
from ....golden.segments import in_beats
from ....golden.throttle import real_of
from ....sim.cosim import RtlThrottle, Stalls
from ....sim.difference import Difference, compare, held
from ....sim.runner import SimulationError, version
from ....sim.wave import PERIOD, place, save_file
from .job import Job
from .lockstep import DifferenceError
from .page import render

FILES = {
    "difference.html": "the step in which golden and RTL differ, side by side",
    "difference.json": "the same as JSON",
    "wave.vcd": "the waveform",
    "wave.gtkw": "what GTKWave shows of it: clock, streams, registers by name, markers at the step",
}

RECORD = {"trace.jsonl": "registers", "vectors.npz": "vectors"}
"""The raw record, which the main run alone has."""

MOST = 100
"""Elements that are shown; where more differ, they are counted."""

FEW = 16
"""Elements that are shown where none differs: the first ones."""

_VALUES = ("A", "B", "step_size")
"""Registers that are integers on a grid."""


@dataclass(frozen=True)
class Shown:
    """A row of a table: its cells, and which of them differ."""

    cells: list[str]
    differs: tuple[int, ...] = ()


def show(
    error: DifferenceError, job: Job, out: Path, *, run: str, verilog: str, main: bool, stalls: Stalls, wave_from: int
) -> None:
    """Write ``difference.json``, ``difference.html``, and of a replay ``wave.vcd`` and ``wave.gtkw``.

    Args:
        run: in which run, as the report calls it.
        verilog: what was simulated.
        main: whether that is the job's own unit, which ``throttle.v`` holds.
        stalls: of that run.
        wave_from: the first step in the waveform, at most that of the difference.
    """
    difference, made = error.difference, error.made
    shutil.rmtree(out / "simulation", ignore_errors=True)
    try:
        wave: dict[str, Any] | None = _replay(error, job, out, verilog, stalls, min(wave_from, difference.step))
        failure = None
    except SimulationError as reason:
        wave, failure = None, str(reason)
    finally:
        shutil.rmtree(out / "simulation", ignore_errors=True)
    command = f"kappa-rtl cosim --config {shlex.quote(str(out / 'config.toml'))}"
    if main:
        command += f" --verilog {shlex.quote(str(out / 'throttle.v'))} --wave {difference.step}"
    command += f" --out {shlex.quote(str(out) + '-replay')}"
    config = error.lockstep.config
    elements = _elements(error)
    both = {"golden": made.golden.registers.to_json(), "rtl": made.rtl.registers.to_json()}
    own = [field.name for field in fields(Registers) if field.name in held(config)]
    content = difference.to_json() | {
        "run": run,
        "registers": {name: {side: found[name] for side, found in both.items()} for name in own},
        "registers_that_differ": [name for name in own if both["golden"][name] != both["rtl"][name]],
        "grids": {name: str(getattr(config.grids, name)) for name in ("gradient", "direction", "weight", "update", "step")},
        "elements_that_differ": int(elements["bad"].size),
        "elements": elements["json"],
        "inputs": {"rate": float(error.lockstep.rate), "cycles": made.cycles} | config.registers(),
        "wave": wave,
        "command": command,
        "configuration": config.to_table(),
    }
    if failure is not None:
        content["no_wave"] = failure
    write_atomically(out / "difference.json", json.dumps(content, indent=1) + "\n")
    told = _wave_sentence(wave, failure, difference, config, job.sim)
    there = {name: what for name, what in FILES.items() if (out / name).exists() or name == "difference.html"}
    if main:
        there |= {name: f"all {what} of every step, this one too" for name, what in RECORD.items()}
    page = render(
        "difference.html.j2",
        title=f"{job.name}: golden and RTL differ",
        subject=f"{job.subject} · {run} · {error.lockstep.steps} steps agreed before",
        simulator=version(job.sim),
        step=difference.step,
        where=difference.where,
        said=_sentences(error, content, elements["bad"].size),
        register_head=("register", "golden", "RTL", "golden, value", "RTL, value", "what it is"),
        register_rows=[_register_row(name, error) for name in own],
        elements=elements["sentence"],
        element_head=elements["head"],
        element_rows=elements["rows"],
        grids=", ".join(f"{name} {text}" for name, text in content["grids"].items() if name != "step"),
        input_head=("input", "value", ""),
        input_rows=_input_rows(error, main),
        main=main,
        wave=told,
        command=command,
        config_toml=job.to_toml(),
        files=list(there.items()),
    )
    write_atomically(out / "difference.html", page)


# ------------------------------------------------------------------------------------------------ the waveform


def _replay(error: DifferenceError, job: Job, out: Path, verilog: str, stalls: Stalls, wave_from: int) -> dict[str, Any]:
    """The recorded steps again, with a waveform; where it is, and when the step is in it."""
    lockstep, made, folder = error.lockstep, error.made, out / "simulation"
    config = lockstep.config
    with RtlThrottle(
        config, lockstep.first, codes=True, simulator=job.sim, streaming=job.streaming,
        stalls=stalls, wave_from=wave_from, folder=folder, verilog=verilog,
    ) as rtl:  # fmt: skip
        for handed in [*lockstep.log.steps, made.handed]:
            rtl.set_rate(config.eta if handed.rate is None else handed.rate)
            record = rtl.step(handed.gradient, handed.direction, codes=True)
        span = rtl.span
    if not (folder / "wave.vcd").exists():
        raise SimulationError(f"{job.sim} has written no waveform")
    (folder / "wave.vcd").replace(out / "wave.vcd")
    shown = place(error.difference, config)
    write_atomically(out / "wave.gtkw", save_file(out / "wave.vcd", config, span, shown))
    return {
        "file": "wave.vcd",
        "save_file": "wave.gtkw",
        "from_step": wave_from,
        "begins_ns": span[0],
        "ends_ns": span[1],
        "begins_cycle": span[0] // PERIOD,
        "ends_cycle": span[1] // PERIOD,
        "signals": shown,
        "same_as_in_the_run": compare(made.rtl, record)[1] is None,
    }


def _wave_sentence(wave: Mapping[str, Any] | None, failure: str | None, difference: Difference, config: Any, sim: str) -> str:
    if wave is None:
        return f"There is none: {failure}"
    beat = ""
    if difference.element is not None:
        number, lane = divmod(difference.element, config.lanes)
        beat = f", which is lane {lane} of beat {number} of the stream updated"
    signals = ", ".join(f"harness.fields.{name}" for name in wave["signals"])
    sentences = [
        f"wave.vcd is a replay on {sim} of the recorded steps, from step {wave['from_step']} on.",
        f"Step {difference.step} begins at {wave['begins_ns']} ns (cycle {wave['begins_cycle']}) and is done at "
        f"{wave['ends_ns']} ns (cycle {wave['ends_cycle']}): the markers A and B of wave.gtkw, as in gtkwave wave.vcd wave.gtkw.",
        f"{difference.where} is {signals} there{beat}.",
    ]
    if not wave["same_as_in_the_run"]:
        sentences.append("The replay gave another step than the run: what it shows may be something else.")
    return " ".join(sentences)


# ------------------------------------------------------------------------------------------------ registers and inputs


def _sentences(error: DifferenceError, content: Mapping[str, Any], bad: int) -> list[str]:
    difference, registers = error.difference, content["registers_that_differ"]
    return [
        f"{difference}.",
        f"{len(registers)} of {len(content['registers'])} registers differ{': ' if registers else ''}{', '.join(registers)}.",
        f"{bad} of {error.lockstep.config.elements} elements differ in the update or the new weight.",
    ]


def _register_row(name: str, error: DifferenceError) -> Shown:
    pair = [getattr(record.registers, name) for record in (error.made.golden, error.made.rtl)]
    cells = [name, *map(_text, pair), *(_value(name, one, error.lockstep.config) for one in pair), MEANINGS.get(name, "")]
    return Shown(cells, (1, 2, 3, 4) if pair[0] != pair[1] else ())


def _text(value: Any) -> str:
    return f"{value.m} * 2**{value.e}" if isinstance(value, Scalar) else str(value)


def _value(name: str, value: Any, config: Any) -> str:
    if isinstance(value, Scalar):
        return f"{float(value):.9g}"
    if name not in _VALUES:
        return ""
    bits = config.step.fraction_bits if name == "step_size" else 2 * config.energy_fractions[name]
    return f"{math.ldexp(value, -bits):.9g}"


def _input_rows(error: DifferenceError, main: bool) -> list[Shown]:
    config, handed = error.lockstep.config, error.made.handed
    constants = config.constants if handed.rate is None else config.constants_at(handed.rate)
    rows = [["learning rate", f"{float(error.lockstep.rate):.9g}", ""]]
    rows += [[name, _text(value), f"{float(value):.9g}"] for name, value in constants.items()]
    for name in ("source", "motion", "on_still", "ema_start", "enabled"):
        rows.append([name, str(getattr(getattr(config, name), "value", getattr(config, name))), ""])
    vectors = {"gradient": handed.gradient, "weight": error.lockstep.before}
    vectors |= {} if handed.direction is None else {"direction": handed.direction}
    for name, codes in vectors.items():
        real = real_of(codes, config, name)
        rows.append(
            [
                f"{name}, {codes.size} elements",
                f"from {real.min():.6g} to {real.max():.6g}",
                "all of them in vectors.npz" if main else "",
            ]
        )
    return [Shown(row) for row in rows]


# ------------------------------------------------------------------------------------------------ elements


def _elements(error: DifferenceError) -> dict[str, Any]:
    """The elements that differ, or the first ones, as rows of the page and of the JSON."""
    made, config = error.made, error.lockstep.config
    golden, rtl, handed = made.golden, made.rtl, made.handed
    along = handed.gradient if handed.direction is None else handed.direction
    columns: dict[str, tuple[Any, str]] = {
        "gradient": (handed.gradient, "gradient"),
        "direction": (along, "direction"),
        "weight": (error.lockstep.before, "weight"),
        "golden_update": (golden.update, "update"),
        "rtl_update": (rtl.update, "update"),
        "golden_theta": (golden.theta, "weight"),
        "rtl_theta": (rtl.theta, "weight"),
    }
    reals = {name: real_of(column, config, grid) for name, (column, grid) in columns.items()}
    places = in_beats(config.segments, config.lanes) if config.segments else np.arange(config.elements)
    bad = np.flatnonzero((golden.update != rtl.update) | (golden.theta != rtl.theta))
    shown = bad[:MOST] if bad.size else np.arange(min(FEW, config.elements))
    names = list(columns)
    rows, listed = [], []
    for i in map(int, shown):
        codes = {name: int(column[i]) for name, (column, _) in columns.items()}
        beat, lane = divmod(int(places[i]), config.lanes)
        listed.append({"element": i, "beat": beat, "lane": lane} | codes)
        cells = [str(i), f"{beat}, {lane}"]
        cells += [f"{code} ({reals[name][i]:.6g})" for name, code in codes.items()]
        differs = [
            2 + names.index(f"{side}_{what}")
            for what in ("update", "theta")
            if codes[f"golden_{what}"] != codes[f"rtl_{what}"]
            for side in ("golden", "rtl")
        ]
        rows.append(Shown(cells, tuple(differs)))
    if not bad.size:
        sentence = f"No element differs; the first {len(shown)} of {config.elements} are shown."
    else:
        sentence = (
            f"{bad.size} of {config.elements} elements differ; {'all' if bad.size <= MOST else f'the first {MOST}'} are shown."
        )
    head = [
        "element",
        "beat, lane",
        "gradient",
        "direction",
        "weight before",
        "y, golden",
        "y, RTL",
        "theta', golden",
        "theta', RTL",
    ]
    return {"bad": bad, "rows": rows, "json": listed, "head": head, "sentence": sentence}
