"""The diagnostic protocol: may the accuracy of a trained network be trusted, and should a run go on?

A network can learn its last layer alone while its blocks blow up, and still report an accuracy. Four flags tell:

    (a)  max over l of h[l+1] / max(h[l], 1e-30) > 50     h: norms of the hidden states, from block to block
    (b)  g[-1] < 1e-7                                     g: norms of the mean loss's gradient at the hidden states
    (c)  mean cosine between batches' gradients > 0.3     drift; a note, unless the thresholds let it decide
    (d)  accuracy - accuracy with the blocks frozen < 2   percentage points

Comparisons are strict as written. What is not finite fires its flag wherever it stands. :class:`TrainingMonitor` asks (a) and (b)
during a run and stops it; :func:`diagnose` asks all four of a trained model. docs/protocol.md has the calibration.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..numbers import is_number, number, whole
from .observing import Diagnosable, Observable, gradient_norms, gradient_sizes, hidden_norms, medians, not_finite, state_sizes
from .trace import Row, norms, parse, row, save_traces

TRUSTWORTHY = "trustworthy"
TINY = 1e-30
"""No hidden norm divides the next one by less."""


@dataclass(frozen=True, kw_only=True)
class DiagnosticThresholds:
    """What the flags compare with; the defaults are the published values.

    Args:
        h_norm_explosion_ratio: (a), growth of the hidden norm over one block.
        g_norm_floor: (b), of a sample's row of the gradient of the loss's mean over the samples: a sample's own loss has a
            gradient as many times larger as there are samples, see :meth:`per_sample`.
        stability_drift_ceiling: (c), a cosine: above it the gradient is the same vector whatever the batch.
        frozen_acc_margin_pp: (d), percentage points that the blocks must be worth.
        drift_decides: whether (c) counts for the verdict. It tells how a run fails rather than whether.

    Raises:
        ValueError: names the field, the value and the rule.
    """

    h_norm_explosion_ratio: float = 50.0
    g_norm_floor: float = 1e-7
    stability_drift_ceiling: float = 0.3
    frozen_acc_margin_pp: float = 2.0
    drift_decides: bool = False

    def __post_init__(self) -> None:
        for name in ("h_norm_explosion_ratio", "g_norm_floor"):
            if not (is_number(getattr(self, name)) and 0 < getattr(self, name) < math.inf):
                raise ValueError(f"{name} must be a finite number greater than 0, not {getattr(self, name)!r}")
        if not (is_number(self.stability_drift_ceiling) and -1 <= self.stability_drift_ceiling <= 1):
            raise ValueError(f"stability_drift_ceiling must be a number from -1 to 1, not {self.stability_drift_ceiling!r}")
        if not (is_number(self.frozen_acc_margin_pp) and 0 <= self.frozen_acc_margin_pp <= 100):
            raise ValueError(f"frozen_acc_margin_pp must be a number from 0 to 100, not {self.frozen_acc_margin_pp!r}")
        if not isinstance(self.drift_decides, bool):
            raise ValueError(f"drift_decides must be True or False, not {self.drift_decides!r}")

    def per_sample(self, samples: int) -> DiagnosticThresholds:
        """The same thresholds for norms of each sample's own gradient, where so many samples are measured."""
        return replace(self, g_norm_floor=self.g_norm_floor * whole("samples", samples, 1))

    def flags(self, hidden_norms: ArrayLike, gradient_norms: ArrayLike) -> list[str]:
        """(a) and (b) as far as they fire, in words that begin with the letter: ``(a) per-block growth 63× > 50×``.

        Args:
            hidden_norms: (L+1,) one norm a hidden state.
            gradient_norms: one a hidden state too, the last one that of the network's output side; at least one.
        """
        hidden, gradients = norms("hidden_norms", hidden_norms), norms("gradient_norms", gradient_norms)
        if not gradients.size:
            raise ValueError("gradient_norms must hold at least one norm, not none")
        fired = []
        ratio, floor = self.h_norm_explosion_ratio, self.g_norm_floor
        if (place := not_finite(hidden)) is not None:
            fired.append(f"(a) hidden norm {place} is {hidden[place]}")
        elif (most := growth(hidden)) > ratio:
            form = ".0f" if most < 1e7 else ".1e"
            fired.append(f"(a) per-block growth {_beyond(most, form, ratio)}× > {short(ratio)}×")
        if (place := not_finite(gradients)) is not None:
            fired.append(f"(b) gradient norm {place} is {gradients[place]}")
        elif gradients[-1] < floor:
            fired.append(f"(b) ‖g_L‖ {_beyond(gradients[-1], '.1e', floor)} < {short(floor)}")
        return fired


