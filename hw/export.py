"""Verilog of a component, with a manifest that says what every wire means."""

from __future__ import annotations

import hashlib
import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Fragment, Signal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib import wiring

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from .bus.axi import AxiThrottle
from .bus.ipxact import ipxact
from .bus.map import meanings, throttle_map
from .bus.quartus import platform_designer
from .bus.rdl import systemrdl
from .bus.registers import field_bits
from .bus.text import c_header, markdown, python_driver
from .cells import carry, chain, choose, gate, memory, multiplier
from .manifest import port_names, ports
from .units.core import StreamingThrottle
from .units.engine import ThrottleEngine
from .units.onepass import OnePass, StreamingOnePass
from .units.ports import host_words, registers_layout
from .units.segments import layout_words
from .units.throttle import Throttle
from .verilog.netlist import read
from .verilog.writer import write as write_verilog
from .vhdl import vhdl_package
from .words import named

HEADER = """\
// SPDX-License-Identifier: Apache-2.0
// {name}: made by kappa-rtl {version}; the manifest beside this file has the bits of every port.
// Verilog-2005, and the same in SystemVerilog. One clock, `clk`; the reset `{reset}` is {kind}, active {polarity}.
// Macro: KAPPA_RTL_ECP5 takes the multipliers, block memories and carry cells of that family; without it, plain Verilog.
// Least versions that were tried: Icarus Verilog 11.0, Verilator 5.006, Yosys 0.70, slang 12.1, Verible 0.0.4071.
"""

WAIVERS = {
    "DECLFILENAME": "one file holds the whole hierarchy",
    "UNUSEDSIGNAL": "words are named whole and used in part",
    "WIDTH": "operands of different widths extend as Verilog defines, which is what is meant",
    "TIMESCALEMOD": "no time passes in it, and files around it may have a time scale",
}

CELLS = {
    cell: source
    for module, names in (
        (multiplier, ("multiply",)),
        (chain, ("chain",)),
        (choose, ("choose",)),
        (gate, ("gate",)),
        (carry, ("carry_subtract", "carry_add", "carry_round")),
        (memory, ("memory",)),
    )
    for cell, source in ((f"kappa_rtl_{name}", module.SOURCE) for name in names)
}
"""The Verilog modules of the cells, each with the file that holds it."""

RESETS = ("sync", "async")
POLARITIES = ("high", "low")


@dataclass(frozen=True)
class Target:
    """What components are told as they are elaborated."""

    async_reset: bool


def reset_name(polarity: str) -> str:
    """The port of the reset."""
    return "rst" if polarity == "high" else "rst_n"


def to_verilog(component: wiring.Component, name: str, *, reset: str = "sync", polarity: str = "high", about: str = "") -> str:
    """The Verilog of a component, the same text on every run. All its modules begin with the name.

    Args:
        reset: ``sync`` or ``async``; the end of an asynchronous one has to be synchronous with the clock.
        polarity: ``high`` for a reset ``rst``, ``low`` for ``rst_n``.
        about: more lines for the header.

    Raises:
        ValueError: no such reset or polarity.
    """
    if reset not in RESETS:
        raise ValueError(f"reset must be one of {', '.join(RESETS)}, not {reset!r}")
    if polarity not in POLARITIES:
        raise ValueError(f"reset polarity must be one of {', '.join(POLARITIES)}, not {polarity!r}")
    target = Target(async_reset=reset == "async")
    domain = ClockDomain("sync", async_reset=target.async_reset)
    ports: dict[str, Any] = {"clk": (domain.clk, PortDirection.Input), reset_name(polarity): (domain.rst, PortDirection.Input)}
    fragment = Fragment.get(component, target)
    if polarity == "low":
        low = Signal(name="rst_n")
        ports["rst_n"] = (low, PortDirection.Input)
        fragment.add_statements("comb", domain.rst.eq(~low))
    fragment.add_domains(domain)
    names = port_names(component)
    for path, member, value in component.signature.flatten(component):
        direction = PortDirection.Input if member.flow is wiring.In else PortDirection.Output
        ports[names[tuple(str(part) for part in path)]] = (Value.cast(value), direction)
    design = read(rtlil.convert_fragment(fragment, ports, name, emit_src=False)[0])
    modules = {module: module.replace(".", "_") for module in design} | {
        cell: cell.replace("kappa_rtl", f"{name}_cell") for cell in CELLS
    }
    body = write_verilog(design, modules)
    used = {cell for cell in CELLS if re.search(rf"\b{modules[cell]}\b", body)}
    for source in dict.fromkeys(source for cell, source in CELLS.items() if cell in used):
        body += "\n" + source.read_text()
    body = re.sub(r"\bkappa_rtl_(?=[a-z_]+ #\()", f"{name}_cell_", body)
    header = HEADER.format(
        name=name, version=metadata.version("kappa-rtl"), reset=reset_name(polarity), kind=f"{reset}hronous", polarity=polarity
    )
    waivers = "".join(f"/* verilator lint_off {rule} */ // {why}\n" for rule, why in WAIVERS.items())
    return f"{header}{about}/* verilator lint_save */\n{waivers}{body}/* verilator lint_restore */\n"


