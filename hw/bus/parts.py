"""The bits of a register as other people's tools count them: fields, and what reads as copies of a sign."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from .registers import Access, Field, Register

__all__ = ["parts"]


def parts(register: Register) -> Iterator[tuple[Field, Access]]:
    """Every field with its access, reset values as the unsigned words that they read as.

    Behind a signed field that is extended stands ``NAME_sign``: a tool that compares whole words knows those bits too.
    """
    for field in register.fields:
        yield replace(field, reset=field.reset % (1 << field.width)), register.access
        copies = register.extent(field) - field.width
        if copies:
            yield (
                Field(
                    name=f"{field.name}_sign",
                    lsb=field.lsb + field.width,
                    width=copies,
                    reset=(1 << copies) - 1 if field.reset < 0 else 0,
                    doc=f"copies of the sign of {field.name}",
                ),
                Access.CONSTANT if register.access is Access.CONSTANT else Access.RO,
            )
