"""Tests of the scalar part: step sizes and status from step to step, against the golden model."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import cocotb

from ...golden.config import EmaStart, OnStill, Source, ThrottleConfig
from ...golden.decide import Decide as GoldenDecide
from ...hw.scalar.decide import Decide, control_words, status_layout
from ..testbench.bank import Bench, benches, paces, rate_off_the_grid
from ..testbench.scoreboard import Scoreboard
from ..testbench.stream import RuleViolation, Transfer, defined, unpack


def component(**table: Any) -> Decide:
    return Decide(ThrottleConfig.from_table(table))


class Run:
    """One run of steps: energies go to the component and to the golden model."""

    def __init__(self, bench: Bench, config: ThrottleConfig) -> None:
        self.bench, self.golden = bench, GoldenDecide(config)
        for port, word in control_words(config).items():
            bench.wire(port).value = word
        bench.wire("clear").value = 0
        self.moves = bench.rng.random() < 0.5
        self._applied = 0
        self._decided: int | None = None
        if config.asks_moved:
            bench.wire("moved").value = int(self.moves)
        self.steps = bench.board("o")
        self.status = Scoreboard("status", bench.where)
        self._layout = status_layout(config)
        self._motion_energy = 0
        self._moved: bool | None = None
        self._still_steps = 0
        bench.monitors["o"].listeners.append(self._look)

    def read(self) -> dict[str, Any]:
        """The status as it stands."""
        word = defined(self.bench.wire("status"))
        if word is None:
            raise RuleViolation(f"{self.bench.where}the status holds undefined bits: {self.bench.wire('status').value}")
        return unpack(self._layout, word)  # type: ignore[no-any-return]

    def _look(self, transfer: Transfer) -> None:
        self.status.observe(self.read())

    def gradient(self, energy: int) -> None:
        """The step's A."""
        decision = self.golden.decide(energy, self._motion_energy, self._moved, self._applied)
        # With a delay the pass whose B is next was made with the step size of the step before.
        before = self.golden.config.initial_step if self._decided is None else self._decided
        self._decided = decision.step_size
        self._applied = before if self.golden.config.delay else decision.step_size
        unit = self.golden.unit
        self._still_steps += decision.still
        flags = {"still_steps": self._still_steps, "scalar_overflow": unit.overflow, "scalar_underflow": unit.underflow}
        note = f"A = {energy}, B = {self._motion_energy}, {self.golden.config}"
        self.bench.drivers["i"].send(energy)
        self.steps.expect(decision.step_size, note)
        self.status.expect(decision._asdict() | flags, note)

    def motion(self, energy: int) -> None:
        """The step's B."""
        self._motion_energy = energy
        if self.golden.config.asks_moved:  # it holds steady: all of a run's steps move, or none does
            self._moved = self.moves
        self.bench.drivers["i"].send(energy)

    async def clear(self) -> None:
        """Clear counters and flags, between two steps."""
        self.golden.unit.clear()
        self._still_steps = 0
        self.bench.wire("clear").value = 1
        await self.bench.tick()
        self.bench.wire("clear").value = 0

    async def drain(self) -> None:
        await self.bench.drain(self.steps, self.status)


