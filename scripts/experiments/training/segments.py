"""What a binary point for every tensor is worth: digits on two networks, weights of 6 to 16 bits, five grids, three roundings."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from tabulate import tabulate

from ....golden.config import ThrottleConfig
from ....golden.shard import Shard
from ....golden.throttle import Throttle, laid_out
from ....golden.training.instrumented import train_instrumented
from ....golden.training.scales import alike
from ....golden.training.units import first_weights
from ....golden.update import Tally
from ....hw.synth.costs import Rows
from ....sim.cosim import RtlThrottle
from ....sim.difference import compare
from ....sim.runner import SimulationError
from ...style import PALETTE, STYLE
from .grids import calibrated, calibrated_config
from .published import Arm, Experiment, Overview, Phase, Spreads, model_of
from .still import some_digits
from .sweep import Spread, read_spreads

WIDTHS = (6, 8, 10, 12, 16)
ROUNDINGS = ("nearest", "stochastic", "residual")
FINER = (0, 1, 2, 3)
"""Bits by which all grids are finer than the calibration asks for: the sweep of the binary point, of one grid and of many."""

NETWORKS = {"dense": ("dense",), "conv": ("conv", "conv_gain")}
"""By the network's name: with gains as they are, and where it has norms with gains from 1."""

KINDS = {
    "dense": {"one": "one grid", "tensor": "a grid a tensor"},
    "conv": {
        "one": "one grid",
        "tensor": "a grid a tensor",
        "gain": "gains from 1, one grid",
        "both": "gains from 1, a grid a tensor",
    },
}
SETTINGS: Mapping[str, Any] = {
    "learning_rate": 0.3,
    "chi": 1.9,
    "use_controller": True,
    "loss_mode": "softmax_cross_entropy",
    "compute_analytic_hessian": False,
}


def experiment_segments(*, steps: int = 160) -> Experiment:
    """A binary point for every tensor: digits, 64-32-10 and a convolutional network, 6 to 16 bits, against one grid for all.

    The binary points are swept, of one grid as of all together, and the best are compared. The motion is the intended one, but
    for a comparison of what to divide by where coarse tensors stand still. In the end both networks train on one simulated unit,
    one after the other, in lockstep with the golden model.
    """
    arms = [_arm(f"{network}_float", network, steps, {}) for network in NETWORKS]
    for variant, bits, rounding in product(chain(*NETWORKS.values()), WIDTHS, ROUNDINGS):
        for grids, finer in product(GRIDS, FINER):
            how = {"bits": bits, "rounding": rounding, "grids": grids, "finer": finer}
            arms.append(_arm(_name(variant, rounding, bits, grids, finer), variant, steps, how))
    for variant, bits, motion in product(chain(*NETWORKS.values()), COARSE, ("applied", "floored")):
        how = {"bits": bits, "rounding": "nearest", "grids": "tensor", "finer": 1}
        made = _arm(_name(variant, motion, bits, "tensor", 1), variant, steps, how, {"motion": "applied"})
        arms.append(replace(made, variant=FlooringThrottle if motion == "floored" else None))
    return Experiment(
        name="segments",
        title="A binary point for every tensor",
        arms=tuple(arms),
        seeds=5,
        datapath="golden",
        sweep=Overview(table, draw, lockstep),
    )


def _name(variant: str, rounding: str, bits: int, grids: str, finer: int) -> str:
    return f"{variant}_{rounding}_{bits}_{grids}+{finer}"


GRIDS = ("one", "tensor")
COARSE = (6, 8, 10)
"""The weights for which it is compared what the curvature is divided by."""


def _arm(name: str, network: str, steps: int, how: Mapping[str, Any], unit: Mapping[str, Any] | None = None) -> Arm:
    """A run of batches of 64; in float where nothing is said of bits, on the float unit's law."""
    phase = Phase(steps=steps, settings=SETTINGS, plain=not how)
    return Arm(name=name, phases=(phase,), problem=some_digits, batch=64, network=network, calibrated=how, unit=dict(unit or {}))


class _FlooringShard(Shard):
    """B with half an ulp for every element of a segment that stood still, while others moved: B' of the comparison."""

    def apply(self, direction: Any, step: int) -> tuple[Any, Tally]:
        before = self.theta
        update, tally = super().apply(direction, step)
        if tally.motion_energy:
            for place, _, shift in self.config.stretches:
                if (before[place] == self.theta[place]).all():
                    tally.motion_energy += (place.stop - place.start << shift) // 4
        return update, tally


class FlooringThrottle(Throttle):
    """The golden unit with B' in the place of B: no part of the contract."""

    def __init__(self, config: ThrottleConfig, weights: Any, **options: Any) -> None:
        super().__init__(config, weights, **options | {"engine": _FlooringShard})


# ------------------------------------------------------------------------------------------- table and picture


