"""The register map of a throttle unit, as its configuration has it, with every number that stands for a name on the bus."""

from __future__ import annotations

import enum
import hashlib
import json
from importlib import metadata
from typing import Any

from ...golden import config as golden_config
from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed, Overflow, Rounding
from ...golden.registers import CONSTANTS, COUNTER_BITS, FLAGS, MEANINGS
from ..scalar.clamp import Source
from ..scalar.decide import OnStill, control_words
from .layout import SCALE_BITS, elements_bits
from .registers import Access, Field, Register, RegisterMap

__all__ = ["FRAMES", "INTERRUPTS", "MAGIC", "MOST_BLOCKS", "digest", "interrupts", "throttle_map"]

MAGIC = int.from_bytes(b"KAPA", "big")
"""What the first word reads: so a host knows that a throttle unit answers."""

# Numbers that stand for names on the bus. Programs hold them: what is added gets a new one, and none moves or is used again.

ROUNDINGS = {
    Rounding.NEAREST_EVEN: 0,
    Rounding.NEAREST_UP: 1,
    Rounding.NEAREST_DOWN: 2,
    Rounding.NEAREST_ZERO: 3,
    Rounding.NEAREST_AWAY: 4,
    Rounding.FLOOR: 5,
    Rounding.TOWARD_ZERO: 6,
    Rounding.STOCHASTIC: 7,
}
"""The numbers of the roundings in the register ``modes``."""

OVERFLOWS = {
    Overflow.SATURATE: 0,
    Overflow.SATURATE_SYMMETRIC: 1,
    Overflow.WRAP: 2,
    Overflow.ZERO: 3,
}
"""The numbers of the overflow modes in the register ``modes``."""

MEASURES = {"curvature": 0, "norm": 1, "ratio": 2, "projection": 3, "intended": 4}
"""The numbers of what a unit measures in the register ``options``."""

FLAG_BITS = {"learning_dead": 8, "scalar_overflow": 9, "scalar_underflow": 10, "memory_fault": 11, "step_overflow": 12}
"""The bits of the flags in the register ``status``."""

WATCH_BITS = {"gradient_floor": 0, "norm_growth": 1, "learning_dead": 2, "scalar_overflow": 3}
"""The bits of the conditions in the registers of the watchdog, and the places of their step numbers behind these."""

INTERRUPT_BITS = {
    "done": 0,
    "learning_dead": 1,
    "scalar_overflow": 2,
    "scalar_underflow": 3,
    "gradient_frame": 4,
    "weights_frame": 5,
    "watchdog": 6,
    "memory_fault": 7,
    "step_overflow": 8,
    "blocks_frame": 9,
    "layout": 10,
}
"""The bits of the interrupt's sources; that of ``memory_fault`` is 6 in a unit without a watchdog."""

INTERRUPTS = {
    "done": "a step ended: its registers are here and its weights have left",
    "learning_dead": "a step ended with this flag up",
    "scalar_overflow": "a step ended with this flag up",
    "scalar_underflow": "a step ended with this flag up",
    "gradient_frame": "TLAST of the gradient was not on the last beat, and only there",
    "weights_frame": "TLAST of the weights was not on the last beat, and only there",
    "step_overflow": "a step ended with this flag up",
}
"""The sources of the interrupt that every unit has: what each tells."""


FRAMES = ("drop", "check")
"""What is done about a frame that ends early or late: it is dropped whole, or its beats are taken as they come."""

MOST_BLOCKS = 63
"""The longest list of blocks that is checked and dropped if it is bad."""


def checks_blocks(config: ThrottleConfig, frames: str) -> bool:
    """Whether a list of blocks is a frame too."""
    return frames == "drop" and "norm_growth" in config.watchdog