BUSES = ("axi",)
"""What the unit can be put behind."""

VARIANTS = {"memory": "with gradient memory", "streaming": "streaming", "engine": "engine"}
"""The unit with the gradients on chip, with none of its vectors there, and with the weights there too; as a manifest names it."""


def unit(config: ThrottleConfig, streaming: bool = False) -> Throttle | StreamingThrottle:
    """The unit of a configuration, with its gradient memory or without; with ``delay`` the one of one pass."""
    if config.delay:
        return StreamingOnePass(config) if streaming else OnePass(config)
    return StreamingThrottle(config) if streaming else Throttle(config)


def export(
    config: ThrottleConfig,
    *,
    streaming: bool = False,
    variant: str = "",
    bus: str = "",
    name: str = "",
    reset: str = "sync",
    reset_polarity: str = "high",
    frames: str = "drop",
    bus_clock: bool = False,
) -> tuple[str, dict[str, Any]]:
    """The Verilog of the unit and its manifest.

    Args:
        streaming: without the gradient memory.
        variant: of :data:`VARIANTS`; if not given what ``streaming`` says.
        bus: ``axi`` for the unit with its gradient memory on AXI; nothing for streams and wires.
        name: of the top module, with which those beneath it begin; ``throttle`` if not given, with the bus ``throttle_axi``. See
            :func:`~kappa_rtl.hw.words.named`.
        reset, reset_polarity: see :func:`to_verilog`.
        frames: what the unit on a bus does about a frame that ends early or late, ``drop`` or ``check``.
        bus_clock: whether the registers' bus has a clock of its own.

    Raises:
        ValueError: no such variant, bus, reset, polarity or way with frames, not a name; ``check`` or a clock of a bus without
            one; a bus for a variant other than ``memory``; or parity for one without a memory.
    """
    variant = variant or ("streaming" if streaming else "memory")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {variant!r}")
    if bus and bus not in BUSES:
        raise ValueError(f"bus must be one of {', '.join(BUSES)}, not {bus!r}")
    if bus and variant != "memory":
        raise ValueError(f"the {variant} variant has no bus, not {bus!r}")
    if not bus and frames != "drop":
        raise ValueError(f"frames must not be given without a bus, not {frames!r}")
    if not bus and bus_clock:
        raise ValueError("bus_clock must not be given without a bus, not True")
    if config.parity and variant == "streaming":
        raise ValueError("parity must be false for the streaming variant, which has no memory, not True")
    name = named(name or ("throttle_axi" if bus else "throttle"))
    if bus:
        top: Any = AxiThrottle(config, frames, bus_clock)
    else:
        top = ThrottleEngine(config) if variant == "engine" else unit(config, variant == "streaming")
    wires = ports(top, reset_name(reset_polarity))
    text = to_verilog(top, name, reset=reset, polarity=reset_polarity, about=_about(config, wires))
    core = top if variant == "streaming" else top.core.core if bus else top.core
    host: dict[str, Any] = {
        "comment": "what the host drives steadily for this configuration, as unsigned words by port",
        "words": host_words(config),
    }
    if bus:
        control = top.registers["control"]
        host = {
            "comment": "what the host writes before the first step, as words by offset; all else is so after reset",
            "words": {f"{control.offset:#05x}": control.reset | 1},
        }
    said = meanings(config)
    manifest = {
        "module": name,
        "clock": "clk",
        "reset": {"port": reset_name(reset_polarity), "kind": reset, "active": reset_polarity},
        "macros": {"KAPPA_RTL_ECP5": "the multipliers, block memories and carry cells of that family"},
        "variant": "axi" if bus else VARIANTS[variant],
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "configuration": config.to_table(),
        "registers": config.registers(),
        "meanings": {name: said[name] for name in registers_layout(config).members if name in said},
        "host": host,
        "widths": {
            "product": config.widths.product.signed_bits,
            "update_shift": config.widths.update_shift,
            "sum": config.widths.sum.signed_bits,
            "weight_shift": config.widths.weight_shift,
            "A": config.widths.gradient_energy,
            "B": config.widths.motion_energy,
        },
        "step_rounding_bound_in_update_ulps": float(config.step_error),
        "latency": {
            "unit": "clock cycles",
            "beats_per_pass": config.beats,
            "passes": top.passes if bus else 1 if config.delay else 2,
            "elements_in_last_beat": config.tail,
            "step_at_most": top.step_cycles,
            "beyond_the_beats_at_most": top.overhead,
            "sum_of_squares": core.sum.latency,
            "update": core.update.latency,
            "decide_at_most": core.decide.latency,
        },
        "ports": wires,
        "tools": {name: metadata.version(name) for name in ("kappa-rtl", "amaranth")},
        "lint": {"verilator": "-Wall", "waived": WAIVERS},
    }
    if config.segments:
        manifest["layout"] = _layout(config, bus)
    if bus:
        manifest |= {"frames": frames, "bus_clock": bus_clock}
        manifest["register_map"] = top.registers.table()
        manifest["streams"] = {
            port: {
                "lanes": config.lanes,
                "element_bits": fmt.width,
                "field_bits": field_bits(fmt.width),
                "format": fmt.name,
            }
            for port, fmt in (
                ("s_axis_gradient", config.grids.gradient),
                ("s_axis_weights", config.grids.weight),
                ("m_axis_updated", config.grids.weight),
            )
        }
    return text, manifest


