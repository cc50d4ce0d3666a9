"""Tests of the table of segments on AXI: other networks between steps, entries that are refused, and what meets half a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge, resume
from cocotb.triggers import with_timeout
from cocotbext.axi import AxiResp, AxiStreamFrame

from ...golden.config import ThrottleConfig
from ...golden.segments import Segment
from ...golden.throttle import laid_out
from ...hw.bus.text import python_driver
from ..testbench.bank import paces
from ..testbench.host import PHASES, Host, hosts
from ..testbench.layouts import some_layout

DELAYS = 100
"""Clock cycles, about as many as it takes to write an entry."""


def segmented(dut: Any) -> Iterator[Host]:
    """The units that have segments."""
    return (host for host in hosts(dut) if host.config.segments)


@dataclass
class Rules:
    """What the unit holds of a table that is written: entries, their elements and beats, and whether one had none."""

    host: Host
    entries: int = 0
    elements: int = 0
    beats: int = 0
    ended: bool = False

    def take(self, elements: int, scale: int) -> bool:
        """Whether an entry fits, which is then there."""
        config = self.host.unit.config
        fits = self.entries < config.entries and scale <= config.scale_max and self.elements + elements <= config.room
        if not fits or (self.ended if elements else not self.entries):
            return False
        self.entries, self.elements, self.ended = self.entries + 1, self.elements + elements, not elements
        self.beats += -(-elements // config.lanes)
        return True

    @property
    def partial(self) -> bool:
        config: ThrottleConfig = self.host.unit.config
        return 0 < self.entries < config.entries

    async def write(self, elements: int, scale: int) -> None:
        """Write an entry, and see what the unit makes of it."""
        host = self.host
        said = f"{host.bench.where}entry {self.entries}, {elements} elements of scale {scale}, "
        assert await host.entry(elements, scale) == (not self.take(elements, scale)), f"{said}is taken, or refused, wrongly"
        beats = self.beats or host.unit.config.beats
        assert await host.get("beats") == beats, f"{said}makes {await host.get('beats')} beats, not {beats}"
        assert await host.get("status", "layout") == self.partial, f"{said}is not the end, or is"


@cocotb.test
async def another_layout(dut: Any) -> None:
    """After a reset by command or by the wire, and before any; a reset brings the first one back."""
    for host in segmented(dut):
        await host.reset()
        for number in range(5 + 6 * host.bench.effort):
            host.pace(*host.rng.choice(list(paces())))
            if number % 3 == 2:
                await host.reset()
            await host.layout(some_layout(host.rng, host.unit.config), restart=number % 3 < 2)
            await host.set("control", run=1)
            for _ in range(host.rng.randint(1, 3)):
                await host.step()
            if number % 4 == 1:
                await host.restart()
                assert await host.get("beats") == host.config.beats
                assert await host.get("still_norm_m") == host.config.constants["still_norm"].m
                await host.set("control", run=1)
                await host.step()


@cocotb.test
async def entries_that_are_refused(dut: Any) -> None:
    """By every rule, at every place; half a table holds up a running unit, and goes on where it was."""
    for host in segmented(dut):
        await host.reset()
        config, rng = host.unit.config, host.rng
        for number in range(4 + 4 * host.bench.effort):
            await host.restart()
            host.pace(*rng.choice(list(paces())))
            # Often with room for another segment, which has to be refused for its place alone.
            one = [Segment(rng.randint(1, max(1, config.room // 2)))]
            segments = some_layout(rng, config) if number % 2 else one
            host.config = laid_out(config, segments)
            host.begin(host.config)
            for part in ("m", "e"):
                await host.set(f"still_norm_{part}", value=getattr(host.config.constants["still_norm"], part))
            await host.set("control", run=1)
            rules, record = Rules(host), None
            wrong = [(config.room + rng.choice([1, 1 << 20]), 0), (1, config.scale_max + 1), (1, 255), (0, 0), (1, 0)]
            for entry in [(one.elements, one.scale) for one in segments] + [(0, 0)] * (config.entries - len(segments)):
                some = [*wrong, (config.room - rules.elements + 1, 0)]
                for bad in rng.sample(some, len(some) if number < 2 else rng.randrange(3)):
                    if not replace(rules).take(*bad):
                        await rules.write(*bad)
                await rules.write(*entry)
                if rules.partial and record is None:
                    record = host.send()
                    await host.tick(rng.randint(1, 30))
                if rules.partial:
                    for name in ("gradient", "weights"):
                        assert not host.wire(f"s_axis_{name}_tready"), f"{host.bench.where}half a table takes no {name}"
                    assert not await host.get("status", "busy")
            if record is None:
                await rules.write(1, 0)
                record = host.send()
            await host.finish(record)
            assert await host.entry(1, 0), f"{host.bench.where}the table is whole"
            await host.step()


@cocotb.test
async def an_entry_after_a_beat(dut: Any) -> None:
    """In every phase of a step, between two, and with a frame that waits: refused, and the steps go on as if it had not come."""
    for host in segmented(dut):
        for phase in (*PHASES, "between", "waits"):
            await host.reset()
            if phase != "waits" and host.rng.randrange(2):  # a whole table would take none in any case
                await host.layout(some_layout(host.rng, host.unit.config))
            beats = host.config.beats
            await host.set("control", run=int(phase != "waits"))
            record = None
            if phase == "between":
                await host.step()
            elif phase == "waits" and host.unit.frames == "drop":
                record = host.send()
                await with_timeout(host.gradient.wait(), 100, "us")
            elif phase != "waits":
                record = await host.hold(phase)
            else:  # without a buffer no beat comes in
                continue
            for entry in ((1, 0), (0, 0), (host.unit.config.room, 0)):
                assert await host.entry(*entry) == 1, f"{host.bench.where}{phase}: {entry} comes too late"
            assert await host.get("beats") == beats and not await host.get("status", "layout")
            host.release()
            await host.set("control", run=1)
            if record is not None:
                await host.finish(record)
            await host.step()


async def offered(host: Host, delay: int, **vectors: Any) -> None:
    """Send frames, after so many cycles."""
    await host.tick(delay)
    for name, codes in vectors.items():
        getattr(host, name).send_nowait(host.frame(name, codes))


@cocotb.test
async def a_gradient_beside_the_first_entry(dut: Any) -> None:
    """Offered in any cycle while a running unit's table is written: entries are taken, or refused and told; none is lost."""
    for host in segmented(dut):
        await host.reset()
        config = host.unit.config
        # As many beats, so that a frame fits either; but A is another one.
        other = laid_out(config, [replace(one, scale=config.scale_max - one.scale) for one in config.segments])
        rows = [(one.elements, one.scale) for one in other.segments] + [(0, 0)] * (config.entries - len(config.segments))
        gradient, zeros = host.vector("gradient"), np.zeros(config.elements, np.int64)
        for delay in range(DELAYS):
            await host.restart()
            host.pace(0, 0)
            await host.set("control", run=1)

            sender = cocotb.start_soon(offered(host, delay, gradient=gradient, weights=zeros))
            refused = [await host.entry(*row) for row in rows]
            assert len({*refused}) == 1, f"{host.bench.where}delay {delay}: all of a table are taken, or none"
            await sender
            host.config = config if refused[0] else other
            host.begin(host.config, zeros)
            await host.finish(host.golden.step(gradient, codes=True))
            await host.restart()  # with the configuration's layout again


