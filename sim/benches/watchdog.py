"""Tests of the watchdog against the golden model: conditions alone and together, masks, clears, and blocks that just grow."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.triggers import Timer

from ...golden.config import ThrottleConfig
from ...golden.registers import BLOCK_BITS, GROWTH_FRACTION, WATCHES
from ...golden.watchdog import Watchdog as GoldenWatchdog
from ...hw.units.watchdog import Watchdog
from ..testbench.bank import LEVELS, Bench, benches
from ..testbench.stream import unpack


def component(**table: Any) -> Watchdog:
    return Watchdog(ThrottleConfig.from_table(table))


class Run:
    """Steps from reset, of the component and of the golden watchdog."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.config = bench, bench.component.config
        self.golden = GoldenWatchdog(self.config)
        self.steps = 0
        bench.probing = 0  # it has no stream out
        self.ports = set(bench.component.signature.members)
        self._set(look=0, clear=0, mask=self.golden.mask, energy=0, learning_dead=0, scalar_overflow=0)

    def _set(self, **words: int) -> None:
        for name, word in words.items():
            if name in self.ports:
                self.bench.wire(name).value = word

    def mask(self, mask: int) -> None:
        """Another mask; what is not built stays out of it."""
        built = sum(1 << WATCHES.index(name) for name in self.config.watchdog)
        self.golden.mask = mask & built
        self._set(mask=mask)

    async def blocks(self, energies: list[int]) -> None:
        """Blocks of the step to come; without that condition none, and the last one under way as the step ends."""
        if "blocks" not in self.ports:
            return
        self.golden.blocks(energies)
        driver = self.bench.drivers["blocks"]
        for energy in energies:
            driver.send(energy)
        await self.bench.until(lambda: not driver.queue)

    async def step(self, energy: int, dead: bool = False, overflow: bool = False) -> None:
        """The end of a step."""
        bench = self.bench
        self._set(energy=energy, learning_dead=int(dead), scalar_overflow=int(overflow))
        await bench.tick(bench.rng.randint(1, 3))
        self._set(look=1)
        waited, looked = -1, 0
        while not looked:
            await Timer(1, "ns")
            looked, waited = int(bench.wire("looked").value), waited + 1
            assert waited <= bench.component.latency, f"{bench.where}{waited} cycles to look"
            await bench.tick()
        self._set(look=0)
        self.golden.look(self.steps, energy, dead, overflow)
        self.steps += 1
        self.check()

    async def clear(self) -> None:
        self._set(clear=1)
        await self.bench.tick()
        self._set(clear=0)
        await self.bench.tick()
        self.golden.clear()
        self.check()

    def check(self) -> None:
        got = unpack(self.bench.component.status.shape(), int(self.bench.wire("status").value))
        want = {name: self.golden.registers[name] for name in got}
        assert got == want, f"{self.bench.where}step {self.steps}: must be {want}, not {got}"


def pairs(bench: Bench) -> list[tuple[int, int]]:
    """A block and the next one: on either side of the bound, zeros, and the ends of their range."""
    most, factor = (1 << BLOCK_BITS) - 1, bench.component.config.growth_squared
    first = [0, 1, 2, 3, most, *(bench.rng.getrandbits(bench.rng.randint(1, BLOCK_BITS)) for _ in range(3 + 20 * bench.effort))]
    bounds = [(before, (factor * before >> GROWTH_FRACTION) + more) for before in first for more in (-1, 0, 1)]
    ends = [(0, most), (most, 0), (most, most), (1, most), (bench.rng.getrandbits(BLOCK_BITS), bench.rng.getrandbits(BLOCK_BITS))]
    return [(before, min(max(after, 0), most)) for before, after in bounds + ends]


@cocotb.test
async def every_condition(dut: Any) -> None:
    """All sixteen sets of conditions in one step each; the floor on both sides; masked and not; cleared and not."""
    for bench in benches(dut, component):
        await bench.reset()
        run = Run(bench)
        floor = run.config.floor_energy
        for round in range(2 + bench.effort):
            for found in bench.rng.sample(range(16), 16):
                bench.pace(idle=bench.rng.choice(list(LEVELS.values())))
                run.mask(bench.rng.choice([15, 15, bench.rng.getrandbits(4)]))
                await run.blocks([1, (1 << BLOCK_BITS) - 1] if found & 2 else bench.rng.choice([[], [5], [5, 5, 0]]))
                await run.step(max(0, floor - (found & 1)), bool(found & 4), bool(found & 8))
                if round and bench.rng.random() < 0.7:
                    await run.clear()


@cocotb.test
async def blocks_that_grow(dut: Any) -> None:
    """Pairs of blocks about the bound, in lists of one pair and of many; a list ends with its step."""
    for bench in benches(dut, component):
        await bench.reset()
        run = Run(bench)
        if "blocks" not in run.ports:
            continue
        for before, after in pairs(bench):
            await run.blocks([before, after])
            await run.step(run.config.floor_energy)
            await run.clear()
        await run.blocks([1])
        await bench.tick(3)
        await run.clear()  # which leaves the list alone
        await run.blocks([(1 << BLOCK_BITS) - 1])
        await run.step(run.config.floor_energy)
        await run.clear()
        for _ in range(4 + 8 * bench.effort):
            energies = [bench.rng.getrandbits(bench.rng.randint(1, BLOCK_BITS))]
            for _ in range(bench.rng.randint(1, 4)):
                bound = run.config.growth_squared * energies[-1] >> GROWTH_FRACTION
                energies.append(min(bench.rng.choice([bound, bound, bound + 1]), (1 << BLOCK_BITS) - 1))
            await run.blocks(energies[:1])
            if bench.rng.random() < 0.3:
                await run.clear()
            await run.blocks(energies[1:])
            await run.step(run.config.floor_energy)
            await run.clear()


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    """While a block is multiplied: the factor starts anew, and so do the list, the bits and the step's number."""
    for bench in benches(dut, component):
        for cycles in (0, 1, 7, 20, 26):
            await bench.reset()
            run = Run(bench)
            await run.blocks([1])
            await run.step(0, True, True)
            await run.blocks([3, 1 << 40])
            await bench.tick(cycles)
            await bench.reset()
            run = Run(bench)
            run.check()
            for before, after in pairs(bench)[-4:]:
                await run.blocks([before, after])
                await run.step(run.config.floor_energy)
