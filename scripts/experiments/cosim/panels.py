"""The panels that the figures of the report are put together from, and how runs and axes look in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import LogFormatterMathtext, MaxNLocator
from numpy.typing import NDArray

from ...style import COLOURS, LIMIT, NARROW_COLOURS, PALETTE
from .history import TAIL, Floats, RunHistory, Runs, ending, of_kind

NARROW_STYLES = ("-", "--", "-.", ":")


def style(run: RunHistory, runs: Runs) -> dict[str, Any]:
    """How a run is drawn everywhere: RTL as rings on golden's line, since they are meant to coincide."""
    if run.kind == "narrow":
        place = [id(other) for other in of_kind(runs, "narrow")].index(id(run))
        colour = run.colour or NARROW_COLOURS[place % len(NARROW_COLOURS)]
        return {"color": colour, "linestyle": NARROW_STYLES[place % len(NARROW_STYLES)], "label": run.title}
    colour = run.colour or COLOURS[run.kind]
    if run.kind == "rtl":
        return {
            "color": colour, "linestyle": "none", "marker": "o", "markersize": 5.5, "markerfacecolor": "none",
            "markeredgewidth": 1.1, "markevery": _every(run), "zorder": 4, "label": _ringed(run),
        }  # fmt: skip
    look: dict[str, Any] = {"color": colour, "label": run.title}
    if run.kind == "golden":
        look |= {"linewidth": 2.6, "zorder": 3}
    if run.kind == "throttled":
        look |= {"linestyle": (0, (5, 1.5)), "zorder": 3.5, "linewidth": 1.5}
    return look


