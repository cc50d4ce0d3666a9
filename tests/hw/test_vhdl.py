"""The VHDL package beside the Verilog, in a design that GHDL analyses and elaborates.

The Verilog itself is stood in for by entities with its ports: GHDL reads no Verilog.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_export import OPTIONS, SMALL

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw.bus.axi import AxiThrottle
from kappa_rtl.hw.export import VARIANTS
from kappa_rtl.hw.manifest import ports
from kappa_rtl.hw.units.core import StreamingThrottle
from kappa_rtl.hw.units.engine import ThrottleEngine
from kappa_rtl.hw.units.throttle import Throttle
from kappa_rtl.hw.vhdl import RESERVED, identifier, vhdl_package

needs_ghdl = pytest.mark.skipif(shutil.which("ghdl") is None, reason="no ghdl on PATH (Debian: ghdl)")

SHARD = OPTIONS["watched_shard"]


Ports = dict[str, tuple[str, int]]


def unit(config: ThrottleConfig, variant: str = "memory", bus: str = "", name: str = "my_unit") -> tuple[dict[str, Any], Ports]:
    """What the package takes from the manifest, and the ports; tests of the export compare these with the Verilog's."""
    kinds: dict[str, Any] = {"memory": Throttle, "streaming": StreamingThrottle, "engine": ThrottleEngine}
    made = AxiThrottle(config) if bus else kinds[variant](config)
    made._MustUse__used = True  # only its ports are looked at
    listed = ports(made)
    return {"module": name, "ports": listed}, {port["name"]: (port["direction"], port["width"]) for port in listed}


def entity(name: str, listed: Ports) -> str:
    """What the module is to VHDL."""
    ports = ";\n".join(
        f"  {identifier(port)} : {direction.removesuffix('put')} "
        + ("std_logic" if width == 1 else f"std_logic_vector({width - 1} downto 0)")
        for port, (direction, width) in listed.items()
    )
    return (
        f"library ieee;\nuse ieee.std_logic_1164.all;\nentity {name} is port (\n{ports});\nend entity;\n"
        f"architecture stub of {name} is\nbegin\nend architecture;\n"
    )


def design(*units: tuple[str, Ports]) -> str:
    """A top that holds an instance of each unit, every port on a signal of its own."""
    uses = "".join(f"use work.{name}_component.all;\n" for name, _ in units)
    signals, instances = "", ""
    for name, listed in units:
        pairs = []
        for i, (port, (_, width)) in enumerate(listed.items()):
            kind = "std_logic" if width == 1 else f"std_logic_vector({width - 1} downto 0)"
            signals += f"  signal {name}_{i} : {kind};\n"
            pairs.append(f"{identifier(port)} => {name}_{i}")
        instances += f"  u_{name} : {name} port map ({', '.join(pairs)});\n"
    return (
        f"library ieee;\nuse ieee.std_logic_1164.all;\n{uses}entity top is end entity;\n"
        f"architecture test of top is\n{signals}begin\n{instances}end architecture;\n"
    )


MODE = ("--std=93", "--syn-binding")
"""A component is bound to the entity of its name in the library, as synthesis does it; where there is none is an error below."""


def elaborated(folder: Path, texts: dict[str, str]) -> subprocess.CompletedProcess[str]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    done = subprocess.run(["ghdl", "-a", *MODE, *texts], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        return done
    command = ["ghdl", "--elab-run", *MODE, "--warn-error=binding", "top", "--stop-time=1ns"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


UNITS = [
    *((SMALL, variant, "") for variant in VARIANTS),
    (SMALL, "memory", "axi"),
    (SHARD, "memory", "axi"),
    (SHARD, "memory", ""),
]


@needs_ghdl
@pytest.mark.parametrize(("config", "variant", "bus"), UNITS, ids=[*VARIANTS, "axi", "axi_shard", "shard"])
def test_every_variant_is_a_component(config: ThrottleConfig, variant: str, bus: str, tmp_path: Path) -> None:
    manifest, listed = unit(config, variant, bus)
    texts = {"package.vhd": vhdl_package(manifest), "entity.vhd": entity("my_unit", listed)}
    done = elaborated(tmp_path, texts | {"top.vhd": design(("my_unit", listed))})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_ghdl
@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("s_axi_awaddr : in std_logic_vector(11 downto 0)", "s_axi_awaddr : in std_logic_vector(12 downto 0)"),
        ("irq : out std_logic", "irq : out std_logic_vector(0 downto 0)"),
        ("irq : out std_logic", "irq : in std_logic"),
        ("irq : out std_logic", "interrupt : out std_logic"),
        ("component my_unit is", "component our_unit is"),
    ],
)
def test_a_fault_of_the_package_is_seen(right: str, wrong: str, tmp_path: Path) -> None:
    manifest, listed = unit(SMALL, bus="axi")
    package = vhdl_package(manifest)
    assert right in package
    texts = {"package.vhd": package.replace(right, wrong), "entity.vhd": entity("my_unit", listed)}
    done = elaborated(tmp_path, texts | {"top.vhd": design(("my_unit", listed))})
    assert done.returncode


@needs_ghdl
def test_two_units_in_one_design(tmp_path: Path) -> None:
    texts, units = {}, []
    for name, config in (("first_layer", SMALL), ("second_layer", SHARD)):
        manifest, listed = unit(config, bus="axi", name=name)
        texts |= {f"{name}_component.vhd": vhdl_package(manifest), f"{name}.vhd": entity(name, listed)}
        units.append((name, listed))
    done = elaborated(tmp_path, texts | {"top.vhd": design(*units)})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_are_identifiers() -> None:
    """Every port's is a plain one, and so is another one where VHDL has it."""
    for config, variant, bus in UNITS:
        assert all(identifier(port) == port for port in unit(config, variant, bus)[1])
    for name in ("a", "a_1", "A2_b", "clear", "watchdog"):
        assert identifier(name) == name
    for name in ("a__b", "a_", "_a", "1a", "Signal", "buffer", "a$b"):
        assert identifier(name) == f"\\{name}\\"


@needs_ghdl
@pytest.mark.slow
@pytest.mark.ci
def test_reserved_words_are_those_of_the_language(tmp_path: Path) -> None:
    """GHDL refuses each as a name, but for those of the last edition and of PSL, and refuses no other."""

    def refused(word: str) -> bool:
        (tmp_path / "word.vhd").write_text(f"entity {word} is end entity;\n")
        command = [["ghdl", "-s", f"--std={year}", "word.vhd"] for year in ("93", "08")]
        return any(subprocess.run(args, cwd=tmp_path, capture_output=True).returncode for args in command)

    later = {"view", "private", "assume_guarantee", "restrict_guarantee", "fairness", "strong"}
    assert sorted(word for word in RESERVED - later if not refused(word)) == []
    assert not any(refused(word) for word in ("clear", "load", "data", "clk", "rst", "irq"))


def test_the_package_declares_the_ports_of_the_module() -> None:
    """Also where there is no GHDL."""
    manifest, listed = unit(SHARD, bus="axi")
    found = re.findall(
        r"^      (\w+) : (in|out) std_logic(?:_vector\((\d+) downto 0\))?;?$", vhdl_package(manifest), re.MULTILINE
    )
    assert {name: (f"{way}put", int(high or 0) + 1) for name, way, high in found} == listed
