"""Tests of the divider: quotients against integer division."""

from __future__ import annotations

from functools import partial
from typing import Any

import cocotb

from ...hw.scalar.divider import Divider
from ..testbench.bank import Bench, benches, interrupt, paces
from ..testbench.scoreboard import Scoreboard

EXHAUSTIVE = 6
"""Mantissas of at most this many bits are all tried."""


def component(bits: int) -> Divider:
    return Divider(bits)


def quotient(bits: int, dividend: int, divisor: int) -> dict[str, int]:
    """What the divider owes for two mantissas."""
    if not dividend >> (bits - 1):
        return {"quotient": 0}
    below = dividend < divisor
    return {"quotient": (dividend << (bits + below)) // divisor, "below": int(below)}


def latency(divider: Divider, dividend: int, divisor: int) -> int:
    """The cycles that the divider's contract gives two mantissas."""
    return divider.latency + (dividend < divisor) if dividend >> (divider.bits - 1) else 1


def pairs(bench: Bench, count: int) -> list[tuple[int, int]]:
    """Named corners and random mantissas."""
    bits, rng = bench.component.bits, bench.rng
    low, high = 1 << (bits - 1), (1 << bits) - 1
    corners = [low, low + 1, high - 1, high, low | 1 << (bits // 2)]
    made = [(a, b) for a in corners for b in corners]  # equal ones, one ulp apart, exact powers, both ends
    made += [(0, b) for b in corners] + [(low - 1, high)]
    for _ in range(count):
        a = rng.randint(low, high)
        made += [(a, rng.randint(low, high)), (a, min(high, max(low, a + rng.randint(-1, 1))))]
    return made


def ask(bench: Bench, board: Scoreboard, dividend: int, divisor: int) -> None:
    bench.drivers["i"].send({"dividend": dividend, "divisor": divisor})
    board.expect(quotient(bench.component.bits, dividend, divisor), f"{dividend} / {divisor}")


@cocotb.test
async def every_pair_of_small_mantissas(dut: Any) -> None:
    for bench in benches(dut, component):
        bits = bench.component.bits
        if bits > EXHAUSTIVE:
            continue
        await bench.reset()
        board = bench.board("o")
        normal = range(1 << (bits - 1), 1 << bits)
        for dividend in [0, *normal]:
            for divisor in normal:
                ask(bench, board, dividend, divisor)
        await bench.drain(board)


@cocotb.test
async def corners_and_random_mantissas_take_the_promised_cycles(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        bench.probing = 0
        board = bench.board("o")
        asked = pairs(bench, 100 * bench.effort)
        for pair in asked:
            ask(bench, board, *pair)
        await bench.drain(board)
        came = zip(bench.monitors["i"].transfers, bench.monitors["o"].transfers, strict=True)
        taken = [answer.offered - asked.offered for asked, answer in came]  # both are taken at once
        assert taken == [latency(bench.component, *pair) for pair in asked], bench.where


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            bench.pace(idle, stall)
            board = bench.board("o")
            for pair in bench.rng.sample(pairs(bench, 5), 12):
                ask(bench, board, *pair)
            await bench.drain(board)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        board = bench.board("o")
        ask(bench, board, *pairs(bench, 1)[-1])
        await bench.must_offer("o", bench.component.latency + 5)
        await bench.drain(board)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        for cycles in (1, 3, bench.component.latency, bench.component.latency + 3):
            pair = bench.rng.choice(pairs(bench, 1))
            await interrupt(bench, cycles, partial(ask, bench), *pair)
