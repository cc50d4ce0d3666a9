"""How the curvature is found: along the step that was applied, along the one that was intended, or by projection onto it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from ....golden.network.data import Drift
from ....golden.training.history import FitHistory
from ...style import PALETTE, STYLE
from .published import Arm, Experiment, Phase
from .still import some_digits

ESTIMATORS: dict[str, dict[str, str]] = {
    "divide": {"on_still": "divide"},
    "applied": {},
    "intended": {"motion": "intended"},
    "projection": {"source": "projection"},
}
"""The formula as published; that with ``release``, the default; and the two along the intended step."""

STEPS = 300
BATCH = 256


def unit_of(bits: int, rounding: str) -> dict[str, Any]:
    """Weights of so many bits, the update on their grid, gradients on 12 bits or as many as the weights.

    To nearest the update keeps three more bits, as in the co-simulation: there it is rounded twice in any case.
    """
    gradient = f"SQ2.{max(10, bits - 2)}"
    made = {"weight": f"SQ2.{bits - 2}", "gradient": gradient, "update": f"SQ1.{bits + (1 if rounding == 'nearest' else -2)}"}
    if rounding == "stochastic":
        made["update"] += ",stochastic"
    bits_kept = rounding.removeprefix("residual_")
    return made | ({"residual_bits": int(bits_kept)} if bits_kept != rounding else {})


def _arm(kind: str, bits: int, rounding: str, estimator: str, chi: float, steps: int) -> Arm:
    settings = {"learning_rate": 0.1, "chi": chi, "use_controller": True, "on_still": "release"}
    return Arm(
        name=f"{kind}_{bits}_{rounding}_{estimator}_chi{chi:g}",
        phases=(Phase(steps=steps, settings=settings, drift=Drift(shape="ramp", factor=4.0, begin=50, length=150)),),
        problem=some_digits,
        model={"num_hidden": [], "use_bias": False, "dtype": np.float64},
        batch=BATCH if kind == "batches" else 0,
        start=0.0,
        unit=unit_of(bits, rounding) | ESTIMATORS[estimator],
    )


def experiment_curvature(
    *,
    steps: int = STEPS,
    widths: Sequence[int] = (6, 8, 16),
    roundings: Sequence[str] = ("nearest", "stochastic", "residual_4"),
    chis: Sequence[float] = (0.6, 1.5),
    seeds: int = 3,
) -> Experiment:
    """Curvature along the applied step, along the intended one, or by projection: digits whose inputs grow, on narrow weights.

    One layer, eta = .1; full batches of 1,500 digits by seed, and batches of 256 of these.
    """
    arms = tuple(
        _arm(kind, bits, rounding, estimator, chi, steps)
        for kind in ("digits", "batches")
        for bits in widths
        for rounding in roundings
        if bits < 16 or rounding == "nearest"
        for chi in chis
        for estimator in ESTIMATORS
    )
    return Experiment(
        name="curvature",
        title="Digits whose inputs grow fourfold: how the curvature is found",
        arms=arms,
        columns=("tail_accuracy", "tail_loss", "min_alpha", "margin", "c_over_true", "still"),
        seeds=seeds,
        datapath="golden",
        draw=over_chi,
    )


def over_chi(runs: Mapping[str, list[FitHistory]]) -> bytes:
    """Accuracy over chi, a width a column and a way of rounding a row, an estimator a colour; batches of some rows dashed."""
    found: dict[tuple[str, int, str, str], dict[float, list[float]]] = {}
    for name, histories in runs.items():
        kind, width, rest = name.split("_", 2)
        rounding, estimator, chi = rest.rsplit("_", 2)
        shares = [float(history.meta.get("tail_accuracy", np.nan)) for history in histories]
        found.setdefault((kind, int(width), rounding, estimator), {})[float(chi.removeprefix("chi"))] = shares
    widths, roundings = sorted({key[1] for key in found}), list(dict.fromkeys(key[2] for key in found))
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(2.6 * len(widths) + 1, 2.3 * len(roundings) + 1), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle("Accuracy of the last steps over chi", x=0.01, ha="left", fontweight="bold")
        axes = figure.subplots(len(roundings), len(widths), sharex=True, sharey=True, squeeze=False)
        for (kind, bits, rounding, estimator), points in found.items():
            ax = axes[roundings.index(rounding)][widths.index(bits)]
            chis = sorted(points)
            middle = [float(np.median(points[chi])) for chi in chis]
            colour = PALETTE[list(ESTIMATORS).index(estimator)]
            ax.plot(chis, middle, color=colour, ls="-" if kind == "digits" else "--", marker=".", label=estimator)
            if kind == "digits":
                least, most = ([pick(points[chi]) for chi in chis] for pick in (min, max))
                ax.fill_between(chis, least, most, color=colour, alpha=0.15, lw=0)
            ax.set_title(f"{bits} bits, {rounding.replace('_', ' ')}")
        for row in range(len(roundings)):
            for column in range(len(widths)):
                axes[row][column].set_visible(bool(axes[row][column].lines))
        for ax in axes[-1]:
            ax.set_xlabel("chi")
        handles: dict[str, Any] = {}
        for ax in figure.axes:
            for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles))
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
