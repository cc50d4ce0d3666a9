"""The ports of a unit on AXI as the interfaces that they form, taken from its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["Interface", "interfaces"]


@dataclass(frozen=True)
class Interface:
    """Some ports that belong together: by the names that the protocol gives to its wires, those of the ports."""

    name: str
    kind: str  #: ``clock``, ``reset``, ``axi4lite``, ``axi4stream``, ``interrupt`` or ``wire``
    sends: bool  #: whether the unit is its source: the master of a stream, the sender of an interrupt
    ports: dict[str, str] = field(default_factory=dict)
    clock: str = ""  #: the interface of its clock, but for a clock
    reset: str = ""  #: and of its reset, but for a clock, a reset and a wire


def interfaces(manifest: dict[str, Any]) -> list[Interface]:
    """All interfaces of a unit on AXI; every port is in exactly one.

    A clock's name ends in ``clk``; that of a reset ends in ``rst`` or, where it is active low, in ``n``.

    Raises:
        ValueError: a unit without a bus.
    """
    if manifest["variant"] != "axi":
        raise ValueError(f"variant must be axi, not {manifest['variant']!r}")
    outputs = {port["name"]: port["direction"] == "output" for port in manifest["ports"]}
    clocks = [name for name in outputs if name.endswith("clk")]
    resets = [name for name in outputs if name.endswith(("rst", "rst_n", "resetn"))]
    found = [Interface(name, "clock", False, {"clk": name}) for name in clocks]
    found += [Interface(name, "reset", False, {"rst": name}, _of(name, clocks)) for name in resets]
    prefixes = {"s_axi": "axi4lite"} | {
        name.removesuffix("_tvalid"): "axi4stream" for name in outputs if name.endswith("_tvalid")
    }
    rest = [name for name in outputs if name not in (*clocks, *resets)]
    for prefix, kind in prefixes.items():
        ports = {name.removeprefix(f"{prefix}_"): name for name in rest if name.startswith(f"{prefix}_")}
        rest = [name for name in rest if name not in ports.values()]
        sends = kind == "axi4stream" and outputs[ports["tvalid"]]
        found.append(Interface(prefix, kind, sends, ports, _of(prefix, clocks), _of(prefix, resets)))
    for name in rest:
        kind = "interrupt" if name == "irq" else "wire"
        found.append(Interface(name, kind, outputs[name], {name: name}, _of(name, clocks), _of(name, resets)))
    return found


def _of(name: str, choices: list[str]) -> str:
    """The clock or reset of an interface: the one whose name begins with it, or else the first one."""
    prefix = name.removesuffix("resetn").removesuffix("_a")
    return next((choice for choice in choices if choice.startswith(f"{prefix}_a")), choices[0])
