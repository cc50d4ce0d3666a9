"""Where golden and RTL differ: found, and shown whole, with a waveform in which it can be looked at."""

from __future__ import annotations

import html
import json
import re
import shlex
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.export import export
from kappa_rtl.scripts.experiments.cosim import run
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.experiments.cosim.run import DIFFERENCE_OUTPUTS
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.difference import compare
from kappa_rtl.sim.wave import variables
from support.jobs import job
from support.torture import hardware


def sabotaged(config: ThrottleConfig, step: int, leaf: str = "weight[1]", *, streaming: bool = False, at: int = 0) -> str:
    """The exported unit behind a wrapper that flips the lowest bit of a new weight or register in one step, and nothing else."""
    text, manifest = export(config, streaming=streaming)
    port, when = (
        ("m_axis_updated_tdata", f"step == {step} && beat == {at}")
        if "[" in leaf
        else ("m_axis_registers_tdata", f"step == {step}")
    )
    text = text.replace("module throttle (", "module throttle_true (", 1)
    ports = {port["name"]: port for port in manifest["ports"]}
    declared = "".join(f"  {p['direction']} [{p['width'] - 1}:0] {name};\n" for name, p in ports.items())
    wired = ", ".join(f".{name}({'honest' if name == port else name})" for name in ports)
    place = next(one["lsb"] for one in ports[port]["bits"] if one["name"] == leaf)
    return (
        text
        + f"""
module throttle({", ".join(ports)});
{declared}  wire [{ports[port]["width"] - 1}:0] honest;
  reg [31:0] step = 0, beat = 0;
  throttle_true unit ({wired});
  assign {port} = honest ^ (({when}) << {place});
  always @(posedge clk) begin
    if (m_axis_updated_tvalid && m_axis_updated_tready) beat <= beat + 1;
    if (m_axis_registers_tvalid && m_axis_registers_tready) begin
      step <= step + 1;
      beat <= 0;
    end
  end
endmodule
"""
    )


@pytest.mark.slow
@pytest.mark.ci
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
    assert abs(shown["golden"] - shown["rtl"]) == 1
    assert shown["configuration"] == small.throttle.to_table()
    assert (out / "wave.vcd").stat().st_size > 1000

    # What was made is kept, the step that differs at its end, and the report says that there is one.
    lines = [json.loads(line) for line in (out / "trace.jsonl").read_text().splitlines()]
    assert [line.get("differs") for line in lines] == [None] * 5 + ["theta[1]"]
    assert lines[5]["golden"]["A"] == lines[5]["rtl"]["A"] == shown["registers"]["A"]["rtl"]
    with np.load(out / "vectors.npz") as kept:
        vectors = dict(kept)
    assert vectors["gradient"].shape == (6, 8) and vectors["golden_theta"][1] == shown["golden"]
    assert json.loads((out / "report.json").read_text())["differences"] == 1
    assert "differ" in (out / "index.html").read_text()

    # The run was of another Verilog than the export, which --resume does not take for it.
    result = CliRunner().invoke(main, ["cosim", "--resume", "--out", str(out)])
    assert result.exit_code == 1 and "verilog must be given as " in result.output

    # The command that it names shows it again.
    words = shown["command"].split()
    assert words[:2] == ["kappa-rtl", "cosim"]
    again = CliRunner().invoke(main, words[1:])
    assert again.exit_code == 1 and "DIFFERENCE: step 5, theta[1]" in again.output


