"""cocotb: both units take steps at the same time, and each equals its golden model to the bit."""

from __future__ import annotations

from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from kappa_rtl import Throttle, ThrottleConfig

STEPS = 5


def beats(codes: np.ndarray, lanes: int, width: int) -> list[int]:
    """Elements side by side, lane 0 lowest; the last beat is filled with zeros."""
    padded = np.zeros(-(-len(codes) // lanes) * lanes, np.int64)
    padded[: len(codes)] = codes
    return [sum((int(x) % (1 << width)) << width * i for i, x in enumerate(row)) for row in padded.reshape(-1, lanes)]


def elements(words: list[int], lanes: int, width: int, count: int) -> list[int]:
    found = [word >> width * i & (1 << width) - 1 for word in words for i in range(lanes)][:count]
    return [x - (1 << width) if x >> width - 1 else x for x in found]


async def send(dut: Any, stream: str, words: list[int]) -> None:
    data, valid, ready = (getattr(dut, f"{stream}_{part}") for part in ("data", "valid", "ready"))
    for word in words:
        data.value, valid.value = word, 1
        await RisingEdge(dut.clk)
        while not ready.value:  # as it was before the edge
            await RisingEdge(dut.clk)
    valid.value = 0


async def train(dut: Any, name: str) -> None:
    config = ThrottleConfig.from_toml(f"{name}.toml")
    grids, lanes, n = config.grids, config.lanes, config.elements
    rng = np.random.default_rng(len(name))
    weights = rng.integers(-2000, 2000, n)
    golden = Throttle(config, weights, codes=True)
    for step in range(STEPS):
        gradient = rng.integers(-500, 500, n)
        seen: list[int] = []

        async def listen(seen: list[int] = seen) -> None:
            while len(seen) < config.beats:
                await RisingEdge(dut.clk)
                if getattr(dut, f"{name}_updated_valid").value:
                    seen.append(int(getattr(dut, f"{name}_updated_data").value) & (1 << lanes * grids.weight.width) - 1)

        listens = cocotb.start_soon(listen())
        await send(dut, f"{name}_gradient", beats(gradient, lanes, grids.gradient.width))
        await send(dut, f"{name}_weights", beats(weights, lanes, grids.weight.width))
        await listens
        expected = golden.step(gradient, codes=True).theta
        weights = np.array(elements(seen, lanes, grids.weight.width, n))
        assert weights.tolist() == expected.tolist(), f"{name}, step {step}"


@cocotb.test(timeout_time=100, timeout_unit="us")
async def two_units_train_side_by_side(dut: Any) -> None:
    Clock(dut.clk, 10, "ns").start()
    for name in ("first", "second"):
        for stream in ("gradient", "weights"):
            getattr(dut, f"{name}_{stream}_valid").value = 0
    dut.reset.value = 1
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.reset.value = 0
    trainings = [cocotb.start_soon(train(dut, name)) for name in ("first", "second")]
    for training in trainings:
        await training
