"""A run as the report tells it: the metrics of its steps, how it ended, and what that says in numbers and sentences.

Every sentence about a run is derived from its numbers; nothing is said that they do not show.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ....golden.checkpoint import State, Stateful
from ....golden.registers import FLAGS
from ....golden.training.history import History
from ....golden.training.linear import StepRow

Floats = NDArray[np.float64]
Kind = Literal["unthrottled", "throttled", "golden", "rtl", "narrow"]

TAIL = 20
"""Accuracies are means of this many last steps."""


@dataclass
class RunHistory(Stateful):
    """One run as the report needs it: a history that still grows, its part in the story, and how it ended.

    Args:
        title: what the legend calls it.
        kind: its part in the story: float without and with the throttle, the golden model, the RTL, or a run on narrow
            weights (drawn by itself, one colour after another).
        colour: of its lines; by kind if not given.
    """

    title: str
    kind: Kind
    colour: str | None = None
    columns: dict[str, list[float]] = field(default_factory=dict)
    tensors: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    diverged_at: int | None = None
    flags: tuple[str, ...] = ()
    still_steps: int = 0

    def append(self, row: StepRow) -> None:
        """Take in one step."""
        for name, value in row.metrics.items():
            self.columns.setdefault(name, []).append(float(value))
        for tensor, found in row.tensors.items():
            own = self.tensors.setdefault(tensor, {})
            for name, value in found.items():
                own.setdefault(name, []).append(float(value))
        registers = row.record.registers
        self.flags = tuple(name for name in FLAGS if getattr(registers, name))
        self.still_steps = registers.still_steps
        if row.diverged:
            self.diverged_at = row.step

    @classmethod
    def collect(cls, title: str, kind: Kind, rows: Iterable[StepRow], colour: str | None = None) -> RunHistory:
        """The history of all ``rows``."""
        history = cls(title, kind, colour)
        for row in rows:
            history.append(row)
        return history

    def state_dict(self) -> State:
        """The steps so far."""
        return {
            "columns": {name: np.array(column) for name, column in self.columns.items()},
            "tensors": {tensor: {name: np.array(column) for name, column in own.items()} for tensor, own in self.tensors.items()},
            "diverged_at": [] if self.diverged_at is None else [self.diverged_at],
            "flags": list(self.flags),
            "still_steps": self.still_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the steps of a state."""
        self.columns = {name: column.tolist() for name, column in state["columns"].items()}
        self.tensors = {
            tensor: {name: column.tolist() for name, column in own.items()} for tensor, own in state["tensors"].items()
        }
        self.diverged_at = next(iter(state["diverged_at"]), None)
        self.flags, self.still_steps = tuple(state["flags"]), state["still_steps"]

    @property
    def history(self) -> History:
        """The steps so far as the history that training leaves too."""
        meta = {"title": self.title, "kind": self.kind, "flags": self.flags, "still_steps": self.still_steps}
        return History(self.columns, layers=self.tensors, meta=meta)

    def to_frame(self) -> Any:
        """A pandas ``DataFrame``, a row a step; see :meth:`~kappa_rtl.golden.training.history.History.to_frame`."""
        return self.history.to_frame()

    def _repr_html_(self) -> str:
        return self.history.to_html(f"{self.title} ({self.kind})")

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Floats:
        """A metric over the steps of the run, (steps,)."""
        return np.array(self.columns[name], np.float64)

    @property
    def steps(self) -> int:
        """How many steps were recorded."""
        return len(self.columns.get("loss", ()))

    def tail(self, name: str) -> float | None:
        """The mean of a metric over the last steps; None where the run has none of it."""
        return float(np.mean(self[name][-TAIL:])) if self.steps and name in self else None


Runs = Mapping[str, RunHistory]


def with_tensors(runs: Runs) -> RunHistory | None:
    """The main run, where its tensors have grids of their own."""
    return next((run for run in of_kind(runs, "rtl", "golden") if run.tensors), None)


def of_kind(runs: Runs, *kinds: str) -> list[RunHistory]:
    """The runs of these kinds, in the order of the kinds."""
    return [run for kind in kinds for run in runs.values() if run.kind == kind and run.steps]