PUBLISHED = DiagnosticThresholds()


def growth(hidden_norms: ArrayLike) -> float:
    """The largest growth over one block, ``h[l+1] / max(h[l], 1e-30)``; 1 for fewer than two norms, NaN if one is not finite."""
    hidden = norms("hidden_norms", hidden_norms)
    if not_finite(hidden) is not None:
        return math.nan
    if hidden.size < 2:
        return 1.0
    with np.errstate(over="ignore"):  # an infinite ratio is above any threshold, as it should be
        return float(np.max(hidden[1:] / np.maximum(hidden[:-1], TINY)))


def direction_stability(gradients: Sequence[ArrayLike]) -> float:
    """The mean cosine over all pairs of at least two gradients (P,); 0 for a pair with a zero gradient.

    NaN if an element is not finite.
    """
    stacked = np.stack([np.asarray(gradient, np.float64).ravel() for gradient in gradients])
    count = len(stacked)
    if count < 2:
        raise ValueError(f"gradients must be at least 2, not {count}")
    if not np.isfinite(stacked).all():
        return math.nan
    # Scaled first: squares of the elements must neither overflow nor vanish.
    peak = np.max(np.abs(stacked), axis=1, keepdims=True, initial=0.0)
    scaled = stacked / np.where(peak > 0, peak, 1.0)
    units = scaled / np.maximum(np.linalg.norm(scaled, axis=1, keepdims=True), 1.0)
    # The cosines of all pairs, both ways round, without the pairs of a gradient with itself.
    return float((np.sum(np.sum(units, axis=0) ** 2) - np.sum(units**2)) / (count * (count - 1)))


def verdict_of(flags: Sequence[str]) -> str:
    """``trustworthy``, or by which flags the result is taken back: ``walked back via (a)+(b)``."""
    return f"walked back via {'+'.join(flag[:3] for flag in flags)}" if flags else TRUSTWORTHY


# ---- of a trained model


