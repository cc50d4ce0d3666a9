"""An experiment of the training harness from end to end: every arm and seed on one datapath, a table, a plot, files.

Each run is written when it is done and found again, so that an interrupted experiment goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import tomllib
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from tqdm import tqdm

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Datapath, Throttle
from kappa_rtl.golden.training.catalogue import EXPERIMENTS
from kappa_rtl.golden.training.estimators import ESTIMATORS
from kappa_rtl.golden.training.experiments import COLUMNS, Arm, Experiment, run_arm, summary, with_settings
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.instrumented import TrainingWarning
from kappa_rtl.golden.training.optimisers import OPTIMISERS
from kappa_rtl.hw.export import replace as write_atomically

from .cosim import RtlThrottle
from .figures import LIMIT, STYLE

DATAPATHS = ("float", "golden", "rtl")
SETTINGS = {
    "learning_rate": (int, float),
    "chi": (int, float),
    "beta": (int, float),
    "alpha_min": (int, float),
    "eps": (int, float),
    "curvature_ema_rho": (int, float),
    "controller": (str,),
    "on_still": (str,),
    "ema_start": (str,),
    "optimiser": (str,),
    "estimator": (str,),
}
"""What the table ``[train]`` of a configuration file may set, in the last phase of every arm."""

UNITS: dict[str, Callable[[ThrottleConfig, Any], Datapath]] = {"golden": Throttle, "unit": FloatThrottle}
"""Datapaths without a simulator that take a unit's configuration."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6A00", "#000000")


def read_config(path: Path | None) -> dict[str, dict[str, Any]]:
    """The tables ``train`` (settings of the loop), ``precision`` (formats by layer) and ``throttle`` (fields of the unit).

    Raises:
        ValueError: no TOML, an unknown table or setting, a value of another type.
    """
    tables: dict[str, dict[str, Any]] = {"train": {}, "precision": {}, "throttle": {}}
    if path is None:
        return tables
    try:
        document = tomllib.loads(path.read_text())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path}: must be a TOML file: {error}") from None
    for name, table in document.items():
        if name not in tables or not isinstance(table, dict):
            raise ValueError(f"{path}: tables must be {', '.join(tables)}, not {name!r}")
        tables[name] = table
    for name, value in tables["train"].items():
        if name not in SETTINGS:
            raise ValueError(f"{path}: train has {', '.join(SETTINGS)}, not {name!r}")
        if isinstance(value, bool) or not isinstance(value, SETTINGS[name]):
            raise ValueError(f"{path}: train.{name} must be {' or '.join(t.__name__ for t in SETTINGS[name])}, not {value!r}")
    for name, known in (("optimiser", OPTIMISERS), ("estimator", ESTIMATORS)):
        value = tables["train"].get(name)
        if value is not None and value not in known:
            raise ValueError(f"{path}: train.{name} must be one of {', '.join(known)}, not {value!r}")
    known_fields = set(ThrottleConfig.__dataclass_fields__)
    for name in tables["throttle"]:
        if name not in known_fields or name == "elements":
            raise ValueError(f"{path}: throttle has {', '.join(sorted(known_fields - {'elements'}))}, not {name!r}")
    return tables


@dataclass(frozen=True)
class Outcome:
    """What :func:`train` leaves: the histories by arm, one for each seed, and the files."""

    experiment: Experiment
    runs: Mapping[str, list[FitHistory]]
    table: str
    folder: Path


