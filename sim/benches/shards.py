"""Tests of units that each hold a part of the elements, with the exchange between them, against one golden unit of all.

Or against golden shards, where the units have formats of their own.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from numpy.typing import NDArray

from ...golden.config import EmaStart, OnStill, Source, ThrottleConfig
from ...golden.formats import Fixed
from ...golden.registers import COUNTER_BITS
from ...golden.sharded import ShardedThrottle
from ...golden.throttle import Throttle as GoldenThrottle
from ...golden.together import together
from ...hw.export import unit
from ...hw.units.ports import core_counters, host_words, registers_layout, shared_bits
from ...hw.units.shards import Exchange
from ..testbench.bank import LEVELS, Bench, benches, paces
from ..testbench.scoreboard import Mismatch

Codes = NDArray[Any]
SHARED = ("constants", "control", "clear")


class Shards(wiring.Component):
    """Units of a part each and the exchange between them; the streams of each under its name and number, all else is common."""

    def __init__(self, configs: list[ThrottleConfig], streaming: bool, motion: str | None) -> None:
        self.configs, self.streaming = configs, streaming
        self.motion = motion
        self.config, parts = together(configs, motion=motion)
        self.units = [unit(part, streaming) for part in parts]
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


def component(shards: list[dict[str, Any]], streaming: bool = False, motion: str | None = None, **table: Any) -> Shards:
    """Shards of what ``table`` says, each with fields of its own."""
    return Shards([ThrottleConfig.from_table(table | shard) for shard in shards], streaming, motion)


class Run:
    """A run of steps of all shards, and of one golden unit of the whole."""

    def __init__(self, bench: Bench, config: ThrottleConfig) -> None:
        self.bench, self.config, self.parts = bench, config, [one.config for one in bench.component.units]
        modes = {name: getattr(config, name) for name in ("source", "on_still", "ema_start")}
        self.rng = np.random.default_rng(bench.rng.getrandbits(32))
        for port, word in host_words(self.parts[0].replace(**modes)).items():
            bench.wire(port).value = word
        bench.wire("clear").value = 0
        theta = [_any(part.grids.weight, part.elements, self.rng) for part in self.parts]
        shards = [one.replace(**modes) for one in bench.component.configs]
        self.golden = ShardedThrottle(shards, theta, codes=True, motion=bench.component.motion)
        alike = all(part.weight_grid is None for part in self.parts)
        self.whole = GoldenThrottle(config, np.concatenate(theta), codes=True) if alike else None
        self.boards = {f"{name}{k}": bench.board(f"{name}{k}") for name in ("updated", "registers") for k in self._shards}
        self._previous = [np.zeros(part.elements, np.int64) for part in self.parts]
        self.registers: list[dict[str, Any]] = []

    @property
    def _shards(self) -> range:
        return range(len(self.parts))

    def step(self) -> None:
        """Queue one step of every shard; now and then gradients are nothing, of all shards or of all but one."""
        config, drivers = self.config, self.bench.drivers
        gradients, alone = [], self.rng.integers(len(self.parts)) if self.rng.random() < 0.3 else None
        share = self.rng.choice([0, 0.001, 0.3, 2])
        for k, part in enumerate(self.parts):
            low, high = part.grids.gradient.rails
            most = math.ceil(share * high) if alone in (None, k) else 0
            gradients.append(self.rng.integers(-most, most + 1, part.elements).clip(low, high))
        thetas = self.golden.thetas
        record = self.golden.step(gradients, codes=True)
        if self.whole is not None:
            one_unit = self.whole.step(np.concatenate(gradients), codes=True)
            assert record.registers == one_unit.registers and (record.theta == one_unit.theta).all()
        cuts = np.cumsum([part.elements for part in self.parts])[:-1]
        updates = np.split(record.update, cuts)
        for k, (absorbed, before, weights, after) in enumerate(
            zip(gradients, self._previous, thetas, self.golden.thetas, strict=True)
        ):
            part = self.parts[k]
            update = updates[k] >> config.grids.update.fraction_bits - part.grids.update.fraction_bits
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
            for one, other in zip(_beats(after, part), _beats(update, part), strict=True):
                self.boards[f"updated{k}"].expect({"weight": one, "update": other}, f"step {record.step}")
            shared = {
                name: getattr(record.registers, name) for name in registers_layout(part).members if name not in own_counters(part)
            }
            self.boards[f"registers{k}"].expect(shared, f"step {record.step} of {config}")
        self._previous = gradients
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


def _any(fmt: Fixed, count: int, rng: np.random.Generator) -> Codes:
    low, high = fmt.rails
    return rng.integers(low, high + 1, count)


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
