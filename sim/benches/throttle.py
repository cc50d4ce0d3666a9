"""Tests of the core, with its gradient memory and without, beat by beat against the golden unit."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cocotb
import numpy as np
from numpy.typing import NDArray

from ...golden.config import EmaStart, OnStill, Source, ThrottleConfig
from ...golden.formats import Fixed
from ...golden.registers import BLOCK_BITS, COUNTERS, FLAGS, WATCHES
from ...golden.segments import in_beats
from ...golden.throttle import Throttle as GoldenThrottle
from ...golden.throttle import laid_out
from ...hw.export import unit
from ...hw.units.core import StreamingThrottle
from ...hw.units.ports import host_words, registers_layout
from ...hw.units.throttle import Throttle
from ..testbench.bank import LEVELS, Bench, benches, paces, rate_off_the_grid
from ..testbench.layouts import some_layout

Codes = NDArray[Any]


def component(streaming: bool = False, **table: Any) -> Throttle | StreamingThrottle:
    return unit(ThrottleConfig.from_table(table), streaming)


class Run:
    """A run of steps from reset: vectors go to the component beat by beat, and whole to the golden unit.

    Lanes beyond the last element carry noise, and so do the previous gradient and the residuals of the first step. The
    streaming core gets a direction of its own in every other step.
    """

    def __init__(self, bench: Bench, config: ThrottleConfig) -> None:
        self.bench, self.config = bench, config
        self.streaming = isinstance(bench.component, StreamingThrottle)
        self.rng = np.random.default_rng(bench.rng.getrandbits(32))
        for port, word in host_words(config).items():
            bench.wire(port).value = word
        bench.wire("clear").value = 0
        weight = config.grids.weight
        anywhere = self.rng.integers(weight.rails[0], weight.rails[1] + 1, config.elements)
        self.golden = GoldenThrottle(config, anywhere if self.rng.random() < 0.5 else self._corners(weight), codes=True)
        self.updated, self.registers = bench.board("updated"), bench.board("registers")
        self._previous: Codes | None = None

    def gradient(self, fmt: Fixed | None = None) -> Codes:
        """A random gradient, or a vector on another grid: none, faint, middling, or one that presses the rails."""
        fmt = fmt or self.config.grids.gradient
        low, high = fmt.rails
        most = int(self.rng.choice([0, 1, 2, high // 3, 2 * high, -1]))
        if most < 0:
            return self._corners(fmt)
        return self.rng.integers(-most, most + 1, self.config.elements).clip(low, high)

    def _corners(self, fmt: Fixed) -> Codes:
        """Values on the rails, next to them, and on either side of where near a rail begins."""
        (low, high), near = fmt.rails, fmt.near_rail
        edges = np.array([low, low + 1, -near - 1, -near, 1 - near, -1, 0, 1, near - 1, near, near + 1, high - 1, high])
        return self.rng.choice(edges, self.config.elements).clip(low, high)

    def step(self, gradient: Codes | None = None) -> None:
        """Queue one step, and what is expected of it."""
        config, drivers = self.config, self.bench.drivers
        g, w, y, *_ = config.grids
        e = Fixed(True, max(2, config.residual_bits), 0)
        gradient = self.gradient() if gradient is None else gradient
        d = config.grids.direction
        proposes = self.streaming and (config.direction is not None or self.rng.random() < 0.5)
        proposes &= not Source(config.source).is_projection  # which is that onto the gradient
        direction = self.gradient(d) if proposes else None
        theta, residual = self.golden.theta, self.golden.residual.astype(np.int64)
        record = self.golden.step(gradient, direction, codes=True)
        along = gradient if direction is None else direction
        if self.streaming:
            previous = self._noise(config.elements, g) if self._previous is None else self._previous
            for absorbed, before in zip(self._beats(gradient, g), self._beats(previous, g), strict=True):
                drivers["absorb"].send({"gradient": absorbed, "previous": before})
            kept = self._noise(config.elements, e) if self._previous is None else residual
            for weight, way, rest in zip(self._beats(theta, w), self._beats(along, d), self._beats(kept, e), strict=True):
                drivers["apply"].send({"weight": weight, "direction": way, "residual": rest})
        else:
            for absorbed in self._beats(gradient, g):
                drivers["gradient"].send(absorbed)
            for weight in self._beats(theta, w):
                drivers["weights"].send(weight)
        self._previous = gradient
        made = (self._beats(record.theta, w, zeros=True), self._beats(record.update, y, zeros=True))
        after = self._beats(self.golden.residual.astype(np.int64), e, zeros=True)
        for weight, update, rest in zip(*made, after, strict=True):
            more = {"residual": rest} if self.streaming and config.residual_bits else {}
            self.updated.expect({"weight": weight, "update": update} | more, f"step {record.step}")
        has = registers_layout(config).members
        self.registers.expect({name: getattr(record.registers, name) for name in has}, f"step {record.step} of {config}")

    async def watch(self, energies: list[int], mask: int) -> None:
        """Blocks of the step to come, which must be inside before it ends, and which conditions may fire."""
        self.golden.watchdog.blocks(energies)
        self.golden.watchdog.mask = mask & sum(1 << WATCHES.index(name) for name in self.config.watchdog)
        self.bench.wire("watchdog_mask").value = mask
        for energy in energies:
            self.bench.drivers["blocks"].send(energy)
        await self.bench.until(lambda: not energies or not self.bench.drivers["blocks"].queue)

    async def drain(self) -> None:
        await self.bench.drain(self.updated, self.registers)

    def clear(self) -> None:
        """The golden unit's part of a clear."""
        self.golden.clear()

    def _noise(self, count: int, fmt: Fixed) -> Codes:
        return self.rng.integers(-(1 << (fmt.width - 1)), 1 << (fmt.width - 1), count)

    def _beats(self, codes: Codes, fmt: Fixed, zeros: bool = False) -> list[list[int]]:
        config = self.config
        room = config.beats * config.lanes
        filled = np.zeros(room, np.int64) if zeros else self._noise(room, fmt)
        filled[in_beats(config.segments, config.lanes) if config.segments else slice(0, config.elements)] = codes
        return filled.reshape(config.beats, config.lanes).tolist()


