"""Tests of the square root: roots against the integer root."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import cocotb

from ...hw.scalar.sqrt import SquareRoot
from ..testbench.bank import Bench, benches, interrupt, paces
from ..testbench.scoreboard import Scoreboard

EXHAUSTIVE = 10
"""Radicands of at most this many bits are all tried."""


def component(width: int, bits: int) -> SquareRoot:
    return SquareRoot(width, bits)


def root(unit: SquareRoot, integer: int) -> dict[str, int]:
    """What the square root owes for an integer."""
    if not integer:
        return {"root": 0}
    shift = (unit.width - integer.bit_length()) // 2
    lift = 2 * (unit.bits + shift) - unit.width
    whole = math.isqrt(integer << lift if lift >= 0 else integer >> -lift)
    exact = whole * whole << max(0, -lift) == integer << max(0, lift)
    return {"root": whole, "sticky": int(not (exact and unit.decides)), "shift": shift}


def radicands(bench: Bench, count: int) -> list[int]:
    """Named corners and random radicands."""
    width, rng = bench.component.width, bench.rng
    low, high = 1 << (width - 2), (1 << width) - 1
    made = [0, 1, low - 1, low, low + 1, 2 * low, 2 * low - 1, 2 * low + 1, 3 * low, high - 1, high]  # exact powers, ends
    squares = [rng.randint(1 << (width // 2 - 1), (1 << (width // 2)) - 1) ** 2 for _ in range(count)]
    made += [n for square in squares for n in (square - 1, square, square + 1) if low <= n <= high]
    made += [rng.randint(low, high) for _ in range(count)]
    return made + [rng.getrandbits(rng.randint(1, width)) for _ in range(count)]


def ask(bench: Bench, board: Scoreboard, radicand: int) -> None:
    bench.drivers["i"].send(radicand)
    board.expect(root(bench.component, radicand), f"the root of {radicand:#x}")


@cocotb.test
async def every_small_radicand(dut: Any) -> None:
    for bench in benches(dut, component):
        width = bench.component.width
        if width > EXHAUSTIVE:
            continue
        await bench.reset()
        board = bench.board("o")
        for radicand in range(1 << width):
            ask(bench, board, radicand)
        await bench.drain(board)


@cocotb.test
async def corners_and_random_radicands_take_the_promised_cycles(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        bench.probing = 0
        board = bench.board("o")
        asked = radicands(bench, 50 * bench.effort)
        for radicand in asked:
            ask(bench, board, radicand)
        await bench.drain(board)
        assert bench.latencies() == [bench.component.cycles(radicand) for radicand in asked], bench.where


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            bench.pace(idle, stall)
            board = bench.board("o")
            for radicand in bench.rng.sample(radicands(bench, 5), 8):
                ask(bench, board, radicand)
            await bench.drain(board)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        board = bench.board("o")
        ask(bench, board, radicands(bench, 1)[-1])
        await bench.must_offer("o", bench.component.longest + 5)
        await bench.drain(board)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        for cycles in (1, 3, bench.component.longest, bench.component.longest + 3):
            radicand = radicands(bench, 1)[-1]
            await interrupt(bench, cycles, partial(ask, bench), radicand)