def interrupts(config: ThrottleConfig, frames: str = "drop") -> dict[str, str]:
    """The sources of a unit's interrupt: what each tells."""
    told = dict(INTERRUPTS)
    if frames == "drop":
        told |= {
            f"{name}_frame": f"a frame of the {name} ended early or late, and was dropped" for name in ("gradient", "weights")
        }
    if config.watchdog:
        told["watchdog"] = "a step ended with a bit of the watchdog up"
    if config.parity:
        told["memory_fault"] = "a step ended with this flag up"
    if checks_blocks(config, frames):
        told["blocks_frame"] = "a list of blocks ended early or late, and was dropped"
    if config.segments:
        told["layout"] = "an entry of the table of segments was refused, and nothing has changed"
    return told


TABLE_OFFSET = 0x60

WATCHDOG_OFFSET = 0x1E0

COUNTER_OFFSETS = {
    "gradient_saturated": 0x1B4,
    "gradient_near_rail": 0x1B8,
    "update_saturated": 0x1BC,
    "update_underflow": 0x1C0,
    "weight_saturated": 0x1C4,
    "weight_near_rail": 0x1C8,
    "still_steps": 0x1CC,
    "update_rail": 0x1D0,
    "update_near_rail": 0x1D4,
    "step_rail": 0x1D8,
    "step_near_rail": 0x1DC,
}
"""Where each counter stands. An old one never moves; a new one goes behind all others, from 0x200 on."""

DIGEST_OFFSET = 0x23C
"""Where the digest stands: in the words from 0x200 on, behind what these will hold."""


