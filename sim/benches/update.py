"""Tests of the update lanes against the golden model, element by element."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import cocotb
import numpy as np

from ...golden.config import ThrottleConfig
from ...golden.formats import Fixed
from ...golden.random import LaneGenerators
from ...golden.rounding import shift_round
from ...golden.update import apply_update
from ...hw.lanes.update import Update
from ..testbench.bank import Bench, benches, paces

EXHAUSTIVE = 5
"""Formats of at most this many bits are tried whole: every direction with every weight."""

Pairs = Sequence[tuple[int, int]]


def component(**table: Any) -> Update:
    return Update(ThrottleConfig.from_table(table))


def words(fmt: Fixed) -> range:
    """All words of a signed format, whatever its overflow mode."""
    return range(-(1 << (fmt.width - 1)), 1 << (fmt.width - 1))


def steps(bench: Bench) -> list[int]:
    """Step sizes: none, one ulp, the largest, a power of two, and random ones."""
    top = bench.component.config.step.rails[1]
    return [0, 1, top, (top + 1) // 2, *(bench.rng.randint(1, top) for _ in range(2))]


class Lanes:
    """Passes from reset over pairs of direction and weight, each with a residual, if there are any.

    The last beat of a pass has ``tail`` elements, and noise in its other lanes.
    """

    def __init__(self, bench: Bench) -> None:
        self._bench, self.config = bench, bench.component.config
        self.board = bench.board("o")
        # The golden model is asked element by element, so that its tally tells each lane's flags.
        self._one = self.config.replace(elements=1)
        self._generators = LaneGenerators(self.config.lane_seeds)
        k = self.config.residual_bits
        low, high = -1 << max(0, k - 1), (1 << max(0, k - 1)) - 1
        self._residuals = [low, low + 1, -1, 0, 1, high, *range(low, high + 1)]

    def apply(self, pairs: Pairs, step: int) -> None:
        """Queue a pass; the component's step must stand on its port when the first beat enters."""
        config, bench = self.config, self._bench
        lanes, tail = config.lanes, config.tail
        beats = -(-max(0, len(pairs) - tail) // lanes) + 1
        padded = [*pairs, *([(0, 0)] * ((beats - 1) * lanes + tail - len(pairs)))]
        for beat in range(beats):
            part, last = padded[beat * lanes : (beat + 1) * lanes], beat == beats - 1
            noise = [
                (bench.rng.choice(words(config.grids.direction)), bench.rng.choice(words(config.grids.weight)))
                for _ in range(lanes - len(part))
            ]
            sent = [*part, *noise]
            residuals = [bench.rng.choice(self._residuals) for _ in sent]
            payload = {"direction": [d for d, _ in sent], "weight": [w for _, w in sent], "residual": residuals, "last": last}
            bench.drivers["i"].send(payload)
            draws = self._generators.draw(1)[0]
            owed = [self._element(*pair, step, draw, e) for pair, draw, e in zip(part, draws, residuals, strict=False)]
            owed += [dict.fromkeys(owed[0], 0)] * len(noise)
            self.board.expect(
                {name: [lane[name] for lane in owed] for name in owed[0]} | {"last": int(last)}, f"step {step}, {part}, {config}"
            )

    def _element(self, direction: int, weight: int, step: int, draw: int, residual: int) -> dict[str, int]:
        config = self._one
        moved, applied, tally = apply_update(
            np.array([direction]),
            np.array([weight]),
            step,
            config,
            draws=np.array([draw], np.uint16) if config.stochastic else None,
            residual=(kept := np.array([residual])) if config.residual_bits else None,
        )
        flags = {"saturated": tally.update_saturated, "swallowed": tally.update_underflow}
        found = {"weight": int(moved[0]), "previous": weight, "update": int(applied[0])} | flags
        if self._bench.component.hides:
            w, y, common = config.grids.weight, config.grids.update, config.widths.common_fraction
            total = (np.array([weight]) << common - w.fraction_bits) + (applied.astype(np.int64) << common - y.fraction_bits)
            summed, (low, high) = int(shift_round(total, config.widths.weight_shift, w.rounding)[0]), w.rails
            found |= {"overflowed": int(not low <= summed <= high)}
        return found | ({"residual": int(kept[0])} if config.residual_bits else {})


async def set_step(bench: Bench, step: int) -> None:
    bench.wire("step").value = step
    await bench.tick(2)


def corners(bench: Bench, step: int, count: int) -> list[tuple[int, int]]:
    """Rails, zero, one ulp, ties of the update grid with both signs, and random pairs."""
    config, rng = bench.component.config, bench.rng
    g, w = words(config.grids.direction), words(config.grids.weight)
    ends = [(d, t) for d in (g[0], g[0] + 1, -1, 0, 1, g[-1] - 1, g[-1]) for t in (w[0], w[0] + 1, -1, 0, 1, w[-1] - 1, w[-1])]
    shift, ties = config.widths.update_shift, []
    if step and shift > 0:
        odd = step & -step  # direction * step is an odd multiple of half an update ulp
        if odd <= 1 << (shift - 1):
            unit = (1 << (shift - 1)) // odd
            ties = [sign * unit * k for sign in (1, -1) for k in (1, 3, 5, 7)]
    near = [(d + off, rng.choice(w)) for d in ties for off in (-1, 0, 1) if d + off in g]
    return ends + near + [(rng.choice(g), rng.choice(w)) for _ in range(count)]


@cocotb.test
async def every_direction_with_every_weight(dut: Any) -> None:
    """In another order at each step, so that every lane sees weights of all kinds; with a pause here and there."""
    for bench in benches(dut, component):
        config = bench.component.config
        if max(config.grids.direction.width, config.grids.weight.width) > EXHAUSTIVE:
            continue
        bench.probing = 0.02
        await bench.reset()
        lanes = Lanes(bench)
        every = list(itertools.product(words(config.grids.direction), words(config.grids.weight)))
        # Four-bit formats see more steps; with five bits each takes four times as long.
        for step in steps(bench)[1 if not bench.effort else 0 : 3 if not bench.effort else 6 if len(every) <= 256 else 5]:
            await set_step(bench, step)
            bench.pace(0.02, 0.02)
            bench.rng.shuffle(every)
            lanes.apply(every, step)
            await bench.drain(lanes.board)


@cocotb.test
async def corners_and_random_elements_a_beat_a_cycle(dut: Any) -> None:
    """Throughput and latency: beats enter and leave in consecutive cycles, the promised number apart."""
    for bench in benches(dut, component):
        await bench.reset()
        bench.probing = 0
        lanes = Lanes(bench)
        for step in steps(bench):
            await set_step(bench, step)
            bench.monitors["i"].forget()
            bench.monitors["o"].forget()
            lanes.apply(
                corners(bench, step, 40 * bench.effort)[: None if bench.effort > 1 else 160 if bench.effort else 80], step
            )
            await bench.drain(lanes.board)
            taken = [transfer.taken for transfer in bench.monitors["i"].transfers]
            assert taken == list(range(taken[0], taken[0] + len(taken))), f"{bench.where}not a beat a cycle: {taken}"
            assert set(bench.latencies()) == {bench.component.latency}, f"{bench.where}latencies {set(bench.latencies())}"


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            lanes = Lanes(bench)
            step = bench.rng.choice(steps(bench))
            await set_step(bench, step)
            bench.pace(idle, stall)
            lanes.apply(
                bench.rng.sample(corners(bench, step, 5), 2 * bench.component.config.lanes + bench.component.config.tail), step
            )
            await bench.drain(lanes.board)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        lanes = Lanes(bench)
        await set_step(bench, 1)
        lanes.apply([(1, 1)], 1)
        await bench.must_offer("o", bench.component.latency + 5)
        await bench.drain(lanes.board)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        for cycles in (1, 3, 6, 9):
            for stall in (0.0, 1.0):
                await bench.reset()
                await set_step(bench, 1)
                Lanes(bench).apply([(1, 1)] * 4 * bench.component.config.lanes, 1)
                bench.pace(stall=stall)
                await bench.tick(cycles)
                await bench.reset()
                bench.pace()
                lanes = Lanes(bench)
                lanes.apply(corners(bench, 1, 5)[:20], 1)
                await bench.drain(lanes.board)
