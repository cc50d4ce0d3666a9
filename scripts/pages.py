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
from .experiments.credit import page as credit_page
from .experiments.findings import table as findings_table
from .experiments.training import segments

UNIT = ThrottleConfig.stability_margin(elements=640, eta=0.1, lanes=8)
"""The unit whose registers the page lists: that of the README."""


def registers() -> str:
    """The page of the register map."""
    return markdown(throttle_map(UNIT), "throttle_axi")


PAGES = {"configuration.md": configuration.page, "registers.md": registers}
"""What makes each page, by its name in docs/."""


RENEWED = {"credit": credit_page.tables, "findings": findings_table.tables, "segments": segments.tables}
"""What makes the tables of a page from the folder of its name in docs/."""


def with_tables(docs: Path, name: str) -> str:
    """A page with its tables made anew."""
    return renewed((docs / f"{name}.md").read_text(), RENEWED[name](docs / name))


if __name__ == "__main__":
    docs = Path(sys.argv[1])
    for name, make in PAGES.items():
        write_atomically(docs / name, make())
    for name in RENEWED:
        write_atomically(docs / f"{name}.md", with_tables(docs, name))
