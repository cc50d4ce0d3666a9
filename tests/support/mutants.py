# ruff: noqa: E501  a fault a row reads best
"""Single-point faults of the Verilog generator: each is one text of one file of ``hw/``, replaced once.

The equivalence of golden and RTL is worth what these say: `test_mutants.py` kills every one of them.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple

import kappa_rtl.hw.export as original


class Mutant(NamedTuple):
    """In ``file`` of ``hw/``, ``old`` becomes ``new``: ``what`` is then wrong in a unit with these options."""

    file: str
    old: str
    new: str
    what: str
    options: Mapping[str, Any] = MappingProxyType({})


KEPT = {"update": "SQ1.6,stochastic,saturate", "residual_bits": 3, "every_rail": True, "motion": "applied"}
"""Random numbers, residuals, and counters of every rail."""

WRAPS = {"weight": "SQ2.4,nearest_even,wrap"}
"""Weights that may lie inside their rails though the sum lay beyond."""

MUTANTS = [
    # Rounding of the elements.
    Mutant("lanes/rounding.py", "return guard & (sticky | lsb)", "return guard", "ties round up, not to even"),
    Mutant("lanes/rounding.py", "return guard & (sticky | lsb)", "return guard & sticky", "ties round down, not to even"),
    Mutant("lanes/rounding.py", "return guard & (sticky | lsb)", "return guard & (sticky | ~lsb)", "ties round to odd"),
    Mutant("lanes/rounding.py", "return guard & (sticky | lsb)", "return guard & lsb", "the sticky bit is ignored"),
    Mutant("lanes/update.py", "for i in range(0, len(dropped) - 1, 4)", "for i in range(1, len(dropped) - 1, 4)", "the sticky bit misses the lowest bit"),
    Mutant("lanes/update.py", "guard, sticky = product[shift - 1]", "guard, sticky = product[shift]", "the guard bit is one too high"),
    Mutant("lanes/update.py", "return product[shift:].as_signed() + up", "return product[shift + 1 :].as_signed() + up", "the product is shifted one too far"),
    Mutant("lanes/update.py", "raised[0] & ~(guard & ~sticky.any())", "raised[0]", "a tie of the product rounds up"),
    Mutant("lanes/update.py", "lsb=weight[0] ^ whole[0]", "lsb=weight[0]", "a tie of the sum looks at the weight alone"),
    Mutant("lanes/update.py", "Cat(up, whole)", "Cat(0, whole)", "the sum is not rounded"),
    # Saturation and wrap.
    Mutant("lanes/rounding.py", "Const(high, kept.shape()))", "Const(high - 1, kept.shape()))", "the upper bound is one too low"),
    Mutant("lanes/rounding.py", "Const(low, kept.shape())", "Const(low + 1, kept.shape())", "the lower bound is one too high"),
    Mutant("lanes/rounding.py", "beyond = top.any() & ~top.all()", "beyond = top.any() & ~top.all() & ~negative", "nothing saturates below"),
    Mutant("lanes/update.py", "majority(weights[-2][-1], updates[-2][-1], summed[-1])", "updates[-2][-1]", "the sum's sign is the update's"),
    Mutant("lanes/update.py", "new.eq(resolved)", "new.eq(moved)", "a weight wraps where it should saturate"),
    # Counters.
    Mutant("lanes/rounding.py", "_beyond(m, value, near, near - 1, ranks)", "_beyond(m, value, near + 1, near - 1, ranks)", "near the upper rail begins one too late"),
    Mutant("lanes/rounding.py", "_beyond(m, value, high, -low - 1, ranks)", "_beyond(m, value, high, -low, ranks)", "the lower rail is not seen"),
    Mutant("lanes/update.py", "~update.any() & self._lost(was_inexact, saturated[0])", "~update.any()", "a zero product counts as underflow"),
    Mutant("units/counts.py", "inside = ~was_last if lane >= tail else 1", "inside = 1", "lanes beyond N are counted"),
    Mutant("scalar/decide.py", "carry.eq(carry & status.still_steps[0])", "carry.eq(carry)", "a still step inverts the bits of its counter"),
    Mutant("scalar/decide.py", "init=config.dead_after,", "init=config.dead_after + 1,", "learning_dead rises a step late"),
    Mutant("scalar/decide.py", "reload.eq(self.clear | (comes & ~status.still))", "reload.eq(self.clear)", "a run of still steps goes on after one that moved"),
    Mutant("scalar/decide.py", "            m.d.sync += [\n                status.still_steps.eq(0),", "            m.d.sync += [", "clear forgets still_steps"),
    Mutant("scalar/decide.py", "                status.step_overflow.eq(0),\n", "", "clear forgets step_overflow"),
    Mutant("scalar/unit.py", "self.step_overflow.eq(full)", "self.step_overflow.eq(0)", "a step beyond its grid is not told"),
    Mutant("lanes/update.py", "overflowed.eq(spilled)", "overflowed.eq(0)", "a weight that wraps is not counted", WRAPS),
    Mutant("units/counts.py", "overflowed.eq(out.overflowed[lane])", "overflowed.eq(out.overflowed[0])", "only lane 0 can wrap", WRAPS),
    Mutant("units/counts.py", 'step.near_rail)', 'step.near_rail + 1)', "near the step's rail begins one too late", KEPT | {"eta": "0.94"}),
    Mutant("units/counts.py", "(decided & there)", "decided", "every step counts as one on its rail", KEPT),
    Mutant("units/counts.py", "gates.get(name, counts & applying)", "gates.get(name, counts)", "rails of the update are counted in both passes", KEPT),
    Mutant("units/counts.py", "counts_update.eq(taken & applying)", "counts_update.eq(taken)", "what the lanes find is counted in both passes"),
    Mutant("lanes/counters.py", "[*counts[1:], 0]", "[*counts[1:], counts[0]]", "a count that was added stays"),
    Mutant("lanes/counters.py", "m.d.sync += left.eq((1 << size) - 1)", "m.d.sync += left.eq((1 << size - 1) - 1)", "the last of the counts is not added"),
    Mutant("lanes/counters.py", "register.eq(0) for register in counts + ring]", "register.eq(0) for register in counts]", "clear forgets the totals"),
    # Random numbers.
    Mutant("lanes/random.py", "bits[1 : DRAW_BITS + 1]", "bits[2 : DRAW_BITS + 2]", "the generator has another tap", KEPT),
    Mutant("lanes/random.py", "Cat(reversed(bits[-DRAW_BITS:]))", "Cat(reversed(bits[-DRAW_BITS:])) | 1 << 12", "a random bit is stuck at one", KEPT),
    Mutant("lanes/random.py", "Cat(reversed(bits[-DRAW_BITS:]))", "bits[-DRAW_BITS:]", "the first bit of a draw is the least", KEPT),
    Mutant("lanes/update.py", "advance & valid[self.latency - len(PIPELINE)]", "advance", "a draw is made in every cycle", KEPT),
    Mutant("lanes/update.py", "advance & valid[self.latency - len(PIPELINE)]", "valid[self.latency - len(PIPELINE)]", "a beat that waits draws again", KEPT),
    Mutant("lanes/update.py", "config.lane_seeds[lane]", "config.lane_seeds[0]", "all lanes draw the same", KEPT),
    Mutant("lanes/update.py", "draw[-self.config.random_bits :]", "draw[-1:]", "one random bit where there are more", KEPT),
    Mutant("lanes/rounding.py", "Cat(Const(1, 1), random)", "Cat(Const(0, 1), random)", "the random number is not centred", KEPT | {"random_bits": 2}),
    Mutant("lanes/rounding.py", "random[-bits:]", "random[:bits]", "the lower bits of a draw are taken", KEPT),
    # Residuals.
    Mutant("lanes/update.py", "        kept, _ = fit(extended(total, below + 1)[below:].as_signed(), Fixed(True, bits, 0))", "        kept = extended(total, below + 1)[below:].as_signed()", "a residual wraps", KEPT),
    Mutant("lanes/update.py", "of_product[0][-1] ^ (rounded[0] if self.shift > 0 else 0)", "of_product[0][-1]", "a residual forgets that the product was rounded up", KEPT),
    Mutant("lanes/update.py", "weight[0] ^ update[shift] ^ moved[0]", "0", "a residual forgets that the sum was rounded up", KEPT),
    Mutant("lanes/update.py", "(of_sum << fraction - sum_fraction)", "0", "a residual forgets what the sum dropped", KEPT),
    Mutant("lanes/update.py", "(residual << fraction - self._residual_fraction)", "(residual << fraction - self._residual_fraction - 1)", "a residual counts half", KEPT),
    Mutant("lanes/update.py", "exact[: merged + 1].any()", "exact[merged]", "the lowest bits of a product with a residual are lost", {"residual_bits": 3, "motion": "applied"}),
    Mutant("units/core.py", "Mux(fresh, 0, self.apply.payload.residual[lane])", "self.apply.payload.residual[lane]", "after a reset the old residuals are still there", KEPT),
    Mutant("units/feed.py", "residuals.write_address.eq(written)", "residuals.write_address.eq(written + 1)", "a residual is stored a word too far", KEPT),
    # Sums and norms.
    Mutant("lanes/norm.py", "if lane >= self.tail:", "if lane > self.tail:", "the first lane beyond N enters the sum"),
    Mutant("scalar/sqrt.py", "shift.eq(passed)", "shift.eq(place)", "the leading pair is counted one too far"),
    Mutant("scalar/sqrt.py", "Mux(empty[group], first, group)", "Mux(empty[group], first, self._last)", "the leading group is passed over"),
    Mutant("units/core.py", "hushes.eq(applying | first)", "hushes.eq(applying)", "after a reset the old gradient is still there"),
    Mutant("units/core.py", "hushes.eq(applying | first)", "hushes.eq(first)", "the old gradient is still there as the weights leave"),
    Mutant("units/core.py", "            with m.If(applying):\n                m.d.sync += joined.eq(0)", "            with m.If(0):\n                m.d.sync += joined.eq(0)", "the gradient is still there as the weights leave"),
    Mutant("lanes/update.py", "[summed.eq(0), weights[-2].eq(0)]", "[weights[-2].eq(0)]", "the last sums are still there as gradients come in"),
    Mutant("lanes/update.py", "[summed.eq(0), weights[-2].eq(0)]", "[summed.eq(0)]", "the old weights are still there as gradients come in"),
    Mutant("cells/memory.v", "if (read) fetched", "fetched", "the memory reads on while its words are held up"),
    Mutant("cells/memory.v", "if (read_output) out", "out", "the memory's output register does not wait"),
    Mutant("units/feed.py", "~self.takes & self.empty", "~self.takes", "weights' directions are read before the gradient is stored"),
    Mutant("units/feed.py", "memory.write_address.eq(self.places[-1])", "memory.write_address.eq(self.places[0])", "a gradient is stored a word too far"),
    Mutant("scalar/sqrt.py", "sticky.eq(sticky)", "sticky.eq(0)", "a root is exact too often"),
    Mutant("scalar/sqrt.py", "Const(0b11, 2)", "Const(0b10, 2)", "the root's trial subtracts one too little"),
    # Scalars.
    Mutant("scalar/unit.py", '"rounder", one, other, third, fourth, up)', '"rounder", one, other, third, fourth, Const(0, 1))', "scalars are cut off"),
    Mutant("scalar/unit.py", "raised[0] & (sticky | ~up)", "raised[0]", "scalar ties round up"),
    Mutant("scalar/unit.py", "Mux(less, smallest_of, largest_of)", "Mux(less, smallest_of, smallest_of)", "the smaller is the larger"),
    Mutant("scalar/unit.py", "large_e | (last_e & higher)", "large_e", "a carry out of the range is not seen"),
    Mutant("scalar/unit.py", "raised[bits] & ~integer if pad else raised[bits]", "0 & raised[bits]", "all ones rounded up lose their carry"),
    Mutant("scalar/unit.py", "(~e[-1] & over_e.any() & bounded)", "(~e[-1] & over_e[1:].any() & bounded)", "the overflow begins an exponent late"),
    Mutant("scalar/unit.py", "e[-1] & ~over_e.all()", "e[-1] & ~over_e[1:].all()", "the underflow begins an exponent late"),
    Mutant("scalar/unit.py", "self.underflow.eq(lands", "self.underflow.eq(0 & lands", "nothing underflows"),
    Mutant("scalar/unit.py", "with m.If(~(second & adds & near)):", "with m.If(~(second & adds)):", "what lies far below comes in again from above"),
    Mutant("scalar/unit.py", "subtracts.eq(self.op[4]", "subtracts.eq(0 & self.op[4]", "the places of a sum come from the sum of the exponents"),
    Mutant("scalar/divider.py", "below.eq(below | (count[2] & ~positive))", "below.eq(0)", "a quotient below one keeps its exponent"),
    Mutant("scalar/divider.py", "Cat(0, divisor, 1)", "Cat(0, divisor, 0)", "the divisor is added where it has to be subtracted"),
    Mutant("cells/chain.v", "one + other", "one", "a chain adds nothing"),
    Mutant("cells/choose.v", "of[select]", "of[0]", "the first of a group is chosen"),
    Mutant("scalar/unit.py", "lost.eq(cuts & (guard | sticky))", "lost.eq(0)", "a step of more than half an ulp counts as a tie"),
    # The law.
    Mutant("scalar/ema.py", 'Operation.MUL, "keep"', 'Operation.MUL, "rho"', "the average keeps rho of itself"),
    Mutant("scalar/clamp.py", 'Operation.MAX, "alpha_min"', 'Operation.MIN, "alpha_min"', "alpha_min is an upper bound"),
    Mutant("scalar/clamp.py", 'Operation.MIN, "one"', 'Operation.MAX, "one"', "1 is a lower bound"),
    Mutant("scalar/clamp.py", 'Operation.MAX, "curvature"', 'Operation.LOAD, "curvature"', "source max sees C alone"),
    Mutant("scalar/clamp.py", 'then={"off": "unthrottled"}', "then={}", "alpha is applied although not enabled"),
    Mutant("scalar/sequencer.py", "(after & users).any()", "(after & users >> 1).any()", "an operand is that of another operation"),
    Mutant("scalar/decide.py", "m.d.sync += seen.eq(1)", "m.d.sync += seen.eq(0)", "every C starts the average anew"),
    Mutant("scalar/decide.py", 'Operation.DIVIDE, "still_norm"', 'Operation.DIVIDE, "eps"', "floor divides by eps"),
    Mutant("scalar/decide.py", 'then={"releases": "release", "": "see"}', 'then={"": "see"}', "the average forgets nothing while the run stands still"),
    Mutant("scalar/decide.py", 'Do("release", Operation.MUL, "keep"', 'Do("release", Operation.MUL, "rho"', "the average forgets all but rho"),
    Mutant("scalar/decide.py", "self.control.on_still == OnStill.FLOOR)", "self.control.on_still == OnStill.HOLD)", "floor is published division"),
    # Streams.
    Mutant("lanes/update.py", "ready or not offered", "1", "the pipeline runs on while its output is held up"),
    Mutant("units/core.py", "seen.eq(came[-1] | (update.o.valid & self.updated.ready))", "seen.eq(came[-1] | update.o.valid)", "a stalled beat is summed in every cycle"),
    Mutant("units/core.py", "with m.If(offers & self.registers.ready):", "with m.If(offers):", "the registers do not wait to be taken"),
]  # fmt: skip

ENGINE = [
    Mutant("units/engine.py", "weights.write.eq(writes)", "weights.write.eq(writes & (written != feed.last))", "the last word of weights is not written"),
    Mutant("units/engine.py", "weights.write_address.eq(written)", "weights.write_address.eq(feed.address)", "weights are written where they are read"),
    Mutant("units/feed.py", "memory.write_address.eq(self.places[-1])", "memory.write_address.eq(self.address)", "the engine stores a gradient two words too far"),
    Mutant("units/engine.py", "loaded = Mux(written == feed.last, 0, loaded)", "loaded = Mux(0, 0, loaded)", "lanes beyond N are loaded"),
    Mutant("units/engine.py", "memory.read_output.eq(moves & valid[0])", "memory.read_output.eq(1)", "what was read runs on while it is held up"),
    Mutant("units/engine.py", "weights.read.eq(arrives)", "weights.read.eq(1)", "a word is read more than once"),
    Mutant("units/engine.py", "self.read.ready.eq(~self.load.valid)", "self.read.ready.eq(1)", "a command that comes with a load is lost"),
    Mutant("units/engine.py", "with m.If(feed.ended):  # every", "with m.If(~takes):  # every", "gradients are read before they are stored"),
    Mutant("units/feed.py", "residuals.write_address.eq(written)", "residuals.write_address.eq(0)", "all residuals of the engine are stored in one word"),
]  # fmt: skip
"""Of the unit with its weights on chip."""


def stands(mutant: Mutant, folder: Path = Path(original.__file__).parent) -> str:
    """The text of its file, in which what it replaces stands once."""
    text = (folder / mutant.file).read_text()
    assert text.count(mutant.old) == 1, f"{mutant.file} must hold this once, not {text.count(mutant.old)} times: {mutant.old}"
    return text


def generator(mutant: Mutant, folder: Path) -> ModuleType:
    """The export module of a copy of ``hw/`` with the fault in it: ``<folder's name>.hw.export``.

    The copy stands beside the one golden: what both ask for formats and configuration are the same classes.
    """
    name, hw = folder.name, Path(original.__file__).parent
    shutil.copytree(hw, folder / "hw", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "hw" / mutant.file).write_text(stands(mutant, folder / "hw").replace(mutant.old, mutant.new))
    for shared in [shared for shared in sys.modules if f"{shared}.".startswith("kappa_rtl.golden.")]:
        sys.modules[shared.replace("kappa_rtl", name, 1)] = sys.modules[shared]
    sys.path.insert(0, str(folder.parent))
    try:
        return importlib.import_module(f"{name}.hw.export")
    finally:
        sys.path.remove(str(folder.parent))
