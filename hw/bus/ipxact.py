"""A unit on AXI as an IP-XACT component: its interfaces, ports, registers and Verilog, for tools that assemble systems."""

from __future__ import annotations

from importlib import metadata
from typing import Any
from xml.etree import ElementTree as ET

from .interfaces import Interface, interfaces
from .parts import parts
from .registers import ADDRESS_BITS, WORD, Access, RegisterMap

__all__ = ["ipxact"]

SPIRIT = "http://www.spiritconsortium.org/XMLSchema/SPIRIT/1685-2009"
XILINX = "http://www.xilinx.com"

BUSES = {
    "clock": ("signal", "clock"),
    "reset": ("signal", "reset"),
    "interrupt": ("signal", "interrupt"),
    "axi4lite": ("interface", "aximm"),
    "axi4stream": ("interface", "axis"),
}
"""The bus definitions that Vivado has for them: library and name."""

VIEWS = ("synthesis", "simulation")

FAMILIES = (
    *("artix7", "kintex7", "spartan7", "virtex7", "zynq"),
    *("kintexu", "virtexu", "artixuplus", "kintexuplus", "virtexuplus", "zynquplus", "versal"),
)
"""What Vivado's catalogue offers the component for: the text is Verilog-2005 without anything of a family."""

WRITES = {Access.W1C: "oneToClear", Access.W1S: "oneToSet"}


def ipxact(manifest: dict[str, Any], registers: RegisterMap, verilog: str) -> str:
    """The component in the form of IEEE 1685-2009, which is what Vivado writes and reads.

    Args:
        manifest: of a unit with the bus.
        verilog: the name of the file beside it that holds the Verilog.
    """
    for prefix, space in (("spirit", SPIRIT), ("xilinx", XILINX)):
        ET.register_namespace(prefix, space)
    name = manifest["module"]
    root = ET.Element(f"{{{SPIRIT}}}component")
    add(root, vendor="kappa-rtl", library="throttle", name=name, version=metadata.version("kappa-rtl"))
    found = interfaces(manifest)
    buses = add(root, busInterfaces=None)
    for interface in found:
        if interface.kind in BUSES:
            _bus(buses, interface, found)
    _map(add(add(root, memoryMaps=None), memoryMap=None), registers)
    _model(add(root, model=None), manifest)
    sets = add(root, fileSets=None)
    for view in VIEWS:
        held = add(sets, fileSet=None)
        add(held, name=view)
        add(add(held, file=None), name=verilog, fileType="verilogSource")
    add(root, description="A global training throttle: vectors on AXI4-Stream, registers on AXI4-Lite")
    title = add(add(root, parameters=None), parameter=None)
    add(title, name="Component_Name")
    labels = {"resolve": "user", "id": "PARAM_VALUE.Component_Name"}
    ET.SubElement(title, f"{{{SPIRIT}}}value", {f"{{{SPIRIT}}}{key}": value for key, value in labels.items()}).text = name
    core = ET.SubElement(add(root, vendorExtensions=None), f"{{{XILINX}}}coreExtensions")
    families = ET.SubElement(core, f"{{{XILINX}}}supportedFamilies")
    for family in FAMILIES:
        ET.SubElement(families, f"{{{XILINX}}}family", {f"{{{XILINX}}}lifeCycle": "Beta"}).text = family
    ET.SubElement(ET.SubElement(core, f"{{{XILINX}}}taxonomies"), f"{{{XILINX}}}taxonomy").text = "/UserIP"
    ET.SubElement(core, f"{{{XILINX}}}displayName").text = name
    ET.SubElement(core, f"{{{XILINX}}}coreRevision").text = "1"
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def add(parent: ET.Element, **children: str | None) -> ET.Element:
    """Append elements with their texts; gives the last one."""
    for tag, text in children.items():
        child = ET.SubElement(parent, f"{{{SPIRIT}}}{tag}")
        child.text = text
    return child


def reference(parent: ET.Element, tag: str, library: str, name: str) -> None:
    about = {"vendor": "xilinx.com", "library": library, "name": name, "version": "1.0"}
    ET.SubElement(parent, f"{{{SPIRIT}}}{tag}", {f"{{{SPIRIT}}}{key}": value for key, value in about.items()})