def throttle_map(config: ThrottleConfig, frames: str = "drop") -> RegisterMap:
    """The registers of :class:`~kappa_rtl.hw.bus.axi.AxiThrottle` for a configuration, whose constants are their reset values.

    Args:
        frames: one of :data:`FRAMES`.
    """
    registers: list[Register] = []
    m, e = config.mantissa_bits, config.exponent_bits
    offset = 0

    def at(place: int) -> None:
        nonlocal offset
        assert place >= offset
        offset = place

    def add(name: str, access: Access, *fields: Field, doc: str = "") -> None:
        nonlocal offset
        registers.append(Register(name=name, offset=offset, access=access, fields=fields, doc=doc))
        offset += 4 * registers[-1].words

    def one(name: str, access: Access, width: int, doc: str, reset: int = 0, **more: Any) -> None:
        add(name, access, Field(width=width, reset=reset, **more), doc=doc)

    def scalar(name: str, access: Access, doc: str, value: tuple[int, int] = (0, 0), restarts: bool = False) -> None:
        place = offset
        one(f"{name}_m", access, m, f"{doc}: the mantissa m of m * 2**e", value[0], restarts=restarts)
        at(place + 8)
        one(f"{name}_e", access, e, f"{doc}: the exponent e", value[1], signed=True, restarts=restarts)

    major, minor, patch = (int(part) for part in metadata.version("kappa-rtl").split(".")[:3])
    one("id", Access.CONSTANT, 32, "`KAPA` in ASCII: a throttle unit answers here", MAGIC)
    add(
        *("version", Access.CONSTANT),
        Field(name="patch", lsb=0, width=8, reset=patch),
        Field(name="minor", lsb=8, width=8, reset=minor),
        Field(name="major", lsb=16, width=8, reset=major),
        doc="of kappa-rtl",
    )
    one("elements", Access.CONSTANT, max(32, config.elements.bit_length()), "N, elements of a vector", config.elements)
    at(0x10)
    add(
        *("size", Access.CONSTANT),
        Field(name="lanes", lsb=0, width=8, reset=config.lanes, doc="L, elements of a beat"),
        Field(name="mantissa_bits", lsb=8, width=8, reset=m, doc="M"),
        Field(name="exponent_bits", lsb=16, width=8, reset=e, doc="E"),
        Field(name="step_bits", lsb=24, width=8, reset=config.step.width),
        doc="of the unit and of a scalar",
    )
    for name, fmt in zip(("gradient", "weight", "update", "step"), config.grids, strict=False):  # D is on the gradient's
        add(*(f"format_{name}", Access.CONSTANT), *_format(fmt), doc=f"the {name}'s grid, {fmt.name}")
    modes: list[Field] = []
    for name, fmt in (("update", config.grids.update), ("weight", config.grids.weight)):
        rounding = {mode.value: number for mode, number in ROUNDINGS.items()}
        overflow = {mode.value: number for mode, number in OVERFLOWS.items()}
        lsb = 4 * len(modes)
        modes += [
            Field(name=f"{name}_rounding", lsb=lsb, width=4, reset=ROUNDINGS[fmt.rounding], values=rounding),
            Field(name=f"{name}_overflow", lsb=lsb + 4, width=4, reset=OVERFLOWS[fmt.overflow], values=overflow),
        ]
    add("modes", Access.CONSTANT, *modes, doc="how the update and the weight grid round, and what is beyond their rails")
    one("dead_after", Access.CONSTANT, 32, "still steps in a row that raise learning_dead", config.dead_after)
    if config.stochastic:
        one("seed", Access.CONSTANT, 32, "of the random numbers of stochastic rounding", config.seed)
    at(0x30)
    assert isinstance(config.source, golden_config.Source)
    measures = "curvature" if config.source.is_curvature else config.source.value
    if config.intended:
        measures = "projection" if config.source.is_projection else "intended"
    if config.delay or config.residual_bits or config.stochastic or MEASURES[measures]:
        add(
            *("options", Access.CONSTANT),
            Field(name="delay", lsb=0, width=1, reset=config.delay, doc="a step applies the step size of the step before"),
            Field(name="residual_bits", lsb=4, width=4, reset=config.residual_bits, doc="kept of what rounding dropped"),
            Field(name="random_bits", lsb=8, width=5, reset=config.random_bits * config.stochastic, doc="of a random number"),
            Field(
                name="measures",
                lsb=16,
                width=3,
                reset=MEASURES[measures],
                values=MEASURES,
                doc="what the law sees: the curvature that control.source chooses, along the step that was applied or intended, "
                "or by projection; or always the norm or the ratio",
            ),
            doc="what the unit was built with",
        )
    at(0x38)
    if config.population is not None:
        one("population", Access.CONSTANT, max(32, config.population.bit_length()), "elements of all shards", config.population)

    words = control_words(config)
    flags = (*FLAGS, "memory_fault") if config.parity else FLAGS
    at(0x40)
    kept = "with what was written kept"
    if config.segments:
        kept += ", but for the layout, which is the configuration's with its `still_norm`"
    add(
        *("control", Access.RW),
        Field(name="run", lsb=0, restarts=True, doc="a new step's gradient is accepted; a step that has begun ends in any case"),
        Field(name="enabled", lsb=1, reset=words["control_enabled"], doc="0: alpha is computed and reported, but 1 is applied"),
        Field(name="ema_first", lsb=2, reset=words["control_ema_first"], doc="S starts at the first C, not at 0"),
        _choice("source", 8, Source, words["control_source"], "which curvature the law sees; 3 is reserved")
        if config.source.is_curvature
        else Field(name="source", lsb=8, width=2, doc=f"without effect: the law of this unit sees the {config.source.value}"),
        _choice("on_still", 16, OnStill, words["control_on_still"], f"what follows a step {_standing(config)}"),
        doc="all but `run` act from the next step on, `on_still` from the step after the next end of a step",
    )
    add(
        *("command", Access.W1S),
        Field(name="clear", doc="zero all counters, flags and the run of still steps; a step that is under way ends first"),
        Field(name="reset", lsb=1, doc=f"the unit of a first step, at once and whatever it is doing, {kept}"),
        *([Field(name="layout", lsb=2, doc="the entry in `layout` goes into the table")] if config.segments else []),
        doc="reads 1 until it was done; after `clear` the registers of the last step stay as they are",
    )
    add(
        *("status", Access.RO),
        Field(name="busy", lsb=0, doc="a step has begun and has not ended"),
        Field(name="still", lsb=1, doc="the last step was still: the one before it moved no weight"),
        Field(name="leaving", lsb=2, doc="what a `reset` left on an output stream has not been taken"),
        *(
            [Field(name="layout", lsb=3, doc="the table is written in part: no beat of a vector is taken, and no step begins")]
            if config.segments
            else []
        ),
        *(
            Field(name=name, lsb=FLAG_BITS[name], doc=f"{MEANINGS[name]}; sticky until cleared")
            for name in sorted(flags, key=FLAG_BITS.__getitem__)
        ),
        doc=f"all but `busy`{', `leaving` and `layout`' if config.segments else ' and `leaving`'} as the last step left them",
    )
    one(
        "steps", Access.RO, 32, "steps since reset, modulo 2**32; the same before and after: what was read between is of one step"
    )
    places = INTERRUPT_BITS if config.watchdog else INTERRUPT_BITS | {"memory_fault": INTERRUPT_BITS["watchdog"]}
    told = interrupts(config, frames)
    sources = tuple(Field(name=name, lsb=places[name], doc=told[name]) for name in sorted(told, key=places.__getitem__))
    add("irq_status", Access.W1C, *sources, doc="what happened, whether or not it interrupts")
    add("irq_enable", Access.RW, *sources, doc="`irq` is high while an event is up in both")

    if checks_blocks(config, frames):
        bits = MOST_BLOCKS.bit_length()
        one("blocks", Access.RW, bits, "energies in a list on `s_axis_blocks`, from the next list on; 0: any number, unchecked")

    if config.segments:
        at(TABLE_OFFSET)
        add(
            *("table", Access.CONSTANT),
            Field(name="entries", lsb=0, width=8, reset=config.entries, doc="segments that it holds at most"),
            Field(name="scale_max", lsb=8, width=8, reset=config.scale_max, doc="of a segment"),
            doc="of segments",
        )
        at(TABLE_OFFSET + 8)
        one("capacity", Access.CONSTANT, max(32, config.room.bit_length()), "elements of all segments at most", config.room)
        at(TABLE_OFFSET + 0x10)
        add(
            *("layout", Access.RW),
            Field(name="scale", lsb=0, width=SCALE_BITS, doc="bits by which its grids are finer"),
            Field(name="elements", lsb=SCALE_BITS, width=elements_bits(config), doc="0: not in use, as all behind it"),
            doc="an entry of the table, which `command.layout` puts behind those before it, right after a reset",
        )
        at(TABLE_OFFSET + 0x18)
        one("beats", Access.RO, config.words.bit_length(), "of a vector, as the table says", config.beats)

    # Room for the widest configuration, so that offsets are the same for all of them.
    for i, name in enumerate(CONSTANTS):
        at(0x80 + 0x10 * i)
        doc = "acts from the step after the next end of a step" if name == "eps" else "acts from the next step on"
        follows = bool(config.segments) and name == "still_norm"
        scalar(name, Access.RW, f"constant {name}, {doc}", config.constants[name], follows)

    for i, (name, width) in enumerate((("A", config.widths.gradient_energy), ("B", config.widths.motion_energy))):
        at(0x140 + 0x10 * i)
        one(name, Access.RO, width, f"{_meaning(config, name)}, on the grid 2**-{2 * config.energy_fractions[name]}")
    for i, name in enumerate(("norm_gradient", "norm_motion", "curvature", "ema", "alpha")):
        at(0x160 + 0x10 * i)
        scalar(name, Access.RO, name)
    at(0x1B0)
    one("step_size", Access.RO, config.step.width, f"alpha * eta as the lanes multiplied by it, {config.step.name}")
    for name in config.counters:
        if name not in COUNTER_OFFSETS:
            raise ValueError(f"counter {name} must have its place in COUNTER_OFFSETS of hw/bus/map.py, behind all others")
    counters = sorted((COUNTER_OFFSETS[name], name) for name in config.counters)

    def count(*, low: bool) -> None:
        for place, name in counters:
            if (place < WATCHDOG_OFFSET) is low:
                at(place)
                one(name, Access.RO, COUNTER_BITS, f"{MEANINGS[name]}; from reset or the last clear, modulo 2**32")

    count(low=True)
    if config.watchdog:
        at(WATCHDOG_OFFSET)
        add(
            *("watchdog_mask", Access.RW),
            *(Field(name=name, lsb=WATCH_BITS[name], reset=1, doc="whether it is looked at") for name in config.watchdog),
            doc="conditions of the watchdog, from the next step on",
        )
        add(
            *("watchdog", Access.RO),
            *(Field(name=name, lsb=WATCH_BITS[name], doc="sticky until cleared") for name in config.watchdog),
            doc="which conditions a step has met since reset or the last clear",
        )
        for name in config.watchdog:
            at(0x1E8 + 4 * WATCH_BITS[name])
            one(f"watchdog_step_{name}", Access.RO, COUNTER_BITS, "the step, from 0 at reset, that set this bit")
    count(low=False)
    at(DIGEST_OFFSET)
    doc = "of this map, its sizes and formats: a program that was made for another export sees here that it was"
    one("digest", Access.CONSTANT, 32, doc, digest(config, frames, RegisterMap(tuple(registers))))
    return RegisterMap(tuple(registers))


