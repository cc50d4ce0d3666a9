"""Which names a unit may have: words in every language that the name of the module gets into."""

from __future__ import annotations

import builtins
import keyword
import re
import sys

from .bus.text import class_name
from .verilog.names import RESERVED as VERILOG
from .vhdl import RESERVED as VHDL

__all__ = ["named"]

RDL = frozenset(
    """abstract accesstype addressingtype addrmap alias all bit boolean bothedge compact component componentwidth
    constraint default encode enum external false field fullalign hw inside internal level longint mem na
    negedge nonsticky number onreadtype onwritetype posedge property r rclr ref reg regalign regfile rset
    ruser rw rw1 signal string struct sw this true type unsigned w w1 wclr woclr woset wot wr wset wuser wzc
    wzs wzt""".split()  # noqa: SIM905  a list of words
)
LIBRARIES = {"ieee", "std", "std_logic", "std_logic_1164", "std_logic_vector", "std_ulogic", "work", "numpy", "none"}
"""Names that VHDL or the driver knows already."""

USED = {"Any", "Callable", "Fraction", "NamedTuple", "Register", "Vector", *dir(builtins)}
"""What the driver's class must not be called."""

LONGEST = 64


def named(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it is no word of letters, digits and single underscores, or means something in a language.
    """
    if not re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name) or len(name) > LONGEST:
        rule = f"a word of at most {LONGEST} letters, digits and single underscores between them"
        raise ValueError(f"name must be {rule}, not {name!r}")
    words = VERILOG | VHDL | RDL | LIBRARIES | set(keyword.kwlist) | {word.lower() for word in sys.stdlib_module_names}
    if name.lower() in words or class_name(name) in USED:
        raise ValueError(f"name must be no word of Verilog, SystemVerilog, VHDL, SystemRDL, C or Python, not {name!r}")
    return name
