"""The credit experiments from the command line to the files, update fields through the throttle, and what they must show."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from threadpoolctl import threadpool_limits  # comes with scikit-learn

import kappa_rtl
from kappa_rtl.golden.credit.loop import Run
from kappa_rtl.golden.credit.methods import METHODS, make
from kappa_rtl.golden.credit.model import ResidualMLP
from kappa_rtl.golden.credit.samples import Data, Net
from kappa_rtl.golden.credit.tasks import LQ, Frozen, Online, blend, report
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.resume import Checkpoint
from kappa_rtl.scripts.experiments.credit import run as run_module
from kappa_rtl.scripts.experiments.credit.estimate import duration, estimate
from kappa_rtl.scripts.experiments.credit.experiments import MAKERS, experiment_of
from kappa_rtl.scripts.experiments.credit.plan import plan_of
from kappa_rtl.scripts.experiments.credit.run import credit, run_arm
from kappa_rtl.scripts.experiments.credit.table import cell, curve, findings
from kappa_rtl.scripts.experiments.credit.throttling import LAWS, Throttled
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cosim import RtlThrottle


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As on the command line: the matrices are so small that threads only wait for each other."""
    with threadpool_limits(1):
        yield


LITTLE = {
    "ladder": ("--depth", "1", "--depth", "2"),
    "forms": ("--depth", "1"),
    "depth": ("--depth", "1"),
    "scan": ("--warm-up", "0.2", "--terminal", "1"),
    "main": ("--depth", "1"),
    "throttle": ("--depth", "1", "--method", "dfa", "--method", "copy", "--bits", "0", "--bits", "8"),
}
"""What keeps an experiment of many arms small."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "lq" else pytest.mark.slow) for n in MAKERS])
def test_every_experiment_from_the_command_line(name: str, tmp_path: Path) -> None:
    """Table, pictures and results; a second call makes nothing anew; what was cut off, or is another run, is made again."""
    out = tmp_path / "a folder"
    sizes = ("--width", "4", "--steps", "2", "--rows", "8", *LITTLE.get(name, ()))
    command = ["credit", name, *sizes, "--seeds", "1", "--jobs", "1", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    for picture in ("plot.png", "curves.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    results = json.loads((out / "results.json").read_text())
    names = list(results["arms"])
    assert all(f"\n{arm} " in f"\n{done.output}" for arm in names)
    assert results["configuration"]["seeds"] == [42] and results["configuration"]["width"] == 4
    assert results["version"] == kappa_rtl.__version__
    assert all(line in done.output for line in results["findings"]) and (results["findings"] or name in ("forms", "scan"))
    groups = {arm["group"] for arm in results["arms"].values()}
    if name == "throttle":
        assert any(arm["method"] == "copy" for arm in results["arms"].values()), "no table without a control"
    else:
        assert all(any(a["method"] == "copy" and a["group"] == g for a in results["arms"].values()) for g in groups)
    files = sorted((out / "runs").iterdir())
    assert [file.name for file in files] == sorted(f"{arm}-42.json" for arm in names)
    stamps = [file.stat().st_mtime_ns for file in files]
    files[0].write_bytes(b'{"job": "cut')
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0 and again.output == done.output
    assert [file.stat().st_mtime_ns for file in files][1:] == stamps[1:]
    assert json.loads(files[0].read_text())["seed"] == 42
    assert json.loads((out / "results.json").read_text()) == results


TINIEST: dict[str, Any] = {"width": 4, "batch": 8, "rows": 8}


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    one, two = (credit("lq", tmp_path / str(jobs), steps=3, seeds=(1, 0), jobs=jobs, **TINIEST) for jobs in (1, 2))
    assert one.table == two.table and repr(one.runs) == repr(two.runs)
    copied = one.runs["copy"]
    assert copied[0].end["gamma"] != copied[1].end["gamma"], "each seed is a run of its own"
    for run, base in zip(copied, one.runs["dfa"], strict=True):
        assert run.end["S1"] == run.end["gamma"] - base.end["gamma"] and run.end["S2"] == run.end["rho"] - base.end["rho"]


def test_the_findings_say_what_is_other_than_published(tmp_path: Path) -> None:
    outcome = credit("lq", tmp_path, steps=1, seeds=(0, 1), **TINIEST)
    assert "other figures than published: credit_bridge: gamma" in outcome.table
    assert "DOES NOT HOLD (0 of 2 seeds): both bridges are above .9 in gamma" in outcome.table
    assert "[0.945±0.002]" in outcome.table
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["arms"]["state_bridge"]["columns"]["gamma"]["published"] == [0.945, 0.002]
    assert any(line.startswith("other figures than published") for line in saved["findings"])


def test_the_curves(tmp_path: Path) -> None:
    """A look before the first step and one at every twentieth; how far the estimator is from what it learns, none at first."""
    arm = experiment_of("ladder", width=8, depths=[1], activations=["phi:1"], steps=40, rows=8).arms[2]
    run = run_arm(arm, 0)
    assert [row["step"] for row in run.curve] == list(range(0, 41, 2))
    assert math.isnan(run.curve[0]["bridge"]) and all(row["bridge"] > 0 for row in run.curve[1:])
    assert run.curve[-1]["accuracy"] == pytest.approx(run.end["accuracy"])
    mean = curve([run, run])
    assert mean["gamma"] == pytest.approx([row["gamma"] for row in run.curve], rel=1e-5) and mean["bridge"][0] is None


@pytest.mark.parametrize(
    "task",
    [
        LQ(width=6, depth=2, steps=30, batch=8, evaluate=16),
        Online(net=Net(width=6, depth=2, kind="phi:1"), data=Data(name="ladder", samples=256), steps=30, batch=16),
        Frozen(training=Online(net=Net(width=6, depth=2), data=Data(name="digits"), steps=3), steps=30, batch=16),
    ],
)
@pytest.mark.parametrize("method", ["state_bridge", "credit_bridge", "vector_field"])
def test_a_run_that_is_cut_off_goes_on(task: Any, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit the run that was not."""
    options = {"hidden": (5,), "rows": 9}
    whole = task.run(method, options, 3)
    at = Checkpoint(tmp_path / "run.npz", seconds=0)
    own, calls = METHODS[method].fit, iter(range(100))
    monkeypatch.setattr(METHODS[method], "fit", lambda *given: own(*given) if next(calls) < 13 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        task.run(method, options, 3, at)
    assert Path(at.path).exists()
    made: list[int] = []
    monkeypatch.setattr(METHODS[method], "fit", lambda *given: made.append(1) or own(*given))
    again = task.run(method, options, 3, at)
    assert len(made) == 17 and repr(again) == repr(whole) and not Path(at.path).exists()


def test_a_checkpoint_of_another_run_is_not_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told, and the run is made from the start."""
    arm = experiment_of("lq", **TINIEST, steps=2).arms[2]
    kept = tmp_path / "run.npz"
    whole = run_arm(arm, 0)
    kept.write_bytes(b"nothing of ours")
    assert repr(run_arm(arm, 0, kept_at=str(kept))) == repr(whole) and not kept.exists()
    assert "computing from the start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "none"}, "experiment must be one of lq, ladder"),
        ({"jobs": 0}, "jobs must be at least 1, not 0"),
        ({"steps": 0}, "steps must be an integer of at least 1, not 0"),
        ({"datapath": "none"}, "datapath must be one of golden, rtl, not 'none'"),
        ({"seeds": [1, 1]}, "seeds must not have a value twice, not 1, 1"),
        ({"seeds": [-1]}, "seeds must be an integer of at least 0, not -1"),
        ({"sigma": -1}, "sigma must be at least 0, finite, not -1"),
        ({"matrices": 1}, "matrices must not be given for lq: it is for ladder"),
        ({"name": "ladder", "matrices": 3}, "matrices must be an integer from 1 to 2, not 3"),
        ({"name": "ladder", "activations": ["phi:2"]}, "activation must be gelu, tanh, relu or phi:ALPHA"),
        ({"name": "ladder", "steps": 3, "epochs": 2}, "steps and epochs must not both be given"),
        ({"name": "ladder", "warmups": [0.1, 0.2]}, "warmups must be one value here, not 0.1, 0.2"),
        ({"name": "ladder", "warmups": [1.5]}, "warmups must be at least 0 and at most 1, not 1.5"),
        ({"name": "ladder", "rate": 0}, "rate must be greater than 0, finite, not 0"),
        ({"name": "ladder", "depths": []}, "depths must have at least one value, not none"),
        ({"width": 2.5}, "width must be an integer of at least 1, not 2.5"),
        ({"colour": 1}, "colour must not be given for lq: sizes are seeds"),
        ({"name": "throttle", "bits": [5]}, "bits must be 0 for float or from 6 to 24, not 5"),
        ({"bits": [8]}, "bits must not be given for lq"),
        ({"methods": ["bp"]}, "methods must not be given for lq"),
        ({"cifar": "x"}, "cifar must not be given for lq"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        credit(**{"name": "lq", "out": tmp_path / "out"} | settings)
    assert not (tmp_path / "out").exists()


def test_names_are_fit_for_files_and_of_one_arm_each() -> None:
    for name in MAKERS:
        for full in (False, True):
            arms = experiment_of(name, full=full).arms
            assert all(re.fullmatch(r"[\w.+-]+", arm.name) for arm in arms)
    near = experiment_of("scan", warmups=[0.2, 0.2000000001]).arms
    assert len({arm.name for arm in near}) == len(near)


def test_an_activation_is_known_by_its_number() -> None:
    arms = experiment_of("ladder", activations=["phi:1.0"]).arms
    assert plan_of("ladder", activations=["phi:1.0"]).activations == ("phi:1",) and arms[0].published


def test_published_figures_stand_where_they_belong() -> None:
    """At the depth that they were published of."""
    for name, depths, right in (("lq", [4, 12], "L 12"), ("ladder", [3, 8], "alpha 1 L 8")):
        arms = experiment_of(name, depths=depths).arms
        assert {arm.group for arm in arms if arm.published} == {right}


def test_a_run_without_a_figure_counts_as_nothing() -> None:
    """A throttle that keeps learning what else diverges is within .02 of no throttle, or above."""
    experiment = experiment_of("throttle", methods=["bp"], bits=[8], laws=["off", "stability_margin"], seeds=[0, 1])
    for off, margin, answer in (
        ([math.nan, math.nan], [0.9, 0.9], "holds (2 of 2 seeds)"),
        ([0.9, 0.9], [0.95, math.nan], "DOES NOT HOLD (1 of 2 seeds)"),
    ):
        given = {"off": off, "stability_margin": margin}
        runs = {arm.name: [Run({"accuracy": value, "verdict": ""}) for value in given[arm.label]] for arm in experiment.arms}
        assert all(line.startswith(answer) for line in findings(experiment, runs))
        cells = [cell(arm, runs[arm.name], "accuracy") for arm in experiment.arms]
        assert "-" in cells or "0.950±0.000 (1 of 2)" in cells


def test_a_checkpoint_is_of_one_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other code left under way is not gone on with, and cleared away when the run is done."""
    names: list[str] = []
    own = run_module.run_arm
    monkeypatch.setattr(run_module, "run_arm", lambda *given: names.append(given[-1]) or own(*given))
    for code in ("one", "two"):
        monkeypatch.setattr(run_module, "CODE", code)
        credit("lq", tmp_path, steps=1, seeds=[0], **TINIEST)
    assert len(set(names)) == len(names) == 20
    former = Path(names[2])
    former.write_bytes(b"of other code")
    monkeypatch.setattr(run_module, "CODE", "three")
    credit("lq", tmp_path, steps=1, seeds=[0], **TINIEST)
    assert not former.exists() and not list((tmp_path / "runs").glob("*.npz"))


def test_sizes_from_a_file(tmp_path: Path) -> None:
    """The same table serves every experiment: what one does not use is let be. The command line comes first."""
    config = tmp_path / "credit.toml"
    config.write_text("[credit]\nwidth = 5\nseeds = [7]\nsteps = 1\nsigma = 0.1\nsamples = 64\nwarmups = [0.5]\n")
    out = tmp_path / "o"
    command = ["credit", "lq", "--config", str(config), "--rows", "4", "--jobs", "1", "--out", str(out)]
    done = CliRunner().invoke(main, [*command, "--width", "6"])
    assert done.exit_code == 0, done.output
    used = json.loads((out / "results.json").read_text())["configuration"]
    assert (used["width"], used["seeds"], used["steps"], used["sigma"]) == (6, [7], 1, 0.1) and "samples" not in used
    config.write_text("[credit]\nwidht = 5\n")
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1 and "widht" in refused.output and "width" in refused.output
    config.write_text('[credit]\nwidth = "a"\n')
    assert "width must be an integer of at least 1, not 'a'" in CliRunner().invoke(main, command).output
    config.write_text("[credit]\nseeds = [[1]]\n")
    assert "seeds must be a list of plain values, not [[1]]" in CliRunner().invoke(main, command).output
    config.write_text("[credit]\nepochs = 2\nseeds = [1]\nsamples = 16\ndepths = [1]\nwidth = 4\n")
    ladder = ["credit", "ladder", "--activation", "phi:1", *command[2:-1], str(tmp_path / "q"), "--steps", "1"]
    assert CliRunner().invoke(main, ladder).exit_code == 0, "steps on the command line take the place of the file's epochs"
    both = CliRunner().invoke(main, ["credit", "lq", "--seeds", "2", "--seed", "1", "--out", str(tmp_path / "p")])
    assert both.exit_code == 1 and "seeds and seed must not both be given" in both.output and not (tmp_path / "p").exists()


def test_the_published_sizes_are_the_full_ones() -> None:
    """Seeds, epochs, widths and depths of the documents."""
    assert all(plan_of(name, full=True).seeds == (42, 123, 456) for name in MAKERS)
    lq, steps = plan_of("lq", full=True), plan_of("ladder", full=True)
    assert (lq.width, lq.classes, lq.depths, lq.sigma, lq.steps, lq.batch) == (64, 10, (12,), 0.03, 8000, 256)
    assert (steps.width, steps.epochs, steps.depths, len(steps.activations)) == (128, 80, (2, 4, 8, 12), 4)
    assert plan_of("audit", full=True).depths == (4, 8) and len(experiment_of("ladder", full=True).arms) == 80
    run = plan_of("main", full=True)
    assert (run.width, run.depths, run.epochs, run.hidden) == (512, (12,), 100, (256, 256, 256))
    assert plan_of("depth", full=True).depths == (2, 4, 6, 8, 12)


def test_how_long_it_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of which every look is a second later: a step takes a second, and each sort of arm is tried once."""
    ticks = itertools.count()
    monkeypatch.setattr("kappa_rtl.golden.credit.loop.time.perf_counter", lambda: float(next(ticks)))

    def seconds(name: str, **sizes: Any) -> float:
        arms = experiment_of(name, width=4, rows=8, **sizes).arms
        return estimate([(arm, seed) for seed in (0, 1) for arm in arms], 2)

    assert seconds("lq", steps=1000) == 2 * 8 * 1000 / 2, "dfa and copy have nothing to learn"
    assert seconds("online", steps=50) == 2 * 6 * 50 / 2
    frozen = experiment_of("frozen", width=4, steps=50)
    assert seconds("frozen", steps=50) == 2 * (50 + 4 * 50) / 2 and len(frozen.arms) == 6, "one network a seed"
    assert [duration(s) for s in (35, 700, 7300)] == ["35 s", "12 min", "2 h 2 min"]


@pytest.mark.parametrize("name", ["ladder", "digits"])
def test_samples_are_shared_by_a_seed_and_by_no_other(name: str) -> None:
    data = Data(name=name, samples=64, test=32)
    first, again, other = data.draw(3, Net(width=4)), data.draw(3, Net(width=4)), data.draw(4, Net(width=4))
    assert first.x is again.x and not first.x.flags.writeable
    assert not np.array_equal(first.x, other.x) and not np.array_equal(first.test_x, other.test_x)
    wider = data.draw(3, Net(width=5))
    assert (wider.x.shape[1] == 5) if name == "ladder" else (wider.x is first.x), "only the ladder's depend on the student"


def test_a_student_in_float32_is_measured_in_float64() -> None:
    """The measures of the very same weights in float64: a loss difference of 1e-3 is lost in float32's rounding."""
    net = Net(width=8, depth=2, kind="phi:1", single=True)
    samples = Data(name="ladder", samples=64).draw(0, net)
    model = net.build(0)
    found = report(model, make("copy", model), samples, 32, 0)
    wide = model.cast(np.float64)
    assert model.theta.dtype == np.float32 and found == report(wide, make("copy", wide), samples, 32, 0)


# ---------------------------------------------------------------- warm-up


def test_the_warm_up() -> None:
    """The first w of the steps are feedback alignment's, then as many blend."""
    task = Online(steps=100, warmup=0.2)
    assert [task.share(step) for step in (0, 20, 30, 40, 99)] == [0, 0, 0.5, 1, 1]
    assert Online(warmup=0.0).share(0) == 1
    a, b = np.full((1, 1, 4), 3.0), np.full((1, 1, 4), -0.5)
    assert blend(a, None, 0.0) is a and blend(a, b, 1.0) is b
    assert blend(a, b, 0.5) == pytest.approx(0, abs=1e-5), "both at length one before they are mixed"


def test_bad_data_name() -> None:
    with pytest.raises(ValueError, match="data must be one of ladder, digits, cifar10, not 'mnist'"):
        Data(name="mnist").draw(0, Net())


# ---------------------------------------------------------------- through the throttle

TINY = Throttled(net=Net(width=8, depth=1), steps=4, bits=12, check=2)


@pytest.mark.parametrize("law", LAWS)
def test_a_unit_of_many_bits_follows_the_float_one(law: str) -> None:
    task = replace(TINY, law=law, steps=8, bits=24, rate=0.05, chi=0.05, max_norm=0.1)
    fixed, real = task.run("dfa", {}, 0, Throttle).end, replace(task, bits=0).run("dfa", {}, 0).end
    assert fixed["min_alpha"] == pytest.approx(real["min_alpha"], rel=1e-2)
    assert fixed["accuracy"] == pytest.approx(real["accuracy"], abs=0.02)
    assert real["angle"] < 1e-12 < fixed["angle"] < 0.01
    assert (real["min_alpha"] == 1) == (law in ("off", "adgd"))


def test_methods_and_bits_of_ones_own(tmp_path: Path) -> None:
    chosen = credit("throttle", tmp_path, steps=2, width=4, methods=["copy"], bits=[10], laws=["off", "adgd"]).runs
    assert list(chosen) == [f"{form}_copy_10-{law}" for form in ("two", "one") for law in ("off", "adgd")]


def test_few_bits_bend_the_update() -> None:
    angles = [replace(TINY, bits=bits).run("bp", {}, 0, Throttle).end["angle"] for bits in (16, 12, 8)]
    assert angles == sorted(angles) and angles[0] < 0.01 < angles[2]


def test_a_field_that_is_not_finite_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed point has no word for it."""
    own, calls = ResidualMLP.field, iter(range(9))
    monkeypatch.setattr(
        ResidualMLP, "field", lambda *given, **options: own(*given, **options) * (np.nan if next(calls) == 2 else 1)
    )
    for unit in (None, Throttle):
        calls = iter(range(9))
        found = TINY.run("bp", {}, 0, unit).end
        assert found["diverged"] == 2 and found["verdict"] == "diverged at step 2" and found["still"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"law": "none"}, "law must be one of off, stability_margin, inverse_curvature"), ({"bits": 5}, "bits must be 0")],
)
def test_a_bad_throttle(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changed).run("bp", {}, 0, Throttle)


@pytest.mark.slow
def test_golden_and_rtl_are_one() -> None:
    """Every number of a learning method's run."""
    golden = TINY.run("vector_field", {"rows": 32}, 0, Throttle)
    units: list[RtlThrottle] = []

    def make(config: Any, weights: Any) -> RtlThrottle:
        units.append(RtlThrottle(config, weights).__enter__())
        return units[-1]

    assert repr(TINY.run("vector_field", {"rows": 32}, 0, make, lambda unit: unit.__exit__(None, None, None))) == repr(golden)


# ---------------------------------------------------------------- what must be seen


@pytest.mark.slow
def test_the_acceptance_of_the_linear_quadratic_system() -> None:
    """At d = 16, where it takes seconds: chance, copy, bridge and field as at full size."""
    task, rows = LQ(steps=700), {"rows": 128}
    found = {method: task.run(method, options, 0).end["gamma"] for method, options in (
        ("dfa", {}), ("copy", {}), ("state_bridge", rows), ("vector_field", rows),
    )}  # fmt: skip
    assert abs(found["dfa"]) < 0.2 and found["copy"] > 0.98
    assert found["state_bridge"] > 0.8 and found["vector_field"] > 0.98


@pytest.mark.slow
def test_the_acceptance_of_the_ladder() -> None:
    """d = 32, L = 4, alpha 1: vector above scalar, shuffled near feedback alignment, one-sided as central."""
    found = {}
    for arm in experiment_of("audit", steps=1500).arms:
        if arm.label in ("dfa", "credit_bridge", "central", "one-sided", "shuffled"):
            found[arm.label] = run_arm(arm, 0).end
    for column in ("gamma", "rho"):
        assert found["central"][column] - found["credit_bridge"][column] >= 0.1
        assert abs(found["one-sided"][column] - found["central"][column]) <= 0.1
        assert found["shuffled"][column] - found["dfa"][column] <= 0.2


def test_a_law_is_read_by_its_former_name_and_never_written_so() -> None:
    assert (Throttled(law="margin").law, Throttled(law="inverse").law) == ("stability_margin", "inverse_curvature")
