"""The RTL in the training loop: golden in lockstep, differences found and shown, runs broken off and resumed."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.export import export
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.cosim import RtlThrottle, Stalls, compare, pack, unpack
from kappa_rtl.sim.experiment import DIFFERENCE_OUTPUTS, OUTPUTS, cosimulate
from kappa_rtl.sim.job import Job
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.torture import hardware, torture
from mutants import KEPT
from spec import SpecThrottle

SIMULATORS = [pytest.param("verilator"), pytest.param("icarus", marks=pytest.mark.icarus)]


def lockstep(
    config: ThrottleConfig,
    steps: int,
    *,
    simulator: str = "verilator",
    seed: int = 0,
    stalls: Stalls | None = None,
    **options: Any,
) -> None:
    """Golden and RTL on the same random gradients of all magnitudes, with rails and still stretches."""
    random = np.random.default_rng(seed)
    g, w = config.grids.gradient, config.grids.weight
    weights = random.integers(*w.rails, config.elements, endpoint=True)
    golden = Throttle(config, weights)
    streaming = options.get("streaming", False)
    with RtlThrottle(config, weights, simulator=simulator, stalls=stalls, **options) as rtl:
        for step in range(steps):
            limit = int(random.choice([1, 3, max(1, g.rails[1] // 50), g.rails[1]]))
            gradient = random.integers(-limit, limit, config.elements, endpoint=True) * (step % 7 != 3)
            direction = random.integers(*g.rails, config.elements, endpoint=True) if streaming else None
            _, difference = compare(golden.step(gradient, direction), rtl.step(gradient, direction))
            assert difference is None, f"seed {seed}: {difference}"
        if stalls is None:
            assert max(rtl.cycles) <= 2 * config.beats + 300 or config.mantissa_bits > 24


# ------------------------------------------------------------------------------------------------ equality


@pytest.mark.parametrize("simulator", SIMULATORS)
def test_hard_cases(simulator: str) -> None:
    """Every law, source, answer to a still step, start and stall, on hardware where ties and overflows are frequent."""
    config = hardware()
    with RtlThrottle(config, np.zeros(config.elements), simulator=simulator) as rtl:
        assert torture(rtl) is None


def test_default_formats_at_eight_lanes() -> None:
    lockstep(ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8), 40)


@pytest.mark.icarus
@pytest.mark.parametrize(
    "changes",
    [
        {"lanes": 3, "elements": 11, "mantissa_bits": 9, "weight": "SQ1.5", "gradient": "SQ2.7", "update": "SQ1.6,floor"},
        {"lanes": 1, "elements": 1, "mantissa_bits": 25, "weight": "SQ1.5,toward_zero", "update": "SQ1.9,nearest_up"},
        {"lanes": 5, "elements": 5, "mantissa_bits": 8, "weight": "SQ3.5,floor,wrap", "update": "SQ4.9,nearest_away,wrap"},
        {
            "lanes": 2,
            "elements": 5,
            "mantissa_bits": 53,
            "weight": "SQ1.31",
            "gradient": "SQ2.30",
            "update": "SQ-3.32,nearest_down,zero",
        },
        {"lanes": 4, "elements": 13, "weight": "SQ2.6", "gradient": "SQ2.10", "update": "SQ1.3"},
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
def test_formats_lanes_and_widths(changes: dict[str, Any]) -> None:
    lockstep(ThrottleConfig.inverse_curvature(eta=0.1, **changes), 25, simulator="icarus", stalls=Stalls(40, 90, 2))


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
def test_residuals_may_pass_through_the_host() -> None:
    config = hardware(lanes=3, residual_bits=4, update="SQ1.6,stochastic,saturate")
    lockstep(config, 30, simulator="icarus", streaming=True, stalls=Stalls(50, 50, 9))


def test_a_direction_needs_the_streaming_variant() -> None:
    config = hardware()
    zeros = np.zeros(config.elements, np.int64)
    with (
        RtlThrottle(config, zeros) as rtl,
        pytest.raises(ValueError, match=r"^direction must be None for the unit with a gradient memory"),
    ):
        rtl.step(zeros, zeros)


def test_restart_refuses_other_hardware() -> None:
    config = hardware()
    with (
        RtlThrottle(config, np.zeros(config.elements)) as rtl,
        pytest.raises(ValueError, match=r"^config must differ from the unit's only in"),
    ):
        rtl.restart(config.replace(dead_after=4), np.zeros(config.elements))


@pytest.mark.parametrize("width", [2, 5, 8, 12, 16, 31, 32])
@pytest.mark.parametrize(("lanes", "count"), [(1, 1), (3, 10), (8, 8), (32, 33)])
def test_memory_files_hold_every_code(width: int, lanes: int, count: int) -> None:
    fmt = ThrottleConfig(elements=1, eta=0.1, weight=f"SQ1.{width - 1}").grids.weight
    codes = np.random.default_rng(width).integers(*fmt.rails, count, endpoint=True)
    text = pack(codes, width, lanes).hex()
    assert (unpack(text, fmt, lanes, count) == codes).all()
    with pytest.raises(SimulationError, match="undefined or missing"):
        unpack(text.replace(text[0], "x", 1), fmt, lanes, count)


# ------------------------------------------------------------------------------------------------ differences


def sabotaged(config: ThrottleConfig, step: int) -> str:
    """The exported unit behind a wrapper that flips one bit of element 1's new weight in one step, and nothing else."""
    text, manifest = export(config)
    text = text.replace("module throttle(", "module throttle_true(", 1)
    ports = {port["name"]: port for port in manifest["ports"]}
    declared = "".join(f"  {p['direction']} [{p['width'] - 1}:0] {name};\n" for name, p in ports.items())
    wired = ", ".join(f".{name}({'honest' if name == 'updated__payload' else name})" for name in ports)
    place = next(leaf["lsb"] for leaf in ports["updated__payload"]["bits"] if leaf["name"] == "weight[1]")
    return (
        text
        + f"""
module throttle({", ".join(ports)});
{declared}  wire [{ports["updated__payload"]["width"] - 1}:0] honest;
  reg [31:0] step = 0, beat = 0;
  throttle_true unit ({wired});
  assign updated__payload = honest ^ ((step == {step} && beat == 0) << {place});
  always @(posedge clk) begin
    if (updated__valid && updated__ready) beat <= beat + 1;
    if (registers__valid && registers__ready) begin
      step <= step + 1;
      beat <= 0;
    end
  end
endmodule
"""
    )


