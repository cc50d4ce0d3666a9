"""The table on which components are tested: from a component to Verilog, to a simulator, to a clock with agents on its streams.

One simulation holds several components side by side (:class:`Bank`), since building and starting a simulator costs more than
most tests. A bench, a module of ``sim/benches``, has a function ``component(**parameters)`` and cocotb tests. :func:`simulate`
runs these on the exported Verilog; inside the simulator :func:`benches` makes the components again, to read their contracts.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from amaranth.hdl import Module, UnusedElaboratable
from amaranth.lib import stream, wiring
from cocotb.clock import Clock

from ...golden.config import ThrottleConfig
from ...hw.export import to_verilog
from ...hw.manifest import ports, stream_name
from ..runner import Design, SimulationError, run
from .scoreboard import Scoreboard
from .stream import Checker, Consumer, Driver, Monitor, Stream, unpack

KEEP = "KAPPA_RTL_KEEP"
"""Names the environment variable with the folder for what is left of a failing bench; set by ``pytest --keep FOLDER``."""

ENVIRONMENT = "KAPPA_RTL_BENCH"
"""Names the environment variable that carries the components' parameters into the simulator, as JSON."""

LEVELS = {"none": 0.0, "some": 0.3, "heavy": 0.85}
"""Chances of an idle cycle of a driver, or of a stalled cycle of a consumer."""


# ------------------------------------------------------------------------------------------------ outside the simulator


class Bank(wiring.Component):
    """Several components side by side in one module; the ports of each under its own name."""

    def __init__(self, components: Mapping[str, wiring.Component]) -> None:
        self.components = dict(components)
        super().__init__({name: wiring.Out(component.signature) for name, component in self.components.items()})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        for name, component in self.components.items():
            m.submodules[name] = component
            wiring.connect(m, wiring.flipped(getattr(self, name)), component)
        return m


def simulate(
    stem: str,
    parameters: Mapping[str, Mapping[str, Any]],
    *,
    simulator: str,
    module: str = "",
    seed: int = 1,
    effort: int = 1,
    only: str = "",
    env: Mapping[str, str] | None = None,
    verilog: str | None = None,
    optimisation: str = "-O0",
) -> None:
    """Run the cocotb tests of ``sim/benches/<stem>.py`` on a bank of its components.

    Args:
        parameters: what makes each component, by the name under which it stands in the bank.
        module: of the cocotb tests, if they are not the bench's own.
        seed: of all random choices.
        effort: a factor for how many random values are tried; 0 for as few as make sense.
        only: a regular expression of the cocotb tests to run; all if empty.
        env: more environment variables for the simulator.
        verilog: a text to simulate instead of the bank's own: a module of that stem with the bank's ports.
        optimisation: of the C++ compiler, for Verilator.

    Raises:
        SimulationError: a test failed.
    """
    bench = importlib.import_module(f"..benches.{stem}", __package__)
    if verilog is None:
        verilog = to_verilog(Bank({name: bench.component(**values) for name, values in parameters.items()}), stem)
    setting = {"units": parameters, "simulator": simulator, "seed": seed, "effort": effort}
    told = {ENVIRONMENT: json.dumps(setting), "COCOTB_LOG_LEVEL": "WARNING"} | dict(env or {})
    if only:
        told["COCOTB_TEST_FILTER"] = only
    tests = module or bench.__name__
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        source = Path(folder) / f"{stem}.v"
        source.write_text(verilog)
        try:
            run(Design((source,), stem, optimisation=optimisation), tests, simulator=simulator, env=told)
        except SimulationError as error:
            if KEEP not in os.environ:
                raise
            where = _again(Path(os.environ[KEEP]), stem, tests, verilog, simulator, told)
            what = "The run again, with its log and waveform" if (where / "wave.vcd").exists() else "Its Verilog"
            raise SimulationError(f"{error}\n{what}: {where}") from None


