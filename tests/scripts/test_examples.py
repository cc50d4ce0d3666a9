"""The examples do what they say: plain Verilog, FuseSoC and LiteX take the exported unit and elaborate, lint or simulate it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from cocotb_tools.check_results import get_results

import kappa_rtl.hw.synth.synthesis as synthesis
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.export import write
from kappa_rtl.scripts.main import main
from kappa_rtl.sim.runner import Design, SimulationError, run
from kappa_rtl.sim.verilate import verilator_root
from support import ROOT

EXAMPLES = ROOT / "examples"
CORE = "kappa-rtl:throttle:axi"

pytestmark = pytest.mark.slow

needs_yosys = pytest.mark.skipif(
    synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install '.[synth]' in a checkout"
)


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install '.[test]' in a checkout")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unit of the examples, and the plain ones."""
    made = tmp_path_factory.mktemp("examples")
    write(ThrottleConfig.from_toml(EXAMPLES / "verilog" / "throttle.toml"), made / "throttle_axi.v", bus="axi")
    for source in (EXAMPLES / "verilog").glob("*.v"):
        (made / source.name).write_text(source.read_text())
    return made


def elaborate(top: str, *sources: str, folder: Path, defines: str = "") -> None:
    """Yosys finds every module, every port, no width that it has to guess, and no wire without a driver."""
    script = f"read_verilog {defines} {' '.join(sources)}; hierarchy -check -top {top}; proc; check -assert"
    assert "Warning: Resizing" not in synthesis.run("yosys", "-p", script, cwd=folder)


@needs_yosys
def test_verilog(folder: Path) -> None:
    elaborate("top", "top.v", "throttle_axi.v", folder=folder)


