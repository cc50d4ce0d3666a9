"""The experiments of the training harness, from the command line to the files, on each datapath."""

from __future__ import annotations

import csv
import re
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.network.reading import load
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.history import FitHistory
from kappa_rtl.golden.training.instrumented import TrainingWarning
from kappa_rtl.scripts.experiments.training.catalogue import EXPERIMENTS
from kappa_rtl.scripts.experiments.training.published import experiment_000, experiment_000c, experiment_noise, run_arm, summary
from kappa_rtl.scripts.experiments.training.run import train
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cosim import RtlThrottle
from support import ROOT


def arms(experiment: str, folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "table.csv").open() as text:
        return {row["arm"]: row for row in csv.DictReader(text)}


def test_the_acceptance_of_experiment_000() -> None:
    """Off overflows float32 at drift step 21; the stability margin and inverse curvature converge, after their peaks."""
    runs = {arm.name: run_arm(arm) for arm in experiment_000().arms}
    off, chi, beta = (summary(runs[name]) for name in ("off", "stability_margin", "inverse_curvature"))
    assert abs(off["diverged_at"] - 20 - 20) <= 2, "the first drift step is step 20"
    assert runs["off"].steps == off["diverged_at"] + 1
    assert chi["loss"] < 1e-10 and chi["min_alpha"] == pytest.approx(0.177, abs=0.002)
    assert chi["largest_loss"] == pytest.approx(160, rel=0.05)
    assert beta["loss"] < 1e-10 and beta["largest_loss"] == pytest.approx(2.5e4, rel=0.05)
    assert runs["stability_margin"]["alpha"][20] == 1, "the first drift step is unthrottled"
    assert runs["stability_margin"]["stability_margin_lambda_raw"][[0, 20]] == pytest.approx([0.531, 8.49], rel=0.01)


def test_the_acceptance_of_the_tight_formats() -> None:
    """Off stays near where it was thrown, on comes back; which loss it ends at hangs on the seed."""
    tight = {arm.name: arm for arm in experiment_000c().arms if arm.name.startswith("tight")}
    for seed in range(3):
        off, on = (summary(run_arm(tight[f"tight_{switch}"], seed)) for switch in ("off", "on"))
        assert 130 < off["loss"] < 190 and on["loss"] < 0.05
        assert on["still"] < 60 and np.isnan(on["diverged_at"])


