"""What is written of a register map for those who use it: a page, a C header, and a driver in Python."""

from __future__ import annotations

from fractions import Fraction
from importlib import metadata
from pathlib import Path

from ...golden.config import ThrottleConfig
from ...golden.registers import CONSTANTS, FLAGS, counters
from .registers import ADDRESS_BITS, WORD, RegisterMap
from .vectors import vectors

__all__ = ["RULES", "c_header", "markdown", "python_driver"]

DRIVER = Path(__file__).with_name("driver.py.txt")
"""The driver, but for what comes from the map."""

RULES = """\
A word is 32 bits; a register of more takes several words, the lowest first. Addresses are of bytes, and their two low bits
are ignored. Writes honour the byte strobes. Bits that are in no field read zero and ignore what is written. A write to a
register of access `constant` or `ro` answers SLVERR and changes nothing, but OKAY if it strobes no byte. A word without a
register reads zero and takes writes without effect, with OKAY, if the other word of its aligned pair has one, and answers
DECERR if not. Offsets are the same for every configuration; in the words that a narrow one leaves free is no register.

| access | |
|---|---|
| `constant` | always its reset value |
| `ro` | the unit's |
| `rw` | reads as it was written; a signed field is sign-extended |
| `w1c` | an event: the unit sets it, writing one clears it; if both happen at once it stays set |
| `w1s` | a command: writing one asks for it, it reads one until it was done |

The registers from `A` on, and `status` but for `busy`, `leaving` and `layout`, are those of the last step that ended, all at
once; a clear leaves them as they are, and a reset takes them back to zero.
"""


def markdown(registers: RegisterMap, name: str) -> str:
    """The page of a map."""
    lines = [f"# Registers of `{name}`", "", RULES]
    lines += ["| offset | register | bits | field | access | reset | |", "|---|---|---|---|---|---|---|"]
    for r in registers:
        for i, f in enumerate(r.fields):
            values = "; ".join(f"{value} {key}" for key, value in f.values.items())
            doc = ": ".join(text for text in (("" if i else r.doc) if r.plain else f.doc, values) if text).replace("|", r"\|")
            label = f"`{r.name}`" if i == 0 else ""
            where = f"{r.offset:#05x}" if i == 0 else ""
            bits = f"{f.lsb + f.width - 1}:{f.lsb}" if f.width > 1 else str(f.lsb)
            if i == 0 and not r.plain:
                lines.append(f"| {where} | {label} | | | {r.access} | {r.reset:#x} | {r.doc} |")
                label = where = ""
            field_name = "" if r.plain else f"`{f.name}`"
            lines.append(f"| {where} | {label} | {bits} | {field_name} | {r.access} | {f.reset} | {doc} |")
    return "\n".join(lines) + "\n"


PROGRAM = """\
What a program has to do:

- First see that this header is of the unit that answers: {check} must give -1. Errors of the bus are no sign, since many
  processors, bridges and DMAs drop them: what matters is read back.
- Hold each vector as an array of {prefix}_GRADIENT_TYPE and so on, of _LENGTH elements: a vector goes in whole beats, and the
  elements beyond {prefix}_ELEMENTS_RESET fill the last one. They are ignored on the way in and zero on the way out.
{segments}- Move _BYTES bytes, no more and no less, in the order in which they lie. TLAST belongs on the last beat.
- Arm the receiver of the updated weights before the weights are sent, in each step anew: they leave while the weights come in.
- Where memory is cached: write the cache lines of gradient and weights back before they are sent; drop those of the updated
  weights before the receiver is armed, and again before they are read. Let no other variable share their lines.
- After a DMA was stopped in the midst of a frame: stop the other senders too, and write {prefix}_COMMAND_RESET_MASK to the
  register command. If {prefix}_STATUS_LEAVING_MASK is then up in status, and the receiver was stopped as well, let it take a
  frame, of any length, and drop it. Then set run in control again, and send gradient and weights anew, as for a first step.\
"""
"""The comment that begins a header."""

