"""What a unit is made of, counted on its components: what the fitted size is a sum of.

Registers, carry chains and products follow from the widths of the datapath, so their coefficients come out near one. What
synthesis makes of the gates between them does not follow, and is what the fit is for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ...golden.config import Source, ThrottleConfig
from ...golden.formats import Fixed, Rounding
from ...golden.registers import COUNTER_BITS
from ..lanes.counters import counted, flags
from ..lanes.norm import SumOfSquares
from ..lanes.rounding import LOWEST
from ..lanes.update import Update
from ..scalar.decide import Decide
from ..scalar.unit import CHUNK
from ..units.core import JOINING, StreamingThrottle
from ..units.feed import STAGES
from ..units.onepass import StreamingOnePass
from ..units.throttle import Throttle
from .families import FAMILIES, Family
from .memories import memory
from .products import Product, even

__all__ = ["Counts", "expected", "features"]

LOSSY = (Rounding.NEAREST_ZERO, Rounding.NEAREST_AWAY, Rounding.TOWARD_ZERO)
"""The modes that look at the sign of what they round."""


EXPECTED: dict[str, tuple[float, float]] = {
    "soft products": (1, 0.8),
    "scalar control": (0, 400),
    "scalar padded": (0, 200),
    "scalar padded bits": (3, 8),
    "scalar growth": (70, 120),
    "scalar intended": (30, 120),
    "scalar root's rest": (10, 40),
    "scalar rows": (10, 120),
    "updates: saturate bits": (1, 1.2),
    "updates: saturate_symmetric bits": (1.2, 1.6),
    "updates: wrap bits": (0, 1.2),
    "updates: zero bits": (0.5, 1.6),
    "weights: saturate bits": (1, 1.2),
    "weights: saturate_symmetric bits": (1.2, 1.6),
    "weights: wrap bits": (0.3, 1.6),
    "weights: zero bits": (0.5, 1.6),
    "weights: joined bits": (0.3, 1.2),
    "updates: nonzero bits": (0.3, 1.2),
    "updates: sticky": (1.2, 1.6),
    "either bits": (0.3, 0.6),
    "chosen bits": (1, 2),
    "read bits": (0.5, 1),
    "moved bits": (0.6, 1.6),
    "small memories": (5, 40),
    "small memory bits": (0, 2),
    "ranks": (1.2, 1.6),
    "comparisons": (6, 12),
    "flags": (1, 2),
    "one pass: flags": (1, 4),
    "one pass: counters": (3, 12),
    "fours": (1, 1),
    "generators": (16, 24),
    "feed gates": (1, 0.8),
    "counters": (10, 40),
    "segments": (40, 40),
    "segment lanes": (4, 4),
    "segment bits": (4, 4),
    "segment table bits": (0, 1),
    "aligned bits": (1, 0.5),
    "residuals": (10, 40),
}
"""Look-up tables that one of a feature takes by its gates, and how far that may be off."""


def expected(name: str, kind: str, target: str) -> tuple[float, float]:
    """What one of a feature takes as far as can be told beforehand, in ``lut`` or in ``ff``, and how far that may be off."""
    if name.endswith(("registers", "carry")):  # counted bit by bit
        return 1, 0.02 if kind == "ff" else 0.03 if target == "ecp5" else 0.5
    if kind == "ff":
        return 0, 50
    if name in EXPECTED:
        return EXPECTED[name]
    if name.startswith("scalar"):
        return 2, 16
    if name.endswith("bits"):
        return 0.5, 2
    return (2, 16) if name.startswith(("updates", "hidden", "masked", "parities", "compared")) else (10, 120)


@dataclass
class Counts:
    """What is counted of a component: features by name for registers and look-up tables, and exactly its blocks of both kinds."""

    family: Family
    ff: Counter[str] = field(default_factory=Counter)
    lut: Counter[str] = field(default_factory=Counter)
    dsp: int = 0
    block: int = 0
    distributed: int = 0

    def multiply(self, part: str, made: Product, count: int = 1, what: str = "") -> None:
        """So many multipliers of a part; ``what`` tells apart those that synthesis makes other gates of."""
        self.dsp += count * made.dsp
        if made.registers:
            self.ff[f"{part} registers"] += count * made.registers
        if made.adders:
            self.lut[f"{part} carry"] += count * made.adders
        if made.soft:
            self.lut["soft products"] += count * made.soft
        if made.sides:
            self.lut[f"{what or part} rows"] += count * made.rows
            self.lut[f"{what or part} sides"] += count * made.sides

    def delay(self, part: str, bits: int, cycles: int) -> None:
        """Bits that pass through so many registers, from which nothing is taken on the way."""
        if self.family.delays and cycles > 2:
            self.lut["delayed bits"] += bits
        else:
            self.ff[f"{part} registers"] += bits * cycles

    def carry(self, bits: int) -> int:
        """Bits of a carry chain, whole cells."""
        return even(bits) if self.family.paired else max(0, bits)


def features(component: Any, target: str = "ecp5") -> Counts:
    """Of a unit, or of a part of one."""
    found = Counts(FAMILIES[target])
    match component:
        case SumOfSquares():
            _squares(found, component)
        case Update():
            _update(found, component)
        case Decide():
            _scalar(found, component)
        case _:
            _unit(found, component)
    return found


# ---------------------------------------------------------------- sums of squares


def _squares(found: Counts, part: SumOfSquares, constant: bool = False) -> None:
    """Exact, but for products by a single bit; ``constant``: nothing is subtracted, so a difference is a bit shorter."""
    lanes, bits = part.lanes, part.width + 1
    total = part.energy_bits + part.projects
    square = 2 * part.width + 1
    first = part.width if part.projects else bits
    made = found.family.multiply(first, bits, square, square=not part.projects, spare=constant)
    found.multiply("squares", made, lanes, "projections" if part.projects else "")
    before = bits - constant + part.width * part.projects
    ff = lanes * (before * (not made.before) + square * (not made.behind)) + total + 3 + 2 * (part.latency - 1)
    lut = lanes * found.carry(bits) * (not constant)
    terms = [square] * lanes
    while len(terms) > 1:
        sums = [min(total, max(pair) + 1) for pair in zip(terms[::2], terms[1::2], strict=False)]
        lut += sum(found.carry(bits) for bits in sums)
        terms = sums + terms[2 * len(sums) :]
        ff += sum(terms)
    for stage in range(part.shift_bits):  # beside the data until the tree ends, and then a bit of the shift a stage
        terms = [min(total, terms[0] + (2 << stage))]
        found.lut["aligned bits"] += terms[0]
        ff += terms[0] + part.shift_bits - 1 - stage
    ff += (part.latency - 1 - part.shift_bits) * part.shift_bits
    lut += terms[0] if found.family.short and not part.projects else found.carry(total)
    found.ff["squares registers"] += ff
    found.lut["squares carry"] += lut
    found.lut["squares control"] += 1
    found.lut["either bits"] += lanes * bits * (part.either and not constant)


# ---------------------------------------------------------------- updates


def _update(found: Counts, part: Update) -> None:
    config = part.config
    _, w, y, step, d = config.grids
    widths, lanes, kept = config.widths, config.lanes, config.residual_bits
    shift, rounded, factor = part.shift, widths.rounded.signed_bits, step.width + 1
    spare = max(0, y.width - rounded)  # bits of y that its sign repeats, which synthesis keeps once
    clips = rounded > y.width
    sticky = -(-max(0, shift - 1) // 4)
    summed = w.width if part._sums_words else widths.moved.signed_bits

    of_product = d.width + step.width if kept else widths.product.signed_bits
    made = found.family.multiply(d.width, factor, of_product)
    taken = made.behind and shift <= 0 and not kept  # the product itself is what a register behind it holds
    found.multiply("update", made, lanes)
    if made.registers >= factor:  # lanes side by side have the step size in one register
        found.ff["update registers"] -= lanes // 2 * factor
    found.delay("update", lanes * w.width, part.latency - 2)  # the last but two is summed, the last two can be cleared
    ff = 2 * w.width + (not taken) * (y.width if part.clips_one else rounded) + part.clips_one + 2 * (shift > 0) + sticky
    ff += 3 * (y.width - spare) + 3 * clips + 2 * (shift > 0) + summed + part.word.width + part.hides
    ff -= y.rounding is Rounding.FLOOR and shift > 0
    if kept:
        ff += 3 * kept + widths.product.signed_bits - part.merged + 3 * (part.below + 1)
    if config.stochastic and widths.update_shift > 0:
        ff += 63
        found.lut["generators"] += lanes
    found.ff["update registers"] += lanes * ff + factor + 2 * part.latency + 1 + part.joins

    if shift > 0 and y.rounding is not Rounding.FLOOR:
        draw = min(shift, config.random_bits + 1) if config.stochastic else 0
        found.lut["update rounding carry"] += lanes * found.carry(draw + (y.width if part.clips_one else rounded))
    found.lut["update sum carry"] += lanes * _sum(found, w, widths.weight_shift, summed)
    if kept:
        fraction = widths.product_fraction
        low = max(fraction - w.fraction_bits - kept, fraction - d.fraction_bits - step.fraction_bits)
        found.lut["residual carry"] += lanes * found.carry(widths.product.signed_bits - low)
        found.lut["residual bits"] += lanes * kept
        found.lut["residual dropped bits"] += lanes * (part.below + widths.weight_shift)
        found.lut["residual merged bits"] += lanes * part.merged
        found.lut["residuals"] += lanes
    found.lut["step carry"] += found.carry(factor)
    found.lut["update control"] += 1
    found.lut["updates"] += lanes
    found.lut["updates: pairs"] += -(-lanes // 2)
    found.lut["updates: nonzero bits"] += lanes * y.width
    found.lut["updates: sticky"] += lanes * sticky
    found.lut[f"updates: {y.rounding}"] += lanes * (shift > 0)
    found.lut[f"updates: {y.rounding} dropped bits"] += lanes * max(0, shift)
    found.lut[f"updates: sum {w.rounding}"] += lanes * (widths.weight_shift > 0)
    if clips and part.rail is None:
        found.lut[f"updates: {y.overflow} bits"] += lanes * y.width
        found.lut["updates: beyond bits"] += lanes * (rounded - y.width)
    elif clips:
        found.lut["updates: one rail"] += lanes
    found.lut[f"weights: {w.overflow} bits"] += lanes * w.width
    if part.joins:
        found.lut["weights: joined bits"] += lanes * part.word.width


def _sum(found: Counts, w: Fixed, shift: int, bits: int) -> int:
    """Bits of the carry chains of a weight's sum: with some modes a carry comes in below, or the round-up is a sum of its own."""
    if not shift or w.rounding is Rounding.FLOOR or (shift == 1 and w.rounding is Rounding.NEAREST_EVEN):
        return found.carry(bits)
    return 2 * found.carry(bits) if w.rounding in LOSSY else found.carry(bits + 1)


