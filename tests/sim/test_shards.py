"""Shards of one model, each exported and in a simulator of its own, in lockstep with golden's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Scalar
from kappa_rtl.golden.network.layers import variables
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.training.units import grids_of, unit_for
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.difference import compare
from kappa_rtl.sim.runner import SimulationError
from kappa_rtl.sim.shards import RtlShards
from support.simulators import both_languages
from support.strategies import exactly
from support.training import problem_model, train_alike

SEGMENTS = [{"name": "a", "elements": 9, "scale": 3}, {"name": "b", "elements": 4}, {"name": "c", "elements": 1, "scale": 1}]


def parts(**of_all: Any) -> list[ThrottleConfig]:
    """Three shards: of segments, of two lanes and other formats, and of a single element."""
    law: dict[str, Any] = {"eta": 0.25, "lanes": 4} | of_all
    return [
        ThrottleConfig.stability_margin(elements=14, segments=SEGMENTS, scale_max=4, **law),
        ThrottleConfig.stability_margin(
            **{"elements": 7, "weight": "SQ2.6", "update": "SQ1.9", "gradient": "SQ3.6", "residual_bits": 3, **law, "lanes": 2}
        ),
        ThrottleConfig.stability_margin(**{"elements": 1, "weight": "SQ2.18", "update": "SQ1.19", **law, "lanes": 1}),
    ]


def shards_agree(simulator: str, steps: int = 8, stalls: Stalls | None = None, *, streaming: bool = False, **of_all: Any) -> None:
    """Gradients of all kinds: of all shards, of one alone, of none; a rate that changes, and a clear."""
    configs, random = parts(**of_all), np.random.default_rng(3)
    places = np.split(random.permutation(22), [14, 21])
    theta = [random.integers(*one.grids.weight.rails, one.elements) // 2 for one in configs]
    golden = ShardedThrottle(configs, theta, codes=True, places=places)
    with RtlShards(configs, theta, codes=True, places=places, simulator=simulator, stalls=stalls, streaming=streaming) as rtl:
        assert (golden.weights == rtl.weights).all() and golden.config == rtl.config
        for step in range(steps):
            gradients = [
                random.integers(*one.grids.gradient.rails, one.elements) * (step % 4 in (0, 1, 2 + k))
                for k, one in enumerate(configs)
            ]
            if step == 4:
                for unit in (golden, rtl):
                    unit.set_rate(0.125)
                    unit.clear()
            _, difference = compare(golden.step(gradients, codes=True), rtl.step(gradients, codes=True))
            assert difference is None, f"{step}: {difference}"
        assert (golden.weights == rtl.weights).all()
        assert len(rtl.cycles) == steps


def test_three_shards() -> None:
    shards_agree("verilator")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"stalls": Stalls(100, 150, 7)}, marks=pytest.mark.ci),
        {"streaming": True},
        {"source": "projection"},
        {"motion": "applied"},
        {"motion": "applied", "on_still": "floor", "every_rail": True},
    ],
)
def test_shards_of_every_kind(options: dict[str, Any]) -> None:
    shards_agree("verilator", 12, **options)


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_three_shards_icarus(icarus: str) -> None:
    shards_agree(icarus, 4)


@pytest.mark.filterwarnings("ignore::kappa_rtl.golden.training.lint.TrainingWarning")
def test_any_precision_trains() -> None:
    """Formats by tensor, of several widths and binary points: two units, and identical weights at every step of a run."""
    _, model = problem_model(3, use_bias=True, activation="relu")
    layers = {
        "dense0": {"weight": "SQ2.6", "bias": "SQ2.14", "gradient": "SQ4.8", "update": "SQ1.11"},
        "dense1": {"weight": "SQ1.7", "bias": "SQ1.15", "gradient": "SQ3.11", "update": "SQ0.12"},
    }
    unit = unit_for(model, layers, eta=0.25, chi=1.9, lanes=2)
    assert isinstance(unit, ShardedThrottle)
    assert [[(one.name, one.scale) for one in part.segments] for part in unit.parts] == [
        [("dense0/kernel", 0), ("dense1/kernel", 1)],
        [("dense0/bias", 0), ("dense1/bias", 1)],
    ]
    grids = [str(own.weight) for own in grids_of(unit, variables(model.layers))]
    assert grids == ["SQ2.6", "SQ2.14", "SQ1.7", "SQ1.15"]
    places: Any = unit.places
    with RtlShards(unit.configs, unit.thetas, codes=True, motion=unit.config.motion, places=places) as rtl:
        train_alike((unit, rtl), layers)


def test_refused() -> None:
    with pytest.raises(ValueError, match=exactly("population must not be given here, where no other shards are, not 22")):
        RtlThrottle(parts()[0].replace(population=22), np.zeros(14))
    with pytest.raises(ValueError, match=exactly("weights must have 3 vectors, one a shard, not 2")):
        RtlShards(parts(), [np.zeros(14), np.zeros(7)])
    with pytest.raises(ValueError, match=exactly("places must have each element from 0 to 21 once")):
        RtlShards(parts(), np.zeros(22), places=[np.arange(14), np.arange(7), [21]])
    with pytest.raises(ValueError, match=exactly("places must be 3, one a shard, not 1")):
        ShardedThrottle(parts(), np.zeros(22), places=[np.arange(22)])
    with pytest.raises(ValueError, match=exactly("places[1] must be 7 integers, not int64 of shape (8,)")):
        ShardedThrottle(parts(), np.zeros(22), places=[np.arange(14), np.arange(8), [21]])


def test_shards_that_show_other_sums() -> None:
    """What all shards see must be the same; a shard that says otherwise is named with the register."""
    with RtlShards(parts(), np.zeros(22)) as rtl:
        record = rtl.step(np.zeros(22))
        assert record.registers.A == 0
        with pytest.raises(
            SimulationError, match=exactly("step 0, alpha: must be Scalar(m=1, e=0) as in shard 0, not Scalar(m=3, e=1) as in 1")
        ):
            rtl._registers([replace(record.registers, alpha=one) for one in (Scalar(1, 0), Scalar(3, 1))])
