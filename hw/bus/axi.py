"""The unit on AXI: vectors as AXI4-Streams, everything else as registers on AXI4-Lite."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, ClockDomain, ClockSignal, DomainRenamer, Module, ResetSignal, Signal, Value, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ...golden.registers import BLOCK_BITS
from ..units.onepass import OnePass
from ..units.ports import vector
from ..units.throttle import Throttle
from .crossing import BUS, Crossing
from .file import RegisterFile, axi_lite
from .frames import FrameBuffer, FrameCheck
from .map import FRAMES, MOST_BLOCKS, checks_blocks, throttle_map
from .outlet import Outlet
from .registers import field_bits
from .steps import BETWEEN, PUBLISHING, Steps, numbers, updated_shape

__all__ = ["AxiThrottle"]


class AxiThrottle(wiring.Component):
    """:class:`~kappa_rtl.hw.units.throttle.Throttle` with AXI4-Streams for the vectors and AXI4-Lite registers for all else.

    A beat holds L elements side by side, lane 0 lowest, each sign-extended in a field of 8, 16 or 32 bits. What a field has
    above its element is ignored on the way in. ``s_axis_gradient`` and ``s_axis_weights`` take ceil(N/L) beats a step, then
    ``m_axis_updated`` gives as many; TLAST is on the last beat, whose TKEEP is low in the fields beyond N. A frame with
    TLAST elsewhere is answered by an event. With ``frames = "drop"`` it is dropped whole, as if it had never come: each vector
    waits in a :class:`~kappa_rtl.hw.bus.frames.FrameBuffer` until it is whole. With ``frames = "check"`` there is no such buffer,
    and the unit counts the beats of its passes itself, whatever TLAST says.

    A step begins as the first beat of its gradient comes, out of the buffer, while ``run`` is set, and ends when its registers
    are published (``steps``, the event ``done``). Its modes and constants are those that stand as it begins, whatever is
    written meanwhile; ``eps`` and ``on_still`` are those that stood as the step before it ended. A clear during a step
    acts when that has ended, after its registers were published.

    The command ``reset`` acts at once, in any state: the unit is then one that has taken no step and is not running, with no
    event up, and what was written to constants, modes and masks is kept. What is offered on an output stream stays until it is
    taken, see :class:`~kappa_rtl.hw.bus.outlet.Outlet`. AXI4-Lite goes on through it.

    ``irq`` is high while an event is up and enabled; ``learning_dead`` is that flag as the last step left it.

    A unit with a watchdog has the output ``watchdog``, high while a bit of it is up as the last step left them, and if it watches
    the growth of norms ``s_axis_blocks``. A shard has ``m_axis_partial`` and ``s_axis_total``. These carry an energy a beat, in
    the low bits of a field of 8, 16, 32, ... bits; what the field has above it is ignored on the way in, and zero on the way out.
    With ``frames = "drop"`` the energies of blocks are frames too, as long as the register ``blocks`` says, and the last beat of
    the weights waits until those that came whole have been looked at.

    With segments a vector has ceil(N_k/L) beats of each of them, TKEEP is low in the lanes beyond each, and the host may write
    another table right after a reset: see :class:`~kappa_rtl.hw.bus.layout.Layout`. While that is written in part no beat of a
    vector is taken. Either reset brings the configuration's table back, and ``still_norm``, which belongs to it.

    The registers are those of :func:`~kappa_rtl.hw.bus.map.throttle_map`; for their latency see
    :class:`~kappa_rtl.hw.bus.file.RegisterFile`. Throughput: steps end at most :attr:`period_cycles` apart. Reset, at any time: a
    unit that has taken no step, not running, with the constants of its configuration.

    With ``bus_clock`` AXI4-Lite has a clock ``s_axi_aclk`` and a reset ``s_axi_aresetn``, active low, of its own, behind a
    :class:`~kappa_rtl.hw.bus.crossing.Crossing`; all else stays on the unit's clock.

    Args:
        config: of the unit.
        frames: ``drop`` or ``check``.
        bus_clock: whether AXI4-Lite has a clock of its own.

    Raises:
        ValueError: there is no such way with frames.
    """

    def __init__(self, config: ThrottleConfig, frames: str = "drop", bus_clock: bool = False) -> None:
        if frames not in FRAMES:
            raise ValueError(f"frames must be one of {', '.join(FRAMES)}, not {frames!r}")
        self.config, self.frames, self.bus_clock = config, frames, bus_clock
        self.registers = throttle_map(config, frames)
        self.steps = Steps(config, self.registers)
        gradient, weight = (config.lanes * field_bits(fmt.width) for fmt in (config.grids.gradient, config.grids.weight))
        super().__init__(
            ({"s_axi_aclk": In(1), "s_axi_aresetn": In(1)} if bus_clock else {})
            | axi_lite()
            | {
                "s_axis_gradient_tdata": In(gradient),
                "s_axis_gradient_tlast": In(1),
                "s_axis_gradient_tvalid": In(1),
                "s_axis_gradient_tready": Out(1),
                "s_axis_weights_tdata": In(weight),
                "s_axis_weights_tlast": In(1),
                "s_axis_weights_tvalid": In(1),
                "s_axis_weights_tready": Out(1),
                "m_axis_updated_tdata": Out(weight),
                "m_axis_updated_tkeep": Out(weight // 8),
                "m_axis_updated_tlast": Out(1),
                "m_axis_updated_tvalid": Out(1),
                "m_axis_updated_tready": In(1),
                "irq": Out(1),
                "learning_dead": Out(1),
            }
            | ({"watchdog": Out(1)} if config.watchdog else {})
            | {
                f"{'m' if out else 's'}_axis_{name}_t{part}": Out(width) if out is (part != "ready") else In(width)
                for name, (out, bits) in self.numbers.items()
                for part, width in (("data", max(8, 1 << (bits - 1).bit_length())), ("valid", 1), ("ready", 1))
            }
            | ({"s_axis_blocks_tlast": In(1)} if checks_blocks(config, frames) else {})
        )

    @property
    def core(self) -> Throttle | OnePass:
        """The unit behind the bus."""
        return self.steps.core

    @property
    def numbers(self) -> dict[str, tuple[bool, int]]:
        """Streams of plain numbers that the unit has beside its vectors: by name whether it goes out, and bits."""
        return numbers(self.config)

    @property
    def passes(self) -> int:
        """How often the beats of a vector count in a step: as they are absorbed, as they are updated, as a buffer is filled."""
        return (1 if self.config.delay else 2) + (self.frames == "drop")

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond the beats of its passes."""
        return self.step_cycles - self.passes * self.config.beats

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the event ``done``, streams never stalling."""
        fills = self.config.beats - 1 + FrameBuffer.latency if self.frames == "drop" else 0
        return fills + self.period_cycles - BETWEEN

    @property
    def period_cycles(self) -> int:
        """The most cycles from one event ``done`` to the next one, streams never stalling."""
        outlets = 2 * sum(out for out, _ in self.numbers.values())  # a shard's two energies pass a register each
        return self.core.step_cycles + outlets + PUBLISHING + BETWEEN

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        steps = self.steps
        m.submodules.file = file = RegisterFile(self.registers)
        slave: Any = self._cross(m, file, platform) if self.bus_clock else file
        for name in axi_lite():
            own, theirs = getattr(self, name), getattr(slave, name)
            m.d.comb += own.eq(theirs) if self.signature.members[name].flow is Out else theirs.eq(own)

        # All but the registers and the outlets is in a domain of the same clock that the command resets too: out of a register, a
        # cycle after either, as the way to all of it is long. In that cycle nothing that comes out of it counts.
        self._restart = restart = Signal(init=1, name="restart")
        m.d.sync += restart.eq(file.stored.command.reset & ~restart)
        m.domains += ClockDomain("steps", local=True, async_reset=_asynchronous(platform))
        m.d.comb += [ClockSignal("steps").eq(ClockSignal()), ResetSignal("steps").eq(restart)]
        again = DomainRenamer("steps")
        m.submodules.steps = again(steps)
        m.d.comb += [
            file.restart.eq(restart),
            steps.stored.eq(file.stored),
            file.values.eq(steps.values),
            file.raised.eq(steps.raised),
            file.carried_out.eq(steps.carried_out),
            self.irq.eq((Value.cast(file.stored.irq_status) & Value.cast(file.stored.irq_enable)).any()),
            self.learning_dead.eq(steps.learning_dead),
        ]
        if self.config.watchdog:
            m.d.comb += self.watchdog.eq(steps.watchdog)
        came: list[Value] = []
        for name in ("gradient", "weights"):
            frames = self._enter(m, name)
            m.submodules[f"{name}_frames"] = again(frames)
            m.d.comb += file.raised.irq_status[f"{name}_frame"].eq(frames.broken)
            came.append(frames.i.valid & frames.i.ready)
        if self.config.segments:
            m.d.comb += steps.comes.eq(Cat(came).any())
        outlets = [self._leave(m, "updated", updated_shape(self.config))]
        m.d.comb += steps.left.eq(outlets[0].empty)
        for name, (out, bits) in self.numbers.items():
            if out:
                outlets.append(self._leave(m, name, unsigned(bits)))
            elif name == "blocks" and checks_blocks(self.config, self.frames):
                self._list(m, file, again)
            else:
                port = getattr(steps, name)
                self._join(m, f"s_axis_{name}", port, data=port.payload)
        m.d.comb += [outlet.cut.eq(restart) for outlet in outlets]
        m.d.comb += file.values.status.leaving.eq(Cat(outlet.leaving for outlet in outlets).any())
        return m

    def _cross(self, m: Module, file: RegisterFile, platform: Any) -> Crossing:
        """What stands between the bus and the registers where the bus has a clock of its own."""
        m.domains += ClockDomain(BUS, local=True, async_reset=_asynchronous(platform))
        m.d.comb += [ClockSignal(BUS).eq(self.s_axi_aclk), ResetSignal(BUS).eq(~self.s_axi_aresetn)]
        m.submodules.crossing = crossing = Crossing()
        for name in axi_lite():
            near, far = getattr(crossing, f"unit_{name}"), getattr(file, name)
            m.d.comb += far.eq(near) if self.signature.members[name].flow is In else near.eq(far)
        return crossing

    def _join(self, m: Module, prefix: str, port: Any, shuts: Value | None = None, **payload: Any) -> None:
        """Join a stream inside with the port of that name; the parts of its payload by name. While ``shuts`` no beat comes in."""
        out = prefix.startswith("m")
        ready = port.ready if out else port.ready & ~self._restart  # a beat taken in that cycle would be lost
        wires = payload | {"valid": port.valid, "ready": ready}
        if shuts is not None:
            # Both ways, or a beat would be taken inside that its sender still offers, or the other way round.
            own = getattr(self, f"{prefix}_tvalid")
            m.d.comb += [port.valid.eq(own & ~shuts), getattr(self, f"{prefix}_tready").eq(ready & ~shuts)]
            wires = payload
        for part, wire in wires.items():
            own = getattr(self, f"{prefix}_t{part}")
            m.d.comb += own.eq(wire) if out is (part != "ready") else wire.eq(own)

    def _leave(self, m: Module, name: str, shape: Any) -> Outlet:
        """A stream on its way out."""
        m.submodules[name] = outlet = Outlet(shape)
        wiring.connect(m, getattr(self.steps, name), outlet.i)
        payload = outlet.o.payload
        parts = {part: payload[part] for part in shape.members} if isinstance(shape, data.StructLayout) else {"data": payload}
        self._join(m, f"m_axis_{name}", outlet.o, **parts)
        return outlet

    def _list(self, m: Module, file: RegisterFile, again: DomainRenamer) -> None:
        """The energies of blocks, in lists."""
        lists = FrameBuffer(unsigned(BLOCK_BITS), MOST_BLOCKS, variable=True)
        m.submodules.blocks_frames = again(lists)
        blocks: Any = self.steps.blocks
        self._join(m, "s_axis_blocks", lists.i, data=lists.i.payload.data, last=lists.i.payload.last)
        m.d.comb += [
            lists.length.eq(file.stored.blocks.value),
            file.raised.irq_status.blocks_frame.eq(lists.broken),
            blocks.payload.eq(lists.o.payload.data),
            blocks.valid.eq(lists.o.valid),
            lists.o.ready.eq(blocks.ready),
            self.steps.holds.eq(lists.waits),
        ]

    def _enter(self, m: Module, name: str) -> FrameBuffer | FrameCheck:
        """What stands between the port of a vector and its pass."""
        grid = self.config.grids.gradient if name == "gradient" else self.config.grids.weight
        kind = FrameBuffer if self.frames == "drop" else FrameCheck
        segmented = bool(self.config.segments)
        frames = kind(vector(grid.width, self.config.lanes), self.config.words, variable=segmented)
        if segmented:
            m.d.comb += frames.length.eq(self.steps.beats)
        step = field_bits(grid.width)
        beat = Signal(self.config.lanes * step)
        shuts = self.steps.shut if segmented else None
        self._join(m, f"s_axis_{name}", frames.i, shuts, data=beat, last=frames.i.payload.last)
        for lane in range(self.config.lanes):
            m.d.comb += frames.i.payload.data[lane].eq(beat[step * lane : step * lane + grid.width].as_signed())
        wiring.connect(m, frames.o, getattr(self.steps, name))
        return frames


def _asynchronous(platform: Any) -> bool:
    """Whether the export asks for asynchronous resets, also in the domains that are made here."""
    return bool(getattr(platform, "async_reset", False))
