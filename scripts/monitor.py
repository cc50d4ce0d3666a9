"""``kappa-rtl monitor``: the diagnostic protocol on logged training runs."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import NDArray

from ..golden.files import write_atomically
from ..golden.protocol.rules import PUBLISHED, DiagnosticThresholds, Outcome, growth, replay, short
from ..golden.protocol.trace import Row, load_traces
from .outputs import Output
from .style import STYLE

DEMO = Path(__file__).with_name("monitor_demo.json")
"""Runs of `kappa-rtl calibrate norm` with seed 0, backpropagation and feedback alignment."""

RULE = "=" * 72
# Okabe and Ito's colours, which the colour-blind can tell apart.
LOOKS = (("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#E69F00", "-"), ("#000000", "--"))
TITLES = ("(a) largest growth over a block", "(b) gradient at the last hidden state", "hidden norms, by block", "accuracy")
LIMIT: dict[str, Any] = {"color": "#444444", "lw": 1.2, "ls": (0, (4, 3))}


@click.command("monitor")
@click.argument("trace", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--demo", is_flag=True, help="Replay the trace that comes with the package in place of TRACE.")
@click.option("--every", type=click.IntRange(1), default=1, show_default=True, help="Check only epochs that this divides.")
@click.option(
    "--ratio", type=float, default=PUBLISHED.h_norm_explosion_ratio, show_default=True, help="(a): growth of the hidden norm."
)
@click.option("--floor", type=float, default=PUBLISHED.g_norm_floor, show_default=True, help="(b): norm of the last gradient.")
@click.option("--plot", type=Output(".png"), help="Draw norms and thresholds into this .png.")
def command(trace: Path | None, demo: bool, every: int, ratio: float, floor: float, plot: Path | None) -> None:
    """Replay TRACE.json: where the diagnostic protocol would have stopped each of its runs, and what that saves.

    A trace is an object with logs such as bp_log and dfa_log, each a list of rows with epoch, hidden_norms,
    bp_grad_norms_per_sample_med and acc_eval; TrainingMonitor.save writes it.

    \b
    Example:
      kappa-rtl monitor --demo
      kappa-rtl monitor docs/traces/norm-0.json --every 5 --plot norms.png
    """
    if demo == (trace is not None):
        raise click.UsageError("TRACE and --demo must not both be given" if demo else "Missing argument 'TRACE', or --demo.")
    trace = trace or DEMO
    try:
        thresholds = DiagnosticThresholds(h_norm_explosion_ratio=ratio, g_norm_floor=floor)
    except ValueError as error:
        said = str(error).replace("h_norm_explosion_ratio", "--ratio").replace("g_norm_floor", "--floor")
        raise click.ClickException(said) from None
    try:
        title, logs = load_traces(trace)
        outcomes = [_replayed(trace, name, log, thresholds, every) for name, log in logs.items()]
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(
        f"{RULE}\nEARLY-STOP SIMULATION: {title}\nUsing the diagnostic protocol as an in-training abort condition.\n{RULE}"
    )
    for outcome in outcomes:
        click.echo(f"\n=== {outcome.name} (simulating early-stop with the protocol) ===\n{outcome}")
    click.echo("\nCompute saved by using the protocol as an early-stop criterion:")
    for outcome in outcomes:
        click.echo(f"  {outcome.name}: {100 * outcome.saved:.0f}% ({_why(outcome)})")
    if plot:
        write_atomically(plot, draw(title, list(zip(outcomes, logs.values(), strict=True)), thresholds))
        click.echo(f"\nplot: {plot}")


def _replayed(trace: Path, name: str, log: list[Row], thresholds: DiagnosticThresholds, every: int) -> Outcome:
    """The outcome of a log; refused where no epoch of it would be looked at."""
    try:
        return replay(log, name.upper(), thresholds, every)
    except ValueError as error:
        raise ValueError(f"{trace}: {name}_log: {str(error).replace('every =', '--every')}") from None


def _why(outcome: Outcome) -> str:
    if outcome.fired_epoch is None:
        return f"protocol never fires, {outcome.name} runs to completion"
    return f"protocol fires at epoch {outcome.fired_epoch} of a {outcome.final_epoch}-epoch run"


def draw(title: str, runs: list[tuple[Outcome, list[Row]]], thresholds: DiagnosticThresholds) -> bytes:
    """A .png: growth and last gradient against their thresholds, the hidden norms of all blocks, the accuracy, by epoch."""
    ratio, floor = thresholds.h_norm_explosion_ratio, thresholds.g_norm_floor
    with mpl.rc_context(STYLE):  # type: ignore[arg-type]  # the stubs want each key as a literal
        figure = Figure(figsize=(11, 7.2), layout=ConstrainedLayoutEngine())
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=13, fontweight="bold", parse_math=False)
        axes: list[Axes] = list(figure.subplots(2, 2).ravel())
        for (outcome, log), (colour, dash) in zip(runs, LOOKS * len(runs), strict=False):
            epochs = np.array([row["epoch"] for row in log])
            look: dict[str, Any] = {"color": colour, "ls": dash}
            hidden = _columns([row["hidden_norms"] for row in log])
            last = _columns([row["bp_grad_norms_per_sample_med"][-1:] for row in log])
            curves: tuple[Sequence[Sequence[float] | NDArray[np.float64]], ...] = (
                [[growth(row["hidden_norms"]) for row in log]],
                last,
                hidden,
                [[row["acc_eval"] for row in log]],
            )
            for panel, (ax, columns) in enumerate(zip(axes, curves, strict=True)):
                for i, column in enumerate(columns):
                    y = np.array(column, np.float64)
                    y[~np.isfinite(y) | (np.abs(y) > 1e100) | ((y <= 0) & (panel < 3))] = np.nan
                    # Of the blocks the last is drawn full, those before it the paler the earlier.
                    depth = (i + 1) / len(columns)
                    ax.plot(epochs, y, label=outcome.name if depth == 1 else None, alpha=0.25 + 0.75 * depth, **look)
                if outcome.fired_epoch is not None:
                    label = f"{outcome.name} stopped" if panel == 3 else None
                    ax.axvline(outcome.fired_epoch, color=colour, lw=1.2, ls=":", label=label)
        for ax, heading in zip(axes, TITLES, strict=True):
            ax.set_title(heading)
            ax.set_xlabel("epoch")
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        for ax, limit, side in ((axes[0], ratio, "above"), (axes[1], floor, "below")):
            ax.axhline(limit, **LIMIT)
            said = f"fires {side} {short(limit)}"
            ax.annotate(said, (0.99, limit), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=9)
        for ax in axes[:3]:
            ax.set_yscale("log")
            low, high = ax.get_ylim()
            if high < 1e3 * low:
                ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
        axes[3].legend(loc="best")
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _columns(rows: list[list[float]]) -> list[NDArray[np.float64]]:
    """Each place of the rows as a curve; NaN where a row is shorter."""
    width = max(map(len, rows), default=0)
    return list(np.array([row + [math.nan] * (width - len(row)) for row in rows], np.float64).reshape(len(rows), width).T)


if __name__ == "__main__":
    command(prog_name="python -m kappa_rtl.scripts.monitor")
