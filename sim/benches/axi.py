"""Tests of the unit on AXI, with the masters of cocotbext-axi, step by step against the golden unit; and those of its bus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import with_timeout
from cocotbext.axi import AxiResp

from ...golden.config import EmaStart, OnStill, Source, ThrottleConfig
from ...hw.bus.axi import AxiThrottle
from ...hw.bus.registers import Access, Register
from ...hw.bus.text import python_driver
from ..testbench.bank import paces, rate_off_the_grid
from ..testbench.host import PHASES, Host, hosts
from ..testbench.host import component as component
from ..testbench.layouts import some_layout
from .axi_bus import *  # noqa: F403  all tests of the bus and of frames: they run with those below, on the same simulation
from .axi_bus import restarted
from .axi_frames import *  # noqa: F403
from .axi_layout import *  # noqa: F403


def laws(config: ThrottleConfig) -> Iterator[ThrottleConfig]:
    """Configurations of the same hardware."""
    for on_still, source in itertools.product(OnStill, Source(config.source).alike):
        yield config.replace(on_still=on_still, source=source)
    other = {"num": 1, "bias": 1, "gain": "5/4", "alpha_min": "1/64", "rho": "1/8", "eps": "1/512"}
    yield config.replace(
        eta=config.constants["eta"].fraction / 2,
        ema_start=EmaStart.FIRST,
        source=Source(config.source).seeing(Source.EMA),
        **other,
    )
    yield config.replace(enabled=False, **other)


@cocotb.test
async def steps_under_every_pace(dut: Any) -> None:
    """Whole steps of every law, still ones too, with pauses everywhere."""
    for host in hosts(dut):
        chosen = host.rng.sample(list(laws(host.config)), 11 if host.bench.effort > 1 else 5 + host.bench.effort)
        for law, (idle, stall) in zip(chosen, host.rng.sample(2 * list(paces()), len(chosen)), strict=True):
            await host.reset()
            host.pace(idle, stall)
            await host.configure(law)
            host.adopt(law)
            await host.set("control", run=1)
            last = 2 + 2 * host.bench.effort
            for step in range(last + 1):
                silent = np.zeros(host.config.elements, np.int64) if step in (2, 3) else None
                await host.step(silent, registers=step == last or host.rng.random() < 0.4)
            assert await host.get("steps") == host.golden._steps


@cocotb.test
async def the_promised_cycles(dut: Any) -> None:
    """From a gradient's first beat to the interrupt, and from one step to the next, the streams never stalling."""
    for host in hosts(dut):
        host.probing = 0
        await host.reset()
        await timed(host, host.unit)
        for _ in range(3 * bool(host.config.segments)):
            await host.reset()
            await host.layout(some_layout(host.rng, host.unit.config))
            await timed(host, AxiThrottle(host.config, host.unit.frames))


async def timed(host: Host, promised: AxiThrottle) -> None:
    """Three steps, against what a unit of this layout promises."""
    await host.set("irq_enable", done=1)
    records = [host.send() for _ in range(3)]
    cocotb.start_soon(host.set("control", run=1))
    begun: list[int] = []
    ended: list[int] = []
    cycle = beats = before = 0
    while len(ended) < 3:
        await host.dut.clk.falling_edge
        if host.wire("s_axis_gradient_tvalid") & host.wire("s_axis_gradient_tready"):
            if beats % host.config.beats == 0:
                begun.append(cycle)
            beats += 1
        if host.wire("irq") and not before:
            ended.append(cycle)
            cocotb.start_soon(host.write(host.map["irq_status"].offset, 1))
        cycle, before = cycle + 1, host.wire("irq")
    for record in records:
        await host.receive(record)
    await host.compare(records[-1])
    # A buffer takes the next frame while the step is under way: only the first one has nothing before it.
    timed = zip(begun, ended, strict=True) if host.unit.frames == "check" else [(begun[0], ended[0])]
    most = max(end - start for start, end in timed)
    assert most <= promised.step_cycles, f"{host.bench.where}{most} cycles a step, {promised.step_cycles} promised"
    if host.unit.frames == "check":
        overlaps = [start for start, end in zip(begun[1:], ended, strict=False) if start < end]
        assert not overlaps, f"{host.bench.where}steps must not begin before the one before ended, as in cycles {overlaps}"
    apart = max(later - earlier for earlier, later in itertools.pairwise(ended))
    assert apart <= promised.period_cycles, f"{host.bench.where}steps end {apart} cycles apart"


