"""Shards and the exchange between them, on the exported Verilog."""

from __future__ import annotations

from typing import Any

import pytest
from test_hw_throttle import SMALL

from kappa_rtl.hw.units.shards import Exchange
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, both_languages, refuses


def sizes(*counts: int) -> dict[str, list[dict[str, int]]]:
    return {"shards": [{"elements": count} for count in counts]}


INTENDED = {"motion": "intended", "step_bits": 8}
PROJECTION = {"source": "projection", "step_bits": 8}
MIXED = {
    "shards": [
        {"elements": 5, "gradient": "SQ4.4", "weight": "SQ2.6", "update": "SQ2.6"},
        {"elements": 4, "gradient": "SQ3.8", "weight": "SQ3.2,floor", "update": "SQ3.3", "lanes": 3},
        {"elements": 1, "gradient": "SQ2.4", "weight": "SQ1.8", "update": "SQ2.7,nearest_up", "residual_bits": 3},
    ]
}
UNITS: dict[str, dict[str, Any]] = {
    "two": SMALL | sizes(6, 6) | {"lanes": 2},
    "three": SMALL | sizes(1, 7, 3) | {"lanes": 3, "streaming": True},
    "intended": SMALL | INTENDED | sizes(1, 7, 3) | {"lanes": 3, "streaming": True},
    "intended_one_pass": SMALL | INTENDED | sizes(3, 4) | {"lanes": 2, "delay": 1},
    "projection": SMALL | PROJECTION | sizes(6, 6) | {"lanes": 2},
    "projection_one_pass": SMALL | PROJECTION | sizes(3, 4) | {"lanes": 2, "delay": 1},
    "norm": {**SMALL, "law": "clip_norm", "max_norm": 2, **sizes(3, 4), "lanes": 2, "delay": 1},
    "mixed": SMALL | INTENDED | MIXED | {"lanes": 2},
    "mixed_applied": SMALL | {"motion": "applied", "shards": [shard | {"residual_bits": 0} for shard in MIXED["shards"]]},
    "mixed_one_pass": SMALL | INTENDED | MIXED | {"delay": 1},
    "mixed_projection": SMALL | PROJECTION | MIXED,
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
