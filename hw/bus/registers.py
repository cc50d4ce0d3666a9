"""Registers on a bus: what a register and a map of them are. Decode, page, C header and driver are made of a map."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ADDRESS_BITS", "WORD", "Access", "Field", "Register", "RegisterMap", "field_bits"]

WORD = 32
"""Bits of a word of the bus."""

ADDRESS_BITS = 12
"""Bits of a byte address: the map's 4 KiB."""


class Access(enum.StrEnum):
    """What reads and writes do. A write of some bytes to a register that nobody can write is refused."""

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
    """Some bits of a register. A signed field is sign-extended on reading, up to the next field or the end of its word.

    A field of access ``rw`` that ``restarts`` is taken back to its reset value where the unit is restarted, as events and
    commands are.
    """

    name: str = "value"
    lsb: int = 0
    width: int = 1
    reset: int = 0
    signed: bool = False
    doc: str = ""
    values: Mapping[str, int] = field(default_factory=dict)
    restarts: bool = False


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

    @property
    def neighbours(self) -> tuple[int, ...]:
        """The words without a register whose aligned pair of words has one: their byte addresses over four."""
        taken = {r.offset // 4 + i for r in self for i in range(r.words)}
        return tuple(sorted({word ^ 1 for word in taken} - taken))

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
