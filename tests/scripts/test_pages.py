"""What the pages say of names in the code, and where their links lead."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from formal.__main__ import method, proofs
from kappa_rtl.golden.registers import COUNTERS, FLAGS, MEANINGS, RAIL_COUNTERS
from support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_contract_lists_every_counter_and_flag() -> None:
    """The table of docs/numerics.md has the counters of the code, no other and none twice; every flag stands below it."""
    text = (ROOT / "docs" / "numerics.md").read_text()
    section = text.partition("## Counters and flags\n")[2].partition("\n## ")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted((*COUNTERS, *RAIL_COUNTERS))
    assert all(f"`{name}`" in section for name in MEANINGS) and set(FLAGS) <= set(MEANINGS)


def test_the_list_of_proofs_is_that_of_the_code() -> None:
    """Each by its block, what is proved, how long it holds, and how many faults it rejects, in the order in which they run."""
    rows = re.findall(r"^\| (.*) \|$", (ROOT / "docs" / "proofs-list.md").read_text(), re.MULTILINE)[1:]
    listed = [(block, what, how, faults.strip()) for block, what, how, _, faults in (row.split(" | ") for row in rows)]
    assert listed == [
        (proof.name, proof.what, method(proof), f"{n} of {n}" if (n := len(proof.mutants)) else "") for proof in proofs([])
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link is to a file of the checkout, and what follows a # is a heading there."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        assert path.is_file(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(path), f"{page.name} links to {target}: no such heading"


def anchors(path: Path) -> set[str]:
    """The headings of a page as a git host links them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_what_is_named_is_there(page: Path) -> None:
    """Files of the checkout, and modules, classes and functions of the package."""
    text = page.read_text()
    for name in re.findall(r"`((?:golden|hw|sim|scripts|tests|docs|examples)/[\w/.-]+)`", text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(kappa_rtl(?:\.\w+)+)", text):
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_nobody_is_sent_to_an_index(page: Path) -> None:
    """The package is on none: it is installed from a checkout."""
    assert not re.search(r"pip install ['\"]?kappa", page.read_text())
