"""Tests of the registers on AXI4-Lite: every register, byte strobes, refusals, and the rules and cycles of the bus."""

from __future__ import annotations

import itertools
from typing import Any

import cocotb
from cocotbext.axi import AxiResp

from ...hw.bus.file import RegisterFile
from ...hw.bus.registers import WORD, Access, Register
from ..testbench.bank import LEVELS, paces
from ..testbench.host import Host, hosts


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


def spared(register: Register, word: int) -> int:
    """A word without what would write the table of segments, which tests of its own do."""
    layout = sum(1 << part.lsb for part in register.fields if (register.name, part.name) == ("command", "layout"))
    return word & ~layout


def resets(register: Register, word: int, strobe: int) -> bool:
    """Whether a write resets the unit, which then runs no longer."""
    return register.name == "command" and bool(strobe & 1 and word >> 1 & 1)


def restarted(register: Register, bits: int) -> int:
    """What a register that can be written reads after a reset by command."""
    for part in register.fields:
        mask = (1 << register.extent(part)) - 1 << part.lsb
        bits = bits & ~mask | register.reset & mask if part.restarts else bits
    return bits


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
        beside = {4 * word for word in host.map.neighbours}
        for sweep in range(2 + 2 * host.bench.effort):
            for address in rng.sample([*places, *empty], len(places) + len(empty)):
                strobe, word = rng.choice([15, next(strobes)]), rng.getrandbits(WORD)
                word = spared(places[address][0], word) if address in places else word
                answer = await host.strobed(address + rng.randrange(4), word, strobe) if sweep else AxiResp.OKAY
                if address in empty:
                    wanted = AxiResp.OKAY if address in beside else AxiResp.DECERR
                    assert not sweep or answer == wanted, f"{where}a write to {address:#x} answers {answer!r}"
                    continue
                register, i = places[address]
                if not register.access.writable:
                    wanted = AxiResp.SLVERR if strobe else AxiResp.OKAY
                    assert not sweep or answer == wanted, f"{where}a write to {register.name} answers {answer!r}"
                    continue
                assert answer == AxiResp.OKAY, f"{where}a write to {register.name} answers {answer!r}"
                if sweep and register.access is Access.RW:
                    mask = sum(0xFF << 8 * k for k in range(4) if strobe >> k & 1) << WORD * i
                    bits = state[register.name] & ~mask | word << WORD * i & mask
                    state[register.name] = as_read(register, bits)
                elif sweep and resets(register, word, strobe):
                    state |= {r.name: restarted(r, state[r.name]) for r in host.map}
            for address in rng.sample([*places, *empty], len(places) + len(empty)):
                word, answer = await host.read(address)
                if address in empty:
                    wanted = AxiResp.OKAY if address in beside else AxiResp.DECERR
                    assert (word, answer) == (0, wanted), f"{where}{address:#x} answers {answer!r} and {word:#x}"
                    continue
                register, i = places[address]
                want = state[register.name] >> WORD * i & 0xFFFFFFFF
                assert (word, answer) == (want, AxiResp.OKAY), (
                    f"{where}sweep {sweep}, {register.name}, word {i}, must read {want:#x}, not {word:#x} ({answer!r})"
                )


class Bridge:
    """A bus of 64 bits before one of 32: each access is two, low word first, and is answered by the worse of their answers."""

    def __init__(self, host: Host) -> None:
        self.host = host

    async def read(self, address: int) -> tuple[int, AxiResp]:
        (low, one), (high, other) = [await self.host.read(address + 4 * i) for i in range(2)]
        return high << WORD | low, max(one, other)

    async def write(self, address: int, double: int, strobes: int) -> AxiResp:
        answers = [
            await self.host.strobed(address + 4 * i, double >> WORD * i & 0xFFFFFFFF, strobes >> 4 * i & 15) for i in range(2)
        ]
        return max(answers)


@cocotb.test
async def a_host_of_64_bits(dut: Any) -> None:
    """Every pair of words, read and written through a bridge, with all strobes: no word is refused for what stands beside it."""
    for host in hosts(dut):
        await host.reset()
        bridge, rng, where = Bridge(host), host.rng, host.bench.where
        words = {r.offset + 4 * i: (r, i) for r in host.map for i in range(r.words)}
        state = {r.name: r.reset for r in host.map}
        end = (max(words) | 7) + 17
        every = [*range(16), *(16 * high for high in range(1, 16)), *(17 * both for both in range(1, 16))]
        for address in (*range(0, end, 8), 0xFF8):
            pair = [words.get(address + 4 * i) for i in range(2)]
            exists = any(pair)
            fixed = [bool(place and not place[0].access.writable) for place in pair]
            for strobes in every if host.bench.effort > 1 else rng.sample(every, 6):
                if not exists:
                    wanted = AxiResp.DECERR
                else:
                    refused = any(fixed[i] and strobes >> 4 * i & 15 for i in range(2))
                    wanted = AxiResp.SLVERR if refused else AxiResp.OKAY
                words_of = [spared(place[0], rng.getrandbits(WORD)) if place else rng.getrandbits(WORD) for place in pair]
                double = words_of[1] << WORD | words_of[0]
                answer = await bridge.write(address, double, strobes)
                assert answer == wanted, (
                    f"{where}a write to {address:#x}, strobes {strobes:#04x}, answers {answer!r}, not {wanted!r}"
                )
                for i, place in enumerate(pair):
                    if place and place[0].access is Access.RW:
                        register, word = place
                        mask = sum(0xFF << 8 * k for k in range(4) if strobes >> (4 * i + k) & 1) << WORD * word
                        new = (double >> WORD * i & 0xFFFFFFFF) << WORD * word
                        state[register.name] = as_read(register, state[register.name] & ~mask | new & mask)
                    elif place and resets(place[0], double >> WORD * i, strobes >> 4 * i):
                        state |= {r.name: restarted(r, state[r.name]) for r in host.map}
                want = sum(
                    (state[place[0].name] >> WORD * place[1] & 0xFFFFFFFF) << WORD * i for i, place in enumerate(pair) if place
                )
                found, answer = await bridge.read(address)
                assert (found, answer) == (want, AxiResp.OKAY if exists else AxiResp.DECERR), (
                    f"{where}{address:#x} must read {want:#x}, not {found:#x} ({answer!r})"
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
        assert await host.write(register.offset + 2, 0xFF, size=1) == AxiResp.OKAY
        assert await host.word(register) == 0, "a byte beyond the fields"
        assert await host.write(register.offset, 0x15, size=1) == AxiResp.OKAY
        assert await host.word(register) == 0x15
        # Two words, neither whole: the master makes two transactions of it.
        first = host.map["eta_m"]
        before = await host.word(first)
        answer = await host.bus.write(first.offset + 3, b"\xff" * 3)
        assert answer.resp == AxiResp.OKAY, "the word beside it takes writes without effect"
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
    """Of transactions that nothing holds up, and from one to the next."""
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
        for channel in asked:
            took = [answer - begun for begun, answer in zip(asked[channel], seen[channel], strict=True)]
            apart = [later - earlier for earlier, later in itertools.pairwise(asked[channel])]
            latency = RegisterFile.latency if channel == "b" else RegisterFile.read_latency
            assert {*took, *apart} == {latency}, f"{host.bench.where}{channel} takes {took}, {apart} apart"


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
