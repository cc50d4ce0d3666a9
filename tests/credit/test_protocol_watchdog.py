"""The unit's watchdog against the diagnostic protocol: the same flags at the same step on the same data, rounded to its grids."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden import watchdog
from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.protocol.rules import PUBLISHED, TrainingMonitor, replay
from kappa_rtl.golden.protocol.trace import Row, load_traces
from kappa_rtl.golden.registers import WATCHES
from kappa_rtl.golden.rounding import quantise, values
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.watchdog import Watchdog
from kappa_rtl.sim.cosim import RtlThrottle
from support import ROOT

TRACES = sorted((ROOT / "docs" / "traces").glob("*.json"))
RUNS = {f"{path.stem}-{name}": log for path in TRACES for name, log in load_traces(path)[1].items()}
LETTERS = {"(a)": "norm_growth", "(b)": "gradient_floor"}

GRID = 8
"""Fraction bits of the hidden norms: as integers their squares have 48 bits up to 65,535."""


def unit(**changes: Any) -> ThrottleConfig:
    """A unit of one weight, whose gradient grid resolves the published floor: 1e-7 is 215 of its ulps."""
    watched: dict[str, Any] = {"watchdog": ("gradient_floor", "norm_growth"), "gradient": "SQ1.31"}
    watched |= {"gradient_floor": PUBLISHED.g_norm_floor, "norm_growth": PUBLISHED.h_norm_explosion_ratio}
    return ThrottleConfig.stability_margin(elements=1, eta=0.05, **(watched | changes))


def codes(log: list[Row], config: ThrottleConfig) -> list[tuple[list[int], int]]:
    """Of each row the hidden norms and the last gradient's norm, as integers on their grids."""
    return [
        (
            [round(norm * 2**GRID) for norm in row["hidden_norms"]],
            int(quantise(row["bp_grad_norms_per_sample_med"][-1], config.grids.gradient)),
        )
        for row in log
    ]


def seen_by_unit(data: list[tuple[list[int], int]], config: ThrottleConfig) -> dict[str, int]:
    """Through the whole golden unit: the conditions that fired, each with its first step."""
    return seen_by(Throttle(config, np.zeros(1)), data)


def seen_by(throttle: Throttle | RtlThrottle, data: list[tuple[list[int], int]]) -> dict[str, int]:
    for norms, gradient in data:
        throttle.watchdog.blocks([norm**2 for norm in norms])
        registers = throttle.step([gradient], codes=True).registers
    return {
        name: getattr(registers, f"watchdog_step_{name}") for bit, name in enumerate(WATCHES[:2]) if registers.watchdog >> bit & 1
    }


def seen_by_watchdog(
    data: list[tuple[list[int], int]], config: ThrottleConfig, kind: Callable[..., Any] = Watchdog
) -> dict[str, int]:
    """Through a watchdog alone."""
    dog = kind(config)
    for step, (norms, gradient) in enumerate(data):
        dog.blocks([norm**2 for norm in norms])
        dog.look(step, gradient**2, False, False)
    return {name: dog.registers[f"watchdog_step_{name}"] for bit, name in enumerate(WATCHES[:2]) if dog.fired >> bit & 1}


def seen_by_protocol(log: list[Row]) -> dict[str, int]:
    """Through the software, flag by flag: the first row of each."""
    first: dict[str, int] = {}
    monitor = TrainingMonitor()
    for i, row in enumerate(log):
        for flag in monitor.add(row):
            first.setdefault(LETTERS[flag[:3]], i)
    return first


@pytest.mark.parametrize("name", RUNS)
def test_real_runs(name: str) -> None:
    """Real traces, rounded: the unit raises the flags of the software, which has the unrounded ones, each at the same step."""
    log, config = RUNS[name], unit()
    assert seen_by_unit(codes(log, config), config) == seen_by_protocol(log)


@pytest.mark.slow
def test_real_runs_in_hardware() -> None:
    """The same traces through the watchdog of the exported Verilog."""
    config = unit()
    with RtlThrottle(config, np.zeros(1)) as throttle:
        for name, log in RUNS.items():
            throttle.restart(config, np.zeros(1))
            assert seen_by(throttle, codes(log, config)) == seen_by_protocol(log), name


def test_the_runs_show_both_flags_and_none() -> None:
    """A feedback-alignment run that the protocol stops for each reason, and backpropagation which it lets finish."""
    seen = {name: seen_by_protocol(log) for name, log in RUNS.items()}
    assert {flag for name, flags in seen.items() if "dfa" in name for flag in flags} == set(LETTERS.values())
    for name, log in RUNS.items():
        outcome = replay(log)
        if "dfa" in name:
            assert outcome.flags and outcome.epochs_saved > outcome.final_epoch / 2
        elif "norm" in name:
            assert outcome.verdict == "trustworthy" and not seen[name]
        else:  # it has fitted its data to the last sample, which looks like (b)
            assert list(seen[name]) == ["gradient_floor"] and outcome.fired_epoch and outcome.fired_epoch > 20


