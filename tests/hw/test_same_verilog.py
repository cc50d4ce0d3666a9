"""The exported Verilog is the same to the byte, unit by unit, unless someone says that it is to change.

``exported.json`` holds configurations, with how each is exported, and the SHA-256 of the text. The text is what it is for the
versions of the tools that stand there, those of requirements.lock: with others these tests are skipped, and say so.

After a change that is meant, and with new tools or a new version of kappa-rtl, which stands in the text::

    .venv/bin/python tests/hw/test_same_verilog.py

exports all of them anew (some minutes), names those that changed, and writes the file. A further unit is a further entry in it,
without its digest.
"""

from __future__ import annotations

import hashlib
import json
import platform
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from amaranth.hdl import UnusedElaboratable

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.files import write_atomically
from kappa_rtl.hw.export import export

FILE = Path(__file__).with_name("exported.json")
RENEW = ".venv/bin/python tests/hw/test_same_verilog.py"
RECORDED: dict[str, Any] = json.loads(FILE.read_text())
UNITS: dict[str, dict[str, Any]] = RECORDED["units"]
QUICK = ("smallest, on AXI", "smallest, one pass", "one element of one")


def tools() -> dict[str, str]:
    """What the text depends on: names of wires come from Python's bytecode, expressions and their order from Amaranth."""
    major, minor, _ = platform.python_version_tuple()
    return {"python": f"{major}.{minor}"} | {name: metadata.version(name) for name in ("amaranth",)}


def digest(unit: dict[str, Any]) -> str:
    """The SHA-256 of a unit's Verilog."""
    return hashlib.sha256(export(ThrottleConfig.from_table(unit["table"]), **unit["options"])[0].encode()).hexdigest()


@pytest.mark.skipif(RECORDED["tools"] != tools(), reason=f"the digests are of {RECORDED['tools']}, not of {tools()}: {RENEW}")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow]) for name in UNITS])
def test_same_verilog(name: str) -> None:
    assert digest(UNITS[name]) == UNITS[name]["sha256"], f"the Verilog of {name!r} changed; if that is meant: {RENEW}"


def test_every_kind_of_unit_is_there() -> None:
    """Both buses, all variants, every law's hardware, and each option."""
    kinds = {(unit["options"].get("variant", "memory"), unit["options"].get("bus", "")) for unit in UNITS.values()}
    assert kinds == {("memory", ""), ("memory", "axi"), ("streaming", ""), ("engine", "")}
    assert set(QUICK) < set(UNITS)
    laws = {unit["table"].get("law") for unit in UNITS.values()}
    assert laws >= {"stability_margin", "inverse_curvature", "adgd", "clip_norm", "trust_ratio"}
    for option in ("delay", "residual_bits", "every_rail", "parity", "watchdog", "population", "gradient_grid", "direction_grid"):
        assert any(unit["table"].get(option) for unit in UNITS.values()), option
    assert {unit["table"].get("motion") for unit in UNITS.values()} == {None, "applied", "intended"}
    assert any(unit["table"].get("source") == "projection" for unit in UNITS.values())


def renew() -> None:
    """Write the file for the Verilog as it is now."""
    from tqdm import tqdm

    warnings.simplefilter("ignore", UnusedElaboratable)
    changed = []
    for name, unit in (bar := tqdm(UNITS.items(), unit="unit")):
        bar.set_description(name)
        if unit.get("sha256") != (found := digest(unit)):
            changed.append(name)
        unit["sha256"] = found
    write_atomically(FILE, json.dumps({"tools": tools(), "units": UNITS}, indent=1) + "\n")
    print("changed: " + ("; ".join(changed) or "nothing"))


if __name__ == "__main__":
    renew()