def summary_table(runs: Runs) -> list[dict[str, Any]]:
    """A row a run, ready for JSON: what is not a number, or not known, is None."""
    return [
        {
            "run": name,
            "title": run.title,
            "steps": run.steps,
            "final_loss": _finite(run["loss"][-1]) if run.steps else None,
            "accuracy": _finite(run.tail("accuracy")) if run.diverged_at is None else None,
            "accuracy_held_out": _finite(run.tail("accuracy_held_out")) if run.diverged_at is None else None,
            "loss_held_out": _finite(run.tail("loss_held_out")) if run.diverged_at is None else None,
            "diverged_at": run.diverged_at,
            "min_alpha": _finite(np.min(run["alpha_applied"])) if run.steps else None,
            "max_margin": _finite(np.max(run["alpha_eta_lambda_max"])) if run.steps else None,
            "max_angle_degrees": _finite(np.degrees(np.max(run["angle"]))) if run.steps else None,
            "still_steps": run.still_steps,
            "flags": list(run.flags),
        }
        for name, run in runs.items()
    ]


def observations(runs: Runs) -> list[str]:
    """What the runs show, in sentences; nothing that they do not show."""
    main = [run for run in runs.values() if run.kind != "narrow" and run.steps]
    said = [_fate(run) for run in main]
    quantised = of_kind(runs, "rtl") or of_kind(runs, "golden")
    said += [*_idle(quantised), *_troubles(quantised)]
    narrow = of_kind(runs, "narrow")
    if narrow:
        ends = "; ".join(f"“{run.title}” ends at {ending(run)} ({run.still_steps} still steps)" for run in narrow)
        said.append(f"On narrow weights, {ends}.")
    return said


def _fate(run: RunHistory) -> str:
    if run.diverged_at is not None:
        return f"{run.title}: diverges at step {run.diverged_at}."
    return f"{run.title}: does not diverge in {run.steps} steps and ends at {ending(run)}."


TROUBLES = {
    "gradient_saturated": "of its gradient lies on a rail",
    "update_saturated": "of its update is clipped",
    "update_underflow": "of its update rounds to 0",
    "weight_saturated": "of its weights lie on a rail",
}
"""Shares of a run that its numbers are explained by, and what each means."""

TROUBLE = 0.1
"""A mean share over the run from which it is said."""


def _troubles(quantised: list[RunHistory]) -> list[str]:
    """Still steps, and what the grids did to more than a little of a run's elements."""
    said = []
    for run in quantised:
        if run.still_steps:
            said.append(f"{run.title}: stands still in {run.still_steps} of {run.steps} steps{_why_still(run)}.")
        shares = {name: float(np.mean(run[name])) for name in TROUBLES if name in run}
        large = [f"{share:.0%} {TROUBLES[name]}" for name, share in shares.items() if share >= TROUBLE]
        if large:
            said.append(f"{run.title}: in the mean over the steps, {', '.join(large)}.")
    return said


def _why_still(run: RunHistory) -> str:
    """An end or a death: whether the largest step that the rate allows moves nothing either, or the throttle holds the run."""
    still = run["still"][1:] != 0  # each speaks of the update before it
    free = int(np.count_nonzero(still & (run["alpha_applied"][:-1] == 1)))
    held = int(np.count_nonzero(still)) - free
    ways = [
        f"{free} times at alpha = 1, where the whole step is below the grids" if free else "",
        f"{held} times under a smaller alpha, by which the throttle holds it" if held else "",
    ]
    return "".join(f", {way}" for way in ways if way)


def _idle(quantised: list[RunHistory]) -> list[str]:
    """A throttle that never acted, and how far from it it was."""
    return [
        f"{run.title}: the throttle never acts: alpha is 1 at every step, and eta * C at most {np.max(product):.3g}. "
        "It would at a larger learning rate."
        for run in quantised
        if run.diverged_at is None and (run["alpha_applied"] == 1).all()
        for product in [run["step_size"] * np.maximum(run["curvature"], run["ema"])]
        if np.max(product) > 0
    ]


def ending(run: RunHistory) -> str:
    """What a run ends at: its accuracy, or its loss where there are no labels."""
    accuracy = run.tail("accuracy")
    if accuracy is not None:
        return f"accuracy {accuracy:.3f}"
    return f"loss {run['loss'][-1]:.3g}"


def _finite(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None
