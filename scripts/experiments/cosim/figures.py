"""The figures of the report, drawn with matplotlib: each a function of the runs alone, so that it can be drawn again.

No figure goes through pyplot: it has a state of its own, and drawing here leaves none behind.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.projections.polar import PolarAxes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ...style import STYLE
from .. import tensors
from .history import Runs, of_kind, with_tensors
from .panels import (
    accuracy_panel,
    curvature_panel,
    curvature_words,
    drift,
    grid_of,
    line,
    log_axis,
    loss_panel,
    margin_panel,
    margin_words,
    narrow_words,
    polar_panel,
    positive,
    steps_axis,
    style,
)

# ---- the figures


def _loss(runs: Runs) -> Figure:
    figure, axes = grid_of(9, 4.8)
    loss_panel(axes[0, 0], runs)
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
    figure, axes = grid_of(9, 4.8)
    margin_panel(axes[0, 0], runs)
    axes[0, 0].set_title(margin_words(runs))
    return figure


def _throttle(runs: Runs) -> Figure:
    main = of_kind(runs, "throttled", "golden", "rtl") or of_kind(runs, "unthrottled")
    figure, axes = grid_of(9, 8.4, 3, 1, sharex=True)
    smallest = min(float(np.nanmin(run["alpha"])) for run in main)
    rows = (
        ("alpha", r"$\alpha$ (no unit)", rf"$\alpha$ falls to {smallest:.3g} as the inputs grow"),
        ("curvature", r"$C$ (loss / weight²)", r"$C$, the curvature one step sees"),
        ("ema", r"$S$ (loss / weight²)", r"$S$, its moving average; the law takes the larger of both where its source is max"),
    )
    for ax, (name, label, title) in zip(axes[:, 0], rows, strict=True):
        drift(ax, runs)
        for run in main:
            line(ax, run, runs, name, positive=True)
        values = positive(*[run[name] for run in main])
        log_axis(ax, *(float(values.min()) / 1.25, float(values.max()) * 1.25) if values.size else (0.1, 1.0))
        ax.set_ylabel(label)
        ax.set_title(title if name != "alpha" or smallest < 1 else r"$\alpha$ stays 1")
        steps_axis(ax, runs, label=ax is axes[-1, 0])
    figure.align_ylabels()
    axes[0, 0].legend(loc="best")
    return figure


def _curvature(runs: Runs) -> Figure:
    figure, axes = grid_of(9, 5.4)
    curvature_panel(axes[0, 0], runs)
    axes[0, 0].set_title(curvature_words(runs))
    return figure


def _distortion(runs: Runs) -> Figure:
    main = of_kind(runs, "golden", "rtl")
    figure, axes = grid_of(9, 6.4, 2, 1, sharex=True)
    for ax in axes[:, 0]:
        drift(ax, runs)
    for run in main:
        line(axes[0, 0], run, runs, "angle", 180 / math.pi)
        line(axes[1, 0], run, runs, "radius_ratio")
    axes[0, 0].set_ylabel("angle to the float update (°)")
    axes[0, 0].set_ylim(bottom=0)
    axes[1, 0].axhline(1, color="#777777", lw=1, ls=":")
    axes[1, 0].set_ylabel("length ÷ float update's (no unit)")
    axes[0, 0].set_title(_angle_words(runs))
    if main:
        median = float(np.nanmedian(main[0]["radius_ratio"]))
        axes[1, 0].set_title(f"Its length is a factor {median:.3f} of the float update's (median)")
    steps_axis(axes[0, 0], runs, label=False)
    steps_axis(axes[1, 0], runs)
    figure.align_ylabels()
    axes[0, 0].legend(loc="best")
    return figure


def _angle_words(runs: Runs) -> str:
    main = of_kind(runs, "golden", "rtl")
    if not main:
        return "No quantised run"
    degrees = np.degrees(main[0]["angle"])
    return f"Rounding turns the update by {np.median(degrees):.2g}° (median), {np.max(degrees):.2g}° at most"


def _tensors(runs: Runs) -> Figure:
    run = with_tensors(runs)
    assert run is not None
    return tensors.alone({name: {metric: np.array(of) for metric, of in own.items()} for name, own in run.tensors.items()})


def _polar(runs: Runs) -> Figure:
    figure, axes = grid_of(8, 6.4, subplot_kw={"projection": "polar"})
    polar_panel(axes[0, 0], figure, runs)
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
    figure, axes = grid_of(
        5.6 * len(columns), 2.6 + 2.1 * sum(heights), len(rows), len(columns), sharex=True, height_ratios=heights
    )
    for across, (heading, shown) in enumerate(columns):
        for down, (name, label) in enumerate(rows):
            ax, peak = axes[down, across], peaks[name][across]
            drift(ax, runs)
            for run in shown:
                line(ax, run, runs, name)
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
            steps_axis(ax, runs, label=down == len(rows) - 1)
        handles, labels = axes[0, across].get_legend_handles_labels()
        axes[-1, across].legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.5, -0.3 / heights[-1]), ncol=2, columnspacing=1.2
        )
    figure.align_ylabels()
    return figure


def _narrow(runs: Runs) -> Figure:
    narrow = of_kind(runs, "narrow")
    figure, axes = grid_of(9, 6.2, 2, 1, sharex=True, height_ratios=[3, 1.25])
    accuracy_panel(axes[0, 0], runs)
    axes[0, 0].set_title(narrow_words(runs))
    axes[0, 0].set_xlabel("")
    ax = axes[1, 0]
    for place, run in enumerate(narrow):
        steps = np.flatnonzero(run["still"] > 0)
        ax.eventplot(steps, lineoffsets=-place, linelengths=0.72, linewidths=1.3, colors=style(run, runs)["color"])
    ax.set_yticks([-place for place in range(len(narrow))], [f"{run.title} ({run.still_steps})" for run in narrow])
    ax.set_ylim(-len(narrow) + 0.4, 0.6)
    ax.grid(False)
    ax.set_title("Still steps: each line is a step after one that moved no weight")
    steps_axis(ax, runs)
    return figure


def _overview(runs: Runs) -> Figure:
    figure = Figure(figsize=(13, 9), layout=ConstrainedLayoutEngine(w_pad=0.14, h_pad=0.14))
    FigureCanvasAgg(figure)
    quantised, narrow = bool(of_kind(runs, "golden", "rtl")), bool(of_kind(runs, "narrow"))
    grid = figure.add_gridspec(2 if quantised or narrow else 1, 2)
    left, right = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    loss_panel(left, runs)
    left.set_title(_folded(_loss_words(runs)), fontsize=OVERVIEW_TITLE)
    margin_panel(right, runs)
    right.set_title(_folded(margin_words(runs)), fontsize=OVERVIEW_TITLE)
    if narrow:
        below = figure.add_subplot(grid[1, 0])
        accuracy_panel(below, runs)
        below.set_title(_folded(narrow_words(runs)), fontsize=OVERVIEW_TITLE)
    if quantised:
        polar = figure.add_subplot(grid[1, 1] if narrow else grid[1, :], projection="polar")
        assert isinstance(polar, PolarAxes)
        polar_panel(polar, figure, runs)
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
    segments: bool = False  #: only where tensors have grids of their own

    def shows(self, runs: Runs) -> bool:
        """Whether the runs have what it shows."""
        return (not self.needs or bool(of_kind(runs, *self.needs))) and (not self.segments or with_tensors(runs) is not None)


PLOTS = (
    Plot(
        "overview",
        "At a glance",
        "Top left: the loss; top right: the step's stability margin; bottom left: narrow weights under each way to treat updates "
        "that rounding would swallow; bottom right: what rounding does to the updates. Each is explained below.",
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
        "Alpha scales the step; C is what the unit measures between the last two gradients (how is said above), S its moving "
        "average. Float and quantised runs differ where rounding is a large part of what is measured.",
        _throttle,
        ("throttled", "golden", "rtl", "unthrottled"),
    ),
    Plot(
        "curvature",
        "Three ways to find the curvature",
        "Of the main run, whatever its law goes by: the change of the gradient over the change that was applied, over the step "
        "that was intended, and its projection onto that step; beside them the loss' own curvature along the step, where it is "
        "known. Rounding lengthens the applied change; what batches and rounding add to the gradient lengthens its change.",
        _curvature,
        ("golden", "rtl"),
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
        "tensors",
        "Tensor by tensor",
        "Of the main run, whose tensors have binary points of their own. Read across: a strip is a tensor, dark is much. Where "
        "the angle is near 90° and all weights stand still, that tensor is dead while others learn: its grid is too coarse for "
        "its updates. Weights on a rail ask for a coarser grid.",
        _tensors,
        ("golden", "rtl"),
        segments=True,
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
        "Narrow weights: what becomes of an update that rounding would swallow",
        "Rounded to nearest it is lost (“nearest”, where the law looks at no applied motion). Where it looks at one and a whole "
        "update is lost, the published formula divides by almost nothing and the run may never move again (“divide”); by default "
        "half a weight ulp stands in for the motion and the average forgets while nothing moves, so that no single step can stop "
        "the run for good (“release”). Rounded at random onto the weights' grid an update arrives in the mean (“stochastic”); "
        "kept beside the weight it arrives later (“residual”).",
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