def best(spreads: Spreads, variant: str, rounding: str, bits: int, grids: str) -> tuple[int, Spread]:
    """The binary point whose median loss is the least, and that loss with its spread."""
    found = {finer: spreads[_name(variant, rounding, bits, grids, finer)]["tail_loss"] for finer in FINER}
    finer = min(found, key=lambda one: found[one][0] if math.isfinite(found[one][0]) else math.inf)
    return finer, found[finer]


def losses(spreads: Spreads, network: str, kind: str, rounding: str) -> list[Spread]:
    """Median, least and most of the best of a kind of grids, by width."""
    variant = f"{network}_gain" if kind in ("gain", "both") else network
    grids = "one" if kind in ("one", "gain") else "tensor"
    return [best(spreads, variant, rounding, bits, grids)[1] for bits in WIDTHS]


def worth(curve: list[Spread], loss: float, real: Spread) -> str:
    """The width at which the curve of one grid has a loss, by lines in log loss between its widths.

    Among the losses that seeds have in ``real``, float, no width is told from another.
    """
    middles = [one[0] for one in curve]
    if not math.isfinite(loss):
        return "-"
    if loss <= real[2]:
        return "float"
    if loss >= middles[0]:
        return f"<={WIDTHS[0]}"
    for k in range(len(WIDTHS) - 1):
        high, low = middles[k], middles[k + 1]
        if low <= loss <= high and low < high:
            share = (math.log(high) - math.log(loss)) / (math.log(high) - math.log(low))
            return f"{WIDTHS[k] + share * (WIDTHS[k + 1] - WIDTHS[k]):.1f}"
    return f">{WIDTHS[-1]}"


def table(spreads: Spreads) -> str:
    """Loss by network, rounding and width; what each kind is worth in bits; and what the curvature is divided by."""
    head = ["network", "rounding", "bits", "grids", "loss at its best", "at", "a bit coarser", "a bit finer", "as one grid of"]
    lines: list[list[str]] = [head]
    for network, kinds in KINDS.items():
        for rounding, bits in product(ROUNDINGS, WIDTHS):
            one = losses(spreads, network, "one", rounding)
            for kind, label in kinds.items():
                variant = f"{network}_gain" if kind in ("gain", "both") else network
                grids = "one" if kind in ("one", "gain") else "tensor"
                finer, found = best(spreads, variant, rounding, bits, grids)
                near = [spreads.get(_name(variant, rounding, bits, grids, finer + step)) for step in (-1, 1)]
                around = [f"{row['tail_loss'][0]:.3g}" if row else "-" for row in near]
                equal = "" if kind == "one" else worth(one, found[0], spreads[f"{network}_float"]["tail_loss"])
                lines.append([network, rounding, str(bits), label, _shown(found), f"+{finer}", *around, equal])
    floats = ", ".join(f"{network} {_shown(spreads[f'{network}_float']['tail_loss'])}" for network in NETWORKS)
    parts = [tabulate(lines, headers="firstrow", tablefmt="plain", disable_numparse=True)]
    parts.append(f"loss: mean of the last 20 steps, median (least..most) of the seeds; in float: {floats}")
    rows = [["network", "bits", "divided by", "loss", "smallest alpha"]]
    for variant, bits in product(chain(*NETWORKS.values()), COARSE):
        for motion, name in (("applied", "B"), ("floored", "B'"), ("nearest", "the intended motion")):
            row = spreads[_name(variant, motion, bits, "tensor", 1)]
            rows.append([variant, str(bits), name, _shown(row["tail_loss"]), _shown(row["min_alpha"])])
    parts.append(tabulate(rows, headers="firstrow", tablefmt="plain", disable_numparse=True))
    return "\n\n".join(parts)


def tables(folder: Path) -> dict[str, Rows]:
    """The tables of docs/segments.md, from the spreads in its folder: the narrow widths, and what the curvature is divided by."""
    spreads = read_spreads(folder / "spread.csv")
    titles = list(KINDS["conv"].values())
    head = ("network", "rounding", "bits", titles[0], *chain(*((title, "as") for title in titles[1:])))
    made: list[tuple[str, ...]] = [head]
    for (network, kinds), rounding, (k, bits) in product(KINDS.items(), ROUNDINGS, enumerate(WIDTHS)):
        if bits not in COARSE:
            continue
        one = losses(spreads, network, "one", rounding)
        row = [network, rounding, str(bits), _shown(one[k])]
        for kind in list(KINDS["conv"])[1:]:
            if kind not in kinds:
                row += ["", ""]
                continue
            found = losses(spreads, network, kind, rounding)[k]
            row += [_shown(found), worth(one, found[0], spreads[f"{network}_float"]["tail_loss"])]
        made.append(tuple(row))
    columns = chain(*((what, "smallest alpha") for what in ("B", "B'", "intended")))
    divided: list[tuple[str, ...]] = [("network", "bits", *columns)]
    for variant, bits in product(chain(*NETWORKS.values()), COARSE):
        cells = [variant, str(bits)]
        for motion in ("applied", "floored", "nearest"):
            columns_of = spreads[_name(variant, motion, bits, "tensor", 1)]
            cells += [_shown(columns_of["tail_loss"]), f"{columns_of['min_alpha'][0]:.2f}"]
        divided.append(tuple(cells))
    return {"worth": made, "divided": divided}


