"""The scalar part of a step against the oracle: the first step, still steps, what raises a flag."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from support import spec
from support.pair import Pair, small, value

# -------------------------------------------------------------------------------------------------- the first step


def test_first_step_sees_no_curvature() -> None:
    """P is 0, so A is the energy of G; C and S stay 0, and B = 0 is not a still step."""
    now = Pair(small(), [0, 0]).step([4096 * 3, -4096 * 4])
    assert now["A"] == 25 * 4096**2
    assert value(now["norm_gradient"]) == 5
    assert now["norm_motion"] == now["curvature"] == now["ema"] == [0, 0]
    assert (now["still"], now["still_steps"]) == (False, 0)
    assert value(now["alpha"]) == 1
    assert now["step_size"] == 2**16
    assert now["update"] == [-(2**15), 2**15 - 1]  # -1.5 and 2 beyond the rails of SQ1.15
    assert now["theta"] == [-(2**14), 2**14]  # the upper rail of y, an ulp short of 1, is a tie on the weight grid: to even


def test_second_step_divides_by_what_was_applied() -> None:
    pair = Pair(small(), [0, 0])
    pair.step([4096, 0])  # moves the first weight by -1/2
    now = pair.step([4096, 2048])  # the gradient changes by 1/2
    assert value(now["norm_motion"]) == value(now["norm_gradient"]) == Fraction(1, 2)
    assert value(now["curvature"]) == 1
    assert value(now["alpha"]) == Fraction(1, 2)
    assert now["step_size"] == 2**15
    assert now["update"] == [-(2**13), -(2**12)]


def test_previous_gradient_is_g_and_not_the_direction() -> None:
    pair = Pair(small(), [0, 0])
    now = pair.step([4096, 0], [0, 4096])
    assert now["update"] == [0, -(2**14)]
    assert pair.step([4096, 0], [4096, 4096])["A"] == 0


@pytest.mark.parametrize(("start", "ema"), [("first", 1), ("zero", Fraction(1, 4))])
def test_ema_starts_from_the_first_curvature_or_from_zero(start: str, ema: Fraction) -> None:
    pair = Pair(small(ema_start=start, rho=0.25, source="ema"), [0, 0])
    assert value(pair.step([4096, 0])["ema"]) == 0
    now = pair.step([4096, 2048])
    assert value(now["curvature"]) == 1 and value(now["ema"]) == ema
    after = pair.step([4096, 2048])  # no change of the gradient: C = 0, S decays from the second curvature on
    assert value(after["curvature"]) == 0 and value(after["ema"]) == ema * Fraction(3, 4)


def test_disabled_reports_alpha_but_does_not_apply_it() -> None:
    pair = Pair(small(enabled=False), [0, 0])
    pair.step([4096, 0])
    now = pair.step([4096, 2048])
    assert value(now["alpha"]) == Fraction(1, 2)
    assert now["step_size"] == 2**16


@pytest.mark.parametrize(("source", "x"), [("instant", Fraction(1, 2)), ("ema", Fraction(11, 16)), ("max", Fraction(11, 16))])
def test_source_when_curvature_falls(source: str, x: Fraction) -> None:
    pair = Pair(small(source=source, ema_start="first", rho=0.25, enabled=False), [0, 0])
    pair.step([4096, 0])
    pair.step([4096, 2048])  # C = S = 1; the motion is (-1/2, -1/4)
    pair.step([4096, 2048], [2048, 0])  # C = 0, S = 3/4; the motion is (-1/4, 0)
    now = pair.step([4096, 2560])  # C = (1/8) / (1/4) = 1/2
    assert value(now["curvature"]) == Fraction(1, 2) and value(now["ema"]) == Fraction(11, 16)
    assert value(now["alpha"]) == spec.Scalars(24, 10).rnd(1 / (1 + x))


# -------------------------------------------------------------------------------------------------- still steps


def into_still(on_still: str, **changes: Any) -> tuple[Pair, dict[str, Any], dict[str, Any]]:
    """Two moving steps, one that moves nothing, and the still one that follows it: the pair and the last two results."""
    pair = Pair(small(on_still=on_still, ema_start="first", source="max", eps=2.0**-10, **changes), [0, 0])
    pair.step([4096, 0])
    pair.step([4096, 2048])
    before = pair.step([4096, 2048], [0, 0])
    assert before["B"] == 0 and not before["still"]
    now = pair.step([4096, 2048 + 512])
    assert now["still"] and now["still_steps"] == 1 and now["norm_motion"] == [0, 0]
    return pair, before, now


def test_still_floor_divides_by_what_the_weight_grid_resolves() -> None:
    pair, before, now = into_still("floor")
    want = pair.oracle.scalars.div(Fraction(1, 8), pair.oracle.k["still_norm"])
    assert value(now["curvature"]) == want > 2000
    assert now["ema"] == before["ema"]


def test_still_release_forgets() -> None:
    """C as with the floor; S is what it was, times keep: a run that stands still goes on once alpha has grown again."""
    pair, before, now = into_still("release")
    assert now["curvature"] == into_still("floor")[2]["curvature"]
    assert value(now["ema"]) == pair.oracle.scalars.mul(pair.oracle.k["keep"], value(before["ema"])) < value(before["ema"])


def test_one_outlier_is_forgotten() -> None:
    """A jump of the gradient raises S, so that nothing moves: with ``release`` S falls until something does, else never."""
    moves = {}
    for on_still in ("release", "floor", "hold"):
        config = small(on_still=on_still, source="ema", gain=4, rho=0.5, weight="SQ10.2", update="SQ9.3")
        pair = Pair(config, [0, 0])
        pair.step([4096, 0])
        pair.step([-32768, 0])  # the outlier
        sign = 1
        moves[on_still] = 0
        for _ in range(60):
            sign = -sign
            moves[on_still] += pair.step([sign * 4096, 0])["B"] > 0
    assert moves["release"] > 5 and moves["floor"] == moves["hold"] == 0, moves


def test_still_hold_keeps_both() -> None:
    _, before, now = into_still("hold")
    assert (now["curvature"], now["ema"]) == (before["curvature"], before["ema"])
    assert value(now["norm_gradient"]) == Fraction(1, 8)


def test_still_divide_is_the_formula_as_published() -> None:
    _, before, now = into_still("divide")
    assert value(now["curvature"]) == 128  # 1/8 over eps = 2**-10
    assert value(now["ema"]) > value(before["ema"])


def test_still_divide_without_eps_overflows() -> None:
    pair = Pair(small(on_still="divide"), [0, 0])
    pair.step([4096, 0], [0, 0])
    now = pair.step([4096, 1])
    assert now["scalar_overflow"] and now["curvature"] == [2**24 - 1, 511]


def test_still_without_a_change_of_the_gradient() -> None:
    for on_still in ("release", "floor", "hold", "divide"):
        pair = Pair(small(on_still=on_still), [0, 0])
        pair.step([4096, 0], [0, 0])
        now = pair.step([4096, 0])
        assert now["still"] and now["A"] == 0 and now["curvature"] == [0, 0] and value(now["alpha"]) == 1
        assert not now["scalar_overflow"]


def test_learning_dead_is_sticky_until_clear() -> None:
    """Three still steps in a row raise it; a moving step between starts the count anew; clear drops flag and run."""
    pair = Pair(small(dead_after=3), [0, 0])

    def still() -> dict[str, Any]:
        return pair.step([0, 0])

    def moving() -> dict[str, Any]:
        return pair.step([0, 0], [4096, 0])

    assert not still()["still"]  # the first
    assert [still()["learning_dead"] for _ in range(2)] == [False, False]
    assert moving()["learning_dead"]  # a step is still by the motion before it: this is the third in a row
    assert moving()["learning_dead"] and not moving()["still"]
    pair.clear()
    now = still()
    assert (now["still_steps"], now["learning_dead"]) == (0, False)
    assert [still()["learning_dead"] for _ in range(2)] == [False, False]
    pair.clear()
    assert [still()["learning_dead"] for _ in range(3)] == [False, False, True]
    assert still()["still_steps"] == 4


# -------------------------------------------------------------------------------------------------- scalar flags


def test_scalar_overflow_and_underflow_are_sticky_and_cleared() -> None:
    """gain * C beyond the range, and num / q below it, in one step."""
    config = small(gain=2.0**500, num=2.0**-480, bias=0)
    pair = Pair(config, [0, 0])
    assert not pair.step([4096, 0])["scalar_overflow"]
    now = pair.step([4096, 2048])
    assert (now["scalar_overflow"], now["scalar_underflow"]) == (False, True) and now["alpha"] == [0, 0]
    now = pair.step([4096, 2048])
    assert now["scalar_underflow"], "sticky"
    pair.clear()
    now = pair.step([4096, 2048])
    assert (now["scalar_overflow"], now["scalar_underflow"]) == (False, False)


def test_operations_not_executed_raise_no_flag() -> None:
    """rho * C would underflow, but the first C is taken as it is; and a still step on hold touches no average at all."""
    config = small(ema_start="first", rho=2.0**-480, on_still="hold", gradient="SQ4.12")
    pair = Pair(config, [0, 0])
    pair.step([4096, 0])
    now = pair.step([4097, 0], [0, 0])
    assert now["ema"] == now["curvature"] != [0, 0] and not now["scalar_underflow"]
    assert not pair.step([4098, 0])["scalar_underflow"]


@pytest.mark.parametrize(("num", "bias", "alpha"), [(1, 0, 1), (0, 0, 1), (0, 1, 0)])
def test_q_zero_means_one(num: int, bias: int, alpha: int) -> None:
    now = Pair(small(num=num, bias=bias), [0, 0]).step([4096, 0])
    assert value(now["alpha"]) == alpha and not now["scalar_overflow"]
