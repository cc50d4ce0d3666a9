"""The update lanes, on their exported Verilog."""

from __future__ import annotations

import itertools

import pytest

from kappa_rtl.golden.formats import Overflow, Rounding
from kappa_rtl.sim.testbench.bank import simulate
from support.simulators import EFFORT, VERILATOR_FIRST, both_languages

# Where the grids lie to each other decides which path a lane has; each is tried whole, lanes and last beats of every kind.
GRIDS = {
    "finer_update": {"gradient": "SQ2.2", "weight": "SQ1.3", "update": "SQ0.5", "lanes": 3, "elements": 4},
    "much_finer_update": {"gradient": "SQ1.3", "weight": "SQ3.1", "update": "SQ1.6", "lanes": 2, "elements": 2},
    "same_grid": {"gradient": "SQ3.2", "weight": "SQ1.4", "update": "SQ0.4", "lanes": 8, "elements": 12},
    "coarser_update": {"gradient": "SQ2.2", "weight": "SQ0.4", "update": "SQ2.2", "lanes": 4, "elements": 7},
    "product_on_the_update_grid": {
        "gradient": "SQ4.0",
        "weight": "SQ1.3",
        "update": "SQ1.5",
        "lanes": 5,
        "elements": 5,
        "step_bits": 4,
    },
    "product_coarser_than_update": {
        "gradient": "SQ5.-1",
        "weight": "SQ1.3",
        "update": "SQ1.9",
        "lanes": 1,
        "elements": 3,
        "step_bits": 4,
    },
    "hidden_update": {"gradient": "SQ1.4", "weight": "SQ4.0", "update": "SQ-2.6", "lanes": 1, "elements": 1},
}
REAL = {
    "l1": {"lanes": 1, "elements": 7},
    "l4": {"lanes": 4, "elements": 9, "update": "SQ1.13,floor,wrap"},
    "l8": {"lanes": 8, "elements": 640, "weight": "SQ1.7", "update": "SQ0.10"},
    "wide": {"lanes": 2, "elements": 3, "gradient": "SQ4.24", "weight": "SQ2.30", "update": "SQ1.28", "eta": 0.01},
}
COMMON = {"eta": 0.8, "step_bits": 5, "mantissa_bits": 9}
UNITS = {name: COMMON | grids for name, grids in GRIDS.items()} | {name: {"eta": 0.1, **grids} for name, grids in REAL.items()}

# Every rounding with every overflow, on both grids: the modes of the weight run through all of theirs in another order.
MODES = list(itertools.product([r for r in Rounding if r is not Rounding.STOCHASTIC], Overflow))
ROUNDED = {
    f"{rounding}_{overflow}": COMMON
    | {
        "gradient": "SQ2.2",
        "lanes": 4,
        "elements": 4,
        "update": f"SQ0.5,{rounding},{overflow}",
        "weight": f"SQ1.3,{other[0]},{other[1]}",
    }
    for (rounding, overflow), other in zip(MODES, MODES[9:] + MODES[:9], strict=True)
}


# Random numbers with more bits than the product has below the ulp, with as many and with fewer, and where there is none below.
# Residuals on grids between those of the weight, the update and the product, far above the last, and finer than all of them.
SMALL = COMMON | {"lanes": 3, "elements": 4}
OPTIONS = {
    "random": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.3", "update": "SQ0.5,stochastic,saturate"},
    "few_random_bits": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.3", "update": "SQ1.3,stochastic,wrap", "random_bits": 2},
    "one_random_bit": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.3", "update": "SQ1.1,stochastic,zero", "random_bits": 1},
    "nothing_to_round": SMALL | {"gradient": "SQ2.0", "weight": "SQ1.2", "update": "SQ1.4,stochastic,saturate", "step_bits": 4},
    "residual": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.3", "update": "SQ0.5", "residual_bits": 3},
    "residual_of_the_product": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.4", "update": "SQ1.4", "residual_bits": 2},
    "residual_of_the_sum": SMALL
    | {"gradient": "SQ2.0", "weight": "SQ2.1,floor,wrap", "update": "SQ1.4", "step_bits": 4, "residual_bits": 4},
    "fine_residual": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.4", "update": "SQ0.6,nearest_away", "residual_bits": 8},
    "merged": SMALL | {"gradient": "SQ1.3", "weight": "SQ3.1", "update": "SQ2.2,nearest_zero", "residual_bits": 2},
    "both": SMALL | {"gradient": "SQ2.2", "weight": "SQ1.2", "update": "SQ0.4,stochastic,saturate", "residual_bits": 4},
    "wide_both": REAL["wide"] | {"update": "SQ1.28,stochastic,saturate", "residual_bits": 8},
    "l8_random": {"eta": 0.1, "lanes": 8, "elements": 640, "update": "SQ1.15,stochastic,saturate", "seed": 7},
    "l8_residual": {"eta": 0.1, "lanes": 8, "elements": 636, "residual_bits": 4},
}


@pytest.mark.icarus
@both_languages
def test_random_numbers_with_residuals(icarus: str) -> None:
    simulate("update", {"both": OPTIONS["both"]}, simulator=icarus, effort=0)


@pytest.mark.slow
def test_random_numbers_and_residuals() -> None:
    simulate("update", OPTIONS, simulator="verilator")


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_update(simulator: str) -> None:
    simulate("update", UNITS, simulator=simulator, effort=EFFORT[simulator])


@pytest.mark.parametrize("simulator", VERILATOR_FIRST)
def test_rounding_and_overflow(simulator: str) -> None:
    simulate("update", ROUNDED, simulator=simulator, effort=EFFORT[simulator], only="every_direction_with_every_weight")


@pytest.mark.slow
def test_update_long() -> None:
    simulate("update", UNITS, simulator="verilator", seed=2, effort=20)
