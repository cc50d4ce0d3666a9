"""Tests of the alpha law on a scalar unit of its own, against the golden model."""

from __future__ import annotations

from typing import Any

import cocotb

from ...golden.clamp import alpha_law, step_size
from ...golden.formats import ZERO, Fixed, Scalar, ScalarFormat
from ...golden.scalar import ScalarUnit as GoldenUnit
from ...hw.scalar.clamp import LAW, UNTHROTTLED, Source
from ...hw.scalar.operations import constant, scalar_layout
from ...hw.scalar.sequencer import Alone
from ...hw.scalar.unit import ScalarUnit
from ..testbench.bank import Bench, benches, interrupt, paces
from ..testbench.scoreboard import Scoreboard
from ..testbench.stream import pack

Constants = dict[str, Scalar]


def component(mantissa_bits: int, exponent_bits: int, step_bits: int, step_fraction: int) -> Alone:
    fmt = ScalarFormat(mantissa_bits, exponent_bits)
    unit = ScalarUnit(fmt=fmt, step_bits=step_bits, step_fraction=step_fraction, radicand_bits=2)
    literals = {"one": constant(fmt.one, fmt), "step_grid": unit.literal(unit.step_exponent)}
    host = dict.fromkeys(("gain", "bias", "num", "alpha_min", "eta", "cap"))
    conditions = ("instant", "average", "off", "grows")
    taken = ("ema", "curvature")
    return Alone(unit, LAW, taken=taken, operands=host | literals, conditions=conditions, aside=UNTHROTTLED)


class Law:
    """Constants and modes on their ports."""

    def __init__(
        self, bench: Bench, constants: Constants, source: Source, enabled: bool = True, cap: Scalar | None = None
    ) -> None:
        self._bench, self._constants, self._source, self._enabled, self._cap = bench, constants, source, enabled, cap
        layout = scalar_layout(bench.component.unit.fmt)
        for name, value in constants.items():
            bench.wire(name).value = pack(layout, value)
        bench.wire("instant").value = int(source is Source.INSTANT)
        bench.wire("average").value = int(source is Source.EMA)
        bench.wire("off").value = int(not enabled)
        bench.wire("grows").value = int(cap is not None)
        bench.wire("cap").value = pack(layout, cap or ZERO)

    def ask(self, board: Scoreboard, curvature: Scalar, average: Scalar) -> None:
        unit = self._bench.component.unit
        golden = GoldenUnit(unit.fmt)
        x = {Source.INSTANT: curvature, Source.EMA: average, Source.MAX: golden.maximum(curvature, average)}[self._source]
        alpha = alpha_law(golden, self._constants, x, self._cap)
        grid = Fixed(False, unit.step_bits - unit.step_fraction, unit.step_fraction)
        step, _ = step_size(grid, alpha if self._enabled else unit.fmt.one, self._constants["eta"])
        self._bench.drivers["i"].send({"ema": average, "curvature": curvature})
        shown = {name: tuple(value) for name, value in self._constants.items()}
        note = f"C {tuple(curvature)}, S {tuple(average)}, {self._source.name}, enabled {self._enabled}, cap {self._cap}, {shown}"
        board.expect({"alpha": alpha, "step": step}, note)


def scalar(bench: Bench, e: int, mantissa: int | None = None) -> Scalar:
    """A random scalar of about 2**e."""
    fmt = bench.component.unit.fmt
    low, high = fmt.exponents
    m = bench.rng.randint(fmt.one.m, 2 * fmt.one.m - 1) if mantissa is None else mantissa
    return Scalar(m, max(low, min(high, e + fmt.one.e)))


