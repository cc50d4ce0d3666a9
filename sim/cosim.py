"""The RTL unit behind the common interface: the exported Verilog in a simulator, a step at a time."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..golden.checkpoint import Stateful
from ..golden.config import Source, ThrottleConfig
from ..golden.formats import Fixed, Scalar
from ..golden.numbers import Real, real, whole
from ..golden.registers import BLOCK_BITS, WATCHES, Registers
from ..golden.segments import Segment
from ..golden.throttle import StepRecord, check_config, check_direction, codes_of, laid_out, real_of
from ..hw.manifest import bit_map
from ..hw.scalar.decide import constant_words
from ..hw.units.ports import host_words, registers_layout, shared_bits
from ..hw.units.segments import entry_layout, layout_words
from ..hw.units.watchdog import watchdog_mask
from .exports import exported
from .runner import Design, SimulationError, build, run
from .vectors import from_text, pack, unpack
from .wave import fields as fields_module

LAW = ("eta", "eta_max", "num", "bias", "gain", "source", "alpha_min", "rho", "eps", "ema_start", "on_still", "enabled")
"""What the host writes at run time; everything else is the hardware's."""

HARNESS = Path(__file__).with_name("harness.v")
MAIN = HARNESS.with_suffix(".cpp")

MOST_STALLS = 250
"""Of 256 cycles; with more a step would hardly end."""

OPTIMISATION = "-O2"
"""Of the C++ compiler. Runs of a few steps end sooner with -O0: they are over before optimised code is compiled."""

UNREADABLE = (
    "state must be that of a golden unit, which agrees with the RTL to the bit: no port of the RTL shows P, the residuals or the "
    "generators; to bring an RTL unit there, give it the same steps again"
)

MOST_BLOCKS = 4096
"""Block energies that the harness can hold for a step."""


@dataclass(frozen=True)
class Stalls:
    """How often the harness idles its producers and withholds ready, in chances of 256 a cycle; and the seed."""

    idle: int = 0
    stall: int = 0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("idle", "stall"):
            if not 0 <= getattr(self, name) <= MOST_STALLS:
                raise ValueError(f"{name} must be a chance of 256 from 0 to {MOST_STALLS}, not {getattr(self, name)!r}")


