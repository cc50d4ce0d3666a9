"""Tests of the unit on AXI, with the masters of cocotbext-axi, step by step against the golden unit."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import unsigned
from cocotb.task import bridge, resume
from cocotb.triggers import Timer, with_timeout
from cocotb.types import LogicArray
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource
from numpy.typing import NDArray

from kappa_rtl.golden.config import BLOCK_BITS, FLAGS, EmaStart, OnStill, Source, ThrottleConfig
from kappa_rtl.golden.throttle import Throttle as GoldenThrottle
from kappa_rtl.hw.axi import AxiThrottle
from kappa_rtl.hw.decide import control_words
from kappa_rtl.hw.registers import WORD, Access, Register, RegisterMap, field_bits, python_driver

from .bench import LEVELS, Bench, benches, paces
from .stream import Checker, RuleViolation, Stream, defined

# cocotbext-axi works with this cocotb, by names that it calls old; and it tells of every frame that a reset cuts off.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"cocotbext\.")
logging.getLogger("cocotb.axi").setLevel(logging.ERROR)

Codes = NDArray[Any]
MODES = ("source", "on_still", "ema_first", "enabled")
PHASES = ("absorb", "decide", "apply")
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
        self.blocks = stream(AxiStreamSource, "s_axis_blocks") if "blocks" in self.unit.numbers else None
        if "partial" in self.unit.numbers:  # a shard of one: its own energy is the sum
            cocotb.start_soon(self._alone(stream(AxiStreamSink, "m_axis_partial"), stream(AxiStreamSource, "s_axis_total")))
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

    async def _alone(self, partial: AxiStreamSink, total: AxiStreamSource) -> None:
        while True:
            total.send_nowait((await partial.recv()).tdata)

    async def reset(self, weights: Codes | None = None) -> None:
        """Reset the unit, whatever it is doing, and begin a run."""
        if self._watch is not None:
            self._watch.cancel()
        self.pace()
        self.dut.rst.value = 1
        for _ in range(3):
            await self.dut.clk.rising_edge
        self.dut.rst.value = 0
        for agent in (self.gradient, self.weights, self.updated, self.blocks):
            if agent is not None:
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
        return answer.resp

    async def strobed(self, address: int, word: int, strobe: int) -> AxiResp:
        """A write with any strobes, none too, which the master would not make."""
        write = self.bus.write_if
        await write.aw_channel.send(write.aw_channel._transaction_obj(awaddr=address, awprot=self.rng.randrange(8)))
        await write.w_channel.send(write.w_channel._transaction_obj(wdata=word, wstrb=strobe))
        return AxiResp(int((await with_timeout(write.b_channel.recv(), 100, "us")).bresp))

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
        found: dict[str, Any] = {name: await self.get(name) for name in ("A", "B", "step_size", *self.config.counters)}
        found |= {name: (await self.get(f"{name}_m"), await self.get(f"{name}_e")) for name in SCALARS}
        status = self.map["status"]
        word = await self.word(status)
        found |= {r.name: await self.word(r) for r in self.map if r.name == "watchdog" or r.name.startswith("watchdog_step")}
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
        words[: codes.size] = (words[: codes.size] & ~mask) | (codes.astype(np.int64) & mask)
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

    async def configure(self, law: ThrottleConfig) -> None:
        """Write the modes, and the constants that differ from the golden unit's, of another law."""
        for name, (m, e) in law.constants.items():
            if (m, e) != self.golden.config.constants[name]:
                await self.set(f"{name}_m", value=m)
                await self.set(f"{name}_e", value=e)
        words = control_words(law)
        await self.set("control", **{name: words[f"control__{name}"] for name in MODES})

    def adopt(self, law: ThrottleConfig) -> None:
        """From its next step on the golden unit follows another law."""
        self.golden._config = self.golden._decide.config = law

    async def hold(self, phase: str, gradient: Codes | None = None) -> Any:
        """Send a step and let it come into a phase, where it stays until :meth:`release`; the golden unit's record of it."""
        self.weights.pause = self.updated.pause = True
        record = self.send(gradient)
        transfers = 0
        while transfers < (1 if phase == "absorb" else self.config.beats):
            await self.dut.clk.falling_edge
            transfers += self.wire("s_axis_gradient_tvalid") & self.wire("s_axis_gradient_tready")
        if phase == "absorb":
            self.gradient.pause = True
        elif phase == "apply":
            self.weights.pause = False
            while not self.wire("m_axis_updated_tvalid"):
                await self.dut.clk.falling_edge
        await self.tick(self.rng.randint(1, 30 if phase == "decide" else 6))
        return record

    def release(self) -> None:
        self.gradient.pause = self.weights.pause = self.updated.pause = False

    def wire(self, port: str) -> int:
        """A port as it stands."""
        return int(self.bench.wire(port).value)

    async def compare(self, record: Any) -> None:
        """See that the registers are the golden unit's."""
        found = await self.registers()
        for name, want in vars(record.registers).items():
            if name not in found:  # the unit has no such register
                assert want == 0, f"{self.bench.where}step {record.step}: {name} is {want}, and nowhere to be read"
                continue
            assert found[name] == want, f"{self.bench.where}step {record.step}, {name} must be {want}, not {found[name]}"

    async def finish(self, record: Any, registers: bool = True) -> None:
        """The rest of a step that was sent: weights, the event, and registers if they are wanted."""
        await self.receive(record)
        for _ in range(200):
            if await self.get("irq_status", "done"):
                break
        await self.set("irq_status", done=1)
        if registers:
            await self.compare(record)

    async def step(self, gradient: Codes | None = None, registers: bool = True) -> None:
        await self.finish(self.send(gradient), registers)


