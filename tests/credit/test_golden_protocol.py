"""The diagnostic protocol: its four flags at their edges, the monitor of a run, traces in files."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kappa_rtl.golden.protocol.observing import gradient_norms, hidden_norms
from kappa_rtl.golden.protocol.rules import (
    PUBLISHED,
    DiagnosticThresholds,
    TrainingMonitor,
    diagnose,
    direction_stability,
    growth,
    replay,
)
from kappa_rtl.golden.protocol.trace import load_traces, save_traces

INF, NAN = math.inf, math.nan
BAD = pytest.mark.parametrize("bad", [NAN, INF])
FINE: dict[str, Any] = {"hidden_norms": [1.0, 2.0, 3.0], "bp_grad_norms_per_sample_med": [0.3, 0.2, 0.1], "acc_eval": 0.5}


def entry(epoch: int, **changed: Any) -> dict[str, Any]:
    return {"epoch": epoch, **FINE, **changed}


def letters(flags: list[str] | tuple[str, ...]) -> str:
    return "".join(flag[1] for flag in flags)


# ---- (a) and (b)


def test_growth() -> None:
    assert growth([1.0, 4.0, 6.0, 60.0]) == 10
    assert growth([]) == growth([7.0]) == 1.0
    assert growth([0.0, 2e-30]) == 2.0 and growth([0.0, 0.0]) == 0.0
    assert growth([0.0, 1e300]) == INF
    assert growth([5, 10]) == 2, "integers are norms too"


def test_thresholds_are_strict() -> None:
    """Exactly the threshold is fine, one float beyond it is not."""
    over, under = math.nextafter(50.0, INF), math.nextafter(1e-7, 0)
    assert PUBLISHED.flags([1.0, 50.0], [1e-7]) == []
    assert PUBLISHED.flags([1.0, over], [1e-7]) == [f"(a) per-block growth {over!r}× > 50×"]
    assert PUBLISHED.flags([1.0, 50.0], [under]) == [f"(b) ‖g_L‖ {under!r} < 1e-7"]


def test_wording() -> None:
    assert PUBLISHED.flags([1.0, 63.2], [1.0, 3.96e-9]) == ["(a) per-block growth 63× > 50×", "(b) ‖g_L‖ 4.0e-09 < 1e-7"]
    own = DiagnosticThresholds(h_norm_explosion_ratio=12.5, g_norm_floor=0.02)
    assert own.flags([1.0, 13.0], [0.01]) == ["(a) per-block growth 13× > 12.5×", "(b) ‖g_L‖ 1.0e-02 < 0.02"]
    assert PUBLISHED.flags([1.0], [0.0]) == ["(b) ‖g_L‖ 0.0e+00 < 1e-7"]
    assert PUBLISHED.flags([1.0, 2.5e140], [1.0]) == ["(a) per-block growth 2.5e+140× > 50×"], "no line of 140 digits"
    near = DiagnosticThresholds(h_norm_explosion_ratio=0.3)
    assert near.flags([1.0, 0.1 + 0.2], [1.0]) == ["(a) per-block growth 0.30000000000000004× > 0.3×"]


def test_only_the_last_gradient_counts() -> None:
    assert PUBLISHED.flags([1.0], [1e-12, 1e-3]) == []
    assert letters(PUBLISHED.flags([1.0], [1e-3, 1e-12])) == "b"


@BAD
@pytest.mark.parametrize("place", range(4))
def test_what_is_not_finite_fires_wherever_it_stands(place: int, bad: float) -> None:
    """Python's max() drops a NaN unless it comes first."""
    norms = [1.0, 2.0, 3.0, 4.0]
    norms[place] = bad
    assert PUBLISHED.flags(norms, [0.1]) == [f"(a) hidden norm {place} is {bad}"]
    assert PUBLISHED.flags([1.0, 2.0], norms) == [f"(b) gradient norm {place} is {bad}"]
    assert letters(PUBLISHED.flags(norms, norms)) == "ab"


NORMS = st.floats(0) | st.just(NAN)


