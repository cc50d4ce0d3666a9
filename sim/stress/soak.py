"""The soak: millions of random element updates and scalar steps of the exported Verilog, each compared with the golden model."""

from __future__ import annotations

import copy
import itertools
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
from amaranth.hdl import Cat, Module, Shape, UnusedElaboratable
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from numpy.typing import NDArray

from ...golden.config import EmaStart, OnStill, Source, ThrottleConfig
from ...golden.decide import Decide as GoldenDecide
from ...golden.formats import ZERO, Overflow, Rounding, Scalar
from ...golden.registers import CONSTANTS
from ...golden.rounding import shift_round
from ...golden.update import apply_update
from ...hw.export import to_verilog
from ...hw.lanes.update import Update
from ...hw.scalar.decide import Decide, control_words, status_layout
from ..runner import Design, SimulationError
from ..testbench.stream import unpack
from .native import play, program

Codes = NDArray[np.int64]
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Failure:
    """A difference: what went in, what golden gives and what came out."""

    what: str
    given: Any
    golden: Any
    rtl: Any

    def __str__(self) -> str:
        return f"{self.what}\n  given  {self.given}\n  golden {self.golden}\n  rtl    {self.rtl}"


class Result(NamedTuple):
    """What a part of the soak found."""

    done: int  #: element updates or scalar steps that were compared
    cycles: int
    failure: Failure | None
    seconds: float = 0.0


