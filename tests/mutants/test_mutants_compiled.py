# ruff: noqa: E501  a fault a row reads best
"""Single-point faults of the compiled engine: the comparison with numpy finds every one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest

from kappa_rtl.golden import compiled, kernels
from support.engines import KINDS, configurations, difference


class Fault(NamedTuple):
    """In the module's text ``old`` becomes ``new``, and ``what`` is then wrong in units of this kind."""

    old: str
    new: str
    what: str
    kind: str = "plain"


LOOPS = [
    # Rounding of the elements.
    Fault("lift = word(first_base + word(", "lift = word(first_base + word(1) + word(", "what the product's rounding adds is one too large"),
    Fault("lift = word(second_base + word(", "lift = word(second_base - word(1) + word(", "what the sum's rounding adds is one too small"),
    Fault("word(np.right_shift(whole, down) & first_even)", "word(np.right_shift(whole, split) & first_even)", "a tie of the product looks at another bit"),
    Fault("word(np.right_shift(total, sum_down) & second_even)", "word(0)", "ties of the sum go down"),
    Fault("(first_negative if whole < 0 else word(0))", "(first_negative if whole <= 0 else word(0))", "a product below one part counts as negative"),
    Fault("(second_negative if total < 0 else word(0))", "(second_negative if total > 0 else word(0))", "a positive sum counts as negative"),
    Fault("np.right_shift(word(rest + lift), split)", "np.right_shift(rest, split)", "the low part is not rounded"),
    Fault("np.add(np.multiply(d, step_high), np.right_shift(rest, split))", "np.multiply(d, step_high)", "the low part's carry is lost"),
    Fault("rest = np.bitwise_and(rest, below)", "rest = word(rest)", "the low part is carried twice"),
    Fault("whole, rest = np.multiply(d, step_high), word(0)", "whole, rest = word(np.int32(np.multiply(d, step_high))), word(0)", "a product of 64 bits loses its upper half", "wide"),
    # Overflow.
    Fault("fitted = min(max(y, y_low), y_high)", "fitted = min(max(y, word(y_low + word(1))), y_high)", "the update's lower rail is one too high"),
    Fault("fitted = min(max(new, w_low), w_high)", "fitted = min(max(new, w_low), word(w_high - word(1)))", "the weight's upper rail is one too low"),
    Fault("word(word(y - y_low) & y_mask)", "word(y & y_mask)", "an update wraps into the wrong half", "folds"),
    Fault("(zeroed if w_zeros else fitted)", "fitted", "a weight beyond its rails is clipped where it should be zero", "folds"),
    Fault("zeroed = y if fitted == y else word(0)", "zeroed = y if fitted == y else y_low", "an update beyond its rails is the rail where it should be zero", "folds"),
    # Counters.
    Fault("beyond = word(beyond + word(fitted != y))", "beyond = word(beyond + word(fitted > y))", "updates beyond the upper rail are not counted"),
    Fault("(d != 0) & (y == 0)", "(y == 0)", "a direction of zero counts as swallowed"),
    Fault("(word(whole | rest) != 0)", "(whole != 0)", "a product with nothing but a low part is not swallowed", "kept"),
    Fault("bare(word(new - w_lowest)) > w_free", "bare(word(new - w_lowest)) >= w_free", "the weight's rail begins one too early"),
    Fault("bare(word(new - w_nearest)) > w_far", "bare(word(new - w_nearest)) > bare(w_far + bare(1))", "near the weight's upper rail begins one too late"),
    Fault("word((fitted != new) | (", "word((", "a weight that wraps is not counted", "folds"),
    Fault("bare(word(y - y_lowest)) > y_free", "bare(word(y - y_lowest)) >= y_free", "the update's rail begins one too early", "kept"),
    Fault("bare(word(y - y_nearest)) > y_far", "bare(word(y)) > y_far", "an update near a rail is not seen", "kept"),
    Fault("y_on_rail, y_near_rail = y_on_rail + np.int64(y_on), y_near_rail + np.int64(y_close)", "y_on_rail, y_near_rail = np.int64(y_on), y_near_rail + np.int64(y_close)", "rails of the update are those of the last stretch", "kept"),
    Fault("other = word(other + word(new != old))", "other = word(0)", "no weight ever moves", "ratio"),
    Fault("bare(word(g - lowest)) > free", "bare(word(g - lowest)) >= free", "the gradient's rail begins one too early"),
    Fault("close = word(close + word(", "close = word(word(", "elements near a rail are counted once a stretch"),
    # Sums.
    Fault("b_high = word(b_high + word(bare(square >> place)))", "b_high = word(0)", "B has no high limb", "wide"),
    Fault("b_low = word(b_low + word(bare(square & mask)))", "b_low = word(bare(square & mask))", "B has the last low limb alone"),
    Fault("a_high = word(a_high + word(bare(square >> place)))", "a_high = word(a_high + word(word(square) >> word(limb)))", "a square's top bit is a sign"),
    Fault("a_high = word(a_high + word(term >> word(limb)))", "a_high = word(a_high + word(bare(term) >> place))", "a product has no sign", "wide_kept"),
    Fault("seen = word(g - p) if change else g", "seen = word(g + p) if change else g", "the gradients' sum stands for their change"),
    Fault("term = word(p * word(p - g))", "term = word(g * word(g - p))", "the projection is onto the other gradient", "wide_kept"),
    Fault("motion = d if intended else word(new - old)", "motion = word(new - old)", "B is of the weights' motion where it should be the direction's", "kept"),
    Fault("n_low = word(n_low + word(bare(norm & mask)))", "n_low = word(0)", "theta's sum of squares has no low limb", "ratio"),
    Fault("g_low = word(g_low + word(bare(norm & mask)))", "g_low = word(0)", "the watched sum has no low limb", "wide_kept"),
    Fault("for start in range(0, theta.size, STRETCH):", "for start in range(0, theta.size - 1, STRETCH):", "an element that stands alone in its stretch is left out"),
    # Random numbers and residuals.
    Fault("np.right_shift(word(r_part[i]), draw_drop) << 1) + word(1)", "np.right_shift(word(r_part[i]), draw_drop) << 1) + word(0)", "the random number is not centred", "kept"),
    Fault("np.right_shift(np.left_shift(lift, draw_up), draw_down)", "np.right_shift(lift, draw_down)", "the random number is too small", "kept"),
    Fault("np.right_shift(word(r_part[i]), draw_drop)", "word(r_part[i])", "all bits of a draw are taken", "kept"),
    Fault("rest = word(rest + np.left_shift(word(e_part[i]), residual_lift))", "rest = word(rest + np.left_shift(word(e_part[i]), word(residual_lift + word(1))))", "a residual counts twice", "kept"),
    Fault("exact - np.left_shift(y, full)", "exact - np.left_shift(y, down)", "what the product dropped is taken a part too low", "kept"),
    Fault("fell = word(total - np.left_shift(new, sum_down))", "fell = word(0)", "a residual forgets what the sum dropped", "kept"),
    Fault("np.right_shift(left, residual_drop)", "np.right_shift(left, word(residual_drop + word(1)))", "a residual is shifted one too far", "kept"),
    Fault("min(max(left, word(-rail)), word(rail - word(1)))", "min(max(left, word(word(1) - rail)), word(rail - word(1)))", "a residual has symmetric rails", "kept"),
]  # fmt: skip
"""Of kernels.py."""