def laws(bench: Bench) -> list[Constants]:
    """The two published laws, the denominator that may vanish, and constants at the ends of the range."""
    unit = bench.component.unit
    fmt, one = unit.fmt, unit.fmt.one
    eta = scalar(bench, unit.step_bits - unit.step_fraction - 1)
    tiny = Scalar(one.m, fmt.exponents[0])
    return [
        {"num": scalar(bench, 4), "bias": scalar(bench, -20), "gain": one, "alpha_min": ZERO, "eta": eta},
        {"num": one, "bias": one, "gain": scalar(bench, 0), "alpha_min": scalar(bench, -5), "eta": eta},
        {"num": one, "bias": ZERO, "gain": one, "alpha_min": ZERO, "eta": eta},
        {"num": ZERO, "bias": ZERO, "gain": one, "alpha_min": scalar(bench, -3), "eta": eta},
        {"num": fmt.largest, "bias": tiny, "gain": tiny, "alpha_min": ZERO, "eta": fmt.largest},
        {"num": tiny, "bias": fmt.largest, "gain": fmt.largest, "alpha_min": ZERO, "eta": tiny},
        {"num": one, "bias": ZERO, "gain": one, "alpha_min": one, "eta": eta},
    ]


@cocotb.test
async def laws_within_the_promised_cycles(dut: Any) -> None:
    for bench in benches(dut, component):
        fmt = bench.component.unit.fmt
        one = fmt.one
        after = Scalar(one.m + 1, one.e)
        before = Scalar(2 * one.m - 1, one.e - 1)
        ends = [ZERO, one, after, before, fmt.largest, Scalar(one.m, fmt.exponents[0])]  # the clamp's edges: alpha about 1
        for constants in laws(bench):
            for source in Source:
                await bench.reset()
                bench.probing = 0
                board = bench.board("o")
                cap = bench.rng.choice([None, None, one, scalar(bench, bench.rng.randint(-6, 2))])
                law = Law(bench, constants, source, enabled=bench.rng.random() < 0.8, cap=cap)
                for x in ends:
                    law.ask(board, x, bench.rng.choice(ends))
                for _ in range(4 * bench.effort):
                    x = scalar(bench, bench.rng.randint(-8, 8))
                    law.ask(board, x, scalar(bench, bench.rng.randint(-8, 8)))
                await bench.drain(board)
                assert max(bench.latencies()) <= bench.component.latency, (
                    f"{bench.where}{max(bench.latencies())} cycles; {bench.component.latency} are allowed"
                )


@cocotb.test
async def around_alpha_min(dut: Any) -> None:
    """A quotient one ulp below alpha_min, on it, and one above; and the switch that keeps alpha from being applied."""
    for bench in benches(dut, component):
        one = bench.component.unit.fmt.one
        usual = laws(bench)[1] | {"bias": ZERO, "gain": one}
        for enabled in (True, False):
            await bench.reset()
            board = bench.board("o")
            law = Law(bench, usual | {"num": usual["alpha_min"]}, Source.INSTANT, enabled)
            for x in (
                one,
                Scalar(one.m + 1, one.e),
                Scalar(2 * one.m - 1, one.e - 1),
                scalar(bench, 3),
                scalar(bench, -2),
                scalar(bench, -9),
            ):
                law.ask(board, x, ZERO)
            await bench.drain(board)


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for idle, stall in paces():
            await bench.reset()
            bench.pace(idle, stall)
            board = bench.board("o")
            law = Law(bench, laws(bench)[bench.rng.randrange(2)], Source.MAX)
            for _ in range(3):
                law.ask(board, scalar(bench, 1), scalar(bench, 2))
            await bench.drain(board)


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        board = bench.board("o")
        Law(bench, laws(bench)[0], Source.MAX).ask(board, scalar(bench, 1), scalar(bench, 2))
        await bench.must_offer("o", bench.component.latency + 5)
        await bench.drain(board)


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    for bench in benches(dut, component):
        for cycles in (1, 4, 10, 25, 40, 70, bench.component.latency + 3):
            law = Law(bench, laws(bench)[1], Source.MAX)
            pair = scalar(bench, 1), scalar(bench, 2)
            await interrupt(bench, cycles, law.ask, *pair)
