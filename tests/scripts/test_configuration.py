"""The page of the configuration is what the code makes, and every key of every table is on it."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest

from kappa_rtl.golden.config import LIMITS, ThrottleConfig
from kappa_rtl.golden.laws import LAWS
from kappa_rtl.scripts.configuration import meanings, page, plain, rule, table, throttle
from kappa_rtl.scripts.experiments.cosim.job import Job
from kappa_rtl.scripts.settings import TABLES
from support import ROOT

PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_what_the_code_makes() -> None:
    assert PAGE.read_text() == page(), "write it anew: make pages"


def test_every_key_is_on_the_page() -> None:
    """Each in the part of its table, in the order of the code."""
    text = PAGE.read_text()
    places = [text.index(f"\n## [{name}]\n") for name in ("throttle", "data", "model", "training", "run", "narrow")]
    unit, data, model, training, run = (text[a:b] for a, b in pairwise(places))
    for part, keys in (
        (unit, [field.name for field in dataclasses.fields(ThrottleConfig)]),
        (data, list(TABLES["data"])),
        (model, list(TABLES["model"])),
        (training, list(TABLES["training"])),
        (run, [field.name for field in dataclasses.fields(Job) if field.name in TABLES["run"]]),
    ):
        assert keys
        rows = [part.index(f"\n| `{key}` | ") for key in keys]
        assert rows == sorted(rows)
    for law in LAWS.values():
        assert f"| `{law.name}` |" in unit
        assert all(f"`{name}` = {default} (" in unit for name, default in law.parameters.items())


def test_the_rules_are_those_of_the_reader() -> None:
    rows = {row[0].strip("`"): row for row in throttle()}
    for name, (low, high) in LIMITS.items():
        assert rows[name][3] == f"must be an integer from {low} to {high}"
    assert rows["rho"] == (
        "`rho`",
        "number",
        "`0.05`",
        "must be between 0 and 1",
        "weight of the new curvature in the moving average, 0..1.",
    )
    assert rows["elements"][2] == "must be given" and rows["on_still"][2] == '`"release"`' and rows["population"][2] == ""


def test_a_key_that_takes_everything_has_no_rule() -> None:
    def read(key: object) -> None:
        pass

    with pytest.raises(ValueError, match="key must refuse one of"):
        rule(read, "key", [1, 2])


def test_docstrings_in_markdown() -> None:
    def documented() -> None:
        """What it is.

        Args:
            one, two: see :class:`~kappa_rtl.golden.config.Source`,
                ``x`` too.
            three: all: that is there.

        Raises:
            ValueError: never.
        """

    assert meanings(documented) == dict.fromkeys(("one", "two"), "see `Source`, `x` too.") | {"three": "all: that is there."}
    assert plain(":func:`f` and\n  ``g``") == "`f` and `g`"
    assert table(("a", "b"), [("||x||", "")]) == "| a | b |\n| --- | --- |\n| \\|\\|x\\|\\| | |"
