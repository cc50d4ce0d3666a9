"""The credit experiments from the command line to the files, update fields through the throttle, and what they must show."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from threadpoolctl import threadpool_limits  # comes with scikit-learn

from kappa_rtl.golden.credit.model import ResidualMLP
from kappa_rtl.golden.credit.tasks import LQ, Data, Net, Online, blend
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.scripts.experiments.credit.experiments import EXPERIMENTS, NARROW, audit
from kappa_rtl.scripts.experiments.credit.run import credit, run_arm
from kappa_rtl.scripts.experiments.credit.throttling import LAWS, Throttled
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cosim import RtlThrottle


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As on the command line: the matrices are so small that threads only wait for each other."""
    with threadpool_limits(1):
        yield


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The linear-quadratic system measured on a few samples."""
    own = EXPERIMENTS["lq"]()
    arms = tuple(replace(arm, task=replace(arm.task, evaluate=8, batch=8)) for arm in own.arms)
    monkeypatch.setitem(EXPERIMENTS, "lq", lambda full=False: replace(own, arms=arms))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n == "lq" else pytest.mark.slow) for n in EXPERIMENTS])
def test_every_experiment_from_the_command_line(name: str, tmp_path: Path) -> None:
    """Table, plot and results; a second call makes nothing anew; what was cut off, or is another run, is made again."""
    out = tmp_path / "a folder"
    command = ["credit", name, "--steps", "2", "--seeds", "1", "--jobs", "1", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    experiment = EXPERIMENTS[name]()
    names = [arm.name for arm in experiment.arms]
    assert all(f"\n{arm} " in f"\n{done.output}" for arm in names)
    results = json.loads((out / "results.json").read_text())
    assert list(results["arms"]) == names
    for claim in experiment.claims:
        assert f": {claim.text}" in done.output
    assert any(arm.method == "copy" for arm in experiment.arms), "no table without a control"
    files = sorted((out / "runs").iterdir())
    assert [file.name for file in files] == sorted(f"{arm}-0.json" for arm in names)
    stamps = [file.stat().st_mtime_ns for file in files]
    files[0].write_bytes(b'{"job": "cut')
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 0 and again.output == done.output
    assert [file.stat().st_mtime_ns for file in files][1:] == stamps[1:]
    assert json.loads(files[0].read_text())["seed"] == 0
    assert json.loads((out / "results.json").read_text()) == results


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    one, two = (credit("lq", tmp_path / str(jobs), steps=3, seeds=2, jobs=jobs) for jobs in (1, 2))
    assert one.table == two.table and one.runs == two.runs
    copied = one.runs["copy"]
    assert copied[0]["gamma"] != copied[1]["gamma"], "each seed is a run of its own"
    for run, base in zip(copied, one.runs["dfa"], strict=True):
        assert run["S1"] == run["gamma"] - base["gamma"] and run["S2"] == run["rho"] - base["rho"]


@pytest.mark.usefixtures("small")
def test_the_findings_say_what_did_not_reproduce(tmp_path: Path) -> None:
    outcome = credit("lq", tmp_path, steps=1, seeds=1)
    assert "did not reproduce: credit_bridge: gamma" in outcome.table
    assert "DOES NOT HOLD: the vector field is above .98 in gamma" in outcome.table
    assert "[0.945±0.002]" in outcome.table
    saved = json.loads((tmp_path / "results.json").read_text())
    assert saved["arms"]["state_bridge"]["columns"]["gamma"]["published"] == [0.945, 0.002]
    assert any(line.startswith("did not reproduce") for line in saved["findings"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "none"}, "experiment must be one of lq, ladder"),
        ({"jobs": 0}, "jobs must be at least 1, not 0"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"datapath": "none"}, "datapath must be one of float, golden, rtl, not 'none'"),
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
    task = replace(TINY, law=law, steps=8, bits=24, rate=0.05, chi=0.05)
    fixed, real = task.run("dfa", {}, 0, Throttle), replace(task, bits=0).run("dfa", {}, 0)
    assert fixed["min_alpha"] == pytest.approx(real["min_alpha"], rel=1e-2)
    assert fixed["accuracy"] == pytest.approx(real["accuracy"], abs=0.02)
    assert real["angle"] < 1e-12 < fixed["angle"] < 0.01
    assert (real["min_alpha"] == 1) == (law == "off")


def test_the_published_unit_follows_the_golden_one() -> None:
    """They differ in their scalars alone, which have 24 bits there and 53 here, and in the 17 bits of the step."""
    task = replace(TINY, bits=12, rate=0.05, chi=0.05)
    golden, published = task.run("bp", {}, 0, Throttle), task.run("bp", {}, 0)
    assert golden["min_alpha"] == pytest.approx(published["min_alpha"], rel=1e-3) and golden["min_alpha"] < 1
    assert golden["angle"] == pytest.approx(published["angle"], rel=0.02) and golden["angle"] > 0.001


def test_methods_and_bits_of_ones_own(tmp_path: Path) -> None:
    chosen = credit("throttle", tmp_path, steps=2, methods=["copy"], bits=[10], datapath="float").runs
    assert list(chosen) == ["copy_10-off", "copy_10-stability_margin", "copy_10-inverse_curvature"]


def test_few_bits_bend_the_update() -> None:
    angles = [replace(TINY, bits=bits).run("bp", {}, 0, Throttle)["angle"] for bits in (16, 12, 8)]
    assert angles == sorted(angles) and angles[0] < 0.01 < angles[2]


def test_a_field_that_is_not_finite_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fixed point has no word for it."""
    own, calls = ResidualMLP.field, iter(range(9))
    monkeypatch.setattr(
        ResidualMLP, "field", lambda *given, **options: own(*given, **options) * (np.nan if next(calls) == 2 else 1)
    )
    for make in (None, Throttle):
        calls = iter(range(9))
        found = TINY.run("bp", {}, 0, make)
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

    assert TINY.run("vector_field", {"rows": 32}, 0, make, lambda unit: unit.__exit__(None, None, None)) == golden


# ---------------------------------------------------------------- what must be seen


@pytest.mark.slow
def test_the_acceptance_of_the_linear_quadratic_system() -> None:
    """At d = 16, where it takes seconds: chance, copy, bridge and field as at full size."""
    task = LQ(steps=700)
    found = {method: task.run(method, options, 0)["gamma"] for method, options in (
        ("dfa", {}), ("copy", {}), ("state_bridge", NARROW), ("vector_field", NARROW),
    )}  # fmt: skip
    assert abs(found["dfa"]) < 0.2 and found["copy"] > 0.98
    assert found["state_bridge"] > 0.99 and found["vector_field"] > 0.98


@pytest.mark.slow
def test_the_acceptance_of_the_ladder() -> None:
    """d = 32, L = 4, alpha 1: vector above scalar, shuffled near feedback alignment, one-sided as central."""
    found = {}
    for arm in audit().shortened(800).arms:
        if arm.label in ("dfa", "credit_bridge", "central", "one-sided", "shuffled"):
            found[arm.label] = run_arm(arm, 0)
    for column, lead in (("gamma", 0.15), ("rho", 0.25)):
        assert found["central"][column] - found["credit_bridge"][column] >= lead
        assert abs(found["one-sided"][column] - found["central"][column]) <= 0.02
        assert found["shuffled"][column] - found["dfa"][column] <= 0.2


def test_a_law_is_read_by_its_former_name_and_never_written_so() -> None:
    assert (Throttled(law="margin").law, Throttled(law="inverse").law) == ("stability_margin", "inverse_curvature")
