"""The unit's registers on a bus: one description, from which the decode, the page, the C header and the driver are made."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from kappa_rtl.golden.config import CONSTANTS, COUNTER_BITS, COUNTERS, FLAGS, RAIL_COUNTERS, WATCHES, ThrottleConfig
from kappa_rtl.golden.formats import Fixed, Overflow, Rounding

from .clamp import Source
from .decide import OnStill, control_words

__all__ = ["Access", "Field", "Register", "RegisterMap", "c_header", "field_bits", "markdown", "python_driver", "throttle_map"]

WORD = 32
"""Bits of a word of the bus."""

ADDRESS_BITS = 12
"""Of a byte address: the map's 4 KiB."""

MAGIC = int.from_bytes(b"KAPA", "big")

DRIVER = Path(__file__).with_name("driver.py.txt")


class Access(enum.StrEnum):
    """What reads and writes do. A write to a register that nobody can write is refused."""

    CONSTANT = "constant"  #: always its reset value; a write is refused
    RO = "ro"  #: the unit's; a write is refused
    RW = "rw"  #: reads as it was written
    W1C = "w1c"  #: an event: the unit sets it, writing one clears it; if both at once, it stays set
    W1S = "w1s"  #: a command: writing one asks for it, it reads one until it was done

    @property
    def writable(self) -> bool:
        return self not in (Access.CONSTANT, Access.RO)


@dataclass(frozen=True, kw_only=True)
class Field:
    """Some bits of a register. A signed field is sign-extended on reading, up to the next field or the end of its word."""

    name: str = "value"
    lsb: int = 0
    width: int = 1
    reset: int = 0
    signed: bool = False
    doc: str = ""
    values: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register: so many words of the bus as its fields need, the low word at ``offset``."""

    name: str
    offset: int
    access: Access
    fields: tuple[Field, ...]
    doc: str = ""

    @property
    def words(self) -> int:
        return -(-max(f.lsb + f.width for f in self.fields) // WORD)

    @property
    def reset(self) -> int:
        """The whole register after reset, as read."""
        return sum((f.reset % (1 << self.extent(f))) << f.lsb for f in self.fields)

    @property
    def plain(self) -> bool:
        """One field is the whole register."""
        return len(self.fields) == 1 and self.fields[0].name == "value"

    def extent(self, part: Field) -> int:
        """Bits that a field takes on reading: a signed one is extended to where the next begins."""
        if not part.signed:
            return part.width
        return min([f.lsb for f in self.fields if f.lsb > part.lsb] + [WORD * self.words]) - part.lsb


@dataclass(frozen=True)
class RegisterMap:
    """Registers in the order of their offsets.

    Raises:
        ValueError: two of them, or two fields of one, overlap or have one name, or one does not fit into the address space.
    """

    registers: tuple[Register, ...]

    def __post_init__(self) -> None:
        end, names = 0, set()
        for register in self.registers:
            if register.offset % 4 or register.offset < end or register.name in names:
                raise ValueError(f"register {register.name} must have its own name and words, not those at {register.offset:#x}")
            names.add(register.name)
            end, low = register.offset + 4 * register.words, 0
            for part in register.fields:
                if part.lsb < low:
                    raise ValueError(f"field {register.name}.{part.name} must begin at bit {low} or later, not {part.lsb}")
                low = part.lsb + part.width
        if end > 1 << ADDRESS_BITS:
            raise ValueError(f"the registers must fit into {1 << ADDRESS_BITS} bytes, not {end}")

    def __iter__(self) -> Iterator[Register]:
        return iter(self.registers)

    def __getitem__(self, name: str) -> Register:
        return next(register for register in self.registers if register.name == name)

    def table(self) -> list[dict[str, Any]]:
        """The map as plain data, for the manifest."""
        return [
            {"name": r.name, "offset": r.offset, "words": r.words, "access": str(r.access), "doc": r.doc}
            | {
                "fields": [
                    {"name": f.name, "lsb": f.lsb, "width": f.width, "reset": f.reset, "signed": f.signed, "doc": f.doc}
                    | ({"values": dict(f.values)} if f.values else {})
                    for f in r.fields
                ]
            }
            for r in self
        ]


def field_bits(width: int) -> int:
    """Bits of the byte-aligned field that holds an element on an AXI4-Stream: 8, 16 or 32."""
    return next(bits for bits in (8, 16, 32) if width <= bits)


# ------------------------------------------------------------------------------------------------ the unit's map


INTERRUPTS = {
    "done": "a step ended: its registers are here and its weights have left",
    "learning_dead": "a step ended with this flag up",
    "scalar_overflow": "a step ended with this flag up",
    "scalar_underflow": "a step ended with this flag up",
    "gradient_frame": "TLAST of the gradient was not on the last beat, and only there",
    "weights_frame": "TLAST of the weights was not on the last beat, and only there",
}
"""The sources of the interrupt that every unit has, from bit 0 on."""


def interrupts(config: ThrottleConfig) -> dict[str, str]:
    """The sources of a unit's interrupt, from bit 0 on."""
    watchdog = {"watchdog": "a step ended with a bit of the watchdog up"} if config.watchdog else {}
    return INTERRUPTS | watchdog | ({"memory_fault": "a step ended with this flag up"} if config.parity else {})


