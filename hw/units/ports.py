"""What every variant of the unit has in common: its registers, and the ports that all of them have."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.registers import BLOCK_BITS, COUNTER_BITS, FLAGS, STATUS, WATCHES
from ..scalar.decide import CONTROL, constants_signature, control_words, status_layout
from .segments import entry_layout
from .watchdog import watchdog_layout, watchdog_mask


def registers_layout(config: ThrottleConfig) -> data.StructLayout:
    """Every register of the unit after a step, in the order of the golden model's ``Registers``."""
    status = status_layout(config).members
    counter = unsigned(COUNTER_BITS)
    return data.StructLayout(
        {"A": unsigned(config.widths.gradient_energy), "B": unsigned(config.widths.motion_energy)}
        | {name: status[name] for name in STATUS}
        | dict.fromkeys(core_counters(config), counter)
        | {"still_steps": counter}
        | {name: status[name] for name in FLAGS}
        | watchdog_layout(config).members
        | ({"memory_fault": unsigned(1)} if config.parity else {})
    )


def refuse_direction(config: ThrottleConfig) -> None:
    """For a unit that takes D from its own memory of gradients."""
    if config.direction is not None:
        raise ValueError(
            f"direction must not be given to a unit that takes it from its gradient memory, not {config.direction}: "
            "the streaming unit takes it as a stream"
        )


def host_words(config: ThrottleConfig) -> dict[str, int]:
    """What the host drives steadily for a configuration, by port name, as unsigned words."""
    return control_words(config) | ({"watchdog_mask": watchdog_mask(config)} if config.watchdog else {})


def shared_bits(config: ThrottleConfig) -> int:
    """Width of what shards exchange, integers that are added modulo a power of two.

    With an intended motion B has above it, in the bits beyond ``widths.energy``, 1 if a weight of the shard moved; their sum says
    how many shards did. And with a projection A is a signed number.
    """
    population = config.population or config.elements
    return config.widths.energy + (population.bit_length() if config.intended else 0)


def core_counters(config: ThrottleConfig) -> tuple[str, ...]:
    """The counters that the core keeps, in order; still steps are counted by the scalar part."""
    return tuple(name for name in config.counters if name != "still_steps")


def vector(width: int, lanes: int) -> data.ArrayLayout:
    """A beat: a signed word for each lane."""
    return data.ArrayLayout(signed(width), lanes)


def residual_field(config: ThrottleConfig) -> dict[str, data.ArrayLayout]:
    """The field of a beat that carries the residuals, if the unit keeps any."""
    return {"residual": vector(config.residual_bits, config.lanes)} if config.residual_bits else {}


def updated_signature(config: ThrottleConfig, residual: bool = False) -> stream.Signature:
    """The stream of what the apply pass makes; the residuals are on it only between a core and the unit around it."""
    w, y = config.grids.weight, config.grids.update
    fields = {"weight": vector(w.width, config.lanes), "update": vector(y.width, config.lanes)}
    return stream.Signature(data.StructLayout(fields | (residual_field(config) if residual else {})))


def unit_ports(config: ThrottleConfig) -> dict[str, Any]:
    """The ports that every variant has."""
    ports: dict[str, Any] = {
        "updated": Out(updated_signature(config)),
        "registers": Out(stream.Signature(registers_layout(config))),
        "clear": In(1),
        "constants": In(constants_signature(config.scalar)),
        "control": In(CONTROL),
    }
    if config.population is not None:
        energy = stream.Signature(unsigned(shared_bits(config)))
        ports |= {"partial": Out(energy), "total": In(energy)}
    if config.segments:
        ports["layout"] = In(stream.Signature(entry_layout(config)))
    if config.watchdog:
        ports["watchdog_mask"] = In(len(WATCHES))
    if "norm_growth" in config.watchdog:
        ports["blocks"] = In(stream.Signature(unsigned(BLOCK_BITS)))
    return ports


def pass_on(m: Module, unit: Any, core: Any) -> None:
    """Join the ports of a unit that are its core's own; ``updated`` without the residuals, where the unit keeps them."""
    for name in unit_ports(unit.config):
        if name not in unit.signature.members or name not in core.signature.members:
            continue
        member, mine, theirs = unit.signature.members[name], getattr(unit, name), getattr(core, name)
        if member.is_port:
            m.d.comb += theirs.eq(mine)  # ports that are no streams are all inputs
        elif name == "updated" and unit.config.residual_bits:
            m.d.comb += [mine.valid.eq(theirs.valid), theirs.ready.eq(mine.ready)]
            m.d.comb += [mine.payload[field].eq(theirs.payload[field]) for field in mine.payload.shape().members]
        elif member.flow is Out:
            wiring.connect(m, theirs, wiring.flipped(mine))
        else:
            wiring.connect(m, wiring.flipped(mine), theirs)