def laws(config: ThrottleConfig) -> Iterator[ThrottleConfig]:
    """Configurations of the same hardware: modes and constants are ports."""
    assert isinstance(config.source, Source)
    sources = config.source.alike
    for on_still, ema_start, source in itertools.product(OnStill, EmaStart, sources):
        yield config.replace(on_still=on_still, ema_start=ema_start, source=source)
    if not config.delay:  # whose first step is the hardware's own
        beyond = rate_off_the_grid(config)
        yield config.replace(eta=beyond, eta_max=beyond)
    yield config.replace(enabled=False)
    yield config.replace(bias=0, alpha_min="1/8", source=sources[len(sources) // 2])
    yield config.replace(rho=1, on_still=OnStill.DIVIDE)
    yield config.replace(rho=0, on_still=OnStill.HOLD)


def energies(bench: Bench, config: ThrottleConfig) -> tuple[int, int]:
    """A step's A and B: zero, one, squares and the most there can be, among random ones of every length."""
    rng = bench.rng

    def one(bits: int, zero: float) -> int:
        length = rng.randint(1, bits)
        return (
            0
            if rng.random() < zero
            else rng.choice(
                [1, (1 << bits) - 1, rng.getrandbits(bits // 2) ** 2, rng.getrandbits(length), rng.getrandbits(length)]
            )
        )

    return one(config.widths.gradient_energy, 0.1), one(config.widths.motion_energy, 0.35)


@cocotb.test
async def every_mode_within_the_promised_cycles(dut: Any) -> None:
    seen: dict[str, int] = {"first": 0, "still": 0, "scalar_overflow": 0, "scalar_underflow": 0}
    for bench in benches(dut, component):
        for config in itertools.islice(laws(bench.component.config), 0, None, 1 if bench.effort else 2):
            await bench.reset()
            bench.probing = 0
            run = Run(bench, config)
            for _ in range(4 + 2 * bench.effort):
                a, b = energies(bench, config)
                run.gradient(a)
                run.motion(b)
            await run.drain()
            seen["first"] += 1
            seen["still"] += run.read()["still_steps"]
            for flag in ("scalar_overflow", "scalar_underflow"):
                seen[flag] += run.read()[flag]
            taken = [transfer.taken for transfer in bench.monitors["i"].transfers]
            offered = [transfer.offered for transfer in bench.monitors["o"].transfers]
            most = max(answer - a for a, answer in zip(taken[::2], offered, strict=True))
            assert most <= bench.component.latency, (
                f"{bench.where}{most} cycles from A to the step, {bench.component.latency} promised"
            )
            most = max(a - b for b, a in zip(taken[1::2], taken[2::2], strict=False))
            assert most <= bench.component.prelude, (
                f"{bench.where}{most} cycles from B to the next A, {bench.component.prelude} promised"
            )
    assert all(seen.values()), f"these never happened: {[name for name, times in seen.items() if not times]}"


@cocotb.test
async def idle_and_backpressure(dut: Any) -> None:
    for bench in benches(dut, component):
        for (idle, stall), config in zip(paces(), itertools.cycle(laws(bench.component.config)), strict=False):
            await bench.reset()
            bench.pace(idle, stall)
            run = Run(bench, config)
            for _ in range(3):
                a, b = energies(bench, config)
                run.gradient(a)
                run.motion(b)
            await run.drain()


@cocotb.test
async def status_stands_between_the_answer_and_the_next_energy(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        run = Run(bench, bench.component.config)
        for _ in range(3):
            a, b = energies(bench, bench.component.config)
            run.gradient(a)
            await run.drain()
            before = run.read()
            await bench.tick(40)
            assert run.read() == before, f"{bench.where}the status changed by itself"
            run.motion(b)


@cocotb.test
async def clear_between_steps(dut: Any) -> None:
    """Also while an overflow of ||dtheta|| + eps, made ahead, waits for the step that it belongs to."""
    for bench in benches(dut, component):
        for config in itertools.islice(laws(bench.component.config), 0, None, 6):
            await bench.reset()
            run = Run(bench, config)
            for step in range(4):
                a, b = energies(bench, config)
                run.gradient(a)
                await run.drain()
                if step % 2:
                    await run.clear()
                run.motion((1 << config.widths.motion_energy) - 1 if step < 2 else b)
                await run.drain()
                await bench.tick(bench.component.prelude)
                if step == 1:
                    await run.clear()
                    status = run.read()
                    assert not any(
                        status[name] for name in ("still_steps", "learning_dead", "scalar_overflow", "scalar_underflow")
                    ), status


@cocotb.test
async def valid_does_not_wait_for_ready(dut: Any) -> None:
    for bench in benches(dut, component):
        await bench.reset()
        run = Run(bench, bench.component.config)
        run.gradient(5)
        await bench.must_offer("o", bench.component.latency + 5)
        await run.drain()


@cocotb.test
async def reset_in_the_middle(dut: Any) -> None:
    """At any point of a step: afterwards it is the unit of a first step, flags, average and all."""
    for bench in benches(dut, component):
        config = bench.component.config
        span = bench.component.latency + bench.component.prelude
        for cycles in (3, span // 4, span // 2, span, 2 * span, 3 * span):
            await bench.reset()
            run = Run(bench, config)
            for _ in range(8):
                run.gradient(energies(bench, config)[0])
                run.motion(bench.rng.choice([0, 1]))
            bench.consumers["o"].stall = bench.rng.choice([0.0, 1.0])
            await bench.tick(cycles)
            await bench.reset()
            bench.pace()
            run = Run(bench, config)
            for _ in range(3):
                a, b = energies(bench, config)
                run.gradient(a)
                run.motion(b)
            await run.drain()