def train(
    name: str,
    out: Path | None = None,
    *,
    datapath: str | None = None,
    seeds: int | None = None,
    config: Path | None = None,
    simulator: str = "verilator",
    figures: bool = False,
    **made: Any,
) -> Outcome:
    """Run an experiment and write ``table.csv``, ``table.txt``, ``plot.png`` and a history for each run into ``out``
    (``train/NAME-DATAPATH`` if not given).

    Args:
        name: one of :data:`~kappa_rtl.golden.training.catalogue.EXPERIMENTS`.
        datapath: what makes the updates: ``float`` is the published unit, fake-quantised where the arm has formats, or the
            float unit in the experiments on a unit's own options; None is what the experiment is for.
        seeds: how many, from 0; None is the experiment's own number.
        config: see :func:`read_config`.
        figures: also draw each run's own history, ``runs/ARM-SEED.png``.
        made: arguments of the experiment, such as ``steps``.

    Raises:
        ValueError: a bad setting, before anything runs.
        SimulationError: the simulator fails.
    """
    if datapath is not None and datapath not in DATAPATHS:
        raise ValueError(f"datapath must be one of {', '.join(DATAPATHS)}, not {datapath!r}")
    if name not in EXPERIMENTS:
        raise ValueError(f"experiment must be one of {', '.join(EXPERIMENTS)}, not {name!r}")
    if seeds is not None and seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {seeds}")
    tables = read_config(config)
    experiment = with_settings(EXPERIMENTS[name](**made), tables["train"], tables["precision"] or None, tables["throttle"])
    datapath = datapath or experiment.datapath
    out = out or Path("train") / f"{name}-{datapath}"
    count = experiment.seeds if seeds is None else seeds
    out.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[FitHistory]] = {}
    kind = "unit" if (datapath, experiment.datapath) == ("float", "golden") else datapath
    with tqdm(total=len(experiment.arms) * count, unit="run", desc=name, disable=None) as bar, warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)  # they stand in the histories
        for arm in experiment.arms:
            runs[arm.name] = []
            for seed in range(count):
                bar.set_postfix_str(f"{arm.name}, seed {seed}")
                path = out / "runs" / f"{arm.name}-{seed}.npz"
                history = _run(arm, seed, kind, simulator, path)
                runs[arm.name].append(history)
                if figures:
                    history.plot_results(path.with_suffix(".png"), title=f"{experiment.title}: {arm.name}, seed {seed}")
                bar.update()
    table = _table(experiment, runs)
    write_atomically(out / "table.txt", f"{experiment.title}; datapath {datapath}\n\n{table}\n".encode())
    write_atomically(out / "table.csv", _csv(runs))
    write_atomically(out / "plot.png", _plot(experiment, runs, datapath))
    return Outcome(experiment, runs, table, out)


def _run(arm: Arm, seed: int, datapath: str, simulator: str, path: Path) -> FitHistory:
    """One run, or what a former one left of the very same."""
    problem = arm.problem(seed)
    made = (arm.phases, arm.model, arm.precision, arm.unit, arm.batch, arm.noise)
    settings = (*made, seed, datapath, simulator if datapath == "rtl" else "")
    digest = hashlib.sha256(repr(settings).encode())
    for array in (problem.inputs, problem.targets, problem.labels, arm.reference):
        digest.update(repr(None if array is None else array.shape).encode() + (b"" if array is None else array.tobytes()))
    job = digest.hexdigest()
    if path.exists():
        try:
            found = FitHistory.load(path)
        except ValueError:
            found = None  # not ours, or cut off: made anew
        if found is not None and found.meta.get("job") == job:
            return found
    with ExitStack() as stack:
        make: Callable[[ThrottleConfig, Any], Datapath] | None = None
        if datapath in UNITS:
            make = UNITS[datapath]
        elif datapath == "rtl":
            own = any({"optimiser", "estimator"} & set(phase.settings) for phase in arm.phases)

            def make(config: ThrottleConfig, weights: Any) -> Datapath:
                return stack.enter_context(RtlThrottle(config, weights, simulator=simulator, streaming=own))

        history = run_arm(arm, seed, make_unit=make)
    history.meta["job"] = job
    path.parent.mkdir(parents=True, exist_ok=True)
    history.save(path)
    return history


# -------------------------------------------------------------------------------------------------- table and plot


