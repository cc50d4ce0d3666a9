"""Tests of the unit with its weights on chip against the golden unit, and a count of what its memories do."""

from __future__ import annotations

import itertools
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module, unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.throttle import Throttle as GoldenThrottle
from ...hw.units.engine import ThrottleEngine
from ...hw.units.ports import host_words, registers_layout
from ..testbench.bank import Bench, benches, paces
from .throttle import Codes, Run, laws

ACCESSES = ("reads", "writes", "collisions")
"""What is counted of each memory: cycles with a read, with a write, and with both of one word."""


class Watched(wiring.Component):
    """An engine with a counter at each memory; its command has a payload of one bit that nobody reads, to be a stream."""

    def __init__(self, config: ThrottleConfig) -> None:
        self.config, self.engine = config, ThrottleEngine(config)
        counters = {f"{name}_{what}": Out(32) for name in self.engine.memories for what in ACCESSES}
        command = {"read": In(stream.Signature(unsigned(1)))}
        super().__init__(dict(self.engine.signature.members) | command | counters)

    @property
    def step_cycles(self) -> int:
        return self.engine.step_cycles

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.engine = engine = self.engine
        for name, member in engine.signature.members.items():
            mine, theirs = getattr(self, name), getattr(engine, name)
            if name == "read":
                m.d.comb += [theirs.valid.eq(mine.valid), mine.ready.eq(theirs.ready)]
            elif member.is_port:
                m.d.comb += theirs.eq(mine)
            elif member.flow is In:
                wiring.connect(m, wiring.flipped(mine), theirs)
            else:
                wiring.connect(m, theirs, wiring.flipped(mine))
        for name, memory in engine.memories.items():
            both = memory.read & memory.write & (memory.read_address == memory.write_address)
            for what, happens in zip(ACCESSES, (memory.read, memory.write, both), strict=True):
                counter = getattr(self, f"{name}_{what}")
                m.d.sync += counter.eq(counter + happens)
        return m


def component(**table: Any) -> Watched:
    return Watched(ThrottleConfig.from_table(table))


class EngineRun(Run):
    """A run from reset, which begins with a load; lanes beyond the last element carry noise on the way in."""

    def __init__(self, bench: Bench, config: ThrottleConfig) -> None:
        self.bench, self.config = bench, config
        self.rng = np.random.default_rng(bench.rng.getrandbits(32))
        for port, word in host_words(config).items():
            bench.wire(port).value = word
        bench.wire("clear").value = 0
        self.golden = GoldenThrottle(config, np.zeros(config.elements))
        self.registers, self.stored = bench.board("registers"), bench.board("stored")
        self.load()

    def load(self) -> None:
        """Queue other weights."""
        weight = self.config.grids.weight
        anywhere = self.rng.integers(weight.rails[0], weight.rails[1] + 1, self.config.elements)
        codes = anywhere if self.rng.random() < 0.5 else self._corners(weight)
        self.golden.load_weights(codes, codes=True)
        for beat in self._beats(codes, weight):
            self.bench.drivers["load"].send(beat)

    def step(self, gradient: Codes | None = None) -> None:
        """Queue one step, and what is expected of its registers."""
        gradient = self.gradient() if gradient is None else gradient
        record = self.golden.step(gradient, codes=True)
        for beat in self._beats(gradient, self.config.grids.gradient):
            self.bench.drivers["gradient"].send(beat)
        expected = {name: getattr(record.registers, name) for name in registers_layout(self.config).members}
        self.registers.expect(expected, f"step {record.step} of {self.config}")

    def read(self) -> None:
        """Queue a command, and the weights that must answer it."""
        self.bench.drivers["read"].send(0)
        for beat in self._beats(self.golden.theta.astype(np.int64), self.config.grids.weight, zeros=True):
            self.stored.expect(beat, "theta")

    async def begun(self, stream: str) -> None:
        """Let cycles pass until the last act queued on a stream has begun: then those on other streams come after it."""
        queue = self.bench.drivers[stream].queue
        left = 0 if stream == "read" else self.config.beats - 1
        await self.bench.until(lambda: len(queue) < left or not queue)

    async def drain(self) -> None:
        await self.bench.drain(self.registers, self.stored)