def _bus(buses: ET.Element, interface: Interface, all_of_them: list[Interface]) -> None:
    """An interface with its ports, and the parameters by which Vivado knows which clock and reset are whose."""
    bus = add(buses, busInterface=None)
    add(bus, name=interface.name)
    library, name = BUSES[interface.kind]
    reference(bus, "busType", library, name)
    reference(bus, "abstractionType", library, f"{name}_rtl")
    role = add(bus, **{"master" if interface.sends else "slave": None})
    if interface.kind == "axi4lite":
        ET.SubElement(role, f"{{{SPIRIT}}}memoryMapRef", {f"{{{SPIRIT}}}memoryMapRef": interface.name})
    maps = add(bus, portMaps=None)
    for wire, port in interface.ports.items():
        pair = add(maps, portMap=None)
        add(add(pair, logicalPort=None), name="INTERRUPT" if interface.kind == "interrupt" else wire.upper())
        add(add(pair, physicalPort=None), name=port)
    values = {}
    if interface.kind == "clock":
        using = [i for i in all_of_them if i.kind.startswith("axi4") and i.clock == interface.name]
        resets = [i.name for i in all_of_them if i.kind == "reset" and i.clock == interface.name]
        values = {"ASSOCIATED_BUSIF": ":".join(i.name for i in using), "ASSOCIATED_RESET": ":".join(resets)}
    elif interface.kind == "reset":
        values = {"POLARITY": "ACTIVE_LOW" if interface.name.endswith("n") else "ACTIVE_HIGH"}
    elif interface.kind == "interrupt":
        values = {"SENSITIVITY": "LEVEL_HIGH"}
    elif interface.kind == "axi4lite":
        values = {"PROTOCOL": "AXI4LITE"}
    if values:
        parameters = add(bus, parameters=None)
        for key, value in values.items():
            parameter = add(parameters, parameter=None)
            add(parameter, name=key)
            label = f"BUSIFPARAM_VALUE.{interface.name.upper()}.{key}"
            ET.SubElement(parameter, f"{{{SPIRIT}}}value", {f"{{{SPIRIT}}}id": label}).text = value


def _model(model: ET.Element, manifest: dict[str, Any]) -> None:
    views = add(model, views=None)
    for name in VIEWS:
        view = add(views, view=None)
        add(view, name=name, envIdentifier=f":vivado.xilinx.com:{name}", language="Verilog", modelName=manifest["module"])
        add(add(view, fileSetRef=None), localName=name)
    ports = add(model, ports=None)
    for about in manifest["ports"]:
        port = add(ports, port=None)
        add(port, name=about["name"])
        wire = add(port, wire=None)
        add(wire, direction="in" if about["direction"] == "input" else "out")
        if about["width"] > 1:
            add(add(wire, vector=None), left=str(about["width"] - 1), right="0")
        kind = add(add(wire, wireTypeDefs=None), wireTypeDef=None)
        add(kind, typeName="wire")
        for name in VIEWS:
            add(kind, viewNameRef=name)


def _map(memory: ET.Element, registers: RegisterMap) -> None:
    add(memory, name="s_axi")
    block = add(memory, addressBlock=None)
    add(block, name="registers", baseAddress="0", range=str(1 << ADDRESS_BITS), width=str(WORD))
    add(block, usage="register", access="read-write")
    for r in registers:
        register = add(block, register=None)
        add(register, name=r.name)
        if r.doc:
            add(register, description=r.doc)
        add(register, addressOffset=f"{r.offset:#x}", size=str(WORD * r.words))
        add(register, access="read-write" if r.access.writable else "read-only")
        add(add(register, reset=None), value=f"{r.reset:#x}")
        for f, access in parts(r):
            held = add(register, field=None)
            add(held, name=f.name)
            if f.doc:
                add(held, description=f.doc)
            add(held, bitOffset=str(f.lsb), bitWidth=str(f.width))
            add(held, volatile=str(access in (Access.RO, Access.W1C, Access.W1S)).lower())
            add(held, access="read-write" if access.writable else "read-only")
            if f.values:
                listed = add(held, enumeratedValues=None)
                for key, value in f.values.items():
                    add(add(listed, enumeratedValue=None), name=key, value=f"{value:#x}")
            if access in WRITES:
                add(held, modifiedWriteValue=WRITES[access])
            if f.signed:
                add(add(add(held, parameters=None), parameter=None), name="is_signed", value="true")
    add(memory, addressUnitBits="8")