@cocotb.test
async def writes_during_a_step_wait_for_its_end(dut: Any) -> None:
    """Modes and constants act from the next step on, eps and on_still from the step after the next end; stopped, none begins."""
    for host in hosts(dut):
        *_, second, first = laws(host.config)
        for phase in PHASES:
            await host.reset()
            await host.set("control", run=1)
            # A faint gradient and then a loud one, so that alpha is small and every constant matters.
            await host.step(np.ones(host.config.elements, np.int64))
            record = await host.hold(phase, np.full(host.config.elements, host.config.grids.gradient.rails[0]))
            await host.configure(first)
            await host.set("control", run=0)
            assert await host.get("status", "busy") == 1
            host.release()
            await host.finish(record)
            assert await host.get("status", "busy") == 0

            host.adopt(first)
            record = host.send()
            await host.tick(50)
            waiting = host.unit.frames == "check"
            assert host.wire("s_axis_gradient_tvalid") == waiting, "stopped, the unit takes no gradient, but its buffer does"
            assert await host.get("status", "busy") == 0
            await host.set("control", run=1)
            await host.finish(record)

            # Between two steps: all but eps and on_still acts at once.
            await host.configure(second)
            await host.set("eps_m", value=host.config.constants["num"].m)
            await host.set("eps_e", value=host.config.constants["num"].e)
            late = second.replace(eps=host.config.constants["num"].fraction)
            assert late.constants["eps"] == host.config.constants["num"]
            host.adopt(second.replace(eps=first.eps, on_still=first.on_still))
            await host.step()
            host.adopt(late)
            await host.step()

        # Where a step reads eps itself: after a still one, with `divide`.
        silent = np.zeros(host.config.elements, np.int64)
        law = host.config.replace(on_still=OnStill.DIVIDE)
        await host.reset()
        await host.configure(law)
        host.adopt(law)
        await host.set("control", run=1)
        for _ in range(3):
            await host.step(silent)
        await host.set("eps_e", value=host.config.constants["eps"].e + 3)
        await host.step(np.full_like(silent, host.config.grids.gradient.rails[1]))

        # Every change of on_still after a still step: the next one is still as it was to be.
        for before, after in itertools.permutations(OnStill, 2):
            await host.reset()
            law = host.config.replace(on_still=before)
            await host.configure(law)
            host.adopt(law)
            await host.set("control", run=1)
            for _ in range(3):
                await host.step(silent)
            await host.tick(host.rng.randint(0, 120))
            law = host.config.replace(on_still=after)
            await host.configure(law)
            await host.tick(host.rng.randint(0, 120))
            await host.step(silent + 1)
            host.adopt(law)
            await host.step(silent)
            await host.step(silent + 2)


@cocotb.test
async def clear(dut: Any) -> None:
    """Between two steps, in every phase of one, and around its end: never is a count lost, and never two steps' mixed."""
    for host in hosts(dut):
        loud = np.full(host.config.elements, host.config.grids.gradient.rails[0])
        await host.reset()
        await host.set("control", run=1)
        for gradient in (loud, np.zeros_like(loud), np.zeros_like(loud)):
            record = host.send(gradient)
            await host.finish(record)
        await host.set("command", clear=1)
        assert await host.get("command", "clear") == 0
        host.golden.clear()
        await host.compare(record)  # the last step's registers stay
        await host.step(loud)
        for phase in PHASES:
            await host.step(loud)
            record = await host.hold(phase)
            await host.set("command", clear=1)
            assert await host.get("command", "clear") == 1, "it waits"
            host.release()
            await host.finish(record)
            assert await host.get("command", "clear") == 0
            host.golden.clear()
            await host.step(loud)
        # The write comes to act some cycles before the end of the step, or after it.
        for delay in range(0, 14, 1 if host.bench.effort > 1 else 4):
            record = await host.hold("apply")
            host.release()
            await host.tick(delay)
            await host.set("command", clear=1)
            await host.finish(record)
            host.golden.clear()
            await host.step(loud)


