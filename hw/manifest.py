"""What the manifest beside the Verilog says of every wire: ports, and the bit map of what they carry."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any

from amaranth.hdl import Shape, ShapeCastable
from amaranth.lib import data, wiring


def bit_map(shape: Any, offset: int = 0, prefix: str = "") -> list[dict[str, Any]]:
    """The leaves of a payload: name, lowest bit, width, signedness; lane by lane for arrays."""
    if isinstance(shape, data.StructLayout):
        return [
            leaf
            for key, field in shape
            for leaf in bit_map(field.shape, offset + field.offset, f"{prefix}{'.' if prefix else ''}{key}")
        ]
    if isinstance(shape, data.ArrayLayout):
        return [leaf for key, field in shape for leaf in bit_map(field.shape, offset + field.offset, f"{prefix}[{key}]")]
    plain = Shape.cast(shape)
    leaf: dict[str, Any] = {"name": prefix, "lsb": offset, "width": plain.width, "signed": plain.signed}
    if isinstance(shape, enum.EnumMeta):
        members: list[enum.Enum] = list(shape)
        leaf["values"] = {member.name.lower(): member.value for member in members}
    return [leaf]


STREAM = {"payload": "tdata", "valid": "tvalid", "ready": "tready"}
"""What AXI4-Stream calls the wires of a stream."""


def stream_name(path: Iterable[str], flow: wiring.Flow) -> str:
    """The name of a stream among the ports, as tools know it: ``s_axis_gradient`` where beats come in, ``m_axis_updated``."""
    *outer, name = path
    return "_".join([*outer, "s_axis" if flow is wiring.In else "m_axis", name])


def port_names(component: wiring.Component) -> dict[tuple[str, ...], str]:
    """The name of each port by its path in the signature, a legal one in Verilog, C and VHDL: no two underscores in a row."""
    found = {}
    for path, member, _ in component.signature.flatten(component):
        plain = tuple(str(part) for part in path)
        signature: Any = component.signature
        for part in plain[:-1]:
            signature = signature.members[part].signature
        if {"valid", "ready"} <= set(signature.members) and plain[-1] in STREAM:
            inward = (member.flow is wiring.In) is (plain[-1] != "ready")
            found[plain] = f"{stream_name(plain[:-1], wiring.In if inward else wiring.Out)}_{STREAM[plain[-1]]}"
        else:
            found[plain] = "_".join(plain)
    return found


def ports(component: wiring.Component, reset: str = "rst") -> list[dict[str, Any]]:
    """Every port of the exported module: name, direction, width, and the bit map of what it carries."""
    names = port_names(component)
    found: list[dict[str, Any]] = [
        {"name": "clk", "direction": "input", "width": 1},
        {"name": reset, "direction": "input", "width": 1},
    ]
    for path, member, value in component.signature.flatten(component):
        shape = value.shape()
        width = (
            shape.size if isinstance(shape, data.Layout) else len(value.as_value() if isinstance(shape, ShapeCastable) else value)
        )
        port = {
            "name": names[tuple(str(part) for part in path)],
            "direction": "input" if member.flow is wiring.In else "output",
            "width": width,
        }
        if isinstance(member.shape, (data.Layout, enum.EnumMeta)):
            port["bits"] = bit_map(member.shape)
        elif shape.signed:
            port["signed"] = True
        found.append(port)
    return found
