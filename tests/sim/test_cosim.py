"""The RTL in the training loop: golden in lockstep, the record of a run, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.network.data import digits
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.scripts.experiments.cosim.arms import LayerRun
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.experiments.cosim.run import DIFFERENCE_OUTPUTS, OUTPUTS, cosimulate
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.vectors import from_text, pack, unpack
from support.jobs import job
from support.lockstep import lockstep
from support.mutants import KEPT
from support.simulators import VERILATOR_FIRST, both_languages
from support.spec import SpecThrottle
from support.torture import hardware, torture

SIMULATORS = [pytest.param("verilator"), pytest.param("icarus", marks=pytest.mark.icarus)]


# ------------------------------------------------------------------------------------------------ equality


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_hard_cases(simulator: str) -> None:
    """Every law, source, answer to a still step, start and stall, on hardware where ties and overflows are frequent."""
    config = hardware()
    with RtlThrottle(config, np.zeros(config.elements), simulator=simulator) as rtl:
        assert torture(rtl) is None


@pytest.mark.slow
@pytest.mark.ci
def test_default_formats_at_eight_lanes() -> None:
    lockstep(ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8), 40)


@pytest.mark.icarus
@pytest.mark.parametrize(
    "changes",
    [
        {"lanes": 3, "elements": 11, "mantissa_bits": 9, "weight": "SQ1.5", "gradient": "SQ2.7", "update": "SQ1.6,floor"},
        {"lanes": 1, "elements": 1, "mantissa_bits": 25, "weight": "SQ1.5,toward_zero", "update": "SQ1.9,nearest_up"},
        {"lanes": 5, "elements": 5, "mantissa_bits": 8, "weight": "SQ3.5,floor,wrap", "update": "SQ4.9,nearest_away,wrap"},
        pytest.param(
            {
                "lanes": 2,
                "elements": 5,
                "mantissa_bits": 53,
                "weight": "SQ1.31",
                "gradient": "SQ2.30",
                "update": "SQ-3.32,nearest_down,zero",
            },
            marks=[pytest.mark.slow, pytest.mark.ci],
        ),
        pytest.param(
            {"lanes": 4, "elements": 13, "weight": "SQ2.6", "gradient": "SQ2.10", "update": "SQ1.3"},
            marks=[pytest.mark.slow, pytest.mark.ci],
        ),
        pytest.param(
            {
                "lanes": 32,
                "elements": 33,
                "weight": "SQ2.2,nearest_zero,saturate_symmetric",
                "gradient": "SQ3.1",
                "update": "SQ3.1",
            },
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda changes: f"L{changes['lanes']}-N{changes['elements']}-M{changes.get('mantissa_bits', 24)}-{changes['weight']}",
)
@both_languages
def test_formats_lanes_and_widths(icarus: str, changes: dict[str, Any]) -> None:
    lockstep(ThrottleConfig.inverse_curvature(eta=0.1, **changes), 25, simulator=icarus, stalls=Stalls(40, 90, 2))


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_streaming_variant_takes_a_direction_of_its_own(simulator: str) -> None:
    config = hardware(lanes=3)
    lockstep(config, 30, simulator=simulator, streaming=True, stalls=Stalls(50, 50, 9))


@pytest.mark.slow
def test_hard_cases_with_random_numbers_residuals_and_every_rail() -> None:
    config = hardware(**KEPT)
    with RtlThrottle(config, np.zeros(config.elements)) as rtl:
        assert torture(rtl, **KEPT) is None


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_residuals_may_pass_through_the_host(icarus: str) -> None:
    config = hardware(lanes=3, residual_bits=4, update="SQ1.6,stochastic,saturate")
    lockstep(config, 30, simulator=icarus, streaming=True, stalls=Stalls(50, 50, 9))


def test_a_direction_needs_the_streaming_variant() -> None:
    config = hardware()
    zeros = np.zeros(config.elements)
    with (
        RtlThrottle(config, zeros) as rtl,
        pytest.raises(ValueError, match=r"^direction must be None for the unit with a gradient memory"),
    ):
        rtl.step(zeros, zeros)


def test_other_weights_in_the_midst() -> None:
    """As in golden, where the step after them measures its own motion and none between them and what was there."""
    config = hardware()
    rng = np.random.default_rng(2)
    golden = Throttle(config, np.zeros(config.elements))
    with RtlThrottle(config, np.zeros(config.elements)) as rtl:
        for step in range(6):
            if step == 3:
                for unit in (golden, rtl):
                    unit.load_weights(np.arange(config.elements) % 7 - 3, codes=True)
            gradient = rng.integers(-99, 99, config.elements, dtype=np.int16)
            wanted, found = (unit.step(gradient, codes=True) for unit in (golden, rtl))
            assert found.registers == wanted.registers and (found.theta == wanted.theta).all()


def test_restart_refuses_other_hardware() -> None:
    config = hardware()
    with (
        RtlThrottle(config, np.zeros(config.elements)) as rtl,
        pytest.raises(ValueError, match=r"^config must differ from the unit's only in"),
    ):
        rtl.restart(config.replace(dead_after=4), np.zeros(config.elements))


@pytest.mark.parametrize("source", ["norm", "ratio", "projection"])
def test_restart_refuses_a_source_of_another_kind(source: str) -> None:
    config = hardware(source="max")
    with (
        RtlThrottle(config, np.zeros(config.elements)) as rtl,
        pytest.raises(ValueError, match=rf"^source must be of instant, ema, max, for which the unit is built, not {source}$"),
    ):
        rtl.restart(config.replace(source=source), np.zeros(config.elements))


@pytest.mark.parametrize("width", [2, 5, 8, 12, 16, 31, 32])
@pytest.mark.parametrize(("lanes", "count"), [(1, 1), (3, 10), (8, 8), (32, 33)])
def test_memory_files_hold_every_code(width: int, lanes: int, count: int) -> None:
    fmt = ThrottleConfig(elements=1, eta=0.1, weight=f"SQ1.{width - 1}").grids.weight
    codes = np.random.default_rng(width).integers(*fmt.rails, count, endpoint=True)
    size = -(-width * lanes // 8)  # pack's words, from the highest byte down, are those of a dump in hexadecimal
    packed = pack(codes, width, lanes)
    text = "\n".join(packed[i : i + size].hex() for i in range(0, len(packed), size))
    assert (unpack(from_text(text), fmt, lanes, count) == codes).all()
    with pytest.raises(SimulationError, match="undefined or missing"):
        from_text(text.replace(text[0], "x", 1))


# ------------------------------------------------------------------------------------------------ the record


def recompute(out: Path) -> list[str]:
    """Everything in the raw record computed again from it in exact rationals; the faults found."""
    registers = json.loads((out / "registers.json").read_text())
    config = ThrottleConfig.from_toml(out / "config.toml")
    assert registers == config.registers()
    with np.load(out / "vectors.npz") as kept:
        vectors = dict(kept)
    oracle = SpecThrottle(config, [int(x) for x in vectors["theta"][0]])
    faults = []
    lines = [json.loads(line) for line in (out / "trace.jsonl").read_text().splitlines()]
    assert len(lines) == len(vectors["gradient"]) == len(vectors["update"]) == len(vectors["theta"]) - 1
    for line, gradient, update, theta in zip(lines, vectors["gradient"], vectors["update"], vectors["theta"][1:], strict=True):
        expected = oracle.step([int(x) for x in gradient])
        for name, got in (("theta", theta), ("update", update)):
            if list(expected[name]) != [int(x) for x in got]:
                faults.append(f"{line['step']} {name}")
        for side in ("golden", "rtl"):
            faults += [f"{line['step']} {side} {name}" for name, value in line[side].items() if expected[name] != value]
    return faults


@pytest.mark.slow
@pytest.mark.ci
def test_the_raw_record_recomputes_in_exact_rationals_and_a_flipped_bit_does_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = cosimulate(job(tmp_path), out, quiet=True)
    assert outcome.difference is None and outcome.compared_steps == 12
    assert recompute(out) == []

    with np.load(out / "vectors.npz") as kept:
        vectors = dict(kept)
    vectors["gradient"][7, 2] ^= 1
    np.savez(out / "vectors.npz", **vectors)
    assert recompute(out)


def test_the_folder_is_whole_and_the_page_stands_alone(tmp_path: Path) -> None:
    out = tmp_path / "a folder"
    cosimulate(job(tmp_path, steps=4), out, quiet=True)
    files = {path.name for path in out.iterdir()}
    assert {
        "config.toml",
        "index.html",
        "report.json",
        "registers.json",
        "vectors.npz",
        "trace.jsonl",
        "throttle.v",
        "throttle.json",
    } <= files
    assert not [name for name in files if name.startswith(".") or name.endswith(".hex")]
    assert Job.read(out / "config.toml") == job(tmp_path, steps=4)
    assert json.loads((out / "report.json").read_text())["differences"] == 0


def test_folders_may_have_spaces_in_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "a room"
    room.mkdir()
    job(room)
    monkeypatch.chdir(room)
    result = CliRunner().invoke(main, ["cosim", "--config", "job.toml", "--steps", "3", "--out", "my run"])
    assert result.exit_code == 0, result.output
    first = (room / "my run" / "trace.jsonl").read_bytes()
    assert first.count(b"\n") == 3

    # The command of the report is quoted; it makes the same run again, from anywhere.
    monkeypatch.chdir(tmp_path)
    words = shlex.split(json.loads((room / "my run" / "report.json").read_text())["command"])
    again = CliRunner().invoke(main, words[1:])
    assert again.exit_code == 0, again.output
    assert (room / "my run" / "trace.jsonl").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a room"]


# ------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "steps must be an integer from 1 to 10000000, not 0"),
        (["--lanes", "33"], "lanes must be an integer from 1 to 32, not 33"),
        (["--stall", "256"], "stall must be an integer from 0 to 250, not 256"),
        (["--resume"], "resume needs the config.toml and trace.jsonl of an earlier run in"),
    ],
)
def test_bad_options_are_refused_before_anything_is_built(tmp_path: Path, arguments: list[str], message: str) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(main, ["cosim", "--out", str(out), *arguments])
    assert result.exit_code == 1 and message in result.output
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(
    ("throttle", "arguments", "message"),
    [
        ("eta = true", [], "eta must be a finite number, not True"),
        ("lanes = 3", ["--steps", "0"], "steps must be an integer from 1 to 10000000, not 0"),
        ("lanes = 3", ["--wave", "12"], "wave must be a step from 0 to 11, not 12"),
        ("lanes = 3", ["--verilog", "bad.v"], "verilator could not build harness"),
        ("lanes = 3", ["--resume"], "out/config.toml' must be a readable TOML file"),
    ],
    ids=["configuration", "job", "option", "Verilog", "resume"],
)
def test_a_run_that_cannot_start_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, throttle: str, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text(f"[narrow]\n[run]\nexperiment = 'synthetic'\n[training]\nsteps = 12\n[throttle]\n{throttle}\n")
    Path("bad.v").write_text("module throttle(; endmodule\n")
    out = Path("out")
    out.mkdir()
    names = {*OUTPUTS, *DIFFERENCE_OUTPUTS, "overview.png", "of the user's own"}
    for name in names:
        (out / name).write_text("old")
    result = CliRunner().invoke(main, ["cosim", "--config", "job.toml", "--out", "out", *arguments])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert message in result.output
    assert {path.name: path.read_text() for path in out.iterdir()} == dict.fromkeys(names, "old")


@pytest.mark.parametrize("kind", ["file", "under a file", "without permission", "not of a disk"])
def test_an_out_that_cannot_be_written_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    job(tmp_path)
    file, closed = tmp_path / "file", tmp_path / "closed"
    file.write_text("old")
    closed.mkdir(mode=0o500)
    out = {"file": file, "under a file": file / "run", "without permission": closed, "not of a disk": Path("/proc")}[kind]
    if kind == "without permission" and os.access(closed, os.W_OK):
        pytest.skip("root may write everywhere")
    if kind == "not of a disk" and not out.is_dir():  # where it is, nobody can make a file in it, not even root
        pytest.skip("no /proc")
    monkeypatch.setattr("kappa_rtl.scripts.experiments.cosim.run.prepare", lambda *_, **__: pytest.fail("it was built"))
    result = CliRunner().invoke(main, ["cosim", "--config", str(tmp_path / "job.toml"), "--out", str(out)])
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit), result.output
    rule = "Directory {!r} is a file" if kind == "file" else "'--out': {!r} must be a folder that can be written: "
    assert rule.format(str(out)) in " ".join(result.output.split())
    assert file.read_text() == "old" and not list(closed.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[throttle]\nweight = 'SQ2'\n", "weight: format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not 'SQ2'"),
        ("[throttle]\nelements = 8\n", "elements must be 640 for the experiment digits, not 8"),
        ("[run]\nspeed = 3\n", "keys of [run] must be among experiment, gain, input, sim, idle, stall, not 'speed'"),
        ("[runs]\n", "precision, run, narrow, credit, explore, not 'runs'; the nearest is 'run'"),
        ("[run]\nsteps = 3\n", "run.steps must be written training.steps, its name in every file"),
        ("[run]\nheld_out = 3\n", "run.held_out must be written data.held_out"),
        ("[data]\nfile = 'none.csv'\n", "data.file must be a file that can be read, not '"),
        ("[data]\nlabel = 3\n", "data.label must not be given without data.file, not 3"),
        ("[model]\nhidden = [0]\n", "model.hidden must hold integers from 1 to 100000, not 0"),
        ("[model]\nhidden = [2]\n[training]\nbatch = 2000\n", "batch must be at most the 1797 rows to train on, not 2000"),
        ("[model]\nhidden = [2]\n[precision.dense0]\nweight = 'SQ2.6'\n", "precision.dense0.weight must not be given here"),
        ("[model]\nhidden = [2]\n[precision.dense7]\nbias = 'SQ2.6'\n", "precision names must be layers of the model"),
        ("[precision.input]\nvalue = 'SQ2.6'\n", "precision must not be given for the one layer"),
        ("[narrow]\nweight = 'SQ2.6'\n", "narrow must give gradient, weight, update or nothing, not weight"),
        ("nonsense", "must be a readable TOML file"),
        (f"[training]\nsteps = {'9' * 5000}\n", "must be a readable TOML file: "),
        ("run = 3\n", "run must be a table, not 3"),
        ("[training]\nsteps = true\n", "steps must be an integer from 1 to 10000000, not True"),
        ("[run]\nexperiment = 3\n", "experiment must be one of digits, synthetic, not 3"),
        ("[run]\ninput = false\n", "run.input: format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not False"),
        ("[run]\ngain = 3\n", "run.gain must be a table of start, end, first and last, not 3"),
        ("[run.gain]\nstart = 'x'\n", "run.gain.start must be a number, not 'x'"),
        ("[narrow]\ngradient = 3\nweight = 'SQ2.6'\nupdate = 'SQ1.9'\n", "narrow.gradient must be a format such as"),
        ("[throttle]\nelements = 'x'\n", "elements must be an integer from 1 to 4294967296, not 'x'"),
        ("[throttle]\neta = true\n", "eta must be a finite number, not True"),
        ("[throttle]\ngradient = 3\n", "gradient must be a format such as 'SQ4.12', not 3"),
        ("[throttle]\nenabled = 'yes'\n", "enabled must be true or false, not 'yes'"),
        ("[throttle]\nspeed = 3\n", "keys of [throttle] must be among law, elements, eta,"),
    ],
)
def test_bad_files_are_refused_by_field_value_and_rule(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        Job.read(path)


def test_the_narrow_runs_of_a_job(tmp_path: Path) -> None:
    """Each differs in what becomes of a small update, and has the motion that is the default for its rounding."""
    runs = Job.read().narrow_runs
    seen = {name: (str(c.grids.update), c.residual_bits, str(c.motion), str(c.on_still)) for name, c in runs.items()}
    assert seen == {
        "divide": ("SQ1.9", 0, "applied", "divide"),
        "release": ("SQ1.9", 0, "applied", "release"),
        "stochastic": ("SQ1.6,stochastic,saturate", 0, "intended", "release"),
        "residual": ("SQ1.6", 4, "intended", "release"),
    }
    assert all(str(config.grids.weight) == "SQ2.6" for config in runs.values())
    (tmp_path / "job.toml").write_text("[throttle]\nsource = 'projection'\n")
    runs = Job.read(tmp_path / "job.toml").narrow_runs
    assert list(runs) == ["nearest", "stochastic", "residual"] and {str(c.motion) for c in runs.values()} == {"intended"}
    (tmp_path / "job.toml").write_text("[throttle]\nlaw = 'trust_ratio'\nresidual_bits = 3\nupdate = 'SQ1.15,stochastic'\n")
    runs = Job.read(tmp_path / "job.toml").narrow_runs
    assert {str(c.motion) for c in runs.values()} == {"applied"} and runs["nearest"].residual_bits == 0


def test_rows_may_be_held_out() -> None:
    """They are the seed's choice, no step sees them, and their accuracy is that of the weights after the step."""
    job = Job.read(None, steps=2, held_out=300)
    whole, kept, held = digits(), job.problem, job.held
    assert held is not None and (len(kept.inputs), len(held.inputs)) == (1497, 300)
    assert {row.tobytes() for row in np.concatenate([kept.inputs, held.inputs])} == {row.tobytes() for row in whole.inputs}
    assert (Job.read(None, held_out=300, seed=1).problem.inputs != kept.inputs).any()
    unit = Throttle(job.throttle, np.zeros(640))
    rows = list(LayerRun(job, unit))
    assert held.labels is not None
    share = np.mean(np.argmax(held.inputs @ unit.weights.reshape(64, 10), axis=1) == held.labels)
    assert rows[-1].metrics["accuracy_held_out"] == share > 0.5
    assert "held_out = 300" in job.to_toml()
    with pytest.raises(ValueError, match=r"^held_out must be less than the 1797 rows of digits, not 1797$"):
        Job.read(None, held_out=1797)
