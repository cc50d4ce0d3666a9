"""The pages that are made from the code, written anew: ``python -m kappa_rtl.scripts.pages docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..hw.bus.map import throttle_map
from ..hw.bus.text import markdown
from . import configuration

UNIT = ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8)
"""The unit whose registers the page lists: that of the README."""


def registers() -> str:
    """The page of the register map."""
    return markdown(throttle_map(UNIT), "throttle_axi")


PAGES = {"configuration.md": configuration.page, "registers.md": registers}
"""What makes each page, by its name in docs/."""

if __name__ == "__main__":
    for name, make in PAGES.items():
        write_atomically(Path(sys.argv[1]) / name, make())