def job(tmp_path: Path, **changes: Any) -> Job:
    """A small job, without the narrow runs."""
    path = tmp_path / "job.toml"
    path.write_text("[narrow]\n[run]\nexperiment = 'synthetic'\nsteps = 12\n[throttle]\nlanes = 3\n")
    return Job.read(path, **changes)


def test_a_difference_stops_the_run_and_is_shown_whole(tmp_path: Path) -> None:
    small = job(tmp_path)
    (tmp_path / "bad.v").write_text(sabotaged(small.throttle, 5))
    out = tmp_path / "out"
    arguments = ["cosim", "--config", str(tmp_path / "job.toml"), "--verilog", str(tmp_path / "bad.v"), "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "DIFFERENCE: step 5, theta[1]: golden" in result.output, result.output

    shown = json.loads((out / "difference.json").read_text())
    assert (shown["step"], shown["signal"], shown["element"]) == (5, "theta", 1)
    golden, rtl = (int(shown[side].split()[0]) for side in ("golden", "rtl"))
    assert abs(golden - rtl) == 1 and "0b" in shown["golden"]
    assert shown["configuration"] == small.throttle.to_table()
    assert (out / "wave.vcd").stat().st_size > 1000

    # What was made before the difference is kept, and the report says that there is one.
    assert len((out / "trace.jsonl").read_text().splitlines()) == 5
    assert np.load(out / "vectors.npz")["gradient"].shape == (5, 8)
    assert json.loads((out / "report.json").read_text())["differences"] == 1
    assert "differ" in (out / "index.html").read_text()

    # The command that it names shows it again.
    words = shown["command"].split()
    assert words[:2] == ["kappa-rtl", "cosim"]
    again = CliRunner().invoke(main, words[1:])
    assert again.exit_code == 1 and "DIFFERENCE: step 5, theta[1]" in again.output


def test_a_difference_is_written_into_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The replay runs in the folder itself, so a path relative to elsewhere, or a space in it, would show here."""
    room = tmp_path / "a room"
    room.mkdir()
    (room / "bad.v").write_text(sabotaged(job(room).throttle, 5))
    monkeypatch.chdir(room)
    result = CliRunner().invoke(main, ["cosim", "--config", "job.toml", "--verilog", "bad.v", "--out", "to/my run"])
    assert result.exit_code == 1 and "DIFFERENCE: step 5, theta[1]" in result.output, result.output
    out = room / "to" / "my run"
    shown = json.loads((out / "difference.json").read_text())
    assert (shown["step"], shown["signal"], shown["element"], shown["waveform"]) == (5, "theta", 1, "wave.vcd")
    assert (out / "wave.vcd").stat().st_size > 1000
    assert all(str(Path("to/my run") / name) in result.output for name in DIFFERENCE_OUTPUTS)
    assert {path.name for path in room.iterdir()} == {"job.toml", "bad.v", "to"}
    assert str(out / "throttle.v") in shlex.split(shown["command"])


def test_lockstep_notices_any_single_bit(tmp_path: Path) -> None:
    """A flipped bit in a vector or register of one record is found, by name and element."""
    config = hardware()
    golden = Throttle(config, np.zeros(config.elements))
    record = golden.step(np.arange(config.elements) * 5 - 12)
    from dataclasses import fields, replace

    for name, element in (("theta", 3), ("update", 0)):
        bent = getattr(record, name).copy()
        bent[element] ^= 1
        _, difference = compare(record, replace(record, **{name: bent}))
        assert difference and (difference.signal, difference.element) == (name, element)
    for field in fields(record.registers):
        value = getattr(record.registers, field.name)
        bent_value = type(value)(value.m ^ 1, value.e) if isinstance(value, tuple) else type(value)(value ^ 1)
        _, difference = compare(record, replace(record, registers=replace(record.registers, **{field.name: bent_value})))
        assert difference and difference.signal == field.name
    assert compare(record, record)[1] is None


# ------------------------------------------------------------------------------------------------ the record


def recompute(out: Path) -> list[str]:
    """Everything in the raw record computed again from it in exact rationals; the faults found."""
    registers = json.loads((out / "registers.json").read_text())
    config = ThrottleConfig.from_toml(out / "config.toml")
    assert registers == config.registers()
    vectors = np.load(out / "vectors.npz")
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


def test_the_raw_record_recomputes_in_exact_rationals_and_a_flipped_bit_does_not(tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcome = cosimulate(job(tmp_path), out, quiet=True)
    assert outcome.difference is None and outcome.compared_steps == 12
    assert recompute(out) == []

    vectors = dict(np.load(out / "vectors.npz"))
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


# ------------------------------------------------------------------------------------------------ broken off and resumed


def test_an_interrupted_run_keeps_its_log_and_resumes_to_the_same_record(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    steps = 400
    path = tmp_path / "job.toml"
    path.write_text(f"[narrow]\n[run]\nexperiment = 'synthetic'\nsteps = {steps}\n[throttle]\nlanes = 3\n")
    arguments = ["cosim", "--config", str(path)]
    assert CliRunner().invoke(main, [*arguments, "--out", str(whole)]).exit_code == 0

    command = [sys.executable, "-m", "kappa_rtl.scripts.main", *arguments, "--out", str(broken)]
    # What runs in the background of a shell has interrupts ignored, and so has what it starts.
    heeds = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=heeds)
    trace = broken / "trace.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (trace.exists() and trace.read_text().count("\n") >= 5):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) != 0

    kept = trace.read_text().splitlines(keepends=True)
    assert 5 <= len(kept) < steps and kept == (whole / "trace.jsonl").read_text().splitlines(keepends=True)[: len(kept)]
    assert len(np.load(broken / "vectors.npz")["update"]) == len(kept)
    assert not (broken / "index.html").exists()

    # Killed while it wrote, it would leave half a line; that line is made again.
    trace.write_text("".join(kept[:-1]) + kept[-1][:20])
    result = CliRunner().invoke(main, ["cosim", "--resume", "--out", str(broken)])
    assert result.exit_code == 0, result.output
    assert trace.read_bytes() == (whole / "trace.jsonl").read_bytes()
    for name, array in np.load(whole / "vectors.npz").items():
        assert (np.load(broken / "vectors.npz")[name] == array).all()

    # A log that is not this job's does not pass for it.
    trace.write_text(kept[0].replace("loss", "lass", 1))
    result = CliRunner().invoke(main, ["cosim", "--resume", "--out", str(broken)])
    assert result.exit_code == 1 and "step 0 does not come out as trace.jsonl has it" in result.output


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


def test_fewer_steps_than_logged_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.toml").write_text(job(tmp_path).to_toml())
    (out / "trace.jsonl").write_text("{}\n" * 7)
    result = CliRunner().invoke(main, ["cosim", "--resume", "--steps", "5", "--out", str(out)])
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert f"steps must be at least the 7 that {str(out / 'trace.jsonl')!r} has logged, not 5" in result.output
    assert (out / "trace.jsonl").read_text() == "{}\n" * 7


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
    Path("job.toml").write_text(f"[narrow]\n[run]\nexperiment = 'synthetic'\nsteps = 12\n[throttle]\n{throttle}\n")
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
    monkeypatch.setattr("kappa_rtl.sim.experiment.prepare", lambda *_, **__: pytest.fail("it was built"))
    result = CliRunner().invoke(main, ["cosim", "--config", str(tmp_path / "job.toml"), "--out", str(out)])
    assert result.exit_code in (1, 2) and isinstance(result.exception, SystemExit), result.output
    rule = "Directory {!r} is a file" if kind == "file" else "out = {!r} must be a folder that can be written: "
    assert rule.format(str(out)) in " ".join(result.output.split())
    assert file.read_text() == "old" and not list(closed.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[throttle]\nweight = 'SQ2'\n", "weight: format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not 'SQ2'"),
        ("[throttle]\nelements = 8\n", "elements must be 640 for the experiment digits, not 8"),
        ("[run]\nspeed = 3\n", "run.speed is no field of a run; it has experiment,"),
        ("[runs]\n", "tables must be run, narrow or throttle, not 'runs'"),
        ("[narrow]\nweight = 'SQ2.6'\n", "narrow must give gradient, weight, update or nothing, not weight"),
        ("nonsense", "must be a readable TOML file"),
        (f"[run]\nsteps = {'9' * 5000}\n", "must be a readable TOML file: "),
        ("run = 3\n", "run must be a table, not 3"),
        ("[run]\nsteps = true\n", "steps must be an integer from 1 to 10000000, not True"),
        ("[run]\nexperiment = 3\n", "experiment must be one of digits, synthetic, not 3"),
        ("[run]\ninput = false\n", "run.input: format must read like 'SQ4.12', 'UQ0.17' or 'ap_fixed<16,4>', not False"),
        ("[run]\ngain = 3\n", "run.gain must be a table of start, end, first and last, not 3"),
        ("[run.gain]\nstart = 'x'\n", "run.gain.start must be a number, not 'x'"),
        ("[narrow]\ngradient = 3\nweight = 'SQ2.6'\nupdate = 'SQ1.9'\n", "narrow.gradient must be a format such as"),
        ("[throttle]\nelements = 'x'\n", "elements must be an integer from 1 to 4294967296, not 'x'"),
        ("[throttle]\neta = true\n", "eta must be a finite number, not True"),
        ("[throttle]\ngradient = 3\n", "gradient must be a format such as 'SQ4.12', not 3"),
        ("[throttle]\nenabled = 'yes'\n", "enabled must be true or false, not 'yes'"),
        ("[throttle]\nspeed = 3\n", "speed is no field of a throttle configuration; it has alpha_min,"),
    ],
)
def test_bad_files_are_refused_by_field_value_and_rule(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        Job.read(path)
