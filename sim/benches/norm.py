"""Tests of the sum of squares, against the golden model."""

from __future__ import annotations

from functools import partial
from typing import Any

import cocotb
import numpy as np

from ...golden.norm import sum_of_squares
from ...hw.lanes.norm import SumOfSquares
from ..testbench.bank import Bench, benches, interrupt, paces
from ..testbench.scoreboard import Scoreboard

Pairs = list[tuple[int, int]]


def component(width: int, lanes: int, energy_bits: int, tail: int | None = None) -> SumOfSquares:
    return SumOfSquares(lanes=lanes, width=width, energy_bits=energy_bits, tail=tail)


def add_up(bench: Bench, board: Scoreboard, pairs: Pairs) -> None:
    """Ask for one sum; whole beats, the last one as full as the component's tail, noise in its other lanes."""
    unit, driver, rng = bench.component, bench.drivers["i"], bench.rng
    beats = -(-max(0, len(pairs) - unit.tail) // unit.lanes) + 1
    noise = (beats - 1) * unit.lanes + unit.tail
    assert len(pairs) == noise, "the pairs must fill the beats"
    filled = pairs + [(rng.getrandbits(unit.width), rng.getrandbits(unit.width)) for _ in range(beats * unit.lanes - noise)]
    for beat in range(beats):
        lanes = filled[beat * unit.lanes : (beat + 1) * unit.lanes]
        driver.send({"minuend": [a for a, _ in lanes], "subtrahend": [b for _, b in lanes], "last": beat == beats - 1})
    minuend, subtrahend = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    board.expect(sum_of_squares(minuend, subtrahend), f"{beats} beats, {pairs[:4]}...")


def numbers(bench: Bench, beats: int) -> Pairs:
    """Random operands for that many beats, the extremes among them."""
    unit, rng = bench.component, bench.rng
    low, high = -(1 << (unit.width - 1)), (1 << (unit.width - 1)) - 1
    kind = rng.choice(["any", "rails", "small"])
    span = {"any": (low, high), "rails": (low, high), "small": (-1, 1)}[kind]

    def one() -> int:
        return rng.choice(span) if kind == "rails" else rng.randint(*span)

    return [(one(), one()) for _ in range((beats - 1) * unit.lanes + unit.tail)]


@cocotb.test
async def sum_of_every_pair_of_small_operands(dut: Any) -> None:
    for bench in benches(dut, component):
        if bench.component.width > 4:
            continue
        unit = bench.component
        await bench.reset()
        board = bench.board("o")
        codes = range(-(1 << (unit.width - 1)), 1 << (unit.width - 1))
        every = [(a, b) for a in codes for b in codes]
        for lane in range(unit.tail):  # every pair in every lane, the other lanes zero
            for pair in every if lane == 0 else bench.rng.sample(every, 32):
                add_up(bench, board, [pair if i == lane else (0, 0) for i in range(unit.tail)])
        await bench.drain(board)


@cocotb.test
async def sum_of_a_beat_a_cycle(dut: Any) -> None:
    """Throughput and latency: beats enter in consecutive cycles, and the sum is offered after the promised number."""
    for bench in benches(dut, component):
        unit = bench.component
        await bench.reset()
        bench.probing = 0
        board = bench.board("o")
        lengths = [1, 2, 3, 7, 20, 1, 1]
        for beats in lengths:
            add_up(bench, board, numbers(bench, beats))
        await bench.drain(board)
        taken = [transfer.taken for transfer in bench.monitors["i"].transfers]
        for beats, answer in zip(lengths, bench.monitors["o"].transfers, strict=True):
            mine, taken = taken[:beats], taken[beats:]
            assert mine == list(range(mine[0], mine[0] + beats)), f"{bench.where}not a beat a cycle: {mine}"
            assert answer.offered - mine[-1] == unit.latency, (
                f"{bench.where}latency {answer.offered - mine[-1]}, not {unit.latency}"
            )
            assert not taken or taken[0] > answer.taken, f"{bench.where}a beat was accepted before the sum was taken"


@cocotb.test
async def sum_at_the_widest(dut: Any) -> None:
    """The largest sum that the width is made for."""
    for bench in benches(dut, component):
        unit = bench.component
        await bench.reset()
        board = bench.board("o")
        low, high = -(1 << (unit.width - 1)), (1 << (unit.width - 1)) - 1
        room = ((1 << unit.energy_bits) - 1) // (high - low) ** 2
        beats = min(50, 1 + (room - unit.tail) // unit.lanes)
        count = (beats - 1) * unit.lanes + unit.tail
        for pair in ((low, high), (high, low), (0, 0), (low, low)):
            add_up(bench, board, [pair] * count)
        await bench.drain(board)


@cocotb.test
async def sum_under_idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            bench.pace(idle, stall)
            board = bench.board("o")
            for beats in (1, 5, 2, 1):
                add_up(bench, board, numbers(bench, beats))
            await bench.drain(board)


@cocotb.test
async def sum_after_a_reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        for cycles in (1, 2, 4, 6, 8, 20):
            pairs = numbers(bench, 4)
            await interrupt(bench, cycles, partial(add_up, bench), pairs)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        board = bench.board("o")
        add_up(bench, board, numbers(bench, 1))
        await bench.must_offer("o", bench.component.latency + 5)
        await bench.drain(board)
