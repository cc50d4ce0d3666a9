"""The throttle unit with its weights on chip: gradients go in, and the apply pass needs no stream at all."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...golden.config import ThrottleConfig
from ..cells.memory import guard, unit_memory
from .core import StreamingThrottle
from .feed import STAGES, Feed, store_residuals
from .ports import pass_on, refuse_direction, unit_ports, vector

COMMAND = wiring.Signature({"valid": Out(1), "ready": In(1)})
"""A handshake that carries nothing."""


class ThrottleEngine(wiring.Component):
    """The core with memories of ceil(N/L) words for gradients, weights and residuals: plain SGD, updated in place.

    Ports: ``load``, ceil(N/L) beats that become theta, all other state staying as it is; ``gradient``, absorbed as it streams in,
    after which the step runs by itself; ``read``, a command that is answered by ceil(N/L) beats of theta on ``stored``;
    ``registers`` out, ``clear``, ``constants``, ``control`` and what else the core has; see
    :class:`~kappa_rtl.hw.units.core.StreamingThrottle`. Between two steps, from the last weight written on, loads and
    commands are accepted, and go before a gradient that is offered in the same cycle; in a step all three wait.

    Each pass touches a word once. The absorb pass reads the word of the previous gradient and writes this one in its
    place; the apply pass reads gradient, weight and residual, and writes weight and residual. The memories need no reset: in the
    first step the previous gradient and the residuals count as zero. A reset in the midst of a load or a step leaves theta
    partly written.

    Throughput: a beat a cycle in each pass. A step takes at most :attr:`step_cycles` when ``gradient`` does not stall.

    Raises:
        ValueError: ``delay`` is 1, which needs one pass with the weights on a stream.
    """

    def __init__(self, config: ThrottleConfig) -> None:
        if config.delay:
            raise ValueError(f"delay must be 0 with the weights on chip, not {config.delay!r}")
        refuse_direction(config)
        config.refuse_segments("with the weights on chip, whose unit has no table of them")
        self.config = config
        self.core = StreamingThrottle(config)
        grids, lanes = config.grids, config.lanes
        widths = {"gradient": grids.gradient.width, "weight": grids.weight.width, "residual": config.residual_bits}
        self.memories = {name: unit_memory(config, width) for name, width in widths.items() if width}
        weights = stream.Signature(vector(grids.weight.width, lanes))
        super().__init__(
            {
                "load": In(weights),
                "gradient": In(stream.Signature(vector(grids.gradient.width, lanes))),
                "read": In(COMMAND),
                "stored": Out(weights),
            }
            | {name: port for name, port in unit_ports(config).items() if name != "updated"}
        )

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        return self.core.overhead + STAGES  # the apply pass waits for the first words that it reads; gradients wait for nothing

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the registers, nothing stalling."""
        return 2 * self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.core = core = self.core
        for name, memory in self.memories.items():
            m.submodules[f"{name}s"] = memory
        gradients, weights, residuals = (self.memories.get(name) for name in ("gradient", "weight", "residual"))
        assert gradients is not None and weights is not None
        pass_on(m, self, core)

        # What a pass reads: from all memories at one address. A gradient from the port goes along with it.
        moves, taken, offered, arrives = Signal(), Signal(), Signal(), Signal()
        feed = Feed(config, self.gradient.payload.shape(), arrives=arrives, takes=False)
        takes, valid = feed.takes, feed.valid
        m.d.comb += [
            moves.eq(~valid[-1] | taken),
            arrives.eq(takes & offered & moves),
        ]
        feed.offer(m, core, gradients)
        m.d.comb += [
            core.apply.payload.weight.eq(weights.read_data),
            core.apply.payload.direction.eq(gradients.read_data),
            self.stored.payload.eq(weights.read_data),
        ]
        feed.write(m, gradients, core.absorb.valid & core.absorb.ready)
        for memory in self.memories.values():
            m.d.comb += [memory.read_address.eq(feed.address), memory.read_output.eq(moves & valid[0])]
        with m.If(moves):
            feed.move(m, ((self.gradient.payload, feed.gradients),))
        feed.count(m)

        # What is written into theta, in order: words that are loaded, or new weights.
        written = Signal.like(feed.address)
        writes, loads = Signal(), Signal()
        m.d.comb += [
            self.load.ready.eq(loads),
            core.updated.ready.eq(1),
            writes.eq(Mux(loads, self.load.valid, core.updated.valid)),
            weights.write.eq(writes),
            weights.write_address.eq(written),
        ]
        data: Any = vector(config.grids.weight.width, config.lanes)(weights.write_data)
        for lane in range(config.lanes):
            loaded: Any = self.load.payload[lane]
            if lane >= config.tail:
                loaded = Mux(written == feed.last, 0, loaded)
            m.d.comb += data[lane].eq(Mux(loads, loaded, core.updated.payload.weight[lane]))
        if residuals is not None:
            m.d.comb += core.apply.payload.residual.eq(residuals.read_data)
            store_residuals(m, core, residuals, written)
        with m.If(writes):
            m.d.sync += written.eq(Mux(written == feed.last, 0, written + 1))
        complete = writes & (written == feed.last)

        if config.parity:
            absorbed, applied = core.absorb.valid & core.absorb.ready, core.apply.valid & core.apply.ready
            used = {gradients: absorbed | applied, weights: applied | (self.stored.valid & self.stored.ready)}
            guard(m, core.memory_fault, used | ({residuals: applied} if residuals is not None else {}))

        # New weights never wait, so the lanes always move: a pass takes a beat whenever it has beats to come. And `takes` of the
        # core is of the pass that the state names, as each begins when the one before it has taken all of its beats.
        with m.FSM():
            with m.State("BETWEEN"):
                m.d.comb += self.read.ready.eq(~self.load.valid)
                with m.If(self.load.valid):
                    m.next = "LOAD"
                with m.Elif(self.read.valid):
                    m.d.sync += takes.eq(1)
                    m.next = "READ"
                with m.Elif(self.gradient.valid):
                    m.d.sync += takes.eq(1)
                    m.next = "ABSORB"
            with m.State("LOAD"):
                m.d.comb += loads.eq(1)
                with m.If(complete):
                    m.next = "BETWEEN"
            with m.State("READ"):
                m.d.comb += [offered.eq(1), weights.read.eq(arrives)]
                m.d.comb += [self.stored.valid.eq(valid[-1]), taken.eq(self.stored.ready)]
                with m.If(feed.ended):
                    m.next = "BETWEEN"
            with m.State("ABSORB"):
                m.d.comb += [
                    offered.eq(self.gradient.valid),
                    self.gradient.ready.eq(takes & moves),
                    gradients.read.eq(arrives),
                    core.absorb.valid.eq(valid[-1]),
                    taken.eq(core.takes),
                ]
                with m.If(feed.ended):  # every word is written before the first one is read again
                    m.d.sync += takes.eq(1)
                    m.next = "APPLY"
            with m.State("APPLY"):
                m.d.comb += [offered.eq(1), core.apply.valid.eq(valid[-1]), taken.eq(core.takes)]
                m.d.comb += [memory.read.eq(arrives) for memory in self.memories.values()]
                with m.If(complete):
                    m.next = "BETWEEN"
        return m