def throttle_map(config: ThrottleConfig) -> RegisterMap:
    """The registers of :class:`~kappa_rtl.hw.axi.AxiThrottle` for a configuration, whose constants are their reset values."""
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

    def one(name: str, access: Access, width: int, doc: str, reset: int = 0, signed: bool = False) -> None:
        add(name, access, Field(width=width, reset=reset, signed=signed), doc=doc)

    def scalar(name: str, access: Access, doc: str, value: tuple[int, int] = (0, 0)) -> None:
        place = offset
        one(f"{name}_m", access, m, f"{doc}: the mantissa m of m * 2**e", value[0])
        at(place + 8)
        one(f"{name}_e", access, e, f"{doc}: the exponent e", value[1], signed=True)

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
    for name, fmt in config.grids._asdict().items():
        add(*(f"format_{name}", Access.CONSTANT), *_format(fmt), doc=f"the {name}'s grid, {fmt.name}")
    modes: list[Field] = []
    for name, fmt in (("update", config.grids.update), ("weight", config.grids.weight)):
        rounding = {mode.value: i for i, mode in enumerate(Rounding)}
        overflow = {mode.value: i for i, mode in enumerate(Overflow)}
        lsb = 8 * len(modes) // 2
        modes += [
            Field(name=f"{name}_rounding", lsb=lsb, width=4, reset=rounding[fmt.rounding.value], values=rounding),
            Field(name=f"{name}_overflow", lsb=lsb + 4, width=4, reset=overflow[fmt.overflow.value], values=overflow),
        ]
    add("modes", Access.CONSTANT, *modes, doc="how the update and the weight grid round, and what is beyond their rails")
    one("dead_after", Access.CONSTANT, 32, "still steps in a row that raise learning_dead", config.dead_after)
    if config.stochastic:
        one("seed", Access.CONSTANT, 32, "of the random numbers of stochastic rounding", config.seed)
    at(0x30)
    if config.delay or config.residual_bits or config.stochastic:
        add(
            *("options", Access.CONSTANT),
            Field(name="delay", lsb=0, width=1, reset=config.delay, doc="a step applies the step size of the step before"),
            Field(name="residual_bits", lsb=4, width=4, reset=config.residual_bits, doc="kept of what rounding dropped"),
            Field(name="random_bits", lsb=8, width=5, reset=config.random_bits * config.stochastic, doc="of a random number"),
            doc="what the unit was built with",
        )
    at(0x38)
    if config.population is not None:
        one("population", Access.CONSTANT, max(32, config.population.bit_length()), "elements of all shards", config.population)

    words = control_words(config)
    at(0x40)
    add(
        *("control", Access.RW),
        Field(name="run", lsb=0, doc="a new step's gradient is accepted; a step that has begun ends in any case"),
        Field(name="enabled", lsb=1, reset=words["control__enabled"], doc="0: alpha is computed and reported, but 1 is applied"),
        Field(name="ema_first", lsb=2, reset=words["control__ema_first"], doc="S starts at the first C, not at 0"),
        _choice("source", 8, Source, words["control__source"], "which curvature the law sees; 3 is reserved"),
        _choice("on_still", 16, OnStill, words["control__on_still"], "what follows a step that moved no weight; 3 is reserved"),
        doc="all but `run` act from the next step on, `on_still` from the step after the next end of a step",
    )
    add(
        *("command", Access.W1S),
        Field(name="clear", doc="zero all counters, flags and the run of still steps; a step that is under way ends first"),
        doc="reads 1 until it was done; the registers of the last step stay as they are",
    )
    add(
        *("status", Access.RO),
        Field(name="busy", lsb=0, doc="a step has begun and has not ended"),
        Field(name="still", lsb=1, doc="the last step was still: the one before it moved no weight"),
        *(Field(name=name, lsb=8 + i, doc="sticky until cleared") for i, name in enumerate(FLAGS)),
        *([Field(name="memory_fault", lsb=11, doc="a parity bit was wrong; sticky until cleared")] if config.parity else []),
        doc="all but `busy` as the last step left them",
    )
    one(
        "steps", Access.RO, 32, "steps since reset, modulo 2**32; the same before and after: what was read between is of one step"
    )
    sources = tuple(Field(name=name, lsb=i, doc=doc) for i, (name, doc) in enumerate(interrupts(config).items()))
    add("irq_status", Access.W1C, *sources, doc="what happened, whether or not it interrupts")
    add("irq_enable", Access.RW, *sources, doc="`irq` is high while an event is up in both")

    # Room for the widest configuration, so that offsets are the same for all of them.
    for i, name in enumerate(CONSTANTS):
        at(0x80 + 0x10 * i)
        doc = "acts from the step after the next end of a step" if name == "eps" else "acts from the next step on"
        scalar(name, Access.RW, f"constant {name}, {doc}", config.constants[name])

    for i, (name, width) in enumerate((("A", config.widths.gradient_energy), ("B", config.widths.motion_energy))):
        at(0x140 + 0x10 * i)
        which = "gradient's" if name == "A" else "weights'"
        one(name, Access.RO, width, f"the exact energy of the {which} change, on the grid 2**-{2 * _grid(config, name)}")
    for i, name in enumerate(("norm_gradient", "norm_motion", "curvature", "ema", "alpha")):
        at(0x160 + 0x10 * i)
        scalar(name, Access.RO, name)
    at(0x1B0)
    one("step_size", Access.RO, config.step.width, f"alpha * eta as the lanes multiplied by it, {config.step.name}")
    for name in config.counters:
        one(name, Access.RO, COUNTER_BITS, "counts from reset or the last clear, modulo 2**32")

    if config.watchdog:
        at(0x1E0)
        bits = [(name, WATCHES.index(name)) for name in config.watchdog]
        add(
            *("watchdog_mask", Access.RW),
            *(Field(name=name, lsb=bit, reset=1, doc="whether it is looked at") for name, bit in bits),
            doc="conditions of the watchdog, from the next step on",
        )
        add(
            *("watchdog", Access.RO),
            *(Field(name=name, lsb=bit, doc="sticky until cleared") for name, bit in bits),
            doc="which conditions a step has met since reset or the last clear",
        )
        for name, bit in bits:
            at(0x1E8 + 4 * bit)
            one(f"watchdog_step_{name}", Access.RO, COUNTER_BITS, "the step, from 0 at reset, that set this bit")
    return RegisterMap(tuple(registers))