@pytest.mark.slow
def test_a_difference_of_a_unit_with_segments(tmp_path: Path) -> None:
    """An element of the second segment, which begins on a beat of its own, with values on its own grids."""
    small = job(tmp_path)
    segments = "[[throttle.segments]]\nelements = 3\nscale = 2\n[[throttle.segments]]\nelements = 5\nscale = 2\n"
    path = tmp_path / "job.toml"
    path.write_text(path.read_text() + segments)
    config = small.throttle.replace(lanes=2, segments=[{"elements": 3, "scale": 2}, {"elements": 5, "scale": 2}])
    (tmp_path / "bad.v").write_text(sabotaged(config, 2, at=2))
    out = tmp_path / "out"
    arguments = ["cosim", "--config", str(path), "--lanes", "2", "--verilog", str(tmp_path / "bad.v"), "--out", str(out)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1 and "DIFFERENCE: step 2, theta[4]" in result.output, result.output
    shown = json.loads((out / "difference.json").read_text())
    (element,) = shown["elements"]
    assert (element["element"], element["beat"], element["lane"]) == (4, 2, 1)
    value = element["golden_theta"] * 2.0 ** -(config.grids.weight.fraction_bits + 2)
    assert f"{element['golden_theta']} ({value:.6g})" in (out / "difference.html").read_text()


@pytest.mark.slow
@pytest.mark.ci
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
    assert (shown["step"], shown["signal"], shown["element"], shown["wave"]["file"]) == (5, "theta", 1, "wave.vcd")
    assert (out / "wave.vcd").stat().st_size > 1000
    assert all(str(Path("to/my run") / name) in result.output for name in DIFFERENCE_OUTPUTS)
    assert {path.name for path in room.iterdir()} == {"job.toml", "bad.v", "to"}
    assert str(out / "throttle.v") in shlex.split(shown["command"])


def test_lockstep_notices_any_single_bit(tmp_path: Path) -> None:
    """A flipped bit in a vector or register of one record is found, by name and element."""
    config = hardware()
    golden = Throttle(config, np.zeros(config.elements))
    record = golden.step(np.arange(config.elements) * 5 - 12, codes=True)
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


def shown_in(save: Path) -> list[str]:
    """The signals that a save file of GTKWave names."""
    return re.findall(r"^\+\{.*\} (\S+)$", save.read_text(), re.M)


def times(wave: Path) -> list[int]:
    return [int(line[1:]) for line in wave.read_text().splitlines() if line.startswith("#") and line[1:].isdigit()]


@pytest.mark.icarus
@pytest.mark.parametrize(
    ("leaf", "name"), [("alpha.m", "alpha"), pytest.param("A", "A", marks=[pytest.mark.slow, pytest.mark.ci])]
)
def test_a_network_on_icarus_has_its_page_and_wave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaf: str, name: str) -> None:
    """A register differs, at a rate that a schedule gives, and the unit steps along momentum: all of the step is there."""
    monkeypatch.setattr(run, "write_report", lambda *_: None)
    (tmp_path / "job.toml").write_text(
        "[run]\nexperiment = 'synthetic'\nsim = 'icarus'\n[model]\nhidden = [3]\n[throttle]\nlanes = 2\n"
        "[training]\nsteps = 6\noptimiser = 'momentum'\nschedule = 'cosine'\n"
    )
    config = Job.read(tmp_path / "job.toml").throttle
    (tmp_path / "bad.v").write_text(sabotaged(config, 3, leaf, streaming=True))
    out = tmp_path / "out"
    arguments = ["--config", str(tmp_path / "job.toml"), "--verilog", str(tmp_path / "bad.v"), "--out", str(out)]
    result = CliRunner().invoke(main, ["cosim", *arguments])
    assert result.exit_code == 1 and f"DIFFERENCE: step 3, {name}: golden" in result.output, result.output

    shown = json.loads((out / "difference.json").read_text())
    assert (shown["signal"], shown["element"], shown["registers_that_differ"]) == (name, None, [name])
    pair = shown["registers"][name]
    assert pair["golden"] == shown["golden"] and np.ravel(pair["golden"])[0] ^ 1 == np.ravel(pair["rtl"])[0]
    assert not re.search(r'"-?\d+(\.\d+)?"', (out / "difference.json").read_text()), "a number is no string"
    assert shown["elements_that_differ"] == 0 and shown["elements"][0]["gradient"] != shown["elements"][0]["direction"]
    with np.load(out / "vectors.npz") as kept:
        vectors = dict(kept)
    assert shown["inputs"]["rate"] == vectors["rate"][3] < vectors["rate"][0]
    first = shown["elements"][0]
    for key, array, step in (
        ("weight", "theta", 3),
        ("rtl_theta", "theta", 4),
        ("rtl_update", "update", 3),
        ("direction",) * 2 + (3,),
    ):
        assert first[key] == vectors[array][step][0]

    page = html.unescape((out / "difference.html").read_text())
    marked = re.findall(r"<tr class=bad><td>(\w+)</td>", page)
    assert marked == [name] and page.count("class=differs") == 4
    if name == "alpha":
        assert f"{pair['rtl'][0]} * 2**{pair['rtl'][1]}" in page
    links = set(re.findall(r'href="([^"]+)"', page))
    assert links >= set(DIFFERENCE_OUTPUTS) and all((out / link).exists() for link in links)

    wave = shown["wave"]
    assert wave["same_as_in_the_run"] and f"begins at {wave['begins_ns']} ns (cycle {wave['begins_cycle']})" in page
    assert times(out / "wave.vcd")[0] <= wave["begins_ns"] + 20 < wave["ends_ns"] <= times(out / "wave.vcd")[-1]
    named = shown_in(out / "wave.gtkw")
    assert set(named) <= set(variables(out / "wave.vcd").values()) and "harness.clk" in named
    assert named[0].startswith(f"harness.fields.{leaf.replace('.', '_')}") and "harness.fields.direction_1[15:0]" in named
    assert "theta" not in wave["signals"] and len(named) > 40