PLANS = [
    Fault("Rounding.NEAREST_DOWN: (half - 1, 0, 0)", "Rounding.NEAREST_DOWN: (half, 0, 0)", "ties that should go down go up"),
    Fault("Rounding.NEAREST_ZERO: (half - 1, 0, 1)", "Rounding.NEAREST_ZERO: (half - 1, 0, 0)", "ties below zero go away from it"),
    Fault("Rounding.TOWARD_ZERO: (0, 0, 2 * half - 1)", "Rounding.TOWARD_ZERO: (0, 0, half)", "towards zero is a nearest below it"),
    Fault("max(widths.update_shift, 0) - config.random_bits - 1", "max(widths.update_shift, 0) - config.random_bits", "random numbers are twice as large", "kept"),
    Fault("up + kept if config.residual_bits else 0", "kept if config.residual_bits else 0", "a residual stays below where the product is lifted", "wide_kept"),
    Fault("found[1] if step or residual is not None else 0", "found[1]", "a step of zero swallows all"),
    Fault("(found[7] << limb) + found[8]", "(found[7] << 16) + found[8]", "B's limbs meet at the wrong bit", "wide"),
    Fault("(1 << fmt.width) - 1, int(wraps)", "(1 << fmt.width - 1) - 1, int(wraps)", "what wraps loses its top bit", "folds"),
    Fault("self._previous = gradient", "self._previous = gradient * 0", "the previous gradient is forgotten"),
    Fault("draws = _readable(drawn) if", "draws = _readable(drawn[::-1]) if", "draws come in reverse", "kept"),
]  # fmt: skip
"""Of compiled.py."""

SOON = {
    "what the product's rounding adds is one too large",
    "the low part's carry is lost",
    "the weight's rail begins one too early",
}
"""Of the loops, each of which is compiled for its fault; the others are slow."""


def faulty(original: ModuleType, fault: Fault, folder: Path) -> ModuleType:
    """The module with the fault in it, in the package beside the one without."""
    text = Path(str(original.__file__)).read_text()
    assert text.count(fault.old) == 1, f"{original.__name__} must hold this once, not {text.count(fault.old)} times: {fault.old}"
    path = folder / "faulty.py"
    path.write_text(text.replace(fault.old, fault.new))
    spec = importlib.util.spec_from_file_location("kappa_rtl.golden.faulty", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(fault: Fault, make: type) -> str | None:
    """What the comparison says first, or what the engine asserts of itself."""
    for place, config in enumerate(configurations(KINDS[fault.kind], 1, 150)):
        try:
            said = difference(config, make, place)
        except AssertionError as error:
            return str(error)
        if said is not None:
            return said
    return None


def test_each_is_one() -> None:
    every = LOOPS + PLANS
    assert len({fault.what for fault in every}) == len({fault[:2] for fault in every}) == len(every)
    assert {fault.what for fault in LOOPS} >= SOON
    for module, faults in ((kernels, LOOPS), (compiled, PLANS)):
        text = Path(str(module.__file__)).read_text()
        assert [fault.old for fault in faults if text.count(fault.old) != 1] == []


@pytest.mark.skipif(compiled.compiler() is None, reason='numba is not installed: pip install "kappa-rtl[fast]"')
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(
            fault, id=fault.what.replace(" ", "_"), marks=[] if fault.what in SOON or fault in PLANS else pytest.mark.slow
        )
        for fault in LOOPS + PLANS
    ],
)
def test_found(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault in LOOPS:
        monkeypatch.setattr(compiled, "kernels", faulty(kernels, fault, tmp_path))
        make = compiled.CompiledShard
    else:
        make = faulty(compiled, fault, tmp_path).CompiledShard
    said = found(fault, make)
    assert said is not None, f"{fault.what}: survives"
    print(f"{fault.what}: {said}")
    assert "kappa_rtl.golden.faulty" not in sys.modules
