"""The Python blocks of a page, as its reader types them."""

from __future__ import annotations

import re
from typing import Any

from support import ROOT

BLOCK = re.compile(r"^(?:```python|<!-- setup: [^\n]*)\n(.*?)^(?:```|-->)$", re.MULTILINE | re.DOTALL)


def run_blocks(name: str) -> int:
    """Run all blocks of a page and its setups, in order and in one namespace; how many there were."""
    page = (ROOT / name).read_text()
    names: dict[str, Any] = {"__name__": "snippet"}
    count = 0
    for found in BLOCK.finditer(page):
        line = page.count("\n", 0, found.start(1))
        exec(compile("\n" * line + found[1], name, "exec"), names)
        count += 1
    assert count == len(re.findall(r"^```python|^<!-- setup", page, re.MULTILINE))
    return count
