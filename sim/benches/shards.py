"""Tests of units that each hold a part of the elements, with the exchange between them, against one golden unit of all."""

from __future__ import annotations

import itertools
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from numpy.typing import NDArray

from ...golden.config import EmaStart, OnStill, Source, ThrottleConfig
from ...golden.registers import COUNTER_BITS
from ...golden.throttle import ShardedThrottle
from ...golden.throttle import Throttle as GoldenThrottle
from ...hw.export import unit
from ...hw.units.ports import core_counters, host_words, registers_layout, shared_bits
from ...hw.units.shards import Exchange
from ..testbench.bank import LEVELS, Bench, benches, paces
from ..testbench.scoreboard import Mismatch

Codes = NDArray[Any]
SHARED = ("constants", "control", "clear")


class Shards(wiring.Component):
    """Units of a part each and the exchange between them; the streams of each under its name and number, all else is common."""

    def __init__(self, config: ThrottleConfig, sizes: list[int], streaming: bool) -> None:
        self.config, self.sizes, self.streaming = config, sizes, streaming
        self.units = [unit(config.replace(elements=size, population=config.elements), streaming) for size in sizes]
        members = {name: self.units[0].signature.members[name] for name in SHARED}
        for k, one in enumerate(self.units):
            members |= {
                f"{name}{k}": member
                for name, member in one.signature.members.items()
                if name not in (*SHARED, "partial", "total")
            }
        super().__init__(members)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.exchange = exchange = Exchange(len(self.units), shared_bits(self.units[0].config))
        for k, one in enumerate(self.units):
            m.submodules[f"unit{k}"] = one
            wiring.connect(m, one.partial, getattr(exchange, f"partial{k}"))
            wiring.connect(m, getattr(exchange, f"total{k}"), one.total)
            m.d.comb += one.clear.eq(self.clear)
            for name in ("constants", "control"):
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(one, name))
            for name in one.signature.members:
                if name in (*SHARED, "partial", "total"):
                    continue
                mine, theirs = wiring.flipped(getattr(self, f"{name}{k}")), getattr(one, name)
                wiring.connect(m, mine, theirs)
        return m


def component(sizes: list[int], streaming: bool = False, **table: Any) -> Shards:
    return Shards(ThrottleConfig.from_table(table), sizes, streaming)