def _values(histories: list[FitHistory]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Every column, a value for each seed."""
    rows = [summary(history) for history in histories]
    return {name: np.array([row[name] for row in rows]) for name in COLUMNS}


def _table(experiment: Experiment, runs: Mapping[str, list[FitHistory]]) -> str:
    """A row an arm: the median over the seeds, and the range where there are several."""
    lines = [["arm", *experiment.columns]]
    for name, histories in runs.items():
        values = _values(histories)
        lines.append([name, *(_cell(values[column], column) for column in experiment.columns)])
    sizes = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(size) for cell, size in zip(line, sizes, strict=True)).rstrip() for line in lines]
    notes = [f"{column}: {COLUMNS[column]}" for column in experiment.columns]
    seeds = len(next(iter(runs.values())))
    return "\n".join([*text, "", *([f"median (least..most) of {seeds} seeds"] if seeds > 1 else []), *notes])


def _cell(values: np.ndarray[Any, np.dtype[np.float64]], column: str) -> str:
    known = values[~np.isnan(values)]
    if not known.size:
        return "-"
    if column == "diverged_at" and len(values) > 1:
        return f"{known.size} of {len(values)}"
    if column == "frozen":
        return f"{int(known.sum())} of {len(values)}"
    middle = f"{float(np.median(known)):.4g}"
    return middle if len(values) == 1 else f"{middle} ({known.min():.3g}..{known.max():.3g})"


def _csv(runs: Mapping[str, list[FitHistory]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["arm", "seed", *COLUMNS])
    for name, histories in runs.items():
        for history in histories:
            row = summary(history)
            writer.writerow([name, history.meta["seed"], *(row[column] for column in COLUMNS)])
    return text.getvalue().encode()


PANELS = (
    ("loss", "loss", True),
    ("alpha", "alpha", True),
    ("update_radius_ratio", "||applied|| / ||intended||", False),
)


MARGIN = ("stability_margin_lambda_ctrl", "alpha * eta * lambda_max", True)
ANGLE = ("update_angle_rad", "angle between applied and intended update, radians", False)
"""In place of the margin, for models that have none."""


def _look(arms: list[str], name: str) -> dict[str, Any]:
    """A colour for what stands before ``_off`` or ``_on``; off is dashed. Others have one each, dotted the second time."""
    stems = list(dict.fromkeys(arm.rsplit("_", 1)[0] if arm.endswith(("_on", "_off")) else arm for arm in arms))
    stem, _, switch = name.rpartition("_") if name.endswith(("_on", "_off")) else (name, "", "")
    turn, colour = divmod(stems.index(stem), len(COLOURS))
    return {"color": COLOURS[colour], "linestyle": (0, (4, 2)) if switch == "off" else (0, (1, 1)) if turn % 2 else "-"}


def _plot(experiment: Experiment, runs: Mapping[str, list[FitHistory]], datapath: str) -> bytes:
    """Loss, stability margin, alpha and the update's length by step: seed 0 as a line, the other seeds thin."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(12, 7.6), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle(f"{experiment.title} ({datapath} datapath)", x=0.01, ha="left", fontsize=13, fontweight="bold")
        defined = any(np.isfinite(history[MARGIN[0]]).any() for histories in runs.values() for history in histories)
        panels = (PANELS[0], MARGIN if defined else ANGLE, *PANELS[1:])
        for place, (key, label, logarithmic) in enumerate(panels, 1):
            ax = figure.add_subplot(2, 2, place)
            least, most = math.inf, -math.inf
            for name, histories in runs.items():
                for j, history in enumerate(histories):
                    y = history[key].copy()
                    y[~np.isfinite(y) | (np.abs(y) > 1e30) | ((y <= 0) if logarithmic else False)] = np.nan
                    look = _look(list(runs), name)
                    ax.plot(y, label=name if j == 0 else None, lw=1.7 if j == 0 else 0.5, alpha=1 if j == 0 else 0.5, **look)
                    if np.isfinite(y).any():
                        least, most = min(least, float(np.nanmin(y))), max(most, float(np.nanmax(y)))
            ax.set_title(label)
            ax.set_xlabel("step")
            if logarithmic and math.isfinite(least) and most > 10 * least:
                ax.set_yscale("log")
                ax.set_ylim(max(least, 1e-18) / 2, min(most, 1e8) * 2)
            if key.startswith("stability"):
                ax.axhline(LIMIT, color="#444444", lw=1, ls=(0, (4, 3)))
                ax.annotate(
                    "2: unstable above", (1, LIMIT), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9
                )
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(labels)))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