class RtlThrottle(Stateful):
    """The exported Verilog in a simulator, with the interface of the golden unit; a context manager.

    Args:
        config: the configuration that is exported and simulated.
        weights, codes: the initial theta, (N,), as for :class:`~kappa_rtl.golden.throttle.Throttle`.
        simulator: ``verilator`` or ``icarus``.
        streaming: the variant without gradient memory; needed for a ``direction`` of its own.
        stalls: pseudo-random idle cycles and backpressure.
        wave_from: the step from which a waveform is written to ``wave.vcd`` in ``folder``, whole when the unit is closed; None
            for no waveform.
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
        codes: bool | None = None,
        simulator: str = "verilator",
        streaming: bool = False,
        stalls: Stalls | None = None,
        wave_from: int | None = None,
        folder: Path | None = None,
        verilog: str | None = None,
    ) -> None:
        check_config(config)
        self._check(config)
        self._config = config
        self._watchdog = RtlWatchdog(config) if config.watchdog else None
        self._theta = _vector(weights, config, "weight", "weights", codes)
        self._simulator, self._streaming, self._wave_from = simulator, streaming, wave_from
        self._stalls = stalls or Stalls()
        self._rate = real("eta", config.eta)
        self._layout = bit_map(registers_layout(config))
        self._width = registers_layout(config).size
        self._steps = 0
        self._loaded = False
        self.cycles: list[int] = []  #: clock cycles of each step, from the first gradient beat to the registers
        self.span = (0, 0)  #: nanoseconds of simulated time at which the last step began and was done
        self._stack = contextlib.ExitStack()
        try:
            self._folder = (
                folder.resolve()
                if folder
                else Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="kappa-rtl-", dir=_memory())))
            )
            self._start(verilog if verilog is not None else exported(config, streaming=streaming)[0])
        except BaseException:
            self._stack.close()
            raise

    def _check(self, config: ThrottleConfig) -> None:
        """Refuse a configuration that this cannot run."""
        if config.population is not None:
            raise ValueError(f"population must not be given here, where no other shards are, not {config.population!r}")

    def _start(self, verilog: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        source = self._folder / "throttle.v"
        source.write_text(verilog)
        waves = self._wave_from is not None
        self.design = self._made_of(source, waves)
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

    def _made_of(self, source: Path, waves: bool) -> Design:
        """What is simulated."""
        return harness(self._config, source, streaming=self._streaming, waves=waves)

    def _host_words(self) -> dict[str, int]:
        """What the harness must know before a first step."""
        stalls = self._stalls
        # The bound is generous: stalls slow a step down by the chance that nothing moves.
        slow = 256 / (256 - stalls.idle) * 256 / (256 - stalls.stall)
        limit = int(8 * slow * (2 * self._config.beats + 1000) + 10_000)
        pace = {"idle": stalls.idle, "stall": stalls.stall, "limit": limit}
        return host_words(self._config) | pace | {"beats": self._config.beats}

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
        return real_of(self._theta, self._config, "weight")

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

    def state_dict(self) -> NoReturn:
        """Always refused: the hardware's ports do not show its state.

        Raises:
            ValueError: says so, and what to do.
        """
        raise ValueError(UNREADABLE)

    def load_state_dict(self, state: Mapping[str, Any]) -> NoReturn:
        """Always refused, as :meth:`state_dict` is."""
        raise ValueError(UNREADABLE)

    def load_weights(self, weights: ArrayLike, *, codes: bool | None = None) -> None:
        """Put other weights in the place of theta, between two steps, as in golden; all else stays."""
        self._theta = _vector(weights, self._config, "weight", "weights", codes)
        self._loaded = False

    def set_rate(self, eta: Real) -> None:
        """Change the learning rate, between two steps, as :meth:`kappa_rtl.golden.throttle.Throttle.set_rate` does."""
        self._words |= constant_words(self._config.scalar, self._config.constants_at(eta))
        self._rate = real("eta", eta)

    @property
    def rate(self) -> Fraction:
        """The learning rate."""
        return self._rate

    def restart(
        self, config: ThrottleConfig, weights: ArrayLike, *, codes: bool | None = None, stalls: Stalls | None = None
    ) -> None:
        """A first step again, on the same hardware: pulse the reset, write new constants and modes, load new weights.

        Raises:
            ValueError: the configuration needs other hardware: another format, size or limit.
        """
        kind = Source(self._config.source).alike
        if config.source not in kind:
            raise ValueError(f"source must be of {', '.join(kind)}, for which the unit is built, not {config.source}")
        same = {name: getattr(config, name) for name in LAW}
        if config.segments and self._config.segments:  # another layout is not another hardware
            config = config.replace(capacity=config.room)
            same |= {"segments": config.segments, "elements": config.elements, "capacity": self._config.room}
        if self._config.replace(**same) != config or config.step != self._config.step:
            raise ValueError(f"config must differ from the unit's only in {', '.join(LAW)}, not {config}")
        if config.delay and config.initial_step != self._config.initial_step:
            raise ValueError(f"eta must be the unit's own where delay = 1, whose first step it is, not {config.eta}")
        theta = _vector(weights, config, "weight", "weights", codes)
        self._stalls, self._rate = stalls or self._stalls, real("eta", config.eta)
        self._begin_anew(config, theta)

    def layout(self, segments: Sequence[Segment | Mapping[str, Any]], weights: ArrayLike, *, codes: bool | None = None) -> None:
        """Go on with another network on the same hardware, as :meth:`kappa_rtl.golden.throttle.Throttle.layout` does.

        The reset is pulsed, the table written through the unit's port ``layout``, and the weights are loaded with the next step.
        """
        config, rate = laid_out(self._config, segments), self._rate
        theta = _vector(weights, config, "weight", "weights", codes)
        self._begin_anew(config, theta)
        self.set_rate(rate)

    def _begin_anew(self, config: ThrottleConfig, theta: NDArray[Any]) -> None:
        """Pulse the reset; the first step is then one of this configuration, from these weights."""
        self._config, self._theta = config, theta
        self._loaded, self._steps = False, 0
        self._watchdog = RtlWatchdog(config) if config.watchdog else None
        self._send({"reset": 1})
        self._words = self._host_words()
        if config.segments:  # after a reset the table is that of the export
            size = -(-entry_layout(config).size // 8)
            words = b"".join(word.to_bytes(size, "big") for word in layout_words(config))
            (self._folder / "layout.bin").write_bytes(words)
            self._words["entries"] = config.entries

    def step(self, gradient: ArrayLike, direction: ArrayLike | None = None, *, codes: bool | None = None) -> StepRecord:
        """One step in the simulator; as :meth:`kappa_rtl.golden.throttle.Throttle.step`.

        Raises:
            SimulationError: the unit hangs, breaks a stream rule, or the simulator stops.
        """
        return self._made(self._send(self._given(gradient, direction, codes)))

    def _given(self, gradient: ArrayLike, direction: ArrayLike | None, codes: bool | None) -> dict[str, Any]:
        """Lay the vectors of a step before the harness; the words that set it off."""
        config = self._config
        g, w, *_ = config.grids
        absorbed = _vector(gradient, config, "gradient", "gradient", codes)
        # The unit must ignore the lanes beyond N, so there is something in them to ignore.
        padding = -1 << (g.width - 1) if self._steps % 2 else 1
        (self._folder / "gradient.bin").write_bytes(self._packed(absorbed, g, padding))
        if self._streaming:
            d = config.grids.direction
            check_direction(config, direction)
            along = absorbed if direction is None else _vector(direction, config, "direction", "direction", codes)
            (self._folder / "direction.bin").write_bytes(self._packed(along, d))
        elif direction is not None:
            raise ValueError("direction must be None for the unit with a gradient memory; use the streaming variant")
        if not self._loaded:
            (self._folder / "weights.bin").write_bytes(self._packed(self._theta, w))
        seed = (self._stalls.seed * 2654435761 + self._steps * 40503) % (1 << 32)
        words = {"entries": 0, **self._words, "load": int(not self._loaded), "seed": seed}
        if self._watchdog is not None:
            words |= self._watchdog.hand_over(self._folder)
        if self._wave_from is not None and self._steps >= self._wave_from:
            words["wave"] = 1
        return words

    def _made(self, answer: dict[str, Any]) -> StepRecord:
        """What the harness made of a step."""
        config = self._config
        _, w, y, *_ = config.grids
        self._words = {}  # constants keep their values in the harness
        self._loaded = True
        self.span = answer["span"]
        if answer["hung"]:
            raise SimulationError(f"step {self._steps}: the unit did not finish within {answer['cycles']} cycles")
        if answer["violations"]:
            raise SimulationError(f"step {self._steps}: {answer['violations']} violations of the stream rules")
        self.cycles.append(answer["cycles"])
        theta, update = (
            unpack(self._dump(name), fmt, config.lanes, config.elements, config.segments)
            for name, fmt in (("weights", w), ("update", y))
        )
        theta.flags.writeable = update.flags.writeable = False
        record = StepRecord(self._steps, self._registers(answer["registers"]), theta, update, config)
        self._theta = theta
        self._steps += 1
        return record

    def _packed(self, codes: NDArray[Any], fmt: Fixed, padding: int = -1) -> bytes:
        """A vector as the bytes of the harness's memory."""
        return pack(codes, fmt.width, self._config.lanes, padding, self._config.segments)

    def _dump(self, name: str) -> bytes:
        """What the harness wrote of a memory, as far as a pass goes: a layout of segments may leave some of it untouched."""
        if self._simulator == "verilator":
            words = (self._folder / f"{name}.out.bin").read_bytes()
            return words[: len(words) // self._config.words * self._config.beats]
        return from_text((self._folder / f"{name}.out.hex").read_text(), self._config.beats)

    def _registers(self, bits: str) -> Registers:
        if set(bits) - {"0", "1"}:
            raise SimulationError(f"step {self._steps}: the registers hold undefined bits: {bits}")
        return registers_from_word(int(bits, 2), self._layout)

    def _send(self, message: dict[str, Any] | None) -> Any:
        self._tell(message)
        return self._answer() if message is not None else None

    def _tell(self, message: Any) -> None:
        try:
            self._link.send(message)
        except (EOFError, OSError):
            self._lost()

    def _answer(self) -> Any:
        try:
            return self._link.recv()
        except (EOFError, OSError):
            self._lost()

    def _lost(self) -> NoReturn:
        self._thread.join(10)
        self._stopped()

    def _stopped(self) -> NoReturn:
        raise self._failure or SimulationError("the simulator stopped without a word")

    def _stop(self) -> None:
        with contextlib.suppress(OSError, SimulationError):
            self._send(None)
            self._link.close()
        self._thread.join(30)

    def close(self) -> None:
        """End the simulation."""
        self._stack.close()

    def __enter__(self) -> Self:
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
        blocks = [whole("a block's energy", energy, 0, (1 << BLOCK_BITS) - 1) for energy in energies]
        if blocks and "norm_growth" not in self.config.watchdog:
            raise ValueError(f"watchdog must name norm_growth for a unit that takes blocks, not {self.config.watchdog!r}")
        if len(self._blocks) + len(blocks) > MOST_BLOCKS:
            raise ValueError(f"blocks must be at most {MOST_BLOCKS} a step, not {len(self._blocks) + len(blocks)}")
        self._blocks += blocks

    def hand_over(self, folder: Path) -> dict[str, int]:
        """The words for the harness; the blocks go into a file."""
        words = {"watchdog_mask": self.mask, "blocks": len(self._blocks)}
        (folder / "blocks.bin").write_bytes(b"".join(energy.to_bytes(BLOCK_BITS // 8, "big") for energy in self._blocks))
        self._blocks = []
        return words


def _memory() -> str | None:
    """A folder in memory, where there is one: vectors pass through files."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None


def prepare(config: ThrottleConfig, verilog: str, simulator: str, *, streaming: bool = False, waves: bool = False) -> None:
    """Build what an :class:`RtlThrottle` will run, so that a failure comes before anything else is done."""
    with tempfile.TemporaryDirectory(prefix="kappa-rtl-") as folder:
        source = Path(folder) / "throttle.v"
        source.write_text(verilog)
        build(harness(config, source, streaming=streaming, waves=waves), simulator, waves)


def harness(config: ThrottleConfig, source: Path, *, streaming: bool = False, waves: bool = False) -> Design:
    """The exported unit of a configuration in its harness; for waves with a file beside the source that names its fields."""
    named = source.with_name("fields.v")
    if waves:
        named.write_text(fields_module(config))
    g, w, y, *_ = config.grids
    lanes = config.lanes
    residual = config.residual_bits * lanes if streaming else 0
    return Design(
        sources=(source, HARNESS, *([named] if waves else [])),
        toplevel="harness",
        parameters={
            "BEATS": config.words,
            "GRADIENT": g.width * lanes,
            "DIRECTION": config.grids.direction.width * lanes,
            "WEIGHT": w.width * lanes,
            "UPDATE": y.width * lanes,
            "UPDATED": (w.width + y.width) * lanes + residual,
            "REGISTERS": registers_layout(config).size,
            "SCALAR": config.scalar.width,
        },
        defines=({"STREAMING": 1} if streaming else {})
        | ({"WAVES": 1} if waves else {})
        | ({"RESIDUAL": residual} if residual else {})
        | ({"WATCHDOG": 1} if config.watchdog else {})
        | ({"BLOCKS": MOST_BLOCKS} if "norm_growth" in config.watchdog else {})
        | ({"SHARD": shared_bits(config)} if config.population is not None else {})
        | ({"ENTRIES": config.entries, "ENTRY": entry_layout(config).size} if config.segments else {}),
        main=MAIN,
        optimisation=OPTIMISATION,
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


def _vector(tensor: ArrayLike, config: ThrottleConfig, grid: str, name: str, codes: bool | None) -> NDArray[Any]:
    array = codes_of(tensor, config, grid, name, codes=codes)
    if array.shape != (config.elements,):
        raise ValueError(f"{name} must have shape ({config.elements},), not {array.shape}")
    return array
