"""The core, with its gradient memory and without, on its exported Verilog, beat by beat."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.stress.speed import speed
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, both_languages

SMALL = {
    **{
        "law": "stability_margin",
        "eta": 0.5,
        "eps": "1/1048576",
        "dead_after": 3,
        "mantissa_bits": 8,
        "exponent_bits": 6,
        "step_bits": 9,
    },
    **{"gradient": "SQ2.6", "weight": "SQ1.5", "update": "SQ1.7"},
}
UNITS = {
    # One element, and scalars of so narrow a range that they overflow and underflow.
    "one": SMALL | {"elements": 1, "lanes": 1, "gradient": "SQ8.0", "mantissa_bits": 4, "eps": "1/536870912"},
    "l3": SMALL | {"elements": 11, "lanes": 3, "update": "SQ0.6,floor,saturate_symmetric"},
    "l3_streaming": SMALL | {"elements": 11, "lanes": 3, "weight": "SQ2.8,nearest_up,saturate", "streaming": True},
    # A direction on a grid of its own, and weights that wrap.
    "l4_streaming": SMALL
    | {
        "elements": 3,
        "lanes": 4,
        "gradient": "SQ1.4",
        "direction": "SQ4.3",
        "weight": "SQ1.5,nearest_even,wrap",
        "streaming": True,
    },
    "l2_streaming": {"law": "inverse_curvature", "eta": 0.1, "elements": 12, "lanes": 2, "dead_after": 2, "streaming": True},
}
RANDOM = {"update": "SQ1.7,stochastic,saturate", "motion": "applied"}
KEPT = {
    "one": UNITS["one"] | {"residual_bits": 2, "every_rail": True, "motion": "applied"},
    "streaming": UNITS["l3_streaming"] | {"residual_bits": 4, "every_rail": True, "motion": "applied"},
    "all": UNITS["l3"] | RANDOM | {"lanes": 4, "residual_bits": 2, "every_rail": True, "eta": "0.999", "gradient": "SQ3.5"},
}
"""Random numbers, residuals, and counters of every rail."""

EIGHT = {"l8": {"law": "stability_margin", "eta": 0.1, "elements": 100, "lanes": 8}}


WATCHED = {
    "all": UNITS["l3_streaming"]
    | {
        "watchdog": ["gradient_floor", "norm_growth", "learning_dead", "scalar_overflow"],
        "gradient_floor": "0.1",
        **{"gradient": "SQ8.0", "mantissa_bits": 4, "eps": "1/536870912", "dead_after": 2},
    },
    "floor": UNITS["l3"] | {"watchdog": ["gradient_floor", "learning_dead"], "gradient_floor": "0.25"},
}


TABLE = SMALL | {"step_bits": 8}
NORMS = {name: value for name, value in TABLE.items() if name != "eps"} | {"exponent_bits": 10}
SEGMENTED = {
    "table": TABLE
    | {"lanes": 3, "capacity": 19, "entries": 5, "gradient": "SQ1.4", "update": "SQ0.6,floor,saturate_symmetric"}
    | {"segments": [{"elements": 5, "scale": 1}, {"elements": 3, "scale": 7}, {"elements": 1}]},
    "one": TABLE
    | {"lanes": 1, "segments": [{"elements": 3, "scale": 2}], "scale_max": 3, "motion": "applied", "every_rail": True},
    "streaming": TABLE
    | {"lanes": 2, "capacity": 14, "segments": [{"elements": 4}, {"elements": 5, "scale": 3}], "motion": "applied"}
    | {"weight": "SQ1.5,nearest_even,wrap", "streaming": True, "direction": "SQ4.3", "residual_bits": 4},
    "random": TABLE
    | {"lanes": 4, "segments": [{"elements": 2, "scale": 5}, {"elements": 7, "scale": 1}, {"elements": 4}], "residual_bits": 2}
    | {"update": "SQ1.7,stochastic,saturate", "watchdog": ["gradient_floor", "learning_dead"], "gradient_floor": "0.25"},
    "norm": NORMS
    | {"law": "clip_norm", "max_norm": 1, "lanes": 2, "scale_max": 0, "entries": 4}
    | {"segments": [{"elements": 3}, {"elements": 4}]},
    "ratio": NORMS
    | {"law": "trust_ratio", "trust": "0.1", "lanes": 8, "capacity": 40}
    | {"segments": [{"elements": 9, "scale": 3}, {"elements": 20}]},
    "projection": TABLE | {"lanes": 2, "source": "projection", "segments": [{"elements": 5, "scale": 2}, {"elements": 2}]},
}
"""Segments: with room for others and without, each option that they meet, every kind of source."""


def test_throttle() -> None:
    simulate("throttle", {name: UNITS[name] for name in ("one", "l3")}, simulator="verilator")


@pytest.mark.slow
@pytest.mark.ci
def test_every_throttle() -> None:
    simulate("throttle", UNITS | EIGHT, simulator="verilator")


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.icarus
@both_languages
def test_throttle_icarus(icarus: str) -> None:
    """With fewer units and steps: this simulator takes long."""
    few = {name: UNITS[name] for name in ("one", "l3", "l4_streaming")}
    simulate("throttle", few, simulator=icarus, effort=EFFORT["icarus"])


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_throttle_of_more_units_icarus(icarus: str) -> None:
    others = {name: UNITS[name] for name in ("l3_streaming", "l2_streaming")}
    simulate("throttle", others, simulator=icarus, effort=EFFORT["icarus"])


def test_segments() -> None:
    simulate("throttle", {"one": UNITS["one"], "table": SEGMENTED["table"]}, simulator="verilator")


@pytest.mark.slow
@pytest.mark.ci
def test_every_unit_with_segments() -> None:
    simulate("throttle", {"plain": UNITS["one"]} | SEGMENTED, simulator="verilator")


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_segments_icarus(icarus: str) -> None:
    simulate("throttle", {"table": SEGMENTED["table"]}, simulator=icarus, effort=EFFORT["icarus"])


@pytest.mark.slow
def test_speed_of_a_core_driven_beat_by_beat() -> None:
    """What the bulk harness is compared with."""
    measured = speed(EIGHT["l8"], steps=3)
    assert 3 * 2 * 13 < measured["cycles"] < 3 * 400 and measured["seconds"] > 0


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_watchdog_icarus(icarus: str) -> None:
    simulate("throttle", {"all": WATCHED["all"]}, simulator=icarus, effort=EFFORT["icarus"], only="watchdog")


@pytest.mark.slow
def test_watchdog() -> None:
    """All tests of the core with a watchdog, and those of the watchdog itself in it."""
    simulate("throttle", WATCHED, simulator="verilator")


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_random_numbers_residuals_and_rails_icarus(icarus: str) -> None:
    simulate("throttle", {"all": KEPT["all"]}, simulator=icarus, effort=EFFORT["icarus"])


@pytest.mark.slow
def test_random_numbers_residuals_and_rails() -> None:
    simulate("throttle", KEPT, simulator="verilator")


LAWS = {
    "norm": {**UNITS["l3"], "law": "clip_norm", "max_norm": 2, "watchdog": ["gradient_floor"], "gradient_floor": "0.1"},
    "ratio": {**UNITS["l3_streaming"], "law": "trust_ratio", "trust": 1, "weight_decay": "1/64"},
    "ratio_one_pass": {**UNITS["l3"], "law": "trust_ratio", "trust": 2, "delay": 1},
    "adgd": {**UNITS["l4_streaming"], "law": "adgd"},
}
ONE_PASS = {
    "l3": UNITS["l3"] | {"delay": 1},
    "l4_streaming": UNITS["l4_streaming"] | {"delay": 1, "eta": "67108863/67108864"},  # as a scalar 1: off the grid of the step
    "all": WATCHED["all"] | {"delay": 1, "elements": 5, "lanes": 1},
}


INTENDED = {"motion": "intended", "step_bits": 8}
PROJECTION = {"source": "projection", "motion": "intended", "step_bits": 8}
ALONG = {
    "one": UNITS["one"] | {"motion": "intended", "step_bits": 4},
    "intended": UNITS["l3"] | INTENDED | {"elements": 29},
    "intended_streaming": UNITS["l4_streaming"] | INTENDED,
    "intended_one_pass": UNITS["l4_streaming"] | INTENDED | {"delay": 1},
    "projection": UNITS["l3"] | RANDOM | PROJECTION | {"residual_bits": 3, "every_rail": True},
    "projection_streaming": UNITS["l2_streaming"]
    | {"source": "projection", "watchdog": ["gradient_floor", "learning_dead"], "gradient_floor": "0.25"},
    "projection_one_pass": UNITS["l3"] | PROJECTION | {"delay": 1, "elements": 32},
}
"""Curvature along the intended step: of its length, or dG projected onto it."""


@pytest.mark.slow
@pytest.mark.ci
def test_curvature_along_the_intended_step() -> None:
    some = {name: ALONG[name] for name in ("intended_streaming", "projection")}
    simulate("throttle", some, simulator="verilator", effort=0)


@pytest.mark.slow
@pytest.mark.ci
def test_every_curvature_along_the_intended_step() -> None:
    simulate("throttle", ALONG, simulator="verilator", effort=1)


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_curvature_along_the_intended_step_icarus(icarus: str) -> None:
    simulate("throttle", {"projection": ALONG["projection"]}, simulator=icarus, effort=EFFORT["icarus"])


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_one_pass_icarus(icarus: str) -> None:
    simulate("throttle", {"l3": ONE_PASS["l3"]}, simulator=icarus, effort=EFFORT["icarus"])


@pytest.mark.slow
def test_one_pass() -> None:
    simulate("throttle", ONE_PASS, simulator="verilator")


@pytest.mark.slow
def test_laws() -> None:
    """Sources and laws that are built for; the flags that no law of them raises are seen elsewhere."""
    simulate("throttle", LAWS, simulator="verilator", only="stalls|backpressure|reset|clear|beat|watchdog")


@pytest.mark.slow
def test_throttle_long() -> None:
    wide = {
        "law": "stability_margin",
        "eta": 0.1,
        "elements": 333,
        "lanes": 32,
        "gradient": "SQ6.20",
        "weight": "SQ2.24",
        "update": "SQ1.22",
    }
    simulate("throttle", UNITS | EIGHT | {"l32": wide}, simulator="verilator", seed=2, effort=2)
