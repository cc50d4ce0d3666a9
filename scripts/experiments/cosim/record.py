"""The raw record of a run: a line a step as it is made, and every vector when it ends."""

from __future__ import annotations

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....golden.config import ThrottleConfig
from ....golden.files import write_atomically
from ....golden.numbers import real
from ....golden.throttle import StepRecord
from ....golden.training.linear import StepRow
from ....sim.difference import Difference
from .lockstep import Handed, Made

TOLERANCE = 1e-9
"""Relative, of a logged loss when a run is resumed: another processor, or BLAS, sums a float64 in another order. Registers must
be the logged ones."""

DIFFERS = "differs"
"""The key of a line that says where golden and RTL do not agree; only the last line may have it."""


def lines_of(trace: Path) -> list[str]:
    """The whole lines of a log, without that of a difference, each with its end.

    Raises:
        ValueError: it holds something else; names the file, the line and the rule.
    """
    try:
        text = trace.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"resume needs the trace.jsonl of an earlier run; {str(trace)!r} is no text: {error}") from None
    logged = []
    for number, line in enumerate(one for one in text.splitlines(keepends=True) if one.endswith("\n")):
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if isinstance(found, dict) and DIFFERS in found:
            break
        if not isinstance(found, dict) or found.get("step") != number or not {"loss", "golden", "rtl", "cycles"} <= set(found):
            raise ValueError(
                f"{trace}, line {number + 1}: must be the record of step {number} with loss, golden, rtl and cycles, "
                f"not {line.strip()[:60]!r}"
            )
        logged.append(line)
    return logged


class Record(contextlib.AbstractContextManager["Record"]):
    """``trace.jsonl``, a whole line a step as it is made, and ``vectors.npz`` when the run ends, however it does.

    Args:
        theta: the first weights, codes, (N,).
        logged: the lines of an earlier run, which its steps must come out as.
    """

    def __init__(self, out: Path, config: ThrottleConfig, theta: NDArray[Any], logged: list[str]) -> None:
        self._out, self._logged, self._config, self._first = out, logged, config, theta
        self._steps: list[tuple[Handed, StepRecord]] = []  # of the RTL
        self._last: Made | None = None
        self._failed: Made | None = None
        self._written = len(logged)
        self.strayed = 0  #: steps whose loss is not the logged one to the last digit
        write_atomically(out / "trace.jsonl", "".join(logged).encode())
        self._file = open(out / "trace.jsonl", "a", buffering=1)  # noqa: SIM115  closed by close()
        self._closed = False

    def made(self, made: Made) -> None:
        """A step of both units.

        Raises:
            ValueError: it is not the one that was logged; names the register and both values.
        """
        step = made.rtl.step
        if step < len(self._logged):
            logged = json.loads(self._logged[step])
            for name, value in _line(made).items():
                _same(step, name, logged[name], value)
        self._steps.append((made.handed, made.rtl))
        self._last = made

    def add(self, row: StepRow) -> None:
        """What training says of the step that was made last.

        Raises:
            ValueError: its loss is beyond the tolerance around the logged one.
        """
        loss = float(row.metrics["loss"])
        if row.step >= len(self._logged):
            assert self._last is not None
            self._file.write(json.dumps({"step": row.step, "loss": loss} | _line(self._last)) + "\n")
            self._written += 1
            return
        logged = json.loads(self._logged[row.step])["loss"]
        if not (isinstance(logged, float) and (logged == loss or (math.isnan(logged) and math.isnan(loss)))):
            if not (isinstance(logged, float) and math.isclose(logged, loss, rel_tol=TOLERANCE)):
                raise ValueError(
                    f"{_NOT_AS_LOGGED.format(row.step)}: loss comes out as {loss!r}, not within {TOLERANCE:g} of {logged!r}"
                )
            self.strayed += 1

    def fail(self, difference: Difference, made: Made) -> None:
        """The step in which the units differ: the last line, and the last vectors."""
        line = {"step": difference.step, DIFFERS: difference.where} | _line(made)
        self._file.write(json.dumps(line) + "\n")
        self._written += 1
        self._steps.append((made.handed, made.rtl))
        self._failed = made

    def close(self) -> None:
        """Write the vectors, of as many steps as there are lines."""
        if self._closed:
            return
        self._closed = True
        self._file.close()
        steps = self._steps[: self._written]  # an interrupt may come between the two
        handed = [one for one, _ in steps]
        shape = (-1, self._config.elements)
        further: dict[str, Any] = {}
        if any(one.direction is not None for one in handed):
            along = [one.gradient if one.direction is None else one.direction for one in handed]
            further["direction"] = np.array(along, np.int64).reshape(shape)
        if any(one.rate is not None for one in handed):
            further["rate"] = np.array([float(real("eta", self._config.eta) if one.rate is None else one.rate) for one in handed])
        if self._failed is not None:
            further |= {f"golden_{name}": np.array(getattr(self._failed.golden, name), np.int64) for name in ("theta", "update")}
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            gradient=np.array([one.gradient for one in handed], np.int64).reshape(shape),
            theta=np.array([self._first, *(rtl.theta for _, rtl in steps)], np.int64).reshape(shape),
            update=np.array([rtl.update for _, rtl in steps], np.int64).reshape(shape),
            **further,
        )
        write_atomically(self._out / "vectors.npz", buffer.getvalue())

    def __exit__(self, *_: object) -> None:
        self.close()


_NOT_AS_LOGGED = (
    "step {} does not come out as trace.jsonl has it, whose registers decide: resume needs the same job, data and versions"
)


def _line(made: Made) -> dict[str, Any]:
    return {"golden": made.golden.registers.to_json(), "rtl": made.rtl.registers.to_json(), "cycles": made.cycles}


def _same(step: int, name: str, logged: Any, value: Any) -> None:
    if isinstance(value, dict) and isinstance(logged, dict):
        for key in dict.fromkeys([*value, *logged]):
            _same(step, f"{name} {key}", logged.get(key), value.get(key))
    elif logged != value:
        raise ValueError(f"{_NOT_AS_LOGGED.format(step)}: {name} comes out as {value!r}, not {logged!r}")
