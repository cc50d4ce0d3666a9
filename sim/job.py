"""What decides a run: the job, read from TOML and options, refused by field, value and rule, and written back whole."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import tomli_w

from kappa_rtl.golden.config import OnStill, ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.training.data import Problem, digits, synthetic
from kappa_rtl.golden.training.loop import GainRamp

EXPERIMENTS = ("digits", "synthetic")
NARROW = {"gradient": "SQ2.10", "weight": "SQ2.6", "update": "SQ1.9"}
"""The 8-bit weights, with the gradient and update formats that go with them."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that decides a run; written to ``config.toml`` and read back from it.

    Args:
        throttle: the unit's configuration; its ``elements`` are those of the experiment.
        experiment: ``digits`` (64 inputs, 10 outputs) or ``synthetic`` (4 inputs, 2 outputs, a teacher).
        steps: training steps.
        seed: of the data, the minibatches and the stalls.
        batch: rows a step, drawn with replacement; 0 for the full batch.
        gain: the drift of the input gain.
        input: the grid of the inputs; empty for none.
        sim: the simulator.
        idle, stall: chances of 256 a cycle for idle producers and withheld ready in the simulation.
        narrow: formats of the additional runs on narrow weights, one for each ``on_still``; empty for none of them.
    """

    throttle: ThrottleConfig
    experiment: str = "digits"
    steps: int = 300
    seed: int = 0
    batch: int = 0
    gain: GainRamp = field(default_factory=GainRamp)
    input: str = ""
    sim: str = "verilator"
    idle: int = 0
    stall: int = 0
    narrow: Mapping[str, str] = field(default_factory=lambda: dict(NARROW))

    def __post_init__(self) -> None:
        if self.experiment not in EXPERIMENTS:
            raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {self.experiment!r}")
        for name, low, high in (
            ("steps", 1, 10**7),
            ("seed", 0, 2**32 - 1),
            ("batch", 0, 10**6),
            ("idle", 0, 250),
            ("stall", 0, 250),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")
        if self.narrow and set(self.narrow) != set(NARROW):
            raise ValueError(f"narrow must give {', '.join(NARROW)} or nothing, not {', '.join(self.narrow)}")
        try:
            if self.input != "":  # false and 0 are no formats either
                Fixed.parse(self.input)
        except ValueError as error:
            raise ValueError(f"run.input: {error}") from None
        try:
            for on_still in OnStill if self.narrow else ():
                self.narrow_config(on_still)
        except ValueError as error:
            raise ValueError(f"narrow.{error}") from None
        if self.throttle.elements != self.problem.elements:
            raise ValueError(
                f"elements must be {self.problem.elements} for the experiment {self.experiment}, not {self.throttle.elements}"
            )

    @property
    def problem(self) -> Problem:
        """The data."""
        return digits() if self.experiment == "digits" else synthetic(self.seed)

    def narrow_config(self, on_still: OnStill) -> ThrottleConfig:
        """The unit on narrow weights."""
        return self.throttle.replace(**self.narrow, on_still=on_still)

    def to_toml(self) -> str:
        """The job as TOML, every value resolved."""
        run = {name: getattr(self, name) for name in ("experiment", "steps", "seed", "batch", "input", "sim", "idle", "stall")}
        return tomli_w.dumps(
            {"run": run | {"gain": asdict(self.gain)}, "narrow": dict(self.narrow), "throttle": self.throttle.to_table()}
        )

    @classmethod
    def read(cls, path: Path | None = None, **changes: Any) -> Job:
        """A job from a TOML file (tables ``run``, ``narrow``, ``throttle``, all optional) and changes that override it.

        Changes are fields of the job, or ``lanes``; None changes nothing.
        """
        try:
            document = tomllib.loads(path.read_text()) if path else {}
        except (OSError, ValueError) as error:
            raise ValueError(f"config {str(path)!r} must be a readable TOML file: {error}") from None
        for name, table in document.items():
            if name not in ("run", "narrow", "throttle"):
                raise ValueError(f"config {str(path)!r}: tables must be run, narrow or throttle, not {name!r}")
            if not isinstance(table, dict):
                raise ValueError(f"config {str(path)!r}: {name} must be a table, not {table!r}")
        run = dict(document.get("run", {}))
        lanes = changes.pop("lanes", None)
        run |= {name: value for name, value in changes.items() if value is not None}
        known = ("experiment", "steps", "seed", "batch", "gain", "input", "sim", "idle", "stall")
        for name in run:
            if name not in known:
                raise ValueError(f"run.{name} is no field of a run; it has {', '.join(known)}")
        experiment = run.get("experiment", "digits")
        if experiment not in EXPERIMENTS:
            raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {experiment!r}")
        table = dict(document.get("throttle", {}))
        plain = {
            "law": "stability_margin",
            "eta": 0.1 if experiment == "digits" else 0.5,
            "elements": 640 if experiment == "digits" else 8,
        }
        if "law" not in table and "num" in table:
            del plain["law"]
        table = plain | {"lanes": 8} | table
        if lanes is not None:
            table["lanes"] = lanes
        if "gain" in run:
            gain = run["gain"]
            if not isinstance(gain, dict) or set(gain) - {"start", "end", "first", "last"}:
                raise ValueError(f"run.gain must be a table of start, end, first and last, not {gain!r}")
            for name, value in gain.items():
                if isinstance(value, bool) or not isinstance(value, (int, float)):
                    raise ValueError(f"run.gain.{name} must be a number, not {value!r}")
            try:
                run["gain"] = GainRamp(**gain)
            except ValueError as error:
                raise ValueError(f"run.gain.{error}") from None
        narrow = dict(document["narrow"]) if "narrow" in document else dict(NARROW)
        return cls(throttle=ThrottleConfig.from_table(table), narrow=narrow, **run)