@cocotb.test
async def half_a_table_and_a_reset(dut: Any) -> None:
    """At any cycle of an entry: the unit is the configuration's again."""
    for host in segmented(dut):
        await host.reset()
        for number in range(6 + 8 * host.bench.effort):
            if host.config.entries > 1:
                await Rules(host).write(host.rng.randint(1, host.config.room), 0)
            await host.set("layout", elements=1, scale=0)
            await host.write(host.map["command"].offset, 4)
            await host.tick(host.rng.randint(0, 20))
            if number % 2:
                await host.reset()
            else:
                await host.restart()
            assert not await host.get("status", "layout") and await host.get("beats") == host.config.beats
            await host.set("control", run=1)
            await host.step()
            await host.restart()


@cocotb.test
async def a_host_that_does_not_wait(dut: Any) -> None:
    """What it writes while an entry is looked at is another entry, and an entry that was lost leaves the table short."""
    for host in segmented(dut):
        await host.reset()
        for _ in range(4 + 4 * host.bench.effort):
            segments = some_layout(host.rng, host.unit.config)
            entries = [one.elements << 8 | one.scale for one in segments]
            entries += [0] * (host.unit.config.entries - len(segments))
            await host.restart()
            for entry in entries:
                await host.write(host.map["layout"].offset, entry)
                await host.write(host.map["command"].offset, 4)
                await host.write(host.map["layout"].offset, host.rng.getrandbits(32))
                while await host.get("command", "layout"):
                    pass
            host.config = laid_out(host.unit.config, segments)
            assert await host.get("beats") == host.config.beats
            host.begin(host.config)
            for part in ("m", "e"):
                await host.set(f"still_norm_{part}", value=getattr(host.config.constants["still_norm"], part))
            await host.set("control", run=1)
            await host.step()
            if len(entries) < 2:
                continue
            await host.restart()
            for _ in entries:  # none is waited for
                await host.write(host.map["layout"].offset, 1 << 8)
                await host.write(host.map["command"].offset, 4)
            await host.tick(100)
            taken = sum([await host.entry(1, 0) == 0 for _ in entries])
            whole = not await host.get("status", "layout")
            assert whole, f"{host.bench.where}{taken} entries came after the hurry"
            await host.restart()