# ---------------------------------------------------------------- the scalar part


def _scalar(found: Counts, part: Decide) -> None:
    config, unit = part.config, part.unit
    m, e, wide = config.mantissa_bits, config.exponent_bits, unit.exponent_bits
    word, width, radicand = m + e, unit.width, unit.radicand_bits
    chunks = -(-width // CHUNK), -(-(width + 1) // CHUNK)
    for i in range(0, width, CHUNK):
        for j in range(0, width + 1, CHUNK):
            one, other = min(CHUNK, width - i), min(CHUNK, width + 1 - j)
            found.multiply("scalar", found.family.multiply(one + 1, other + 1, spare=1))  # no factor is negative
    used = {do.x for do in part.program} - {""}
    constant = {"one", "step_grid", "zero"} | {name for name in used if name.startswith("root_")}
    operands = len(used - constant - {"level"})
    stores = len({do.store for do in part.program} - {""})
    scalars = stores + config.intended + config.growth
    ff = {
        "scalar control": 1,
        "scalar M": m,
        "scalar factors": width,
        "scalar padding": width - m,
        "scalar exponents": wide,
        "scalar E": e,
        "scalar words": (operands + scalars) * word,
        "scalar radicand": radicand,
        "scalar step bits": config.step.width,
        "scalar rows": chunks[0] + chunks[1] - 1,
        "scalar program": len(part.program),
        "scalar growth": config.growth,
        "scalar intended": config.intended,
        "scalar root's rest": unit.root.decides,
    }
    found.ff.update(ff)
    found.lut.update(ff | {"scalar words": operands * word, "scalar padded": width > m, "scalar padded bits": m * (width > m)})


# ---------------------------------------------------------------- the unit


def _unit(found: Counts, part: Throttle | StreamingThrottle) -> None:
    core = part if isinstance(part, StreamingThrottle) else part.core
    one = core if isinstance(core, StreamingOnePass) else None
    config = core.config
    lanes, (g, w, _, _, d) = config.lanes, config.grids
    widths = config.widths
    _scalar(found, core.decide)
    _update(found, core.update)
    _squares(found, core.sum, constant=one is not None and not core.changes)
    if one:
        _squares(found, one.motion, constant=config.intended or config.source is Source.RATIO)
    if core.floor is not None:
        _squares(found, core.floor, constant=True)
    found.ff["energy registers"] += widths.gradient_energy + widths.motion_energy
    found.ff["control"] += 1
    found.lut["control"] += 1
    _watch(found, config)
    _counters(found, core, one is not None)
    if one:
        found.lut["one pass"] += 1
        found.lut["one pass: lanes"] += lanes
        found.lut["one pass: words' bits"] += lanes * w.width
        found.ff["one pass"] += 1
        found.ff["lane registers"] += config.step.width
    elif config.intended:
        found.ff["lane registers"] += lanes * (core.update.word.width + (JOINING + 1) * core.sum.width)
        # With a memory the direction is the gradient before: there is less to choose.
        chosen = "chosen bits" if isinstance(part, StreamingThrottle) else "read bits"
        found.lut[chosen] += lanes * max(g.width, d.width)
    else:
        found.ff["lane registers"] += lanes * (core.update.word.width + JOINING * g.width * core.changes)
    if config.asks_moved:
        found.ff["lane registers"] += lanes + 3
        found.lut["moved bits"] += lanes * w.width
    if config.population is not None:
        found.ff["shard"] += 1
        found.lut["shard"] += 1
        found.lut["shard bits"] += widths.energy
    if config.intended:
        found.lut["intended"] += 1
    if core.sum.projects:
        found.lut["projected bits"] += widths.energy
    found.lut["masked lanes"] += lanes - core.tail
    if config.segments:
        _segments(found, core, streams=isinstance(part, StreamingThrottle))
    else:
        beat = (max(2, config.beats) - 1 if one else config.beats).bit_length()
        found.ff["beat registers"] += beat
        found.lut["beat carry"] += found.carry(beat)
    if not isinstance(part, StreamingThrottle):
        _memories(found, config, one is not None, core.changes)


def _segments(found: Counts, core: StreamingThrottle, streams: bool) -> None:
    """The table of segments, and what it says of a beat on its way through the unit to where the beat is masked and summed."""
    config, update = core.config, core.update
    lanes, entries = config.lanes, config.entries
    shift, elements = config.scale_max.bit_length(), config.room.bit_length()
    tag = 1 + lanes + shift
    found.ff["segment registers"] += entries * (elements + shift) + (entries if entries > 1 else 0) + elements + tag
    found.ff["segment registers"] += 0 if streams else STAGES * tag
    found.ff["segment registers"] += (update.latency - 1) * lanes + (JOINING + (0 if config.intended else update.latency)) * shift
    found.ff["segments"] += 1
    found.lut["segments"] += 1
    found.lut["segment carry"] += found.carry(elements)
    found.lut["segment lanes"] += lanes
    found.lut["segment table bits"] += entries * (elements + shift)
    found.lut["segment bits"] += shift


def _memories(found: Counts, config: ThrottleConfig, one: bool, changes: bool) -> None:
    """The stages in front of the core, and the memories; one of few words is look-up tables with registers behind them."""
    lanes, (g, w, *_) = config.lanes, config.grids
    address = max(1, (max(2, config.words) - 1).bit_length())
    found.ff["feed registers"] += STAGES * lanes * (g.width + w.width) + (STAGES + 1) * address
    found.lut["feed address"] += address
    found.lut["feeds"] += 1
    found.lut["feed gates"] += 0 if one else -(-lanes // 4) + 1
    if config.residual_bits:
        found.ff["feed registers"] += address
        found.lut["feed address"] += address
        found.lut["kept residual bits"] += lanes * config.residual_bits
    kept = [g.width] * (not one or changes or config.parity) + [config.residual_bits] * (config.residual_bits > 0)
    for bits in kept:
        word = lanes * (bits + config.parity)
        held = memory(found.family.name, word, config.words)
        found.block += held.block
        found.distributed += held.distributed
        found.ff["memory registers"] += held.registers
        found.lut["small memories"] += not held.block
        found.lut["small memory bits"] += word * (not held.block)
        found.lut["memory chosen bits"] += held.chosen
        if config.parity:
            found.ff["parity registers"] += 2 * lanes + 4
            found.lut["parity bits"] += 2 * lanes * bits
            found.lut["parities"] += lanes


def _counters(found: Counts, core: StreamingThrottle, one: bool) -> None:
    """What counts the lanes' flags: comparisons with the rails, numbers of flags, totals."""
    config = core.config
    lanes, (g, w, y, *_) = config.lanes, config.grids
    number = lanes.bit_length()
    names = flags(config.every_rail)
    compared = [w] if g.rails == w.rails and not one else [g, w]
    if config.every_rail:
        compared = [*compared, y]
        found.ff["step counter registers"] += 2 * COUNTER_BITS + 3
        found.lut["step counters"] += 1
    ranks = sum(_ranks(fmt) for fmt in compared)
    found.ff["rank registers"] += lanes * ranks
    found.lut["ranks"] += lanes * ranks
    found.lut["comparisons"] += lanes * len(compared)
    if len(compared) > 1 + config.every_rail and not one:
        found.lut["compared both"] += lanes
    found.lut["hidden overflows"] += lanes * core.update.hides
    if one:
        count = 2 * len(compared) + 2
        found.ff["counter registers"] += count * (COUNTER_BITS + number + lanes) + lanes * core.update.hides
        found.lut["counter carry"] += count * COUNTER_BITS
        found.lut["one pass: flags"] += count * lanes
        found.lut["one pass: counters"] += count
        found.lut["one pass: first bits"] += lanes * g.width * core.changes
        return
    first, second = counted(config.every_rail)
    bits, most = core.counters.bits, max(len(first), len(second))
    quads = [min(4, lanes - lane) for lane in range(0, lanes, 4)]
    found.ff["counter registers"] += most * bits + (len(first) + len(second)) * COUNTER_BITS
    found.ff["counter registers"] += len(names) * (lanes + number + sum(four.bit_length() for four in quads))
    found.ff["counter registers"] += lanes * core.update.hides
    found.lut["counter carry"] += most * found.carry(bits) + COUNTER_BITS
    found.lut["counters"] += most
    found.lut["flags"] += lanes * len(names)
    found.lut["fours"] += len(names) * sum((0, 0, 2, 2, 3)[four] for four in quads)
    found.lut["number carry"] += len(names) * (len(quads) - 1) * found.carry(number)


def _ranks(fmt: Fixed) -> int:
    """Digits of a comparison with the rails of a format and what is near them; see :mod:`kappa_rtl.hw.lanes.rounding`."""
    low, high = fmt.rails
    bits = fmt.width - 1
    found = set()
    for positive, negative in ((high, -low - 1), (fmt.near_rail, fmt.near_rail - 1)):
        positive, negative = max(0, positive), max(0, negative)
        bits = max(fmt.width - 1, positive.bit_length(), negative.bit_length())
        for place in (0, *range(LOWEST, bits, 3)):
            end = min(place + 3 if place else LOWEST, bits)
            up, down = ((bound >> place) % (1 << end - place) for bound in (positive, negative))
            for bounds in ((up, down), (up + 1, down + 1))[: 2 if place else 1]:
                if bounds != (0, 0) and any(bound < 1 << end - place for bound in bounds):
                    found.add((place, *bounds))
    return len(found)


def _watch(found: Counts, config: ThrottleConfig) -> None:
    if not config.watchdog:
        return
    found.ff["watch registers"] += (1 + len(config.watchdog)) * COUNTER_BITS + len(config.watchdog)
    found.lut["watchdog"] += 1
    found.lut["watches"] += len(config.watchdog)
    if "norm_growth" in config.watchdog:
        found.ff["watch of growth"] += 1
        found.lut["watch of growth"] += 1
    if "gradient_floor" in config.watchdog:
        found.ff["watch of the floor"] += 1
        found.lut["watch of the floor bits"] += config.widths.gradient_energy
