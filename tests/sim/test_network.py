"""Networks and the user's data in the co-simulation: the same report and lockstep, and a look at the grids before the run."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.formats import Fixed
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.training.linear import StepRow
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.experiments.cosim.look import look
from kappa_rtl.scripts.experiments.cosim.network import Batches, check, train_network
from kappa_rtl.scripts.experiments.stands import stand
from kappa_rtl.scripts.main import main
from kappa_rtl.scripts.settings import USED, read
from support import ROOT
from support.strategies import exactly

PETALS = ROOT / "examples" / "data" / "petals.toml"


def written(folder: Path, text: str, rows: int = 40, scale: float = 1.0) -> Path:
    """A configuration file, and beside it ``mine.csv``: three inputs and a label of two classes."""
    random = np.random.default_rng(0)
    table = random.normal(0, scale, (rows, 3))
    lines = [f"{a:.4f},{b:.4f},{c:.4f},{'yes' if a + b > 0 else 'no'}" for a, b, c in table]
    (folder / "mine.csv").write_text("a,b,c,kind\n" + "\n".join(lines) + "\n")
    path = folder / "my.toml"
    path.write_text('[data]\nfile = "mine.csv"\n' + text)
    return path


def rows_of(job: Job, unit: Any) -> list[StepRow]:
    found: list[StepRow] = []
    train_network(job, unit, found.append)
    return found


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("", 3 * 32 + 32 + 32 * 2 + 2),
        ("[model]\nhidden = []\n", 3 * 2 + 2),
        ("[model]\nhidden = []\nbias = false\n", 6),
        ("[model]\nhidden = [5, 2]\n", 15 + 5 + 10 + 2 + 4 + 2),  # as wide as the output, which still follows
        ("[model]\nhidden = [4]\nbatch_norm = true\n", 12 + 4 + 8 + 8 + 2),
    ],
)
def test_elements_follow_from_the_model(text: str, elements: int, tmp_path: Path) -> None:
    job = Job.read(written(tmp_path, text))
    assert job.throttle.elements == elements == job.start(job.throttle).size
    assert job.narrow == {} and job.gain is None
    with pytest.raises(ValueError, match=f"elements must be {elements} for the model 3-"):
        Job.read(written(tmp_path, text + "[throttle]\nelements = 3\n"))


def test_a_network_learns_and_its_rows_are_those_of_the_report(tmp_path: Path) -> None:
    text = "held_out = 0.25\n[model]\nhidden = [8]\nbatch_norm = true\n[training]\nsteps = 30\nbatch = 7\n[throttle]\neta = 0.3\n"
    job = Job.read(written(tmp_path, text))
    start = job.start(job.throttle)
    golden, again = (rows_of(job, Throttle(job.throttle, start)) for _ in range(2))
    real = rows_of(job, FloatThrottle(job.throttle, start))
    for mine, other in zip(golden, again, strict=True):
        np.testing.assert_array_equal(mine.record.theta, other.record.theta)
    assert [row.step for row in real] == list(range(30))
    assert golden[-1].metrics["loss_held_out"] < golden[0].metrics["loss_held_out"]
    assert golden[-1].metrics.keys() == real[-1].metrics.keys() >= {"accuracy", "accuracy_held_out", "eta_lambda_max", "angle"}
    # What the RTL is given are codes on its gradient's grid.
    assert golden[0].gradient.dtype == np.int64 and real[0].gradient.dtype == np.float64
    assert np.max(np.abs(golden[0].record.weights - real[0].record.weights)) < 1e-2


def test_formats_of_tensors_hold_on_hardware_alone(tmp_path: Path) -> None:
    model = "[model]\nhidden = [4]\n[training]\nsteps = 3\n"
    plain = Job.read(written(tmp_path, model))
    coarse = Job.read(written(tmp_path, model + "[run]\ninput = 'Q2.2'\n[precision.dense0]\nactivation = 'fixed<4,2,RND,SAT>'\n"))
    losses = {}
    for kind in (Throttle, FloatThrottle):
        losses[kind] = [rows_of(job, kind(job.throttle, job.start(job.throttle)))[-1].metrics["loss"] for job in (plain, coarse)]
    assert losses[Throttle][0] != losses[Throttle][1] and losses[FloatThrottle][0] == losses[FloatThrottle][1]


@pytest.mark.parametrize(("loop", "sizes"), [({}, [16, 16, 8, 16, 16, 8]), ({"drop_last": True}, [16] * 6)])
def test_every_row_comes_once_an_epoch(loop: dict[str, bool], sizes: list[int], tmp_path: Path) -> None:
    job = replace(Job.read(written(tmp_path, "[model]\nhidden = []\n[training]\nsteps = 6\nbatch = 16\n")), loop=loop)
    drawn = [x for x, _ in Batches(job)]
    assert [len(x) for x in drawn] == sizes
    assert loop or len(np.unique(np.concatenate(drawn[:3]), axis=0)) == 40


def test_the_same_file_serves_every_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = Job.read(PETALS)
    again = tmp_path / "config.toml"
    again.write_text(job.to_toml())
    assert Job.read(again).throttle == job.throttle and Job.read(again).data.file == str(PETALS.with_suffix(".csv"))
    assert Job.read(again) == Job.read(again)
    settings = read(again)
    settings.tell_unused("export", USED["export"])
    said = capsys.readouterr().err
    assert said == f"{again}: [data], [model], [training], [run], [narrow] are not used by export\n"


def test_how_a_tensor_stands_to_its_grid() -> None:
    grid = Fixed.parse("SQ2.2")  # from -2 to 1.75 by 0.25
    seen = stand("x", np.array([-2.2, -2.1, -2.0, 0.0, 0.1, -0.12, 0.13, 1.75, 1.8, 1.9]), grid)
    assert (seen.below, seen.above, seen.swallowed, seen.zero, seen.largest) == (0.1, 0.1, 0.2, 0.1, 2.2)
    wild = stand("x", np.array([np.nan, np.inf, -np.inf, 1.0]), grid)
    assert (wild.below, wild.above) == (0.25, 0.5)


def test_what_the_data_do_to_the_grids_is_told(tmp_path: Path) -> None:
    large = look(Job.read(written(tmp_path, "[run]\ninput = 'SQ4.12'\n", scale=30)))
    assert any(sentence.startswith("Inputs: ") and "beyond the rails of SQ4.12 (8)" in sentence for sentence in large.sentences)
    assert large.stands[0].below + large.stands[0].above > 0.7
    small = look(Job.read(written(tmp_path, "[throttle]\neta = 1e-5\n[model]\nhidden = []\n")))
    assert any(
        sentence.startswith("First update, alpha = 1: ") and "below half an ulp of SQ1.15" in sentence
        for sentence in small.sentences
    )
    assert any("the throttle may never act" in sentence for sentence in small.sentences)
    digits = look(Job.read(None))
    assert digits.sentences == () and digits.stands[0].tensor == "inputs, gain 4" and digits.stands[0].largest == 4.0
    assert [one.tensor for one in digits.stands[4:]] == [
        "narrow: first gradient",
        "narrow: first update, alpha = 1",
        "narrow: first weights",
    ]


def test_the_loop_refuses_before_anything_is_built(tmp_path: Path) -> None:
    job = Job.read(written(tmp_path, "[training]\noptimiser = 'best'\n"))
    with pytest.raises(ValueError, match="optimiser must be one of"):
        check(job, Throttle(job.throttle, job.start(job.throttle)))


@pytest.mark.slow
@pytest.mark.ci
def test_golden_and_rtl_on_the_users_data(tmp_path: Path) -> None:
    """From the command line to the report: what was decided is printed and kept, and no bit differs."""
    text = "scaling = 'minmax'\nheld_out = 8\n[model]\nhidden = [4]\n[training]\nsteps = 8\n[throttle]\neta = 1e-3\nlanes = 2\n"
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["cosim", "--config", str(written(tmp_path, text)), "--out", str(out)])
    assert done.exit_code == 0, done.output
    report = json.loads((out / "report.json").read_text())
    assert report["differences"] == 0 and report["compared_steps"] == 8
    assert [run["run"] for run in report["runs"]] == ["float_unthrottled", "float_throttled", "golden", "rtl"]
    page = html.unescape((out / "index.html").read_text())
    for said in ("'no' -> 0, 'yes' -> 1", "8 of 40 rows are held out", "brought to 0..1"):
        assert any(said in note for note in report["notes"]) and said in done.output and said in page
    assert any("the throttle never acts: alpha is 1 at every step" in said for said in report["verdict"])
    assert report["look"][0]["tensor"] == "inputs" and "first gradient  " in done.output


@pytest.mark.ci
@pytest.mark.slow
def test_an_optimiser_has_the_streaming_unit(tmp_path: Path) -> None:
    """Momentum, batch normalisation and minibatches; the directions are kept beside the gradients, and the run goes on."""
    text = "[model]\nhidden = [4]\nbatch_norm = true\n[training]\nsteps = 6\nbatch = 16\noptimiser = 'momentum'\n"
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["cosim", "--config", str(written(tmp_path, text)), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads((out / "report.json").read_text())["differences"] == 0
    resumed = CliRunner().invoke(main, ["cosim", "--resume", "--steps", "9", "--out", str(out)])
    assert resumed.exit_code == 0, resumed.output
    assert (out / "trace.jsonl").read_bytes().count(b"\n") == 9
    with np.load(out / "vectors.npz") as kept:
        vectors = dict(kept)
    assert vectors["direction"].shape == vectors["gradient"].shape
    assert (vectors["direction"][0] == vectors["gradient"][0]).all() and (vectors["direction"][1] != vectors["gradient"][1]).any()


def test_a_tensor_in_segments_of_two_scales(tmp_path: Path) -> None:
    """Refused before anything is built."""
    text = "[model]\nhidden = []\n[[throttle.segments]]\nelements = 1\nscale = 1\n[[throttle.segments]]\nelements = 7\n"
    with pytest.raises(ValueError, match=exactly("throttle must have dense0/kernel in segments of one scale")):
        Job.read(written(tmp_path, text))


@pytest.mark.slow
@pytest.mark.ci
def test_segments_in_a_co_simulation(tmp_path: Path) -> None:
    """A grid a tensor, from the file to the report: each tensor is looked at on its own, and has a strip of its own."""
    text = "[model]\nhidden = [4]\n[training]\nsteps = 6\n[throttle]\neta = 0.1\nlanes = 2\nweight = 'SQ2.6'\nupdate = 'SQ1.9'\n"
    sizes = {"dense0/kernel": 12, "dense0/bias": 4, "dense1/kernel": 8, "dense1/bias": 2}
    for place, (name, size) in enumerate(sizes.items()):
        text += f"[[throttle.segments]]\nname = '{name}'\nelements = {size}\nscale = {place}\n"
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["cosim", "--config", str(written(tmp_path, text)), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "first weights of dense1/bias" in done.output and "SQ-1.9" in done.output
    report = json.loads((out / "report.json").read_text())
    assert report["differences"] == 0 and report["compared_steps"] == 6
    assert (out / "tensors.png").read_bytes().startswith(b"\x89PNG")
    assert "Tensor by tensor" in (out / "index.html").read_text()
    resumed = CliRunner().invoke(main, ["cosim", "--resume", "--steps", "9", "--out", str(out)])
    assert resumed.exit_code == 0, resumed.output
    assert json.loads((out / "report.json").read_text())["compared_steps"] == 9
