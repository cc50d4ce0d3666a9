"""The picture of a history: loss, margins, alpha, curvature, what became of the update, rails.

No rcParams are set and no mathematical text is used: both are shared between threads. matplotlib is imported when something is
drawn; the rest of the harness does without it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...style import BLACK, BLUE, ORANGE, PINK, RED, SKY
from .. import tensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

    from ....golden.training.history import FitHistory

Floats = NDArray[np.float64]

_SMALL = 9.0
_BOUND = 1e120
"""What is larger is drawn as infinite: nothing overflows where axes are laid out."""

_Line = tuple[str, str, dict[str, Any]]  # column, label, look
_UNDER = {"linewidth": 4.0, "alpha": 0.55}  # a broad line under the one that it may coincide with


def draw(history: FitHistory, title: str) -> Figure:
    """The figure of a run; what was not recorded leaves its panel empty."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.projections.polar import PolarAxes

    own = tensors.of_tensors(history.layers)
    more = tensors.height(own) if own else 0.0
    figure = Figure(figsize=(13, 15 + more), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1), facecolor="white")
    FigureCanvasAgg(figure)
    whole = figure.add_gridspec(1 + bool(own), 1, height_ratios=(15, more)[: 1 + bool(own)])
    grid = whole[0].subgridspec(4, 2, height_ratios=(1, 1, 1.5, 0.8))
    loss, margin = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[0, 1])
    alpha, curvature = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
    geometry = grid[2, 0].subgridspec(3, 1)
    cosine, angle, ratio = (figure.add_subplot(geometry[row]) for row in range(3))
    polar = figure.add_subplot(grid[2, 1], projection="polar")
    assert isinstance(polar, PolarAxes)
    rails, underflow = figure.add_subplot(grid[3, 0]), figure.add_subplot(grid[3, 1])

    lost = history.diverged_at
    rows = f"{history.steps} step" + ("" if history.steps == 1 else "s")
    fate = rows if lost is None else f"{rows}, diverged at step {lost}"
    figure.suptitle(f"{title}: {fate}" if title else fate, fontsize=14, fontweight="bold", parse_math=False)

    _loss_panel(loss, history)
    _margin_panel(margin, history)
    _alpha_panel(alpha, history)
    _curvature_panel(curvature, history)
    _geometry_panels(cosine, angle, ratio, history)
    _polar_panel(polar, figure, history)
    _fraction_panel(
        rails,
        history,
        "Rails",
        [
            ("weight_near_rail_fraction_max", "weight near", {"color": SKY} | _UNDER),
            ("weight_saturation_fraction_max", "weight on", {"color": BLUE}),
            ("gradient_near_rail_fraction_max", "gradient near", {"color": ORANGE} | _UNDER),
            ("gradient_saturation_fraction_max", "gradient on", {"color": RED, "linestyle": "--"}),
            ("update_saturation_fraction_max", "update on", {"color": BLACK, "linestyle": ":"}),
        ],
    )
    _fraction_panel(
        underflow,
        history,
        "Underflow",
        [
            ("gradient_underflow_fraction_max", "gradient", {"color": ORANGE} | _UNDER),
            ("update_underflow_fraction_max", "update", {"color": BLACK}),
        ],
    )
    for ax in (loss, margin, alpha, curvature, cosine, angle, ratio, rails, underflow):
        _finish(ax, history, bottom=ax not in (cosine, angle))
    if own:
        tensors.draw(figure.add_subfigure(whole[1]), own)
    figure.align_ylabels([loss, alpha, cosine, angle, ratio, rails])
    figure.align_ylabels([margin, curvature, underflow])
    return figure


def _loss_panel(ax: Axes, history: FitHistory) -> None:
    shown = _lines(ax, history, [("loss", "loss", {"color": BLUE})], "loss before the update", legend=False)
    ax.set_title("Loss", loc="left", fontsize=11, fontweight="bold")
    _scale(ax, shown, decades=1)
    _edges(ax, shown)


