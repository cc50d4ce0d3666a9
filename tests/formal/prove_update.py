# ruff: noqa: E501  a fault a row reads best
"""The update lanes: every element at the widths in use."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Mux, signed, unsigned

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.formats import Fixed
from support.mutants import Mutant

from . import wide
from .harness import Harness, Identity, Proof, component


def update(package: str, config: ThrottleConfig) -> Harness:
    """The lanes beside a pipeline that carries the operands and their exact product to the output, whatever stalls.

    The product itself is the same multiplication of the same registers on both sides, so that none has to be solved: they hold
    the direction and minus the step. All that becomes of it is computed from `wide`.
    """
    dut = component(package, "lanes.update").Update(config)
    h = Harness(dut)
    m, inside = h.m, h.internal
    _, w, y, step, d = config.grids
    widths, stages, kept = config.widths, dut.latency, config.residual_bits
    rounds = stages - 4  # the stage that holds the rounded product; the residual joins in one of its own before it
    advance = ~dut.o.valid | dut.o.ready

    def pipeline(source: Any, shape: Any, name: str, first: int = 0, **options: Any) -> list[Any]:
        registers = [h.ghost(shape, f"{name}{stage}", **options) for stage in range(first, stages)]
        with m.If(advance):
            for register, value in zip(registers, [source, *registers[:-1]], strict=True):
                m.d.sync += register.eq(value)
        return [None] * first + registers

    valid = pipeline(dut.i.valid, 1, "valid")
    last = pipeline(dut.i.payload.last, 1, "last", reset_less=True)
    negated = h.ghost(signed(step.width + 1), "negated")
    m.d.sync += negated.eq(-dut.step)
    h.lemma("minus the step of the cycle before", inside["minus_step"] == negated)
    minus_step = pipeline(negated, signed(step.width + 1), "minus_step", reset_less=True)
    for stage in range(stages):
        h.lemma(f"beat in stage {stage}", inside["valid"][stage] == valid[stage])
        h.lemma(f"last in stage {stage}", inside["last"][stage] == last[stage], when=valid[stage])
    h.lemma("no beat is offered", inside["empty"] == ~valid[-1])
    h.claim(f"a beat is offered {stages} moves after it was accepted", dut.o.valid == valid[-1])
    h.claim("beats are accepted unless the output is held up", dut.i.ready == advance)
    h.claim("last", dut.o.payload.last == last[-1], when=valid[-1])

    for lane in range(config.lanes):
        weights = pipeline(dut.i.payload.weight[lane], signed(w.width), f"weight_{lane}_", reset_less=True)
        direction = pipeline(dut.i.payload.direction[lane], signed(d.width), f"direction_{lane}_", reset_less=True)
        x = h.peek(f"multiplier{lane}.cell.g_plain.x", signed(d.width))
        factor = h.peek(f"multiplier{lane}.cell.g_plain.y", signed(step.width + 1))
        wide_product = h.ghost(signed(d.width + step.width + 1), f"wide_product{lane}", reset_less=True)
        with m.If(advance):
            m.d.sync += wide_product.eq(x * factor)
        exact = wide_product
        if kept:
            residuals = pipeline(dut.i.payload.residual[lane], signed(kept), f"residual_{lane}_", reset_less=True)
            for stage in (0, 1):
                h.lemma(f"residual {stage}", inside[f"residual_{stage}_{lane}"] == residuals[stage], when=valid[stage])
            places = widths.product_fraction - d.fraction_bits - step.fraction_bits
            above = widths.product_fraction - w.fraction_bits - kept
            product = wide_product[: d.width + step.width].as_signed()  # all of it, in the same way
            exact = (product << places) + (residuals[1] << above)
            most = (1 << d.width + step.width - 1 + places) + (1 << kept - 1 + above)
        exact = exact[: widths.product.signed_bits].as_signed()  # all of it: see `product_fits`
        products = [None, exact, *pipeline(exact, exact.shape(), f"product_{lane}_", 2, reset_less=True)[2:]]

        for stage in range(2, stages if kept else 0):
            h.lemma(f"range {stage}", (products[stage] >= -most) & (products[stage] < most), when=valid[stage])

        def on_grid(stage: int, products: Any = products) -> Any:
            return wide.rounded(products[stage], widths.update_shift, y.rounding)

        def change(stage: int, on_grid: Any = on_grid) -> Any:
            return wide.fitted(on_grid(stage), y)

        def total(stage: int, weights: Any = weights, change: Any = change) -> Any:
            common = widths.common_fraction
            return (weights[stage] << common - w.fraction_bits) + (change(stage) << common - y.fraction_bits)

        def moved(stage: int, total: Any = total) -> Any:
            return wide.rounded(total(stage), widths.weight_shift, w.rounding)

        def dropped_of_product(stage: int, products: Any = products, on_grid: Any = on_grid) -> Any:
            return products[stage] - (on_grid(stage) << widths.update_shift)

        def residual(stage: int, dropped: Any = dropped_of_product, total: Any = total, moved: Any = moved) -> Any:
            fraction = widths.dropped_fraction
            of_product = dropped(stage) << fraction - widths.product_fraction
            of_sum = (total(stage) - (moved(stage) << widths.weight_shift)) << fraction - widths.common_fraction
            return wide.fitted((of_product + of_sum) >> fraction - w.fraction_bits - kept, Fixed(True, kept, 0))

        def saturated(stage: int, on_grid: Any = on_grid) -> Any:
            return wide.is_beyond(on_grid(stage), y)

        def swallowed(stage: int, products: Any = products, change: Any = change) -> Any:
            return (products[stage] != 0) & (change(stage) == 0)

        for stage in range(stages):
            if stage + 1 < stages or lane < config.tail:
                h.lemma(f"weight {stage}", inside[f"weight_{stage}_{lane}"] == weights[stage], when=valid[stage])
        h.claim(
            "the product is of the direction and minus the step", (x == direction[0]) & (factor == minus_step[0]), when=valid[0]
        )
        h.lemma("product", inside[f"multiplier{lane}.cell.o"] == wide_product, when=valid[1])
        if kept:
            merged = dut.merged
            whole = Cat(products[2][: merged + 1].any(), products[2][merged + 1 :]).as_signed()
            h.lemma("product and residual", inside[f"total{lane}"] == whole, when=valid[2])
            for i, stage in enumerate((rounds, rounds + 1, rounds + 2)):
                above = dropped_of_product(stage) >> widths.update_shift - dut.below
                held = inside[f"dropped_{i}_{lane}"]
                if i == 0:  # the sign is that of an even sum, until it is known whether it is one
                    odd = on_grid(stage)[0] if dut.shift > 0 else 0
                    held = Cat(held[:-1], held[-1] ^ odd).as_signed()
                h.lemma(f"dropped {stage}", held == above, when=valid[stage])
        h.lemma("rounded", inside[f"rounded{lane}"] == on_grid(rounds), when=valid[rounds])
        if widths.update_shift > 0:
            dropped = products[rounds][: widths.update_shift].any()
            h.lemma("inexact", inside[f"inexact{lane}"] == dropped, when=valid[rounds])
        h.lemma("update", inside[f"update{lane}"] == change(rounds + 1), when=valid[rounds + 1])
        h.lemma("update, on", inside[f"update_1_{lane}"] == change(rounds + 2), when=valid[rounds + 2])
        h.lemma("moved", inside[f"moved{lane}"] == moved(rounds + 2), when=valid[rounds + 2])
        for i, stage in enumerate((rounds + 1, rounds + 2)):
            h.lemma(f"saturated {stage}", inside[f"saturated_{i}_{lane}"] == saturated(stage), when=valid[stage])
            if i:
                h.lemma(f"swallowed {stage}", inside[f"swallowed_{i}_{lane}"] == swallowed(stage), when=valid[stage])
        if widths.update_shift > 0:
            dropped = products[rounds + 1][: widths.update_shift].any()
            h.lemma("inexact, on", inside[f"was_inexact{lane}"] == dropped, when=valid[rounds + 1])

        out, end = dut.o.payload, stages - 1
        used = ~last[end] if lane >= config.tail else 1
        h.claim(
            "the change is the product, rounded once and clipped", out.update[lane] == Mux(used, change(end), 0), when=valid[end]
        )
        h.claim(
            "the weight is the sum, rounded once and clipped",
            out.weight[lane] == Mux(used, wide.fitted(moved(end), w), 0),
            when=valid[end],
        )
        if dut.hides:
            claimed = wide.is_beyond(moved(end), w) & used
            h.claim("the sum was beyond the rails", out.overflowed[lane] == claimed, when=valid[end])
        if kept:
            claimed = Mux(used, residual(end), 0)
            h.claim(
                "the residual is what both roundings dropped, floored and clipped", out.residual[lane] == claimed, when=valid[end]
            )
        h.claim("the weight before", out.previous[lane] == Mux(used, weights[end], 0), when=valid[end])
        h.claim("saturated", out.saturated[lane] == (saturated(end) & used), when=valid[end])
        h.claim("swallowed", out.swallowed[lane] == (swallowed(end) & used), when=valid[end])

    inflight = h.ghost(unsigned(8), "inflight")
    m.d.sync += inflight.eq(inflight + (dut.i.valid & dut.i.ready) - (dut.o.valid & dut.o.ready))
    h.claim("none lost, none twice", inflight == sum(Cat(*valid)))
    h.keeps(dut.o, "beat")
    return h


def product_fits(config: ThrottleConfig) -> Any:
    """No product of a direction and a step is wider than the datapath says."""
    import z3

    d, s, bits = z3.Int("d"), z3.Int("s"), config.widths.product.signed_bits
    words = z3.And(-(1 << config.grids.direction.width - 1) <= d, d < 1 << config.grids.direction.width - 1, s >= 0)
    fits = z3.And(-(1 << bits - 1) <= -d * s, -d * s < 1 << bits - 1)
    return z3.Implies(z3.And(words, s < 1 << config.step.width), fits)


def real(**changes: Any) -> ThrottleConfig:
    return ThrottleConfig.stability_margin(**({"elements": 640, "lanes": 1, "eta": 0.1} | changes))


CONFIGS = {
    "16 bits": real(),
    "16 bits, 2 lanes, the last beat half full": real(elements=3, lanes=2),
    "8-bit weights": real(weight="SQ1.7", update="SQ0.10"),
    "update floor, wrap": real(update="SQ1.13,floor,wrap"),
    "weight nearest_away, saturate_symmetric": real(weight="SQ2.10,nearest_away,saturate_symmetric"),
    "update toward_zero, zero": real(update="SQ-1.17,toward_zero,zero"),
    "weight wrap": real(weight="SQ2.10,nearest_even,wrap"),
    "direction of 8 bits, residuals of 4": real(direction="SQ3.5", residual_bits=4),
    "residuals of 4 bits": real(residual_bits=4),
    "residuals of 8 bits, weight floor": real(residual_bits=8, weight="SQ2.10,floor,saturate"),
}
SMALL = ThrottleConfig(elements=3, lanes=2, eta=0.5, gradient="SQ2.4", weight="SQ1.3", update="SQ0.5", step_bits=4)
MUTANTS = (
    Mutant("lanes/update.py", "for i in range(0, len(dropped) - 1, 4)", "for i in range(1, len(dropped) - 1, 4)", "the sticky bit misses the lowest bit"),
    Mutant("lanes/update.py", "guard, sticky = product[shift - 1]", "guard, sticky = product[shift]", "the guard bit is one too high"),
    Mutant("lanes/update.py", "raised[0] & ~(guard & ~sticky.any())", "raised[0]", "a tie of the product rounds up"),
    Mutant("lanes/update.py", "lsb=weight[0] ^ whole[0]", "lsb=weight[0]", "a tie of the sum looks at the weight alone"),
    Mutant("lanes/update.py", "Cat(up, whole)", "Cat(0, whole)", "the sum is not rounded"),
    Mutant("lanes/update.py", "majority(weights[-2][-1], updates[-2][-1], summed[-1])", "updates[-2][-1]", "the sum's sign is the update's"),
    Mutant("lanes/update.py", "new.eq(resolved)", "new.eq(moved)", "a weight wraps where it should saturate"),
    Mutant("lanes/update.py", "~update.any() & self._lost(was_inexact, saturated[0])", "~update.any()", "a zero product counts as underflow"),
    Mutant("lanes/update.py", "ready or not offered", "1", "the pipeline runs on while its output is held up"),
    Mutant("lanes/update.py", "and lane >= config.tail:", "and lane > config.tail:", "lanes beyond N have values"),
    Mutant("lanes/rounding.py", "beyond = top.any() & ~top.all()", "beyond = top.any() & ~top.all() & ~negative", "nothing saturates below"),
)  # fmt: skip

HALF = SMALL.replace(update="SQ2.2", weight="SQ3.1", step_bits=5)
HALF_MUTANTS = (
    Mutant("cells/carry.v", "half & (a[0] ^ b[0])", "half & a[0]", "a half of the sum looks at the weight alone"),
    Mutant("cells/carry.v", "half & (a[0] ^ b[0])", "1'b0", "a half of the sum is dropped"),
    Mutant("lanes/update.py", "raised[-1] & negative", "raised[-1]", "the one number above its word is the least of all"),
    Mutant(
        "lanes/update.py",
        "with m.If((empty | self.o.ready) & beyond):",
        "with m.If(beyond):",
        "a beat that waits is clipped for the one behind it",
    ),
)
"""Of a sum that drops one bit, and of a product that one rail alone can clip."""

KEPT = SMALL.replace(gradient="SQ2.5", residual_bits=2)
KEPT_MUTANTS = (
    Mutant("lanes/update.py", "exact[: merged + 1].any()", "exact[merged]", "the lowest bits of a product with a residual are lost"),
    Mutant("lanes/update.py", "of_product[0][-1] ^ (rounded[0] if self.shift > 0 else 0)", "of_product[0][-1]", "a residual forgets that the product was rounded up"),
    Mutant("lanes/update.py", "weight[0] ^ update[shift] ^ moved[0]", "0", "a residual forgets that the sum was rounded up"),
    Mutant("lanes/update.py", "        kept, _ = fit(extended(total, below + 1)[below:].as_signed(), Fixed(True, bits, 0))", "        kept = extended(total, below + 1)[below:].as_signed()", "a residual wraps"),
)  # fmt: skip

HIDDEN = SMALL.replace(weight="SQ1.3,nearest_even,wrap")
HIDDEN_MUTANTS = (
    Mutant("lanes/update.py", "overflowed.eq(spilled)", "overflowed.eq(0)", "a sum that wraps is not told"),
    Mutant("lanes/update.py", "leaves.append(overflowed)", "pass", "lanes beyond N tell of sums"),
)

PROPOSED = KEPT.replace(direction="SQ1.6")
PROPOSED_MUTANTS = (
    Mutant("lanes/update.py", "d, step = self.config.grids.direction,", "d, step = self.config.grids.gradient,", "a residual joins a direction on the gradient's grid"),
)  # fmt: skip

REFUTED: dict[str, tuple[ThrottleConfig, tuple[Mutant, ...]]] = {
    "16 bits": (HALF, HALF_MUTANTS),
    "16 bits, 2 lanes, the last beat half full": (SMALL, MUTANTS),
    "weight wrap": (HIDDEN, HIDDEN_MUTANTS),
    "residuals of 4 bits": (KEPT, KEPT_MUTANTS),
    "direction of 8 bits, residuals of 4": (PROPOSED, PROPOSED_MUTANTS),
}
"""With which proof faults are tried, on which widths."""

PROOFS = [
    Identity("update, 16 bits", "-D * step fits the datapath's 33 bits", lambda: product_fits(CONFIGS["16 bits"])),
    *(
        Proof(
            f"update, {name}",
            "y and the weight rounded once and clipped, flags of each element; stream, none lost; six moves"
            if not config.residual_bits
            else "the same with what both roundings dropped, floored and clipped; seven moves",
            lambda package, config=config: update(package, config),
            mutants=mutants,
            small=lambda package, small=small: update(package, small),
            depth_mutants=12 if small is HALF else 9,
        )
        for name, config in CONFIGS.items()
        for small, mutants in [REFUTED.get(name, (SMALL, ()))]
    ),
    Proof(
        "update, 16 bits",
        "after a reset from any state as after power-up",
        lambda package: update(package, CONFIGS["16 bits"]),
        "reset",
        mutants=(
            Mutant(
                "lanes/update.py",
                "valid = Signal(self.latency)",
                "valid = Signal(self.latency, reset_less=True)",
                "beats outlive a reset",
            ),
        ),
    ),
]