def hosts(dut: Any) -> Iterator[Host]:
    """The units of the bank one by one; each wants its reset."""
    for bench in benches(dut, component):
        yield Host(bench)


# ------------------------------------------------------------------------------------------------ registers


@cocotb.test
async def one_step(dut: Any) -> None:
    """The chain: a constant is read, a bit written, a step made."""
    for host in hosts(dut):
        await host.reset()
        assert await host.get("id") == int.from_bytes(b"KAPA", "big")
        assert await host.get("eta_m") == host.config.constants["eta"].m
        await host.set("control", run=1)
        await host.step()
        assert await host.get("steps") == 1


def as_read(register: Register, bits: int) -> int:
    """What a register reads after its bits were written: fields alone, signed ones extended."""
    total = 0
    for part in register.fields:
        value = bits >> part.lsb & (1 << part.width) - 1
        if part.signed and value >> (part.width - 1):
            value -= 1 << part.width
        total |= value % (1 << register.extent(part)) << part.lsb
    return total


@cocotb.test
async def every_register(dut: Any) -> None:
    """Reset values; random bytes into every word; refusals; and what is written nowhere changes nothing."""
    for host in hosts(dut):
        await host.reset()
        rng, where = host.rng, host.bench.where
        places = {r.offset + 4 * i: (r, i) for r in host.map for i in range(r.words)}
        state = {r.name: r.reset for r in host.map}
        empty = [address for address in range(0, max(places) + 8, 4) if address not in places]
        empty = [*rng.sample(empty, min(len(empty), 20 + 40 * host.bench.effort)), 0xFFC]
        strobes = itertools.cycle(rng.sample(range(16), 16))
        for sweep in range(2 + 2 * host.bench.effort):
            for address in rng.sample([*places, *empty], len(places) + len(empty)):
                strobe, word = rng.choice([15, next(strobes)]), rng.getrandbits(WORD)
                answer = await host.strobed(address + rng.randrange(4), word, strobe) if sweep else AxiResp.OKAY
                if address in empty:
                    assert not sweep or answer == AxiResp.DECERR, f"{where}a write to {address:#x} answers {answer!r}"
                    continue
                register, i = places[address]
                if not register.access.writable:
                    assert not sweep or answer == AxiResp.SLVERR, f"{where}a write to {register.name} answers {answer!r}"
                    continue
                assert answer == AxiResp.OKAY, f"{where}a write to {register.name} answers {answer!r}"
                if sweep and register.access is Access.RW:
                    mask = sum(0xFF << 8 * k for k in range(4) if strobe >> k & 1) << WORD * i
                    bits = state[register.name] & ~mask | word << WORD * i & mask
                    state[register.name] = as_read(register, bits)
            for address in rng.sample([*places, *empty], len(places) + len(empty)):
                word, answer = await host.read(address)
                if address in empty:
                    assert (word, answer) == (0, AxiResp.DECERR), f"{where}{address:#x} answers {answer!r} and {word:#x}"
                    continue
                register, i = places[address]
                want = state[register.name] >> WORD * i & 0xFFFFFFFF
                assert (word, answer) == (want, AxiResp.OKAY), (
                    f"{where}sweep {sweep}, {register.name}, word {i}, must read {want:#x}, not {word:#x} ({answer!r})"
                )


