"""The unit as a VHDL component, for designs in that language that instantiate the exported Verilog."""

from __future__ import annotations

import re
from importlib import metadata
from typing import Any

__all__ = ["vhdl_package"]

WORDS = """
abs access after alias all and architecture array assert attribute begin block body buffer bus case component
configuration constant disconnect downto else elsif end entity exit file for function generate generic group guarded if
impure in inertial inout is label library linkage literal loop map mod nand new next nor not null of on open or others
out package port postponed procedure process pure range record register reject rem report return rol ror select severity
shared signal sla sll sra srl subtype then to transport type unaffected units until use variable wait when while with
xnor xor assume assume_guarantee context cover default fairness force parameter property protected release restrict
restrict_guarantee sequence strong vmode vprop vunit view private
"""
RESERVED = frozenset(WORDS.split())
"""Words of VHDL, up to its edition of 2019."""


def vhdl_package(manifest: dict[str, Any]) -> str:
    """A package ``NAME_component`` with the component declaration of the module that a manifest describes."""
    name = manifest["module"]
    ports = [
        f"      {identifier(port['name'])} : {port['direction'].removesuffix('put')} {subtype(port['width'])}"
        for port in manifest["ports"]
    ]
    package = identifier(f"{name}_component")
    return "\n".join(
        [
            f"-- Made by kappa-rtl {metadata.version('kappa-rtl')}; the manifest beside this file says what every port means.",
            "library ieee;",
            "use ieee.std_logic_1164.all;",
            "",
            f"package {package} is",
            f"  component {identifier(name)} is",
            "    port (",
            ";\n".join(ports),
            "    );",
            "  end component;",
            f"end package {package};",
            "",
        ]
    )


def subtype(width: int) -> str:
    return "std_logic" if width == 1 else f"std_logic_vector({width - 1} downto 0)"


def identifier(name: str) -> str:
    """A name as VHDL writes it: as it is or, where that is no plain identifier, as an extended one."""
    plain = re.fullmatch(r"[A-Za-z](_?[A-Za-z0-9])*", name) and name.lower() not in RESERVED
    return name if plain else f"\\{name}\\"