@given(st.lists(NORMS, max_size=6), st.lists(NORMS | st.floats(0, 2e-7), min_size=1, max_size=6))
def test_flags_against_the_page(hidden: list[float], gradients: list[float]) -> None:
    """The formulas of the page, element by element."""
    ratios = [after / max(before, 1e-30) for before, after in itertools.pairwise(hidden)]
    a = any(not math.isfinite(h) for h in hidden) or any(ratio > 50 for ratio in ratios)
    b = any(not math.isfinite(g) for g in gradients) or gradients[-1] < 1e-7
    assert letters(PUBLISHED.flags(hidden, gradients)) == "a" * a + "b" * b


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("h_norm_explosion_ratio", 0, "must be a finite number greater than 0, not 0"),
        ("h_norm_explosion_ratio", INF, "must be a finite number greater than 0, not inf"),
        ("g_norm_floor", NAN, "must be a finite number greater than 0, not nan"),
        ("g_norm_floor", "1e-7", "must be a finite number greater than 0, not '1e-7'"),
        ("stability_drift_ceiling", 1.5, "must be a number from -1 to 1, not 1.5"),
        ("frozen_acc_margin_pp", -1, "must be a number from 0 to 100, not -1"),
        ("drift_decides", 1, "must be True or False, not 1"),
    ],
)
def test_thresholds_are_checked(field: str, value: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} {rule}"):
        DiagnosticThresholds(**{field: value})


# ---- (c)


def test_direction() -> None:
    x, y, zero = np.eye(2)[0], np.eye(2)[1], np.zeros(2)
    assert direction_stability([x, 3 * x, 1e-3 * x]) == pytest.approx(1)
    assert direction_stability([x, -x]) == pytest.approx(-1)
    assert direction_stability([x, x, y]) == pytest.approx(1 / 3)
    assert direction_stability([x, zero]) == direction_stability([zero, zero]) == 0
    assert direction_stability([1e300 * x + 1e300 * y, 1e-300 * x]) == pytest.approx(1 / math.sqrt(2)), "no overflow on the way"
    for bad in (NAN, INF):
        assert math.isnan(direction_stability([x, np.array([1.0, bad])]))
    with pytest.raises(ValueError, match="must be at least 2, not 1"):
        direction_stability([x])


# ---- diagnose


class Model:
    """A model whose states and gradients have the norms that it is told; the gradient of a batch is y's first row."""

    def __init__(self, hidden: list[float] = FINE["hidden_norms"], gradients: list[float] = [0.2, 0.1]) -> None:  # noqa: B006
        self.hidden, self.gradients = hidden, gradients

    def hidden_states(self, x: Any) -> list[Any]:
        return [np.tile([0.6 * norm, -0.8 * norm], (len(x), 1)) for norm in self.hidden]

    def hidden_gradients(self, x: Any, y: Any) -> list[Any]:
        """Those of the batch's mean are as many times those of all samples' as all samples are of its own."""
        share = 6 / len(x)
        return [np.tile([[0.6 * share * norm], [0.8 * share * norm]], (len(x), 1, 1)) for norm in self.gradients]

    def gradient(self, x: Any, y: Any) -> Any:
        return y[0]


