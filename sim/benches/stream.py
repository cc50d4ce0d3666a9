"""Tests of the agents themselves: a checker must find every offender, and leave an honest component alone."""

from __future__ import annotations

from typing import Any

import cocotb
from amaranth.hdl import unsigned
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ..testbench.bank import LEVELS, Bench, benches
from ..testbench.scoreboard import Mismatch
from ..testbench.stream import RuleViolation

WORDS = [3, 9, 9, 14, 0, 5]


class Faces(wiring.Component):
    """The ports of a component with one stream in and one out, and what it is expected to be accused of."""

    def __init__(self, offence: str) -> None:
        self.offence = offence
        super().__init__({"i": In(stream.Signature(unsigned(4))), "o": Out(stream.Signature(unsigned(4)))})


def component(offence: str) -> Faces:
    return Faces(offence)


async def accusation(bench: Bench, stall: float) -> str:
    """Send some words through; what the checker or the scoreboard says, nothing if all is well."""
    await bench.reset()
    bench.pace(idle=0.2, stall=stall)
    board = bench.board("o")
    for word in WORDS:
        bench.drivers["i"].send(word)
        board.expect(word)
    try:
        if stall == 1:
            await bench.must_offer("o", 20)
            bench.pace()
        await bench.drain(board, hung=200)
    except (RuleViolation, Mismatch) as error:
        return str(error)
    finally:
        bench.checkers["o"].patience = None
    return ""


@cocotb.test
async def offenders_are_found(dut: Any) -> None:
    for bench in benches(dut, component):
        heard = {await accusation(bench, stall) for stall in (*LEVELS.values(), 1.0)}
        offence = bench.component.offence
        if offence:
            assert any(offence in said for said in heard), f"{bench.name} must be accused that {offence!r}, not {heard}"
        else:
            assert heard == {""}, f"{bench.name} is honest, but is accused: {heard}"


@cocotb.test
async def waiting_for_ready_is_found_with_ready_low(dut: Any) -> None:
    for bench in benches(dut, component):
        bench.probing = 0
        said = await accusation(bench, 1.0)
        waits = bench.component.offence in ("valid must not wait for ready", "valid must not depend on ready")
        assert ("valid must not wait for ready" in said) == waits, f"{bench.name}: {said!r}"
