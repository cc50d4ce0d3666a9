"""Units with segments in lockstep with the golden model, on their exported Verilog; and two networks on one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.segments import Segment
from kappa_rtl.golden.throttle import Throttle, real_of
from kappa_rtl.golden.training.units import unit_for
from kappa_rtl.hw.export import export
from kappa_rtl.sim.cosim import RtlThrottle, Stalls
from kappa_rtl.sim.difference import compare
from kappa_rtl.sim.stress.faults import Workload
from support.lockstep import lockstep
from support.simulators import both_languages
from support.strategies import exactly
from support.training import problem_model, train_alike

LAYOUT = [
    {"name": "kernel", "elements": 37, "scale": 3},
    {"name": "bias", "elements": 5},
    {"name": "gain", "elements": 16, "scale": 7},
]
UNIT: dict[str, Any] = {"elements": 58, "eta": 0.25, "lanes": 8, "segments": LAYOUT, "capacity": 90, "entries": 5}
OTHERS = (
    [Segment(90, 2, "all")],
    [Segment(1, 7, "a"), Segment(8, 0, "b"), Segment(9, 5, "c"), Segment(71, 1, "d"), Segment(1, 0, "e")],
    [Segment(2, 1, "two")],
)


def two_after_each_other(simulator: str, stalls: Stalls | None = None, **options: Any) -> None:
    """The configuration's layout, others after it, and its own again; the rate stays, all else begins anew."""
    config = ThrottleConfig.stability_margin(**UNIT, update="SQ1.15,stochastic", residual_bits=4)
    random = np.random.default_rng(5)
    theta = random.integers(-9000, 9000, config.elements)
    golden = Throttle(config, theta, codes=True)
    with RtlThrottle(config, theta, codes=True, simulator=simulator, stalls=stalls, **options) as rtl:
        for layout in (None, *OTHERS, config.segments):
            if layout is not None:
                theta = random.integers(-9000, 9000, sum(segment.elements for segment in layout))
                for unit in (golden, rtl):
                    unit.layout(layout, theta, codes=True)
                golden.set_rate(0.125)
                rtl.set_rate(0.125)
                assert golden.config == rtl.config
            for _ in range(3):
                gradient = random.integers(-3000, 3000, theta.size)
                _, difference = compare(golden.step(gradient, codes=True), rtl.step(gradient, codes=True))
                assert difference is None, f"{layout}: {difference}"
            assert (golden.weights == rtl.weights).all()


def test_several_networks_on_one_unit() -> None:
    two_after_each_other("verilator")


@pytest.mark.slow
@pytest.mark.ci
def test_several_networks_with_stalls() -> None:
    two_after_each_other("verilator", Stalls(100, 100, 7))
    two_after_each_other("verilator", streaming=True)


@pytest.mark.slow
@pytest.mark.ci
@pytest.mark.icarus
@both_languages
def test_several_networks_icarus(icarus: str) -> None:
    two_after_each_other(icarus)


@pytest.mark.slow
@pytest.mark.parametrize("law", ["inverse_curvature", "adgd", "clip_norm", "trust_ratio"])
def test_every_law(law: str) -> None:
    lockstep(ThrottleConfig.of_law(law, **UNIT), 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"source": "projection"}, {"motion": "applied"}, {"motion": "applied", "every_rail": True, "lanes": 3}]
)
def test_every_motion(options: dict[str, Any]) -> None:
    lockstep(ThrottleConfig.stability_margin(**UNIT | options), 20)


def test_formats_of_a_precision() -> None:
    """Binary points by layer, equal widths: one unit in hardware, and identical weights at every step of a training run."""
    _, model = problem_model(3, use_bias=True, activation="relu")
    layers = {
        "dense0": {"weight": "SQ2.10", "bias": "SQ2.10", "gradient": "SQ4.8", "update": "SQ1.11"},
        "dense1": {"weight": "SQ1.11", "bias": "SQ1.11", "gradient": "SQ3.11", "update": "SQ0.12"},
    }
    unit = unit_for(model, layers, eta=0.25, chi=1.9, lanes=2)
    assert [segment.scale for segment in unit.config.segments] == [0, 0, 1, 1]
    assert str(unit.config.gradient) == "SQ4.10"
    with RtlThrottle(unit.config, unit.weights) as rtl:
        train_alike((unit, rtl), layers)


