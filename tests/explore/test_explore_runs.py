"""Runs of points: how they end, what they say, where they are kept, and that none is made twice."""

from __future__ import annotations

import json
import math
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.instrumented import TrainingWarning
from kappa_rtl.scripts.experiments.explore import run as running
from kappa_rtl.scripts.experiments.explore.network import Network
from kappa_rtl.scripts.experiments.explore.outcome import Outcome
from kappa_rtl.scripts.experiments.explore.point import FLOAT, Point
from kappa_rtl.scripts.experiments.explore.run import explore
from kappa_rtl.scripts.experiments.explore.space import Axes, Integers
from kappa_rtl.scripts.experiments.explore.store import RUNS, Store, alone
from kappa_rtl.scripts.experiments.explore.subject import train as run
from kappa_rtl.scripts.experiments.explore.watch import DOTS, Watch
from kappa_rtl.scripts.experiments.pool import Task, compute
from kappa_rtl.scripts.experiments.training.published import run_arm
from kappa_rtl.scripts.main import main
from kappa_rtl.scripts.settings import Settings

EIGHT = Point(weight="SQ-1.9", gradient="SQ-2.14", update="SQ-5.9", rounding="residual:4", motion="intended")


def subject(steps: int = 30, **throttle: Any) -> Network:
    return Network.of(Settings(tables={"training": {"steps": steps}, "throttle": throttle}))


def small(**axes: Any) -> Settings:
    space = {"weight": [6, 8], "rounding": ["nearest", "residual:4"], "law": "stability_margin", "lanes": [1, 4]} | axes
    return Settings(tables={"training": {"steps": 12}, "explore": space})


def quiet(text: str) -> None:
    pass


# -------------------------------------------------------------------------------------------------- a run


def test_a_run_says_what_its_training_was() -> None:
    what, thetas = subject(40), []
    found = run(what, EIGHT, 3)

    def look(step: Any) -> None:
        thetas.append(step.theta_after)

    history = run_arm(what.arm(EIGHT, 3), 3, make_unit=Throttle, observe=look)
    assert found["ending"] == "done" and found["steps"] == 40
    assert found["loss"] == history["loss"][-1] and found["min_alpha"] == min(history["alpha"])
    assert found["still"] == np.mean(history["dtheta_zero"])
    held = what.split(3).held
    assert held is not None
    right = [np.mean(np.argmax(held.X @ theta.reshape(64, 10), axis=1) == held.labels) for theta in thetas[-20:]]
    assert found["score"] == pytest.approx(np.mean(right), abs=1e-12)
    assert found["curve"]["step"] == list(range(40)) and found["curve"]["loss"] == history["loss"].tolist()


@pytest.mark.parametrize(
    "point",
    [
        EIGHT,
        Point(weight="SQ-1.9", gradient="SQ-2.14", update="SQ-5.12"),
        Point(
            weight="SQ-1.9", gradient="SQ-2.14", update="SQ-5.9", rounding="stochastic:4", motion="projection", on_still="hold"
        ),
        Point(weight="SQ2.6", gradient="SQ2.10", update="SQ1.9", law="off", mantissa_bits=18),
        Point(weight="SQ2.6", gradient="SQ2.10", update="SQ1.9", law="inverse_curvature", parameters=(("beta", 2.0),), delay=1),
        Point(weight="SQ2.6", gradient="SQ2.10", update="SQ1.9", law="adgd", on_still="divide"),
    ],
)
def test_what_is_trained_is_the_unit_that_is_paid_for(point: Point) -> None:
    what, made = subject(3, rho=0.25, seed=9), []

    def make(config: Any, weights: Any) -> Throttle:
        made.append(config)
        return Throttle(config, weights)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TrainingWarning)
        run_arm(what.arm(point, 0), 0, make_unit=make)
    assert made == [what.config(point, lanes=1)]


def test_a_curve_has_few_dots_with_both_ends() -> None:
    curve = run(subject(250), Point(weight=FLOAT), 0)["curve"]
    assert len(curve["step"]) == DOTS and (curve["step"][0], curve["step"][-1]) == (0, 249)


def test_a_run_that_diverges_is_given_up() -> None:
    found = run(subject(300), Point(weight=FLOAT, law="off"), 0)
    assert found["ending"] == "diverged" and found["score"] == 0 and found["steps"] < 200


