"""The unit on AXI as a LiteX module, and a small system around it.

::

    kappa-rtl export --config examples/verilog/throttle.toml --bus axi -o throttle_axi.v
    python examples/litex/throttle.py throttle_axi.v        # writes build/litex/gateware/system.v
    python examples/litex/throttle.py throttle_axi.v build/litex wishbone       # the same on another of LiteX's three buses

In a system of one's own::

    self.throttle = Throttle("throttle_axi.v", platform)
    self.bus.add_slave("throttle", self.throttle.bus, SoCRegion(origin=0x9000_0000, size=0x1000, cached=False))
    self.irq.add("throttle")
    self.comb += reader.source.connect(self.throttle.gradient)
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from litex.build.generic_platform import Pins
from litex.build.sim import SimPlatform
from litex.gen import LiteXModule
from litex.soc.integration.builder import Builder
from litex.soc.integration.soc import SoCRegion
from litex.soc.integration.soc_core import SoCMini
from litex.soc.interconnect import axi
from litex.soc.interconnect.csr_eventmanager import EventManager, EventSourceLevel
from migen import ClockSignal, Instance, ResetSignal, Signal
from migen.genlib.io import CRG

BUSES = ("axi-lite", "axi", "wishbone")
ADDRESS_BITS = 12
"""Of the unit's registers."""


class Throttle(LiteXModule):
    """The exported module ``throttle_axi``, in the clock domain ``sys``.

    Args:
        verilog: what ``kappa-rtl export --bus axi`` wrote; the manifest beside it gives the widths.
        platform: takes the Verilog as a source, if it is given.

    Attributes:
        bus: AXI4-Lite, the registers of the page beside the Verilog; a region of 4 KiB. It has the 32 address bits of LiteX's
            bus, which LiteX's bridges insist on; the unit looks at the low ones.
        gradient, weights: AXI4-Streams in, a vector of N elements each step.
        updated: AXI4-Stream out, the new weights.
        learning_dead: the flag as the last step left it.
    """

    def __init__(self, verilog: str | Path, platform: Any = None) -> None:
        manifest = json.loads(Path(verilog).with_suffix(".json").read_text())
        streams = manifest["streams"]

        def vector(port: str) -> Any:
            return axi.AXIStreamInterface(data_width=streams[port]["lanes"] * streams[port]["field_bits"])

        self.bus = bus = axi.AXILiteInterface(data_width=32, address_width=32)
        self.gradient = vector("s_axis_gradient")
        self.weights = vector("s_axis_weights")
        self.updated = vector("m_axis_updated")
        self.learning_dead = Signal()
        self.ev = EventManager()
        self.ev.throttle = EventSourceLevel(description="An event is up in irq_status and in irq_enable.")
        self.ev.finalize()

        ports: dict[str, Any] = {
            "i_clk": ClockSignal(),
            "i_rst": ResetSignal(),
            "o_irq": self.ev.throttle.trigger,
            "o_learning_dead": self.learning_dead,
        }
        for channel, fields, inward in (
            ("aw", ("addr", "prot"), True),
            ("w", ("data", "strb"), True),
            ("b", ("resp",), False),
            ("ar", ("addr", "prot"), True),
            ("r", ("data", "resp"), False),
        ):
            endpoint = getattr(bus, channel)
            given, taken = ("i", "o") if inward else ("o", "i")
            ports[f"{given}_s_axi_{channel}valid"] = endpoint.valid
            ports[f"{taken}_s_axi_{channel}ready"] = endpoint.ready
            for field in fields:
                wire = getattr(endpoint, field)
                ports[f"{given}_s_axi_{channel}{field}"] = wire[:ADDRESS_BITS] if field == "addr" else wire
        for port, endpoint, given, taken in (
            ("s_axis_gradient", self.gradient, "i", "o"),
            ("s_axis_weights", self.weights, "i", "o"),
            ("m_axis_updated", self.updated, "o", "i"),
        ):
            ports[f"{given}_{port}_tdata"] = endpoint.data
            ports[f"{given}_{port}_tlast"] = endpoint.last
            ports[f"{given}_{port}_tvalid"] = endpoint.valid
            ports[f"{taken}_{port}_tready"] = endpoint.ready
        ports["o_m_axis_updated_tkeep"] = self.updated.keep
        self.specials += Instance(manifest["module"], **ports)
        if platform is not None:
            platform.add_source(str(verilog))


class System(SoCMini):  # type: ignore[misc]
    """A system without a processor: a host on AXI4-Lite reaches the registers, the vectors are pins.

    Args:
        verilog: what ``kappa-rtl export --bus axi`` wrote.
        bus: the bus between the host and the unit, ``axi-lite``, ``axi`` or ``wishbone``; LiteX puts its bridges to both.
    """

    def __init__(self, verilog: str | Path, bus: str = "axi-lite") -> None:
        platform = SimPlatform("SIM", [("sys_clk", 0, Pins(1)), ("sys_rst", 0, Pins(1))])
        super().__init__(platform, clk_freq=int(100e6), bus_standard=bus, ident="kappa-rtl")
        self.crg = CRG(platform.request("sys_clk"), rst=platform.request("sys_rst"))
        self.throttle = Throttle(verilog, platform)
        self.bus.add_slave("throttle", self.throttle.bus, SoCRegion(origin=0x9000_0000, size=0x1000, cached=False))
        host = axi.AXILiteInterface(data_width=32, address_width=32)
        self.bus.add_master("host", host)
        for name, interface, mode in (
            ("host", host, "slave"),
            ("gradient", self.throttle.gradient, "slave"),
            ("weights", self.throttle.weights, "slave"),
            ("updated", self.throttle.updated, "master"),
        ):
            platform.add_extension(interface.get_ios(name))
            self.comb += interface.connect_to_pads(platform.request(name), mode=mode)


def main(verilog: str, folder: str = "build/litex", bus: str = "axi-lite") -> None:
    """Write the system's Verilog, its map and its headers."""
    if bus not in BUSES:
        sys.exit(f"error: bus must be one of {', '.join(BUSES)}, not {bus!r}")
    system = System(verilog, bus)
    Builder(system, output_dir=folder, compile_software=False).build(build=False, run=False)  # finalises it, and writes its map
    gateware = Path(folder) / "gateware"
    gateware.mkdir(parents=True, exist_ok=True)
    made = system.platform.get_verilog(system, name="system")
    for name, text in {"system.v": made.main_source, **made.data_files}.items():  # with what its memories read as they start
        (gateware / name).write_text(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
