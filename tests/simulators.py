"""The simulators that tests run on, and how a component refuses its parameters."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.hdl import UnusedElaboratable

SIMULATORS = ["verilator", pytest.param("icarus", marks=pytest.mark.icarus)]
"""Icarus is the second opinion; without it its tests are skipped, as conftest.py says in one line."""

EFFORT = {"verilator": 1, "icarus": 0}
"""Of the larger benches: Icarus is slow, and the values were all tried on Verilator; it is here for what is undefined."""


def refuses(make: Callable[[], Any], match: str) -> None:
    """See that a component cannot be made, and why."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        with pytest.raises(ValueError, match=match):
            make()
        gc.collect()
