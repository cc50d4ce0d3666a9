"""Shards and the exchange between them, on the exported Verilog."""

from __future__ import annotations

import pytest
from test_hw_throttle import SMALL

from kappa_rtl.hw.units.shards import Exchange
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, both_languages, refuses

UNITS = {
    "two": SMALL | {"elements": 12, "sizes": [6, 6], "lanes": 2},
    "three": SMALL | {"elements": 11, "sizes": [1, 7, 3], "lanes": 3, "streaming": True},
    "intended": {
        **SMALL,
        "motion": "intended",
        "step_bits": 8,
        "elements": 11,
        "sizes": [1, 7, 3],
        "lanes": 3,
        "streaming": True,
    },
    "projection": {**SMALL, "source": "projection", "step_bits": 8, "elements": 12, "sizes": [6, 6], "lanes": 2},
    "projection_one_pass": {
        **{**SMALL, "source": "projection", "step_bits": 8, "elements": 7, "sizes": [3, 4], "lanes": 2, "delay": 1},
    },
    "norm": {**SMALL, "law": "clip_norm", "max_norm": 2, "elements": 7, "sizes": [3, 4], "lanes": 2, "delay": 1},
}


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_two_shards_icarus(icarus: str) -> None:
    simulate("shards", {"two": UNITS["two"]}, simulator=icarus, effort=EFFORT["icarus"], only="shards_are_one_unit")


@pytest.mark.slow
def test_shards() -> None:
    simulate("shards", UNITS, simulator="verilator")


def test_refuses_an_exchange_of_nobody() -> None:
    refuses(lambda: Exchange(0, 8), "shards must be at least 1, not 0")
