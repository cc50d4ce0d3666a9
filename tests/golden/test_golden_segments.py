"""Segments: binary points of their own under one alpha, against the oracle, against units without them, and refused."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden import compiled, segments
from kappa_rtl.golden.compiled import CompiledShard
from kappa_rtl.golden.config import Motion, Source, ThrottleConfig
from kappa_rtl.golden.reference import FloatThrottle
from kappa_rtl.golden.segments import Segment
from kappa_rtl.golden.throttle import Throttle
from support.engines import difference
from support.pair import Pair, small
from support.strategies import codes, configs, exactly, vectors

THREE = ({"name": "a", "elements": 3, "scale": 2}, {"name": "b", "elements": 5}, {"name": "c", "elements": 1, "scale": 7})


def of(*layout: tuple[int, int], **more: Any) -> ThrottleConfig:
    """A small unit with segments of (elements, scale)."""
    given = [{"elements": n, "scale": scale} for n, scale in layout]
    return small(**{"elements": sum(n for n, _ in layout), "segments": given, **more})


# ------------------------------------------------------------------------------------------- the numbers


def test_runs_against_the_oracle() -> None:
    """Any configuration with segments, adversarial vectors, other rates; all that segments touch was met."""
    met: Counter[str] = Counter()

    @settings(max_examples=200)
    @given(st.data(), configs(segmented=True))
    def runs(data: st.DataObject, config: ThrottleConfig) -> None:
        n = config.elements
        pair = Pair(config, data.draw(st.lists(codes(config.grids.weight), min_size=n, max_size=n)))
        gradients, directions = vectors(config.grids.gradient, n), vectors(config.grids.direction, n)
        for _ in range(data.draw(st.integers(1, 6))):
            any_or_none = st.none() if Source(config.source).is_projection else st.one_of(st.none(), directions)
            now = pair.step(data.draw(gradients), data.draw(directions if config.direction else any_or_none))
            unequal = len({segment.scale for segment in config.segments}) > 1
            met["unequal scales"] += unequal and now["A"] > 0 and now["B"] > 0
            met["random"] += config.stochastic and any(now["update"]) and config.lanes > 1
            met["residuals"] += config.residual_bits > 0 and any(now["update"])
            met["delay"] += config.delay and any(now["update"])
            met[f"{config.motion} {config.source}"] += unequal and now["curvature"][0] > 0
            met["floor"] += now["watchdog"] & 1 and unequal
            met["still"] += now["still"] and now["curvature"][0] > 0
            if data.draw(st.integers(0, 4)) == 0:
                pair.set_rate(Fraction(config.eta_max) * data.draw(st.sampled_from([0, 1, Fraction(1, 3)])))  # type: ignore[arg-type]

    runs()
    for source in Source:
        for motion in ("intended", "applied"):
            if (motion == "intended" and not source.is_curvature) or (motion == "applied" and source.is_projection):
                continue
            pair = Pair(of((3, 1), (2, 0), (4, 3), source=source, motion=motion, lanes=2), list(range(9)))
            for step in range(3):
                now = pair.step([1000 * (3 - step) * (-1) ** n + n for n in range(9)])
                met[f"{motion} {source}"] += now["curvature"][0] > 0
    wanted = {"unequal scales", "random", "residuals", "delay", "floor", "still"}
    wanted |= {f"{Motion.INTENDED} {source}" for source in Source if source.is_curvature}
    wanted |= {f"{Motion.APPLIED} {source}" for source in Source if not source.is_projection}
    assert not wanted - set(+met), sorted(wanted - set(+met))


@pytest.mark.skipif(compiled.compiler() is None, reason='numba is not installed: pip install "kappa-rtl[fast]"')
@settings(max_examples=25)
@given(configs(segmented=True), st.integers(0, 99))
def test_compiled(config: ThrottleConfig, seed: int) -> None:
    found = difference(config, CompiledShard, seed, steps=4)
    assert found is None, found


@settings(max_examples=40)
@given(st.data(), configs(segmented=False, lanes=1))
def test_one_segment_is_the_unit(data: st.DataObject, plain: ThrottleConfig) -> None:
    """All elements in one segment, of any scale: the unit whose formats have so many fraction bits more; A and B too."""
    scale = data.draw(st.integers(0, 7))
    moved = {
        name: segments_format(getattr(plain, name), -scale)
        for name in ("gradient", "weight", "update", "direction")
        if getattr(plain, name) is not None
    }
    laid = plain.replace(**moved, segments=[Segment(plain.elements, scale)], scale_max=scale, entries=1, motion=plain.motion)
    n = plain.elements
    theta = np.array(data.draw(st.lists(codes(plain.grids.weight), min_size=n, max_size=n)))
    one, other = Throttle(plain, theta, codes=True), Throttle(laid, theta, codes=True)
    for _ in range(4):
        gradient = np.array(data.draw(vectors(plain.grids.gradient, n)))
        along = np.array(data.draw(vectors(plain.grids.direction, n))) if plain.direction else None
        a, b = (unit.step(gradient, along, codes=True) for unit in (one, other))
        assert a.registers == b.registers
        assert (a.theta == b.theta).all() and (a.weights == b.weights).all() and (a.update_values == b.update_values).all()


def segments_format(fmt: Any, bits: int) -> Any:
    """A format of that width whose grid is finer by so many bits; the counterpart of ``grids_at``."""
    return type(fmt)(fmt.signed, fmt.integer_bits - bits, fmt.fraction_bits + bits, fmt.rounding, fmt.overflow)


def test_a_scale_is_the_grid_alone() -> None:
    """What is shown as real values: the same weights and gradients, on a grid finer by two bits where the scale is 2."""
    config = of((2, 2), (1, 0), weight="SQ2.6", gradient="SQ4.4", update="SQ2.6")
    unit = Throttle(config, [2**-8, -(2**-8), 2**-6])
    assert unit.theta.tolist() == [1, -1, 1]
    record = unit.step([2**-6, 0, 2**-4])
    assert record.theta.tolist() == unit.theta.tolist()
    assert record.weights.tolist() == unit.weights.tolist() == (unit.theta * np.array([2**-8, 2**-8, 2**-6])).tolist()
    assert (record.update_values == record.update * np.array([2**-8, 2**-8, 2**-6])).all()
    with pytest.raises(ValueError, match=r"gradient of segment1\[0\] must lie on the grid of SQ4.4, not 0.015625"):
        unit.step([2**-6, 0, 2**-6])


def test_the_float_unit_takes_the_same_codes() -> None:
    config = of((2, 3), (2, 0), lanes=2)
    exact, real = Throttle(config, np.zeros(4)), FloatThrottle(config, np.zeros(4))
    for step in range(5):
        gradient = np.array([800, -900, 70, 5]) * (step + 1)
        a, b = exact.step(gradient, codes=True), real.step(gradient, codes=True)
        assert float(a.registers.norm_gradient) == pytest.approx(b.registers.norm_gradient, rel=1e-6)
        assert a.weights == pytest.approx(b.weights, abs=2**-14)


# ------------------------------------------------------------------------------------------- another network


def test_another_layout_begins_anew() -> None:
    """As a new unit of that layout, but for the rate."""
    config = of((3, 1), (4, 0), capacity=12, entries=3, update="SQ1.15,stochastic", residual_bits=4, motion="applied")
    unit = Throttle(config, np.arange(7), codes=True)
    for _ in range(3):
        unit.step(np.full(7, 500), codes=True)
    unit.set_rate(Fraction(1, 4))
    other = [Segment(1, 4, "x"), Segment(6, 0, "y"), Segment(5, 7, "z")]
    unit.layout(other, np.ones(12, int), codes=True)
    fresh = Throttle(config.replace(segments=other, elements=12, capacity=12), np.ones(12, int), codes=True)
    fresh.set_rate(Fraction(1, 4))
    assert unit.config == fresh.config and unit.config.elements == 12 and unit.config.words == config.words
    for step in range(4):
        gradient = np.arange(12) * 300 - 100 * step
        a, b = unit.step(gradient, codes=True), fresh.step(gradient, codes=True)
        assert a.step == b.step == step and a.registers == b.registers and (a.theta == b.theta).all()
    assert unit.config.widths == config.widths, "the hardware is the same"


def test_a_layout_that_does_not_fit() -> None:
    unit = Throttle(of((3, 1), (4, 0), scale_max=3), np.arange(7), codes=True)
    before = unit.config
    for layout, message in (
        ([{"elements": 8}], "segments must have from 1 to capacity = 7 elements together, not 8"),
        ([], "segments must have from 1 to capacity = 7 elements together, not 0"),
        ([{"elements": 1}] * 3, "segments[1].name must be a name that no other segment has, not 'segment0'"),
        ([{"elements": 1, "scale": 4}], "segments[0].scale must be an integer from 0 to 3, not 4"),
        ([Segment(1, 0, str(k)) for k in range(3)], "segments must be at most entries = 2, not 3"),
    ):
        if layout and layout == [{"elements": 1}] * 3:
            layout = [{"elements": 1, "name": "segment0"}] * 3
        with pytest.raises(ValueError, match=exactly(message)):
            unit.layout(layout, np.zeros(1))
    with pytest.raises(ValueError, match=exactly("weights must have shape (2,), not (3,)")):
        unit.layout([Segment(2)], np.zeros(3))
    assert unit.config is before
    with pytest.raises(ValueError, match="segments must be in the configuration of a unit whose layout changes"):
        Throttle(small(), [0, 0]).layout([Segment(2)], [0, 0])


def test_a_saved_unit_goes_on() -> None:
    config = of((3, 1), (4, 5), lanes=2, update="SQ1.15,stochastic", residual_bits=4)
    one = Throttle(config, np.arange(7), codes=True)
    one.step(np.arange(7) * 100, codes=True)
    two = Throttle(config, np.zeros(7))
    two.load_state_dict(one.state_dict())
    a, b = (unit.step(np.arange(7) * 300, codes=True) for unit in (one, two))
    assert a.registers == b.registers and (a.theta == b.theta).all()
    with pytest.raises(ValueError, match="segments"):
        Throttle(of((4, 1), (3, 5), lanes=2, update="SQ1.15,stochastic", residual_bits=4), np.zeros(7)).load_state_dict(
            one.state_dict()
        )


# ------------------------------------------------------------------------------------------- the configuration


def test_from_a_file(tmp_path: Any) -> None:
    path = tmp_path / "unit.toml"
    path.write_text(
        "[throttle]\neta = 0.5\nlanes = 4\nentries = 8\ncapacity = 100\n"
        '[[throttle.segments]]\nname = "kernel"\nelements = 30\nscale = 3\n'
        '[[throttle.segments]]\nname = "bias"\nelements = 5\n'
    )
    config = ThrottleConfig.from_toml(path)
    assert config.segments == (Segment(30, 3, "kernel"), Segment(5, 0, "bias"))
    assert (config.elements, config.entries, config.room, config.beats, config.tail) == (35, 8, 100, 10, 1)
    assert config.words == (100 + 8 * 3) // 4
    assert ThrottleConfig.from_table(config.to_table()) == config
    assert config.registers()["segments"][0] == {"name": "kernel", "elements": 30, "scale": 3}
    assert config.registers()["energy_fractions"] == {"A": 19, "B": 19}


@given(st.integers(1, 9), st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 3))
def test_any_layout_within_the_capacity_fits_the_memory(lanes: int, sizes: list[int], spare: int) -> None:
    layout = [Segment(n) for n in sizes]
    assert segments.beats(layout, lanes) <= segments.words(sum(sizes), len(sizes) + spare, lanes)


def test_places() -> None:
    layout = [Segment(3), Segment(4, 2)]
    assert segments.in_beats(layout, 4).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert segments.in_beats(layout, 2).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert segments.in_beats([Segment(2), Segment(3)], 2).tolist() == [0, 1, 2, 3, 4]
    assert segments.scales(layout).tolist() == [0] * 3 + [2] * 4


def test_no_segments_is_the_unit_of_before() -> None:
    plain = small()
    assert plain.segments == () and plain.entries == 0 and plain.words == plain.beats
    assert not {"segments", "entries", "scale_max", "capacity"} & set(plain.to_table())
    assert "segments" not in plain.registers()
    assert small(scale_max=3) == plain, "a scale of nothing"
    finer = plain.grids_at(3)
    assert finer.step == plain.step and finer.weight.width == plain.grids.weight.width
    assert all(finer[k].fraction_bits == plain.grids[k].fraction_bits + 3 for k in (0, 1, 2, 4))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"segments": [{"elements": 3}]}, "elements must be the sum of those of the segments, 3, not 2"),
        ({"segments": [{"elements": 1}]}, "elements must be the sum of those of the segments, 1, not 2"),
        ({"segments": "a"}, "segments must be a number or a list of segments, not 'a'"),
        ({"segments": [3]}, "segments[0] must be a table with elements, scale and name, not 3"),
        ({"segments": [{"scale": 1}]}, "segments[0].elements must be given"),
        ({"segments": [{"elements": 0}]}, f"segments[0].elements must be an integer from 1 to {1 << 32}, not 0"),
        ({"segments": [{"elements": 2, "scale": 8}]}, "segments[0].scale must be an integer from 0 to 7, not 8"),
        ({"segments": [{"elements": 2, "size": 8}]}, "segments[0]: size is no field of a segment; it has elements, scale, name"),
        ({"segments": [{"elements": 2, "name": 1}]}, "segments[0].name must be text, not 1"),
        ({"segments": [Segment(1), Segment(1)], "entries": 1}, "segments must be at most entries = 1, not 2"),
        ({"segments": 2, "entries": 3}, "entries must be 2, as segments says, not 3"),
        ({"segments": 2, "capacity": 1}, f"capacity must be an integer from 2 to {1 << 32}, not 1"),
        ({"capacity": 4}, "capacity must not be given without segments, not 4"),
        ({"segments": 2, "population": 4, "capacity": 5}, "capacity must be an integer from 2 to 4, not 5"),
        (
            {"segments": 2, "population": 4, "gradient_grid": "SQ4.18"},
            "gradient_grid must hold SQ4.19 of this shard, not SQ4.18: as many integer and fraction bits",
        ),
        ({"segments": 65}, "segments must be an integer from 0 to 64, not 65"),
        ({"segments": 2, "scale_max": 8}, "scale_max must be an integer from 0 to 7, not 8"),
    ],
)
def test_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        small(**changes)
