"""Tests of the moving average on a scalar unit of its own, against the golden model."""

from __future__ import annotations

from typing import Any

import cocotb

from ...golden.ema import ema
from ...golden.formats import ZERO, Scalar, ScalarFormat
from ...golden.scalar import ScalarUnit as GoldenUnit
from ...hw.scalar.ema import EMA, KEEP
from ...hw.scalar.operations import Operation, scalar_layout
from ...hw.scalar.sequencer import Alone, Do
from ...hw.scalar.unit import ScalarUnit
from ..testbench.bank import Bench, benches, interrupt, paces
from ..testbench.scoreboard import Scoreboard
from ..testbench.stream import pack


def component(mantissa_bits: int, exponent_bits: int) -> Alone:
    """keep * S, C in its place, and the rest: as in a step, where C comes from a division."""
    fmt = ScalarFormat(mantissa_bits, exponent_bits)
    unit = ScalarUnit(fmt=fmt, step_bits=4, step_fraction=4, radicand_bits=2)
    between = Do("value", Operation.LOAD, "value", store="kept")
    weights = {"keep": None, "rho": None}
    return Alone(unit, (*KEEP, between, *EMA), taken=("ema", "value"), operands=weights)


class Weights:
    """keep and rho on their ports."""

    def __init__(self, bench: Bench, keep: Scalar, rho: Scalar) -> None:
        self._bench, self.keep, self.rho = bench, keep, rho
        layout = scalar_layout(bench.component.unit.fmt)
        bench.wire("keep").value = pack(layout, keep)
        bench.wire("rho").value = pack(layout, rho)

    def ask(self, board: Scoreboard, average: Scalar, value: Scalar) -> None:
        self._bench.drivers["i"].send({"ema": average, "value": value})
        golden = GoldenUnit(self._bench.component.unit.fmt)
        note = f"keep {tuple(self.keep)}, rho {tuple(self.rho)}, average {tuple(average)}, value {tuple(value)}"
        board.expect({"y": ema(golden, self.keep, self.rho, average, value)}, note)


def scalar(bench: Bench, low: int, high: int) -> Scalar:
    bits = bench.component.unit.fmt.mantissa_bits
    return Scalar(bench.rng.randint(1 << (bits - 1), (1 << bits) - 1), bench.rng.randint(low, high))


def choices(bench: Bench) -> list[tuple[Scalar, Scalar]]:
    """keep and rho: nothing kept, all kept, halves, and usual ones."""
    fmt = bench.component.unit.fmt
    one, bits = fmt.one, fmt.mantissa_bits
    half = Scalar(one.m, one.e - 1)
    return [(ZERO, one), (one, ZERO), (half, half), (scalar(bench, -bits, -bits), scalar(bench, -bits - 5, -bits - 3))]


@cocotb.test
async def averages_within_the_promised_cycles(dut: Any) -> None:
    for bench in benches(dut, component):
        fmt = bench.component.unit.fmt
        low, high = fmt.exponents
        ends = [ZERO, fmt.one, fmt.largest, Scalar(fmt.one.m, low)]
        for keep, rho in choices(bench):
            await bench.reset()
            bench.probing = 0
            board = bench.board("o")
            weights = Weights(bench, keep, rho)
            for average in ends:
                for value in ends:  # overflow and underflow of the range among them
                    weights.ask(board, average, value)
            for _ in range(30 * bench.effort):
                average = scalar(bench, low, high)
                near = average.e + bench.rng.randint(-fmt.mantissa_bits - 8, fmt.mantissa_bits + 8)
                weights.ask(board, average, scalar(bench, max(low, min(high, near)), max(low, min(high, near))))
            await bench.drain(board)
            assert max(bench.latencies()) <= bench.component.latency, (
                f"{bench.where}{max(bench.latencies())} cycles; {bench.component.latency} are allowed"
            )


@cocotb.test
async def a_run_from_zero(dut: Any) -> None:
    """The average fed back, as the unit does it from step to step."""
    for bench in benches(dut, component):
        fmt = bench.component.unit.fmt
        await bench.reset()
        board = bench.board("o")
        weights = Weights(bench, *choices(bench)[-1])
        golden, average = GoldenUnit(fmt), ZERO
        for _ in range(40):
            value = scalar(bench, -fmt.mantissa_bits, -fmt.mantissa_bits + 3)
            weights.ask(board, average, value)
            average = ema(golden, weights.keep, weights.rho, average, value)
        await bench.drain(board)


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            bench.pace(idle, stall)
            board = bench.board("o")
            weights = Weights(bench, *choices(bench)[-1])
            for _ in range(4):
                weights.ask(board, scalar(bench, 0, 5), scalar(bench, 0, 5))
            await bench.drain(board)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        board = bench.board("o")
        Weights(bench, *choices(bench)[-1]).ask(board, scalar(bench, 0, 5), scalar(bench, 0, 5))
        await bench.must_offer("o", bench.component.latency + 5)
        await bench.drain(board)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        for cycles in (1, 5, 12, 25, bench.component.latency + 3):
            weights = Weights(bench, *choices(bench)[-1])
            pair = scalar(bench, 0, 5), scalar(bench, 0, 5)
            await interrupt(bench, cycles, weights.ask, *pair)
