"""Shards of several formats under one law, against the oracle in exact rationals; and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.formats import Fixed, Rounding
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.golden.together import together
from support.spec import scales
from support.spec_shards import SpecShards
from support.strategies import OVERFLOWS, ROUNDINGS, codes, configs, exactly, vectors


@st.composite
def shards(draw: st.DrawFn, first: ThrottleConfig) -> list[ThrottleConfig]:
    """Two or three units of one law, with formats near those of the first."""

    def near(fmt: Fixed, *more: Rounding) -> Fixed:
        fraction, width = fmt.fraction_bits + draw(st.integers(-3, 3)), draw(st.integers(4, 20))
        rounding = draw(st.sampled_from([*ROUNDINGS, *more]))
        return Fixed(True, width - fraction, fraction, rounding, draw(st.sampled_from(OVERFLOWS)))

    grids, own = first.grids, first.direction is not None

    def segmented(config: ThrottleConfig) -> ThrottleConfig:
        """Now and then in segments, with room for a finer one than there is."""
        if draw(st.booleans()):
            return config
        cuts = sorted(draw(st.sets(st.integers(1, config.elements - 1), max_size=2))) if config.elements > 1 else []
        sizes = np.diff([0, *cuts, config.elements]).tolist()
        most = draw(st.integers(0, 3))
        return config.replace(
            segments=[{"elements": size, "scale": draw(st.integers(0, most))} for size in sizes],
            scale_max=most,
            motion=config.motion,
        )

    found = [segmented(first)]
    for _ in range(draw(st.integers(1, 2))):
        found.append(
            first.replace(
                elements=draw(st.integers(1, 6)),
                lanes=draw(st.integers(1, 4)),
                gradient=near(grids.gradient),
                weight=near(grids.weight),
                update=near(grids.update, Rounding.STOCHASTIC),
                direction=near(grids.direction) if own else None,
                residual_bits=draw(st.sampled_from([0, 2, 5])),
                seed=draw(st.integers(0, (1 << 32) - 1)),
                motion=first.motion,
            )
        )
        found[-1] = segmented(found[-1])
    return found


def drawn(data: st.DataObject, first: ThrottleConfig) -> list[ThrottleConfig]:
    """Shards that belong together, or an example that is not one."""
    assume(first.source != "ratio")
    try:
        found = data.draw(shards(first))
        together(found)
    except ValueError:
        assume(False)
    return found


@settings(max_examples=80)
@given(st.data(), configs(watchdog=("learning_dead", "scalar_overflow"), elements=5))
def test_shards_of_several_formats_are_the_oracle(data: st.DataObject, first: ThrottleConfig) -> None:
    parts = drawn(data, first)
    theta = [data.draw(st.lists(codes(c.grids.weight), min_size=c.elements, max_size=c.elements)) for c in parts]
    unit = ShardedThrottle(parts, [np.array(t) for t in theta], codes=True)
    oracle = SpecShards(parts, theta, str(unit.config.motion))
    projects = Source(first.source).is_projection
    for _ in range(data.draw(st.integers(2, 6))):
        gradients = [data.draw(vectors(c.grids.gradient, c.elements)) for c in parts]
        along = None
        if first.direction is not None or (not projects and data.draw(st.booleans())):
            along = [data.draw(vectors(c.grids.direction, c.elements)) for c in parts]
        record = unit.step([np.array(g) for g in gradients], None if along is None else [np.array(d) for d in along], codes=True)
        expected = oracle.step_all(gradients, along)
        registers = vars(record.registers)
        found = {name: list(value) if isinstance(value, tuple) else value for name, value in registers.items()}
        assert found == {name: expected[name] for name in registers}
        reals = zip(record.weights, (v for t in zip(parts, expected["theta"], strict=True) for v in _reals(*t)), strict=True)
        assert all(Fraction(found) == wanted for found, wanted in reals)
        moved = zip(record.update, (v for u in zip(parts, expected["update"], strict=True) for v in _updates(*u)), strict=True)
        ulp = unit.config.grids.update.ulp
        assert all(int(found) * ulp == wanted for found, wanted in moved)


def _reals(config: ThrottleConfig, theta: list[int]) -> list[Fraction]:
    return [code * config.grids.weight.ulp / 2**finer for code, finer in zip(theta, scales(config), strict=True)]


def _updates(config: ThrottleConfig, update: list[int]) -> list[Fraction]:
    return [code * config.grids.update.ulp / 2**finer for code, finer in zip(update, scales(config), strict=True)]


def pair(**of_second: Any) -> list[ThrottleConfig]:
    law: dict[str, Any] = {"eta": 0.5, "update": "SQ2.10"}
    return [
        ThrottleConfig.stability_margin(elements=3, gradient="SQ4.8", weight="SQ2.10", **law),
        ThrottleConfig.stability_margin(**{"elements": 2, "gradient": "SQ2.6", "weight": "SQ4.4", **law, **of_second}),
    ]


def test_the_whole_holds_all_formats_and_the_motion_is_the_intended_one() -> None:
    whole, parts = together(pair())
    assert (whole.elements, str(whole.gradient), str(whole.weight), str(whole.motion)) == (5, "SQ4.8", "SQ4.10", "intended")
    assert [str(part.motion) for part in parts] == ["intended", "intended"]
    assert [(part.gradient_shift, part.motion_shift) for part in parts] == [(0, 0), (4, 4)]
    assert whole.widths.gradient_energy == parts[0].widths.gradient_energy == parts[1].widths.gradient_energy
    assert whole.constants == parts[0].constants == parts[1].constants
    assert [part.registers()["energy_fractions"] for part in parts] == [{"A": 8, "B": 8}] * 2
    assert "energy_fractions" not in whole.registers()


def test_segments_lie_within_a_shard() -> None:
    """A shard of two scales beside one of other formats: shifts by segment, formats that hold all of them, codes of each grid."""
    first, second = pair()
    first = first.replace(segments=[{"elements": 1, "scale": 2}, {"elements": 2}], scale_max=3)
    whole, parts = together([first, second])
    assert (str(whole.gradient), str(whole.weight), whole.segments) == ("SQ4.11", "SQ4.13", ())
    assert [[one[1:] for one in part.stretches] for part in parts] == [[(2, 2), (6, 6)], [(10, 10)]]
    assert [(part.population, part.gradient_shift) for part in parts] == [(5, 0), (5, 10)]
    assert whole.widths.gradient_energy == parts[0].widths.gradient_energy
    unit = ShardedThrottle([first, second], [0.25 + 2.0**-12, 0.5, -1, 2, 3])
    assert [codes.tolist() for codes in unit.thetas] == [[1025, 512, -1024], [32, 48]]
    assert unit.weights.tolist() == [0.25 + 2.0**-12, 0.5, -1, 2, 3]
    message = "weights of shard 0 of segment1[0] must lie on the grid of SQ2.10, not 0.000244140625"
    with pytest.raises(ValueError, match=exactly(message)):
        ShardedThrottle([first, second], [0, 2.0**-12, 0, 0, 0])
    with pytest.raises(ValueError, match="segments must be in the configuration of a unit whose layout changes, not none"):
        unit.layout([{"elements": 5}], np.zeros(5))


def test_a_motion_that_was_given_and_is_one_stays() -> None:
    given = pair(motion="applied", residual_bits=2)[1]
    whole, parts = together([pair(motion="applied")[0], given])
    assert [str(one.motion) for one in (whole, *parts)] == ["applied"] * 3


def test_equal_formats_are_as_before() -> None:
    config = ThrottleConfig(elements=2, eta=0.5)
    whole, parts = together([config, config])
    assert whole == config.replace(elements=4)
    assert parts == [config.replace(population=4, seed=1 + k) for k in range(2)]


@pytest.mark.parametrize("name", ["values", "lists of values", "codes", "lists of codes"])
def test_a_step_takes_vectors_and_lists(name: str) -> None:
    theta, gradient = np.array([0.5, -0.25, 2.0**-10, 1.0625, -3.0]), np.array([0.25, 2.0**-8, -1, 0.5, -0.015625])
    unit, other = (ShardedThrottle(pair(), theta) for _ in range(2))
    wanted = unit.step(gradient)
    cut = [gradient[:3], gradient[3:]]
    given: Any = {
        "values": gradient.tolist(),
        "lists of values": cut,
        "codes": (gradient * 2**8).astype(np.int16),
        "lists of codes": [(cut[0] * 2**8).astype(np.int16), (cut[1] * 2**6).astype(np.int8)],
    }[name]
    found = other.step(given)
    assert found.registers == wanted.registers
    assert found.weights.tolist() == wanted.weights.tolist()
    assert other.weights.tolist() == found.weights.tolist()


def test_a_checkpoint_goes_on_to_the_bit_and_knows_its_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    unit = ShardedThrottle(pair(update="SQ2.6,stochastic", residual_bits=3), np.zeros(5))
    gradients = rng.integers(-100, 100, (8, 5)) / 64
    for gradient in gradients[:4]:
        unit.step(gradient)
    unit.save(tmp_path / "unit.npz")
    other = ShardedThrottle(pair(update="SQ2.6,stochastic", residual_bits=3), np.ones(5))
    other.load(tmp_path / "unit.npz")
    for gradient in gradients[4:]:
        assert unit.step(gradient).registers == other.step(gradient).registers
    assert np.array_equal(unit.theta, other.theta)
    stranger = ShardedThrottle(pair(update="SQ2.6,stochastic", residual_bits=4), np.ones(5))
    with pytest.raises(ValueError, match=r"^.*unit\.npz: parts must be .* as here"):
        stranger.load(tmp_path / "unit.npz")


class Meeting:
    """Sums lists of integers over holders that run at the same time; and keeps what each of them said."""

    def __init__(self, holders: int) -> None:
        self.said: list[list[list[int]]] = [[] for _ in range(holders)]
        self._barrier = threading.Barrier(holders, timeout=30)

    def of(self, holder: int) -> Callable[[Sequence[int]], list[int]]:
        def exchange(found: Sequence[int]) -> list[int]:
            self.said[holder].append([*found])
            self._barrier.wait()
            total = [sum(column) for column in zip(*(said[-1] for said in self.said), strict=True)]
            self._barrier.wait()
            return total

        return exchange


def test_shards_elsewhere_make_the_same_steps() -> None:
    """Two holders of one shard each: what is exchanged are two integers a step, and whether a weight moved."""
    whole, meeting, cuts = ShardedThrottle(pair(), np.zeros(5)), Meeting(2), [slice(0, 3), slice(3, 5)]
    gradients = np.random.default_rng(1).integers(-60, 60, (6, 5)) / 64
    gradients[2, :3] = gradients[3] = 0  # the first shard stands still; all do
    held = [ShardedThrottle(pair(), np.zeros(n), held=[k], exchange=meeting.of(k)) for k, n in ((0, 3), (1, 2))]
    with ThreadPoolExecutor(2) as pool:
        records = [
            [*pool.map(lambda unit, cut, g=gradient: unit.step(g[cut]), held, cuts)]  # type: ignore[misc]
            for gradient in gradients
        ]
    for gradient, found in zip(gradients, records, strict=True):
        wanted = whole.step(gradient)
        assert np.array_equal(np.concatenate([one.theta for one in found]), wanted.theta)
        for one in found:
            assert {name: getattr(one.registers, name) for name in ("A", "B", "curvature", "alpha", "still")} == {
                name: getattr(wanted.registers, name) for name in ("A", "B", "curvature", "alpha", "still")
            }
    assert [[len(one) for one in said] for said in meeting.said] == [[1, 2] * 6] * 2


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([], "configs must be of one shard at least, not []"),
        ([{"elements": 1}], "configs[0] must be a ThrottleConfig, not {'elements': 1}"),
        (
            [ThrottleConfig(elements=2, eta=0.5, segments=1, capacity=3), ThrottleConfig(elements=1, eta=0.5)],
            "configs[0].capacity must be its elements = 2 beside other shards, not 3: their widths and constants are of all "
            "elements that there are",
        ),
        (pair(eta=0.25), "eta must be the same in all shards, not 1/2 in shard 0 and 1/4 in 1"),
        (
            pair(weight="SQ20.4", gradient="SQ25.0"),
            "gradient: what holds SQ4.8, SQ25.0 of the shards, scale_max of each included, must be at most 32 bits wide, not 33",
        ),
    ],
)
def test_shards_that_do_not_belong_together(shards: Any, message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        together(shards)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"weight_grid": "SQ2.14"},
            "weight_grid must not be given without population, not SQ2.14: it is of what shards exchange",
        ),
        (
            {"population": 4, "gradient_grid": "SQ4.10"},
            "gradient_grid must hold SQ4.12 of this shard, not SQ4.10: as many integer and fraction bits",
        ),
        (
            {"population": 4, "direction": "SQ8.8", "direction_grid": "SQ4.12"},
            "direction_grid must hold SQ8.8 of this shard, not SQ4.12: as many integer and fraction bits",
        ),
    ],
)
def test_shared_formats_are_checked(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        ThrottleConfig(elements=4, eta=0.5, **fields)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"sizes": [3, 2]}, "sizes must not be given with a list of configurations, which have them, not [3, 2]"),
        ({"held": [2]}, "held must be numbers of shards from 0 to 1, each once, not [2]"),
        ({"held": []}, "held must be numbers of shards from 0 to 1, each once, not []"),
        ({"held": [1]}, "exchange must be given where only some shards are held, [1] of 2"),
    ],
)
def test_what_is_held_is_checked(how: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=exactly(message)):
        ShardedThrottle(pair(), np.zeros(5), **how)


def test_values_off_a_shards_own_grid_are_refused() -> None:
    message = "gradient of shard 1[0] must lie on the grid of SQ2.6, not 0.00390625"
    with pytest.raises(ValueError, match=exactly(message)):
        ShardedThrottle(pair(), np.zeros(5)).step([0, 0, 0, 2.0**-8, 0])
    with pytest.raises(ValueError, match=exactly("gradient must have 2 vectors, one a shard, not 1")):
        ShardedThrottle(pair(), np.zeros(5)).step([np.zeros(5)])


def test_a_unit_of_the_common_formats_agrees_where_the_shards_grids_do_not_round() -> None:
    """Weights of one shard coarse, its updates on its grid by themselves: then one unit of the common formats does the same."""
    parts = [
        ThrottleConfig(elements=2, eta=1, weight="SQ4.8", update="SQ4.8", gain=0),
        ThrottleConfig(elements=2, eta=1, weight="SQ6.4", update="SQ6.4", gain=0),
    ]
    many = ShardedThrottle(parts, np.zeros(4))
    one = Throttle(many.config, np.zeros(4))
    for gradient in ([0.5, 1 / 256, 0.0625, -1], [0, 0, -3.5, 0.25]):
        assert many.step(gradient).weights.tolist() == one.step(gradient).weights.tolist()