@pytest.mark.parametrize(
    "simulator",
    [pytest.param("verilator", marks=[pytest.mark.slow, pytest.mark.ci]), pytest.param("icarus", marks=pytest.mark.icarus)],
)
def test_a_wave_that_is_asked_for_is_there(tmp_path: Path, simulator: str) -> None:
    job(tmp_path)
    out = tmp_path / "out"
    arguments = ["--config", str(tmp_path / "job.toml"), "--steps", "4", "--wave", "2", "--sim", simulator, "--out", str(out)]
    result = CliRunner().invoke(main, ["cosim", *arguments])
    assert result.exit_code == 0, result.output
    named = shown_in(out / "wave.gtkw")
    assert named and set(named) <= set(variables(out / "wave.vcd").values())
    files = set(re.findall(r'<dt><a href="([^"]+)"', (out / "index.html").read_text()))
    assert {"wave.vcd", "wave.gtkw"} <= files and all((out / name).exists() for name in files)
    assert not (out / "simulation").exists()


@pytest.mark.icarus
def test_a_unit_that_hangs_is_told_with_its_waveform(tmp_path: Path) -> None:
    """There is nothing to compare then; the steps before it and the waveform of this one are kept."""
    text = sabotaged(job(tmp_path).throttle, 2, "still")
    inner, outer = text.rsplit("\nmodule throttle(", 1)
    outer = outer.replace(".m_axis_registers_tvalid(m_axis_registers_tvalid)", ".m_axis_registers_tvalid(offered)")
    outer = outer.replace("  reg [31:0] step", "  wire offered;\n  reg [31:0] step")
    outer = outer.replace("  always", "  assign m_axis_registers_tvalid = offered && step != 2;\n  always")
    (tmp_path / "bad.v").write_text(f"{inner}\nmodule throttle({outer}")
    arguments = ["--config", str(tmp_path / "job.toml"), "--sim", "icarus", "--verilog", str(tmp_path / "bad.v")]
    result = CliRunner().invoke(main, ["cosim", *arguments, "--wave", "2", "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert re.search(r"step 2: the unit did not finish within \d+ cycles; with --wave 2 its waveform is kept", result.output)
    assert len((tmp_path / "out" / "trace.jsonl").read_text().splitlines()) == 2
    assert set(shown_in(tmp_path / "out" / "wave.gtkw")) <= set(variables(tmp_path / "out" / "wave.vcd").values())