SEGMENTED = """\
- Each segment begins on a beat of its own, and zeros fill its last one: _LENGTH, _BYTES and _BEATS are of {prefix}_SEGMENTS,
  elements and scale of each, which the unit has after a reset.
- For other segments: stop the senders, and write {prefix}_COMMAND_RESET_MASK to command. Then, for each of
  {prefix}_TABLE_ENTRIES_RESET entries, those not in use with no elements: write it to the register layout, then
  {prefix}_COMMAND_LAYOUT_MASK to command, and read that until the bit is 0.{still}
  See that {prefix}_IRQ_STATUS_LAYOUT_MASK is down in irq_status, and {prefix}_STATUS_LAYOUT_MASK in status; the register beats
  then has the beats of a vector.
"""
"""What it says to a program of a unit with segments."""

STILL = " Write still_norm_m and still_norm_e, the root\n  of the sum of N_k * (half an ulp of segment k)**2."
"""And of one that is no shard, whose constant is of all shards."""


def c_header(config: ThrottleConfig, registers: RegisterMap, name: str) -> str:
    """The unit for a program in C99 or C++11: all names begin with the module's, macros in capitals.

    Of each vector its beats and bytes, of each register offset and words, of each field lowest bit, width, mask and reset
    value; and a function that compares what answers with what this header was made for.
    """
    prefix, check = name.upper(), f"{name.lower()}_check"
    guard = f"{prefix}_REGISTERS_H"
    version = metadata.version("kappa-rtl")
    lines = [f"/* Registers of {name}: made by kappa-rtl {version}; the page beside this file describes them.", ""]
    still = STILL if config.population is None else ""
    segments = SEGMENTED.format(prefix=prefix, still=still) if config.segments else ""
    lines += [*PROGRAM.format(prefix=prefix, check=check, segments=segments).splitlines(), "*/"]
    lines += [f"#ifndef {guard}", f"#define {guard}", "", "#include <stdint.h>"]

    def define(macro: str, value: str) -> None:
        lines.append(f"#define {prefix}_{macro.upper()} {value}")

    for vector, about in vectors(config).items():
        lines += ["", f"/* {about.port}: elements on the grid {about.grid.name}, beats of {about.lanes} of them */"]
        define(f"{vector}_type", f"int{about.field_bits}_t")
        numbers = {"length": about.length, "bytes": about.bytes, "beats": about.beats, "lanes": about.lanes}
        for macro, number in (numbers | {"field_bits": about.field_bits, "element_bits": about.grid.width}).items():
            define(f"{vector}_{macro}", f"{number}u")
    if config.segments:
        lines += ["", "/* elements and scale of each segment, to initialise an array of such pairs */"]
        define("segments", "{" + ", ".join(f"{{{one.elements}u, {one.scale}u}}" for one in config.segments) + "}")
    lines.append("")
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
    lines += [
        "",
        "/* C99 or C++. -1 if this header was made for the unit at this address, else the offset of a register that differs. */",
        f"static inline int32_t {check}(const volatile uint32_t *registers) {{",
        "  static const uint32_t expected[][3] = {  /* offset, mask, value */",
        *(f"    {{{offset:#05x}u, {mask:#010x}u, {value:#010x}u}}," for offset, mask, value in expected_words(registers)),
        "  };",
        "  for (unsigned i = 0; i < sizeof expected / sizeof expected[0]; i++)",
        "    if ((registers[expected[i][0] / 4u] & expected[i][1]) != expected[i][2]) return (int32_t) expected[i][0];",
        "  return -1;",
        "}",
    ]
    return "\n".join([*lines, "", "#endif", ""])