def inputs(bench: Bench) -> tuple[str, str]:
    """The streams of the two passes."""
    return ("absorb", "apply") if isinstance(bench.component, StreamingThrottle) else ("gradient", "weights")


def laws(config: ThrottleConfig) -> Iterator[ThrottleConfig]:
    """Configurations of the same hardware: modes and constants are ports."""
    assert isinstance(config.source, Source)
    for on_still, source in itertools.product(OnStill, config.source.alike):
        yield config.replace(on_still=on_still, source=source)
    if not config.source.is_curvature:
        return
    yield config.replace(ema_start=EmaStart.FIRST, source=config.source.seeing(Source.EMA))
    yield config.replace(enabled=False)
    if not config.delay:  # whose first step is the hardware's own
        beyond = rate_off_the_grid(config)
        yield config.replace(eta=beyond, eta_max=beyond)


@cocotb.test
async def steps_within_the_promised_cycles(dut: Any) -> None:
    """Without stalls, a step from the registers before it to its own; every mode, still steps and pressed rails."""
    seen: dict[str, int] = dict.fromkeys((*COUNTERS, *FLAGS), 0)
    for bench in benches(dut, component):
        config = bench.component.config
        bench.probing = 0
        for law in itertools.islice(laws(config), 0, None, 1 if bench.effort else 3):
            await bench.reset()
            run = Run(bench, law)
            for _ in range(3 + 2 * bench.effort):
                run.step()
            # Weights that stay on a grid too coarse for the update: still steps in a row.
            for _ in range(min(config.dead_after, 3) + 2):
                run.step(np.zeros(config.elements, np.int64))
            run.step()
            await run.drain()
            for name in (*config.counters, *FLAGS) if bench.effort else ():
                along = run.gradient(config.grids.direction) if config.direction else None
                record = run.golden.step(run.gradient(), along, codes=True)
                seen[name] = seen.get(name, 0) + int(getattr(record.registers, name))
            ends = [transfer.taken for transfer in bench.monitors["registers"].transfers]
            begin = bench.monitors[inputs(bench)[0]].transfers[0].taken
            most = max(end - start for start, end in zip([begin, *ends], ends, strict=False))
            assert most <= bench.component.step_cycles, (
                f"{bench.where}{most} cycles a step, {bench.component.step_cycles} promised"
            )
            if config.mantissa_bits == 24:
                assert most <= 2 * config.beats + 300, f"{bench.where}{most} cycles a step of {config.beats} beats a pass"
                assert bench.component.step_cycles <= 2 * config.beats + 300, (
                    f"{bench.where}promises {bench.component.step_cycles}"
                )
    assert all(seen.values()) or not bench.effort, f"these never happened: {[name for name, times in seen.items() if not times]}"


