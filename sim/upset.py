"""Inside the simulator: which registers the harness's unit has, and the flip of one bit of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cocotb
from cocotb.handle import ArrayObject, HierarchyObject
from cocotb.triggers import Timer

SURVEY = "KAPPA_RTL_SURVEY"
"""Names the environment variable with the files of :func:`survey`, as JSON: what to read, where to write."""

PERIOD = 10
"""Nanoseconds of the harness's clock, which falls at their multiples."""


class Bit(NamedTuple):
    """A bit of a register, or of a word of a memory."""

    path: str  #: instances and the signal, below the unit, joined by ``/``
    word: int  #: of a memory; -1 for a register
    bit: int


async def strike(dut: Any, path: str, word: int, bit: int, cycle: int) -> None:
    """Flip a bit between two rising edges, ``cycle`` cycles after the first falling edge of the step that has been asked for."""
    signal = named(dut.dut, path)
    if word >= 0:
        signal = signal[word]
    await dut.clk.falling_edge
    while not int(dut.running.value):
        await dut.clk.falling_edge
    await Timer(PERIOD * cycle + 2, "ns")
    signal.value = int(signal.value) ^ 1 << bit


_scopes: dict[str, dict[str, Any]] = {}


def named(top: Any, path: str) -> Any:
    """A signal by its path."""
    *scopes, name = path.split("/")
    scope = top
    for depth, instance in enumerate([*scopes, name]):
        # Names with signs in them are found by looking through the scope, once.
        children = _scopes.setdefault("/".join(scopes[:depth]), {})
        if not children:
            children.update({child._name.strip("\\ "): child for child in scope})
        scope = children[instance]
    return scope


@cocotb.test
async def survey(dut: Any) -> None:
    """Every register of the unit with its width and depth, by the names that each module's text gives."""
    files = json.loads(os.environ[SURVEY])
    modules = json.loads(Path(files["modules"]).read_text())
    await Timer(1, "ns")
    found = list(registers(dut.dut, modules, modules["throttle"], ""))
    Path(files["registers"]).write_text(json.dumps(found))


def registers(scope: Any, modules: Any, module: Any, prefix: str) -> Iterator[tuple[str, int, int]]:
    """``(path, bits, words)`` of a module's registers and those of all within it; 0 words for what is no memory."""
    for child in scope:
        name = child._name.strip("\\ ")
        if isinstance(child, HierarchyObject):
            # A scope that is no instance is a generated block of the same module.
            inner = module["instances"].get(name)
            yield from registers(child, modules, modules[inner] if inner else module, f"{prefix}{name}/")
        elif name in module["registers"]:
            words = len(child) if isinstance(child, ArrayObject) else 0
            yield f"{prefix}{name}", len(child[0]) if words else len(child), words
