"""A host on the pins of the LiteX example: it reads who answers, and lets the unit take two steps that must be golden's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp, AxiStreamBus, AxiStreamFrame, AxiStreamSink, AxiStreamSource

from kappa_rtl.golden.config import ThrottleConfig
from kappa_rtl.golden.throttle import Throttle
from kappa_rtl.hw.bus.map import throttle_map
from kappa_rtl.hw.bus.text import python_driver

BASE = 0x9000_0000


@cocotb.test
async def two_steps(dut: Any) -> None:
    """The configuration of the unit is the file that LITEX_CONFIG names."""
    config = ThrottleConfig.from_toml(Path(os.environ["LITEX_CONFIG"]))
    made: dict[str, Any] = {"__name__": "driver"}
    exec(python_driver(config, throttle_map(config), "throttle_axi"), made)
    clock, reset = dut.sys_clk, dut.sys_rst
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "host"), clock, reset)
    gradient = AxiStreamSource(AxiStreamBus.from_prefix(dut, "gradient"), clock, reset)
    weights = AxiStreamSource(AxiStreamBus.from_prefix(dut, "weights"), clock, reset)
    updated = AxiStreamSink(AxiStreamBus.from_prefix(dut, "updated"), clock, reset)
    Clock(clock, 10, "ns").start()
    reset.value = 1
    await ClockCycles(clock, 5)
    reset.value = 0

    async def read(offset: int) -> int:
        answer = await with_timeout(host.read(BASE + offset, 4), 10, "us")
        assert answer.resp == AxiResp.OKAY
        return int.from_bytes(answer.data, "little")

    async def write(offset: int, word: int) -> None:
        answer = await with_timeout(host.write(BASE + offset, word.to_bytes(4, "little")), 10, "us")
        assert answer.resp == AxiResp.OKAY

    @bridge
    def start() -> Any:
        unit = made["ThrottleAxi"](resume(read), resume(write))  # which reads the id
        assert unit.get("elements") == config.elements
        unit.start()
        return unit

    @bridge
    def registers(unit: Any) -> dict[str, Any]:
        while not unit.done:
            pass
        assert unit.word("irq_status") == 1, "done, and nothing else"
        unit.acknowledge()
        found: dict[str, Any] = unit.registers()
        return found

    unit = await start()
    rng = np.random.default_rng(0)
    golden = Throttle(config, rng.integers(-20000, 20000, config.elements).astype(np.int16))
    for _ in range(2):
        codes = rng.integers(-9000, 9000, config.elements).astype(np.int16)
        gradient.send_nowait(AxiStreamFrame(codes.astype("<i2").tobytes()))
        weights.send_nowait(AxiStreamFrame(golden.theta.astype("<i2").tobytes()))
        record = golden.step(codes)
        frame = await with_timeout(updated.recv(compact=False), 100, "us")
        assert np.frombuffer(bytes(frame.tdata), "<i2").tolist() == record.theta.tolist()
        found = await registers(unit)
        assert found == {name: value for name, value in vars(record.registers).items() if name in found}