@cocotb.test
async def interrupt(dut: Any) -> None:
    """Events come up enabled or not, stay until they are cleared, and make the level while they are enabled."""
    for host in hosts(dut):
        await host.reset()
        await host.set("control", run=1)
        status = host.map["irq_status"]
        silent = np.zeros(host.config.elements, np.int64)

        async def events(host: Host = host, status: Register = status) -> int:
            return await host.word(status)

        record = host.send(silent)
        await host.receive(record)
        await host.tick(host.unit.step_cycles)
        assert await events() & 1 == 1 and host.wire("irq") == 0, "not enabled"
        await host.set("irq_enable", done=1)
        assert host.wire("irq") == 1, "a level"
        await host.write(status.offset, 0xFFFFFFFE)
        assert host.wire("irq") == 1, "only ones clear"
        await host.strobed(status.offset, 1, 0b1110)
        assert host.wire("irq") == 1, "only strobed bytes clear"
        await host.set("irq_status", done=1)
        await host.tick(2)
        assert host.wire("irq") == 0 and await events() & 1 == 0
        await host.step(silent)
        await host.set("irq_enable", done=0, learning_dead=1)
        for _ in range(host.config.dead_after + 1):
            assert host.wire("irq") == host.wire("learning_dead") == host.golden._dead
            await host.step(silent)
        assert host.wire("irq") == host.wire("learning_dead") == 1 and await host.get("status", "learning_dead") == 1
        await host.set("irq_status", learning_dead=1)
        await host.tick(2)
        assert host.wire("irq") == 0 and host.wire("learning_dead") == 1, "the flag is the last step's"
        await host.step(silent)
        assert host.wire("irq") == 1, "raised by every step that ends with the flag"
        await host.set("command", clear=1)
        host.golden.clear()
        await host.set("irq_status", learning_dead=1)
        await host.step(silent)
        assert host.wire("irq") == host.wire("learning_dead") == 0

        # An event in the cycle in which the host clears it is not lost.
        await host.set("irq_enable", done=1, learning_dead=0)
        for delay in range(0, 30, 1 if host.bench.effort else 5):
            record = await host.hold("apply")
            host.release()
            await host.tick(delay)
            writing = cocotb.start_soon(host.write(status.offset, 1))
            risen = 0
            for _ in range(host.config.beats + 60):
                await dut.clk.falling_edge
                risen |= host.wire("irq")
            assert risen, f"{host.bench.where}the event was lost that came {delay} cycles before it was cleared"
            await writing
            await host.receive(record)
            await host.set("irq_status", done=1)


@cocotb.test
async def events_of_scalars_and_steps_beyond_their_ranges(dut: Any) -> None:
    """A step beyond its grid, and updates beyond their rails; a denominator that overflows, and with it an alpha too small."""
    for host in hosts(dut):
        if host.config.delay:  # whose first step is the hardware's own
            continue
        beyond = rate_off_the_grid(host.config)
        steep = host.config.replace(gain=host.config.scalar.largest.fraction, bias=1)
        low, high = host.config.grids.gradient.rails
        loud = np.where(np.arange(host.config.elements) % 2, low, high)
        for law, events in (
            (host.config.replace(eta=beyond, eta_max=beyond), {"step_overflow"}),
            (steep, {"scalar_overflow", "scalar_underflow"}),
        ):
            await host.reset()
            await host.configure(law)
            host.adopt(law)
            await host.set("control", run=1)
            await host.step(loud)
            await host.step(np.ones_like(loud))
            raised = {
                name for name in ("step_overflow", "scalar_overflow", "scalar_underflow") if await host.get("irq_status", name)
            }
            assert raised == events, f"{host.bench.where}{raised} are raised, not {events}"


@cocotb.test
async def the_end_waits_for_the_last_weight(dut: Any) -> None:
    """While the last beat is not taken the step has not ended."""
    for host in hosts(dut):
        await host.reset()
        await host.set("control", run=1)
        for _ in range(2):
            record = host.send()
            beats = 0
            while beats < host.config.beats - 2:  # a sink pauses a beat late
                await dut.clk.falling_edge
                beats += host.wire("m_axis_updated_tvalid") & host.wire("m_axis_updated_tready")
            host.updated.pause = True
            await host.tick(host.unit.step_cycles + 20)
            assert host.wire("m_axis_updated_tvalid") & host.wire("m_axis_updated_tlast")
            assert await host.get("status", "busy") == 1 and await host.get("irq_status", "done") == 0
            host.updated.pause = False
            await host.finish(record)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    """In every phase, transactions under way on the bus: nothing is offered afterwards, and the unit is as new."""
    for host in hosts(dut):
        for before, phase in enumerate((*PHASES, "idle") * (1 + host.bench.effort)):
            await host.reset()
            await host.set("control", run=1)
            for _ in range(before % 2):
                await host.step()
            if phase != "idle":
                await host.hold(phase)
            host.sinks["b"].pause = host.sinks["r"].pause = True
            host.bus.init_write(host.map["eta_m"].offset, b"\x55" * 4)
            host.bus.init_read(host.map["eta_m"].offset, 4)
            await host.tick(host.rng.randint(1, 6))
            await host.reset()
            for port in ("s_axi_bvalid", "s_axi_rvalid", "m_axis_updated_tvalid", "irq", "learning_dead"):
                assert host.wire(port) == 0, f"{host.bench.where}{port} must be low after a reset"
            for register in host.rng.sample(list(host.map), 12):
                assert await host.word(register) == register.reset, f"{host.bench.where}{register.name} after a reset"
            await host.set("control", run=1)
            for _ in range(2):
                await host.step()