def test_noise_freezes_the_naive_estimator_alone() -> None:
    found = {}
    for arm in experiment_noise().arms:
        # Said before the run, and once more when it has happened.
        with pytest.warns(TrainingWarning, match="sqrt") if arm.name == "naive" else nullcontext():
            found[arm.name] = summary(run_arm(arm))
    assert found["naive"]["frozen"] and found["naive"]["c_over_lambda"] > 1000
    for name in ("same_batch", "half_batch", "momentum"):
        assert not found[name]["frozen"]
    assert found["same_batch"]["c_over_lambda"] == pytest.approx(0.9, abs=0.1)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("000", "000C", "laws") else [pytest.mark.slow, pytest.mark.ci])
        for name, make in EXPERIMENTS.items()
        if name != "data" and make().sweep is None
    ],
)
def test_every_experiment_from_the_command_line(name: str, tmp_path: Path) -> None:
    """A table, a plot and a history for each run; a second call makes nothing anew; another setting does."""
    out = tmp_path / "a folder"
    command = ["train", name, "--steps", "6", "--seeds", "1", "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    found = arms(name, out)
    assert list(found) == [arm.name for arm in EXPERIMENTS[name]().arms]
    assert all(name in done.output for name in found)
    files = sorted((out / "runs").iterdir())
    assert len(files) == len(found)
    stamps = [file.stat().st_mtime_ns for file in files]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert [file.stat().st_mtime_ns for file in files] == stamps
    files[0].write_bytes(b"cut off")
    assert CliRunner().invoke(main, command).exit_code == 0
    assert FitHistory.load(files[0]).steps >= 6
    assert [file.stat().st_mtime_ns for file in files][1:] == stamps[1:]
    command[command.index("6")] = "5"
    assert CliRunner().invoke(main, command).exit_code == 0
    assert all(file.stat().st_mtime_ns != stamp for file, stamp in zip(files, stamps, strict=True))


@pytest.mark.parametrize("kind", ["csv", "npz"])
def test_a_file_of_the_users(kind: str, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    table = random.normal(size=(50, 5))
    path = tmp_path / f"mine.{kind}"
    if kind == "csv":
        np.savetxt(path, table, delimiter=",", header="a,b,c,d,e", comments="")
    else:
        np.savez(path, X=table[:, :3], Y=table[:, 3:])
    command = ["train", "data", "--data", str(path), "--steps", "5", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, command + (["--outputs", "2"] if kind == "csv" else []))
    assert done.exit_code == 0, done.output
    assert len(arms("data", tmp_path / "out")) == 8
    table = (tmp_path / "out" / "table.txt").read_text()
    assert "3-32-2" in table and "8: first update, alpha = 1" in table and "Inputs are not scaled" in table


def test_other_data_is_another_run(tmp_path: Path) -> None:
    """In the same folder, in the same file: what is found again is the very same run only."""
    path, losses = tmp_path / "mine.csv", []
    for text in ("1,2,3\n4,5,6\n7,8,9\n", "\ufeff1,2,3\n4,5,6\n7,8,1\n"):  # a mark that spreadsheets write, and no header
        path.write_text(text, encoding="utf-8")
        run = train("data", tmp_path / "out", file=str(path), steps=3).runs["float_off"][0]
        losses.append(run["loss"][0])
    assert losses[0] != losses[1] and load(path).inputs.shape == (3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2\n3\n", "rows must all have the same number of columns"),
        ("a,b\n", "rows must follow the header"),
        ("1,2\n3,x\n", "line 2, column 1: must be a number"),
        ("1,2\n3,nan\n", "line 2, column 1: no value may be missing"),
        ("1\n2\n", "rows must have at least two columns"),
    ],
)
def test_a_bad_table_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text(text)
    done = CliRunner().invoke(main, ["train", "data", "--data", str(tmp_path / "mine.csv")])
    assert done.exit_code == 1 and message in done.output


def test_figures_of_every_run(tmp_path: Path) -> None:
    train("1A", tmp_path, figures=True, steps=4)
    assert sorted(file.name for file in (tmp_path / "runs").glob("*.png")) == ["stable-0.png", "throttle-0.png", "unstable-0.png"]


@pytest.mark.slow
@pytest.mark.ci
def test_golden_and_rtl_are_one_on_one_layer(tmp_path: Path) -> None:
    runs = {path: train("000", tmp_path / path, datapath=path, steps=4).runs for path in ("golden", "rtl")}
    for arm, histories in runs["golden"].items():
        same(histories[0], runs["rtl"][arm][0])


@pytest.mark.slow
@pytest.mark.ci
def test_golden_and_rtl_are_one_on_two_layers() -> None:
    """64-32-10 with relu and biases: the weights after every step, and every metric."""
    arm = next(arm for arm in EXPERIMENTS["digits"](steps=6).arms if arm.name == "16_on")
    thetas: dict[str, list[np.ndarray]] = {"golden": [], "rtl": []}
    golden = run_arm(arm, make_unit=Throttle, observe=lambda step: thetas["golden"].append(step.theta_after))
    with ExitStack() as stack:
        rtl = run_arm(
            arm,
            make_unit=lambda config, weights: stack.enter_context(RtlThrottle(config, weights)),
            observe=lambda step: thetas["rtl"].append(step.theta_after),
        )
    np.testing.assert_array_equal(thetas["golden"], thetas["rtl"])
    assert len(thetas["rtl"]) == 6 and np.ptp(thetas["rtl"], axis=0).any()
    same(golden, rtl)


def same(golden: FitHistory, rtl: FitHistory) -> None:
    assert list(golden) == list(rtl) and golden.layers.keys() == rtl.layers.keys()
    for metric in golden:
        np.testing.assert_array_equal(golden[metric], rtl[metric], err_msg=metric)
    assert golden.meta["unit"] == "Throttle" and rtl.meta["unit"] == "RtlThrottle"


@pytest.mark.slow
def test_an_estimator_with_a_direction_of_its_own_in_rtl() -> None:
    """same_batch shows the unit another sequence than the one it steps along: the streaming variant takes both."""
    arm = next(arm for arm in experiment_noise(steps=4).arms if arm.name == "same_batch")
    golden = run_arm(arm, make_unit=Throttle)
    with ExitStack() as stack:
        rtl = run_arm(arm, make_unit=lambda config, weights: stack.enter_context(RtlThrottle(config, weights, streaming=True)))
    same(golden, rtl)


def test_settings_from_a_file(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('[training]\nsteps = 5\n[precision.dense0]\nweight = "Q4.8"\n[throttle]\nlanes = 4\nchi = "1/2"\n')
    runs = train("000", tmp_path / "out", config=config, datapath="golden").runs
    assert runs["stability_margin"][0].meta["law"]["chi"] == 0.5 and runs["off"][0].steps == 25
    assert runs["stability_margin"][0].meta["precision"] == {"dense0": {"weight": "SQ4.8"}}
    assert runs["stability_margin"][0].meta["law"]["lanes"] == 4 and runs["stability_margin"][0].meta["law"]["weight"] == "SQ4.8"


@pytest.mark.parametrize(
    ("experiment", "text", "message"),
    [
        (
            "000C",
            "[precision.__default__]\nweight = 'SQ2.10'",
            r"precision .* 000C: its arms \(float_off, .*\) differ in it",
        ),
        ("rounding", "[throttle]\nweight = 'SQ2.6'", "throttle.weight must not be given for the experiment rounding"),
        ("rounding", "[throttle]\nresidual_bits = 2", "throttle.residual_bits must not be given"),
        ("000", "[throttle]\nlaw = 'inverse_curvature'", "throttle.law must not be given for the experiment 000"),
        ("laws", "[throttle]\nlaw = 'adgd'", r"throttle.law .* \(off, stability_margin, inverse_curvature, ..., trust_ratio\)"),
        ("1A", "[throttle]\neta = 2", r"throttle.eta .* \(stable, unstable, throttle\) differ in it"),
        ("digits", "[throttle]\nenabled = true", "throttle.enabled must not be given for the experiment digits"),
        ("noise", "[training]\nestimator = 'naive'", "training.estimator must not be given for the experiment noise"),
        ("delay", "[throttle]\nchi = 1", "throttle.chi must not be given for the experiment delay"),
        (
            "digits",
            "[throttle]\nlaw = 'adgd'",
            "throttle.law must be stability_margin or inverse_curvature on the datapath float",
        ),
        ("digits", "[throttle]\nbeta = 1", "throttle.beta must not be given with the law stability_margin, which has chi"),
        ("digits", "[training]\nbatch = 5000", "training.batch must be at most the 1797 rows to train on, not 5000"),
    ],
)
def test_what_arms_are_named_after_is_not_changed(experiment: str, text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(text)
    with pytest.raises(ValueError, match=message):
        train(experiment, tmp_path / "out", config=config, steps=2)
    assert not (tmp_path / "out").exists()


def test_formats_of_a_file_are_arms_of_their_own(tmp_path: Path) -> None:
    """Float beside them, under names that say what ran; the unit's formats are the same thing."""
    config = tmp_path / "train.toml"
    for text in ("[precision.__default__]\nweight = 'SQ2.5'\nbias = 'SQ2.5'\n", "[throttle]\nweight = 'SQ2.5'\n"):
        config.write_text(text)
        outcome = train("digits", tmp_path / text[1:4], config=config, steps=2)
        assert list(outcome.runs) == ["float_off", "float_on", "given_off", "given_on"]
        assert "given: __default__.weight SQ2.5" in outcome.table
        assert outcome.runs["given_on"][0].meta["precision"] == {"__default__": {"weight": "SQ2.5", "bias": "SQ2.5"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[throttle]\nchi = 'x'", "throttle.chi must be a number, not 'x'"),
        ("[throttle]\nchi = true", "throttle.chi must be a number, not True"),
        ("[train]\nchi = 1", "train.chi must be written throttle.chi, its name in every file"),
        ("[train]\nlearning_rate = 1", "train.learning_rate must be written throttle.eta"),
        ("[train]\ncontroller = 'chi'", "train.controller must be written throttle.law"),
        ("[train]\nrate = 1", r"\[train\] must be written \[training\]"),
        (
            "[training]\nestimater = 'naive'",
            "keys of .* among steps, .*, not 'estimater'; the nearest is 'estimator'",
        ),
        ("[training]\nchi = 1", r"not 'chi'; it is a key of \[throttle\]"),
        ("[training]\nestimator = 'best'", "training.estimator must be one of naive, .*, not 'best'"),
        ("[training]\nsteps = 0", "training.steps must be an integer of at least 1, not 0"),
        ("steps = 1", r"steps must stand in a table, not before all of them; it is a key of \[training\]"),
        ("[run]\nx = 1", r"keys of \[run\] must be among .*, not 'x'"),
        ("[trottle]\nx = 1", "tables must be throttle, .*, not 'trottle'; the nearest is 'throttle'"),
        ("[precision.dense9]\nweight = 'Q2.6'", r"precision names must be layers of the model \(dense0\), not 'dense9'"),
        (
            "[precision.dense0]\nwait = 'Q2.6'",
            "fields of .* among .*, not 'wait'; the nearest is 'weight'",
        ),
        ("[precision.dense0]\nweight = 'Q-2000.2016'", "format 'Q-2000.2016': integer_bits must be from -1000 to 1000"),
        ("[throttle]\nelements = 5", "throttle.elements must be 8, the weights of the model of 000, not 5"),
        ("[throttle]\nlaw = 'gamma'", "throttle.law must be one of stability_margin, .*, not 'gamma'"),
        ("nonsense", "must be a readable TOML file"),
    ],
)
def test_a_bad_file_is_named(text: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text(text)
    with pytest.raises(ValueError, match=message):
        train("000", tmp_path / "out", config=config, steps=2)


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("00O", {}, "experiment must be one of .*, not '00O'"),
        ("000", {"datapath": "verilog"}, "datapath must be one of float, golden, .*, not 'verilog'"),
        ("000", {"seeds": 0}, "seeds must be at least 1, not 0"),
        ("000", {"jobs": 0}, "jobs must be at least 1, not 0"),
        ("data", {}, r"data.file must be given, in the table \[data\] or by --data"),
    ],
)
def test_what_cannot_be_run_is_named(name: str, how: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        train(name, tmp_path / "out", **how)
    assert not (tmp_path / "out").exists()


def test_the_documented_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every block of Python in the documentation, one after the other, as a reader would type them."""
    text = (ROOT / "docs" / "training.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    for block in blocks:
        exec(block, scope)
    assert len(blocks) == 8 and (tmp_path / "history.png").exists() and FitHistory.load("history.npz").steps == 100
    assert not Path("run.npz").exists()
    assert float(capsys.readouterr().out.split()[0]) < 0.3


def test_warnings_stand_under_the_table(tmp_path: Path) -> None:
    table = train("noise", tmp_path, seeds=2, steps=12).table
    said = [line for line in table.splitlines() if line.startswith("warning")]
    assert len(said) == 1 and said[0].startswith("warning, naive (2 of 2): chi = 1 is less than sqrt(2): where minibatch noise")


def test_bad_options(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert "'1B' is not one of" in run(main, ["train", "1B"]).output
    assert "needs --data FILE, or --config" in run(main, ["train", "data"]).output
    assert "--targets is for 000 and 000C, not 1A" in run(main, ["train", "1A", "--targets"]).output
    (tmp_path / "file").write_text("")
    done = run(main, ["train", "000", "--out", str(tmp_path / "file" / "below")])
    assert done.exit_code == 2 and "must be a folder that can be written" in done.output


def test_a_file_of_settings_with_data_and_a_model(tmp_path: Path) -> None:
    """The tables of the co-simulation: rows are held out, and the table tells what became of them."""
    table = np.random.default_rng(0).normal(size=(60, 3))
    lines = [f"{a:.3f};{b:.3f};{'up' if a > c else 'down'}".replace(".", ",") for a, b, c in table]
    (tmp_path / "mine.csv").write_text("a;b;kind\n" + "\n".join(lines) + "\n")
    config = tmp_path / "my.toml"
    config.write_text(
        "[data]\nfile = 'mine.csv'\nscaling = 'standard'\nheld_out = 0.25\n[model]\nhidden = [4, 2]\nactivation = 'tanh'\n"
        "[training]\nsteps = 5\nseed = 3\nbatch = 16\n[throttle]\nweight = 'SQ3.9'\n[run]\nsim = 'icarus'\n"
    )
    done = CliRunner().invoke(main, ["train", "data", "--config", str(config), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert f"{config}: [run] is not used by train data" in done.output
    for said in ("'down' -> 0, 'up' -> 1", "15 of 60 rows are held out", "given: first weights", "2-4-2-2 with tanh"):
        assert said in (tmp_path / "out" / "table.txt").read_text()
    found = arms("data", tmp_path / "out")
    assert list(found) == ["float_off", "float_on", "given_off", "given_on"]
    assert all(row["seed"] == "3" and 0 <= float(row["accuracy_held_out"]) <= 1 for row in found.values())
    assert all(float(row["loss_held_out"]) > 0 for row in found.values())


def test_an_unsigned_gradient_is_refused_as_everywhere(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("[throttle]\ngradient = 'UQ4.4'\n")
    done = CliRunner().invoke(main, ["train", "digits", "--config", str(tmp_path / "my.toml"), "--out", str(tmp_path / "out")])
    assert done.exit_code == 1 and "throttle.gradient must be a signed format, not UQ4.4" in done.output