def test_verilog_has_nothing_to_warn_of(folder: Path) -> None:
    command = [str(verilator_root() / "bin" / "verilator_bin"), "--lint-only", "-Wall", "--top-module", "top"]
    env = os.environ | {"VERILATOR_ROOT": str(verilator_root())}
    done = subprocess.run([*command, "throttle_axi.v", "top.v"], cwd=folder, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.icarus
def test_verilog_runs_a_step(folder: Path) -> None:
    """And the bench sees a unit whose updated weights are off by one."""
    source = (folder / "top.v").read_text()
    wired = ".m_axis_updated_tdata(m_axis_updated_tdata)"
    assert wired in source
    (folder / "mutant.v").write_text(
        source.replace(wired, ".m_axis_updated_tdata(found)").replace(
            "  reg rst;", "  reg rst;\n  wire [LANES*FIELD-1:0] found;\n  assign m_axis_updated_tdata = found ^ 1;"
        )
    )
    for top, said in (("top.v", "passed: 4 beats\n"), ("mutant.v", "FAILED: 4 beats, 4 faults\n")):
        command = ["iverilog", "-g2005", "-o", "bench.vvp", "-s", "bench", "bench.v", top, "throttle_axi.v"]
        subprocess.run(command, cwd=folder, check=True)
        done = subprocess.run(["vvp", "-n", "bench.vvp"], cwd=folder, capture_output=True, text=True, check=True)
        assert said in done.stdout


# ---------------------------------------------------------------------------------------------------- FuseSoC


def fusesoc(target: str, where: Path, *options: str) -> tuple[str, Path]:
    """Run a target of the core file; what it printed, and the folder it worked in."""
    path = os.pathsep.join([str(Path(sys.executable).parent), str(verilator_root() / "bin"), os.environ["PATH"]])
    env = os.environ | {"PATH": path} | {f"XDG_{kind}_HOME": str(where / kind) for kind in ("CONFIG", "CACHE", "DATA")}
    command = [sys.executable, "-m", "fusesoc.main", "--cores-root", str(ROOT), "run", "--build-root", "build", *options]
    done = subprocess.run([*command, "--target", target, CORE], cwd=where, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (work,) = (where / "build").glob(f"*/{target}*")
    return done.stdout + done.stderr, work


@needs("fusesoc")
@pytest.mark.skipif(" " in sys.prefix, reason="Verilator's own script cannot start from a path with a space")
def test_fusesoc_lint(tmp_path: Path) -> None:
    said, _ = fusesoc("lint", tmp_path)
    assert "%Warning" not in said


@needs("fusesoc")
@pytest.mark.icarus
def test_fusesoc_sim(tmp_path: Path) -> None:
    said, _ = fusesoc("sim", tmp_path)
    assert "passed: 4 beats" in said


@needs("fusesoc")
@needs_yosys
def test_fusesoc_synth(tmp_path: Path) -> None:
    """What it hands to Yosys, elaborated: the Yosys of the tests has no Tcl, which its own scripts are in."""
    import yaml

    _, work = fusesoc("synth", tmp_path, "--setup")
    (path,) = work.glob("*.eda.yml")
    eda = yaml.safe_load(path.read_text())
    sources = [file["name"] for file in eda["files"] if file["file_type"] == "verilogSource"]
    assert {Path(source).name for source in sources} == {"top.v", "throttle_axi.v"}
    assert eda["parameters"]["KAPPA_RTL_ECP5"]["default"] is True
    elaborate(
        eda["toplevel"], *sources, folder=work, defines="-lib +/ecp5/cells_sim.v +/ecp5/cells_bb.v; read_verilog -DKAPPA_RTL_ECP5"
    )


# ------------------------------------------------------------------------------------------------------ LiteX


def litex(folder: Path, out: Path, *bus: str) -> None:
    """Write the system with the unit in a folder."""
    command = [sys.executable, str(EXAMPLES / "litex" / "throttle.py"), "throttle_axi.v", str(out), *bus]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs("litex")
@needs_yosys
def test_litex(folder: Path) -> None:
    """A system with the unit on its bus, as Verilog, and in its map."""
    litex(folder, folder / "system")
    for made in (folder / "system" / "gateware").iterdir():  # the Verilog, and what its memories read
        (folder / made.name).write_text(made.read_text())
    elaborate("system", "system.v", "throttle_axi.v", folder=folder)
    region = json.loads((folder / "system" / "csr.json").read_text())["memories"]["throttle"]
    assert region["size"] == 4096

    # Every port of the unit is connected.
    instance = re.search(r"throttle_axi throttle_axi\s*\((.*?)\);", (folder / "system.v").read_text(), re.DOTALL)
    assert instance
    manifest = json.loads((folder / "throttle_axi.json").read_text())
    assert set(re.findall(r"\.(\w+)\s*\(", instance[1])) == {port["name"] for port in manifest["ports"]}


def run_a_step(system: Path, folder: Path) -> None:
    """A host on the pins of a system lets the unit take two steps, and finds golden's."""
    design = Design((system, folder / "throttle_axi.v"), "system", optimisation="-O0")
    env = {"LITEX_CONFIG": str(EXAMPLES / "verilog" / "throttle.toml")}
    run(design, "support.litex_host", env=env, cwd=system.parent)


@needs("litex")
@pytest.mark.ci
@pytest.mark.parametrize("bus", ["axi-lite", "axi", "wishbone"])
def test_litex_runs_a_step(folder: Path, tmp_path: Path, bus: str) -> None:
    """On each of LiteX's buses."""
    litex(folder, tmp_path, bus)
    run_a_step(tmp_path / "gateware" / "system.v", folder)


@needs("litex")
def test_litex_notices_other_weights(folder: Path, tmp_path: Path) -> None:
    litex(folder, tmp_path, "wishbone")
    system = tmp_path / "gateware" / "system.v"
    mutant, count = re.subn(r"(\.s_axis_weights_tdata\s*\()(\w+\))", r"\1~\2", system.read_text())
    assert count == 1
    system.write_text(mutant)
    with pytest.raises(SimulationError):
        run_a_step(system, folder)


@needs("litex")
def test_litex_refuses_another_bus(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "litex" / "throttle.py"), "throttle_axi.v", str(tmp_path), "pci"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: bus must be one of axi-lite, axi, wishbone, not 'pci'\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.ci
@pytest.mark.icarus
def test_two_units_in_one_design_with_cocotb_alone(tmp_path: Path) -> None:
    """The commands of docs/ports.md; and with the constants of one unit at the other they are not golden's."""
    shutil.copytree(EXAMPLES / "two_units", tmp_path / "two")
    folder = tmp_path / "two"
    for name, options in (("first", []), ("second", ["--reset", "async", "--reset-polarity", "low"])):
        config = folder / f"{name}.toml"
        done = CliRunner().invoke(
            main, ["export", "--config", str(config), "--name", name, "-o", str(folder / f"{name}.v"), *options]
        )
        assert done.exit_code == 0, done.output
    run_two(folder)
    constants = (folder / "second.vh").read_text()
    (folder / "second.vh").write_text(constants.replace(".control_enabled(1'h1)", ".control_enabled(1'h0)"))
    assert (folder / "second.vh").read_text() != constants
    with pytest.raises(AssertionError, match="second, step"):
        run_two(folder)


def run_two(folder: Path) -> None:
    env = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    }  # which cocotb's runner would look at
    done = subprocess.run([sys.executable, "run.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=300)
    passed, failed = get_results(folder / "results.xml")
    assert (passed, failed) == (1, 0) and not done.returncode, done.stdout[-4000:]


def test_formats_by_layer(tmp_path: Path) -> None:
    """The network whose layers have weights of different widths; and the units that it writes can be read."""
    script = EXAMPLES / "formats_by_layer" / "run.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=True)
    rows = re.findall(r"^ +(\d+), (\d+) +([.\d]+) \(alpha ([.\d]+)\) +([.\d]+) \(alpha ([.\d]+)\)$", done.stdout, re.M)
    assert len(rows) == 6
    found = {(int(a), int(b)): [float(x) for x in rest] for a, b, *rest in rows}
    applied, alpha_applied, intended, alpha_intended = found[8, 16]
    assert alpha_applied < 0.01 < 0.2 < alpha_intended and intended > applied + 0.2
    assert (tmp_path / "shard0.v").exists() and "module shard1" in (tmp_path / "shard1.v").read_text()


def test_still_tensors() -> None:
    """With most tensors still all are stable at last; B' is blind the longest, and B holds harder than it need."""
    spec = importlib.util.spec_from_file_location("still_tensors", EXAMPLES / "still_tensors" / "run.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    found = {kind: example.run(kind, 0.8, 0.1, 0) for kind in example.KINDS}
    let, largest = ({kind: pair[k] for kind, pair in found.items()} for k in (0, 1))
    assert let["B"] < 0.5 < 1.5 < let["intended"] <= let["B'"] < 2.1
    assert largest["B"] < largest["intended"] < 1 < largest["B'"] < 10