def _again(keep: Path, stem: str, module: str, verilog: str, simulator: str, told: Mapping[str, str]) -> Path:
    """The same run once more, which a seed decides, in a folder that stays: the Verilog, the log, and ``wave.vcd``."""
    where = keep.resolve() / f"{stem}-{simulator}"
    shutil.rmtree(where, ignore_errors=True)
    where.mkdir(parents=True)
    source = where / f"{stem}.v"
    dump = f'  initial begin\n    $dumpfile("wave.vcd");\n    $dumpvars(0, {stem});\n  end\nendmodule'
    source.write_text(re.sub(rf"(module {stem} \(.*?)endmodule", rf"\1{dump}", verilog, count=1, flags=re.DOTALL))
    with contextlib.suppress(SimulationError):
        run(Design((source,), stem, optimisation="-O0"), module, simulator=simulator, env=told, cwd=where, waves=True)
    return where


# ------------------------------------------------------------------------------------------------ inside the simulator


class Bench:
    """One component of the bank, with a driver on every input stream, and a consumer, a monitor and a checker on every output.

    Everything happens in :meth:`tick`, in a fixed order, so that a seed decides a whole run.

    Attributes:
        drivers, consumers, monitors, checkers: by the name of the stream; inputs have a monitor too.
        cycle: cycles since the last reset.
        probing: chance of a cycle in which a ready is turned over to see what follows it.
    """

    def __init__(self, dut: Any, name: str, component: Any, told: Mapping[str, Any]) -> None:
        self._dut, self.name, self.component = dut, name, component
        self.effort: int = told["effort"]
        self.rng = random.Random(f"{told['seed']} {name}")
        self.where = f"{name}, seed {told['seed']}: "
        self.drivers: dict[str, Driver] = {}
        self.consumers: dict[str, Consumer] = {}
        self.monitors: dict[str, Monitor] = {}
        self.checkers: dict[str, Checker] = {}
        self.cycle = 0
        self.probing = 0.1
        undefined = told["simulator"] != "verilator"
        for path, member in component.signature.members.items():
            if not (member.is_signature and isinstance(member.signature, stream.Signature)):
                continue
            wires = Stream(dut, stream_name([name, path], member.flow), member.signature.members["payload"].shape)
            self.monitors[path] = Monitor(wires)
            if member.flow is wiring.In:
                self.drivers[path] = Driver(wires, self.rng, undefined=undefined)
            else:
                self.consumers[path] = Consumer(wires, self.rng)
                self.checkers[path] = Checker(wires, self.where)

    def wire(self, port: str) -> Any:
        """A port that is no stream."""
        return getattr(self._dut, f"{self.name}_{port}")

    async def tick(self, cycles: int = 1) -> None:
        """Let clock cycles pass; returns in the middle of the last one."""
        for _ in range(cycles):
            await self._dut.clk.rising_edge
            for driver in self.drivers.values():
                driver.drive()
            for consumer in self.consumers.values():
                consumer.drive()
            await self._dut.clk.falling_edge
            for monitor in self.monitors.values():
                monitor.stream.sample()
            for checker in self.checkers.values():
                checker.sample(self.cycle)
            for monitor in self.monitors.values():
                monitor.sample(self.cycle)
            if self.probing and self.rng.random() < self.probing:
                await self.rng.choice(list(self.checkers.values())).probe(self.cycle)
            self.cycle += 1

    async def reset(self) -> None:
        """Reset the component, whatever it is doing; all queues and records are emptied."""
        self._dut.rst.value = 1
        for driver in self.drivers.values():
            driver.drop()
        await self._dut.clk.rising_edge
        await self._dut.clk.rising_edge
        self._dut.rst.value = 0
        await self._dut.clk.falling_edge
        for monitor in self.monitors.values():
            monitor.stream.sample()
            monitor.forget()
        for checker in self.checkers.values():
            checker.forget()
        self.cycle = 0

    def pace(self, idle: float = 0.0, stall: float = 0.0) -> None:
        """Set the chance of idle cycles of all drivers and of stalled cycles of all consumers."""
        for driver in self.drivers.values():
            driver.idle = idle
        for consumer in self.consumers.values():
            consumer.stall = stall

    def board(self, port: str) -> Scoreboard:
        """A scoreboard that sees the transfers of a stream from now on, in place of the one before."""
        board = Scoreboard(port, self.where)
        monitor = self.monitors[port]
        monitor.listeners[:] = [lambda transfer: board.observe(unpack(monitor.stream.shape, transfer.word))]
        return board

    async def drain(self, *boards: Scoreboard, hung: int = 5000, quiet: int = 20) -> None:
        """Run until all drivers and scoreboards are empty, and see that nothing more comes.

        Raises:
            AssertionError: nothing moved for ``hung`` cycles, or something came that nobody had asked for.
        """
        moved = self.cycle
        while any(driver.queue for driver in self.drivers.values()) or any(boards):
            await self.tick()
            if any(monitor.stream.transfers for monitor in self.monitors.values()):
                moved = self.cycle
            if self.cycle - moved > hung:
                queued = {name: len(driver.queue) for name, driver in self.drivers.items()}
                owed = {board.name: len(board) for board in boards}
                raise AssertionError(f"{self.where}nothing moved in {hung} cycles; still queued {queued}, expected {owed}")
        self.pace()
        await self.tick(quiet)
        for board in boards:
            board.drained()
        for name in self.consumers:
            assert not self.monitors[name].stream.valid, f"{self.where}{name} offers something that nobody asked for"

    async def until(self, condition: Callable[[], Any], limit: int = 5000) -> None:
        """Let cycles pass until a condition holds; it may hold at once."""
        for _ in range(limit):
            if condition():
                return
            await self.tick()
        raise AssertionError(f"{self.where}what was waited for did not come in {limit} cycles")

    async def must_offer(self, port: str, patience: int) -> None:
        """With ready held low, see that valid comes nevertheless, and that it stays."""
        consumer, checker = self.consumers[port], self.checkers[port]
        consumer.stall = 1.0
        checker.patience = patience
        await self.until(lambda: self.monitors[port].stream.valid)
        checker.patience = None
        await self.tick(5)
        consumer.stall = 0.0

    def latencies(self, request: str = "i", response: str = "o") -> list[int]:
        """Cycles from taking each word of one stream to offering the word of another that answers it."""
        pairs = zip(self.monitors[request].transfers, self.monitors[response].transfers, strict=True)
        return [answer.offered - asked.taken for asked, answer in pairs]


