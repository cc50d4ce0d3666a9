"""The simulators that tests run on, and how a component refuses its parameters."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.hdl import UnusedElaboratable

ICARUS = ["icarus", "icarus-2005"]
"""Both languages of the second opinion."""

SECOND = [pytest.mark.icarus, pytest.mark.slow, pytest.mark.ci]
SIMULATORS = ["verilator", pytest.param("icarus", marks=pytest.mark.icarus), pytest.param("icarus-2005", marks=SECOND)]
"""Icarus is the second opinion, in its other language by CI; without it its tests are skipped, as conftest.py says."""

VERILATOR_FIRST = ["verilator", *(pytest.param(name, marks=SECOND) for name in ICARUS)]
"""For benches that take Icarus a minute."""

both_languages = pytest.mark.parametrize(
    "icarus", ["icarus", pytest.param("icarus-2005", marks=[pytest.mark.slow, pytest.mark.ci])]
)
"""For benches that run on Icarus in any case: in Verilog-2005 too, by CI."""

EFFORT = {"verilator": 1} | dict.fromkeys(ICARUS, 0)
"""Of the larger benches: Icarus is slow, and the values were all tried on Verilator; it is here for what is undefined."""


def refuses(make: Callable[[], Any], match: str) -> None:
    """See that a component cannot be made, and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        with pytest.raises(ValueError, match=match):
            make()
        gc.collect()
