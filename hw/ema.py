"""The exponential moving average of the curvature."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from kappa_rtl.golden.formats import ScalarFormat

from .scalar import Operation, issue, offer, scalar_layout, unit_signature


class Ema(wiring.Component):
    """``keep * average + rho * value``: two products and their sum on the shared unit, each rounded once.

    Ports: ``i`` {average, value}, ``o`` the new average, ``keep`` and ``rho`` constants, ``unit`` the scalar unit.
    Latency: two MUL and one ADD of the unit and 2 cycles for each. Throughput: one average at a time. Reset: idle.
    """

    def __init__(self, *, fmt: ScalarFormat, step_bits: int) -> None:
        scalar = scalar_layout(fmt)
        self._scalar = scalar
        super().__init__(
            {
                "i": In(stream.Signature(data.StructLayout({"average": scalar, "value": scalar}))),
                "o": Out(stream.Signature(scalar)),
                "keep": In(scalar),
                "rho": In(scalar),
                "unit": Out(unit_signature(fmt, step_bits)),
            }
        )

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
