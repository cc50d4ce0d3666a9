"""No block grows unnoticed: what Yosys makes of each stays within 5 % of the committed figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.hw import synthesis

COMMITTED: dict[str, Any] = json.loads((Path(__file__).parent.parent / "docs" / "synthesis.json").read_text())
BLOCKS = {block["name"]: block for block in COMMITTED["blocks"]}
GROWTH = 1.05

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(synthesis.tool("yosys") is None, reason="Yosys is not installed: pip install 'kappa-rtl[synth]'"),
]


@pytest.mark.parametrize("name", BLOCKS)
def test_size(name: str) -> None:
    """Look-up tables, registers and DSP blocks; a smaller block is no failure, but the figures want renewing."""
    make, cycles = synthesis.blocks(ThrottleConfig.stability_margin(elements=640, eta=0.1), lanes=(1, 8))[name]
    component = make()
    found = synthesis.measure(component, name, seeds=()).to_json()
    for kind in ("lut4", "ff", "dsp", "block_ram"):
        assert found[kind] <= GROWTH * BLOCKS[name][kind], f"{name}: {found[kind]} {kind}, {BLOCKS[name][kind]} committed"
    assert cycles(component) == BLOCKS[name]["cycles"]


def test_the_page_says_what_was_measured() -> None:
    page = (Path(__file__).parent.parent / "docs" / "synthesis.md").read_text()
    for name in ("divider, 24 bits", "core, 8 lanes"):
        assert f"| {BLOCKS[name]['lut4']} |" in page and f"| {BLOCKS[name]['fmax_mhz']:.0f} (" in page
