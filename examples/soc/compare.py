"""What the firmware must say: the same training in numpy, its weights updated by the golden model."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network.data import digits
from kappa_rtl.golden.throttle import Throttle

STEPS = 8
LOG2_IMAGES = 5
IMAGES = 1 << LOG2_IMAGES
CLASSES, PIXELS = 10, 64

Codes = NDArray[np.int64]


class Difference(Exception):
    """The firmware said something else than the model, or less; says what and where first."""


def images() -> dict[str, tuple[Codes, Codes]]:
    """Pixels of 0..16, (IMAGES, PIXELS), and labels: of the images that are trained on, and of as many others.

    Both are spread over the whole table, whose neighbours come from one writer.
    """
    problem = digits()
    pixels, labels = (problem.inputs * 16).astype(np.int64), problem.labels
    assert labels is not None
    apart = len(pixels) // IMAGES
    rows = {"trained": apart * np.arange(IMAGES), "unseen": apart * np.arange(IMAGES) + apart // 2}
    return {name: (pixels[chosen], labels[chosen]) for name, chosen in rows.items()}


def header(steps: int = STEPS) -> str:
    """``digits.h``: the images, and how many steps are trained."""
    lines = ["#include <stdint.h>", ""]
    for name, value in (("STEPS", steps), ("IMAGES", IMAGES), ("LOG2_IMAGES", LOG2_IMAGES), ("PIXELS", PIXELS)):
        lines.append(f"#define {name} {value}")
    for name, (pixels, labels) in images().items():
        rows = ",\n    ".join("{" + ", ".join(map(str, row)) + "}" for row in pixels)
        lines += ["", f"static const uint8_t {name.upper()}[IMAGES][PIXELS] = {{\n    {rows}}};"]
        lines += [f"static const uint8_t {name.upper()}_LABELS[IMAGES] = {{{', '.join(map(str, labels))}}};"]
    return "\n".join(lines) + "\n"


def scores(theta: Codes, pixels: Codes) -> Codes:
    """Scores, (IMAGES, CLASSES), in units of 2**-18; theta is a row of pixels and a constant for each class."""
    table = theta.reshape(CLASSES, PIXELS + 1).astype(np.int64)
    return pixels @ table[:, :PIXELS].T + 16 * table[:, PIXELS]


def gradient(theta: Codes, pixels: Codes, labels: Codes) -> Codes:
    """The gradient of half the mean squared error, (N,), rounded onto a grid of 2**-12."""
    error = ((scores(theta, pixels) + 8) >> 4) - (np.eye(CLASSES, dtype=np.int64)[labels] << 14)
    sums = error.T @ np.hstack([pixels, np.full((IMAGES, 1), 16)])
    return np.clip((sums + (IMAGES << 5)) >> (6 + LOG2_IMAGES), -(1 << 15), (1 << 15) - 1).reshape(-1)


def right(theta: Codes, name: str) -> int:
    """How many images of ``trained`` or ``unseen`` have their highest score at their label."""
    pixels, labels = images()[name]
    return int((scores(theta, pixels).argmax(axis=1) == labels).sum())


class Said:
    """The firmware's lines, one after the other: a name and a number in hexadecimal, for ``weights`` four digits each."""

    def __init__(self, log: str) -> None:
        self.lines = iter(log.splitlines())

    def take(self, name: str) -> str:
        """What follows the name, which must come next."""
        line = next(self.lines, "nothing")
        found, _, value = line.partition(" ")
        if found != name:
            raise Difference(f"the firmware must say {name}, not {line!r}")
        return value

    def number(self, name: str) -> int:
        return int(self.take(name), 16)

    def weights(self) -> NDArray[np.int16]:
        text = self.take("weights")
        return np.array([int(text[i : i + 4], 16) for i in range(0, len(text), 4)], np.uint16).view(np.int16)


def words(said: Said, register_map: list[dict[str, Any]], names: list[str]) -> dict[int, int]:
    """Words by offset, as a bus would give them, of registers that come next."""
    offsets = {register["name"]: register["offset"] for register in register_map}
    found = {}
    for name in names:
        text = said.take(name.upper())
        found |= {offsets[name] + 4 * i: int(text, 16) >> 32 * i & 0xFFFFFFFF for i in range(len(text) // 8)}
    return found


def same(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Difference(f"{what} must be {expected}, not {found}")


def compare(log: str, folder: Path, steps: int = STEPS) -> list[str]:
    """Compare what the firmware said with the golden model, bit for bit; gives what there is to tell.

    Args:
        log: all that came over the serial line.
        folder: where the unit was exported to as ``throttle_axi``; its driver reads the registers out of the log.
        steps: how many were trained.

    Raises:
        Difference: something is not the same.
    """
    manifest = json.loads((folder / "throttle_axi.json").read_text())
    config = ThrottleConfig.from_table(manifest["configuration"])
    driver = module(folder / "throttle_axi.py")
    golden = Throttle(config, np.zeros(config.elements, np.int16))
    said = Said(log)
    told = []

    def accuracy(after: int) -> None:
        for name in images():
            count = said.number(f"right_{name}")
            same(f"right answers, {name} images, after {after} steps", count, right(golden.theta, name))
            told.append(f"{count} of {IMAGES} {name} images right")

    published = [register["name"] for register in manifest["register_map"] if register["access"] == "ro"]
    identity = words(said, manifest["register_map"], list(driver.EXPECTED))
    accuracy(0)
    cycles = []
    for n in range(1, steps + 1):
        record = golden.step(gradient(golden.theta, *images()["trained"]), codes=True)
        cycles.append(said.number("cycles"))
        bus = identity | words(said, manifest["register_map"], [*published, "irq_status"])
        unit = driver.ThrottleAxi(read=bus.__getitem__, write=bus.__setitem__)
        expected = record.registers.to_json()
        for name, value in unit.registers().items():
            same(f"step {n}: {name}", list(value) if isinstance(value, tuple) else value, expected[name])
        same(f"step {n}: steps", unit.get("steps"), n)
        # Cleared by the interrupt's handler, and no frame of a vector was wrong.
        same(f"step {n}: irq_status", unit.word("irq_status"), 0)
        weights = said.weights()
        if len(weights) != config.elements or (weights != record.theta).any():
            differing = int((weights != record.theta).sum()) if len(weights) == config.elements else len(weights)
            raise Difference(f"step {n}: {differing} of {config.elements} weights differ")
        told.append(f"step {n}: alpha {float(record.registers.alpha):.3f}, {cycles[-1]} cycles")
    accuracy(steps)
    told.append(f"{steps} steps: every register and all {config.elements} weights equal the golden model's, bit for bit")
    alone = manifest["latency"]["step_at_most"]
    told.append(f"cycles a step, from arming the DMA to the flushed cache: {min(cycles)} to {max(cycles)}")
    told.append(f"cycles a step of the unit alone, its streams never stalling: at most {alone}")
    return told


def module(path: Path) -> Any:
    """A module by its path."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made
