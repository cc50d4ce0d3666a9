"""A register map in SystemRDL 2.0, for the tools that read that: documents, register models for UVM, headers."""

from __future__ import annotations

from importlib import metadata

from .parts import parts
from .registers import WORD, Access, Field, Register, RegisterMap

__all__ = ["systemrdl"]

ACCESS = {
    Access.CONSTANT: ("sw = r", "hw = na"),
    Access.RO: ("sw = r", "hw = w"),
    Access.RW: ("sw = rw", "hw = r"),
    Access.W1C: ("sw = rw", "onwrite = woclr", "hw = r", "hwset", "precedence = hw"),
    Access.W1S: ("sw = rw", "onwrite = woset", "hw = r", "hwclr"),
}
"""What software and hardware do with a field. An event that comes while it is cleared stays: there hardware goes first."""


def systemrdl(registers: RegisterMap, name: str) -> str:
    """The map as one ``addrmap`` of the module's name; a register of several words is accessed in words of 32 bits.

    Its width is a power of two, as the language wants it: a register of three words has four here, and the last is empty.
    """
    lines = [
        f"// Registers of {name}: made by kappa-rtl {metadata.version('kappa-rtl')}; the page beside this file describes them.",
        f"// {name}_is_signed: the field is a number in two's complement.",
        "// Fields that end in _sign are copies of such a number's sign.",
        f"property {name}_is_signed {{ type = boolean; component = field; default = true; }};",
        "",
        f"addrmap {name} {{",
        f"  name = {_text(name)};",
    ]
    for register in registers:
        lines += _register(register, name)
    return "\n".join([*lines, "};", ""])


def _register(register: Register, module: str) -> list[str]:
    width = WORD << (register.words - 1).bit_length()
    enums = [line for field in register.fields if field.values for line in _enum(field)]
    lines = ["", "  reg {", f"    regwidth = {width};", f"    accesswidth = {WORD};"]
    lines += [f"    desc = {_text(register.doc)};"] if register.doc else []
    lines += [f"    {line}" for line in enums]
    for field, access in parts(register):
        said = [*ACCESS[access]]
        said += [f"desc = {_text(field.doc)}"] if field.doc else []
        said += [f"{module}_is_signed"] if field.signed else []
        said += [f"encode = {field.name}_values"] if field.values else []
        high = field.lsb + field.width - 1
        lines.append(f"    field {{ {'; '.join(said)}; }} {field.name}[{high}:{field.lsb}] = {field.width}'h{field.reset:x};")
    return [*lines, f"  }} {register.name} @ {register.offset:#05x};"]


def _enum(field: Field) -> list[str]:
    members = "".join(f" {name} = {field.width}'d{value};" for name, value in field.values.items())
    return [f"enum {field.name}_values {{{members} }};"]


def _text(words: str) -> str:
    return '"' + words.replace('"', r"\"") + '"'