class Run:
    """A run of steps of all shards, and of one golden unit of the whole."""

    def __init__(self, bench: Bench, config: ThrottleConfig) -> None:
        self.bench, self.config, self.parts = bench, config, [one.config for one in bench.component.units]
        self.rng = np.random.default_rng(bench.rng.getrandbits(32))
        for port, word in host_words(self.parts[0].replace(source=config.source, on_still=config.on_still)).items():
            bench.wire(port).value = word
        bench.wire("clear").value = 0
        theta = self.rng.integers(*config.grids.weight.rails, config.elements, endpoint=True)
        self.golden = ShardedThrottle(config, theta, bench.component.sizes, codes=True)
        self.whole = GoldenThrottle(config, theta, codes=True)
        self.boards = {f"{name}{k}": bench.board(f"{name}{k}") for name in ("updated", "registers") for k in self._shards}
        self._previous = np.zeros(config.elements, np.int64)
        self.registers: list[dict[str, Any]] = []

    @property
    def _shards(self) -> range:
        return range(len(self.parts))

    def step(self) -> None:
        """Queue one step of every shard; some gradients are nothing, so that some steps are still."""
        config, drivers = self.config, self.bench.drivers
        low, high = config.grids.gradient.rails
        most = int(self.rng.choice([0, 1, high // 3, 2 * high]))
        gradient = self.rng.integers(-most, most + 1, config.elements).clip(low, high)
        theta = self.golden.theta
        record, alone = self.golden.step(gradient, codes=True), self.whole.step(gradient, codes=True)
        assert record.registers == alone.registers and (record.theta == alone.theta).all()
        cuts = np.cumsum(self.bench.component.sizes)[:-1]
        split = [np.split(codes, cuts) for codes in (gradient, self._previous, theta, record.theta, record.update)]
        for k, (absorbed, before, weights, moved, update) in enumerate(zip(*split, strict=True)):
            part = self.parts[k]
            if self.bench.component.streaming:
                for one, other in zip(_beats(absorbed, part), _beats(before, part), strict=True):
                    drivers[f"absorb{k}"].send({"gradient": one, "previous": other})
                for one, other in zip(_beats(weights, part), _beats(absorbed, part), strict=True):
                    drivers[f"apply{k}"].send({"weight": one, "direction": other})
            else:
                for one in _beats(absorbed, part):
                    drivers[f"gradient{k}"].send(one)
                for one in _beats(weights, part):
                    drivers[f"weights{k}"].send(one)
            for one, other in zip(_beats(moved, part), _beats(update, part), strict=True):
                self.boards[f"updated{k}"].expect({"weight": one, "update": other}, f"step {record.step}")
            shared = {
                name: getattr(record.registers, name) for name in registers_layout(part).members if name not in own_counters(part)
            }
            self.boards[f"registers{k}"].expect(shared, f"step {record.step} of {config}")
        self._previous = gradient
        self.registers.append(vars(record.registers))

    async def drain(self) -> None:
        """Everything comes; and the counters of the shards add up to those of the one unit, in every step."""
        await self.bench.drain(*self.boards.values())
        found = [self.bench.monitors[f"registers{k}"] for k in self._shards]
        layout = found[0].stream.shape
        for step, transfers in enumerate(zip(*(monitor.transfers for monitor in found), strict=True)):
            for name in own_counters(self.parts[0]):
                field = layout[name]
                total = sum(transfer.word >> field.offset & ((1 << COUNTER_BITS) - 1) for transfer in transfers)
                if total % (1 << COUNTER_BITS) != self.registers[step][name]:
                    raise Mismatch(
                        f"{self.bench.where}step {step}, {name}: must add up to {self.registers[step][name]}, not {total}"
                    )


def own_counters(config: ThrottleConfig) -> list[str]:
    """The counters that are a shard's own."""
    return [name for name in core_counters(config) if not name.startswith("step")]


def _beats(codes: Codes, config: ThrottleConfig) -> list[list[int]]:
    missing = config.beats * config.lanes - codes.size
    return np.concatenate([codes, np.zeros(missing, np.int64)]).reshape(config.beats, config.lanes).tolist()


@cocotb.test
async def shards_are_one_unit(dut: Any) -> None:
    """All laws, in step, and each shard at a pace of its own."""
    for bench in benches(dut, component):
        config = bench.component.config
        sources = [source for source in config.source.alike if source.x is not Source.INSTANT] or [config.source]
        for law in itertools.product(OnStill, sources):
            await bench.reset()
            for driver in bench.drivers.values():
                driver.idle = bench.rng.choice(list(LEVELS.values()))
            for consumer in bench.consumers.values():
                consumer.stall = bench.rng.choice(list(LEVELS.values()))
            run = Run(bench, config.replace(on_still=law[0], source=law[1], ema_start=EmaStart.ZERO))
            for _ in range(4 + 3 * bench.effort):
                run.step()
            await run.drain()


@cocotb.test
async def the_whole_is_reset(dut: Any) -> None:
    """In every state of the exchange, and then it is a first step again."""
    for bench in benches(dut, component):
        for idle, stall in itertools.islice(paces(), 0, None, 2):
            await bench.reset()
            bench.pace(idle, stall)
            run = Run(bench, bench.component.config)
            for _ in range(2):
                run.step()
            await bench.tick(bench.rng.randint(10, 400))
            await bench.reset()
            run = Run(bench, bench.component.config)
            for _ in range(2):
                run.step()
            await run.drain()
