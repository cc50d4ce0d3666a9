"""The site builds without a warning, and holds the contract of every module, command and page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from sphinx.util.inventory import InventoryFile

from kappa_rtl.scripts.main import COMMANDS
from support import ROOT

ROOMS = ("golden", "golden/network", "golden/training", "golden/credit", "golden/protocol")
ROOMS += ("hw/cells", "hw/lanes", "hw/scalar", "hw/units", "hw/bus", "frameworks/torch")
"""Every module of these rooms is on a page."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` does."""
    out = tmp_path_factory.mktemp("site")
    options = ["--builder", "html", "--doctree-dir", str(out / "doctrees"), "--fail-on-warning", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, str(ROOT / "docs"), str(out / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out / "html"


@pytest.mark.slow
def test_the_site(site: Path) -> None:
    """Every module and every public name of the package can be linked to, every command and every page is there."""
    found = InventoryFile.loads((site / "objects.inv").read_bytes(), uri="").data
    assert modules() <= found["py:module"].keys(), "on no page: see docs/reference"
    for name in ("ThrottleConfig", "Throttle", "FloatThrottle", "ShardedThrottle", "RtlThrottle"):
        assert f"kappa_rtl.{name}" in found["py:class"]
    assert "kappa_rtl.hw.scalar.divider.Divider" in found["py:class"]
    commands = (site / "reference" / "commands.html").read_text()
    assert all(f'id="kappa-rtl-{name}"' in commands for name in COMMANDS)
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} == {path.stem for path in site.glob("*.html")} - {
        "genindex",
        "py-modindex",
        "search",
    }


def test_every_module_has_a_page() -> None:
    """What the slow test sees of the built site, by the words of the reference's pages."""
    pages = "\n".join(path.read_text() for path in (ROOT / "docs" / "reference").glob("*.rst"))
    words = re.findall(r"^\.\. automodule:: (\S+)$", pages, re.MULTILINE)
    assert len(words) == len(set(words))
    assert modules() <= set(words), "on no page: see docs/reference"


def modules() -> set[str]:
    """The modules of the rooms."""
    return {f"kappa_rtl.{room}.{path.stem}".replace("/", ".") for room in ROOMS for path in (ROOT / room).glob("[!_]*.py")}