def rows(data: list[tuple[list[int], int]], config: ThrottleConfig) -> list[Row]:
    """The trace whose norms are these integers."""
    return [
        {
            "epoch": i,
            "hidden_norms": [norm / 2**GRID for norm in norms],
            "bp_grad_norms_per_sample_med": [float(values(gradient, config.grids.gradient))],
            "acc_eval": 0.5,
        }
        for i, (norms, gradient) in enumerate(data)
    ]


EDGE = st.sampled_from([0, 1, 2, 49, 50, 51, 100, 2499, 2500, 2501, 100_000, 100_001, 335_544, 2**24 - 1])
NORM = EDGE | st.integers(0, 2**24 - 1)
STEP = st.tuples(st.lists(NORM, max_size=5), st.sampled_from([0, 1, 213, 214, 215, 216, 2**31 - 1]) | st.integers(0, 400))


@settings(max_examples=50)
@given(st.lists(STEP, min_size=1, max_size=4))
def test_any_run(data: list[tuple[list[int], int]]) -> None:
    """On its own grids the unit's flags are the software's, for any norms, zero among them."""
    config = unit()
    assert seen_by_unit(data, config) == seen_by_protocol(rows(data, config))


# A dull step, then each edge: a hair on either side of both thresholds, zeros, growth from the end of one step to the next.
FINE = ([2, 3], 1000)
EDGES = [
    [FINE, ([1, *norms], last)]
    for norms, last in (((50,), 1000), ((51,), 1000), ((40, 2000, 99_999), 1000), ((1, 51, 52), 1000), ((2,), 214), ((2,), 215))
]
EDGES += [[FINE, ([0, 0], 1000)], [FINE, ([0, 1], 1000)], [([1], 1000), ([51], 1000)], [([1, 51], 1000), FINE, ([1], 0)]]
MUTANTS = {
    "(a) is not strict": ("> self.config.growth_squared", ">= self.config.growth_squared"),
    "(a) compares with the root": ("self.config.growth_squared * self._last", "12800 * self._last"),
    "(a) sees only the last block": ("self._grown = True", "self._grown = energy == energies[-1]"),
    "(a) goes on from one step to the next": ("self._grown, self._last = False, None", "self._grown = False"),
    "(a) takes a zero for no block": ("self._last is not None", "self._last"),
    "(b) is not strict": ("energy < self.config.floor_energy", "energy <= self.config.floor_energy"),
    "(b) takes the floor for its square": ("energy < self.config.floor_energy", "energy < 215"),
    "(b) fires at zero alone": ("energy < self.config.floor_energy", "energy == 0"),
    "the flags are exchanged": ("enumerate(zip(WATCHES,", "enumerate(zip((WATCHES[1], WATCHES[0], *WATCHES[2:]),"),
    "the last step is noted": ("and not self.fired >> bit & 1", ""),
    "the step is one late": ("= step % ", "= (step + 1) % "),
}


@pytest.mark.parametrize("what", MUTANTS)
def test_a_faulty_watchdog_is_caught(what: str) -> None:
    """Each fault shows at an edge where the watchdog without it agrees with the software; at (b)'s, the floor is on the grid."""
    old, new = MUTANTS[what]
    source = inspect.getsource(watchdog)
    assert source.count(old) == 1
    module = ModuleType("kappa_rtl.golden.faulty")
    module.__package__ = "kappa_rtl.golden"  # it imports from there
    exec(source.replace(old, new), module.__dict__)
    caught = False
    for floor in (PUBLISHED.g_norm_floor, Fraction(1, 2**24)):
        config = unit(gradient_floor=floor)
        for data in [*EDGES, [FINE, ([2], 128), ([2], 127), ([2], 0)]]:
            want = seen_by_watchdog(data, config)
            assert want == seen_by_unit(data, config)
            if floor == PUBLISHED.g_norm_floor:
                assert want == seen_by_protocol(rows(data, config))
            caught |= seen_by_watchdog(data, config, module.Watchdog) != want
    assert caught


# ---- what a floor means to weights on a grid


@pytest.mark.parametrize("weight", ["SQ2.6", "SQ2.10", "SQ2.14"])
def test_below_half_an_ulp_nothing_moves(weight: str) -> None:
    """Where ||G|| is less than half a weight ulp over eta no weight can move, so that this is the floor of a run on a grid."""
    eta, fraction = 2.0**-4, int(weight[4:])
    floor = 2.0 ** -(fraction + 1) / eta
    config = ThrottleConfig.stability_margin(
        elements=3, eta=eta, weight=weight, update="SQ1.24", gradient="SQ4.20", watchdog=("gradient_floor",), gradient_floor=floor
    )
    code = int(floor * 2**20)
    for gradient, moves in ((code - 1, False), (code + 1, True)):
        throttle = Throttle(config, np.zeros(3))
        record = throttle.step([0, gradient, 0], codes=True)
        assert record.weights.any() == moves and record.registers.watchdog == (not moves)
