"""The registers of a map behind an AXI4-Lite slave."""

from __future__ import annotations

import enum
from functools import reduce
from operator import or_
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ..cells.gate import gates
from .registers import ADDRESS_BITS, WORD, Access, Field, Register, RegisterMap

__all__ = ["RegisterFile", "Response", "axi_lite", "structure"]


COPIES = 8
"""Of the two bits of an address that choose a word in each group: a single one of each would be far from most of them."""


class Response(enum.Enum):
    """What a transaction answers."""

    OKAY = 0
    SLVERR = 2  #: a write of some bytes to a register that nobody can write
    DECERR = 3  #: neither this word nor the other one of its aligned pair has a register


def axi_lite() -> dict[str, Any]:
    """The ports of an AXI4-Lite slave."""
    return {
        "s_axi_awaddr": In(ADDRESS_BITS),
        "s_axi_awprot": In(3),
        "s_axi_awvalid": In(1),
        "s_axi_awready": Out(1),
        "s_axi_wdata": In(WORD),
        "s_axi_wstrb": In(WORD // 8),
        "s_axi_wvalid": In(1),
        "s_axi_wready": Out(1),
        "s_axi_bresp": Out(2),
        "s_axi_bvalid": Out(1),
        "s_axi_bready": In(1),
        "s_axi_araddr": In(ADDRESS_BITS),
        "s_axi_arprot": In(3),
        "s_axi_arvalid": In(1),
        "s_axi_arready": Out(1),
        "s_axi_rdata": Out(WORD),
        "s_axi_rresp": Out(2),
        "s_axi_rvalid": Out(1),
        "s_axi_rready": In(1),
    }


def structure(registers: RegisterMap, *access: Access) -> data.StructLayout:
    """The registers of some kinds, as a structure of structures of fields."""
    return data.StructLayout(
        {
            r.name: data.StructLayout({f.name: signed(f.width) if f.signed else unsigned(f.width) for f in r.fields})
            for r in registers
            if r.access in access
        }
    )


class RegisterFile(wiring.Component):
    """The registers of a map behind an AXI4-Lite slave.

    Addresses and data of a write come in any order; each channel takes one ahead of the transaction under way. The low two
    bits of an address and ``prot`` are ignored. No output depends on an input within a cycle. See
    :mod:`kappa_rtl.hw.bus.text`, ``RULES``, for the answers. A bridge from a bus of 64 bits reads and writes both words of an
    aligned pair, with no strobe what it does not mean, and answers with the worse of the two: so where either word has a
    register the other one without any reads zero and takes writes, and a write without strobes is OKAY.

    Ports: the bus; ``stored``, all that can be written, as it stands; ``values``, what ``ro`` registers read; ``raised``, which
    events happen; ``carried_out``, which commands were. Each is a structure of registers, of fields. ``restart`` takes events,
    commands and the fields marked so back to their reset values, whatever else happens in that cycle.

    Latency: a write acts and is answered :attr:`latency` cycles after the later of its address and data was taken; a read is
    answered :attr:`read_latency` cycles after its address was, with what stood 3 cycles before. Throughput: a transaction in as
    many cycles each way. Reset: every register as the map says; transactions are forgotten.
    """

    latency = 3
    """The address is taken, it passes the decode, and the answer is a register."""

    read_latency = 5
    """The word is found in four cycles: its group of four words, it among these, and the groups joined by fours, and all."""

    def __init__(self, registers: RegisterMap) -> None:
        self.registers = registers

        super().__init__(
            axi_lite()
            | {
                "stored": Out(structure(registers, Access.RW, Access.W1C, Access.W1S)),
                "values": In(structure(registers, Access.RO)),
                "raised": In(structure(registers, Access.W1C)),
                "carried_out": In(structure(registers, Access.W1S)),
                "restart": In(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        written, write_data, mask, respond = self._writes(m)

        read_address = Signal(ADDRESS_BITS - 2, reset_less=True)
        selects: dict[tuple[str, int], Signal] = {}
        readable = {r.name: self._register(m, r, selects) for r in self.registers}
        for r in self.registers:
            for i in range(r.words if r.access.writable else 0):  # decoded a cycle before the write acts
                chosen = Signal(name=f"chosen_{r.name}_{i}", reset_less=True)
                m.d.sync += chosen.eq(written == r.offset // 4 + i)
                m.d.comb += selects[r.name, i].eq(chosen & respond)
        places = {r.offset // 4 + i: r.access.writable for r in self.registers for i in range(r.words)}
        strobes_any = Signal(reset_less=True)
        m.d.sync += strobes_any.eq(mask.any())
        write_found = self._among(m, "found", written, {*places, *self.registers.neighbours})
        fixed = self._among(m, "fixed", written, {place for place, writable in places.items() if not writable})
        write_refused = fixed & strobes_any
        with m.If(respond):
            m.d.sync += self.s_axi_bresp.eq(
                Mux(write_found, Mux(write_refused, Response.SLVERR.value, Response.OKAY.value), Response.DECERR.value)
            )
        self._store(m, selects, write_data, mask)
        self._reads(m, read_address, self._find(m, read_address, readable))
        return m

    def _writes(self, m: Module) -> tuple[Signal, Signal, Value, Signal]:
        """The three channels of writes: address and data of the transaction, its bits' mask, and when it acts."""
        address = Signal(ADDRESS_BITS - 2, name="write_address", reset_less=True)
        payload, strobes = Signal(WORD, name="write_data", reset_less=True), Signal(WORD // 8, reset_less=True)
        has_address, has_data, acts = Signal(), Signal(), Signal(name="write_acts")
        m.d.comb += [
            self.s_axi_awready.eq(~has_address),
            self.s_axi_wready.eq(~has_data),
        ]
        m.d.sync += acts.eq(has_address & has_data & ~self.s_axi_bvalid & ~acts)
        with m.If(self.s_axi_bready):
            m.d.sync += self.s_axi_bvalid.eq(0)
        with m.If(acts):
            m.d.sync += [has_address.eq(0), has_data.eq(0), self.s_axi_bvalid.eq(1)]
        with m.If(self.s_axi_awvalid & self.s_axi_awready):
            m.d.sync += [has_address.eq(1), address.eq(self.s_axi_awaddr[2:])]
        with m.If(self.s_axi_wvalid & self.s_axi_wready):
            m.d.sync += [has_data.eq(1), payload.eq(self.s_axi_wdata), strobes.eq(self.s_axi_wstrb)]
        return address, payload, Cat(strobe.replicate(8) for strobe in strobes), acts

    def _among(self, m: Module, name: str, address: Signal, places: set[int]) -> Value:
        """Whether the address of a cycle before is one of these, which are looked up in blocks of sixteen words."""
        found = []
        for block in sorted({place >> 4 for place in places}):
            table = Const(sum(1 << (place & 15) for place in places if place >> 4 == block), 16)
            found.append(Signal(name=f"{name}_{block}", reset_less=True))
            m.d.sync += found[-1].eq((address[4:] == block) & table.bit_select(address[:4], 1))
        return Cat(found).any()

    def _find(self, m: Module, address: Signal, readable: dict[str, Value]) -> Value:
        """The word at an address, and above it whether there is one; by three registers.

        Each group of four words but the one that is read is zero, so that they meet in an OR, and in no wide multiplexer.
        """
        places = {
            r.offset // 4 + i: Cat(readable[r.name][WORD * i : WORD * (i + 1)], Const(1, 1))
            for r in self.registers
            for i in range(r.words)
        } | {beside: Const(1 << WORD, WORD + 1) for beside in self.registers.neighbours}
        groups: dict[int, dict[int, Value]] = {}
        for place, value in places.items():
            groups.setdefault(place >> 2, {})[place & 3] = value
        words: list[Value] = []
        low = Signal(2 * COPIES, reset_less=True)
        m.d.sync += low.eq(gates(m, "read_low", len(low), lambda bit: bit, address[:2].replicate(COPIES)))
        for k, (group, inside) in enumerate(sorted(groups.items())):
            elsewhere = Signal(name=f"read_beside_{group}", reset_less=True)  # inverted, as it is what resets the word
            word = Signal(WORD + 1, name=f"read_group_{group}", reset_less=True)
            m.d.sync += [
                elsewhere.eq(address[2:] != group),
                word.eq(_choose(low.word_select(k * COPIES // len(groups), 2), inside)),
            ]
            with m.If(elsewhere):
                m.d.sync += word.eq(0)
            words.append(word)
        joined: list[Value] = []
        for i in range(0, len(words), 4):
            joined.append(Signal(WORD + 1, name=f"read_joined_{i // 4}", reset_less=True))
            m.d.sync += joined[-1].eq(reduce(or_, words[i : i + 4]))
        return reduce(or_, joined)

    def _reads(self, m: Module, address: Signal, found: Value) -> None:
        """The two channels of reads."""
        has_address, settled, acts = Signal(name="has_read_address"), Signal(3, name="settled"), Signal(name="read_acts")
        m.d.comb += [self.s_axi_arready.eq(~has_address), acts.eq(has_address & settled[-1] & ~self.s_axi_rvalid)]
        m.d.sync += settled.eq(Mux(acts, 0, Cat(has_address, settled)))
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(acts):
            m.d.sync += [
                has_address.eq(0),
                self.s_axi_rvalid.eq(1),
                self.s_axi_rdata.eq(found[:WORD]),
                self.s_axi_rresp.eq(Mux(found[WORD], Response.OKAY.value, Response.DECERR.value)),
            ]
        with m.If(self.s_axi_arvalid & self.s_axi_arready):
            m.d.sync += [has_address.eq(1), address.eq(self.s_axi_araddr[2:])]

    def _register(self, m: Module, register: Register, selects: dict[tuple[str, int], Signal]) -> Value:
        """What a register reads, in whole words; and the selects of its words, if it can be written."""
        parts: list[Value] = []
        end = 0
        for part in register.fields:
            if register.access is Access.CONSTANT:
                value: Value = Const(part.reset, signed(part.width) if part.signed else unsigned(part.width))
            else:
                value = getattr(self.values if register.access is Access.RO else self.stored, register.name)[part.name]
            extent = Signal(register.extent(part), name=f"{register.name}_{part.name}_read")
            m.d.comb += extent.eq(value)
            parts += [Const(0, part.lsb - end), extent]
            end = part.lsb + len(extent)
        if register.access.writable:
            for i in range(register.words):
                selects[register.name, i] = Signal(name=f"write_{register.name}_{i}")
        return Cat(*parts, Const(0, WORD * register.words - end))

    def _store(self, m: Module, selects: dict[tuple[str, int], Signal], payload: Value, mask: Value) -> None:
        """What can be written: each bit, as its word is selected and its byte strobed."""
        for register in self.registers:
            if not register.access.writable:
                continue
            for part in register.fields:
                stored = Signal(part.width, init=part.reset % (1 << part.width), name=f"{register.name}_{part.name}")
                m.d.comb += getattr(self.stored, register.name)[part.name].eq(stored)
                if register.access is Access.W1S:
                    with m.If(getattr(self.carried_out, register.name)[part.name]):
                        m.d.sync += stored.eq(0)
                for i in range(register.words):
                    self._write(m, register, part, stored, i, selects[register.name, i], payload, mask)
                if register.access is Access.W1C:
                    with m.If(getattr(self.raised, register.name)[part.name]):
                        m.d.sync += stored.eq(1)
                if part.restarts or register.access is not Access.RW:
                    with m.If(self.restart):
                        m.d.sync += stored.eq(stored.init)

    def _write(
        self, m: Module, register: Register, part: Field, stored: Signal, i: int, select: Value, payload: Value, mask: Value
    ) -> None:
        """What a write to a word of a register does to a field."""
        low, high = max(part.lsb, WORD * i), min(part.lsb + part.width, WORD * (i + 1))
        if low >= high:
            return
        bits = stored[low - part.lsb : high - part.lsb]
        new, strobed = payload[low - WORD * i : high - WORD * i], mask[low - WORD * i : high - WORD * i]
        with m.If(select):
            match register.access:
                case Access.RW:  # the strobe of a byte is an enable of its bits
                    for byte in range(low // 8, (high + 7) // 8):
                        bits_of = slice(max(0, 8 * byte - low), 8 * byte + 8 - low)
                        with m.If(strobed[bits_of.start]):
                            m.d.sync += bits[bits_of].eq(new[bits_of])
                case Access.W1C:
                    m.d.sync += bits.eq(bits & ~(new & strobed))
                case _:  # only ones act: a zero leaves a command to be cleared as it is carried out
                    for bit, one in zip(bits, new & strobed, strict=True):
                        with m.If(one):
                            m.d.sync += bit.eq(1)


def _choose(address: Value, places: dict[int, Value]) -> Value:
    """The value at an address, zero where there is none; by a tree of multiplexers, which is shallower than comparisons."""
    bits = len(address)
    if not places:
        return Const(0, 1)
    if not bits:
        return places[0]
    half = 1 << (bits - 1)
    low = {place: value for place, value in places.items() if place < half}
    high = {place - half: value for place, value in places.items() if place >= half}
    return Mux(address[-1], _choose(address[:-1], high), _choose(address[:-1], low))