@cocotb.test
async def bytes_at_any_address(dut: Any) -> None:
    """As a processor reads and writes bytes: the address has its low bits, and the byte is in its lane."""
    for host in hosts(dut):
        await host.reset()
        register = host.map["irq_enable"]
        await host.set("control", source=1, on_still=1)
        for lane, want in enumerate((await host.word(host.map["control"])).to_bytes(4, "little")):
            answer = await host.bus.read(host.map["control"].offset + lane, 1)
            assert (answer.data[0], answer.resp) == (want, AxiResp.OKAY)
        assert await host.write(register.offset + 1, 0xFF, size=1) == AxiResp.OKAY
        assert await host.word(register) == 0, "a byte beyond the fields"
        assert await host.write(register.offset, 0x15, size=1) == AxiResp.OKAY
        assert await host.word(register) == 0x15
        # Two words, neither whole: the master makes two transactions of it.
        first = host.map["eta_m"]
        before = await host.word(first)
        answer = await host.bus.write(first.offset + 3, b"\xff" * 3)
        assert answer.resp == (AxiResp.OKAY if first.words > 1 else AxiResp.DECERR)
        high = as_read(first, before | 0xFFFFFF << 24)
        assert await host.word(first) == high


@cocotb.test
async def address_and_data_in_any_order(dut: Any) -> None:
    """Either long before the other; a second write behind an answer that is held up; reads meanwhile."""
    for host in hosts(dut):
        await host.reset()
        register = host.map["irq_enable"]
        for late, word in (("aw", 0x2A), ("w", 0x15), ("aw", 0x3F), ("w", 0)):
            before = await host.word(register)
            host.sources[late].pause = True
            writing = cocotb.start_soon(host.write(register.offset, word))
            await host.tick(10)
            assert host.wire("s_axi_bvalid") == 0 and not writing.done(), "answered before it was whole"
            assert host.wire(f"s_axi_{'w' if late == 'aw' else 'aw'}ready") == 0, "taken, and one is enough"
            assert await host.word(register) == before, "half a write must not act"
            host.sources[late].pause = False
            assert await writing == AxiResp.OKAY
            assert await host.word(register) == word
        host.sinks["b"].pause = True
        writes = [cocotb.start_soon(host.write(register.offset, word)) for word in (0x11, 0x22)]
        await host.tick(20)
        assert host.wire("s_axi_bvalid") == 1
        assert await host.word(register) == 0x11, "the second write must wait for the first one's answer"
        host.sinks["b"].pause = False
        for writing in writes:
            assert await writing == AxiResp.OKAY
        assert await host.word(register) == 0x22


@cocotb.test
async def answers_in_the_promised_cycles(dut: Any) -> None:
    """Of transactions that nothing holds up, and from one to the next: three."""
    for host in hosts(dut):
        await host.reset()
        host.probing = 0
        calls = [host.write(host.map["irq_enable"].offset, word) for word in (1, 2, 3)]
        tasks = [cocotb.start_soon(call) for call in (*calls, *(host.read(host.map["id"].offset) for _ in range(3)))]
        seen: dict[str, list[int]] = {channel: [] for channel in ("aw", "w", "b", "ar", "r")}
        for cycle in range(40):
            await dut.clk.falling_edge
            for channel, cycles in seen.items():
                if host.wire(f"s_axi_{channel}valid") & host.wire(f"s_axi_{channel}ready"):
                    cycles.append(cycle)
        for task in tasks:
            await task
        asked = {"b": [max(pair) for pair in zip(seen["aw"], seen["w"], strict=True)], "r": seen["ar"]}
        for channel, promised in (("b", 3), ("r", 3)):
            took = [answer - begun for begun, answer in zip(asked[channel], seen[channel], strict=True)]
            apart = [later - earlier for earlier, later in itertools.pairwise(asked[channel])]
            assert {*took, *apart} == {promised}, f"{host.bench.where}{channel} takes {took}, {apart} apart"