def test_a_run_that_stands_still_is_given_up_once_nothing_changes() -> None:
    coarse = Point(weight="SQ2.2", gradient="SQ2.10", update="SQ1.5", law="off")
    found = run(subject(300), coarse, 0)
    assert found["ending"] == "dead"
    assert found["steps"] == 201  # the inputs grow until step 200
    assert run(subject(300, dead_after=10), coarse, 0)["steps"] == 201
    no_drift = Network.of(Settings(tables={"training": {"steps": 300}, "model": {"hidden": [], "bias": False}}))
    made = run(no_drift, Point(weight="SQ7.2", gradient="SQ2.10", update="SQ7.2"), 0)
    assert made["ending"] == "dead" and made["steps"] == 100


def test_a_still_run_that_the_throttle_holds_is_not_given_up() -> None:
    held = Point(weight="SQ2.4", gradient="SQ2.10", update="SQ1.7", law="clip_norm", parameters=(("max_norm", 1e-6),))
    found = run(subject(300), held, 0)
    assert found["ending"] == "dead" and found["steps"] == 300 and found["min_alpha"] < 1


def test_without_labels_the_score_is_a_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3))
    np.savez(tmp_path / "d.npz", X=x, Y=x @ rng.normal(size=(3, 2)))
    what = Network.of(
        Settings(tables={"data": {"file": str(tmp_path / "d.npz")}, "model": {"hidden": [4]}, "training": {"steps": 25}})
    )
    assert not what.labelled and what.elements == 3 * 4 + 4 + 4 * 2 + 2
    found = run(what, Point(weight="SQ3.9", gradient="SQ4.12", update="SQ2.10"), 0)
    reference = run(what, Point(weight=FLOAT), 0)
    assert 0 < found["score"] < math.inf and abs(found["score"] - reference["score"]) < 0.2


def test_float_points_are_the_float_unit() -> None:
    what = subject(20)
    history = run_arm(what.arm(Point(weight=FLOAT), 0), 0, make_unit=FloatThrottle)
    assert run(what, Point(weight=FLOAT), 0)["loss"] == history["loss"][-1]


# -------------------------------------------------------------------------------------------------- where it is kept


def test_results_are_kept_and_found_for_the_very_same_run(tmp_path: Path) -> None:
    (tmp_path / RUNS).mkdir()
    kept = {"ending": "done", "score": math.inf, "curve": {"loss": [1.0, math.nan]}}
    Store(tmp_path, subject()).keep(EIGHT, 0, kept)
    found = Store(tmp_path, subject()).find(EIGHT, 0)
    assert found is not None and found["score"] == math.inf and math.isnan(found["curve"]["loss"][1])
    assert Store(tmp_path, subject()).points() == [EIGHT]
    assert Store(tmp_path, subject()).find(EIGHT, 1) is None
    for other in (subject(31), subject(eta=0.2), subject(rho=0.1)):
        assert Store(tmp_path, other).find(EIGHT, 0) is None


def test_a_result_that_was_cut_off_is_none(tmp_path: Path) -> None:
    (tmp_path / RUNS).mkdir()
    store = Store(tmp_path, subject())
    store.keep(EIGHT, 0, {"ending": "done"})
    (path,) = (tmp_path / RUNS).iterdir()
    path.write_text(path.read_text()[:-20])
    assert store.find(EIGHT, 0) is None and store.points() == []


def test_another_file_with_the_same_name_makes_other_results(tmp_path: Path) -> None:
    (tmp_path / RUNS).mkdir()
    tables = {"data": {"file": str(tmp_path / "d.npz")}, "training": {"steps": 5}}
    for shift in (0.0, 1.0):
        x = np.random.default_rng(0).normal(size=(40, 3))
        np.savez(tmp_path / "d.npz", X=x + shift, Y=x[:, :1])
        store = Store(tmp_path, Network.of(Settings(tables=tables)))
        assert store.find(EIGHT, 0) is None
        store.keep(EIGHT, 0, {"ending": "done"})


HOLDER = """
import sys, time
from pathlib import Path
from kappa_rtl.scripts.experiments.explore.space import Axes, Integers
from kappa_rtl.scripts.experiments.explore.store import alone
with alone(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(600)
"""