def _margin_panel(ax: Axes, history: FitHistory) -> None:
    names = ("stability_margin_lambda", "λ"), ("stability_margin_norm", "‖H‖")
    # Without the largest eigenvalue the norm must do.
    stem, letter = next(((s, t) for s, t in names if _finite(history, f"{s}_raw", f"{s}_ctrl").size), names[0])
    wanted: list[_Line] = [
        (f"{stem}_raw", f"full step: η {letter}", {"color": ORANGE} | _UNDER),
        (f"{stem}_ctrl", f"applied: α η {letter}", {"color": BLUE}),
    ]
    ax.set_title("Stability margin", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(ax, history, wanted, "step size × curvature", legend=False)
    if not shown:
        return
    ax.axhline(2, color=RED, linewidth=1.3, linestyle="--", label="limit: 2")
    _legend(ax)
    _scale(ax, shown, decades=1, include=(2.0,))
    _edges(ax, shown)


def _alpha_panel(ax: Axes, history: FitHistory) -> None:
    wanted: list[_Line] = [
        ("alpha_would", "by the law", {"color": ORANGE} | _UNDER),
        ("alpha", "as applied", {"color": BLUE}),
    ]
    ax.set_title("Throttle α", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(ax, history, wanted, "α (no unit)")
    if _scale(ax, shown, decades=1.3, include=(1.0,)) == "linear":
        ax.set_ylim(0, max(1.05, ax.get_ylim()[1]))
    _edges(ax, shown)


def _curvature_panel(ax: Axes, history: FitHistory) -> None:
    wanted: list[_Line] = [
        ("curvature_for_control", "max(C, S)", {"color": SKY} | _UNDER),
        ("curvature_proxy", "C", {"color": BLACK}),
        ("curvature_ema", "S", {"color": RED, "linestyle": "--"}),
    ]
    ax.set_title("Curvature", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(ax, history, wanted, "loss / weight²")
    _scale(ax, shown, decades=1)
    # The first step has no C by definition; its zero says nothing.
    _edges(ax, [(np.where(np.arange(len(array)) > 0, array, np.nan), look) for array, look in shown])


def _geometry_panels(cosine: Axes, angle: Axes, ratio: Axes, history: FitHistory) -> None:
    cosine.set_title("Update as applied against update as intended", loc="left", fontsize=11, fontweight="bold")
    shown = _lines(cosine, history, [("update_cosine", "cosine", {"color": BLUE})], "cosine", legend=False)
    if shown:
        low = max(-1.0, min([0.9, *_finite(history, "update_cosine")]))
        cosine.set_ylim(low - 0.06 * (1 - low), 1 + 0.06 * (1 - low))
    shown = _lines(
        angle, history, [("update_angle_rad", "angle", {"color": BLUE})], "angle (°)", legend=False, scale=180 / math.pi
    )
    if shown:
        # Below a degree an angle is as good as none, and often but the cosine's own rounding.
        high = min(180.0, max([1.0, *np.degrees(_finite(history, "update_angle_rad"))]))
        angle.set_ylim(-0.06 * high, 1.06 * high)
    shown = _lines(ratio, history, [("update_radius_ratio", "ratio", {"color": BLUE})], "length ratio", legend=False)
    if shown:
        ratio.axhline(1, color="#777777", linewidth=1, linestyle=":")
        high = max([1.0, *_finite(history, "update_radius_ratio")])
        if high > 5:
            _scale(ratio, shown, decades=0, include=(1.0,))
        else:
            ratio.set_ylim(-0.06 * high, 1.1 * high)
        _edges(ratio, shown)


def _polar_panel(ax: PolarAxes, figure: Figure, history: FitHistory) -> None:
    """Angle: how far the applied update points away from the intended one; radius: how long it is against it."""
    ax.set_title("Update phase: angle and length ratio", loc="left", fontsize=11, fontweight="bold", pad=16)
    ax.tick_params(labelsize=_SMALL)
    ax.tick_params(axis="y", pad=9)  # clear of the diamond
    ax.grid(color="#cccccc", linewidth=0.6)
    empty = np.zeros(0)
    angle, radius = history.get("update_angle_rad", empty), history.get("update_radius_ratio", empty)
    if "update_angle_rad" not in history or "update_radius_ratio" not in history:
        angle = radius = empty
    good = (angle >= 0) & (angle <= math.pi) & (radius >= 0)
    angle, radius, steps = angle[good], radius[good], np.flatnonzero(good)
    reach = 180 if angle.size and np.degrees(angle.max()) > 92 else 90
    ax.set_thetamin(0)
    ax.set_thetamax(reach)
    ax.set_thetagrids(np.arange(0, reach + 1, 30 if reach == 180 else 15))
    # What is longer than that is drawn on the rim: a few outliers shall not press the others together.
    top = 1.1 * min(4.0, max([1.0, *radius[np.isfinite(radius)]]))
    ax.set_ylim(0, top)
    ax.set_yticks([0.25, 0.5, 0.75, 1] if top < 1.6 else list(range(1, math.floor(top) + 1)))
    ax.set_rlabel_position(0)
    sweep = np.linspace(0, math.radians(reach), 100)
    ax.plot(sweep, np.ones(100), color="#888888", linewidth=1, linestyle=":", zorder=2)
    ax.plot(
        [0], [1], marker="D", markersize=11, markerfacecolor="none", markeredgecolor=RED, markeredgewidth=2,
        linestyle="none", zorder=5, clip_on=False, label="undistorted",
    )  # fmt: skip
    if not angle.size:
        ax.text(
            0.5, 0.5, _why_empty(history, "update_angle_rad", "update_radius_ratio"), transform=ax.transAxes,
            ha="center", va="center", color="#666666", fontsize=_SMALL + 1, backgroundcolor="white",
        )  # fmt: skip
        return
    look: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": max(1, history.steps - 1), "zorder": 4, "clip_on": False}
    beyond = radius > top
    dots = ax.scatter(angle[~beyond], radius[~beyond], c=steps[~beyond], s=18, linewidths=0, **look)
    if beyond.any():
        ax.scatter(
            angle[beyond], np.full(np.count_nonzero(beyond), top), c=steps[beyond], s=40, marker="^", linewidths=0.5,
            edgecolors="black", label=f"longer than {top:.2g}", **look,
        )  # fmt: skip
    # In the room which the sector leaves of its cell.
    upright = reach == 90
    place = (1.14, 0.15, 0.03, 0.7) if upright else (0.2, 0.02, 0.6, 0.03)
    bar = figure.colorbar(dots, cax=ax.inset_axes(place), orientation="vertical" if upright else "horizontal")
    bar.set_label("step", fontsize=_SMALL + 1)
    bar.ax.tick_params(labelsize=_SMALL)
    bar.outline.set_visible(False)
    bar.set_ticks(sorted({round(step) for step in np.linspace(0, history.steps - 1, 6)}))
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncol=2, frameon=False, fontsize=_SMALL)


def _fraction_panel(ax: Axes, history: FitHistory, title: str, wanted: list[_Line]) -> None:
    from matplotlib.ticker import PercentFormatter

    ax.set_title(title, loc="left", fontsize=11, fontweight="bold")
    peaks = {name: float(np.max(_finite(history, name), initial=0)) for name, _, _ in wanted}
    labelled = [
        (name, f"{label}: {_percent(peaks[name]) if peaks[name] else 'never'}", look)
        for name, label, look in wanted
        if name in history
    ]
    if _lines(ax, history, labelled or wanted, "largest share", legend=False):
        if len(labelled) > 3:  # too many for the title's line
            _legend(ax, loc="upper center", bbox_to_anchor=(0.5, -0.22))
        else:
            _legend(ax)
        high = min(max(peaks.values()), 1.0) or 1.0
        ax.set_ylim(-0.04 * high, 1.08 * high)
        ax.yaxis.set_major_formatter(PercentFormatter(1))


def _percent(share: float) -> str:
    return f"≤ {100 * share:.3g} %"


def _why_empty(history: FitHistory, *names: str) -> str:
    return "nothing finite to draw" if all(name in history for name in names) and history.steps else "not recorded"


def _finite(history: FitHistory, *names: str) -> Floats:
    """All values of these columns that are drawn as finite."""
    values: Floats = np.concatenate([np.zeros(0), *(history[name] for name in names if name in history)])
    return values[np.abs(values) <= _BOUND]


def _lines(
    ax: Axes,
    history: FitHistory,
    wanted: list[_Line],
    label: str,
    *,
    legend: bool = True,
    scale: float = 1.0,
) -> list[tuple[Floats, dict[str, Any]]]:
    """Draw what is there; the arrays drawn, with their look. None: the panel says so."""
    shown: list[tuple[Floats, dict[str, Any]]] = []
    thin = min(1.0, max(0.4, math.sqrt(300 / max(history.steps, 1))))  # long runs would be a block of colour
    ax.set_ylabel(label, fontsize=_SMALL + 1)
    ax.set_autoscaley_on(False)  # the panel sets its limits: matplotlib's overflow on a log axis that ends near the largest float
    for name, text, look in wanted:
        if not (name in history and np.count_nonzero(~np.isnan(history[name]))):
            continue
        array = np.where(np.abs(history[name]) > _BOUND, np.copysign(math.inf, history[name]), history[name]) * scale
        good = np.isfinite(array)
        # A value between two that are missing is no line; it gets a dot.
        alone = good & ~np.append(False, good[:-1]) & ~np.append(good[1:], False)
        ax.plot(
            np.where(good, array, np.nan), label=text, marker="o", markersize=5, markevery=np.flatnonzero(alone).tolist(),
            **(look | {"linewidth": thin * look.get("linewidth", 1.5)}),
        )  # fmt: skip
        shown.append((array, look))
    if not shown:
        why = _why_empty(history, *(name for name, _, _ in wanted))
        ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color="#666666", fontsize=_SMALL + 1)
        ax.set_yticks([])
        return shown
    if legend:
        _legend(ax)
    return shown


def _legend(ax: Axes, **place: Any) -> None:
    """Outside the axes, never over data: above, to the right of the title, if not told otherwise."""
    legend = ax.legend(
        **({"loc": "lower right", "bbox_to_anchor": (1.01, 1.02)} | place), ncol=3, frameon=False, fontsize=_SMALL,
        borderpad=0.2, columnspacing=1.2, handlelength=1.6, handletextpad=0.5,
    )  # fmt: skip
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set(marker="")


def _scale(ax: Axes, shown: list[tuple[Floats, dict[str, Any]]], *, decades: float, include: tuple[float, ...] = ()) -> str:
    """A logarithmic axis where the values span more than so many decades; "log" or "linear"."""
    from matplotlib.ticker import LogLocator

    values = np.concatenate([np.array(include, np.float64), *(array for array, _ in shown)])
    values = values[np.isfinite(values)]
    positive = np.maximum(values[values > 0], 1 / _BOUND)
    if not positive.size or positive.max() <= positive.min() * 10.0**decades:
        if values.size:
            low, high = float(values.min()), float(values.max())
            room = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
            ax.set_ylim(low - room, high + room)
        return "linear"
    low, high = math.log10(positive.min()), math.log10(positive.max())
    room = min(max(0.06 * (high - low), 0.05), 3.0)
    ax.set_yscale("log", nonpositive="mask")
    ax.set_ylim(10 ** (low - room), 10 ** (high + room))
    short = high - low < 2.5
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if short else (1,), numticks=8 if not short else 12))
    plain = low > -3.3 and high < 4.3
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}" if plain else _power(value))
    ax.minorticks_off()
    return "log"