def test_refused() -> None:
    config = ThrottleConfig.stability_margin(**UNIT)
    wrong = pytest.raises(ValueError, match=exactly("weights must have shape (3,), not (4,)"))
    with RtlThrottle(config, np.zeros(58)) as rtl, wrong:
        rtl.layout([Segment(3)], np.zeros(4))
    said = "segments must not be given with delay = 1, whose unit has no table of them, not 3"
    with pytest.raises(ValueError, match=exactly(said)):
        RtlThrottle(config.replace(delay=1), np.zeros(58))
    with pytest.raises(ValueError, match="segments must not be given with the weights on chip, whose unit has no table"):
        export(config, variant="engine")
    with pytest.raises(ValueError, match="parity must be false with segments, not True"):
        export(config.replace(parity=True))


def test_a_restart_brings_its_own_layout() -> None:
    """After a layout: the one that is asked for, or the very first again."""
    config = ThrottleConfig.stability_margin(**UNIT)
    theta = np.arange(58)
    with RtlThrottle(config, theta, codes=True) as rtl:
        rtl.layout(OTHERS[1], np.zeros(90))
        for again in (rtl.config, config):
            start = np.arange(again.elements) * 7
            rtl.restart(again, start, codes=True)
            golden = Throttle(again, start, codes=True)
            for step in range(2):
                gradient = np.arange(again.elements) * 31 - 900 * step
                _, difference = compare(golden.step(gradient, codes=True), rtl.step(gradient, codes=True))
                assert difference is None, str(difference)
        with pytest.raises(ValueError, match="config must differ from the unit's only in"):
            rtl.restart(config.replace(entries=6), theta, codes=True)


def test_what_a_host_is_told() -> None:
    """The manifest has the table as words, in order, the unused ones empty."""
    layout = export(ThrottleConfig.stability_margin(**UNIT))[1]["layout"]
    assert (layout["port"], layout["entries"], layout["elements_at_most"]) == ("s_axis_layout", 5, 90)
    assert layout["words"] == [37 | 3 << 7, 5, 16 | 7 << 7, 0, 0]


def test_the_workload_of_faults_lies_on_each_grid() -> None:
    config = ThrottleConfig.stability_margin(elements=64, eta=0.1, segments=[{"elements": 32, "scale": 7}, {"elements": 32}])
    plain = Workload(ThrottleConfig.stability_margin(elements=64, eta=0.1), 3)
    segmented = Workload(config, 3)
    weights = real_of(segmented.weights, config, "weight")
    rails = np.abs(weights[:32]).max()
    assert rails <= 2**-6 and np.abs(weights[32:] - plain.weights[32:] * 2.0**-14).max() == 0


def test_a_table_and_blocks_before_one_step() -> None:
    """More entries than blocks, and more blocks than entries: each goes in once, and nothing else does."""
    config = ThrottleConfig.stability_margin(**UNIT, watchdog=("norm_growth",), norm_growth="1.5")
    golden = Throttle(config, np.zeros(58))
    with RtlThrottle(config, np.zeros(58)) as rtl:
        for layout, blocks in ((OTHERS[0], [5]), (OTHERS[1], [7] * 12), (None, [1, 9]), (None, []), (OTHERS[2], [4, 3, 2])):
            if layout is not None:
                for unit in (golden, rtl):
                    unit.layout(layout, np.zeros(sum(segment.elements for segment in layout)))
            for unit in (golden, rtl):
                unit.watchdog.blocks(blocks)
            gradient = np.arange(golden.config.elements) * 40 - 300
            _, difference = compare(golden.step(gradient, codes=True), rtl.step(gradient, codes=True))
            assert difference is None, f"{layout}, {blocks}: {difference}"