def test_two_may_not_work_in_one_folder_and_a_killed_one_does_not_count(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None and holder.stdout.readline() == "here\n"
    try:
        with pytest.raises(ValueError, match=rf"nobody else's at this time: process {holder.pid} on ") as error:
            explore(small(), tmp_path, tell=quiet)
        assert str(tmp_path) in str(error.value)
    finally:
        holder.kill()
        holder.communicate()
    with alone(tmp_path):
        pass


# -------------------------------------------------------------------------------------------------- all of them


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    made: list[Any] = []

    def run_and_count(*arguments: Any) -> Any:
        made.append(arguments[1:])
        return run(*arguments)

    monkeypatch.setattr(running, "train", run_and_count)
    return made


def test_a_grid_is_trained_whole_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch)
    first = explore(small(), tmp_path, seeds=2, tell=quiet)
    assert len(made) == len(set(made)) == (1 + 4) * 2
    assert len(first.trained) == 4 and len(first.rows) == 4 * 2
    second = explore(small(), tmp_path, seeds=2, tell=quiet)
    assert len(made) == 10 and second.rows == first.rows
    explore(small(weight=[6, 8, 10]), tmp_path, seeds=3, tell=quiet)
    assert len(made) == len(set(made)) == (1 + 6) * 3


def test_more_processes_find_the_same(tmp_path: Path) -> None:
    def scores(outcome: Outcome) -> list[Any]:
        return [(one.point, one.scores) for one in outcome.trained]

    one, two = (explore(small(), tmp_path / str(jobs), jobs=jobs, seeds=2, tell=quiet) for jobs in (1, 2))
    assert scores(one) == scores(two)


def test_what_no_unit_can_be_is_left_out_and_told(tmp_path: Path) -> None:
    said: list[str] = []
    found = explore(small(mantissa_bits=[12, 24], rounding="residual:4"), tmp_path, seeds=1, tell=said.append)
    assert len(found.trained) == 2
    assert said[-1].startswith("2 combinations were left out, which no unit can be; the first, ")
    assert "step_bits must be at most mantissa_bits = 12" in said[-1]
    with pytest.raises(ValueError, match="explore must have a point that a unit can be; the first: step_bits"):
        explore(small(mantissa_bits=12, rounding="residual:4"), tmp_path, seeds=1, tell=quiet)


def test_a_grid_that_is_too_large_asks_for_a_search(tmp_path: Path) -> None:
    wide = small(weight={"from": 4, "to": 32}, gradient={"from": 4, "to": 32})
    with pytest.raises(
        ValueError, match=r"explore has 1682 points, and a grid of at most 400 is trained whole; choose some .* --search N"
    ):
        explore(wide, tmp_path, tell=quiet)
    assert not list(tmp_path.iterdir())


def test_a_search_trains_so_many_points_and_goes_on_from_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    made = counted(monkeypatch)
    space = small(weight={"from": 4, "to": 12}, gradient=["auto", 10, 16])
    found = explore(space, tmp_path, search=6, seeds=2, tell=quiet)
    assert len(found.trained) == 6 and len(made) == len(set(made)) == (1 + 6) * 2
    again = explore(space, tmp_path, search=6, seeds=2, tell=quiet)
    assert len(made) == 14 and {one.point for one in again.trained} == {one.point for one in found.trained}
    more = explore(space, tmp_path, search=9, seeds=2, jobs=1, tell=quiet)
    assert len(more.trained) == 9 and len(made) == len(set(made)) == (1 + 9) * 2
    assert {one.point for one in found.trained} < {one.point for one in more.trained}


def test_a_search_of_more_than_there_is_finds_all(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    assert len(explore(small(), tmp_path, search=50, seeds=1, tell=quiet).trained) == 4


def test_a_target_without_a_fit_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"explore.target must be one that a fit was made for, ecp5, .*, not 'osu018'"):
        explore(small(target=["ecp5", "osu018"]), tmp_path / "out", tell=quiet)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["grid", "tcp:/x", "ray"])
def test_an_executor_that_there_is_not(where: str, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"executor must be local, dask or the address of a scheduler such as tcp://HOST:8786, not"
    ):
        explore(small(), tmp_path, executor=where, tell=quiet)
    assert not list(tmp_path.iterdir())