def _power(value: float) -> str:
    """A tick's number as a digit times a power of ten, without mathematical text."""
    power = math.floor(math.log10(value) + 1e-9)
    digit = round(value / 10.0**power)
    raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return "1" if digit == 1 and not power else f"10{raised}" if digit == 1 else f"{digit}·10{raised}"


def _edges(ax: Axes, shown: list[tuple[Floats, dict[str, Any]]]) -> None:
    """Triangles on the edge for what has no place on the axis: infinities, and on a logarithmic axis what is not above 0."""
    for array, look in shown:
        low = array == -math.inf
        if ax.get_yscale() == "log":
            low |= array <= 0
        for where, height, marker in ((array == math.inf, 1.0, "^"), (low, 0.0, "v")):
            steps = np.flatnonzero(where)
            if steps.size:
                ax.plot(
                    steps, np.full(steps.size, height), marker=marker, markersize=6, linestyle="none", color=look["color"],
                    clip_on=False, transform=ax.get_xaxis_transform(), zorder=5, markeredgewidth=0,
                )  # fmt: skip


def _finish(ax: Axes, history: FitHistory, *, bottom: bool) -> None:
    """What all panels over the steps have in common."""
    from matplotlib.ticker import MaxNLocator

    last = max(history.steps - 1, 0)
    ax.set_xlim(-0.5 - 0.01 * last, last * 1.01 + 0.5)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.tick_params(labelsize=_SMALL, labelbottom=bottom)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(color="#dddddd", linewidth=0.6)
    ax.set_axisbelow(True)
    if bottom:
        ax.set_xlabel("step", fontsize=_SMALL + 1)
    if history.diverged_at is not None:
        ax.axvline(history.diverged_at, color=PINK, linewidth=1.5, linestyle="-.", zorder=1)
