"""Tests of the scalar unit: every operation against the golden model's."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import cocotb
from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.clamp import step_size
from ...golden.divider import divide
from ...golden.formats import ZERO, Fixed, Scalar, ScalarFormat
from ...golden.scalar import ScalarUnit as GoldenUnit
from ...golden.sqrt import sqrt
from ...hw.scalar.operations import Operation, scalar_layout
from ...hw.scalar.unit import ScalarUnit
from ..testbench.bank import Bench, benches, interrupt, paces
from ..testbench.scoreboard import Scoreboard

EXHAUSTIVE = 4
"""Mantissas of at most this many bits are all tried."""

BINARY = (Operation.ADD, Operation.MUL, Operation.DIVIDE, Operation.UNDER, Operation.MAX, Operation.MIN, Operation.STEP)
NONE = {"m": 0, "e": 0}


class Asked(wiring.Component):
    """The unit behind streams: a request {op, a, b} becomes the operations that it takes on the accumulator.

    STEP asks for a * b on the step grid; DIVIDE for a / b, UNDER for the same with the divisor in the accumulator; ROOT for that
    of a radicand, a.e its exponent when nothing was shifted.
    """

    def __init__(self, unit: ScalarUnit) -> None:
        self.unit = unit
        scalar = scalar_layout(unit.fmt)
        request = data.StructLayout({"op": Operation, "a": scalar, "b": scalar})
        response = data.StructLayout({"value": scalar, "step": unit.step_bits, "overflow": 1, "underflow": 1})
        super().__init__(
            {
                "i": In(stream.Signature(request)),
                "radicand": In(unit.radicand.signature.flip()),
                "o": Out(stream.Signature(response)),
            }
        )

    @property
    def latency(self) -> dict[Operation, int]:
        """The most cycles from accepting a request (a radicand waiting) to offering the response, by operation."""
        cycles, load = self.unit.cycles, 3 + self.unit.cycles(Operation.LOAD)
        return {op: load + cycles(op) for op in (Operation.ADD, Operation.MUL, Operation.MAX, Operation.MIN)} | {
            Operation.STEP: load + cycles(Operation.PRODUCT) + cycles(Operation.STEP),
            Operation.DIVIDE: load + self.unit.division,
            Operation.UNDER: load + self.unit.division,
            Operation.ROOT: max(3 + self.unit.waiting, 6 + self.unit.root.longest),
        }

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit = unit = self.unit
        wiring.connect(m, unit.radicand, wiring.flipped(self.radicand))
        asked = Signal(self.i.payload.shape())
        op, a, b = asked.op, asked.a, asked.b
        swapped = op == Operation.UNDER
        flags = Signal(2)
        m.d.sync += flags.eq(flags | Cat(unit.overflow, unit.underflow))
        m.d.comb += [
            self.o.payload.value.eq(unit.y),
            self.o.payload.step.eq(unit.step),
            Cat(self.o.payload.overflow, self.o.payload.underflow).eq(flags),
        ]

        def do(operation: Any, e: Value, mantissa: Value, then: str) -> None:
            m.d.comb += [unit.op.eq(operation), unit.x.m.eq(mantissa), unit.x.e.eq(e), unit.go.eq(unit.done)]
            with m.If(unit.done):
                m.next = then

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += self.i.ready.eq(1)
                m.d.sync += [asked.eq(self.i.payload), flags.eq(0)]
                with m.If(self.i.valid):
                    m.next = "LOAD"
                    with m.If(self.i.payload.op == Operation.ROOT):
                        m.next = "ROOT"
            with m.State("LOAD"):
                with m.If(swapped):
                    do(Operation.LOAD, b.e, b.m, "OPERATE")
                with m.Else():
                    do(Operation.LOAD, a.e, a.m, "OPERATE")
            with m.State("OPERATE"):
                with m.If(swapped):
                    do(op, a.e, a.m, "QUOTIENT")
                with m.Elif(op == Operation.DIVIDE):
                    do(op, b.e, b.m, "QUOTIENT")
                with m.Elif(op == Operation.STEP):
                    do(Operation.PRODUCT, b.e, b.m, "STEP")
                with m.Else():
                    do(op, b.e, b.m, "WAIT")
            with m.State("QUOTIENT"):
                do(Operation.QUOTIENT, a.e, a.m, "WAIT")
            with m.State("STEP"):
                do(Operation.STEP, Const(unit.step_exponent, unit.exponent_bits), Const(0, 1), "WAIT")
            with m.State("ROOT"):
                do(Operation.ROOT, a.e, a.m, "WAIT")
            with m.State("WAIT"), m.If(unit.done):
                m.next = "FLAGS"
            with m.State("FLAGS"):
                m.next = "RESPOND"
            with m.State("RESPOND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "IDLE"
        return m


def component(mantissa_bits: int, exponent_bits: int, step_bits: int, step_fraction: int, radicand_bits: int) -> Asked:
    fmt = ScalarFormat(mantissa_bits, exponent_bits)
    return Asked(ScalarUnit(fmt=fmt, step_bits=step_bits, step_fraction=step_fraction, radicand_bits=radicand_bits))


def ask(bench: Bench, board: Scoreboard, op: Operation, a: Scalar, b: Scalar) -> None:
    """Request an operation on two scalars; the golden model says what comes."""
    unit, golden = bench.component.unit, GoldenUnit(bench.component.unit.fmt)
    if op is Operation.STEP:
        grid = Fixed(False, unit.step_bits - unit.step_fraction, unit.step_fraction)
        expected: dict[str, Any] = {"step": step_size(grid, a, b)[0]}
    else:
        make = {
            Operation.ADD: golden.add,
            Operation.MUL: golden.mul,
            Operation.DIVIDE: lambda a, b: divide(golden, a, b),
            Operation.UNDER: lambda a, b: divide(golden, a, b) if b.m else golden.format.largest,
            Operation.MAX: golden.maximum,
            Operation.MIN: golden.minimum,
        }[op]
        expected = {"value": make(a, b)}
    bench.drivers["i"].send({"op": op.value, "a": a, "b": b})
    board.expect(
        expected | {"overflow": golden.overflow, "underflow": golden.underflow}, f"{op.name} of {tuple(a)} and {tuple(b)}"
    )


def ask_root(bench: Bench, board: Scoreboard, integer: int, scale: int) -> None:
    """Request the root of an integer on the grid ``2**scale``, with its radicand."""
    unit, golden = bench.component.unit, GoldenUnit(bench.component.unit.fmt)
    value = sqrt(golden, integer, scale)
    exponent = unit.radicand_bits // 2 - unit.fmt.mantissa_bits + scale // 2
    bench.drivers["i"].send({"op": Operation.ROOT.value, "a": {"m": 0, "e": exponent}, "b": NONE})
    bench.drivers["radicand"].send(integer)
    board.expect({"value": value, "overflow": golden.overflow, "underflow": golden.underflow}, f"ROOT of {integer} * 2**{scale}")


def scalar(bench: Bench, e: int | None = None) -> Scalar:
    """A random scalar, often of an extreme mantissa."""
    fmt, rng = bench.component.unit.fmt, bench.rng
    low, high = 1 << (fmt.mantissa_bits - 1), (1 << fmt.mantissa_bits) - 1
    m = rng.choice([low, low + 1, high - 1, high, rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)])
    return Scalar(m, rng.randint(*fmt.exponents) if e is None else min(fmt.exponents[1], max(fmt.exponents[0], e)))


def operands(bench: Bench, op: Operation) -> tuple[Scalar, Scalar]:
    """Random operands for which something interesting happens more often than not."""
    unit, rng = bench.component.unit, bench.rng
    bits, (low, high) = unit.fmt.mantissa_bits, unit.fmt.exponents
    a = scalar(bench)
    if rng.random() < 0.04:
        pair = (a, ZERO)
        return pair if rng.random() < 0.5 else (ZERO, a)
    if op in (Operation.ADD, Operation.MAX, Operation.MIN):
        b = scalar(bench, a.e + rng.randint(-bits - 4, bits + 4))
    elif op is Operation.MUL:
        b = scalar(bench, rng.choice([low, high, 0]) + rng.randint(-bits - 3, 3) - a.e)
    elif op in (Operation.DIVIDE, Operation.UNDER):
        b = scalar(bench, a.e - rng.choice([low, high, 0]) + rng.randint(-bits - 3, 3))
    else:
        b = scalar(bench, rng.randint(-2 * bits - 4, unit.step_bits - bits + 2) - unit.step_fraction - a.e)
    return a, b


def corners(bench: Bench) -> list[tuple[Operation, Scalar, Scalar]]:
    """Zero, one ulp, ties to either side, exact powers, carries, and both ends of the range."""
    unit = bench.component.unit
    fmt = unit.fmt
    bits, (low, high) = fmt.mantissa_bits, fmt.exponents
    half, full = 1 << (bits - 1), (1 << bits) - 1
    one, largest, smallest = fmt.one, fmt.largest, Scalar(half, low)
    made = [(op, a, b) for op in BINARY for a in (ZERO, one, largest, smallest) for b in (ZERO, one, largest, smallest)]
    tie = Scalar(half, one.e - bits)  # half an ulp of one
    above, below = Scalar(half + 1, one.e - bits), Scalar(full, one.e - bits - 1)
    for a in (one, Scalar(half + 1, one.e), Scalar(full, one.e), Scalar(full - 1, one.e)):  # even and odd; all ones carries
        made += [
            (Operation.ADD, a, b) for b in (tie, above, below, a, Scalar(half, one.e - bits - 1), Scalar(full, one.e - bits - 2))
        ]
    for m in (half, half + 1, full):
        for e in (low, low + 1, high - 1, high):
            x = Scalar(m, e)
            made += [
                (Operation.ADD, x, x),
                (Operation.MUL, x, one),
                (Operation.DIVIDE, x, one),
                (Operation.MIN, x, one),
                (Operation.MAX, x, one),
            ]
            made += [
                (Operation.MUL, x, Scalar(half, -bits)),
                (Operation.MUL, x, Scalar(half, 2 - bits)),
                (Operation.DIVIDE, x, x),
            ]
            made += [(Operation.DIVIDE, x, Scalar(full, -bits)), (Operation.DIVIDE, one, x)]
    # The step grid: half an ulp rounds to zero, one and a half to two, the largest and beyond it saturate.
    ulp = Scalar(half, 1 - bits - unit.step_fraction)
    for m in (half, half + 1, half | half >> 1, full):
        for e in (*range(-3, 2), *range(unit.step_bits - 3, unit.step_bits + 3)):
            made.append((Operation.STEP, one, Scalar(m, ulp.e + e)))
            made.append((Operation.STEP, Scalar(m, one.e), Scalar(full, ulp.e + e)))
    return [(op, a, b) for op, a, b in made if all(low <= x.e <= high for x in (a, b))]


def roots(bench: Bench, count: int) -> list[tuple[int, int]]:
    """Integers and scales for the root: zero, squares and their neighbours, both ends of the range of exponents."""
    unit, rng = bench.component.unit, bench.rng
    width, (low, high) = unit.radicand_bits, unit.fmt.exponents
    made = [(0, 0), (1, 0), (2, -2), (3, 4), ((1 << width) - 1, 0), (1 << (width - 1), 0), (1 << (width - 2), 0)]
    made += [(square + d, 0) for d in (-1, 0, 1) for square in (rng.getrandbits(width // 2 - 1) ** 2 + 2,)]
    base = unit.radicand_bits // 2 - unit.fmt.mantissa_bits
    for exponent in (low, low + 1, high - 1, high):  # of an integer that needs no shift
        made += [
            ((1 << width) - 1, 2 * (exponent - base)),
            (1 << (width - 2), 2 * (exponent - base)),
            (1 << (width - 3), 2 * (exponent - base)),
        ]
    return made + [(rng.getrandbits(rng.randint(1, width)), 2 * rng.randint(-20, 20) // 4 * 2) for _ in range(count)]


@cocotb.test
async def every_pair_of_small_mantissas(dut: Any) -> None:
    """With exponents around each other for the sum, and around both ends of the range for product and quotient."""
    for bench in benches(dut, component):
        unit = bench.component.unit
        bits, (low, high) = unit.fmt.mantissa_bits, unit.fmt.exponents
        if bits > EXHAUSTIVE:
            continue
        await bench.reset()
        bench.probing = 0.01
        board = bench.board("o")
        normal = range(1 << (bits - 1), 1 << bits)
        top = unit.step_bits - 2 * bits - unit.step_fraction
        spread = {
            Operation.ADD: [(3, 3 + d) for d in range(-bits - 3, bits + 4)]
            + [(high, high), (high, high - 1), (high, high - bits), (low, low)],
            Operation.MUL: [(0, 0)]
            + [(low // 2, low - low // 2 - bits + d) for d in (-1, 0, 1)]
            + [(high // 2, high - high // 2 - bits + d) for d in (0, 1, 2)],
            Operation.DIVIDE: [(0, 0)]
            + [(-5, -5 - low - bits + d) for d in (0, 1, 2)]
            + [(5, 5 - high + bits + d) for d in (-1, -2, -3)],
            Operation.MAX: [(0, 0), (0, 1), (low, high), (-1, 0)],
            Operation.MIN: [(0, 0), (0, 1), (low, high), (-1, 0)],
            Operation.STEP: [(0, top + d) for d in range(-unit.step_bits - bits, 3)],
        }
        spread[Operation.UNDER] = spread[Operation.DIVIDE]
        for op, exponents in spread.items():
            for (a, b), (ea, eb) in itertools.product(itertools.product(normal, repeat=2), exponents):
                if low <= ea <= high and low <= eb <= high:
                    ask(bench, board, op, Scalar(a, ea), Scalar(b, eb))
        for integer in range(1 << unit.radicand_bits if unit.radicand_bits <= 10 else 0):
            ask_root(bench, board, integer, -4)
        await bench.drain(board)


@cocotb.test
async def corners_and_random_scalars_within_the_promised_cycles(dut: Any) -> None:
    """Each operation takes no longer than the unit says, and is seen to take that long."""
    for bench in benches(dut, component):
        unit = bench.component.unit
        await bench.reset()
        bench.probing = 0
        board = bench.board("o")
        asked: list[Operation] = []
        for op, a, b in corners(bench):
            ask(bench, board, op, a, b)
            asked.append(op)
        for op in BINARY:
            for _ in range(60 * bench.effort):
                ask(bench, board, op, *operands(bench, op))
                asked.append(op)
        for places in range(unit.fmt.mantissa_bits + 3):  # every alignment of the sum, every place of the step
            ask(bench, board, Operation.ADD, scalar(bench, 0), scalar(bench, -places))
            asked.append(Operation.ADD)
        for places in range(unit.width + unit.step_bits + 4):
            product_exponent = 2 - 2 * unit.fmt.mantissa_bits + unit.step_bits - unit.step_fraction - places
            ask(
                bench,
                board,
                Operation.STEP,
                scalar(bench, 1 - unit.fmt.mantissa_bits),
                scalar(bench, product_exponent + unit.fmt.mantissa_bits - 1),
            )
            asked.append(Operation.STEP)
        for integer, scale in roots(bench, 20 * bench.effort):
            ask_root(bench, board, integer, scale)
            asked.append(Operation.ROOT)
        await bench.drain(board)
        cycles: dict[Operation, int] = {}
        for op, taken in zip(asked, bench.latencies(), strict=True):
            cycles[op] = max(taken, cycles.get(op, 0))
        promised = bench.component.latency
        # The root of the next radicand begins while another operation is under way.
        assert cycles[Operation.ROOT] <= promised[Operation.ROOT], f"{bench.where}{cycles[Operation.ROOT]} cycles for a root"
        promised[Operation.ROOT] = cycles[Operation.ROOT]
        assert cycles == promised, f"{bench.where}the most cycles are {cycles}, where {promised} are promised"


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            bench.pace(idle, stall)
            board = bench.board("o")
            for op in (*BINARY, *BINARY):
                ask_root(bench, board, *bench.rng.choice(roots(bench, 3)))
                ask(bench, board, op, *operands(bench, op))
            await bench.drain(board)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        for op in BINARY:
            await bench.reset()
            board = bench.board("o")
            ask(bench, board, op, *operands(bench, op))
            await bench.must_offer("o", bench.component.latency[op] + 5)
            await bench.drain(board)
        await bench.reset()
        board = bench.board("o")
        ask_root(bench, board, 3, 0)
        await bench.must_offer("o", bench.component.latency[Operation.ROOT] + 5)
        await bench.drain(board)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        longest = max(bench.component.latency.values())
        for op, cycles in itertools.product(BINARY, (2, 5, 9, longest + 2)):
            pair = operands(bench, op)
            await interrupt(bench, cycles, partial(ask, bench), op, *pair)
        for cycles in (1, 4, longest + 2):
            await interrupt(bench, cycles, partial(ask_root, bench), 5, 0)
