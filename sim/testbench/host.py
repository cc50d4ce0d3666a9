"""A processor and its DMA: what drives a unit on AXI, and sees that its steps are the golden unit's."""

from __future__ import annotations

import itertools
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import cocotb
import numpy as np
from amaranth.hdl import unsigned
from cocotb.triggers import Timer, with_timeout
from cocotb.types import LogicArray
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource
from numpy.typing import NDArray

from ...golden.config import ThrottleConfig
from ...golden.registers import FLAGS
from ...golden.segments import Segment, in_beats
from ...golden.throttle import Throttle as GoldenThrottle
from ...golden.throttle import laid_out
from ...hw.bus.axi import AxiThrottle
from ...hw.bus.frames import FrameBuffer
from ...hw.bus.registers import WORD, Access, Register, RegisterMap, field_bits
from ...hw.scalar.decide import control_words
from .bank import Bench, benches
from .stream import Checker, RuleViolation, Stream, defined

# cocotbext-axi works with this cocotb, by names that it calls old; and it tells of every frame that a reset cuts off.
warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"cocotbext\.")
for stem in ("axi", "axi_clocks"):
    logging.getLogger(f"cocotb.{stem}").setLevel(logging.ERROR)

Codes = NDArray[Any]
MODES = ("source", "on_still", "ema_first", "enabled")
PHASES = ("absorb", "decide", "apply")
SCALARS = ("norm_gradient", "norm_motion", "curvature", "ema", "alpha")


