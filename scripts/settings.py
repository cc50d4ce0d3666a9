"""The one file that all commands read: its tables and their keys, and what is said of those that a command does not use.

The same file serves every command. A table or a key that no command knows is refused with the nearest name that there is; a
table that another command would use is let be, and told.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from ..golden.config import ThrottleConfig
from ..golden.laws import LAWS
from ..golden.network.precision import FIELDS
from .experiments.credit.plan import Plan
from .experiments.explore.space import Axes
from .experiments.subject import DataSpec, ModelSpec

LOOP = (
    "drop_last",
    "optimiser",
    "estimator",
    "weight_decay",
    "weight_decay_mode",
    "decay_exclude",
    "clip",
    "max_gradient_norm",
    "on_bad_gradient",
    "schedule",
)
"""Keys of ``[training]`` that are arguments of the training loop, under the same names."""

TABLES: dict[str, tuple[str, ...]] = {
    "throttle": (
        "law",
        *(one.name for one in dataclasses.fields(ThrottleConfig)),
        *dict.fromkeys(
            name for law in LAWS.values() for name in law.parameters if name not in ThrottleConfig.__dataclass_fields__
        ),
    ),
    "data": tuple(one.name for one in dataclasses.fields(DataSpec)),
    "model": tuple(one.name for one in dataclasses.fields(ModelSpec)),
    "training": ("steps", "batch", "seed", *LOOP),
    "precision": (),
    "run": ("experiment", "gain", "input", "sim", "idle", "stall"),
    "narrow": ("gradient", "weight", "update"),
    "credit": tuple(one.name for one in dataclasses.fields(Plan)),
    "explore": (*(one.name for one in dataclasses.fields(Axes)), "task"),
}
"""The keys of every table; those of ``precision`` are names of layers, each with a table of its own."""

MOVED = {
    "train.learning_rate": "throttle.eta",
    "train.controller": "throttle.law",
    "train.curvature_ema_rho": "throttle.rho",
    **{f"train.{name}": f"throttle.{name}" for name in ("chi", "beta", "alpha_min", "eps", "on_still", "ema_start")},
    **{f"train.{name}": f"training.{name}" for name in ("optimiser", "estimator")},
    **{f"run.{name}": f"training.{name}" for name in ("steps", "batch", "seed")},
    "run.held_out": "data.held_out",
}
"""What keys were called before all commands read the same file."""

USED: dict[str, tuple[str, ...]] = {
    "cosim": ("run", "narrow", "throttle", "data", "model", "training", "precision"),
    "train": ("throttle", "data", "model", "training", "precision"),
    "export": ("throttle",),
    "synth": ("throttle",),
    "energy": ("run", "throttle", "data", "training"),
    "faults": ("throttle",),
    "credit": ("credit",),
    "explore": ("explore", "throttle", "data", "model", "training", "precision"),
}
"""The tables that each command uses. Of ``train`` only the experiment ``data`` uses ``data`` and ``model``."""

HELP = "TOML; docs/configuration.md has its tables."


@dataclass(frozen=True)
class Settings:
    """What a configuration file says.

    Attributes:
        path: of the file; None for none.
        tables: those that are in it, by name.
    """

    path: Path | None = None
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __getitem__(self, table: str) -> dict[str, Any]:
        """A table; empty if it is not there."""
        assert table in TABLES
        return dict(self.tables.get(table, {}))

    def __contains__(self, table: str) -> bool:
        return table in self.tables

    @property
    def folder(self) -> Path | None:
        """Where the file is: relative paths in it start there."""
        return None if self.path is None else self.path.parent

    def tell_unused(self, command: str, used: Iterable[str]) -> None:
        """Say on stderr, in one line, which tables of the file the command has no use for."""
        rest = [f"[{name}]" for name in self.tables if name not in tuple(used)]
        if rest:
            click.echo(f"{self.path}: {', '.join(rest)} {'is' if len(rest) == 1 else 'are'} not used by {command}", err=True)


def read(path: Path | None) -> Settings:
    """The tables of a configuration file; none if there is no file.

    Raises:
        ValueError: it is no TOML file, or holds a table or a key that no command knows; with the file, the key and the nearest
            name. Values are refused by what they are for.
    """
    if path is None:
        return Settings()
    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ValueError(f"config {str(path)!r} must be a readable TOML file: {error}") from None
    where = f"config {str(path)!r}"
    for name, table in document.items():
        moved = [old for old in MOVED if old.startswith(f"{name}.")]
        if name not in TABLES:
            for key in table if isinstance(table, dict) else ():
                if f"{name}.{key}" in MOVED:
                    raise ValueError(f"{where}: {name}.{key} must be written {MOVED[f'{name}.{key}']}, its name in every file")
            if moved:
                raise ValueError(f"{where}: [{name}] must be written [training], its name in every file")
            if not isinstance(table, dict):
                homes = [home for home, keys in TABLES.items() if name in keys]
                hint = f"; it is a key of [{homes[0]}]" if homes else ""
                raise ValueError(f"{where}: {name} must stand in a table, not before all of them{hint}")
            raise ValueError(f"{where}: tables must be {', '.join(TABLES)}, not {name!r}{_nearest(name, TABLES)}")
        if not isinstance(table, dict):
            raise ValueError(f"{where}: {name} must be a table, not {table!r}")
        if name == "precision":
            _check_precision(where, table)
            continue
        for key in table:
            if key not in TABLES[name]:
                raise ValueError(f"{where}: {_unknown(name, key)}")
    return Settings(path, document)


def _unknown(table: str, key: str) -> str:
    """What is wrong with a key that its table has not."""
    known = TABLES[table]
    if f"{table}.{key}" in MOVED:
        return f"{table}.{key} must be written {MOVED[f'{table}.{key}']}, its name in every file"
    near = _nearest(key, known)
    homes = [home for home, keys in TABLES.items() if key in keys]
    if homes and not near:
        near = f"; it is a key of [{homes[0]}]"
    return f"keys of [{table}] must be among {', '.join(known)}, not {key!r}{near}"


def _check_precision(where: str, table: Mapping[str, Any]) -> None:
    for layer, fields in table.items():
        if not isinstance(fields, dict):
            raise ValueError(f"{where}: precision.{layer} must be a table of fields and formats, not {fields!r}")
        for name in fields:
            if name not in FIELDS:
                near = _nearest(name, FIELDS)
                raise ValueError(f"{where}: fields of [precision.{layer}] must be among {', '.join(FIELDS)}, not {name!r}{near}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """The name that was probably meant."""
    found = difflib.get_close_matches(name, list(known), 1)
    return f"; the nearest is {found[0]!r}" if found else ""


def unit_of(settings: Settings) -> ThrottleConfig:
    """The unit of a file, for the commands that want it alone.

    Raises:
        ValueError: there is no table ``[throttle]``, or one that :meth:`ThrottleConfig.from_table` refuses.
    """
    if "throttle" not in settings:
        raise ValueError(
            f"config {str(settings.path)!r}: a table [throttle] must be there; found {', '.join(settings.tables) or 'nothing'}"
        )
    if "elements" not in settings["throttle"] and not settings["throttle"].get("segments"):  # which have their sum
        raise ValueError(
            f"config {str(settings.path)!r}: throttle.elements must be given, the number of weights; kappa-rtl cosim works it "
            "out, and writes it into its config.toml"
        )
    return ThrottleConfig.from_table(settings["throttle"])
