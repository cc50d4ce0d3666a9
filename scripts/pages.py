"""The pages that are made from the code, written anew: ``python -m kappa_rtl.scripts.pages docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..hw.bus.map import throttle_map
from ..hw.bus.text import markdown
from ..hw.synth.costs import renewed
from . import configuration
from .experiments.credit.page import tables

UNIT = ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8)
"""The unit whose registers the page lists: that of the README."""


def registers() -> str:
    """The page of the register map."""
    return markdown(throttle_map(UNIT), "throttle_axi")


PAGES = {"configuration.md": configuration.page, "registers.md": registers}
"""What makes each page, by its name in docs/."""


def credit(docs: Path) -> str:
    """The page of the credit methods with its tables renewed from docs/credit/."""
    return renewed((docs / "credit.md").read_text(), tables(docs / "credit"))


if __name__ == "__main__":
    docs = Path(sys.argv[1])
    for name, make in PAGES.items():
        write_atomically(docs / name, make())
    write_atomically(docs / "credit.md", credit(docs))