def component(frames: str = "drop", bus_clock: bool = False, **table: Any) -> AxiThrottle:
    return AxiThrottle(ThrottleConfig.from_table(table), frames, bus_clock)


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
        g, w, *_ = self.config.grids
        self.types = {"gradient": (g, f"<i{field_bits(g.width) // 8}"), "weights": (w, f"<i{field_bits(w.width) // 8}")}

        def stream(kind: Any, port: str) -> Any:
            return kind(AxiStreamBus.from_prefix(self.dut, f"{name}_{port}"), self.dut.clk, self.dut.rst)

        if self.unit.bus_clock:  # which the bench starts
            self.bus_clk, self.bus_reset = bench.wire("s_axi_aclk"), (bench.wire("s_axi_aresetn"), False)
        else:
            self.bus_clk, self.bus_reset = self.dut.clk, (self.dut.rst, True)
        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(self.dut, f"{name}_s_axi"), self.bus_clk, *self.bus_reset)
        self.gradient = stream(AxiStreamSource, "s_axis_gradient")
        self.weights = stream(AxiStreamSource, "s_axis_weights")
        self.updated = stream(AxiStreamSink, "m_axis_updated")
        self.blocks = stream(AxiStreamSource, "s_axis_blocks") if "blocks" in self.unit.numbers else None
        if "partial" in self.unit.numbers:  # a shard of one: its own energy is the sum
            cocotb.start_soon(self._alone(stream(AxiStreamSink, "m_axis_partial"), stream(AxiStreamSource, "s_axis_total")))
        write, read = self.bus.write_if, self.bus.read_if
        self.sources = {"aw": write.aw_channel, "w": write.w_channel, "ar": read.ar_channel}
        self.sources |= {"gradient": self.gradient, "weights": self.weights} | ({"blocks": self.blocks} if self.blocks else {})
        self.sinks = {"b": write.b_channel, "r": read.r_channel, "updated": self.updated}
        axi = f"{name}_s_axi_"
        self.checkers = {
            "b": Checker(Channel(self.dut, axi, "b", ("resp",)), bench.where),
            "r": Checker(Channel(self.dut, axi, "r", ("data", "resp")), bench.where),
            "updated": Checker(Channel(self.dut, f"{name}_m_axis_updated_", "t", ("data", "keep", "last")), bench.where),
        }
        self._inputs = [(getattr(self.dut, f"{axi}{x}valid"), getattr(self.dut, f"{axi}{x}ready")) for x in ("aw", "w", "ar")]
        self.cycle = 0
        self.probing = 0.05
        self._watches: list[Any] = []
        self.golden: GoldenThrottle

    async def _alone(self, partial: AxiStreamSink, total: AxiStreamSource) -> None:
        while True:
            total.send_nowait((await partial.recv()).tdata)

    async def reset(self, weights: Codes | None = None) -> None:
        """Reset the unit, whatever it is doing, and begin a run."""
        for watch in self._watches:
            watch.cancel()
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
        apart = ("b", "r") if self.unit.bus_clock else ()
        self._watches = [cocotb.start_soon(self._watched(self.dut.clk, [name for name in self.checkers if name not in apart]))]
        if apart:
            self._watches.append(cocotb.start_soon(self._watched(self.bus_clk, list(apart), probing=0)))
        self.config = self.unit.config  # a reset takes the layout back too
        self.begin(self.config, weights)

    async def reset_bus(self, cycles: int) -> None:
        """Reset the side of the bus alone, which has a clock of its own: what was under way on it is gone."""
        self.bus_reset[0].value = int(self.bus_reset[1])
        for _ in range(cycles):
            await self.bus_clk.rising_edge
            for name in ("b", "r"):
                self.checkers[name].forget()
        self.bus_reset[0].value = int(not self.bus_reset[1])

    @property
    def places(self) -> Codes:
        """Where each element stands in a frame."""
        config = self.config
        return in_beats(config.segments, config.lanes) if config.segments else np.arange(config.elements)

    async def entry(self, elements: int, scale: int) -> int:
        """Write an entry of the table of segments; whether it was refused."""
        await self.set("irq_status", layout=1)
        await self.set("layout", elements=elements, scale=scale)
        await self.set("command", layout=1)
        while await self.get("command", "layout"):
            pass
        return await self.get("irq_status", "layout")

    async def restart(self) -> None:
        """A reset by command: the unit is the configuration's, but for what was written, and does not run."""
        await self.set("command", reset=1)
        self.config = self.unit.config
        self.begin(self.config)

    async def layout(self, segments: Sequence[Segment], *, restart: bool = True) -> None:
        """Go on with another network on the same unit, which runs no longer."""
        if restart:
            await self.restart()
        self.config = laid_out(self.unit.config, segments)
        for elements, scale in [*((one.elements, one.scale) for one in segments), *[(0, 0)] * self.config.entries][
            : self.config.entries
        ]:
            assert not await self.entry(elements, scale), f"{self.bench.where}{elements} elements of scale {scale} are refused"
        assert await self.get("beats") == self.config.beats and not await self.get("status", "layout")
        for part in ("m", "e"):
            await self.set(f"still_norm_{part}", value=getattr(self.config.constants["still_norm"], part))
        self.begin(self.config)

    def begin(self, law: ThrottleConfig, weights: Codes | None = None) -> None:
        """A golden unit that has taken no step, of a law."""
        self.golden = GoldenThrottle(law, self.vector("weights") if weights is None else weights, codes=True)

    def stop(self) -> None:
        """Stop the DMA in the midst of whatever it sends."""
        for agent in (self.gradient, self.weights, self.blocks):
            if agent is not None:
                agent.clear()
                agent.assert_reset()

    async def _watched(self, clock: Any, names: list[str], probing: int = 1) -> None:
        """The rules of some outputs, every cycle of their clock."""
        checkers = [self.checkers[name] for name in names]
        while True:
            await clock.falling_edge
            for checker in checkers:
                checker.stream.sample()
                checker.sample(self.cycle)
            if probing and self.rng.random() < self.probing:
                await self.rng.choice(checkers).probe(self.cycle)
            elif probing and not self.unit.bus_clock and self.rng.random() < self.probing:
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
        words[self.places] = (words[self.places] & ~mask) | (codes.astype(np.int64) & mask)
        return AxiStreamFrame((words & ((1 << bits) - 1)).astype(kind.replace("i", "u")).tobytes())

    def bad_frame(self, stream: str) -> AxiStreamFrame:
        """A frame that ends early or late, of noise."""
        beats = self.config.beats
        count = self.rng.choice([n for n in (*range(1, 2 * beats + 3), 3 * beats) if n != beats])
        return AxiStreamFrame(self.rng.randbytes(count * self.beat_bytes(stream)))

    def beat_bytes(self, stream: str) -> int:
        return int(self.types[stream][1][2:]) * self.config.lanes

    async def break_off(self, stream: str, beats: int) -> None:
        """Send so many beats of noise without an end, as a DMA does that is stopped."""
        source = self.sources[stream]
        source.set_pause_generator(itertools.cycle([False, True, True, True]))
        source.send_nowait(AxiStreamFrame(self.rng.randbytes((beats + 2) * self.beat_bytes(stream))))
        while beats:
            await self.dut.clk.falling_edge
            beats -= self.wire(f"s_axis_{stream}_tvalid") & self.wire(f"s_axis_{stream}_tready")
        await self.dut.clk.falling_edge
        source.clear()
        source.assert_reset()
        source.set_pause_generator(None)
        source.pause = False

    def send(self, gradient: Codes | None = None) -> Any:
        """Send the vectors of a step; what the golden unit makes of them."""
        gradient = self.vector("gradient") if gradient is None else gradient
        theta = self.golden.theta
        self.gradient.send_nowait(self.frame("gradient", gradient))
        self.weights.send_nowait(self.frame("weights", theta))
        return self.golden.step(gradient, codes=True)

    async def receive(self, record: Any) -> None:
        """See that the updated weights are the golden unit's, in full beats but for the last."""
        frame = await with_timeout(self.updated.recv(compact=False), 1, "ms")
        _, kind = self.types["weights"]
        size = int(kind[2:])
        assert len(frame.tdata) == size * self.config.beats * self.config.lanes, f"{self.bench.where}{len(frame.tdata)} bytes"
        kept = np.isin(np.arange(self.config.beats * self.config.lanes), self.places)
        assert frame.tkeep == np.repeat(kept, size).astype(int).tolist(), f"{self.bench.where}TKEEP is {frame.tkeep}"
        found = np.frombuffer(bytes(frame.tdata), kind)
        assert not found[~kept].any(), f"{self.bench.where}the lanes beyond N must be zero"
        found = found[self.places]
        different = np.flatnonzero(found != record.theta)
        assert not different.size, f"{self.bench.where}step {record.step}, weight {different[0]}: {found} must be {record.theta}"

    def is_cut(self, frame: AxiStreamFrame, record: Any) -> None:
        """See that a frame has weights of a step as far as it goes, and then an empty last beat, or is whole."""
        _, kind = self.types["weights"]
        size = int(kind[2:])
        beat = size * self.config.lanes
        assert len(frame.tdata) % beat == 0 and len(frame.tdata) <= beat * self.config.beats
        whole = len(frame.tdata) == beat * self.config.beats and any(frame.tkeep[-beat:])
        found = np.frombuffer(bytes(frame.tdata if whole else frame.tdata[:-beat]), kind)
        assert found.size, f"{self.bench.where}a frame must not begin with its end"
        begun = found[self.places[self.places < found.size]]
        assert (begun == record.theta[: begun.size]).all(), f"{self.bench.where}{found} must begin as {record.theta}"
        if not whole:
            assert not any(frame.tkeep[-beat:]) and not any(frame.tdata[-beat:]), f"{self.bench.where}the last beat must be empty"

    async def configure(self, law: ThrottleConfig) -> None:
        """Write the modes, and the constants that differ from the golden unit's, of another law."""
        for name, (m, e) in law.constants.items():
            if (m, e) != self.golden.config.constants[name]:
                await self.set(f"{name}_m", value=m)
                await self.set(f"{name}_e", value=e)
        words = control_words(law)
        await self.set("control", **{name: words[f"control_{name}"] for name in MODES})

    def adopt(self, law: ThrottleConfig) -> None:
        """From its next step on the golden unit follows another law."""
        self.golden._config = self.golden._decide.config = law
        self.golden.set_rate(law.eta)

    async def hold(self, phase: str, gradient: Codes | None = None) -> Any:
        """Send a step and let it come into a phase, where it stays until :meth:`release`; the golden unit's record of it."""
        self.weights.pause = self.updated.pause = True
        record = self.send(gradient)
        transfers = 0
        while transfers < (1 if phase == "absorb" and self.unit.frames == "check" else self.config.beats):
            await self.dut.clk.falling_edge
            transfers += self.wire("s_axis_gradient_tvalid") & self.wire("s_axis_gradient_tready")
        if phase == "absorb" and self.unit.frames == "drop":  # out of its buffer it goes on without a pause
            await self.tick(FrameBuffer.latency + 1)
            return record
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
