"""Tests of frames on AXI: bad ones of vectors, and lists of blocks for the watchdog."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import with_timeout
from cocotbext.axi import AxiStreamFrame

from ...golden.registers import BLOCK_BITS
from ...hw.bus.registers import Register
from ..testbench.bank import LEVELS
from ..testbench.host import Host, hosts


@cocotb.test
async def frames_are_checked(dut: Any) -> None:
    """Without buffers: an event tells of TLAST in the wrong place, and the beats count all the same."""
    for host in hosts(dut):
        if host.unit.frames != "check":
            continue
        await host.reset()
        await host.set("control", run=1)
        status = host.map["irq_status"]

        async def events(host: Host = host, status: Register = status) -> int:
            return await host.word(status)

        # One frame of two steps: TLAST is missing in the first.
        await host.write(status.offset, 0xFF)
        assert await events() == 0
        vectors: dict[str, list[bytes]] = {"gradient": [], "weights": []}
        records = []
        for _ in range(2):
            gradient, theta = host.vector("gradient"), host.golden.theta
            vectors["gradient"].append(bytes(host.frame("gradient", gradient)))
            vectors["weights"].append(bytes(host.frame("weights", theta)))
            records.append(host.golden.step(gradient, codes=True))
        for name, source in (("gradient", host.gradient), ("weights", host.weights)):
            source.send_nowait(b"".join(vectors[name]))
        await host.receive(records[0])
        want = 1 << 4 | 1 << 5
        assert await events() & want == want, "a frame is not a step's"
        await host.set("irq_status", gradient_frame=1)
        assert await events() & want == 1 << 5, "one event at a time"
        await host.set("irq_status", weights_frame=1)
        await host.receive(records[1])
        await host.tick(20)
        assert await events() & want == 0, "TLAST is where it should be"
        await host.compare(records[1])
        if host.config.beats > 1:  # a frame of a beat, and one of the others
            gradient, theta = host.vector("gradient"), host.golden.theta
            whole = bytes(host.frame("gradient", gradient))
            for part in (whole[: len(whole) // host.config.beats], whole[len(whole) // host.config.beats :]):
                host.gradient.send_nowait(AxiStreamFrame(part))
            host.weights.send_nowait(host.frame("weights", theta))
            await host.receive(host.golden.step(gradient, codes=True))
            assert await events() & want == 1 << 4, "TLAST came early"


@cocotb.test
async def bad_frames_never_came(dut: Any) -> None:
    """Frames that end early or late, before, between and behind good ones, at every pace: only an event tells of them."""
    for host in hosts(dut):
        if host.unit.frames != "drop":
            continue
        await host.reset()
        await host.set("control", run=1)
        bits = {
            name: next(f.lsb for f in host.map["irq_status"].fields if f.name == f"{name}_frame")
            for name in ("gradient", "weights")
        }
        for number in range(6 + 8 * host.bench.effort):
            host.pace(host.rng.choice([0, 0.3, 0.8]), host.rng.choice([0, 0.3, 0.8]))
            await host.set("control", run=host.rng.randrange(2) if number else 0)  # stopped, the buffers fill
            bad = dict.fromkeys(bits, False)
            records = []

            def some_bad(host: Host = host, bad: dict[str, bool] = bad) -> None:
                for stream in bad:
                    for _ in range(host.rng.choice([0, 0, 1, 2])):
                        host.sources[stream].send_nowait(host.bad_frame(stream))
                        bad[stream] = True

            for stream in bits:
                if host.rng.random() < 0.3:  # a DMA that was stopped: what it sent and the next frame are one bad frame
                    await host.break_off(stream, host.rng.randint(1, host.config.beats + 2))
                    host.sources[stream].send_nowait(host.frame(stream, host.vector(stream)))
                    bad[stream] = True
            host.pace(host.rng.choice([0, 0.3, 0.8]), host.rng.choice([0, 0.3, 0.8]))
            for _ in range(host.rng.choice([1, 2, 2, 7]) if number else 7):  # seven fill buffer and queue
                some_bad()
                records.append(host.send())
                if host.rng.random() < 0.3:
                    await host.tick(host.rng.randint(1, 40))
            some_bad()
            await host.set("control", run=1)
            for record in records:
                await host.receive(record)
            for stream in bits:
                await with_timeout(host.sources[stream].wait(), 100, "us")
            await host.tick(host.unit.step_cycles)
            await host.compare(records[-1])
            found = await host.word(host.map["irq_status"])
            assert {name: bool(found >> bit & 1) for name, bit in bits.items()} == bad, (
                f"{host.bench.where}{found:#x} after {bad}"
            )
            await host.write(host.map["irq_status"].offset, 0xFFFFFFFF)
            if number % 3 == 0:  # half a frame in each buffer, and a reset
                for stream in bits:
                    await host.break_off(stream, host.rng.randint(1, host.config.beats + 1))
                await host.set("command", reset=1)
                host.begin(host.config)
                await host.set("control", run=1)
                await host.step()
                assert await host.word(host.map["irq_status"]) & ~1 & (1 << bits["gradient"] | 1 << bits["weights"]) == 0


async def lists(host: Host, energies: list[int]) -> None:
    """Send the energies of blocks: as a list that is checked, bad ones around it, or as numbers, of which any may come."""

    def sent(energies: list[int]) -> AxiStreamFrame:
        return AxiStreamFrame(b"".join((energy | 0xABCD << BLOCK_BITS).to_bytes(8, "little") for energy in energies))

    assert host.blocks is not None
    if host.unit.frames == "check":
        host.blocks.send_nowait(sent(energies))
        return
    await host.set("irq_status", blocks_frame=1)
    length = host.rng.choice([0, len(energies)])
    await host.set("blocks", value=length)
    bad = 0
    for part in ("before", "list", "behind"):
        if part == "list":
            cut = host.rng.randint(1, len(energies)) if not length else len(energies)
            for some in (energies[:cut], energies[cut:]):
                if some:
                    host.blocks.send_nowait(sent(some))
        elif length and host.rng.randrange(2):
            loud = [
                1 << host.rng.randrange(BLOCK_BITS) for _ in range(host.rng.choice([1, length - 1, length + 1, 2 * length, 150]))
            ]
            host.blocks.send_nowait(sent(loud))
            bad = 1
    await with_timeout(host.blocks.wait(), 100, "us")
    await host.tick(2)
    assert await host.get("irq_status", "blocks_frame") == bad, f"{host.bench.where}the list is of {length}"


@cocotb.test
async def watchdog(dut: Any) -> None:
    """Blocks on their stream, the mask, bits, step numbers, the event and the wire; a clear takes all of them back."""
    for host in hosts(dut):
        if not host.config.watchdog:
            continue
        await host.reset()
        await host.set("control", run=1)
        await host.set("irq_enable", watchdog=1)
        golden, built = host.golden.watchdog, host.golden.watchdog.mask
        for step in range(8 + 8 * host.bench.effort):
            host.pace(*host.rng.choice([(0, 0), (LEVELS["some"], LEVELS["some"])]))
            golden.mask = built & host.rng.choice([15, 15, host.rng.getrandbits(4)])
            fields = {f.name: golden.mask >> f.lsb & 1 for f in host.map["watchdog_mask"].fields}
            await host.set("watchdog_mask", **fields)
            if host.blocks is not None:
                energies = [1, host.rng.choice([1, (1 << BLOCK_BITS) - 1]), 5]
                golden.blocks(energies)
                await lists(host, energies)
                await with_timeout(host.blocks.wait(), 100, "us")
            before = await host.get("irq_status", "watchdog")
            await host.step(np.zeros(host.config.elements, np.int64) if step % 3 else None)
            fired = golden.fired != 0
            assert await host.get("irq_status", "watchdog") == (before or fired)
            assert host.wire("watchdog") == fired and host.wire("irq") == (before or fired)
            if fired and host.rng.random() < 0.7:
                await host.set("irq_status", watchdog=1)
                await host.set("command", clear=1)
                host.golden.clear()