def compiled(name: str, verilog: str, parameters: Mapping[str, int], optimisation: str) -> Path:
    """The program of an exported component in its harness."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        source = Path(folder) / f"{name}.v"
        source.write_text(verilog)
        return program(Design((source, HERE / f"soak_{name}.v"), "soak", parameters, optimisation=optimisation))


# ------------------------------------------------------------------------------------------------ scalar steps

SCALARS: dict[str, ThrottleConfig] = {
    "M = 24": ThrottleConfig(elements=640, eta=0.1, eta_max=2, dead_after=3),
    "M = 9": ThrottleConfig(
        elements=5, eta=0.1, eta_max=2, dead_after=3, mantissa_bits=9, exponent_bits=8, step_bits=9,
        gradient="SQ2.6", weight="SQ1.5", update="SQ1.7",
    ),
    "intended, M = 24": ThrottleConfig(elements=640, eta=0.1, eta_max=2, dead_after=3, motion="intended"),
    "projection, M = 9": ThrottleConfig(
        elements=5, eta=0.1, eta_max=2, dead_after=3, mantissa_bits=9, exponent_bits=8, step_bits=9,
        gradient="SQ2.6", weight="SQ1.5", update="SQ1.7", source="projection",
    ),
}  # fmt: skip
"""The scalar parts that are soaked."""

SEGMENT = 16
"""Steps between two resets, each of which brings new constants and modes."""


class Step(NamedTuple):
    """A step of the scalar part; ``law`` with the first one after a reset."""

    law: ThrottleConfig | None
    clear: bool
    gradient: int
    motion: int  #: energy of what this step applied, for the next one


def scalar_steps(config: ThrottleConfig, random: Random, count: int) -> list[Step]:
    """Random steps: energies of every length, with zeros, squares and the largest; a reset with a new law every few steps."""
    widths = config.widths
    return [
        Step(
            random_law(config, random) if not i % SEGMENT else None,
            random.random() < 0.05,
            _energy(random, widths.gradient_energy, 0.05),
            _energy(random, widths.motion_energy, 0.2),
        )
        for i in range(count)
    ]


def _energy(random: Random, bits: int, zeros: float) -> int:
    kind, length = random.random(), random.randint(1, bits)
    if kind < zeros:
        return 0
    if kind < zeros + 0.05:
        return (1 << length) - 1
    if kind < zeros + 0.1:  # a root with nothing to round
        return random.getrandbits((length + 1) // 2) ** 2 % (1 << bits)
    return 1 << length - 1 | random.getrandbits(length - 1)


def random_law(config: ThrottleConfig, random: Random) -> ThrottleConfig:
    """The same hardware with random modes, and with random scalars as constants, which need not be roundings of any reals."""
    fmt = config.scalar
    bits = fmt.mantissa_bits
    near = (-bits - 20, -bits + 20) if random.random() < 0.6 else fmt.exponents

    def scalar(top: int | None) -> Scalar:
        """A scalar, below ``2**top`` if that is given."""
        kind = random.random()
        if kind < 0.06:
            return ZERO
        corners = (0, 1, (1 << bits - 1) - 1)
        m = 1 << bits - 1 | (random.choice(corners) if kind < 0.2 else random.getrandbits(bits - 1))
        e = random.randint(*near)
        return Scalar(m, e if top is None else min(e, top - bits))

    tops = {"rho": 0, "keep": 0, "alpha_min": 0, "eta": config.step.integer_bits}
    law = copy.copy(config)
    vars(law).update(
        constants={name: scalar(tops.get(name)) for name in CONSTANTS},
        source=random.choice(Source(config.source).alike),
        on_still=random.choice(list(OnStill)),
        ema_start=random.choice(list(EmaStart)),
        enabled=random.random() < 0.9,
    )
    return law


class MovedByEnergy(wiring.Component):
    """A scalar part which is told that a weight has moved where B is not zero."""

    def __init__(self, config: ThrottleConfig) -> None:
        self.decide = Decide(config)
        super().__init__({name: port for name, port in self.decide.signature.members.items() if name != "moved"})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.decide = decide = self.decide
        for name in self.signature.members:
            mine, theirs = getattr(self, name), getattr(decide, name)
            if name in ("i", "constants", "control"):
                wiring.connect(m, wiring.flipped(mine), theirs)
            elif name == "o":
                wiring.connect(m, theirs, wiring.flipped(mine))
        m.d.comb += [decide.clear.eq(self.clear), self.status.eq(decide.status), decide.moved.eq(self.i.payload.any())]
        return m


class Scalars:
    """A scalar part in its harness, with the golden model beside it."""

    def __init__(self, config: ThrottleConfig, verilog: str | None = None) -> None:
        self.config = config
        self._layout = status_layout(config)
        self._fields = {name: (field.offset, field.shape) for name, field in self._layout}
        widths = {"ENERGY": config.widths.energy, "STEP": config.step.width, "STATUS": self._layout.size}
        widths["SCALAR"] = config.scalar.width
        self._energy, self._step = config.widths.energy, config.step.width
        self._bytes = (6 + 9 * config.scalar.width + 2 * self._energy + 2 + 7) // 8
        self._digits = len(f"{(1 << self._step) - 1:x}") + len(f"{(1 << self._layout.size) - 1:x}")
        text = (
            verilog
            if verilog is not None
            else to_verilog(MovedByEnergy(config) if config.asks_moved else Decide(config), "decide")
        )
        self.program = compiled("decide", text, widths, "-O3")

    def stimulus(self, steps: list[Step]) -> bytes:
        """The records of the steps."""
        energy, scalar = self._energy, self.config.scalar.width
        found, held = [], 0
        for step in steps:
            if step.law is not None:
                words = control_words(step.law)
                constants = sum(words[f"constants_{name}"] << scalar * i for i, name in enumerate(CONSTANTS))
                modes = words["control_source"] | words["control_on_still"] << 2
                modes |= words["control_ema_first"] << 4 | words["control_enabled"] << 5
                held = (constants | modes << 9 * scalar) << 2 * energy + 2
            record = held | (step.motion << energy | step.gradient) << 2 | step.clear << 1 | (step.law is not None)
            found.append(record.to_bytes(self._bytes, "big"))
        return b"".join(found)

    def golden(self, steps: list[Step]) -> Iterator[str]:
        """The response to the steps, line by line."""
        fmt = self.config.scalar
        mask = (1 << fmt.exponent_bits) - 1
        at = {name: offset for name, (offset, _) in self._fields.items()}
        unit, motion, still_steps, still_run, dead = GoldenDecide(self.config), 0, 0, 0, False
        size, width = 0, self._layout.size
        for step in steps:
            if step.law is not None:
                unit, motion, still_steps, still_run, dead, size = GoldenDecide(step.law), 0, 0, 0, False, 0
            elif step.clear:
                unit.clear()
                still_steps, still_run, dead = 0, 0, False
            moved = motion != 0 if self.config.asks_moved else None
            found = unit.decide(step.gradient, motion, moved, size)
            motion, size = step.motion, found.step_size
            still_steps += found.still
            still_run = still_run + 1 if found.still else 0
            dead = dead or still_run >= self.config.dead_after
            word = found.step_size << at["step_size"] | found.still << at["still"] | still_steps << at["still_steps"]
            word |= dead << at["learning_dead"] | unit.unit.overflow << at["scalar_overflow"]
            word |= unit.unit.underflow << at["scalar_underflow"] | unit.step_overflow << at["step_overflow"]
            for name in ("norm_gradient", "norm_motion", "curvature", "ema", "alpha"):
                m, e = getattr(found, name)
                word |= (m | (e & mask) << fmt.mantissa_bits) << at[name]
            yield f"{found.step_size:0{-(-self._step // 4)}x}{word:0{-(-width // 4)}x}"

    def check(self, steps: list[Step]) -> tuple[int, int | None, str, str]:
        """Cycles, the first step that differs, and both answers to it."""
        *lines, cycles = play(self.program, self.stimulus(steps))
        for i, (want, got) in enumerate(itertools.zip_longest(self.golden(steps), lines, fillvalue="nothing")):
            if want != got:
                return int(cycles.split()[0]), i, want, got
        return int(cycles.split()[0]), None, "", ""

    def soak(self, random: Random, count: int) -> Result:
        """Random steps; the first difference by the fewest steps that still show it."""
        steps = scalar_steps(self.config, random, count)
        cycles, at, want, got = self.check(steps)
        if at is None:
            return Result(len(steps), cycles, None)
        few = steps[at - at % SEGMENT : at + 1]
        for i in reversed(range(len(few) - 1)):
            fewer = few[:i] + few[i + 1 :]
            fewer[0] = fewer[0]._replace(law=few[0].law)
            _, still, *answers = self.check(fewer)
            if still is not None:
                few, (want, got) = fewer[: still + 1], answers
        law = few[0].law
        assert law is not None
        given = {name: getattr(law, name) for name in ("source", "on_still", "ema_start", "enabled", "constants")}
        given |= {"steps (clear, A, B)": [(step.clear, step.gradient, step.motion) for step in few]}
        return Result(at, cycles, Failure(f"scalar part, {self.config}", given, self.read(want), self.read(got)))

    def read(self, line: str) -> Any:
        """The status in a line of the response."""
        try:
            return unpack(self._layout, int(line, 16))
        except ValueError:
            return line


# ------------------------------------------------------------------------------------------------ element updates

LANES, BEATS = 4, 64
_UPDATES = ThrottleConfig(elements=LANES * BEATS - 1, lanes=LANES, eta=0.1, eta_max=2)
UPDATES: dict[str, ThrottleConfig] = {
    "16 bits": _UPDATES,
    "8-bit weights": _UPDATES.replace(gradient="SQ2.10", weight="SQ1.7", update="SQ0.10"),
}
"""The formats that are soaked, each in every rounding and overflow."""


def modes(config: ThrottleConfig) -> Iterator[ThrottleConfig]:
    """Every rounding with every overflow, of the update's grid and, in another order, of the weight's."""
    every = list(itertools.product([one for one in Rounding if one is not Rounding.STOCHASTIC], Overflow))
    for update, weight in zip(every, every[9:] + every[:9], strict=True):
        formats = {
            name: replace(fmt, rounding=rounding, overflow=overflow)
            for name, fmt, (rounding, overflow) in (
                ("update", config.grids.update, update),
                ("weight", config.grids.weight, weight),
            )
        }
        yield config.replace(**formats)


class Bank(wiring.Component):
    """Units side by side, which all take the same beats; their outputs as one word of whole bytes, each from its own place on."""

    def __init__(self, units: list[Update]) -> None:
        self.units = units
        sizes = [Shape.cast(unit.o.payload.shape()).width for unit in units]
        self.places = list(itertools.accumulate(sizes, initial=0))
        width = Shape.cast(units[0].i.payload.shape()).width
        total = (self.places[-1] + 7) // 8 * 8
        super().__init__({"i_valid": In(1), "step": In(len(units[0].step)), "i": In(width), "o_valid": Out(1), "o": Out(total)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for unit in self.units:
            m.submodules += unit
            m.d.comb += [
                unit.i.valid.eq(self.i_valid),
                unit.i.payload.as_value().eq(self.i),
                unit.step.eq(self.step),
                unit.o.ready.eq(1),
            ]
        m.d.comb += [self.o_valid.eq(self.units[0].o.valid), self.o.eq(Cat(unit.o.payload.as_value() for unit in self.units))]
        return m


class Elements:
    """Update lanes of every mode in their harness, with the golden model beside them."""

    def __init__(self, config: ThrottleConfig, update: type[Update] = Update) -> None:
        self.config = config
        self.units = list(modes(config))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnusedElaboratable)
            bank = Bank([update(unit) for unit in self.units])
        self._gap = bank.units[0].latency + 2
        self._leaves = [
            {name: (place + field.offset, field.width) for name, field in unit.o.payload.shape()}
            for place, unit in zip(bank.places, bank.units, strict=False)
        ]
        self.program = compiled(
            "update", to_verilog(bank, "update"), {"STEP": len(bank.step), "IN": len(bank.i), "OUT": len(bank.o)}, "-O0"
        )

    def operands(self, random: np.random.Generator) -> tuple[int, Codes, Codes]:
        """A pass: its step size, directions and weights, each (BEATS, LANES); rails, zeros, ulps and ties among random ones."""
        _, w, _, step, d = self.config.grids
        top = step.rails[1]
        size = int(random.integers(1, top + 1)) >> int(random.integers(step.width))
        size = int(random.choice([0, 1, top, 1 << int(random.integers(step.width)), size, size << int(random.integers(8))])) & top
        return size, self._codes(random, d.width, self._ties(size)), self._codes(random, w.width, [0])

    def _ties(self, step: int) -> list[int]:
        """Directions whose product lies in the middle between two updates, and those beside them."""
        shift, odd = self.config.widths.update_shift, step & -step
        if not step or odd > 1 << shift - 1:
            return [0]
        unit = (1 << shift - 1) // odd
        half = 1 << self.config.grids.direction.width - 1
        return [x for k in range(-31, 32, 2) for x in (unit * k - 1, unit * k, unit * k + 1) if -half <= x < half] or [0]

    @staticmethod
    def _codes(random: np.random.Generator, width: int, special: list[int]) -> Codes:
        half, shape = 1 << width - 1, (BEATS, LANES)
        corners = [-half, 1 - half, 2 - half, -2, -1, 0, 1, 2, half - 2, half - 1]
        everywhere = random.integers(-half, half, shape)
        kinds = [everywhere, everywhere >> random.integers(0, width, shape), random.choice(corners, shape)]
        kinds.append(random.choice(special, shape))
        return np.choose(random.choice(4, shape, p=[0.25, 0.3, 0.2, 0.25]), kinds).astype(np.int64)

    def stimulus(self, passes: list[tuple[int, Codes, Codes]]) -> bytes:
        """The records of the passes, a cycle each."""
        _, w, _, step, d = self.config.grids
        rows = len(passes) * (BEATS + self._gap)
        cycle = np.arange(rows) % (BEATS + self._gap) - self._gap

        def spread(index: int, width: int) -> Codes:
            """The bits of an operand of all passes, below each other; zeros in the gaps."""
            codes = np.zeros((len(passes), BEATS + self._gap, LANES), np.int64)
            codes[:, self._gap :] = [operands[index] for operands in passes]
            return (codes.reshape(rows, LANES, 1) >> np.arange(width) & 1).reshape(rows, -1)

        sizes = np.repeat([size for size, _, _ in passes], BEATS + self._gap)
        columns = [cycle[:, None] >= 0, sizes[:, None] >> np.arange(step.width) & 1]
        columns += [spread(1, d.width), spread(2, w.width), cycle[:, None] == BEATS - 1]
        bits = np.concatenate([column.astype(np.uint8) for column in columns], axis=1)
        records = np.packbits(bits, axis=1, bitorder="little")[:, ::-1]
        return records.tobytes() + bytes(records.shape[1] * self._gap)  # the last beats come out of the pipeline

    def soak(self, random: np.random.Generator, count: int) -> Result:
        """At least ``count`` random element updates, the modes together."""
        each = self.config.elements * len(self.units)
        passes = [self.operands(random) for _ in range(-(-count // each))]
        *lines, cycles = play(self.program, self.stimulus(passes))
        if len(lines) != BEATS * len(passes):
            raise SimulationError(f"{len(lines)} beats came out of the lanes, not {BEATS * len(passes)}")
        raw = np.frombuffer(bytes.fromhex("".join(lines)), np.uint8).reshape(len(lines), -1)[:, ::-1]
        bits = np.unpackbits(raw, axis=1, bitorder="little")
        for number, unit in enumerate(self.units):
            told = {name: self._field(bits, name, *place) for name, place in self._leaves[number].items()}
            for i, operands in enumerate(passes):
                part = {name: values[i * BEATS : (i + 1) * BEATS].reshape(-1) for name, values in told.items()}
                failure = self._compare(unit, operands, part)
                if failure:
                    return Result(i * each, int(cycles.split()[0]), failure)
        return Result(len(passes) * each, int(cycles.split()[0]), None)

    @staticmethod
    def _field(bits: NDArray[np.uint8], name: str, offset: int, total: int) -> Codes:
        """A field of a unit's output, (beats, lanes); signed where the format is."""
        width = total if name == "last" else total // LANES
        part = bits[:, offset : offset + total].reshape(len(bits), -1, width).astype(np.int64)
        codes = part @ (1 << np.arange(width))
        return codes - (part[..., -1] << width) if name in ("weight", "previous", "update") else codes

    def _compare(self, unit: ThrottleConfig, operands: tuple[int, Codes, Codes], told: dict[str, Codes]) -> Failure | None:
        """A pass of one unit; flags by their sums first, and only then element by element."""
        size, directions, weights = operands
        n = unit.elements
        direction, weight = directions.reshape(-1)[:n], weights.reshape(-1)[:n]
        moved, update, tally = apply_update(direction, weight, size, unit)
        golden = {"weight": moved, "previous": weight, "update": update}
        wrong = np.zeros(n, bool)
        for name, values in golden.items():
            wrong |= told[name][:n] != values
        if "overflowed" in told:  # of modes that hide it
            w, y, common = unit.grids.weight, unit.grids.update, unit.widths.common_fraction
            total = (weight.astype(np.int64) << common - w.fraction_bits) + (update.astype(np.int64) << common - y.fraction_bits)
            summed, (low, high) = shift_round(total, unit.widths.weight_shift, w.rounding), w.rails
            golden["overflowed"] = ((summed < low) | (summed > high)).astype(np.int64)
            wrong |= told["overflowed"][:n] != golden["overflowed"]
        flags = {"saturated": tally.update_saturated, "swallowed": tally.update_underflow}
        if any(int(told[name].sum()) != count for name, count in flags.items()):
            for j in range(n):
                alone = apply_update(direction[j : j + 1], weight[j : j + 1], size, unit.replace(elements=1))[2]
                wrong[j] |= (told["saturated"][j], told["swallowed"][j]) != (alone.update_saturated, alone.update_underflow)
        if any(told[name][n:].any() for name in (*golden, *flags)):
            return Failure(
                f"update lanes, {unit}", "a last beat", "zeros in the lanes beyond N", {k: v[n:] for k, v in told.items()}
            )
        if not wrong.any():
            return None
        j = int(np.flatnonzero(wrong)[0])
        given = {"step": size, "direction": int(direction[j]), "weight": int(weight[j])}
        alone = apply_update(direction[j : j + 1], weight[j : j + 1], size, unit.replace(elements=1))[2]
        want = {name: int(values[j]) for name, values in golden.items()}
        want |= {"saturated": alone.update_saturated, "swallowed": alone.update_underflow}
        return Failure(f"update lanes, {unit}", given, want, {name: int(told[name][j]) for name in want})