def _shown(spread: Spread) -> str:
    middle, least, most = spread
    return f"{middle:.3g} ({least:.2g}..{most:.2g})" if math.isfinite(middle) else "diverged"


def draw(spreads: Spreads) -> bytes:
    """Loss over bits, a network a row and a rounding a column; a kind of grids a colour, with the range over the seeds."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(12, 7.4), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle("A binary point for every tensor: loss over bits of a weight", x=0.01, ha="left", fontweight="bold")
        axes = figure.subplots(2, 3, sharex=True, sharey="row")
        for row, (network, kinds) in enumerate(KINDS.items()):
            for column, rounding in enumerate(ROUNDINGS):
                ax = axes[row][column]
                for (kind, label), colour in zip(kinds.items(), PALETTE, strict=False):
                    spread = np.array(losses(spreads, network, kind, rounding))
                    ax.plot(WIDTHS, spread[:, 0], color=colour, marker="o", ms=4, lw=1.8, label=label)
                    ax.fill_between(WIDTHS, spread[:, 1], spread[:, 2], color=colour, alpha=0.15, lw=0)
                for finer in FINER:
                    one = [spreads[_name(network, rounding, bits, "one", finer)]["tail_loss"][0] for bits in WIDTHS]
                    ax.plot(WIDTHS, one, color=PALETTE[0], lw=0.7, ls=(0, (1, 2)))
                ax.axhline(spreads[f"{network}_float"]["tail_loss"][0], color="#444444", lw=1, ls=(0, (4, 3)), label="float")
                ax.set(title=f"{network}, {rounding}", yscale="log", xticks=WIDTHS)
                if row:
                    ax.set_xlabel("bits of a weight")
                if not column:
                    ax.set_ylabel("loss, last 20 steps")
        handles, labels = axes[1][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


# ------------------------------------------------------------------------------------------- the hardware

LOCKSTEP = 40
"""Steps of each network on the simulated unit."""


class _Both:
    """The golden and the simulated unit side by side, as one: every step is compared.

    Raises:
        SimulationError: from ``step``, if they differ.
    """

    def __init__(self, golden: Throttle, rtl: RtlThrottle) -> None:
        self.golden, self.rtl = golden, rtl

    def __getattr__(self, name: str) -> Any:
        return getattr(self.golden, name)

    def layout(self, segments: Any, weights: Any) -> None:
        for unit in (self.golden, self.rtl):
            unit.layout(segments, weights)

    def step(self, gradient: Any, direction: Any = None, *, codes: bool | None = None) -> Any:
        golden, rtl = (unit.step(gradient, direction, codes=codes) for unit in (self.golden, self.rtl))
        _, difference = compare(golden, rtl)
        if difference is not None:
            raise SimulationError(f"golden and RTL differ: {difference}")
        return rtl


def lockstep(experiment: Experiment, simulator: str) -> str:
    """Both networks, 8-bit weights at random with a grid a tensor, one after the other on one simulated unit of 8 lanes."""
    problem, names = some_digits(0), ("dense", "conv_gain")
    arms = [next(one for one in experiment.arms if one.name == _name(name, "stochastic", 8, "tensor", 1)) for name in names]
    models = [model_of(arm, problem, 0) for arm in arms]
    grids = alike(
        *(calibrated(arm.calibrated, SETTINGS, arm.batch, model, problem) for arm, model in zip(arms, models, strict=True))
    )
    room = max(model.theta.size for model in models)
    entries = max(len(one.tensors) for one in grids)
    config = calibrated_config(arms[0].calibrated, SETTINGS, grids[0], capacity=room, entries=entries)
    told = [f"one unit of {config.lanes} lanes, with room for {room} elements in {entries} segments, and no new export between:"]
    theta = first_weights(models[0].theta, config)
    with RtlThrottle(config, theta, simulator=simulator) as rtl:
        unit = _Both(Throttle(config, theta), rtl)
        for name, model, found in zip(names, models, grids, strict=True):
            if model is not models[0]:
                theta = first_weights(model.theta, laid_out(config, found.segments))
                unit.layout(found.segments, theta)
            history = train_instrumented(
                model,
                problem.inputs,
                problem.targets,
                epochs=LOCKSTEP,
                batch_size=64,
                throttle=unit,
                loss_mode=SETTINGS["loss_mode"],
                compute_analytic_hessian=False,
                observe=lambda step: step.step + 1 == LOCKSTEP,
            )
            told.append(
                f"{name}: {history.steps} steps on the simulated unit and the golden model, 0 differences, loss "
                f"{history['loss'][0]:.3g} to {history['loss'][-1]:.3g}, {max(rtl.cycles[-history.steps :])} cycles a step; "
                + ", ".join(f"{one.name} {one.elements} (scale {one.scale})" for one in found.segments)
            )
    return "\n".join(told)
