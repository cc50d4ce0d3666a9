"""The compiled engine against numpy, bit for bit: sums, counts, updates, weights, residuals, random numbers, whole units."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kappa_rtl.golden import compiled, engines
from kappa_rtl.golden.compiled import CompiledShard, step_split
from kappa_rtl.golden.config import Source, ThrottleConfig
from kappa_rtl.golden.kernels import STRETCH
from kappa_rtl.golden.shard import Shard
from kappa_rtl.golden.sharded import ShardedThrottle
from kappa_rtl.golden.throttle import Throttle
from support.engines import KINDS, MORE, configurations, difference, unlike, vector
from support.strategies import configs, exactly

needs_numba = pytest.mark.skipif(compiled.compiler() is None, reason='numba is not installed: pip install "kappa-rtl[fast]"')


# ---------------------------------------------------------------- the two passes


def agree(kind: Any, seed: int, count: int) -> None:
    for place, config in enumerate(configurations(kind, seed, count)):
        found = difference(config, CompiledShard, place)
        assert found is None, f"{found}, with {config}"


@needs_numba
@pytest.mark.parametrize("name", KINDS)
def test_a_kind(name: str) -> None:
    """All roundings and overflows, widths, shifts, sizes and steps of what one loop is compiled for."""
    agree(KINDS[name], 1, 150)


@needs_numba
@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS | MORE)
def test_every_kind(name: str) -> None:
    agree((KINDS | MORE)[name], 2, 400)


@needs_numba
@pytest.mark.slow
@settings(max_examples=100)
@given(configs(), st.integers(0, 99))
def test_any_configuration(config: ThrottleConfig, seed: int) -> None:
    found = difference(config, CompiledShard, seed, steps=6)
    assert found is None, found


def test_the_kinds_reach_both_words() -> None:
    """The step in one part and in two, and 64 bits."""
    splits = {name: {step_split(config) for config in configurations(kind, 1, 150)} for name, kind in KINDS.items()}
    assert all(splits[name] >= {0, 2, 4, 6} for name in ("plain", "folds", "kept", "ratio"))
    assert splits["wide"] == splits["wide_kept"] == {None}


@needs_numba
@pytest.mark.parametrize("source", ["max", "projection", "norm"])
@pytest.mark.parametrize("width", [16, 32])
def test_sums_of_the_largest(source: str, width: int) -> None:
    """Every limb full: both rails in turn, in each of many elements."""
    n = 2 * STRETCH + 3
    config = ThrottleConfig(elements=n, eta=1, gradient=f"SQ{width}.0", update="SQ16.0", weight="SQ16.0", source=source)
    least, most = np.full(n, -(1 << width - 1)), np.full(n, (1 << width - 1) - 1)
    one, other = (kind(config, np.zeros(n, np.int16)) for kind in (Shard, CompiledShard))
    for codes in (least, most, least, least):
        gradient = codes.astype(f"int{width}")
        assert one.absorb(gradient) == other.absorb(gradient)


@needs_numba
@pytest.mark.parametrize("overflow", ["saturate_symmetric", "wrap"])
def test_the_motion_of_the_largest(overflow: str) -> None:
    """From a code that only the word holds, and from one end of the grid to the other."""
    n = STRETCH + 5
    config = ThrottleConfig(
        elements=n, eta=1, update=f"SQ17.0,floor,{overflow}", gradient="SQ16.0", weight=f"SQ16.0,floor,{overflow}"
    )
    theta = np.full(n, -(1 << 15), np.int16)
    one, other = (kind(config, theta) for kind in (Shard, CompiledShard))
    for step in (0, 1, config.initial_step, config.step.rails[1], 0):
        for code in (-(1 << 15), 1, (1 << 15) - 1):
            direction = np.full(n, code, np.int16)
            assert one.apply(direction, step)[1] == other.apply(direction, step)[1]
            assert unlike(one.state_dict(), other.state_dict()) is None


@needs_numba
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of unequal size, more than there are threads, and fewer elements than would be worth any."""
    monkeypatch.setattr(compiled, "WORTH", 8)
    monkeypatch.setattr(compiled, "CHUNK", 1000)
    for threads in (2, 3, 7):
        for place, config in enumerate(configurations(KINDS["kept"], threads, 20)):
            made: Callable[..., Shard] = engines.shards("numba", threads)
            assert difference(config, made, place) is None


# ---------------------------------------------------------------- whole units


@needs_numba
@pytest.mark.parametrize("name", ["plain", "kept", "wide_kept"])
def test_a_unit(name: str) -> None:
    """Registers, weights and updates; and each engine goes on where the other has stopped."""
    for place, config in enumerate(configurations(KINDS[name], 5, 12)):
        random = np.random.default_rng(place)
        n, grids = config.elements, config.grids
        theta = vector(random, grids.weight, n)
        one = Throttle(config, theta, codes=True)
        other = Throttle(config, theta, codes=True, engine="numba", threads=2)
        for count in range(6):
            if count == 3:  # they change places
                state, again = one.state_dict(), other.state_dict()
                assert unlike(state, again) is None
                one.load_state_dict(again)
                other.load_state_dict(state)
            gradient = vector(random, grids.gradient, n)
            a, b = one.step(gradient, codes=True), other.step(gradient, codes=True)
            assert a.registers == b.registers
            assert np.array_equal(a.theta, b.theta) and np.array_equal(a.update, b.update)
            assert np.array_equal(one.residual, other.residual)
        fresh = vector(random, grids.weight, n)
        for unit in (one, other):
            unit.load_weights(fresh, codes=True)
        a, b = (unit.step(gradient, codes=True) for unit in (one, other))
        assert a.registers == b.registers and np.array_equal(a.theta, b.theta)


