"""Tests of the unit on AXI whose registers have a clock of their own: two unrelated clocks, and a reset of either side."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import Timer, with_timeout
from cocotbext.axi import AxiResp

from ...hw.bus.registers import WORD, Access
from ..testbench.host import Host, hosts
from ..testbench.host import component as component
from ..testbench.layouts import some_layout
from .axi_bus import as_read

PERIODS = (50, 34, 22, 14, 10, 6, 4, 2)
"""Of the bus's clock in nanoseconds; the unit's has 10."""


async def clocked(host: Host, period: int) -> Any:
    """Start the bus's clock at any phase, and reset both sides."""
    await Timer(host.rng.randint(1, 60), "ns")
    clock = Clock(host.bus_clk, period, "ns")
    clock.start()
    host.dut.rst.value = 1
    await host.reset_bus(host.rng.randint(3, 9))
    await host.reset()
    return clock


async def ratios(host: Host) -> AsyncIterator[int]:
    """Every ratio of the clocks, or some of them where time is short."""
    periods = PERIODS if host.bench.effort else host.rng.sample(PERIODS, 3)
    for period in periods:
        clock = await clocked(host, period)
        yield period
        clock.stop()


@cocotb.test
async def registers_and_steps(dut: Any) -> None:
    """Random reads and writes side by side with pauses, and whole steps, one after a clear, at every ratio of the clocks."""
    for host in hosts(dut):
        targets = [r for r in host.map if r.access is Access.RW and r.name != "control"]
        async for period in ratios(host):
            where = f"{host.bench.where}{period} ns: "
            host.pace(host.rng.choice([0, 0.5]), host.rng.choice([0, 0.5]))

            async def reads(host: Host = host, where: str = where) -> None:
                fixed = [r for r in host.map if r.access is Access.CONSTANT]
                for _ in range(12):
                    register = host.rng.choice(fixed)
                    assert await host.word(register) == register.reset, f"{where}{register.name}"

            reading = cocotb.start_soon(reads())
            state = {r.name: r.reset for r in targets}
            for _ in range(12):
                register = host.rng.choice(targets)
                i = host.rng.randrange(register.words)
                word, strobe = host.rng.getrandbits(WORD), host.rng.choice([15, host.rng.randrange(16)])
                assert await host.strobed(register.offset + 4 * i, word, strobe) == AxiResp.OKAY
                mask = sum(0xFF << 8 * k for k in range(4) if strobe >> k & 1) << WORD * i
                state[register.name] = as_read(register, state[register.name] & ~mask | word << WORD * i & mask)
                register = host.rng.choice(targets)
                found = await host.word(register)
                assert found == state[register.name], f"{where}{register.name} must be {state[register.name]:#x}, not {found:#x}"
            await reading
            assert await host.write(0xFF8, 0) == AxiResp.DECERR and (await host.read(0xFF8))[1] == AxiResp.DECERR
            await host.set("command", reset=1)
            for register in targets:
                for i in range(register.words):
                    await host.write(register.offset + 4 * i, register.reset >> WORD * i & 0xFFFFFFFF)
            if host.config.segments:
                await host.layout(some_layout(host.rng, host.unit.config))
            await host.set("control", run=1)
            for _ in range(2):
                await host.step()
            await host.set("command", clear=1)
            host.golden.clear()
            await host.step()


@cocotb.test
async def either_side_is_reset(dut: Any) -> None:
    """Transactions under way: those that meet a reset of the unit end all the same, and after one of the bus they are gone."""
    for host in hosts(dut):
        register = host.map["irq_enable"]
        async for period in ratios(host):
            where = f"{host.bench.where}{period} ns: "
            for _ in range(4 + 8 * host.bench.effort):
                wanted = host.rng.randrange(16)
                tasks = [cocotb.start_soon(host.write(register.offset, host.rng.randrange(16))) for _ in range(2)]
                tasks += [cocotb.start_soon(host.read(host.map["id"].offset)) for _ in range(2)]
                await Timer(host.rng.randint(1, 12 * max(period, 10)), "ns")
                if host.rng.randrange(2):  # the unit's: the master sees an answer to everything
                    await host.dut.clk.rising_edge
                    host.dut.rst.value = 1
                    for _ in range(host.rng.choice([1, 1, 2, 9])):
                        await host.dut.clk.rising_edge
                    host.dut.rst.value = 0
                    for task in tasks:
                        answer = await with_timeout(task, 100, "us")
                        word, response = answer if isinstance(answer, tuple) else (host.map["id"].reset, answer)
                        assert response in (AxiResp.OKAY, AxiResp.SLVERR), f"{where}{response!r}"
                        assert response == AxiResp.SLVERR or word == host.map["id"].reset, f"{where}{word:#x}"
                else:  # the bus's: the master forgets all
                    await host.bus_clk.rising_edge
                    for task in tasks:
                        task.cancel()
                    await host.reset_bus(host.rng.choice([1, 1, 2, 9]))
                    await host.bus_clk.rising_edge
                assert await host.write(register.offset, wanted) == AxiResp.OKAY, where
                found = await host.word(register)
                assert found == wanted, f"{where}irq_enable must be {wanted:#x}, not {found:#x}"
            await host.reset()
            await host.set("control", run=1)
            record = await host.hold("apply")
            await host.bus_clk.rising_edge
            await host.reset_bus(3)
            host.release()
            await host.finish(record)  # a reset of the bus is nothing to the step