@dataclass(frozen=True)
class DiagnosticReport:
    """What the protocol found.

    Attributes:
        method_name: of the method that trained the model.
        hidden_norms, gradient_norms: over all samples of all batches.
        growth, direction: of (a) and (c).
        samples: how many the gradient's norms are of: a sample's own is so many times larger.
        headline_acc, frozen_baseline_acc: as given.
        flags: those that decide, in words; none is good.
        notes: (c) where it is above its threshold and does not decide.
    """

    method_name: str
    hidden_norms: tuple[float, ...]
    gradient_norms: tuple[float, ...]
    growth: float
    direction: float
    samples: int
    headline_acc: float
    frozen_baseline_acc: float
    flags: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """``trustworthy``, or ``walked back via`` and the letters of the flags."""
        return verdict_of(self.flags)

    def __str__(self) -> str:
        lines = [
            f"{self.method_name}: {self.verdict}",
            f"  (a) per-block growth {self.growth:.3g}",
            f"  (b) ‖g_L‖ {self.gradient_norms[-1]:.1e} (a sample's own: {self.gradient_norms[-1] * self.samples:.1e})",
            f"  (c) gradient direction between batches {self.direction:z.2f}",
            f"  (d) accuracy {self.headline_acc:.4f}, with frozen blocks {self.frozen_baseline_acc:.4f}",
            *(f"  fired: {flag}" for flag in self.flags),
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def diagnose(
    model: Diagnosable,
    eval_batches: Sequence[tuple[Any, Any]],
    headline_acc: float,
    frozen_baseline_acc: float,
    method_name: str,
    thresholds: DiagnosticThresholds = PUBLISHED,
) -> DiagnosticReport:
    """Ask all four flags of a trained model.

    Args:
        model: see :class:`Diagnosable`.
        eval_batches: at least two batches ``(x, y)``, always the same ones, of whatever the model takes. (a) and (b) take all
            of their samples together, (c) compares them.
        headline_acc: the accuracy that is to be trusted, 0..1.
        frozen_baseline_acc: what the same network reaches when only its head is trained.
        method_name: of the report.

    Raises:
        ValueError: fewer than two batches, an accuracy that is no number, or norms that are none.
    """
    batches = list(eval_batches)
    if len(batches) < 2:
        raise ValueError(f"eval_batches must be at least 2, not {len(batches)}")
    headline, frozen = number("headline_acc", headline_acc), number("frozen_baseline_acc", frozen_baseline_acc)
    states = [state_sizes(model, x) for x, _ in batches]
    counts = [one.shape[-1] for one in states]
    samples = sum(counts)
    # Of the mean over all samples: a batch's own mean weighs as much as it has samples.
    rows = [gradient_sizes(model, *batch) * (n / samples) for batch, n in zip(batches, counts, strict=True)]
    hidden = norms("hidden_norms", np.concatenate(states, axis=1).mean(axis=1))
    gradients = norms("gradient_norms", medians(np.concatenate(rows, axis=1)))
    flags = thresholds.flags(hidden, gradients)
    notes: list[str] = []
    direction = direction_stability([model.gradient(*batch) for batch in batches])
    ceiling, margin = thresholds.stability_drift_ceiling, thresholds.frozen_acc_margin_pp
    if math.isnan(direction):
        flags.append("(c) a batch's gradient is not finite")
    elif direction > ceiling:
        said = f"(c) gradient direction between batches {_beyond(direction, 'z.2f', ceiling)} > {short(ceiling)}: drift"
        (flags if thresholds.drift_decides else notes).append(said)
    if not (math.isfinite(headline) and math.isfinite(frozen)):
        flags.append(f"(d) accuracy {headline:.4f}, with frozen blocks {frozen:.4f}")
    elif (gain := 100 * (_decimal(headline) - _decimal(frozen))) < _decimal(margin):
        shown = min(float(gain), math.nextafter(margin, -math.inf))  # what is less by less than a float tells
        flags.append(f"(d) {_beyond(shown, 'z.1f', margin)} pp over frozen blocks < {short(margin)} pp")
    return DiagnosticReport(
        method_name,
        tuple(hidden.tolist()),
        tuple(gradients.tolist()),
        growth(hidden),
        direction,
        samples,
        headline,
        frozen,
        tuple(flags),
        tuple(notes),
    )


def _decimal(value: float) -> Fraction:
    """The decimal that a float prints as: two accuracies that are written two points apart are two points apart."""
    return Fraction(repr(value))


# ---- of a run, epoch by epoch


@dataclass(frozen=True)
class Outcome:
    """What the protocol makes of a run.

    Attributes:
        name: of the run.
        final_epoch, final_accuracy: of the whole run; the accuracy is None where the run was stopped and nobody knows it.
        fired_epoch, fired_accuracy: of the first row with a flag; None without one.
        flags: those of that row.
    """

    name: str
    final_epoch: int
    final_accuracy: float | None
    fired_epoch: int | None = None
    fired_accuracy: float | None = None
    flags: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``trustworthy``, or ``walked back via`` and the letters of the flags."""
        return verdict_of(self.flags)

    @property
    def epochs_saved(self) -> int:
        """How many epochs a run that stops at the flag does not make; 0 without one."""
        return 0 if self.fired_epoch is None else self.final_epoch - self.fired_epoch

    @property
    def saved(self) -> float:
        """The share of all epochs that is saved, 0..1."""
        return self.epochs_saved / self.final_epoch if self.final_epoch else 0.0

    @property
    def gain(self) -> float:
        """What the accuracy gains from the flag to the end, 0..1; NaN without a flag, or where the end is not known."""
        if self.fired_accuracy is None or self.final_accuracy is None:
            return math.nan
        return self.final_accuracy - self.fired_accuracy

    def __str__(self) -> str:
        if self.fired_epoch is None or self.fired_accuracy is None:
            return (
                f"  No flag fired in {self.final_epoch} epochs. Final acc: {self.final_accuracy:.4f}\n"
                f"  Verdict: {self.verdict}. Run to completion."
            )
        lines = [
            f"  Protocol fires at epoch {self.fired_epoch}: {' AND '.join(self.flags)}",
            f"  Acc at fire epoch: {self.fired_accuracy:.4f}",
        ]
        saves = f"{self.epochs_saved} epochs ({100 * self.saved:.0f}% compute)"
        if self.final_accuracy is None:
            lines.append(f"  -> Stopped at epoch {self.fired_epoch} of {self.final_epoch}: saves {saves}.")
        else:
            lines += [
                f"  Acc at final epoch (would have been): {self.final_accuracy:.4f}",
                f"  Diff (final - fire-time): {100 * self.gain:+.1f} pp",
                f"  -> Stopping at epoch {self.fired_epoch} would save {saves}, {_price(100 * self.gain)}.",
            ]
        return "\n".join([*lines, f"  Verdict: {self.verdict}."])


class TrainingMonitor:
    """Watches a training run: keeps its trace and says when to stop it.

    The loop hands in what it measured after each epoch, or has it measured by :meth:`observe`::

        monitor = TrainingMonitor(epochs=100)
        for epoch in range(1, 101):
            train_one_epoch(model)
            if monitor.observe(epoch, model, x, y, accuracy(model)):
                break
        print(monitor.outcome())

    Args:
        thresholds: of (a) and (b).
        every: rows whose epoch it divides are checked; a row that is not finite is always.
        epochs: how many the run is to make, for what a stop saves; None: as many as are recorded.
        name: of the run, in texts and in the file.

    Attributes:
        trace: all rows so far, in the words of the published logs.
        stopped: the first row that fired, None before; ``flags`` are its flags.
    """

    def __init__(
        self,
        thresholds: DiagnosticThresholds = PUBLISHED,
        every: int = 1,
        *,
        epochs: int | None = None,
        name: str = "run",
    ) -> None:
        for label, value in (("every", every), ("epochs", epochs)):
            if value is not None:
                whole(label, value, 1)
        if not isinstance(name, str) or not name:
            raise ValueError(f"name must be a string that is not empty, not {name!r}")
        self.thresholds, self.every, self.epochs, self.name = thresholds, every, epochs, name
        self.trace: list[Row] = []
        self._checked = False  # whether an epoch was, not only what was there before the first
        self.stopped: Row | None = None
        self.flags: tuple[str, ...] = ()

    def record(self, epoch: int, hidden_norms: ArrayLike, bp_grad_norms: ArrayLike, accuracy: float) -> list[str]:
        """Add a row to the trace; the flags that fire in it, none is good.

        Args:
            epoch: how many are done, greater than in the row before.
            hidden_norms: (L+1,) as of :func:`hidden_norms`.
            bp_grad_norms: as of :func:`gradient_norms`.
            accuracy: on the samples that the run is judged by, 0..1.
        """
        return self.add(row(epoch, hidden_norms, bp_grad_norms, accuracy))

    def add(self, made: Row) -> list[str]:
        """:meth:`record` a row that is one already."""
        if self.trace and made["epoch"] <= self.trace[-1]["epoch"]:
            raise ValueError(f"epoch must be greater than the last, {self.trace[-1]['epoch']}, not {made['epoch']}")
        self.trace.append(made)
        finite = np.isfinite([*made["hidden_norms"], *made["bp_grad_norms_per_sample_med"], made["acc_eval"]]).all()
        if finite and made["epoch"] % self.every:
            return []
        self._checked |= made["epoch"] > 0 or not finite
        fired = self.thresholds.flags(made["hidden_norms"], made["bp_grad_norms_per_sample_med"])
        if not math.isfinite(made["acc_eval"]):
            fired.append(f"(d) accuracy is {made['acc_eval']}")
        if fired and self.stopped is None:
            self.stopped, self.flags = made, tuple(fired)
        return fired

    def observe(self, epoch: int, model: Observable, x: Any, y: Any, accuracy: float) -> list[str]:
        """:meth:`record` what ``model`` shows on the samples ``x``, ``y``, which stay the same for a whole run."""
        return self.record(epoch, hidden_norms(model, x), gradient_norms(model, x, y), accuracy)

    @property
    def verdict(self) -> str:
        """``trustworthy`` so far, ``walked back via (a)`` or the like, ``nothing recorded``, or ``nothing checked`` of it yet."""
        if not self.trace:
            return "nothing recorded"
        return verdict_of(self.flags) if self._checked or self.flags or self._started else "nothing checked"

    @property
    def _started(self) -> bool:
        """Whether nothing but the start, which was looked at, is there."""
        return self.trace[-1]["epoch"] == 0

    def outcome(self) -> Outcome:
        """What the run comes to: the verdict and what stopping saves.

        Raises:
            ValueError: nothing is recorded, or no epoch of it was checked.
        """
        if not self.trace:
            raise ValueError(f"the log of {self.name} must have at least one row, not none")
        if self.verdict == "nothing checked":
            raise ValueError(f"the log of {self.name} must have an epoch that every = {self.every} divides: nothing is checked")
        last = self.trace[-1]
        final = max(last["epoch"], self.epochs or 0) if last is self.stopped else last["epoch"]
        known = last["acc_eval"] if final == last["epoch"] else None
        if self.stopped is None:
            return Outcome(self.name, final, known)
        return Outcome(self.name, final, known, self.stopped["epoch"], self.stopped["acc_eval"], self.flags)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the trace as JSON, all or nothing; :func:`~kappa_rtl.golden.protocol.trace.load_traces` reads it."""
        return save_traces(path, {self.name: self.trace})


def replay(
    log: Sequence[Mapping[str, Any]], name: str = "run", thresholds: DiagnosticThresholds = PUBLISHED, every: int = 1
) -> Outcome:
    """What the monitor would have made of a logged run.

    Args:
        log: rows with the keys of :class:`~kappa_rtl.golden.protocol.trace.Row`, at least one, epochs ascending; other
            keys are let be.
        name, thresholds, every: as for :class:`TrainingMonitor`.

    Raises:
        ValueError: the log is empty or a row is none; names the row, the field, the value and the rule.
    """
    monitor = TrainingMonitor(thresholds, every, name=name)
    for i, entry in enumerate(log):
        monitor.add(parse(entry, f"{name}[{i}]"))
    return monitor.outcome()


def short(value: float) -> str:
    """``50``, ``1e-7``: without the zeros of an exponent."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e+")


def _beyond(value: float, form: str, bound: float) -> str:
    """The value in its format, or with as many digits as it takes to show it on its own side of the bound."""
    candidates = (form, *(f".{digits}g" for digits in range(2, 18)))  # 17 digits tell any two floats apart
    side = math.copysign(1.0, value - bound)
    return next(shown for form in candidates if (float(shown := format(value, form)) - bound) * side > 0)


def _price(gain: float) -> str:
    """What stopping costs in accuracy, if the rest of the run would have gained so many percentage points."""
    if not math.isfinite(gain):
        return "accuracies not comparable"
    return f"with a headline acc loss of {gain:.1f} pp" if gain > 0 else "with no headline acc loss"