def digest(config: ThrottleConfig, frames: str, registers: RegisterMap) -> int:
    """32 bits of all that a program relies on: the configuration, how frames are treated, and of each register its place, access,
    fields and reset value.

    Left out are what is said of them, and the numbers of the version, which is compared for itself.
    """
    table = registers.table()
    for row in table:
        del row["doc"]
        for part in row["fields"]:
            del part["doc"]
            if row["name"] == "version":
                del part["reset"]
    about = json.dumps([config.to_table(), frames, table], sort_keys=True)
    return int(hashlib.sha256(about.encode()).hexdigest()[:8], 16)


def _standing(config: ThrottleConfig) -> str:
    """What ``on_still`` looks at."""
    return "whose motion was 0" if config.intended else "that moved no weight"


def meanings(config: ThrottleConfig) -> dict[str, str]:
    """What each register of a step's result says, counters and flags too, in a phrase."""
    scale = " times the step size that was applied" if config.intended else ""
    norms = {"norm_gradient": "the root of A", "norm_motion": f"the root of the B of the step before{scale}"}
    return {name: _meaning(config, name) for name in ("A", "B")} | norms | MEANINGS


def _meaning(config: ThrottleConfig, name: str) -> str:
    """Of which vector A or B is the energy."""
    source = golden_config.Source(config.source)
    if name == "B":
        weights = "weights" if source is golden_config.Source.RATIO else "weights' change"
        return f"the exact energy of the {'gradient that the step went along' if config.intended else weights}"
    if source.is_projection:
        return "the exact sum of P * (P - G), P the gradient before, or 0 where that is negative"
    gradient = "gradient's change" if source.is_curvature else "gradient"
    return f"the exact energy of the {gradient}"


def _format(fmt: Fixed) -> tuple[Field, Field]:
    return (
        Field(name="integer_bits", lsb=0, width=16, reset=fmt.integer_bits, signed=True, doc="with the sign, if there is one"),
        Field(name="fraction_bits", lsb=16, width=16, reset=fmt.fraction_bits, signed=True),
    )


def _choice(name: str, lsb: int, kind: type[enum.Enum], reset: int, doc: str) -> Field:
    return Field(name=name, lsb=lsb, width=2, reset=reset, doc=doc, values={x.name.lower(): x.value for x in kind})