def _layout(config: ThrottleConfig, bus: str) -> dict[str, Any]:
    """What a host has to know of the table of segments."""
    comment = (
        "the table of segments, which after a reset is this one; for another, right after a reset and before a beat is offered, "
    )
    if bus:
        comment += (
            "write each of its entries, in order, those not in use with no elements, to the register `layout`, then one to "
            "command.layout, which reads 1 until the entry was taken; "
        )
        still = "and still_norm_m and still_norm_e"
    else:
        comment += "write as many words as it has entries to the port, in order, those not in use with no elements; "
        still = "and constants_still_norm"
    if config.population is None:  # that of a shard is of all of them
        comment += f"{still} for the new segments; "
    return {
        "comment": f"{comment}beats_per_pass and what follows from it are of this layout",
        **({"registers": ["table", "capacity", "layout", "beats"]} if bus else {"port": "s_axis_layout"}),
        "entries": config.entries,
        "scale_max": config.scale_max,
        "elements_at_most": config.room,
        **({} if bus else {"words": layout_words(config)}),
    }


def _about(config: ThrottleConfig, wires: Sequence[Mapping[str, Any]]) -> str:
    """What the header says besides: the configuration and the ports."""
    streams = {str(wire["name"])[: -len("_tvalid")] for wire in wires if str(wire["name"]).endswith("_tvalid")}
    others = [str(wire["name"]) for wire in wires if str(wire["name"]).rpartition("_")[0] not in streams]
    widths = {wire["name"]: wire["width"] for wire in wires}
    lines = [f"{name} ({widths.get(f'{name}_tdata', 0)} bits a beat)" for name in sorted(streams)]
    table = ", ".join(f"{key} = {json.dumps(value)}" for key, value in config.to_table().items())
    told = {"Streams": ", ".join(lines), "Other ports": ", ".join(others), "Configuration": table}
    return "".join(
        textwrap.fill(f"{what}: {text}.", 130, initial_indent="// ", subsequent_indent="//   ", break_on_hyphens=False) + "\n"
        for what, text in told.items()
    )


