"""The unit on AXI: vectors as AXI4-Streams, everything else as registers on AXI4-Lite."""

from __future__ import annotations

import enum
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.config import BLOCK_BITS, CONSTANTS, WATCHES, ThrottleConfig

from .onepass import OnePass
from .registers import ADDRESS_BITS, INTERRUPTS, WORD, Access, Field, Register, RegisterMap, field_bits, throttle_map
from .throttle import Throttle

__all__ = ["AxiThrottle", "RegisterFile", "Response"]


class Response(enum.Enum):
    """What a transaction answers."""

    OKAY = 0
    SLVERR = 2  #: a write to a register that nobody can write
    DECERR = 3  #: no register has this address


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


class RegisterFile(wiring.Component):
    """The registers of a map behind an AXI4-Lite slave.

    Addresses and data of a write come in any order; each channel takes one ahead of the transaction under way. The low two
    bits of an address and ``prot`` are ignored. No output depends on an input within a cycle. See
    :data:`~kappa_rtl.hw.registers.RULES` for the answers.

    Ports: the bus; ``stored``, all that can be written, as it stands; ``values``, what ``ro`` registers read; ``raised``, which
    events happen; ``carried_out``, which commands were. Each is a structure of registers, of fields.

    Latency: a write acts and is answered 3 cycles after the later of its address and data was taken; a read is answered, with
    what stood 2 cycles before, 3 cycles after its address was. Throughput: a transaction in 3 cycles each way.
    Reset: every register as the map says; transactions are forgotten.
    """

    def __init__(self, registers: RegisterMap) -> None:
        self.registers = registers

        def layout(*access: Access) -> data.StructLayout:
            return data.StructLayout(
                {
                    r.name: data.StructLayout({f.name: signed(f.width) if f.signed else unsigned(f.width) for f in r.fields})
                    for r in registers
                    if r.access in access
                }
            )

        super().__init__(
            axi_lite()
            | {
                "stored": Out(layout(Access.RW, Access.W1C, Access.W1S)),
                "values": In(layout(Access.RO)),
                "raised": In(layout(Access.W1C)),
                "carried_out": In(layout(Access.W1S)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        written, write_data, mask, respond = self._writes(m)

        # Decode: a select for each word that can be written, and what each word reads.
        read_address = Signal(ADDRESS_BITS - 2, reset_less=True)
        word, found = Signal(WORD), Signal()
        write_found, write_allowed = Signal(), Signal()
        selects: dict[tuple[str, int], Signal] = {}
        readable = {r.name: self._register(m, r, selects) for r in self.registers}
        m.d.sync += [write_found.eq(0), write_allowed.eq(0)]
        for r in self.registers:
            for i in range(r.words):
                hit = written == r.offset // 4 + i
                with m.If(hit):
                    m.d.sync += [write_found.eq(1), write_allowed.eq(int(r.access.writable))]
                if r.access.writable:  # a cycle ahead
                    chosen = Signal(name=f"chosen_{r.name}_{i}", reset_less=True)
                    m.d.sync += chosen.eq(hit)
                    m.d.comb += selects[r.name, i].eq(chosen & respond)
        places = {
            r.offset // 4 + i: Cat(readable[r.name][WORD * i : WORD * (i + 1)], Const(1, 1))
            for r in self.registers
            for i in range(r.words)
        }
        # In two cycles: a word of each sixteen, then one of those.
        groups: dict[int, Value] = {}
        for group in sorted({place >> 4 for place in places}):
            inside = {place & 15: value for place, value in places.items() if place >> 4 == group}
            groups[group] = Signal(WORD + 1, name=f"read_group{group}", reset_less=True)
            m.d.sync += groups[group].eq(_choose(read_address[:4], inside))
        m.d.comb += Cat(word, found).eq(_choose(read_address[4:], groups))
        with m.If(respond):
            m.d.sync += self.s_axi_bresp.eq(
                Mux(write_found, Mux(write_allowed, Response.OKAY.value, Response.SLVERR.value), Response.DECERR.value)
            )
        self._store(m, selects, write_data, mask)
        self._reads(m, read_address, word, found)
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

    def _reads(self, m: Module, address: Signal, word: Value, found: Value) -> None:
        """The two channels of reads."""
        has_address, settled, acts = Signal(name="has_read_address"), Signal(), Signal(name="read_acts")
        m.d.comb += [self.s_axi_arready.eq(~has_address), acts.eq(has_address & settled & ~self.s_axi_rvalid)]
        m.d.sync += settled.eq(has_address & ~acts)
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(acts):
            m.d.sync += [
                has_address.eq(0),
                self.s_axi_rvalid.eq(1),
                self.s_axi_rdata.eq(word),
                self.s_axi_rresp.eq(Mux(found, Response.OKAY.value, Response.DECERR.value)),
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
                case Access.RW:
                    m.d.sync += bits.eq((bits & ~strobed) | (new & strobed))
                case Access.W1C:
                    m.d.sync += bits.eq(bits & ~(new & strobed))
                case _:  # a zero changes nothing, not even a command that is carried out now
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


class AxiThrottle(wiring.Component):
    """:class:`~kappa_rtl.hw.throttle.Throttle` with AXI4-Streams for the vectors and AXI4-Lite registers for all else.

    A beat holds L elements side by side, lane 0 lowest, each sign-extended in a field of 8, 16 or 32 bits. What a field has
    above its element is ignored on the way in. ``s_axis_gradient`` and ``s_axis_weights`` take ceil(N/L) beats a step, then
    ``m_axis_updated`` gives as many; TLAST is on the last beat, whose TKEEP is low in the fields beyond N. The unit counts the
    beats itself: TLAST on the way in is only checked, and answered by an event if it is elsewhere.

    A step begins with the first beat of its gradient, which is accepted while ``run`` is set, and ends when its registers
    are published (``steps``, the event ``done``). Its modes and constants are those that stand as it begins, whatever is
    written meanwhile; ``eps`` and ``on_still`` are those that stood as the step before it ended. A clear during a step
    acts when that has ended, after its registers were published.

    ``irq`` is high while an event is up and enabled; ``learning_dead`` is that flag as the last step left it.

    A unit with a watchdog has the output ``watchdog``, high while a bit of it is up as the last step left them, and if it watches
    the growth of norms ``s_axis_blocks``. A shard has ``m_axis_partial`` and ``s_axis_total``. These carry an energy a beat, in
    the low bits of a field of 8, 16, 32, ... bits; what the field has above it is ignored on the way in, and zero on the way out.

    The registers are those of :func:`~kappa_rtl.hw.registers.throttle_map`; for their latency see :class:`RegisterFile`.
    Throughput: steps begin at most :attr:`step_cycles` + 1 apart. Reset, at any time: a unit that has taken no step, not
    running, with the constants of its configuration.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.core = OnePass(config) if config.delay else Throttle(config)
        self.registers = throttle_map(config)
        gradient, weight = (config.lanes * field_bits(fmt.width) for fmt in (config.grids.gradient, config.grids.weight))
        super().__init__(
            axi_lite()
            | {
                "s_axis_gradient_tdata": In(gradient),
                "s_axis_gradient_tlast": In(1),
                "s_axis_gradient_tvalid": In(1),
                "s_axis_gradient_tready": Out(1),
                "s_axis_weights_tdata": In(weight),
                "s_axis_weights_tlast": In(1),
                "s_axis_weights_tvalid": In(1),
                "s_axis_weights_tready": Out(1),
                "m_axis_updated_tdata": Out(weight),
                "m_axis_updated_tkeep": Out(weight // 8),
                "m_axis_updated_tlast": Out(1),
                "m_axis_updated_tvalid": Out(1),
                "m_axis_updated_tready": In(1),
                "irq": Out(1),
                "learning_dead": Out(1),
            }
            | ({"watchdog": Out(1)} if config.watchdog else {})
            | {
                f"{'m' if out else 's'}_axis_{name}_t{part}": Out(width) if out is (part != "ready") else In(width)
                for name, (out, bits) in self.numbers.items()
                for part, width in (("data", max(8, 1 << (bits - 1).bit_length())), ("valid", 1), ("ready", 1))
            }
        )

    @property
    def numbers(self) -> dict[str, tuple[bool, int]]:
        """Streams of plain numbers that the unit has beside its vectors: by name whether it goes out, and bits."""
        energy = self.config.widths.energy
        shard = {"partial": (True, energy), "total": (False, energy)} if self.config.population is not None else {}
        return shard | ({"blocks": (False, BLOCK_BITS)} if "norm_growth" in self.config.watchdog else {})

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond the beats of its passes."""
        return self.core.overhead + 1

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the event ``done``, streams never stalling."""
        return self.core.step_cycles + 1

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.file = file = RegisterFile(self.registers)
        for name in axi_lite():
            own, theirs = getattr(self, name), getattr(file, name)
            m.d.comb += own.eq(theirs) if self.signature.members[name].flow is Out else theirs.eq(own)

        busy = Signal()
        ends = Signal()
        begins = self._streams(m, core, file, busy)
        m.d.comb += [core.registers.ready.eq(1), ends.eq(core.registers.valid)]
        with m.If(ends):
            m.d.sync += busy.eq(0)
        with m.Elif(begins):
            m.d.sync += busy.eq(1)

        # What the host wrote reaches the core between two steps; as one ends what the next one may be prepared with.
        def follow(port: Value, register: str, name: str, when: Value) -> None:
            part = next(f for f in self.registers[register].fields if f.name == name)
            held = Signal(part.width, name=f"held_{register}_{name}", init=part.reset % (1 << part.width))
            m.d.comb += port.eq(held)
            with m.If(when):
                m.d.sync += held.eq(getattr(file.stored, register)[name])

        for name in CONSTANTS:
            for letter in ("m", "e"):
                port = getattr(getattr(core.constants, name), letter)
                follow(port, f"{name}_{letter}", "value", ends if name == "eps" else ~busy)
        for name in ("source", "on_still", "ema_first", "enabled"):
            follow(Value.cast(getattr(core.control, name)), "control", name, ends if name == "on_still" else ~busy)
        for name in self.config.watchdog:
            follow(core.watchdog_mask[WATCHES.index(name)], "watchdog_mask", name, ~busy)
        for name, (out, _) in self.numbers.items():
            port, prefix = getattr(core, name), f"{'m' if out else 's'}_axis_{name}_t"
            for wire, part in ((port.payload, "data"), (port.valid, "valid"), (port.ready, "ready")):
                own = getattr(self, prefix + part)
                m.d.comb += own.eq(wire) if out is (part != "ready") else wire.eq(own)

        clear = file.stored.command.clear
        acts = Signal(name="clear_acts")
        m.d.comb += [acts.eq(clear & ~busy), core.clear.eq(acts), file.carried_out.command.clear.eq(acts)]
        self._publish(m, core, file, busy, ends)
        return m

    def _streams(self, m: Module, core: Throttle, file: RegisterFile, busy: Signal) -> Value:
        """The three streams; gives whether a step begins."""
        config = self.config
        absorbing = Signal()
        accepts = absorbing | (file.stored.control.run & ~busy)
        bits = {"gradient": config.grids.gradient.width, "weights": config.grids.weight.width}
        begins: Value = Const(0)
        for name, width in bits.items():
            port = getattr(core, name)
            beats = {part: getattr(self, f"s_axis_{name}_t{part}") for part in ("data", "last", "valid", "ready")}
            allowed = accepts if name == "gradient" else Const(1)
            step = field_bits(width)
            for lane in range(config.lanes):
                m.d.comb += port.payload[lane].eq(beats["data"][step * lane : step * lane + width].as_signed())
            m.d.comb += [port.valid.eq(beats["valid"] & allowed), beats["ready"].eq(port.ready & allowed)]
            taken = beats["valid"] & beats["ready"]
            last = self._count(m, name, taken)
            m.d.comb += file.raised.irq_status[f"{name}_frame"].eq(taken & (beats["last"] ^ last))
            if name == "gradient":
                begins = taken
                with m.If(taken):
                    m.d.sync += absorbing.eq(~last)

        out = core.updated
        step = field_bits(bits["weights"])
        last = self._count(m, "updated", out.valid & out.ready)
        m.d.comb += [
            self.m_axis_updated_tvalid.eq(out.valid),
            out.ready.eq(self.m_axis_updated_tready),
            self.m_axis_updated_tlast.eq(last),
        ]
        for lane in range(config.lanes):
            m.d.comb += [
                self.m_axis_updated_tdata[step * lane : step * (lane + 1)].eq(out.payload.weight[lane]),
                self.m_axis_updated_tkeep.word_select(lane, step // 8).eq(
                    ((~last) if lane >= config.tail else Const(1)).replicate(step // 8)
                ),
            ]
        return begins

    def _count(self, m: Module, name: str, taken: Value) -> Value:
        """Whether the beat of a pass that comes next is the last one."""
        if self.config.beats == 1:
            return Const(1)
        beat, last = Signal(range(self.config.beats), name=f"{name}_beat"), Signal(name=f"{name}_last")
        m.d.comb += last.eq(beat == self.config.beats - 1)
        with m.If(taken):
            m.d.sync += beat.eq(Mux(last, 0, beat + 1))
        return last

    def _publish(self, m: Module, core: Throttle, file: RegisterFile, busy: Signal, ends: Signal) -> None:
        """The registers of the last step, and the events."""
        found = core.registers.payload
        steps = Signal(WORD)
        m.d.comb += [file.values.steps.value.eq(steps), file.values.status.busy.eq(busy)]
        with m.If(ends):
            m.d.sync += steps.eq(steps + 1)
        held: dict[str, Signal] = {}
        for name, shape in found.shape().members.items():
            held[name] = Signal(shape, name=f"last_{name}")
            with m.If(ends):
                m.d.sync += held[name].eq(found[name])
            status = {f.name for f in self.registers["status"].fields}
            if name in status:
                m.d.comb += file.values.status[name].eq(held[name])
            elif name == "watchdog":
                m.d.comb += [
                    file.values.watchdog[watched].eq(held[name][WATCHES.index(watched)]) for watched in self.config.watchdog
                ]
            elif isinstance(shape, data.StructLayout):
                for part in ("m", "e"):
                    m.d.comb += getattr(file.values, f"{name}_{part}").value.eq(getattr(held[name], part))
            else:
                m.d.comb += getattr(file.values, name).value.eq(held[name])

        raised, status_bits, enabled = file.raised.irq_status, file.stored.irq_status, file.stored.irq_enable
        m.d.comb += raised.done.eq(ends)
        for name in (*INTERRUPTS, "memory_fault"):
            if name in held:
                m.d.comb += raised[name].eq(ends & found[name])
        m.d.comb += [
            self.irq.eq((Value.cast(status_bits) & Value.cast(enabled)).any()),
            self.learning_dead.eq(held["learning_dead"]),
        ]
        if self.config.watchdog:
            m.d.comb += [raised.watchdog.eq(ends & found.watchdog.any()), self.watchdog.eq(held["watchdog"].any())]