def _every(run: RunHistory) -> int:
    """A ring at each of so many steps."""
    return max(1, run.steps // 30)


def _ringed(run: RunHistory) -> str:
    every = _every(run)
    return run.title if every == 1 else f"{run.title} (a ring each {every} steps)"


def line(ax: Axes, run: RunHistory, runs: Runs, name: str, scale: float = 1.0, *, positive: bool = False, **look: Any) -> None:
    values = run[name] * scale
    values = np.where(np.isfinite(values) & ((values > 0) if positive else True), values, np.nan)
    ax.plot(np.arange(len(values)), values, **(style(run, runs) | look))


def steps_axis(ax: Axes, runs: Runs, *, label: bool = True) -> None:
    last = max((run.steps for run in runs.values()), default=1) - 1
    ax.set_xlim(-0.01 * last - 0.5, last * 1.01 + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if label:
        ax.set_xlabel("training step")


def drift(ax: Axes, runs: Runs) -> None:
    """Shade the steps at which the full step would be unstable."""
    longest = max(runs.values(), key=lambda run: run.steps)
    above = np.flatnonzero(longest["eta_lambda_max"] > LIMIT)
    for place, (first, last) in enumerate(_stretches(above)):
        label = "_" if place else r"full step unstable: $\eta\lambda_{max} > 2$"
        ax.axvspan(first - 0.5, last + 0.5, color="#f2ead8", alpha=0.75, lw=0, zorder=0, label=label)


def log_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic axis from low to high with plain numbers at 1, 2, 5 times a power of ten, thinned to a few."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) <= 9:
            break
    if ticks:  # a range without a round number in it keeps the ticks that it has
        ax.set_yticks(ticks[:: 1 + (len(ticks) - 1) // 9])
    if high > 1e5 * low:
        ax.yaxis.set_major_formatter(LogFormatterMathtext())
    else:
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()


def positive(*arrays: Floats) -> Floats:
    """All finite values above 0."""
    values: Floats = np.concatenate([*arrays, np.zeros(0)])
    return values[np.isfinite(values) & (values > 0)]


def _stretches(indices: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Runs of consecutive integers as (first, last); many short ones, as minibatches give, as one."""
    if not indices.size:
        return []
    parts = np.split(indices, np.flatnonzero(np.diff(indices) > 1) + 1)
    if len(parts) > 8:
        return [(int(indices[0]), int(indices[-1]))]
    return [(int(part[0]), int(part[-1])) for part in parts]


def grid_of(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


# ---- the panels; the figures and the overview are put together from them


def loss_panel(ax: Axes, runs: Runs) -> None:
    main = of_kind(runs, "unthrottled", "throttled", "golden", "rtl")
    drift(ax, runs)
    for run in main:
        line(ax, run, runs, "loss", positive=True)
    calm = [run["loss"] for run in main if run.diverged_at is None]
    # A diverged run leaves through the top; the others keep most of the axis.
    values = positive(*(calm or [run["loss"][:2] for run in main]))
    if values.size:
        low, high = float(values.min()), float(values.max())
        room = high / low
        log_axis(ax, low / (1.2 * room**0.1), high * 2 * room**0.6)
    longest = max((run.steps for run in main), default=1)
    for run in main:
        if run.diverged_at is None:
            continue
        outside = np.flatnonzero(~(run["loss"] < ax.get_ylim()[1]))
        leaves = int(outside[0]) if outside.size else run.steps - 1
        right = leaves < 0.6 * longest
        ax.annotate(
            f"diverges (step {run.diverged_at})", xy=(leaves, 0.97), xycoords=ax.get_xaxis_transform(),
            xytext=(8 if right else -8, 0), textcoords="offset points", ha="left" if right else "right", va="top",
            color=run.colour or COLOURS[run.kind], fontweight="bold", fontsize=10,
        )  # fmt: skip
    ax.set_ylabel("loss (half mean squared error)")
    steps_axis(ax, runs)
    ax.legend(loc="best")


def margin_panel(ax: Axes, runs: Runs) -> None:
    main = of_kind(runs, "throttled", "golden", "rtl")
    longest = max(runs.values(), key=lambda run: run.steps)
    steps = np.arange(longest.steps)
    ax.plot(steps, longest["eta_lambda_max"], color="#777777", lw=1.6, ls=":", label=r"$\eta\lambda_{max}$: the full step")
    for run in main:
        label = rf"$\alpha\eta\lambda_{{max}}$: {run.title}"
        line(ax, run, runs, "alpha_eta_lambda_max", positive=True, label=label)
    ax.axhline(LIMIT, color="#B00020", lw=1.3, label="2: unstable above")
    values = positive(longest["eta_lambda_max"], *[run["alpha_eta_lambda_max"] for run in main])
    low, high = min([1.0, *values]), max([2.5, *values])
    log_axis(ax, low / 1.25, high * 1.35)
    ax.set_ylabel("step size × sharpness (no unit)")
    steps_axis(ax, runs)
    ax.legend(loc="best")


def margin_words(runs: Runs) -> str:
    shown = of_kind(runs, "golden", "rtl", "throttled")
    full = max(float(np.nanmax(run["eta_lambda_max"])) for run in runs.values() if run.steps)
    if full <= LIMIT:
        return f"The full step stays below 2 (at most {full:.3g})"
    if not shown:
        return f"The full step reaches {full:.3g}"
    peak = max(float(np.nanmax(run["alpha_eta_lambda_max"])) for run in shown)
    if peak <= LIMIT:
        return f"The full step reaches {full:.3g}; the throttled one stays below 2"
    ending = float(np.mean(shown[0]["alpha_eta_lambda_max"][-TAIL:]))
    return f"The full step reaches {full:.3g}; the throttled one peaks at {peak:.3g}, ends at {ending:.3g}"


WAYS = {"curvature_applied": "applied", "curvature_intended": "intended", "curvature_projection": "projection"}
"""The ways to find a curvature, and what each is called."""


def curvature_panel(ax: Axes, runs: Runs) -> None:
    run = of_kind(runs, "rtl", "golden")[0]
    drift(ax, runs)
    shown = [("curvature_true", "true, along the step", "#222222", 2.6)] if np.isfinite(run["curvature_true"]).any() else []
    shown += [(name, text, colour, 1.3) for (name, text), colour in zip(WAYS.items(), PALETTE, strict=False)]
    for name, text, colour, width in shown:
        values = run[name]
        dashed = (0, (4, 2)) if text == "intended" else "-"  # over the applied one, with which it may coincide
        ax.plot(np.where(values > 0, values, np.nan), color=colour, lw=width, ls=dashed, label=text)
    values = positive(*[run[name] for name, *_ in shown])
    log_axis(ax, *(float(values.min()) / 1.25, float(values.max()) * 1.25) if values.size else (0.1, 1.0))
    ax.set_ylabel("curvature (loss / weight²)")
    steps_axis(ax, runs)
    ax.legend(loc="best")


def curvature_words(runs: Runs) -> str:
    run = of_kind(runs, "rtl", "golden")[0]
    true = run["curvature_true"]
    true = np.where(true > 0, true, np.nan)
    if not np.isfinite(true).any():
        return "Three ways to find the curvature"
    seen = ", ".join(f"{text} {np.nanmedian(run[name] / true):.2f}" for name, text in WAYS.items() if (run[name] > 0).any())
    return f"Times the true curvature (median): {seen}"


def accuracy_panel(ax: Axes, runs: Runs) -> None:
    narrow = of_kind(runs, "narrow")
    labelled = all("accuracy" in run for run in narrow)
    name = "accuracy" if labelled else "loss"
    drift(ax, runs)
    for run in narrow:
        line(ax, run, runs, name, positive=not labelled, label=f"{run.title}: ends at {ending(run).split()[-1]}")
    if labelled:
        ax.set_ylim(0, 1.02)
        ax.set_ylabel("accuracy (fraction of the batch)")
    else:
        values = positive(*[run["loss"] for run in narrow])
        log_axis(ax, *(float(values.min()) / 1.3, float(values.max()) * 1.3) if values.size else (0.1, 1.0))
        ax.set_ylabel("loss (half mean squared error)")
    steps_axis(ax, runs)
    ax.legend(loc="best")


def narrow_words(runs: Runs) -> str:
    narrow = of_kind(runs, "narrow")
    if not narrow:
        return "No run on narrow weights"
    if not all("accuracy" in run for run in narrow):
        best = min(narrow, key=lambda run: run["loss"][-1])
        return f"Narrow weights: lowest final loss with “{best.title}”"
    order = sorted(narrow, key=lambda run: run.tail("accuracy") or 0.0)
    worst, best = order[0], order[-1]
    return f"Narrow weights: “{worst.title}” ends at {worst.tail('accuracy'):.2f}, “{best.title}” at {best.tail('accuracy'):.2f}"


def polar_panel(ax: PolarAxes, figure: Figure, runs: Runs) -> None:
    """Radius: how long the applied change is against the intended one; angle: how far it points away."""
    shown = of_kind(runs, "golden", "rtl")
    wide = any(float(np.nanmax(run["angle"])) > math.radians(92) for run in shown)
    reach = math.pi if wide else math.pi / 2
    ax.set_thetamin(0)
    ax.set_thetamax(math.degrees(reach))
    ax.set_thetagrids(np.arange(0, math.degrees(reach) + 1, 15 if not wide else 30))
    radii = positive(*[run["radius_ratio"] for run in shown])
    top = min(4.0, max([1.0, *radii])) * 1.08
    ax.plot(np.linspace(0, reach, 100), np.ones(100), color="#888888", lw=1, ls=":", zorder=2)
    for run in shown:
        steps = np.arange(run.steps)
        # What is longer than the axis is drawn on its rim.
        angle, radius = run["angle"], np.minimum(run["radius_ratio"], top)
        good = np.isfinite(angle) & np.isfinite(radius)
        if run.kind == "rtl":
            some = good & (steps % _every(run) == 0)
            ax.scatter(
                angle[some], radius[some], s=46, facecolors="none", edgecolors="#000000", linewidths=1.0, zorder=4,
                label=_ringed(run),
            )  # fmt: skip
        else:
            dots = ax.scatter(
                angle[good], radius[good], c=steps[good], cmap="viridis", s=17, linewidths=0, zorder=3, label=run.title,
                vmin=0, vmax=max(1, run.steps - 1),
            )  # fmt: skip
            bar = figure.colorbar(dots, cax=ax.inset_axes((1.13, 0.13, 0.03, 0.5)))
            bar.set_label("training step")
            bar.outline.set_visible(False)
    ax.plot(
        [0],
        [1],
        marker="D",
        markersize=11,
        mfc="none",
        mec="#D55E00",
        mew=2,
        ls="none",
        zorder=5,
        label="undistorted",
        clip_on=False,
    )
    ax.set_ylim(0, top)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1] if top < 1.5 else list(range(math.floor(top) + 1)))
    ax.set_xlabel("radius: length ÷ float update's", labelpad=24)
    ax.tick_params(axis="x", pad=2)
    ax.grid(color="#cccccc")
    ax.legend(loc="upper left", bbox_to_anchor=(0.8, 1.06))