def batches(*directions: list[float]) -> list[tuple[Any, Any]]:
    return [(np.zeros((6 // len(directions), 3)), np.tile(direction, (6 // len(directions), 1))) for direction in directions]


ALIKE = batches([1.0, 0.1], [1.0, -0.1])
ACROSS = batches([1.0, 0.0], [0.0, 1.0])


def test_a_trustworthy_model() -> None:
    report = diagnose(Model(), ACROSS, 0.9, 0.6, "BP")
    assert report.verdict == "trustworthy" and report.flags == report.notes == ()
    assert report.growth == pytest.approx(2) and report.gradient_norms == pytest.approx((0.2, 0.1)) and report.direction == 0
    assert "BP: trustworthy" in str(report) and "(b) ‖g_L‖ 1.0e-01 (a sample's own: 6.0e-01)" in str(report)


def test_the_norms_are_of_samples() -> None:
    """The mean over them for states, the median for gradients: one wild sample moves the first alone."""

    class Wild(Model):
        def hidden_states(self, x: Any) -> list[Any]:
            return [np.array([[1.0], [1.0], [7.0]])]

        def hidden_gradients(self, x: Any, y: Any) -> list[Any]:
            return [np.array([[1.0], [1.0], [7.0]])]

    assert hidden_norms(Wild(), None) == [3] and gradient_norms(Wild(), None, None) == [1]


def test_batches_count_by_their_samples() -> None:
    """Norms over all samples together, of the mean loss over all of them: as if they were one batch."""

    class Line:
        def hidden_states(self, x: Any) -> list[Any]:
            return [np.asarray(x), 3 * np.asarray(x)]

        def hidden_gradients(self, x: Any, y: Any) -> list[Any]:
            return [np.asarray(x) / len(x)] * 2

        def gradient(self, x: Any, y: Any) -> Any:
            return np.asarray(x).mean(axis=0)

    x = np.random.default_rng(0).normal(size=(9, 2))
    report = diagnose(Line(), [(x[:2], None), (x[2:], None)], 0.9, 0.6, "x")
    assert report.hidden_norms == pytest.approx(hidden_norms(Line(), x))
    assert report.gradient_norms == pytest.approx(gradient_norms(Line(), x, None)) and report.samples == 9


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_one_sample_that_is_not_finite_is_seen(bad: float) -> None:
    """A median would pass over it."""

    class Odd(Model):
        def hidden_gradients(self, x: Any, y: Any) -> list[Any]:
            return [np.array([[1.0], [1.0], [bad], [1.0]])]

    assert not np.isfinite(gradient_norms(Odd(), None, None)).any()


def test_a_floor_for_each_samples_own_gradient() -> None:
    assert PUBLISHED.per_sample(1000).g_norm_floor == pytest.approx(1e-4)
    assert PUBLISHED.per_sample(1000).h_norm_explosion_ratio == 50
    with pytest.raises(ValueError, match="samples must be an integer of at least 1, not 0"):
        PUBLISHED.per_sample(0)


def test_every_flag() -> None:
    report = diagnose(Model([1.0, 1e3], [1.0, 1e-9]), ALIKE, 0.3, 0.3, "DFA")
    assert report.verdict == "walked back via (a)+(b)+(d)"
    assert report.flags[-1] == "(d) 0.0 pp over frozen blocks < 2 pp"


def test_the_blocks_must_be_worth_a_margin() -> None:
    """Exactly the margin will do; what is a little less is shown to be less."""
    assert diagnose(Model(), ACROSS, 0.5, 0.25, "x", DiagnosticThresholds(frozen_acc_margin_pp=25)).verdict == "trustworthy"
    assert all(diagnose(Model(), ACROSS, k / 100, (k - 2) / 100, "x").verdict == "trustworthy" for k in range(2, 101))
    assert diagnose(Model(), ACROSS, 0.3199, 0.3, "x").flags == ("(d) 1.99 pp over frozen blocks < 2 pp",)
    least = diagnose(Model(), ACROSS, 0.02, 1e-20, "x")
    assert least.flags == ("(d) 1.9999999999999998 pp over frozen blocks < 2 pp",), "less by less than a float tells"
    assert diagnose(Model(), ACROSS, 0.2, 0.3, "x").flags == ("(d) -10.0 pp over frozen blocks < 2 pp",)


def test_drift_is_a_note_unless_it_decides() -> None:
    """The same direction whatever the batch: above the ceiling, strictly."""
    report = diagnose(Model(), ALIKE, 0.9, 0.6, "SB")
    assert report.verdict == "trustworthy"
    assert report.notes == ("(c) gradient direction between batches 0.98 > 0.3: drift",)
    strict = diagnose(Model(), ALIKE, 0.9, 0.6, "SB", DiagnosticThresholds(drift_decides=True))
    assert strict.verdict == "walked back via (c)" and strict.notes == ()
    own = DiagnosticThresholds(stability_drift_ceiling=0.0, drift_decides=True)
    assert diagnose(Model(), ACROSS, 0.9, 0.6, "BP", own).verdict == "trustworthy", "strictly above"


@BAD
def test_non_finite_input_to_diagnose_always_fires(bad: float) -> None:
    fired = {
        "walked back via (a)": diagnose(Model([1.0, bad, 1.0]), ALIKE, 0.9, 0.6, "x"),
        "walked back via (b)": diagnose(Model(gradients=[bad, 1.0]), ALIKE, 0.9, 0.6, "x"),
        "walked back via (c)": diagnose(Model(), batches([1.0, bad], [1.0, 0.0]), 0.9, 0.6, "x"),
        "walked back via (d)": diagnose(Model(), ALIKE, bad, 0.6, "x"),
    }
    assert [report.verdict for report in fired.values()] == list(fired)
    assert diagnose(Model(), ALIKE, 0.9, -bad, "x").verdict == "walked back via (d)"


def test_diagnose_checks_its_input() -> None:
    with pytest.raises(ValueError, match="eval_batches must be at least 2, not 1"):
        diagnose(Model(), ALIKE[:1], 0.9, 0.6, "x")
    with pytest.raises(ValueError, match="headline_acc must be a number, not None"):
        diagnose(Model(), ALIKE, None, 0.6, "x")  # type: ignore[arg-type]
    flat = Model()
    for odd, shape in (([np.zeros(3)], r"\(3,\)"), ([np.ones((3, 1)), np.ones((2, 1))], r"\(2, 1\)")):
        flat.hidden_states = lambda x, odd=odd: odd  # type: ignore[method-assign,misc]
        with pytest.raises(ValueError, match=rf"hidden_states must be arrays with a row a sample, not of shape {shape}"):
            diagnose(flat, ALIKE, 0.9, 0.6, "x")
    with pytest.raises(ValueError, match="gradient_norms must hold at least one norm"):
        diagnose(Model(gradients=[]), ALIKE, 0.9, 0.6, "x")


# ---- the monitor


def test_monitor_stops_at_the_first_row_that_fires() -> None:
    monitor = TrainingMonitor(epochs=100)
    assert monitor.verdict == "nothing recorded"
    rare = TrainingMonitor(every=5)
    rare.record(0, [1.0], [0.1], 0.1)
    assert rare.verdict == "trustworthy", "the start was looked at, and there is no more"
    rare.record(3, [1.0, 1e3], [1e-9], 0.5)
    assert rare.verdict == "nothing checked"
    with pytest.raises(ValueError, match="must have an epoch that every = 5 divides: nothing is checked"):
        rare.outcome()
    assert monitor.record(1, [1.0, 2.0], [0.1], 0.2) == [] and monitor.verdict == "trustworthy"
    assert monitor.record(4, [1.0, 63.0], [4e-9], 0.28) == ["(a) per-block growth 63× > 50×", "(b) ‖g_L‖ 4.0e-09 < 1e-7"]
    assert monitor.verdict == "walked back via (a)+(b)"
    outcome = monitor.outcome()
    assert (outcome.epochs_saved, outcome.saved) == (96, 0.96)
    assert outcome.final_accuracy is None, "nobody knows what the rest would have brought"
    assert "Stopped at epoch 4 of 100: saves 96 epochs (96% compute)." in str(outcome)
    assert "would have been" not in str(outcome)
    # A later row changes neither verdict nor epoch, and once the run is there to its end the accuracy is known.
    assert letters(monitor.record(100, [1.0, 1.0], [1e-9], 0.3)) == "b"
    assert monitor.verdict == "walked back via (a)+(b)" and monitor.outcome().final_accuracy == 0.3


def test_monitor_as_callback_of_a_loop() -> None:
    class Growing:
        size = 1.0

        def hidden_states(self, x: Any) -> list[Any]:
            return [np.ones((2, 1)), self.size * np.ones((2, 1))]

        def hidden_gradients(self, x: Any, y: Any) -> list[Any]:
            return [0.1 * np.ones((2, 1))] * 2

    model, monitor = Growing(), TrainingMonitor(epochs=20)
    for epoch in range(1, 21):
        model.size *= 3
        if monitor.observe(epoch, model, None, None, accuracy=0.5):
            break
    assert epoch == 4 and len(monitor.trace) == 4 and monitor.outcome().epochs_saved == 16


def test_monitor_checks_only_every_so_often() -> None:
    """A row between two checks is logged only, unless it is not finite."""
    monitor = TrainingMonitor(every=5)
    assert monitor.record(4, [1.0, 99.0], [0.1], 0.5) == []
    assert letters(monitor.record(5, [1.0, 99.0], [0.1], 0.5)) == "a"
    for key, letter in zip(FINE, "abd", strict=True):
        bad = entry(4)
        bad[key] = NAN if key == "acc_eval" else [*FINE[key], NAN, *FINE[key]]
        assert letters(replay([bad], every=5).flags) == letter


def test_monitor_checks_its_input() -> None:
    for name, bad in (("every", 0), ("every", 1.5), ("epochs", True), ("epochs", 0)):
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, not {bad!r}"):
            TrainingMonitor(**{name: bad})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name must be a string that is not empty, not ''"):
        TrainingMonitor(name="")
    monitor = TrainingMonitor()
    with pytest.raises(ValueError, match="the log of run must have at least one row, not none"):
        monitor.outcome()
    monitor.record(3, [1.0], [0.1], 0.5)
    for args, rule in (
        ((3, [1.0], [0.1], 0.5), "epoch must be greater than the last, 3, not 3"),
        ((-1, [1.0], [0.1], 0.5), "epoch must be an integer of at least 0, not -1"),
        ((4, [[1.0]], [0.1], 0.5), r"hidden_norms must be a list of numbers, not \[\[1.0\]\]"),
        ((4, [[1.0], 2.0], [0.1], 0.5), "hidden_norms must be a list of numbers"),
        ((4, ["1"], [0.1], 0.5), "hidden_norms must be a list of numbers"),
        ((4, [1.0], [], 0.5), "bp_grad_norms_per_sample_med must hold at least one norm, not none"),
        ((4, [1.0], [-0.1], 0.5), r"bp_grad_norms_per_sample_med\[0\] must be at least 0, not -0.1"),
        ((4, [1.0], [0.1], "high"), "acc_eval must be a number, not 'high'"),
    ):
        with pytest.raises(ValueError, match=rule):
            monitor.record(*args)
    assert len(monitor.trace) == 1, "a bad row leaves nothing behind"


# ---- replay

HEALTHY = [entry(epoch, acc_eval=0.1 * epoch) for epoch in range(6)]
FAILING = [
    entry(1, acc_eval=0.2),
    entry(4, acc_eval=0.28, hidden_norms=[0.0, 1.0, 63.0], bp_grad_norms_per_sample_med=[1.0, 4e-9]),
    entry(5, acc_eval=0.4, hidden_norms=[1.0, NAN]),
    entry(100, acc_eval=0.3),
]


def test_published_wording() -> None:
    """The lines of the published demonstration, with what it printed unconditionally computed."""
    FAILING[1]["hidden_norms"] = [1.0, 63.0]
    assert str(replay(HEALTHY)) == "  No flag fired in 5 epochs. Final acc: 0.5000\n  Verdict: trustworthy. Run to completion."
    assert str(replay(FAILING)).splitlines() == [
        "  Protocol fires at epoch 4: (a) per-block growth 63× > 50× AND (b) ‖g_L‖ 4.0e-09 < 1e-7",
        "  Acc at fire epoch: 0.2800",
        "  Acc at final epoch (would have been): 0.3000",
        "  Diff (final - fire-time): +2.0 pp",
        "  -> Stopping at epoch 4 would save 96 epochs (96% compute), with a headline acc loss of 2.0 pp.",
        "  Verdict: walked back via (a)+(b).",
    ]


@pytest.mark.parametrize(
    ("final", "says"),
    [
        (0.28, ["Diff (final - fire-time): +0.0 pp", "with no headline acc loss."]),
        (0.1, ["Diff (final - fire-time): -18.0 pp", "with no headline acc loss."]),
        (0.0, ["Acc at final epoch (would have been): 0.0000", "-28.0 pp", "with no headline acc loss."]),
        (0.281, ["+0.1 pp", "with a headline acc loss of 0.1 pp."]),
        (NAN, ["accuracies not comparable."]),
    ],
)
def test_the_price_is_computed(final: float, says: list[str]) -> None:
    text = str(replay([*FAILING[:2], entry(100, acc_eval=final)]))
    for line in says:
        assert line in text


def test_savings_at_the_edges() -> None:
    last = replay([entry(3), entry(7, hidden_norms=[1.0, 99.0])])
    assert (last.epochs_saved, last.saved) == (0, 0.0)
    only = replay([entry(0, hidden_norms=[1.0, 99.0])])
    assert (only.fired_epoch, only.epochs_saved, only.saved) == (0, 0, 0.0) and "0 epochs (0% compute)" in str(only)
    assert replay(HEALTHY).saved == 0


def test_the_trace_of_a_live_run_replays_to_the_same() -> None:
    monitor = TrainingMonitor()
    for line in FAILING:
        monitor.record(*line.values())
    assert monitor.outcome() == replay(FAILING) == replay(monitor.trace)


@pytest.mark.parametrize(
    ("log", "rule"),
    [
        ([], "the log of dfa must have at least one row, not none"),
        ([entry(0), 7], r"dfa\[1\] must be an object with epoch, hidden_norms, .*, not 7"),
        ([{"epoch": 1}], r"dfa\[0\] must be an object with epoch, hidden_norms, bp_grad_norms_per_sample_med, acc_eval"),
        ([entry(1), entry(1)], "epoch must be greater than the last, 1, not 1"),
        ([entry(1, hidden_norms="wide")], r"dfa\[0\]: hidden_norms must be a list of numbers, not 'wide'"),
        ([entry(1.5)], r"dfa\[0\]: epoch must be an integer of at least 0, not 1.5"),  # type: ignore[arg-type]
    ],
)
def test_replay_checks_the_log(log: list[Any], rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        replay(log, "dfa")


# ---- files


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    monitor = TrainingMonitor(name="dfa")
    for line in [*FAILING[:2], entry(7, hidden_norms=[INF, NAN, 0.1], acc_eval=NAN)]:
        monitor.record(*line.values())
    path = monitor.save(tmp_path / "trace.json")
    json.loads(path.read_text(), parse_constant=pytest.fail)  # strict
    title, logs = load_traces(path)
    assert title == "trace" and repr(logs) == repr({"dfa": monitor.trace})
    assert [p.name for p in tmp_path.iterdir()] == ["trace.json"]


def test_traces_as_others_write_them(tmp_path: Path) -> None:
    path = tmp_path / "others.json"
    path.write_text(
        json.dumps({"title": "4 blocks", "seed": 42, "bp_log": [entry(0, loss=1.5)], "dfa_log": [entry(0, acc_eval=NAN)]})
    )
    title, logs = load_traces(path)
    assert title == "4 blocks" and list(logs) == ["bp", "dfa"] and math.isnan(logs["dfa"][0]["acc_eval"])
    path.write_text(json.dumps([entry(0)]))
    assert list(load_traces(path)[1]) == ["others"]


@pytest.mark.parametrize("text", ["{", "7", "{}", '{"log": []}', '{"bp_log": 3}', "\xff"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"bad\.json must be"):
        load_traces(path)
    path.write_text(json.dumps({"bp_log": [entry(0), entry(1, acc_eval=None)]}))
    with pytest.raises(ValueError, match=r"bad\.json: bp_log\[1\]: acc_eval must be a number, not None"):
        load_traces(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_traces(tmp_path / "trace.json", {"bp": []}, title="old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_traces(path, {"bp": []}, title="new")
    assert "old" in path.read_text() and list(tmp_path.iterdir()) == [path]
