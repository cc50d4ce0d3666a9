"""The exponential moving average of the curvature."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .scalar import Operation, ScalarUnit, scalar_layout
from .shared import issue, offer


class Ema(wiring.Component):
    """``keep * average + rho * value``: two products and their sum on the shared unit, each rounded once.

    Args:
        shared: the scalar unit that ``unit`` will lead to.

    Ports: ``i`` {average, value}, ``o`` the new average, ``keep`` and ``rho`` constants, ``unit`` to the scalar unit.
    Throughput: one average at a time. Reset: idle.
    """

    def __init__(self, shared: ScalarUnit) -> None:
        scalar = scalar_layout(shared.fmt)
        self._scalar, self._shared = scalar, shared
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"average": scalar, "value": scalar}))),
                "o": Out(stream.Signature(scalar)),
                "keep": In(scalar),
                "rho": In(scalar),
                "unit": Out(shared.client),
            }
        )

    @property
    def latency(self) -> int:
        """The most cycles from taking a value to offering the average, while no other client asks the unit."""
        return self._shared.latencies(Operation.MUL, Operation.MUL, Operation.ADD)

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        kept = Signal(self._scalar, reset_less=True)
        added = Signal(self._scalar, reset_less=True)
        m.d.comb += self.o.payload.eq(kept)
        requests = []
        with m.FSM() as fsm:
            requests.append(issue(m, self.unit, "KEEP", Operation.MUL, self.keep, kept, kept, "WEIGH", when=self.i.valid))
            requests.append(issue(m, self.unit, "WEIGH", Operation.MUL, self.rho, added, added, "JOIN"))
            requests.append(issue(m, self.unit, "JOIN", Operation.ADD, kept, added, kept, "RESPOND"))
            with m.State("RESPOND"):
                m.d.comb += self.o.valid.eq(1)
                with m.If(self.o.ready):
                    m.next = "KEEP"
        with m.If(fsm.ongoing("KEEP")):
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [kept.eq(self.i.payload.average), added.eq(self.i.payload.value)]
        offer(m, self.unit, requests)
        return m
