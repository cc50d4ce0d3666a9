# ruff: noqa: E501  a fault a row reads best
"""The registers on AXI4-Lite: the bus rules, and what is read and written, on a map with one register of each access."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Mux, Signal, Value

from support.mutants import Mutant

from .harness import Harness, Proof, component


def registers(package: str) -> Any:
    """A map of each access: of two words, of signed and of several fields, with a gap, in two groups of sixteen words."""
    module = component(package, "bus.registers")
    access, register, field = module.Access, module.Register, module.Field
    return module.RegisterMap(
        (
            register(name="magic", offset=0, access=access.CONSTANT, fields=(field(width=32, reset=0x4B415041),)),
            register(
                name="control",
                offset=4,
                access=access.RW,
                fields=(field(name="on", reset=1, restarts=True), field(name="level", lsb=4, width=6, signed=True, reset=-3)),
            ),
            register(name="events", offset=12, access=access.W1C, fields=(field(name="one"), field(name="other", lsb=9))),
            register(name="wide", offset=16, access=access.RW, fields=(field(width=40),)),
            register(name="order", offset=64, access=access.W1S, fields=(field(name="go"),)),
            register(name="found", offset=72, access=access.RO, fields=(field(width=36),)),
        )
    )


def file(package: str) -> Harness:
    """Each transaction has one answer, in order, in time, held until it is taken; and the answer and the registers are right.

    A transaction that is asked for is kept in a ghost until it was answered; it may be answered while the next one is asked for.
    """
    module = component(package, "bus.file")
    dut = module.RegisterFile(registers(package))
    h = Harness(dut)
    m, inside = h.m, h.internal
    stored, values, raised, done = dut.stored, dut.values, dut.raised, dut.carried_out

    # Reads: one answered, one ahead.
    asked = dut.s_axi_arvalid & dut.s_axi_arready
    taken = dut.s_axi_rvalid & dut.s_axi_rready
    ahead, settled = h.ghost(1, "ahead"), h.ghost(3, "settled")
    answers = h.ghost(1, "answers")
    place = h.ghost(10, "place")
    begins = ahead & settled[-1] & ~answers
    with m.If(taken):
        m.d.sync += answers.eq(0)
    with m.If(begins):
        m.d.sync += [answers.eq(1), ahead.eq(0)]
    with m.If(asked):
        m.d.sync += [ahead.eq(1), place.eq(dut.s_axi_araddr[2:])]
    m.d.sync += settled.eq(Mux(begins, 0, Cat(ahead, settled)))
    h.claim("a read is answered, in time, and only if it was asked for", dut.s_axi_rvalid == answers)
    h.claim("one read ahead of the answer", dut.s_axi_arready == ~ahead)
    h.lemma("a read's address", inside["read_address"] == place, when=ahead)
    h.lemma("a read begins", inside["read_acts"] == begins)
    h.lemma("a read settles", (inside["settled"] == settled) & (ahead | (settled == 0)))
    h.lemma("a read waits", inside["has_read_address"] == ahead)
    words: dict[int, Value] = {
        0: Const(0x4B415041, 32),
        1: Cat(
            stored.control.on, Const(0, 3), Value.cast(stored.control.level), Value.cast(stored.control.level)[-1].replicate(22)
        ),
        3: Cat(stored.events.one, Const(0, 8), stored.events.other),
        4: stored.wide.value[:32],
        5: stored.wide.value[32:],
        16: Value.cast(stored.order.go),
        18: values.found.value[:32],
        19: values.found.value[32:],
        **dict.fromkeys((2, 17), Const(0, 32)),  # no registers, but each beside one
    }
    word, there = Signal(32), Signal()
    with m.Switch(place):
        for at, value in words.items():
            with m.Case(at):
                m.d.comb += [word.eq(value), there.eq(1)]
    before = h.past(h.past(word, "word"), "word_before")  # what stood as the address was looked up
    held_word, held_there = h.ghost(32, "held_word"), h.ghost(1, "held_there")
    with m.If(begins):
        m.d.sync += [held_word.eq(before), held_there.eq(there)]
    h.claim("the word that is read", dut.s_axi_rdata == held_word, when=answers & held_there)
    h.claim("no word where none is", dut.s_axi_rdata == 0, when=answers & ~held_there)
    h.claim("the answer to a read", dut.s_axi_rresp == Mux(held_there, 0, 3), when=answers)
    h.keeps(_Stream(dut.s_axi_rvalid, dut.s_axi_rready, Cat(dut.s_axi_rdata, dut.s_axi_rresp)), "read")

    # Writes: address and data in any order.
    has_place, has_data = h.ghost(1, "has_place"), h.ghost(1, "has_data")
    acts, replies = h.ghost(1, "acts"), h.ghost(1, "replies")
    target, data, strobes = h.ghost(10, "target"), h.ghost(32, "data"), h.ghost(4, "strobes")
    m.d.sync += acts.eq(has_place & has_data & ~replies & ~acts)
    with m.If(dut.s_axi_bready):
        m.d.sync += replies.eq(0)
    with m.If(acts):
        m.d.sync += [has_place.eq(0), has_data.eq(0), replies.eq(1)]
    with m.If(dut.s_axi_awvalid & dut.s_axi_awready):
        m.d.sync += [has_place.eq(1), target.eq(dut.s_axi_awaddr[2:])]
    with m.If(dut.s_axi_wvalid & dut.s_axi_wready):
        m.d.sync += [has_data.eq(1), data.eq(dut.s_axi_wdata), strobes.eq(dut.s_axi_wstrb)]
    h.claim("a write is answered, in time, and only if it was asked for", dut.s_axi_bvalid == replies)
    h.claim("one address ahead", dut.s_axi_awready == ~has_place)
    h.claim("one word ahead", dut.s_axi_wready == ~has_data)
    h.lemma("a write acts", inside["write_acts"] == acts)
    h.lemma("a write acts with both", has_place & has_data & ~replies, when=acts)
    h.lemma("a write's address", inside["write_address"] == target, when=has_place)
    h.lemma("a write's data", (inside["write_data"] == data) & (inside["strobes"] == strobes), when=has_data)
    reply = h.ghost(2, "reply")
    refused = {0, 18, 19}
    with m.If(acts):
        m.d.sync += reply.eq(3)
        with m.Switch(target):
            for at in words:
                with m.Case(at):
                    m.d.sync += reply.eq(Mux(strobes.any(), 2, 0) if at in refused else 0)
    h.claim("the answer to a write", dut.s_axi_bresp == reply, when=replies)
    h.keeps(_Stream(dut.s_axi_bvalid, dut.s_axi_bready, dut.s_axi_bresp), "write")

    # What is stored: bit by bit, by the rule of its access.
    mask = Cat(strobe.replicate(8) for strobe in strobes)
    places = {
        "control.on": (1, 0, stored.control.on, 1),
        "control.level": (1, 4, Value.cast(stored.control.level).as_unsigned(), -3 % 64),
        "wide, low": (4, 0, stored.wide.value[:32], 0),
        "wide, high": (5, 0, stored.wide.value[32:], 0),
    }
    for name, (at, low, found, reset) in places.items():
        ghost = h.ghost(len(found), name.replace(", ", "_").replace(".", "_"), init=reset)
        strobed = mask[low : low + len(found)]
        with m.If(acts & (target == at)):
            m.d.sync += ghost.eq((ghost & ~strobed) | (data[low : low + len(found)] & strobed))
        if name == "control.on":
            with m.If(dut.restart):
                m.d.sync += ghost.eq(reset)
        h.claim(f"{name} is as it was written", found == ghost)
    for name, low in (("one", 0), ("other", 9)):
        ghost = h.ghost(1, f"event_{name}")
        cleared = acts & (target == 3) & data[low] & mask[low]
        m.d.sync += ghost.eq(((ghost & ~cleared) | raised.events[name]) & ~dut.restart)
        h.claim(f"event {name}: set by the unit, cleared by writing one", stored.events[name] == ghost)
    order = h.ghost(1, "order")
    m.d.sync += order.eq(((order & ~done.order.go) | (acts & (target == 16) & data[0] & mask[0])) & ~dut.restart)
    h.claim("the order stands until it is carried out", stored.order.go == order)
    return h


class _Stream:
    """A channel, as a stream."""

    def __init__(self, valid: Value, ready: Value, payload: Value) -> None:
        self.valid, self.ready, self.payload = valid, ready, payload


MUTANTS = (
    Mutant("bus/file.py", "& ~self.s_axi_bvalid & ~acts)", "& ~acts)", "a write acts before the last answer was taken"),
    Mutant("bus/file.py", "acts.eq(has_address & settled[-1] & ~self.s_axi_rvalid)", "acts.eq(has_address & settled[-1])", "a read overtakes an answer that waits"),
    Mutant("bus/file.py", "with m.If(strobed[bits_of.start]):", "with m.If(1):", "byte strobes are not heeded"),
    Mutant("bus/file.py", "has_address & settled[-1] & ~", "has_address & settled[0] & ~", "an answer is read before its word was found"),
    Mutant("bus/file.py", "address[4:] == block", "address[4:] == block + 1", "the block of words is another one's"),
    Mutant("bus/file.py", "beside: Const(1 << WORD, WORD + 1)", "beside: Const(0, WORD + 1)", "a word beside a register is refused"),
    Mutant("bus/file.py", "strobes_any.eq(mask.any())", "strobes_any.eq(1)", "a write of no byte is refused"),
    Mutant("bus/file.py", "bits.eq(bits & ~(new & strobed))", "bits.eq(bits & new)", "writing zero clears an event"),
    Mutant("bus/file.py", "part.restarts or register.access", "register.access", "a restart leaves a field as it is"),
    Mutant("bus/file.py", "register.access is not Access.RW:", "register.access is Access.W1S:", "a restart leaves events up"),
    Mutant("bus/file.py", "zip(bits, new & strobed", "zip(bits, bits | (new & strobed)", "a zero asks again for an order that is carried out now"),
)  # fmt: skip
PROOFS = [
    Proof(
        "AXI4-Lite registers",
        "an answer a transaction, in order, in time, held; the word, SLVERR, DECERR; strobes, events, orders, restarts",
        file,
        depth=4,
        mutants=MUTANTS,
        depth_mutants=14,
    ),
    Proof("AXI4-Lite registers", "after a reset from any state as after power-up", file, "reset"),
]