def test_a_command_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Killed, not interrupted: nothing can be said or tidied up."""
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text('[training]\nsteps = 60\n[explore]\nweight = [6, 8, 10]\nlaw = "stability_margin"\n')
    command = [
        sys.executable,
        "-m",
        "kappa_rtl.scripts.main",
        "explore",
        str(space),
        "--out",
        str(out),
        "--seeds",
        "2",
        "--jobs",
        "2",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    begun = time.monotonic()
    while len(list(out.glob("runs/*.json"))) < 4 and time.monotonic() - begun < 120:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.glob("runs/*.json")}
    assert 4 <= len(before) < 20 and not (out / "index.html").exists()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("runs/*.json"))) == 2 * (1 + 9)
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in before.items())
    assert {path.name for path in out.iterdir()} >= {"index.html", "points.csv", "runs"}
    assert json.loads(next(iter(before)).read_text())["result"]["ending"]
    assert "page: " in done.stdout


def test_what_was_found_again_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    explore(small(), tmp_path, seeds=1, tell=said.append)
    assert not any("found again" in line for line in said)
    explore(small(weight=[6, 8, 10]), tmp_path, seeds=1, tell=said.append)
    assert said[-1] == "5 of 7 runs were done before, and were found again"


def test_a_search_says_when_it_is_other_than_was_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    said: list[str] = []
    found = explore(small(), tmp_path, search=50, seeds=1, tell=said.append)
    assert len(found.trained) == 4 and "4 points, not 50: there are no more" in said
    assert len(explore(small(), tmp_path, search=2, seeds=1, tell=said.append).trained) == 4
    assert "4 points, not 2: with those that were trained before" in said
    with pytest.raises(ValueError, match="explore must have a point that a unit can be; the first: step_bits"):
        explore(small(mantissa_bits=12, rounding="residual:4"), tmp_path, search=3, seeds=1, tell=quiet)


@pytest.mark.parametrize(
    "content", ['{"point": {"weight": "SQ2.6", "parameters": []}}', '{"point": {"weight": ["SQ2.6"]}}', "[]", ""]
)
def test_a_file_that_is_not_ours_is_passed_over(content: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / RUNS).mkdir()
    (tmp_path / RUNS / "theirs.json").write_text(content)
    assert len(explore(small(), tmp_path, search=2, seeds=1, tell=quiet).trained) == 2


def test_other_settings_leave_former_results_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch)
    for steps in (12, 13, 12):
        settings = Settings(tables=dict(small().tables) | {"training": {"steps": steps}})
        explore(settings, tmp_path, seeds=1, tell=quiet)
    assert len(made) == 5 + 5


def test_data_that_change_while_it_is_searched_end_it(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.savez(tmp_path / "d.npz", X=x, Y=x[:, :1])
    network = Network.of(Settings(tables={"data": {"file": str(tmp_path / "d.npz")}, "training": {"steps": 3}}))
    network.train(EIGHT, 0)
    np.savez(tmp_path / "d.npz", X=x + 1, Y=x[:, :1])
    with pytest.raises(ValueError, match=r"data.file must stay as it was when the search began, not change"):
        network.train(EIGHT, 1)


def test_what_is_sent_to_a_worker_holds_no_rows() -> None:
    network = subject()
    assert network.elements == 640 and network.identity
    sent = pickle.dumps(network)
    assert len(sent) < 3000 and pickle.loads(sent) == network


class Counting(ThreadPoolExecutor):
    """Knows how many runs were under way at most."""

    most = under_way = 0

    def submit(self, function: Any, /, *arguments: Any, **rest: Any) -> Any:
        def counting(*given: Any) -> Any:
            Counting.under_way += 1
            Counting.most = max(Counting.most, Counting.under_way)
            try:
                time.sleep(0.02)
                return function(*given)
            finally:
                Counting.under_way -= 1

        return super().submit(counting, *arguments, **rest)


def test_an_executor_of_ones_own_is_used_as_wide_as_it_is() -> None:
    with Counting(6) as executor:
        tasks = [Task(i, str(i), divmod, (i, 3)) for i in range(24)]
        assert dict(compute(tasks, 1, "x", executor=executor)) == {i: divmod(i, 3) for i in range(24)}
    assert Counting.most >= 5


@pytest.mark.parametrize(("name", "value"), [("seeds", 0), ("jobs", 0), ("search", -1), ("seeds", 1.5), ("jobs", True)])
def test_counts_that_are_none(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least"):
        explore(small(), tmp_path / "out", tell=quiet, **{name: value})
    assert not (tmp_path / "out").exists()


def test_an_answer_that_holds_no_longer_is_taken_away(tmp_path: Path) -> None:
    pytest.importorskip("altair"), pytest.importorskip("vl_convert")
    space, out = tmp_path / "space.toml", tmp_path / "out"
    space.write_text('[training]\nsteps = 12\n[explore]\nweight = 6\nrounding = "nearest"\nlaw = "stability_margin"\n')
    command = ["explore", str(space), "--out", str(out), "--seeds", "2", "--jobs", "1", "--probability", ".7"]
    assert "the least: 6 bits" in CliRunner().invoke(main, [*command, "--within", "1"]).output
    assert (out / "unit.toml").exists()
    again = CliRunner().invoke(main, [*command, "--within", "0"])
    assert "no point is within 0 of float with a probability of 0.7 over 2 seeds" in again.output
    assert not (out / "unit.toml").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--within", "nan"], "within must be at least 0, not nan"),
        (
            ["--seeds", "1"],
            "probability must be at most 0.667 with seeds = 1, which say no more, not 0.75; take at least 2 seeds",
        ),
    ],
)
def test_what_no_point_could_reach_is_refused_before_anything_runs(options: list[str], says: str, tmp_path: Path) -> None:
    pytest.importorskip("altair"), pytest.importorskip("vl_convert")
    made = CliRunner().invoke(main, ["explore", "--out", str(tmp_path / "out"), *options])
    assert made.exit_code == 1 and f"Error: {says}" in made.output
    assert not (tmp_path / "out").exists()


def test_nothing_is_given_up_that_a_residual_may_still_move() -> None:
    no_drift = Network.of(Settings(tables={"training": {"steps": 130}, "model": {"hidden": [], "bias": False}}))
    for rounding in ("residual:2", "stochastic:1"):
        coarse = Point(weight="SQ9.0", gradient="SQ2.10", update="SQ9.0", rounding=rounding, law="off")
        found = run(no_drift, coarse, 0)
        assert found["steps"] == 130 and found["ending"] == ("dead" if found["still"] == 1 else "done")


def test_only_still_steps_in_a_row_are_dead() -> None:
    watch = Watch(0, dead_after=3)
    ended = [watch.ends(step, 1.0, still=still, alpha=1.0) for step, still in enumerate((1, 1, 0, 1, 1, 0, 1, 1, 1))]
    assert ended == [False] * 8 + [True] and watch.ending == "dead"
    watch.ends(9, 1.0, still=False, alpha=1.0)
    assert watch.ending == "done"


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1001.0])
def test_a_loss_that_is_no_number_has_diverged(loss: float) -> None:
    watch = Watch()
    assert not watch.ends(0, 1.0, still=False, alpha=1.0) and not watch.ends(1, 999.0, still=False, alpha=1.0)
    assert watch.ends(2, loss, still=False, alpha=1.0) and watch.ending == "diverged"


def test_a_search_in_several_processes_trains_each_point_once(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    found = explore(small(weight=[6, 8, 10, 12, 14]), tmp_path, search=8, seeds=1, jobs=3, tell=quiet)
    assert len({one.point for one in found.trained}) == len(found.trained) == 8
    assert len(list(tmp_path.glob("runs/*.json"))) == 1 + 8


def test_a_point_that_is_under_way_is_not_handed_out_again(tmp_path: Path) -> None:
    """A study may ask for it again before it is told how it went: here it is told of nothing."""
    pytest.importorskip("optuna")
    axes = Axes(weight=(6, 8, 10, 12), rounding=("nearest", "residual:4"), law="adgd")
    (tmp_path / RUNS).mkdir()
    work = running._Work(subject(), axes, {"one": Integers(-1, -2, -5)}, Store(tmp_path, subject()), range(2), quiet)
    keys = [task.key for task in work.searched(8)]
    assert len(keys) == len(set(keys)) == 8 * 2 and len(work.chosen) == 8