def benches(dut: Any, component: Callable[..., Any]) -> Iterator[Bench]:
    """Start the clock, and go through the components of the bank one by one; each bench wants its :meth:`Bench.reset`."""
    told = json.loads(os.environ[ENVIRONMENT])
    warnings.simplefilter("ignore", UnusedElaboratable)  # they are made for their contracts alone
    Clock(dut.clk, 10, "ns").start()
    made = {name: component(**values) for name, values in told["units"].items()}
    dut.rst.value = 0
    for name, one in made.items():
        for port in ports(one)[2:]:
            if port["direction"] == "input":
                getattr(dut, f"{name}_{port['name']}").value = 0
    for name, one in made.items():
        yield Bench(dut, name, one, told)


async def interrupt(bench: Bench, cycles: int, ask: Callable[..., None], *values: Any) -> None:
    """Reset the component that many cycles into its work, its output stalled, and see that it then does it anew.

    ``ask(board, *values)`` asks for the work.
    """
    await bench.reset()
    bench.pace(stall=1)
    ask(bench.board("o"), *values)
    await bench.tick(cycles)
    await bench.reset()
    bench.pace()
    board = bench.board("o")
    ask(board, *values)
    await bench.drain(board)


def paces() -> Iterator[tuple[float, float]]:
    """Every level of idling with every level of backpressure."""
    return itertools.product(LEVELS.values(), LEVELS.values())


def rate_off_the_grid(config: ThrottleConfig) -> Fraction:
    """An eta that its scalar rounds up to the power of two where the grid of the step ends."""
    return Fraction(2) ** config.step.integer_bits * (1 - Fraction(1, 1 << 60))