@cocotb.test
async def frames_of_another_layout(dut: Any) -> None:
    """Are bad ones, as long as they may have been right before."""
    for host in segmented(dut):
        await host.reset()
        for _ in range(3 + 4 * host.bench.effort):
            host.pace(*host.rng.choice(list(paces())))
            before = host.config.beats
            await host.layout(some_layout(host.rng, host.unit.config))
            await host.set("control", run=1)
            await host.step()
            bad = {name: before != host.config.beats and host.rng.randrange(2) for name in ("gradient", "weights")}
            if host.unit.frames == "drop":
                for name, one in bad.items():
                    if one:
                        noise = host.rng.randbytes(before * host.beat_bytes(name))
                        host.sources[name].send_nowait(AxiStreamFrame(noise))
                record = host.send()
            else:  # the last beat is a frame of its own
                bad = dict.fromkeys(bad, host.config.beats > 1 and host.rng.randrange(2))
                gradient, theta = host.vector("gradient"), host.golden.theta
                for name, codes in (("gradient", gradient), ("weights", theta)):
                    whole, beat = bytes(host.frame(name, codes)), host.beat_bytes(name)
                    for part in (whole[:-beat], whole[-beat:]) if bad[name] else (whole,):
                        host.sources[name].send_nowait(AxiStreamFrame(part))
                record = host.golden.step(gradient, codes=True)
            await host.finish(record)
            for name, one in bad.items():
                assert await host.get("irq_status", f"{name}_frame") == bool(one), f"{host.bench.where}{name}: {bad}"
            await host.set("irq_status", gradient_frame=1, weights_frame=1)
            await host.step()


@cocotb.test
async def the_driver_lays_out(dut: Any) -> None:
    """The module that is exported beside the Verilog, on this bus: several networks, and what comes in between is told."""
    for host in segmented(dut):
        await host.reset()
        made: dict[str, Any] = {"__name__": "driver"}
        exec(python_driver(host.config, host.map, "throttle_axi"), made)

        @resume
        async def read(offset: int, host: Host = host) -> int:
            word, answer = await host.read(offset)
            assert answer == AxiResp.OKAY
            return word

        @resume
        async def write(offset: int, word: int, host: Host = host) -> None:
            assert await host.write(offset, word) == AxiResp.OKAY

        for _ in range(3 + 3 * host.bench.effort):
            segments = some_layout(host.rng, host.unit.config)
            other = laid_out(host.unit.config, segments)

            @bridge
            def program(made: dict[str, Any] = made, segments: Sequence[Segment] = segments) -> Any:
                unit = made["ThrottleAxi"](read, write)
                unit.layout([(one.elements, one.scale) for one in segments])
                unit.start()
                return unit

            unit = await program()
            host.config = other
            host.begin(other)
            for _ in range(2):
                gradient, theta = host.vector("gradient"), host.golden.theta
                for name, codes in (("gradient", gradient), ("weights", theta)):
                    kind = host.types[name][1]
                    host.sources[name].send_nowait(AxiStreamFrame(unit.codes(name, codes.astype(kind)).tobytes()))
                await host.finish(host.golden.step(gradient, codes=True))
