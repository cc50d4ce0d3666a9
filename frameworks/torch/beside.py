"""A unit that makes every step beside the golden one, such as the exported Verilog in a simulator, until they differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...golden.files import write_atomically
from ...golden.tables import html
from ...golden.throttle import StepRecord, Throttle
from ...sim.difference import Difference, compare
from .unit import Step

MOST = 100
"""Elements that are shown; where more differ, they are counted."""


class BesideError(Exception):
    """The unit beside gave something else.

    Attributes:
        difference: where.
        page: what was written of it.
    """

    def __init__(self, difference: Difference, page: Path) -> None:
        super().__init__(f"{difference}; {page} shows the step")
        self.difference, self.page = difference, page


class Beside:
    """Hands every step to another unit too.

    Args:
        make: ``make(config, weights, codes=True, streaming=True)``, a unit with ``step`` and ``set_rate``.
        throttle: the golden unit.
        folder: where a difference is written down.
    """

    def __init__(self, make: Callable[..., Any], throttle: Throttle, folder: Path) -> None:
        self._golden, self._folder = throttle, folder
        self._unit = make(throttle.config, np.array(throttle.theta), codes=True, streaming=True)
        self._theta = np.array(throttle.theta)
        self.compared = 0

    def prepare(self, throttle: Throttle) -> None:
        """Before a step: the same rate, and the weights as somebody may have edited them."""
        if float(self._unit.rate) != float(throttle.rate):
            self._unit.set_rate(throttle.rate)
        if not np.array_equal(throttle.theta, self._theta):
            self._unit.load_weights(throttle.theta, codes=True)

    def compare(self, step: Step) -> None:
        """After a step of the golden unit: the same of the other.

        Raises:
            BesideError: at the first register, counter, update or weight that differs.
        """
        config, before = self._golden.config, self._theta
        number = self.compared
        gradient, direction = np.asarray(step.gradients[0]), np.asarray(step.directions[0])
        golden = StepRecord(number, step.registers, np.array(self._golden.theta), np.asarray(step.updates[0]), config)
        other = self._unit.step(gradient, direction, codes=True)
        self._theta = np.array(self._golden.theta)
        difference = compare(golden, other)[1]
        if difference is not None:
            raise BesideError(difference, self._show(difference, golden, other, before, gradient, direction))
        self.compared += 1

    def refuse_load(self) -> None:
        """A simulator cannot be put into another state."""
        raise ValueError("beside must not be given where a state is loaded: no port shows the state of the unit beside")

    def close(self) -> None:
        """End the simulator."""
        close = getattr(self._unit, "close", None)
        if close is not None:
            close()

    def _show(self, difference: Difference, golden: StepRecord, other: StepRecord, *vectors: Any) -> Path:
        config, names = golden.config, ("weights", "gradient", "direction")
        assert config is not None
        own, theirs = golden.registers.to_json(), other.registers.to_json()
        bad = np.flatnonzero((golden.theta != other.theta) | (golden.update != other.update))
        shown = bad[:MOST] if bad.size else np.arange(min(16, golden.theta.size))
        columns = [*vectors, golden.update, other.update, golden.theta, other.theta]
        rows = [[int(i), *(int(column[i]) for column in columns)] for i in shown]
        heads = ["element", *(f"{name} before" if name == "weights" else name for name in names)]
        heads += ["update, golden", "update, beside", "weight, golden", "weight, beside"]
        self._folder.mkdir(parents=True, exist_ok=True)
        content = difference.to_json() | {
            "registers": {name: {"golden": own[name], "beside": theirs[name]} for name in own},
            "elements_that_differ": int(bad.size),
            "elements": [dict(zip(heads, row, strict=True)) for row in rows],
            "configuration": config.to_table(),
        }
        write_atomically(self._folder / "difference.json", json.dumps(content, indent=1) + "\n")
        registers = [(name, own[name], theirs[name], "" if own[name] == theirs[name] else "differs") for name in own]
        body = [
            "<!doctype html><meta charset='utf-8'><title>The unit beside differs</title>",
            "<style>body{font:14px sans-serif;margin:2em}td,th{padding:.1em .8em;text-align:right}</style>",
            f"<h1>The unit beside differs: {difference}</h1>",
            f"<p>{number_of(bad.size)} differ. Numbers are codes; difference.json has the configuration too.</p>",
            html("Registers", ["register", "golden", "beside", ""], registers),
            html("Elements", heads, rows),
        ]
        page = self._folder / "difference.html"
        write_atomically(page, "\n".join(body))
        return page


def number_of(count: int) -> str:
    """``1 element``, ``3 elements``, ``no element``."""
    return "no element" if not count else f"{count} element" + ("" if count == 1 else "s")
