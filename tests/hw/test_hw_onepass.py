"""The core of one pass and the watchdog in the loop: golden and RTL in lockstep."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import UnusedElaboratable

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.registers import BLOCK_BITS
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.export import export, unit
from kappa_rtl.hw.units.onepass import OnePass, StreamingOnePass
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.difference import compare
from support.lockstep import lockstep
from support.simulators import both_languages

EIGHT: dict[str, Any] = {"elements": 100, "eta": 0.1, "lanes": 8, "delay": 1}


@pytest.mark.slow
def test_a_step_is_one_pass() -> None:
    """As promised, whatever the size; the benches see that it is kept."""
    config = ThrottleConfig.stability_margin(elements=640, lanes=2, eta=0.1, delay=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        for streaming, kind in ((False, OnePass), (True, StreamingOnePass)):
            one, two = unit(config, streaming), unit(config.replace(delay=0), streaming)
            assert type(one) is kind
            assert one.step_cycles == config.beats + one.overhead
            assert one.overhead <= two.overhead
        promised = unit(config).step_cycles
        gc.collect()
    _, manifest = export(config)
    assert (manifest["latency"]["step_at_most"], manifest["latency"]["passes"]) == (promised, 1)


@pytest.mark.slow
def test_lockstep() -> None:
    lockstep(ThrottleConfig.stability_margin(**EIGHT), 30, streaming=True, stalls=Stalls(50, 80, 3))


@pytest.mark.slow
@pytest.mark.icarus
@both_languages
def test_the_watchdog_in_the_loop(icarus: str) -> None:
    """Its blocks and mask reach the Verilog; a unit that lacks a part of it says so."""
    names = ["gradient_floor", "norm_growth", "learning_dead"]
    config = ThrottleConfig.stability_margin(elements=5, lanes=2, eta=0.1, watchdog=names, gradient_floor=0.25, dead_after=2)
    weights, random = np.zeros(5, int), np.random.default_rng(1)
    golden = Throttle(config, weights, codes=True)
    with RtlThrottle(config, weights, codes=True, simulator=icarus) as rtl:
        for step in range(24):
            blocks = [1 << int(random.integers(20)) for _ in range(3)] if step % 3 else []
            for one in (golden, rtl):
                one.watchdog.blocks(blocks)
                one.watchdog.mask = 7 if step % 4 else 5
                if step == 13:
                    one.clear()
            gradient = random.integers(-2000, 2000, 5) * (step % 5 < 2)
            _, difference = compare(golden.step(gradient, codes=True), rtl.step(gradient, codes=True))
            assert difference is None, str(difference)
        assert golden.watchdog.fired == 7
        for energy in (-1, 1 << BLOCK_BITS):
            with pytest.raises(ValueError, match=f"energy must be an integer from 0 to {(1 << BLOCK_BITS) - 1}, not {energy}"):
                rtl.watchdog.blocks([energy])


def test_a_shard_needs_the_others() -> None:
    config = ThrottleConfig.stability_margin(elements=5, eta=0.1, population=9)
    with pytest.raises(ValueError, match="population must not be given here, where no other shards are, not 9"):
        RtlThrottle(config, np.zeros(5))