def _constants(manifest: Mapping[str, Any]) -> str:
    """What the host drives steadily, as a macro of connections for an instance of the unit."""
    name = str(manifest["module"]).upper()
    widths = {port["name"]: port["width"] for port in manifest["ports"]}
    words = manifest["host"]["words"]
    pins = ", \\\n".join(f"  .{port}({widths[port]}'h{word:x})" for port, word in words.items())
    return (
        f"// The constants of {manifest['module']}'s configuration: `include this file, and put `{name}_CONSTANTS among the\n"
        f"// connections of an instance. Who changes them at run time drives these ports instead.\n"
        f"`ifndef {name}_CONSTANTS\n`define {name}_CONSTANTS \\\n{pins}\n`endif\n"
    )


BESIDE = {".json": "the manifest", ".vhd": "the VHDL package"}
BESIDE_PORTS = {".vh": "the constants"}
BESIDE_BUS = {
    **{".md": "the page", ".h": "the header", ".py": "the driver", ".rdl": "the map in SystemRDL"},
    **{".xml": "the IP-XACT component", "_hw.tcl": "Platform Designer's script"},
}


def outputs(path: Path, bus: str) -> list[Path]:
    """All that :func:`write` writes, the Verilog first.

    Raises:
        ValueError: the Verilog has the place of a file beside it, or a folder is in the place of a file.
    """
    endings = BESIDE | (BESIDE_BUS if bus else BESIDE_PORTS)
    for ending, what in endings.items():
        if path.name == path.stem + ending or path.name.endswith(ending):
            raise ValueError(f"output must not end in {ending}, which is {what}'s, not {str(path)!r}")
    found = [path, *(path.with_name(path.stem + ending) for ending in endings)]
    for place in found:
        if place.exists() and not place.is_file():
            raise ValueError(f"{str(place)!r} must be a file, or nothing yet")
    return found


def write(
    config: ThrottleConfig,
    path: Path,
    *,
    streaming: bool = False,
    variant: str = "",
    bus: str = "",
    name: str = "",
    reset: str = "sync",
    reset_polarity: str = "high",
    frames: str = "drop",
    bus_clock: bool = False,
) -> tuple[Path, ...]:
    """Write ``path``, and beside it its manifest (``.json``) and a VHDL package (``.vhd``), without a bus the constants as a
    Verilog header (``.vh``); with one the register map as a page (``.md``), a C header (``.h``), a Python driver (``.py``), the
    map in SystemRDL (``.rdl``), an IP-XACT component (``.xml``) and a script for Platform Designer (``_hw.tcl``). Each whole or
    not at all; gives all paths.

    Raises:
        ValueError: the path is that of a file that goes beside it, or see :func:`export`.
    """
    places = outputs(path, bus)
    text, manifest = export(
        config,
        streaming=streaming,
        variant=variant,
        bus=bus,
        name=name,
        reset=reset,
        reset_polarity=reset_polarity,
        frames=frames,
        bus_clock=bus_clock,
    )
    texts = {path: text}
    beside = {
        ".json": json.dumps(manifest, indent=1) + "\n",
        ".vhd": vhdl_package(manifest),
    }
    if not bus:
        beside[".vh"] = _constants(manifest)
    if bus:
        registers, module = throttle_map(config, frames), manifest["module"]
        beside |= {
            ".md": markdown(registers, module),
            ".h": c_header(config, registers, module),
            ".py": python_driver(config, registers, module),
            ".rdl": systemrdl(registers, module),
            ".xml": ipxact(manifest, registers, path.name),
            "_hw.tcl": platform_designer(manifest, path.name),
        }
    texts |= {path.with_name(path.stem + ending): other for ending, other in beside.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"output must be in a folder that can be written, not {str(path)!r}")
    assert set(texts) == set(places)
    for place, body in texts.items():
        write_atomically(place, body)
    return tuple(texts)
