"""The block memory's plain Verilog: what was written is what is read."""

from __future__ import annotations

from support.mutants import Mutant

from .harness import Harness, Proof, component


def memory(package: str, width: int, depth: int) -> Harness:
    """One word, of any address: a ghost holds what was written there last, and follows its reads through the two stages."""
    dut = component(package, "cells.memory").BlockMemory(width, depth)
    h = Harness(dut)
    m = h.m
    address = h.free(dut.write_address.shape(), "address")
    h.steady(address, "address")
    h.assume((address < depth) & (dut.write_address < depth) & (dut.read_address < depth))
    h.assume(~(dut.write & dut.read & (dut.write_address == dut.read_address)))  # undefined
    written, fetched, out = (h.ghost(1, f"{name}_known", reset_less=True) for name in ("written", "fetched", "out"))
    word, fetched_word, out_word = (h.ghost(width, name, reset_less=True) for name in ("word", "fetched", "out"))
    with m.If(dut.write & (dut.write_address == address)):
        m.d.sync += [word.eq(dut.write_data), written.eq(1)]
    with m.If(dut.read):
        m.d.sync += [fetched.eq(written & (dut.read_address == address)), fetched_word.eq(word)]
    with m.If(dut.read_output):
        m.d.sync += [out.eq(fetched), out_word.eq(fetched_word)]
    h.lemma("fetched", h.peek("cell.g_plain.fetched", width) == fetched_word, when=fetched)
    h.claim("what is read was written", dut.read_data == out_word, when=out)
    return h


PROOFS = [
    Proof(
        f"memory, {depth} words of {width} bits",
        "the word read is the one last written there, two enabled cycles later; the stages hold",
        lambda package, width=width, depth=depth: memory(package, width, depth),
        "bound",
        8,
        mutants=(
            Mutant("cells/memory.v", "if (read) fetched", "fetched", "the memory reads on while its words are held up"),
            Mutant("cells/memory.v", "if (read_output) out", "out", "the memory's output register does not wait"),
        )
        if depth == 16
        else (),
    )
    for width, depth in ((16, 16), (36, 512))
]