@cocotb.test
async def steps_within_the_promised_cycles(dut: Any) -> None:
    """Without stalls, from the first beat of a gradient to the registers; every mode. Then what is stored."""
    for bench in benches(dut, component):
        bench.probing = 0
        for law in itertools.islice(laws(bench.component.config), 0, None, 1 if bench.effort else 4):
            await bench.reset()
            run = EngineRun(bench, law)
            await run.drain()
            for _ in range(3 + 2 * bench.effort):
                bench.monitors["gradient"].forget()
                run.step()
                await run.drain()
                begin, *rest = (transfer.taken for transfer in bench.monitors["gradient"].transfers)
                assert rest == list(range(begin + 1, begin + run.config.beats)), f"{bench.where}not a beat a cycle"
                cycles = bench.monitors["registers"].transfers[-1].taken - begin
                promised = bench.component.step_cycles
                assert cycles <= promised, f"{bench.where}{cycles} cycles a step, {promised} promised"
            run.read()
            await run.drain()


@cocotb.test
async def a_word_is_read_and_written_once_a_pass(dut: Any) -> None:
    """Whatever stalls: the absorb pass reads and writes gradients, the apply pass reads all and writes weights and residuals."""
    for bench in benches(dut, component):
        for idle, stall in ((0.0, 0.0), (0.4, 0.4)):
            await bench.reset()
            bench.pace(idle, stall)
            run = EngineRun(bench, bench.component.config)
            await run.drain()
            steps, reads = 3, 2
            for _ in range(steps):
                bench.pace(idle, stall)
                run.step()
                await run.drain()
            for _ in range(reads):
                run.read()
                await run.drain()
            passes = {"gradient": (2 * steps, steps), "weight": (steps + reads, steps + 1), "residual": (steps, steps)}
            for name in bench.component.engine.memories:
                want = [times * run.config.beats for times in passes[name]] + [0]
                got = [int(bench.wire(f"{name}_{what}").value) for what in ACCESSES]
                assert got == want, f"{bench.where}{name} memory: {dict(zip(ACCESSES, got, strict=True))}, not {want}"


@cocotb.test
async def loads_and_reads_at_odd_times(dut: Any) -> None:
    """Acts in any order, each offered at some time after the one before it began; every level of idling and backpressure."""
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            run = EngineRun(bench, bench.component.config)
            bench.pace(idle, stall)
            await run.begun("load")
            for _ in range(6 + 6 * bench.effort):
                act = bench.rng.choice(["gradient", "gradient", "read", "load"])
                getattr(run, "step" if act == "gradient" else act)()
                await run.begun(act)
                await bench.tick(bench.rng.choice([0, 1, 2, run.config.beats, bench.component.step_cycles // 2]))
            run.read()
            await run.drain()


@cocotb.test
async def a_load_goes_first_then_a_read_then_a_gradient(dut: Any) -> None:
    """When all three are offered in the same cycle, between two steps or in one."""
    for bench in benches(dut, component):
        await bench.reset()
        run = EngineRun(bench, bench.component.config)
        for _ in range(3):
            run.load()
            run.read()
            run.step()
            await run.begun("gradient")
            await bench.tick(bench.rng.randint(0, bench.component.step_cycles))
        run.read()
        await run.drain()


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        run = EngineRun(bench, bench.component.config)
        await run.drain()
        run.step()
        await bench.must_offer("registers", bench.component.step_cycles + 1)
        await run.drain()
        run.read()
        await bench.must_offer("stored", 5)
        await run.drain()


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    """Of a load, a read and every part of a step; afterwards it is the unit of a first step, and wants a load."""
    for bench in benches(dut, component):
        beats = bench.component.config.beats
        for act in ("load", "read", "absorb", "decide", "apply"):
            await bench.reset()
            run = EngineRun(bench, bench.component.config)
            await run.drain()
            run.step()
            await run.drain()
            getattr(run, act if act in ("load", "read") else "step")()
            stream = act if act in ("load", "read") else "gradient"
            await run.begun(stream)
            late = {"decide": beats + 10, "apply": bench.component.step_cycles - beats // 2 - 12}.get(act, 0)
            await bench.tick(late + bench.rng.randint(0, min(beats, 12)))
            await bench.reset()
            bench.pace()
            run = EngineRun(bench, bench.component.config)
            await run.begun("load")
            for _ in range(2):
                run.step()
            await run.begun("gradient")
            run.read()
            await run.drain()


@cocotb.test
async def clear_between_two_steps(dut: Any) -> None:
    """Counters and flags begin anew; the weights stay, and all that a next step needs."""
    for bench in benches(dut, component):
        await bench.reset()
        run = EngineRun(bench, bench.component.config)
        loud = np.full(run.config.elements, run.config.grids.gradient.rails[0])
        for gradient in (loud, np.zeros_like(loud), np.zeros_like(loud), loud, loud):
            run.step(gradient)
            await run.drain()
            bench.wire("clear").value = 1
            await bench.tick()
            bench.wire("clear").value = 0
            run.golden.clear()
        run.read()
        await run.drain()
