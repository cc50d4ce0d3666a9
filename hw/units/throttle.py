"""The unit: the core with its gradient memory inside."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In

from ...golden.config import ThrottleConfig
from ..cells.gate import gates
from ..cells.memory import guard, unit_memory
from .core import StreamingThrottle
from .feed import STAGES, Feed, store_residuals
from .ports import pass_on, refuse_direction, unit_ports, vector
from .segments import both

__all__ = ["Throttle"]


class Throttle(wiring.Component):
    """The unit with its gradient memory inside, of ceil(N/L) words: plain SGD, along the gradient that it absorbed.

    Ports: ``gradient`` in, ``weights`` in, ``updated`` {weight, update} out, ``registers`` out, ``clear``, ``constants``,
    ``control``; see :class:`StreamingThrottle`. Weights are accepted once the whole gradient is in, at most two beats before
    the step is decided. The memory needs no reset: in the first step the previous gradient counts as zero.

    With ``residual_bits`` the residuals are memory beside the gradients: read with them in the apply pass, and written as the
    weights leave.

    Throughput: a beat a cycle in both passes; four cycles a step more than the streaming core.
    """

    Core: type[StreamingThrottle] = StreamingThrottle

    def __init__(self, config: ThrottleConfig) -> None:
        refuse_direction(config)
        if config.segments and config.parity:
            raise ValueError("parity must be false with segments, not True: words that a layout does not use are never written")
        self.config = config
        self.core = self.Core(config, tagged=True) if config.segments else self.Core(config)
        g, w, *_ = config.grids
        super().__init__(
            {
                "gradient": In(stream.Signature(vector(g.width, config.lanes))),
                "weights": In(stream.Signature(vector(w.width, config.lanes))),
            }
            | unit_ports(config)
        )

    @property
    def overhead(self) -> int:
        """The most cycles of a step beyond its 2 * ceil(N/L) beats."""
        return self.core.overhead + 2 * STAGES  # each pass waits for the first word that it reads

    @property
    def step_cycles(self) -> int:
        """The most cycles from the first beat of a gradient to the registers, streams never stalling."""
        return 2 * self.config.beats + self.overhead

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        config = self.config
        m.submodules.core = core = self.core
        m.submodules.memory = memory = unit_memory(config, config.grids.gradient.width)

        pass_on(m, self, core)

        # The stages hold gradients or weights, never both: so no weight's direction is read before the gradient is stored, and no
        # word in the cycle in which it is written. For the sake of the clock a pass ends by registers, and begins a cycle late.
        arrives = Signal()
        feed = Feed(config, self.gradient.payload.shape(), self.weights.payload.shape(), arrives=arrives, takes=True)
        takes, valid = feed.takes, feed.valid
        weighs = Signal()  # the beats of this pass are weights
        # A gate for four lanes each, and one for all else: a single one would be far from most of the registers that it moves.
        move = gates(
            m,
            "moves",
            -(-config.lanes // 4) + 1,
            lambda takes, empty, ready, blocked: empty or ready if takes else not blocked,
            core.takes,
            core.update.empty,
            self.updated.ready,
            valid[-1],
        )
        moves = move[-1]
        offered = takes & Mux(weighs, self.weights.valid, self.gradient.valid)
        feed.look_up(m, getattr(self, "layout", None), offered, moves)
        m.d.comb += [
            arrives.eq(both(offered, feed.known)),
            self.gradient.ready.eq(both(takes & ~weighs & moves, feed.known)),
            self.weights.ready.eq(both(takes & weighs & moves, feed.known)),
            core.absorb.valid.eq(valid[-1] & ~weighs),
        ]
        feed.offer(m, core, memory)
        m.d.comb += [
            core.apply.valid.eq(valid[-1] & weighs),
            core.apply.payload.weight.eq(feed.weights[-1]),
            core.apply.payload.direction.eq(memory.read_data),
        ]
        feed.read(m, memory, moves, moves)
        feed.write(m, memory, core.absorb.valid)  # in each cycle in which the gradient waits: it is the same word
        with m.If(moves):
            feed.move(m)
            m.d.sync += [
                feed.address.eq(feed.address + arrives),
                takes.eq((takes & ~(arrives & feed.ends)) | feed.ended),
                weighs.eq(weighs ^ feed.ended),  # where all have left the stages move
            ]
        for lane in range(config.lanes):
            with m.If(move[lane // 4]):
                for stages, word in ((feed.gradients, self.gradient.payload), (feed.weights, self.weights.payload)):
                    for register, before in zip(stages, [word, *stages], strict=False):
                        m.d.sync += register[lane].eq(before[lane])
        with m.If(feed.ended):
            m.d.sync += feed.address.eq(0)
        if config.residual_bits:
            residuals = self._keep_residuals(m, feed, reads=moves & weighs, moves=moves)
        if config.parity:
            taken = valid[-1] & moves
            guard(m, core.memory_fault, {memory: taken} | ({residuals: taken & weighs} if config.residual_bits else {}))
        return m

    def _keep_residuals(self, m: Module, feed: Feed, *, reads: Value, moves: Value) -> Any:
        """The residuals' memory: read as the beats enter, written in order as the updates leave."""
        config, core = self.config, self.core
        m.submodules.residuals = residuals = unit_memory(config, config.residual_bits)
        written = Signal(range(max(2, config.words)))
        m.d.comb += core.apply.payload.residual.eq(residuals.read_data)
        feed.read(m, residuals, reads, moves)
        store_residuals(m, core, residuals, written)
        with m.If(core.updated.valid & core.updated.ready):
            last = core.update.o.payload.last if config.segments else written == feed.last
            m.d.sync += written.eq(Mux(last, 0, written + 1))
        return residuals
