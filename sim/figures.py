"""The figures of the report, drawn with matplotlib: each a function of the runs alone, so that it can be drawn again.

No figure goes through pyplot: it has a state of its own, and drawing here leaves none behind.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import LogFormatterMathtext, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from .history import TAIL, Floats, RunHistory, Runs, ending, of_kind

# Okabe and Ito's colours, which the colour-blind can tell apart; line styles and markers differ too.
COLOURS: dict[str, str] = {"unthrottled": "#D55E00", "throttled": "#0072B2", "golden": "#E69F00", "rtl": "#000000"}
NARROW_COLOURS = ("#CC79A7", "#009E73", "#56B4E9", "#7F6A00")
NARROW_STYLES = ("-", "--", "-.", ":")
LIMIT = 2.0
"""Gradient descent on a quadratic is unstable where the step size times the largest eigenvalue is above this."""

STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.8,
    "figure.dpi": 130,
    "savefig.facecolor": "white",
}


def _style(run: RunHistory, runs: Runs) -> dict[str, Any]:
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


def _line(ax: Axes, run: RunHistory, runs: Runs, name: str, scale: float = 1.0, *, positive: bool = False, **look: Any) -> None:
    values = run[name] * scale
    values = np.where(np.isfinite(values) & ((values > 0) if positive else True), values, np.nan)
    ax.plot(np.arange(len(values)), values, **(_style(run, runs) | look))


def _steps_axis(ax: Axes, runs: Runs, *, label: bool = True) -> None:
    last = max((run.steps for run in runs.values()), default=1) - 1
    ax.set_xlim(-0.01 * last - 0.5, last * 1.01 + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if label:
        ax.set_xlabel("training step")


def _drift(ax: Axes, runs: Runs) -> None:
    """Shade the steps at which the full step would be unstable."""
    longest = max(runs.values(), key=lambda run: run.steps)
    above = np.flatnonzero(longest["eta_lambda_max"] > LIMIT)
    for place, (first, last) in enumerate(_stretches(above)):
        label = "_" if place else r"full step unstable: $\eta\lambda_{max} > 2$"
        ax.axvspan(first - 0.5, last + 0.5, color="#f2ead8", alpha=0.75, lw=0, zorder=0, label=label)


def _log_axis(ax: Axes, low: float, high: float) -> None:
    """A logarithmic axis from low to high with plain numbers at 1, 2, 5 times a power of ten, thinned to a few."""
    ax.set_yscale("log")
    ax.set_ylim(low, high)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1,)):
        ticks = [digit * 10.0**power for power in powers for digit in digits if low <= digit * 10.0**power <= high]
        if len(ticks) <= 9:
            break
    ax.set_yticks(ticks[:: 1 + (len(ticks) - 1) // 9])
    if high > 1e5 * low:
        ax.yaxis.set_major_formatter(LogFormatterMathtext())
    else:
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.minorticks_off()


def _positive(*arrays: Floats) -> Floats:
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


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **more: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **more)


# ---- the panels; the figures and the overview are put together from them


def _loss_panel(ax: Axes, runs: Runs) -> None:
    main = of_kind(runs, "unthrottled", "throttled", "golden", "rtl")
    _drift(ax, runs)
    for run in main:
        _line(ax, run, runs, "loss", positive=True)
    calm = [run["loss"] for run in main if run.diverged_at is None]
    # A diverged run leaves through the top; the others keep most of the axis.
    values = _positive(*(calm or [run["loss"][:2] for run in main]))
    if values.size:
        low, high = float(values.min()), float(values.max())
        room = high / low
        _log_axis(ax, low / (1.2 * room**0.1), high * 2 * room**0.6)
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
    _steps_axis(ax, runs)
    ax.legend(loc="best")


def _margin_panel(ax: Axes, runs: Runs) -> None:
    main = of_kind(runs, "throttled", "golden", "rtl")
    longest = max(runs.values(), key=lambda run: run.steps)
    steps = np.arange(longest.steps)
    ax.plot(steps, longest["eta_lambda_max"], color="#777777", lw=1.6, ls=":", label=r"$\eta\lambda_{max}$: the full step")
    for run in main:
        label = rf"$\alpha\eta\lambda_{{max}}$: {run.title}"
        _line(ax, run, runs, "alpha_eta_lambda_max", positive=True, label=label)
    ax.axhline(LIMIT, color="#B00020", lw=1.3, label="2: unstable above")
    values = _positive(longest["eta_lambda_max"], *[run["alpha_eta_lambda_max"] for run in main])
    low, high = min([1.0, *values]), max([2.5, *values])
    _log_axis(ax, low / 1.25, high * 1.35)
    ax.set_ylabel("step size × sharpness (no unit)")
    _steps_axis(ax, runs)
    ax.legend(loc="best")


def _margin_words(runs: Runs) -> str:
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


def _accuracy_panel(ax: Axes, runs: Runs) -> None:
    narrow = of_kind(runs, "narrow")
    labelled = all("accuracy" in run for run in narrow)
    name = "accuracy" if labelled else "loss"
    _drift(ax, runs)
    for run in narrow:
        _line(ax, run, runs, name, positive=not labelled, label=f"{run.title}: ends at {ending(run).split()[-1]}")
    if labelled:
        ax.set_ylim(0, 1.02)
        ax.set_ylabel("accuracy (fraction of the batch)")
    else:
        values = _positive(*[run["loss"] for run in narrow])
        _log_axis(ax, *(float(values.min()) / 1.3, float(values.max()) * 1.3) if values.size else (0.1, 1.0))
        ax.set_ylabel("loss (half mean squared error)")
    _steps_axis(ax, runs)
    ax.legend(loc="best")


def _narrow_words(runs: Runs) -> str:
    narrow = of_kind(runs, "narrow")
    if not narrow:
        return "No run on narrow weights"
    if not all("accuracy" in run for run in narrow):
        best = min(narrow, key=lambda run: run["loss"][-1])
        return f"Narrow weights: lowest final loss with “{best.title}”"
    order = sorted(narrow, key=lambda run: run.tail("accuracy") or 0.0)
    worst, best = order[0], order[-1]
    return f"Narrow weights: “{worst.title}” ends at {worst.tail('accuracy'):.2f}, “{best.title}” at {best.tail('accuracy'):.2f}"


def _polar_panel(ax: PolarAxes, figure: Figure, runs: Runs) -> None:
    """Radius: how long the applied change is against the intended one; angle: how far it points away."""
    shown = of_kind(runs, "golden", "rtl")
    wide = any(float(np.nanmax(run["angle"])) > math.radians(92) for run in shown)
    reach = math.pi if wide else math.pi / 2
    ax.set_thetamin(0)
    ax.set_thetamax(math.degrees(reach))
    ax.set_thetagrids(np.arange(0, math.degrees(reach) + 1, 15 if not wide else 30))
    radii = _positive(*[run["radius_ratio"] for run in shown])
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


# ---- the figures


def _loss(runs: Runs) -> Figure:
    figure, axes = _figure(9, 4.8)
    _loss_panel(axes[0, 0], runs)
    axes[0, 0].set_title(_loss_words(runs))
    return figure


def _loss_words(runs: Runs) -> str:
    lost = [run for run in of_kind(runs, "unthrottled", "throttled", "golden", "rtl") if run.diverged_at is not None]
    kept = [run for run in of_kind(runs, "throttled", "golden", "rtl") if run.diverged_at is None]
    if not lost:
        return "No run diverges"
    if all(run.kind == "unthrottled" for run in lost) and kept:
        return f"Float without the throttle diverges at step {lost[0].diverged_at}; with it, no run does"
    return "Diverged: " + ", ".join(f"{run.title} (step {run.diverged_at})" for run in lost)


def _margin(runs: Runs) -> Figure:
    figure, axes = _figure(9, 4.8)
    _margin_panel(axes[0, 0], runs)
    axes[0, 0].set_title(_margin_words(runs))
    return figure


def _throttle(runs: Runs) -> Figure:
    main = of_kind(runs, "throttled", "golden", "rtl") or of_kind(runs, "unthrottled")
    figure, axes = _figure(9, 8.4, 3, 1, sharex=True)
    smallest = min(float(np.nanmin(run["alpha"])) for run in main)
    rows = (
        ("alpha", r"$\alpha$ (no unit)", rf"$\alpha$ falls to {smallest:.3g} as the inputs grow"),
        ("curvature", r"$C$ (loss / weight²)", r"$C = \|\Delta G\|\,/\,\|\Delta\theta\|$, the curvature one step sees"),
        ("ema", r"$S$ (loss / weight²)", r"$S$, its moving average; the law takes the larger of both where its source is max"),
    )
    for ax, (name, label, title) in zip(axes[:, 0], rows, strict=True):
        _drift(ax, runs)
        for run in main:
            _line(ax, run, runs, name, positive=True)
        values = _positive(*[run[name] for run in main])
        _log_axis(ax, *(float(values.min()) / 1.25, float(values.max()) * 1.25) if values.size else (0.1, 1.0))
        ax.set_ylabel(label)
        ax.set_title(title if name != "alpha" or smallest < 1 else r"$\alpha$ stays 1")
        _steps_axis(ax, runs, label=ax is axes[-1, 0])
    figure.align_ylabels()
    axes[0, 0].legend(loc="best")
    return figure


def _distortion(runs: Runs) -> Figure:
    main = of_kind(runs, "golden", "rtl")
    figure, axes = _figure(9, 6.4, 2, 1, sharex=True)
    for ax in axes[:, 0]:
        _drift(ax, runs)
    for run in main:
        _line(axes[0, 0], run, runs, "angle", 180 / math.pi)
        _line(axes[1, 0], run, runs, "radius_ratio")
    axes[0, 0].set_ylabel("angle to the float update (°)")
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].axhline(1, color="#777777", lw=1, ls=":")
    axes[1, 0].set_ylabel("length ÷ float update's (no unit)")
    axes[0, 0].set_title(_angle_words(runs))
    if main:
        median = float(np.nanmedian(main[0]["radius_ratio"]))
        axes[1, 0].set_title(f"Its length is a factor {median:.3f} of the float update's (median)")
    _steps_axis(axes[0, 0], runs, label=False)
    _steps_axis(axes[1, 0], runs)
    figure.align_ylabels()
    axes[0, 0].legend(loc="best")
    return figure


def _angle_words(runs: Runs) -> str:
    main = of_kind(runs, "golden", "rtl")
    if not main:
        return "No quantised run"
    degrees = np.degrees(main[0]["angle"])
    return f"Rounding turns the update by {np.median(degrees):.2g}° (median), {np.max(degrees):.2g}° at most"


def _polar(runs: Runs) -> Figure:
    figure, axes = _figure(8, 6.4, subplot_kw={"projection": "polar"})
    _polar_panel(axes[0, 0], figure, runs)
    axes[0, 0].set_title(_angle_words(runs), pad=14)
    return figure


def _fractions(runs: Runs) -> Figure:
    columns = [
        (heading, shown)
        for heading, shown in (("main run", of_kind(runs, "golden", "rtl")), ("narrow weights", of_kind(runs, "narrow")))
        if shown
    ]
    rows = (
        ("gradient_saturated", "gradient on a rail"),
        ("gradient_near_rail", "gradient near a rail"),
        ("update_saturated", "update clipped"),
        ("update_underflow", "rounds to 0 on the update grid"),
        ("weight_saturated", "weight on a rail"),
        ("weight_near_rail", "weight near a rail"),
    )
    peaks = {name: [max(float(np.max(run[name])) for run in shown) for _, shown in columns] for name, _ in rows}
    heights = [1.0 if max(peaks[name]) else 0.3 for name, _ in rows]  # what never happens needs no room
    figure, axes = _figure(
        5.6 * len(columns), 2.6 + 2.1 * sum(heights), len(rows), len(columns), sharex=True, height_ratios=heights
    )
    for across, (heading, shown) in enumerate(columns):
        for down, (name, label) in enumerate(rows):
            ax, peak = axes[down, across], peaks[name][across]
            _drift(ax, runs)
            for run in shown:
                _line(ax, run, runs, name)
            if tallest := max(peaks[name]):
                ax.set_ylim(-0.03 * tallest, 1.12 * tallest)
                ax.yaxis.set_major_locator(MaxNLocator(4))
                if not across:
                    ax.set_ylabel("of the elements")
            else:
                ax.set_ylim(-1, 1)
                ax.set_yticks([0])
            ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None if tallest else 0))
            title = f"{label}: " + (f"up to {peak:.2g} of the elements" if peak < 0.001 else f"up to {peak:.1%}")
            ax.set_title((f"{heading}\n" if not down else "") + (title if peak else f"{label}: never"), fontsize=10)
            _steps_axis(ax, runs, label=down == len(rows) - 1)
        handles, labels = axes[0, across].get_legend_handles_labels()
        axes[-1, across].legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.3 / heights[-1]), ncol=2, columnspacing=1.2
        )
    figure.align_ylabels()
    return figure


def _narrow(runs: Runs) -> Figure:
    narrow = of_kind(runs, "narrow")
    figure, axes = _figure(9, 6.2, 2, 1, sharex=True, height_ratios=[3, 1.25])
    _accuracy_panel(axes[0, 0], runs)
    axes[0, 0].set_title(_narrow_words(runs))
    axes[0, 0].set_xlabel("")
    ax = axes[1, 0]
    for place, run in enumerate(narrow):
        steps = np.flatnonzero(run["still"] > 0)
        ax.eventplot(steps, lineoffsets=-place, linelengths=0.72, linewidths=1.3, colors=_style(run, runs)["color"])
    ax.set_yticks([-place for place in range(len(narrow))], [f"{run.title} ({run.still_steps})" for run in narrow])
    ax.set_ylim(-len(narrow) + 0.4, 0.6)
    ax.grid(False)
    ax.set_title("Still steps: each line is a step after one that moved no weight")
    _steps_axis(ax, runs)
    return figure


def _overview(runs: Runs) -> Figure:
    figure = Figure(figsize=(13, 9), layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14))
    FigureCanvasAgg(figure)
    quantised, narrow = bool(of_kind(runs, "golden", "rtl")), bool(of_kind(runs, "narrow"))
    grid = figure.add_gridspec(2 if quantised or narrow else 1, 2)
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    _loss_panel(left, runs)
    left.set_title(_folded(_loss_words(runs)), fontsize=OVERVIEW_TITLE)
    _margin_panel(right, runs)
    right.set_title(_folded(_margin_words(runs)), fontsize=OVERVIEW_TITLE)
    if narrow:
        below = figure.add_subplot(grid[1, 0])
        _accuracy_panel(below, runs)
        below.set_title(_folded(_narrow_words(runs)), fontsize=OVERVIEW_TITLE)
    if quantised:
        polar = figure.add_subplot(grid[1, 1] if narrow else grid[1, :], projection="polar")
        assert isinstance(polar, PolarAxes)
        _polar_panel(polar, figure, runs)
        words = _angle_words(runs).replace(" by ", " by\n", 1)
        polar.set_title(words, pad=12, fontsize=OVERVIEW_TITLE)
    return figure


OVERVIEW_TITLE = 10.5


def _folded(text: str) -> str:
    return text if len(text) <= 62 else textwrap.fill(text, len(text) // 2 + 8)


@dataclass(frozen=True)
class Plot:
    """One figure of the page."""

    name: str
    heading: str
    caption: str
    draw: Callable[[Runs], Figure]
    needs: tuple[str, ...] = ()  #: kinds of which one must be there


PLOTS = (
    Plot(
        "overview",
        "At a glance",
        "Top left: the loss; top right: the step's stability margin; bottom left: narrow weights under each rule for steps that "
        "move nothing; bottom right: what rounding does to the updates. Each is explained below.",
        _overview,
    ),
    Plot(
        "loss",
        "Loss",
        "The inputs' gain drifts; in the shaded steps the full step size is unstable. The RTL is drawn as rings on the golden "
        "model's line: look whether every ring sits on it. A run that leaves through the top has diverged.",
        _loss,
    ),
    Plot(
        "margin",
        "Stability margin",
        "The largest eigenvalue of the loss' Hessian times the step size. Above 2 the steepest direction grows at each step. "
        "Look where the dotted line (no throttle) crosses 2, how far the throttled lines overshoot before the throttle wakes: "
        "it prevents divergence, it does not certify the margin at each step.",
        _margin,
    ),
    Plot(
        "throttle",
        "What the throttle sees and does",
        "Alpha scales the step; C is the curvature measured between the last two gradients, S its moving average. Float and "
        "quantised runs differ where rounding has made the weights' change too small to measure well.",
        _throttle,
        ("throttled", "golden", "rtl", "unthrottled"),
    ),
    Plot(
        "distortion",
        "Update distortion",
        "The change that was applied against the change a float unit would have made from the same weights with the same alpha. "
        "An angle of 90° with ratio 0 is a step that moved nothing. The smaller the updates, the more of them the grids swallow.",
        _distortion,
        ("golden", "rtl"),
    ),
    Plot(
        "polar",
        "Update distortion, polar",
        "The same two numbers as one point a step: an undistorted update lies on the star (radius 1, angle 0).",
        _polar,
        ("golden", "rtl"),
    ),
    Plot(
        "fractions",
        "Saturation, near-rail and underflow",
        "The unit's counters as fractions of the elements of each step. Clipped or near-rail elements say that a format has too "
        "few integer bits; updates that round to 0 say that it has too few fraction bits. "
        "A step size of 0 is neither: nothing is left to round then, and the still steps count it.",
        _fractions,
        ("golden", "rtl", "narrow"),
    ),
    Plot(
        "narrow",
        "Narrow weights: what to do after a still step",
        "When rounding swallows a whole update, the published formula divides by almost nothing and the run may never move again "
        "(divide). The unit can keep the last curvature (hold) or divide by half a weight ulp (floor) instead.",
        _narrow,
        ("narrow",),
    ),
)
"""All figures in the order of the page; ``overview`` is also the picture of the README."""


def draw(plot: Plot, runs: Runs) -> bytes:
    """One figure as PNG."""
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = plot.draw(runs)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