@cocotb.test
async def a_beat_a_cycle(dut: Any) -> None:
    """Both passes take their beats in consecutive cycles, and the weights leave in consecutive cycles."""
    for bench in benches(dut, component):
        await bench.reset()
        bench.probing = 0
        run = Run(bench, bench.component.config)
        run.step()
        await run.drain()
        absorb, apply = inputs(bench)
        # The memory's own stages may fill with weights before the step is decided; with segments the first tag comes late.
        early = int(isinstance(bench.component, Throttle))
        for name, pauses in ((absorb, 0), (apply, early), ("updated", 0)):
            taken = [transfer.taken for transfer in bench.monitors[name].transfers]
            assert len(taken) == run.config.beats
            seen = sum(later - earlier > 1 for earlier, later in itertools.pairwise(taken))
            assert seen <= pauses, f"{bench.where}{name} is not a beat a cycle: {taken}"


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    """Every level of both on all streams alike, then streams of different levels."""
    for bench in benches(dut, component):
        for idle, stall in [*paces(), (-1, -1), (-1, -1), (-1, -1)]:
            await bench.reset()
            bench.pace(max(idle, 0), max(stall, 0))
            if idle < 0:
                for driver in bench.drivers.values():
                    driver.idle = bench.rng.choice(list(LEVELS.values()))
                for consumer in bench.consumers.values():
                    consumer.stall = bench.rng.choice(list(LEVELS.values()))
            run = Run(bench, bench.component.config)
            for _ in range(2 + bench.effort // 2):
                run.step()
            await run.drain()


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        run = Run(bench, bench.component.config)
        for _ in range(2):
            run.step()
            await bench.must_offer("updated", bench.component.step_cycles)
            await bench.must_offer("registers", bench.component.step_cycles)
            await run.drain()


def held_up(bench: Bench) -> bool:
    """The registers are offered."""
    return bool(bench.monitors["registers"].stream.valid)


@cocotb.test
async def weights_held_up_hold_up_the_step(dut: Any) -> None:
    """However long: the registers come when the last of them has left, with all of them counted."""
    for bench in benches(dut, component):
        await bench.reset()
        bench.pace()
        run = Run(bench, bench.component.config)
        updated = bench.consumers["updated"]
        for _ in range(2):
            updated.stall = 1.0
            run.step()
            await bench.tick(2 * bench.component.step_cycles)
            assert not held_up(bench), f"{bench.where}the registers came before the weights had left"
            updated.stall = 0.0
            await run.drain()


async def reach(bench: Bench, phase: str, before: int) -> None:
    """Let cycles pass until the step after that many is in a phase, and then some more."""
    beats, monitors = bench.component.config.beats, bench.monitors
    absorb, _ = inputs(bench)
    reached: dict[str, Callable[[], Any]] = {
        "absorb": lambda: len(monitors[absorb].transfers) > before * beats,
        "decide": lambda: len(monitors[absorb].transfers) >= (before + 1) * beats,
        "apply": lambda: len(monitors["updated"].transfers) > before * beats,
        "apply held up": lambda: monitors["updated"].stream.valid,
        "registers held up": lambda: monitors["registers"].stream.valid,
        "next absorb": lambda: len(monitors["registers"].transfers) > before,
        "idle": lambda: len(monitors["registers"].transfers) > before + 1,
    }
    await bench.until(reached[phase])
    await bench.tick(bench.rng.randint(0, 40 if phase in ("decide", "next absorb", "idle") else min(beats, 12)))


PHASES = ("absorb", "decide", "apply", "apply held up", "registers held up", "next absorb", "idle")


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    """In every phase of a step, at once or a step into a run; afterwards it is the unit of a first step."""
    for bench in benches(dut, component):
        for count, phase in enumerate(PHASES * max(1, bench.effort)):
            await bench.reset()
            run = Run(bench, bench.component.config)
            before = count % 2
            for _ in range(before):
                run.step()
                await run.drain()
            bench.consumers["updated"].stall = float(phase == "apply held up")
            bench.consumers["registers"].stall = float(phase == "registers held up")
            for _ in range(2):
                run.step()
            await reach(bench, phase, before)
            await bench.reset()
            bench.pace()
            run = Run(bench, bench.component.config)
            for _ in range(3):
                run.step()
            await run.drain()


@cocotb.test
async def clear(dut: Any) -> None:
    """Between two steps; together with taking the registers; and not while they are held up."""
    for bench in benches(dut, component):
        if not bench.effort and bench.component.config.mantissa_bits == 24:
            continue
        await bench.reset()
        run = Run(bench, bench.component.config)
        wire, registers = bench.wire("clear"), bench.consumers["registers"]
        loud = np.full(run.config.elements, run.config.grids.gradient.rails[0])

        async def pulse(cycles: int = 1, bench: Bench = bench, wire: Any = wire) -> None:
            wire.value = 1
            await bench.tick(cycles)
            wire.value = 0

        for when in ("between", "as the registers are taken", "held up", "right after", "held up", "between"):
            for gradient in (loud, np.zeros_like(loud), loud):
                run.step(gradient)
                await run.drain()
            registers.stall = 1.0
            run.step(loud)
            await bench.until(partial(held_up, bench))
            if when == "held up":
                await pulse(5)
                await bench.tick(5)
            elif when == "as the registers are taken":
                # The clear stands before ready does, and falls as soon as the registers are gone.
                wire.value = 1
                registers.stall = 0.0
                await bench.tick(2)
                wire.value = 0
                run.clear()
            registers.stall = 0.0
            await bench.until(partial(operator.not_, run.registers))
            if when == "right after":
                await bench.tick()  # the registers are gone since the rising edge
                await pulse()
                run.clear()
            await run.drain()
            if when == "between":
                await pulse()
                run.clear()
                await bench.tick(3)


@cocotb.test
async def clear_as_the_registers_come(dut: Any) -> None:
    """In each cycle about the first in which they are offered: while they are held up nothing of them changes.

    From the cycle before that one on, the clear is ignored; what an earlier one does to a step under way is left open.
    """
    for bench in benches(dut, component):
        if not bench.effort:
            continue
        loud = np.full(bench.component.config.elements, bench.component.config.grids.gradient.rails[0])
        offered = 0
        for clears in (None, *range(-5, 3)):
            await bench.reset()
            bench.probing = 0
            bench.pace()
            run = Run(bench, bench.component.config)
            registers = bench.consumers["registers"]
            registers.stall = 1.0
            run.step(loud)
            if clears is None:
                await bench.until(partial(held_up, bench))
                offered = bench.cycle - 1
            else:
                await bench.tick(offered + clears + 1)
                bench.wire("clear").value = 1
                await bench.tick()
                bench.wire("clear").value = 0
                await bench.tick(20)
                assert held_up(bench) and len(run.registers) == 1
            if clears is not None and clears < -1:
                continue
            registers.stall = 0.0
            run.step(loud)
            await run.drain()
            taken = bench.monitors["registers"].transfers
            assert taken[0].offered == offered, f"{bench.where}the registers came in cycle {taken[0].offered}, not {offered}"


@cocotb.test
async def another_layout(dut: Any) -> None:
    """Other networks on the same unit, written right after a reset, in one go or slowly; and the configuration's back again."""
    for bench in benches(dut, component):
        config = bench.component.config
        if not config.segments:
            continue
        for _ in range(4 + 4 * bench.effort):
            await bench.reset()
            bench.pace(*bench.rng.choice(list(paces())))
            for _ in range(bench.rng.randint(0, 1)):
                run = Run(bench, config)
                run.step()
                await run.drain()
                await bench.reset()
            other = config
            if bench.rng.random() < 0.8:
                other = laid_out(config, some_layout(bench.rng, config))
                free = config.entries - len(other.segments)
                for segment in (*other.segments, *[None] * free):
                    entry = {"elements": segment.elements, "scale": segment.scale} if segment else {"elements": 0, "scale": 0}
                    bench.drivers["layout"].send(entry)
                queue = bench.drivers["layout"].queue
                await bench.until(partial(operator.not_, queue))
            run = Run(bench, other)
            for _ in range(3):
                run.step()
            await run.drain()


@cocotb.test
async def watchdog(dut: Any) -> None:
    """Every condition in its step, several in one, masked ones, and clears in between."""
    for bench in benches(dut, component):
        config = bench.component.config
        if not config.watchdog:
            continue
        await bench.reset()
        run = Run(bench, config.replace(on_still=OnStill.DIVIDE))
        before = seen = 0
        for _ in range(12 + 12 * bench.effort):
            bench.pace(*bench.rng.choice(list(paces())))
            grows = "norm_growth" in config.watchdog and bench.rng.random() < 0.4
            energies = [1, (1 << BLOCK_BITS) - 1] if grows else [7, 7, 0] if "norm_growth" in config.watchdog else []
            await run.watch(energies, bench.rng.choice([15, 15, 15, bench.rng.getrandbits(4)]))
            run.step(np.zeros(config.elements, np.int64) if bench.rng.random() < 0.5 else None)
            await run.drain()
            fired = run.golden.watchdog.fired
            seen |= fired
            if fired != before and bench.rng.random() < 0.8:
                bench.wire("clear").value = 1
                await bench.tick()
                bench.wire("clear").value = 0
                run.clear()
            before = run.golden.watchdog.fired
        names = [name for name in config.watchdog if not seen >> WATCHES.index(name) & 1]
        assert not names or not bench.effort, f"{bench.where}these never fired: {names}"