@needs_numba
def test_shards() -> None:
    config = ThrottleConfig.stability_margin(elements=100, eta=0.1)
    random = np.random.default_rng(0)
    theta = vector(random, config.grids.weight, 100)
    one, other = ShardedThrottle(config, theta, [60, 40]), ShardedThrottle(config, theta, [60, 40], engine="numba")
    for _ in range(4):
        gradient = vector(random, config.grids.gradient, 100)
        a, b = one.step(gradient), other.step(gradient)
        assert a.registers == b.registers and np.array_equal(a.theta, b.theta) and np.array_equal(a.update, b.update)


@needs_numba
def test_files(tmp_path: Path) -> None:
    """What one engine saves the other loads."""
    config = ThrottleConfig.stability_margin(elements=9, eta=0.1, residual_bits=4)
    one, other = Throttle(config, np.zeros(9), engine="numba"), Throttle(config, np.zeros(9))
    gradient = vector(np.random.default_rng(0), config.grids.gradient, 9)
    one.step(gradient)
    one.save(tmp_path / "unit.npz")
    other.load(tmp_path / "unit.npz")
    assert one.step(gradient).registers == other.step(gradient).registers


# ---------------------------------------------------------------- the choice


@pytest.mark.parametrize("name", ["numpy ", "torch", None, 1])
def test_engines_have_names(name: Any) -> None:
    with pytest.raises(ValueError, match=exactly(f"engine must be one of numpy, numba, auto, not {name!r}")):
        Throttle(ThrottleConfig(elements=1, eta=1), [0], engine=name)


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2"])
def test_threads_are_positive(threads: Any) -> None:
    for engine in engines.ENGINES:
        with pytest.raises(ValueError, match=exactly(f"threads must be an integer of at least 1, not {threads!r}")):
            ShardedThrottle(ThrottleConfig(elements=1, eta=1), [0], [1], engine=engine, threads=threads)


def test_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert engines.shards("auto", 1) is engines.shards("numpy", 4) is Shard
    said = "engine must be numpy or auto where numba is not installed (pip install \"kappa-rtl[fast]\"), not 'numba'"
    with pytest.raises(ValueError, match=exactly(said)):
        engines.shards("numba", 1)


@needs_numba
def test_auto_takes_numba() -> None:
    config = ThrottleConfig(elements=1, eta=1)
    assert isinstance(engines.shards("auto", 1)(config, np.zeros(1, np.int16)), CompiledShard)
    assert type(engines.shards("numpy", 1)(config, np.zeros(1, np.int16))) is Shard


def test_numpy_never_asks_for_numba() -> None:
    program = (
        "import sys; from kappa_rtl import Throttle, ThrottleConfig; Throttle(ThrottleConfig(elements=1, eta=1), [0]).step([0])"
    )
    subprocess.run([sys.executable, "-c", f"{program}; assert 'numba' not in sys.modules"], check=True)


# ---------------------------------------------------------------- compiled once

PROGRAM = """
from kappa_rtl import Throttle, ThrottleConfig
unit = Throttle(ThrottleConfig(elements=1, eta=1), [0], engine="numba")
unit.step([0])
shard, = unit._shards
print(*(sum(loop.stats.cache_misses.values()) for loop in (shard._absorb, shard._apply)))
"""


@needs_numba
def test_the_next_process_compiles_nothing(tmp_path: Path) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for _ in range(2)
    ]
    assert said == ["1 1\n", "0 0\n"]


def test_without_a_folder_for_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be written a loop is compiled for this process alone."""
    asked: list[dict[str, bool]] = []

    class Numba:
        @staticmethod
        def njit(**options: bool) -> Callable[[Any], Any]:
            asked.append(options)
            if options.get("cache"):
                raise RuntimeError("cannot cache function: no locator available")
            return lambda loop: loop

    monkeypatch.setitem(sys.modules, "numba", Numba)
    loop = compiled.compiled.__wrapped__(lambda flag: f"a loop, {flag}", True)
    assert loop == "a loop, True"
    assert asked == [{"nogil": True, "cache": True}, {"nogil": True}]


@needs_numba
def test_sources_without_a_change_take_their_own_loops() -> None:
    """A loop is compiled once for all sources that ask the same of it."""
    loops = {
        source: CompiledShard(
            ThrottleConfig(elements=1, eta=1, motion="intended" if source.is_projection else "applied", source=source),
            np.zeros(1, np.int16),
        )._absorb
        for source in Source
    }
    assert loops[Source.MAX] is loops[Source.EMA] is loops[Source.INSTANT] is not loops[Source.NORM]
    assert loops[Source.NORM] is loops[Source.RATIO] is not loops[Source.PROJECTION]
