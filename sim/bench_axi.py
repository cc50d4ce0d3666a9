"""Tests of the unit on AXI, with the masters of cocotbext-axi, step by step against the golden unit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import unsigned
from cocotb.triggers import Timer, with_timeout
from cocotb.types import LogicArray
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource
from numpy.typing import NDArray

from kappa_rtl.golden.config import COUNTERS, FLAGS, ThrottleConfig
from kappa_rtl.golden.throttle import Throttle as GoldenThrottle
from kappa_rtl.hw.axi import AxiThrottle
from kappa_rtl.hw.registers import WORD, Access, Register, RegisterMap, field_bits

from .bench import Bench, benches
from .stream import Checker, RuleViolation, Stream, defined

Codes = NDArray[Any]
SCALARS = ("norm_gradient", "norm_motion", "curvature", "ema", "alpha")


def component(**table: Any) -> AxiThrottle:
    return AxiThrottle(ThrottleConfig.from_table(table))


# ------------------------------------------------------------------------------------------------ the agents


class Joined:
    """Several wires as one, lowest first."""

    def __init__(self, wires: list[Any]) -> None:
        self._wires = wires

    @property
    def value(self) -> LogicArray:
        return LogicArray("".join(str(wire.value) for wire in reversed(self._wires)))


class Channel(Stream):
    """A channel of AXI as a stream: its payload is all its signals side by side."""

    def __init__(self, dut: Any, prefix: str, letter: str, payload: tuple[str, ...]) -> None:
        wires = [getattr(dut, f"{prefix}{letter}{signal}") for signal in payload]
        self.name, self.width = f"{prefix}{letter}", sum(len(wire) for wire in wires)
        self.shape = unsigned(self.width)
        self.payload_wire = Joined(wires)
        self.valid_wire, self.ready_wire = getattr(dut, f"{prefix}{letter}valid"), getattr(dut, f"{prefix}{letter}ready")
        self.valid: int | None = 0
        self.ready: int | None = 0
        self.word: int | None = 0


class Host:
    """A processor and its DMA at one unit of the bank; from :meth:`reset` on every channel's rules are watched."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.unit, self.rng = bench, bench.component, bench.rng
        self.config: ThrottleConfig = self.unit.config
        self.map: RegisterMap = self.unit.registers
        self.dut, name = bench._dut, bench.name
        g, w, _, _ = self.config.grids
        self.types = {"gradient": (g, f"<i{field_bits(g.width) // 8}"), "weights": (w, f"<i{field_bits(w.width) // 8}")}

        def stream(kind: Any, port: str) -> Any:
            return kind(AxiStreamBus.from_prefix(self.dut, f"{name}__{port}"), self.dut.clk, self.dut.rst)

        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(self.dut, f"{name}__s_axi"), self.dut.clk, self.dut.rst)
        self.gradient = stream(AxiStreamSource, "s_axis_gradient")
        self.weights = stream(AxiStreamSource, "s_axis_weights")
        self.updated = stream(AxiStreamSink, "m_axis_updated")
        write, read = self.bus.write_if, self.bus.read_if
        self.sources = {"aw": write.aw_channel, "w": write.w_channel, "ar": read.ar_channel}
        self.sources |= {"gradient": self.gradient, "weights": self.weights}
        self.sinks = {"b": write.b_channel, "r": read.r_channel, "updated": self.updated}
        axi = f"{name}__s_axi_"
        self.checkers = {
            "b": Checker(Channel(self.dut, axi, "b", ("resp",)), bench.where),
            "r": Checker(Channel(self.dut, axi, "r", ("data", "resp")), bench.where),
            "updated": Checker(Channel(self.dut, f"{name}__m_axis_updated_", "t", ("data", "keep", "last")), bench.where),
        }
        self._inputs = [(getattr(self.dut, f"{axi}{x}valid"), getattr(self.dut, f"{axi}{x}ready")) for x in ("aw", "w", "ar")]
        self.cycle = 0
        self.probing = 0.05
        self._watch: Any = None
        self.golden: GoldenThrottle

    async def reset(self, weights: Codes | None = None) -> None:
        """Reset the unit, whatever it is doing, and begin a run."""
        if self._watch is not None:
            self._watch.cancel()
        self.pace()
        self.dut.rst.value = 1
        for _ in range(3):
            await self.dut.clk.rising_edge
        self.dut.rst.value = 0
        for agent in (self.gradient, self.weights, self.updated):
            agent.clear()
        for checker in self.checkers.values():
            checker.forget()
        await self.dut.clk.rising_edge
        self._watch = cocotb.start_soon(self._watched())
        self.golden = GoldenThrottle(self.config, self.vector("weights") if weights is None else weights)

    async def _watched(self) -> None:
        """The rules of all outputs, every cycle."""
        while True:
            await self.dut.clk.falling_edge
            for checker in self.checkers.values():
                checker.stream.sample()
                checker.sample(self.cycle)
            if self.rng.random() < self.probing:
                await self.rng.choice(list(self.checkers.values())).probe(self.cycle)
            elif self.rng.random() < self.probing:
                await self._probe(*self.rng.choice(self._inputs))
            self.cycle += 1

    async def _probe(self, valid: Any, ready: Any) -> None:
        """No output of AXI4-Lite follows an input within a cycle."""
        before, offered = defined(ready), int(valid.value)
        valid.value = 1 - offered
        await Timer(1, "ns")
        if defined(ready) != before:
            raise RuleViolation(f"{self.bench.where}{ready._name}, cycle {self.cycle}: ready must not depend on valid")
        valid.value = offered
        await Timer(1, "ns")

    def pace(self, idle: float = 0.0, stall: float = 0.0) -> None:
        """The chance of pauses of every source, and of every sink."""
        for agents, chance in ((self.sources, idle), (self.sinks, stall)):
            for agent in agents.values():
                agent.set_pause_generator(self._pauses(chance) if 0 < chance < 1 else None)
                agent.pause = chance == 1

    def _pauses(self, chance: float) -> Iterator[bool]:
        return (self.rng.random() < chance for _ in itertools.count())

    async def tick(self, cycles: int = 1) -> None:
        for _ in range(cycles):
            await self.dut.clk.rising_edge

    # ------------------------------------------------------------------ registers

    async def read(self, address: int) -> tuple[int, AxiResp]:
        """A word, and the answer."""
        answer = await with_timeout(self.bus.read(address, 4 - address % 4), 100, "us")
        return int.from_bytes(answer.data, "little"), answer.resp

    async def write(self, address: int, word: int, size: int = 4) -> AxiResp:
        """Some bytes of a word; the answer."""
        answer = await with_timeout(self.bus.write(address, word.to_bytes(size, "little")), 100, "us")
        return answer.resp  # type: ignore[no-any-return]

    async def word(self, register: Register) -> int:
        """A whole register."""
        total = 0
        for i in range(register.words):
            word, answer = await self.read(register.offset + 4 * i)
            assert answer == AxiResp.OKAY, f"{self.bench.where}{register.name} answers {answer!r}"
            total |= word << WORD * i
        return total

    async def get(self, name: str, field: str = "value") -> int:
        register = self.map[name]
        part = next(f for f in register.fields if f.name == field)
        bits = (await self.word(register) >> part.lsb) & ((1 << part.width) - 1)
        return bits - (1 << part.width) if part.signed and bits >> (part.width - 1) else bits

    async def set(self, name: str, **fields: int) -> None:
        register = self.map[name]
        word = await self.word(register) if register.access is Access.RW else 0
        for part in register.fields:
            if part.name in fields:
                mask = (1 << part.width) - 1
                word = word & ~(mask << part.lsb) | (fields[part.name] & mask) << part.lsb
        for i in range(register.words):
            assert await self.write(register.offset + 4 * i, word >> WORD * i & 0xFFFFFFFF) == AxiResp.OKAY

    async def registers(self) -> dict[str, Any]:
        """As the golden unit has them."""
        found: dict[str, Any] = {name: await self.get(name) for name in ("A", "B", "step_size", *COUNTERS)}
        found |= {name: (await self.get(f"{name}_m"), await self.get(f"{name}_e")) for name in SCALARS}
        status = self.map["status"]
        word = await self.word(status)
        return found | {f.name: bool(word >> f.lsb & 1) for f in status.fields if f.name in ("still", *FLAGS)}

    # ------------------------------------------------------------------ steps

    def vector(self, stream: str) -> Codes:
        """Random codes: none, faint, middling, or pressed against the rails."""
        fmt, _ = self.types[stream]
        low, high = fmt.rails
        most = self.rng.choice([0, 1, 2, high // 3, high, 2 * high])
        rng = np.random.default_rng(self.rng.getrandbits(32))
        return rng.integers(-most, most + 1, self.config.elements).clip(low, high)

    def frame(self, stream: str, codes: Codes) -> AxiStreamFrame:
        """A frame of whole beats; noise in the fields beyond N, and in every field above its element."""
        fmt, kind = self.types[stream]
        bits = 8 * int(kind[2:])
        rng = np.random.default_rng(self.rng.getrandbits(32))
        words = rng.integers(0, 1 << bits, self.config.beats * self.config.lanes)
        mask = (1 << fmt.width) - 1
        words[: codes.size] = (words[: codes.size] & ~mask) | (codes & mask)
        return AxiStreamFrame((words & ((1 << bits) - 1)).astype(kind.replace("i", "u")).tobytes())

    def send(self, gradient: Codes | None = None) -> Any:
        """Send the vectors of a step; what the golden unit makes of them."""
        gradient = self.vector("gradient") if gradient is None else gradient
        theta = self.golden.theta
        self.gradient.send_nowait(self.frame("gradient", gradient))
        self.weights.send_nowait(self.frame("weights", theta))
        return self.golden.step(gradient)

    async def receive(self, record: Any) -> None:
        """See that the updated weights are the golden unit's, in full beats but for the last."""
        frame = await with_timeout(self.updated.recv(compact=False), 1, "ms")
        _, kind = self.types["weights"]
        size = int(kind[2:])
        assert len(frame.tdata) == size * self.config.beats * self.config.lanes, f"{self.bench.where}{len(frame.tdata)} bytes"
        kept = size * self.config.elements
        assert frame.tkeep == [1] * kept + [0] * (len(frame.tdata) - kept), f"{self.bench.where}TKEEP is {frame.tkeep}"
        found = np.frombuffer(bytes(frame.tdata), kind)
        assert not found[self.config.elements :].any(), f"{self.bench.where}the lanes beyond N must be zero"
        different = np.flatnonzero(found[: self.config.elements] != record.theta)
        assert not different.size, f"{self.bench.where}step {record.step}, weight {different[0]}: {found} must be {record.theta}"

    async def compare(self, record: Any) -> None:
        """See that the registers are the golden unit's."""
        found = await self.registers()
        for name, want in vars(record.registers).items():
            assert found[name] == want, f"{self.bench.where}step {record.step}, {name} must be {want}, not {found[name]}"

    async def finish(self, record: Any) -> None:
        """The rest of a step that was sent: weights, the event, registers."""
        await self.receive(record)
        for _ in range(200):
            if await self.get("irq_status", "done"):
                break
        await self.set("irq_status", done=1)
        await self.compare(record)

    async def step(self, gradient: Codes | None = None) -> None:
        await self.finish(self.send(gradient))


def hosts(dut: Any) -> Iterator[Host]:
    """The units of the bank one by one; each wants its reset."""
    for bench in benches(dut, component):
        yield Host(bench)


@cocotb.test
async def one_step(dut: Any) -> None:
    """The chain: a constant is read, one written, a step made."""
    for host in hosts(dut):
        await host.reset()
        assert await host.get("id") == int.from_bytes(b"KAPA", "big")
        assert await host.get("eta_m") == host.config.constants["eta"].m
        await host.set("control", run=1)
        await host.step()
        assert await host.get("steps") == 1
