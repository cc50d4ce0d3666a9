"""Tests from a state in which nothing is known: from the end of one cycle of reset on every output is defined when it counts.

They run on Icarus, on Verilog without the registers' initial values (:func:`unknown`); no memory has any.
"""

from __future__ import annotations

import re
from typing import Any

import cocotb
from cocotb.types import LogicArray

from ...golden.config import ThrottleConfig
from ...hw.bus.axi import AxiThrottle
from ...hw.export import unit
from ...hw.manifest import ports
from ..testbench.bank import Bench, benches
from ..testbench.host import Host
from ..testbench.stream import RuleViolation, defined
from .throttle import Run, laws


def component(kind: str, **table: Any) -> Any:
    """The unit as ``core``, ``streaming`` or ``axi``."""
    config = ThrottleConfig.from_table(table)
    return AxiThrottle(config) if kind == "axi" else unit(config, kind == "streaming")


def unknown(verilog: str) -> str:
    """The text without the initial value of any register."""
    text = re.sub(r"^( +)initial begin\n.*?^\1end\n", "", verilog, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"^(\s*reg\b[^;=]*?)\s*=[^;]*;", r"\1;", text, flags=re.MULTILINE)


class Watch:
    """Every output of one unit: those of a stream or channel count while its valid is up, all others always."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.cycle = bench, 0
        names = [port["name"] for port in ports(bench.component) if port["direction"] == "output"]
        valids = [name for name in names if name.endswith("valid")]
        # m_axis_updated_tdata belongs to m_axis_updated_tvalid, s_axi_rdata to s_axi_rvalid.
        owners = {name: [v for v in valids if name.startswith(v.removesuffix("valid"))] for name in names}
        self.wires = {
            name: (bench.wire(name), bench.wire(owners[name][0]) if owners[name] and not name.endswith("ready") else None)
            for name in names
        }

    def undefined(self) -> list[str]:
        """The outputs that count now and have an undefined bit."""
        return [
            name
            for name, (wire, valid) in self.wires.items()
            if defined(wire) is None and (valid is None or wire is valid or name.endswith("valid") or defined(valid) != 0)
        ]

    async def run(self) -> None:
        """Look in the middle of every cycle."""
        while True:
            await self.bench._dut.clk.falling_edge
            found = self.undefined()
            if found:
                values = ", ".join(f"{name} = {self.wires[name][0].value}" for name in found)
                raise RuleViolation(f"{self.bench.where}cycle {self.cycle} after reset: outputs must be defined, not {values}")
            self.cycle += 1


_awake: set[str] = set()
"""The units that have been reset before."""


async def wake(bench: Bench) -> Any:
    """Some cycles without reset and with unknown inputs, one of reset, and the watch from then on."""
    dut = bench._dut
    watch = Watch(bench)
    dut.rst.value = 0
    for port in ports(bench.component)[2:]:
        if port["direction"] == "input":
            wire = bench.wire(port["name"])
            wire.value = LogicArray("X" * len(wire)) if len(wire) > 1 else LogicArray("X")[0]
    for _ in range(5):
        await dut.clk.rising_edge
    await dut.clk.falling_edge
    if bench.name not in _awake:
        _awake.add(bench.name)
        found = watch.undefined()
        assert any(name.endswith(("valid", "ready")) for name in found), (
            f"{bench.where}handshakes are known before reset: {found}"
        )
    dut.rst.value = 1
    for port in ports(bench.component)[2:]:
        if port["direction"] == "input" and not port["name"].endswith(("payload", "data")):
            bench.wire(port["name"]).value = 0
    await dut.clk.rising_edge
    dut.rst.value = 0
    # The agents did not see their wires being written.
    for driver in bench.drivers.values():
        driver.drop()
    for consumer in bench.consumers.values():
        consumer.ready = 0
    for monitor in bench.monitors.values():
        monitor.forget()
    for checker in bench.checkers.values():
        checker.forget()
    return cocotb.start_soon(watch.run())


@cocotb.test
async def streams_and_registers(dut: Any) -> None:
    """Whole steps from the first on, equal to golden's, undefined words on the streams between the beats."""
    for bench in benches(dut, component):
        if isinstance(bench.component, AxiThrottle):
            continue
        for number, law in enumerate(laws(bench.component.config)):
            if number % 5:
                continue
            watching = await wake(bench)
            bench.pace(0.06 * number, 0.03 * number)
            run = Run(bench, law)
            for _ in range(3):
                run.step()
            await run.drain()
            watching.cancel()


@cocotb.test
async def axi(dut: Any) -> None:
    """The same through the bus, with every register read before the first step."""
    for bench in benches(dut, component):
        if not isinstance(bench.component, AxiThrottle):
            continue
        watching = await wake(bench)
        watching.cancel()
        host = Host(bench)
        await host.reset()
        watching = cocotb.start_soon(Watch(bench).run())
        for register in host.map:
            await host.word(register)
        await host.set("control", run=1)
        for _ in range(3):
            await host.step()
        watching.cancel()