@cocotb.test
async def reset_by_command(dut: Any) -> None:
    """In every phase: the unit is as new but for what was written, the bus answers, and no output takes back what it offers."""
    for host in hosts(dut):
        # With `delay` the step size of a first step is that of the configuration, whatever is written.
        choices = [host.config, *([] if host.config.delay else list(laws(host.config))[-2:])]
        phases = (*PHASES, "idle", "between") * (1 + host.bench.effort)
        for number, phase in enumerate(phases):
            await host.reset()
            law = choices[number % len(choices)]
            await host.configure(law)
            host.adopt(law)
            await host.set("irq_enable", done=1, learning_dead=1)
            await host.set("control", run=1)
            silent = np.zeros(host.config.elements, np.int64)
            for step in range(1 + number % 4):
                await host.step(silent if number % 2 and step else None, registers=False)
            record = None
            if phase == "between":  # a frame of which some beats have left, and no one is on offer
                record = await host.hold("apply")
                host.weights.pause = True
                host.updated.pause = False
                await host.tick(host.rng.randint(1, 9))
            elif phase != "idle":
                record = await host.hold(phase)
            written = {r.name: await host.word(r) for r in host.map if r.access is Access.RW}
            host.stop()
            tasks = [cocotb.start_soon(host.word(host.map["eta_m"])) for _ in range(3)]
            await host.set("command", reset=1, clear=host.rng.randrange(2))
            for task in tasks:
                assert await task == written["eta_m"], "the bus answers through it"
            leaving = await host.get("status", "leaving")
            assert leaving >= host.wire("m_axis_updated_tvalid"), f"{host.bench.where}{phase}: what is offered leaves"
            for register in host.map:
                found, want = await host.word(register), written.get(register.name, register.reset)
                if register.access is Access.RW:
                    want = restarted(register, want)
                if register.name == "status":
                    want = leaving << 2
                assert found == want, f"{host.bench.where}{phase}: {register.name} must be {want:#x}, not {found:#x}"
            for port in ("irq", "learning_dead"):
                assert host.wire(port) == 0, f"{host.bench.where}{port} must be low after a reset"
            host.release()
            await host.tick(host.config.beats + 8)
            assert await host.get("status", "leaving") == 0
            assert phase != "apply" or leaving, "a beat was on offer"
            if not host.updated.empty():
                assert record is not None
                host.is_cut(host.updated.recv_nowait(compact=False), record)
            # As a new one, of the law that was written; without `run` nothing begins.
            host.begin(law)
            record = host.send()
            await host.tick(host.config.beats + 20)
            assert await host.get("status", "busy") == 0 and host.updated.empty()
            await host.set("control", run=1)
            await host.finish(record)
            for step in range(3):
                await host.step(silent if step == 1 else None)


@cocotb.test
async def the_generated_driver(dut: Any) -> None:
    """What a program does: the module that is exported beside the Verilog, on this bus."""
    for host in hosts(dut):
        await host.reset()
        made: dict[str, Any] = {"__name__": "driver"}
        exec(python_driver(host.config, host.map, "throttle_axi"), made)
        law = host.config.replace(
            source=Source(host.config.source).seeing(Source.EMA), ema_start=EmaStart.FIRST, on_still=OnStill.HOLD, gain="5/4"
        )
        host.adopt(law)
        record = host.send()

        @resume
        async def read(offset: int, host: Host = host) -> int:
            word, answer = await host.read(offset)
            assert answer == AxiResp.OKAY
            return word

        @resume
        async def write(offset: int, word: int, host: Host = host) -> None:
            assert await host.write(offset, word) == AxiResp.OKAY

        @bridge
        def program(law: ThrottleConfig = law, made: dict[str, Any] = made) -> dict[str, Any]:
            unit = made["ThrottleAxi"](read, write)
            assert unit.scalar("gain") != law.constants["gain"] and not unit.done
            unit.configure(source="ema", on_still="hold", ema_first=True, gain=tuple(law.constants["gain"]))
            assert unit.scalar("gain") == law.constants["gain"] and unit.get("control", "source") == 1
            unit.start()
            while not unit.done:
                pass
            unit.stop()
            unit.acknowledge()
            assert not unit.done and not unit.busy
            unit.clear()
            found: dict[str, Any] = unit.registers()
            return found

        found = await program()
        await host.receive(record)
        has = {name: want for name, want in vars(record.registers).items() if name in found or want}
        assert found == has, f"{host.bench.where}{found}"

        # A DMA that stopped while updated weights left: a reset, what was on its way is taken and dropped, and a first step.
        await host.set("control", run=1)
        await host.hold("apply")
        host.stop()

        @bridge
        def recover(made: dict[str, Any] = made) -> bool:
            unit = made["ThrottleAxi"](read, write)
            assert unit.busy and not unit.leaving
            unit.reset()
            assert not unit.busy and not unit.get("control", "run") and not unit.get("steps")
            return bool(unit.leaving)

        assert await recover(), "a beat was on offer"
        host.release()
        await with_timeout(host.updated.recv(), 1, "ms")
        await host.tick(4)
        assert await host.get("status", "leaving") == 0
        host.begin(law)
        await host.set("control", run=1)
        await host.step()