def _grid(config: ThrottleConfig, name: str) -> int:
    return (config.grids.gradient if name == "A" else config.grids.weight).fraction_bits


def _format(fmt: Fixed) -> tuple[Field, Field]:
    return (
        Field(name="integer_bits", lsb=0, width=16, reset=fmt.integer_bits, signed=True, doc="with the sign, if there is one"),
        Field(name="fraction_bits", lsb=16, width=16, reset=fmt.fraction_bits, signed=True),
    )


def _choice(name: str, lsb: int, kind: type[enum.Enum], reset: int, doc: str) -> Field:
    return Field(name=name, lsb=lsb, width=2, reset=reset, doc=doc, values={x.name.lower(): x.value for x in kind})


# ------------------------------------------------------------------------------------------------ what is made of it


RULES = """\
A word is 32 bits; a register of more takes several words, the lowest first. Addresses are of bytes, and their two low bits
are ignored. Writes honour the byte strobes. Bits that are in no field read zero and ignore what is written. A write to a
register of access `constant` or `ro` answers SLVERR and changes nothing. An address without a register answers DECERR, read
or written. Offsets are the same for every configuration; in the words that a narrow one leaves free is no register.

| access | |
|---|---|
| `constant` | always its reset value |
| `ro` | the unit's |
| `rw` | reads as it was written; a signed field is sign-extended |
| `w1c` | an event: the unit sets it, writing one clears it; if both happen at once it stays set |
| `w1s` | a command: writing one asks for it, it reads one until it was done |

The registers from `A` on, and `status` but for `busy`, are those of the last step that ended, all at once; a clear leaves
them as they are.
"""