def expected(registers: RegisterMap) -> dict[str, dict[str, int]]:
    """What tells this unit from others: of these registers, the fields and what they read."""
    told = ("id", "version", "elements", "size", *(r.name for r in registers if r.name.startswith("format_")), "digest")
    return {name: {f.name: f.reset for f in registers[name].fields if name != "version" or f.name == "major"} for name in told}


def expected_words(registers: RegisterMap) -> list[tuple[int, int, int]]:
    """The same as words: of each its offset, which bits of it, and what they read."""
    found = []
    for name, fields in expected(registers).items():
        register = registers[name]
        mask = sum(((1 << f.width) - 1) << f.lsb for f in register.fields if f.name in fields)
        for i in range(register.words):
            part = mask >> WORD * i & (1 << WORD) - 1
            found.append((register.offset + 4 * i, part, register.reset >> WORD * i & part))
    return found


def rated(config: ThrottleConfig) -> dict[str, tuple[Fraction, int]]:
    """The constants that follow the learning rate: each is a number times a power of eta."""
    rate = config.at_rate(config.eta)["eta"]
    assert rate is not None
    found = {}
    for name, half in config.at_rate(rate / 2).items():
        value = getattr(config, name)
        if half is not None and half != value:
            power = 1 if half < value else -1
            found[name] = (value / rate**power, power)
    return found


def class_name(name: str) -> str:
    """The driver's class: the module's name in camel case, ``ThrottleAxi`` for ``throttle_axi``."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def python_driver(config: ThrottleConfig, registers: RegisterMap, name: str) -> str:
    """A module of the standard library: a class that reads and writes the registers through two functions of the user's.

    Its methods for vectors import numpy.
    """
    rows = []
    for r in registers:
        fields = ", ".join(f'"{f.name}": ({f.lsb}, {f.width}, {f.signed})' for f in r.fields)
        rows.append(f'    "{r.name}": Register({r.offset:#05x}, {r.words}, "{r.access}", {{{fields}}}),')
    values = [
        f'    "{f.name}": {{' + ", ".join(f'"{key}": {value}' for key, value in f.values.items()) + "},"
        for f in registers["control"].fields
        if f.values
    ]
    expects = [
        f'    "{register}": {{' + ", ".join(f'"{field}": {value:#x}' for field, value in fields.items()) + "},"
        for register, fields in expected(registers).items()
    ]
    holds = [
        f'    "{vector}": Vector({v.grid.width}, {v.grid.fraction_bits}, "int{v.field_bits}"),'
        for vector, v in vectors(config).items()
    ]
    segments = [f"    ({one.elements}, {one.scale}),  # {one.name!r}" for one in config.segments]
    table = (config.entries, config.scale_max, config.room) if config.segments else (0, 0, config.elements)
    names = [r.name for r in registers]
    text = DRIVER.read_text()
    for mark, body in {
        "NAME": name,
        "VERSION": metadata.version("kappa-rtl"),
        "CLASS": class_name(name),
        "EXPECTED": "\n".join(expects),
        "VECTORS": "\n".join(holds),
        "REGISTERS": "\n".join(rows),
        "CHOICES": "\n".join(values),
        "LANES": str(config.lanes),
        "TABLE": ", ".join(map(str, table)),
        "ETA_MAX": f'"{config.eta_max}"',
        "RATED": ", ".join(f'"{name}": ("{of}", {power})' for name, (of, power) in rated(config).items()),
        "CONSTANTS": repr(CONSTANTS).replace("'", '"'),
        "COUNTERS": repr(tuple(n for n in counters(every_rail=True) if n in names)).replace("'", '"'),
        "WATCHDOG": repr(tuple(n for n in names if n == "watchdog" or n.startswith("watchdog_step"))).replace("'", '"'),
        "FLAGS": repr(FLAGS).replace("'", '"'),
        "SEGMENTS": "\n".join(segments or [f"    ({config.elements}, 0),"]),  # last, as names are the user's
    }.items():
        text = text.replace(f"@{mark}@", body)
    return text
