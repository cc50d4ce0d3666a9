"""The RTL unit behind the common interface, and the lockstep of two units that must agree to the bit."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import socket
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kappa_rtl.golden.config import BLOCK_BITS, WATCHES, ThrottleConfig
from kappa_rtl.golden.formats import Fixed, Scalar
from kappa_rtl.golden.rounding import on_grid, storage_dtype, values
from kappa_rtl.golden.throttle import Registers, StepRecord
from kappa_rtl.hw.export import bit_map, export
from kappa_rtl.hw.ports import host_words, registers_layout
from kappa_rtl.hw.watchdog import watchdog_mask

from .runner import Design, SimulationError, build, run

LAW = ("eta", "eta_max", "num", "bias", "gain", "source", "alpha_min", "rho", "eps", "ema_start", "on_still", "enabled")
"""What the host writes at run time; everything else is the hardware's."""

HARNESS = Path(__file__).with_name("harness.v")

MOST_BLOCKS = 4096
"""Block energies that the harness can hold for a step."""


# ------------------------------------------------------------------------------------------------ memory files


def pack(codes: NDArray[Any], width: int, lanes: int, padding: int = 0) -> bytes:
    """Codes as the bytes of a memory: a word a beat, lane 0 in its low bits, highest byte first, unused lanes ``padding``."""
    beats = -(-codes.size // lanes)
    padded = np.full(beats * lanes, padding, np.int64)
    padded[: codes.size] = codes
    if width in (8, 16, 32):
        rows = padded.astype(f"<i{width // 8}").view(np.uint8).reshape(beats, -1)
    else:
        bits = (padded[:, None] >> np.arange(width)) & 1
        rows = np.packbits(bits.reshape(beats, -1).astype(np.uint8), axis=1, bitorder="little")
    return rows[:, ::-1].tobytes()


def unpack(text: str, fmt: Fixed, lanes: int, count: int) -> NDArray[np.signedinteger[Any]]:
    """The codes in a hexadecimal dump of such a memory; the reverse of :func:`pack`.

    Raises:
        SimulationError: a bit is undefined, or an unused lane is not zero.
    """
    width = fmt.width
    try:
        digits = re.sub("//[^\n]*", "", text) if "/" in text else text  # Icarus writes addresses as comments
        rows = np.frombuffer(bytes.fromhex(digits), np.uint8).reshape(-(-count // lanes), -1)[:, ::-1]
    except ValueError as error:
        raise SimulationError(f"the simulator wrote undefined or missing bits into a vector: {error}") from None
    if width in (8, 16, 32):
        codes = np.ascontiguousarray(rows).view(f"<i{width // 8}").reshape(-1)
    else:
        bits = np.unpackbits(rows, axis=1, bitorder="little")[:, : width * lanes].reshape(-1, width).astype(np.int64)
        codes = bits @ (1 << np.arange(width, dtype=np.int64)) - (bits[:, -1] << width)
    if codes[count:].any():
        raise SimulationError("the lanes beyond the last element must be zero")
    return codes[:count].astype(storage_dtype(fmt))


# ------------------------------------------------------------------------------------------------ the unit


@dataclass(frozen=True)
class Stalls:
    """How often the harness idles its producers and withholds ready, in chances of 256 a cycle; and the seed."""

    idle: int = 0
    stall: int = 0
    seed: int = 1


class RtlThrottle:
    """The exported Verilog in a simulator, with the interface of the golden unit; a context manager.

    Args:
        config: the configuration that is exported and simulated.
        weights: the initial theta, (N,): integer codes, or real values on the weight grid.
        simulator: ``verilator`` or ``icarus``.
        streaming: the variant without gradient memory; needed for a ``direction`` of its own.
        stalls: pseudo-random idle cycles and backpressure.
        wave_from: the step from which a waveform is written to ``wave.vcd`` in ``folder``; None for no waveform.
        folder: the working folder; a temporary one if not given.
        verilog: the text to simulate instead of a fresh export (a mutant, or a file of the user's).

    Raises:
        SimulationError: the simulator is missing, refuses the Verilog, or stops.
    """

    def __init__(
        self,
        config: ThrottleConfig,
        weights: ArrayLike,
        *,
        simulator: str = "verilator",
        streaming: bool = False,
        stalls: Stalls | None = None,
        wave_from: int | None = None,
        folder: Path | None = None,
        verilog: str | None = None,
    ) -> None:
        if config.population is not None:
            raise ValueError(f"population must not be given here, where no other shards are, not {config.population!r}")
        self._config = config
        self._watchdog = RtlWatchdog(config) if config.watchdog else None
        self._theta = _vector(weights, config, config.grids.weight, "weights")
        self._simulator, self._streaming, self._wave_from = simulator, streaming, wave_from
        self._stalls = stalls or Stalls()
        self._layout = bit_map(registers_layout(config))
        self._width = registers_layout(config).size
        self._steps = 0
        self._loaded = False
        self.cycles: list[int] = []  #: clock cycles of each step, from the first gradient beat to the registers
        self._stack = contextlib.ExitStack()
        try:
            self._folder = (
                folder.resolve()
                if folder
                else Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kappa-rtl-", dir=_memory())))
            )
            self._start(verilog if verilog is not None else export(config, streaming=streaming)[0])
        except BaseException:
            self._stack.close()
            raise

    def _start(self, verilog: str) -> None:
        config = self._config
        self._folder.mkdir(parents=True, exist_ok=True)
        source = self._folder / "throttle.v"
        source.write_text(verilog)
        self.design = harness(config, source, streaming=self._streaming)
        waves = self._wave_from is not None
        build(self.design, self._simulator, waves)  # in this thread, so that its errors surface here

        # An abstract-length-safe socket: the folder of the run may have a path longer than a socket's can be.
        room = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kappa-rtl-")))
        server = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        server.bind(str(room / "socket"))
        server.listen(1)
        server.settimeout(0.2)
        self._failure: BaseException | None = None
        env = {"KAPPA_RTL_SOCKET": str(room / "socket"), "COCOTB_LOG_LEVEL": "WARNING"}

        def simulate() -> None:
            try:
                run(self.design, "kappa_rtl.sim.server", simulator=self._simulator, env=env, cwd=self._folder, waves=waves)
            except BaseException as error:  # handed to the thread that waits for the simulator
                self._failure = error

        self._thread = threading.Thread(target=simulate, daemon=True)
        self._thread.start()
        while True:
            try:
                link, _ = server.accept()
                break
            except TimeoutError:
                if not self._thread.is_alive():
                    self._stopped()
        link.setblocking(True)
        self._link = Connection(link.detach())
        self._stack.callback(self._stop)
        self._send({"reset": 1})
        self._words = self._host_words()

    def _host_words(self) -> dict[str, int]:
        """What the harness must know before a first step."""
        stalls = self._stalls
        # The bound is generous: stalls slow a step down by the chance that nothing moves.
        slow = 256 / (256 - stalls.idle) * 256 / (256 - stalls.stall)
        limit = int(8 * slow * (2 * self._config.beats + 1000) + 10_000)
        return host_words(self._config) | {"idle": stalls.idle, "stall": stalls.stall, "limit": limit}

    @property
    def config(self) -> ThrottleConfig:
        return self._config

    @property
    def theta(self) -> NDArray[Any]:
        """The weights as codes, (N,)."""
        return self._theta

    @property
    def weights(self) -> NDArray[np.float64]:
        """The weights as real values, (N,)."""
        return values(self._theta, self._config.grids.weight)

    @property
    def watchdog(self) -> RtlWatchdog:
        """The watchdog, as :attr:`kappa_rtl.golden.throttle.Throttle.watchdog`: it takes blocks and a mask.

        Raises:
            ValueError: the configuration watches nothing.
        """
        if self._watchdog is None:
            raise ValueError(f"watchdog must name what is watched, of {', '.join(WATCHES)}, not {self._config.watchdog!r}")
        return self._watchdog

    def clear(self) -> None:
        """Zero the counters, the flags and the run of still steps; the training state stays."""
        self._send({"clear": 1})

    def restart(self, config: ThrottleConfig, weights: ArrayLike, *, stalls: Stalls | None = None) -> None:
        """A first step again, on the same hardware: pulse the reset, write new constants and modes, load new weights.

        Raises:
            ValueError: the configuration needs other hardware: another format, size or limit.
        """
        same = {name: getattr(config, name) for name in LAW}
        if self._config.replace(**same) != config or config.step != self._config.step:
            raise ValueError(f"config must differ from the unit's only in {', '.join(LAW)}, not {config}")
        if config.delay and config.initial_step != self._config.initial_step:
            raise ValueError(f"eta must be the unit's own where delay = 1, whose first step it is, not {config.eta}")
        self._config = config
        self._theta = _vector(weights, config, config.grids.weight, "weights")
        self._stalls = stalls or self._stalls
        self._loaded, self._steps = False, 0
        self._send({"reset": 1})
        self._words = self._host_words()

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None) -> StepRecord:
        """One step in the simulator; as :meth:`kappa_rtl.golden.throttle.Throttle.step`.

        Raises:
            SimulationError: the unit hangs, breaks a stream rule, or the simulator stops.
        """
        config = self._config
        g, w, y, _ = config.grids
        absorbed = _vector(gradient, config, g, "gradient")
        # The unit must ignore the lanes beyond N, so there is something in them to ignore.
        padding = -1 << (g.width - 1) if self._steps % 2 else 1
        (self._folder / "gradient.bin").write_bytes(pack(absorbed, g.width, config.lanes, padding))
        if self._streaming:
            along = absorbed if direction is None else _vector(direction, config, g, "direction")
            (self._folder / "direction.bin").write_bytes(pack(along, g.width, config.lanes, padding))
        elif direction is not None:
            raise ValueError("direction must be None for the unit with a gradient memory; use the streaming variant")
        if not self._loaded:
            (self._folder / "weights.bin").write_bytes(pack(self._theta, w.width, config.lanes, padding=-1))
        words = self._words | {
            "load": int(not self._loaded),
            "seed": (self._stalls.seed * 2654435761 + self._steps * 40503) % (1 << 32),
        }
        if self._watchdog is not None:
            words |= self._watchdog.hand_over(self._folder)
        if self._wave_from is not None and self._steps >= self._wave_from:
            words["wave"] = 1
        answer = self._send(words)
        self._words = {}  # constants keep their values in the harness
        self._loaded = True
        if answer["hung"]:
            raise SimulationError(f"step {self._steps}: the unit did not finish within {answer['cycles']} cycles")
        if answer["violations"]:
            raise SimulationError(f"step {self._steps}: {answer['violations']} violations of the stream rules")
        self.cycles.append(answer["cycles"])
        theta = unpack((self._folder / "weights.out.hex").read_text(), w, config.lanes, config.elements)
        update = unpack((self._folder / "update.out.hex").read_text(), y, config.lanes, config.elements)
        theta.flags.writeable = update.flags.writeable = False
        record = StepRecord(self._steps, self._registers(answer["registers"]), theta, update, config)
        self._theta = theta
        self._steps += 1
        return record

    def _registers(self, bits: str) -> Registers:
        if set(bits) - {"0", "1"}:
            raise SimulationError(f"step {self._steps}: the registers hold undefined bits: {bits}")
        return registers_from_word(int(bits, 2), self._layout)

    def _send(self, message: dict[str, Any] | None) -> Any:
        try:
            self._link.send(message)
            return self._link.recv() if message is not None else None
        except (EOFError, OSError):
            self._thread.join(10)
            self._stopped()

    def _stopped(self) -> None:
        raise self._failure or SimulationError("the simulator stopped without a word")

    def _stop(self) -> None:
        with contextlib.suppress(OSError, SimulationError):
            self._send(None)
            self._link.close()
        self._thread.join(30)

    def close(self) -> None:
        """End the simulation."""
        self._stack.close()

    def __enter__(self) -> RtlThrottle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RtlWatchdog:
    """What the host tells the watchdog of an :class:`RtlThrottle`: its ``mask``, and the blocks of the step to come."""

    def __init__(self, config: ThrottleConfig) -> None:
        self.config = config
        self.mask = watchdog_mask(config)
        self._blocks: list[int] = []

    def blocks(self, energies: Iterable[int]) -> None:
        """Further blocks of the step to come: the squares of their norms, integers of 48 bits on a grid of their own.

        Raises:
            ValueError: one is no such integer, there are more than the harness holds, or growth is not watched.
        """
        blocks = list(energies)
        if blocks and "norm_growth" not in self.config.watchdog:
            raise ValueError(f"watchdog must name norm_growth for a unit that takes blocks, not {self.config.watchdog!r}")
        for energy in blocks:
            if not 0 <= energy < 1 << BLOCK_BITS:
                raise ValueError(f"a block's energy must be an integer from 0 to {(1 << BLOCK_BITS) - 1}, not {energy!r}")
        if len(self._blocks) + len(blocks) > MOST_BLOCKS:
            raise ValueError(f"blocks must be at most {MOST_BLOCKS} a step, not {len(self._blocks) + len(blocks)}")
        self._blocks += map(int, blocks)

    def hand_over(self, folder: Path) -> dict[str, int]:
        """The words for the harness; the blocks go into a file."""
        words = {"watchdog_mask": self.mask, "blocks": len(self._blocks)}
        (folder / "blocks.bin").write_bytes(b"".join(energy.to_bytes(BLOCK_BITS // 8, "big") for energy in self._blocks))
        self._blocks = []
        return words


def _memory() -> str | None:
    """A folder in memory, where there is one: vectors pass through files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def prepare(config: ThrottleConfig, verilog: str, simulator: str, *, waves: bool = False) -> None:
    """Build what an :class:`RtlThrottle` will run, so that a failure comes before anything else is done."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        source = Path(folder) / "throttle.v"
        source.write_text(verilog)
        build(harness(config, source), simulator, waves)


def harness(config: ThrottleConfig, source: Path, *, streaming: bool = False) -> Design:
    """The exported unit of a configuration in its harness."""
    g, w, y, _ = config.grids
    lanes = config.lanes
    residual = config.residual_bits * lanes if streaming else 0
    return Design(
        sources=(source, HARNESS),
        toplevel="harness",
        parameters={
            "BEATS": config.beats,
            "GRADIENT": g.width * lanes,
            "WEIGHT": w.width * lanes,
            "UPDATE": y.width * lanes,
            "UPDATED": (w.width + y.width) * lanes + residual,
            "REGISTERS": registers_layout(config).size,
            "SCALAR": config.scalar.width,
        },
        defines=({"STREAMING": 1} if streaming else {})
        | ({"RESIDUAL": residual} if residual else {})
        | ({"WATCHDOG": 1} if config.watchdog else {})
        | ({"BLOCKS": MOST_BLOCKS} if "norm_growth" in config.watchdog else {}),
        timing=True,
    )


def registers_from_word(word: int, layout: list[dict[str, Any]]) -> Registers:
    """The registers from the packed word of the port, by the bit map of its payload."""
    leaves: dict[str, int] = {}
    for leaf in layout:
        value = word >> leaf["lsb"] & ((1 << leaf["width"]) - 1)
        leaves[leaf["name"]] = value - (value >> leaf["width"] - 1 << leaf["width"]) if leaf["signed"] else value
    found: dict[str, Any] = {}
    for field in fields(Registers):
        if f"{field.name}.m" in leaves:
            found[field.name] = Scalar(leaves[f"{field.name}.m"], leaves[f"{field.name}.e"])
        elif field.name in leaves:  # the others are of options that the unit does not have
            found[field.name] = bool(leaves[field.name]) if field.type == "bool" else leaves[field.name]
    return Registers(**found)


def _vector(tensor: ArrayLike, config: ThrottleConfig, fmt: Fixed, name: str) -> NDArray[Any]:
    array = on_grid(tensor, fmt, name)
    if array.shape != (config.elements,):
        raise ValueError(f"{name} must have shape ({config.elements},), not {array.shape}")
    return array


# ------------------------------------------------------------------------------------------------ lockstep


@dataclass(frozen=True)
class Difference:
    """The first place where two units disagree."""

    step: int
    signal: str
    element: int | None
    expected: Any
    got: Any
    width: int | None

    def to_json(self) -> dict[str, Any]:
        """Everything about it, each value in decimal and in bits."""
        return {
            "step": self.step,
            "signal": self.signal,
            "element": self.element,
            "golden": _both(self.expected, self.width),
            "rtl": _both(self.got, self.width),
        }

    def __str__(self) -> str:
        where = self.signal if self.element is None else f"{self.signal}[{self.element}]"
        return f"step {self.step}, {where}: golden {_both(self.expected, self.width)}, rtl {_both(self.got, self.width)}"


def _both(value: Any, width: int | None) -> str:
    """A value in decimal and in bits."""
    if isinstance(value, tuple):
        return (
            f"{float(value):.9g} = {value[0]} * 2**{value[1]} (m {value[0]:b}, e {value[1]})"
            if isinstance(value, Scalar)
            else repr(value)
        )
    number = int(value)
    bits = f"{number % (1 << width):0{width}b}" if width else f"{number:b}"
    return f"{number} (0b{bits})"


@functools.lru_cache
def _held(config: ThrottleConfig) -> frozenset[str]:
    """The registers that a unit has."""
    return frozenset(registers_layout(config).members)


def compare(golden: StepRecord, rtl: StepRecord) -> tuple[int, Difference | None]:
    """How many values two exact records have in common, and the first one in which they differ."""
    compared = 0
    config = golden.config
    assert config is not None, "an exact record has its configuration"
    held = _held(config)
    for field in fields(Registers):
        a, b = getattr(golden.registers, field.name), getattr(rtl.registers, field.name)
        if a != b:
            return compared, Difference(golden.step, field.name, None, a, b, None)
        compared += field.name in held  # a register that the unit lacks agrees by its default, and is no evidence
    for name, fmt in (("update", config.grids.update), ("theta", config.grids.weight)):
        a, b = getattr(golden, name), getattr(rtl, name)
        if a.shape != b.shape:
            return compared, Difference(golden.step, f"{name}.shape", None, a.size, b.size, None)
        bad = np.flatnonzero(a != b)
        if bad.size:
            i = int(bad[0])
            return compared, Difference(golden.step, name, i, a[i], b[i], fmt.width)
        compared += a.size
    return compared, None
