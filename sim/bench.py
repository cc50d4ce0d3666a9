"""The table on which components are tested: from a component to Verilog, to a simulator, to a clock with agents on its streams.

One simulation holds several components side by side (:class:`Bank`), since building and starting a simulator costs more than
most tests. A bench module ``bench_<stem>`` has a function ``component(**parameters)`` and cocotb tests; :func:`simulate` runs
them on the exported Verilog, and inside the simulator :func:`units` makes the same components again, to read their contracts.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cocotb
from amaranth.hdl import Module
from amaranth.lib import stream as amaranth_stream
from amaranth.lib import wiring
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from cocotb_tools.runner import get_abs_path  # noqa: F401

from kappa_rtl.hw.export import ports, to_verilog

from .runner import Design, run
from .scoreboard import Scoreboard
from .stream import Checker, Consumer, Driver, Monitor, Stream, unpack

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
    seed: int = 1,
    effort: int = 1,
    only: str = "",
    env: Mapping[str, str] | None = None,
) -> None:
    """Run the cocotb tests of ``bench_<stem>`` on a bank of its components.

    Args:
        parameters: what makes each component, by the name under which it stands in the bank.
        seed: of all random choices.
        effort: a factor for how many random values are tried.
        only: a regular expression of the cocotb tests to run; all if empty.

    Raises:
        SimulationError: a test failed.
    """
    module = importlib.import_module(f"{__package__}.bench_{stem}")
    bank = Bank({name: module.component(**values) for name, values in parameters.items()})
    setting = {"units": parameters, "simulator": simulator, "seed": seed, "effort": effort}
    told = {ENVIRONMENT: json.dumps(setting), "COCOTB_LOG_LEVEL": "WARNING"} | dict(env or {})
    if only:
        told["COCOTB_TEST_FILTER"] = only
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        source = Path(folder) / f"{stem}.v"
        source.write_text(to_verilog(bank, stem))
        run(Design((source,), stem), module.__name__, simulator=simulator, env=told)


# ------------------------------------------------------------------------------------------------ inside the simulator


def setting() -> dict[str, Any]:
    """What :func:`simulate` was told."""
    return json.loads(os.environ[ENVIRONMENT])  # type: ignore[no-any-return]


async def units(dut: Any, component: Callable[..., Any]) -> Iterator[Bench]:  # type: ignore[misc]
    ...