def markdown(registers: RegisterMap, name: str) -> str:
    """The page of a map."""
    lines = [f"# Registers of `{name}`", "", RULES]
    lines += ["| offset | register | bits | field | access | reset | |", "|---|---|---|---|---|---|---|"]
    for r in registers:
        for i, f in enumerate(r.fields):
            values = "; ".join(f"{value} {key}" for key, value in f.values.items())
            doc = ": ".join(text for text in (("" if i else r.doc) if r.plain else f.doc, values) if text)
            label = f"`{r.name}`" if i == 0 else ""
            where = f"{r.offset:#05x}" if i == 0 else ""
            bits = f"{f.lsb + f.width - 1}:{f.lsb}" if f.width > 1 else str(f.lsb)
            if i == 0 and not r.plain:
                lines.append(f"| {where} | {label} | | | {r.access} | {r.reset:#x} | {r.doc} |")
                label = where = ""
            field_name = "" if r.plain else f"`{f.name}`"
            lines.append(f"| {where} | {label} | {bits} | {field_name} | {r.access} | {f.reset} | {doc} |")
    return "\n".join(lines) + "\n"


def c_header(registers: RegisterMap, name: str) -> str:
    """Offsets, words, and each field's lowest bit, width, mask and reset value, as macros that begin with the module's name."""
    prefix = name.upper()
    guard = f"{prefix}_REGISTERS_H"
    version = metadata.version("kappa-rtl")
    lines = [f"/* Registers of {name}: made by kappa-rtl {version}; the page beside this file describes them. */"]
    lines += [f"#ifndef {guard}", f"#define {guard}", ""]

    def define(macro: str, value: str) -> None:
        lines.append(f"#define {prefix}_{macro.upper()} {value}")

    define("span", f"{1 << ADDRESS_BITS:#x}u /* bytes of the address space */")
    for r in registers:
        lines.append("")
        if r.doc:
            lines.append(f"/* {r.name} ({r.access}): {r.doc} */")
        define(f"{r.name}_offset", f"{r.offset:#05x}u")
        define(f"{r.name}_words", f"{r.words}u")
        for f in r.fields:
            stem = r.name if r.plain else f"{r.name}_{f.name}"
            suffix = "u" if f.lsb + f.width <= WORD else "ull"
            if f.lsb + f.width <= 2 * WORD:
                define(f"{stem}_lsb", f"{f.lsb}u")
                define(f"{stem}_mask", f"{((1 << f.width) - 1) << f.lsb:#x}{suffix}")
                define(f"{stem}_reset", f"({f.reset})" if f.reset < 0 else f"{f.reset:#x}{suffix}")
            define(f"{stem}_width", f"{f.width}u")
            for key, value in f.values.items():
                define(f"{stem}_{key}", f"{value}u")
    return "\n".join([*lines, "", "#endif", ""])


def python_driver(registers: RegisterMap, name: str) -> str:
    """A module of the standard library alone: a class that reads and writes the registers through two functions of the user's."""
    rows = []
    for r in registers:
        fields = ", ".join(f'"{f.name}": ({f.lsb}, {f.width}, {f.signed})' for f in r.fields)
        rows.append(f'    "{r.name}": Register({r.offset:#05x}, {r.words}, "{r.access}", {{{fields}}}),')
    values = [
        f'    "{f.name}": {{' + ", ".join(f'"{key}": {value}' for key, value in f.values.items()) + "},"
        for f in registers["control"].fields
        if f.values
    ]
    reset = registers["id"].reset
    names = [r.name for r in registers]
    text = DRIVER.read_text()
    for mark, body in {
        "NAME": name,
        "VERSION": metadata.version("kappa-rtl"),
        "MAGIC": f"{reset:#x}",
        "REGISTERS": "\n".join(rows),
        "CHOICES": "\n".join(values),
        "CONSTANTS": repr(CONSTANTS).replace("'", '"'),
        "COUNTERS": repr(tuple(n for n in (*COUNTERS, *RAIL_COUNTERS) if n in names)).replace("'", '"'),
        "WATCHDOG": repr(tuple(n for n in names if n == "watchdog" or n.startswith("watchdog_step"))).replace("'", '"'),
        "FLAGS": repr(FLAGS).replace("'", '"'),
    }.items():
        text = text.replace(f"@{mark}@", body)
    return text
