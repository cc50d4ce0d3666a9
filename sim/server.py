"""The cocotb side of the RTL unit: answers a client outside the simulator, one message a step.

Runs inside the simulator on ``harness.v``. Vectors travel as memory files in the working folder; only words of
configuration and the registers go over the socket.
"""

from __future__ import annotations

import os
import socket
from multiprocessing.connection import Connection
from typing import Any

import cocotb
from cocotb.simtime import get_sim_time
from cocotb.triggers import First, Timer, ValueChange

from .upset import strike


@cocotb.test
async def serve(dut: Any) -> None:
    """Serve until the client says stop or goes away."""
    link = socket.socket(socket.AF_UNIX)
    link.connect(os.environ["KAPPA_RTL_SOCKET"])
    client = Connection(link.detach())
    go = answers = 0
    await Timer(100, "ns")
    while True:
        try:
            words = client.recv()
        except EOFError:
            return
        if words is None:
            return
        upset = words.pop("upset", None)
        waves = words.pop("wave", 0)
        shares = words.pop("shares", False)
        if waves:
            dut.wave.value = 1
        for name, word in words.items():
            getattr(dut, name).value = word
        pulses = [name for name in ("reset", "clear") if name in words]
        if pulses:
            await Timer(100, "ns")
            for name in pulses:
                getattr(dut, name).value = 0
            await Timer(100, "ns")
            client.send(None)
            continue
        go ^= 1
        dut.watched.value = upset is not None
        dut.go.value = go
        begun = int(get_sim_time("ns"))
        if upset is not None:
            cocotb.start_soon(strike(dut, *upset))
        while str(dut.done.value) != str(go):
            if not shares:
                await ValueChange(dut.done)
                continue
            await First(ValueChange(dut.done), ValueChange(dut.asks))
            if str(dut.asks.value) == "1":  # the clock stands still until the sum over all shards is there
                client.send(str(dut.partial.value))
                total = client.recv()
                if total is None:
                    return
                dut.total.value = total
                answers ^= 1
                dut.answers.value = answers
        registers = str(dut.registers.value)
        answer = {
            "registers": registers,
            "cycles": int(dut.cycles.value),
            "span": (begun, int(get_sim_time("ns"))),
            "violations": int(dut.violations.value),
            "hung": int(dut.hung.value),
        }
        client.send(answer)
