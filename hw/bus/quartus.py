"""A unit on AXI as a component of Quartus' Platform Designer."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from .interfaces import interfaces

__all__ = ["platform_designer"]

ASSOCIATED = {
    "axi4lite": ("Clock", "Reset"),
    "axi4stream": ("Clock", "Reset"),
    "interrupt": ("Clock", "Reset"),
    "reset": ("Clock",),
}
"""Which of its clock and reset an interface has to name."""


def platform_designer(manifest: dict[str, Any], verilog: str) -> str:
    """The script ``NAME_hw.tcl`` that Platform Designer finds beside the Verilog, whose file's name is given."""
    name = manifest["module"]
    lines = [
        f"# {name} for Platform Designer: made by kappa-rtl {metadata.version('kappa-rtl')}.",
        "package require -exact qsys 16.1",
        f"set_module_property NAME {name}",
        f"set_module_property VERSION {metadata.version('kappa-rtl')}",
        f"set_module_property DISPLAY_NAME {{{name}}}",
        "set_module_property GROUP {kappa-rtl}",
    ]
    for fileset in ("QUARTUS_SYNTH", "SIM_VERILOG", "SIM_VHDL"):
        lines += [
            f"add_fileset {fileset.lower()} {fileset}",
            f"set_fileset_property {fileset.lower()} TOP_LEVEL {name}",
            f"add_fileset_file {{{verilog}}} VERILOG PATH {{{verilog}}}",
        ]
    about = {port["name"]: (port["direction"].capitalize(), port["width"]) for port in manifest["ports"]}
    for found in interfaces(manifest):
        kind = "conduit" if found.kind == "wire" else found.kind
        end = "start" if found.sends and kind == "axi4stream" else "end"  # who sends an interrupt is its end
        lines.append(f"add_interface {found.name} {kind} {end}")
        for part in ASSOCIATED.get(found.kind, ()):
            lines.append(f"set_interface_property {found.name} associated{part} {getattr(found, part.lower())}")
        if found.kind == "reset":
            lines.append(f"set_interface_property {found.name} synchronousEdges BOTH")
        if found.kind == "interrupt":
            lines.append(f"set_interface_property {found.name} associatedAddressablePoint s_axi")
        for wire, port in found.ports.items():
            role = {"clk": "clk", "rst": "reset_n" if port.endswith("n") else "reset"}.get(wire, wire)
            direction, width = about[port]
            lines.append(f"add_interface_port {found.name} {port} {role} {direction} {width}")
    return "\n".join([*lines, ""])