@cocotb.test
async def transactions_under_every_pace(dut: Any) -> None:
    """Reads and writes side by side, every channel with pauses of its own."""
    for host in hosts(dut):
        await host.reset()
        targets = [r for r in host.map if r.access is Access.RW and r.name != "control"]
        levels = list(LEVELS.values())
        for idle, stall in [*paces(), (-1, -1)]:
            host.pace(max(idle, 0), max(stall, 0))
            if idle < 0:
                for agent in (*host.sources.values(), *host.sinks.values()):
                    agent.set_pause_generator(host._pauses(host.rng.choice(levels)))

            async def reads(host: Host = host) -> None:
                fixed = [r for r in host.map if r.access is Access.CONSTANT]
                for _ in range(6):
                    register = host.rng.choice(fixed)
                    assert await host.word(register) == register.reset

            reading = cocotb.start_soon(reads())
            for _ in range(4 + 4 * host.bench.effort):
                register, word = host.rng.choice(targets), host.rng.getrandbits(WORD)
                assert await host.write(register.offset, word) == AxiResp.OKAY
                got, _ = await host.read(register.offset)
                assert got == as_read(register, word) & 0xFFFFFFFF or register.words > 1
            await reading


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    """With every ready low each channel offers what it owes, and keeps it."""
    for host in hosts(dut):
        await host.reset()
        await host.set("control", run=1)
        for _ in range(2):
            host.pace(stall=1)
            writing = cocotb.start_soon(host.write(host.map["irq_enable"].offset, 0))
            reading = cocotb.start_soon(host.read(host.map["id"].offset))
            await host.tick(8)
            assert host.wire("s_axi_bvalid") == host.wire("s_axi_rvalid") == 1
            record = host.send()
            await host.tick(host.unit.step_cycles)
            assert host.wire("m_axis_updated_tvalid") == 1
            host.pace()
            assert await writing == AxiResp.OKAY
            assert (await reading)[0] == host.map["id"].reset
            await host.finish(record)


# ------------------------------------------------------------------------------------------------ steps


def laws(config: ThrottleConfig) -> Iterator[ThrottleConfig]:
    """Configurations of the same hardware."""
    for on_still, source in itertools.product(OnStill, (source for source in Source if source.is_curvature)):
        yield config.replace(on_still=on_still, source=source)
    other = {"num": 1, "bias": 1, "gain": "5/4", "alpha_min": "1/64", "rho": "1/8", "eps": "1/512"}
    yield config.replace(eta=config.constants["eta"].fraction / 2, ema_start=EmaStart.FIRST, source=Source.EMA, **other)
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
        await host.set("irq_enable", done=1)
        records = [host.send() for _ in range(3)]
        cocotb.start_soon(host.set("control", run=1))
        begun: list[int] = []
        ended: list[int] = []
        cycle = beats = before = 0
        while len(ended) < 3:
            await dut.clk.falling_edge
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
        most = max(end - start for start, end in zip(begun, ended, strict=True))
        assert most <= host.unit.step_cycles, f"{host.bench.where}{most} cycles a step, {host.unit.step_cycles} promised"
        overlaps = [start for start, end in zip(begun[1:], ended, strict=False) if start < end]
        assert not overlaps, f"{host.bench.where}steps must not begin before the one before ended, as in cycles {overlaps}"
        apart = max(later - earlier for earlier, later in itertools.pairwise(begun))
        assert apart <= host.unit.step_cycles + 1, f"{host.bench.where}steps begin {apart} cycles apart"


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
            assert host.wire("s_axis_gradient_tvalid") == 1, "stopped, the unit takes no gradient"
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

        # One frame of two steps: TLAST is missing in the first.
        await host.write(status.offset, 0xFF)
        assert await events() == 0
        vectors: dict[str, list[bytes]] = {"gradient": [], "weights": []}
        records = []
        for _ in range(2):
            gradient, theta = host.vector("gradient"), host.golden.theta
            vectors["gradient"].append(bytes(host.frame("gradient", gradient)))
            vectors["weights"].append(bytes(host.frame("weights", theta)))
            records.append(host.golden.step(gradient))
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
            await host.receive(host.golden.step(gradient))
            assert await events() & want == 1 << 4, "TLAST came early"


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
                host.blocks.send_nowait(b"".join((energy | 0xABCD << BLOCK_BITS).to_bytes(8, "little") for energy in energies))
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
async def the_generated_driver(dut: Any) -> None:
    """What a program does: the module that is exported beside the Verilog, on this bus."""
    for host in hosts(dut):
        await host.reset()
        made: dict[str, Any] = {"__name__": "driver"}
        exec(python_driver(host.map, "throttle_axi"), made)
        law = host.config.replace(source=Source.EMA, ema_start=EmaStart.FIRST, on_still=OnStill.HOLD, gain="5/4")
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
            unit = made["Throttle"](read, write)
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
