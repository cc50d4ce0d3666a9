"""The waveform of a unit in its harness: its words cut into named fields, and the save file that shows them in GTKWave."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vcd.gtkw import GTKWSave

from ..golden.config import ThrottleConfig
from ..hw.manifest import bit_map
from ..hw.units.ports import registers_layout, updated_signature, vector
from .difference import Difference

PERIOD = 10
"""Nanoseconds of the harness's clock."""

SCOPE = "harness"
FIELDS = f"{SCOPE}.fields"
"""The instance of the module that :func:`fields` makes."""

STREAMS = {
    "gradient": ("gradient_valid", "gradient_ready", "gradient_beat"),
    "weight": ("weight_valid", "weight_ready", "weight_beat"),
    "direction": (),
    "updated": ("updated_valid", "updated_ready", "updated_beat"),
    "registers": ("registers_valid", "registers_ready"),
}
"""The words of the harness that are cut into fields, each with what else of the harness belongs to its stream."""


def words(config: ThrottleConfig) -> dict[str, list[dict[str, Any]]]:
    """The leaves of each word: the lanes of a beat, and every register, with lowest bit, width and signedness."""
    grids, lanes = config.grids, config.lanes
    shapes = {name: vector(getattr(grids, name).width, lanes) for name in ("gradient", "weight", "direction")}
    shapes["updated"] = updated_signature(config).members["payload"].shape
    return {name: bit_map(shapes[name], prefix="" if name == "updated" else name) for name in STREAMS if name in shapes} | {
        "registers": bit_map(registers_layout(config))
    }


def identifier(word: str, leaf: str) -> str:
    """The name of a leaf in the waveform: ``gradient[3]`` is ``gradient_3``, the new ``weight[3]`` is ``updated_weight_3``."""
    plain = re.sub(r"\W+", "_", leaf).strip("_")
    return f"updated_{plain}" if word == "updated" else plain


def fields(config: ThrottleConfig) -> str:
    """A module for the harness, which cuts its words into signals of their own, so that a viewer shows them by name."""
    ports, cut = [], []
    for word, leaves in words(config).items():
        ports.append(f"  input [{max(leaf['lsb'] + leaf['width'] for leaf in leaves) - 1}:0] {word}_word")
        for leaf in leaves:
            low, width = leaf["lsb"], leaf["width"]
            kind = f"{'signed ' if leaf['signed'] else ''}[{width - 1}:0] " if width > 1 else ""
            cut.append(f"  wire {kind}{identifier(word, leaf['name'])} = {word}_word[{low + width - 1}:{low}];")
    return "\n".join(["module fields (", ",\n".join(ports), ");", *cut, "endmodule", ""])


def place(difference: Difference, config: ThrottleConfig) -> list[str]:
    """Where a difference shows: the fields of its register, or the lane of its element."""
    if difference.element is not None:
        name = "weight" if difference.signal == "theta" else difference.signal
        return [identifier("updated", f"{name}[{difference.element % config.lanes}]")]
    leaves = (leaf["name"] for leaf in words(config)["registers"])
    return [identifier("registers", leaf) for leaf in leaves if leaf.split(".")[0] == difference.signal]


def variables(wave: Path) -> dict[str, str]:
    """The signals of a VCD file by dotted name, each as GTKWave calls it, with its range."""
    found: dict[str, str] = {}
    scopes: list[str] = []
    with wave.open(encoding="latin-1") as file:  # read here, since Verilator's scope $rootio is no name to pyvcd
        for line in file:
            match line.split():
                case ["$scope", _, name, "$end"]:
                    scopes.append(name)
                case ["$upscope", "$end"]:
                    scopes.pop()
                case ["$var", _, _, _, name, *rest, "$end"]:
                    path = ".".join([*scopes, name])
                    found[path] = path + "".join(rest)
                case ["$enddefinitions", *_]:
                    break
    return found


def save_file(wave: Path, config: ThrottleConfig, span: tuple[int, int], shown: Iterable[str] = ()) -> str:
    """What GTKWave shows of a waveform: what is asked for first, then the clock, the streams and every register.

    Args:
        wave: the VCD file, whose signals alone are named.
        span: nanoseconds at which the step begins and at which its registers are taken: the markers A and B.
        shown: fields to show first.
    """
    there = variables(wave)
    text = io.StringIO()
    save = GTKWSave(text)
    save.dumpfile(wave.name, abspath=False)
    begins, ends = span
    save.timestart(max(0, begins - PERIOD))
    markers: dict[str, Any] = {"a": begins, "b": ends}
    save.zoom_markers(-math.log2(max(1, ends - begins) / 1000), begins, **markers)

    def group(name: str, signals: Iterable[str], signed: frozenset[str] = frozenset()) -> None:
        known = [signal for signal in signals if signal in there]
        if known:
            with save.group(name):
                for signal in known:
                    save.trace(there[signal], alias=signal.rpartition(".")[2], datafmt="signed" if signal in signed else "dec")

    cut = words(config)
    signed = frozenset(
        f"{FIELDS}.{identifier(word, one['name'])}" for word, leaves in cut.items() for one in leaves if one["signed"]
    )
    group("difference", (f"{FIELDS}.{name}" for name in shown), signed)
    group("step", (f"{SCOPE}.{name}" for name in ("clk", "unit_reset", "go", "done", "running", "cycles")))
    for word, beside in STREAMS.items():
        own = (f"{FIELDS}.{identifier(word, one['name'])}" for one in cut[word])
        group(word, [*(f"{SCOPE}.{name}" for name in beside), *own], signed)
    return text.getvalue()
